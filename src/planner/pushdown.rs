//! A statement that is the union of itself over the shards: one Remote below Gather, GatherMerge and Limit.

use std::cell::Cell;

use super::analyse::{Analysis, Block, Dist, refusal};
use super::outputs::{Outputs, targets};
use super::rewrite::Rewrite;
use super::types::{
    base_type, collation, collation_named, is_collatable, is_comparable, is_orderable, stage_column,
};
use super::{Fact, Probe, ProbedColumn, Request};
use crate::plan::{
    Collation, Count, Extra, KeyCondition, Plan, Refusal, Remote, SortKey, SqlPart, Stage, Targets,
};
use crate::sql::ast::{self, a_const::Val, node::Node};
use crate::sql::{any_node, expression_text, verified_select_text};
use crate::types::oid;

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
}

/// One ORDER BY item.
pub(super) struct Key<'a> {
    pub(super) text: String,
    pub(super) item: &'a ast::SortBy,
    /// Position among the outputs, when it stands for one.
    pub(super) output: Option<usize>,
    pub(super) expression: &'a ast::Node,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

/// LIMIT or OFFSET as far as it is known when planning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    None,
    Rows(u64),
    Parameter(usize),
    /// The shards raise the error themselves.
    Negative,
}

impl<'p, 'a> FanOut<'p, 'a> {
    pub(super) fn targets(&self, cond: &KeyCondition) -> Targets {
        match cond {
            KeyCondition::Any => Targets::All,
            cond => Targets::Keyed(cond.clone()),
        }
    }

    pub(super) fn rewrite(&self, empty_arms: bool) -> Rewrite<'p, 'a> {
        Rewrite {
            analysis: self.analysis,
            now_parameter: self.parameters as i32 + 1,
            used_now: Cell::new(false),
            empty_arms,
        }
    }

    pub(super) fn probe_columns(&self, sql: &str) -> Result<&'p [ProbedColumn], Stop> {
        let probe = Probe::Columns {
            sql: sql.to_owned(),
        };
        match self.request.facts.get(&probe) {
            Some(Fact::Columns(columns)) => Ok(columns),
            Some(Fact::Value(_)) => {
                Err(refusal("the statement's columns are not known", "Try again.", -1).into())
            }
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
        let rewrite = |empty_arms| -> Result<(String, bool), Stop> {
            let rewrite = self.rewrite(empty_arms);
            let mut select = rewrite.copy(s);
            select.sort_clause.clear();
            select.limit_count = None;
            select.limit_offset = None;
            select.limit_option = ast::LimitOption::Default as i32;
            Ok((print(&select)?, rewrite.used_now.get()))
        };
        let (sql, now) = rewrite(true)?;
        let with_first = rewrite(false)?.0;
        let first_sql = (with_first != sql).then_some(with_first);
        let mut remote = self.remote(sql, first_sql, extras(now), width, 0);
        if self.is_distinct_by_bytes() {
            return Ok(Some(Plan::Distinct {
                input: Box::new(gather(remote)),
            }));
        }
        let keys = self.keys()?;
        let columns: Vec<String> = (1..=width).map(|i| format!("c{i}")).collect();
        let stage = self.probed_stage(1, &mut remote, &columns)?;
        let visible: Vec<String> = columns.iter().map(|c| format!("s.{c}")).collect();
        let mut order = Vec::new();
        for key in &keys {
            let Some(output) = key.output else {
                return Err(refusal(
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
        let replicated = self.analysis.tables.values().any(|t| {
            matches!(
                t.table.distribution,
                crate::catalog::Distribution::Reference
            )
        });
        if limited || replicated || clauses.iter().any(waits) {
            return Err(refusal(
                "FOR UPDATE with LIMIT, SKIP LOCKED or reference tables is not supported over several shards",
                "Lock the rows of one shard by its sharding key.",
                -1,
            ));
        }
        Ok(())
    }

    /// Number of columns the client gets.
    pub(super) fn width(&self) -> Result<usize, Stop> {
        match self.block.open {
            false => Ok(self.block.cols.len()),
            true => Ok(self.probe_columns(self.request.sql)?.len()),
        }
    }

    /// The statement's text after edits, once for every shard and, where that differs, once for the first.
    fn render(
        &self,
        edit: impl Fn(&mut ast::SelectStmt),
    ) -> Result<(String, Option<String>, Vec<Extra>), Stop> {
        let text = |empty_arms| -> Result<(String, bool), Stop> {
            let rewrite = self.rewrite(empty_arms);
            let mut select = rewrite.copy(self.select);
            edit(&mut select);
            let now = rewrite.used_now.get();
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
        Ok((sql, first_sql, extras(now)))
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

    fn ordered(&self, count: Bound, offset: Bound) -> Result<Plan, Stop> {
        let s = self.select;
        let keys = self.keys()?;
        let width = self.width()?;
        let with_ties = s.limit_option == ast::LimitOption::WithTies as i32;
        let wrap = s.larg.is_some()
            || !s.distinct_clause.is_empty()
            || !s.values_lists.is_empty()
            || self.volatile
            || self.returns_sets()
            || keys
                .iter()
                .any(|k| k.output.is_some_and(|o| self.starred(o)));
        let (sql, first_sql, extra) = match wrap {
            true => self.wrapped(&keys, width, count, offset, with_ties)?,
            false => self.appended(&keys, count, offset)?,
        };
        let hidden = keys.len();
        match self.sort_keys(&keys, &sql, width)? {
            Some(sort_keys) if !with_ties => {
                let remote = self.remote(sql, first_sql, extra, width, hidden);
                let merge = Plan::GatherMerge {
                    input: Box::new(Plan::Remote(remote)),
                    keys: sort_keys,
                };
                Ok(limit(merge, count, offset))
            }
            _ => self.sorted_on_merge_session(&keys, width, sql, first_sql, extra),
        }
    }

    fn returns_sets(&self) -> bool {
        let mut found = false;
        for target in targets(self.select) {
            let Some(value) = target.val.as_deref() else {
                continue;
            };
            found |= any_node(value, &mut |n| match n {
                Node::FuncCall(f) => {
                    super::functions::find(self.analysis.catalog, self.request.search_path, f)
                        .is_none_or(|c| c.returns_set)
                }
                _ => false,
            });
        }
        found
    }

    /// True for an output that a star stands for: it has no expression to repeat.
    fn starred(&self, output: usize) -> bool {
        self.outputs()
            .is_none_or(|o| o.list.get(output).is_none_or(|o| o.expression.is_none()))
    }

    pub(super) fn outputs(&self) -> Option<Outputs<'a>> {
        let scope = &self.block.env.as_ref()?.scope;
        self.analysis.outputs(self.select, scope).ok()
    }

    /// What ORDER BY's items mean.
    pub(super) fn keys(&self) -> Result<Vec<Key<'a>>, Stop> {
        let outputs = self.outputs();
        let mut keys = Vec::new();
        for node in &self.select.sort_clause {
            let Some(Node::SortBy(item)) = &node.node else {
                continue;
            };
            let Some(expression) = item.node.as_deref() else {
                continue;
            };
            let output = match &outputs {
                Some(outputs) => self.output_position(expression, outputs),
                None => self.set_output(expression),
            };
            if output.is_none()
                && (outputs.is_none() || super::blocks::ordinal(expression).is_some())
            {
                return Err(refusal(
                    "this ORDER BY cannot be followed over several shards",
                    "Order by a column's name.",
                    item.location,
                )
                .into());
            }
            keys.push(Key {
                text: key_text(item, expression),
                item,
                output,
                expression,
                descending: descending(item)?,
                nulls_first: nulls_first(item)?,
            });
        }
        Ok(keys)
    }

    fn output_position(&self, expression: &'a ast::Node, outputs: &Outputs<'a>) -> Option<usize> {
        if let Some(n) = super::blocks::ordinal(expression) {
            return (!outputs.open && (1..=outputs.list.len()).contains(&n)).then(|| n - 1);
        }
        let found = self.analysis.output_of(self.select, expression, outputs);
        if let Some(found) = found {
            return outputs.list.iter().position(|o| std::ptr::eq(o, found));
        }
        // Under DISTINCT every key is an output; elsewhere an equal output saves computing a volatile key twice.
        let text = expression_text(expression).ok()?;
        let attr = self.analysis.plain_attr(expression);
        outputs.list.iter().position(|o| {
            (attr.is_some() && o.attr == attr)
                || o.expression
                    .is_some_and(|e| expression_text(e).is_ok_and(|t| t == text))
        })
    }

    /// Set operations and VALUES order by names and positions of their outputs only.
    fn set_output(&self, expression: &ast::Node) -> Option<usize> {
        if let Some(n) = super::blocks::ordinal(expression) {
            return (1..=self.block.cols.len()).contains(&n).then(|| n - 1);
        }
        let Some(Node::ColumnRef(c)) = &expression.node else {
            return None;
        };
        match super::scope::name_parts(c)?[..] {
            [name] => self.block.cols.iter().position(|(n, _)| n == name),
            _ => None,
        }
    }

    /// Keys as further targets of the same SELECT.
    fn appended(
        &self,
        keys: &[Key<'a>],
        count: Bound,
        offset: Bound,
    ) -> Result<(String, Option<String>, Vec<Extra>), Stop> {
        let outputs = self.outputs();
        let rewrite = self.rewrite(false);
        let hidden: Vec<ast::Node> = keys
            .iter()
            .enumerate()
            .map(|(i, k)| {
                let by_output = k
                    .output
                    .and_then(|o| outputs.as_ref()?.list.get(o)?.expression);
                target(
                    rewrite.copy_node(by_output.unwrap_or(k.expression)),
                    &format!("pgbraid_key_{}", i + 1),
                )
            })
            .collect();
        self.render(|select| {
            select.target_list.extend(hidden.iter().cloned());
            push_limit(select, count, offset);
        })
    }

    /// Keys beside the columns of the SELECT as a subquery: `SELECT q.c1, …, q.c2 FROM (…) AS q(c1, …) ORDER BY q.c2`.
    fn wrapped(
        &self,
        keys: &[Key<'a>],
        width: usize,
        count: Bound,
        offset: Bound,
        with_ties: bool,
    ) -> Result<(String, Option<String>, Vec<Extra>), Stop> {
        let mut names: Vec<String> = (1..=width).map(|i| format!("c{i}")).collect();
        let mut key_names = Vec::new();
        let mut extra_targets = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            match key.output {
                Some(o) => key_names.push(format!("c{}", o + 1)),
                None if self.select.larg.is_some() || !self.select.distinct_clause.is_empty() => {
                    return Err(refusal(
                        "this ORDER BY cannot be followed over several shards",
                        "Order by an output column.",
                        key.item.location,
                    )
                    .into());
                }
                None => {
                    extra_targets.push(target(
                        key.expression.clone(),
                        &format!("pgbraid_key_{}", i + 1),
                    ));
                    key_names.push(format!("h{}", i + 1));
                    names.push(format!("h{}", i + 1));
                }
            }
        }
        let text = |empty_arms| -> Result<(String, bool), Stop> {
            let rewrite = self.rewrite(empty_arms);
            let mut inner = rewrite.copy(self.select);
            inner
                .target_list
                .extend(extra_targets.iter().map(|t| rewrite.copy_node(t)));
            if self.select.distinct_clause.iter().all(|n| n.node.is_none()) {
                inner.sort_clause.clear();
            }
            inner.limit_count = None;
            inner.limit_offset = None;
            inner.limit_option = ast::LimitOption::Default as i32;
            let order: Vec<String> = keys
                .iter()
                .zip(&key_names)
                .map(|(k, n)| format!("q.{n}{}", direction(k)))
                .collect();
            let columns: Vec<String> = names[..width]
                .iter()
                .chain(&key_names)
                .map(|n| format!("q.{n}"))
                .collect();
            let sql = format!(
                "SELECT {} FROM ({}) AS q({}) ORDER BY {}{}",
                columns.join(", "),
                print(&inner)?,
                names.join(", "),
                order.join(", "),
                limit_text(count, offset, with_ties),
            );
            Ok((sql, rewrite.used_now.get()))
        };
        let (sql, now) = text(true)?;
        let first_sql = match self.analysis.first_arms.is_empty() {
            true => None,
            false => Some(text(false)?.0),
        };
        Ok((sql, first_sql, extras(now)))
    }

    /// Types and collations of the keys; `None` when the proxy cannot order by one of them.
    fn sort_keys(
        &self,
        keys: &[Key<'a>],
        sql: &str,
        width: usize,
    ) -> Result<Option<Vec<SortKey>>, Stop> {
        let mut out = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let known = match self.static_key(key) {
                Some(known) => known,
                None => self.probed_key(sql, width + i)?,
            };
            let Some(collation) = known else {
                return Ok(None);
            };
            out.push(SortKey {
                text: key.text.clone(),
                descending: key.descending,
                nulls_first: key.nulls_first,
                collation,
            });
        }
        Ok(Some(out))
    }

    /// `Some(None)`: known, and not comparable here. The inner `Option` of the value is for types without collation.
    #[allow(
        clippy::option_option,
        reason = "three answers: not known, not comparable, comparable under a collation or none"
    )]
    fn static_key(&self, key: &Key<'a>) -> Option<Option<Option<Collation>>> {
        let outputs = self.outputs();
        let node = match key.output {
            Some(o) => outputs
                .as_ref()
                .and_then(|list| list.list.get(o))
                .and_then(|o| o.expression),
            None => Some(key.expression),
        };
        let catalog = self.analysis.catalog;
        if let Some(Node::CollateClause(c)) = node.and_then(|n| n.node.as_ref()) {
            let name = match c.collname.last()?.node.as_ref()? {
                Node::String(s) => s.sval.as_str(),
                _ => return None,
            };
            let arg = self.analysis.static_type(c.arg.as_deref()?)?;
            if !is_comparable(catalog, arg.oid) {
                return Some(None);
            }
            return Some(
                collation_named(catalog, name)
                    .filter(is_orderable)
                    .map(Some),
            );
        }
        let ty = match (key.output, node) {
            (Some(o), _) => self.analysis.attrs[self.block.cols.get(o)?.1].ty.clone()?,
            (None, Some(n)) => self.analysis.static_type(n)?,
            (None, None) => return None,
        };
        if !is_comparable(catalog, ty.oid) {
            return Some(None);
        }
        if !is_collatable(catalog, ty.oid) {
            return Some(Some(None));
        }
        if ty.collation == 0 {
            return None;
        }
        Some(
            collation(catalog, ty.collation)
                .filter(is_orderable)
                .map(Some),
        )
    }

    #[allow(clippy::option_option, reason = "as static_key")]
    fn probed_key(&self, sql: &str, column: usize) -> Result<Option<Option<Collation>>, Stop> {
        let catalog = self.analysis.catalog;
        let columns = self.probe_columns(sql)?;
        let Some(probed) = columns.get(column) else {
            return Ok(None);
        };
        if !is_comparable(catalog, probed.type_oid) {
            return Ok(None);
        }
        match (
            is_collatable(catalog, base_type(catalog, probed.type_oid)),
            &probed.collation,
        ) {
            (false, _) => Ok(Some(None)),
            (true, Some(name)) => Ok(collation_named(catalog, name)
                .filter(is_orderable)
                .map(Some)),
            (true, None) => Ok(None),
        }
    }

    /// The merge session orders what the proxy cannot.
    fn sorted_on_merge_session(
        &self,
        keys: &[Key<'a>],
        width: usize,
        sql: String,
        first_sql: Option<String>,
        extra: Vec<Extra>,
    ) -> Result<Plan, Stop> {
        let total = width + keys.len();
        let mut remote = self.remote(sql, first_sql, extra, total, 0);
        let columns: Vec<String> = (1..=total).map(|i| format!("c{i}")).collect();
        let stage = self.probed_stage(1, &mut remote, &columns)?;
        let visible: Vec<String> = columns[..width].iter().map(|c| format!("s.{c}")).collect();
        let order: Vec<String> = keys
            .iter()
            .zip(&columns[width..])
            .map(|(k, c)| format!("s.{c}{}", direction(k)))
            .collect();
        let tail = format!(
            " AS s ORDER BY {}{}",
            order.join(", "),
            self.original_limit(keys)?
        );
        Ok(Plan::Combine {
            sql: vec![
                SqlPart::Text(format!("SELECT {} FROM ", visible.join(", "))),
                SqlPart::Stage(0),
                SqlPart::Text(tail),
            ],
            stages: vec![stage],
            extra: Vec::new(),
        })
    }

    /// A stage of a remote's rows, typed by asking what the remote returns.
    pub(super) fn probed_stage(
        &self,
        number: usize,
        remote: &mut Remote,
        columns: &[String],
    ) -> Result<Stage, Stop> {
        let probed = self.probe_columns(&remote.sql)?;
        if probed.len() != columns.len() {
            return Err(refusal(
                "the statement's columns are not known",
                "Name the columns instead of using a star.",
                -1,
            )
            .into());
        }
        let mut out = Vec::new();
        for (name, p) in columns.iter().zip(probed) {
            let column = stage_column(self.analysis.catalog, name.clone(), p).ok_or_else(|| {
                refusal(
                    "a column of this type cannot be brought together from several shards",
                    "Cast the column to text.",
                    -1,
                )
            })?;
            out.push(column);
        }
        Ok(Stage {
            name: format!("stage_{number}"),
            columns: out,
            plan: gather(remote.clone()),
        })
    }

    /// LIMIT and OFFSET as the client wrote them.
    pub(super) fn original_limit(&self, _keys: &[Key<'a>]) -> Result<String, Stop> {
        let s = self.select;
        let text = |n: &Option<Box<ast::Node>>| {
            n.as_deref()
                .map(expression_text)
                .transpose()
                .map_err(unprintable)
        };
        let mut out = String::new();
        if let Some(m) = text(&s.limit_offset)? {
            out.push_str(&format!(" OFFSET {m}"));
        }
        if let Some(n) = text(&s.limit_count)? {
            match s.limit_option == ast::LimitOption::WithTies as i32 {
                true => out.push_str(&format!(" FETCH FIRST ({n}) ROWS WITH TIES")),
                false => out.push_str(&format!(" LIMIT {n}")),
            }
        }
        Ok(out)
    }

    /// What a LIMIT or OFFSET says; expressions of constants are asked of a shard.
    pub(super) fn bound(&self, node: Option<&ast::Node>) -> Result<Bound, Stop> {
        let Some(node) = node else {
            return Ok(Bound::None);
        };
        if let Some(Node::AConst(c)) = &node.node {
            if c.isnull {
                return Ok(Bound::None);
            }
            let constant = match &c.val {
                Some(Val::Ival(i)) => Some(i64::from(i.ival)),
                Some(Val::Fval(f)) => f.fval.parse().ok(),
                _ => None,
            };
            if let Some(n) = constant {
                return Ok(u64::try_from(n).map_or(Bound::Negative, Bound::Rows));
            }
        }
        if let Some(Node::ParamRef(p)) = &node.node {
            let index = usize::try_from(p.number - 1).unwrap_or(usize::MAX);
            if let Some(&(oid::INT2 | oid::INT4 | oid::INT8)) =
                self.request.parameter_types.get(index)
            {
                return Ok(Bound::Parameter(index));
            }
        }
        let constant = !any_node(node, &mut |n| {
            !matches!(n, Node::AConst(_) | Node::AExpr(_) | Node::TypeCast(_))
        });
        if !constant {
            return Err(refusal(
                "this LIMIT or OFFSET is not supported over several shards",
                "Use a constant or a parameter of an integer type.",
                -1,
            )
            .into());
        }
        let probe = Probe::Value {
            sql: format!(
                "SELECT ({})::int8",
                expression_text(node).map_err(unprintable)?
            ),
        };
        match self.request.facts.get(&probe) {
            Some(Fact::Value(None)) => Ok(Bound::None),
            Some(Fact::Value(Some(text))) => Ok(match text.parse::<i64>() {
                Ok(n) => u64::try_from(n).map_or(Bound::Negative, Bound::Rows),
                Err(_) => {
                    return Err(
                        refusal("this LIMIT is not supported", "Use a constant.", -1).into(),
                    );
                }
            }),
            Some(Fact::Columns(_)) => {
                Err(refusal("this LIMIT is not supported", "Use a constant.", -1).into())
            }
            None => Err(Stop::Ask(vec![probe])),
        }
    }
}

pub(super) fn extras(now: bool) -> Vec<Extra> {
    if now {
        vec![Extra::TransactionTimestamp]
    } else {
        Vec::new()
    }
}

pub(super) fn unprintable(reason: String) -> Stop {
    refusal(
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

pub(super) fn limit(input: Plan, count: Bound, offset: Bound) -> Plan {
    let of = |b| match b {
        Bound::Rows(n) => Some(Count::Rows(n)),
        Bound::Parameter(p) => Some(Count::Parameter(p)),
        Bound::None | Bound::Negative => None,
    };
    let (count, offset) = (of(count), of(offset).filter(|o| *o != Count::Rows(0)));
    match (count, offset) {
        (None, None) => input,
        (count, offset) => Plan::Limit {
            input: Box::new(input),
            count,
            offset,
        },
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

/// The LIMIT each shard gets: any one of them may hold the whole first page, so it is limit + offset rows.
fn limit_text(count: Bound, offset: Bound, with_ties: bool) -> String {
    let sum = match (count, offset) {
        (Bound::None, Bound::Negative) => return " OFFSET -1".into(),
        (Bound::Negative, _) => return " LIMIT -1".into(),
        (Bound::None, _) => return String::new(),
        (Bound::Rows(_) | Bound::Parameter(_), Bound::Negative) => return " OFFSET -1".into(),
        (Bound::Rows(n), Bound::None) => n.to_string(),
        (Bound::Rows(n), Bound::Rows(m)) => n.saturating_add(m).min(i64::MAX as u64).to_string(),
        (Bound::Parameter(n), Bound::None) => format!("${}", n + 1),
        (count, offset) => {
            // NULL means no limit, and least() passes it over.
            let term = |b| match b {
                Bound::Rows(n) => n.to_string(),
                Bound::Parameter(p) => format!("${}::int8::numeric", p + 1),
                Bound::None | Bound::Negative => "0".into(),
            };
            format!(
                "least({} + coalesce({}, 0), {})::int8",
                term(count),
                term(offset),
                i64::MAX
            )
        }
    };
    match with_ties {
        true => format!(" FETCH FIRST ({sum}) ROWS WITH TIES"),
        false => format!(" LIMIT {sum}"),
    }
}

fn push_limit(select: &mut ast::SelectStmt, count: Bound, offset: Bound) {
    if offset == Bound::Negative || count == Bound::Negative {
        return;
    }
    if offset == Bound::None || offset == Bound::Rows(0) {
        if count == Bound::None {
            select.limit_count = None;
        }
        select.limit_offset = None;
        return;
    }
    select.limit_offset = None;
    if select.limit_option == ast::LimitOption::WithTies as i32 {
        // Rare enough to send all rows.
        select.limit_count = None;
        select.limit_option = ast::LimitOption::Default as i32;
        return;
    }
    let text = limit_text(count, offset, false);
    let parsed = crate::sql::parse(&format!("SELECT{text}"));
    let limit = parsed.ok().and_then(|mut v| match v.pop().map(|s| s.node) {
        Some(Node::SelectStmt(s)) => s.limit_count,
        _ => None,
    });
    select.limit_option = match limit.is_some() {
        true => ast::LimitOption::Count as i32,
        false => ast::LimitOption::Default as i32,
    };
    select.limit_count = limit;
}

pub(super) fn direction(key: &Key<'_>) -> String {
    let mut out = String::new();
    if key.descending {
        out.push_str(" DESC");
    }
    match (key.descending, key.nulls_first) {
        (false, true) => out.push_str(" NULLS FIRST"),
        (true, false) => out.push_str(" NULLS LAST"),
        _ => {}
    }
    out
}

fn key_text(item: &ast::SortBy, expression: &ast::Node) -> String {
    let mut text = expression_text(expression).unwrap_or_else(|_| "?".into());
    if descending(item).unwrap_or(false) {
        text.push_str(" DESC");
    }
    text
}

fn descending(item: &ast::SortBy) -> Result<bool, Refusal> {
    use ast::SortByDir as D;
    match D::try_from(item.sortby_dir) {
        Ok(D::SortbyDesc) => Ok(true),
        Ok(D::SortbyUsing) => {
            let mut name = item.use_op.iter().rev().filter_map(|n| match &n.node {
                Some(Node::String(s)) => Some(s.sval.as_str()),
                _ => None,
            });
            match name.next() {
                Some("<") => Ok(false),
                Some(">") => Ok(true),
                _ => Err(refusal(
                    "ORDER BY USING this operator is not supported over several shards",
                    "Use ASC or DESC.",
                    item.location,
                )),
            }
        }
        _ => Ok(false),
    }
}

fn nulls_first(item: &ast::SortBy) -> Result<bool, Refusal> {
    use ast::SortByNulls as N;
    Ok(match N::try_from(item.sortby_nulls) {
        Ok(N::SortbyNullsFirst) => true,
        Ok(N::SortbyNullsLast) => false,
        _ => descending(item)?,
    })
}

/// True for a block that pushes down as a whole, its LIMIT and ORDER BY left aside.
pub(super) fn is_distributive(block: &Block) -> bool {
    matches!(block.unlimited, Dist::Sharded(_))
}
