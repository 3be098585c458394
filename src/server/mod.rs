//! Client connections: handshake, the session loop, the extended protocol, cancel.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Why serving ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, not ours, or not permitted.
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: String, reason: String },
}

/// Serves until `shutdown` is cancelled and the open transactions have had their grace.
///
/// # Errors
/// What keeps it from starting.
pub async fn serve(_config: Arc<Config>, _shutdown: CancellationToken) -> Result<(), ServeError> {
    unimplemented!()
}
