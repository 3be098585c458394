//! Accepts clients, takes them through the handshake, and lets them finish at shutdown.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::auth::Proof;
use super::handshake::{self, Arrival, Cancel, Rejected, Startup};
use super::portals::Portals;
use super::reload::Reloader;
use super::role::Role;
use super::session::Session;
use super::settings::{self, REPORTED};
use super::sockets::{Accepted, Inherited, Sockets};
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

/// Longest time that nobody is listened for because a shard does not answer.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(10);

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
        let admin = crate::admin::start(&config, &shared.catalog, &shared.roles, stop.clone());
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
        sockets.close(|client| accept(&shared, client));
        wait_for_clients(&shared).await;
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
