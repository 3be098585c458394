//! Loads the shards' catalogs through tokio-postgres, compares them, and watches for change.

mod absent;
mod compare;
mod merge;
mod orders;
mod placement;
mod queries;
mod snapshot;
mod tables;
mod verify;
mod watch;
mod writes;

use std::sync::Arc;

use futures_util::future::join_all;

use super::BackendError;
use super::control::ControlPlane;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::plan::ShardId;
pub use placement::{KeyColumn, sharding};
pub use queries::RESULT_SETTINGS;
use snapshot::Snapshot;
pub use watch::CatalogWatch;

/// How the shards' catalogs differ, or miss what the configuration names; one line each, for the log and `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the shard that differs.
    pub shard: String,
    /// `table public.orders`
    pub object: String,
    /// In which way.
    pub message: String,
    /// Statements over this object cannot be exact: the planner must refuse it.
    pub fatal: bool,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {}: {}: {}", self.shard, self.object, self.message)
    }
}

/// What was found on the shards.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Plans hold on to it.
    pub catalog: Arc<Catalog>,
    /// Everything that is not as it should be.
    pub differences: Vec<Difference>,
    /// ParameterStatus values of the catalog shard for a new session (server_version, DateStyle, …).
    pub parameters: Vec<(String, String)>,
    /// The isolation level of transactions that name none, for the catalog shard's `user`.
    pub isolation: String,
    /// `server_version` per shard, in the order of the configuration; empty for one that is unread.
    pub server_versions: Vec<String>,
    /// Shards that have not been there since the start, ascending: nothing is known of them, and nothing runs there.
    pub unread: Vec<ShardId>,
}

/// Reads every shard's catalog and merges them into one.
///
/// # Errors
/// What the first shard that fails met with: with one of them missing nothing can be proved.
pub async fn load(config: &Arc<Config>, version: u64) -> Result<Loaded, BackendError> {
    let control = ControlPlane::new(config);
    let snapshots = read_all(&control).await.into_iter();
    let snapshots = snapshots.collect::<Result<Vec<_>, _>>()?;
    let check = verify::hash_partitions(config, &control).await?;
    Ok(merge::merge(config, &snapshots, &check, version))
}

/// All shards side by side; the first of the configuration is the catalog shard.
async fn read_all(control: &ControlPlane) -> Vec<Result<Snapshot, BackendError>> {
    let shards = control.shards.iter().enumerate();
    join_all(shards.map(|(i, shard)| snapshot::read(shard, i == 0))).await
}
