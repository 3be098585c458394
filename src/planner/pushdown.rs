//! A statement that is the union of itself over the shards: one Remote below Gather, GatherMerge and Limit.

use std::cell::RefCell;

use super::bounds::{limit, push_limit};
use super::order::direction;

use super::analyse::{Analysis, Block, Dist, TableUse, node_id, refusal};
use super::outputs::Outputs;
use super::rewrite::Rewrite;
use super::types::{collation, is_collatable, stage_column};
use super::{Fact, Probe, ProbedColumn, Request};
use crate::catalog::Distribution;
use crate::metrics::Reason;
use crate::plan::{
    Extra, KeyCondition, Plan, Refusal, Remote, SqlPart, Stage, StageColumn, Targets,
};
use crate::sql::ast::{self, node::Node};
use crate::sql::verified_select_text;

/// Why planning stops before there is a plan.
#[derive(Debug)]
pub(super) enum Stop {
    Refuse(Refusal),
    Ask(Vec<Probe>),
}

impl From<Refusal> for Stop {
    fn from(r: Refusal) -> Self {
        Self::Refuse(r)
    }
}

/// One statement being planned over several shards.
pub(super) struct FanOut<'p, 'a> {
    pub(super) request: &'p Request<'p>,
    pub(super) analysis: &'p Analysis<'a>,
    pub(super) select: &'a ast::SelectStmt,
    pub(super) block: &'p Block,
    pub(super) parameters: usize,
    pub(super) volatile: bool,
    /// Something in it must be computed once, by one server: its tables become stages.
    pub(super) merge_only: bool,
}

impl<'p, 'a> FanOut<'p, 'a> {
    /// The cheapest plan there is; what cannot be done otherwise is brought to a merge session.
    pub(super) fn plan(&self) -> Result<Plan, Stop> {
        if let Some(why) = &self.analysis.shown_columns {
            return match is_distributive(self.block) && !self.merge_only {
                true => self.push_down(),
                false => Err(why.clone().into()),
            };
        }
        if self.merge_only {
            return self.gather_all();
        }
        let cheaper = match is_distributive(self.block) {
            true => self.push_down().map(Some),
            false => match self.aggregate() {
                Ok(None) => self.distinct(),
                done => done,
            },
        };
        match cheaper {
            Ok(Some(plan)) => Ok(plan),
            Ok(None) => self.gather_all(),
            Err(ask @ Stop::Ask(_)) => Err(ask),
            // An order, LIMIT or type that cannot be followed there: the merge session can.
            Err(Stop::Refuse(why)) => self.gather_all().map_err(|stop| match stop {
                Stop::Refuse(_) => Stop::Refuse(why),
                ask @ Stop::Ask(_) => ask,
            }),
        }
    }

    pub(super) fn targets(&self, cond: &KeyCondition) -> Targets {
        match cond {
            KeyCondition::Any => Targets::All,
            cond => Targets::Keyed(cond.clone()),
        }
    }

    pub(super) fn rewrite(&self, empty_arms: bool) -> Rewrite<'p, 'a> {
        Rewrite {
            analysis: self.analysis,
            first_extra: self.parameters as i32 + 1,
            clocks: RefCell::default(),
            empty_arms,
        }
    }

    pub(super) fn probe_columns(&self, sql: &str) -> Result<&'p [ProbedColumn], Stop> {
        let probe = Probe::Columns {
            sql: sql.to_owned(),
        };
        match self.request.facts.get(&probe) {
            Some(Fact::Columns(columns)) => Ok(columns),
            Some(Fact::Value(_)) => Err(refusal(
                Reason::Other,
                "the statement's columns are not known",
                "Try again.",
                -1,
            )
            .into()),
            None => Err(Stop::Ask(vec![probe])),
        }
    }

    /// The plan of a distributive block.
    pub(super) fn push_down(&self) -> Result<Plan, Stop> {
        let s = self.select;
        let count = self.bound(s.limit_count.as_deref())?;
        let offset = self.bound(s.limit_offset.as_deref())?;
        let limited = s.limit_count.is_some() || s.limit_offset.is_some();
        self.check_locking(limited)?;
        if s.sort_clause.is_empty() {
            let (sql, first_sql, extra) = self.render(|select| {
                push_limit(select, count, offset);
            })?;
            let remote = self.remote(sql, first_sql, extra, self.width()?, 0);
            return Ok(limit(gather(remote), count, offset));
        }
        self.ordered(count, offset)
    }

    /// DISTINCT over distributive rows: each shard's distinct rows, made distinct together.
    pub(super) fn distinct(&self) -> Result<Option<Plan>, Stop> {
        let s = self.select;
        let plain = matches!(self.block.plain, Dist::Sharded(_))
            && !s.distinct_clause.is_empty()
            && s.distinct_clause.iter().all(|n| n.node.is_none())
            && s.larg.is_none();
        if !plain {
            return Ok(None);
        }
        let width = self.width()?;
        let rewrite = |empty_arms| -> Result<(String, Vec<Extra>), Stop> {
            let rewrite = self.rewrite(empty_arms);
            let mut select = rewrite.copy(s);
            select.sort_clause.clear();
            select.limit_count = None;
            select.limit_offset = None;
            select.limit_option = ast::LimitOption::Default as i32;
            Ok((print(&select)?, rewrite.extras()))
        };
        let (sql, now) = rewrite(true)?;
        let with_first = rewrite(false)?.0;
        let first_sql = (with_first != sql).then_some(with_first);
        let remote = self.remote(sql, first_sql, now, width, 0);
        if self.is_distinct_by_bytes() {
            return Ok(Some(Plan::Distinct {
                input: Box::new(gather(remote)),
            }));
        }
        let keys = self.keys()?;
        let columns: Vec<String> = (1..=width).map(|i| format!("c{i}")).collect();
        let stage = self.probed_stage(1, remote, &columns)?;
        let visible: Vec<String> = columns.iter().map(|c| format!("s.{c}")).collect();
        let mut order = Vec::new();
        for key in &keys {
            let Some(output) = key.output else {
                return Err(refusal(
                    Reason::Form,
                    "this ORDER BY cannot be followed over several shards",
                    "Order by an output column.",
                    key.item.location,
                )
                .into());
            };
            order.push(format!("s.c{}{}", output + 1, direction(key)));
        }
        let order = match order.is_empty() {
            true => String::new(),
            false => format!(" ORDER BY {}", order.join(", ")),
        };
        Ok(Some(Plan::Combine {
            sql: vec![
                SqlPart::Text(format!("SELECT DISTINCT {} FROM ", visible.join(", "))),
                SqlPart::Stage(0),
                SqlPart::Text(format!(" AS s{order}{}", self.original_limit(&keys)?)),
            ],
            stages: vec![stage],
            extra: Vec::new(),
        }))
    }

    /// True when rows are equal exactly when their bytes are, and no order or LIMIT follows.
    fn is_distinct_by_bytes(&self) -> bool {
        let s = self.select;
        let catalog = self.analysis.catalog;
        let bytewise = |ty: &super::scope::Ty| {
            self.analysis.prints_apart(ty.oid)
                && (!is_collatable(catalog, ty.oid)
                    || collation(catalog, ty.collation).is_some_and(|c| c.deterministic))
        };
        s.sort_clause.is_empty()
            && s.limit_count.is_none()
            && s.limit_offset.is_none()
            && !self.block.open
            && self
                .block
                .cols
                .iter()
                .all(|(_, a)| self.analysis.attrs[*a].ty.as_ref().is_some_and(bytewise))
    }

    fn check_locking(&self, limited: bool) -> Result<(), Refusal> {
        let waits = |n: &ast::Node| matches!(&n.node, Some(Node::LockingClause(l)) if l.wait_policy == ast::LockWaitPolicy::LockWaitSkip as i32);
        let clauses = &self.select.locking_clause;
        if clauses.is_empty() {
            return Ok(());
        }
        if limited || self.may_lock_reference_rows() || clauses.iter().any(waits) {
            return Err(refusal(
                Reason::Lock,
                "FOR UPDATE with LIMIT, SKIP LOCKED or reference tables is not supported over several shards",
                "Lock the rows of one shard by its sharding key.",
                -1,
            ));
        }
        Ok(())
    }

    /// False when every FROM item that is locked is a sharded table: FOR UPDATE reaches neither subqueries in expressions
    /// nor, with OF, the other items.
    fn may_lock_reference_rows(&self) -> bool {
        let is_reference =
            |used: &TableUse| matches!(used.table.distribution, Distribution::Reference);
        if !self.analysis.tables.values().any(is_reference) {
            return false;
        }
        let is_sharded = |item: &ast::Node| match &item.node {
            Some(Node::RangeVar(v)) => {
                let used = self.analysis.tables.get(&node_id(v));
                used.is_some_and(|used| !is_reference(used))
            }
            _ => false,
        };
        let locks = |clause: &ast::Node, item: &ast::Node| match &clause.node {
            Some(Node::LockingClause(l)) => {
                l.locked_rels.is_empty() || l.locked_rels.iter().any(|r| is_named(item, r))
            }
            _ => true,
        };
        let clauses = &self.select.locking_clause;
        let is_locked = |item: &ast::Node| clauses.iter().any(|c| locks(c, item));
        let mut items = Vec::new();
        self.select
            .from_clause
            .iter()
            .for_each(|item| leaves(item, &mut items));
        !items
            .into_iter()
            .filter(|item| is_locked(item))
            .all(is_sharded)
    }

    /// Number of columns the client gets.
    pub(super) fn width(&self) -> Result<usize, Stop> {
        match self.block.open {
            false => Ok(self.block.cols.len()),
            true => Ok(self.probe_columns(self.request.sql)?.len()),
        }
    }

    /// The statement's text after edits, once for every shard and, where that differs, once for the first.
    pub(super) fn render(
        &self,
        edit: impl Fn(&mut ast::SelectStmt),
    ) -> Result<(String, Option<String>, Vec<Extra>), Stop> {
        let text = |empty_arms| -> Result<(String, Vec<Extra>), Stop> {
            let rewrite = self.rewrite(empty_arms);
            let mut select = rewrite.copy(self.select);
            edit(&mut select);
            let now = rewrite.extras();
            // What needs no edit goes out as the client wrote it: error positions stay right.
            if select == *self.select {
                return Ok((self.request.sql.to_owned(), now));
            }
            Ok((print(&select)?, now))
        };
        let (sql, now) = text(true)?;
        let first_sql = match self.analysis.first_arms.is_empty() {
            true => None,
            false => Some(text(false)?.0),
        };
        Ok((sql, first_sql, now))
    }

    pub(super) fn remote(
        &self,
        sql: String,
        first_sql: Option<String>,
        extra: Vec<Extra>,
        visible: usize,
        hidden: usize,
    ) -> Remote {
        Remote {
            targets: self.targets(&self.block.cond),
            sql,
            first_sql,
            visible,
            hidden,
            extra,
        }
    }

    pub(super) fn outputs(&self) -> Option<Outputs<'a>> {
        let scope = &self.block.env.as_ref()?.scope;
        self.analysis.outputs(self.select, scope).ok()
    }

    /// A stage of a remote's rows, typed by asking what the remote returns.
    pub(super) fn probed_stage(
        &self,
        number: usize,
        remote: Remote,
        columns: &[String],
    ) -> Result<Stage, Stop> {
        Ok(Stage {
            name: format!("stage_{number}"),
            columns: self.probed_columns(&remote, columns)?,
            plan: gather(remote),
            filters: Vec::new(),
        })
    }

    /// The columns of a stage of a remote's rows.
    pub(super) fn probed_columns(
        &self,
        remote: &Remote,
        names: &[String],
    ) -> Result<Vec<StageColumn>, Stop> {
        let probed = self.probe_columns(&remote.sql)?;
        if probed.len() != names.len() {
            return Err(refusal(
                Reason::Other,
                "the statement's columns are not known",
                "Name the columns instead of using a star.",
                -1,
            )
            .into());
        }
        let mut out = Vec::new();
        for (name, p) in names.iter().zip(probed) {
            let column = stage_column(self.analysis.catalog, name.clone(), p).ok_or_else(|| {
                refusal(
                    Reason::Form,
                    "a column of this type cannot be brought together from several shards",
                    "Cast the column to text.",
                    -1,
                )
            })?;
            out.push(column);
        }
        Ok(out)
    }
}

pub(super) fn unprintable(reason: String) -> Stop {
    refusal(
        Reason::Form,
        format!("the statement cannot be rewritten: {reason}"),
        "Write it in another form.",
        -1,
    )
    .into()
}

pub(super) fn print(select: &ast::SelectStmt) -> Result<String, Stop> {
    verified_select_text(select).map_err(unprintable)
}

pub(super) fn gather(remote: Remote) -> Plan {
    Plan::Gather {
        input: Box::new(Plan::Remote(remote)),
    }
}

/// A target with a name.
pub(super) fn target(value: ast::Node, name: &str) -> ast::Node {
    ast::Node {
        node: Some(Node::ResTarget(Box::new(ast::ResTarget {
            name: name.into(),
            val: Some(Box::new(value)),
            ..Default::default()
        }))),
    }
}

/// True for a block that pushes down as a whole, its LIMIT and ORDER BY left aside.
pub(super) fn is_distributive(block: &Block) -> bool {
    matches!(block.unlimited, Dist::Sharded(_))
}

/// The items that a FROM item joins.
fn leaves<'n>(item: &'n ast::Node, found: &mut Vec<&'n ast::Node>) {
    match &item.node {
        Some(Node::JoinExpr(join)) => {
            let sides = [&join.larg, &join.rarg];
            sides
                .into_iter()
                .flatten()
                .for_each(|side| leaves(side, found));
        }
        _ => found.push(item),
    }
}

/// True unless the item surely has another name than the one behind FOR UPDATE OF.
fn is_named(item: &ast::Node, rel: &ast::Node) -> bool {
    let (Some(Node::RangeVar(v)), Some(Node::RangeVar(rel))) = (&item.node, &rel.node) else {
        return true;
    };
    let alias = v.alias.as_ref().map_or(&v.relname, |a| &a.aliasname);
    *alias == rel.relname
}
