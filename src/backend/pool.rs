//! One bb8 pool a shard behind a fair semaphore; permits are always taken in ascending shard order.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bb8::{ManageConnection, PooledConnection, QueueStrategy};
use futures_util::future::{FutureExt, try_join_all};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::BackendError;
use super::cancel::CancelHandle;
use super::connector::Connector;
use super::failures::Failures;
use super::raw_conn::RawConn;
use crate::config::{Config, Pool as Settings};
use crate::metrics::ConnectionClosed;
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
    /// Lent at the moment, or being opened for somebody.
    pub in_use: usize,
    /// Open and lent to nobody.
    pub idle: usize,
    /// Statements waiting for a connection.
    pub waiting: usize,
}

/// Connections of a shard that its pools have closed since the start, though nothing was wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// Unused for `pool.idle_timeout`.
    pub idle: u64,
    /// Older than `pool.max_lifetime`.
    pub age: u64,
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
        if let [shard] = *shards {
            let now = Instant::now();
            let patience = deadline.saturating_duration_since(now);
            return Ok(vec![self.acquire_one(shard, now, patience).await?]);
        }
        let mut permitted = Vec::with_capacity(shards.len());
        for shard in shards {
            let pool = self.shard(&self.shards, *shard)?;
            permitted.push((pool, pool.permit(deadline).await?));
        }
        let now = Instant::now();
        let leases = permitted.into_iter().map(|(pool, p)| pool.lease(p, now));
        try_join_all(leases).await
    }

    /// A connection to one shard. The clock is not read for it: `now` will do.
    ///
    /// # Errors
    /// As [`Pools::acquire`], past `now` and `patience`.
    pub async fn acquire_one(
        &self,
        shard: ShardId,
        now: Instant,
        patience: Duration,
    ) -> Result<Lease, BackendError> {
        let pool = self.shard(&self.shards, shard)?;
        let permit = pool.permit(now + patience).await?;
        pool.lease(permit, now).await
    }

    /// A connection that is open and that nobody waits for; `None` where there is none. Who holds others may ask for it: it is
    /// there at once or not at all.
    pub fn acquire_idle(&self, shard: ShardId, now: Instant) -> Option<Lease> {
        let pool = self.shard(&self.shards, shard).ok()?;
        // Else bb8 would begin to open one for every call.
        if pool.pool.state().idle_connections == 0 {
            return None;
        }
        // A permit that somebody waits for is never free: it goes from hand to hand.
        let permit = pool.permits.clone().try_acquire_owned().ok()?;
        pool.lease(permit, now).now_or_never()?.ok()
    }

    /// True when a statement waits for a connection to this shard.
    pub fn is_waited_for(&self, shard: ShardId) -> bool {
        let pool = self.shards.get(shard.0 as usize);
        pool.is_some_and(|pool| pool.waiting.load(Ordering::Relaxed) > 0)
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
        pool.lease(permit, Instant::now()).await
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

    /// A shard's name in the configuration.
    pub fn shard_name(&self, shard: ShardId) -> &Arc<str> {
        &self.shards[shard.0 as usize].connector.name
    }

    /// How a shard's pool is used, by the shards' order.
    pub fn usage(&self) -> Vec<Usage> {
        self.shards.iter().map(ShardPool::usage).collect()
    }

    /// The same for the merge sessions.
    pub fn merge_usage(&self) -> Vec<Usage> {
        self.merge.iter().map(ShardPool::usage).collect()
    }

    /// Connections that were closed for their age, by the shards' order.
    pub fn retired(&self) -> Vec<Retired> {
        let pools = self.shards.iter().zip(&self.merge);
        let both = pools.map(|(data, merge)| [data, merge].map(|p| p.pool.state().statistics));
        both.map(|[data, merge]| Retired {
            idle: data.connections_closed_idle_timeout + merge.connections_closed_idle_timeout,
            age: data.connections_closed_max_lifetime + merge.connections_closed_max_lifetime,
        })
        .collect()
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
        let wait_seconds = &self.connector.metrics().wait_seconds;
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            wait_seconds.observe(0.0);
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        let since = Instant::now();
        let got = timeout_at(deadline.into(), self.permits.clone().acquire_owned()).await;
        wait_seconds.observe(since.elapsed().as_secs_f64());
        match got {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(self.connector.unreachable("pgbraid is shutting down")),
            Err(_) => Err(BackendError::PoolExhausted {
                shard: self.connector.name.to_string(),
            }),
        }
    }

    /// A connection that is open as far as can be told without asking the shard.
    async fn lease(
        &self,
        permit: OwnedSemaphorePermit,
        now: Instant,
    ) -> Result<Lease, BackendError> {
        // After a restart of the shard every idle connection is dead; the one behind them is new.
        for _ in 0..=self.size {
            let mut connection = self
                .failures
                .connection(&self.pool, &self.connector.name, |e| e)
                .await?;
            if connection.is_quiet(now) {
                return Ok(Lease {
                    connection,
                    _permit: permit,
                });
            }
            connection.mark_lost();
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
    /// Boxed, because a lease is moved from hand to hand.
    type Connection = Box<RawConn>;
    type Error = BackendError;

    async fn connect(&self) -> Result<Box<RawConn>, BackendError> {
        self.0.connect().await.map(Box::new)
    }

    /// Unused: `test_on_check_out` is off.
    async fn is_valid(&self, _conn: &mut Box<RawConn>) -> Result<(), BackendError> {
        Ok(())
    }

    /// Called when a lease ends.
    fn has_broken(&self, conn: &mut Box<RawConn>) -> bool {
        let clean = conn.end_lease();
        if !clean {
            self.0.metrics().closed(match conn.is_lost() {
                true => ConnectionClosed::Lost,
                false => ConnectionClosed::Dirty,
            });
        }
        !clean
    }
}

#[cfg(test)]
mod tests {
    use super::super::mock::{self, Answer, KEY, Mock};
    use super::super::raw_conn::Event;
    use super::*;
    use crate::backend::connections::Connections;
    use std::future::poll_fn;

    const FIRST: &[ShardId] = &[ShardId(0)];

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn shards(count: usize, size: usize) -> (Vec<Arc<Mock>>, Arc<Pools>) {
        let mut mocks = Vec::new();
        for _ in 0..count {
            mocks.push(Mock::start().await);
        }
        let ports: Vec<u16> = mocks.iter().map(|m| m.port).collect();
        (mocks, Pools::new(&mock::config(&ports, size)))
    }

    async fn one(pools: &Pools) -> Lease {
        pools.acquire(FIRST, soon()).await.unwrap().remove(0)
    }

    async fn ask(lease: &mut Lease) -> Result<u32, BackendError> {
        lease.query("SELECT 1");
        let mut rows = 0;
        while lease.outstanding() > 0 {
            if let Event::Rows(run) = poll_fn(|cx| lease.poll_event(Some(1), cx)).await? {
                rows += run.rows;
            }
        }
        Ok(rows)
    }

    /// Waits until the other side has seen it.
    async fn until(condition: impl Fn() -> bool) {
        let deadline = soon();
        while !condition() {
            assert!(Instant::now() < deadline, "it never happened");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_clean_connection_is_lent_again() {
        let (mocks, pools) = shards(1, 4).await;
        for _ in 0..3 {
            let mut lease = one(&pools).await;
            assert_eq!(ask(&mut lease).await.unwrap(), 1);
            assert_eq!(lease.parameter("server_version"), Some("15.2"));
        }
        assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_connection_with_a_reply_outstanding_is_closed() {
        let (mocks, pools) = shards(1, 4).await;
        let mut lease = one(&pools).await;
        lease.query("SELECT 1");
        let _ = poll_fn(|cx| lease.poll_flush(cx)).await;
        drop(lease);
        until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
        assert_eq!(ask(&mut one(&pools).await).await.unwrap(), 1);
        assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_connection_with_an_unread_message_is_closed() {
        let (mocks, pools) = shards(1, 4).await;
        let mut lease = one(&pools).await;
        lease.query("SELECT 1");
        // The row; what follows lies in the buffer.
        let _ = poll_fn(|cx| lease.poll_event(None, cx)).await;
        assert!(!lease.is_clean());
        drop(lease);
        drop(one(&pools).await);
        assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn connections_the_shard_has_closed_are_replaced() {
        let (mocks, pools) = shards(1, 4).await;
        let mut leases = Vec::new();
        for _ in 0..4 {
            leases.push(one(&pools).await);
        }
        *mocks[0].answer.lock() = Answer::RowThenClose;
        for mut lease in leases {
            ask(&mut lease).await.unwrap();
        }
        until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
        assert_eq!(pools.usage()[0].idle, 4);
        *mocks[0].answer.lock() = Answer::Row;
        assert_eq!(ask(&mut one(&pools).await).await.unwrap(), 1);
        assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn an_unreachable_shard_is_reported_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let pools = Pools::new(&mock::config(&[port], 2));
        let asked = Instant::now();
        let refused = pools.acquire(FIRST, soon()).await;
        assert!(
            matches!(refused, Err(BackendError::Unreachable { .. })),
            "{refused:?}"
        );
        assert!(asked.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn what_the_shard_says_at_login_is_passed_on() {
        let (mocks, pools) = shards(1, 2).await;
        *mocks[0].greeting.lock() = Some(mock::error(
            true,
            "53300",
            "sorry, too many clients already",
        ));
        let refused = pools.acquire(FIRST, soon()).await;
        let Err(BackendError::Server { error, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(error.sqlstate(), "53300");
    }

    #[tokio::test]
    async fn passwords_do_not_travel_in_the_clear() {
        let (mocks, pools) = shards(1, 2).await;
        *mocks[0].greeting.lock() = Some(mock::authentication(3, b""));
        let refused = pools.acquire(FIRST, soon()).await.unwrap_err().to_string();
        assert!(refused.contains("without TLS"), "{refused}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_prove_itself_is_refused() {
        let (mocks, pools) = shards(1, 2).await;
        let mut greeting = mock::authentication(10, b"SCRAM-SHA-256\0\0");
        greeting.extend(mock::authentication(0, b""));
        *mocks[0].greeting.lock() = Some(greeting);
        let refused = pools.acquire(FIRST, soon()).await;
        assert!(
            matches!(refused, Err(BackendError::Protocol { .. })),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline_and_is_counted() {
        let (_mocks, pools) = shards(1, 1).await;
        let lease = one(&pools).await;
        let mut waiting =
            Box::pin(pools.acquire(FIRST, Instant::now() + Duration::from_millis(50)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let usage = Usage {
            size: 1,
            in_use: 1,
            idle: 0,
            waiting: 1,
        };
        assert_eq!(pools.usage(), [usage]);
        assert!(matches!(
            waiting.await,
            Err(BackendError::PoolExhausted { .. })
        ));
        assert_eq!(pools.usage()[0].waiting, 0);
        drop(lease);
        one(&pools).await;
    }

    #[tokio::test]
    async fn many_sessions_over_all_shards_do_not_deadlock() {
        let (_mocks, pools) = shards(3, 2).await;
        let sessions = (0..24).map(|i| {
            let pools = pools.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let wanted: Vec<ShardId> = match (i + round) % 3 {
                        0 => vec![ShardId(0), ShardId(1), ShardId(2)],
                        1 => vec![ShardId(1), ShardId(2)],
                        _ => vec![ShardId(0), ShardId(2)],
                    };
                    for mut lease in pools.acquire(&wanted, soon()).await.unwrap() {
                        ask(&mut lease).await.unwrap();
                    }
                }
            })
        });
        for session in sessions.collect::<Vec<_>>() {
            session.await.unwrap();
        }
        assert!(pools.usage().iter().all(|u| u.in_use == 0 && u.idle <= 2));
    }

    #[tokio::test]
    async fn a_cancel_reaches_the_shard_and_ends_the_connection() {
        let (mocks, pools) = shards(1, 2).await;
        let mut lease = one(&pools).await;
        pools.cancel(&lease.cancel_handle()).await.unwrap();
        assert_eq!(*mocks[0].cancels.lock(), [(0, KEY.to_vec())]);
        assert_eq!(ask(&mut lease).await.unwrap(), 1);
        assert!(!lease.is_clean());
        drop(lease);
        until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
    }

    #[tokio::test]
    async fn a_late_cancel_does_not_hit_the_next_holder() {
        let (mocks, pools) = shards(1, 2).await;
        let mut lease = one(&pools).await;
        let handle = lease.cancel_handle();
        ask(&mut lease).await.unwrap();
        drop(lease);
        let next = one(&pools).await;
        pools.cancel(&handle).await.unwrap();
        assert!(mocks[0].cancels.lock().is_empty());
        assert!(next.is_clean());
        assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_shard_that_stays_silent_after_a_cancel_is_given_up() {
        let (mocks, pools) = shards(2, 2).await;
        *mocks[0].answer.lock() = Answer::Silence;
        let mut held = Connections::new(2);
        for lease in pools
            .acquire(&[ShardId(0), ShardId(1)], soon())
            .await
            .unwrap()
        {
            held.put(lease.shard, lease);
        }
        for (_, conn) in held.iter_mut() {
            conn.query("SELECT 1");
        }
        held.recover(&pools, Instant::now() + Duration::from_millis(100))
            .await;
        let clean: Vec<bool> = held.iter_mut().map(|(_, c)| c.is_clean()).collect();
        assert_eq!(clean, [false, true]);
        assert_eq!(mocks[0].cancels.lock().len(), 1);
        // What ended by itself was not cancelled.
        assert!(mocks[1].cancels.lock().is_empty());
        held.release();
        until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
    }

    #[tokio::test]
    async fn a_shard_that_dies_behind_a_row_is_lost() {
        let (mocks, pools) = shards(1, 2).await;
        *mocks[0].answer.lock() = Answer::Die;
        let mut lease = one(&pools).await;
        assert!(matches!(
            ask(&mut lease).await,
            Err(BackendError::Lost { .. })
        ));
        assert!(lease.is_poisoned());
    }

    #[tokio::test]
    async fn closing_waits_for_leases_and_turns_others_away() {
        let (mocks, pools) = shards(1, 2).await;
        drop(one(&pools).await);
        let lease = one(&pools).await;
        let closing = tokio::spawn({
            let pools = pools.clone();
            async move { pools.close(soon()).await }
        });
        tokio::task::yield_now().await;
        drop(lease);
        closing.await.unwrap();
        until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
        assert!(pools.acquire(FIRST, soon()).await.is_err());
    }
}
