//! A session's settings: what the client has SET, and how a shared connection is brought to the same state.
//!
//! Values are kept as `current_setting` prints them, because `set_config` reads that form back, lists included.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use super::own_settings::add_own;
use crate::metrics::Reason;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

/// Names whose values the client is told of (`GUC_REPORT` in PostgreSQL 15, plus those of later versions).
pub const REPORTED: [&str; 15] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "scram_iterations",
    "search_path",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// Settings that change neither what a statement means nor what a whole answer is: plans are shared over them.
const HARMLESS: [&str; 15] = [
    "application_name",
    "client_encoding",
    "client_min_messages",
    "deadlock_timeout",
    "default_transaction_deferrable",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "lock_timeout",
    "log_min_duration_statement",
    "maintenance_work_mem",
    "pgbraid.explain_routing",
    "pgbraid.partial_results",
    "statement_timeout",
    "work_mem",
];

/// Settings that differ from those of a fresh shard connection, by lower-case name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
    mark: u64,
    planning_mark: u64,
}

impl Settings {
    /// Identifies these values on a connection that has them; 0 for none. Two marks are equal only for equal values: the
    /// hash is keyed with this process' own random keys.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// As `mark`, of the values that a plan or a statement's meaning may depend on.
    pub fn planning_mark(&self) -> u64 {
        self.planning_mark
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(&name.to_ascii_lowercase())
            .map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Those that shard connections have too: all but the client's encoding.
    pub fn of_shards(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(|(name, _)| *name != "client_encoding")
    }

    pub fn set(&mut self, name: &str, value: String) {
        self.values.insert(name.to_ascii_lowercase(), value);
        self.remark();
    }

    pub fn remove(&mut self, name: &str) {
        self.values.remove(&name.to_ascii_lowercase());
        self.remark();
    }

    fn remark(&mut self) {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        let keys = KEYS.get_or_init(RandomState::new);
        let replayed: Vec<_> = self.of_shards().collect();
        self.mark = match replayed.is_empty() {
            true => 0,
            false => keys.hash_one(&replayed).max(1),
        };
        let meaningful: Vec<_> = self
            .values
            .iter()
            .filter(|(name, _)| !HARMLESS.contains(&name.as_str()))
            .collect();
        self.planning_mark = match meaningful.is_empty() {
            true => 0,
            false => keys.hash_one(&meaningful).max(1),
        };
    }

    /// As `replay`, for a connection of which nobody knows what was done on it: the role is the one that logged in again.
    pub fn take_over(&self) -> String {
        // No RESET ALL does this. The first one leaves no role set, the second one sets that which the login role has by default.
        format!("RESET SESSION AUTHORIZATION; RESET ROLE; {}", self.replay())
    }

    /// The statements that bring any connection to these settings: everything else goes back to its default first.
    pub fn replay(&self) -> String {
        let mut sql = String::from("RESET ALL");
        for (name, value) in self.of_shards() {
            sql.push_str("; ");
            sql.push_str(&set_config(name, value, false));
        }
        sql
    }
}

/// `SELECT pg_catalog.set_config(…)` with both texts quoted.
pub fn set_config(name: &str, value: &str, local: bool) -> String {
    format!(
        "SELECT pg_catalog.set_config({}, {}, {local})",
        quote(name),
        quote(value)
    )
}

/// An SQL string literal that means the same under any standard_conforming_strings.
pub fn quote(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

/// Splits a startup packet's parameters into settings; `options` (`-c name=value`) is taken apart.
///
/// # Errors
/// 0A000 for replication and for client encodings of several bytes a character, 22023 for unknown ones, 42601 for options that are not
/// `-c`; 22023 and 42704 for what is none of pgbraid's own.
pub fn from_startup(
    parameters: &BTreeMap<String, String>,
    shards: &[Arc<str>],
) -> Result<Settings, ServerError> {
    let mut settings = Settings::default();
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" => {}
            "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
            "replication" => {
                return Err(ServerError::fatal(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    "pgbraid does not speak the replication protocol",
                ));
            }
            "options" => {
                for (name, value) in read_options(value)? {
                    add(&mut settings, &name, value, shards)?;
                }
            }
            name => add(&mut settings, name, value.clone(), shards)?,
        }
    }
    Ok(settings)
}

fn add(
    settings: &mut Settings,
    name: &str,
    value: String,
    shards: &[Arc<str>],
) -> Result<(), ServerError> {
    if add_own(settings, name, &value, shards)? {
        return Ok(());
    }
    if name.eq_ignore_ascii_case("client_encoding") {
        match super::encoding::named(&value)?.name() {
            "UTF8" => {}
            encoding => settings.set(name, encoding.into()),
        }
        return Ok(());
    }
    check(name, &value, shards.len() == 1)?;
    settings.set(name, value);
    Ok(())
}

/// Refuses values under which answers could not be exact. With one shard nothing is rewritten, and all are taken but those that are
/// between the client and us.
///
/// # Errors
/// 0A000 with a HINT.
pub fn check(name: &str, value: &str, one_shard: bool) -> Result<(), ServerError> {
    let refuse = |message: String, hint: &str| {
        Err(ServerError::refusal(Reason::Setting, message).with_hint(hint))
    };
    // SET is another matter; by a function the shard's own would change.
    if name.eq_ignore_ascii_case("client_encoding") {
        return refuse(
            "changing client_encoding by a function is not supported".into(),
            "Use SET client_encoding.",
        );
    }
    if one_shard {
        return Ok(());
    }
    // Under it `key = NULL` finds rows, on whichever shard they are.
    if name.eq_ignore_ascii_case("transform_null_equals") && is_true(value) {
        return refuse(
            "transform_null_equals is not supported".into(),
            "Write IS NULL.",
        );
    }
    // Rows travel to merge sessions as arrays, whose text it changes.
    if name.eq_ignore_ascii_case("array_nulls") && !is_true(value) {
        return refuse(
            "array_nulls = off is not supported".into(),
            "Write \"NULL\" in quotes for the string.",
        );
    }
    if name.eq_ignore_ascii_case("standard_conforming_strings") && !is_true(value) {
        return refuse(
            "standard_conforming_strings = off is not supported".into(),
            "Write E'…' where a backslash is an escape.",
        );
    }
    Ok(())
}

fn is_true(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "on" | "true" | "yes" | "1" | "t" | "y"
    )
}

/// `-c name=value`, `-cname=value` and `--name=value`, separated by blanks; a backslash keeps the character behind it.
fn read_options(text: &str) -> Result<Vec<(String, String)>, ServerError> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => words
                .last_mut()
                .into_iter()
                .for_each(|w| w.extend(characters.next())),
            c if c.is_ascii_whitespace() => words.push(String::new()),
            c => words.last_mut().into_iter().for_each(|w| w.push(c)),
        }
    }
    let mut words = words.into_iter().filter(|w| !w.is_empty());
    let mut options = Vec::new();
    while let Some(word) = words.next() {
        let pair = match (word.strip_prefix("-c"), word.strip_prefix("--")) {
            (Some(""), _) => words.next().unwrap_or_default(),
            (Some(rest), _) => rest.to_owned(),
            (None, Some(rest)) => rest.replacen(
                '-',
                "_",
                rest.find('=')
                    .map_or(0, |end| rest[..end].matches('-').count()),
            ),
            (None, None) => String::new(),
        };
        let Some((name, value)) = pair.split_once('=') else {
            let message = format!("invalid command-line argument for server process: {word}");
            return Err(ServerError::fatal(sqlstate::SYNTAX_ERROR, message));
        };
        options.push((name.trim().to_owned(), value.to_owned()));
    }
    Ok(options)
}

/// Schemas of a search_path value, in order; `$user` becomes the role's name.
pub fn search_path(value: &str, user: &str) -> Vec<String> {
    let mut schemas = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let (name, tail) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut name = String::new();
                let mut characters = quoted.char_indices().peekable();
                let mut end = quoted.len();
                while let Some((i, c)) = characters.next() {
                    if c == '"' && characters.peek().is_none_or(|(_, next)| *next != '"') {
                        end = i + 1;
                        break;
                    }
                    if c == '"' {
                        characters.next();
                    }
                    name.push(c);
                }
                (name, &quoted[end..])
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_lowercase(), &rest[end..])
            }
        };
        if name == "$user" {
            schemas.push(user.to_owned());
        } else if !name.is_empty() {
            schemas.push(name);
        }
        rest = tail
            .trim_start()
            .strip_prefix(',')
            .unwrap_or("")
            .trim_start();
    }
    schemas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_settings_have_equal_marks_and_none_is_zero() {
        let mut a = Settings::default();
        let mut b = Settings::default();
        a.set("TimeZone", "UTC".into());
        b.set("timezone", "UTC".into());
        assert_eq!(a.mark(), b.mark());
        assert_ne!(a.mark(), 0);
        a.remove("TIMEZONE");
        assert_eq!(a.mark(), 0);
    }

    #[test]
    fn options_are_taken_apart() {
        let pairs =
            read_options("-c search_path=a,b -cwork_mem=1MB --statement-timeout=5s").unwrap();
        let names: Vec<_> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            names,
            ["search_path=a,b", "work_mem=1MB", "statement_timeout=5s"]
        );
        assert!(read_options("-x").is_err());
    }

    #[test]
    fn search_path_reads_quotes_and_user() {
        assert_eq!(search_path("\"$user\", public", "app"), ["app", "public"]);
        assert_eq!(search_path("\"A \"\"b\", X", "app"), ["A \"b", "x"]);
        assert!(search_path("", "app").is_empty());
    }

    #[test]
    fn quoting_survives_backslashes_and_quotes() {
        assert_eq!(quote("it's"), "'it''s'");
        assert_eq!(quote("a\\b"), "E'a\\\\b'");
    }

    #[test]
    fn encodings_stay_between_the_client_and_us() {
        let startup = |encoding: &str| {
            from_startup(
                &[("client_encoding".to_owned(), encoding.to_owned())].into(),
                &["s1".into(), "s2".into()],
            )
        };
        for name in ["UTF8", "'utf-8'", "utf-8", "unicode"] {
            assert_eq!(startup(name).unwrap(), Settings::default(), "{name}");
        }
        let latin = startup("latin-1").unwrap();
        assert_eq!(latin.get("client_encoding"), Some("LATIN1"));
        assert_eq!((latin.mark(), latin.replay().as_str()), (0, "RESET ALL"));
        assert_eq!(startup("nothing").unwrap_err().sqlstate(), "22023");
        assert!(check("client_encoding", "LATIN1", true).is_err());
        assert!(check("standard_conforming_strings", "off", false).is_err());
    }
}
