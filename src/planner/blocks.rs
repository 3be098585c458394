//! The distribution of a SELECT from that of its FROM: subqueries, grouping, windows, DISTINCT, LIMIT, set operations.

use std::rc::Rc;

use super::ctes::Ctes;
use super::key_classes::same_sharding;

use super::analyse::{Analysis, Block, Dist, Distributed, Part, Rel, Uses, node_id, refusal};
use super::condition::{Conj, conjuncts, or};
use super::outputs::{Output, Outputs};
use super::scope::{AttrId, Env, Scope};
use crate::metrics::Reason;
use crate::plan::{KeyCondition, Refusal};
use crate::sql::ast::{self, a_const::Val, node::Node};

impl<'a> Analysis<'a> {
    /// Analyses a SELECT with everything below it.
    pub(super) fn select(
        &mut self,
        s: &'a ast::SelectStmt,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Rel, Refusal> {
        self.enter(node_id(s));
        let first = self.attrs.len();
        let result = self.select_block(s, env, ctes);
        let correlated = self.leave();
        let mut block = result?;
        block.correlated = correlated;
        block.attrs = (first, self.attrs.len());
        let rel = Rel {
            dist: block.dist.clone(),
            cols: block.cols.clone(),
            open: block.open,
            cond: block.cond.clone(),
            table: None,
        };
        self.blocks.insert(node_id(s), block);
        Ok(rel)
    }

    fn select_block(
        &mut self,
        s: &'a ast::SelectStmt,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Block, Refusal> {
        if s.into_clause.is_some() {
            return Err(refusal(
                Reason::Schema,
                "SELECT INTO is not supported over several shards",
                "Use CREATE TABLE on each shard.",
                -1,
            ));
        }
        let ctes = self.with_ctes(s.with_clause.as_ref(), env, ctes)?;
        if s.larg.is_some() {
            return self.set_operation(s, env, &ctes);
        }
        if !s.values_lists.is_empty() {
            return self.values(s, env, &ctes);
        }
        let mut part = Part::default();
        for item in &s.from_clause {
            let next = self.table_expression(item, &part, env, &ctes)?;
            part.append(next);
        }
        conjuncts(s.where_clause.as_deref(), &mut part.conjs);
        let uses = self.resolve_clauses(s, &part.scope, env)?;
        let mut from = self.infer_group(&part.leaves, &part.conjs, env);
        if part
            .conjs
            .iter()
            .any(|c| matches!(c, Conj::Expression(n) if never(n)))
        {
            from.cond = KeyCondition::Never;
        }
        let tied = matches!(from.dist, Dist::Local)
            && part
                .leaves
                .iter()
                .any(|l| matches!(l.dist, Dist::Sharded(_)));
        let own = Rc::new(Env {
            scope: part.scope.clone(),
            keys: match &from.dist {
                Dist::Sharded(d) => Some(d.clone()),
                _ => None,
            },
            depth: self.depth(),
            parent: env.cloned(),
        });
        self.sublinks(&uses, &mut from, &own, &ctes)?;
        let outputs = self.outputs(s, &part.scope)?;
        let unread = self.unread.contains(&node_id(s));
        for o in &outputs.list {
            if let Some(attr) = o.attr.filter(|_| !unread || o.expression.is_some()) {
                self.mark_used(attr);
            }
        }
        if outputs.list.iter().any(|o| o.expression.is_none()) {
            let tables = part.scope.items.iter().filter_map(|i| i.table);
            self.whole_rows.extend(tables);
        }
        Ok(self.finish(s, from, tied, &uses, &outputs, own))
    }

    /// Resolves the columns of every clause, ORDER BY and GROUP BY by their own rules.
    fn resolve_clauses(
        &mut self,
        s: &'a ast::SelectStmt,
        scope: &Scope,
        env: Option<&Rc<Env>>,
    ) -> Result<Uses<'a>, Refusal> {
        let mut uses = Uses::default();
        let mut conjs = Vec::new();
        conjuncts(s.where_clause.as_deref(), &mut conjs);
        for conj in conjs {
            if let Conj::Expression(node) = conj {
                self.expression(node, scope, env, &mut uses, true)?;
            }
        }
        for target in super::outputs::targets(s) {
            if let Some(value) = target.val.as_deref() {
                self.target(value, scope, env, &mut uses)?;
            }
        }
        for node in s.having_clause.iter().map(|b| &**b).chain(&s.window_clause) {
            self.expression(node, scope, env, &mut uses, false)?;
        }
        let mut grouped_by = Vec::new();
        for item in &s.group_clause {
            super::dependent::grouped_by(item, &mut grouped_by);
        }
        for node in grouped_by {
            if !is_ordinal(node) && !self.is_output_name(s, node, scope, env, true) {
                self.expression(node, scope, env, &mut uses, false)?;
            }
        }
        for node in s
            .distinct_clause
            .iter()
            .filter(|n| n.node.is_some())
            .chain(&s.sort_clause)
        {
            let inner = match &node.node {
                Some(Node::SortBy(sort)) => sort.node.as_deref().unwrap_or(node),
                _ => node,
            };
            if !is_ordinal(inner) && !self.is_output_name(s, inner, scope, env, false) {
                self.expression(inner, scope, env, &mut uses, false)?;
            }
        }
        for node in s.limit_count.iter().chain(&s.limit_offset) {
            self.expression(node, &Scope::default(), env, &mut uses, false)?;
        }
        Ok(uses)
    }

    fn target(
        &mut self,
        value: &'a ast::Node,
        scope: &Scope,
        env: Option<&Rc<Env>>,
        uses: &mut Uses<'a>,
    ) -> Result<(), Refusal> {
        match &value.node {
            Some(Node::ColumnRef(c)) if super::scope::name_parts(c).is_none() => Ok(()),
            _ => {
                self.in_targets = self.depth() == 1;
                let done = self.expression(value, scope, env, uses, false);
                self.in_targets = false;
                done
            }
        }
    }

    /// True for a bare name that stands for an output column. `input_first` is GROUP BY's precedence.
    pub(super) fn is_output_name(
        &self,
        s: &ast::SelectStmt,
        node: &ast::Node,
        scope: &Scope,
        env: Option<&Rc<Env>>,
        input_first: bool,
    ) -> bool {
        let Some(Node::ColumnRef(c)) = &node.node else {
            return false;
        };
        let Some(parts) = super::scope::name_parts(c) else {
            return false;
        };
        let [name] = parts[..] else { return false };
        let _ = env;
        if input_first && scope.visible.iter().any(|(n, _)| n == name) {
            return false;
        }
        super::outputs::targets(s)
            .any(|t| t.name == name || (t.name.is_empty() && unnamed_is(t, name)))
    }

    fn sublinks(
        &mut self,
        uses: &Uses<'a>,
        from: &mut Rel,
        own: &Rc<Env>,
        ctes: &Ctes<'a>,
    ) -> Result<(), Refusal> {
        for (link, whole) in &uses.sublinks {
            let Some(Node::SelectStmt(query)) =
                link.subselect.as_deref().and_then(|q| q.node.as_ref())
            else {
                return Err(refusal(
                    Reason::Form,
                    "this kind of subquery is not supported",
                    "Write it as a SELECT.",
                    link.location,
                ));
            };
            let exists = link.sub_link_type == ast::SubLinkType::ExistsSublink as i32;
            if exists && is_plain(query) {
                self.unread.insert(node_id(&**query));
            }
            let sub = self.select(query, Some(own), ctes)?;
            let problem = match (&sub.dist, &from.dist) {
                (Dist::Local, _) => None,
                (Dist::Once(why), Dist::Local | Dist::Once(_)) => {
                    from.dist = Dist::Once(why.clone());
                    None
                }
                (Dist::Single(s), Dist::Single(f)) if s == f => None,
                (Dist::Single(s), Dist::Local) if !self.any_sharded(from) => {
                    from.dist = Dist::Single(*s);
                    None
                }
                (Dist::Sharded(inner), Dist::Sharded(outer))
                    if *whole && self.key_in(link, &sub, inner, outer) =>
                {
                    None
                }
                (Dist::Global(why) | Dist::Once(why), _) => Some(why.clone()),
                _ => Some(refusal(
                    Reason::Form,
                    "a subquery over sharded rows that is not tied to the outer row's sharding key is not supported here",
                    "Compare the sharding keys of both in the subquery's WHERE.",
                    link.location,
                )),
            };
            if let Some(why) = problem {
                from.cond = or(from.cond.clone(), sub.cond);
                if !matches!(from.dist, Dist::Global(_)) {
                    from.dist = Dist::Global(Refusal {
                        location: why.location.or(usize::try_from(link.location).ok()),
                        ..why
                    });
                }
            }
        }
        Ok(())
    }

    fn any_sharded(&self, rel: &Rel) -> bool {
        !matches!(rel.cond, KeyCondition::Never)
    }

    /// `outer key IN (SELECT inner key …)` as a condition that rows must pass: equal keys are on one shard.
    fn key_in(
        &self,
        link: &ast::SubLink,
        sub: &Rel,
        inner: &Distributed,
        outer: &Distributed,
    ) -> bool {
        let any = link.sub_link_type == ast::SubLinkType::AnySublink as i32;
        let equal = link.oper_name.is_empty() && self.has_builtin_equality()
            || self.is_builtin_between_builtins(&link.oper_name, "=");
        let test = link.testexpr.as_deref().and_then(|t| self.plain_attr(t));
        let (Some(test), [(_, column)]) = (test, sub.cols.as_slice()) else {
            return false;
        };
        any && equal
            && self.comparable(test, *column)
            && outer.keys.iter().any(|(k, _)| *k == test)
            && inner.keys.iter().any(|(k, _)| k == column)
            && same_sharding(outer.sharding.as_ref(), inner.sharding.as_ref())
    }

    /// Grouping, windows, DISTINCT and LIMIT over what FROM and WHERE gave.
    fn finish(
        &mut self,
        s: &'a ast::SelectStmt,
        from: Rel,
        tied: bool,
        uses: &Uses<'a>,
        outputs: &Outputs<'a>,
        env: Rc<Env>,
    ) -> Block {
        let grouped = !s.group_clause.is_empty()
            || s.having_clause.is_some()
            || !uses.aggregates.is_empty()
            || uses.grouping;
        let windows = !uses.windows.is_empty();
        let mut from = from;
        if let Some(location) = self.outer_aggregate(uses) {
            // It groups the query around this one, which no look at that query alone would show.
            from.dist = Dist::Global(outer_aggregate_refused(location));
        }
        let plain = self.grouped_dist(s, &from.dist, uses, outputs, grouped);
        let mut unlimited = self.distinct_dist(s, &plain, outputs);
        if matches!(unlimited, Dist::Local)
            && !tied
            && let Some(why) = self.indefinite(s, uses, outputs, grouped)
        {
            unlimited = Dist::Once(why);
        }
        let dist = limited(s, &unlimited, tied);
        let cols = self.output_attrs(outputs);
        Block {
            dist,
            from: from.dist,
            cond: from.cond,
            cols,
            open: outputs.open,
            grouped,
            windows,
            correlated: false,
            attrs: (0, 0),
            env: Some(env),
            unlimited,
            plain,
        }
    }

    fn output_attrs(&mut self, outputs: &Outputs<'a>) -> Vec<(String, AttrId)> {
        outputs
            .list
            .iter()
            .map(|o| {
                let attr = match (o.attr, o.expression) {
                    (Some(attr), _) => attr,
                    (None, e) => {
                        let ty = e.and_then(|e| self.static_type(e));
                        self.fresh(ty)
                    }
                };
                (o.name.clone(), attr)
            })
            .collect()
    }

    /// The output column an ordinal or output name of GROUP BY, ORDER BY or DISTINCT ON stands for.
    pub(super) fn output_of<'o>(
        &self,
        _s: &ast::SelectStmt,
        item: &ast::Node,
        outputs: &'o Outputs<'a>,
    ) -> Option<&'o Output<'a>> {
        if let Some(n) = ordinal(item) {
            // Behind a star whose columns are not known, positions are not known either.
            return (!outputs.open)
                .then(|| outputs.list.get(n.checked_sub(1)?))
                .flatten();
        }
        let Some(Node::ColumnRef(c)) = &item.node else {
            return None;
        };
        if self.colrefs.contains_key(&node_id(c)) {
            return None;
        }
        let parts = super::scope::name_parts(c)?;
        let [name] = parts[..] else { return None };
        outputs.list.iter().find(|o| o.name == name)
    }
}

/// A query in which nothing but the select list can mean a star's columns.
fn is_plain(s: &ast::SelectStmt) -> bool {
    s.larg.is_none()
        && s.distinct_clause.is_empty()
        && s.group_clause.is_empty()
        && s.sort_clause.is_empty()
}

/// Where an aggregate groups a query around its own.
pub(super) fn outer_aggregate_refused(location: i32) -> Refusal {
    refusal(
        Reason::Form,
        "an aggregate of an outer query's columns is not supported over several shards",
        "Aggregate in the outer query.",
        location,
    )
}

/// LIMIT inside a statement counts the rows of all shards.
pub(super) fn limited(s: &ast::SelectStmt, unlimited: &Dist, tied: bool) -> Dist {
    if s.limit_count.is_none() && s.limit_offset.is_none() {
        return unlimited.clone();
    }
    let why = refusal(
        Reason::Form,
        "LIMIT inside a query over several shards is not supported here",
        "Restrict the inner query to one shard by its sharding key.",
        -1,
    );
    match unlimited {
        Dist::Local if tied => Dist::Local,
        Dist::Local => Dist::Once(why),
        Dist::Sharded(_) => Dist::Global(why),
        other => other.clone(),
    }
}

fn never(node: &ast::Node) -> bool {
    match &node.node {
        Some(Node::AConst(c)) => c.isnull || matches!(&c.val, Some(Val::Boolval(b)) if !b.boolval),
        _ => false,
    }
}

pub(super) fn ordinal(node: &ast::Node) -> Option<usize> {
    match &node.node {
        Some(Node::AConst(c)) => match c.val.as_ref()? {
            Val::Ival(i) => usize::try_from(i.ival).ok(),
            _ => None,
        },
        _ => None,
    }
}

fn is_ordinal(node: &ast::Node) -> bool {
    matches!(&node.node, Some(Node::AConst(_)))
}

fn unnamed_is(target: &ast::ResTarget, name: &str) -> bool {
    target
        .val
        .as_deref()
        .is_some_and(|v| super::outputs::column_name(v).1 == name)
}
