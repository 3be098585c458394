//! Answers the planner's questions: types and collations of expressions, values of constant ones.

use super::control;
use super::prepare::no_connection;
use super::session::Session;
use crate::backend::raw_conn::RawConn;
use crate::catalog::Catalog;
use crate::planner::{Fact, Probe, ProbedColumn};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;

impl Session {
    /// Asks the catalog shard, or who stands in for it.
    ///
    /// # Errors
    /// What PostgreSQL says of the question: the statement itself would fail the same way.
    pub async fn answer(
        &mut self,
        probe: &Probe,
        types: &[u32],
        catalog: &Catalog,
    ) -> Result<Fact, ServerError> {
        let teller = self.join_teller().await?;
        let conn = self.connections.get(teller).ok_or_else(no_connection)?;
        answer(conn, probe, types, catalog).await
    }
}

/// Asks over any idle connection to a shard; types are numbered as on the catalog shard.
///
/// # Errors
/// What PostgreSQL says of the question.
pub async fn answer(
    conn: &mut RawConn,
    probe: &Probe,
    types: &[u32],
    catalog: &Catalog,
) -> Result<Fact, ServerError> {
    match probe {
        Probe::Value { sql } => {
            let rows = control::ask(conn, sql, &[]).await?;
            Ok(Fact::Value(rows.into_iter().flatten().next().flatten()))
        }
        Probe::Columns { sql } => {
            let shard = conn.shard;
            let there: Vec<u32> = (types.iter().map(|t| catalog.type_there(shard, *t))).collect();
            let described = control::describe(conn, sql, &there, true).await?;
            // More parameters than the client's: the planner may have put one in for now().
            let types = described.parameter_types.clone();
            let columns = described.here(catalog, shard).columns.unwrap_or_default();
            let collations = collations(conn, sql, &types, &columns, catalog).await?;
            let column = |(c, collation): (&ColumnDescription, Option<String>)| ProbedColumn {
                type_oid: c.type_oid,
                type_modifier: c.type_modifier,
                collation,
            };
            Ok(Fact::Columns(
                columns.iter().zip(collations).map(column).collect(),
            ))
        }
    }
}

/// The collation of each column that a SELECT would return; `None` for types without one.
async fn collations(
    conn: &mut RawConn,
    sql: &str,
    types: &[u32],
    columns: &[ColumnDescription],
    catalog: &Catalog,
) -> Result<Vec<Option<String>>, ServerError> {
    let collatable = |oid: u32| catalog.types.get(&oid).is_some_and(|t| t.collatable);
    let asked: Vec<usize> = (0..columns.len())
        .filter(|i| collatable(columns[*i].type_oid))
        .collect();
    let mut out = vec![None; columns.len()];
    if asked.is_empty() {
        return Ok(out);
    }
    let names: Vec<String> = (1..=columns.len()).map(|n| format!("c{n}")).collect();
    let all = names.join(", ");
    // LIMIT 0: an expression has its collation without a row being read.
    let question = |i: &usize| {
        let name = &names[*i];
        format!("pg_catalog.pg_collation_for((SELECT {name} FROM ({sql}) AS q({all}) LIMIT 0))")
    };
    let list: Vec<String> = asked.iter().map(question).collect();
    let rows = control::ask(conn, &format!("SELECT {}", list.join(", ")), types).await?;
    for (i, value) in asked.into_iter().zip(rows.into_iter().flatten()) {
        out[i] = value.map(|v| bare_collation(&v));
    }
    Ok(out)
}

/// `"default"`, `"C"` or `public."My"` as `pg_collation_for` prints them, without quotes and schema.
fn bare_collation(text: &str) -> String {
    match text.strip_suffix('"') {
        Some(body) => body
            .rsplit_once(".\"")
            .map_or(body.trim_start_matches('"'), |(_, name)| name)
            .replace("\"\"", "\""),
        None => text.rsplit('.').next().unwrap_or(text).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collation_names_lose_quotes_and_schema() {
        assert_eq!(bare_collation("\"default\""), "default");
        assert_eq!(bare_collation("\"C\""), "C");
        assert_eq!(bare_collation("public.\"My.coll\""), "My.coll");
        assert_eq!(bare_collation("\"a\"\"b\""), "a\"b");
    }
}
