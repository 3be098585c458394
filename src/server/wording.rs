//! Words of the statements that a session carries out or refuses: tags, modes, and PostgreSQL's names for commands.

use super::run::unsupported;
use crate::metrics::Reason;
use crate::protocol::error::ServerError;
use crate::sql::Kind;

/// Why a statement that the session does not carry out is refused.
pub fn refuse(kind: &Kind) -> ServerError {
    let (reason, what, hint) = match kind {
        Kind::Select { .. }
        | Kind::Insert
        | Kind::Update
        | Kind::Delete
        | Kind::Merge
        | Kind::CopyIn => (
            Reason::Write,
            "writing over several shards",
            "Write to the shards directly for now.",
        ),
        Kind::CopyTo(copy) if copy.to_client => (
            Reason::Copy,
            "COPY of what a statement writes over several shards",
            "Write to the shards directly for now.",
        ),
        Kind::CopyTo(_) => (
            Reason::Copy,
            "COPY TO a file or a program over several shards",
            "Use COPY … TO STDOUT, or \\copy of psql.",
        ),
        Kind::Prepare { .. } | Kind::Execute { .. } => (
            Reason::Form,
            "PREPARE and EXECUTE in SQL over several shards",
            "Prepare statements with the protocol, as drivers do.",
        ),
        Kind::Lock(_) => (
            Reason::Lock,
            "LOCK in this mode over several shards",
            "Lock on the shards directly; ACCESS SHARE works.",
        ),
        Kind::TwoPhase => (
            Reason::Snapshot,
            "two-phase commit over several shards",
            "Use COMMIT.",
        ),
        Kind::Ddl => (
            Reason::Schema,
            "changing the schema over several shards",
            "Run it on every shard directly.",
        ),
        _ => (
            Reason::Other,
            "this statement over several shards",
            "Run it on a shard directly.",
        ),
    };
    unsupported(reason, format!("{what} is not supported"), hint)
}

/// Kinds that change tables or the schema.
pub fn changes(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge | Kind::Ddl
    )
}

/// PostgreSQL's error for a change in a transaction that may only read. The command goes by its words, without those that say how.
pub fn read_only(sql: &str) -> ServerError {
    let noise = [
        "OR",
        "REPLACE",
        "TEMP",
        "TEMPORARY",
        "UNLOGGED",
        "UNIQUE",
        "GLOBAL",
        "LOCAL",
    ];
    let mut words = words(sql).filter(|w| !noise.contains(&w.as_str()));
    let verb = words.next().unwrap_or_default();
    let command = match (verb.as_str(), words.next()) {
        ("CREATE" | "ALTER" | "DROP", Some(object)) => format!("{verb} {object}"),
        ("TRUNCATE", _) => "TRUNCATE TABLE".into(),
        _ => verb,
    };
    ServerError::new(
        "25006",
        format!("cannot execute {command} in a read-only transaction"),
    )
}

/// The words of a statement in capitals.
pub fn words(sql: &str) -> impl Iterator<Item = String> {
    sql.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|w| !w.is_empty())
        .map(str::to_ascii_uppercase)
}

/// The tag repeats what is discarded, TEMP without its rest.
pub fn discard_tag(sql: &str) -> String {
    let what = sql.split_whitespace().nth(1).unwrap_or_default();
    match what.to_ascii_uppercase().as_str() {
        "TEMPORARY" => "DISCARD TEMP".into(),
        what => format!("DISCARD {what}"),
    }
}

/// What follows BEGIN or START TRANSACTION.
pub fn transaction_modes(sql: &str) -> String {
    let is_noise = |word: &&str| {
        ["begin", "start", "work", "transaction"]
            .iter()
            .any(|noise| word.eq_ignore_ascii_case(noise))
    };
    let words: Vec<&str> = sql.split_whitespace().skip_while(is_noise).collect();
    words.join(" ")
}
