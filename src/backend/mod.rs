//! Connections to shards: raw sessions, their pools and permits, catalog loading, health. Never looks into a plan.

pub mod cancel;
pub mod catalog;
pub mod connections;
pub mod connector;
pub mod control;
mod failures;
mod frame_reader;
mod gate;
pub mod health;
mod login;
#[cfg(test)]
mod mock;
mod notifications;
mod parameters;
mod places;
pub mod pool;
pub mod raw_conn;
pub mod roles;
pub mod scram;
mod socket;
pub mod stage_tables;
mod statements;
mod steering;
pub mod tcp;
pub mod tls;
pub mod upkeep;
pub mod user_query;

use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

/// What can go wrong between pgbraid and a shard.
#[derive(Debug, Clone, thiserror::Error)]
// `shard` and `reason` are what the messages make of them.
#[allow(missing_docs)]
pub enum BackendError {
    /// The shard said so itself; every field is kept.
    #[error("{error}")]
    Server { shard: String, error: ServerError },
    /// No connection, or no login without the shard saying why itself.
    #[error("shard {shard} cannot be reached: {reason}")]
    Unreachable { shard: String, reason: String },
    /// A connection that was good ended.
    #[error("connection to shard {shard} was lost: {reason}")]
    Lost { shard: String, reason: String },
    /// Bytes that no PostgreSQL sends.
    #[error("shard {shard} broke the protocol: {reason}")]
    Protocol { shard: String, reason: String },
    /// A deadline passed.
    #[error("shard {shard} did not answer in time")]
    TimedOut { shard: String },
    /// Everybody else kept their connections for too long.
    #[error("no connection to shard {shard} became free in time")]
    PoolExhausted { shard: String },
}

impl BackendError {
    /// True where a shard is not there, for whatever reason; not where it is, and says no.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::TimedOut { .. } => true,
            Self::Server { error, .. } => sqlstate::is_going(&error.sqlstate()),
            Self::Protocol { .. } | Self::PoolExhausted { .. } => false,
        }
    }

    /// The shard that is to blame.
    pub fn shard(&self) -> &str {
        match self {
            Self::Server { shard, .. }
            | Self::Unreachable { shard, .. }
            | Self::Lost { shard, .. }
            | Self::Protocol { shard, .. }
            | Self::TimedOut { shard }
            | Self::PoolExhausted { shard } => shard,
        }
    }
}
