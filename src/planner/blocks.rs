//! The distribution of a SELECT from that of its FROM: subqueries, grouping, windows, DISTINCT, LIMIT, set operations.

use std::rc::Rc;

use super::analyse::{Analysis, Block, Ctes, Dist, Distributed, Part, Rel, Uses, node_id, refusal};
use super::condition::{Conj, conjuncts, or};
use super::joins::same_sharding;
use super::outputs::{Output, Outputs};
use super::scope::{AttrId, Env, Resolved, Scope};
use crate::plan::{KeyCondition, Refusal};
use crate::sql::Child;
use crate::sql::ast::{self, a_const::Val, node::Node};
use crate::types::oid;

impl<'a> Analysis<'a> {
    /// Analyses a SELECT with everything below it.
    pub(super) fn select(
        &mut self,
        s: &'a ast::SelectStmt,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Rel, Refusal> {
        self.enter(node_id(s));
        let result = self.select_block(s, env, ctes);
        let correlated = self.leave();
        let mut block = result?;
        block.correlated = correlated;
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
        for o in &outputs.list {
            if let Some(attr) = o.attr {
                self.mark_used(attr);
            }
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
        for node in &s.group_clause {
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
            _ => self.expression(value, scope, env, uses, false),
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
                    "this kind of subquery is not supported",
                    "Write it as a SELECT.",
                    link.location,
                ));
            };
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
        let equal = link.oper_name.is_empty()
            && !self.catalog.user_operators.iter().any(|o| o == "=")
            || self.is_builtin_operator(&link.oper_name, "=");
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
            from.dist = Dist::Global(refusal(
                "an aggregate of an outer query's columns is not supported over several shards",
                "Aggregate in the outer query.",
                location,
            ));
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

    fn grouped_dist(
        &self,
        s: &'a ast::SelectStmt,
        from: &Dist,
        uses: &Uses<'a>,
        outputs: &Outputs<'a>,
        grouped: bool,
    ) -> Dist {
        let Dist::Sharded(d) = from else {
            return from.clone();
        };
        let mut keys = d.keys.clone();
        if grouped {
            let by: Vec<AttrId> = s
                .group_clause
                .iter()
                .filter_map(|g| self.grouping_attr(s, g, outputs))
                .collect();
            let plain = s
                .group_clause
                .iter()
                .all(|g| !matches!(g.node, Some(Node::GroupingSet(_))));
            keys.retain(|(k, strict)| *strict && by.contains(k));
            if keys.is_empty() || !plain {
                return Dist::Global(self.grouping_refusal(s, uses));
            }
        }
        for w in &uses.windows {
            let by = self.partition_attrs(s, w.over.as_deref());
            if !keys.iter().any(|(k, strict)| *strict && by.contains(k)) {
                return Dist::Global(refusal(
                    "a window function that is not partitioned by the sharding key is not supported here",
                    "Add the sharding key to PARTITION BY.",
                    w.location,
                ));
            }
        }
        Dist::Sharded(Distributed {
            sharding: d.sharding.clone(),
            keys,
        })
    }

    fn grouping_refusal(&self, s: &ast::SelectStmt, uses: &Uses<'_>) -> Refusal {
        let location = uses.aggregates.first().map_or(-1, |a| a.location);
        let hint = match s.group_clause.is_empty() {
            true => "Restrict the query to one shard by its sharding key.",
            false => "Add the sharding key to GROUP BY.",
        };
        refusal(
            "grouping rows of several shards is not supported here",
            hint,
            location,
        )
    }

    /// The column a GROUP BY item is, ordinals and output names followed.
    fn grouping_attr(
        &self,
        s: &'a ast::SelectStmt,
        item: &'a ast::Node,
        outputs: &Outputs<'a>,
    ) -> Option<AttrId> {
        match self.output_of(s, item, outputs) {
            Some(output) => output.attr,
            None => self.plain_attr(item),
        }
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

    /// The plain columns in a window's PARTITION BY, a named window's followed.
    fn partition_attrs(
        &self,
        s: &'a ast::SelectStmt,
        over: Option<&'a ast::WindowDef>,
    ) -> Vec<AttrId> {
        let Some(over) = over else { return Vec::new() };
        let named = |name: &str| {
            s.window_clause.iter().find_map(|w| match &w.node {
                Some(Node::WindowDef(w)) if w.name == name => Some(&**w),
                _ => None,
            })
        };
        let mut out: Vec<AttrId> = over
            .partition_clause
            .iter()
            .filter_map(|p| self.plain_attr(p))
            .collect();
        // `OVER w` has its name in `name`, `OVER (w …)` in `refname`.
        for name in [&over.name, &over.refname] {
            if !name.is_empty()
                && let Some(w) = named(name)
                && !std::ptr::eq(w, over)
            {
                out.extend(self.partition_attrs(s, Some(w)));
            }
        }
        out
    }

    fn distinct_dist(&self, s: &'a ast::SelectStmt, plain: &Dist, outputs: &Outputs<'a>) -> Dist {
        let Dist::Sharded(d) = plain else {
            return plain.clone();
        };
        if s.distinct_clause.is_empty() {
            return plain.clone();
        }
        let on: Vec<&ast::Node> = s
            .distinct_clause
            .iter()
            .filter(|n| n.node.is_some())
            .collect();
        let by: Vec<AttrId> = match on.is_empty() {
            true => outputs.list.iter().filter_map(|o| o.attr).collect(),
            false => on
                .iter()
                .filter_map(|n| self.grouping_attr(s, n, outputs))
                .collect(),
        };
        let keys: Vec<(AttrId, bool)> = d
            .keys
            .iter()
            .filter(|(k, strict)| *strict && by.contains(k))
            .copied()
            .collect();
        match keys.is_empty() {
            false => Dist::Sharded(Distributed {
                sharding: d.sharding.clone(),
                keys,
            }),
            true => Dist::Global(refusal(
                "DISTINCT over rows of several shards is not supported here",
                "Add the sharding key to the columns that are to be distinct.",
                -1,
            )),
        }
    }

    /// Why two shards that hold the same rows may compute different ones.
    fn indefinite(
        &self,
        s: &'a ast::SelectStmt,
        uses: &Uses<'a>,
        outputs: &Outputs<'a>,
        grouped: bool,
    ) -> Option<Refusal> {
        let why = |what: &str| {
            Some(refusal(
                format!("{what} of a reference table beside a sharded one is not supported here"),
                "Compute it in a statement of its own.",
                -1,
            ))
        };
        if !uses.windows.is_empty() {
            return why("a window function");
        }
        if s.distinct_clause.iter().any(|n| n.node.is_some()) {
            return why("DISTINCT ON");
        }
        let exact = |ty: Option<u32>| ty.is_some_and(|t| self.is_bytewise(t));
        if !s.distinct_clause.is_empty() {
            let all = outputs.list.iter().all(|o| {
                exact(
                    o.attr
                        .and_then(|a| self.attrs[a].ty.as_ref().map(|t| t.oid)),
                )
            });
            return if all { None } else { why("DISTINCT") };
        }
        if !grouped {
            return None;
        }
        for call in &uses.aggregates {
            let name = super::functions::bare_name(call).unwrap_or("");
            let arg = call
                .args
                .first()
                .and_then(|a| self.static_type(a))
                .map(|t| t.oid);
            let integer = matches!(arg, Some(oid::INT2 | oid::INT4 | oid::INT8));
            let definite = match name {
                "count" | "bool_and" | "bool_or" | "every" => true,
                "sum" | "avg" => integer || arg == Some(oid::NUMERIC),
                "min" | "max" => exact(arg),
                _ => false,
            };
            if !definite {
                return why("this aggregate");
            }
        }
        let grouped_exactly = s.group_clause.iter().all(|g| {
            let node = match self.output_of(s, g, outputs) {
                Some(o) => o.expression,
                None => Some(g),
            };
            exact(node.and_then(|n| self.static_type(n)).map(|t| t.oid))
        });
        if grouped_exactly {
            None
        } else {
            why("grouping")
        }
    }

    /// Types whose equal values, and no others, print alike: two moments of one time zone may not, except under DateStyle ISO.
    pub(super) fn prints_apart(&self, type_oid: u32) -> bool {
        self.is_bytewise(type_oid) && type_oid != oid::TIMESTAMPTZ
    }

    /// Types whose equal values have equal bytes.
    pub(super) fn is_bytewise(&self, type_oid: u32) -> bool {
        matches!(
            type_oid,
            oid::BOOL
                | oid::INT2
                | oid::INT4
                | oid::INT8
                | oid::OID
                | oid::TEXT
                | oid::VARCHAR
                | oid::CHAR
                | oid::NAME
                | oid::UUID
                | oid::DATE
                | oid::TIME
                | oid::TIMESTAMP
                | oid::TIMESTAMPTZ
                | oid::BYTEA
        ) || self
            .catalog
            .types
            .get(&type_oid)
            .is_some_and(|t| t.kind == b'e')
    }

    /// An aggregate whose columns all belong to queries further out is theirs. One with a subquery in it may be.
    fn outer_aggregate(&self, uses: &Uses<'a>) -> Option<i32> {
        uses.aggregates.iter().find_map(|call| {
            let (mut here, mut out) = (false, false);
            let parts = call.args.iter().chain(&call.agg_order);
            for part in parts.chain(call.agg_filter.as_deref()) {
                crate::sql::walk(Child::Node(part), &mut |c| {
                    let Child::Node(n) = c else { return true };
                    match &n.node {
                        Some(Node::SubLink(_)) => {
                            out = true;
                            return false;
                        }
                        Some(Node::ColumnRef(c)) => match self.colrefs.get(&node_id(c)) {
                            Some(
                                Resolved::Column { levels, .. }
                                | Resolved::WholeRow { levels, .. }
                                | Resolved::Unknown { levels },
                            ) => match levels {
                                0 => here = true,
                                _ => out = true,
                            },
                            _ => here = true,
                        },
                        _ => {}
                    }
                    true
                });
            }
            (out && !here).then_some(call.location)
        })
    }

    fn values(
        &mut self,
        s: &'a ast::SelectStmt,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Block, Refusal> {
        let mut uses = Uses::default();
        let mut width = 0;
        for row in &s.values_lists {
            self.expression(row, &Scope::default(), env, &mut uses, false)?;
            if let Some(Node::List(l)) = &row.node {
                width = l.items.len();
            }
        }
        self.tail_expressions(s, env, &mut uses)?;
        let (mut dist, mut cond) = (Dist::Local, KeyCondition::Never);
        self.detached_sublinks(&uses, env, ctes, &mut dist, &mut cond)?;
        let cols = (1..=width)
            .map(|i| (format!("column{i}"), self.fresh(None)))
            .collect();
        Ok(self.leaf_block(s, dist, cols, cond, false))
    }

    /// LIMIT, OFFSET and, of VALUES, what ORDER BY computes.
    fn tail_expressions(
        &mut self,
        s: &'a ast::SelectStmt,
        env: Option<&Rc<Env>>,
        uses: &mut Uses<'a>,
    ) -> Result<(), Refusal> {
        let sorted = s
            .sort_clause
            .iter()
            .filter(|n| crate::sql::any_node(n, &mut |n| matches!(n, Node::SubLink(_))));
        for node in s
            .limit_count
            .as_deref()
            .into_iter()
            .chain(s.limit_offset.as_deref())
            .chain(sorted)
        {
            self.expression(node, &Scope::default(), env, uses, false)?;
        }
        Ok(())
    }

    /// Subqueries of VALUES and of a set operation's LIMIT: what is not the same on every shard is brought together.
    fn detached_sublinks(
        &mut self,
        uses: &Uses<'a>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
        dist: &mut Dist,
        cond: &mut KeyCondition,
    ) -> Result<(), Refusal> {
        for (link, _) in &uses.sublinks {
            let Some(Node::SelectStmt(query)) =
                link.subselect.as_deref().and_then(|q| q.node.as_ref())
            else {
                continue;
            };
            let sub = self.select(query, env, ctes)?;
            *cond = or(cond.clone(), sub.cond);
            if !matches!((&sub.dist, &*dist), (Dist::Local, _)) {
                *dist = Dist::Global(refusal(
                    "a subquery in VALUES or LIMIT is not supported over several shards",
                    "Compute it in a statement of its own.",
                    link.location,
                ));
            }
        }
        Ok(())
    }

    fn leaf_block(
        &self,
        s: &ast::SelectStmt,
        unlimited: Dist,
        cols: Vec<(String, AttrId)>,
        cond: KeyCondition,
        open: bool,
    ) -> Block {
        Block {
            dist: limited(s, &unlimited, false),
            from: unlimited.clone(),
            plain: unlimited.clone(),
            unlimited,
            cond,
            cols,
            open,
            grouped: false,
            windows: false,
            correlated: false,
            env: None,
        }
    }

    fn set_operation(
        &mut self,
        s: &'a ast::SelectStmt,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Block, Refusal> {
        let (Some(l), Some(r)) = (s.larg.as_deref(), s.rarg.as_deref()) else {
            return Err(refusal(
                "this kind of set operation is not supported",
                "Write it in full.",
                -1,
            ));
        };
        let left = self.select(l, env, ctes)?;
        let right = self.select(r, env, ctes)?;
        let mut uses = Uses::default();
        self.tail_expressions(s, env, &mut uses)?;
        let pairs: Vec<(AttrId, AttrId)> = left
            .cols
            .iter()
            .zip(&right.cols)
            .map(|(a, b)| (a.1, b.1))
            .collect();
        let mut cols = Vec::with_capacity(pairs.len());
        for ((name, _), (a, b)) in left.cols.iter().zip(&pairs) {
            let same = self.attrs[*a]
                .ty
                .clone()
                .filter(|t| Some(t) == self.attrs[*b].ty.as_ref());
            cols.push((name.clone(), self.fresh(same)));
        }
        let keys = self.common_keys(&left.dist, &right.dist, &pairs, &cols);
        let mut dist = self.set_dist(s, (l, &left), (r, &right), keys, &cols);
        let mut cond = or(left.cond, right.cond);
        self.detached_sublinks(&uses, env, ctes, &mut dist, &mut cond)?;
        let open = left.open || right.open;
        Ok(self.leaf_block(s, dist, cols, cond, open))
    }

    /// Output positions at which both arms have their key.
    fn common_keys(
        &self,
        left: &Dist,
        right: &Dist,
        pairs: &[(AttrId, AttrId)],
        cols: &[(String, AttrId)],
    ) -> Distributed {
        let (Dist::Sharded(l), Dist::Sharded(r)) = (left, right) else {
            return Distributed::default();
        };
        if !same_sharding(l.sharding.as_ref(), r.sharding.as_ref()) {
            return Distributed::default();
        }
        let keys = pairs.iter().zip(cols).filter(|((a, b), _)| {
            l.keys.contains(&(*a, true)) && r.keys.contains(&(*b, true)) && self.comparable(*a, *b)
        });
        Distributed {
            sharding: l.sharding.clone(),
            keys: keys.map(|(_, (_, attr))| (*attr, true)).collect(),
        }
    }

    fn set_dist(
        &mut self,
        s: &ast::SelectStmt,
        (l, left): (&ast::SelectStmt, &Rel),
        (r, right): (&ast::SelectStmt, &Rel),
        keys: Distributed,
        cols: &[(String, AttrId)],
    ) -> Dist {
        let all = s.all && s.op == ast::SetOperation::SetopUnion as i32;
        match (&left.dist, &right.dist) {
            (Dist::Global(why), _) | (_, Dist::Global(why)) => Dist::Global(why.clone()),
            (Dist::Sharded(_), Dist::Sharded(_)) if all || !keys.keys.is_empty() => {
                Dist::Sharded(keys)
            }
            (Dist::Sharded(_), Dist::Local | Dist::Once(_)) if all => {
                self.first_arms.insert(node_id(r));
                Dist::Sharded(keys)
            }
            (Dist::Local | Dist::Once(_), Dist::Sharded(_)) if all => {
                self.first_arms.insert(node_id(l));
                Dist::Sharded(keys)
            }
            (Dist::Local, Dist::Local) => {
                let exact = |attr: &AttrId| {
                    self.attrs[*attr]
                        .ty
                        .as_ref()
                        .is_some_and(|t| self.is_bytewise(t.oid))
                };
                match all || cols.iter().all(|(_, a)| exact(a)) {
                    true => Dist::Local,
                    false => Dist::Once(refusal(
                        "this set operation beside a sharded table is not supported here",
                        "Compute it in a statement of its own.",
                        -1,
                    )),
                }
            }
            (Dist::Once(why), Dist::Local | Dist::Once(_)) | (Dist::Local, Dist::Once(why)) => {
                Dist::Once(why.clone())
            }
            (Dist::Single(a), Dist::Single(b)) if a == b => Dist::Single(*a),
            (Dist::Single(a), Dist::Local) | (Dist::Local, Dist::Single(a)) => Dist::Single(*a),
            _ => Dist::Global(refusal(
                "this set operation over rows of several shards is not supported here",
                "Use UNION ALL, or select the sharding key in the same place of both arms.",
                -1,
            )),
        }
    }
}

/// LIMIT inside a statement counts the rows of all shards.
fn limited(s: &ast::SelectStmt, unlimited: &Dist, tied: bool) -> Dist {
    if s.limit_count.is_none() && s.limit_offset.is_none() {
        return unlimited.clone();
    }
    let why = refusal(
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
