//! The last resort: every relation of a statement becomes a stage, and the statement runs over the stages as it is.
//!
//! Subqueries and WITH queries that are distributive by themselves become one stage each; of a table come only the
//! columns that something names and the rows that pass the conditions on it alone.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use super::analyse::{Block, node_id, refusal};
use super::condition::{Conj, conjuncts};
use super::flatten::{Flat, flatten, is_star};
use super::outputs::column_name;
use super::pushdown::{FanOut, Stop, gather, print, unprintable};
use super::rewrite::{Rewrite, stage_relation};
use super::samples::sampled_relation;
use super::scope::find_table;
use super::semi_joins::SemiJoins;
use super::stage_conditions::{References, all_of};
use super::stage_rows::keep_operand_whole;
use super::stage_tables::looked_up;
use crate::catalog::TableKind;
use crate::metrics::Reason;
use crate::plan::{Plan, Remote, SqlPart, Stage, StageColumn};
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, ChildMut, children, children_mut, select_children, select_children_mut};

/// What stands for the n-th stage while the statement is still a tree.
const PLACEHOLDER: &str = "pgbraid_stage_";

/// Stages of one statement; more relations than this are refused.
const STAGES_MAX: usize = 64;

/// Rewrites a statement over stages.
pub(super) struct Stager<'f, 'p, 'a> {
    pub(super) fan_out: &'f FanOut<'p, 'a>,
    pub(super) rewrite: Rewrite<'p, 'a>,
    pub(super) stages: RefCell<Vec<Stage>>,
    /// Facts that are still missing, asked for all at once.
    pub(super) asked: RefCell<Vec<super::Probe>>,
    /// Columns of tables that a subquery looks up by a column from further out, see [`StageColumn::joined`].
    pub(super) looked_up: HashSet<(usize, usize)>,
    /// Which stages may restrict which.
    pub(super) semi_joins: RefCell<SemiJoins>,
    /// What names columns where.
    pub(super) references: RefCell<References>,
    /// Of the query in hand only what rows it has counts, not how often: it stands behind EXISTS, IN, ANY or ALL.
    pub(super) is_set: Cell<bool>,
    /// Queries behind these, met so far.
    pub(super) sets: RefCell<HashSet<usize>>,
}

/// Conditions that may move into the stage of the one relation they are about.
pub(super) type Conditions<'a> = Vec<Conj<'a>>;

impl FanOut<'_, '_> {
    /// The plan that pulls everything.
    pub(super) fn gather_all(&self) -> Result<Plan, Stop> {
        if !self.select.locking_clause.is_empty() {
            return Err(refusal(
                Reason::Lock,
                "FOR UPDATE is not supported for this statement over several shards",
                "Lock the rows of one shard by its sharding key.",
                -1,
            )
            .into());
        }
        let stager = Stager {
            fan_out: self,
            rewrite: self.rewrite(false),
            stages: RefCell::new(Vec::new()),
            asked: RefCell::new(Vec::new()),
            looked_up: looked_up(self.analysis, self.select),
            semi_joins: RefCell::default(),
            references: RefCell::new(References::new(self.analysis, self.select)),
            is_set: Cell::new(false),
            sets: RefCell::default(),
        };
        let mut select = self.select.clone();
        stager.select(self.select, &mut select, true)?;
        let asked = stager.asked.into_inner();
        if !asked.is_empty() {
            return Err(Stop::Ask(asked));
        }
        let stages = stager.stages.into_inner();
        let extra = stager.rewrite.extras();
        let text = print(&select)?;
        let mut sql = split(&text, stages.len())?;
        let stages = stager.semi_joins.into_inner().arrange(stages, &mut sql);
        Ok(Plan::Combine { sql, stages, extra })
    }
}

/// Cuts a text at the names that stand for stages.
pub(super) fn split(text: &str, stages: usize) -> Result<Vec<SqlPart>, Stop> {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    let mut rest = text;
    while let Some(at) = rest.find(PLACEHOLDER) {
        let digits: String = rest[at + PLACEHOLDER.len()..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let number: usize = digits.parse().unwrap_or(0);
        if number == 0 || number > stages {
            return Err(unprintable("a name of pgbraid's own appears in it".into()));
        }
        out.push(SqlPart::Text(rest[..at].to_owned()));
        out.push(SqlPart::Stage(number - 1));
        seen.insert(number);
        rest = &rest[at + PLACEHOLDER.len() + digits.len()..];
    }
    out.push(SqlPart::Text(rest.to_owned()));
    if seen.len() != stages {
        return Err(unprintable("a name of pgbraid's own appears in it".into()));
    }
    Ok(out)
}

impl<'a> Stager<'_, '_, 'a> {
    pub(super) fn select(
        &self,
        original: &'a ast::SelectStmt,
        new: &mut ast::SelectStmt,
        top: bool,
    ) -> Result<(), Stop> {
        let block = self.fan_out.analysis.blocks.get(&node_id(original));
        if !original.locking_clause.is_empty() {
            return Err(refusal(
                Reason::Lock,
                "FOR UPDATE in a subquery is not supported over several shards",
                "Lock in a statement of its own.",
                -1,
            )
            .into());
        }
        if let Some(block) = block.filter(|_| !self.fan_out.analysis.reads_samples(original)) {
            if !top && self.is_whole(original, block) && self.whole(original, new, block)? {
                return Ok(());
            }
            if !top && self.partial(original, new, block)? {
                return Ok(());
            }
        }
        self.references.borrow_mut().enter();
        let outer = self.is_set.replace(self.counts_as_set(original, block));
        self.parts(original, new, block)?;
        self.is_set.set(outer);
        self.references.borrow_mut().leave();
        if self.fan_out.analysis.unread.contains(&node_id(original)) {
            new.target_list
                .retain(|t| !matches!(&t.node, Some(Node::ResTarget(t)) if is_star(t)));
        }
        match block {
            Some(block) if block.grouped => self.group_dependent_columns(original, new, block),
            _ => Ok(()),
        }
    }

    /// Edits all clauses, FROM before what names its columns.
    fn parts(
        &self,
        original: &'a ast::SelectStmt,
        new: &mut ast::SelectStmt,
        block: Option<&Block>,
    ) -> Result<(), Stop> {
        let mut conditions = Vec::new();
        conjuncts(original.where_clause.as_deref(), &mut conditions);
        conditions.extend(self.tested(original, block));
        self.note_tests(&conditions);
        let flat = flatten(self.fan_out.analysis, original);
        if let Some(flat) = &flat {
            self.flat_from(flat, &conditions, new)?;
        }
        let done = |o: &ast::Node| {
            let from = || original.from_clause.iter().any(|f| std::ptr::eq(f, o));
            let condition = original.where_clause.as_deref();
            flat.is_some() && (from() || condition.is_some_and(|w| std::ptr::eq(w, o)))
        };
        // The parts that are done are no longer as many.
        let (from, condition) = match &flat {
            Some(_) => {
                let condition = new.where_clause.take();
                (std::mem::take(&mut new.from_clause), condition)
            }
            None => (Vec::new(), None),
        };
        let rest = select_children(original).into_iter();
        let rest = rest.filter(|c| !matches!(c, Child::Node(o) if done(o)));
        for pair in rest.zip(select_children_mut(new)) {
            match pair {
                (Child::Select(o), ChildMut::Select(n)) => self.select(o, n, false)?,
                (Child::Node(o), ChildMut::Node(n)) => match &o.node {
                    Some(
                        Node::RangeVar(_)
                        | Node::JoinExpr(_)
                        | Node::RangeSubselect(_)
                        | Node::RangeFunction(_)
                        | Node::RangeTableSample(_)
                        | Node::RangeTableFunc(_),
                    ) => {
                        self.table_expression(o, n, &conditions)?;
                    }
                    _ => self.expression(o, n)?,
                },
                _ => {}
            }
        }
        if flat.is_some() {
            new.from_clause = from;
            new.where_clause = condition;
        }
        Ok(())
    }

    /// FROM and WHERE of a block: tables that meet on their shard are read together, and what is decided there is not asked again.
    fn flat_from(
        &self,
        flat: &Flat<'a>,
        tests: &Conditions<'a>,
        new: &mut ast::SelectStmt,
    ) -> Result<(), Stop> {
        let mut conditions: Conditions<'a> = flat
            .conditions
            .iter()
            .map(|c| Conj::Expression(c))
            .collect();
        conditions.extend(tests.iter().filter(|c| matches!(c, Conj::Equal(..))));
        let units = self.units(flat);
        self.consume(flat, &units);
        let mut items: Vec<Option<ast::Node>> = vec![None; flat.leaves.len()];
        for unit in &units {
            items[unit.leaves[0]] = Some(self.unit(unit, flat, &conditions)?);
        }
        let of_units: Vec<usize> = units.iter().flat_map(|u| u.leaves.clone()).collect();
        for (leaf, original) in flat.leaves.iter().enumerate() {
            if !of_units.contains(&leaf) {
                let mut copy = (*original).clone();
                self.table_expression(original, &mut copy, &conditions)?;
                items[leaf] = Some(copy);
            }
        }
        let mut left = Vec::new();
        for condition in &flat.conditions {
            if !self.references.borrow().is_consumed(condition) {
                let mut copy = (*condition).clone();
                self.expression(condition, &mut copy)?;
                left.push(copy);
            }
        }
        new.from_clause = items.into_iter().flatten().collect();
        new.where_clause = all_of(left).map(Box::new);
        Ok(())
    }

    /// Adds a stage, and gives its number. Equal ones are one: PostgreSQL matches a GROUP BY, DISTINCT or ORDER BY expression
    /// with one of the select list only while the subqueries in them read the same. Two samples of a table are not equal: `anew`.
    pub(super) fn add(
        &self,
        columns: Vec<StageColumn>,
        remote: Remote,
        anew: bool,
    ) -> Result<usize, Stop> {
        let mut stages = self.stages.borrow_mut();
        let plan = gather(remote);
        let same = |s: &Stage| s.plan == plan && s.columns == columns;
        let known = stages.iter().position(same);
        let known = known.filter(|_| !anew);
        let mut semi_joins = self.semi_joins.borrow_mut();
        semi_joins.read(known.unwrap_or(stages.len()));
        if let Some(at) = known {
            return Ok(at + 1);
        }
        let number = stages.len() + 1;
        if number > STAGES_MAX {
            return Err(refusal(
                Reason::Form,
                "the statement reads too many relations",
                "Split it into several statements.",
                -1,
            )
            .into());
        }
        stages.push(Stage {
            name: format!("stage_{number}"),
            columns,
            plan,
            filters: Vec::new(),
        });
        Ok(number)
    }

    fn table_expression(
        &self,
        original: &'a ast::Node,
        new: &mut ast::Node,
        conditions: &Conditions<'a>,
    ) -> Result<(), Stop> {
        match (&original.node, &mut new.node) {
            (Some(Node::RangeVar(v)), _) => self.range_var(v, new, conditions),
            (Some(Node::RangeTableSample(t)), _) => match sampled_relation(t) {
                Some(v) => self.range_var(v, new, conditions),
                None => Ok(()),
            },
            (Some(Node::JoinExpr(o)), Some(Node::JoinExpr(n))) => self.join(o, n, conditions),
            (Some(Node::RangeSubselect(o)), Some(Node::RangeSubselect(n))) => {
                let (Some(o), Some(n)) = (o.subquery.as_deref(), n.subquery.as_deref_mut()) else {
                    return Ok(());
                };
                if let (Some(Node::SelectStmt(o)), Some(Node::SelectStmt(n))) =
                    (&o.node, &mut n.node)
                {
                    self.select(o, n, false)?;
                }
                Ok(())
            }
            _ => self.expression(original, new),
        }
    }

    /// Conditions of WHERE reach a side of a join only where its rows are not kept without a match.
    fn join(
        &self,
        o: &'a ast::JoinExpr,
        n: &mut ast::JoinExpr,
        conditions: &Conditions<'a>,
    ) -> Result<(), Stop> {
        let mut on = Vec::new();
        conjuncts(o.quals.as_deref(), &mut on);
        let using = self.fan_out.analysis.using.get(&node_id(o));
        let using = using.into_iter().flatten();
        on.extend(using.map(|(l, r)| Conj::Equal(*l, *r)));
        let both: Conditions<'a> = conditions.iter().chain(&on).copied().collect();
        let none = Vec::new();
        let (left, right) = match ast::JoinType::try_from(o.jointype) {
            Ok(ast::JoinType::JoinInner) => (&both, &both),
            Ok(ast::JoinType::JoinLeft) => (conditions, &on),
            Ok(ast::JoinType::JoinRight) => (&on, conditions),
            _ => (&none, &none),
        };
        // Conditions above use the name of the whole join, or of its merged columns, which is none below it.
        let (left, right) = match (&o.alias, &o.join_using_alias) {
            (None, None) => (left, right),
            _ => (&none, &none),
        };
        if let (Some(o), Some(n)) = (o.larg.as_deref(), n.larg.as_deref_mut()) {
            self.table_expression(o, n, left)?;
        }
        if let (Some(o), Some(n)) = (o.rarg.as_deref(), n.rarg.as_deref_mut()) {
            self.table_expression(o, n, right)?;
        }
        if let (Some(o), Some(n)) = (o.quals.as_deref(), n.quals.as_deref_mut()) {
            self.expression(o, n)?;
        }
        Ok(())
    }

    fn range_var(
        &self,
        v: &'a ast::RangeVar,
        new: &mut ast::Node,
        conditions: &Conditions<'a>,
    ) -> Result<(), Stop> {
        let analysis = self.fan_out.analysis;
        if analysis.cte_uses.contains(&node_id(v)) {
            return Ok(());
        }
        if analysis.tables.contains_key(&node_id(v)) {
            *new = self.table(v, conditions)?;
            return Ok(());
        }
        let found = find_table(
            analysis.catalog,
            self.fan_out.request.search_path,
            &v.schemaname,
            &v.relname,
        );
        match found {
            Some(table) if table.kind == TableKind::View => self.view(v, table, new),
            _ => Err(refusal(
                Reason::Undeclared,
                "a relation of this statement is not known",
                "Name its schema.",
                v.location,
            )
            .into()),
        }
    }

    /// Edits below FROM: now(), subqueries, names qualified by a schema.
    fn expression(&self, original: &'a ast::Node, new: &mut ast::Node) -> Result<(), Stop> {
        if self.rewrite.replace_now(original, new) || self.replace_table(original, new) {
            return Ok(());
        }
        match (&original.node, &mut new.node) {
            (Some(Node::SelectStmt(o)), Some(Node::SelectStmt(n))) => {
                return self.select(o, n, false);
            }
            (Some(Node::SubLink(link)), _) => self.note_set(link),
            (Some(Node::ColumnRef(o)), Some(Node::ColumnRef(c))) => {
                self.redirect(o, c);
                self.replace_row(o, new);
                return Ok(());
            }
            (Some(Node::ResTarget(o)), Some(Node::ResTarget(n))) if o.name.is_empty() => {
                return self.target(o, n);
            }
            _ => {}
        }
        let (Some(parts), Some(copies)) = (children(original), children_mut(new)) else {
            return Err(unprintable("it contains something not known".into()));
        };
        for pair in parts.into_iter().zip(copies) {
            match pair {
                (Child::Node(o), ChildMut::Node(n)) => self.expression(o, n)?,
                (Child::Select(o), ChildMut::Select(n)) => self.select(o, n, false)?,
                _ => {}
            }
        }
        keep_operand_whole(original, new);
        Ok(())
    }

    /// A column keeps the name it has by its expression, whatever takes that one's place.
    fn target(&self, original: &'a ast::ResTarget, new: &mut ast::ResTarget) -> Result<(), Stop> {
        let (Some(o), Some(n)) = (original.val.as_deref(), new.val.as_deref_mut()) else {
            return Ok(());
        };
        self.expression(o, n)?;
        let name = column_name(o).1;
        if column_name(n).1 != name {
            new.name = name;
        }
        Ok(())
    }

    /// A primary key in GROUP BY makes the table's other columns usable; a stage has none, so they are grouped by too.
    fn group_dependent_columns(
        &self,
        original: &'a ast::SelectStmt,
        new: &mut ast::SelectStmt,
        block: &Block,
    ) -> Result<(), Stop> {
        if original.group_clause.is_empty() {
            return Ok(());
        }
        let inner = FanOut {
            request: self.fan_out.request,
            analysis: self.fan_out.analysis,
            select: original,
            block,
            parameters: self.fan_out.parameters,
            volatile: false,
            merge_only: false,
        };
        for (base, mut copy) in inner.dependent_columns()? {
            if let Some(Node::ColumnRef(c)) = &mut copy.node {
                self.redirect_to(base, c);
            }
            new.group_clause.push(copy);
        }
        Ok(())
    }
}

pub(super) fn string(text: &str) -> ast::Node {
    ast::Node {
        node: Some(Node::String(ast::String { sval: text.into() })),
    }
}

/// The FROM item of a stage, with an alias and names for its columns.
pub(super) fn aliased(number: usize, alias: &str, names: &[String]) -> ast::Node {
    let mut node = stage_relation(&format!("{PLACEHOLDER}{number}"), alias);
    if let Some(Node::RangeVar(v)) = &mut node.node
        && let Some(a) = &mut v.alias
    {
        a.colnames = names.iter().map(|n| string(n)).collect();
    }
    node
}
