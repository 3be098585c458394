//! Conditions on their way into stages: what of them is about which tables, and what the rest of the statement still names.

use std::collections::{HashMap, HashSet};

use super::analyse::{Analysis, Block, node_id};
use super::condition::Conj;
use super::flatten::{Flat, Unit};
use super::rewrite::strip_reference;
use super::scope::{AttrId, Resolved};
use super::stages::{Conditions, Stager, string};
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, ChildMut, children_mut, walk};

/// A table in the text and a column of it.
pub(super) type Base = (usize, usize);

/// What names which columns of tables while stages are made.
#[derive(Debug, Default)]
pub(super) struct References {
    /// How often the text names a column, and how often it will still do.
    counts: HashMap<Base, (usize, usize)>,
    /// Conditions that stages decide wholly.
    consumed: HashSet<usize>,
    /// Columns of tables read together: the alias of their stage and their name there.
    moved: HashMap<Base, (String, String)>,
    /// How many queries are around what is read now.
    depth: usize,
    /// Subqueries of IN as a condition that rows must pass, with the column that is looked for.
    tests: HashMap<usize, AttrId>,
}

impl References {
    pub(super) fn new(analysis: &Analysis<'_>, select: &ast::SelectStmt) -> Self {
        let mut out = Self::default();
        for select in analysis.views.values().chain([select]) {
            named(analysis, Child::Select(select), &mut |base| {
                let (all, left) = out.counts.entry(base).or_default();
                *all += 1;
                *left += 1;
            });
        }
        out
    }

    pub(super) fn is_consumed(&self, condition: &ast::Node) -> bool {
        self.consumed.contains(&node_id(condition))
    }

    /// True when something other than consumed conditions names the column, if only a star.
    pub(super) fn is_named(&self, base: Base) -> bool {
        self.counts.get(&base).is_none_or(|(_, left)| *left > 0)
    }

    pub(super) fn enter(&mut self) {
        self.depth += 1;
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// What tables read together are called. No query and its subqueries have the same name; equal expressions keep equal texts.
    pub(super) fn alias(&self, leaf: usize) -> String {
        format!("pgbraid_join_{}_{}", self.depth, leaf + 1)
    }

    /// Notes where a column of a table is to be found.
    pub(super) fn moved(&mut self, base: Base, alias: &str, name: &str) {
        self.moved.insert(base, (alias.into(), name.into()));
    }
}

/// Calls `f` for each column that is named below a node.
fn named(analysis: &Analysis<'_>, child: Child<'_>, f: &mut dyn FnMut(Base)) {
    walk(child, &mut |c| {
        if let Child::Node(ast::Node {
            node: Some(Node::ColumnRef(c)),
        }) = c
            && let Some(Resolved::Column { attr, .. }) = analysis.colrefs.get(&node_id(c))
            && let Some(base) = analysis.attrs[*attr].base
        {
            f(base);
        }
        true
    });
}

/// What a condition says about some tables alone.
pub(super) enum About {
    /// All it says.
    Whole,
    /// What follows from it.
    Part(Box<ast::Node>),
}

impl<'a> Stager<'_, '_, 'a> {
    /// What of a condition can be decided by rows of these tables.
    pub(super) fn part_about(&self, condition: &'a ast::Node, tables: &[usize]) -> Option<About> {
        if self.is_about(condition, tables) {
            return Some(About::Whole);
        }
        // Where one arm must hold, so must what each arm says about the tables.
        let Some(Node::BoolExpr(either)) = &condition.node else {
            return None;
        };
        if either.boolop != ast::BoolExprType::OrExpr as i32 {
            return None;
        }
        let mut arms = Vec::new();
        for arm in &either.args {
            let mut conjs = Vec::new();
            super::condition::conjuncts(Some(arm), &mut conjs);
            let mut parts = Vec::new();
            for conj in conjs {
                let Conj::Expression(node) = conj else {
                    continue;
                };
                match self.part_about(node, tables) {
                    Some(About::Whole) => parts.push(node.clone()),
                    Some(About::Part(part)) => parts.push(*part),
                    None => {}
                }
            }
            arms.push(all_of(parts)?);
        }
        let either = joined(ast::BoolExprType::OrExpr, arms)?;
        Some(About::Part(Box::new(either)))
    }

    /// True where a condition on rows of one table alone may raise an error.
    pub(super) fn may_fail(&self, conditions: &Conditions<'a>, table: usize) -> bool {
        conditions.iter().any(|c| match c {
            Conj::Expression(node) => {
                self.names_only(node, &[table]) && !self.fan_out.analysis.is_total(node)
            }
            Conj::Equal(..) => false,
        })
    }

    /// True for a condition on columns of these tables only, without subqueries and volatile functions, that may be asked before
    /// anybody knows that the rows are read.
    fn is_about(&self, condition: &ast::Node, tables: &[usize]) -> bool {
        self.names_only(condition, tables) && self.fan_out.analysis.node_runs_ahead(condition)
    }

    fn names_only(&self, condition: &ast::Node, tables: &[usize]) -> bool {
        let analysis = self.fan_out.analysis;
        let mut columns = 0;
        let other = crate::sql::any_node(condition, &mut |n| match n {
            Node::ColumnRef(c) => {
                columns += 1;
                match analysis.colrefs.get(&node_id(c)) {
                    Some(Resolved::Column { attr, levels: 0 }) => analysis.attrs[*attr]
                        .base
                        .is_none_or(|(t, _)| !tables.contains(&t)),
                    _ => true,
                }
            }
            Node::SubLink(_) | Node::RangeVar(_) => true,
            Node::FuncCall(f) => {
                super::functions::find(analysis.catalog, self.fan_out.request.search_path, f)
                    .is_none_or(|c| {
                        c.aggregate
                            || c.returns_set
                            || c.volatility == crate::catalog::Volatility::Volatile
                    })
            }
            _ => false,
        });
        columns > 0 && !other
    }

    /// Notes the conditions that the units' stages decide: the statement need not ask again, nor have the columns.
    pub(super) fn consume(&self, flat: &Flat<'a>, units: &[Unit]) {
        let tables = |unit: &Unit| -> Vec<usize> {
            let of = |leaf: &usize| match &flat.leaves[*leaf].node {
                Some(Node::RangeVar(v)) => Some(node_id(v)),
                _ => None,
            };
            unit.leaves.iter().filter_map(of).collect()
        };
        let units: Vec<Vec<usize>> = units.iter().map(tables).collect();
        for condition in &flat.conditions {
            if !units.iter().any(|u| self.is_about(condition, u)) {
                continue;
            }
            let mut references = self.references.borrow_mut();
            // A view's query may come by twice.
            if references.consumed.insert(node_id(*condition)) {
                named(self.fan_out.analysis, Child::Node(condition), &mut |base| {
                    if let Some((_, left)) = references.counts.get_mut(&base) {
                        *left = left.saturating_sub(1);
                    }
                });
            }
        }
    }

    /// Makes a reference mean the stage that has the column.
    pub(super) fn redirect(&self, original: &ast::ColumnRef, copy: &mut ast::ColumnRef) {
        strip_reference(copy);
        let analysis = self.fan_out.analysis;
        let id = node_id(original);
        if let (Some(_), Some(Resolved::Column { attr, .. })) =
            (analysis.owners.get(&id), analysis.colrefs.get(&id))
        {
            self.redirect_to(analysis.attrs[*attr].base, copy);
        }
    }

    /// As [`Stager::redirect`], for a copy of what named this column.
    pub(super) fn redirect_to(&self, base: Option<Base>, copy: &mut ast::ColumnRef) {
        strip_reference(copy);
        let references = self.references.borrow();
        if let Some((alias, name)) = base.and_then(|b| references.moved.get(&b)) {
            copy.fields = vec![string(alias), string(name)];
        }
    }

    /// Notes which column each IN among the conditions of a block looks for.
    pub(super) fn note_tests(&self, conditions: &Conditions<'a>) {
        for conj in conditions {
            if let Conj::Expression(node) = conj
                && let Some((test, query)) = self.test_of(node)
            {
                let mut references = self.references.borrow_mut();
                references.tests.insert(node_id(query), test);
            }
        }
    }

    /// The column that an IN looks for, and where.
    pub(super) fn test_of(
        &self,
        condition: &'a ast::Node,
    ) -> Option<(AttrId, &'a ast::SelectStmt)> {
        let analysis = self.fan_out.analysis;
        let Some(Node::SubLink(link)) = &condition.node else {
            return None;
        };
        let equal = match link.oper_name.is_empty() {
            true => analysis.has_builtin_equality(),
            false => analysis.is_builtin_between_builtins(&link.oper_name, "="),
        };
        if link.sub_link_type != ast::SubLinkType::AnySublink as i32 || !equal {
            return None;
        }
        let test = analysis.plain_attr(link.testexpr.as_deref()?)?;
        match &link.subselect.as_deref()?.node {
            Some(Node::SelectStmt(query)) => Some((test, query)),
            _ => None,
        }
    }

    /// What a subquery of IN need only return: the values that are looked for. Where rows depend on other rows, nothing may go.
    pub(super) fn tested(
        &self,
        query: &ast::SelectStmt,
        block: Option<&Block>,
    ) -> Option<Conj<'a>> {
        let test = *self.references.borrow().tests.get(&node_id(query))?;
        let block = block?;
        let by_row = query.larg.is_none()
            && query.limit_count.is_none()
            && query.limit_offset.is_none()
            && query.distinct_clause.iter().all(|d| d.node.is_none())
            && !block.grouped
            && !block.windows
            && !block.open;
        match block.cols.as_slice() {
            [(_, column)] if by_row => Some(Conj::Equal(test, *column)),
            _ => None,
        }
    }
}

/// Conditions of which all hold, as one; `None` for none.
pub(super) fn all_of(conditions: Vec<ast::Node>) -> Option<ast::Node> {
    joined(ast::BoolExprType::AndExpr, conditions)
}

fn joined(operator: ast::BoolExprType, mut args: Vec<ast::Node>) -> Option<ast::Node> {
    if args.len() < 2 {
        return args.pop();
    }
    Some(ast::Node {
        node: Some(Node::BoolExpr(Box::new(ast::BoolExpr {
            xpr: None,
            boolop: operator as i32,
            args,
            location: -1,
        }))),
    })
}

/// Takes schemas from column names: what stands for a table has an alias only.
pub(super) fn strip_schema(node: &mut ast::Node) {
    if let Some(Node::ColumnRef(c)) = &mut node.node {
        strip_reference(c);
        return;
    }
    for part in children_mut(node).unwrap_or_default() {
        if let ChildMut::Node(n) = part {
            strip_schema(n);
        }
    }
}
