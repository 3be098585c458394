//! The control plane's own connections to the shards, through tokio-postgres: catalogs, health and the tools of operators. No client's
//! statement ever runs on them, and no client's settings reach them.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bb8::{ErrorSink, PooledConnection, QueueStrategy};
use bb8_postgres::PostgresConnectionManager;
use tokio_postgres::Client;
use tokio_postgres::config::{Config as ClientConfig, SslMode as ClientSslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::BackendError;
use super::connector::Connector;
use super::failures::Failures;
use super::tls;
use crate::config::{Config, SslMode};
use crate::protocol::error::ServerError;

/// Catalog loading and a health probe at once.
const CONNECTIONS_MAX: u32 = 2;
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// The largest catalogs take a few seconds.
const WORK_TIMEOUT: Duration = Duration::from_secs(60);

type Manager = PostgresConnectionManager<MakeRustlsConnect>;

/// Control connections to every shard, opened when they are needed.
#[derive(Debug)]
pub struct ControlPlane {
    /// In the order of the configuration.
    pub shards: Vec<ControlShard>,
}

/// Control connections to one shard.
#[derive(Debug)]
pub struct ControlShard {
    /// Its address and login.
    pub connector: Arc<Connector>,
    pool: Option<bb8::Pool<Manager>>,
    failures: Failures,
}

impl ControlPlane {
    /// Must be called inside a runtime.
    pub fn new(config: &Config) -> Arc<Self> {
        let shards = Connector::all(config).into_iter().map(ControlShard::new);
        Arc::new(Self {
            shards: shards.collect(),
        })
    }
}

impl ControlPlane {
    /// Another one, where the configuration or what its files of certificates say is not what this one was made of.
    pub(super) fn renewed(&self, config: &Config) -> Option<Arc<Self>> {
        let changed = self.shards.iter().map(|s| s.connector.renew(config));
        let changed = changed.filter(|changed| *changed).count() > 0;
        changed.then(|| Self::new(config))
    }
}

impl ControlShard {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        let failures = Failures::new();
        let pool = manager(&connector).map(|manager| {
            let sink = Sink {
                connector: connector.clone(),
                failures: failures.clone(),
            };
            bb8::Pool::builder()
                .max_size(CONNECTIONS_MAX)
                .queue_strategy(QueueStrategy::Lifo)
                .test_on_check_out(false)
                .retry_connection(false)
                .idle_timeout(IDLE_TIMEOUT)
                .connection_timeout(WORK_TIMEOUT)
                .error_sink(Box::new(sink))
                .build_unchecked(manager)
        });
        Self {
            connector,
            pool,
            failures,
        }
    }

    /// A control connection.
    ///
    /// # Errors
    /// What connecting met with; `TimedOut` when all are in use for too long.
    pub async fn client(
        &self,
    ) -> Result<
        PooledConnection<'static, impl bb8::ManageConnection<Connection = Client>>,
        BackendError,
    > {
        let Some(pool) = &self.pool else {
            // The settings cannot be used: the connector knows why.
            self.connector.connect().await?;
            return Err(self.connector.unreachable("TLS cannot be set up"));
        };
        // The idle ones may have died with the server they led to.
        for _ in 0..=CONNECTIONS_MAX {
            let convert = |e| self.connector.control_error(&e);
            let name = &self.connector.name;
            let client = self.failures.connection(pool, name, convert).await?;
            if !client.is_closed() {
                return Ok(client);
            }
        }
        Err(self
            .connector
            .unreachable("the server closes connections as soon as they are open"))
    }

    /// Bounds a piece of work on this shard.
    ///
    /// # Errors
    /// The work's own; `TimedOut` past a minute.
    pub(super) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let done = tokio::time::timeout(WORK_TIMEOUT, work).await;
        done.unwrap_or_else(|_| {
            Err(BackendError::TimedOut {
                shard: self.connector.name.to_string(),
            })
        })
    }
}

impl Connector {
    /// What tokio-postgres says, as one of ours.
    pub fn control_error(&self, error: &tokio_postgres::Error) -> BackendError {
        let shard = self.name.to_string();
        if let Some(said) = error.as_db_error() {
            let mut error = ServerError::new(said.code().code(), said.message());
            if let Some(detail) = said.detail() {
                error = error.with_detail(detail);
            }
            if let Some(hint) = said.hint() {
                error = error.with_hint(hint);
            }
            return BackendError::Server { shard, error };
        }
        let reason = match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        if error.is_closed() {
            return BackendError::Lost { shard, reason };
        }
        BackendError::Unreachable { shard, reason }
    }
}

/// The settings of a control connection; `None` when the certificates cannot be used.
fn manager(connector: &Connector) -> Option<Manager> {
    let tls = match connector.tls().ok()? {
        Some(config) => config,
        None => tls::unused().ok()?,
    };
    let settings = connector.settings();
    let mut config = ClientConfig::new();
    config
        .host(&settings.host)
        .port(settings.port)
        .dbname(&settings.dbname)
        .user(&settings.user)
        .password(settings.password.reveal())
        .application_name("pgbraid control")
        .connect_timeout(connector.connect_timeout())
        .ssl_mode(match settings.sslmode {
            SslMode::Disable => ClientSslMode::Disable,
            SslMode::Prefer => ClientSslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => ClientSslMode::Require,
        });
    let tcp = connector.tcp();
    if !tcp.keepalives_idle.is_zero() {
        config.keepalives_idle(tcp.keepalives_idle);
    }
    if !tcp.keepalives_interval.is_zero() {
        config.keepalives_interval(tcp.keepalives_interval);
    }
    if tcp.keepalives_count > 0 {
        config.keepalives_retries(tcp.keepalives_count);
    }
    if !tcp.user_timeout.is_zero() {
        config.tcp_user_timeout(tcp.user_timeout);
    }
    let tls = MakeRustlsConnect::new((*tls).clone());
    Some(Manager::new(config, tls))
}

#[derive(Debug, Clone)]
struct Sink {
    connector: Arc<Connector>,
    failures: Failures,
}

impl ErrorSink<tokio_postgres::Error> for Sink {
    fn sink(&self, error: tokio_postgres::Error) {
        self.failures.tell(self.connector.control_error(&error));
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<tokio_postgres::Error>> {
        Box::new(self.clone())
    }
}
