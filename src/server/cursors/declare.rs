//! DECLARE: its checks in PostgreSQL's order and words, and the binding of what it will read.

use std::sync::Arc;

use super::super::prepared::Prepared;
use super::super::run::{Outcome, unsupported};
use super::super::session::{Ended, Session};
use super::super::transaction::Block;
use super::kept::Kept;
use super::place::Place;
use super::{CURSORS_MAX, Cursor, Scroll, Source};
use crate::executor::{Execution, Parameters};
use crate::metrics::Reason;
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;
use crate::sql::{CursorKind, Kind};

/// Functions that show when a statement runs: in a cursor's query that is when it is fetched from.
const MOMENTS: [&str; 1] = ["statement_timestamp"];

impl Session {
    /// Prepares a statement that the session carries out: for DECLARE and FETCH there is something to know.
    ///
    /// # Errors
    /// Those of a DECLARE.
    pub async fn prepare_for_session(
        &mut self,
        prepared: Prepared,
        types: &[u32],
    ) -> Result<Arc<Prepared>, ServerError> {
        match &prepared.kind {
            Kind::Fetch { .. } => Ok(self.fetch_described(Arc::new(prepared))),
            Kind::DeclareCursor { .. } if !self.shared.is_one_shard() => {
                self.prepare_cursor(prepared, types).await
            }
            _ => Ok(Arc::new(prepared)),
        }
    }

    /// Prepares a DECLARE: its parameters are those of its query.
    ///
    /// # Errors
    /// What PostgreSQL finds wrong with it; 0A000 for queries that are refused.
    async fn prepare_cursor(
        &mut self,
        mut prepared: Prepared,
        types: &[u32],
    ) -> Result<Arc<Prepared>, ServerError> {
        if self.transaction.block == Block::Failed {
            // The caller says so.
            return Ok(Arc::new(prepared));
        }
        let Kind::DeclareCursor { cursor, inner, .. } = &prepared.kind else {
            return Ok(Arc::new(prepared));
        };
        let (cursor, inner) = (*cursor, inner.clone());
        let start = prepared.sql.strip_suffix(inner.as_str());
        let start = start.map(|before| before.chars().count());
        let query = Box::pin(self.prepare(inner, types)).await;
        let query = query.map_err(|error| match start {
            Some(start) => moved(error, start),
            None => error.without(b'P'),
        })?;
        if let Kind::Select { writes, locks } = query.kind
            && (writes || locks || cursor.scroll && cursor.no_scroll || is_sensitive(&prepared))
        {
            // Whether that is allowed PostgreSQL shall say.
            self.describe_on_catalog_shard(&prepared.sql, types).await?;
        }
        refuse_query(&query)?;
        prepared.parameter_types = query.parameter_types.clone();
        let first = query.first_parameter;
        prepared.first_parameter = first.map(|(n, at)| (n, at + start.unwrap_or(0)));
        Ok(Arc::new(prepared))
    }

    /// DECLARE, of the extended protocol or in a Query.
    ///
    /// # Errors
    /// 25P01 outside of a block, 42P03 for a name in use; those of the query.
    pub(super) async fn declare_cursor(
        &mut self,
        prepared: &Prepared,
        parameters: Arc<Parameters>,
        extended: bool,
    ) -> Result<String, Ended> {
        let Kind::DeclareCursor {
            name,
            cursor,
            inner,
        } = &prepared.kind
        else {
            return Err(no_select().into());
        };
        if !cursor.hold && self.lacks_block() {
            let message = "DECLARE CURSOR can only be used in transaction blocks";
            return Err(ServerError::new(sqlstate::NO_ACTIVE_TRANSACTION, message).into());
        }
        if self.cursors.contains(name) || self.portals.get(name).is_some() {
            let message = format!("cursor \"{name}\" already exists");
            return Err(ServerError::new(sqlstate::DUPLICATE_CURSOR, message).into());
        }
        if self.cursors.named.len() >= CURSORS_MAX {
            let message = format!("a session may have {CURSORS_MAX} cursors");
            return Err(ServerError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).into());
        }
        let query = self
            .prepare(inner.clone(), &prepared.parameter_types)
            .await?;
        let Some(columns) = query.columns.clone() else {
            return Err(no_select().into());
        };
        let mut cursor = self.new_cursor(query, columns, *cursor);
        cursor.extended = extended;
        match cursor.hold && self.is_alone() {
            true => self.hold_at_once(&mut cursor, &parameters).await?,
            false => {
                self.open_implicit();
                self.bind_cursor(&mut cursor, parameters).await?;
            }
        }
        self.cursors.named.insert(name.clone(), cursor);
        Ok("DECLARE CURSOR".into())
    }

    fn new_cursor(
        &self,
        query: Arc<Prepared>,
        columns: Arc<[ColumnDescription]>,
        kind: CursorKind,
    ) -> Box<Cursor> {
        let locks = matches!(query.kind, Kind::Select { locks: true, .. });
        let scroll = match (kind.scroll, kind.no_scroll || locks) {
            (true, _) => Scroll::Asked,
            (false, true) => Scroll::No,
            (false, false) => Scroll::Unasked,
        };
        Box::new(Cursor {
            query,
            columns,
            binary: kind.binary,
            hold: kind.hold,
            extended: false,
            scroll,
            level: Some(self.transaction.depth()),
            failed: false,
            place: Place::default(),
            rows: Kept::default(),
            binary_rows: None,
            source: Source::Ended,
            merge: None,
            form: None,
            context: self.planning_context(),
        })
    }

    async fn bind_cursor(
        &mut self,
        cursor: &mut Cursor,
        parameters: Arc<Parameters>,
    ) -> Result<(), Ended> {
        let query = cursor.query.clone();
        let text = self.open(&query, parameters.clone(), cursor.columns.clone(), 1, false)?;
        let text = self.bind_portals(text).await?;
        if text.needs_merge() {
            cursor.merge = self.connections.take_merge();
            cursor.source = Source::Staged(text);
            // Its steps are done; the rest comes from the merge session.
            self.end_snapshot().await?;
            return Ok(());
        }
        let columns = cursor.columns_in(1);
        let binary = match self.execution(&query, parameters, columns, (1, false)) {
            Ok((_, execution)) => match execution {
                Ok(execution) => Ok(self.bind_portals(execution).await?),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        cursor.source = Source::Bound { text, binary };
        Ok(())
    }

    /// Has the shards bind an execution, or fill its stages.
    async fn bind_portals(&mut self, execution: Execution) -> Result<Box<Execution>, Ended> {
        // Nothing could be undone later: what would be computed ahead of need is not.
        let lazy = execution.lazily().transpose()?;
        let mut execution = Box::new(lazy.unwrap_or(execution).deferred());
        if let Err(error) = self.start(&mut execution).await {
            self.recover().await;
            return Err(error.into());
        }
        match self.stream_within(&mut execution, Some(0)).await? {
            Outcome::Suspended => Ok(execution),
            other => {
                let message = format!("a cursor that was bound is {other:?}");
                Err(ServerError::new(sqlstate::INTERNAL_ERROR, message).into())
            }
        }
    }

    /// The result columns of a cursor or portal, as text.
    fn columns_of(&self, name: &str) -> Option<Arc<[ColumnDescription]>> {
        let portal = self.portals.get(name).filter(|_| !name.is_empty());
        let of_portal = portal.and_then(|p| p.prepared.columns.clone());
        of_portal.or_else(|| self.cursors.columns(name))
    }

    /// The columns of the FETCH statement as of now; other statements stay what they are.
    pub fn fetch_described(&self, prepared: Arc<Prepared>) -> Arc<Prepared> {
        let Kind::Fetch {
            name,
            is_move: false,
            ..
        } = &prepared.kind
        else {
            return prepared;
        };
        Arc::new(Prepared {
            columns: self.columns_of(name),
            binary_columns: Default::default(),
            ..(*prepared).clone()
        })
    }
}

/// INSENSITIVE and ASENSITIVE, which PostgreSQL does not take with everything.
fn is_sensitive(prepared: &Prepared) -> bool {
    prepared.sql.to_ascii_lowercase().contains("sensitive")
}

/// Queries whose effect or meaning depends on when they are fetched from.
fn refuse_query(query: &Prepared) -> Result<(), ServerError> {
    if !matches!(query.kind, Kind::Select { writes: false, .. }) {
        return Err(no_select());
    }
    let sql = query.sql.to_ascii_lowercase();
    let locks = sql.contains("_advisory_") || sql.contains("pg_notify");
    if query.pins || locks || !query.set_config.is_empty() {
        let message = "a cursor over functions that change the session is not supported";
        return Err(unsupported(
            Reason::Cursor,
            message,
            "Call them in a SELECT of their own.",
        ));
    }
    match MOMENTS.iter().find(|f| sql.contains(*f)) {
        Some(function) => Err(unsupported(
            Reason::Cursor,
            format!("{function}() in a cursor is not supported over several shards"),
            "Use now(), or pass the time as a parameter.",
        )),
        None => Ok(()),
    }
}

fn no_select() -> ServerError {
    unsupported(
        Reason::Cursor,
        "a cursor over this statement is not supported over several shards",
        "DECLARE takes a SELECT.",
    )
}

/// Moves an error's position behind what stands before the query.
fn moved(error: ServerError, start: usize) -> ServerError {
    let position = error.field(b'P').and_then(|p| p.parse::<usize>().ok());
    match position {
        Some(position) => error.with_position(position + start),
        None => error,
    }
}
