//! Client connections: listener, handshake, the session loop, the extended protocol, cancel.

mod auth;
mod bind;
mod broadcast;
mod by_name;
mod by_shape;
mod cancel;
mod console;
mod console_extended;
pub mod control;
mod copy;
mod copy_out;
mod cursors;
mod direct;
mod encoding;
mod explain;
mod extended;
mod guards;
mod handshake;
mod held;
mod home;
mod idle;
mod listener;
mod local;
mod lock;
mod login;
mod merge_session;
mod missing;
mod notifications;
mod open;
mod own_settings;
mod pins;
mod plan_cache;
mod portals;
mod prepare;
mod prepared;
pub mod probe;
mod reload;
mod rerun;
mod role;
mod routing;
mod run;
mod schema;
mod serializable;
mod session;
mod set;
mod settings;
mod side_by_side;
mod silence;
mod simple;
mod snapshot;
mod sockets;
mod statements;
mod stream;
mod temporary;
mod tls;
#[cfg(feature = "otlp")]
mod traces;
mod transaction;
mod units;
mod verifier;
mod watch;
mod wording;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Served;
use crate::admin::console::Console;
use crate::backend::catalog::CatalogWatch;
use crate::backend::roles::Roles;
use crate::config::{Config, Live};
use crate::metrics::Metrics;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::registry::Registry;
use prepared::{CacheKey, Prepared};

pub use listener::{ServeError, Server, serve};
pub use reload::Reloader;
pub use sockets::Inherited;
pub use wording::refuse as refusal_of_kind;

/// Bytes of plans kept for reuse, all sessions together.
const PLAN_CACHE_BYTES: u64 = 64 << 20;
/// A guess at how many statements that is; only sizes the cache's tables.
const PLAN_CACHE_ENTRIES: usize = 10_000;

/// What all sessions share.
pub(crate) struct Shared {
    live: Arc<Live>,
    /// Connections to the shards, by role.
    pub roles: Arc<Roles>,
    /// Tables and types, as of the last load.
    pub catalog: Arc<CatalogWatch>,
    /// What operators see and do.
    pub console: Arc<Console>,
    /// Live sessions.
    pub registry: Arc<Registry>,
    /// What is counted.
    pub metrics: &'static Metrics,
    /// Statements planned before.
    pub plans: Cache<CacheKey, Arc<Prepared>, ByBytes>,
    /// How often the only shard's schema may have changed, see [`schema`].
    schema_changes: AtomicU64,
    /// Hashes of shapes (see [`crate::sql::shape`]) met before; false: of no use.
    pub shapes: Cache<u64, bool>,
    /// Who may log in.
    pub users: ArcSwap<auth::Users>,
    /// For clients; `None` when disabled.
    pub tls: ArcSwapOption<tls::ServerTls>,
    /// By `ShardId`, for errors and logs.
    pub shard_names: Arc<[Arc<str>]>,
    /// Short work that outlives a statement: cancel requests.
    pub tasks: TaskTracker,
    /// Cancelled when no more clients are wanted.
    pub closing: CancellationToken,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
    next_merge: AtomicU16,
}

impl Shared {
    fn new(
        config: Arc<Config>,
        tls: Option<tls::ServerTls>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let live = Live::new(config.clone());
        let served = Served {
            roles: Roles::new(&config),
            catalog: CatalogWatch::new(&live),
            registry: Arc::default(),
            closing: shutdown.child_token(),
            shutdown: shutdown.clone(),
            live: live.clone(),
        };
        served.catalog.guard(&served.roles);
        Arc::new(Self {
            shard_names: config
                .shards
                .iter()
                .map(|s| Arc::from(s.name.as_str()))
                .collect(),
            catalog: served.catalog.clone(),
            registry: served.registry.clone(),
            roles: served.roles.clone(),
            closing: served.closing.clone(),
            console: Console::new(served),
            metrics: crate::metrics::global(),
            plans: Cache::with_weighter(PLAN_CACHE_ENTRIES, PLAN_CACHE_BYTES, ByBytes),
            schema_changes: AtomicU64::new(0),
            shapes: Cache::new(PLAN_CACHE_ENTRIES),
            users: ArcSwap::from_pointee(auth::Users::new(&config)),
            tasks: TaskTracker::new(),
            next_merge: AtomicU16::new(0),
            tls: ArcSwapOption::new(tls.map(Arc::new)),
            shutdown,
            live,
        })
    }

    /// The settings in force: looked at anew each time, because they may be replaced.
    pub fn config(&self) -> Guard<Arc<Config>> {
        self.live.now()
    }

    /// Merge sessions take turns over the shards that are there, known and not paused; over all where all are paused.
    pub fn next_merge_shard(&self, missing: &[ShardId]) -> ShardId {
        let shards = self.shard_names.len() as u16;
        let n = self.next_merge.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = (0..shards).map(|more| ShardId(n.wrapping_add(more) % shards));
        let pools = self.roles.configured();
        let open = in_turn.find(|shard| {
            !missing.contains(shard) && !pools.is_paused(*shard) && !pools.is_barred(*shard)
        });
        open.unwrap_or(ShardId(n % shards))
    }

    /// An error that says the catalog is out of date has it loaded again.
    pub fn note_error(&self, error: &ServerError) {
        // Undefined table, column, function; a plan that no longer fits its tables.
        if matches!(error.sqlstate().as_str(), "42P01" | "42703" | "42883")
            || schema::is_cached_plan(error)
        {
            self.catalog.changed();
        }
        self.doubt_schema(error);
    }
}

/// Weighs cached plans by the bytes they hold.
#[derive(Clone)]
pub(crate) struct ByBytes;

impl Weighter<CacheKey, Arc<Prepared>> for ByBytes {
    fn weight(&self, key: &CacheKey, prepared: &Arc<Prepared>) -> u64 {
        prepared.weight() + key.sql.len() as u64
    }
}
