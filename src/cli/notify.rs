//! What systemd is told (sd_notify(3)) when it has started pgbraid with `Type=notify`: that it listens, reloads, ends, and is alive.
//! Started by anything else it tells nobody.

use sd_notify::NotifyState;

/// Clients are listened for. From here on the watchdog gets its sign of life, from a task like those that serve clients.
pub fn ready() {
    tell(&[NotifyState::Ready]);
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    tokio::spawn(async move {
        // Half the time, as sd_watchdog_enabled(3) recommends.
        let mut beat = tokio::time::interval(limit / 2);
        loop {
            beat.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    });
}

/// The configuration is being read again; [`reloaded`] ends that.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd is not told of the reload"),
    }
}

/// Whether it was taken is in the log: the process goes on either way.
pub fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// It listens no longer, and lets transactions finish.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
