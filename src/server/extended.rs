//! The extended protocol: statements, portals, and the messages that work on them.
//!
//! A portal's statement is sent to the shards when it is first executed. With a row limit the shards keep portals of their
//! own and are asked for rows in batches, so nothing unread lies on a connection between two Executes.

use std::sync::Arc;

use bytes::Bytes;

use super::bind::{Bind, read_kind_and_name, read_parse, text};
use super::portals::Portal;
use super::prepared::Prepared;
use super::run::{Outcome, unsupported};
use super::session::{Ended, Session};
use super::transaction::{Block, Company};
use crate::metrics::{QueryKind, Reason};
use crate::protocol::error::ServerError;
use crate::protocol::messages::{self, ColumnDescription, Reader};
use crate::protocol::sqlstate;
use crate::sql::Kind;

/// Named statements and portals one session may hold.
const NAMES_MAX: usize = 10_000;

impl Session {
    /// Parse: name, text, parameter types.
    pub async fn parse(&mut self, body: &[u8]) -> Result<(), Ended> {
        let (name, sql, types) = read_parse(body).ok_or_else(|| malformed("Parse"))?;
        if name.is_empty() {
            // Also where the new one fails.
            self.statements.remove(name);
        }
        self.registration.entry.activity.parses.add(1);
        self.follow_temporary().await?;
        let prepared = Box::pin(self.prepare(sql.to_owned(), &types)).await?;
        self.refuse_when_failed(&prepared)?;
        if !name.is_empty() && self.statements.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(ServerError::new(sqlstate::DUPLICATE_STATEMENT, message).into());
        }
        if self.statements.len() >= NAMES_MAX {
            let message = format!("a session may hold {NAMES_MAX} prepared statements");
            return Err(ServerError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).into());
        }
        self.statements.insert(name.to_owned(), prepared);
        messages::bare(b'1', self.client.out());
        Ok(())
    }

    /// Bind: portal, statement, parameter formats and values, result formats.
    pub async fn bind(&mut self, body: Bytes) -> Result<(), Ended> {
        self.registration.entry.activity.binds.add(1);
        if self.bind_directly(&body).await? {
            return Ok(());
        }
        self.note_time();
        let bind = Bind::read(&body).ok_or_else(|| malformed("Bind"))?;
        let prepared = self.statement(bind.statement)?;
        self.refuse_when_failed(&prepared)?;
        let prepared = self.refreshed(bind.statement, prepared).await?;
        let name = bind.portal;
        if !name.is_empty() && (self.portals.get(name).is_some() || self.cursors.contains(name)) {
            let message = format!("cursor \"{name}\" already exists");
            return Err(ServerError::new(sqlstate::DUPLICATE_CURSOR, message).into());
        }
        if self.portals.named() >= NAMES_MAX {
            let message = format!("a session may hold {NAMES_MAX} portals");
            return Err(ServerError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).into());
        }
        let executed = match prepared.kind {
            Kind::Execute { .. } => Some(Box::pin(self.resolve(&prepared)).await?),
            _ => None,
        };
        let runs = executed.as_ref().map_or(&prepared, |(inner, _)| inner);
        let columns = bind.columns(runs)?;
        let parameters = Arc::new(bind.parameters(&prepared)?);
        let (prepared, parameters) = executed.unwrap_or((prepared, parameters));
        self.drop_portal(name);
        let portal = Portal::new(prepared, parameters, columns);
        self.portals.put(name, Box::new(portal));
        messages::bare(b'2', self.client.out());
        Ok(())
    }

    /// Describe of a statement (`S`) or portal (`P`).
    pub async fn describe(&mut self, body: &[u8]) -> Result<(), Ended> {
        let (kind, name) = read_kind_and_name(body).ok_or_else(|| malformed("Describe"))?;
        let columns = match kind {
            b'S' => {
                let prepared = self.statement(name)?;
                let prepared = match prepared.kind {
                    // What the Parse knew of the cursor.
                    Kind::Fetch { .. } => prepared,
                    _ => self.refreshed(name, prepared).await?,
                };
                messages::parameter_description(&prepared.parameter_types, self.client.out());
                match &prepared.kind {
                    // That of the statement it runs, if there is one by now.
                    Kind::Execute { name } if self.executes(name) => {
                        let inner = self.statements.get(name);
                        inner.and_then(|inner| inner.columns.clone())
                    }
                    _ => prepared.columns.clone(),
                }
            }
            b'P' => {
                let of_portal = self.portals.get(name).map(|p| p.columns.clone());
                match of_portal.or_else(|| self.cursors.columns(name).map(Some)) {
                    Some(columns) => columns,
                    None => self.describe_shard_cursor(name).await?,
                }
            }
            other => {
                let message = format!("invalid DESCRIBE message subtype {other}");
                return Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, message).into());
            }
        };
        match columns {
            Some(_) if self.transaction.block == Block::Failed => return Err(failed_block().into()),
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
        if self.cursors.contains(name) {
            return Box::pin(self.execute_cursor(name, max_rows)).await;
        }
        let mut portal = self.portals.take(name).ok_or_else(|| no_portal(name))?;
        let result = self.execute_portal(&mut portal, name, max_rows).await;
        if result.is_ok() {
            self.company = Company::Pipeline;
            self.portals.put(name, portal);
        }
        result
    }

    async fn execute_portal(
        &mut self,
        portal: &mut Portal,
        name: &str,
        max_rows: u64,
    ) -> Result<(), Ended> {
        let prepared = portal.prepared.clone();
        // A COPY gives all it has.
        let max_rows = if prepared.copies() { 0 } else { max_rows };
        self.show(Some(QueryKind::Session), &prepared.sql);
        self.refuse_when_failed(&prepared)?;
        if portal.done {
            return self.execute_again(&prepared, name);
        }
        let last = self.client.peek_tag() == Some(b'S');
        if self.company == Company::Alone && !last {
            self.company = Company::Opening;
        }
        if is_of_cursors(&prepared.kind)
            && Box::pin(self.execute_cursor_statement(portal, max_rows)).await?
        {
            return Ok(());
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
            self.check_set_config(&prepared)?;
            if let Some(lines) = self.explain(&prepared).await? {
                portal.done = true;
                self.send_line_rows(&prepared, lines);
                return Ok(());
            }
            self.start_portal(portal, max_rows, last).await?;
        }
        self.continue_portal(portal, &prepared, max_rows).await
    }

    /// Has the shards begin a portal's statement.
    pub(super) async fn start_portal(
        &mut self,
        portal: &mut Portal,
        max_rows: u64,
        last: bool,
    ) -> Result<(), Ended> {
        let prepared = portal.prepared.clone();
        let columns = portal.columns.clone().unwrap_or_else(|| Arc::from([]));
        let fetch = match prepared.set_config.is_empty() {
            true => u32::try_from(max_rows).unwrap_or(0),
            // One row. The session looks at what has been set before anybody asks for another.
            false => 0,
        };
        if self.steered {
            self.begin_steered();
        }
        let mut execution = match prepared.kind {
            Kind::CopyIn => self.open_copy_in(&prepared)?,
            _ if self.copies_shards(&prepared) => {
                Box::pin(self.open_copy_out(&prepared, last)).await?
            }
            _ if self.steered => {
                let parameters = portal.parameters.clone();
                let opened = self.open_steered(&prepared, parameters, columns, (fetch, last));
                Box::pin(opened).await?
            }
            _ => self.open(&prepared, portal.parameters.clone(), columns, fetch, last)?,
        };
        if let Err(error) = self.start(&mut execution).await {
            self.recover().await;
            if !self.steered {
                return Err(error.into());
            }
            Box::pin(self.start_again(&mut execution, error)).await?;
        }
        portal.batched = max_rows > 0;
        portal.running = Some(execution);
        Ok(())
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
                // Its steps are done; the rest comes from the merge session.
                Box::pin(self.end_snapshot()).await?;
                Box::pin(self.follow_set_config(prepared)).await?;
                messages::bare(b's', self.client.out());
            }
            Outcome::Complete { rows, tag } => {
                portal.done = true;
                if let Some(mut execution) = portal.running.take()
                    && self.transaction.block == Block::Open
                    && self.shared.is_one_shard()
                {
                    // Until the block ends, its tables would be in use.
                    execution.close(&mut self.connections);
                }
                match tag {
                    // Of a portal read in batches the shard counts its last batch, the client its last Execute.
                    Some(tag) if !portal.batched || !tag.starts_with(b"SELECT") => {
                        messages::command_complete_bytes(&tag, self.client.out());
                    }
                    _ => messages::select_complete(rows, self.client.out()),
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
    fn execute_again(&mut self, prepared: &Prepared, name: &str) -> Result<(), Ended> {
        if prepared.columns.is_none() {
            let message = format!("portal \"{name}\" cannot be run");
            return Err(ServerError::new("55000", message).into());
        }
        match prepared.kind {
            Kind::Show { .. } => messages::command_complete("SHOW", self.client.out()),
            Kind::Explain { .. } => messages::command_complete("EXPLAIN", self.client.out()),
            Kind::Fetch { .. } => messages::command_complete("FETCH 0", self.client.out()),
            _ => messages::select_complete(0, self.client.out()),
        }
        Ok(())
    }

    /// Close of a statement or portal; one that is not there is no error.
    pub async fn close(&mut self, body: &[u8]) -> Result<(), Ended> {
        let (kind, name) = read_kind_and_name(body).ok_or_else(|| malformed("Close"))?;
        match kind {
            b'S' => drop(self.statements.remove(name)),
            b'P' => self.drop_portal(name),
            other => {
                let message = format!("invalid CLOSE message subtype {other}");
                return Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, message).into());
            }
        }
        messages::bare(b'3', self.client.out());
        Ok(())
    }

    pub fn drop_portal(&mut self, name: &str) {
        if let Some(portal) = self.portals.take(name) {
            portal.abandon(&mut self.connections);
        }
        if !name.is_empty() {
            self.cursors.close(name, &mut self.connections);
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
        if matches!(prepared.kind, Kind::Fetch { .. }) && self.has_cursor(&prepared.kind) {
            return Ok(self.fetch_described(prepared));
        }
        self.follow_temporary().await?;
        if prepared.catalog_version == self.shared.catalog_version()
            && prepared.context == self.planning_context()
        {
            return Ok(prepared);
        }
        let frozen = prepared.planned.as_ref().is_some_and(|p| p.frozen);
        if frozen && prepared.context != self.planning_context() {
            return Err(unsupported(
                Reason::Clock,
                "a literal such as 'now' or 'today' was read under other settings",
                "Prepare the statement again.",
            ));
        }
        let types = prepared.parameter_types.clone();
        let again = Box::pin(self.prepare(prepared.sql.to_string(), &types)).await?;
        if prepared.columns.is_some()
            && !same_columns(prepared.columns.as_deref(), again.columns.as_deref())
        {
            return Err(super::schema::cached_plan());
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
            return Err(failed_block());
        }
        Ok(())
    }
}

fn failed_block() -> ServerError {
    let message = "current transaction is aborted, commands ignored until end of transaction block";
    ServerError::new(sqlstate::IN_FAILED_TRANSACTION, message)
}

fn is_of_cursors(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::DeclareCursor { .. } | Kind::Fetch { .. } | Kind::CloseCursor { .. }
    )
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

pub(super) fn no_portal(name: &str) -> ServerError {
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
