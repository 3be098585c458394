//! FROM and WHERE of a block as one list of relations under one list of conditions, and what of it is read together.
//!
//! Tables that meet on their shard are one *unit*: their join runs there, and one stage brings its rows. A join pays where it makes
//! no more rows than its larger side has: one side must be found by its whole primary key. Reference tables join a unit
//! for the rows they take away; those that only add columns are read apart, once.

use std::collections::HashMap;

use super::analyse::{Analysis, Distributed, node_id};
use super::condition::{Conj, conjuncts};
use super::key_classes::{Classes, meets};
use super::samples::sampled_relation;
use super::scope::{AttrId, name_parts};
use super::stages::{Conditions, Stager};
use crate::catalog::{Distribution, Table};
use crate::sql::ast::{self, node::Node};

/// A block's FROM without its inner joins.
pub(super) struct Flat<'a> {
    /// Relations and joins of other kinds, in their order.
    pub(super) leaves: Vec<&'a ast::Node>,
    /// All of WHERE and of the inner joins' ON.
    pub(super) conditions: Vec<&'a ast::Node>,
}

/// Tables that are read in one stage: positions among the leaves, ascending.
pub(super) struct Unit {
    pub(super) leaves: Vec<usize>,
    /// Columns, as table and position, that conditions make equal and by which the tables meet.
    pub(super) equal: Vec<[(usize, usize); 2]>,
}

/// A table of FROM while units are made.
struct Member<'p> {
    leaf: usize,
    id: usize,
    table: &'p Table,
}

/// The parts of a block, `None` where what it names cannot all be followed.
pub(super) fn flatten<'a>(analysis: &Analysis<'a>, s: &'a ast::SelectStmt) -> Option<Flat<'a>> {
    let starred =
        || !analysis.unread.contains(&node_id(s)) && super::outputs::targets(s).any(is_star);
    if s.larg.is_some() || s.from_clause.is_empty() || starred() {
        return None;
    }
    let mut flat = Flat {
        leaves: Vec::new(),
        conditions: Vec::new(),
    };
    for item in &s.from_clause {
        add(item, &mut flat);
    }
    add_conditions(s.where_clause.as_deref(), &mut flat);
    // A LATERAL item gives a table's columns a second name.
    let lateral = |n: &&ast::Node| {
        crate::sql::any_node(n, &mut |n| match n {
            Node::RangeSubselect(s) => s.lateral,
            _ => false,
        })
    };
    let is_whole = |v: &ast::RangeVar| {
        let id = node_id(v);
        analysis.whole_rows.contains(&id) || analysis.system_rows.contains(&id)
    };
    let whole = |n: &&ast::Node| match &n.node {
        Some(Node::RangeVar(v)) => is_whole(v),
        Some(Node::RangeTableSample(t)) => sampled_relation(t).is_some_and(is_whole),
        _ => false,
    };
    let odd = flat.leaves.iter().any(|n| lateral(n) || whole(n));
    (!odd).then_some(flat)
}

/// `*` or `table.*`.
pub(super) fn is_star(target: &ast::ResTarget) -> bool {
    let value = target.val.as_deref().and_then(|v| v.node.as_ref());
    matches!(value, Some(Node::ColumnRef(c)) if name_parts(c).is_none())
}

fn add<'a>(item: &'a ast::Node, flat: &mut Flat<'a>) {
    if let Some(Node::JoinExpr(j)) = &item.node
        && j.jointype == ast::JoinType::JoinInner as i32
        && !j.is_natural
        && j.using_clause.is_empty()
        && j.alias.is_none()
        && let (Some(left), Some(right)) = (j.larg.as_deref(), j.rarg.as_deref())
    {
        add(left, flat);
        add(right, flat);
        add_conditions(j.quals.as_deref(), flat);
        return;
    }
    flat.leaves.push(item);
}

fn add_conditions<'a>(condition: Option<&'a ast::Node>, flat: &mut Flat<'a>) {
    let mut conjs = Vec::new();
    conjuncts(condition, &mut conjs);
    flat.conditions.extend(conjs.iter().filter_map(|c| match c {
        Conj::Expression(node) => Some(*node),
        Conj::Equal(..) => None,
    }));
}

impl<'a> Stager<'_, '_, 'a> {
    /// The tables of a block, each in the unit it is read in.
    pub(super) fn units(&self, flat: &Flat<'a>) -> Vec<Unit> {
        let mut members = self.members(flat);
        // One server tells the errors of a condition on one table for all its rows, not only for those that are joined.
        let conditions: Conditions<'a> = flat
            .conditions
            .iter()
            .map(|c| Conj::Expression(c))
            .collect();
        members.retain(|m| !self.may_fail(&conditions, m.id));
        let joins = Joins::new(self, flat);
        let mut units: Vec<Vec<usize>> = Vec::new();
        let mut equal: Vec<Vec<[(usize, usize); 2]>> = Vec::new();
        let mut order: Vec<usize> = (0..members.len())
            .filter(|m| matches!(members[*m].table.distribution, Distribution::Sharded { .. }))
            .collect();
        order.sort_by(|a, b| members[*b].table.rows.total_cmp(&members[*a].table.rows));
        let mut free: Vec<usize> = (0..members.len()).filter(|m| !order.contains(m)).collect();
        for m in order {
            let met = units.iter().enumerate().find_map(|(u, unit)| {
                let keys = unit
                    .iter()
                    .find_map(|o| joins.meet(&members[*o], &members[m]));
                let pays = unit.iter().any(|o| {
                    joins.finds(&members[*o..=*o], &members[m])
                        || joins.finds(&members[m..=m], &members[*o])
                });
                keys.filter(|_| pays).map(|k| (u, k))
            });
            match met {
                Some((u, keys)) => {
                    units[u].push(m);
                    equal[u].push(keys);
                }
                None => {
                    units.push(vec![m]);
                    equal.push(Vec::new());
                }
            }
        }
        for unit in &mut units {
            self.absorb(unit, &mut free, &members, &joins, flat);
        }
        units.extend(free.iter().map(|m| vec![*m]));
        equal.resize(units.len(), Vec::new());
        let leaf = |m: &usize| members[*m].leaf;
        let made = units.iter().zip(equal).map(|(unit, equal)| {
            let mut leaves: Vec<usize> = unit.iter().map(leaf).collect();
            leaves.sort_unstable();
            Unit { leaves, equal }
        });
        made.collect()
    }

    fn members<'s>(&'s self, flat: &Flat<'a>) -> Vec<Member<'s>> {
        let analysis = self.fan_out.analysis;
        let mut members = Vec::new();
        for (leaf, node) in flat.leaves.iter().enumerate() {
            if let Some(Node::RangeVar(v)) = &node.node
                && !analysis.cte_uses.contains(&node_id(v))
                && let Some(used) = analysis.tables.get(&node_id(v))
            {
                members.push(Member {
                    leaf,
                    id: node_id(v),
                    table: &used.table,
                });
            }
        }
        members
    }

    /// Reference tables that a unit's rows find by their primary key, as far as that leaves fewer rows.
    fn absorb(
        &self,
        unit: &mut Vec<usize>,
        free: &mut Vec<usize>,
        members: &[Member<'_>],
        joins: &Joins,
        flat: &Flat<'a>,
    ) {
        let mut added: Vec<usize> = Vec::new();
        loop {
            let next = free.iter().copied().find(|m| {
                let with: Vec<&Member<'_>> =
                    unit.iter().chain(&added).map(|o| &members[*o]).collect();
                !added.contains(m)
                    && matches!(members[*m].table.distribution, Distribution::Reference)
                    && joins.finds_any(&with, &members[*m])
            });
            match next {
                Some(m) => added.push(m),
                None => break,
            }
        }
        // What neither filters nor leads to one that does goes again, the last first.
        let mut position = added.len();
        while position > 0 {
            position -= 1;
            let m = added[position];
            let filters = flat
                .conditions
                .iter()
                .any(|c| self.part_about(c, &[members[m].id]).is_some());
            let others: Vec<&Member<'_>> = unit
                .iter()
                .chain(added.iter().filter(|o| **o != m))
                .map(|o| &members[*o])
                .collect();
            let without: Vec<&Member<'_>> = others
                .iter()
                .filter(|o| !added[position + 1..].iter().any(|a| members[*a].id == o.id))
                .copied()
                .collect();
            let leads = added[position + 1..]
                .iter()
                .any(|o| !joins.finds_any(&without, &members[*o]));
            if !filters && !leads {
                added.remove(position);
            }
        }
        free.retain(|m| !added.contains(m));
        unit.extend(added);
    }
}

/// Equalities between columns of the block's tables.
struct Joins {
    classes: Classes,
    /// One attribute a column: a view's query that is read twice has two.
    attrs: HashMap<(usize, usize), AttrId>,
}

impl Joins {
    fn new(stager: &Stager<'_, '_, '_>, flat: &Flat<'_>) -> Self {
        let analysis = stager.fan_out.analysis;
        let mut attrs = HashMap::new();
        let mut pairs = Vec::new();
        for condition in &flat.conditions {
            for (a, b) in analysis.equalities(&Conj::Expression(condition)) {
                let mut one = |attr: AttrId| match analysis.attrs[attr].base {
                    Some(base) => *attrs.entry(base).or_insert(attr),
                    None => attr,
                };
                pairs.push((one(a), one(b)));
            }
        }
        Self {
            classes: Classes::new(pairs.into_iter()),
            attrs,
        }
    }

    fn same(&self, a: (usize, usize), b: (usize, usize)) -> bool {
        match (self.attrs.get(&a), self.attrs.get(&b)) {
            (Some(a), Some(b)) => self.classes.same(*a, *b),
            _ => false,
        }
    }

    /// The sharding keys by which two tables meet on their shard.
    fn meet(&self, a: &Member<'_>, b: &Member<'_>) -> Option<[(usize, usize); 2]> {
        let keys = |m: &Member<'_>| match &m.table.distribution {
            Distribution::Sharded {
                key: Some(key),
                sharding,
            } => {
                let attr = self.attrs.get(&(m.id, *key))?;
                let d = Distributed {
                    sharding: sharding.clone(),
                    keys: vec![(*attr, true)],
                };
                Some(((m.id, *key), d))
            }
            _ => None,
        };
        let ((x, a), (y, b)) = (keys(a)?, keys(b)?);
        meets(&a, &b, &self.classes).then_some([x, y])
    }

    /// True when a row of one of `from` finds at most one row of `table`.
    fn finds(&self, from: &[Member<'_>], table: &Member<'_>) -> bool {
        let from: Vec<&Member<'_>> = from.iter().collect();
        self.finds_any(&from, table)
    }

    fn finds_any(&self, from: &[&Member<'_>], table: &Member<'_>) -> bool {
        let key = &table.table.primary_key;
        !key.is_empty()
            && key.iter().all(|position| {
                from.iter().any(|f| {
                    (0..f.table.columns.len()).any(|c| self.same((f.id, c), (table.id, *position)))
                })
            })
    }
}
