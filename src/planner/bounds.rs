//! LIMIT and OFFSET over several shards: what they say, and what of them each shard gets.

use super::analyse::refusal;
use super::order::Key;
use super::pushdown::{FanOut, Stop, unprintable};
use super::{Fact, Probe};
use crate::metrics::Reason;
use crate::plan::{Count, Plan};
use crate::sql::ast::{self, a_const::Val, node::Node};
use crate::sql::{any_node, expression_text};
use crate::types::oid;

/// LIMIT or OFFSET as far as it is known when planning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    None,
    Rows(u64),
    Parameter(usize),
    /// The shards raise the error themselves.
    Negative,
}

impl<'p, 'a> FanOut<'p, 'a> {
    /// LIMIT and OFFSET as the client wrote them.
    pub(super) fn original_limit(&self, _keys: &[Key<'a>]) -> Result<String, Stop> {
        let s = self.select;
        let text = |n: &Option<Box<ast::Node>>| {
            n.as_deref()
                .map(expression_text)
                .transpose()
                .map_err(unprintable)
        };
        let mut out = String::new();
        if let Some(m) = text(&s.limit_offset)? {
            out.push_str(&format!(" OFFSET {m}"));
        }
        if let Some(n) = text(&s.limit_count)? {
            match s.limit_option == ast::LimitOption::WithTies as i32 {
                true => out.push_str(&format!(" FETCH FIRST ({n}) ROWS WITH TIES")),
                false => out.push_str(&format!(" LIMIT {n}")),
            }
        }
        Ok(out)
    }

    /// What a LIMIT or OFFSET says; expressions of constants are asked of a shard.
    pub(super) fn bound(&self, node: Option<&ast::Node>) -> Result<Bound, Stop> {
        let Some(node) = node else {
            return Ok(Bound::None);
        };
        if let Some(Node::AConst(c)) = &node.node {
            if c.isnull {
                return Ok(Bound::None);
            }
            let constant = match &c.val {
                Some(Val::Ival(i)) => Some(i64::from(i.ival)),
                Some(Val::Fval(f)) => f.fval.parse().ok(),
                _ => None,
            };
            if let Some(n) = constant {
                return Ok(u64::try_from(n).map_or(Bound::Negative, Bound::Rows));
            }
        }
        if let Some(Node::ParamRef(p)) = &node.node {
            let index = usize::try_from(p.number - 1).unwrap_or(usize::MAX);
            if let Some(&(oid::INT2 | oid::INT4 | oid::INT8)) =
                self.request.parameter_types.get(index)
            {
                return Ok(Bound::Parameter(index));
            }
        }
        let constant = !any_node(node, &mut |n| {
            !matches!(n, Node::AConst(_) | Node::AExpr(_) | Node::TypeCast(_))
        });
        if !constant {
            return Err(refusal(
                Reason::Form,
                "this LIMIT or OFFSET is not supported over several shards",
                "Use a constant or a parameter of an integer type.",
                -1,
            )
            .into());
        }
        let probe = Probe::Value {
            sql: format!(
                "SELECT ({})::int8",
                expression_text(node).map_err(unprintable)?
            ),
        };
        match self.request.facts.get(&probe) {
            Some(Fact::Value(None)) => Ok(Bound::None),
            Some(Fact::Value(Some(text))) => Ok(match text.parse::<i64>() {
                Ok(n) => u64::try_from(n).map_or(Bound::Negative, Bound::Rows),
                Err(_) => {
                    return Err(refusal(
                        Reason::Form,
                        "this LIMIT is not supported",
                        "Use a constant.",
                        -1,
                    )
                    .into());
                }
            }),
            Some(Fact::Columns(_)) => Err(refusal(
                Reason::Form,
                "this LIMIT is not supported",
                "Use a constant.",
                -1,
            )
            .into()),
            None => Err(Stop::Ask(vec![probe])),
        }
    }
}

pub(super) fn limit(input: Plan, count: Bound, offset: Bound) -> Plan {
    let of = |b| match b {
        Bound::Rows(n) => Some(Count::Rows(n)),
        Bound::Parameter(p) => Some(Count::Parameter(p)),
        Bound::None | Bound::Negative => None,
    };
    let (count, offset) = (of(count), of(offset).filter(|o| *o != Count::Rows(0)));
    match (count, offset) {
        (None, None) => input,
        (count, offset) => Plan::Limit {
            input: Box::new(input),
            count,
            offset,
        },
    }
}

/// The LIMIT each shard gets: any one of them may hold the whole first page, so it is limit + offset rows.
pub(super) fn limit_text(count: Bound, offset: Bound, with_ties: bool) -> String {
    let sum = match (count, offset) {
        (Bound::None, Bound::Negative) => return " OFFSET -1".into(),
        (Bound::Negative, _) => return " LIMIT -1".into(),
        (Bound::None, _) => return String::new(),
        (Bound::Rows(_) | Bound::Parameter(_), Bound::Negative) => return " OFFSET -1".into(),
        (Bound::Rows(n), Bound::None) => n.to_string(),
        (Bound::Rows(n), Bound::Rows(m)) => n.saturating_add(m).min(i64::MAX as u64).to_string(),
        (Bound::Parameter(n), Bound::None) => format!("${}", n + 1),
        (count, offset) => {
            // NULL means no limit, and least() passes it over.
            let term = |b| match b {
                Bound::Rows(n) => n.to_string(),
                Bound::Parameter(p) => format!("${}::int8::numeric", p + 1),
                Bound::None | Bound::Negative => "0".into(),
            };
            format!(
                "least({} + coalesce({}, 0), {})::int8",
                term(count),
                term(offset),
                i64::MAX
            )
        }
    };
    match with_ties {
        true => format!(" FETCH FIRST ({sum}) ROWS WITH TIES"),
        false => format!(" LIMIT {sum}"),
    }
}

pub(super) fn push_limit(select: &mut ast::SelectStmt, count: Bound, offset: Bound) {
    if offset == Bound::Negative || count == Bound::Negative {
        return;
    }
    if offset == Bound::None || offset == Bound::Rows(0) {
        if count == Bound::None {
            select.limit_count = None;
        }
        select.limit_offset = None;
        return;
    }
    select.limit_offset = None;
    if select.limit_option == ast::LimitOption::WithTies as i32 {
        // Rare enough to send all rows.
        select.limit_count = None;
        select.limit_option = ast::LimitOption::Default as i32;
        return;
    }
    let text = limit_text(count, offset, false);
    let parsed = crate::sql::parse(&format!("SELECT{text}"));
    let limit = parsed.ok().and_then(|mut v| match v.pop().map(|s| s.node) {
        Some(Node::SelectStmt(s)) => s.limit_count,
        _ => None,
    });
    select.limit_option = match limit.is_some() {
        true => ast::LimitOption::Count as i32,
        false => ast::LimitOption::Default as i32,
    };
    select.limit_count = limit;
}
