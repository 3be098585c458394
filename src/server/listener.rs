//! Accepts clients, takes them through the handshake, and lets them finish at shutdown.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::handshake::{self, Arrival, Cancel, Rejected, Startup};
use super::portals::Portals;
use super::session::Session;
use super::settings::{self, REPORTED};
use super::stream::{Client, ClientStream};
use super::transaction::Transaction;
use crate::backend::connections::Connections;
use crate::config::Config;
use crate::protocol::error::ServerError;
use crate::protocol::messages;
use crate::protocol::sqlstate;
use crate::registry::Registration;

/// A pause after accept has failed (out of file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Idle time after which TCP asks whether a client is still there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);

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

/// Serves until `shutdown` is cancelled and the open transactions have had their grace.
///
/// # Errors
/// What keeps it from starting.
pub async fn serve(config: Arc<Config>, shutdown: CancellationToken) -> Result<(), ServeError> {
    let tls = super::tls::load(&config.tls).map_err(ServeError::Tls)?;
    let listen = |reason: std::io::Error| ServeError::Listen {
        address: config.server.listen.clone(),
        reason: reason.to_string(),
    };
    let listener = TcpListener::bind(&config.server.listen)
        .await
        .map_err(listen)?;
    let shared = Shared::new(config.clone(), tls, shutdown.clone());
    let admin = crate::admin::start(&config, &shared.catalog, &shared.pools, shutdown.clone());
    let admin = admin.await.map_err(|reason| ServeError::Listen {
        address: config.server.http.clone(),
        reason: reason.to_string(),
    })?;
    shared.catalog.start(shutdown.clone());
    tracing::info!(listen = %config.server.listen, shards = config.shards.len(), "ready for connections");
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => accept(&shared, socket, peer),
                Err(error) => {
                    tracing::error!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drain(&shared).await;
    drop(admin);
    Ok(())
}

/// Waits for sessions in a transaction; those that are left after the grace are ended.
async fn drain(shared: &Shared) {
    let grace = shared.config.server.shutdown_grace;
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
        .pools
        .close(std::time::Instant::now() + Duration::from_secs(1))
        .await;
}

fn accept(shared: &Arc<Shared>, socket: TcpStream, peer: SocketAddr) {
    let shared = shared.clone();
    let tracker = shared.tasks.clone();
    tracker.spawn(async move {
        if let Err(error) = tune(&socket) {
            tracing::debug!(%error, "socket options");
        }
        let Some(place) = shared.registry.enter(shared.config.server.max_clients) else {
            shared
                .metrics
                .client_refused(crate::metrics::ClientRefused::TooMany);
            refuse_crowd(&shared, socket).await;
            return;
        };
        serve_client(shared, socket, peer).await;
        drop(place);
    });
}

fn tune(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_TIME);
    socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// One client too many: it hears so after its startup packet, as PostgreSQL's clients expect.
async fn refuse_crowd(shared: &Shared, socket: TcpStream) {
    let limit = shared.config.server.login_timeout;
    let arrival = tokio::time::timeout(
        limit,
        handshake::receive(socket, shared.tls.as_ref(), shared.config.tls.mode),
    )
    .await;
    match arrival {
        Ok(Ok(Arrival::Startup(startup))) => {
            let error = ServerError::fatal(
                sqlstate::TOO_MANY_CONNECTIONS,
                "sorry, too many clients already",
            );
            say_goodbye(startup.stream, &error).await;
        }
        // A cancel must get through however many clients there are.
        Ok(Ok(Arrival::Cancel(request))) => cancel(shared, request),
        _ => {}
    }
}

fn cancel(shared: &Shared, request: Cancel) {
    if !shared.registry.cancel(request.pid, request.secret) {
        tracing::debug!(pid = request.pid, "a cancel request found no session");
    }
    drop(request.stream);
}

async fn say_goodbye(stream: ClientStream, error: &ServerError) {
    let mut client = Client::new(stream, 0);
    error.encode(b'E', client.out());
    // The client may have gone already: there is nobody left to tell.
    let _ = client.flush().await;
}

async fn serve_client(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr) {
    let limit = shared.config.server.login_timeout;
    let session = tokio::time::timeout(limit, log_in(&shared, socket, peer)).await;
    match session {
        Ok(Some(session)) => {
            shared.metrics.clients_accepted.inc();
            shared.metrics.clients_active.inc();
            session.run().await;
            shared.metrics.clients_active.dec();
        }
        Ok(None) => {}
        Err(_) => shared
            .metrics
            .client_refused(crate::metrics::ClientRefused::LoginTimeout),
    }
}

/// From the first byte to the session; `None` when there is none, whatever the client was told.
async fn log_in(shared: &Arc<Shared>, socket: TcpStream, peer: SocketAddr) -> Option<Box<Session>> {
    let startup =
        match handshake::receive(socket, shared.tls.as_ref(), shared.config.tls.mode).await {
            Ok(Arrival::Startup(startup)) => startup,
            Ok(Arrival::Cancel(request)) => {
                cancel(shared, request);
                return None;
            }
            Err(Rejected(told)) => {
                shared
                    .metrics
                    .client_refused(crate::metrics::ClientRefused::Protocol);
                if let Some((stream, error)) = told {
                    say_goodbye(stream, &error).await;
                }
                return None;
            }
        };
    let Startup {
        stream,
        encrypted,
        parameters,
        negotiate,
    } = *startup;
    let mut client = Client::new(stream, shared.config.server.message_bytes_max);
    if let Some(negotiate) = negotiate {
        client.out().put_slice(&negotiate);
    }
    let user = parameters.get("user").cloned().unwrap_or_default();
    let pem = shared
        .tls
        .as_ref()
        .filter(|_| encrypted)
        .map(|t| t.certificate_pem.clone());
    let checked = match check_names(&parameters, shared.is_one_shard()) {
        Ok(settings) => shared
            .users
            .authenticate(&mut client, &user, pem.as_deref())
            .await
            .and_then(|()| {
                check_database(shared, &parameters)?;
                Ok(settings)
            }),
        Err(error) => Err(error),
    };
    let settings = match checked {
        Ok(settings) => settings,
        Err(error) => {
            shared
                .metrics
                .client_refused(crate::metrics::ClientRefused::Authentication);
            error.encode(b'E', client.out());
            let _ = client.flush().await;
            return None;
        }
    };
    let registration = shared.registry.register(user, peer.to_string());
    let mut session = Box::new(new_session(shared, client, registration, settings));
    match session.greet().await {
        Ok(()) => Some(session),
        Err(error) => {
            session.fatal(&error).await;
            None
        }
    }
}

fn check_names(
    parameters: &std::collections::BTreeMap<String, String>,
    one_shard: bool,
) -> Result<settings::Settings, ServerError> {
    if parameters.get("user").is_none_or(String::is_empty) {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(ServerError::fatal(sqlstate::INVALID_AUTHORIZATION, message));
    }
    settings::from_startup(parameters, one_shard).map_err(as_fatal)
}

/// Told only to clients that have proved who they are.
fn check_database(
    shared: &Shared,
    parameters: &std::collections::BTreeMap<String, String>,
) -> Result<(), ServerError> {
    let database = parameters
        .get("database")
        .or_else(|| parameters.get("user"));
    match database {
        Some(name) if *name == shared.config.database.name => Ok(()),
        other => {
            let message = format!(
                "database \"{}\" does not exist",
                other.map_or("", String::as_str)
            );
            Err(ServerError::fatal(sqlstate::INVALID_CATALOG_NAME, message))
        }
    }
}

fn as_fatal(error: ServerError) -> ServerError {
    error.with(b'S', "FATAL").with(b'V', "FATAL")
}

fn new_session(
    shared: &Arc<Shared>,
    client: Client,
    registration: Registration,
    settings: settings::Settings,
) -> Session {
    Session {
        shared: shared.clone(),
        client,
        registration,
        startup: settings.clone(),
        settings,
        reported: HashMap::new(),
        reports: BytesMut::new(),
        transaction: Transaction::default(),
        reads_clock: false,
        before_pipeline: None,
        message_time: 0,
        company: Default::default(),
        changes_schema: false,
        has_run: false,
        connections: Connections::new(shared.config.shards.len()),
        pinned: false,
        pins: Default::default(),
        statements: Default::default(),
        portals: Portals::default(),
        cursors: Default::default(),
        sink: None,
        skipping: false,
        snapshot: false,
        savepoint: false,
        cancels: Vec::new(),
        running: None,
    }
}

impl Session {
    /// ParameterStatus, BackendKeyData and ReadyForQuery. Settings that the client asked for are tried on the catalog shard,
    /// which says how it spells them.
    async fn greet(&mut self) -> Result<(), ServerError> {
        let loaded = self.loaded().map_err(as_fatal)?;
        let mut values: HashMap<String, String> = loaded.parameters.iter().cloned().collect();
        let only_name = self
            .startup
            .iter()
            .all(|(name, _)| matches!(name, "application_name" | "client_encoding"));
        if !only_name {
            self.join_and_wait(&[super::prepare::CATALOG_SHARD])
                .await
                .map_err(as_fatal)?;
            if let Some(conn) = self.connections.get(super::prepare::CATALOG_SHARD) {
                values.extend(conn.parameters().iter().cloned());
            }
            self.connections.release();
        }
        values.insert(
            "application_name".into(),
            self.startup
                .get("application_name")
                .unwrap_or_default()
                .to_owned(),
        );
        values.insert(
            "session_authorization".into(),
            self.registration.entry.user.clone(),
        );
        self.follow_encoding();
        values.remove("client_encoding");
        for name in REPORTED {
            if let Some(value) = values.get(name) {
                let value = value.clone();
                self.report(name, &value);
            }
        }
        self.send_reports();
        let (pid, secret) = (self.registration.entry.pid, self.registration.secret());
        messages::frame(b'K', self.client.out(), |out| {
            out.put_i32(pid);
            out.put_i32(secret);
        });
        messages::ready_for_query(b'I', self.client.out());
        Ok(())
    }
}
