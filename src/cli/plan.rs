//! `pgbraid plan`: the plan of one statement, as EXPLAIN would print it, with nothing run.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use pgbraid::backend::catalog;
use pgbraid::backend::connector::Connector;
use pgbraid::backend::raw_conn::RawConn;
use pgbraid::catalog::Catalog;
use pgbraid::config::Config;
use pgbraid::plan::{Planned, Refusal, Targets};
use pgbraid::planner::{self, Facts, Request};
use pgbraid::sql;

use super::ask::{ask, fact};
use super::{configuration, fail};

/// A planner that keeps asking has a fault; a real statement is answered in two or three rounds.
const PROBE_ROUNDS_MAX: usize = 32;

/// Prints the plan, or why there is none.
pub async fn run(path: &Path, text: &str) -> ExitCode {
    let config = match configuration(path) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let statement = match sql::parse(text).as_deref() {
        Ok([statement]) => statement.text.clone(),
        Ok(several) => {
            return fail(&format!(
                "one statement is needed, there are {}",
                several.len()
            ));
        }
        Err(error) => return fail(&error.to_string()),
    };
    match plan(&config, &statement).await {
        Ok((planned, parameters)) => print(&config, &planned, parameters, &statement),
        Err(reason) => fail(&reason),
    }
}

/// Plans a statement with the shards' catalogs and the catalog shard's answers; also says how many parameters it has.
async fn plan(config: &Arc<Config>, statement: &str) -> Result<(Planned, usize), String> {
    let loaded = catalog::load(config, 1).await.map_err(|e| e.to_string())?;
    let shard = loaded.catalog.catalog_shard.map_or(0, |s| usize::from(s.0));
    let connectors = Connector::all(config);
    let connector = connectors
        .get(shard)
        .ok_or("the catalog shard is not configured")?;
    let mut conn = connector.connect().await.map_err(|e| e.to_string())?;
    let described = ask(&mut conn, statement, &[], false)
        .await
        .map_err(|e| e.to_string())?;
    let types = described.parameter_types;
    let planned = plan_with(&mut conn, statement, &types, &loaded.catalog).await?;
    Ok((planned, types.len()))
}

async fn plan_with(
    conn: &mut RawConn,
    statement: &str,
    types: &[u32],
    catalog: &Catalog,
) -> Result<Planned, String> {
    let mut facts = Facts::new();
    for _ in 0..PROBE_ROUNDS_MAX {
        let request = Request {
            sql: statement,
            parameter_types: types,
            search_path: &catalog.search_path,
            facts: &facts,
        };
        let probes = match planner::plan(&request, catalog) {
            Ok(planned) => return Ok(planned),
            Err(probes) => probes,
        };
        for probe in probes {
            let known = fact(conn, &probe, types, catalog)
                .await
                .map_err(|e| e.to_string())?;
            facts.insert(probe, known);
        }
    }
    Err("the planner keeps asking the same questions".to_string())
}

fn print(config: &Config, planned: &Planned, parameters: usize, statement: &str) -> ExitCode {
    let shards = config.shards.len();
    let unchanged = match &planned.route {
        _ if shards == 1 => Some("the only shard".to_string()),
        Targets::Any => Some("any one shard".to_string()),
        Targets::Catalog => Some("the catalog shard".to_string()),
        Targets::Shard(shard) => config
            .shards
            .get(usize::from(shard.0))
            .map(|s| format!("shard {}", s.name)),
        Targets::All | Targets::Keyed(_) => None,
    };
    if let Some(target) = unchanged {
        println!("Remote on {target}: {statement}");
        return ExitCode::SUCCESS;
    }
    if matches!(planned.route, Targets::Keyed(_)) {
        let when = if parameters > 0 {
            "its parameters pin"
        } else {
            "its keys pin"
        };
        println!("Unchanged to one shard where {when} it there; else:");
    }
    match &planned.fan_out {
        Ok(plan) => {
            println!("{plan:#?}");
            ExitCode::SUCCESS
        }
        Err(refusal) => refused(refusal, statement),
    }
}

/// The statement with a mark under the place to blame, as psql would show it.
fn refused(refusal: &Refusal, statement: &str) -> ExitCode {
    let mut text = format!("refused (0A000): {}", refusal.message);
    if let Some(before) = refusal.location.and_then(|at| statement.get(..at)) {
        let start = before.rfind('\n').map_or(0, |n| n + 1);
        let line = statement[start..].lines().next().unwrap_or_default();
        let column = before[start..].chars().count();
        text.push_str(&format!("\n  {line}\n  {:column$}^", ""));
    }
    if !refusal.hint.is_empty() {
        text.push_str(&format!("\n  hint: {}", refusal.hint));
    }
    fail(&text)
}
