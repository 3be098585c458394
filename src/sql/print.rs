//! From trees back to text.

use pg_query::protobuf::{self as ast, node::Node};

fn deparse(node: Node) -> Result<String, String> {
    let result = ast::ParseResult {
        version: 0,
        stmts: vec![ast::RawStmt {
            stmt: Some(Box::new(ast::Node { node: Some(node) })),
            stmt_location: 0,
            stmt_len: 0,
        }],
    };
    pg_query::deparse(&result, pg_query::DeparseOptions::default()).map_err(|e| e.to_string())
}

/// The text of a whole statement.
///
/// # Errors
/// The deparser's message for a tree it does not know.
pub fn statement_text(node: &Node) -> Result<String, String> {
    deparse(node.clone())
}

/// The text of a SELECT.
///
/// # Errors
/// As [`statement_text`].
pub fn select_text(select: &ast::SelectStmt) -> Result<String, String> {
    deparse(Node::SelectStmt(Box::new(select.clone())))
}

/// The text of an expression.
///
/// # Errors
/// As [`statement_text`].
pub fn expression_text(expression: &ast::Node) -> Result<String, String> {
    let target = ast::ResTarget {
        val: Some(Box::new(expression.clone())),
        ..Default::default()
    };
    let select = ast::SelectStmt {
        target_list: vec![ast::Node {
            node: Some(Node::ResTarget(Box::new(target))),
        }],
        limit_option: ast::LimitOption::Default as i32,
        op: ast::SetOperation::SetopNone as i32,
        ..Default::default()
    };
    let text = select_text(&select)?;
    text.strip_prefix("SELECT ")
        .map(str::to_owned)
        .ok_or_else(|| format!("unexpected text {text}"))
}

/// An identifier, always in quotes.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant that reads the same whatever the session's settings.
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}
