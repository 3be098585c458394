//! `pgbraid check`: the configuration, every shard, and what their catalogs say of each other.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use pgbraid::backend::catalog::{self, Difference, Loaded};
use pgbraid::backend::connector::Connector;
use pgbraid::backend::roles;
use pgbraid::backend::scram::ClientKeys;
use pgbraid::catalog::{Catalog, Distribution};
use pgbraid::config::{Config, Placement, ShardRole, TableRule};

use super::{configuration, fail};

/// Prints what was found, the good and the bad; fails when a shard is out of reach or a table would be refused.
pub async fn run(path: &Path) -> ExitCode {
    let config = match configuration(path) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let (tables, users) = (config.tables.len(), config.users.len());
    let shards = config.shards.len();
    println!(
        "configuration  {}: {shards} shards, {tables} tables, {users} users",
        path.display()
    );
    let reached = reach_all(&config).await;
    if reached < shards {
        return fail(&format!(
            "{} of {shards} shards cannot be used",
            shards - reached
        ));
    }
    let refused = try_roles(&config).await;
    if refused > 0 {
        return fail(&format!("{refused} users could not work at the shards"));
    }
    let loaded = match catalog::load(&config, 1).await {
        Ok(loaded) => loaded,
        Err(error) => return fail(&format!("the catalogs cannot be read: {error}")),
    };
    print_tables(&config, &loaded.catalog);
    verdict(&loaded)
}

/// Logs in to every shard side by side and prints a line for each; returns how many answered.
async fn reach_all(config: &Arc<Config>) -> usize {
    let connectors = Connector::all(config);
    let attempts = connectors
        .iter()
        .zip(&config.shards)
        .map(async |(connector, shard)| {
            let start = Instant::now();
            let connected = connector.connect().await;
            let place = format!("{}:{}/{}", shard.host, shard.port, shard.dbname);
            match connected {
                Ok(conn) => {
                    let version = conn
                        .parameter("server_version")
                        .unwrap_or("of unknown version");
                    let milliseconds = start.elapsed().as_millis();
                    (
                        true,
                        format!("{place}  PostgreSQL {version}, login {milliseconds} ms"),
                    )
                }
                Err(error) => (false, format!("{place}  FAILED: {error}")),
            }
        });
    let answers = join_all(attempts).await;
    for (shard, (_, line)) in config.shards.iter().zip(&answers) {
        println!("shard          {}  {line}", shard.name);
    }
    answers.iter().filter(|(reached, _)| *reached).count()
}

/// Logs in to every shard as each user whose password is known and whose own role its statements run as; returns how many of them are
/// not let in everywhere.
async fn try_roles(config: &Arc<Config>) -> usize {
    if config.auth.shard_role == ShardRole::Service {
        return 0;
    }
    let connectors = Connector::all(config);
    let mut refused = 0;
    for user in &config.users {
        let keys = ClientKeys::default();
        let attempts = connectors.iter().map(async |connector| {
            let login = roles::login(config, &user.name, connector.id, &keys);
            // What a client alone can show cannot be tried.
            if login.password.is_empty() && user.has_verifier() {
                return None;
            }
            Some(connector.connect_as(&login).await.map(drop))
        });
        let tried = join_all(attempts).await;
        let failures: Vec<String> = tried
            .iter()
            .flatten()
            .filter_map(|attempt| attempt.as_ref().err().map(ToString::to_string))
            .collect();
        match (failures.first(), tried.iter().flatten().count()) {
            (Some(failure), _) => println!("user           {}  FAILED: {failure}", user.name),
            (None, 0) => println!("user           {}  by its client's own login", user.name),
            (None, count) => println!("user           {}  logs in at {count} shards", user.name),
        }
        refused += usize::from(!failures.is_empty());
    }
    refused
}

fn print_tables(config: &Config, catalog: &Catalog) {
    for rule in &config.tables {
        println!(
            "table          {}.{}  {}",
            rule.schema,
            rule.name,
            placed(rule, config)
        );
    }
    let mut refused: Vec<String> = catalog
        .tables
        .values()
        .filter_map(|table| match &table.distribution {
            Distribution::Undeclared { reason } => {
                let why = reason.as_deref().unwrap_or("no [[table]] names it");
                Some(format!("{}.{}  {why}", table.schema, table.name))
            }
            _ => None,
        })
        .collect();
    refused.sort();
    for line in refused {
        println!("refused        {line}");
    }
}

fn placed(rule: &TableRule, config: &Config) -> String {
    match &rule.placement {
        Placement::Sharded {
            key: Some(key),
            function,
            ..
        } => {
            format!(
                "sharded by {key} ({})",
                format!("{function:?}").to_lowercase()
            )
        }
        Placement::Sharded { key: None, .. } => "sharded, key unknown".to_string(),
        Placement::Reference => "reference, on every shard".to_string(),
        Placement::Home(shard) => {
            let name = config.shards.get(*shard).map_or("?", |s| s.name.as_str());
            format!("on shard {name}")
        }
    }
}

fn verdict(loaded: &Loaded) -> ExitCode {
    for difference in &loaded.differences {
        println!("{}", line(difference));
    }
    let fatal = loaded.differences.iter().filter(|d| d.fatal).count();
    if fatal > 0 {
        return fail(&format!(
            "{fatal} differences make statements impossible to answer exactly"
        ));
    }
    println!("ok");
    ExitCode::SUCCESS
}

fn line(difference: &Difference) -> String {
    let Difference {
        shard,
        object,
        message,
        fatal,
    } = difference;
    let kind = if *fatal {
        "MUST BE MENDED"
    } else {
        "differs       "
    };
    format!("{kind} shard {shard}: {object}: {message}")
}
