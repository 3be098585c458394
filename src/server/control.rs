//! Short conversations of the session itself with one shard: commands, Describe, and questions with a text answer.

use std::future::poll_fn;

use bytes::{BufMut, Bytes};

use crate::backend::BackendError;
use crate::backend::raw_conn::{Event, RawConn};
use crate::catalog::Catalog;
use crate::executor::backend_error;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::messages::{self, ColumnDescription, Reader};
use crate::protocol::sqlstate;

/// What Describe of a statement tells.
#[derive(Debug, Clone)]
pub struct Described {
    /// In the order of the placeholders.
    pub parameter_types: Vec<u32>,
    /// `None` for statements that return no rows.
    pub columns: Option<Vec<ColumnDescription>>,
}

impl Described {
    /// What a shard says, as the catalog shard would number it.
    #[must_use]
    pub fn here(mut self, catalog: &Catalog, shard: ShardId) -> Self {
        for type_oid in &mut self.parameter_types {
            *type_oid = catalog.type_here(shard, *type_oid);
        }
        for column in self.columns.iter_mut().flatten() {
            column.type_oid = catalog.type_here(shard, column.type_oid);
            column.table_oid = catalog.relation_here(shard, column.table_oid);
        }
        self
    }
}

/// Runs statements for their effect, each a simple Query, all in one packet; rows are thrown away. Messages the client
/// should see (NOTICE, ParameterStatus) are returned; the tag is the last statement's.
///
/// # Errors
/// The first error of any statement; the later ones have run too.
pub async fn command(
    conn: &mut RawConn,
    statements: &[String],
) -> Result<(Vec<Bytes>, Option<Bytes>), ServerError> {
    for sql in statements {
        conn.query(sql);
    }
    let mut forward = Vec::new();
    let mut tag = None;
    let mut failure = None;
    while conn.outstanding() > 0 {
        match event(conn).await? {
            Event::Message { tag: b'E', frame } => {
                failure = failure.or(Some(ServerError::parse(&frame[5..])))
            }
            Event::Message { tag: b'C', frame } => tag = Some(frame),
            Event::Message {
                tag: b'N' | b'S' | b'A',
                frame,
            } => forward.push(frame),
            _ => {}
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok((forward, tag)),
    }
}

/// Parses a statement on the shard and returns what Describe says. `sync`: end with Sync, which ends an implicit
/// transaction; else Flush, and only an error is followed by a Sync.
///
/// # Errors
/// Whatever PostgreSQL finds wrong with the statement, position included.
pub async fn describe(
    conn: &mut RawConn,
    sql: &str,
    types: &[u32],
    sync: bool,
) -> Result<Described, ServerError> {
    let out = conn.write_buffer();
    messages::parse("", sql, types, out);
    messages::describe_or_close(b'D', b'S', "", out);
    match sync {
        true => conn.sync(),
        false => messages::flush(conn.write_buffer()),
    }
    described(conn, sync).await
}

/// The same of a portal, which has no parameters.
///
/// # Errors
/// 34000 where there is none of the name.
pub async fn describe_portal(
    conn: &mut RawConn,
    name: &str,
    sync: bool,
) -> Result<Described, ServerError> {
    messages::describe_or_close(b'D', b'P', name, conn.write_buffer());
    match sync {
        true => conn.sync(),
        false => messages::flush(conn.write_buffer()),
    }
    described(conn, sync).await
}

async fn described(conn: &mut RawConn, sync: bool) -> Result<Described, ServerError> {
    let mut described = Described {
        parameter_types: Vec::new(),
        columns: None,
    };
    loop {
        let Event::Message { tag, frame } = event(conn).await? else {
            return Err(unexpected(b'D'));
        };
        let body = &frame[5..];
        match tag {
            b't' => {
                described.parameter_types =
                    messages::parse_parameter_description(body).ok_or_else(|| unexpected(tag))?
            }
            b'T' => {
                described.columns =
                    Some(messages::parse_row_description(body).ok_or_else(|| unexpected(tag))?)
            }
            b'E' => {
                let error = ServerError::parse(body);
                if !sync {
                    conn.sync();
                }
                drain(conn).await?;
                return Err(error);
            }
            _ => {}
        }
        if matches!(tag, b'T' | b'n') {
            if sync {
                drain(conn).await?;
            }
            return Ok(described);
        }
    }
}

/// Runs a query and returns its rows as text. Every parameter is NULL.
pub async fn ask(
    conn: &mut RawConn,
    sql: &str,
    types: &[u32],
) -> Result<Vec<Vec<Option<String>>>, ServerError> {
    let out = conn.write_buffer();
    messages::parse("", sql, types, out);
    messages::frame(b'B', out, |out| {
        out.put_slice(&[0, 0, 0, 0]);
        out.put_u16(types.len() as u16);
        types.iter().for_each(|_| out.put_i32(-1));
        out.put_u16(0);
    });
    messages::execute("", 0, out);
    conn.sync();
    let mut rows = Vec::new();
    let mut failure = None;
    while conn.outstanding() > 0 {
        match event(conn).await? {
            Event::Rows(run) => read_rows(&run.frames, &mut rows)?,
            Event::Message { tag: b'E', frame } => {
                failure = failure.or(Some(ServerError::parse(&frame[5..])))
            }
            _ => {}
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(rows),
    }
}

/// Reads the replies still owed for statements without a result (settings replayed, BEGIN).
///
/// # Errors
/// The first error among them.
pub async fn settle(conn: &mut RawConn) -> Result<(), ServerError> {
    let mut failure = None;
    while conn.outstanding() > 0 {
        if let Event::Message { tag: b'E', frame } = event(conn).await? {
            failure = failure.or(Some(ServerError::parse(&frame[5..])));
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Reads on until every owed ReadyForQuery has come.
pub async fn drain(conn: &mut RawConn) -> Result<(), ServerError> {
    while conn.outstanding() > 0 {
        event(conn).await?;
    }
    Ok(())
}

pub(super) async fn event(conn: &mut RawConn) -> Result<Event, ServerError> {
    poll_fn(|cx| conn.poll_event(None, cx))
        .await
        .map_err(|e: BackendError| backend_error(e))
}

fn read_rows(frames: &[u8], rows: &mut Vec<Vec<Option<String>>>) -> Result<(), ServerError> {
    let mut reader = Reader(frames);
    while !reader.0.is_empty() {
        let row = read_row(&mut reader).ok_or_else(|| unexpected(b'D'))?;
        rows.push(row);
    }
    Ok(())
}

fn read_row(reader: &mut Reader<'_>) -> Option<Vec<Option<String>>> {
    reader.take(5)?;
    let columns = reader.i16()?;
    (0..columns)
        .map(|_| {
            Some(
                reader
                    .value()?
                    .map(|v| String::from_utf8_lossy(v).into_owned()),
            )
        })
        .collect()
}

fn unexpected(tag: u8) -> ServerError {
    ServerError::new(
        sqlstate::PROTOCOL_VIOLATION,
        format!("a shard sent a malformed '{}' message", char::from(tag)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn rows_are_read_as_text() {
        let mut frames = BytesMut::new();
        for value in [Some("a"), None] {
            messages::frame(b'D', &mut frames, |out| {
                out.put_i16(1);
                match value {
                    Some(v) => {
                        out.put_i32(v.len() as i32);
                        out.put_slice(v.as_bytes());
                    }
                    None => out.put_i32(-1),
                }
            });
        }
        let mut rows = Vec::new();
        read_rows(&frames, &mut rows).unwrap();
        assert_eq!(rows, [vec![Some("a".to_owned())], vec![None]]);
        assert!(read_rows(&frames[..frames.len() - 1], &mut Vec::new()).is_err());
    }
}
