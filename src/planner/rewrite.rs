//! Edits that every text for shards needs: one value of now(), and UNION ALL arms that only one shard may answer.

use std::cell::RefCell;

use super::from_items::{alias_columns, alias_name};

use super::analyse::{Analysis, node_id};
use super::clock::{Moment, moment};
use super::outputs::column_name;
use super::scope::find_table;
use super::stage_rows::{keep_operand_whole, row_name, typed_row};
use crate::catalog::Table;
use crate::plan::Extra;
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, ChildMut, children, children_mut, select_children, select_children_mut};

/// Copies trees with the edits made. The copy is walked beside the original, whose addresses the analysis knows.
pub(super) struct Rewrite<'p, 'a> {
    pub(super) analysis: &'p Analysis<'a>,
    /// Number of the first parameter behind the client's.
    pub(super) first_extra: i32,
    /// The moments whose parameters have been used, in the order of those.
    pub(super) clocks: RefCell<Vec<Extra>>,
    /// Make the arms empty that another shard answers.
    pub(super) empty_arms: bool,
}

impl Rewrite<'_, '_> {
    /// A copy of a SELECT with the edits made.
    pub(super) fn copy(&self, original: &ast::SelectStmt) -> ast::SelectStmt {
        let mut new = original.clone();
        self.select(original, &mut new);
        new
    }

    /// A copy of an expression with the edits made.
    pub(super) fn copy_node(&self, original: &ast::Node) -> ast::Node {
        let mut new = original.clone();
        self.node(original, &mut new);
        new
    }

    /// Makes the edit that goes by shape alone, now(), in a copy.
    pub(super) fn edit_copy(&self, copy: &mut ast::Node) {
        if let Some(moment) = moment(copy) {
            *copy = self.now(moment);
            return;
        }
        for part in children_mut(copy).unwrap_or_default() {
            match part {
                ChildMut::Node(n) => self.edit_copy(n),
                ChildMut::Select(s) => self.edit_copy_select(s),
            }
        }
    }

    /// As [`Rewrite::edit_copy`].
    pub(super) fn edit_copy_select(&self, copy: &mut ast::SelectStmt) {
        for part in select_children_mut(copy) {
            match part {
                ChildMut::Node(n) => self.edit_copy(n),
                ChildMut::Select(s) => self.edit_copy_select(s),
            }
        }
    }

    /// Puts the parameter in the place of now() or its like; a column that loses its name by that gets it as an alias.
    pub(super) fn replace_now(&self, original: &ast::Node, new: &mut ast::Node) -> bool {
        if let Some(moment) = moment(original) {
            *new = self.now(moment);
            return true;
        }
        if let (Some(Node::ResTarget(o)), Some(Node::ResTarget(n))) =
            (&original.node, &mut new.node)
            && o.name.is_empty()
            && let Some(value) = o.val.as_deref()
            && moment(value).is_some()
        {
            // Queries around it may name the column.
            n.name = column_name(value).1;
        }
        false
    }

    fn select(&self, original: &ast::SelectStmt, new: &mut ast::SelectStmt) {
        self.zip(select_children(original), select_children_mut(new));
        if self.empty_arms && self.analysis.first_arms.contains(&node_id(original)) {
            empty(new);
        }
    }

    fn zip(&self, original: Vec<Child<'_>>, new: Vec<ChildMut<'_>>) {
        for pair in original.into_iter().zip(new) {
            match pair {
                (Child::Node(o), ChildMut::Node(n)) => self.node(o, n),
                (Child::Select(o), ChildMut::Select(n)) => self.select(o, n),
                _ => {}
            }
        }
    }

    fn node(&self, original: &ast::Node, new: &mut ast::Node) {
        if self.replace_now(original, new) {
            return;
        }
        if let (Some(Node::SelectStmt(o)), Some(Node::SelectStmt(n))) =
            (&original.node, &mut new.node)
        {
            self.select(o, n);
            return;
        }
        if let Some(Node::RangeVar(v)) = &original.node
            && let Some(expanded) = self.expanded(v)
        {
            *new = expanded;
            return;
        }
        if self.replace_row(original, new) {
            return;
        }
        if let Some(Node::ColumnRef(c)) = &mut new.node
            && (self.empty_arms && !self.analysis.split_views.is_empty()
                || !self.analysis.clock_views.is_empty())
        {
            strip_reference(c);
        }
        if let (Some(o), Some(n)) = (children(original), children_mut(new)) {
            self.zip(o, n);
        }
        keep_operand_whole(original, new);
    }

    /// Gives the rows of an expanded view, named as a whole, the view's type; as a column they keep their name.
    fn replace_row(&self, original: &ast::Node, new: &mut ast::Node) -> bool {
        let row = |node: &ast::Node| match &node.node {
            Some(Node::ColumnRef(c)) => {
                let key = self.analysis.row_types.get(&node_id(c))?;
                self.expands(key).then(|| typed_row(self.analysis, c))?
            }
            _ => None,
        };
        if let Some(typed) = row(original) {
            *new = typed;
            return true;
        }
        if let (Some(Node::ResTarget(o)), Some(Node::ResTarget(n))) =
            (&original.node, &mut new.node)
            && o.name.is_empty()
            && let Some(value) = o.val.as_deref()
            && row(value).is_some()
            && let Some(Node::ColumnRef(c)) = &value.node
        {
            n.name = row_name(c).to_owned();
        }
        false
    }

    /// True for a view that stands in the copy by its query.
    fn expands(&self, key: &(String, String)) -> bool {
        let split = self.empty_arms && self.analysis.split_views.contains(key);
        split || self.analysis.clock_views.contains(key)
    }

    /// A view's query in its place, where by its name the shard would answer arms that are another shard's, or read its own
    /// clock.
    fn expanded(&self, v: &ast::RangeVar) -> Option<ast::Node> {
        let analysis = self.analysis;
        if analysis.cte_uses.contains(&node_id(v)) {
            return None;
        }
        // Names within views have their schema.
        let table = find_table(
            analysis.catalog,
            analysis.search_path,
            &v.schemaname,
            &v.relname,
        )?;
        let key = (table.schema.clone(), table.name.clone());
        if !self.expands(&key) {
            return None;
        }
        let body = self.copy(analysis.views.get(&key)?);
        Some(expanded_view(v, table, body))
    }

    fn now(&self, moment: Moment) -> ast::Node {
        let mut clocks = self.clocks.borrow_mut();
        let at = clocks.iter().position(|c| *c == moment.clock);
        let at = at.unwrap_or_else(|| {
            clocks.push(moment.clock);
            clocks.len() - 1
        });
        moment.expression(self.first_extra + at as i32)
    }

    /// Values behind the client's parameters that the copies need.
    pub(super) fn extras(&self) -> Vec<Extra> {
        self.clocks.borrow().clone()
    }
}

/// `schema.table.column` as `table.column`: what stands for a table has an alias only.
pub(super) fn strip_reference(c: &mut ast::ColumnRef) {
    while c.fields.len() > 2 {
        c.fields.remove(0);
    }
}

/// A view's query as a FROM item with the view's name and columns.
pub(super) fn expanded_view(v: &ast::RangeVar, table: &Table, body: ast::SelectStmt) -> ast::Node {
    let given = alias_columns(v.alias.as_ref());
    let names = table
        .columns
        .iter()
        .enumerate()
        .map(|(i, c)| given.get(i).cloned().unwrap_or_else(|| string(&c.name)));
    ast::Node {
        node: Some(Node::RangeSubselect(Box::new(ast::RangeSubselect {
            lateral: false,
            subquery: Some(Box::new(ast::Node {
                node: Some(Node::SelectStmt(Box::new(body))),
            })),
            alias: Some(ast::Alias {
                aliasname: alias_name(v.alias.as_ref())
                    .unwrap_or(&v.relname)
                    .to_owned(),
                colnames: names.collect(),
            }),
        }))),
    }
}

fn string(text: &str) -> ast::Node {
    ast::Node {
        node: Some(Node::String(ast::String { sval: text.into() })),
    }
}

/// `arg::pg_catalog.name(precision)`.
pub(super) fn cast(arg: ast::Node, name: &str, precision: i32) -> ast::Node {
    let typmods = if precision >= 0 {
        vec![integer(precision)]
    } else {
        Vec::new()
    };
    ast::Node {
        node: Some(Node::TypeCast(Box::new(ast::TypeCast {
            arg: Some(Box::new(arg)),
            type_name: Some(ast::TypeName {
                names: vec![string("pg_catalog"), string(name)],
                typmods,
                typemod: -1,
                location: -1,
                ..Default::default()
            }),
            location: -1,
        }))),
    }
}

/// An integer constant.
pub(super) fn integer(value: i32) -> ast::Node {
    ast::Node {
        node: Some(Node::AConst(ast::AConst {
            isnull: false,
            location: -1,
            val: Some(ast::a_const::Val::Ival(ast::Integer { ival: value })),
        })),
    }
}

/// A FROM item that stands for a stage.
pub(super) fn stage_relation(name: &str, alias: &str) -> ast::Node {
    ast::Node {
        node: Some(Node::RangeVar(ast::RangeVar {
            relname: name.into(),
            inh: true,
            relpersistence: "p".into(),
            alias: Some(ast::Alias {
                aliasname: alias.into(),
                colnames: Vec::new(),
            }),
            location: -1,
            ..Default::default()
        })),
    }
}

/// Takes all rows from an arm, its columns' types kept.
fn empty(arm: &mut ast::SelectStmt) {
    let never = ast::Node {
        node: Some(Node::AConst(ast::AConst {
            isnull: false,
            location: -1,
            val: Some(ast::a_const::Val::Boolval(ast::Boolean { boolval: false })),
        })),
    };
    let zero = ast::Node {
        node: Some(Node::AConst(ast::AConst {
            isnull: false,
            location: -1,
            val: Some(ast::a_const::Val::Ival(ast::Integer { ival: 0 })),
        })),
    };
    // LIMIT 0 keeps every arm's own shape, aggregates and set operations included; WHERE false spares the work where it can.
    let simple = arm.larg.is_none() && arm.values_lists.is_empty();
    if simple {
        // An AND within an AND would read back as one.
        let mut args = match arm.where_clause.take().map(|old| *old) {
            Some(ast::Node {
                node: Some(Node::BoolExpr(all)),
            }) if all.boolop == ast::BoolExprType::AndExpr as i32 => all.args,
            old => old.into_iter().collect(),
        };
        args.push(never.clone());
        arm.where_clause = Some(Box::new(match args.len() {
            1 => never,
            _ => ast::Node {
                node: Some(Node::BoolExpr(Box::new(ast::BoolExpr {
                    xpr: None,
                    boolop: ast::BoolExprType::AndExpr as i32,
                    args,
                    location: -1,
                }))),
            },
        }));
    }
    arm.limit_count = Some(Box::new(zero));
    arm.limit_offset = None;
    arm.limit_option = ast::LimitOption::Count as i32;
}
