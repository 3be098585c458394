//! The words that metrics are labelled with: nothing a client sends ever becomes one.

/// How a statement was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKind {
    /// By pgbraid itself or the session's own connections: SET, SHOW, BEGIN …
    Session,
    /// Whole and unchanged by one shard.
    Routed,
    /// By several shards, put together in the proxy.
    PushDown,
    /// With a last step on a merge session, over what subqueries, groups or limits leave of the rows on the shards.
    Staged,
    /// With a last step on a merge session, over rows of tables.
    Gathered,
    /// Not at all: it could not be proved exact (0A000).
    Refused,
}

impl QueryKind {
    /// In the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Session,
        Self::Routed,
        Self::PushDown,
        Self::Staged,
        Self::Gathered,
        Self::Refused,
    ];

    /// As the metrics' label has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Routed => "routed",
            Self::PushDown => "push_down",
            Self::Staged => "staged",
            Self::Gathered => "gathered",
            Self::Refused => "refused",
        }
    }
}

/// Why a client was sent away before its first statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRefused {
    /// `server.max_clients` are there already.
    TooMany,
    /// Unknown user, wrong password, wrong database.
    Authentication,
    /// What it sent was no startup packet.
    Protocol,
    /// It did not finish its login in time.
    LoginTimeout,
}

impl ClientRefused {
    pub(super) const ALL: [Self; 4] = [
        Self::TooMany,
        Self::Authentication,
        Self::Protocol,
        Self::LoginTimeout,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::Authentication => "authentication",
            Self::Protocol => "protocol",
            Self::LoginTimeout => "login_timeout",
        }
    }
}

/// Why a shard connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionClosed {
    /// Unused for `pool.idle_timeout`.
    Idle,
    /// Older than `pool.max_lifetime`.
    Age,
    /// Not clean when it was given back.
    Dirty,
    /// The shard closed it, or the network did.
    Lost,
    /// It would be opened otherwise today: another configuration or address, RECONNECT, PAUSE.
    Replaced,
}

impl ConnectionClosed {
    /// In the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Idle,
        Self::Age,
        Self::Dirty,
        Self::Lost,
        Self::Replaced,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Dirty => "dirty",
            Self::Lost => "lost",
            Self::Replaced => "replaced",
        }
    }
}

/// Words that stand for the reasons of refusals, with what their messages contain; the first that fits. A message names tables and
/// functions, which may not become labels.
const REFUSALS: [(&str, &[&str]); 17] = [
    (
        "undeclared",
        &["is not declared", "is not known to pgbraid"],
    ),
    ("row_security", &["row security"]),
    ("check", &["has a check"]),
    ("lock", &["FOR UPDATE", "LOCK in this mode", "LOCK TABLE"]),
    (
        "schema",
        &["changing the schema", "SELECT INTO", "DO block", "LOAD"],
    ),
    ("temporary", &["temporary table", "NOTIFY"]),
    (
        "write",
        &[
            "writ",
            "chang",
            "INSERT",
            "UPDATE",
            "new row",
            "sharding key",
            "is the place of",
        ],
    ),
    ("copy", &["COPY"]),
    ("cursor", &["cursor", "FETCH", "portal"]),
    ("clock", &["clock", "'now'", "now()"]),
    ("function", &["function", "current_setting", "set_config"]),
    (
        "catalog",
        &["catalog", "OIDs", "is not the same over several shards"],
    ),
    ("encoding", &["encoding"]),
    (
        "snapshot",
        &[
            "several steps",
            "SERIALIZABLE",
            "two-phase commit",
            "snapshot",
        ],
    ),
    ("view", &["view"]),
    ("explain", &["EXPLAIN", "explained"]),
    (
        "setting",
        &[
            "SET ",
            "parameter",
            "standard_conforming_strings",
            "result type",
        ],
    ),
];

/// Why a statement was refused, as one of few words; "other" for the rest.
pub fn refusal_reason(message: &str) -> &'static str {
    let fits = |(_, parts): &&(&str, &[&str])| parts.iter().any(|part| message.contains(part));
    REFUSALS.iter().find(fits).map_or(OTHER, |(word, _)| word)
}

const OTHER: &str = "other";

/// All words that [`refusal_reason`] gives.
pub fn refusal_reasons() -> impl Iterator<Item = &'static str> {
    REFUSALS.iter().map(|(word, _)| *word).chain([OTHER])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_that_readme_names_has_a_reason() {
        let readme = include_str!("../../README.md");
        let (_, list) = readme
            .split_once("<!-- refusals of tests/plans -->")
            .unwrap();
        let (list, _) = list.split_once("<!-- end of refusals -->").unwrap();
        let messages = list.lines().skip(3).filter_map(|l| l.split('|').nth(1));
        let without: Vec<_> = messages.filter(|m| refusal_reason(m) == OTHER).collect();
        assert!(without.len() <= 2, "{without:?}");
        assert_eq!(refusal_reason("table x is not declared"), "undeclared");
        assert_eq!(refusal_reason("what nobody foresaw"), OTHER);
    }
}
