//! How many connections there may be to a shard, whichever role they belong to: permits for those in use, places for those open.
//!
//! A permit is waited for in turn, by all roles alike. Who has one is owed a connection: where the places are taken, an idle
//! connection of another role is closed for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};

use super::BackendError;
use super::connector::Connector;
use super::pool::{Retired, ShardPool, Usage};
use crate::config::Pool as Settings;

/// A connection that is given back while somebody waits for its place may become idle at any time: so often it is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The connections to one shard, of one kind (data or merge sessions).
#[derive(Debug)]
pub(super) struct Places {
    pub(super) connector: Arc<Connector>,
    /// They are merge sessions.
    merge: bool,
    /// Who holds one never waits inside bb8 for anybody else.
    permits: Arc<Semaphore>,
    /// Held by a connection from before it is opened until it is closed.
    open: Arc<Semaphore>,
    size: AtomicUsize,
    /// While the places are made fewer: how many there were.
    most: AtomicUsize,
    settings: ArcSwap<Settings>,
    waiting: AtomicUsize,
    /// The pools of the roles.
    tenants: Mutex<Vec<Weak<ShardPool>>>,
    last_tenant: AtomicU64,
    /// Of pools that are gone, and idle ones that made room.
    retired_idle: AtomicU64,
    retired_age: AtomicU64,
}

impl Places {
    pub(super) fn new(
        connector: Arc<Connector>,
        merge: bool,
        size: usize,
        settings: &Settings,
    ) -> Arc<Self> {
        let size = size.max(1);
        Arc::new(Self {
            connector,
            merge,
            permits: Arc::new(Semaphore::new(size)),
            open: Arc::new(Semaphore::new(size)),
            size: size.into(),
            most: size.into(),
            settings: ArcSwap::from_pointee(settings.clone()),
            waiting: AtomicUsize::new(0),
            tenants: Mutex::default(),
            last_tenant: AtomicU64::new(0),
            retired_idle: AtomicU64::new(0),
            retired_age: AtomicU64::new(0),
        })
    }

    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Acquire)
    }

    /// How many connections there may be at the moment: more than the size for as long as those beyond it are used.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Acquire)
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// True when one more connection can be opened without closing another.
    pub(super) fn has_room(&self) -> bool {
        self.open.available_permits() > 0
    }

    /// Goes on with another number of places and other settings. Permits and places stay what they are, so that whoever waits goes on
    /// waiting; those that are too many go as they come back.
    pub(super) fn renew(self: &Arc<Self>, size: usize, settings: &Settings) {
        let size = size.max(1);
        let before = self.size.swap(size, Ordering::AcqRel);
        self.settings.store(Arc::new(settings.clone()));
        self.most.fetch_max(size, Ordering::AcqRel);
        if size > before {
            self.open.add_permits(size - before);
            self.permits.add_permits(size - before);
        }
        self.renew_tenants();
        let surplus = before.saturating_sub(size);
        if surplus > 0 {
            let this = self.clone();
            tokio::spawn(async move { this.shrink(surplus).await });
        }
    }

    /// Takes so many places out of use.
    async fn shrink(&self, surplus: usize) {
        for _ in 0..surplus {
            match self.permits.acquire().await {
                Ok(permit) => permit.forget(),
                // The end of all.
                Err(_) => return,
            }
            // No more are in use than there are permits left: an idle one goes.
            while let Err(_later) = self.place(u64::MAX).await.map(OwnedSemaphorePermit::forget) {}
        }
        // Unless another change has come meanwhile.
        self.most.store(self.size(), Ordering::Release);
        self.renew_tenants();
    }

    fn renew_tenants(&self) {
        // Else a lease of an old pool would keep that, and what comes back to it in its places, for as long as it lasts.
        self.connector.retire();
        self.tenants().iter().for_each(|pool| pool.renew());
    }

    /// Closes idle connections that would be opened otherwise today.
    pub(super) fn close_retired(&self) {
        self.tenants().iter().for_each(|pool| pool.close_retired());
    }

    pub(super) fn next_tenant(&self) -> u64 {
        self.last_tenant.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add_tenant(&self, pool: &Arc<ShardPool>) {
        let mut tenants = self.tenants.lock();
        tenants.retain(|t| t.strong_count() > 0);
        tenants.push(Arc::downgrade(pool));
    }

    fn tenants(&self) -> Vec<Arc<ShardPool>> {
        self.tenants
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Leave to use a connection; `user` says whose, where it is waited for.
    ///
    /// # Errors
    /// `PoolExhausted` past the deadline.
    pub(super) async fn permit(
        &self,
        deadline: Instant,
        user: impl FnOnce() -> Arc<str>,
    ) -> Result<OwnedSemaphorePermit, BackendError> {
        let wait_seconds = &self.connector.metrics().wait_seconds;
        if let Some(permit) = self.permit_now() {
            wait_seconds.observe(0.0);
            return Ok(permit);
        }
        let _waiting = Counted::new(&self.waiting);
        let _queued = self.connector.gate().queue(user(), self.merge);
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

    /// The same without waiting. A permit that somebody waits for is never free: it goes from hand to hand.
    pub(super) fn permit_now(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// Room for one more open connection of the pool with this number; another one's idle connection is closed where there is none.
    /// Whoever asks on behalf of a permit gets it at last, because there are as many places as permits.
    ///
    /// # Errors
    /// `PoolExhausted` past the connect timeout.
    pub(super) async fn place(&self, number: u64) -> Result<OwnedSemaphorePermit, BackendError> {
        if let Ok(place) = self.open.clone().try_acquire_owned() {
            return Ok(place);
        }
        let found = timeout(self.connector.connect_timeout(), async {
            loop {
                self.make_room(number);
                let soon = timeout(LOOK_AGAIN, self.open.clone().acquire_owned()).await;
                if let Ok(Ok(place)) = soon {
                    return place;
                }
            }
        });
        found.await.map_err(|_| BackendError::PoolExhausted {
            shard: self.connector.name.to_string(),
        })
    }

    /// Closes an idle connection of the pool that has the most of them.
    fn make_room(&self, number: u64) {
        let others = self.tenants().into_iter();
        let others = others.filter(|pool| pool.number != number && pool.idle() > 0);
        if let Some(richest) = others.max_by_key(|pool| pool.idle())
            && richest.close_idle()
        {
            self.retired_idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn usage(&self) -> Usage {
        let tenants = self.tenants();
        let idle = tenants.iter().map(|pool| pool.idle()).sum();
        let open: usize = tenants.iter().map(|pool| pool.connections()).sum();
        let size = self.size();
        let in_use = size - self.permits.available_permits().min(size);
        Usage {
            size,
            in_use,
            opening: in_use.saturating_sub(open.saturating_sub(idle)),
            idle,
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Open connections by the role they are logged in as: idle ones, all of them, and how many are being opened.
    pub(super) fn by_user(&self) -> BTreeMap<Arc<str>, Usage> {
        let mut users = BTreeMap::<_, Usage>::new();
        for pool in self.tenants() {
            let usage = users.entry(pool.user()).or_default();
            let (open, idle, opening) = (pool.connections(), pool.idle(), pool.opening());
            usage.size = self.size();
            usage.in_use += open.saturating_sub(idle) + opening;
            usage.opening += opening;
            usage.idle += idle;
        }
        users
    }

    pub(super) fn retired(&self) -> Retired {
        let gone = Retired {
            idle: self.retired_idle.load(Ordering::Relaxed),
            age: self.retired_age.load(Ordering::Relaxed),
        };
        let tenants = self.tenants();
        tenants.iter().fold(gone, |sum, pool| {
            let more = pool.retired();
            Retired {
                idle: sum.idle + more.idle,
                age: sum.age + more.age,
            }
        })
    }

    /// Keeps what a pool that goes has counted.
    pub(super) fn inherit(&self, counted: Retired) {
        self.retired_idle.fetch_add(counted.idle, Ordering::Relaxed);
        self.retired_age.fetch_add(counted.age, Ordering::Relaxed);
    }

    /// Turns those who wait away, gives connections on loan until `deadline` to come back, and closes the idle ones.
    pub(super) async fn close(&self, deadline: Instant) {
        let all = u32::try_from(self.size()).unwrap_or(u32::MAX);
        // All permits are back when all leases are. Closing the semaphore turns those who still wait away.
        let _ = timeout_at(deadline.into(), self.permits.acquire_many(all)).await;
        self.permits.close();
        for pool in self.tenants() {
            while pool.idle() > 0 && pool.close_idle() {}
        }
    }
}

/// Counts one for as long as it lives, also when the future that has it is dropped.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
