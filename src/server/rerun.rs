//! A statement that has to run another way: what is more than the proxy may hold runs on the merge session, and what fails over
//! an expression computed ahead of need runs as one server would.
//!
//! ```text
//! alone:       the plan ──22012──→ ROLLBACK of its snapshot ──→ the lazy plan
//! in a block:  SAVEPOINT, the plan ──→ RELEASE
//!                            └─22012─→ ROLLBACK TO, RELEASE ──→ the lazy plan
//! elsewhere:   the lazy plan
//! ```

use super::run::Outcome;
use super::session::{Ended, Session};
use crate::executor::Execution;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;

const SAVEPOINT: &str = "SAVEPOINT pgbraid_ahead";
const RELEASE: &str = "RELEASE SAVEPOINT pgbraid_ahead";
const UNDO: &str = "ROLLBACK TO SAVEPOINT pgbraid_ahead";

/// Classes of SQLSTATEs that come from the server or from what else goes on, not from values: connections, transactions,
/// conflicts, resources, operators' commands, the system. All others may: functions raise what they like, and casts to regclass or
/// current_setting() look names up.
const OTHER_ERRORS: [&str; 8] = ["08", "25", "3B", "40", "53", "57", "58", "XX"];

impl Session {
    /// Streams an execution to the client, at most `max_rows` rows (0: all), another way where it has to be.
    ///
    /// # Errors
    /// `Ended::Statement` when it failed: the shards have been stopped and the connections are usable or closed.
    /// `Ended::Session` when the client is gone.
    pub async fn stream(
        &mut self,
        execution: &mut Execution,
        max_rows: u64,
    ) -> Result<Outcome, Ended> {
        match self.stream_once(execution, max_rows).await {
            Ok(Outcome::Spilled) => {
                let next = execution.spill().map_err(Ended::Statement)?;
                Box::pin(self.stream_next(execution, next, max_rows)).await
            }
            Err(Ended::Statement(error)) if execution.runs_ahead() && is_of_values(&error) => {
                Box::pin(self.stream_lazily(execution, max_rows, error)).await
            }
            Err(Ended::Statement(error))
                if self.steered && self.may_begin_anew(execution, &error) =>
            {
                Box::pin(self.stream_anew(execution, max_rows, error)).await
            }
            Ok(outcome) => {
                if self.savepoint && !matches!(outcome, Outcome::Suspended | Outcome::CopyIn) {
                    self.release_ahead(execution);
                }
                Ok(outcome)
            }
            failed => failed,
        }
    }

    pub(super) async fn stream_next(
        &mut self,
        execution: &mut Execution,
        mut next: Execution,
        max_rows: u64,
    ) -> Result<Outcome, Ended> {
        if let Err(error) = self.start(&mut next).await {
            self.forget_marks();
            self.recover().await;
            self.connections.take_merge();
            return Err(Ended::Statement(error));
        }
        *execution = next;
        self.stream_once(execution, max_rows).await
    }

    /// What an execution that may fail over a value nobody reads needs before it: SQL for its shards. Where nothing could be
    /// undone it is replaced.
    ///
    /// # Errors
    /// As [`Execution::new`].
    pub(super) fn before_ahead(
        &mut self,
        execution: &mut Execution,
    ) -> Result<Option<String>, ServerError> {
        if !execution.runs_ahead() || self.is_alone() {
            return Ok(None);
        }
        if self.is_between_statements(execution) {
            self.savepoint = true;
            return Ok(Some(SAVEPOINT.into()));
        }
        if let Some(lazy) = execution.lazily() {
            *execution = lazy?;
        }
        Ok(None)
    }

    /// The replies are read past by whatever comes next.
    fn release_ahead(&mut self, execution: &Execution) {
        self.savepoint = false;
        for shard in execution.shards() {
            if let Some(conn) = self.connections.get(*shard) {
                conn.query(RELEASE);
            }
        }
    }

    /// Runs the lazy plan after an error of the other, which is reported where nothing can be undone.
    async fn stream_lazily(
        &mut self,
        execution: &mut Execution,
        max_rows: u64,
        error: ServerError,
    ) -> Result<Outcome, Ended> {
        let Some(next) = execution.lazily() else {
            return Err(Ended::Statement(error));
        };
        let next = next.map_err(Ended::Statement)?;
        if self.savepoint {
            self.savepoint = false;
            let shards = execution.shards().to_vec();
            if !self.undo(&shards).await {
                return Err(Ended::Statement(error));
            }
        } else if self.snapshot || self.is_alone() {
            self.end_snapshot().await.map_err(Ended::Statement)?;
            match self.pinned {
                true => self.release_unpinned().await,
                false => self.connections.release(),
            }
        } else {
            return Err(Ended::Statement(error));
        }
        tracing::debug!(
            sqlstate = error.sqlstate(),
            "runs again without what was computed ahead"
        );
        self.shared.metrics.reruns.inc();
        self.stream_next(execution, next, max_rows).await
    }

    /// Brings the client's transaction back to before the execution; false where a shard does not go along.
    async fn undo(&mut self, shards: &[ShardId]) -> bool {
        let undo = [UNDO.to_owned(), RELEASE.to_owned()];
        for shard in shards {
            let Some(conn) = self.connections.get(*shard) else {
                return false;
            };
            if super::control::command(conn, &undo).await.is_err() || conn.status() != b'T' {
                return false;
            }
        }
        true
    }
}

fn is_of_values(error: &ServerError) -> bool {
    let state = error.sqlstate();
    !OTHER_ERRORS.iter().any(|class| state.starts_with(class))
}
