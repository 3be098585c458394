//! Errors of executions: what shards said, with their names, and what the proxy found out itself.

use crate::backend::BackendError;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

/// An error between pgbraid and a shard as the client is told it. The session lives on, so it is never FATAL.
pub fn from_backend(error: BackendError) -> ServerError {
    let message = error.to_string();
    match error {
        BackendError::Server { shard, error } => from_shard(error, &shard),
        BackendError::Protocol { .. } => ServerError::new(sqlstate::INTERNAL_ERROR, message),
        BackendError::PoolExhausted { .. } => {
            ServerError::new(sqlstate::TOO_MANY_CONNECTIONS, message)
        }
        BackendError::Unreachable { .. }
        | BackendError::Lost { .. }
        | BackendError::TimedOut { .. } => ServerError::new(sqlstate::CONNECTION_FAILURE, message),
    }
}

/// A shard's own ErrorResponse. FATAL ends the shard's connection, not the client's.
pub fn from_shard(error: ServerError, shard: &str) -> ServerError {
    let error = if error.is_fatal() {
        error.with(b'S', "ERROR").with(b'V', "ERROR")
    } else {
        error
    };
    error.on_shard(shard)
}

/// A DataRow whose columns do not fit its frame or description.
pub(super) fn malformed_row(shard: &str) -> ServerError {
    ServerError::new(
        sqlstate::INTERNAL_ERROR,
        format!("shard {shard} sent a row that does not fit its description"),
    )
}

/// A message that has no place where it came.
pub(super) fn unexpected_message(shard: &str, tag: u8) -> ServerError {
    ServerError::new(
        sqlstate::INTERNAL_ERROR,
        format!(
            "shard {shard} sent an unexpected message of type \"{}\"",
            tag.escape_ascii()
        ),
    )
}

/// Something the session promised is not so.
pub(super) fn internal(message: impl Into<String>) -> ServerError {
    ServerError::new(sqlstate::INTERNAL_ERROR, message)
}

/// The client asked for the end of its statement.
pub fn cancelled_by_user() -> ServerError {
    let message = "canceling statement due to user request";
    ServerError::new(sqlstate::QUERY_CANCELED, message)
}

/// An operator that holds rows has used up its memory.
pub(super) fn out_of_memory(operator: &str, limit: usize) -> ServerError {
    ServerError::new(
        sqlstate::OUT_OF_MEMORY,
        format!("{operator} needs more than the {limit} bytes it may hold"),
    )
    .with_hint("Raise memory_max in pgbraid's configuration, or make the result smaller.")
}
