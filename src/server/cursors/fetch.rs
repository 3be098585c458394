//! FETCH, MOVE and CLOSE: what is kept is read first, then the shards are asked for as many rows as are still wanted.

use std::sync::Arc;

use super::super::portals::Portal;
use super::super::prepared::Prepared;
use super::super::run::{Outcome, unsupported};
use super::super::session::{Ended, Session};
use super::kept::Kept;
use super::output::{Keeping, Output, Sink};
use super::place::{ALL, Course, Step};
use super::{Cursor, Scroll, Source, forward_only, no_cursor};
use crate::executor::Parameters;
use crate::metrics::{QueryKind, Reason};
use crate::protocol::error::ServerError;
use crate::protocol::messages::{self, ColumnDescription};
use crate::protocol::sqlstate;
use crate::sql::{FetchDirection, Kind};

/// Most rows that one shard is asked for at once: what others have sent by the time enough have come is kept.
const BATCH_ROWS_MAX: u64 = 2_000;

/// The rows of a FETCH whose portal is executed with a row limit.
pub struct Aside {
    rows: Kept,
    /// How many have gone out.
    given: u64,
}

/// What a FETCH or MOVE is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Motion {
    pub(super) direction: FetchDirection,
    pub(super) count: i64,
    pub(super) is_move: bool,
}

impl Session {
    /// Carries out a statement about cursors in a Query and returns its tag; `None` for other statements.
    ///
    /// # Errors
    /// 34000 for a cursor there is not; the query's own.
    pub async fn cursor_statement(
        &mut self,
        prepared: &Arc<Prepared>,
    ) -> Result<Option<String>, Ended> {
        match &prepared.kind {
            Kind::DeclareCursor { .. } | Kind::CloseCursor { .. } | Kind::Fetch { .. }
                if self.has_cursor(&prepared.kind) => {}
            _ => return Ok(None),
        }
        if let Some((number, position)) = prepared.first_parameter {
            let message = format!("there is no parameter ${number}");
            let error = ServerError::new(sqlstate::UNDEFINED_PARAMETER, message);
            return Err(error.with_position(position).into());
        }
        let Kind::Fetch { name, .. } = &prepared.kind else {
            return self.cursor_command(prepared, Arc::default(), false).await;
        };
        let Some((name, motion)) = motion(prepared) else {
            return Err(no_cursor(name).into());
        };
        let columns = match (self.cursors.named.get(name), motion.is_move) {
            (_, true) => None,
            (Some(cursor), _) => Some(cursor.columns_in(i16::from(cursor.binary))),
            (None, _) => prepared.columns.clone(),
        };
        let mut output = match motion.is_move {
            true => Output::Nothing,
            false => Output::Client(columns.clone()),
        };
        let rows = self
            .fetch(name, motion, columns.as_deref(), &mut output)
            .await?;
        if let Output::Client(Some(columns)) = output {
            self.describe_rows(&columns)?;
        }
        Ok(Some(tag(motion, rows)))
    }

    /// DECLARE and CLOSE.
    async fn cursor_command(
        &mut self,
        prepared: &Prepared,
        parameters: Arc<Parameters>,
        extended: bool,
    ) -> Result<Option<String>, Ended> {
        self.shared.metrics.query(QueryKind::Session);
        let tag = match &prepared.kind {
            Kind::DeclareCursor { .. } => {
                let declared = self.declare_cursor(prepared, parameters, extended);
                Box::pin(declared).await?
            }
            Kind::CloseCursor { name: Some(name) } => {
                let known = self.portals.get(name).is_some() || self.cursors.contains(name);
                self.drop_portal(name);
                if !known {
                    return Err(no_cursor(name).into());
                }
                "CLOSE CURSOR".into()
            }
            Kind::CloseCursor { name: None } => {
                self.drop_portals();
                "CLOSE CURSOR ALL".into()
            }
            _ => return Ok(None),
        };
        Ok(Some(tag))
    }

    /// The same in the extended protocol, where the answer to the Execute is written here; false for other statements.
    ///
    /// # Errors
    /// As `cursor_statement`.
    pub async fn execute_cursor_statement(
        &mut self,
        portal: &mut Portal,
        max_rows: u64,
    ) -> Result<bool, Ended> {
        let prepared = portal.prepared.clone();
        if !self.has_cursor(&prepared.kind) {
            return Ok(false);
        }
        let Some((name, motion)) = motion(&prepared) else {
            let parameters = portal.parameters.clone();
            let done = self.cursor_command(&prepared, parameters, true).await?;
            if let Some(tag) = &done {
                portal.done = true;
                messages::command_complete(tag, self.client.out());
            }
            return Ok(done.is_some());
        };
        if portal.aside.is_none() {
            let mut output = match motion.is_move {
                true => Output::Nothing,
                false if max_rows > 0 => Output::Aside(Kept::default()),
                false => Output::Client(None),
            };
            let columns = portal.columns.clone();
            let rows = self
                .fetch(name, motion, columns.as_deref(), &mut output)
                .await?;
            let Output::Aside(rows_aside) = output else {
                portal.done = true;
                messages::command_complete(&tag(motion, rows), self.client.out());
                return Ok(true);
            };
            portal.aside = Some(Aside {
                rows: rows_aside,
                given: 0,
            });
        }
        self.give_aside(portal, motion, max_rows).await?;
        Ok(true)
    }

    /// Up to `max_rows` (0: all) of the rows that were set aside for a portal.
    async fn give_aside(
        &mut self,
        portal: &mut Portal,
        motion: Motion,
        max_rows: u64,
    ) -> Result<(), Ended> {
        let Some(aside) = &mut portal.aside else {
            return Ok(());
        };
        let columns = portal.columns.clone().unwrap_or_else(|| Arc::from([]));
        let most = if max_rows == 0 { ALL } else { max_rows };
        let mut given = 0;
        while given < most {
            let run = aside.rows.piece(aside.given + 1, most - given);
            if run.rows == 0 {
                break;
            }
            given += u64::from(run.rows);
            aside.given += u64::from(run.rows);
            self.put_out(run, &columns, &mut Output::Client(None))
                .await?;
        }
        if given == most {
            messages::bare(b's', self.client.out());
        } else {
            portal.done = true;
            portal.aside = None;
            messages::command_complete(&tag(motion, given), self.client.out());
        }
        Ok(())
    }

    /// Execute of a cursor by its name, as of any portal.
    ///
    /// # Errors
    /// As `cursor_statement`.
    pub async fn execute_cursor(&mut self, name: &str, max_rows: u64) -> Result<(), Ended> {
        let count = if max_rows == 0 { ALL } else { max_rows };
        let motion = Motion {
            direction: FetchDirection::Forward,
            count: i64::try_from(count).unwrap_or(i64::MAX),
            is_move: false,
        };
        let columns = self.cursors.columns(name);
        let mut output = Output::Client(None);
        let rows = self
            .fetch(name, motion, columns.as_deref(), &mut output)
            .await?;
        match rows == max_rows && max_rows > 0 {
            true => messages::bare(b's', self.client.out()),
            false => messages::select_complete(rows, self.client.out()),
        }
        Ok(())
    }

    /// FETCH or MOVE; the rows for its tag.
    async fn fetch(
        &mut self,
        name: &str,
        motion: Motion,
        columns: Option<&[ColumnDescription]>,
        output: &mut Output,
    ) -> Result<u64, Ended> {
        if self.portals.get(name).is_some() {
            return Box::pin(self.fetch_from_portal(name, motion, columns, output)).await;
        }
        let context = self.planning_context();
        let cursor = self.cursors.named.get_mut(name);
        let cursor = cursor.ok_or_else(|| no_cursor(name))?;
        if cursor.failed {
            let message = format!("portal \"{name}\" cannot be run");
            return Err(ServerError::new("55000", message).into());
        }
        if cursor.context != context {
            return Err(unsupported(
                Reason::Cursor,
                "settings that the rows of a cursor may depend on have changed since its DECLARE",
                "Set them back, or declare the cursor again.",
            )
            .into());
        }
        cursor.choose_form(columns)?;
        self.shared.metrics.query(QueryKind::Session);
        let Some(mut cursor) = self.cursors.named.remove(name) else {
            return Err(no_cursor(name).into());
        };
        let course = cursor
            .place
            .course(motion.direction, motion.count, motion.is_move);
        let done = self.go(&mut cursor, course, output).await;
        cursor.failed = done.is_err();
        self.cursors.named.insert(name.to_owned(), cursor);
        done
    }

    async fn go(
        &mut self,
        cursor: &mut Cursor,
        course: Course,
        output: &mut Output,
    ) -> Result<u64, Ended> {
        self.close_other_form(cursor);
        let last = course.steps.len().saturating_sub(1);
        let mut rows = 0;
        for (index, step) in course.steps.into_iter().enumerate() {
            let mut nothing = Output::Nothing;
            let output = if index == last {
                &mut *output
            } else {
                &mut nothing
            };
            rows = match step {
                Step::Rewind => {
                    if !cursor.place.is_fresh() {
                        cursor.refuse_backward()?;
                        cursor.place = Default::default();
                    }
                    0
                }
                Step::Forward(count) => self.go_forward(cursor, count, output).await?,
                Step::Backward(count) => self.go_backward(cursor, count, output).await?,
            };
        }
        Ok(course.rows.unwrap_or(rows))
    }

    async fn go_forward(
        &mut self,
        cursor: &mut Cursor,
        count: u64,
        output: &mut Output,
    ) -> Result<u64, Ended> {
        let asked = cursor.place.ahead(count);
        let columns = cursor.shown();
        let mut rows = 0;
        while rows < asked && cursor.place.row + rows < cursor.rows.last() {
            let run = cursor.rows.piece(cursor.place.row + rows + 1, asked - rows);
            if run.rows == 0 {
                return Err(lost_rows().into());
            }
            rows += u64::from(run.rows);
            self.put_out(run, &columns, output).await?;
        }
        while rows < asked && !matches!(cursor.source, Source::Ended) {
            rows += self
                .read_on(cursor, asked - rows, asked == ALL, output)
                .await?;
        }
        cursor.place.forwarded(count, rows);
        Ok(rows)
    }

    async fn go_backward(
        &mut self,
        cursor: &mut Cursor,
        count: u64,
        output: &mut Output,
    ) -> Result<u64, Ended> {
        cursor.refuse_backward()?;
        let columns = cursor.shown();
        let range = cursor.place.behind(count);
        let all = range.end.saturating_sub(range.start);
        let mut rows = 0;
        while rows < all {
            let run = cursor.rows.piece_backward(range.end - 1 - rows, all - rows);
            if run.rows == 0 {
                return Err(lost_rows().into());
            }
            rows += u64::from(run.rows);
            self.put_out(run, &columns, output).await?;
        }
        cursor.place.backed(count, rows);
        Ok(rows)
    }

    /// Asks the shards for more; the rows that came.
    async fn read_on(
        &mut self,
        cursor: &mut Cursor,
        wanted: u64,
        all: bool,
        output: &mut Output,
    ) -> Result<u64, Ended> {
        let Source::Running(mut execution) = std::mem::replace(&mut cursor.source, Source::Ended)
        else {
            return Ok(0);
        };
        if let Some(lease) = cursor.merge.take() {
            self.connections.put_merge(lease);
        }
        execution.set_fetch(if all {
            0
        } else {
            wanted.min(BATCH_ROWS_MAX) as u32
        });
        let limit = self.shared.config().merge.memory_max;
        self.sink = Some(Sink {
            output: std::mem::replace(output, Output::Nothing),
            kept: std::mem::take(&mut cursor.rows),
            keeping: match cursor.scroll {
                Scroll::No => Keeping::Nothing,
                Scroll::Unasked => Keeping::Some,
                Scroll::Asked => Keeping::All,
            },
            bytes_max: limit.saturating_sub(self.cursors.bytes()),
            rows: 0,
        });
        let outcome = self
            .stream_within(&mut execution, (!all).then_some(wanted))
            .await;
        let mut rows = 0;
        if let Some(sink) = self.sink.take() {
            rows = sink.rows;
            *output = sink.output;
            cursor.rows = sink.kept;
            if !cursor.rows.is_whole() {
                cursor.scroll = Scroll::No;
            }
        }
        match outcome? {
            Outcome::Suspended => {
                cursor.merge = self.connections.take_merge();
                cursor.source = Source::Running(execution);
            }
            Outcome::Complete { .. } => execution.close(&mut self.connections),
            other => {
                let message = format!("a cursor has come to {other:?}");
                return Err(ServerError::new(sqlstate::INTERNAL_ERROR, message).into());
            }
        }
        Ok(rows)
    }

    /// Once the form is chosen, the portals of the other one are not needed.
    fn close_other_form(&mut self, cursor: &mut Cursor) {
        cursor.source = match std::mem::replace(&mut cursor.source, Source::Ended) {
            Source::Bound { text, binary } => match (cursor.form, binary) {
                (Some(1), Ok(binary)) => {
                    let mut text = text;
                    text.close(&mut self.connections);
                    Source::Running(binary)
                }
                (_, binary) => {
                    if let Ok(mut binary) = binary {
                        binary.close(&mut self.connections);
                    }
                    Source::Running(text)
                }
            },
            other => other,
        };
    }
}

impl Cursor {
    /// Settles the format of the rows, by the first FETCH that has one.
    fn choose_form(&mut self, columns: Option<&[ColumnDescription]>) -> Result<(), ServerError> {
        let mut formats = columns.into_iter().flatten().map(|c| c.format);
        let wanted = formats.next().unwrap_or(i16::from(self.binary));
        let is_mixed = formats.any(|f| f != wanted);
        // A MOVE takes what there is.
        let settled = columns.is_none_or(|_| self.form.is_none_or(|form| form == wanted));
        if is_mixed || !settled {
            return Err(unsupported(
                Reason::Cursor,
                "rows of one cursor in text and in binary form are not supported over several shards",
                "Ask for one form in all FETCH statements of a cursor.",
            ));
        }
        if self.form.is_some() {
            return Ok(());
        }
        match &mut self.source {
            Source::Bound {
                binary: Err(error), ..
            } if wanted == 1 => return Err(error.clone()),
            Source::Staged(_) => {
                let columns = self.columns_in(wanted);
                let staged = std::mem::replace(&mut self.source, Source::Ended);
                if let Source::Staged(mut execution) = staged {
                    execution.set_columns(columns);
                    self.source = Source::Running(execution);
                }
            }
            _ => {}
        }
        if let Some(binary) = self.binary_rows.take()
            && wanted == 1
        {
            self.rows = binary;
        }
        self.form = Some(wanted);
        Ok(())
    }

    /// The columns as its rows are.
    fn shown(&self) -> Arc<[ColumnDescription]> {
        self.columns_in(self.form.unwrap_or_default())
    }

    fn refuse_backward(&self) -> Result<(), ServerError> {
        match self.scroll {
            Scroll::No => Err(forward_only()),
            Scroll::Unasked | Scroll::Asked => Ok(()),
        }
    }
}

fn motion(prepared: &Prepared) -> Option<(&str, Motion)> {
    match &prepared.kind {
        Kind::Fetch {
            name,
            direction,
            count,
            is_move,
        } => Some((
            name,
            Motion {
                direction: *direction,
                count: *count,
                is_move: *is_move,
            },
        )),
        _ => None,
    }
}

fn tag(motion: Motion, rows: u64) -> String {
    match motion.is_move {
        true => format!("MOVE {rows}"),
        false => format!("FETCH {rows}"),
    }
}

fn lost_rows() -> ServerError {
    let message = "rows of a cursor that should have been kept are not there";
    ServerError::new(sqlstate::INTERNAL_ERROR, message)
}
