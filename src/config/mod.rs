//! The configuration file: what it may say, its defaults, and every mistake in it with its place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A checked configuration. Secrets are resolved (`env:`, `file:`).
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    pub database: Database,
    pub shards: Vec<Shard>,
    pub tables: Vec<TableRule>,
    pub users: Vec<User>,
    pub auth: AuthMethod,
    pub tls: Tls,
    pub pool: Pool,
    pub merge: Merge,
    pub log: Log,
}

#[derive(Debug, Clone)]
pub struct Server {
    /// "127.0.0.1:6432"
    pub listen: String,
    /// "127.0.0.1:9632"; empty: off.
    pub http: String,
    /// Clients beyond this get 53300 (default 1000).
    pub max_clients: usize,
    /// From accept to ReadyForQuery (default 60 s).
    pub login_timeout: Duration,
    /// Largest frontend message after login, bytes (default 256 MiB).
    pub message_bytes_max: usize,
    /// Open transactions may finish for so long after SIGTERM (default 30 s).
    pub shutdown_grace: Duration,
    /// Longest silence of a shard while a statement runs; zero: none (default 0).
    pub shard_silence_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Database {
    pub name: String,
    pub function: FunctionName,
    pub undeclared: Undeclared,
    /// How often the shards' catalogs are compared with the loaded ones (default 60 s).
    pub catalog_refresh: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionName {
    Postgres,
    Modulo,
    Hive,
    Range,
    List,
}

/// What a table is that no `[[table]]` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undeclared {
    Refuse,
    Reference,
    /// Lives on this shard (index); `undeclared = "home"` takes the first shard unless `home` names one.
    Home(usize),
}

#[derive(Debug, Clone)]
pub struct Shard {
    pub name: String,
    /// Host name, address, or the folder of a unix socket (starts with `/`).
    pub host: String,
    pub port: u16,
    pub dbname: String,
    pub user: String,
    pub password: Secret,
    pub sslmode: SslMode,
    /// PEM file of authorities for verify-ca and verify-full; none: the system's.
    pub sslrootcert: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// A declared table. Names are unquoted and folded as SQL would.
#[derive(Debug, Clone)]
pub struct TableRule {
    pub schema: String,
    pub name: String,
    pub placement: Placement,
}

#[derive(Debug, Clone)]
pub enum Placement {
    /// `key = "col"`, with an own function if it differs from the database's. For range and list: the values per shard as text.
    Sharded {
        key: Option<String>,
        function: FunctionName,
        bounds: Vec<(Option<String>, usize)>,
    },
    Reference,
    Home(usize),
}

#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    /// Plain, or `SCRAM-SHA-256$…`.
    pub password: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    Scram,
    Trust,
}

#[derive(Debug, Clone)]
pub struct Tls {
    pub mode: TlsMode,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    Prefer,
    Require,
}

/// Connections to each shard.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Most connections to one shard (default 32).
    pub size: usize,
    /// Of merge sessions on each shard (default 8).
    pub merge_size: usize,
    /// Idle connections are closed after this (default 10 min).
    pub idle_timeout: Duration,
    /// A connection's longest life (default 1 h).
    pub max_lifetime: Duration,
    /// How long a statement waits for a connection before 53300 (default 10 s).
    pub queue_timeout: Duration,
    /// TCP and login to a shard (default 5 s).
    pub connect_timeout: Duration,
}

/// Limits of the steps that hold rows.
#[derive(Debug, Clone)]
pub struct Merge {
    /// Bytes a single operator may hold before 53200 (default 256 MiB).
    pub memory_max: usize,
    /// Bytes one statement may bring to the merge session before 54000 (default 1 GiB).
    pub max_staged_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Log {
    /// A tracing filter: `info`, `pgbraid=debug`.
    pub level: String,
    pub json: bool,
}

/// A password; its Debug shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself: for authentication only, never for a message or a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One mistake, with its place in the file (1-based) where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    pub key: String,
    pub message: String,
    pub expected: String,
}

/// Every mistake found, never only the first.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.len())]
pub struct ConfigErrors(pub Vec<Mistake>);

/// Reads and checks a file; `environment` holds the process' variables (`PGBRAID_…` override keys, `env:` secrets).
pub fn load(
    _path: &std::path::Path,
    _environment: &BTreeMap<String, String>,
) -> Result<Config, ConfigErrors> {
    unimplemented!("config helper")
}
