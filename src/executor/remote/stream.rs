//! One shard's part of a remote step: where it stands, and what has come.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Form, Place};
use crate::backend::raw_conn::Run;
use crate::executor::{Bound, ShardStatistics, Step};
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Running,
    /// The portal has been bound, or has given a batch; ReadyForQuery is still to come.
    Pausing,
    Suspended,
    Closing,
    Done,
}

/// One shard's part.
pub(super) struct Stream {
    pub(super) place: Place,
    pub(super) state: State,
    /// ReadyForQuery messages that belong to what was sent before.
    pub(super) preceding: u32,
    /// Set while a Parse is not confirmed: its name must be forgotten when it fails.
    pub(super) unparsed: bool,
    pub(super) failed: Option<ServerError>,
    /// As described, with type OIDs of the catalog shard.
    pub(super) columns: Vec<ColumnDescription>,
    pub(super) buffered: VecDeque<Run>,
    pub(super) statistics: ShardStatistics,
}

impl Stream {
    pub(super) fn new(place: Place) -> Self {
        let shard = match place {
            Place::Shard(shard) => shard,
            Place::Merge => ShardId(0),
        };
        Self {
            place,
            state: State::Idle,
            preceding: 0,
            unparsed: false,
            failed: None,
            columns: Vec::new(),
            buffered: VecDeque::new(),
            statistics: ShardStatistics {
                step: Step::Rows,
                shard,
                rows: 0,
                bytes: 0,
                started: None,
                first_row: None,
                last_row: None,
                completed: None,
            },
        }
    }

    pub(super) fn owes(&self) -> bool {
        matches!(self.state, State::Running | State::Pausing | State::Closing)
    }

    pub(super) fn count(&mut self, run: &Run) {
        let now = Instant::now();
        let statistics = &mut self.statistics;
        statistics.rows += u64::from(run.rows);
        statistics.bytes += run.frames.len() as u64;
        statistics.first_row.get_or_insert(now);
        statistics.last_row = Some(now);
    }

    pub(super) fn complete(&mut self, form: Form, bound: &Bound) {
        self.statistics.completed = Some(Instant::now());
        self.state = if bound.sync || form == Form::Simple {
            State::Closing
        } else {
            State::Done
        };
    }

    /// The portal has more rows.
    pub(super) fn suspend(&mut self, bound: &Bound) {
        self.state = match bound.sync {
            true => State::Pausing,
            false => State::Suspended,
        };
    }

    pub(super) fn on_ready_for_query(&mut self) -> Result<(), ServerError> {
        if self.preceding > 0 {
            self.preceding -= 1;
            if self.preceding > 0 {
                return Ok(());
            }
        } else {
            self.state = match self.state {
                State::Pausing => State::Suspended,
                _ => State::Done,
            };
        }
        // After an error in what preceded, the replies to the statement itself are left to whoever cleans up.
        self.failed.take().map_or(Ok(()), Err)
    }
}
