//! Whether pgbraid can answer statements now, and if not, why: every shard reachable, a catalog loaded, not draining.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::Serialize;

use crate::backend::catalog::CatalogWatch;
use crate::backend::health;
use crate::backend::pool::Usage;
use crate::backend::roles::Roles;
use crate::config::Config;
use crate::metrics::ConnectionClosed;
use crate::plan::ShardId;
use crate::registry::{Registry, State, servers};

/// Tries to reach one shard (by its place in the configuration); `Err` says why it cannot be.
pub type Probe =
    dyn Fn(usize) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

/// A report is good for so long: however many ask, the shards get one login a second at most.
const REPORT_LIFETIME: Duration = Duration::from_secs(1);
/// Orchestrators give up on a probe after a few seconds; a silent shard must not keep the answer from them.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What `/readyz` answers, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// No reason speaks against it.
    pub ready: bool,
    /// Why it is not ready, a sentence each.
    pub reasons: Vec<String>,
    /// In the order of the configuration.
    pub shards: Vec<ShardReport>,
    /// Version of the catalog in use; 0: none is loaded.
    pub catalog_version: u64,
    /// How the shards' catalogs differ. Statements over these objects are refused; the others are answered.
    pub differences: Vec<String>,
}

/// One shard of a [`Report`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardReport {
    /// Its name in the configuration.
    pub name: String,
    /// It could be logged in to.
    pub reachable: bool,
    /// How long that took.
    pub milliseconds: u64,
    /// Why it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ShardReport {
    /// Why it speaks against being ready; the errors of connections say already which shard it is.
    fn reason(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        let told = format!("shard {} cannot be reached", self.name);
        Some(match error.starts_with(&told) {
            true => error.clone(),
            false => format!("{told}: {error}"),
        })
    }
}

#[derive(Default)]
struct CatalogState {
    version: u64,
    failure: Option<String>,
    differences: Vec<String>,
    /// Names of shards that nothing runs on before their catalogs have been read.
    unread: Vec<String>,
}

impl CatalogState {
    fn obstacle(&self) -> Option<String> {
        let why = self.failure.as_deref().unwrap_or("it is being loaded");
        (self.version == 0).then(|| format!("no catalog: {why}"))
    }
}

/// Kept up to date by the server, asked by `/startupz` and `/readyz`.
pub struct Readiness {
    shards: Vec<String>,
    probe: Box<Probe>,
    catalog: Mutex<CatalogState>,
    draining: AtomicBool,
    probe_timeout: Duration,
    watched: OnceLock<(Arc<Roles>, Arc<Registry>)>,
    /// Held while the shards are probed, so that callers at the same time share one round.
    last: tokio::sync::Mutex<Option<(Instant, Vec<ShardReport>)>>,
}

impl Readiness {
    /// Asks the shards over the control plane's connections: a full pool is no reason to call a shard unreachable.
    pub fn over_control(config: &Config, catalog: &Arc<CatalogWatch>) -> Arc<Self> {
        let names = config.shards.iter().map(|s| s.name.clone()).collect();
        let catalog = catalog.clone();
        let probe = move |shard| -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
            let control = catalog.control();
            Box::pin(async move {
                // The configuration allows no more shards than fit.
                let shard = ShardId(shard as u16);
                let answer = health::probe(&control, shard, PROBE_TIMEOUT).await;
                answer.map(drop).map_err(|error| error.to_string())
            })
        };
        Self::new(names, Box::new(probe))
    }

    /// Not ready until [`Readiness::catalog_loaded`] has been called.
    pub fn new(shards: Vec<String>, probe: Box<Probe>) -> Arc<Self> {
        Arc::new(Self::with_timeout(shards, probe, PROBE_TIMEOUT))
    }

    fn with_timeout(shards: Vec<String>, probe: Box<Probe>, probe_timeout: Duration) -> Self {
        Self {
            probe_timeout,
            watched: OnceLock::new(),
            shards,
            probe,
            catalog: Mutex::default(),
            draining: AtomicBool::new(false),
            last: tokio::sync::Mutex::default(),
        }
    }

    /// Lets `/metrics` read the state of pools and sessions; only the first call counts.
    pub fn watch(&self, pools: Arc<Roles>, registry: Arc<Registry>) {
        // Set twice it would be the same: a process has one set of them.
        let _ = self.watched.set((pools, registry));
    }

    /// Brings the gauges of pools and sessions up to date, before they are read.
    pub(super) fn refresh_gauges(&self) {
        let Some((pools, registry)) = self.watched.get() else {
            return;
        };
        let roles = pools.count() as i64;
        crate::metrics::global().role_pools.set(roles);
        refresh_clients(registry);
        // A shard serves both its data connections and its merge sessions.
        let usage = pools.usage().into_iter().zip(pools.merge_usage());
        let usage = usage.zip(pools.retired());
        for (name, ((data, merge), retired)) in self.shards.iter().zip(usage) {
            let shard = crate::metrics::global().shard(name);
            let sum = |of: fn(&Usage) -> usize| (of(&data) + of(&merge)) as i64;
            shard.connections.set(sum(|u| u.in_use + u.idle));
            shard.connections_max.set(sum(|u| u.size));
            shard.connections_in_use.set(sum(|u| u.in_use));
            shard.connections_idle.set(sum(|u| u.idle));
            shard.waiters.set(sum(|u| u.waiting));
            shard.in_flight.set(servers::at_work(name) as i64);
            shard.closed_in_all(ConnectionClosed::Idle, retired.idle);
            shard.closed_in_all(ConnectionClosed::Age, retired.age);
        }
    }

    /// A catalog is in use from now on; `differences` between the shards are for the operator to see.
    pub fn catalog_loaded(&self, version: u64, differences: Vec<String>) {
        *self.catalog.lock() = CatalogState {
            version,
            failure: None,
            differences,
            unread: Vec::new(),
        };
        crate::metrics::global().catalog_version.set(version as i64);
    }

    /// The catalog in use knows nothing of these shards, which have not been there since the start.
    pub fn shards_unread(&self, names: Vec<String>) {
        self.catalog.lock().unread = names;
    }

    /// Loading failed. An earlier catalog stays in use, so only the first one is missed.
    pub fn catalog_failed(&self, why: impl Into<String>) {
        self.catalog.lock().failure = Some(why.into());
    }

    /// No new clients are wanted: load balancers shall look elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Why no client can log in; `None` once a catalog is in use. Asks no shard.
    pub fn obstacle(&self) -> Option<String> {
        self.catalog.lock().obstacle()
    }

    /// Looks at everything; the shards are probed side by side, at most once a second.
    pub async fn report(&self) -> Report {
        let shards = self.probe_shards().await;
        let mut reasons = Vec::new();
        if self.draining.load(Ordering::Acquire) {
            reasons.push("pgbraid is shutting down".to_string());
        }
        for shard in &shards {
            reasons.extend(shard.reason());
        }
        let catalog = self.catalog.lock();
        reasons.extend(catalog.obstacle());
        let is_there = |name: &&String| shards.iter().any(|s| s.name == **name && s.reachable);
        for name in catalog.unread.iter().filter(is_there) {
            reasons.push(format!(
                "shard {name} is there, its catalog has not been read yet"
            ));
        }
        Report {
            ready: reasons.is_empty(),
            reasons,
            shards,
            catalog_version: catalog.version,
            differences: catalog.differences.clone(),
        }
    }

    async fn probe_shards(&self) -> Vec<ShardReport> {
        let mut last = self.last.lock().await;
        if let Some((at, shards)) = &*last
            && at.elapsed() < REPORT_LIFETIME
        {
            return shards.clone();
        }
        let probes = self
            .shards
            .iter()
            .enumerate()
            .map(|(i, name)| self.probe_shard(i, name));
        let shards = join_all(probes).await;
        *last = Some((Instant::now(), shards.clone()));
        shards
    }

    async fn probe_shard(&self, index: usize, name: &str) -> ShardReport {
        let start = Instant::now();
        let answer = tokio::time::timeout(self.probe_timeout, (self.probe)(index)).await;
        let limit = self.probe_timeout;
        let error = answer
            .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
            .err();
        crate::metrics::global()
            .shard(name)
            .up
            .set(i64::from(error.is_none()));
        ShardReport {
            name: name.to_string(),
            reachable: error.is_none(),
            milliseconds: start.elapsed().as_millis() as u64,
            error,
        }
    }
}

/// Brings up to date what is counted for each session by itself.
fn refresh_clients(registry: &Registry) {
    let metrics = crate::metrics::global();
    let sessions = registry.sessions();
    for state in State::ALL {
        let count = sessions.iter().filter(|s| s.activity.state() == state);
        metrics.set_clients(state.label(), count.count());
    }
    metrics.set_transactions(registry.totals().transactions);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn readiness(down: Option<usize>, asked: Arc<AtomicUsize>) -> Arc<Readiness> {
        let probe = move |i| -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
            asked.fetch_add(1, Ordering::SeqCst);
            let answer = if down == Some(i) {
                Err("connection refused".to_string())
            } else {
                Ok(())
            };
            Box::pin(async { answer })
        };
        Readiness::new(vec!["s1".into(), "s2".into()], Box::new(probe))
    }

    #[tokio::test]
    async fn ready_needs_a_catalog_and_every_shard() {
        let ready = readiness(None, Arc::default());
        assert_eq!(
            ready.report().await.reasons,
            ["no catalog: it is being loaded"]
        );
        ready.catalog_failed("permission denied");
        assert_eq!(
            ready.report().await.reasons,
            ["no catalog: permission denied"]
        );
        assert_eq!(
            ready.obstacle().as_deref(),
            Some("no catalog: permission denied")
        );
        ready.catalog_loaded(1, vec!["table public.a".into()]);
        assert_eq!(ready.obstacle(), None);
        let report = ready.report().await;
        assert!(report.ready);
        assert_eq!(report.differences, ["table public.a"]);
        let half = readiness(Some(1), Arc::default());
        half.catalog_loaded(1, vec![]);
        assert_eq!(
            half.report().await.reasons,
            ["shard s2 cannot be reached: connection refused"]
        );
    }

    #[test]
    fn a_reason_names_its_shard_once() {
        let reason = |error: &str| {
            let report = ShardReport {
                name: "s1".into(),
                reachable: false,
                milliseconds: 0,
                error: Some(error.into()),
            };
            report.reason().unwrap()
        };
        assert_eq!(reason("refused"), "shard s1 cannot be reached: refused");
        let whole = "shard s1 cannot be reached: refused";
        assert_eq!(reason(whole), whole);
    }

    #[tokio::test]
    async fn a_shard_that_came_late_is_read_before_it_counts() {
        let ready = readiness(None, Arc::default());
        ready.catalog_loaded(1, vec![]);
        ready.shards_unread(vec!["s2".into()]);
        assert_eq!(
            ready.report().await.reasons,
            ["shard s2 is there, its catalog has not been read yet"]
        );
        ready.catalog_loaded(2, vec![]);
        assert!(ready.report().await.ready);
    }

    #[tokio::test]
    async fn a_failed_reload_keeps_it_ready() {
        let ready = readiness(None, Arc::default());
        ready.catalog_loaded(1, vec![]);
        ready.catalog_failed("shard s1 is gone");
        assert!(ready.report().await.ready);
        ready.drain();
        assert_eq!(ready.report().await.reasons, ["pgbraid is shutting down"]);
    }

    #[tokio::test]
    async fn many_askers_share_one_round_of_probes() {
        let asked = Arc::new(AtomicUsize::new(0));
        let ready = readiness(None, asked.clone());
        join_all((0..20).map(|_| ready.report())).await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_silent_shard_does_not_hold_the_answer_up() {
        let silent: Box<Probe> = Box::new(|_| Box::pin(std::future::pending()));
        let limit = Duration::from_millis(1);
        let report = Readiness::with_timeout(vec!["s1".into()], silent, limit)
            .report()
            .await;
        assert_eq!(
            report.shards[0].error.as_deref(),
            Some("no answer within 1ms")
        );
    }
}
