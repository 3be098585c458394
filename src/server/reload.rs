//! Another configuration for a server that runs: checked whole, put in force at once. Sessions go on and see it from their next look.

use std::sync::Arc;

use super::Shared;
use super::tls;
use crate::config::{Config, renewed};

/// Gives a running server another configuration.
#[derive(Clone)]
pub struct Reloader(Arc<Shared>);

impl Reloader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Puts `new` in force, certificates read anew, and has the shards' catalogs read again. The names of the settings that stay as
    /// they were, because only a restart can change them, come back.
    ///
    /// # Errors
    /// Why the certificates cannot be used; nothing has changed then.
    pub async fn reload(&self, new: Config) -> Result<Vec<&'static str>, String> {
        let shared = &self.0;
        let current = shared.live.snapshot();
        let (new, kept) = renewed(&current, new);
        let tls = tls::load(&new.tls)?;
        let users = shared.users.load_full();
        // A verifier takes milliseconds to derive from a password: not on a thread that serves sessions.
        let derived = tokio::task::spawn_blocking(move || {
            let users = users.renewed(&new);
            (users, current, new)
        });
        let (users, current, new) = derived.await.map_err(|e| e.to_string())?;
        shared.users.store(Arc::new(users));
        shared.tls.store(tls.map(Arc::new));
        shared.roles.renew(&current, &new);
        shared.live.replace(new);
        // Who waits for a client looks at what may have become shorter.
        shared.registry.sessions().iter().for_each(|s| s.wake());
        shared.catalog.renew();
        Ok(kept)
    }
}
