//! The configuration file: what it may say, its defaults, and every mistake in it with its place.

mod check;
mod defaults;
mod live;
mod mistake;
mod reader;
mod scalar;
mod sections;
mod tables;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use live::{Live, renewed};
pub use mistake::{ConfigErrors, Mistake};
pub use sections::is_log_level;
pub use value::duration;

/// A checked configuration. Secrets are resolved (`env:`, `file:`).
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[database]`
    pub database: Database,
    /// `[[shard]]`, in the order of the file: `ShardId` counts it.
    pub shards: Vec<Shard>,
    /// `[[table]]`
    pub tables: Vec<TableRule>,
    /// `[[user]]`
    pub users: Vec<User>,
    /// `[auth]`
    pub auth: Auth,
    /// `[tls]`, towards clients.
    pub tls: Tls,
    /// `[pool]`
    pub pool: Pool,
    /// `[merge]`
    pub merge: Merge,
    /// `[log]`
    pub log: Log,
    /// `[console]`
    pub console: Console,
    /// What the file and the environment say of keys of single sections, as `pool.size`; no secret is among them.
    pub given: BTreeMap<String, String>,
}

/// What clients connect to, and how long anything may take.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// "127.0.0.1:6432"
    pub listen: String,
    /// "127.0.0.1:9632"; empty: off.
    pub http: String,
    /// What the live page is asked for with (default none: whoever reaches `http` sees it).
    pub http_password: Secret,
    /// The folder of a unix socket for clients (default none).
    pub unix_socket: Option<PathBuf>,
    /// Who may connect to it, as chmod has it (default 0777: everybody, as PostgreSQL).
    pub unix_socket_permissions: u32,
    /// Clients beyond this get 53300 (default 1000).
    pub max_clients: usize,
    /// From accept to ReadyForQuery (default 60 s).
    pub login_timeout: Duration,
    /// A session that says nothing for so long outside of a transaction ends; zero: none does (default 0).
    pub client_idle_timeout: Duration,
    /// Largest frontend message after login, bytes (default 256 MiB).
    pub message_bytes_max: usize,
    /// Another process may listen on the same addresses (default no).
    pub reuse_port: bool,
    /// How often the configuration's files are looked at for changes; zero: only when asked to (default 0).
    pub config_refresh: Duration,
    /// After SIGTERM clients may leave by themselves for so long, before those without a transaction are sent away (default 0).
    pub shutdown_wait: Duration,
    /// Then open transactions may finish for so long (default 30 s).
    pub shutdown_grace: Duration,
    /// Longest silence of a shard while a statement runs; zero: none (default 0).
    pub shard_silence_timeout: Duration,
    /// Shards that independent SELECTs of one client's pipeline may run on at a time (default 4); 1: one after the other.
    pub pipeline_parallelism: usize,
    /// Connections of clients.
    pub tcp: Tcp,
}

/// How a connection whose other end is gone without a word is found out. Zero is the operating system's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Silence before the other end is asked whether it is there (default 60 s).
    pub keepalives_idle: Duration,
    /// Between two such questions (default 10 s).
    pub keepalives_interval: Duration,
    /// Questions without an answer before the connection ends (default 6).
    pub keepalives_count: u32,
    /// Longest time that what was sent may stay unacknowledged (default 0).
    pub user_timeout: Duration,
}

/// The database that clients see.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// What clients connect to.
    pub name: String,
    /// For tables without a function of their own (default postgres).
    pub function: FunctionName,
    /// What an undeclared table is (default refuse).
    pub undeclared: Undeclared,
    /// How often the shards' catalogs are compared with the loaded ones (default 60 s).
    pub catalog_refresh: Duration,
}

/// How keys spread over the shards, see `catalog::sharding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionName {
    /// PostgreSQL's own hash partitioning.
    Postgres,
    /// Key modulo shards.
    Modulo,
    /// Hive's hash, then modulo.
    Hive,
    /// Lower bounds.
    Range,
    /// Listed keys.
    List,
}

/// What a table is that no `[[table]]` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undeclared {
    /// Statements over it are refused.
    Refuse,
    /// A full copy on every shard.
    Reference,
    /// Lives on this shard (index); `undeclared = "home"` takes the first shard unless `home` names one.
    Home(usize),
}

/// One PostgreSQL database.
#[derive(Debug, Clone, PartialEq)]
pub struct Shard {
    /// Letters, digits, `-` and `_`; unique.
    pub name: String,
    /// Host name, address, or the folder of a unix socket (starts with `/`).
    pub host: String,
    /// Default 5432.
    pub port: u16,
    /// Default: the name clients connect to.
    pub dbname: String,
    /// The role pgbraid logs in as.
    pub user: String,
    /// Empty when the shard asks for none.
    pub password: Secret,
    /// Encryption and proof of identity, as libpq means it (default prefer).
    pub sslmode: SslMode,
    /// PEM file of authorities for verify-ca and verify-full; none: the system's.
    pub sslrootcert: Option<PathBuf>,
}

/// libpq's sslmode (its manual, section SSL Mode Descriptions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// In the clear.
    Disable,
    /// Encrypted where the shard can.
    Prefer,
    /// Encrypted, whoever answers.
    Require,
    /// Encrypted, with a certificate of a known authority.
    VerifyCa,
    /// Encrypted, with a certificate of a known authority for this very host.
    VerifyFull,
}

/// A declared table. Names are unquoted and folded as SQL would.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRule {
    /// Folded; `public` where the file gives none.
    pub schema: String,
    /// Folded unless quoted.
    pub name: String,
    /// Where its rows are.
    pub placement: Placement,
}

/// Where the rows of a table are.
#[derive(Debug, Clone, PartialEq)]
pub enum Placement {
    /// `key = "col"`, with an own function if it differs from the database's. For range and list: the values per shard as text.
    Sharded {
        /// The column; `None`: unknown.
        key: Option<String>,
        /// Its own, or the database's.
        function: FunctionName,
        /// Range: lower bounds, the first `None` (the lowest key). List: values, `None` for NULL. Empty for the others.
        bounds: Vec<(Option<String>, usize)>,
    },
    /// A full copy on every shard.
    Reference,
    /// All rows on this shard (index).
    Home(usize),
}

/// A role that may log in.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// As clients give it.
    pub name: String,
    /// Plain, or `SCRAM-SHA-256$…`.
    pub password: Secret,
    /// How this one proves who it is; `None`: as `[auth]` says.
    pub method: Option<AuthMethod>,
    /// The common name of its certificates; `None`: its own.
    pub certificate: Option<String>,
    /// What the role logs in with at the shards; empty: its own password or what its client proves to know.
    pub shard_password: Secret,
}

impl User {
    /// One with a password that works at the shards, too.
    pub fn new(name: impl Into<String>, password: Secret) -> Self {
        Self {
            name: name.into(),
            password,
            method: None,
            certificate: None,
            shard_password: Secret::new(""),
        }
    }

    /// True when pgbraid does not know the password itself.
    pub fn has_verifier(&self) -> bool {
        self.password.reveal().starts_with("SCRAM-SHA-256$")
    }
}

/// Who may log in, and as whom they work at the shards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Auth {
    /// How clients prove who they are (default scram).
    pub method: AuthMethod,
    /// Whose privileges statements run with (default client).
    pub shard_role: ShardRole,
    /// Asks the first shard for users that `[[user]]` does not name.
    pub query: Option<String>,
}

/// The role that a client's statements run as at the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShardRole {
    /// The one the client has logged in as.
    #[default]
    Client,
    /// The shard's `user`, whoever the client is.
    Service,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMethod {
    /// SCRAM-SHA-256.
    #[default]
    Scram,
    /// A certificate of `tls.client_ca`.
    Cert,
    /// They need not; for loopback and tests.
    Trust,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Default disable.
    pub mode: TlsMode,
    /// PEM file of the certificate chain; there unless the mode is disable.
    pub cert: Option<PathBuf>,
    /// PEM file of the private key; there unless the mode is disable.
    pub key: Option<PathBuf>,
    /// PEM file of the authorities whose certificates clients may show.
    pub client_ca: Option<PathBuf>,
}

/// Whether clients may or must encrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// They cannot.
    Disable,
    /// They choose.
    Prefer,
    /// They must.
    Require,
}

/// Connections to each shard.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Most connections to one shard (default 32).
    pub size: usize,
    /// Connections to each shard that are kept open ahead of need (default 0).
    pub min_size: usize,
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
    /// How often shards' names are looked up; zero: for new connections only (default 30 s).
    pub dns_interval: Duration,
    /// Connections to shards.
    pub tcp: Tcp,
}

/// Limits of the steps that hold rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Merge {
    /// Bytes a single operator may hold before 53200 (default 256 MiB).
    pub memory_max: usize,
    /// Bytes one statement may bring to the merge session before 54000 (default 1 GiB).
    pub max_staged_bytes: u64,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A tracing filter: `info`, `pgbraid=debug`.
    pub level: String,
    /// One JSON object a line instead of text for people (default false).
    pub json: bool,
    /// Statements that take so long are logged; zero: none (default 0).
    pub slow_query: Duration,
    /// The level at which refused statements are logged, or "off" (default debug).
    pub refusals: String,
    /// Where traces are sent by OTLP over HTTP; empty: nowhere (default empty).
    pub traces: String,
    /// One statement in so many is traced; 0: only those that bring a trace of their own (default 1).
    pub trace_every: u64,
}

/// The administration console: a database that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// What its users connect to; empty: off (default pgbraid).
    pub database: String,
    /// Who may steer (default nobody). They may not connect to the database proper.
    pub admin_users: Vec<String>,
    /// Who may only look (default nobody), likewise.
    pub stats_users: Vec<String>,
}

/// A password; its Debug shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the resolved text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

/// Reads and checks a file; `environment` holds the process' variables (`PGBRAID_…` override keys, `env:` secrets).
///
/// # Errors
/// Every mistake of the file and the variables, in the order of the file.
pub fn load(path: &Path, environment: &BTreeMap<String, String>) -> Result<Config, ConfigErrors> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigErrors(vec![Mistake {
            file: path.to_path_buf(),
            line: 0,
            column: 0,
            key: String::new(),
            message: error.to_string(),
            expected: "a configuration file (pgbraid's package has a commented example, config/pgbraid.toml)".into(),
            excerpt: None,
            width: 0,
        }])
    })?;
    parse(path, &text, environment)
}

/// Reads and checks the text of a file. `path` names it in messages and is where relative paths start.
///
/// # Errors
/// As [`load`].
pub fn parse(
    path: &Path,
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Config, ConfigErrors> {
    let (config, mut reader) = read(path, text, environment);
    let mistakes = reader.mistakes.get_mut();
    if let (Some(config), true) = (config, mistakes.is_empty()) {
        return Ok(config);
    }
    mistakes.sort_by_key(|m| (m.line == 0, m.line, m.column));
    mistakes.dedup();
    Err(ConfigErrors(std::mem::take(mistakes)))
}

fn read<'a>(
    path: &'a Path,
    text: &'a str,
    environment: &'a BTreeMap<String, String>,
) -> (Option<Config>, reader::Reader<'a>) {
    let mut reader = reader::Reader::new(path, text, environment);
    // What the parser could make of a broken file is checked all the same, so that one run shows every mistake.
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    reader.broken = !errors.is_empty();
    for error in &errors {
        let place = reader::Place::File(error.span().unwrap_or(0..0));
        reader.mistake(&place, "", error.message(), "");
    }
    let syntax = reader.mistakes.borrow().clone();
    let config = check::config(&reader, document.get_ref());
    // What was made of a line that does not parse says nothing more about it.
    reader
        .mistakes
        .get_mut()
        .retain(|m| m.key.is_empty() || m.line == 0 || syntax.iter().all(|bad| bad.line != m.line));
    (config, reader)
}

#[cfg(test)]
mod tests;
