//! A plan made runnable: the remote step, or the stages, at its foot and the operators above them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::bind::ResultFormats;
use super::combine::Combine;
use super::copy_gather::{CopyGather, CopyHead};
use super::distinct::Distinct;
use super::final_aggregate::FinalAggregate;
use super::gather::Gather;
use super::gather_merge::GatherMerge;
use super::limit::{self, Limit};
use super::missing::{self, There};
use super::operator::Operator;
use super::project::Project;
use super::remote::{CopyData, Form, Place, RemoteSource, RemoteStep, Statement};
use super::{Bound, Item, ShardStatistics, error};
use crate::backend::connections::Connections;
use crate::backend::raw_conn::Run;
use crate::metrics::Reason;
use crate::plan::{
    Extra, Final, FinalFunction, OutputColumn, Plan, Remote, ShardId, SqlPart, Stage,
};
use crate::protocol::error::ServerError;

/// Operators over one source of rows.
pub(super) struct Pipeline {
    foot: Foot,
    /// `None`: the rows of the one stream there is, as they come.
    root: Option<Box<dyn Operator>>,
    /// The remote's CommandComplete is the client's too: one shard, whose rows all go out.
    tag_passes: bool,
    /// Shards that would have run it, and are missing.
    lacking: Vec<ShardId>,
}

/// Where a pipeline's rows come from.
#[allow(clippy::large_enum_variant)] // Most are remote, and a point select should not pay for one allocation more.
enum Foot {
    Remote(RemoteStep),
    Combine(Box<Combine>),
}

impl Pipeline {
    pub(super) fn new(plan: &Plan, bound: &Arc<Bound>, shards: usize) -> Result<Self, ServerError> {
        if let Some(parts) = combine_of(plan) {
            return Ok(Self {
                foot: Foot::Combine(Box::new(Combine::new(parts, bound, shards)?)),
                root: Some(operator(plan, bound, 1)?),
                tag_passes: keeps_count(plan),
                lacking: Vec::new(),
            });
        }
        let remote = remote_of(plan)?;
        let There {
            shards: targets,
            lacking,
        } = missing::there(&remote.targets, bound, shards)?;
        let root = operator(plan, bound, targets.len())?;
        let statement = statement(plan, remote, bound)?;
        let tag_passes = targets.len() == 1 && keeps_count(plan);
        let places = targets.into_iter().map(Place::Shard);
        Ok(Self {
            foot: Foot::Remote(RemoteStep::new(statement, places)),
            root: Some(root),
            tag_passes,
            lacking,
        })
    }

    pub(super) fn routed(shard: ShardId, sql: Arc<str>, bound: &Bound) -> Self {
        let statement = Statement {
            form: Form::Prepared,
            sql,
            first_sql: None,
            formats: ResultFormats::new(bound.columns.iter().map(|c| c.format)),
            columns: Some(bound.columns.len() as u16),
            extra: Vec::new(),
            added: Vec::new(),
            once: false,
            own_text: true,
            expected: Some(Arc::clone(&bound.columns)),
            copy: match bound.columns.is_empty() {
                true => CopyData::Passed,
                false => CopyData::None,
            },
        };
        Self::single(shard, statement)
    }

    pub(super) fn passthrough(shard: ShardId, sql: Arc<str>, _bound: &Bound) -> Self {
        let statement = Statement {
            form: Form::Simple,
            sql,
            first_sql: None,
            formats: ResultFormats::All(0),
            columns: None,
            extra: Vec::new(),
            added: Vec::new(),
            once: false,
            own_text: true,
            expected: None,
            copy: CopyData::Passed,
        };
        Self::single(shard, statement)
    }

    /// A COPY … TO STDOUT, whose data shards make.
    pub(super) fn copied(shards: &[ShardId], sql: Arc<str>, head: CopyHead) -> Self {
        let statement = Statement {
            form: Form::Prepared,
            sql,
            first_sql: None,
            formats: ResultFormats::All(0),
            columns: None,
            extra: Vec::new(),
            added: Vec::new(),
            once: true,
            own_text: true,
            expected: None,
            copy: CopyData::Merged,
        };
        let several = shards.len() > 1;
        let places = shards.iter().copied().map(Place::Shard);
        Self {
            foot: Foot::Remote(RemoteStep::new(statement, places)),
            root: several.then(|| Box::new(CopyGather::new(head)) as Box<dyn Operator>),
            tag_passes: true,
            lacking: Vec::new(),
        }
    }

    fn single(shard: ShardId, statement: Statement) -> Self {
        Self {
            foot: Foot::Remote(RemoteStep::new(
                statement,
                std::iter::once(Place::Shard(shard)),
            )),
            root: None,
            tag_passes: true,
            lacking: Vec::new(),
        }
    }

    /// Shards of every step, one entry a step.
    pub(super) fn collect_shards(&self, out: &mut Vec<ShardId>) {
        match &self.foot {
            Foot::Remote(remote) => out.extend(remote.shards()),
            Foot::Combine(combine) => combine.collect_shards(out),
        }
    }

    /// Missing shards of every step.
    pub(super) fn collect_lacking(&self, out: &mut Vec<ShardId>) {
        out.extend(&self.lacking);
        if let Foot::Combine(combine) = &self.foot {
            combine.collect_lacking(out);
        }
    }

    pub(super) fn needs_merge(&self) -> bool {
        matches!(self.foot, Foot::Combine(_))
    }

    /// Adds `expression = ANY (values)` to the remote's text; to be called before the start.
    pub(super) fn restrict(
        &mut self,
        expression: &str,
        values: (u32, Bytes),
        bound: &Bound,
    ) -> Result<(), ServerError> {
        match &mut self.foot {
            Foot::Remote(remote) => {
                remote.restrict(expression, values, bound);
                Ok(())
            }
            Foot::Combine(_) => Err(error::internal("a condition for what is no remote step")),
        }
    }

    pub(super) fn start(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
    ) -> Result<(), ServerError> {
        match &mut self.foot {
            Foot::Remote(remote) => remote.start(bound, connections),
            Foot::Combine(combine) => combine.start(bound, connections),
        }
    }

    pub(super) fn poll_run(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        forwards: &mut VecDeque<Item>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        if let Foot::Combine(combine) = &mut self.foot {
            ready!(combine.poll_stages(bound, connections, forwards, cx))?;
        }
        let step = self.foot.last_step();
        let Some(root) = &mut self.root else {
            return step.poll_stream(0, (bound, connections), forwards, cx);
        };
        let mut source = RemoteSource::new(step, bound, connections, forwards);
        let run = ready!(root.poll_run(&mut source, cx))?;
        if let (None, Foot::Combine(combine)) = (&run, &mut self.foot) {
            ready!(combine.poll_end(bound, connections, cx))?;
        }
        Poll::Ready(Ok(run))
    }

    pub(super) fn poll_settle(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
        forwards: &mut VecDeque<Item>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        if let Foot::Combine(combine) = &mut self.foot
            && bound.deferred
        {
            return combine.poll_staged(bound, connections, forwards, cx);
        }
        let step = self.foot.last_step();
        step.poll_settle((bound, connections), forwards, cx)
    }

    pub(super) fn tag(&mut self) -> Option<Bytes> {
        self.tag_passes
            .then(|| self.foot.last_step().tag())
            .flatten()
    }

    pub(super) fn has_spilled(&self) -> bool {
        self.root.as_ref().is_some_and(|root| root.has_spilled())
    }

    pub(super) fn was_empty_query(&mut self) -> bool {
        self.foot.last_step().was_empty_query()
    }

    pub(super) fn unfinished(&self) -> Vec<ShardId> {
        match &self.foot {
            Foot::Remote(remote) => remote.unfinished().collect(),
            Foot::Combine(combine) => combine.unfinished(),
        }
    }

    pub(super) fn cancel(&mut self) {
        if let Foot::Combine(combine) = &mut self.foot {
            combine.cancel();
        }
    }

    pub(super) fn abandon(&mut self, bound: &Bound, connections: &mut Connections) {
        match &mut self.foot {
            Foot::Remote(remote) => remote.abandon(bound, connections),
            Foot::Combine(combine) => combine.abandon(bound, connections),
        }
    }

    pub(super) fn close(&mut self, connections: &mut Connections) {
        match &mut self.foot {
            Foot::Remote(remote) => remote.close(connections),
            Foot::Combine(combine) => combine.close(connections),
        }
    }

    pub(super) fn statistics(&self) -> Vec<ShardStatistics> {
        match &self.foot {
            Foot::Remote(remote) => remote.statistics().collect(),
            Foot::Combine(combine) => combine.statistics(),
        }
    }
}

impl Foot {
    /// The step whose rows the operators read.
    fn last_step(&mut self) -> &mut RemoteStep {
        match self {
            Self::Remote(remote) => remote,
            Self::Combine(combine) => combine.merge(),
        }
    }
}

/// The Combine at the foot of a plan.
fn combine_of(plan: &Plan) -> Option<(&[SqlPart], &[Stage], &[Extra])> {
    match plan {
        Plan::Combine { sql, stages, extra } => Some((sql, stages, extra)),
        Plan::Gather { input } | Plan::Limit { input, .. } | Plan::Distinct { input } => {
            combine_of(input)
        }
        Plan::Remote(_) | Plan::GatherMerge { .. } | Plan::FinalAggregate { .. } => None,
    }
}

/// True when the first row comes only after the last one has been read.
pub(super) fn reads_all(plan: &Plan) -> bool {
    match plan {
        Plan::FinalAggregate { .. } => true,
        Plan::Gather { input }
        | Plan::GatherMerge { input, .. }
        | Plan::Limit { input, .. }
        | Plan::Distinct { input } => reads_all(input),
        Plan::Remote(_) | Plan::Combine { .. } => false,
    }
}

/// The remote step at the foot of a plan.
fn remote_of(plan: &Plan) -> Result<&Remote, ServerError> {
    match plan {
        Plan::Remote(remote) => Ok(remote),
        Plan::Gather { input }
        | Plan::GatherMerge { input, .. }
        | Plan::Limit { input, .. }
        | Plan::FinalAggregate { input, .. }
        | Plan::Distinct { input } => remote_of(input),
        Plan::Combine { .. } => Err(error::internal("a Combine below another operator")),
    }
}

/// True when every row of the remote goes out as one row.
fn keeps_count(plan: &Plan) -> bool {
    match plan {
        Plan::Remote(_) | Plan::Combine { .. } => true,
        Plan::Gather { input } | Plan::GatherMerge { input, .. } => keeps_count(input),
        _ => false,
    }
}

/// What a planned remote step sends.
fn statement(plan: &Plan, remote: &Remote, bound: &Arc<Bound>) -> Result<Statement, ServerError> {
    let (formats, expected) = match aggregate_of(plan) {
        Some((groups, aggregates, output)) => {
            let formats = aggregate_formats(remote, groups, aggregates, output, bound)?;
            (ResultFormats::new(formats.into_iter()), None)
        }
        None => {
            let hidden = std::iter::repeat_n(1, remote.hidden);
            let visible = bound.columns.iter().map(|c| c.format);
            let expected = Some(Arc::clone(&bound.columns));
            (ResultFormats::new(visible.chain(hidden)), expected)
        }
    };
    Ok(Statement {
        form: Form::Described,
        sql: Arc::from(remote.sql.as_str()),
        first_sql: remote.first_sql.as_deref().map(Arc::from),
        formats,
        columns: Some((remote.visible + remote.hidden) as u16),
        extra: remote.extra.clone(),
        added: Vec::new(),
        once: false,
        own_text: false,
        expected,
        copy: CopyData::None,
    })
}

/// The FinalAggregate of a plan: its groups, aggregates and output.
fn aggregate_of(plan: &Plan) -> Option<(usize, &[Final], &[OutputColumn])> {
    match plan {
        Plan::FinalAggregate {
            groups,
            aggregates,
            output,
            ..
        } => Some((*groups, aggregates, output)),
        Plan::Gather { input }
        | Plan::GatherMerge { input, .. }
        | Plan::Limit { input, .. }
        | Plan::Distinct { input } => aggregate_of(input),
        Plan::Remote(_) | Plan::Combine { .. } => None,
    }
}

/// Formats of the partial columns: numbers in binary; what goes out as a shard sent it, as the client wants it.
///
/// # Errors
/// 0A000 when the client wants one value in both formats.
fn aggregate_formats(
    remote: &Remote,
    groups: usize,
    aggregates: &[Final],
    output: &[OutputColumn],
    bound: &Bound,
) -> Result<Vec<i16>, ServerError> {
    let mut wanted: Vec<Option<i16>> = vec![None; remote.visible + remote.hidden];
    for (output, column) in output.iter().zip(&bound.columns[..]) {
        let source = match output {
            OutputColumn::Group(index) => Some(*index),
            OutputColumn::Aggregate(index) => match aggregates.get(*index).map(|a| &a.function) {
                Some(FinalFunction::Min { value, .. } | FinalFunction::Max { value, .. }) => {
                    Some(*value)
                }
                _ => None,
            },
        };
        let Some(format) = source.and_then(|s| wanted.get_mut(s)) else {
            continue;
        };
        if format
            .replace(column.format)
            .is_some_and(|f| f != column.format)
        {
            return Err(ServerError::refusal(
                Reason::Form,
                "one grouped value cannot be returned in text and in binary form at once",
            ));
        }
    }
    let default = |index| if index < groups { 0 } else { 1 };
    let formats = wanted.into_iter().enumerate();
    Ok(formats.map(|(i, f)| f.unwrap_or(default(i))).collect())
}

/// The operators of a plan, over a remote step on `inputs` shards.
fn operator(
    plan: &Plan,
    bound: &Arc<Bound>,
    inputs: usize,
) -> Result<Box<dyn Operator>, ServerError> {
    Ok(match plan {
        Plan::Remote(_) | Plan::Combine { .. } => Box::new(Gather::default()),
        Plan::Gather { input } => operator(input, bound, inputs)?,
        Plan::GatherMerge { input, .. } if inputs == 1 => {
            let visible = remote_of(input)?.visible;
            Box::new(Project::new(operator(input, bound, inputs)?, visible))
        }
        Plan::Limit {
            input,
            count,
            offset,
        } => {
            let (count, offset) = limit::counts(*count, *offset, bound)?;
            Box::new(Limit::new(operator(input, bound, inputs)?, count, offset))
        }
        Plan::GatherMerge { input, keys } => {
            let remote = remote_of(input)?;
            Box::new(GatherMerge::new(
                Arc::clone(bound),
                keys.clone(),
                remote.visible,
                remote.hidden,
                inputs,
            ))
        }
        Plan::FinalAggregate {
            groups,
            aggregates,
            output,
            spill,
            ..
        } => Box::new(FinalAggregate::new(
            Arc::clone(bound),
            *groups,
            aggregates.clone(),
            output.clone(),
            (inputs, spill.is_some() && bound.fetch == 0),
        )),
        Plan::Distinct { input } => {
            let input = operator(input, bound, inputs)?;
            Box::new(Distinct::new(input, bound.memory_max))
        }
    })
}
