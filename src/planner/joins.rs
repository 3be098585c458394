//! The distribution of joins: which relations meet on the shard they share.

use std::rc::Rc;

use super::ctes::Ctes;
use super::from_items::{alias_columns, alias_name};
use super::key_classes::{Classes, meets, tied};

use super::analyse::{Analysis, Dist, Distributed, Part, Rel, node_id, refusal};
use super::condition::{Conj, and, conjuncts, or};
use super::scope::{AttrId, Env, Item, Scope};
use crate::metrics::Reason;
use crate::plan::{KeyCondition, Refusal};
use crate::sql::ast::{self, node::Node};

impl<'a> Analysis<'a> {
    fn classes(&self, conjs: &[Conj<'_>]) -> Classes {
        Classes::new(conjs.iter().flat_map(|c| self.equalities(c)))
    }

    /// The shards that conditions leave to rows with these keys.
    fn restrict_all(&self, conjs: &[Conj<'_>], classes: &Classes, d: &Distributed) -> KeyCondition {
        let Some(sharding) = &d.sharding else {
            return KeyCondition::Any;
        };
        let keys = classes.close(&d.keys);
        let strict: Vec<(AttrId, bool)> = keys
            .iter()
            .map(|(a, _)| (*a, d.keys.contains(&(*a, true))))
            .collect();
        let mut out = KeyCondition::Any;
        for conj in conjs {
            if let Conj::Expression(node) = conj {
                out = and(out, self.restrict(node, &strict, sharding));
            }
        }
        // `false` as a condition leaves nothing even where the key is not known.
        out
    }

    /// Relations joined by inner joins, under conditions that all their rows must pass.
    pub(super) fn infer_group(
        &mut self,
        leaves: &[Rel],
        conjs: &[Conj<'a>],
        env: Option<&Rc<Env>>,
    ) -> Rel {
        let classes = self.classes(conjs);
        let mut leaves = leaves.to_vec();
        for leaf in &mut leaves {
            if let Dist::Sharded(d) = &leaf.dist {
                let by_conditions = self.restrict_all(conjs, &classes, d);
                leaf.cond = and(
                    std::mem::replace(&mut leaf.cond, KeyCondition::Any),
                    by_conditions,
                );
                self.note_table_condition(leaf);
            }
        }
        let cols = leaves.iter().flat_map(|l| l.cols.iter().cloned()).collect();
        let open = leaves.iter().any(|l| l.open);
        let (dist, cond) = self.combine(&leaves, &classes, env);
        Rel {
            dist,
            cols,
            open,
            cond,
            table: None,
        }
    }

    /// Remembers what restricts a table's own rows, for when it is read by itself.
    fn note_table_condition(&mut self, leaf: &Rel) {
        if let Some(used) = leaf.table.and_then(|t| self.tables.get_mut(&t)) {
            used.cond = leaf.cond.clone();
        }
    }

    fn combine(
        &self,
        leaves: &[Rel],
        classes: &Classes,
        env: Option<&Rc<Env>>,
    ) -> (Dist, KeyCondition) {
        let union = || {
            leaves
                .iter()
                .fold(KeyCondition::Never, |c, l| or(c, l.cond.clone()))
        };
        let mut once = None;
        let mut single = None;
        let mut sharded: Vec<(&Distributed, &KeyCondition)> = Vec::new();
        for leaf in leaves {
            match &leaf.dist {
                Dist::Local => {}
                Dist::Once(why) => once = Some(why.clone()),
                Dist::Global(why) => return (Dist::Global(why.clone()), union()),
                Dist::Single(shard) if single.is_none_or(|s| s == *shard) => single = Some(*shard),
                Dist::Single(_) => return (mixed(), union()),
                Dist::Sharded(d) => sharded.push((d, &leaf.cond)),
            }
        }
        match (sharded.is_empty(), single, once) {
            (true, None, None) => (Dist::Local, KeyCondition::Never),
            (true, None, Some(why)) => (Dist::Once(why), KeyCondition::Never),
            (true, Some(shard), _) => (Dist::Single(shard), KeyCondition::Never),
            (false, Some(_), _) => (mixed(), union()),
            (false, None, Some(why)) => (Dist::Global(why), union()),
            (false, None, None) => match self.colocate(&sharded, classes) {
                Some((d, cond)) if tied(&d, classes, env) => {
                    (Dist::Local, and(cond, KeyCondition::Never))
                }
                Some((d, cond)) => (Dist::Sharded(d), cond),
                None => (
                    Dist::Global(refusal(
                        Reason::Form,
                        "joining sharded tables on other columns than their sharding keys is not supported here",
                        "Join the tables on their sharding keys, or restrict each of them to the same shard.",
                        -1,
                    )),
                    union(),
                ),
            },
        }
    }

    /// Joins sharded relations one after the other through equal keys.
    fn colocate(
        &self,
        relations: &[(&Distributed, &KeyCondition)],
        classes: &Classes,
    ) -> Option<(Distributed, KeyCondition)> {
        let (first, rest) = relations.split_first()?;
        let mut all = first.0.clone();
        let mut cond = first.1.clone();
        let mut rest = rest.to_vec();
        while !rest.is_empty() {
            let next = rest.iter().position(|(d, _)| meets(&all, d, classes))?;
            let (d, c) = rest.swap_remove(next);
            all.keys.extend(&d.keys);
            cond = and(cond, c.clone());
        }
        all.keys = classes.close(&all.keys);
        Some((all, cond))
    }

    pub(super) fn join(
        &mut self,
        j: &'a ast::JoinExpr,
        left_of: &Part<'a>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Part<'a>, Refusal> {
        let missing = || {
            refusal(
                Reason::Form,
                "this kind of join is not supported",
                "Write the join in full.",
                -1,
            )
        };
        let larg =
            self.table_expression(j.larg.as_deref().ok_or_else(missing)?, left_of, env, ctes)?;
        let mut seen = left_of.clone();
        seen.append(larg.clone());
        let rarg =
            self.table_expression(j.rarg.as_deref().ok_or_else(missing)?, &seen, env, ctes)?;
        let mut on = Vec::new();
        conjuncts(j.quals.as_deref(), &mut on);
        let mut scope = larg.scope.clone();
        scope.items.extend(rarg.scope.items.clone());
        scope.visible = self.join_columns(j, &larg.scope, &rarg.scope, &mut on)?;
        let tested = self.resolve_on(j, &scope, (&larg, &rarg), env, ctes)?;
        let kind = ast::JoinType::try_from(j.jointype).map_err(|_| missing())?;
        let mut part = if kind == ast::JoinType::JoinInner {
            let mut leaves = larg.leaves;
            leaves.extend(rarg.leaves);
            let mut conjs = larg.conjs;
            conjs.extend(rarg.conjs);
            conjs.extend(on);
            leaves.extend(tested);
            Part {
                leaves,
                conjs,
                scope,
            }
        } else {
            let left = self.infer_group(&larg.leaves, &larg.conjs, env);
            let right = self.infer_group(&rarg.leaves, &rarg.conjs, env);
            self.outer_joins = true;
            let mut rel = self.outer_join(kind, left, right, &on, &scope)?;
            if let Some(tested) = tested {
                rel.cond = or(rel.cond, tested.cond);
                rel.dist = tested.dist;
            }
            Part {
                leaves: vec![rel],
                conjs: Vec::new(),
                scope,
            }
        };
        if let Some(alias) = &j.join_using_alias {
            part.scope.name_merged(j, alias);
        }
        if let Some(alias) = &j.alias {
            // Its columns may get their names by their positions.
            self.use_all(&part.scope);
            alias_join(&mut part.scope, alias);
        }
        Ok(part)
    }

    /// Resolves ON. Subqueries there that are not the same on every shard come back as a relation that is nowhere.
    fn resolve_on(
        &mut self,
        j: &'a ast::JoinExpr,
        scope: &Scope,
        (larg, rarg): (&Part<'a>, &Part<'a>),
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Option<Rel>, Refusal> {
        let Some(on) = j.quals.as_deref() else {
            return Ok(None);
        };
        let visible = larg.scope.visible.iter().chain(&rarg.scope.visible);
        let full = Scope {
            items: scope.items.clone(),
            visible: visible.cloned().collect(),
        };
        let mut uses = super::analyse::Uses::default();
        self.expression(on, &full, env, &mut uses, false)?;
        let own = Rc::new(Env {
            scope: full,
            keys: None,
            depth: self.depth(),
            parent: env.cloned(),
        });
        self.nowhere(&uses, &own, ctes)
    }

    /// A relation without rows' place, when a subquery of an expression in FROM is not the same on every shard.
    pub(super) fn nowhere(
        &mut self,
        uses: &super::analyse::Uses<'a>,
        env: &Rc<Env>,
        ctes: &Ctes<'a>,
    ) -> Result<Option<Rel>, Refusal> {
        let (mut dist, mut cond) = (Dist::Local, KeyCondition::Never);
        self.detached_sublinks(uses, Some(env), ctes, &mut dist, &mut cond)?;
        let rel = Rel {
            dist,
            cols: Vec::new(),
            open: false,
            cond,
            table: None,
        };
        Ok((!matches!(rel.dist, Dist::Local)).then_some(rel))
    }

    /// The visible columns of a join, USING columns first; equalities that USING and NATURAL write go to `on`.
    fn join_columns(
        &mut self,
        j: &'a ast::JoinExpr,
        left: &Scope,
        right: &Scope,
        on: &mut Vec<Conj<'a>>,
    ) -> Result<Vec<(String, AttrId)>, Refusal> {
        let names: Vec<String> = if j.is_natural {
            if left.is_open() || right.is_open() {
                return Err(refusal(
                    Reason::Form,
                    "NATURAL JOIN with columns that are not known is not supported",
                    "Write USING.",
                    -1,
                ));
            }
            let in_right = |n: &String| right.visible.iter().any(|(r, _)| r == n);
            left.visible
                .iter()
                .map(|(n, _)| n.clone())
                .filter(in_right)
                .collect()
        } else {
            j.using_clause
                .iter()
                .filter_map(|n| match &n.node {
                    Some(Node::String(s)) => Some(s.sval.clone()),
                    _ => None,
                })
                .collect()
        };
        let column = |scope: &Scope, name: &str| {
            let found = scope.visible.iter().find(|(n, _)| n == name);
            found.map(|(_, attr)| *attr)
        };
        let mut out = Vec::new();
        for name in &names {
            let (Some(l), Some(r)) = (column(left, name), column(right, name)) else {
                return Err(refusal(
                    Reason::Form,
                    format!("column \"{name}\" of USING cannot be resolved"),
                    "Write ON.",
                    -1,
                ));
            };
            on.push(Conj::Equal(l, r));
            self.using.entry(node_id(j)).or_default().push((l, r));
            self.mark_used(l);
            self.mark_used(r);
            let merged = match ast::JoinType::try_from(j.jointype) {
                Ok(ast::JoinType::JoinRight) => r,
                Ok(ast::JoinType::JoinFull) => {
                    // COALESCE of both: a value of its own, of a type that both agree on.
                    let ty = self.attrs[l]
                        .ty
                        .clone()
                        .filter(|t| Some(t) == self.attrs[r].ty.as_ref());
                    let attr = self.fresh(ty);
                    self.merged.push((attr, l, r));
                    attr
                }
                // PostgreSQL types a merged column by both sides; where they differ the value is converted.
                _ if self.attrs[l].ty == self.attrs[r].ty => l,
                _ => {
                    let attr = self.fresh(None);
                    self.merged.push((attr, l, r));
                    attr
                }
            };
            out.push((name.clone(), merged));
        }
        for (name, attr) in left.visible.iter().chain(&right.visible) {
            if !names.contains(name) {
                out.push((name.clone(), *attr));
            }
        }
        Ok(out)
    }

    fn outer_join(
        &mut self,
        kind: ast::JoinType,
        left: Rel,
        right: Rel,
        on: &[Conj<'a>],
        scope: &Scope,
    ) -> Result<Rel, Refusal> {
        let classes = self.classes(on);
        let cols = scope.visible.clone();
        let open = left.open || right.open;
        let rel = |dist, cond| Rel {
            dist,
            cols,
            open,
            cond,
            table: None,
        };
        if kind == ast::JoinType::JoinFull {
            let cond = or(left.cond.clone(), right.cond.clone());
            return Ok(rel(self.full_join(&left, &right, &classes), cond));
        }
        let (kept, mut other) = match kind {
            ast::JoinType::JoinLeft => (left, right),
            ast::JoinType::JoinRight => (right, left),
            _ => {
                return Err(refusal(
                    Reason::Form,
                    "this kind of join is not supported",
                    "Write the join in full.",
                    -1,
                ));
            }
        };
        if let Dist::Sharded(d) = &other.dist {
            other.cond = and(other.cond.clone(), self.restrict_all(on, &classes, d));
            if on
                .iter()
                .any(|c| matches!(c, Conj::Expression(n) if is_never(n)))
            {
                other.cond = KeyCondition::Never;
            }
            self.note_table_condition(&other);
        }
        let both = or(kept.cond.clone(), other.cond.clone());
        Ok(match (&kept.dist, &other.dist) {
            (Dist::Local, Dist::Local) => rel(Dist::Local, KeyCondition::Never),
            (Dist::Sharded(k), Dist::Local) => rel(Dist::Sharded(k.clone()), kept.cond),
            (Dist::Sharded(k), Dist::Sharded(o)) if meets(k, o, &classes) => {
                let mut d = k.clone();
                d.keys.extend(o.keys.iter().map(|(a, _)| (*a, false)));
                rel(Dist::Sharded(d), kept.cond)
            }
            (Dist::Sharded(_), Dist::Sharded(_)) => rel(off_key(), both),
            (Dist::Local, Dist::Sharded(_)) => rel(preserved(), both),
            (Dist::Single(a), Dist::Single(b)) if a == b => rel(Dist::Single(*a), both),
            (Dist::Single(a), Dist::Local) | (Dist::Local, Dist::Single(a)) => {
                rel(Dist::Single(*a), both)
            }
            (Dist::Global(why), _) | (_, Dist::Global(why)) => rel(Dist::Global(why.clone()), both),
            (Dist::Once(why), Dist::Local | Dist::Once(_)) | (Dist::Local, Dist::Once(why)) => {
                rel(Dist::Once(why.clone()), both)
            }
            (Dist::Once(why), _) | (_, Dist::Once(why)) => rel(Dist::Global(why.clone()), both),
            (Dist::Single(_), _) | (_, Dist::Single(_)) => rel(mixed(), both),
        })
    }

    fn full_join(&self, left: &Rel, right: &Rel, classes: &Classes) -> Dist {
        match (&left.dist, &right.dist) {
            (Dist::Local, Dist::Local) => Dist::Local,
            (Dist::Sharded(l), Dist::Sharded(r)) if meets(l, r, classes) => {
                let mut keys: Vec<(AttrId, bool)> = l
                    .keys
                    .iter()
                    .chain(&r.keys)
                    .map(|(a, _)| (*a, false))
                    .collect();
                // The USING column is the key of whichever side is there.
                let is_key = |d: &Distributed, a: &AttrId| d.keys.iter().any(|(k, _)| k == a);
                let merged = self
                    .merged
                    .iter()
                    .filter(|(_, a, b)| is_key(l, a) && is_key(r, b));
                let strict = |a: &AttrId, b: &AttrId| {
                    l.keys.contains(&(*a, true)) && r.keys.contains(&(*b, true))
                };
                keys.extend(merged.map(|(m, a, b)| (*m, strict(a, b))));
                Dist::Sharded(Distributed {
                    sharding: l.sharding.clone(),
                    keys,
                })
            }
            (Dist::Global(why), _) | (_, Dist::Global(why)) => Dist::Global(why.clone()),
            (Dist::Sharded(_), Dist::Sharded(_)) => off_key(),
            (Dist::Local, Dist::Sharded(_)) | (Dist::Sharded(_), Dist::Local) => preserved(),
            _ => mixed(),
        }
    }
}

fn is_never(node: &ast::Node) -> bool {
    match &node.node {
        Some(Node::AConst(c)) => {
            c.isnull || matches!(&c.val, Some(ast::a_const::Val::Boolval(b)) if !b.boolval)
        }
        _ => false,
    }
}

fn off_key() -> Dist {
    Dist::Global(refusal(
        Reason::Form,
        "an outer join of sharded tables on other columns than their sharding keys is not supported here",
        "Join the tables on their sharding keys.",
        -1,
    ))
}

fn preserved() -> Dist {
    Dist::Global(refusal(
        Reason::Form,
        "an outer join that keeps the rows of a reference table beside a sharded one is not supported here",
        "Put the sharded table on the side that keeps its rows.",
        -1,
    ))
}

fn mixed() -> Dist {
    Dist::Global(refusal(
        Reason::Form,
        "tables that live on one shard cannot be joined with tables on others here",
        "Make the table a reference table, or read the two in statements of their own.",
        -1,
    ))
}

fn alias_join(scope: &mut Scope, alias: &ast::Alias) {
    let mut columns = scope.visible.clone();
    for ((name, _), new) in columns.iter_mut().zip(alias_columns(Some(alias))) {
        if let Some(Node::String(s)) = &new.node {
            name.clone_from(&s.sval);
        }
    }
    *scope = Scope {
        visible: columns.clone(),
        items: vec![Item {
            name: alias_name(Some(alias)).unwrap_or("").to_owned(),
            schema: None,
            columns,
            open: scope.is_open(),
            table: None,
            row_type: None,
        }],
    };
}
