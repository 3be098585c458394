//! Expressions that give a value for every row, whatever is in it.
//!
//! Only these are computed in a lazy plan's stages, see [`super::ahead`].

use super::analyse::Analysis;
use super::functions::{bare_name, find};
use super::scope::find_table;
use crate::sql::ast::{self, a_const::Val, node::Node};
use crate::sql::{Child, children, select_children};
use crate::types::oid;

const COMPARISONS: [&str; 6] = ["=", "<>", "<", ">", "<=", ">="];

/// Operators of jsonb, arrays and ranges that only look.
const LOOKS: [&str; 10] = ["@>", "<@", "&&", "->", "->>", "#>", "#>>", "?", "?|", "?&"];

/// Functions that take all values of their arguments' types.
const TOTAL_FUNCTIONS: [&str; 51] = [
    "count",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "every",
    "bit_and",
    "bit_or",
    "bit_xor",
    "string_agg",
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "first_value",
    "last_value",
    "lag",
    "lead",
    "upper",
    "lower",
    "char_length",
    "character_length",
    "octet_length",
    "btrim",
    "ltrim",
    "rtrim",
    "replace",
    "concat",
    "concat_ws",
    "md5",
    "strpos",
    "position",
    "starts_with",
    "reverse",
    "initcap",
    "left",
    "right",
    "cardinality",
    "array_length",
    "array_ndims",
    "array_lower",
    "array_upper",
    "unnest",
    "jsonb_typeof",
    "json_typeof",
    "isempty",
    "now",
    "transaction_timestamp",
    "isfinite",
    "num_nulls",
];

/// Parts of a moment that dates and timestamps all have.
const DATE_PARTS: [&str; 7] = ["year", "month", "day", "quarter", "week", "dow", "doy"];

/// Types whose constants and casts cannot fail once a statement is read, see [`Analysis::is_total_cast`].
pub(super) const PLAIN_TYPES: [&str; 20] = [
    "bool",
    "int2",
    "int4",
    "int8",
    "numeric",
    "float4",
    "float8",
    "text",
    "varchar",
    "bpchar",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
    "uuid",
    "bytea",
    "json",
    "jsonb",
];

/// What is known of a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Number {
    Integer,
    Numeric,
}

impl Analysis<'_> {
    /// True when a SELECT with all that is in it raises no error over any rows.
    pub(super) fn is_total_select(&self, s: &ast::SelectStmt) -> bool {
        let mut bounds = s.limit_count.iter().chain(&s.limit_offset);
        s.locking_clause.is_empty()
            && bounds.all(|b| is_count(b))
            && select_children(s)
                .into_iter()
                .all(|c| self.is_total_child(c))
    }

    /// The same of FROM, WHERE and WITH alone.
    pub(super) fn has_total_source(&self, s: &ast::SelectStmt) -> bool {
        let with = s.with_clause.iter().flat_map(|w| &w.ctes);
        with.chain(&s.from_clause)
            .chain(s.where_clause.as_deref())
            .all(|n| self.is_total(n))
    }

    /// True when an expression or FROM item raises no error over any row.
    pub(super) fn is_total(&self, node: &ast::Node) -> bool {
        let itself = match &node.node {
            None => true,
            Some(Node::SelectStmt(s)) => return self.is_total_select(s),
            Some(node) => self.is_total_node(node),
        };
        itself && children(node).is_some_and(|c| c.into_iter().all(|c| self.is_total_child(c)))
    }

    fn is_total_child(&self, child: Child<'_>) -> bool {
        match child {
            Child::Node(n) => self.is_total(n),
            Child::Select(s) => self.is_total_select(s),
        }
    }

    /// The node itself, its parts left aside.
    fn is_total_node(&self, node: &Node) -> bool {
        match node {
            Node::ColumnRef(_)
            | Node::ParamRef(_)
            | Node::AConst(_)
            | Node::AStar(_)
            | Node::String(_)
            | Node::Integer(_)
            | Node::Float(_)
            | Node::SqlvalueFunction(_)
            | Node::BoolExpr(_)
            | Node::NullTest(_)
            | Node::BooleanTest(_)
            | Node::CaseExpr(_)
            | Node::CaseWhen(_)
            | Node::CoalesceExpr(_)
            | Node::RowExpr(_)
            | Node::GroupingFunc(_)
            | Node::GroupingSet(_)
            | Node::List(_)
            | Node::ResTarget(_)
            | Node::RangeSubselect(_)
            | Node::JoinExpr(_)
            | Node::CommonTableExpr(_)
            | Node::WithClause(_)
            | Node::CollateClause(_)
            | Node::AIndices(_)
            | Node::AIndirection(_) => true,
            Node::FuncCall(f) if self.ahead.relaxed.get() => self.is_known_call(f),
            Node::MinMaxExpr(_)
            | Node::SubLink(_)
            | Node::AExpr(_)
            | Node::TypeCast(_)
            | Node::AArrayExpr(_)
                if self.ahead.relaxed.get() =>
            {
                true
            }
            Node::MinMaxExpr(_) => self.are_builtin(&["<"]),
            Node::SortBy(s) => s.use_op.is_empty(),
            Node::WindowDef(w) => w
                .start_offset
                .iter()
                .chain(&w.end_offset)
                .all(|b| is_count(b)),
            Node::RangeFunction(f) => f.coldeflist.is_empty(),
            Node::RangeVar(v) => self.is_total_relation(v),
            Node::SubLink(s) => self.is_total_sublink(s),
            Node::AExpr(e) => self.is_total_operator(e),
            Node::FuncCall(f) => self.is_total_call(f),
            Node::TypeCast(t) => self.is_total_cast(t),
            Node::AArrayExpr(a) => a.elements.iter().all(|e| self.is_scalar_expression(e)),
            _ => false,
        }
    }

    fn are_builtin(&self, operators: &[&str]) -> bool {
        !self
            .catalog
            .user_operators
            .iter()
            .any(|u| operators.contains(&u.as_str()))
    }

    fn is_total_relation(&self, v: &ast::RangeVar) -> bool {
        if self.cte_uses.contains(&super::analyse::node_id(v)) {
            return true;
        }
        let found = find_table(self.catalog, self.search_path, &v.schemaname, &v.relname);
        let body = found.and_then(|t| self.views.get(&(t.schema.clone(), t.name.clone())));
        body.is_none_or(|body| self.is_total_select(body))
    }

    /// A value must come from one row: only an aggregate without groups is sure to give one.
    fn is_total_sublink(&self, link: &ast::SubLink) -> bool {
        if !link.oper_name.is_empty() {
            return COMPARISONS
                .iter()
                .any(|c| self.is_builtin_operator(&link.oper_name, c));
        }
        if link.sub_link_type != ast::SubLinkType::ExprSublink as i32 {
            return self.are_builtin(&["="]);
        }
        let Some(Node::SelectStmt(s)) = link.subselect.as_deref().and_then(|s| s.node.as_ref())
        else {
            return false;
        };
        self.blocks
            .get(&super::analyse::node_id(&**s))
            .is_some_and(|b| b.grouped)
            && s.group_clause.is_empty()
    }

    fn is_total_operator(&self, e: &ast::AExpr) -> bool {
        use ast::AExprKind as K;
        let of_builtins = || {
            let sides = e.lexpr.iter().chain(&e.rexpr);
            let is_builtin = |n: &ast::Node| self.is_of_builtin_type(n) || self.number(n).is_some();
            sides.into_iter().all(|side| is_builtin(side))
        };
        let compares = || {
            COMPARISONS.iter().any(|c| {
                self.is_builtin_operator(&e.name, c)
                    || self.is_builtin_between_builtins(&e.name, c) && of_builtins()
            })
        };
        let constant_pattern = || {
            matches!(e.rexpr.as_deref().and_then(|r| r.node.as_ref()),
                Some(Node::AConst(ast::AConst { val: Some(Val::Sval(s)), .. })) if !s.sval.contains('\\'))
        };
        match K::try_from(e.kind) {
            Ok(K::AexprOp) => compares() || self.is_total_arithmetic(e),
            Ok(
                K::AexprOpAny
                | K::AexprOpAll
                | K::AexprDistinct
                | K::AexprNotDistinct
                | K::AexprNullif
                | K::AexprIn,
            ) => compares(),
            Ok(
                K::AexprBetween | K::AexprNotBetween | K::AexprBetweenSym | K::AexprNotBetweenSym,
            ) => self.are_builtin(&["<", "<=", ">", ">="]),
            Ok(K::AexprLike | K::AexprIlike) => {
                self.are_builtin(&["~~", "!~~", "~~*", "!~~*"]) && constant_pattern()
            }
            _ => false,
        }
    }

    fn is_total_arithmetic(&self, e: &ast::AExpr) -> bool {
        let is = |op| self.is_builtin_operator(&e.name, op);
        if LOOKS.iter().any(|op| is(op)) {
            return true;
        }
        let Some(right) = e.rexpr.as_deref() else {
            return false;
        };
        let Some(left) = e.lexpr.as_deref() else {
            return is("-") && self.number(right) == Some(Number::Numeric);
        };
        if is("||") {
            return self.is_text(left) || self.is_text(right);
        }
        if is("/") || is("%") {
            return self.number(left).is_some() && is_divisor(right);
        }
        if !(is("+") || is("-") || is("*")) {
            return false;
        }
        // Integers may overflow.
        let of_numeric = self.number(left).max(self.number(right)) == Some(Number::Numeric);
        let numbers = self.number(left).is_some() && self.number(right).is_some();
        (numbers && of_numeric) || (is_literal(left) && is_literal(right))
    }

    /// The kind of number an expression is, where that is plain to see.
    fn number(&self, node: &ast::Node) -> Option<Number> {
        match &node.node {
            Some(Node::AConst(c)) => match c.val.as_ref()? {
                Val::Ival(_) => Some(Number::Integer),
                Val::Fval(f) if f.fval.parse::<i64>().is_ok() => Some(Number::Integer),
                Val::Fval(_) => Some(Number::Numeric),
                _ => None,
            },
            Some(Node::AExpr(e)) if e.kind == ast::AExprKind::AexprOp as i32 => {
                let known = ["+", "-", "*", "/", "%"]
                    .iter()
                    .any(|op| self.is_builtin_operator(&e.name, op));
                let right = self.number(e.rexpr.as_deref()?)?;
                let left = e.lexpr.as_deref().map_or(Some(right), |l| self.number(l))?;
                known.then_some(left.max(right))
            }
            _ => match self.static_type(node)?.oid {
                oid::INT2 | oid::INT4 | oid::INT8 => Some(Number::Integer),
                oid::NUMERIC => Some(Number::Numeric),
                _ => None,
            },
        }
    }

    fn is_text(&self, node: &ast::Node) -> bool {
        match &node.node {
            Some(Node::AExpr(e)) if self.is_builtin_operator(&e.name, "||") => {
                let side =
                    |n: &Option<Box<ast::Node>>| n.as_deref().is_some_and(|n| self.is_text(n));
                side(&e.lexpr) || side(&e.rexpr)
            }
            Some(Node::FuncCall(f)) => {
                let texts = [
                    "upper",
                    "lower",
                    "btrim",
                    "ltrim",
                    "rtrim",
                    "replace",
                    "concat",
                    "md5",
                    "substring",
                ];
                bare_name(f).is_some_and(|n| texts.contains(&n))
            }
            Some(Node::TypeCast(t)) => {
                let name = super::functions::cast_name(t);
                matches!(name, Some("text" | "varchar" | "bpchar"))
                    && t.type_name
                        .as_ref()
                        .is_some_and(|n| n.array_bounds.is_empty())
            }
            _ => self
                .static_type(node)
                .is_some_and(|t| matches!(t.oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR)),
        }
    }

    /// A function that gives the same wherever it runs, however often; it may fail.
    fn is_known_call(&self, call: &ast::FuncCall) -> bool {
        find(self.catalog, self.search_path, call)
            .is_some_and(|c| c.volatility != crate::catalog::Volatility::Volatile)
    }

    fn is_total_call(&self, call: &ast::FuncCall) -> bool {
        let builtin = self.called(call).is_some_and(|c| c.builtin);
        let Some(name) = bare_name(call).filter(|_| builtin && !call.func_variadic) else {
            return false;
        };
        let args = call.args.as_slice();
        let number = |i: usize| args.get(i).and_then(|a| self.number(a));
        match name {
            "length" => args.len() == 1,
            "array_agg" => args.first().is_some_and(|a| self.is_scalar_expression(a)),
            "sum" | "avg" => number(0).is_some(),
            "round" | "trunc" | "floor" | "ceil" | "ceiling" | "abs" | "sign" => {
                number(0) == Some(Number::Numeric) && args[1..].iter().all(is_count)
            }
            "substring" | "substr" => args.len() > 1 && args[1..].iter().all(is_count),
            "extract" | "date_part" => {
                let part = args.first().is_some_and(|a| is_one_of(a, &DATE_PARTS));
                let of = args.get(1).and_then(|a| self.static_type(a)).map(|t| t.oid);
                part && matches!(of, Some(oid::DATE | oid::TIMESTAMP | oid::TIMESTAMPTZ))
            }
            "date_trunc" => {
                let part = args.first().is_some_and(|a| is_one_of(a, &DATE_PARTS[..5]));
                let of = args.get(1).and_then(|a| self.static_type(a)).map(|t| t.oid);
                part && args.len() == 2 && matches!(of, Some(oid::TIMESTAMP | oid::TIMESTAMPTZ))
            }
            "generate_series" => args.len() == 2 && args.iter().all(|a| self.number(a).is_some()),
            name => TOTAL_FUNCTIONS.contains(&name),
        }
    }

    /// String constants are read before anything runs; other casts must keep every value.
    fn is_total_cast(&self, cast: &ast::TypeCast) -> bool {
        let (Some(name), Some(arg)) = (cast.type_name.as_ref(), cast.arg.as_deref()) else {
            return false;
        };
        let to = super::functions::cast_name(cast).unwrap_or("");
        if !PLAIN_TYPES.contains(&to) || !name.array_bounds.is_empty() || name.setof {
            return false;
        }
        let truncates = matches!(to, "text" | "varchar" | "bpchar");
        if !name.typmods.is_empty() && !truncates && to != "interval" {
            return false;
        }
        if let Some(Node::AConst(c)) = &arg.node {
            return match c.val {
                Some(Val::Sval(_)) | None => true,
                Some(Val::Ival(_)) => matches!(to, "int4" | "int8" | "numeric" | "float8" | "text"),
                Some(Val::Fval(_)) => matches!(to, "numeric" | "text"),
                _ => truncates || to == "bool",
            };
        }
        if truncates {
            return true;
        }
        let from = self.static_type(arg).map_or(0, |t| t.oid);
        matches!(
            (from, to),
            (
                oid::INT2,
                "int2" | "int4" | "int8" | "numeric" | "float4" | "float8"
            ) | (
                oid::INT4,
                "int4" | "int8" | "numeric" | "float4" | "float8" | "bool"
            ) | (oid::INT8, "int8" | "numeric" | "float4" | "float8")
                | (oid::NUMERIC, "numeric")
                | (oid::FLOAT4, "float4" | "float8")
                | (oid::FLOAT8, "float8")
                | (oid::BOOL, "bool" | "int4")
                | (oid::DATE, "date")
                | (oid::TIMESTAMP, "timestamp" | "date" | "time")
                | (
                    oid::TIMESTAMPTZ,
                    "timestamptz" | "date" | "time" | "timestamp"
                )
        )
    }

    /// An element that is surely no array: arrays in an array must have one shape.
    fn is_scalar_expression(&self, node: &ast::Node) -> bool {
        let of_catalog = |t: super::scope::Ty| {
            self.catalog
                .types
                .get(&t.oid)
                .is_some_and(|t| t.element == 0)
        };
        matches!(node.node, Some(Node::AConst(_))) || self.static_type(node).is_some_and(of_catalog)
    }
}

fn constant(node: &ast::Node) -> Option<&Val> {
    match &node.node {
        Some(Node::AConst(c)) => c.val.as_ref(),
        _ => None,
    }
}

/// A constant that is a number of things.
fn is_count(node: &ast::Node) -> bool {
    matches!(constant(node), Some(Val::Ival(i)) if i.ival >= 0)
}

/// A constant that everything can be divided by.
fn is_divisor(node: &ast::Node) -> bool {
    match constant(node) {
        Some(Val::Ival(i)) => i.ival > 0,
        Some(Val::Fval(f)) => f.fval.parse::<f64>().is_ok_and(|f| f > 0.0),
        _ => false,
    }
}

fn is_one_of(node: &ast::Node, words: &[&str]) -> bool {
    matches!(constant(node), Some(Val::Sval(s)) if words.contains(&s.sval.as_str()))
}

/// A constant of a type that is written: what PostgreSQL computes of two such is known before anything runs.
fn is_literal(node: &ast::Node) -> bool {
    match &node.node {
        Some(Node::TypeCast(t)) => {
            let date = ["date", "timestamp", "timestamptz", "interval"];
            let cast = super::functions::cast_name(t);
            cast.is_some_and(|n| date.contains(&n))
                && t.arg.as_deref().is_some_and(|a| constant(a).is_some())
        }
        _ => false,
    }
}
