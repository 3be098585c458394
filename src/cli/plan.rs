//! `pgbraid plan`: the plan of one statement, as EXPLAIN would print it, with nothing run.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use pgbraid::backend::catalog;
use pgbraid::backend::connector::Connector;
use pgbraid::backend::raw_conn::RawConn;
use pgbraid::catalog::Catalog;
use pgbraid::config::Config;
use pgbraid::plan::{Planned, Refusal};
use pgbraid::planner::{self, Facts, Request};
use pgbraid::protocol::error::ServerError;
use pgbraid::protocol::sqlstate;
use pgbraid::server::{control, probe};
use pgbraid::sql;

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
        Ok(planned) => match planned.explain(&statement, config.shards.len()) {
            Ok(lines) => {
                println!("{}", lines.trim_end());
                ExitCode::SUCCESS
            }
            Err(refusal) => refused(refusal, &statement),
        },
        Err(reason) => fail(&reason),
    }
}

/// Plans a statement with the shards' catalogs and the catalog shard's answers.
async fn plan(config: &Arc<Config>, statement: &str) -> Result<Planned, String> {
    let loaded = catalog::load(config, 1).await.map_err(|e| e.to_string())?;
    let shard = loaded.catalog.catalog_shard.map_or(0, |s| usize::from(s.0));
    let connectors = Connector::all(config);
    let connector = connectors
        .get(shard)
        .ok_or("the catalog shard is not configured")?;
    let mut conn = connector.connect().await.map_err(|e| e.to_string())?;
    plan_over(&mut conn, statement, &loaded.catalog)
        .await
        .map_err(|error| in_words(&error))
}

async fn plan_over(
    conn: &mut RawConn,
    statement: &str,
    catalog: &Catalog,
) -> Result<Planned, ServerError> {
    let types = control::describe(conn, statement, &[], true)
        .await?
        .parameter_types;
    let mut facts = Facts::new();
    for _ in 0..PROBE_ROUNDS_MAX {
        let request = Request {
            sql: statement,
            parameter_types: &types,
            search_path: &catalog.search_path,
            facts: &facts,
        };
        let probes = match planner::plan(&request, catalog) {
            Ok(planned) => return Ok(planned),
            Err(probes) => probes,
        };
        for probe in probes {
            let fact = probe::answer(conn, &probe, &types, catalog).await?;
            facts.insert(probe, fact);
        }
    }
    let message = "the planner keeps asking the same questions";
    Err(ServerError::new(sqlstate::INTERNAL_ERROR, message))
}

/// PostgreSQL's own message, with what it points at.
fn in_words(error: &ServerError) -> String {
    let mut text = error.to_string();
    for (code, label) in [(b'P', "at character"), (b'D', "detail:"), (b'H', "hint:")] {
        if let Some(field) = error.field(code) {
            text.push_str(&format!("\n  {label} {field}"));
        }
    }
    text
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
