//! WHERE and ORDER BY of a SHOW: a small part of SQL, read by PostgreSQL's own grammar. What is not part of it is refused, not guessed.

use std::cmp::Ordering;

use super::command::constant;
use super::table::{Column, Table, Type, Value};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::ast::node::Node;
use crate::sql::ast::{self, AExprKind, BoolExprType, SortByDir, SortByNulls};
use crate::sql::{self};

/// A condition on a row.
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    IsNull(usize),
    Compare {
        column: usize,
        /// The orders of the column's value beside the other for which it holds.
        holds: Vec<Ordering>,
        with: Other,
    },
    Like {
        column: usize,
        pattern: Vec<Part>,
        ignores_case: bool,
    },
}

/// What a column is compared with.
enum Other {
    Column(usize),
    Constant(Value),
}

/// A part of a LIKE pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// `%`
    Any,
    /// `_`
    One,
    Char(char),
}

/// Leaves the rows of `table` that `rest` asks for, in the order it asks for.
///
/// # Errors
/// 42601, 42703 and their like for what is wrong with it, 0A000 for what the console does not know.
pub fn apply(table: &mut Table, rest: &str) -> Result<(), ServerError> {
    if rest.is_empty() {
        return Ok(());
    }
    let select = parse(rest)?;
    let columns = &table.columns;
    if let Some(node) = &select.where_clause {
        let condition = condition(node, columns)?;
        table.rows.retain(|row| condition.holds(row) == Some(true));
    }
    let keys = select.sort_clause.iter().map(|node| key(node, columns));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    table.rows.sort_by(|a, b| {
        let orders = keys.iter().map(|key| key.order(a, b));
        orders.fold(Ordering::Equal, Ordering::then)
    });
    Ok(())
}

fn parse(rest: &str) -> Result<ast::SelectStmt, ServerError> {
    let text = format!("SELECT * FROM rows {rest}");
    let mut statements = sql::parse(&text)
        .map_err(|error| ServerError::new(sqlstate::SYNTAX_ERROR, error.message))?;
    let Some(Node::SelectStmt(select)) = statements.pop().map(|s| s.node) else {
        return Err(unknown());
    };
    let bare = ast::SelectStmt {
        where_clause: None,
        sort_clause: Vec::new(),
        ..(*select).clone()
    };
    // What else may stand there would be in the rest of the tree.
    let expected = sql::parse("SELECT * FROM rows")
        .ok()
        .and_then(|mut s| s.pop());
    match expected.map(|s| s.node) {
        Some(Node::SelectStmt(expected)) if *expected == bare => Ok(*select),
        _ => Err(unknown()),
    }
}

fn unknown() -> ServerError {
    let message = "this is not supported in a SHOW";
    ServerError::new(sqlstate::FEATURE_NOT_SUPPORTED, message).with_hint(
        "WHERE takes comparisons of columns, LIKE, IN, IS NULL, AND, OR and NOT; ORDER BY takes columns.",
    )
}

fn column(node: Option<&ast::Node>, columns: &[Column]) -> Result<usize, ServerError> {
    let name = match node.and_then(|n| n.node.as_ref()) {
        Some(Node::ColumnRef(reference)) => match reference.fields.as_slice() {
            [
                ast::Node {
                    node: Some(Node::String(name)),
                },
            ] => &*name.sval,
            _ => return Err(unknown()),
        },
        // A column of that name would need quotes in PostgreSQL, and nobody thinks of them here.
        Some(Node::SqlvalueFunction(f)) if f.op() == ast::SqlValueFunctionOp::SvfopUser => "user",
        _ => return Err(unknown()),
    };
    let found = columns.iter().position(|c| c.name == name);
    found.ok_or_else(|| {
        let message = format!("column \"{name}\" does not exist");
        let names: Vec<_> = columns.iter().map(|c| c.name).collect();
        ServerError::new("42703", message).with_hint(format!("Columns: {}.", names.join(", ")))
    })
}

/// A constant as a value of the column's type, as PostgreSQL takes an untyped literal.
fn value(node: &ast::Node, of: Column) -> Result<Value, ServerError> {
    let number = matches!(
        node.node.as_ref(),
        Some(Node::AConst(c)) if !matches!(c.val, Some(ast::a_const::Val::Sval(_)))
    );
    let negated = match node.node.as_ref() {
        Some(Node::AExpr(e)) if e.lexpr.is_none() && operator(e) == Some("-") => e.rexpr.as_deref(),
        _ => None,
    };
    let text = match negated {
        Some(positive) => constant(positive).map(|text| format!("-{text}")),
        None => constant(node),
    };
    let text = text.ok_or_else(unknown)?;
    let malformed = || {
        let message = format!("column \"{}\" is a number, {text:?} is none", of.name);
        ServerError::new("22P02", message)
    };
    match of.kind {
        Type::Text if number || negated.is_some() => {
            let message = format!("column \"{}\" is a text, not a number", of.name);
            Err(ServerError::new("42883", message).with_hint("Put quotes around it."))
        }
        Type::Text => Ok(Value::Text(text)),
        Type::Integer | Type::Float => match text.parse() {
            Ok(n) => Ok(Value::Integer(n)),
            Err(_) => text.parse().map(Value::Float).map_err(|_| malformed()),
        },
    }
}

fn operator(expression: &ast::AExpr) -> Option<&str> {
    match expression.name.as_slice() {
        [name] => match &name.node {
            Some(Node::String(name)) => Some(&name.sval),
            _ => None,
        },
        _ => None,
    }
}

fn condition(node: &ast::Node, columns: &[Column]) -> Result<Condition, ServerError> {
    match node.node.as_ref() {
        Some(Node::BoolExpr(expression)) => {
            let parts = expression.args.iter().map(|a| condition(a, columns));
            let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
            match expression.boolop() {
                BoolExprType::AndExpr => Ok(Condition::All(parts)),
                BoolExprType::OrExpr => Ok(Condition::Any(parts)),
                BoolExprType::NotExpr => parts.pop().map(not).ok_or_else(unknown),
                BoolExprType::Undefined => Err(unknown()),
            }
        }
        Some(Node::NullTest(test)) => {
            let is_null = Condition::IsNull(column(test.arg.as_deref(), columns)?);
            match test.nulltesttype() {
                ast::NullTestType::IsNull => Ok(is_null),
                ast::NullTestType::IsNotNull => Ok(not(is_null)),
                ast::NullTestType::Undefined => Err(unknown()),
            }
        }
        Some(Node::AExpr(expression)) => comparison(expression, columns),
        _ => Err(unknown()),
    }
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

fn comparison(expression: &ast::AExpr, columns: &[Column]) -> Result<Condition, ServerError> {
    let at = column(expression.lexpr.as_deref(), columns)?;
    let right = expression.rexpr.as_deref().ok_or_else(unknown)?;
    let operator = operator(expression).ok_or_else(unknown)?;
    let holds = match operator {
        "=" => vec![Ordering::Equal],
        "<>" => vec![Ordering::Less, Ordering::Greater],
        "<" => vec![Ordering::Less],
        "<=" => vec![Ordering::Less, Ordering::Equal],
        ">" => vec![Ordering::Greater],
        ">=" => vec![Ordering::Greater, Ordering::Equal],
        _ => Vec::new(),
    };
    let compare = |with, holds| Condition::Compare {
        column: at,
        holds,
        with,
    };
    match expression.kind() {
        AExprKind::AexprOp if !holds.is_empty() => {
            let with = match &right.node {
                Some(Node::ColumnRef(_)) => Other::Column(same_kind(at, right, columns)?),
                _ => Other::Constant(value(right, columns[at])?),
            };
            Ok(compare(with, holds))
        }
        AExprKind::AexprIn => {
            let Some(Node::List(list)) = &right.node else {
                return Err(unknown());
            };
            let equal = |item| -> Result<Condition, ServerError> {
                let constant = Other::Constant(value(item, columns[at])?);
                Ok(compare(constant, vec![Ordering::Equal]))
            };
            let any = list.items.iter().map(equal).collect::<Result<_, _>>()?;
            let any = Condition::Any(any);
            Ok(if operator == "<>" { not(any) } else { any })
        }
        AExprKind::AexprLike | AExprKind::AexprIlike if columns[at].kind == Type::Text => {
            let like = Condition::Like {
                column: at,
                pattern: pattern(&constant(right).ok_or_else(unknown)?)?,
                ignores_case: expression.kind() == AExprKind::AexprIlike,
            };
            Ok(if operator.starts_with('!') {
                not(like)
            } else {
                like
            })
        }
        _ => Err(unknown()),
    }
}

fn same_kind(at: usize, other: &ast::Node, columns: &[Column]) -> Result<usize, ServerError> {
    let other = column(Some(other), columns)?;
    let is_text = |i: usize| columns[i].kind == Type::Text;
    match is_text(at) == is_text(other) {
        true => Ok(other),
        false => Err(unknown()),
    }
}

fn pattern(text: &str) -> Result<Vec<Part>, ServerError> {
    let mut parts = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '%' => Part::Any,
            '_' => Part::One,
            '\\' => match chars.next() {
                Some(c) => Part::Char(c),
                None => {
                    let message = "LIKE pattern must not end with escape character";
                    return Err(ServerError::new("22025", message));
                }
            },
            c => Part::Char(c),
        });
    }
    Ok(parts)
}

/// Keeps one place to go back to, the last `%`: never more steps than the two lengths multiplied.
fn is_like(text: &[char], pattern: &[Part]) -> bool {
    let (mut at, mut part) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(part) {
            Some(Part::Any) => {
                part += 1;
                back = Some((at, part));
                continue;
            }
            Some(Part::One) => {}
            Some(Part::Char(c)) if *c == text[at] => {}
            _ => match &mut back {
                Some((from, behind)) => {
                    *from += 1;
                    (at, part) = (*from, *behind);
                    continue;
                }
                None => return false,
            },
        }
        at += 1;
        part += 1;
    }
    pattern[part..].iter().all(|p| *p == Part::Any)
}

impl Condition {
    /// `None` is unknown, as in SQL.
    fn holds(&self, row: &[Value]) -> Option<bool> {
        match self {
            Self::All(parts) => {
                let parts: Vec<_> = parts.iter().map(|p| p.holds(row)).collect();
                match parts.contains(&Some(false)) {
                    true => Some(false),
                    false if parts.contains(&None) => None,
                    false => Some(true),
                }
            }
            Self::Any(parts) => {
                let parts: Vec<_> = parts.iter().map(|p| p.holds(row)).collect();
                match parts.contains(&Some(true)) {
                    true => Some(true),
                    false if parts.contains(&None) => None,
                    false => Some(false),
                }
            }
            Self::Not(part) => part.holds(row).map(|holds| !holds),
            Self::IsNull(column) => Some(row[*column] == Value::Null),
            Self::Compare {
                column,
                holds,
                with,
            } => {
                let with = match with {
                    Other::Column(other) => &row[*other],
                    Other::Constant(value) => value,
                };
                let order = row[*column].compare(with)?;
                Some(holds.contains(&order))
            }
            Self::Like {
                column,
                pattern,
                ignores_case,
            } => {
                let Value::Text(text) = &row[*column] else {
                    return None;
                };
                Some(match ignores_case {
                    false => is_like(&text.chars().collect::<Vec<_>>(), pattern),
                    true => {
                        let lower = |c: char| c.to_lowercase().next().unwrap_or(c);
                        let text: Vec<_> = text.chars().map(lower).collect();
                        let fold = |part: &Part| match part {
                            Part::Char(c) => Part::Char(lower(*c)),
                            part => *part,
                        };
                        let pattern: Vec<_> = pattern.iter().map(fold).collect();
                        is_like(&text, &pattern)
                    }
                })
            }
        }
    }
}

/// A column of ORDER BY.
struct Key {
    column: usize,
    descending: bool,
    nulls_first: bool,
}

fn key(node: &ast::Node, columns: &[Column]) -> Result<Key, ServerError> {
    let Some(Node::SortBy(sort)) = &node.node else {
        return Err(unknown());
    };
    let by = sort.node.as_deref();
    let number = by.and_then(constant).and_then(|n| n.parse::<usize>().ok());
    let column = match number {
        Some(n) if (1..=columns.len()).contains(&n) => n - 1,
        Some(n) => {
            let message = format!("ORDER BY position {n} is not in select list");
            return Err(ServerError::new("42P10", message));
        }
        None => column(by, columns)?,
    };
    let descending = match sort.sortby_dir() {
        SortByDir::SortbyDefault | SortByDir::SortbyAsc => false,
        SortByDir::SortbyDesc => true,
        SortByDir::SortbyUsing | SortByDir::Undefined => return Err(unknown()),
    };
    Ok(Key {
        column,
        descending,
        nulls_first: match sort.sortby_nulls() {
            SortByNulls::SortbyNullsFirst => true,
            SortByNulls::SortbyNullsLast => false,
            SortByNulls::SortbyNullsDefault | SortByNulls::Undefined => descending,
        },
    })
}

impl Key {
    fn order(&self, a: &[Value], b: &[Value]) -> Ordering {
        let (a, b) = (&a[self.column], &b[self.column]);
        match (a == &Value::Null, b == &Value::Null) {
            (false, false) => {}
            (a, b) if self.nulls_first => return b.cmp(&a),
            (a, b) => return a.cmp(&b),
        }
        let order = a.compare(b).unwrap_or(Ordering::Equal);
        if self.descending {
            order.reverse()
        } else {
            order
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            ("name", Type::Text),
            ("size", Type::Integer),
            ("share", Type::Float),
            ("user", Type::Text),
        ]);
        table.push(vec!["s1".into(), 10.into(), 0.5.into(), "a".into()]);
        table.push(vec!["S2".into(), (-3).into(), Value::Null, "b".into()]);
        table.push(vec!["x_%".into(), 10.into(), 1.25.into(), "c".into()]);
        table
    }

    fn names(rest: &str) -> Vec<String> {
        let mut table = table();
        apply(&mut table, rest).unwrap_or_else(|e| panic!("{rest}: {}", e.message()));
        table.rows.iter().filter_map(|row| row[0].text()).collect()
    }

    #[test]
    fn rows_are_chosen_as_sql_does() {
        for (rest, expected) in [
            ("where size = 10", vec!["s1", "x_%"]),
            ("where size = '10' and share > 1", vec!["x_%"]),
            ("where size <> -3", vec!["s1", "x_%"]),
            ("where not share < 1", vec!["x_%"]),
            ("where share is null or name = 's1'", vec!["s1", "S2"]),
            ("where share is not null", vec!["s1", "x_%"]),
            ("where name like 's%'", vec!["s1"]),
            ("where name ilike 's_'", vec!["s1", "S2"]),
            ("where name like '%\\_\\%'", vec!["x_%"]),
            ("where name not like '%1'", vec!["S2", "x_%"]),
            ("where name in ('S2', 'x_%')", vec!["S2", "x_%"]),
            ("where size not in (10)", vec!["S2"]),
            ("where size > share", vec!["s1", "x_%"]),
            ("where user = 'b' or \"user\" = 'c'", vec!["S2", "x_%"]),
            ("order by share", vec!["s1", "x_%", "S2"]),
            ("order by share desc", vec!["S2", "x_%", "s1"]),
            ("order by share nulls first", vec!["S2", "s1", "x_%"]),
            ("order by 2 desc, name desc", vec!["x_%", "s1", "S2"]),
            ("where size > 0 order by name", vec!["s1", "x_%"]),
        ] {
            assert_eq!(names(rest), expected, "{rest}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (rest, state) in [
            ("where size + 1 = 2", "0A000"),
            ("where size = (select 1)", "0A000"),
            ("where lower(name) = 's1'", "0A000"),
            ("limit 1", "0A000"),
            ("union select 1", "0A000"),
            ("r where size = 1", "0A000"),
            (", pg_class", "0A000"),
            ("group by name", "0A000"),
            ("for update", "0A000"),
            ("where name > size", "0A000"),
            ("where size like '1%'", "0A000"),
            ("where nothing = 1", "42703"),
            ("where name = 1", "42883"),
            ("where size = 'many'", "22P02"),
            ("where name like 'x\\'", "22025"),
            ("order by 5", "42P10"),
            ("where current_user = 'a'", "0A000"),
            ("where", "42601"),
            ("where size = 1; select 2", "0A000"),
        ] {
            let error = apply(&mut table(), rest).expect_err(rest);
            assert_eq!(error.sqlstate(), state, "{rest}: {}", error.message());
        }
    }

    #[test]
    fn patterns_with_many_wildcards_end_soon() {
        let text: Vec<char> = "a".repeat(10_000).chars().collect();
        let many = pattern(&"%a".repeat(500)).unwrap();
        assert!(is_like(&text, &many));
        let none = pattern(&format!("{}b", "%a".repeat(500))).unwrap();
        assert!(!is_like(&text, &none));
    }
}
