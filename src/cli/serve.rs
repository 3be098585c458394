//! `pgbraid serve`: tracing on, signals wired, then the server until it is told to stop.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use pgbraid::admin;
use pgbraid::config::{AuthMethod, Config, Log};
use pgbraid::server::{Inherited, Reloader, Server};
use pgbraid::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::state::State;
use super::{configuration, fail, notify};

/// Serves until a signal or an error ends it.
pub async fn run(path: &Path, inherited: Inherited) -> ExitCode {
    let config = match configuration(path) {
        Ok(config) => config,
        Err(status) => return status,
    };
    if let Err(error) = start_telemetry(&config.log) {
        return fail(&format!("log.level: {error}"));
    }
    if let Err(error) = start_traces(&config.log) {
        return fail(&format!("log.traces: {error}"));
    }
    let shutdown = CancellationToken::new();
    if let Err(error) = stop_on_signals(shutdown.clone()).and_then(|()| reload_on_hangup()) {
        return fail(&format!("cannot listen for signals: {error}"));
    }
    warn_of_open_doors(&config);
    match Server::start(config.clone(), inherited, shutdown).await {
        Ok(server) => {
            notify::ready();
            let reload = Reload {
                path: path.to_owned(),
                server: server.reloader(),
                refresh: config.server.config_refresh,
            };
            let reloads = tokio::spawn(reload.run(State::now(config)));
            server.run().await;
            reloads.abort();
            stop_traces().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "pgbraid ends");
            fail(&error.to_string())
        }
    }
}

fn start_telemetry(log: &Log) -> Result<(), String> {
    telemetry::global().start(&log.level, log.json)?;
    set_log(log)
}

#[cfg(feature = "otlp")]
fn start_traces(log: &Log) -> Result<(), String> {
    match log.traces.as_str() {
        "" => Ok(()),
        endpoint => telemetry::traces::start(endpoint, log.trace_every),
    }
}

/// Without the feature the configuration takes no address.
#[cfg(not(feature = "otlp"))]
fn start_traces(_: &Log) -> Result<(), String> {
    Ok(())
}

/// Sends what is left.
async fn stop_traces() {
    // A thread that panics has said so.
    #[cfg(feature = "otlp")]
    let _ = tokio::task::spawn_blocking(telemetry::traces::stop).await;
}

/// What can change while pgbraid runs; what the console has set meanwhile goes.
fn set_log(log: &Log) -> Result<(), String> {
    let telemetry = telemetry::global();
    telemetry.set_slow_query(log.slow_query);
    telemetry.set_refusals(&log.refusals)?;
    telemetry.set_level(&log.level)
}

/// The first SIGTERM or SIGINT lets transactions finish; a second one does not wait.
fn stop_on_signals(shutdown: CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "draining: open transactions may finish");
        notify::stopping();
        shutdown.cancel();
        let name = next().await;
        tracing::warn!(signal = name, "second signal: ending now");
        // What a second signal asks for; shards roll open transactions back when their connections go.
        std::process::exit(1);
    });
    Ok(())
}

/// SIGHUP asks for what [`Reload`] does.
fn reload_on_hangup() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(signal = "SIGHUP", "reloading");
            admin::reload().notify_one();
        }
    });
    Ok(())
}

/// Reads the configuration again whenever somebody asks for it, and the shards' catalogs with it; with `server.config_refresh` also when
/// its files have changed. A file with mistakes changes nothing.
struct Reload {
    path: PathBuf,
    server: Reloader,
    refresh: Duration,
}

impl Reload {
    async fn run(mut self, mut state: State) {
        loop {
            let asked = tokio::select! {
                () = admin::reload().notified() => true,
                () = tokio::time::sleep(self.refresh), if !self.refresh.is_zero() => false,
            };
            let found = State::read(&self.path);
            if asked || found != state {
                notify::reloading();
                self.apply(&found).await;
                notify::reloaded();
                state = found;
            }
        }
    }

    async fn apply(&mut self, found: &State) {
        let new = match found.config() {
            Ok(new) => new.clone(),
            Err(errors) => {
                for mistake in &errors.0 {
                    tracing::error!(
                        file = %mistake.file.display(), line = mistake.line, key = mistake.key,
                        found = mistake.message, expected = mistake.expected, "mistake in the configuration"
                    );
                }
                tracing::error!("the configuration stays as it was");
                return;
            }
        };
        let (log, refresh) = (new.log.clone(), new.server.config_refresh);
        warn_of_open_doors(&new);
        match self.server.reload(new).await {
            Ok(kept) => {
                for key in kept {
                    tracing::warn!(key, "changes at the next start only");
                }
                if let Err(error) = set_log(&log) {
                    tracing::error!(error, "the log stays as it was");
                }
                self.refresh = refresh;
                tracing::info!("configuration reloaded");
            }
            Err(error) => tracing::error!(error, "the configuration stays as it was"),
        }
    }
}

/// A configuration may say so, but nobody should be surprised by it.
fn warn_of_open_doors(config: &Config) {
    let host = config
        .server
        .listen
        .rsplit_once(':')
        .map_or("", |(host, _)| host);
    let loopback = matches!(host, "localhost" | "[::1]") || host.starts_with("127.");
    let trusts = |method: Option<AuthMethod>| method == Some(AuthMethod::Trust);
    let trusted = trusts(Some(config.auth.method)) || config.users.iter().any(|u| trusts(u.method));
    if trusted && !loopback {
        tracing::warn!(
            listen = %config.server.listen,
            "method is \"trust\": whoever reaches this address is let in without a password"
        );
    }
}
