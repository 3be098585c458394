//! Accepts clients, hands them to their login, and lets them finish at shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::handshake::{self, Arrival, Cancel};
use super::login::{LoggedIn, log_in, too_many};
use super::reload::Reloader;
use super::sockets::{Accepted, Inherited, Sockets};
use super::stream::{Client, ClientStream};
use crate::backend::{tcp, upkeep};
use crate::config::Config;
use crate::protocol::error::ServerError;

/// A pause after accept has failed (out of file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest time that nobody is listened for because a shard does not answer.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(10);

/// Places beyond `server.max_clients`: who is to find out why there are so many must get in.
const CONSOLE_PLACES: usize = 3;

/// Why serving ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, not ours, or not permitted.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// As configured.
        address: String,
        /// The operating system's.
        reason: String,
    },
    /// The certificate or its key cannot be used.
    #[error("{0}")]
    Tls(String),
}

/// A server that listens.
#[must_use]
pub struct Server {
    shared: Arc<Shared>,
    sockets: Sockets,
    admin: crate::admin::Running,
    stop: CancellationToken,
}

/// Serves until `stop` is cancelled and the open transactions have had their grace.
///
/// # Errors
/// What keeps it from starting.
pub async fn serve(config: Arc<Config>, stop: CancellationToken) -> Result<(), ServeError> {
    let inherited = Inherited::default();
    Server::start(config, inherited, stop).await?.run().await;
    Ok(())
}

impl Server {
    /// Listens, on `inherited` sockets where there are any; clients are answered by [`Server::run`], until `stop` is cancelled.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start(
        config: Arc<Config>,
        inherited: Inherited,
        stop: CancellationToken,
    ) -> Result<Self, ServeError> {
        let tls = super::tls::load(&config.tls).map_err(ServeError::Tls)?;
        let shared = Shared::new(config.clone(), tls, CancellationToken::new());
        let admin = crate::admin::start(&shared.console);
        let admin = admin.await.map_err(|reason| ServeError::Listen {
            address: config.server.http.clone(),
            reason: reason.to_string(),
        })?;
        let ends = shared.shutdown.clone();
        shared.catalog.start(ends.clone());
        let (live, roles) = (shared.live.clone(), shared.roles.clone());
        upkeep::start(live, roles, shared.catalog.clone(), ends);
        tokio::select! {
            () = first_look(&shared) => {}
            () = stop.cancelled() => {}
        }
        let sockets = Sockets::open(&config.server, inherited).await?;
        let addresses = sockets.addresses().join(", ");
        tracing::info!(listen = %addresses, shards = config.shards.len(), "ready for connections");
        Ok(Self {
            shared,
            sockets,
            admin,
            stop,
        })
    }

    /// What gives it another configuration while it runs.
    pub fn reloader(&self) -> Reloader {
        Reloader::new(self.shared.clone())
    }

    /// Serves until it is told to stop; then clients have their time to leave, and open transactions their grace.
    pub async fn run(self) {
        let Self {
            shared,
            sockets,
            admin,
            stop,
        } = self;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                () = shared.closing.cancelled() => break,
                accepted = sockets.accept() => accepted,
            };
            match accepted {
                Ok(client) => accept(&shared, client),
                Err(error) => {
                    tracing::error!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        shared.closing.cancel();
        sockets.close(|client| accept(&shared, client)).await;
        tokio::select! {
            () = shared.shutdown.cancelled() => {}
            // SHUTDOWN WAIT_FOR_CLIENTS: nobody is asked to leave.
            () = shared.registry.emptied() => {}
            () = stop.cancelled() => wait_for_clients(&shared).await,
        }
        shared.shutdown.cancel();
        drain(&shared).await;
        drop(admin);
    }
}

/// Until the shards' catalogs have been looked at for the first time, well or not. Who was let in before could only be told to come again,
/// and while a process that ends still listens, nobody need be.
async fn first_look(shared: &Shared) {
    let catalog = &shared.catalog;
    let mut changes = catalog.changes();
    let looked = async {
        while catalog.loaded().is_none() && catalog.last_error().is_none() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    // From then on clients are told what keeps it.
    let _ = tokio::time::timeout(FIRST_LOOK_MAX, looked).await;
}

/// Nobody is sent away yet: another process may listen by now, and who connects for each transaction will find that one.
async fn wait_for_clients(shared: &Shared) {
    let limit = shared.config().server.shutdown_wait;
    if limit.is_zero() {
        return;
    }
    tracing::info!(
        clients = shared.registry.clients(),
        "waiting for clients to leave"
    );
    shared.tasks.close();
    // Those who are still there are told then.
    let _ = tokio::time::timeout(limit, shared.tasks.wait()).await;
}

/// Waits for sessions in a transaction; those that are left after the grace are ended.
async fn drain(shared: &Shared) {
    let grace = shared.config().server.shutdown_grace;
    tracing::info!(clients = shared.registry.clients(), "shutting down");
    shared.tasks.close();
    shared.registry.sessions().iter().for_each(|s| s.wake());
    if tokio::time::timeout(grace, shared.tasks.wait())
        .await
        .is_err()
    {
        for session in shared.registry.sessions() {
            session.end();
        }
        // A session that does not hear even this is dropped with the runtime.
        let _ = tokio::time::timeout(Duration::from_secs(1), shared.tasks.wait()).await;
    }
    shared
        .roles
        .close(std::time::Instant::now() + Duration::from_secs(1))
        .await;
}

fn accept(shared: &Arc<Shared>, (socket, peer): Accepted) {
    if let ClientStream::Plain(socket) = &socket
        && let Err(error) = tcp::tune(socket, &shared.config().server.tcp)
    {
        tracing::debug!(%error, "socket options");
    }
    let shared = shared.clone();
    let tracker = shared.tasks.clone();
    tracker.spawn(async move {
        let max = shared.config().server.max_clients;
        let Some(place) = shared.registry.enter(max, CONSOLE_PLACES) else {
            shared
                .metrics
                .client_refused(crate::metrics::ClientRefused::TooMany);
            refuse_crowd(&shared, socket).await;
            return;
        };
        serve_client(shared, socket, peer, place.reserved).await;
        drop(place);
    });
}

/// One client too many: it hears so after its startup packet, as PostgreSQL's clients expect.
async fn refuse_crowd(shared: &Shared, socket: ClientStream) {
    let (limit, mode) = (
        shared.config().server.login_timeout,
        shared.config().tls.mode,
    );
    let tls = shared.tls.load_full();
    let arrival = handshake::receive(socket, tls.as_deref(), mode);
    let arrival = tokio::time::timeout(limit, arrival).await;
    match arrival {
        Ok(Ok(Arrival::Startup(startup))) => {
            say_goodbye(startup.stream, &too_many()).await;
        }
        // A cancel must get through however many clients there are.
        Ok(Ok(Arrival::Cancel(request))) => cancel(shared, request),
        _ => {}
    }
}

/// Has the session stop what it does.
pub(super) fn cancel(shared: &Shared, request: Cancel) {
    if !shared.registry.cancel(request.pid, request.secret) {
        tracing::debug!(pid = request.pid, "a cancel request found no session");
    }
    drop(request.stream);
}

/// A last word for a client that gets no session.
pub(super) async fn say_goodbye(stream: ClientStream, error: &ServerError) {
    let mut client = Client::new(stream, 0);
    error.encode(b'E', client.out());
    // The client may have gone already: there is nobody left to tell.
    let _ = client.flush().await;
}

async fn serve_client(shared: Arc<Shared>, socket: ClientStream, peer: String, reserved: bool) {
    let limit = shared.config().server.login_timeout;
    let session = tokio::time::timeout(limit, log_in(&shared, socket, peer, reserved)).await;
    match session {
        Ok(Some(LoggedIn::Session(session))) => {
            shared.metrics.clients_accepted.inc();
            session.run().await;
        }
        Ok(Some(LoggedIn::Console(session))) => session.run().await,
        Ok(None) => {}
        Err(_) => shared
            .metrics
            .client_refused(crate::metrics::ClientRefused::LoginTimeout),
    }
}
