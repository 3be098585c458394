//! One bb8 pool a shard behind a fair semaphore; permits are always taken in ascending shard order.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bb8::{ManageConnection, PooledConnection, QueueStrategy};
use futures_util::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::BackendError;
use super::connector::Connector;
use super::failures::Failures;
use super::raw_conn::{CancelHandle, RawConn};
use crate::config::{Config, Pool as Settings};
use crate::plan::ShardId;

/// The pools of all shards, and of the merge sessions.
#[derive(Debug)]
pub struct Pools {
    shards: Vec<ShardPool>,
    /// Apart from the others: who waits for a merge session already holds permits of the shards.
    merge: Vec<ShardPool>,
}

/// How a pool is used at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The most connections there may be.
    pub size: usize,
    pub in_use: usize,
    pub idle: usize,
    /// Statements waiting for a connection.
    pub waiting: usize,
}

/// A connection on loan; goes back to its pool when dropped clean, else is closed.
pub struct Lease {
    // Fields drop in this order: whoever gets the permit finds the connection back in the pool.
    connection: PooledConnection<'static, Manager>,
    _permit: OwnedSemaphorePermit,
}

impl Deref for Lease {
    type Target = RawConn;
    fn deref(&self) -> &RawConn {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut RawConn {
        &mut self.connection
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({:?})", self.shard)
    }
}

impl Pools {
    /// Makes the pools; connections are opened when they are first needed. Must be called inside a runtime.
    pub fn new(config: &Arc<Config>) -> Arc<Self> {
        let connectors = Connector::all(config);
        let pools = |size: usize| {
            let pool = |c: &Arc<Connector>| ShardPool::new(c.clone(), size, &config.pool);
            connectors.iter().map(pool).collect()
        };
        Arc::new(Self {
            shards: pools(config.pool.size),
            merge: pools(config.pool.merge_size),
        })
    }

    /// One connection to each of `shards` (ascending): first every permit, in order, then the connections, side by side.
    /// Dropping the future gives everything back.
    ///
    /// # Errors
    /// `PoolExhausted` past the deadline; whatever connecting says.
    pub async fn acquire(
        &self,
        shards: &[ShardId],
        deadline: Instant,
    ) -> Result<Vec<Lease>, BackendError> {
        debug_assert!(shards.is_sorted(), "any other order can deadlock");
        let mut permitted = Vec::with_capacity(shards.len());
        for shard in shards {
            let pool = self.shard(&self.shards, *shard)?;
            permitted.push((pool, pool.permit(deadline).await?));
        }
        let leases = permitted.into_iter().map(|(pool, p)| pool.lease(p));
        try_join_all(leases).await
    }

    /// A session for Combine, from the merge pool of `shard`.
    ///
    /// # Errors
    /// As [`Pools::acquire`].
    pub async fn acquire_merge(
        &self,
        shard: ShardId,
        deadline: Instant,
    ) -> Result<Lease, BackendError> {
        let pool = self.shard(&self.merge, shard)?;
        let permit = pool.permit(deadline).await?;
        pool.lease(permit).await
    }

    /// Sends a CancelRequest to the shard on a connection of its own; waits until the shard has closed that. Does nothing when the
    /// connection has been given back since the handle was made. The connection is never lent again.
    ///
    /// # Errors
    /// As connecting; `TimedOut` past the connect timeout.
    pub async fn cancel(&self, handle: &CancelHandle) -> Result<(), BackendError> {
        // Before the request goes out: from now on the connection cannot return to its pool.
        if !handle.mark() {
            return Ok(());
        }
        let pool = self.shard(&self.shards, handle.shard)?;
        pool.connector.send_cancel(handle).await
    }

    pub fn shard_name(&self, shard: ShardId) -> &Arc<str> {
        &self.shards[shard.0 as usize].connector.name
    }

    /// How a shard's pool is used, by the shards' order.
    pub fn usage(&self) -> Vec<Usage> {
        self.shards.iter().map(ShardPool::usage).collect()
    }

    pub fn merge_usage(&self) -> Vec<Usage> {
        self.merge.iter().map(ShardPool::usage).collect()
    }

    /// Ends the pools: nobody is lent a connection any more, connections on loan may come back until `deadline`, idle ones are
    /// closed.
    pub async fn close(&self, deadline: Instant) {
        for pool in self.shards.iter().chain(&self.merge) {
            pool.close(deadline).await;
        }
    }

    fn shard<'a>(
        &self,
        pools: &'a [ShardPool],
        shard: ShardId,
    ) -> Result<&'a ShardPool, BackendError> {
        let missing = || BackendError::Unreachable {
            shard: shard.0.to_string(),
            reason: "no such shard in the configuration".into(),
        };
        pools.get(shard.0 as usize).ok_or_else(missing)
    }
}

#[derive(Debug)]
struct ShardPool {
    connector: Arc<Connector>,
    pool: bb8::Pool<Manager>,
    /// As many permits as the pool has places: who holds one never waits inside bb8 for anybody else.
    permits: Arc<Semaphore>,
    size: usize,
    waiting: AtomicUsize,
    failures: Failures,
}

impl ShardPool {
    fn new(connector: Arc<Connector>, size: usize, settings: &Settings) -> Self {
        let size = size.max(1);
        let failures = Failures::new();
        let some = |d: std::time::Duration| (!d.is_zero()).then_some(d);
        let pool = bb8::Pool::builder()
            .max_size(u32::try_from(size).unwrap_or(u32::MAX))
            // The default takes the longest unused, whose server process has gone cold: +8 µs a transaction.
            .queue_strategy(QueueStrategy::Lifo)
            // A round trip each; `Lease`s are checked without one.
            .test_on_check_out(false)
            .retry_connection(false)
            .idle_timeout(some(settings.idle_timeout))
            .max_lifetime(some(settings.max_lifetime))
            // Never reached: the connector keeps the deadline and says why.
            .connection_timeout(settings.connect_timeout * 2 + std::time::Duration::from_secs(1))
            .error_sink(Box::new(failures.clone()))
            .build_unchecked(Manager(connector.clone()));
        Self {
            connector,
            pool,
            permits: Arc::new(Semaphore::new(size)),
            size,
            waiting: AtomicUsize::new(0),
            failures,
        }
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, BackendError> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        match timeout_at(deadline.into(), self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(self.connector.unreachable("pgbraid is shutting down")),
            Err(_) => Err(BackendError::PoolExhausted {
                shard: self.connector.name.to_string(),
            }),
        }
    }

    /// A connection that is open as far as can be told without asking the shard.
    async fn lease(&self, permit: OwnedSemaphorePermit) -> Result<Lease, BackendError> {
        // After a restart of the shard every idle connection is dead; the one behind them is new.
        for _ in 0..=self.size {
            let mut connection = self
                .failures
                .connection(&self.pool, &self.connector.name, |e| e)
                .await?;
            if connection.is_quiet() {
                return Ok(Lease {
                    connection,
                    _permit: permit,
                });
            }
            connection.poison();
        }
        Err(self
            .connector
            .unreachable("the server closes connections as soon as they are open"))
    }

    fn usage(&self) -> Usage {
        Usage {
            size: self.size,
            in_use: self.size - self.permits.available_permits().min(self.size),
            idle: self.pool.state().idle_connections as usize,
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    async fn close(&self, deadline: Instant) {
        let all = u32::try_from(self.size).unwrap_or(u32::MAX);
        // All permits are back when all leases are. Closing the semaphore turns those who still wait away.
        let _ = timeout_at(deadline.into(), self.permits.acquire_many(all)).await;
        self.permits.close();
        while self.pool.state().idle_connections > 0 {
            let Ok(mut connection) = self.pool.get_owned().await else {
                return;
            };
            connection.poison();
        }
    }
}

/// Counts one waiting statement for as long as it lives, also when its future is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// bb8's view of our connections.
#[derive(Debug)]
struct Manager(Arc<Connector>);

impl ManageConnection for Manager {
    type Connection = RawConn;
    type Error = BackendError;

    async fn connect(&self) -> Result<RawConn, BackendError> {
        self.0.connect().await
    }

    /// Unused: `test_on_check_out` is off.
    async fn is_valid(&self, _conn: &mut RawConn) -> Result<(), BackendError> {
        Ok(())
    }

    /// Called when a lease ends.
    fn has_broken(&self, conn: &mut RawConn) -> bool {
        !conn.end_lease()
    }
}
