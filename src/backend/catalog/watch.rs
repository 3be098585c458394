//! Keeps the catalog up to date while sessions run: on a timer, when somebody has seen a sign of change, one load at a time.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;

use super::absent::Read;
use super::orders::{self, Agreed};
use super::snapshot::Snapshot;
use super::verify::{self, HashCheck};
use super::{Loaded, merge, read_all};
use crate::backend::BackendError;
use crate::backend::control::ControlPlane;
use crate::backend::roles::Roles;
use crate::config::{Config, Live};
use crate::metrics;
use crate::plan::ShardId;

/// Between two loads when a shard was not there.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Loads take at most one part in so many of the time: users' typing errors are signs of change, too, and there may be many.
const LOAD_SHARE: u32 = 4;
const LOAD_PAUSE_MIN: Duration = Duration::from_millis(250);

/// The catalog in force.
#[derive(Debug)]
pub struct CatalogWatch {
    live: Arc<Live>,
    control: ArcSwap<ControlPlane>,
    loaded: ArcSwapOption<Loaded>,
    last_error: ArcSwap<Option<String>>,
    /// Held while a load runs.
    state: Mutex<State>,
    wanted: Notify,
    changes: watch::Sender<u64>,
    /// Those that are to keep away from shards of which nothing is known.
    roles: OnceLock<Arc<Roles>>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    snapshots: Vec<Snapshot>,
    /// Shards whose snapshot is not their own.
    unread: Vec<ShardId>,
    /// What the last load took for what tables are.
    config: Option<Arc<Config>>,
    hash_check: Option<HashCheck>,
    /// Locales compared so far.
    orders: Agreed,
    /// When the last load began, and what it gave.
    last: Option<(Instant, Result<Arc<Loaded>, BackendError>)>,
    last_duration: Duration,
    /// Differences already logged.
    told: HashSet<String>,
}

impl State {
    /// Each shard's own snapshot, where it has been read.
    fn known(&self) -> impl Iterator<Item = Option<&Snapshot>> {
        let shards = self.snapshots.iter().enumerate();
        shards.map(|(i, s)| (!self.unread.contains(&ShardId(i as u16))).then_some(s))
    }
}

impl CatalogWatch {
    /// Nothing is loaded yet. Must be called inside a runtime.
    pub fn new(live: &Arc<Live>) -> Arc<Self> {
        Arc::new(Self {
            control: ArcSwap::new(ControlPlane::new(&live.now())),
            live: live.clone(),
            loaded: ArcSwapOption::empty(),
            last_error: ArcSwap::default(),
            state: Mutex::default(),
            wanted: Notify::new(),
            changes: watch::Sender::new(0),
            roles: OnceLock::new(),
        })
    }

    /// From now on nothing of `roles` runs on a shard before its catalog has been read; only the first call counts.
    pub fn guard(&self, roles: &Arc<Roles>) {
        // A process has one set of them.
        let _ = self.roles.set(roles.clone());
    }

    /// Starts the task that loads now, on the timer and after [`CatalogWatch::changed`], until `stop`. A shard that is down does
    /// not end it: it tries again.
    pub fn start(self: &Arc<Self>, stop: CancellationToken) {
        let watch = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watch.run() => {}
            }
        });
    }

    async fn run(&self) {
        loop {
            let _ = self.refresh().await;
            let duration = self.state.lock().await.last_duration;
            tokio::time::sleep((duration * LOAD_SHARE).max(LOAD_PAUSE_MIN)).await;
            let waits = self.loaded().is_some_and(|l| !l.unread.is_empty());
            let interval = match self.last_error() {
                Some(_) => RETRY_INTERVAL,
                None if waits => RETRY_INTERVAL,
                None => self.live.now().database.catalog_refresh,
            };
            tokio::select! {
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(interval), if !interval.is_zero() => {}
            }
        }
    }

    /// The catalog in force; `None` until the first load has succeeded.
    pub fn loaded(&self) -> Option<Arc<Loaded>> {
        self.loaded.load_full()
    }

    /// Why the last load failed; `None` after a good one.
    pub fn last_error(&self) -> Option<String> {
        (**self.last_error.load()).clone()
    }

    /// Says that something may have changed (DDL, 42P01, 42703): the catalog is loaded again soon. Never waits.
    pub fn changed(&self) {
        self.wanted.notify_one();
    }

    /// A number that changes whenever [`CatalogWatch::loaded`] or [`CatalogWatch::last_error`] says something new.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The control plane's connections, for others that have to ask the shards something.
    pub fn control(&self) -> Arc<ControlPlane> {
        self.control.load_full()
    }

    /// Looks again for what the configuration in force says, over other connections where the shards are elsewhere or got into otherwise.
    pub fn renew(&self) {
        if let Some(control) = self.control().renewed(&self.live.now()) {
            self.control.store(control);
        }
        self.changed();
    }

    /// The same over other connections in any case: a shard's name leads elsewhere.
    pub(in crate::backend) fn reconnect(&self) {
        self.control.store(ControlPlane::new(&self.live.now()));
        self.changed();
    }

    /// Loads now, or takes part in a load that began after the call. The version grows only when something other than estimates
    /// has changed; after a failure the old catalog stays in force. A shard that has not been there since the start is left out.
    ///
    /// # Errors
    /// What the first failing shard met with.
    pub async fn refresh(&self) -> Result<Arc<Loaded>, BackendError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some((began, result)) = &state.last
            && *began >= asked
        {
            return result.clone();
        }
        let began = Instant::now();
        let result = self.load(&mut state).await;
        state.last_duration = began.elapsed();
        match &result {
            Ok(loaded) => {
                metrics::global().catalog_loads.inc();
                self.succeeded(&mut state, loaded);
            }
            Err(error) => {
                metrics::global().catalog_load_errors.inc();
                self.failed(error);
            }
        }
        state.last = Some((began, result.clone()));
        result
    }

    async fn load(&self, state: &mut State) -> Result<Arc<Loaded>, BackendError> {
        let config = self.live.snapshot();
        let same_rules = state
            .config
            .as_ref()
            .is_some_and(|last| last.tables == config.tables && last.database == config.database);
        let control = self.control();
        let said = read_all(&control).await;
        let known: Vec<_> = state.known().collect();
        let causes: Vec<_> = said.iter().map(|s| s.as_ref().err().cloned()).collect();
        let Read {
            mut snapshots,
            unread,
        } = Read::of(said, &known)?;
        orders::prove(&control, &mut snapshots, &mut state.orders).await?;
        let check = match state.hash_check.take().filter(|_| same_rules) {
            Some(check) => check,
            None => verify::hash_partitions(&config, &control).await?,
        };
        let unchanged = same_rules
            && state.unread == unread
            && state.snapshots.len() == snapshots.len()
            && state
                .snapshots
                .iter()
                .zip(&snapshots)
                .all(|(old, new)| old.contents == new.contents);
        if !unchanged {
            state.version += 1;
            tell_unread(&state.unread, &unread, &causes);
        }
        let version = state.version;
        state.config = Some(config.clone());
        // Large catalogs take a while to put together: not on a thread that serves sessions.
        let merged = tokio::task::spawn_blocking(move || {
            let loaded = merge::merge(&config, &snapshots, &check, version);
            let loaded = match unread.is_empty() {
                true => loaded,
                false => loaded.without(&unread, &config),
            };
            (Arc::new(loaded), snapshots, check)
        });
        let (loaded, snapshots, check) = merged.await.map_err(|e| {
            let catalog_shard = &control.shards[0].connector;
            catalog_shard.protocol(format!("its catalog cannot be put together: {e}"))
        })?;
        state.snapshots = snapshots;
        state.unread = loaded.unread.clone();
        state.hash_check = Some(check);
        Ok(loaded)
    }

    fn succeeded(&self, state: &mut State, loaded: &Arc<Loaded>) {
        let version = loaded.catalog.version;
        let roles = self.roles.get();
        // Before anybody can plan by it, and after nobody plans by the one before.
        roles.inspect(|roles| roles.bar(&loaded.unread));
        let before = self.loaded.swap(Some(loaded.clone()));
        roles.inspect(|roles| roles.admit(&loaded.unread, version));
        let recovered = self.last_error.swap(Arc::new(None)).is_some();
        if before.is_some_and(|b| b.catalog.version == version) && !recovered {
            return;
        }
        tracing::info!(
            version,
            tables = loaded.catalog.tables.len(),
            "catalog loaded"
        );
        for difference in &loaded.differences {
            let text = difference.to_string();
            if state.told.contains(&text) {
                continue;
            }
            tracing::warn!(fatal = difference.fatal, "{text}");
        }
        state.told = loaded.differences.iter().map(|d| d.to_string()).collect();
        self.changes.send_modify(|n| *n += 1);
    }

    fn failed(&self, error: &BackendError) {
        let text = error.to_string();
        let before = self.last_error.swap(Arc::new(Some(text.clone())));
        if before.as_deref() != Some(text.as_str()) {
            tracing::warn!(%error, "the catalog cannot be loaded, trying again");
            self.changes.send_modify(|n| *n += 1);
        }
    }
}

/// Says which shards are done without, and which are not any more.
fn tell_unread(before: &[ShardId], now: &[ShardId], causes: &[Option<BackendError>]) {
    let cause = |shard: &ShardId| causes.get(usize::from(shard.0))?.as_ref();
    for error in now.iter().filter(|s| !before.contains(s)).filter_map(cause) {
        tracing::error!(
            shard = error.shard(),
            %error,
            "goes on without a shard: statements that need it are refused until it is there"
        );
    }
    if before.iter().any(|shard| !now.contains(shard)) {
        let left = now.len();
        tracing::info!(
            left,
            "a shard that was not there at the start is in use from now on"
        );
    }
}
