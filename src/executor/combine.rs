//! Combine: stages run one after the other, their rows go to the merge session, whose statement then gives the result.
//!
//! ```text
//! stage 1: shards ──→ rows ──┐
//! stage 2: shards ──→ rows ──┼─→ parameters of a statement on the merge session ──→ rows
//! ```
//! Holds the rows of all stages, at most `max_staged_bytes`. Nothing is read on the merge session but the stages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::bind::ResultFormats;
use super::pipeline::Pipeline;
use super::remote::{Form, Place, RemoteStep, Statement};
use super::stage::{self, Collected};
use super::{Bound, Item, ShardStatistics, error};
use crate::backend::connections::Connections;
use crate::plan::{Extra, ShardId, SqlPart, Stage, StageColumn};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;
use crate::types::oid;

pub(super) struct Combine {
    stages: Vec<Running>,
    /// The stage that runs now.
    current: usize,
    /// The statement on the merge session; taken when it is sent.
    sql: Arc<str>,
    extra: Vec<Extra>,
    merge: RemoteStep,
}

/// A stage in execution.
struct Running {
    name: String,
    columns: Vec<StageColumn>,
    pipeline: Pipeline,
    collected: Collected,
    /// The client's, but for the columns.
    bound: Arc<Bound>,
}

impl Combine {
    pub(super) fn new(
        (sql, stages, extra): (&[SqlPart], &[Stage], &[Extra]),
        bound: &Arc<Bound>,
        shards: usize,
    ) -> Result<Self, ServerError> {
        let first = bound.parameters.values.len() + extra.len() + 1;
        let sql = Arc::from(text(sql, stages, first)?);
        let stages = stages.iter().map(|s| Running::new(s, bound, shards));
        Ok(Self {
            stages: stages.collect::<Result<_, _>>()?,
            current: 0,
            sql,
            extra: extra.to_vec(),
            merge: RemoteStep::new(nothing(), std::iter::empty()),
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

    /// Runs stages until the merge session's statement is on its way.
    pub(super) fn poll_stages(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        forwards: &mut VecDeque<Item>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        while self.current < self.stages.len() {
            let before: u64 = self.stages.iter().map(|s| s.collected.bytes()).sum();
            let stage = &mut self.stages[self.current];
            let polled = stage
                .pipeline
                .poll_run(&stage.bound, connections, forwards, cx);
            if let Some(run) = ready!(polled)? {
                if before + run.frames.len() as u64 > bound.max_staged_bytes {
                    return Poll::Ready(Err(too_large(&stage.name, bound.max_staged_bytes)));
                }
                let malformed = || error::internal(format!("malformed rows in {}", stage.name));
                stage.collected.add(&run).ok_or_else(malformed)?;
                continue;
            }
            self.current += 1;
            match self.stages.get_mut(self.current) {
                Some(next) => next.pipeline.start(&next.bound, connections)?,
                None => self.start_merge(bound, connections)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn start_merge(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
    ) -> Result<(), ServerError> {
        let mut added = Vec::new();
        for stage in &mut self.stages {
            let collected = std::mem::take(&mut stage.collected);
            added.extend(collected.into_parameters(&stage.columns));
        }
        let statement = Statement {
            form: Form::Described,
            sql: Arc::clone(&self.sql),
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
        let stages = self.stages.iter().flat_map(|s| s.pipeline.statistics());
        stages.chain(self.merge.statistics()).collect()
    }
}

impl Running {
    fn new(stage: &Stage, bound: &Arc<Bound>, shards: usize) -> Result<Self, ServerError> {
        let columns: Vec<ColumnDescription> = stage.columns.iter().map(described).collect();
        let bound = Arc::new(Bound {
            columns: columns.into(),
            // A stage is read to its end, whatever part of the result the client asks for.
            fetch: 0,
            ..Bound::clone(bound)
        });
        Ok(Self {
            name: stage.name.clone(),
            columns: stage.columns.clone(),
            pipeline: Pipeline::new(&stage.plan, &bound, shards)?,
            collected: Collected::new(stage.columns.len()),
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
        own_text: false,
        expected: None,
    }
}

/// The statement with its stages in place; `$first` is the first parameter that is theirs. It depends on the plan only, not on
/// the rows, so the merge session prepares it once.
fn text(sql: &[SqlPart], stages: &[Stage], first: usize) -> Result<String, ServerError> {
    let record = |c: &StageColumn| matches!(c.type_oid, oid::RECORD | oid::RECORD_ARRAY);
    if stages.iter().any(|s| s.columns.iter().any(record)) {
        let message = "rows without a type cannot be combined over shards";
        return Err(ServerError::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
    }
    let mut number = first;
    let mut firsts = Vec::with_capacity(stages.len());
    for stage in stages {
        firsts.push(number);
        number += stage::parameter_count(&stage.columns);
    }
    let mut text = String::new();
    for part in sql {
        match part {
            SqlPart::Text(sql) => text.push_str(sql),
            SqlPart::Stage(index) => match (stages.get(*index), firsts.get(*index)) {
                (Some(stage), Some(first)) => {
                    text.push_str(&stage::relation(&stage.columns, *first));
                }
                _ => return Err(error::internal(format!("no stage {index}"))),
            },
        }
    }
    Ok(text)
}

fn too_large(stage: &str, limit: u64) -> ServerError {
    ServerError::new(
        sqlstate::PROGRAM_LIMIT_EXCEEDED,
        format!("{stage} brings more than {limit} bytes to the merge session"),
    )
    .with_hint("Add conditions that make it smaller, or raise max_staged_bytes in pgbraid's configuration.")
}
