//! Where the rows of a cursor go on their way: to the client, aside, or nowhere, and into what the cursor keeps.

use std::sync::Arc;

use super::super::run::STOP_BYTES;
use super::super::session::{Ended, Session};
use super::kept::Kept;
use crate::backend::raw_conn::Run;
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;

/// What becomes of the rows that a step of FETCH passes.
pub(super) enum Output {
    /// They go to the client; the columns are described before the first one, where that is still to be done.
    Client(Option<Arc<[ColumnDescription]>>),
    /// They are kept for the Executes of a portal.
    Aside(Kept),
    /// They are passed over.
    Nothing,
}

/// What becomes of rows that may be asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    Nothing,
    /// As many as are kept unasked; when there are more, none.
    Some,
    /// All of them, up to so many bytes.
    All,
}

/// Takes the runs of an execution that a cursor reads, see [`Session::through_cursor`].
pub struct Sink {
    pub(super) output: Output,
    pub(super) kept: Kept,
    pub(super) keeping: Keeping,
    /// Bytes that `kept` and what is set aside may come to.
    pub(super) bytes_max: usize,
    pub(super) rows: u64,
}

/// Rows kept of a cursor that nobody has declared SCROLL.
const UNASKED_BYTES_MAX: usize = 1 << 20;

impl Sink {
    fn take(&mut self, run: &Run) -> Result<(), ServerError> {
        self.rows += u64::from(run.rows);
        match self.keeping {
            Keeping::Nothing => self.kept.pass(u64::from(run.rows)),
            _ => self.kept.add(run).ok_or_else(malformed)?,
        }
        if self.keeping == Keeping::Some && self.kept.bytes() > UNASKED_BYTES_MAX {
            self.kept.forget();
            self.keeping = Keeping::Nothing;
        }
        let mut bytes = self.kept.bytes();
        if let Output::Aside(rows) = &mut self.output {
            rows.add(run).ok_or_else(malformed)?;
            bytes += rows.bytes();
        }
        match bytes > self.bytes_max {
            true => Err(too_many(self.bytes_max)),
            false => Ok(()),
        }
    }
}

fn malformed() -> ServerError {
    let message = "malformed rows in a cursor";
    ServerError::new(sqlstate::INTERNAL_ERROR, message)
}

fn too_many(limit: usize) -> ServerError {
    let message = format!("the cursors of a session may keep {limit} bytes of rows");
    ServerError::new(sqlstate::OUT_OF_MEMORY, message).with_hint(
        "Declare the cursor NO SCROLL and WITHOUT HOLD, or raise memory_max in pgbraid's configuration.",
    )
}

impl Session {
    /// Rows of an execution that a cursor reads: what of them goes to the client.
    ///
    /// # Errors
    /// 53200 when more would have to be kept than may be.
    pub fn through_cursor(&mut self, run: Run) -> Result<Option<Run>, ServerError> {
        let Some(sink) = &mut self.sink else {
            return Ok(Some(run));
        };
        sink.take(&run)?;
        match &mut sink.output {
            Output::Client(columns) => {
                if let Some(columns) = columns.take() {
                    self.describe_rows(&columns)?;
                }
                Ok(Some(run))
            }
            Output::Aside(_) | Output::Nothing => Ok(None),
        }
    }

    /// Puts rows out that had been kept.
    pub(super) async fn put_out(
        &mut self,
        run: Run,
        columns: &[ColumnDescription],
        output: &mut Output,
    ) -> Result<(), Ended> {
        match output {
            Output::Nothing => {}
            Output::Aside(rows) => rows.add(&run).ok_or_else(malformed)?,
            Output::Client(described) => {
                if let Some(columns) = described.take() {
                    self.describe_rows(&columns)?;
                }
                self.shared
                    .metrics
                    .rows_to_clients
                    .inc_by(u64::from(run.rows));
                let (frames, error) = self.encoded(run, columns);
                self.client.push(frames);
                if let Some(error) = error {
                    return Err(error.into());
                }
                if self.client.pending_bytes() >= STOP_BYTES {
                    self.client.flush().await.map_err(|_| Ended::Session)?;
                }
            }
        }
        Ok(())
    }
}
