//! The transaction on the merge session in which large stages are temporary tables.
//!
//! ```text
//! BEGIN ─→ (CREATE TEMP TABLE) COPY … CopyDone, CREATE INDEX, ANALYZE ─→ … ─→ the statement ─→ DROP INDEX, COMMIT
//!          └──────────────── for each large stage ──────────────────┘
//! ```
//! Tables stay on the connection (empty: `ON COMMIT DELETE ROWS`) and serve every later stage of the same columns, so the
//! server's catalogs do not grow with each statement. Indexes do not stay: each commit would build all of them anew. Why it ends
//! with COMMIT and not with ROLLBACK: a rollback leaves the rows in the table's file, dead, for the next user to read past.
//!
//! Settings for the planner, measured on TPC-H: a sample of 3,000 rows a table (default_statistics_target 10) gives the plans that
//! 30,000 give, in a tenth of the time. Nested loops are avoided: joins of stages have no index to look up, so one that was
//! planned for the single row of a wrong estimate and meets 32,000 costs 39 s in place of 0.7 s (q09), while a hash join that
//! was not needed costs milliseconds. Subqueries use their indexes all the same.
//!
//! What goes wrong leaves the transaction open, and a connection in a transaction is never lent again: closing it ends all.
//! NOTICEs of these statements are nobody's: they are dropped.

use std::task::{Context, Poll, ready};

use super::stage_table::{self, StageTable};
use super::{Bound, error};
use crate::backend::connections::Connections;
use crate::backend::raw_conn::{Event, RawConn, Run};
use crate::plan::StageColumn;
use crate::protocol::error::ServerError;
use crate::protocol::frame::HEADER_BYTES;

/// Rows are handed to the socket from this size on.
const WRITE_BYTES: usize = 64 << 10;
/// While more than this is unsent, shards are not read: memory stays flat however large a stage is.
const STOP_BYTES: usize = 256 << 10;

/// Read-write whatever the client's default is: temporary tables are created. Nothing here has to survive a crash, so nobody waits
/// for the disk; while the shards work, the session may be idle for as long as they need.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = off; \
     SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL enable_nestloop = off; \
     SET LOCAL default_statistics_target = 10";

/// A transaction of its own on the merge connection, from its first large stage to the end of the execution.
#[derive(Debug, Default)]
pub(super) struct MergeTransaction {
    state: State,
    /// Rows wait until the socket has taken all there is.
    stopped: bool,
    /// Numbers of the tables in use.
    taken: Vec<u32>,
    /// Shapes and numbers of the tables it created.
    created: Vec<(String, u32)>,
    indexes: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    None,
    Open,
    Ending,
}

impl MergeTransaction {
    /// Begins the transaction, if that is still to be done, and the COPY into a table for a stage of these columns.
    pub(super) fn open_table(
        &mut self,
        columns: &[StageColumn],
        connections: &mut Connections,
    ) -> Result<StageTable, ServerError> {
        let connection = merge(connections)?;
        if self.state == State::None {
            self.state = State::Open;
            if connection.stage_tables().take_full() {
                connection.query("DISCARD TEMP");
            }
            connection.query(BEGIN);
        }
        let shape = stage_table::shape(columns);
        let (number, new) = connection.stage_tables().number(&shape, &self.taken);
        if new {
            connection.query(&stage_table::create(number, &shape));
            self.created.push((shape, number));
        }
        self.taken.push(number);
        let table = StageTable::new(number, columns.len());
        connection.query(&table.copy());
        table.begin(connection.write_buffer());
        Ok(table)
    }

    pub(super) fn is_open(&self) -> bool {
        self.state != State::None
    }

    /// Appends rows to the COPY; `None` when one is malformed.
    pub(super) fn put(
        &mut self,
        table: &mut StageTable,
        run: &Run,
        connections: &mut Connections,
    ) -> Result<Option<()>, ServerError> {
        Ok(table.put(run, merge(connections)?.write_buffer()))
    }

    /// Ends the COPY of a stage, and has its indexes and statistics made.
    pub(super) fn close_table(
        &mut self,
        table: &StageTable,
        columns: &[StageColumn],
        connections: &mut Connections,
    ) -> Result<(), ServerError> {
        let connection = merge(connections)?;
        table.end(connection.write_buffer());
        connection.query(&table.prepare(columns, &mut self.indexes));
        Ok(())
    }

    /// Ready when more rows may be appended. Writes once much is unsent.
    pub(super) fn poll_room(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        if self.state == State::None {
            return Poll::Ready(Ok(()));
        }
        let connection = merge(connections)?;
        if !self.stopped && connection.unsent_bytes() < WRITE_BYTES {
            return Poll::Ready(Ok(()));
        }
        let _ = poll_replies(connection, bound, cx)?;
        // What was sent is kept until all of it is: going on earlier, the buffer would grow for as long as the shards are faster.
        self.stopped = match self.stopped {
            true => connection.unsent_bytes() > 0,
            false => connection.unsent_bytes() > STOP_BYTES,
        };
        match self.stopped {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }

    /// Writes what is appended and reads what has come, while the shards have nothing.
    pub(super) fn poll_write(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        cx: &mut Context<'_>,
    ) -> Result<(), ServerError> {
        if self.state == State::None {
            return Ok(());
        }
        let _ = poll_replies(merge(connections)?, bound, cx)?;
        Ok(())
    }

    /// Ready when the merge session has done all it was told.
    pub(super) fn poll_settled(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        match self.state {
            State::None => Poll::Ready(Ok(())),
            _ => poll_replies(merge(connections)?, bound, cx),
        }
    }

    /// Ends the transaction, if there is one; may be called again and again. What the statement left unsynced is synced first.
    pub(super) fn poll_end(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        let connection = merge(connections)?;
        if connection.unsynced() {
            connection.sync();
        }
        if self.state == State::Open {
            self.state = State::Ending;
            connection.query(&self.ending());
        }
        ready!(poll_replies(connection, bound, cx))?;
        if connection.status() != b'I' {
            return Poll::Ready(Err(error::internal(
                "the merge session kept its transaction",
            )));
        }
        for (shape, number) in self.created.drain(..) {
            connection.stage_tables().keep(shape, number);
        }
        self.state = State::None;
        Poll::Ready(Ok(()))
    }

    fn ending(&self) -> String {
        match self.indexes.is_empty() {
            true => "COMMIT".into(),
            false => format!("DROP INDEX {}; COMMIT", self.indexes.join(", ")),
        }
    }
}

fn merge(connections: &mut Connections) -> Result<&mut RawConn, ServerError> {
    let missing = || error::internal("no connection for a merge session");
    connections.merge().ok_or_else(missing)
}

/// Reads replies up to the last one owed; the first error among them is the execution's. Its position and context are about
/// statements the client never saw.
fn poll_replies(
    connection: &mut RawConn,
    bound: &Bound,
    cx: &mut Context<'_>,
) -> Poll<Result<(), ServerError>> {
    while connection.outstanding() > 0 {
        let event = ready!(connection.poll_event(None, cx)).map_err(error::from_backend)?;
        if let Event::Message { tag: b'E', frame } = event {
            let said = ServerError::parse(frame.get(HEADER_BYTES..).unwrap_or_default());
            let name = bound.shard_names.get(connection.shard.0 as usize);
            let name = name.map_or("?", |n| n);
            return Poll::Ready(Err(error::from_shard(
                said.without(b'P').without(b'W'),
                name,
            )));
        }
    }
    Poll::Ready(Ok(()))
}
