//! The only module that names the parser crate: text to syntax tree and back, what a statement is, walks over a tree.

mod change;
mod classify;
mod comment;
mod copy;
mod depth;
mod kind;
mod literals;
mod lock;
mod names;
mod print;
mod session;
mod shape;
mod temporary;
mod walk;

use crate::protocol::sqlstate;

pub use change::{Change, ChangeKind, EXCLUDED, change, reading};
pub use classify::classify;
#[cfg(feature = "otlp")]
pub use comment::behind_comments;
pub use comment::{shard_by_comment, traceparent};
pub use copy::{CopyFormat, CopySource, CopyTable, CopyTo, ForceQuote};
pub use kind::{
    CursorKind, ExplainFormat, ExplainOptions, FetchDirection, Kind, TransactionOptions,
};
pub use literals::without_literals;
pub use lock::{LockTables, LockedTable};
pub use names::{names_in_order, names_in_source};
pub use pg_query::protobuf as ast;
pub use print::{
    expression_text, quote_identifier, quote_literal, select_text, statement_text,
    verified_select_text,
};
pub use session::{
    SetConfig, SetValue, execute_arguments, execute_computes, execute_subquery, first_parameter,
    names_relation, prepare_types, reads_catalog, set_config_calls, with_set_values,
};
pub use shape::{Literal, Shape, shape};
pub use temporary::{
    RelationName, RelationWork, changes_schema, do_body, reads_rows, relation_work,
};
pub use walk::{
    Child, ChildMut, any_node, children, children_mut, functions_called, select_children,
    select_children_mut, statement_functions, walk, walk_statement,
};

/// Longest statement text that is parsed, in bytes. PostgreSQL's own limit is a gigabyte; a tree takes some forty times
/// its text, so a proxy with many sessions stops earlier.
pub const STATEMENT_BYTES_MAX: usize = 16 << 20;

/// Deepest nesting a statement may have by the estimate of `depth`, which is never too low. Above it the parser's C code
/// could exhaust even the large stack it is given.
const DEPTH_MAX: usize = 3_000;

/// Depth by the same estimate up to which any thread's stack will do.
const DEPTH_SHALLOW: usize = 200;

/// Deepest tree that is taken: every recursion over it, down to its drop, fits into [`STACK_BYTES`].
const TREE_DEPTH_MAX: usize = 1_000;

/// Stack that a thread needs which deals with statements.
pub const STACK_BYTES: usize = 32 << 20;

/// Stack of the thread that parses deep statements.
const DEEP_STACK_BYTES: usize = 64 << 20;

/// One statement of a message: its own text and tree. Locations in the tree are byte offsets into `text`.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Without the semicolon behind it, white space around it and comments before it; those for pgbraid are kept.
    pub text: String,
    /// Byte offset of `text` in the message.
    pub offset: usize,
    /// Its tree.
    pub node: ast::node::Node,
}

/// Why a text could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// See [`parse`].
    pub sqlstate: &'static str,
    /// As PostgreSQL's parser words it.
    pub message: String,
    /// 1-based character position, as PostgreSQL counts it.
    pub position: Option<usize>,
}

impl ParseError {
    fn too_complex() -> Self {
        Self {
            sqlstate: sqlstate::STATEMENT_TOO_COMPLEX,
            message: "statement is nested too deeply".into(),
            position: None,
        }
    }
}

/// Parses a message of any number of statements; an empty one gives none.
///
/// # Errors
/// 42601 with the position of the offending token; 54000 for a text over `STATEMENT_BYTES_MAX`; 54001 for nesting that is too deep.
pub fn parse(text: &str) -> Result<Vec<Statement>, ParseError> {
    parse_with(text, Strings::Standard)
}

/// What a backslash in an ordinary string literal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strings {
    /// A character as any other.
    Standard,
    /// An escape, as with `standard_conforming_strings = off`.
    Escaped,
}

impl From<Strings> for pg_query::ParserOptions {
    fn from(strings: Strings) -> Self {
        match strings {
            Strings::Standard => Self::default(),
            Strings::Escaped => Self::DISABLE_STANDARD_CONFORMING_STRINGS,
        }
    }
}

/// As [`parse`], with string literals read as the session reads them.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_with(text: &str, strings: Strings) -> Result<Vec<Statement>, ParseError> {
    if text.len() > STATEMENT_BYTES_MAX {
        return Err(ParseError {
            sqlstate: sqlstate::PROGRAM_LIMIT_EXCEEDED,
            message: format!("statement is longer than {STATEMENT_BYTES_MAX} bytes"),
            position: None,
        });
    }
    match depth::estimate(text) {
        0..=DEPTH_SHALLOW => parse_here(text, strings),
        n if n <= DEPTH_MAX => on_deep_stack(|| parse_here(text, strings)),
        _ => Err(ParseError::too_complex()),
    }
}

/// Cuts a text into its statements by their tokens: one that does not parse stays by itself. Comments before a statement are kept.
pub fn split(text: &str) -> Vec<String> {
    // A quote that is never closed, say: it is one statement, and wrong.
    let parts = pg_query::split_with_scanner(text).unwrap_or_else(|_| vec![text]);
    let mut all = Vec::new();
    let mut end = 0;
    for part in parts {
        let start = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        all.extend(words_between(text.get(end..start).unwrap_or_default()));
        all.push(part.trim().to_owned());
        end = start.wrapping_add(part.len());
    }
    all.extend(words_between(text.get(end..).unwrap_or_default()));
    all
}

/// The scanner passes over what has no keyword in it: no statement, but what somebody took for one.
fn words_between(text: &str) -> Vec<String> {
    let is_something = |part: &&str| parse(part).map_or(true, |s| !s.is_empty());
    let parts = text.split(';').map(str::trim).filter(is_something);
    parts.map(str::to_owned).collect()
}

fn on_deep_stack<T: Send>(
    f: impl FnOnce() -> Result<T, ParseError> + Send,
) -> Result<T, ParseError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("parse".into())
            .stack_size(DEEP_STACK_BYTES)
            .spawn_scoped(scope, f)
            .map_err(|_| ParseError::too_complex())?
            .join()
            .unwrap_or_else(|_| Err(ParseError::too_complex()))
    })
}

fn parse_here(text: &str, strings: Strings) -> Result<Vec<Statement>, ParseError> {
    let tree = match pg_query::parse(text, strings) {
        Ok(tree) => tree.protobuf,
        Err(pg_query::Error::Decode(_)) => return Err(ParseError::too_complex()),
        Err(pg_query::Error::Parse(m)) if m.contains("nested too deeply") => {
            return Err(ParseError::too_complex());
        }
        Err(e) => return Err(syntax_error(text, &e)),
    };
    if tree
        .stmts
        .iter()
        .filter_map(|s| s.stmt.as_deref())
        .any(is_too_deep)
    {
        return Err(ParseError::too_complex());
    }
    let mut statements = Vec::with_capacity(tree.stmts.len());
    // The end of the statement before.
    let mut behind = 0;
    for raw in tree.stmts {
        let Some(node) = raw.stmt.and_then(|s| s.node) else {
            continue;
        };
        let start = usize::try_from(raw.stmt_location)
            .unwrap_or(0)
            .min(text.len());
        let end = match usize::try_from(raw.stmt_len) {
            Ok(0) | Err(_) => text.len(),
            Ok(n) => (start + n).min(text.len()),
        };
        let Some(slice) = text.get(start..end) else {
            return Err(ParseError::too_complex());
        };
        let lead = text.get(behind..start).unwrap_or_default();
        behind = end;
        // The parser leaves out what stands before a statement's first word.
        let (slice, start) = match shard_by_comment(lead.trim_start_matches(is_between)) {
            Ok(None) => (slice, start),
            _ => {
                let start = start - lead.trim_start_matches(is_between).len();
                (text.get(start..end).unwrap_or(slice), start)
            }
        };
        let body = slice.trim_start();
        let offset = start + (slice.len() - body.len());
        let text = body.trim_end().trim_end_matches(';').trim_end();
        // Locations count from the start of the message; a second parse makes them count from the statement's own text.
        let node = if offset == 0 {
            node
        } else {
            parse_one(text, strings)?
        };
        statements.push(Statement {
            text: text.to_owned(),
            offset,
            node,
        });
    }
    Ok(statements)
}

/// What may stand between two statements besides comments.
fn is_between(c: char) -> bool {
    c == ';' || c.is_whitespace()
}

fn is_too_deep(statement: &ast::Node) -> bool {
    fn below(child: Child<'_>, left: usize) -> bool {
        let parts = match child {
            Child::Node(n) => children(n).unwrap_or_default(),
            Child::Select(s) => select_children(s),
        };
        left == 0 || parts.into_iter().any(|p| below(p, left - 1))
    }
    below(Child::Node(statement), TREE_DEPTH_MAX)
}

fn parse_one(text: &str, strings: Strings) -> Result<ast::node::Node, ParseError> {
    let tree = pg_query::parse(text, strings)
        .map_err(|e| syntax_error(text, &e))?
        .protobuf;
    tree.stmts
        .into_iter()
        .next()
        .and_then(|raw| raw.stmt?.node)
        .ok_or_else(ParseError::too_complex)
}

/// Turns the parser's message into PostgreSQL's error. The crate keeps the cursor position to itself, so it is found again
/// from the token that the message quotes.
fn syntax_error(text: &str, error: &pg_query::Error) -> ParseError {
    let message = match error {
        pg_query::Error::Parse(m) => m.clone(),
        other => other.to_string(),
    };
    let offset = error_offset(text, &message);
    ParseError {
        sqlstate: sqlstate::SYNTAX_ERROR,
        position: offset
            .and_then(|o| text.get(..o))
            .map(|s| s.chars().count() + 1),
        message,
    }
}

/// Byte offset of the token an error message names. A prefix of the text that stops before the offending token fails "at
/// end of input" or not at all, one that contains it fails "at or near" it: the first such occurrence is found by bisection.
fn error_offset(text: &str, message: &str) -> Option<usize> {
    if message.ends_with("at end of input") {
        return Some(text.len());
    }
    let token = message.split_once("at or near \"")?.1.strip_suffix('"')?;
    if token.is_empty() {
        return None;
    }
    let places: Vec<usize> = text.match_indices(token).map(|(i, _)| i).collect();
    let fails = |at: &usize| match text.get(..at + token.len()).map(|t| pg_query::parse(t, 0)) {
        Some(Err(pg_query::Error::Parse(m))) => m == message,
        _ => false,
    };
    let first = places.partition_point(|p| !fails(p));
    places.get(first).or(places.last()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_message_into_statements_with_their_own_text() {
        let all = parse("select 1; ;\n  select 'ä;', 2 ;").expect("valid");
        let texts: Vec<_> = all.iter().map(|s| s.text.as_str()).collect();
        assert_eq!(texts, ["select 1", "select 'ä;', 2"]);
        assert!(parse("  -- nothing").expect("valid").is_empty());
    }

    #[test]
    fn syntax_errors_carry_the_position_postgresql_gives() {
        let at = |sql: &str| parse(sql).expect_err("invalid").position;
        assert_eq!(at("select from where"), Some(13));
        assert_eq!(at("select a a from t where where x"), Some(25));
        assert_eq!(at("select 'ü' from t order"), Some(24));
        assert_eq!(parse("selec 1").expect_err("invalid").sqlstate, "42601");
        assert_eq!(
            parse("selec 1").expect_err("invalid").message,
            "syntax error at or near \"selec\""
        );
    }

    #[test]
    fn nesting_is_taken_to_some_depth() {
        let unions = vec!["select 1"; 300].join(" union all ");
        let sums = format!("select {}1", "1 + ".repeat(300));
        let cases = format!(
            "select {}0{}",
            "case when 1 = 2 then 1 else ".repeat(100),
            " end".repeat(100)
        );
        for sql in [unions, sums, cases] {
            assert!(on_deep_stack(|| parse(&sql).map(|_| ())).is_ok(), "{sql}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_fatal() {
        for (open, n) in [
            ("- ", 2_000),
            ("- ", 1_000_000),
            ("not ", 100_000),
            ("(", 5_000),
            ("a + ", 40_000),
        ] {
            let sql = format!("select {}a", open.repeat(n));
            assert!(parse(&sql).is_err(), "{open}");
        }
        let list = format!("select 1 where 1 in ({}1)", "1,".repeat(100_000));
        assert!(parse(&list).is_ok());
        let ors = format!("select 1 where 1 = 2 {}", "or 1 = 3 ".repeat(20_000));
        assert!(parse(&ors).is_ok());
    }
}
