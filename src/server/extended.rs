//! The extended protocol: statements, portals, and the messages that work on them.
//!
//! A portal's statement is sent to the shards when it is first executed. With a row limit the shards keep portals of their
//! own and are asked for rows in batches, so nothing unread lies on a connection between two Executes.

use std::sync::Arc;

use bytes::Bytes;

use super::prepare::Prepared;
use super::run::{Outcome, select_tag, unsupported};
use super::session::{Ended, Session};
use super::transaction::{Block, Company};
use crate::backend::connections::Connections;
use crate::backend::pool::Lease;
use crate::executor::{Execution, Parameters};
use crate::protocol::error::ServerError;
use crate::protocol::messages::{self, ColumnDescription, Reader};
use crate::protocol::sqlstate;
use crate::sql::Kind;

/// Named statements and portals one session may hold.
const NAMES_MAX: usize = 10_000;

/// A bound statement, perhaps half read.
pub struct Portal {
    pub prepared: Arc<Prepared>,
    parameters: Arc<Parameters>,
    /// Result columns in the formats the Bind asked for.
    columns: Option<Arc<[ColumnDescription]>>,
    running: Option<Execution>,
    /// The merge session it is suspended on.
    merge: Option<Lease>,
    done: bool,
    /// Its rows are read in batches.
    batched: bool,
}

impl Portal {
    /// It has been executed and has more rows to give.
    pub fn is_suspended(&self) -> bool {
        self.running.is_some()
    }

    /// Has the shards close what they hold for it.
    pub fn abandon(self, connections: &mut Connections) {
        // With a merge session of its own, closing that session ends its transaction and portal.
        if let (Some(mut execution), None) = (self.running, self.merge) {
            execution.close(connections);
        }
    }
}

impl Session {
    /// Parse: name, text, parameter types.
    pub async fn parse(&mut self, body: &[u8]) -> Result<(), Ended> {
        let (name, sql, types) = read_parse(body).ok_or_else(|| malformed("Parse"))?;
        if !name.is_empty() && self.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(ServerError::new(sqlstate::DUPLICATE_STATEMENT, message).into());
        }
        let prepared = Box::pin(self.prepare(sql, &types)).await?;
        self.refuse_when_failed(&prepared)?;
        if self.statements.len() >= NAMES_MAX {
            let message = format!("a session may hold {NAMES_MAX} prepared statements");
            return Err(ServerError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).into());
        }
        self.statements.insert(name, prepared);
        messages::bare(b'1', self.client.out());
        Ok(())
    }

    /// Bind: portal, statement, parameter formats and values, result formats.
    pub async fn bind(&mut self, body: Bytes) -> Result<(), Ended> {
        let bind = read_bind(&body).ok_or_else(|| malformed("Bind"))?;
        let prepared = self.statement(&bind.statement)?;
        self.refuse_when_failed(&prepared)?;
        let prepared = self.refreshed(&bind.statement, prepared).await?;
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            let message = format!("cursor \"{}\" already exists", bind.portal);
            return Err(ServerError::new(sqlstate::DUPLICATE_CURSOR, message).into());
        }
        if self.portals.len() >= NAMES_MAX {
            let message = format!("a session may hold {NAMES_MAX} portals");
            return Err(ServerError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).into());
        }
        let parameters = bind.parameters(&prepared)?;
        let columns = match &prepared.columns {
            Some(columns) => Some(with_formats(columns, &bind.result_formats)?),
            None => None,
        };
        self.drop_portal(&bind.portal);
        let portal = Portal {
            prepared,
            parameters: Arc::new(parameters),
            columns,
            running: None,
            merge: None,
            done: false,
            batched: false,
        };
        self.portals.insert(bind.portal, portal);
        messages::bare(b'2', self.client.out());
        Ok(())
    }

    /// Describe of a statement (`S`) or portal (`P`).
    pub async fn describe(&mut self, body: &[u8]) -> Result<(), Ended> {
        let (kind, name) = read_kind_and_name(body).ok_or_else(|| malformed("Describe"))?;
        let columns = match kind {
            b'S' => {
                let prepared = self.statement(&name)?;
                let prepared = self.refreshed(&name, prepared).await?;
                messages::parameter_description(&prepared.parameter_types, self.client.out());
                prepared.columns.clone()
            }
            b'P' => {
                let portal = self.portals.get(&name).ok_or_else(|| no_portal(&name))?;
                portal.columns.clone()
            }
            other => {
                let message = format!("invalid DESCRIBE message subtype {other}");
                return Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, message).into());
            }
        };
        match columns {
            Some(columns) => self.describe_rows(&columns)?,
            None => messages::bare(b'n', self.client.out()),
        }
        Ok(())
    }

    /// Execute: portal and row limit; limits of zero or less mean all rows.
    pub async fn execute(&mut self, body: &[u8]) -> Result<(), Ended> {
        let mut reader = Reader(body);
        let (name, limit) = reader
            .cstr()
            .and_then(text)
            .zip(reader.i32())
            .ok_or_else(|| malformed("Execute"))?;
        let max_rows = u64::try_from(limit).unwrap_or(0);
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        let result = self.execute_portal(&mut portal, max_rows).await;
        if result.is_ok() {
            self.company = Company::Pipeline;
            self.portals.insert(name, portal);
        }
        result
    }

    async fn execute_portal(&mut self, portal: &mut Portal, max_rows: u64) -> Result<(), Ended> {
        let prepared = portal.prepared.clone();
        self.refuse_when_failed(&prepared)?;
        if portal.done {
            return self.execute_again(&prepared);
        }
        let last = self.client.peek_tag() == Some(b'S');
        if self.company == Company::Alone && !last {
            self.company = Company::Opening;
        }
        if let Some(tag) = self.control_statement(&prepared).await? {
            portal.done = true;
            if tag.is_empty() {
                messages::bare(b'I', self.client.out());
            } else {
                messages::command_complete(&tag, self.client.out());
            }
            return Ok(());
        }
        if portal.running.is_none() {
            let columns = portal.columns.clone().unwrap_or_else(|| Arc::from([]));
            let fetch = u32::try_from(max_rows).unwrap_or(0);
            self.check_set_config(&prepared)?;
            if let Some(lines) = self.explain(&prepared).await? {
                portal.done = true;
                self.send_line_rows(&prepared, lines);
                return Ok(());
            }
            let mut execution = match prepared.kind {
                Kind::CopyIn => self.open_copy_in(&prepared)?,
                _ => self.open(&prepared, portal.parameters.clone(), columns, fetch, last)?,
            };
            if let Err(error) = self.start(&mut execution).await {
                self.recover().await;
                return Err(error.into());
            }
            portal.batched = fetch > 0;
            portal.running = Some(execution);
        }
        self.continue_portal(portal, &prepared, max_rows).await
    }

    async fn continue_portal(
        &mut self,
        portal: &mut Portal,
        prepared: &Prepared,
        max_rows: u64,
    ) -> Result<(), Ended> {
        let Some(execution) = &mut portal.running else {
            return Ok(());
        };
        if let Some(lease) = portal.merge.take() {
            self.connections.put_merge(lease);
        }
        let mut outcome = self.stream(execution, max_rows).await?;
        if matches!(outcome, Outcome::CopyIn) {
            Box::pin(self.copy_in(execution)).await?;
            outcome = Box::pin(self.stream(execution, 0)).await?;
        }
        match outcome {
            Outcome::Suspended => {
                portal.merge = self.connections.take_merge();
                messages::bare(b's', self.client.out());
            }
            Outcome::Complete { rows, tag } => {
                portal.done = true;
                portal.running = None;
                match tag {
                    // Of a portal read in batches the shard counts its last batch, the client its last Execute.
                    Some(tag) if !portal.batched || !tag.starts_with(b"SELECT") => {
                        messages::command_complete_bytes(&tag, self.client.out());
                    }
                    _ => select_tag(rows, self.client.out()),
                }
                self.after_statement(prepared).await?;
            }
            Outcome::Empty => {
                portal.done = true;
                portal.running = None;
                messages::bare(b'I', self.client.out());
            }
            Outcome::CopyIn | Outcome::Spilled => {
                return Err(ServerError::new(
                    sqlstate::PROTOCOL_VIOLATION,
                    "COPY asked for data twice",
                )
                .into());
            }
        }
        Ok(())
    }

    /// A portal that has given all its rows gives none again; one without rows cannot run twice.
    fn execute_again(&mut self, prepared: &Prepared) -> Result<(), Ended> {
        if prepared.columns.is_none() {
            return Err(ServerError::new("55000", "portal cannot be run anymore").into());
        }
        select_tag(0, self.client.out());
        Ok(())
    }

    /// Close of a statement or portal; one that is not there is no error.
    pub async fn close(&mut self, body: &[u8]) -> Result<(), Ended> {
        let (kind, name) = read_kind_and_name(body).ok_or_else(|| malformed("Close"))?;
        match kind {
            b'S' => drop(self.statements.remove(&name)),
            b'P' => self.drop_portal(&name),
            other => {
                let message = format!("invalid CLOSE message subtype {other}");
                return Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, message).into());
            }
        }
        messages::bare(b'3', self.client.out());
        Ok(())
    }

    pub fn drop_portal(&mut self, name: &str) {
        if let Some(portal) = self.portals.remove(name) {
            portal.abandon(&mut self.connections);
        }
    }

    pub fn statement(&self, name: &str) -> Result<Arc<Prepared>, ServerError> {
        self.statements
            .get(name)
            .cloned()
            .ok_or_else(|| no_statement(name))
    }

    /// The statement, prepared again where the catalog has changed since.
    pub async fn refreshed(
        &mut self,
        name: &str,
        prepared: Arc<Prepared>,
    ) -> Result<Arc<Prepared>, ServerError> {
        if prepared.catalog_version == self.shared.catalog_version()
            && prepared.context == self.planning_context()
        {
            return Ok(prepared);
        }
        let frozen = prepared.planned.as_ref().is_some_and(|p| p.frozen);
        if frozen && prepared.context != self.planning_context() {
            return Err(unsupported(
                "a literal such as 'now' or 'today' was read under other settings",
                "Prepare the statement again.",
            ));
        }
        let types = prepared.parameter_types.clone();
        let again = Box::pin(self.prepare(prepared.sql.to_string(), &types)).await?;
        if prepared.columns.is_some()
            && !same_columns(prepared.columns.as_deref(), again.columns.as_deref())
        {
            return Err(unsupported(
                "cached plan must not change result type",
                "Prepare the statement again.",
            ));
        }
        let again = match prepared.clock_words {
            // Its constants were read when it was first prepared.
            true => Arc::new(Prepared {
                moment: prepared.moment,
                ..(*again).clone()
            }),
            false => again,
        };
        self.statements.insert(name.to_owned(), again.clone());
        Ok(again)
    }

    /// In a failed block only statements that end it are heard.
    pub fn refuse_when_failed(&self, prepared: &Prepared) -> Result<(), ServerError> {
        if self.transaction.block == Block::Failed && !prepared.ends_block() {
            let message =
                "current transaction is aborted, commands ignored until end of transaction block";
            return Err(ServerError::new(sqlstate::IN_FAILED_TRANSACTION, message));
        }
        Ok(())
    }
}

fn same_columns(a: Option<&[ColumnDescription]>, b: Option<&[ColumnDescription]>) -> bool {
    let key = |c: &ColumnDescription| (c.name.clone(), c.type_oid, c.type_modifier);
    match (a, b) {
        (Some(a), Some(b)) => a.iter().map(key).eq(b.iter().map(key)),
        (a, b) => a.is_none() == b.is_none(),
    }
}

fn malformed(message: &str) -> ServerError {
    ServerError::new(
        sqlstate::PROTOCOL_VIOLATION,
        format!("invalid message format: {message}"),
    )
}

fn no_portal(name: &str) -> ServerError {
    ServerError::new(
        sqlstate::INVALID_CURSOR_NAME,
        format!("portal \"{name}\" does not exist"),
    )
}

fn no_statement(name: &str) -> ServerError {
    let message = match name.is_empty() {
        true => "unnamed prepared statement does not exist".to_owned(),
        false => format!("prepared statement \"{name}\" does not exist"),
    };
    ServerError::new(sqlstate::INVALID_STATEMENT_NAME, message)
}

/// Names and SQL must be UTF-8; elsewhere bytes go through untouched.
fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn read_parse(body: &[u8]) -> Option<(String, String, Vec<u32>)> {
    let mut r = Reader(body);
    let (name, sql) = (text(r.cstr()?)?, text(r.cstr()?)?);
    let count = r.i16()? as u16;
    let types = (0..count).map(|_| r.u32()).collect::<Option<Vec<_>>>()?;
    r.0.is_empty().then_some((name, sql, types))
}

fn read_kind_and_name(body: &[u8]) -> Option<(u8, String)> {
    let mut r = Reader(body);
    let (kind, name) = (r.u8()?, text(r.cstr()?)?);
    r.0.is_empty().then_some((kind, name))
}

struct Bind {
    portal: String,
    statement: String,
    parameter_formats: Vec<i16>,
    values: Vec<Option<Bytes>>,
    result_formats: Vec<i16>,
}

fn read_bind(body: &Bytes) -> Option<Bind> {
    let mut r = Reader(body);
    let (portal, statement) = (text(r.cstr()?)?, text(r.cstr()?)?);
    let formats = |r: &mut Reader<'_>| {
        let count = r.i16()? as u16;
        (0..count).map(|_| r.i16()).collect::<Option<Vec<_>>>()
    };
    let parameter_formats = formats(&mut r)?;
    let count = r.i16()? as u16;
    let values = (0..count)
        .map(|_| Some(r.value()?.map(|v| body.slice_ref(v))))
        .collect::<Option<Vec<_>>>()?;
    let result_formats = formats(&mut r)?;
    r.0.is_empty().then_some(Bind {
        portal,
        statement,
        parameter_formats,
        values,
        result_formats,
    })
}

impl Bind {
    fn parameters(&self, prepared: &Prepared) -> Result<Parameters, ServerError> {
        let expected = prepared.parameter_types.len();
        if self.values.len() != expected {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires {expected}",
                self.values.len(),
                self.statement
            );
            return Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, message));
        }
        let formats = spread(&self.parameter_formats, expected, "parameter")?;
        Ok(Parameters {
            types: prepared.parameter_types.clone(),
            formats,
            values: self.values.clone(),
        })
    }
}

/// One format a column from a Bind's list of none, one or all.
fn spread(formats: &[i16], count: usize, what: &str) -> Result<Vec<i16>, ServerError> {
    let out = match formats {
        [] => vec![0; count],
        [one] => vec![*one; count],
        all if all.len() == count => all.to_vec(),
        all => {
            let message = format!(
                "bind message has {} {what} formats but {count} {what}s",
                all.len()
            );
            return Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, message));
        }
    };
    match out.iter().find(|f| !(0..=1).contains(*f)) {
        Some(bad) => Err(ServerError::new(
            "22023",
            format!("unsupported format code: {bad}"),
        )),
        None => Ok(out),
    }
}

/// The columns with a Bind's result formats. The columns themselves are shared when they fit already.
fn with_formats(
    columns: &Arc<[ColumnDescription]>,
    formats: &[i16],
) -> Result<Arc<[ColumnDescription]>, ServerError> {
    let formats = spread(formats, columns.len(), "result")?;
    if columns.iter().zip(&formats).all(|(c, f)| c.format == *f) {
        return Ok(columns.clone());
    }
    Ok(columns
        .iter()
        .zip(&formats)
        .map(|(c, f)| ColumnDescription {
            format: *f,
            ..c.clone()
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_spread_over_columns() {
        assert_eq!(spread(&[], 2, "result").unwrap(), [0, 0]);
        assert_eq!(spread(&[1], 2, "result").unwrap(), [1, 1]);
        assert_eq!(spread(&[1, 0], 2, "result").unwrap(), [1, 0]);
        assert!(spread(&[1, 0, 1], 2, "result").is_err());
        assert!(spread(&[2], 1, "result").is_err());
    }

    #[test]
    fn malformed_bodies_are_told_apart_from_short_ones() {
        assert!(read_parse(b"\0select 1\0\0\0").is_some());
        assert!(read_parse(b"\0select 1\0\0\x01").is_none());
        assert!(read_bind(&Bytes::from_static(b"\0\0\0\0\0\0\0\0")).is_some());
        assert!(read_bind(&Bytes::from_static(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0")).is_none());
    }
}
