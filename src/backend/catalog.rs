//! Loads the shards' catalogs through tokio-postgres, compares them, and watches for change.

use std::sync::Arc;

use super::BackendError;
use crate::catalog::Catalog;
use crate::config::Config;

/// How the shards' catalogs differ, or miss what the configuration names; one line each, for the log and `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub shard: String,
    /// `table public.orders`
    pub object: String,
    pub message: String,
    /// Statements over this object cannot be exact: the planner must refuse it.
    pub fatal: bool,
}

/// What was found on the shards.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub catalog: Catalog,
    pub differences: Vec<Difference>,
    /// ParameterStatus values of the catalog shard for a new session (server_version, DateStyle, …).
    pub parameters: Vec<(String, String)>,
    /// `server_version` per shard, in the order of the configuration.
    pub server_versions: Vec<String>,
}

/// Reads every shard's catalog and merges them into one.
pub async fn load(_config: &Arc<Config>, _version: u64) -> Result<Loaded, BackendError> {
    unimplemented!()
}
