//! The distribution of set operations and VALUES.

use std::rc::Rc;

use super::analyse::{Analysis, Block, Dist, Distributed, Rel, Uses, node_id, refusal};
use super::blocks::{limited, outer_aggregate_refused};
use super::condition::or;
use super::ctes::Ctes;
use super::key_classes::same_sharding;
use super::scope::{AttrId, Env, Scope};
use crate::metrics::Reason;
use crate::plan::{KeyCondition, Refusal};
use crate::sql::ast::{self, node::Node};

impl<'a> Analysis<'a> {
    pub(super) fn values(
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

    /// Subqueries of VALUES, LIMIT, ON and functions in FROM: what is not the same on every shard is brought together. So is an aggregate
    /// there: it can only be that of a query around, which it groups.
    pub(super) fn detached_sublinks(
        &mut self,
        uses: &Uses<'a>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
        dist: &mut Dist,
        cond: &mut KeyCondition,
    ) -> Result<(), Refusal> {
        if let Some(call) = uses.aggregates.first() {
            *dist = Dist::Global(outer_aggregate_refused(call.location));
        }
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
                    Reason::Form,
                    "a subquery in this place is not supported over several shards",
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
            attrs: (0, 0),
            env: None,
        }
    }

    pub(super) fn set_operation(
        &mut self,
        s: &'a ast::SelectStmt,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Block, Refusal> {
        let (Some(l), Some(r)) = (s.larg.as_deref(), s.rarg.as_deref()) else {
            return Err(refusal(
                Reason::Form,
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
                        Reason::Form,
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
                Reason::Form,
                "this set operation over rows of several shards is not supported here",
                "Use UNION ALL, or select the sharding key in the same place of both arms.",
                -1,
            )),
        }
    }
}
