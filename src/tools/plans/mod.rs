//! `pgbraid plan`: how statements would run, one or a file of them, with nothing run.

mod source;

use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;

use crate::backend::catalog;
use crate::backend::connector::Connector;
use crate::backend::raw_conn::RawConn;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::plan::{KeyCondition, KeyValue, Plan, Planned, Refusal, Targets};
use crate::planner::{self, Facts, Request};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::server::{control, probe, refusal_of_kind};
use crate::sql::{self, CopySource, Kind};

use super::report::statement_line;
pub use source::{Given, read, read_files};

/// A planner that keeps asking has a fault; a real statement is answered in two or three rounds.
const PROBE_ROUNDS_MAX: usize = 32;

/// How a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Whole and unchanged on one shard.
    Route,
    /// On several shards at once, put together in pgbraid.
    PushDown,
    /// With a last step on a merge session, over rows that subqueries, groups or limits have left on the shards.
    Stage,
    /// With a last step on a merge session, over rows of tables.
    Gather,
    /// By pgbraid's session itself: BEGIN, SET, cursors …
    Session,
    /// Not at all.
    Refused,
    /// The statement itself is wrong, or its parameters say too little.
    Failed,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::Route,
        Self::PushDown,
        Self::Stage,
        Self::Gather,
        Self::Session,
        Self::Refused,
        Self::Failed,
    ];

    /// As the table names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::PushDown => "push down",
            Self::Stage => "stage",
            Self::Gather => "gather",
            Self::Session => "session",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What became of one statement of a file.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its text.
    pub statement: String,
    /// How it runs.
    pub way: Way,
    /// Why it does not run, or where its rows are; empty where the way says it all.
    pub reason: String,
    /// What to write instead of what is refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// The plan, as EXPLAIN prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// How often it ran, by pg_stat_statements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<f64>,
    /// Milliseconds it took in all, by pg_stat_statements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<f64>,
}

/// Plans statements over one catalog, one after the other.
pub struct Desk {
    catalog: Arc<Catalog>,
    conn: RawConn,
    connector: Arc<Connector>,
    shards: usize,
}

impl Desk {
    /// Loads the catalogs and connects to the catalog shard.
    ///
    /// # Errors
    /// What the first failing shard said, in words.
    pub async fn open(config: &Arc<Config>) -> Result<Self, String> {
        let loaded = catalog::load(config, 1).await.map_err(|e| e.to_string())?;
        let shard = loaded.catalog.catalog_shard.map_or(0, |s| usize::from(s.0));
        let connectors = Connector::all(config);
        let connector = connectors
            .get(shard)
            .ok_or("the catalog shard is not configured")?
            .clone();
        let conn = connector.connect().await.map_err(|e| e.to_string())?;
        Ok(Self {
            catalog: loaded.catalog,
            conn,
            connector,
            shards: config.shards.len(),
        })
    }

    /// The plan of a statement.
    ///
    /// # Errors
    /// What PostgreSQL finds wrong with it.
    pub async fn plan(&mut self, statement: &str) -> Result<Planned, ServerError> {
        let planned = plan_over(&mut self.conn, statement, &self.catalog).await;
        if planned.is_err() && self.conn.outstanding() > 0 {
            // A reply is still owed: the next statement must not read it.
            self.conn = self
                .connector
                .connect()
                .await
                .map_err(|e| ServerError::new(sqlstate::CONNECTION_FAILURE, e.to_string()))?;
        }
        planned
    }

    /// What becomes of one statement of a file.
    pub async fn outcome(&mut self, given: &Given) -> Outcome {
        let mut outcome = Outcome {
            statement: given.text.clone(),
            way: Way::Failed,
            reason: String::new(),
            hint: String::new(),
            plan: None,
            calls: given.calls,
            total_ms: given.total_ms,
        };
        let parsed = sql::parse(&given.text);
        let statement = match parsed.as_deref() {
            Ok([statement]) => statement,
            Ok(several) => {
                outcome.reason = format!("there are {} statements in it", several.len());
                return outcome;
            }
            Err(error) => {
                outcome.reason = error.to_string();
                return outcome;
            }
        };
        let kind = sql::classify(statement);
        let text = match &kind {
            Kind::Select { writes: false, .. } | Kind::Insert | Kind::Update | Kind::Delete => {
                statement.text.clone()
            }
            Kind::Explain { inner, .. } | Kind::DeclareCursor { inner, .. } => inner.clone(),
            Kind::CopyTo(copy) if copy.to_client => match &copy.source {
                CopySource::Query { sql } => sql.clone(),
                CopySource::Table(table) => format!("SELECT * FROM {}", table.quoted()),
                CopySource::Change => {
                    by_kind(&kind, &mut outcome);
                    return outcome;
                }
            },
            // With one shard everything passes.
            _ if self.shards == 1 => {
                outcome.way = Way::Route;
                return outcome;
            }
            kind => {
                by_kind(kind, &mut outcome);
                return outcome;
            }
        };
        match self.plan(&text).await {
            Ok(planned) => self.judge(&planned, &text, &mut outcome),
            Err(error) => outcome.reason = in_words(&error),
        }
        outcome
    }

    fn judge(&self, planned: &Planned, text: &str, outcome: &mut Outcome) {
        let plan = planned.explain(text, self.shards);
        outcome.plan = plan.ok().map(|lines| lines.trim_end().to_owned());
        let routed = match &planned.route {
            Targets::Any => Some("any shard has all of it"),
            Targets::Catalog => Some("the catalog shard"),
            Targets::Shard(_) => Some("its table is on one shard"),
            Targets::Keyed(condition) if is_one(condition) => Some("by its sharding key"),
            // Whether it is one shard is known when its parameters are.
            Targets::Keyed(condition) if planned.write.is_some() && condition.has_parameter() => {
                Some("by its sharding key")
            }
            _ => None,
        };
        if let Some(how) = routed {
            outcome.way = Way::Route;
            outcome.reason = how.to_owned();
            return;
        }
        match planned.fan_out.as_deref() {
            Ok(Plan::Combine { .. }) if planned.gathers => outcome.way = Way::Gather,
            Ok(Plan::Combine { .. }) => outcome.way = Way::Stage,
            Ok(_) => outcome.way = Way::PushDown,
            Err(refusal) => {
                outcome.way = Way::Refused;
                outcome.reason = refusal.message.clone();
                outcome.hint = refusal.hint.clone();
            }
        }
    }
}

/// True when the condition leaves one shard at most, whatever the parameters are.
fn is_one(condition: &KeyCondition) -> bool {
    if let Some(shards) = condition.constant_shards() {
        return shards.len() <= 1;
    }
    match condition {
        KeyCondition::Equal {
            value: KeyValue::Parameter(_),
            ..
        } => true,
        KeyCondition::And(parts) => parts.iter().any(is_one),
        KeyCondition::Or(parts) => parts.len() == 1 && is_one(&parts[0]),
        _ => false,
    }
}

/// Statements that are not planned.
fn by_kind(kind: &Kind, outcome: &mut Outcome) {
    let refused = matches!(
        kind,
        Kind::Select { .. }
            | Kind::Merge
            | Kind::CopyIn
            | Kind::CopyTo(_)
            | Kind::Ddl
            | Kind::TwoPhase
            | Kind::Other
    );
    outcome.way = match refused {
        true => Way::Refused,
        false => Way::Session,
    };
    if refused {
        let error = refusal_of_kind(kind);
        outcome.reason = error.message();
        outcome.hint = error.field(b'H').unwrap_or_default().into_owned();
    }
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
pub fn in_words(error: &ServerError) -> String {
    let mut text = error.to_string();
    for (code, label) in [(b'P', "at character"), (b'D', "detail:"), (b'H', "hint:")] {
        if let Some(field) = error.field(code) {
            text.push_str(&format!("\n  {label} {field}"));
        }
    }
    text
}

/// The statement with a mark under the place to blame, as psql would show it.
pub fn refusal_in_words(refusal: &Refusal, statement: &str) -> String {
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
    text
}

/// The outcomes for people: the slowest first where that is known, then how many went which way.
pub fn table(outcomes: &[Outcome]) -> String {
    let timed = outcomes
        .iter()
        .any(|o| o.calls.is_some() || o.total_ms.is_some());
    let mut out = format!("{:<10} ", "way");
    if timed {
        let _ = write!(out, "{:>10} {:>12} ", "calls", "total ms");
    }
    out.push_str("statement\n");
    // Writing to a String cannot fail.
    for outcome in outcomes {
        let _ = write!(out, "{:<10} ", outcome.way.word());
        if timed {
            let number = |n: Option<f64>| n.map_or_else(String::new, |n| format!("{n:.0}"));
            let (calls, total) = (number(outcome.calls), number(outcome.total_ms));
            let _ = write!(out, "{calls:>10} {total:>12} ");
        }
        let _ = writeln!(out, "{}", statement_line(&outcome.statement));
        let says = matches!(outcome.way, Way::Refused | Way::Failed);
        if says {
            let _ = writeln!(
                out,
                "           {}",
                outcome.reason.replace('\n', "\n           ")
            );
            if !outcome.hint.is_empty() {
                let _ = writeln!(out, "           hint: {}", outcome.hint);
            }
        }
    }
    let _ = write!(out, "\n{} statements", outcomes.len());
    let total_ms: f64 = outcomes.iter().filter_map(|o| o.total_ms).sum();
    for way in Way::ALL {
        let of_way = || outcomes.iter().filter(|o| o.way == way);
        let count = of_way().count();
        if count == 0 {
            continue;
        }
        let _ = write!(out, ", {count} {}", way.word());
        if total_ms > 0.0 {
            let ms: f64 = of_way().filter_map(|o| o.total_ms).sum();
            let _ = write!(out, " ({:.1} % of the time)", 100.0 * ms / total_ms);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_why_and_sums_up() {
        let outcome = |way, statement: &str, ms| Outcome {
            statement: statement.into(),
            way,
            reason: "because".into(),
            hint: String::new(),
            plan: None,
            calls: Some(2.0),
            total_ms: Some(ms),
        };
        let text = table(&[
            outcome(Way::Refused, "select\n 1", 75.0),
            outcome(Way::Route, "select 2", 25.0),
        ]);
        assert!(
            text.contains("refused             2           75 select 1\n           because"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "2 statements, 1 route (25.0 % of the time), 1 refused (75.0 % of the time)"
            ),
            "{text}"
        );
    }
}
