//! Accepts clients, takes them through the handshake, and lets them finish at shutdown.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::auth::Proof;
use super::handshake::{self, Arrival, Cancel, Rejected, Startup};
use super::local::LocalSocket;
use super::portals::Portals;
use super::reload::Reloader;
use super::role::Role;
use super::session::Session;
use super::settings::{self, REPORTED};
use super::stream::{Client, ClientStream};
use super::transaction::Transaction;
use crate::backend::connections::Connections;
use crate::backend::{tcp, upkeep};
use crate::config::Config;
use crate::protocol::error::ServerError;
use crate::protocol::messages;
use crate::protocol::sqlstate;
use crate::registry::Registration;

/// A pause after accept has failed (out of file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    tcp: TcpListener,
    local: Option<LocalSocket>,
    admin: crate::admin::Running,
}

/// Serves until `shutdown` is cancelled and the open transactions have had their grace.
///
/// # Errors
/// What keeps it from starting.
pub async fn serve(config: Arc<Config>, shutdown: CancellationToken) -> Result<(), ServeError> {
    Server::start(config, shutdown).await?.run().await;
    Ok(())
}

impl Server {
    /// Listens; clients are answered by [`Server::run`].
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start(
        config: Arc<Config>,
        shutdown: CancellationToken,
    ) -> Result<Self, ServeError> {
        let tls = super::tls::load(&config.tls).map_err(ServeError::Tls)?;
        let listen = |address: &String| {
            let address = address.clone();
            |reason: std::io::Error| ServeError::Listen {
                address,
                reason: reason.to_string(),
            }
        };
        let tcp = TcpListener::bind(&config.server.listen).await;
        let tcp = tcp.map_err(listen(&config.server.listen))?;
        let local = match &config.server.unix_socket {
            None => None,
            Some(folder) => {
                // Its name carries the port, also where the operating system has chosen that.
                let port = tcp
                    .local_addr()
                    .map_err(listen(&config.server.listen))?
                    .port();
                let path = LocalSocket::path(folder, port);
                let address = path.display().to_string();
                let bound = LocalSocket::bind(path, config.server.unix_socket_permissions);
                Some(bound.map_err(listen(&address))?)
            }
        };
        let shared = Shared::new(config.clone(), tls, shutdown);
        let stop = shared.shutdown.clone();
        let admin = crate::admin::start(&config, &shared.catalog, &shared.roles, stop.clone());
        let admin = admin.await.map_err(listen(&config.server.http))?;
        shared.catalog.start(stop.clone());
        let (live, roles) = (shared.live.clone(), shared.roles.clone());
        upkeep::start(live, roles, shared.catalog.clone(), stop);
        tracing::info!(listen = %config.server.listen, shards = config.shards.len(), "ready for connections");
        Ok(Self {
            shared,
            tcp,
            local,
            admin,
        })
    }

    /// What gives it another configuration while it runs.
    pub fn reloader(&self) -> Reloader {
        Reloader::new(self.shared.clone())
    }

    /// Serves until the shutdown that it was started with, and lets the open transactions have their grace.
    pub async fn run(self) {
        let Self {
            shared,
            tcp,
            local,
            admin,
        } = self;
        loop {
            let accepted = tokio::select! {
                () = shared.shutdown.cancelled() => break,
                accepted = accept_tcp(&shared, &tcp) => accepted,
                accepted = accept_local(local.as_ref()) => accepted,
            };
            match accepted {
                Ok((socket, peer)) => accept(&shared, socket, peer),
                Err(error) => {
                    tracing::error!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop((tcp, local));
        drain(&shared).await;
        drop(admin);
    }
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

/// A client and its address, as the log shows it.
type Accepted = std::io::Result<(ClientStream, String)>;

async fn accept_tcp(shared: &Shared, listener: &TcpListener) -> Accepted {
    let (socket, peer) = listener.accept().await?;
    if let Err(error) = tcp::tune(&socket, &shared.config().server.tcp) {
        tracing::debug!(%error, "socket options");
    }
    Ok((ClientStream::Plain(socket), peer.to_string()))
}

async fn accept_local(listener: Option<&LocalSocket>) -> Accepted {
    match listener {
        // As PostgreSQL calls it.
        Some(listener) => Ok((
            ClientStream::Local(listener.accept().await?),
            "[local]".into(),
        )),
        None => std::future::pending().await,
    }
}

fn accept(shared: &Arc<Shared>, socket: ClientStream, peer: String) {
    let shared = shared.clone();
    let tracker = shared.tasks.clone();
    tracker.spawn(async move {
        let Some(place) = shared.registry.enter(shared.config().server.max_clients) else {
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

async fn serve_client(shared: Arc<Shared>, socket: ClientStream, peer: String) {
    let limit = shared.config().server.login_timeout;
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
async fn log_in(shared: &Arc<Shared>, socket: ClientStream, peer: String) -> Option<Box<Session>> {
    let tls = shared.tls.load_full();
    let mode = shared.config().tls.mode;
    let startup = match handshake::receive(socket, tls.as_deref(), mode).await {
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
    let certificate_name = super::tls::common_name(&stream);
    let mut client = Client::new(stream, shared.config().server.message_bytes_max);
    if let Some(negotiate) = negotiate {
        client.out().put_slice(&negotiate);
    }
    let user = parameters.get("user").cloned().unwrap_or_default();
    let pem = tls
        .as_ref()
        .filter(|_| encrypted)
        .map(|t| t.certificate_pem.clone());
    let proof = Proof {
        channel_pem: pem.as_deref(),
        certificate_name: certificate_name.as_deref(),
    };
    let checked = match check_names(&parameters, shared.is_one_shard()) {
        Ok(settings) => prove(shared, &mut client, &parameters, proof)
            .await
            .map(|role| (settings, role)),
        Err(error) => Err(error),
    };
    let (settings, role) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            shared
                .metrics
                .client_refused(crate::metrics::ClientRefused::Authentication);
            error.encode(b'E', client.out());
            let _ = client.flush().await;
            return None;
        }
    };
    let registration = shared.registry.register(user, peer);
    let mut settings = settings;
    role.add_defaults(shared, &mut settings);
    let mut session = Box::new(new_session(shared, client, registration, settings, role));
    match session.greet().await {
        Ok(()) => Some(session),
        Err(error) => {
            session.fatal(&error).await;
            None
        }
    }
}

/// Who the client is, and what it may work as.
async fn prove(
    shared: &Shared,
    client: &mut Client,
    parameters: &BTreeMap<String, String>,
    proof: Proof<'_>,
) -> Result<Role, ServerError> {
    let user = parameters.get("user").map_or("", String::as_str);
    let keys = shared
        .users
        .load_full()
        .authenticate(client, user, proof)
        .await?;
    check_database(shared, parameters)?;
    shared.role(user, keys).await.map_err(as_fatal)
}

fn check_names(
    parameters: &BTreeMap<String, String>,
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
    parameters: &BTreeMap<String, String>,
) -> Result<(), ServerError> {
    let database = parameters
        .get("database")
        .or_else(|| parameters.get("user"));
    match database {
        Some(name) if *name == shared.config().database.name => Ok(()),
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
    role: Role,
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
        leaves_unseen: false,
        connections: Connections::new(shared.shard_names.len()),
        role,
        found_path: None,
        pinned: false,
        pins: Default::default(),
        statements: Default::default(),
        portals: Portals::default(),
        cursors: Default::default(),
        sink: None,
        skipping: false,
        in_pipeline: false,
        idle: Default::default(),
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
        self.loaded().map_err(as_fatal)?;
        let parameters = self.first_parameters().unwrap_or_default();
        let mut values: HashMap<String, String> = parameters.into_iter().collect();
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
