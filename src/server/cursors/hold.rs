//! WITH HOLD: rows that outlive their transaction are read before it ends, and kept by the session.

use std::sync::Arc;

use super::super::run::Outcome;
use super::super::session::{Ended, Session};
use super::kept::Kept;
use super::output::{Keeping, Output, Sink};
use super::{Cursor, Source};
use crate::executor::{Execution, Parameters};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

impl Session {
    /// Reads what is left of the cursors that are to outlive the transaction, which is about to commit.
    ///
    /// # Errors
    /// What the shards say; 53200 when it is too much. The transaction is to be rolled back then.
    pub async fn hold_cursors(&mut self) -> Result<(), ServerError> {
        let due = self.cursors.named.iter();
        let due = due.filter(|(_, c)| c.hold && c.level.is_some() && !c.failed);
        let names: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(mut cursor) = self.cursors.named.remove(&name) else {
                continue;
            };
            let held = self.hold(&mut cursor).await;
            self.cursors.named.insert(name, cursor);
            match held {
                Ok(()) => {}
                Err(Ended::Statement(error)) => return Err(error),
                // The next read of the client's socket finds out as well.
                Err(Ended::Session) => {
                    let message = "the client is gone";
                    return Err(ServerError::new(sqlstate::CONNECTION_FAILURE, message));
                }
            }
        }
        Ok(())
    }

    async fn hold(&mut self, cursor: &mut Cursor) -> Result<(), Ended> {
        match std::mem::replace(&mut cursor.source, Source::Ended) {
            Source::Ended => {}
            Source::Running(execution) => self.hold_rest(cursor, execution).await?,
            Source::Staged(mut execution) => {
                // It is known but once; the form is that of a Query.
                let form = i16::from(cursor.binary);
                cursor.form = Some(form);
                execution.set_columns(cursor.columns_in(form));
                self.hold_rest(cursor, execution).await?;
            }
            Source::Bound { text, binary } => {
                if cursor.binary && !cursor.extended {
                    cursor.form = Some(1);
                    return self.hold_rest(cursor, binary?).await;
                }
                self.hold_rest(cursor, text).await?;
                match binary {
                    Ok(binary) if cursor.extended => {
                        // There all the time, so that both count.
                        cursor.binary_rows = Some(std::mem::take(&mut cursor.rows));
                        self.hold_rest(cursor, binary).await?;
                        cursor.swap_forms();
                    }
                    _ => cursor.form = Some(0),
                }
            }
        }
        Ok(())
    }

    /// Reads an execution to its end into the cursor's rows.
    async fn hold_rest(
        &mut self,
        cursor: &mut Cursor,
        mut execution: Box<Execution>,
    ) -> Result<(), Ended> {
        if let Some(lease) = cursor.merge.take() {
            self.connections.put_merge(lease);
        }
        execution.set_fetch(0);
        let outcome = self.keep(cursor, &mut execution, true).await?;
        ended(&outcome)?;
        execution.close(&mut self.connections);
        Ok(())
    }

    /// Runs an execution and keeps all of its rows. `resumes`: it is a portal's, which is read on.
    async fn keep(
        &mut self,
        cursor: &mut Cursor,
        execution: &mut Execution,
        resumes: bool,
    ) -> Result<Outcome, Ended> {
        let others = cursor.binary_rows.as_ref().map_or(0, Kept::bytes) + self.cursors.bytes();
        let limit = self.shared.config().merge.memory_max;
        self.sink = Some(Sink {
            output: Output::Nothing,
            kept: std::mem::take(&mut cursor.rows),
            keeping: Keeping::All,
            bytes_max: limit.saturating_sub(others),
            rows: 0,
        });
        let outcome = match resumes {
            true => self.stream_within(execution, None).await,
            false => self.stream(execution, 0).await,
        };
        if let Some(sink) = self.sink.take() {
            cursor.rows = sink.kept;
        }
        outcome
    }

    /// A cursor WITH HOLD that is alone in its transaction: its query runs as any other would.
    pub(super) async fn hold_at_once(
        &mut self,
        cursor: &mut Cursor,
        parameters: &Arc<Parameters>,
    ) -> Result<(), Ended> {
        let both = cursor.extended;
        let first = i16::from(cursor.binary && !both);
        self.run_held(cursor, parameters, first).await?;
        if !both {
            cursor.form = Some(first);
        } else {
            cursor.binary_rows = Some(std::mem::take(&mut cursor.rows));
            let binary = self.run_held(cursor, parameters, 1).await;
            cursor.swap_forms();
            match binary {
                Ok(()) => {}
                // There is no binary form of such values.
                Err(Ended::Statement(error))
                    if error.sqlstate() == sqlstate::FEATURE_NOT_SUPPORTED =>
                {
                    cursor.binary_rows = None;
                    cursor.form = Some(0);
                }
                Err(error) => return Err(error),
            }
        }
        cursor.level = None;
        Ok(())
    }

    async fn run_held(
        &mut self,
        cursor: &mut Cursor,
        parameters: &Arc<Parameters>,
        form: i16,
    ) -> Result<(), Ended> {
        let columns = cursor.columns_in(form);
        let query = cursor.query.clone();
        let mut execution = self.open(&query, parameters.clone(), columns, 0, true)?;
        if let Err(error) = self.start(&mut execution).await {
            self.recover().await;
            return Err(error.into());
        }
        let outcome = self.keep(cursor, &mut execution, false).await?;
        ended(&outcome)?;
        self.end_snapshot().await?;
        Ok(())
    }
}

impl Cursor {
    fn swap_forms(&mut self) {
        if let Some(other) = &mut self.binary_rows {
            std::mem::swap(other, &mut self.rows);
        }
    }
}

fn ended(outcome: &Outcome) -> Result<(), ServerError> {
    match outcome {
        Outcome::Complete { .. } => Ok(()),
        other => {
            let message = format!("a cursor that was read to its end is {other:?}");
            Err(ServerError::new(sqlstate::INTERNAL_ERROR, message))
        }
    }
}
