//! Settings that matter, and the statement that sets one where its value comes from.

use tokio_postgres::{Error, Transaction};

use super::super::report::Finding;
use super::{get, names, queries};
use crate::backend::catalog::RESULT_SETTINGS;
use crate::config::{Config, Shard};
use crate::sql::{quote_identifier, quote_literal};

/// Settings that change no row but how long a statement may take, what it may do, or how many may run.
const OTHERS: [&str; 12] = [
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "row_security",
    "search_path",
    "session_replication_role",
    "statement_timeout",
];

/// A setting of a new session of the shards' user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As PostgreSQL spells it.
    pub name: String,
    /// With its unit.
    pub value: String,
    /// `default`, `configuration file`, `database`, `user`, `database user` …
    pub source: String,
    /// `internal`, `postmaster`, `sighup`, `user` …
    pub context: String,
}

impl Setting {
    /// All that are compared. The transaction must have the session's own settings.
    ///
    /// # Errors
    /// The shard's.
    pub async fn read(transaction: &Transaction<'_>) -> Result<Vec<Self>, Error> {
        // Read before this transaction's own limit counts.
        transaction.batch_execute("RESET statement_timeout").await?;
        let list: Vec<&str> = RESULT_SETTINGS.into_iter().chain(OTHERS).collect();
        let rows = transaction
            .query_typed(queries::SETTINGS, &[names(&list.as_slice())])
            .await?;
        let setting = |row| {
            Ok(Self {
                name: get(row, 0)?,
                value: get(row, 1)?,
                source: get(row, 2)?,
                context: get(row, 3)?,
            })
        };
        rows.iter().map(setting).collect()
    }
}

/// Settings that are not what most shards have.
pub fn compare_settings(config: &Config, shards: &[Vec<Setting>]) -> Vec<Finding> {
    let names = shards.iter().flatten().map(|s| s.name.as_str());
    let names: std::collections::BTreeSet<&str> = names.collect();
    let mut findings = Vec::new();
    for name in names {
        let copies: Vec<Option<&Setting>> = shards
            .iter()
            .map(|s| s.iter().find(|s| s.name == name))
            .collect();
        let votes = |value: &str| {
            let same = copies.iter().flatten().filter(|s| s.value == value);
            same.count()
        };
        let all = copies.iter().enumerate().rev();
        let right = all
            .filter_map(|(shard, copy)| Some((shard, (*copy)?)))
            .max_by_key(|(_, s)| votes(&s.value));
        let Some((model, right)) = right else {
            continue;
        };
        for (shard, copy) in config.shards.iter().zip(&copies) {
            let Some(setting) = copy.filter(|s| s.value != right.value) else {
                continue;
            };
            let message = format!(
                "is {}, on shard {} {}",
                shown(&setting.value),
                config.shards[model].name,
                shown(&right.value)
            );
            let finding = Finding::new(&shard.name, format!("setting {name}"), message);
            findings.push(mended(finding, shard, setting, &right.value));
        }
    }
    findings
}

fn shown(value: &str) -> &str {
    match value {
        "" => "empty",
        value => value,
    }
}

/// Where a value comes from decides what overrides it.
fn mended(finding: Finding, shard: &Shard, setting: &Setting, value: &str) -> Finding {
    let (role, database) = (
        quote_identifier(&shard.user),
        quote_identifier(&shard.dbname),
    );
    let name = quote_identifier(&setting.name);
    // A list of names is written as it is: in quotes it would be one name.
    let value = match setting.name.as_str() {
        "search_path" => value.to_owned(),
        _ => quote_literal(value),
    };
    let statement = match (setting.context.as_str(), setting.source.as_str()) {
        ("internal", _) => {
            return finding.noted("it is fixed when a server is made: move the data to a new one");
        }
        ("postmaster", _) => {
            return finding
                .mended_by([format!("ALTER SYSTEM SET {name} TO {value}")])
                .noted("it takes a restart of the server");
        }
        ("sighup", _) => format!("ALTER SYSTEM SET {name} TO {value}; SELECT pg_reload_conf()"),
        (_, "database user") => {
            format!("ALTER ROLE {role} IN DATABASE {database} SET {name} TO {value}")
        }
        (_, "user") => format!("ALTER ROLE {role} SET {name} TO {value}"),
        _ => format!("ALTER DATABASE {database} SET {name} TO {value}"),
    };
    finding.mended_by([statement])
}
