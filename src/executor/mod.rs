//! Runs a plan over the connections a session holds: one operator a file, rows as raw frames in runs.
//!
//! An [`Execution`] is polled by the session's loop and never spawns anything. It ends with [`Item::Complete`] or an error.
//! After an error, or when the session gives up on it, the shards that [`Execution::unfinished`] names may still be sending:
//! the session cancels them and reads on until their connections owe nothing (`RawConn::outstanding`), or drops the leases.
//!
//! # Suspended portals
//! With `Bound::fetch` > 0 every shard runs a portal of its own name and stops after that many rows until more are wanted.
//! [`Execution::set_row_budget`] then says how many rows the client's Execute asked for: once they are out, what is
//! still on its way is read into memory (at most `fetch` rows a shard) and `poll_next` yields [`Item::Suspended`]. From then
//! on no reply is owed, other statements may use the connections, and a new budget resumes the execution where it was.

mod aggregate_state;
mod batches;
mod bind;
mod combine;
mod copy_gather;
mod copy_out;
mod distinct;
mod error;
mod final_aggregate;
mod gather;
mod gather_merge;
mod keys;
mod limit;
mod merge_transaction;
mod missing;
mod object_oids;
mod operator;
mod pipeline;
mod printed;
mod project;
mod remote;
mod row;
mod stage;
mod stage_keys;
mod stage_table;
pub mod target;
mod translate;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use crate::backend::connections::Connections;
use crate::backend::raw_conn::Run;
use crate::catalog::Catalog;
use crate::plan::{Plan, ShardId, Targets};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;

pub use copy_gather::CopyHead;
pub use copy_out::{CopyOut, CsvForm, TextForm, Written};
pub use error::{cancelled_by_user, from_backend as backend_error, from_shard as shard_error};
use pipeline::Pipeline;
pub use printed::{Printed, printed};

/// The values of a Bind.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    /// Type OIDs, one a parameter, as Describe gave them.
    pub types: Arc<[u32]>,
    /// 0 text, 1 binary, one a parameter.
    pub formats: Vec<i16>,
    /// Their bytes; `None` is NULL.
    pub values: Vec<Option<Bytes>>,
}

/// What one execution of a plan is given.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The client's parameters.
    pub parameters: Arc<Parameters>,
    /// The client's result columns, in the formats it asked for.
    pub columns: Arc<[ColumnDescription]>,
    /// now() of the transaction, microseconds since 2000-01-01 UTC.
    pub transaction_timestamp: i64,
    /// When the message came that runs the statement.
    pub statement_timestamp: i64,
    /// now() of the transaction in which it was prepared.
    pub prepared_timestamp: i64,
    /// Rows a shard may send before it waits to be asked again; 0: all. Set for row-limited portals and cursors.
    pub fetch: u32,
    /// Only bound at the start; rows are asked for once there is a row budget. A Combine fills its stages. For cursors.
    pub deferred: bool,
    /// End each shard's message sequence with Sync (else Flush: the client's transaction or pipeline goes on).
    pub sync: bool,
    /// Shard names, for errors.
    pub shard_names: Arc<[Arc<str>]>,
    /// Limits of operators that hold rows.
    pub memory_max: usize,
    /// Bytes that all stages of a Combine may bring to the merge session.
    pub max_staged_bytes: u64,
    /// Type OIDs of the shards, enum labels and the catalog shard. Without it (a statement that runs before it is loaded),
    /// enums are not comparable and shard 0 is the catalog shard.
    pub catalog: Option<Arc<Catalog>>,
    /// Binary values may be OIDs of objects that users made: those of the one server that answers.
    pub shows_objects: bool,
    /// A shard whose connection the session already holds: taken where any shard would do.
    pub preferred: Option<ShardId>,
    /// Shards that cannot be reached and whose rows may be left out, ascending; nearly always none.
    pub missing: Vec<ShardId>,
}

/// What comes out of an execution, in order.
#[derive(Debug)]
pub enum Item {
    /// Rows in the client's columns and formats.
    Rows(Run),
    /// NOTICE, NOTIFY, ParameterStatus or COPY OUT frames in their place, for the client as they are; also the RowDescription of a
    /// [`Execution::passthrough`].
    Forward(Bytes),
    /// The shard waits for COPY data (one-shard pass-through); the frame is its CopyInResponse.
    CopyIn(Bytes),
    /// The row budget is used up and there may be more rows; nothing is owed by any shard.
    Suspended,
    /// No rows have come and none will: they were more than may be held, and [`Execution::spill`] is to be run instead. Nothing is owed.
    Spilled,
    /// All shards have said CommandComplete. `tag` is the shard's own for one remote step, else `None`: the session counts rows.
    Complete {
        /// Without its NUL.
        tag: Option<Bytes>,
    },
    /// EmptyQueryResponse.
    Empty,
}

/// A part of a plan that runs on shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The only one: its rows are the client's, or what the operators make those of.
    Rows,
    /// Fills the n-th stage of a Combine.
    Stage(usize),
    /// The statement of a Combine, on the merge session.
    Merge,
}

/// What one shard did for an execution, for EXPLAIN ANALYZE. Kept a run of rows, not a row.
#[derive(Debug, Clone)]
pub struct ShardStatistics {
    /// In which step.
    pub step: Step,
    /// The shard.
    pub shard: ShardId,
    /// Rows it sent.
    pub rows: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// When its part was sent to it.
    pub started: Option<Instant>,
    /// When its first row was read.
    pub first_row: Option<Instant>,
    /// When its last row so far was read.
    pub last_row: Option<Instant>,
    /// When it had sent all.
    pub completed: Option<Instant>,
}

/// A plan in execution.
pub struct Execution {
    bound: Arc<Bound>,
    shards: Vec<ShardId>,
    pipeline: Pipeline,
    /// What it runs, for whoever looks; `None` where that is one text on one shard.
    plan: Option<Arc<Plan>>,
    /// What runs when rows are more than may be held.
    spill: Option<Arc<Plan>>,
    /// What runs when this one fails before its first row.
    lazy: Option<Arc<Plan>>,
    /// Nothing else is to run in its place.
    cancelled: bool,
    /// Notices and the like that go out before `held`.
    forwards: VecDeque<Item>,
    /// Rows that did not fit into the last budget.
    held: Option<Run>,
    budget: Option<u64>,
    /// Rows may hold OIDs of objects that must not be shown.
    checks_oids: bool,
    /// What makes COPY data of the rows.
    copy: Option<Box<CopyOut>>,
    /// The first row comes after all of the shards' rows.
    reads_all: bool,
    /// Rows have come out.
    has_given: bool,
    /// It may do without the rows of shards that are lost.
    partial: bool,
    /// Missing shards that would have run the client's own text.
    lacking: Vec<ShardId>,
}

impl Execution {
    /// Evaluates targets and prepares operators; nothing is sent yet.
    ///
    /// # Errors
    /// 0A000 where a type or collation turns out not to be comparable here; 2201W/2201X for a negative LIMIT/OFFSET.
    pub fn new(plan: &Plan, bound: Bound, shards: usize) -> Result<Self, ServerError> {
        let bound = Arc::new(bound);
        let pipeline = Pipeline::new(plan, &bound, shards)?;
        let spill = match plan {
            Plan::FinalAggregate { spill, .. } => spill.clone(),
            _ => None,
        };
        let mut needed = Vec::new();
        pipeline.collect_shards(&mut needed);
        needed.sort_unstable();
        needed.dedup();
        Ok(Self {
            spill,
            reads_all: pipeline::reads_all(plan),
            ..Self::over(pipeline, bound, needed)
        })
    }

    /// The execution to run after [`Item::Spilled`].
    ///
    /// # Errors
    /// As [`Execution::new`]; 57014 after a cancel.
    pub fn spill(&self) -> Result<Self, ServerError> {
        if self.cancelled {
            return Err(error::cancelled_by_user());
        }
        let missing = || error::internal("no plan for what cannot be held");
        let plan = self.spill.as_ref().ok_or_else(missing)?;
        let shards = self.bound.shard_names.len();
        Ok(Self {
            copy: self.copy.clone(),
            plan: Some(plan.clone()),
            ..Self::new(plan, Bound::clone(&self.bound), shards)?
        })
    }

    /// Keeps the plan it was made of, to be shown.
    #[must_use]
    pub fn of_plan(self, plan: &Arc<Plan>) -> Self {
        let plan = Some(plan.clone());
        Self { plan, ..self }
    }

    /// The plan it was made of, where it was kept.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    /// With a plan that computes nothing ahead of need, for when this one fails.
    #[must_use]
    pub fn or_lazily(self, plan: Option<Arc<Plan>>) -> Self {
        Self { lazy: plan, ..self }
    }

    /// True when [`Execution::lazily`] may answer after an error of this one: nothing has come out, and there is another plan.
    pub fn runs_ahead(&self) -> bool {
        self.lazy.is_some()
    }

    /// The execution to run when this one has failed, or cannot be allowed to fail; `None` where it makes no difference.
    ///
    /// # Errors
    /// As [`Execution::new`].
    pub fn lazily(&self) -> Option<Result<Self, ServerError>> {
        let shards = self.bound.shard_names.len();
        let plan = self.lazy.as_ref()?;
        let lazy = Self::new(plan, Bound::clone(&self.bound), shards);
        Some(lazy.map(|lazy| Self {
            copy: self.copy.clone(),
            plan: Some(plan.clone()),
            ..lazy
        }))
    }

    /// Rows a shard may send before it waits to be asked again; 0: all.
    pub fn fetch(&self) -> u32 {
        self.bound.fetch
    }

    /// The client's own text on one shard, unchanged: errors keep their position. Cheap: nothing is allocated a row or parameter.
    pub fn routed(shard: ShardId, sql: Arc<str>, bound: Bound) -> Self {
        let bound = Arc::new(bound);
        Self::over(Pipeline::routed(shard, sql, &bound), bound, vec![shard])
    }

    /// One statement sent as a simple Query, for what a portal cannot do (COPY FROM STDIN, utility statements). Its RowDescription
    /// is forwarded. After [`Item::CopyIn`] the session appends CopyData and CopyDone or CopyFail to the shard's write
    /// buffer and polls on.
    pub fn passthrough(shard: ShardId, sql: Arc<str>, bound: Bound) -> Self {
        let bound = Arc::new(bound);
        Self::over(
            Pipeline::passthrough(shard, sql, &bound),
            bound,
            vec![shard],
        )
    }

    /// The one shard that `targets` come to with these parameters, if it is only one.
    pub fn single_shard(targets: &Targets, bound: &Bound, shards: usize) -> Option<ShardId> {
        target::single(targets, &bound.parameters, bound.choice(shards))
    }

    /// The shards on which `targets` can have rows with these parameters, ascending; possibly none.
    pub fn shards_of(targets: &Targets, bound: &Bound, shards: usize) -> Vec<ShardId> {
        target::possible(targets, &bound.parameters, bound.choice(shards))
    }

    fn over(pipeline: Pipeline, bound: Arc<Bound>, shards: Vec<ShardId>) -> Self {
        Self {
            shards,
            pipeline,
            checks_oids: !bound.shows_objects && object_oids::concerns(&bound),
            reads_all: false,
            has_given: false,
            partial: false,
            lacking: Vec::new(),
            plan: None,
            spill: None,
            lazy: None,
            cancelled: false,
            forwards: VecDeque::new(),
            held: None,
            budget: None,
            copy: None,
            bound,
        }
    }

    /// The client's columns in the formats of its rows.
    pub fn columns(&self) -> &[ColumnDescription] {
        &self.bound.columns
    }

    /// Shards it needs connections to, ascending.
    pub fn shards(&self) -> &[ShardId] {
        &self.shards
    }

    /// True when a merge session is needed too.
    pub fn needs_merge(&self) -> bool {
        self.pipeline.needs_merge()
    }

    /// True when some shard is read in more than one step, so that the steps must share a snapshot.
    pub fn needs_snapshot(&self) -> bool {
        if self.shards.len() < 2 && !self.needs_merge() {
            return false;
        }
        let mut all = Vec::new();
        self.pipeline.collect_shards(&mut all);
        all.len() > self.shards.len()
    }

    /// Appends the first messages to the connections' write buffers. Replies that a connection still owes then (settings
    /// replayed, BEGIN) are read past; an error among them is the execution's.
    ///
    /// # Errors
    /// XX000 when a connection to one of [`Execution::shards`] is missing.
    pub fn start(&mut self, connections: &mut Connections) -> Result<(), ServerError> {
        self.pipeline.start(&self.bound, connections)
    }

    /// Rows that may come out before [`Item::Suspended`]; `None`: all. Counts from now on.
    pub fn set_row_budget(&mut self, rows: Option<u64>) {
        self.budget = rows;
    }

    /// Next item; after `Complete` or an error it must not be polled again.
    pub fn poll_next(
        &mut self,
        connections: &mut Connections,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Item, ServerError>> {
        let polled = match &mut self.copy {
            None => self.poll_item(connections, cx),
            Some(_) => self.poll_copy(connections, cx),
        };
        if let Poll::Ready(Err(_)) = &polled {
            self.abandon(connections);
        }
        polled
    }

    /// The client cancelled: no further step begins. What the shards do now is the session's to cancel.
    pub fn cancel(&mut self) {
        self.cancelled = true;
        self.lazy = None;
        self.pipeline.cancel();
    }

    /// To be called when the execution is given up before its end (the client left or cancelled); an error does it by itself.
    pub fn abandon(&mut self, connections: &mut Connections) {
        self.pipeline.abandon(&self.bound, connections);
    }

    fn poll_item(
        &mut self,
        connections: &mut Connections,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Item, ServerError>> {
        if let Some(item) = self.forwards.pop_front() {
            return Poll::Ready(Ok(item));
        }
        if self.budget == Some(0) {
            return self.poll_suspend(connections, cx);
        }
        if let Some(run) = self.held.take() {
            return Poll::Ready(Ok(self.within_budget(run)));
        }
        let polled = self
            .pipeline
            .poll_run(&self.bound, connections, &mut self.forwards, cx);
        if self.forwards.is_empty() {
            return match polled {
                Poll::Ready(Ok(Some(run))) if self.checks_oids => {
                    object_oids::check(&run, &self.bound)?;
                    Poll::Ready(Ok(self.within_budget(run)))
                }
                polled => polled.map_ok(|run| self.finish(run)),
            };
        }
        match polled {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(Some(run))) => {
                if self.checks_oids {
                    object_oids::check(&run, &self.bound)?;
                }
                self.held = Some(run);
            }
            // The operator repeats that it is at its end when asked again.
            Poll::Ready(Ok(None)) | Poll::Pending => {}
        }
        Poll::Ready(Ok(self.forwards.pop_front().unwrap_or(Item::Empty)))
    }

    fn finish(&mut self, run: Option<Run>) -> Item {
        match run {
            Some(run) => self.within_budget(run),
            None if self.pipeline.has_spilled() => Item::Spilled,
            None if self.pipeline.was_empty_query() => Item::Empty,
            None => Item::Complete {
                tag: self.pipeline.tag(),
            },
        }
    }

    /// Keeps what of `run` is over the budget.
    fn within_budget(&mut self, mut run: Run) -> Item {
        self.lazy = None;
        self.has_given = true;
        if let Some(budget) = self.budget {
            if u64::from(run.rows) > budget {
                let rest = row::split(&mut run, budget as u32);
                self.held = Some(rest);
            }
            self.budget = Some(budget - u64::from(run.rows));
        }
        Item::Rows(run)
    }

    /// Reads what shards still owe into memory.
    fn poll_suspend(
        &mut self,
        connections: &mut Connections,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Item, ServerError>> {
        let polled = self
            .pipeline
            .poll_settle(&self.bound, connections, &mut self.forwards, cx);
        if let Some(item) = self.forwards.pop_front() {
            return Poll::Ready(Ok(item));
        }
        polled.map_ok(|()| Item::Suspended)
    }

    /// Shards that may still be sending: those to cancel after an error.
    pub fn unfinished(&self) -> Vec<ShardId> {
        self.pipeline.unfinished()
    }

    /// Asks for the portals of a row-limited execution to be closed, in messages without Sync or Flush; the CloseComplete replies
    /// come with those of the next Sync and are to be ignored.
    pub fn close(&mut self, connections: &mut Connections) {
        self.pipeline.close(connections);
    }

    /// What each shard of each step did so far.
    pub fn statistics(&self) -> Vec<ShardStatistics> {
        self.pipeline.statistics()
    }
}

#[cfg(test)]
mod testing {
    use super::*;

    /// No parameters, no columns, roomy limits.
    pub(in crate::executor) fn bound() -> Bound {
        Bound {
            parameters: Arc::default(),
            columns: Arc::from([]),
            transaction_timestamp: 0,
            statement_timestamp: 0,
            prepared_timestamp: 0,
            fetch: 0,
            deferred: false,
            sync: true,
            shard_names: Arc::from([Arc::from("s1"), Arc::from("s2")]),
            memory_max: 1 << 20,
            max_staged_bytes: 1 << 20,
            catalog: None,
            shows_objects: true,
            preferred: None,
            missing: Vec::new(),
        }
    }
}
