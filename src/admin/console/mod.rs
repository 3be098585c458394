//! The administration console: what SHOW answers and what commands do. It knows nothing of sockets; `server::console` speaks with the
//! client.
//!
//! Names and columns that PgBouncer's console has are kept under their names, so that its exporters work here as well. Figures are those
//! of the registry, the pools and the metrics: `/metrics` and the console cannot tell different things.

mod averages;
mod clock;
mod command;
mod filter;
mod pooler;
mod settings;
mod sharding;
mod steer;
mod table;

use std::sync::Arc;
use std::time::Duration;

pub use command::{Command, parse, split};
pub(super) use sharding::{plan_label, slowest};
pub use table::{Column, Table, Type, Value};

use super::Served;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::registry::SessionEntry;
use averages::{Averages, Sample};

/// How long SHOW QUERIES waits for sessions to tell how far they are.
pub(super) const LOOK_PATIENCE: Duration = Duration::from_millis(50);

/// Who is at the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// May look and steer.
    Admin,
    /// May only look.
    Stats,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Rows.
    Rows(Table),
    /// It is done; the tag says what.
    Done(&'static str),
}

/// One for the process.
pub struct Console {
    served: Served,
    averages: Averages,
}

/// What SHOW knows, with what it is for.
const SHOWN: [(&str, &str); 20] = [
    ("help", "these lines"),
    ("version", "of pgbraid"),
    ("config", "settings with their defaults"),
    ("databases", "the shards' databases, as PgBouncer has them"),
    ("shards", "the shards: reachable, connections, load"),
    ("pools", "connections and clients by shard"),
    ("clients", "sessions of clients"),
    ("servers", "connections to shards"),
    (
        "stats",
        "totals since the start, and averages of the last minute",
    ),
    ("stats_totals", "the totals alone"),
    ("stats_averages", "the averages alone"),
    ("totals", "the same as stats"),
    ("lists", "how many there are of what"),
    ("users", "who may log in"),
    ("state", "whether all is paused"),
    ("queries", "statements that run now"),
    ("tables", "where rows are"),
    ("cache", "plans that are kept"),
    ("skew", "how even the shards' work is"),
    ("errors", "errors by SQLSTATE class and refusals by reason"),
];

/// Commands besides SHOW, with what they do.
const COMMANDS: [(&str, &str); 9] = [
    (
        "SHOW name [WHERE …] [ORDER BY …]",
        "look at rows of that name",
    ),
    (
        "RELOAD",
        "read configuration and catalogs again, as SIGHUP does",
    ),
    (
        "PAUSE [shard]",
        "hold new statements back, wait for those under way, close connections",
    ),
    ("RESUME [shard]", "let them go on"),
    (
        "RECONNECT [shard]",
        "replace connections, those in use when they come back",
    ),
    ("KILL [CLIENT] id", "end a session (57P01)"),
    ("SHUTDOWN", "end pgbraid, as SIGTERM does"),
    (
        "SHUTDOWN WAIT_FOR_CLIENTS",
        "take no more clients, and end when the last one has left",
    ),
    (
        "SET name = value",
        "log.level, log.slow_query or log.refusals, until the next start",
    ),
];

impl Console {
    /// Looks at and steers what is served.
    pub fn new(served: Served) -> Arc<Self> {
        Arc::new(Self {
            served,
            averages: Averages::new(),
        })
    }

    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// Who a user is here; `None`: nobody.
    pub fn access(&self, user: &str) -> Option<Access> {
        let config = self.served.config();
        let console = &config.console;
        let is_in = |list: &[String]| list.iter().any(|name| name == user);
        match (is_in(&console.admin_users), is_in(&console.stats_users)) {
            (true, _) => Some(Access::Admin),
            (false, true) => Some(Access::Stats),
            (false, false) => None,
        }
    }

    /// Carries a command out for the session `by`. Dropping the future of a PAUSE leaves paused what is paused.
    ///
    /// # Errors
    /// 42501 for who may only look; what is wrong with the command.
    pub async fn execute(
        &self,
        command: &Command,
        access: Access,
        by: &SessionEntry,
    ) -> Result<Answer, ServerError> {
        if access == Access::Stats && !command.only_looks() {
            let message = format!("permission denied to {}", command.tag());
            return Err(ServerError::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)
                .with_hint("console.admin_users in the configuration says who may."));
        }
        if let Command::Show { what, rest } = command {
            let mut table = self.show(what).await?;
            filter::apply(&mut table, rest)?;
            return Ok(Answer::Rows(table));
        }
        self.steer(command, by).await?;
        Ok(Answer::Done(command.tag()))
    }

    async fn show(&self, what: &str) -> Result<Table, ServerError> {
        let served = &self.served;
        Ok(match what {
            "help" => help(),
            "version" => Table::of_row(vec![("version", version().into())]),
            "config" => settings::config(&served.config()),
            "databases" => pooler::databases(served),
            "pools" => pooler::pools(served),
            "clients" => pooler::clients(served),
            "servers" => pooler::servers(served),
            "stats" | "totals" => self.stats(true, true),
            "stats_totals" => self.stats(true, false),
            "stats_averages" => self.stats(false, true),
            "lists" => pooler::lists(served),
            "users" => pooler::users(served),
            "state" => pooler::state(served),
            "shards" => sharding::shards(served),
            "queries" => {
                served.registry.look(LOOK_PATIENCE).await;
                sharding::queries(served)
            }
            "tables" => sharding::tables(served)?,
            "cache" => sharding::cache(),
            "skew" => sharding::skew(served),
            "errors" => sharding::errors(),
            what => {
                let message = format!("SHOW {what} is not known to the console");
                return Err(ServerError::new(sqlstate::SYNTAX_ERROR, message)
                    .with_hint("SHOW HELP lists what is."));
            }
        })
    }

    fn stats(&self, totals: bool, averages: bool) -> Table {
        let now = Sample::now(&self.served);
        let (change, seconds) = self.averages.last(now);
        pooler::stats(&self.served, now, (change, seconds), (totals, averages))
    }

    /// Takes a sample each period, for ever.
    pub(super) async fn keep_averages(&self) {
        let mut periods = tokio::time::interval(averages::PERIOD);
        // The first tick is at once.
        periods.tick().await;
        loop {
            periods.tick().await;
            self.averages.turn(Sample::now(&self.served));
        }
    }
}

/// As SHOW VERSION has it.
fn version() -> &'static str {
    concat!("pgbraid ", env!("CARGO_PKG_VERSION"))
}

fn help() -> Table {
    let mut table = Table::new(&[("command", Type::Text), ("what", Type::Text)]);
    for (command, what) in COMMANDS {
        table.push(vec![command.into(), what.into()]);
    }
    for (name, what) in SHOWN {
        let command = format!("SHOW {}", name.to_ascii_uppercase());
        table.push(vec![command.into(), what.into()]);
    }
    table
}
