//! Edits that every text for shards needs: one value of now(), and UNION ALL arms that only one shard may answer.

use std::cell::Cell;

use super::from_items::{alias_columns, alias_name};

use super::analyse::{Analysis, node_id};
use super::functions::bare_name;
use super::outputs::column_name;
use super::scope::find_table;
use crate::catalog::Table;
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, ChildMut, children, children_mut, select_children, select_children_mut};

/// Copies trees with the edits made. The copy is walked beside the original, whose addresses the analysis knows.
pub(super) struct Rewrite<'p, 'a> {
    pub(super) analysis: &'p Analysis<'a>,
    /// Number of the parameter that carries now().
    pub(super) now_parameter: i32,
    /// Set once that parameter is used.
    pub(super) used_now: Cell<bool>,
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
        if let Some(type_name) = now_type(copy) {
            self.used_now.set(true);
            *copy = self.now(type_name);
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
        if let Some(type_name) = now_type(original) {
            self.used_now.set(true);
            *new = self.now(type_name);
            return true;
        }
        if let (Some(Node::ResTarget(o)), Some(Node::ResTarget(n))) =
            (&original.node, &mut new.node)
            && o.name.is_empty()
            && let Some(value) = o.val.as_deref()
            && now_type(value).is_some()
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
            && let Some(expanded) = self.without_first_arms(v)
        {
            *new = expanded;
            return;
        }
        if let Some(Node::ColumnRef(c)) = &mut new.node
            && self.empty_arms
            && !self.analysis.split_views.is_empty()
        {
            strip_reference(c);
        }
        if let (Some(o), Some(n)) = (children(original), children_mut(new)) {
            self.zip(o, n);
        }
    }

    /// A view's query in its place, where arms of it are another shard's: by its name the shard would answer all of them.
    fn without_first_arms(&self, v: &ast::RangeVar) -> Option<ast::Node> {
        let analysis = self.analysis;
        if !self.empty_arms || analysis.cte_uses.contains(&node_id(v)) {
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
        if !analysis.split_views.contains(&key) {
            return None;
        }
        let body = self.copy(analysis.views.get(&key)?);
        Some(expanded_view(v, table, body))
    }

    /// `$n::timestamptz`, cast on to what the function returns.
    fn now(&self, to: (&'static str, i32)) -> ast::Node {
        let parameter = ast::Node {
            node: Some(Node::ParamRef(ast::ParamRef {
                number: self.now_parameter,
                location: -1,
            })),
        };
        let moment = cast(parameter, "timestamptz", -1);
        match to {
            ("timestamptz", -1) => moment,
            (name, precision) => cast(moment, name, precision),
        }
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

/// The type and precision of a call of now() or its like.
fn now_type(node: &ast::Node) -> Option<(&'static str, i32)> {
    use ast::SqlValueFunctionOp as F;
    match &node.node {
        Some(Node::FuncCall(f)) if f.args.is_empty() && f.over.is_none() => match bare_name(f)? {
            "now" | "transaction_timestamp" => Some(("timestamptz", -1)),
            _ => None,
        },
        Some(Node::SqlvalueFunction(f)) => {
            let name = match F::try_from(f.op).ok()? {
                F::SvfopCurrentDate => "date",
                F::SvfopCurrentTime | F::SvfopCurrentTimeN => "timetz",
                F::SvfopCurrentTimestamp | F::SvfopCurrentTimestampN => "timestamptz",
                F::SvfopLocaltime | F::SvfopLocaltimeN => "time",
                F::SvfopLocaltimestamp | F::SvfopLocaltimestampN => "timestamp",
                _ => return None,
            };
            Some((name, f.typmod))
        }
        _ => None,
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
        let old = arm.where_clause.take();
        let args: Vec<ast::Node> = old.into_iter().map(|b| *b).chain([never.clone()]).collect();
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
