//! `pgbraid demo`: the whole thing on one machine. Throwaway PostgreSQL servers hold the same payments once in one place and
//! once spread over shards; pgbraid answers for the shards, and every answer is held against the one server's.

mod compare;
mod load;
mod payments;
pub mod servers;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use servers::{SUPERUSER, Server, Servers, ServersError};

/// The database on every server, and the one pgbraid shows.
const DATABASE: &str = "demo";
/// Who owns it and logs in, everywhere.
const USER: &str = "demo";
/// Runs on each side per query; the median of an odd number is a run that happened.
const ROUNDS: usize = 7;

/// How long pgbraid may take to read the catalogs of servers that do nothing else.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Nothing here must survive a crash; the rest is PostgreSQL's default, parallel query included.
const SETTINGS: &str = "shared_buffers = 256MB
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 4GB
autovacuum = off
jit = off
log_min_messages = fatal";

/// What the user asks of the demo.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Shards to start, each a PostgreSQL server of its own
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub shards: u16,
    /// Payments to load (default: one million for each processor, at most 16 million)
    #[arg(long)]
    pub rows: Option<u64>,
    /// End after the comparison instead of staying up; the exit status says whether all rows were the same
    #[arg(long)]
    pub once: bool,
}

/// Why a demo ends early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The servers could not be made.
    #[error(transparent)]
    Servers(#[from] ServersError),
    /// A server said no while it was filled, or pgbraid to a login.
    #[error("a server said no: {}", describe(.0))]
    Server(#[from] tokio_postgres::Error),
    /// A loading task died.
    #[error("a loading task ended unexpectedly: {0}")]
    Worker(String),
    /// A query failed on one side.
    #[error("{title}: {on} answered with an error: {}", describe(source))]
    Query {
        /// The query's title.
        title: &'static str,
        /// Which side.
        on: &'static str,
        /// What it said.
        source: tokio_postgres::Error,
    },
    /// pgbraid itself did not start, or ended.
    #[error("pgbraid did not start: {0}")]
    Proxy(String),
    /// The operating system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// pgbraid's rows were not the one server's.
    #[error("pgbraid gave other rows than the one server")]
    Different,
    /// Ctrl-C or a signal before the end.
    #[error("interrupted")]
    Interrupted,
}

fn describe(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// Runs the demo. Whatever it started is gone when it returns, on signals too.
///
/// # Errors
/// See [`DemoError`]; `Different` when an answer was not the one server's.
pub async fn run(options: &Options) -> Result<(), DemoError> {
    let mut signals = Signals::new()?;
    // Not raced with the signals, which wait meanwhile: servers half made are best stopped when they are whole.
    let demo = Demo::boot(options).await?;
    let result = tokio::select! {
        result = demo.show(options) => result,
        () = signals.any() => Err(DemoError::Interrupted),
    };
    let result = match result {
        Ok(same) if !options.once => demo.stay_up(&mut signals).await.map(|()| same),
        other => other,
    };
    demo.stop().await;
    if result? {
        Ok(())
    } else {
        Err(DemoError::Different)
    }
}

/// Everything that is up.
struct Demo {
    servers: Servers,
    /// pgbraid's port, and the one of its status page.
    listen: u16,
    http: u16,
    /// Cancelled: pgbraid shall end.
    stop: CancellationToken,
    /// Cancelled: pgbraid has ended.
    proxy_ended: CancellationToken,
}

impl Demo {
    /// Starts the servers, still empty.
    async fn boot(options: &Options) -> Result<Self, DemoError> {
        let names: Vec<String> = std::iter::once("whole".to_owned())
            .chain((1..=options.shards).map(|n| format!("shard{n}")))
            .collect();
        eprintln!("starting {} PostgreSQL servers", names.len());
        let servers = blocking(move || Servers::start(&names, SETTINGS)).await?;
        let ports = servers::free_ports(2)?;
        Ok(Self {
            servers,
            listen: ports[0],
            http: ports[1],
            stop: CancellationToken::new(),
            proxy_ended: CancellationToken::new(),
        })
    }

    /// Loads, starts pgbraid, compares; true when all rows were the same.
    async fn show(&self, options: &Options) -> Result<bool, DemoError> {
        let rows = options
            .rows
            .unwrap_or_else(|| 1_000_000 * processors().min(16) as u64);
        for server in self.servers.iter() {
            make_database(server).await?;
        }
        let targets = load::Targets {
            whole: self.whole_conninfo(),
            shards: self.servers.iter().skip(1).map(conninfo).collect(),
        };
        load::load(&targets, rows).await?;
        self.start_proxy().await?;
        self.compare(rows).await
    }

    async fn stay_up(&self, signals: &mut Signals) -> Result<(), DemoError> {
        self.invite();
        tokio::select! {
            () = signals.any() => Ok(()),
            () = self.proxy_ended.cancelled() => Err(DemoError::Proxy("it ended".to_owned())),
        }
    }

    /// Starts pgbraid in this process and waits until it answers: it listens before it has read the shards' catalogs.
    async fn start_proxy(&self) -> Result<(), DemoError> {
        let config = Arc::new(self.config());
        let (stop, ended) = (self.stop.clone(), self.proxy_ended.clone());
        let serving = tokio::spawn(async move {
            let result = crate::server::serve(config, stop).await;
            ended.cancel();
            result.map_err(|e| e.to_string())
        });
        let deadline = Instant::now() + READY_TIMEOUT;
        while let Err(error) = self.first_statement().await {
            // Refused connections and lost ones carry no SQLSTATE.
            let starting = error
                .code()
                .is_none_or(|code| *code == SqlState::CANNOT_CONNECT_NOW);
            if self.proxy_ended.is_cancelled() {
                let reason = match serving.await {
                    Ok(Ok(())) => "it ended".to_owned(),
                    Ok(Err(reason)) => reason,
                    Err(panic) => panic.to_string(),
                };
                return Err(DemoError::Proxy(reason));
            }
            if !starting || Instant::now() > deadline {
                return Err(DemoError::Proxy(describe(&error)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn first_statement(&self) -> Result<(), tokio_postgres::Error> {
        let client = load::connect(&self.client_conninfo()).await?;
        client.batch_execute("select 1").await
    }

    /// Compares all queries and prints the table; true when all rows were the same.
    async fn compare(&self, rows: u64) -> Result<bool, DemoError> {
        let whole = load::connect(&self.whole_conninfo()).await?;
        let braid = load::connect(&self.client_conninfo()).await?;
        let mut outcomes = Vec::new();
        for query in std::iter::once(&compare::ANALYTIC).chain(compare::OTHERS) {
            eprintln!("comparing: {}", query.title);
            outcomes.push(compare::compare(*query, &whole, &braid, ROUNDS).await?);
        }
        println!(
            "\n{rows} payments between {} companies, sharded by payer. {} processors for everything, {};\nits default settings \
             (parallel query included) but for fsync, jit and autovacuum (off) and shared_buffers (256MB).\n\n{}",
            payments::COMPANIES,
            processors(),
            self.servers.version(),
            compare::table(&outcomes, self.servers.iter().count() - 1),
        );
        Ok(outcomes.iter().all(compare::Outcome::same))
    }

    /// Says how to go on.
    fn invite(&self) {
        println!(
            "pgbraid is up, with the tables transfers and companies:\n\n    psql \"{}\"\n\nWhat to try there:\n\n    \\d transfers\n    \
             select payer, sum(amount) from transfers group by payer order by 2 desc nulls last limit 5;\n    \
             explain select month, avg(amount) from transfers group by month order by month;\n\n\
             The one server:  psql \"{}\"\nHealth, metrics: http://127.0.0.1:{}/\n\nCtrl-C ends it and removes everything.",
            self.client_conninfo(),
            self.whole_conninfo(),
            self.http,
        );
    }

    async fn stop(self) {
        self.stop.cancel();
        // Its grace is a second; the servers go away in any case.
        let _ = tokio::time::timeout(Duration::from_secs(3), self.proxy_ended.cancelled()).await;
        let _ = blocking(move || {
            drop(self.servers);
            Ok(())
        })
        .await;
    }

    fn whole_conninfo(&self) -> String {
        self.servers.iter().next().map(conninfo).unwrap_or_default()
    }

    fn client_conninfo(&self) -> String {
        format!(
            "host=127.0.0.1 port={} dbname={DATABASE} user={USER}",
            self.listen
        )
    }

    fn config(&self) -> Config {
        let sharded = config::Placement::Sharded {
            key: Some("payer".to_owned()),
            function: config::FunctionName::Postgres,
            bounds: Vec::new(),
        };
        let table = |name: &str, placement| config::TableRule {
            schema: "public".to_owned(),
            name: name.to_owned(),
            placement,
        };
        Config {
            server: config::Server {
                listen: format!("127.0.0.1:{}", self.listen),
                http: format!("127.0.0.1:{}", self.http),
                shutdown_grace: Duration::from_secs(1),
                ..config::Server::default()
            },
            database: config::Database {
                name: DATABASE.to_owned(),
                ..config::Database::default()
            },
            shards: self.servers.iter().skip(1).map(shard).collect(),
            tables: vec![
                table("transfers", sharded),
                table("companies", config::Placement::Reference),
            ],
            users: Vec::new(),
            auth: config::Auth {
                method: config::AuthMethod::Trust,
                ..config::Auth::default()
            },
            tls: config::Tls::default(),
            pool: config::Pool::default(),
            merge: config::Merge::default(),
            console: config::Console::default(),
            given: Default::default(),
            log: config::Log::default(),
        }
    }
}

fn shard(server: &Server) -> config::Shard {
    config::Shard {
        name: server.name.clone(),
        host: "127.0.0.1".to_owned(),
        port: server.port,
        dbname: DATABASE.to_owned(),
        user: USER.to_owned(),
        password: config::Secret::new(""),
        sslmode: config::SslMode::Disable,
        sslrootcert: None,
    }
}

fn conninfo(server: &Server) -> String {
    format!(
        "host=127.0.0.1 port={} dbname={DATABASE} user={USER}",
        server.port
    )
}

async fn make_database(server: &Server) -> Result<(), DemoError> {
    let target = format!(
        "host=127.0.0.1 port={} dbname=postgres user={SUPERUSER}",
        server.port
    );
    let client = load::connect(&target).await?;
    client
        .batch_execute(&format!("create role {USER} login"))
        .await?;
    client
        .batch_execute(&format!("create database {DATABASE} owner {USER}"))
        .await?;
    Ok(())
}

/// Runs something slow off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServersError> + Send + 'static,
) -> Result<T, DemoError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(panic) => Err(DemoError::Worker(panic.to_string())),
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The signals that end the demo.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
