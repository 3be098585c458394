//! What operators see over HTTP: `/livez`, `/readyz`, `/metrics`. Never answers a query and holds no connection of the pools.

mod http;
mod readiness;

use std::io;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::catalog::CatalogWatch;
use crate::backend::roles::Roles;
use crate::backend::tcp;
use crate::config::Config;

pub use http::{Response, get, serve};
pub use readiness::{Probe, Readiness, Report, ShardReport};

/// The HTTP side at work; dropping it ends it.
#[must_use]
pub struct Running(Vec<AbortHandle>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Starts the HTTP side on `server.http` (nothing there when that is empty), and follows the catalog for it. From
/// `shutdown` on `/readyz` says that pgbraid drains; it answers until [`Running`] is dropped.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(
    config: &Arc<Config>,
    catalog: &Arc<CatalogWatch>,
    roles: &Arc<Roles>,
    shutdown: CancellationToken,
) -> io::Result<Running> {
    let readiness = Readiness::over_control(config, catalog);
    readiness.watch(roles.clone());
    let mut tasks = Vec::new();
    if !config.server.http.is_empty() {
        let listener = tcp::listen(&config.server.http, config.server.reuse_port).await?;
        let served = readiness.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = serve(listener, served, std::future::pending()).await {
                tracing::error!(%error, "the http side ended");
            }
        });
        tasks.push(task.abort_handle());
    }
    let follow = tokio::spawn(follow(readiness, catalog.clone(), shutdown));
    tasks.push(follow.abort_handle());
    Ok(Running(tasks))
}

/// Tells readiness what becomes of the catalog.
async fn follow(
    readiness: Arc<Readiness>,
    catalog: Arc<CatalogWatch>,
    shutdown: CancellationToken,
) {
    let mut changes = catalog.changes();
    loop {
        match (catalog.loaded(), catalog.last_error()) {
            (_, Some(error)) => readiness.catalog_failed(error),
            (Some(loaded), None) => {
                let differences = loaded.differences.iter();
                let lines =
                    differences.map(|d| format!("{}: {}: {}", d.shard, d.object, d.message));
                readiness.catalog_loaded(loaded.catalog.version, lines.collect());
            }
            (None, None) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return readiness.drain(),
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
