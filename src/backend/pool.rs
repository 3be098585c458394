//! The pools of one role: a bb8 pool a shard, and one for its merge sessions. Permits are always taken in ascending shard order.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use bb8::{ManageConnection, PooledConnection, QueueStrategy};
use futures_util::future::{FutureExt, try_join_all};
use tokio::sync::OwnedSemaphorePermit;

use super::BackendError;
use super::cancel::CancelHandle;
use super::connector::{Connector, Login};
use super::failures::Failures;
use super::gate::Gate;
use super::places::{Counted, Places};
use super::raw_conn::RawConn;
use crate::metrics::ConnectionClosed;
use crate::plan::ShardId;

/// The pools of all shards, and of the merge sessions, for one role.
#[derive(Debug)]
pub struct Pools {
    shards: Vec<Arc<ShardPool>>,
    /// Apart from the others: who waits for a merge session already holds permits of the shards.
    merge: Vec<Arc<ShardPool>>,
}

/// How the connections to a shard are used at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The most connections there may be.
    pub size: usize,
    /// Lent at the moment, or being opened for somebody.
    pub in_use: usize,
    /// Of these, being opened.
    pub opening: usize,
    /// Open and lent to nobody.
    pub idle: usize,
    /// Statements waiting for a connection.
    pub waiting: usize,
}

/// Connections of a shard that its pools have closed since the start, though nothing was wrong with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retired {
    /// Unused for `pool.idle_timeout`, or closed for a role that needed the place.
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
        &self.connection.conn
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut RawConn {
        &mut self.connection.conn
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({:?})", self.shard)
    }
}

impl Pools {
    /// Makes the pools of whoever logs in as `login` says at each shard, or of the role that the configuration names; connections are
    /// opened when they are first needed.
    pub(super) fn new(
        data: &[Arc<Places>],
        merge: &[Arc<Places>],
        login: impl Fn(&Places) -> Option<Login>,
    ) -> Arc<Self> {
        let pools = |places: &[Arc<Places>]| {
            let pool = |p: &Arc<Places>| ShardPool::new(p.clone(), login(p));
            places.iter().map(pool).collect()
        };
        Arc::new(Self {
            shards: pools(data),
            merge: pools(merge),
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
        if pool.idle() == 0 || self.is_paused(shard) || self.is_barred(shard) {
            return None;
        }
        let permit = pool.places.permit_now()?;
        pool.lease(permit, now).now_or_never()?.ok()
    }

    /// True when a statement waits for a connection to this shard, of whatever role.
    pub fn is_waited_for(&self, shard: ShardId) -> bool {
        let pool = self.shards.get(shard.0 as usize);
        pool.is_some_and(|pool| pool.places.is_waited_for())
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
        pool.places.connector.send_cancel(handle).await
    }

    /// A shard's name in the configuration.
    pub fn shard_name(&self, shard: ShardId) -> &Arc<str> {
        &self.shards[shard.0 as usize].places.connector.name
    }

    /// Who is logged in at a shard.
    pub(super) fn user(&self, shard: ShardId) -> Arc<str> {
        self.shards[shard.0 as usize].user()
    }

    pub(super) fn connector(&self, shard: ShardId) -> &Connector {
        &self.shards[shard.0 as usize].places.connector
    }

    pub(super) fn gate(&self, shard: ShardId) -> &Gate {
        self.connector(shard).gate()
    }

    /// The pools that statements run on, in the shards' order.
    pub(super) fn data(&self) -> &[Arc<ShardPool>] {
        &self.shards
    }

    /// True while any connection of the role is open.
    pub(super) fn has_connections(&self) -> bool {
        let all = self.shards.iter().chain(&self.merge);
        all.into_iter().any(|pool| pool.connections() > 0)
    }

    fn shard<'a>(
        &self,
        pools: &'a [Arc<ShardPool>],
        shard: ShardId,
    ) -> Result<&'a ShardPool, BackendError> {
        let missing = || BackendError::Unreachable {
            shard: shard.0.to_string(),
            reason: "no such shard in the configuration".into(),
        };
        pools
            .get(shard.0 as usize)
            .map(|p| &**p)
            .ok_or_else(missing)
    }
}

/// The connections of one role to one shard.
#[derive(Debug)]
pub(super) struct ShardPool {
    /// Its number among the pools of these places.
    pub(super) number: u64,
    places: Arc<Places>,
    /// Made at the first use: most roles never need a merge session on every shard. Another one under other settings: bb8's cannot be
    /// changed.
    pool: ArcSwapOption<bb8::Pool<Manager>>,
    /// `None`: the configuration's, as it is when a connection is opened.
    login: Option<Login>,
    failures: Failures,
    /// Connections that are being opened.
    opening: Arc<AtomicUsize>,
}

impl ShardPool {
    fn new(places: Arc<Places>, login: Option<Login>) -> Arc<Self> {
        let this = Arc::new(Self {
            number: places.next_tenant(),
            places,
            pool: ArcSwapOption::empty(),
            login,
            failures: Failures::new(),
            opening: Arc::default(),
        });
        this.places.add_tenant(&this);
        this
    }

    fn pool(&self) -> Arc<bb8::Pool<Manager>> {
        if let Some(pool) = self.pool.load_full() {
            return pool;
        }
        let new = Some(Arc::new(self.build()));
        // Somebody else may have made it at the same time.
        let first = Guard::into_inner(self.pool.compare_and_swap(&None::<Arc<_>>, new.clone()));
        first.or(new).expect("one of the two")
    }

    fn build(&self) -> bb8::Pool<Manager> {
        let settings = self.places.settings();
        let some = |d: Duration| (!d.is_zero()).then_some(d);
        bb8::Pool::builder()
            .max_size(u32::try_from(self.places.most()).unwrap_or(u32::MAX))
            // The default takes the longest unused, whose server process has gone cold: +8 µs a transaction.
            .queue_strategy(QueueStrategy::Lifo)
            // A round trip each; `Lease`s are checked without one.
            .test_on_check_out(false)
            .retry_connection(false)
            .idle_timeout(some(settings.idle_timeout))
            .max_lifetime(some(settings.max_lifetime))
            // Never reached: the connector keeps the deadline and says why.
            .connection_timeout(settings.connect_timeout * 2 + Duration::from_secs(1))
            .error_sink(Box::new(self.failures.clone()))
            .build_unchecked(self.manager())
    }

    fn manager(&self) -> Manager {
        Manager {
            number: self.number,
            places: self.places.clone(),
            login: self.login.clone(),
            opening: self.opening.clone(),
        }
    }

    /// Who its connections are logged in as.
    pub(super) fn user(&self) -> Arc<str> {
        match &self.login {
            Some(login) => login.user.clone(),
            None => self.places.connector.settings().user.as_str().into(),
        }
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, BackendError> {
        self.places.connector.check_known()?;
        self.places.permit(deadline, || self.user()).await
    }

    /// Goes on with another pool, made of the settings of now. Connections on loan have been retired by the connector: they are closed
    /// with their lease.
    pub(super) fn renew(&self) {
        if let Some(old) = self.pool.swap(None) {
            self.places.inherit(statistics(&old));
            idle_connections(&old).for_each(|mut connection| connection.retired = true);
        }
    }

    /// Opens connections until there are `count`; they wait in the pool for whoever needs one. No other role's go for them.
    ///
    /// # Errors
    /// What connecting met with.
    pub(super) async fn fill(&self, count: usize) -> Result<(), BackendError> {
        let pool = self.pool();
        while (pool.state().connections as usize) < count && self.places.has_room() {
            if pool.add(self.manager().connect().await?).is_err() {
                // Others have opened as many meanwhile.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Closes idle connections that would be opened otherwise today.
    pub(super) fn close_retired(&self) {
        if let Some(pool) = self.pool.load_full() {
            let mut taken: Vec<_> = idle_connections(&pool).collect();
            // What is current goes back, last the one that was used last: it is taken first.
            while taken.pop().is_some() {}
        }
    }

    /// A connection that is open as far as can be told without asking the shard.
    async fn lease(
        &self,
        permit: OwnedSemaphorePermit,
        now: Instant,
    ) -> Result<Lease, BackendError> {
        let name = &self.places.connector.name;
        // After a restart of the shard every idle connection is dead; the one behind them is new.
        for _ in 0..=self.places.most() {
            let pool = self.pool();
            let mut connection = self.failures.connection(&pool, name, |e| e).await?;
            if !self.places.connector.is_current(&connection.conn) {
                continue;
            }
            if connection.conn.is_quiet(now) {
                return Ok(Lease {
                    connection,
                    _permit: permit,
                });
            }
            connection.conn.mark_lost();
        }
        let reason = "the server closes connections as soon as they are open";
        Err(self.places.connector.unreachable(reason))
    }

    /// Connections that are open and lent to nobody.
    pub(super) fn idle(&self) -> usize {
        let pool = self.pool.load();
        let state = pool.as_ref().map(|p| p.state());
        state.map_or(0, |s| s.idle_connections as usize)
    }

    pub(super) fn opening(&self) -> usize {
        self.opening.load(Ordering::Relaxed)
    }

    pub(super) fn connections(&self) -> usize {
        let pool = self.pool.load();
        let state = pool.as_ref().map(|p| p.state());
        state.map_or(0, |s| s.connections as usize)
    }

    /// Closes one of the idle connections; false where there was none after all.
    pub(super) fn close_idle(&self) -> bool {
        let taken = self
            .pool
            .load_full()
            .and_then(|p| p.get_owned().now_or_never());
        let Some(Ok(mut connection)) = taken else {
            return false;
        };
        connection.retired = true;
        true
    }

    pub(super) fn retired(&self) -> Retired {
        let pool = self.pool.load();
        pool.as_ref().map(|p| statistics(p)).unwrap_or_default()
    }
}

impl Drop for ShardPool {
    fn drop(&mut self) {
        self.places.inherit(self.retired());
    }
}

/// Takes the idle connections of a pool, one after the other, as long as there are some.
fn idle_connections(
    pool: &bb8::Pool<Manager>,
) -> impl Iterator<Item = PooledConnection<'static, Manager>> {
    std::iter::from_fn(|| {
        // Else bb8 would begin to open one.
        (pool.state().idle_connections > 0).then_some(())?;
        pool.get_owned().now_or_never()?.ok()
    })
}

fn statistics(pool: &bb8::Pool<Manager>) -> Retired {
    let statistics = pool.state().statistics;
    Retired {
        idle: statistics.connections_closed_idle_timeout,
        age: statistics.connections_closed_max_lifetime,
    }
}

/// bb8's view of our connections.
#[derive(Debug)]
struct Manager {
    number: u64,
    places: Arc<Places>,
    login: Option<Login>,
    opening: Arc<AtomicUsize>,
}

/// A connection and the place it takes.
struct Opened {
    conn: RawConn,
    /// Closed for another role's sake.
    retired: bool,
    _place: OwnedSemaphorePermit,
}

impl ManageConnection for Manager {
    /// Boxed, because a lease is moved from hand to hand.
    type Connection = Box<Opened>;
    type Error = BackendError;

    async fn connect(&self) -> Result<Box<Opened>, BackendError> {
        let _opening = Counted::new(&self.opening);
        let place = self.places.place(self.number).await?;
        let connector = &self.places.connector;
        let conn = match &self.login {
            Some(login) => connector.connect_as(login).await?,
            None => connector.connect().await?,
        };
        Ok(Box::new(Opened {
            conn,
            retired: false,
            _place: place,
        }))
    }

    /// Unused: `test_on_check_out` is off.
    async fn is_valid(&self, _conn: &mut Box<Opened>) -> Result<(), BackendError> {
        Ok(())
    }

    /// Called when a lease ends.
    fn has_broken(&self, opened: &mut Box<Opened>) -> bool {
        let metrics = self.places.connector.metrics();
        if !self.places.connector.is_current(&opened.conn) {
            metrics.closed(ConnectionClosed::Replaced);
            return true;
        }
        let clean = opened.conn.end_lease();
        if !clean {
            let kind = match opened.conn.is_lost() {
                true => ConnectionClosed::Lost,
                false => ConnectionClosed::Dirty,
            };
            metrics.closed(kind);
        }
        !clean || opened.retired
    }
}

#[cfg(test)]
mod tests;
