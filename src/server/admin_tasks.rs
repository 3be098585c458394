//! Starts the HTTP side and keeps what it tells of the catalog up to date.

use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;

use super::Shared;
use super::listener::ServeError;
use crate::admin;
use crate::plan::ShardId;

/// Serves `/livez`, `/readyz` and `/metrics` until shutdown; nothing when `server.http` is empty.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(shared: &Arc<Shared>) -> Result<(), ServeError> {
    let address = shared.config.server.http.clone();
    if address.is_empty() {
        return Ok(());
    }
    let listen = |reason: std::io::Error| ServeError::Listen {
        address: address.clone(),
        reason: reason.to_string(),
    };
    let listener = TcpListener::bind(&address).await.map_err(listen)?;
    let names = shared
        .config
        .shards
        .iter()
        .map(|s| s.name.clone())
        .collect();
    let probed = shared.clone();
    let readiness = admin::Readiness::new(
        names,
        Box::new(move |shard| {
            let shared = probed.clone();
            Box::pin(async move { probe(&shared, ShardId(shard as u16)).await })
        }),
    );
    let (told, watch) = (readiness.clone(), shared.clone());
    shared.tasks.spawn(async move {
        let mut changes = watch.catalog.changes();
        loop {
            match watch.catalog.loaded() {
                Some(loaded) => {
                    let differences = loaded
                        .differences
                        .iter()
                        .map(|d| format!("{}: {}: {}", d.shard, d.object, d.message));
                    told.catalog_loaded(loaded.catalog.version, differences.collect());
                }
                None => told.catalog_failed(
                    watch
                        .catalog
                        .last_error()
                        .unwrap_or_else(|| "not loaded yet".into()),
                ),
            }
            tokio::select! {
                () = watch.shutdown.cancelled() => return told.drain(),
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    });
    let shutdown = shared.shutdown.clone();
    tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, readiness, shutdown.cancelled_owned()).await {
            tracing::error!(%error, "the http side ended");
        }
    });
    Ok(())
}

/// A connection from the shard's pool is proof enough that it can be reached.
async fn probe(shared: &Shared, shard: ShardId) -> Result<(), String> {
    let deadline = Instant::now() + shared.config.pool.connect_timeout;
    shared
        .pools
        .acquire(&[shard], deadline)
        .await
        .map(drop)
        .map_err(|e| e.to_string())
}
