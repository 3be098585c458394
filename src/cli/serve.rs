//! `pgbraid serve`: tracing on, signals wired, then the server until it is told to stop.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use pgbraid::admin;
use pgbraid::config::{AuthMethod, Config, Log};
use pgbraid::server;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{configuration, fail};

/// Serves until a signal or an error ends it.
pub async fn run(path: &Path) -> ExitCode {
    let config = match configuration(path) {
        Ok(config) => config,
        Err(status) => return status,
    };
    if let Err(error) = start_tracing(&config.log) {
        return fail(&format!("log.level: {error}"));
    }
    let shutdown = CancellationToken::new();
    if let Err(error) = stop_on_signals(shutdown.clone()).and_then(|()| reload_on_hangup()) {
        return fail(&format!("cannot listen for signals: {error}"));
    }
    warn_of_open_doors(&config);
    match server::serve(config, shutdown).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "pgbraid ends");
            fail(&error.to_string())
        }
    }
}

/// Logs go to standard error: one line an event for people, or one JSON object.
fn start_tracing(log: &Log) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&log.level)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    if log.json {
        lines.json().init();
    } else {
        lines
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .init();
    }
    Ok(())
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
        shutdown.cancel();
        let name = next().await;
        tracing::warn!(signal = name, "second signal: ending now");
        // What a second signal asks for; shards roll open transactions back when their connections go.
        std::process::exit(1);
    });
    Ok(())
}

/// SIGHUP: the shards' catalogs are read again at once, without waiting for the next look.
fn reload_on_hangup() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(signal = "SIGHUP", "reloading the shards' catalogs");
            admin::reload().notify_one();
        }
    });
    Ok(())
}

/// A configuration may say so, but nobody should be surprised by it.
fn warn_of_open_doors(config: &Config) {
    let host = config
        .server
        .listen
        .rsplit_once(':')
        .map_or("", |(host, _)| host);
    let loopback = matches!(host, "localhost" | "[::1]") || host.starts_with("127.");
    if config.auth.method == AuthMethod::Trust && !loopback {
        tracing::warn!(
            listen = %config.server.listen,
            "auth.method is \"trust\": whoever reaches this address is let in without a password"
        );
    }
}
