//! What operators see and do: the live page, `/livez`, `/startupz`, `/readyz` and `/metrics` over HTTP, and the console. Never answers a query and holds
//! no connection of the pools.

pub mod console;
mod http;
mod live;
mod readiness;

use std::io;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::catalog::CatalogWatch;
use crate::backend::roles::Roles;
use crate::backend::tcp;
use crate::config::{Config, Live};
use crate::registry::Registry;

use console::Console;
pub use http::{Response, get};
use live::LivePage;
pub use readiness::{Probe, Readiness, Report, ShardReport};

/// What operators look at and steer, as the server has it.
#[derive(Clone)]
pub struct Served {
    /// The settings in force.
    pub live: Arc<Live>,
    /// Live sessions.
    pub registry: Arc<Registry>,
    /// Tables and types, as of the last load.
    pub catalog: Arc<CatalogWatch>,
    /// Connections to the shards, by role.
    pub roles: Arc<Roles>,
    /// Cancelled when no more clients are wanted; those that are there may stay.
    pub closing: CancellationToken,
    /// Cancelled when the process is to end. It cancels `closing` as well.
    pub shutdown: CancellationToken,
}

impl Served {
    /// The settings in force.
    pub fn config(&self) -> Arc<Config> {
        self.live.snapshot()
    }
}

/// The HTTP side at work; dropping it ends it.
#[must_use]
pub struct Running(Vec<AbortHandle>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Starts what the console needs and the HTTP side on `server.http` (nothing there when that is empty), and follows the catalog for it. From
/// `closing` on `/readyz` says that pgbraid drains; it answers until [`Running`] is dropped.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(console: &Arc<Console>) -> io::Result<Running> {
    let served = console.served();
    let readiness = Readiness::over_control(&served.config(), &served.catalog);
    readiness.watch(served.roles.clone(), served.registry.clone());
    let mut tasks = Vec::new();
    let (http, reuse_port) = {
        let server = &served.config().server;
        (server.http.clone(), server.reuse_port)
    };
    if !http.is_empty() {
        let listener = tcp::listen(&http, reuse_port).await?;
        let address = listener.local_addr()?;
        let is_local = address.ip().is_loopback();
        if !is_local && served.config().server.http_password.is_empty() {
            tracing::warn!(
                http = %address,
                "the live page shows the texts of statements (without literals) to whoever reaches this address: set server.http_password"
            );
        }
        let live = LivePage::new(served.clone(), readiness.clone(), is_local);
        let readiness = readiness.clone();
        let task = tokio::spawn(async move {
            let served = http::serve(listener, readiness, Some(live), std::future::pending());
            if let Err(error) = served.await {
                tracing::error!(%error, "the http side ended");
            }
        });
        tasks.push(task.abort_handle());
    }
    let closing = served.closing.clone();
    let follow = tokio::spawn(follow(readiness, served.catalog.clone(), closing));
    tasks.push(follow.abort_handle());
    let console = console.clone();
    let averages = tokio::spawn(async move { console.keep_averages().await });
    tasks.push(averages.abort_handle());
    Ok(Running(tasks))
}

/// Tells readiness what becomes of the catalog.
async fn follow(readiness: Arc<Readiness>, catalog: Arc<CatalogWatch>, closing: CancellationToken) {
    let mut changes = catalog.changes();
    loop {
        match (catalog.loaded(), catalog.last_error()) {
            (_, Some(error)) => readiness.catalog_failed(error),
            (Some(loaded), None) => {
                let differences = loaded.differences.iter();
                let lines =
                    differences.map(|d| format!("{}: {}: {}", d.shard, d.object, d.message));
                readiness.catalog_loaded(loaded.catalog.version, lines.collect());
                let shards = &catalog.control().shards;
                let unread = loaded.unread.iter();
                let unread = unread.filter_map(|s| shards.get(usize::from(s.0)));
                readiness.shards_unread(unread.map(|s| s.connector.name.to_string()).collect());
            }
            (None, None) => {}
        }
        tokio::select! {
            () = closing.cancelled() => return readiness.drain(),
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Woken when an operator wants the configuration and the shards' catalogs read again (SIGHUP). A request made while nobody waits is
/// kept.
pub fn reload() -> &'static Notify {
    static RELOAD: Notify = Notify::const_new();
    &RELOAD
}
