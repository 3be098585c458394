//! Rows as a whole over stages: `t` and `t.*` as values, and the table they are from. A stage's rows have no type of their own; the
//! merge session gives them that of the table or view they stand for.

use super::analyse::{Analysis, node_id};
use super::scope::Resolved;
use super::stage_tables::TABLE_COLUMN;
use super::stages::{Stager, string};
use crate::sql::ast::{self, node::Node};

impl Stager<'_, '_, '_> {
    /// Puts `t.*::schema.table` in the place of a row of a table or view; true when it did.
    pub(super) fn replace_row(&self, original: &ast::ColumnRef, new: &mut ast::Node) -> bool {
        let typed = typed_row(self.fan_out.analysis, original);
        let found = typed.is_some();
        if let Some(typed) = typed {
            *new = typed;
        }
        found
    }

    /// Puts a column of the stage in the place of `tableoid::regclass`; true when it did.
    pub(super) fn replace_table(&self, original: &ast::Node, new: &mut ast::Node) -> bool {
        let Some(Node::TypeCast(cast)) = &original.node else {
            return false;
        };
        let Some(Node::ColumnRef(c)) = cast.arg.as_deref().and_then(|a| a.node.as_ref()) else {
            return false;
        };
        let analysis = self.fan_out.analysis;
        let Some(Resolved::System { .. }) = analysis.colrefs.get(&node_id(c)) else {
            return false;
        };
        let mut copy = c.clone();
        super::rewrite::strip_reference(&mut copy);
        copy.fields.pop();
        copy.fields.push(string(TABLE_COLUMN));
        new.node = Some(Node::ColumnRef(copy));
        true
    }
}

/// `t.*::schema.table` for a row of a table or view as a whole.
pub(super) fn typed_row(analysis: &Analysis<'_>, original: &ast::ColumnRef) -> Option<ast::Node> {
    let (schema, table) = analysis.row_types.get(&node_id(original))?;
    let star = ast::Node {
        node: Some(Node::AStar(ast::AStar {})),
    };
    let row = ast::Node {
        node: Some(Node::ColumnRef(ast::ColumnRef {
            fields: vec![string(row_name(original)), star],
            location: -1,
        })),
    };
    let typed = cast(row.clone(), &[schema, table]);
    Some(match analysis.outer_joins {
        true => unless_null(row, typed),
        false => typed,
    })
}

/// A row before IN, ANY or ALL of a subquery is one value: PostgreSQL would take the cast of it for a list of columns.
pub(super) fn keep_operand_whole(original: &ast::Node, new: &mut ast::Node) {
    let (Some(Node::SubLink(o)), Some(Node::SubLink(n))) = (&original.node, &mut new.node) else {
        return;
    };
    let row = match (o.testexpr.as_deref(), n.testexpr.as_deref()) {
        (Some(o), Some(n)) => typed_below(o, n).cloned(),
        _ => None,
    };
    if let (Some(row), Some(operand)) = (row, n.testexpr.as_deref_mut()) {
        *operand = unless_null(row, operand.clone());
    }
}

/// The row that got its type in the place of a column's name, below casts of the statement's own: they change nothing of what
/// PostgreSQL makes of it.
fn typed_below<'n>(original: &ast::Node, new: &'n ast::Node) -> Option<&'n ast::Node> {
    match (&original.node, &new.node) {
        (Some(Node::TypeCast(o)), Some(Node::TypeCast(n))) => {
            typed_below(o.arg.as_deref()?, n.arg.as_deref()?)
        }
        (Some(Node::ColumnRef(_)), Some(Node::TypeCast(typed))) => typed.arg.as_deref(),
        _ => None,
    }
}

/// The name of what a row as a whole is from.
pub(super) fn row_name(row: &ast::ColumnRef) -> &str {
    let name = row.fields.iter().rev().find_map(|f| match &f.node {
        Some(Node::String(s)) => Some(s.sval.as_str()),
        _ => None,
    });
    name.unwrap_or("")
}

/// A row that an outer join makes NULL is no row of NULLs, which the cast would make of it. As text they differ.
fn unless_null(row: ast::Node, typed: ast::Node) -> ast::Node {
    let is_null = ast::NullTest {
        arg: Some(Box::new(cast(row, &["pg_catalog", "text"]))),
        nulltesttype: ast::NullTestType::IsNotNull as i32,
        location: -1,
        ..Default::default()
    };
    let when = ast::CaseWhen {
        expr: Some(Box::new(ast::Node {
            node: Some(Node::NullTest(Box::new(is_null))),
        })),
        result: Some(Box::new(typed)),
        location: -1,
        ..Default::default()
    };
    let case = ast::CaseExpr {
        args: vec![ast::Node {
            node: Some(Node::CaseWhen(Box::new(when))),
        }],
        location: -1,
        ..Default::default()
    };
    ast::Node {
        node: Some(Node::CaseExpr(Box::new(case))),
    }
}

fn cast(arg: ast::Node, name: &[&str]) -> ast::Node {
    ast::Node {
        node: Some(Node::TypeCast(Box::new(ast::TypeCast {
            arg: Some(Box::new(arg)),
            type_name: Some(ast::TypeName {
                names: name.iter().map(|n| string(n)).collect(),
                typemod: -1,
                location: -1,
                ..Default::default()
            }),
            location: -1,
        }))),
    }
}
