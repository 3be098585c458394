//! What a statement reads of the clock: now() and its like, and constants such as `'today'::date`, each replaced by a parameter so
//! that all shards, and all statements of a transaction, have one value.

use std::collections::HashSet;

use super::analyse::Views;
use super::functions::{Effects, bare_name, cast_name, effects};
use super::rewrite::{cast, integer};
use crate::catalog::Catalog;
use crate::plan::Extra;
use crate::sql::ast::{self, a_const::Val, node::Node};
use crate::sql::{Child, walk};

/// Functions without arguments that give one value for a whole transaction or statement.
pub(super) const NOW: [&str; 3] = ["now", "transaction_timestamp", "statement_timestamp"];

/// Values without parentheses that depend on the moment.
const WORDS: [&str; 5] = [
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
];

/// Types that read `now`, by the names the parser gives them.
const TYPES: [&str; 5] = ["timestamptz", "timestamp", "date", "time", "timetz"];

/// A moment as an expression names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Which moment.
    pub(super) clock: Extra,
    /// A day counted from the moment's, at midnight; `None`: the moment itself.
    day: Option<i32>,
    /// The expression's type, with its precision (-1: none).
    to: (&'static str, i32),
}

impl Moment {
    /// The expression with a parameter for the clock.
    pub(super) fn expression(self, parameter: i32) -> ast::Node {
        let parameter = ast::Node {
            node: Some(Node::ParamRef(ast::ParamRef {
                number: parameter,
                location: -1,
            })),
        };
        let moment = cast(parameter, "timestamptz", -1);
        let moment = match self.day {
            None if self.to == ("timestamptz", -1) => return moment,
            None => moment,
            Some(days) => plus(cast(moment, "date", -1), days),
        };
        cast(moment, self.to.0, self.to.1)
    }
}

/// `date + days`
fn plus(date: ast::Node, days: i32) -> ast::Node {
    if days == 0 {
        return date;
    }
    let operator = ast::Node {
        node: Some(Node::String(ast::String { sval: "+".into() })),
    };
    ast::Node {
        node: Some(Node::AExpr(Box::new(ast::AExpr {
            kind: ast::AExprKind::AexprOp as i32,
            name: vec![operator],
            lexpr: Some(Box::new(date)),
            rexpr: Some(Box::new(integer(days))),
            location: -1,
            ..Default::default()
        }))),
    }
}

/// The moment that an expression stands for by its shape alone.
pub(super) fn moment(node: &ast::Node) -> Option<Moment> {
    use ast::SqlValueFunctionOp as F;
    match &node.node {
        Some(Node::FuncCall(f)) if f.args.is_empty() && f.over.is_none() => Some(Moment {
            clock: match bare_name(f)? {
                "now" | "transaction_timestamp" => Extra::TransactionTimestamp,
                "statement_timestamp" => Extra::StatementTimestamp,
                _ => return None,
            },
            day: None,
            to: ("timestamptz", -1),
        }),
        Some(Node::SqlvalueFunction(f)) => {
            let name = match F::try_from(f.op).ok()? {
                F::SvfopCurrentDate => "date",
                F::SvfopCurrentTime | F::SvfopCurrentTimeN => "timetz",
                F::SvfopCurrentTimestamp | F::SvfopCurrentTimestampN => "timestamptz",
                F::SvfopLocaltime | F::SvfopLocaltimeN => "time",
                F::SvfopLocaltimestamp | F::SvfopLocaltimestampN => "timestamp",
                _ => return None,
            };
            Some(Moment {
                clock: Extra::TransactionTimestamp,
                day: None,
                to: (name, f.typmod),
            })
        }
        Some(Node::TypeCast(cast)) => Some(constant(cast)?.0),
        _ => None,
    }
}

/// A cast of a constant that PostgreSQL reads when it parses the statement (`'now'::timestamptz`, `date 'today'`), or when it
/// runs it, where the constant is text first; with the constant.
pub(super) fn constant(cast: &ast::TypeCast) -> Option<(Moment, &ast::Node)> {
    let to = type_of(cast)?;
    let arg = cast.arg.as_deref()?;
    let (clock, arg) = match &arg.node {
        Some(Node::TypeCast(inner)) if matches!(cast_name(inner), Some("text" | "varchar")) => {
            (Extra::TransactionTimestamp, inner.arg.as_deref()?)
        }
        _ => (Extra::PreparedTimestamp, arg),
    };
    let Some(Node::AConst(c)) = &arg.node else {
        return None;
    };
    let Some(Val::Sval(text)) = &c.val else {
        return None;
    };
    let day = match text.sval.trim().to_ascii_lowercase().as_str() {
        "now" => None,
        "today" if !to.0.starts_with("timet") && to.0 != "time" => Some(0),
        "tomorrow" if !to.0.starts_with("timet") && to.0 != "time" => Some(1),
        "yesterday" if !to.0.starts_with("timet") && to.0 != "time" => Some(-1),
        _ => return None,
    };
    Some((Moment { clock, day, to }, arg))
}

/// The type that a cast names, if it is one of those that read `now`.
fn type_of(cast: &ast::TypeCast) -> Option<(&'static str, i32)> {
    let to = cast.type_name.as_ref()?;
    let name = cast_name(cast)?;
    let known = *TYPES.iter().find(|t| **t == name)?;
    let qualified = match to.names.as_slice() {
        [_] => true,
        [schema, _] => matches!(&schema.node, Some(Node::String(s)) if s.sval == "pg_catalog"),
        _ => false,
    };
    let precision = match to.typmods.as_slice() {
        [] => -1,
        [one] => match &one.node {
            Some(Node::AConst(c)) => match &c.val {
                Some(Val::Ival(i)) => i.ival,
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    };
    (qualified && to.array_bounds.is_empty() && !to.setof && !to.pct_type)
        .then_some((known, precision))
}

/// What a statement has of constants that the clock may be read by.
#[derive(Debug, Default)]
pub(super) struct Constants {
    /// Met below a cast that decides about them.
    decided: HashSet<*const ast::Node>,
    /// Where a text with such a word stands.
    text: Option<i32>,
    /// Something that is no constant is cast to a date or time.
    casts: bool,
    /// Where a constant stands that may be read as a date or time, whatever coerces it.
    pub(super) open: Option<i32>,
}

impl Constants {
    /// Looks at a node above its parts.
    pub(super) fn meet(&mut self, node: &ast::Node, out: &mut Effects) {
        match &node.node {
            Some(Node::TypeCast(t)) => {
                if let Some((moment, constant)) = constant(t) {
                    out.uses_now = true;
                    out.frozen |= moment.clock == Extra::PreparedTimestamp;
                    self.decided.insert(std::ptr::from_ref(constant));
                } else if is_plain_cast(t) {
                    if let Some(arg) = t.arg.as_deref()
                        && let Some(Node::AConst(c)) = &arg.node
                        && is_moment(c)
                        && self.decided.insert(std::ptr::from_ref(arg))
                    {
                        self.text = Some(c.location);
                    }
                } else if cast_name(t).is_some_and(|n| TYPES.contains(&n)) {
                    self.casts |= !matches!(
                        t.arg.as_deref().and_then(|a| a.node.as_ref()),
                        Some(Node::AConst(_))
                    );
                }
            }
            Some(Node::FuncCall(f)) if f.args.len() == 1 => {
                self.casts |= bare_name(f).is_some_and(|n| TYPES.contains(&n));
            }
            Some(Node::AConst(c))
                if is_moment(c) && !self.decided.contains(&std::ptr::from_ref(node)) =>
            {
                self.open.get_or_insert(c.location);
            }
            _ => {}
        }
    }

    /// Where the clock is read by a constant that no parameter can stand for.
    pub(super) fn unsure(&self) -> Option<i32> {
        self.open.or(self.text.filter(|_| self.casts))
    }
}

/// A cast of such a constant to a type that reads it as it stands.
fn is_plain_cast(cast: &ast::TypeCast) -> bool {
    let plain = [
        "text", "varchar", "bpchar", "char", "name", "bytea", "json", "jsonb", "regclass",
    ];
    cast_name(cast).is_some_and(|n| plain.contains(&n))
}

/// A constant in which date and time types, their ranges and arrays read the moment: `now`, `today 10:00`, `{now}`, `[now,)`.
fn is_moment(constant: &ast::AConst) -> bool {
    let Some(Val::Sval(s)) = &constant.val else {
        return false;
    };
    let moments = ["now", "today", "tomorrow", "yesterday"];
    s.sval
        .split(|c: char| !c.is_ascii_alphabetic())
        .any(|word| moments.iter().any(|m| word.eq_ignore_ascii_case(m)))
}

/// Writes `age(x)` as what it stands for, `age(current_date, x)`, wherever it is in a statement or view.
pub(super) fn spell_out_age(select: &mut ast::SelectStmt) {
    for part in crate::sql::select_children_mut(select) {
        spell_out(part);
    }
}

fn spell_out(part: crate::sql::ChildMut<'_>) {
    use crate::sql::ChildMut;
    let node = match part {
        ChildMut::Select(s) => return spell_out_age(s),
        ChildMut::Node(n) => n,
    };
    if let Some(Node::FuncCall(f)) = &mut node.node
        && bare_name(f) == Some("age")
        && f.args.len() == 1
    {
        let today = Node::SqlvalueFunction(Box::new(ast::SqlValueFunction {
            op: ast::SqlValueFunctionOp::SvfopCurrentDate as i32,
            typmod: -1,
            location: -1,
            ..Default::default()
        }));
        f.args.insert(0, ast::Node { node: Some(today) });
    }
    for part in crate::sql::children_mut(node).unwrap_or_default() {
        spell_out(part);
    }
}

/// Views that read the clock, themselves or by other views: in a text for shards their query stands in their place.
pub(super) fn views(catalog: &Catalog, views: &Views) -> HashSet<(String, String)> {
    let mut found = HashSet::new();
    for (key, body) in views {
        let here = effects(catalog, &[], [body].into_iter());
        if here.uses_now && !here.hidden_now {
            found.insert(key.clone());
        }
    }
    loop {
        let before = found.len();
        for (key, body) in views {
            let mut names = false;
            walk(Child::Select(body), &mut |child| {
                if let Child::Node(n) = child
                    && let Some(Node::RangeVar(v)) = &n.node
                {
                    names |= found.contains(&(v.schemaname.clone(), v.relname.clone()));
                }
                true
            });
            if names {
                found.insert(key.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// True for a function of a user that reads the clock in its body, or may: no parameter reaches it there.
pub(super) fn is_hidden_in(catalog: &Catalog, function: &str) -> bool {
    reads(catalog, function, &mut HashSet::new())
}

fn reads<'c>(catalog: &'c Catalog, function: &str, seen: &mut HashSet<&'c str>) -> bool {
    let Some((name, overloads)) = catalog.functions.get_key_value(function) else {
        return false;
    };
    if !seen.insert(name) {
        return false;
    }
    overloads.iter().any(|f| match &f.names {
        _ if f.schema == "pg_catalog" => false,
        None => true,
        Some(names) => names.iter().any(|n| {
            let n = n.as_str();
            NOW.contains(&n) || WORDS.contains(&n) || n == "age" || reads(catalog, n, seen)
        }),
    })
}
