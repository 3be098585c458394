//! What operators see over HTTP: `/livez`, `/readyz`, `/metrics`. Never answers a query and holds no connection of the pools.

mod http;
mod readiness;

use tokio::sync::Notify;

pub use http::{Response, get, serve};
pub use readiness::{Probe, Readiness, Report, ShardReport};

/// Woken when an operator wants the shards' catalogs read again (SIGHUP); the task that keeps the catalog waits on it. A
/// request made while nobody waits is kept.
pub fn reload() -> &'static Notify {
    static RELOAD: Notify = Notify::const_new();
    &RELOAD
}
