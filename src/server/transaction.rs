//! The client's transaction block: what the session must tell every shard that joins it, and what a rollback undoes.

use std::collections::BTreeSet;

use super::serializable::Serial;
use super::settings::Settings;
use crate::plan::ShardId;

/// Where the session stands, as ReadyForQuery tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Block {
    #[default]
    Idle,
    Open,
    Failed,
}

impl Block {
    /// `I`, `T` or `E`.
    pub fn status(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

/// What a statement shares its message, and so its transaction, with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Company {
    #[default]
    Alone,
    /// Other statements of one Query.
    Message,
    /// The first of several Executes up to a Sync.
    Opening,
    /// Executes before it since the last Sync.
    Pipeline,
}

/// Whose now() a transaction shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Proxy,
    Shard(ShardId),
}

/// Values that SET and SET LOCAL have made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    pub settings: Settings,
    local: Vec<(String, String)>,
}

/// A transaction block over the shards it has touched so far; shards join when a statement first needs them.
#[derive(Debug, Default)]
pub struct Transaction {
    pub block: Block,
    /// Nobody said BEGIN: it ends with the message of several statements, or the pipeline, that it belongs to.
    pub implicit: bool,
    /// The client's BEGIN, and SET TRANSACTION statements behind it.
    begin: Vec<String>,
    /// Savepoints in order, each with what was in force when it was set.
    savepoints: Vec<(String, InForce)>,
    /// `SET LOCAL` values, which a shard that joins later needs too.
    local: Vec<(String, String)>,
    /// The session's settings when the block began.
    before: Settings,
    /// Names that SET, SET LOCAL and RESET have been said of in it, in lower case. What a shard's connection had of them outside
    /// of the block depends on when it joined.
    touched: BTreeSet<String>,
    /// now() of the transaction, microseconds since 2000-01-01 UTC; `None` until a statement asks.
    pub timestamp: Option<i64>,
    /// Whose now() has been shown so far.
    pub clock: Option<Clock>,
    /// A statement may have left something in it that ends with it: locks, changes, settings made by functions.
    pub is_tied: bool,
    /// As `is_tied`, before the statement in hand.
    pub was_tied: bool,
    /// The one shard on which it has changed something.
    pub writer: Option<ShardId>,
    /// Shards that were in it are not any more: a statement had a snapshot of its own.
    pub has_left: bool,
    /// How it keeps to SERIALIZABLE.
    pub serial: Serial,
}

impl InForce {
    /// What takes any shard of the block here, as far as these settings go. One that joined behind a savepoint has its values from
    /// before it, whatever they were at the time: going back to the savepoint takes it to those.
    pub fn catch_up(&self, names: &BTreeSet<String>) -> Vec<String> {
        let text = |name: &String| {
            let (value, local) = self.values(name);
            let value = match value {
                Some(value) => super::settings::set_config(name, value, false),
                None => format!("RESET {}", quote_name(name)),
            };
            let local = local.map(|l| super::settings::set_config(name, l, true));
            [Some(value), local]
        };
        names.iter().flat_map(text).flatten().collect()
    }

    /// The value of SET and that of SET LOCAL.
    fn values(&self, name: &str) -> (Option<&str>, Option<&str>) {
        let mut locals = self.local.iter().rev();
        let local = locals.find(|(n, _)| n.eq_ignore_ascii_case(name));
        (self.settings.get(name), local.map(|(_, v)| v.as_str()))
    }
}

/// A setting's name, which may have parts.
pub fn quote_name(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(quote_identifier).collect();
    parts.join(".")
}

impl Transaction {
    /// Opens a block; `before` are the settings that a rollback goes back to. What the message has shown of now() stays.
    pub fn open(&mut self, begin: &str, before: Settings) {
        let isolation = before.get("default_transaction_isolation");
        // The default is that of now, also for shards that join once it is another.
        let isolation = isolation
            .filter(|_| level_of(begin).is_none())
            .and_then(|level| set_transaction("transaction_isolation", level));
        *self = Self {
            block: Block::Open,
            begin: std::iter::once(begin.to_owned()).chain(isolation).collect(),
            before,
            timestamp: self.timestamp,
            clock: self.clock,
            ..Self::default()
        };
    }

    /// Opens the block that the statements of one message share.
    pub fn open_implicit(&mut self, before: Settings) {
        self.open("BEGIN", before);
        self.implicit = true;
    }

    /// The next statement begins another implicit transaction.
    pub fn forget_clock(&mut self) {
        self.timestamp = None;
        self.clock = None;
    }

    /// Adds a SET TRANSACTION that shards joining later must hear behind BEGIN.
    pub fn add_characteristics(&mut self, sql: &str) {
        self.begin.push(sql.to_owned());
    }

    /// Notes that a setting is changed in the block.
    pub fn touch(&mut self, name: &str) {
        if self.block != Block::Idle {
            self.touched.insert(name.to_ascii_lowercase());
        }
    }

    /// Notes that all settings are, by RESET ALL, which ends SET LOCAL too.
    pub fn touch_all(&mut self, settings: &Settings) {
        let locals = std::mem::take(&mut self.local).into_iter().map(|(n, _)| n);
        let names = settings.of_shards().map(|(n, _)| n.to_owned());
        for name in names.chain(locals) {
            self.touch(&name);
        }
    }

    /// Settings that were changed in the block.
    pub fn touched(&self) -> &BTreeSet<String> {
        &self.touched
    }

    /// True behind a SAVEPOINT.
    pub fn has_savepoints(&self) -> bool {
        !self.savepoints.is_empty()
    }

    /// How many savepoints there are.
    pub fn depth(&self) -> usize {
        self.savepoints.len()
    }

    pub fn add_local(&mut self, name: &str, value: &str) {
        self.local.push((name.to_owned(), value.to_owned()));
    }

    /// The message that takes a connection into the block as it stands now; each statement a simple Query of its own.
    pub fn join(&self) -> Vec<String> {
        let locals = self
            .local
            .iter()
            .map(|(n, v)| super::settings::set_config(n, v, true));
        let savepoints = self
            .savepoints
            .iter()
            .map(|(name, _)| format!("SAVEPOINT {}", quote_identifier(name)));
        self.begin
            .iter()
            .cloned()
            .chain(locals)
            .chain(savepoints)
            .collect()
    }

    pub fn savepoint(&mut self, name: &str, settings: &Settings) {
        let now = self.in_force(settings);
        self.savepoints.push((name.to_owned(), now));
    }

    /// What is in force now, with the session's settings.
    pub fn in_force(&self, settings: &Settings) -> InForce {
        InForce {
            settings: settings.clone(),
            local: self.local.clone(),
        }
    }

    /// Drops a savepoint and those behind it; false when there is none of that name.
    pub fn release(&mut self, name: &str) -> bool {
        let found = self.savepoints.iter().rposition(|(n, _)| n == name);
        found.is_some_and(|at| {
            self.savepoints.truncate(at);
            true
        })
    }

    /// Goes back to a savepoint, which stays: what was in force then.
    pub fn rollback_to(&mut self, name: &str) -> Option<InForce> {
        let at = self.savepoints.iter().rposition(|(n, _)| n == name)?;
        self.savepoints.truncate(at + 1);
        self.block = Block::Open;
        let then = self.savepoints[at].1.clone();
        self.local.clone_from(&then.local);
        Some(then)
    }

    /// BEGIN and what follows it, for the block that AND CHAIN opens.
    pub fn begin_texts(&self) -> Vec<String> {
        self.begin.clone()
    }

    /// Opens the block that AND CHAIN asked for; the shards that were in the last one are in this one already.
    pub fn open_chained(&mut self, begin: Vec<String>, settings: &Settings) {
        *self = Self {
            block: Block::Open,
            begin,
            before: settings.clone(),
            ..Self::default()
        };
    }

    /// A SET behind a SET LOCAL of the same name replaces it.
    pub fn remove_local(&mut self, name: &str) {
        self.local.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// `SET LOCAL` values in force, the last of a name counting.
    pub fn locals(&self) -> impl Iterator<Item = (&str, &str)> {
        self.local.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// A `SET LOCAL` value in force.
    pub fn local(&self, name: &str) -> Option<&str> {
        self.local
            .iter()
            .rev()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// The local values as a number that plans are cached by; 0 for none.
    pub fn local_mark(&self) -> u64 {
        let mut settings = Settings::default();
        self.local
            .iter()
            .for_each(|(n, v)| settings.set(n, v.clone()));
        settings.planning_mark()
    }

    /// Ends the block. After a rollback the session's settings are those from before it.
    pub fn close(&mut self, committed: bool) -> Option<Settings> {
        let before = std::mem::take(self).before;
        (!committed).then_some(before)
    }

    /// True for isolation levels under which each shard gives every statement of the block one snapshot.
    pub fn keeps_snapshot(&self) -> bool {
        matches!(
            self.level(),
            Some(Level::RepeatableRead | Level::Serializable)
        )
    }

    /// The isolation level that the block's modes name, the last word counting.
    fn level(&self) -> Option<Level> {
        self.begin.iter().rev().find_map(|sql| level_of(sql))
    }

    /// What the block's modes say about changes, the last word counting; `None` where they say nothing.
    pub fn is_read_only(&self) -> Option<bool> {
        self.begin.iter().rev().find_map(|sql| {
            let upper = sql.to_ascii_uppercase();
            match (upper.rfind("READ ONLY"), upper.rfind("READ WRITE")) {
                (None, None) => None,
                (only, write) => Some(only > write),
            }
        })
    }

    /// True when the client asked for SERIALIZABLE, which is more than each shard can promise by itself.
    pub fn is_serializable(&self) -> bool {
        self.level() == Some(Level::Serializable)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Committed,
    RepeatableRead,
    Serializable,
}

/// The last isolation level in BEGIN or SET TRANSACTION.
fn level_of(sql: &str) -> Option<Level> {
    let upper = sql.to_ascii_uppercase();
    let levels = [
        ("COMMITTED", Level::Committed),
        ("REPEATABLE", Level::RepeatableRead),
        ("SERIALIZABLE", Level::Serializable),
    ];
    let found = levels.map(|(word, level)| upper.rfind(word).map(|at| (at, level)));
    let last = found.into_iter().flatten().max_by_key(|(at, _)| *at);
    last.map(|(_, level)| level)
}

/// SET of a setting that says what SET TRANSACTION says, in its words; `None` for other settings and values.
pub fn set_transaction(name: &str, value: &str) -> Option<String> {
    let value = value.trim().to_ascii_uppercase();
    let truth = match value.as_str() {
        "ON" | "TRUE" | "YES" | "1" => Some(true),
        "OFF" | "FALSE" | "NO" | "0" => Some(false),
        _ => None,
    };
    let levels = [
        "READ UNCOMMITTED",
        "READ COMMITTED",
        "REPEATABLE READ",
        "SERIALIZABLE",
    ];
    let mode = match name.to_ascii_lowercase().as_str() {
        "transaction_isolation" => {
            let level = levels.into_iter().find(|l| *l == value)?;
            format!("ISOLATION LEVEL {level}")
        }
        "transaction_read_only" if truth? => "READ ONLY".into(),
        "transaction_read_only" => "READ WRITE".into(),
        "transaction_deferrable" if truth? => "DEFERRABLE".into(),
        "transaction_deferrable" => "NOT DEFERRABLE".into(),
        _ => return None,
    };
    Some(format!("SET TRANSACTION {mode}"))
}

/// Microseconds from 2000-01-01 UTC to now.
pub fn now() -> i64 {
    const UNIX_TO_2000: i64 = 946_684_800_000_000;
    let unix = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    unix.as_micros() as i64 - UNIX_TO_2000
}

/// An identifier in double quotes.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_shard_hears_begin_locals_and_savepoints() {
        let mut t = Transaction::default();
        t.open("BEGIN ISOLATION LEVEL REPEATABLE READ", Settings::default());
        t.add_local("work_mem", "1MB");
        t.savepoint("a b", &Settings::default());
        assert_eq!(
            t.join(),
            [
                "BEGIN ISOLATION LEVEL REPEATABLE READ",
                "SELECT pg_catalog.set_config('work_mem', '1MB', true)",
                "SAVEPOINT \"a b\""
            ]
        );
        assert!(t.keeps_snapshot());
    }

    #[test]
    fn rollback_restores_settings_and_commit_keeps_them() {
        let mut before = Settings::default();
        before.set("timezone", "UTC".into());
        let mut t = Transaction::default();
        t.open("BEGIN", before.clone());
        assert_eq!(t.close(false), Some(before.clone()));
        t.open("BEGIN", before.clone());
        assert_eq!(t.close(true), None);
        assert_eq!(t.block, Block::Idle);
    }

    #[test]
    fn rollback_to_keeps_the_savepoint_and_drops_later_ones() {
        let mut t = Transaction::default();
        t.open("BEGIN", Settings::default());
        t.savepoint("a", &Settings::default());
        t.savepoint("b", &Settings::default());
        t.block = Block::Failed;
        assert!(t.rollback_to("a").is_some());
        assert_eq!(t.block, Block::Open);
        assert!(!t.release("b"));
        assert!(t.release("a"));
    }
}
