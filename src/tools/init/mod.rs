//! `pgbraid init`: a first configuration, from what lies on the shards. Only what the rows prove is declared; what they leave open is
//! asked for in comments.

mod keys;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Transaction;

use super::inventory::{self, RowTable};
use super::placement::Extent;
use super::reference;
use super::server_url;
use super::shards::{Settings, Shards};
use crate::backend::BackendError;
use crate::config::{
    Auth, Config, Console, Database, FunctionName, Log, Merge, Pool, Server, Shard, Tls,
};
use crate::progress::Progress;
use keys::Key;

/// What is asked of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connection strings, in the order of the shards.
    pub shards: Vec<String>,
    /// The name clients connect to; by default that of the first shard's database.
    pub name: Option<String>,
    /// Of large tables: a sample, or every row.
    pub extent: Extent,
    /// For each statement on a shard.
    pub limit: Duration,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A connection string is of no use.
    #[error("shard {place} {reason}")]
    Url {
        /// 1-based.
        place: usize,
        /// Without the password.
        reason: String,
    },
    /// A shard said no, or nothing.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A first configuration.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The file.
    pub text: String,
    /// Tables that are declared, and those that are asked for.
    pub declared: usize,
    /// See `declared`.
    pub asked: usize,
    /// Variables that the file takes passwords from.
    pub variables: Vec<String>,
}

/// What the rows say of a table.
#[derive(Debug, Clone, PartialEq)]
enum Finding {
    /// The same rows everywhere.
    Reference { rows: i64 },
    /// Every key looked at lies where a function puts it.
    Sharded { key: Key, others: Vec<Key> },
    /// On one shard only.
    Home { shard: usize },
    /// Neither: why, and what might be.
    Open { why: String, guess: Option<Key> },
}

/// Looks at the shards and writes.
///
/// # Errors
/// See [`InitError`].
pub async fn run(options: &Options) -> Result<Draft, InitError> {
    let config = Arc::new(undeclared(options)?);
    let shards = Shards::new(&config, options.limit);
    let tables = shards
        .each(Settings::Fixed, async |_, t: &Transaction<'_>| {
            inventory::row_tables(t).await
        })
        .await?;
    let mut by_name: BTreeMap<(&str, &str), Vec<Option<&RowTable>>> = BTreeMap::new();
    for (shard, of_shard) in tables.iter().enumerate() {
        // Partitions and children are what their parent is.
        for table in of_shard.iter().filter(|t| !t.is_child) {
            let copies = by_name
                .entry((&table.schema, &table.name))
                .or_insert_with(|| vec![None; tables.len()]);
            copies[shard] = Some(table);
        }
    }
    let progress = Progress::new("looking at tables", by_name.len() as u64);
    let mut findings = Vec::new();
    for ((schema, name), copies) in by_name {
        let finding = look(&shards, &copies, options.extent).await?;
        findings.push(((schema.to_owned(), name.to_owned()), finding));
        progress.add(1);
    }
    progress.finish();
    Ok(write::draft(&config, &findings))
}

/// The shards, with nothing declared.
fn undeclared(options: &Options) -> Result<Config, InitError> {
    let shards: Vec<Shard> = options
        .shards
        .iter()
        .enumerate()
        .map(|(n, url)| {
            let place = n + 1;
            server_url::parse(&format!("s{place}"), url)
                .map_err(|reason| InitError::Url { place, reason })
        })
        .collect::<Result<_, _>>()?;
    let first = shards.first().map(|s| s.dbname.clone());
    let name = options.name.clone().or(first).unwrap_or_default();
    Ok(Config {
        server: Server::default(),
        database: Database {
            name,
            ..Database::default()
        },
        shards,
        tables: Vec::new(),
        users: Vec::new(),
        auth: Auth::default(),
        tls: Tls::default(),
        pool: Pool::default(),
        merge: Merge::default(),
        log: Log::default(),
        console: Console::default(),
        given: Default::default(),
    })
}

async fn look(
    shards: &Shards,
    copies: &[Option<&RowTable>],
    extent: Extent,
) -> Result<Finding, BackendError> {
    let open = |why: String| Finding::Open { why, guess: None };
    let on: Vec<usize> = (0..copies.len()).filter(|n| copies[*n].is_some()).collect();
    if let [shard] = on[..] {
        return Ok(Finding::Home { shard });
    }
    let present: Option<Vec<&RowTable>> = copies.iter().copied().collect();
    let Some(tables) = present else {
        let names: Vec<&str> = on.iter().map(|n| shards.name(*n)).collect();
        return Ok(open(format!("is on {} only", names.join(", "))));
    };
    if tables.iter().any(|t| !t.same_columns(tables[0])) {
        return Ok(open(
            "has not the same columns everywhere: see pgbraid doctor".to_owned(),
        ));
    }
    let found = match keys::look(shards, &tables, extent).await {
        Ok(found) => found,
        // Row security, or a time limit: the other tables can be looked at.
        Err(error @ BackendError::Server { .. }) => {
            return Ok(open(format!("cannot be read: {error}")));
        }
        Err(error) => return Err(error),
    };
    let mut proved = found.proved.into_iter();
    if let Some(key) = proved.next() {
        return Ok(Finding::Sharded {
            key,
            others: proved.collect(),
        });
    }
    let sums = match reference::checksums(shards, tables[0]).await {
        Ok(sums) => sums,
        Err(error @ BackendError::Server { .. }) => {
            return Ok(open(format!("cannot be compared: {error}")));
        }
        Err(error) => return Err(error),
    };
    let counts: Vec<i64> = sums.iter().map(|(count, _)| *count).collect();
    let total: i64 = counts.iter().sum();
    if total == 0 {
        return Ok(open("has no rows".to_owned()));
    }
    if sums.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(Finding::Reference { rows: counts[0] });
    }
    let with_rows: Vec<usize> = (0..counts.len()).filter(|n| counts[*n] > 0).collect();
    let guess = found.possible.into_iter().next();
    let why = match (&guess, &with_rows[..]) {
        (None, [shard]) => format!("has all its {total} rows on {}", shards.name(*shard)),
        (None, _) => format!(
            "has {total} rows that differ from shard to shard and lie by no function that is known (ranges and lists are not tried)"
        ),
        (Some(_), _) => format!("has too few rows ({total}) to be sure of its key"),
    };
    Ok(Finding::Open { why, guess })
}

/// As the configuration calls it.
fn word(function: FunctionName) -> &'static str {
    match function {
        FunctionName::Postgres => "postgres",
        FunctionName::Modulo => "modulo",
        FunctionName::Hive => "hive",
        FunctionName::Range => "range",
        FunctionName::List => "list",
    }
}
