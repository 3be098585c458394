//! Combine: stages run one after the other, their rows go to the merge session, whose statement then gives the result.
//!
//! ```text
//! stage 1: shards ──→ rows ──→ arrays, parameters ──────┐
//! stage 2: shards ──→ rows ──→ COPY, temporary table ───┴─→ the statement on the merge session ──→ rows
//! ```
//! A small stage is held until it is complete and travels with the statement: one round trip. A large one is passed on as it
//! arrives ([`MergeTransaction`]), so memory does not grow with it; at most `max_staged_bytes` may come. Nothing is read on the merge session but
//! the stages. Values of a stage that restrict later ones are noted as they pass ([`StageKeys`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::bind::{Added, ResultFormats};
use super::merge_transaction::MergeTransaction;
use super::pipeline::Pipeline;
use super::remote::{CopyData, Form, Place, RemoteStep, Statement};
use super::stage::{self, Collected};
use super::stage_keys::StageKeys;
use super::stage_table::StageTable;
use super::{Bound, Item, ShardStatistics, Step, error};
use crate::backend::connections::Connections;
use crate::backend::raw_conn::Run;
use crate::metrics::Reason;
use crate::plan::{Extra, ShardId, SqlPart, Stage, StageColumn, StageFilter};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;
use crate::types::oid;

/// Fewer rows than this are as well scanned as looked up.
const SCANNED_ROWS_MAX: u32 = 50;

/// After this many runs the session is given a turn: nothing goes out to the client here, so a cancel or the client's leaving
/// would be noticed only when the shards pause.
const RUNS_MAX: u32 = 16;

pub(super) struct Combine {
    stages: Vec<Running>,
    /// The stage that runs now.
    current: usize,
    /// Bytes that came so far, of all stages.
    staged_bytes: u64,
    /// The statement on the merge session; taken when it is sent.
    sql: Vec<SqlPart>,
    extra: Vec<Extra>,
    transaction: MergeTransaction,
    merge: RemoteStep,
    merge_started: bool,
    /// Nothing more is to begin: a cancel between two steps meets no shard that could take notice of it.
    cancelled: bool,
}

/// A stage in execution.
struct Running {
    name: String,
    columns: Vec<StageColumn>,
    pipeline: Pipeline,
    rows: Rows,
    /// Values of columns that restrict later stages.
    keys: Vec<StageKeys>,
    filters: Vec<StageFilter>,
    /// Bytes that came so far.
    bytes: u64,
    /// The client's, but for the columns.
    bound: Arc<Bound>,
}

/// Where a stage's rows are.
enum Rows {
    Held(Collected),
    Table(StageTable),
}

impl Combine {
    pub(super) fn new(
        (sql, stages, extra): (&[SqlPart], &[Stage], &[Extra]),
        bound: &Arc<Bound>,
        shards: usize,
    ) -> Result<Self, ServerError> {
        let record = |c: &StageColumn| matches!(c.type_oid, oid::RECORD | oid::RECORD_ARRAY);
        if stages.iter().any(|s| s.columns.iter().any(record)) {
            let message = "rows without a type cannot be combined over shards";
            return Err(ServerError::refusal(Reason::Form, message));
        }
        let running = stages.iter().map(|s| Running::new(s, bound, shards));
        let mut running = running.collect::<Result<Vec<_>, _>>()?;
        for filter in stages.iter().flat_map(|s| &s.filters) {
            let keys = &mut running[filter.stage].keys;
            if !keys.iter().any(|k| k.column == filter.column) {
                keys.push(StageKeys::new(filter.column));
            }
        }
        Ok(Self {
            stages: running,
            current: 0,
            staged_bytes: 0,
            sql: sql.to_vec(),
            extra: extra.to_vec(),
            transaction: MergeTransaction::default(),
            merge: RemoteStep::new(nothing(), std::iter::empty()),
            merge_started: false,
            cancelled: false,
        })
    }

    pub(super) fn start(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
    ) -> Result<(), ServerError> {
        match self.stages.first_mut() {
            Some(stage) => stage.pipeline.start(&stage.bound, connections),
            None => self.start_merge(bound, connections),
        }
    }

    pub(super) fn collect_lacking(&self, out: &mut Vec<ShardId>) {
        let stages = self.stages.iter();
        stages.for_each(|stage| stage.pipeline.collect_lacking(out));
    }

    /// What runs now may end; nothing else begins.
    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
    }

    /// Runs stages until the merge session's statement is on its way.
    pub(super) fn poll_stages(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        forwards: &mut VecDeque<Item>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        if !self.merge_started {
            ready!(self.poll_staged(bound, connections, forwards, cx))?;
            self.start_merge(bound, connections)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Runs stages until the merge session has all their rows.
    pub(super) fn poll_staged(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        forwards: &mut VecDeque<Item>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        let mut runs = 0;
        while let Some(stage) = self.stages.get_mut(self.current) {
            ready!(self.transaction.poll_room(bound, connections, cx))?;
            let polled = stage
                .pipeline
                .poll_run(&stage.bound, connections, forwards, cx);
            match polled? {
                Poll::Ready(Some(run)) => {
                    self.on_run(&run, bound, connections)?;
                    runs += 1;
                    if runs == RUNS_MAX {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Poll::Ready(None) if self.cancelled => {
                    return Poll::Ready(Err(error::cancelled_by_user()));
                }
                Poll::Ready(None) => self.on_stage_end(connections)?,
                Poll::Pending => {
                    self.transaction.poll_write(bound, connections, cx)?;
                    return Poll::Pending;
                }
            }
        }
        ready!(self.transaction.poll_settled(bound, connections, cx))?;
        match self.cancelled {
            true => Poll::Ready(Err(error::cancelled_by_user())),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Keeps or passes on rows of the current stage.
    fn on_run(
        &mut self,
        run: &Run,
        bound: &Bound,
        connections: &mut Connections,
    ) -> Result<(), ServerError> {
        let stage = &mut self.stages[self.current];
        stage.bytes += run.frames.len() as u64;
        self.staged_bytes += run.frames.len() as u64;
        crate::metrics::global()
            .staged_bytes
            .inc_by(run.frames.len() as u64);
        if self.staged_bytes > bound.max_staged_bytes {
            return Err(too_large(&stage.name, stage.bytes, bound.max_staged_bytes));
        }
        let malformed = || error::internal(format!("malformed rows in {}", stage.name));
        for keys in &mut stage.keys {
            keys.add(run).ok_or_else(malformed)?;
        }
        match &mut stage.rows {
            Rows::Table(table) => {
                let put = self.transaction.put(table, run, connections)?;
                put.ok_or_else(malformed)
            }
            Rows::Held(collected) => {
                collected.add(run).ok_or_else(malformed)?;
                match collected.is_large() {
                    true => stage.move_to_table(&mut self.transaction, connections),
                    false => Ok(()),
                }
            }
        }
    }

    fn on_stage_end(&mut self, connections: &mut Connections) -> Result<(), ServerError> {
        let stage = &mut self.stages[self.current];
        if let Rows::Table(table) = &stage.rows {
            self.transaction
                .close_table(table, &stage.columns, connections)?;
        }
        self.current += 1;
        let (done, rest) = self.stages.split_at_mut(self.current);
        match rest.first_mut() {
            Some(next) => {
                next.restrict(done)?;
                next.pipeline.start(&next.bound, connections)
            }
            None => self.index_held(connections),
        }
    }

    /// A large stage may look rows of a held one up, one by one: where arrays have no index, a table does.
    fn index_held(&mut self, connections: &mut Connections) -> Result<(), ServerError> {
        if !self.transaction.is_open() {
            return Ok(());
        }
        for stage in &mut self.stages {
            let joined = stage.columns.iter().any(|c| c.joined);
            let Rows::Held(collected) = &stage.rows else {
                continue;
            };
            if joined && collected.rows() > SCANNED_ROWS_MAX {
                stage.move_to_table(&mut self.transaction, connections)?;
                if let Rows::Table(table) = &stage.rows {
                    self.transaction
                        .close_table(table, &stage.columns, connections)?;
                }
            }
        }
        Ok(())
    }

    fn start_merge(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
    ) -> Result<(), ServerError> {
        self.merge_started = true;
        let first = bound.parameters.values.len() + self.extra.len() + 1;
        let (relations, added) = self.relations(first);
        let statement = Statement {
            form: Form::Described,
            sql: Arc::from(text(&self.sql, &relations)?),
            formats: ResultFormats::new(bound.columns.iter().map(|c| c.format)),
            columns: Some(bound.columns.len() as u16),
            extra: std::mem::take(&mut self.extra),
            added,
            expected: Some(Arc::clone(&bound.columns)),
            ..nothing()
        };
        self.merge = RemoteStep::new(statement, std::iter::once(Place::Merge));
        self.merge.start(bound, connections)
    }

    /// The SQL that reads each stage, and the parameters, the first of them `$first`, that carry the held ones. The text depends
    /// on which stages are tables, not on their rows, so the merge session prepares it once.
    fn relations(&mut self, first: usize) -> (Vec<String>, Vec<(u32, Added)>) {
        let mut relations = Vec::with_capacity(self.stages.len());
        let mut added = Vec::new();
        for stage in &mut self.stages {
            relations.push(match &mut stage.rows {
                Rows::Table(table) => table.relation(&stage.columns),
                Rows::Held(collected) => {
                    let relation = stage::relation(&stage.columns, first + added.len());
                    added.extend(std::mem::take(collected).into_parameters(&stage.columns));
                    relation
                }
            });
        }
        (relations, added)
    }

    /// Ready when the merge session has nothing left to do for this execution; to be called once its rows have ended.
    pub(super) fn poll_end(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        // An open portal would keep the indexes in use.
        self.merge.close(connections);
        self.transaction.poll_end(bound, connections, cx)
    }

    /// The statement on the merge session, whose rows are the result.
    pub(super) fn merge(&mut self) -> &mut RemoteStep {
        &mut self.merge
    }

    pub(super) fn collect_shards(&self, out: &mut Vec<ShardId>) {
        self.stages
            .iter()
            .for_each(|s| s.pipeline.collect_shards(out));
    }

    pub(super) fn unfinished(&self) -> Vec<ShardId> {
        let stages = self.stages.iter();
        stages.flat_map(|s| s.pipeline.unfinished()).collect()
    }

    pub(super) fn abandon(&mut self, bound: &Bound, connections: &mut Connections) {
        for stage in &mut self.stages {
            stage.pipeline.abandon(&stage.bound, connections);
        }
        self.merge.abandon(bound, connections);
    }

    pub(super) fn close(&mut self, connections: &mut Connections) {
        for stage in &mut self.stages {
            stage.pipeline.close(connections);
        }
        self.merge.close(connections);
    }

    pub(super) fn statistics(&self) -> Vec<ShardStatistics> {
        let stages = self.stages.iter().enumerate().flat_map(|(n, stage)| {
            let of_stage = stage.pipeline.statistics().into_iter();
            of_stage.map(move |s| (Step::Stage(n), s))
        });
        let merge = self.merge.statistics().map(|s| (Step::Merge, s));
        stages
            .chain(merge)
            .map(|(step, s)| ShardStatistics { step, ..s })
            .collect()
    }
}

impl Running {
    /// Adds the conditions that stages before it make, where their values are few.
    fn restrict(&mut self, done: &[Self]) -> Result<(), ServerError> {
        for filter in &self.filters {
            let source = &done[filter.stage];
            let keys = source.keys.iter().find(|k| k.column == filter.column);
            let element = source.columns[filter.column].type_oid;
            let values = keys.and_then(|k| k.array(element));
            if let (Some(array), Some(values)) = (stage::array_of(element), values) {
                let expression = &filter.expression;
                self.pipeline
                    .restrict(expression, (array, values), &self.bound)?;
            }
        }
        Ok(())
    }

    /// Begins the table for the rows held so far.
    fn move_to_table(
        &mut self,
        transaction: &mut MergeTransaction,
        connections: &mut Connections,
    ) -> Result<(), ServerError> {
        let Rows::Held(collected) = &mut self.rows else {
            return Ok(());
        };
        let malformed = || error::internal(format!("malformed rows in {}", self.name));
        let held = std::mem::take(collected).into_run().ok_or_else(malformed)?;
        let mut table = transaction.open_table(&self.columns, connections)?;
        let put = transaction.put(&mut table, &held, connections)?;
        put.ok_or_else(malformed)?;
        self.rows = Rows::Table(table);
        Ok(())
    }

    fn new(stage: &Stage, bound: &Arc<Bound>, shards: usize) -> Result<Self, ServerError> {
        let columns: Vec<ColumnDescription> = stage.columns.iter().map(described).collect();
        let bound = Arc::new(Bound {
            columns: columns.into(),
            // A stage is read to its end, whatever part of the result the client asks for.
            fetch: 0,
            deferred: false,
            ..Bound::clone(bound)
        });
        Ok(Self {
            name: stage.name.clone(),
            columns: stage.columns.clone(),
            pipeline: Pipeline::new(&stage.plan, &bound, shards)?,
            rows: Rows::Held(Collected::new(stage.columns.len())),
            keys: Vec::new(),
            filters: stage.filters.clone(),
            bytes: 0,
            bound,
        })
    }
}

/// A stage's column as a result column.
fn described(column: &StageColumn) -> ColumnDescription {
    ColumnDescription {
        name: bytes::Bytes::new(),
        table_oid: 0,
        attribute: 0,
        type_oid: column.type_oid,
        type_length: -1,
        type_modifier: -1,
        format: stage::format_of(column),
    }
}

/// A statement to fill in.
fn nothing() -> Statement {
    Statement {
        form: Form::Described,
        sql: Arc::from(""),
        first_sql: None,
        formats: ResultFormats::All(0),
        columns: None,
        extra: Vec::new(),
        added: Vec::new(),
        once: false,
        own_text: false,
        expected: None,
        copy: CopyData::None,
    }
}

/// The statement with its stages in place.
fn text(sql: &[SqlPart], relations: &[String]) -> Result<String, ServerError> {
    let mut text = String::new();
    for part in sql {
        text.push_str(match part {
            SqlPart::Text(sql) => sql,
            SqlPart::Stage(index) => relations
                .get(*index)
                .ok_or_else(|| error::internal(format!("no stage {index}")))?,
        });
    }
    Ok(text)
}

fn too_large(stage: &str, bytes: u64, limit: u64) -> ServerError {
    ServerError::new(
        sqlstate::PROGRAM_LIMIT_EXCEEDED,
        format!("{stage} is at {bytes} bytes, and a statement may bring {limit} bytes to the merge session"),
    )
    .with_hint("Add conditions that make it smaller, or raise max_staged_bytes in pgbraid's configuration.")
}
