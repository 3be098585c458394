//! With one shard DDL passes, and statements met before may mean something else behind it: other columns, other types. What is known of
//! them, here and on the shard's connections, is known as of the last change.

use std::sync::atomic::Ordering;

use super::Shared;
use super::prepared::Prepared;
use super::session::Session;
use super::transaction::Block;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::Kind;

impl Shared {
    /// A number for the schema as statements were last described under it; it is part of what plans are cached by.
    pub fn schema_mark(&self) -> u64 {
        let changes = self.schema_changes.load(Ordering::Acquire);
        changes.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// All that was described before is described again before its next use.
    fn schema_changed(&self) {
        if self.is_one_shard() {
            self.schema_changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// What a shard says of a statement that no longer fits its tables: somebody else has changed them.
    pub(super) fn doubt_schema(&self, error: &ServerError) {
        // Errors of our own name no source file.
        let from_shard = error.field(b'F').is_some();
        let is_stale = match error.sqlstate().as_str() {
            sqlstate::FEATURE_NOT_SUPPORTED => is_cached_plan(error),
            sqlstate::INTERNAL_ERROR => error.message().starts_with("cache lookup failed for"),
            _ => false,
        };
        if from_shard && is_stale {
            self.schema_changed();
        }
    }
}

impl Session {
    /// Notes a statement that may change the schema; others are told at the end of its transaction.
    pub(super) fn note_schema(&mut self, prepared: &Prepared) {
        self.changes_schema |= prepared.changes_schema || matches!(prepared.kind, Kind::Do);
    }

    /// The transaction of such a statement is over, perhaps.
    pub(super) fn tell_schema(&mut self) {
        if self.changes_schema && self.transaction.block == Block::Idle {
            self.changes_schema = false;
            self.shared.schema_changed();
        }
    }
}

/// The error of a statement that was parsed before its result came to have other columns. Drivers know it by the routine it names.
pub(super) fn cached_plan() -> ServerError {
    let message = "cached plan must not change result type";
    ServerError::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
        .with(b'R', "RevalidateCachedQuery")
        .with_hint("Prepare the statement again.")
}

/// True for that error, whoever says it.
pub(super) fn is_cached_plan(error: &ServerError) -> bool {
    error.message() == "cached plan must not change result type"
}
