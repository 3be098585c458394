//! Asks one shard about statements, so that a plan can be made without a session: types, columns, single values.

use std::future::poll_fn;

use bytes::BufMut;
use pgbraid::backend::BackendError;
use pgbraid::backend::raw_conn::{Event, RawConn};
use pgbraid::catalog::Catalog;
use pgbraid::planner::{Fact, Probe, ProbedColumn};
use pgbraid::protocol::error::ServerError;
use pgbraid::protocol::messages::{self, ColumnDescription, Reader};

/// Why the shard did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It said so itself.
    #[error("{}", in_words(.0))]
    Statement(ServerError),
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] BackendError),
}

/// PostgreSQL's own message, with what it points at.
fn in_words(error: &ServerError) -> String {
    let mut text = format!("{} {}", error.sqlstate(), error.message());
    for (code, label) in [(b'P', "at character"), (b'D', "detail:"), (b'H', "hint:")] {
        if let Some(field) = error.field(code) {
            text.push_str(&format!("\n  {label} {field}"));
        }
    }
    text
}

/// What a shard says of a statement.
#[derive(Debug, Default)]
pub struct Answer {
    /// Type OIDs of its parameters.
    pub parameter_types: Vec<u32>,
    columns: Vec<ColumnDescription>,
    rows: Vec<Vec<Option<String>>>,
}

/// Parses and describes a statement; with `run` also runs it, all parameters NULL.
pub async fn ask(
    conn: &mut RawConn,
    sql: &str,
    types: &[u32],
    run: bool,
) -> Result<Answer, AskError> {
    let out = conn.write_buffer();
    messages::parse("", sql, types, out);
    messages::describe_or_close(b'D', b'S', "", out);
    if run {
        messages::frame(b'B', out, |out| {
            // Unnamed portal and statement, all parameters as text, each NULL, all results as text.
            out.put_slice(&[0, 0, 0, 0]);
            out.put_u16(types.len() as u16);
            types.iter().for_each(|_| out.put_i32(-1));
            out.put_u16(0);
        });
        messages::execute("", 0, out);
    }
    conn.sync();
    let mut answer = Answer::default();
    let mut failure = None;
    while conn.outstanding() > 0 {
        match poll_fn(|cx| conn.poll_event(None, cx)).await? {
            Event::Rows(run) => answer.rows.extend(rows(&run.frames)),
            Event::Message { tag, frame } => {
                let body = frame.get(5..).unwrap_or_default();
                match tag {
                    b'E' => failure = failure.or(Some(ServerError::parse(body))),
                    b't' => {
                        let types = messages::parse_parameter_description(body);
                        answer.parameter_types = types.unwrap_or_default();
                    }
                    b'T' => {
                        answer.columns = messages::parse_row_description(body).unwrap_or_default();
                    }
                    _ => {}
                }
            }
        }
    }
    failure.map_or(Ok(answer), |error| Err(AskError::Statement(error)))
}

fn rows(frames: &[u8]) -> Vec<Vec<Option<String>>> {
    let mut reader = Reader(frames);
    let next = || {
        reader.take(5)?;
        let columns = reader.i16()?;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        (0..columns)
            .map(|_| Some(reader.value()?.map(text)))
            .collect()
    };
    std::iter::from_fn(next).collect()
}

/// The answer to a planner's question.
pub async fn fact(
    conn: &mut RawConn,
    probe: &Probe,
    types: &[u32],
    catalog: &Catalog,
) -> Result<Fact, AskError> {
    match probe {
        Probe::Value { sql } => {
            let rows = ask(conn, sql, &[], true).await?.rows;
            Ok(Fact::Value(rows.into_iter().flatten().next().flatten()))
        }
        Probe::Columns { sql } => {
            let columns = ask(conn, sql, types, false).await?.columns;
            let collations = collations(conn, sql, &columns, types, catalog).await?;
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

/// The collation of each column that has one. LIMIT 0: an expression has its collation without a row being read.
async fn collations(
    conn: &mut RawConn,
    sql: &str,
    columns: &[ColumnDescription],
    types: &[u32],
    catalog: &Catalog,
) -> Result<Vec<Option<String>>, AskError> {
    let collatable = |oid: &u32| catalog.types.get(oid).is_some_and(|t| t.collatable);
    let names: Vec<String> = (1..=columns.len()).map(|n| format!("c{n}")).collect();
    let all = names.join(", ");
    let items: Vec<String> = columns
        .iter()
        .zip(&names)
        .map(|(column, name)| match collatable(&column.type_oid) {
            true => format!(
                "pg_catalog.pg_collation_for((SELECT {name} FROM ({sql}) AS q({all}) LIMIT 0))"
            ),
            false => "NULL".to_string(),
        })
        .collect();
    if items.iter().all(|item| item == "NULL") {
        return Ok(vec![None; columns.len()]);
    }
    let asked = format!("SELECT {}", items.join(", "));
    let row = ask(conn, &asked, types, true)
        .await?
        .rows
        .into_iter()
        .next();
    let bare = |name: String| bare_collation(&name);
    Ok(row
        .unwrap_or_default()
        .into_iter()
        .map(|c| c.map(bare))
        .collect())
}

/// The last part of a name as `pg_collation_for` prints it: `pg_catalog."C"` is `C`.
fn bare_collation(printed: &str) -> String {
    match printed.strip_suffix('"') {
        Some(quoted) => {
            let start = quoted.rfind(".\"").map_or(1, |dot| dot + 2);
            quoted
                .get(start..)
                .unwrap_or_default()
                .replace("\"\"", "\"")
        }
        None => printed.rsplit('.').next().unwrap_or(printed).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collations_lose_quotes_and_schema() {
        for (printed, bare) in [
            ("\"default\"", "default"),
            ("\"C\"", "C"),
            ("en_us", "en_us"),
            ("pub.\"de-x\"", "de-x"),
            ("s.c", "c"),
        ] {
            assert_eq!(bare_collation(printed), bare);
        }
    }

    #[test]
    fn rows_end_where_bytes_are_missing() {
        let frame = b"D\0\0\0\x0f\0\x02\0\0\0\x01a\xff\xff\xff\xff";
        assert_eq!(rows(frame), [vec![Some("a".to_string()), None]]);
        assert_eq!(rows(&frame[..12]), Vec::<Vec<Option<String>>>::new());
    }
}
