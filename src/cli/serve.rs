//! `pgbraid serve`: tracing on, signals wired, then the server until it is told to stop.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use pgbraid::admin;
use pgbraid::config::{AuthMethod, Config, Log};
use pgbraid::server::{Inherited, Reloader, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::state::State;
use super::{configuration, fail, notify};

/// Puts another `log.level` in force; `Err` says why it cannot be.
type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// Serves until a signal or an error ends it.
pub async fn run(path: &Path, inherited: Inherited) -> ExitCode {
    let config = match configuration(path) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let set_level = match start_tracing(&config.log) {
        Ok(set_level) => set_level,
        Err(error) => return fail(&format!("log.level: {error}")),
    };
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
                set_level,
                refresh: config.server.config_refresh,
            };
            let reloads = tokio::spawn(reload.run(State::now(config)));
            server.run().await;
            reloads.abort();
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "pgbraid ends");
            fail(&error.to_string())
        }
    }
}

/// Logs go to standard error: one line an event for people, or one JSON object.
fn start_tracing(log: &Log) -> Result<SetLevel, tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&log.level)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let parse = |level: &str| EnvFilter::try_new(level).map_err(|e| e.to_string());
    if log.json {
        let lines = lines.json().with_filter_reloading();
        let handle = lines.reload_handle();
        lines.init();
        return Ok(Box::new(move |level| {
            handle.reload(parse(level)?).map_err(|e| e.to_string())
        }));
    }
    let lines = lines
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_filter_reloading();
    let handle = lines.reload_handle();
    lines.init();
    Ok(Box::new(move |level| {
        handle.reload(parse(level)?).map_err(|e| e.to_string())
    }))
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
    set_level: SetLevel,
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
        let (level, refresh) = (new.log.level.clone(), new.server.config_refresh);
        warn_of_open_doors(&new);
        match self.server.reload(new).await {
            Ok(kept) => {
                for key in kept {
                    tracing::warn!(key, "changes at the next start only");
                }
                if let Err(error) = (self.set_level)(&level) {
                    tracing::error!(error, "log.level stays as it was");
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
