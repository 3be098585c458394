//! What a session does now, and how much it has done: written by its own task only, read by whoever looks.
//!
//! Nothing here costs a query more than a few plain stores. What would cost more (rows so far, how far each shard is) is told only when
//! somebody asks for it, see [`super::Registry::look`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;

/// A session keeps the text of its last statement up to this length, as a help to whoever looks; a longer one goes with its end.
const TEXT_BYTES_KEPT: usize = 4096;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Between two statements, outside of a transaction.
    Idle,
    /// A message of its client is being answered.
    Active,
    /// Between two statements of a transaction.
    InTransaction,
    /// The same, of one that has failed.
    InFailedTransaction,
    /// Active, and waiting until a shard lends it a connection.
    Waiting,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Idle,
        Self::Active,
        Self::InTransaction,
        Self::InFailedTransaction,
        Self::Waiting,
    ];

    /// PostgreSQL's words, where it has them.
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::InTransaction => "idle in transaction",
            Self::InFailedTransaction => "idle in transaction (aborted)",
            Self::Waiting => "waiting",
        }
    }
}

/// How far a statement is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows given to the client.
    pub rows: u64,
    /// Its parts on the shards.
    pub shards: Vec<ShardProgress>,
}

/// How far one step is on one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardProgress {
    /// Its place in the configuration.
    pub shard: u16,
    /// It is the last step, on a merge session there.
    pub merge: bool,
    /// From when its part was sent to its first row.
    pub first_row: Option<Duration>,
    /// The same to its last row so far, or to its end.
    pub last: Option<Duration>,
    /// Rows it has sent.
    pub rows: u64,
    /// It has sent all.
    pub done: bool,
}

/// A step of a plan, as it may be shown: without literals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlanStep {
    /// Its name, and what it does: `Remote on 3 of 3 shards`.
    pub step: String,
    /// What it runs or goes by, where there is such a text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Whose rows it takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<PlanStep>,
}

/// A plan that can be shown. It is made into text only for who looks.
pub trait Outline: std::fmt::Debug + Send + Sync {
    /// The tree for this many shards.
    fn outline(&self, shards: usize) -> PlanStep;
}

/// What a session has done since it logged in, or all of them since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Statements.
    pub queries: u64,
    /// Transactions that have ended, those of a single statement included.
    pub transactions: u64,
    /// Time in them.
    pub transaction_nanoseconds: u64,
    /// Parse messages.
    pub parses: u64,
    /// Bind messages.
    pub binds: u64,
    /// Bytes the client has sent.
    pub received: u64,
    /// Bytes the client was sent.
    pub sent: u64,
}

/// A count that one task alone adds to: no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; to be called by one task only.
    #[inline]
    pub fn add(&self, n: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(n);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// As of now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes of a client; counted by its socket from the first one on.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client.
    pub received: Count,
    /// To the client.
    pub sent: Count,
}

/// What one session does and has done.
#[derive(Debug)]
pub struct Activity {
    state: AtomicU8,
    waiting: AtomicBool,
    statement: Mutex<Option<Statement>>,
    /// With when it was told.
    progress: Mutex<Option<(Instant, Progress)>>,
    plan: Mutex<Option<Arc<dyn Outline>>>,
    pub(super) told: Notify,
    queries: Count,
    transactions: Count,
    transaction_nanoseconds: Count,
    /// Parse messages.
    pub parses: Count,
    /// Bind messages.
    pub binds: Count,
    traffic: Arc<Traffic>,
}

/// A statement that runs, or the last one that ran.
#[derive(Debug, Clone)]
pub struct Statement {
    /// As the session has it, literals included: never to be shown or logged like this.
    pub sql: Arc<str>,
    /// See [`Activity::begin`].
    pub kind: u8,
    /// When it began.
    pub since: Instant,
}

/// The kind of a statement that is being planned.
pub const PLANNING: u8 = u8::MAX;

impl Activity {
    /// Idle from now on.
    pub fn new(traffic: Arc<Traffic>) -> Self {
        Self {
            state: AtomicU8::new(State::Idle as u8),
            waiting: AtomicBool::new(false),
            statement: Mutex::new(None),
            progress: Mutex::new(None),
            plan: Mutex::new(None),
            told: Notify::new(),
            queries: Count::default(),
            transactions: Count::default(),
            transaction_nanoseconds: Count::default(),
            parses: Count::default(),
            binds: Count::default(),
            traffic,
        }
    }

    /// The session stands here from now on.
    #[inline]
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// A statement begins to run. `kind` is a number for its kind.
    #[inline]
    pub fn begin(&self, kind: u8, since: Instant, sql: &Arc<str>) {
        self.queries.add(1);
        self.show(kind, since, sql);
    }

    /// The same, of one that is not counted: it is being planned, or waits for its connection.
    #[inline]
    pub fn show(&self, kind: u8, since: Instant, sql: &Arc<str>) {
        let mut statement = self.statement.lock();
        match &mut *statement {
            // Most often the one before was the same.
            Some(same) if Arc::ptr_eq(&same.sql, sql) => (same.kind, same.since) = (kind, since),
            other => {
                let sql = sql.clone();
                *other = Some(Statement { sql, kind, since });
            }
        }
    }

    /// The statement has ended.
    #[inline]
    pub fn end(&self, text_bytes: usize) {
        if text_bytes > TEXT_BYTES_KEPT {
            *self.statement.lock() = None;
        }
    }

    /// A transaction has ended.
    #[inline]
    pub fn end_transaction(&self, duration: Duration) {
        self.transactions.add(1);
        let nanoseconds = duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos());
        self.transaction_nanoseconds.add(nanoseconds);
    }

    /// The session waits for a connection from now on, or does not wait any more.
    pub fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Tells how far the statement is: somebody has asked. `plan` is there where it runs by more than one step.
    pub fn tell(&self, progress: Progress, plan: Option<Arc<dyn Outline>>) {
        *self.progress.lock() = Some((Instant::now(), progress));
        *self.plan.lock() = plan;
        self.told.notify_waiters();
    }

    /// The plan it was told with, given up: nobody keeps it longer than it takes to show it.
    pub fn take_plan(&self) -> Option<Arc<dyn Outline>> {
        self.plan.lock().take()
    }

    /// What it has told of the statement it runs, the last time.
    pub fn progress(&self) -> Option<Progress> {
        let began = self.statement.lock().as_ref().map(|s| s.since);
        let (told, progress) = self.progress.lock().clone()?;
        began.is_none_or(|began| told >= began).then_some(progress)
    }

    /// Where the session stands.
    pub fn state(&self) -> State {
        let state = self.state.load(Ordering::Relaxed);
        let state = State::ALL.into_iter().find(|s| *s as u8 == state);
        match state.unwrap_or(State::Idle) {
            State::Active if self.waiting.load(Ordering::Relaxed) => State::Waiting,
            state => state,
        }
    }

    /// The statement it runs, or the last one.
    pub fn statement(&self) -> Option<Statement> {
        self.statement.lock().clone()
    }

    /// What it has done so far.
    pub fn totals(&self) -> Totals {
        Totals {
            queries: self.queries.value(),
            transactions: self.transactions.value(),
            transaction_nanoseconds: self.transaction_nanoseconds.value(),
            parses: self.parses.value(),
            binds: self.binds.value(),
            received: self.traffic.received.value(),
            sent: self.traffic.sent.value(),
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.queries += other.queries;
        self.transactions += other.transactions;
        self.transaction_nanoseconds += other.transaction_nanoseconds;
        self.parses += other.parses;
        self.binds += other.binds;
        self.received += other.received;
        self.sent += other.sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_goes_with_its_end() {
        let activity = Activity::new(Arc::default());
        for (text, kept) in [("select 1".to_owned(), true), ("x".repeat(5000), false)] {
            let sql: Arc<str> = text.as_str().into();
            activity.begin(0, Instant::now(), &sql);
            assert!(activity.statement().is_some());
            activity.end(sql.len());
            assert_eq!(activity.statement().is_some(), kept);
        }
        assert_eq!(activity.totals().queries, 2);
    }

    #[test]
    fn what_was_told_of_another_statement_is_not_shown() {
        let activity = Activity::new(Arc::default());
        activity.begin(0, Instant::now(), &"select 1".into());
        activity.tell(Progress::default(), None);
        assert_eq!(activity.progress(), Some(Progress::default()));
        let later = Instant::now() + Duration::from_secs(1);
        activity.begin(0, later, &"select 2".into());
        assert_eq!(activity.progress(), None);
    }

    #[test]
    fn only_who_is_active_waits() {
        let activity = Activity::new(Arc::default());
        activity.set_waiting(true);
        assert_eq!(activity.state(), State::Idle);
        activity.set_state(State::Active);
        assert_eq!(activity.state(), State::Waiting);
        activity.set_waiting(false);
        assert_eq!(activity.state(), State::Active);
    }
}
