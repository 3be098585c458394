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

/// The text of a SELECT, read back and compared with the tree: the deparser is the one part between a tree and a shard
/// whose mistakes would change rows without a sound.
///
/// # Errors
/// As [`statement_text`], and for a text that does not mean the tree.
pub fn verified_select_text(select: &ast::SelectStmt) -> Result<String, String> {
    let text = select_text(select)?;
    let read = super::parse(&text).map_err(|e| e.message)?;
    let again = match read.as_slice() {
        [
            super::Statement {
                node: Node::SelectStmt(again),
                ..
            },
        ] => again,
        _ => return Err("its text is no single SELECT".into()),
    };
    match meaning(select)? == meaning(again)? {
        true => Ok(text),
        false => Err("its text does not read back as the same statement".into()),
    }
}

/// A tree without what only says where or how something was written.
fn meaning(select: &ast::SelectStmt) -> Result<serde_json::Value, String> {
    let mut value = serde_json::to_value(select).map_err(|e| e.to_string())?;
    strip(&mut value);
    Ok(value)
}

/// Keys of a node that carry no meaning: places, and whether a call or row was written with its keyword.
const FORM: [&str; 9] = [
    "location",
    "rexpr_list_start",
    "rexpr_list_end",
    "list_start",
    "list_end",
    "stmt_location",
    "stmt_len",
    "funcformat",
    "row_format",
];

fn strip(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|key, _| !FORM.contains(&key.as_str()));
            map.values_mut().for_each(strip);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
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
