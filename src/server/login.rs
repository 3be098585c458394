//! From a client's first byte to its session: who it is, which database it wants, what it may work as, and the session's first words.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::Shared;
use super::auth::Proof;
use super::console::ConsoleSession;
use super::handshake::{self, Arrival, Rejected, Startup};
use super::listener::{cancel, say_goodbye};
use super::own_settings::is_own;
use super::portals::Portals;
use super::role::Role;
use super::session::Session;
use super::settings::{self, REPORTED};
use super::stream::{Client, ClientStream};
use super::transaction::Transaction;
use crate::admin::console::Access;
use crate::backend::connections::Connections;
use crate::protocol::error::ServerError;
use crate::protocol::messages;
use crate::protocol::sqlstate;
use crate::registry::{self, Registration};

/// Who has proved who it is.
pub(super) enum LoggedIn {
    Session(Box<Session>),
    Console(Box<ConsoleSession>),
}

/// What a client may do: work as a role, or look after pgbraid.
enum Entrance {
    Role(Role),
    Console(Access),
}

/// From the first byte to the session; `None` when there is none, whatever the client was told. A `reserved` place is for consoles.
pub(super) async fn log_in(
    shared: &Arc<Shared>,
    socket: ClientStream,
    peer: String,
    reserved: bool,
) -> Option<LoggedIn> {
    let local = socket.local_address();
    let tls = shared.tls.load_full();
    let startup = startup(shared, socket, tls.as_deref()).await?;
    let Startup {
        stream,
        encrypted,
        parameters,
        negotiate,
    } = startup;
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
    let checked = match check_names(&parameters, &shared.shard_names) {
        Ok(settings) => prove(shared, &mut client, &parameters, proof)
            .await
            .map(|entrance| (settings, entrance)),
        Err(error) => Err(error),
    };
    let (mut settings, entrance) = match checked {
        Ok((_, Entrance::Role(_))) if reserved => {
            let crowd = crate::metrics::ClientRefused::TooMany;
            return turn_away(shared, client, crowd, &too_many()).await;
        }
        Ok(checked) => checked,
        Err(error) => {
            let stranger = crate::metrics::ClientRefused::Authentication;
            return turn_away(shared, client, stranger, &error).await;
        }
    };
    let entry = registry::Client {
        // The one that check_database has found to be there.
        database: parameters.get("database").unwrap_or(&user).clone(),
        peer,
        local,
        encrypted,
        console: matches!(entrance, Entrance::Console(_)),
    };
    let traffic = client.traffic.clone();
    let registration = shared.registry.register(user, entry, traffic);
    let name = parameters.get("application_name");
    registration
        .entry
        .set_application_name(name.map_or("", String::as_str));
    match entrance {
        Entrance::Console(access) => {
            let console = ConsoleSession::new(shared, client, registration, access);
            Some(LoggedIn::Console(Box::new(console)))
        }
        Entrance::Role(role) => {
            role.add_defaults(shared, &mut settings);
            greeted(new_session(shared, client, registration, settings, role)).await
        }
    }
}

/// The startup packet; `None` where there is none, whatever was done instead.
async fn startup(
    shared: &Shared,
    socket: ClientStream,
    tls: Option<&super::tls::ServerTls>,
) -> Option<Startup> {
    let mode = shared.config().tls.mode;
    match handshake::receive(socket, tls, mode).await {
        Ok(Arrival::Startup(startup)) => Some(*startup),
        Ok(Arrival::Cancel(request)) => {
            cancel(shared, request);
            None
        }
        Err(Rejected(told)) => {
            shared
                .metrics
                .client_refused(crate::metrics::ClientRefused::Protocol);
            if let Some((stream, error)) = told {
                say_goodbye(stream, &error).await;
            }
            None
        }
    }
}

async fn greeted(session: Session) -> Option<LoggedIn> {
    let mut session = Box::new(session);
    match session.greet().await {
        Ok(()) => Some(LoggedIn::Session(session)),
        Err(error) => {
            session.fatal(&error).await;
            None
        }
    }
}

async fn turn_away(
    shared: &Shared,
    mut client: Client,
    reason: crate::metrics::ClientRefused,
    error: &ServerError,
) -> Option<LoggedIn> {
    shared.metrics.client_refused(reason);
    error.encode(b'E', client.out());
    // The client may be gone already: there is nobody left to tell.
    let _ = client.flush().await;
    None
}

/// Who the client is, and what it may work as.
async fn prove(
    shared: &Shared,
    client: &mut Client,
    parameters: &BTreeMap<String, String>,
    proof: Proof<'_>,
) -> Result<Entrance, ServerError> {
    let user = parameters.get("user").map_or("", String::as_str);
    let keys = shared
        .users
        .load_full()
        .authenticate(client, user, proof)
        .await?;
    if let Some(access) = check_database(shared, user, parameters)? {
        return Ok(Entrance::Console(access));
    }
    let role = shared.role(user, keys).await.map_err(as_fatal)?;
    Ok(Entrance::Role(role))
}

fn check_names(
    parameters: &BTreeMap<String, String>,
    shards: &[Arc<str>],
) -> Result<settings::Settings, ServerError> {
    if parameters.get("user").is_none_or(String::is_empty) {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(ServerError::fatal(sqlstate::INVALID_AUTHORIZATION, message));
    }
    settings::from_startup(parameters, shards).map_err(as_fatal)
}

/// Told only to clients that have proved who they are. `Some`: it is the console that the user wants, and may enter.
fn check_database(
    shared: &Shared,
    user: &str,
    parameters: &BTreeMap<String, String>,
) -> Result<Option<Access>, ServerError> {
    let name = parameters.get("database").map_or(user, String::as_str);
    let access = shared.console.access(user);
    let config = shared.config();
    let console = &config.console.database;
    let denied = || {
        let message = format!("permission denied for database \"{name}\"");
        ServerError::fatal(sqlstate::INSUFFICIENT_PRIVILEGE, message)
    };
    if name == *console && !console.is_empty() {
        let hint = "console.admin_users and console.stats_users in the configuration say who may.";
        return access.map(Some).ok_or_else(|| denied().with_hint(hint));
    }
    if name != config.database.name {
        let message = format!("database \"{name}\" does not exist");
        return Err(ServerError::fatal(sqlstate::INVALID_CATALOG_NAME, message));
    }
    match access {
        None => Ok(None),
        Some(_) => Err(denied().with_hint("Users of the console may connect to it only.")),
    }
}

/// One client more than there may be.
pub(super) fn too_many() -> ServerError {
    let message = "sorry, too many clients already";
    ServerError::fatal(sqlstate::TOO_MANY_CONNECTIONS, message)
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
    let connections = Connections::new(shared.shard_names.len());
    let connections = connections.held_by(registration.entry.pid);
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
        connections,
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
        steered: false,
        steering: Default::default(),
        snapshot: false,
        savepoint: false,
        cancels: Vec::new(),
        running: None,
        parts: Vec::new(),
        transaction_since: None,
        shows_text: false,
        #[cfg(feature = "otlp")]
        noted: Default::default(),
        killed: false,
    }
}

impl Session {
    /// ParameterStatus, BackendKeyData and ReadyForQuery. Settings that the client asked for are tried on the catalog shard,
    /// which says how it spells them.
    async fn greet(&mut self) -> Result<(), ServerError> {
        self.loaded().map_err(as_fatal)?;
        let parameters = self.first_parameters().unwrap_or_default();
        let mut values: HashMap<String, String> = parameters.into_iter().collect();
        let only_name = self.startup.iter().all(|(name, _)| {
            matches!(name, "application_name" | "client_encoding") || is_own(name)
        });
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
        self.follow_steering();
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
