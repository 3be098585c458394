//! Which holder of a connection a cancel is meant for: a late one must not hit the next holder.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::connector::Origin;
use crate::plan::ShardId;

/// Lowest bit of the counter; the leases are counted in steps of two.
const CANCELLED: u64 = 1;

/// Number of a connection's present lease, with [`CANCELLED`] once a cancel was sent during it.
#[derive(Debug, Default)]
pub(super) struct LeaseNumber(Arc<AtomicU64>);

impl LeaseNumber {
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) & CANCELLED != 0
    }

    /// Goes on to the next lease; false when a cancel came first.
    pub(super) fn end(&self) -> bool {
        let number = self.number();
        self.0
            .compare_exchange(number, number + 2, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn number(&self) -> u64 {
        self.0.load(Ordering::Acquire) & !CANCELLED
    }
}

/// What the server calls a connection (its BackendKeyData), and which server that is.
#[derive(Debug, Clone, Default)]
pub(super) struct CancelKey {
    pub process_id: i32,
    pub secret: Bytes,
    /// How the connection was opened.
    pub origin: Option<Arc<Origin>>,
}

/// What is needed to cancel what a connection does *for its present holder*: once the connection is back in its pool the handle
/// does nothing, so a late cancel cannot hit the next holder.
#[derive(Debug, Clone)]
pub struct CancelHandle {
    /// Where the connection leads.
    pub shard: ShardId,
    pub(super) key: CancelKey,
    lease: Arc<AtomicU64>,
    number: u64,
}

impl CancelHandle {
    /// For the present lease.
    pub(super) fn new(shard: ShardId, key: CancelKey, lease: &LeaseNumber) -> Self {
        Self {
            shard,
            key,
            number: lease.number(),
            lease: lease.0.clone(),
        }
    }

    /// Marks the connection as one that a cancel may hit at any time; false when its holder has already given it back.
    pub(super) fn mark(&self) -> bool {
        let marked = self.lease.compare_exchange(
            self.number,
            self.number | CANCELLED,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        marked.is_ok() || marked == Err(self.number | CANCELLED)
    }
}
