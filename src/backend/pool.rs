//! One bb8 pool a shard behind a fair semaphore; permits are always taken in ascending shard order.

use std::sync::Arc;
use std::time::Instant;

use super::BackendError;
use super::raw_conn::RawConn;
use crate::config::Config;
use crate::plan::ShardId;

/// The pools of all shards, and of the merge sessions.
pub struct Pools {}

/// A connection on loan; goes back to its pool when dropped clean, else is closed.
pub struct Lease {}

impl std::ops::Deref for Lease {
    type Target = RawConn;
    fn deref(&self) -> &RawConn {
        unimplemented!()
    }
}

impl std::ops::DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut RawConn {
        unimplemented!()
    }
}

impl Pools {
    pub fn new(_config: &Arc<Config>) -> Arc<Self> {
        unimplemented!()
    }

    /// One connection to each of `shards` (ascending): first every permit, in order, then the connections, side by side.
    ///
    /// # Errors
    /// `PoolExhausted` past the deadline; whatever connecting says.
    pub async fn acquire(
        &self,
        _shards: &[ShardId],
        _deadline: Instant,
    ) -> Result<Vec<Lease>, BackendError> {
        unimplemented!()
    }

    /// A session for Combine, from the merge pool of `shard`.
    pub async fn acquire_merge(
        &self,
        _shard: ShardId,
        _deadline: Instant,
    ) -> Result<Lease, BackendError> {
        unimplemented!()
    }

    /// Sends a CancelRequest to the shard on a connection of its own; waits until the shard has closed that.
    pub async fn cancel(
        &self,
        _shard: ShardId,
        _key: (i32, bytes::Bytes),
    ) -> Result<(), BackendError> {
        unimplemented!()
    }

    pub fn shard_name(&self, _shard: ShardId) -> &Arc<str> {
        unimplemented!()
    }
}
