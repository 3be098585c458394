//! The columns a SELECT returns: their names, what they are made of, and types where those are plain to see.

use super::analyse::{Analysis, node_id};
use super::functions::{Called, find_among};
use super::scope::{AttrId, Resolved, Scope, Ty, name_parts};
use crate::catalog::Function;
use crate::metrics::Reason;
use crate::plan::Refusal;
use crate::sql::ast::{self, a_const::Val, node::Node};
use crate::types::oid;

/// One column of a SELECT's target list, stars expanded.
#[derive(Debug, Clone)]
pub(super) struct Output<'a> {
    pub(super) name: String,
    /// `None` for a column that a star stands for.
    pub(super) expression: Option<&'a ast::Node>,
    /// The column it is, when it is nothing but a column.
    pub(super) attr: Option<AttrId>,
}

/// The target list with its stars expanded; `open` when some star stands for columns that are not known.
pub(super) struct Outputs<'a> {
    pub(super) list: Vec<Output<'a>>,
    pub(super) open: bool,
}

impl<'a> Analysis<'a> {
    pub(super) fn outputs(
        &self,
        select: &'a ast::SelectStmt,
        scope: &Scope,
    ) -> Result<Outputs<'a>, Refusal> {
        let mut out = Outputs {
            list: Vec::new(),
            open: false,
        };
        for target in targets(select) {
            let Some(value) = target.val.as_deref() else {
                continue;
            };
            match &value.node {
                Some(Node::ColumnRef(c)) if name_parts(c).is_none() => {
                    self.expand_star(c, scope, &mut out)?
                }
                Some(Node::AIndirection(i)) if ends_in_star(&i.indirection) => out.open = true,
                _ => out.list.push(Output {
                    name: match target.name.as_str() {
                        "" => column_name(value).1,
                        name => truncate_name(name),
                    },
                    expression: Some(value),
                    attr: self.plain_attr(value),
                }),
            }
        }
        Ok(out)
    }

    fn expand_star(
        &self,
        star: &ast::ColumnRef,
        scope: &Scope,
        out: &mut Outputs<'a>,
    ) -> Result<(), Refusal> {
        let parts: Vec<&str> = star
            .fields
            .iter()
            .filter_map(|f| match &f.node {
                Some(Node::String(s)) => Some(s.sval.as_str()),
                _ => None,
            })
            .collect();
        let columns = match parts[..] {
            [] => {
                out.open |= scope.is_open();
                &scope.visible
            }
            [.., name] => {
                let Some(item) = scope.items.iter().find(|i| i.name == name) else {
                    return Err(Refusal {
                        reason: Reason::Form,
                        message: format!("\"{name}.*\" cannot be resolved here"),
                        hint: "Name the columns.".into(),
                        location: usize::try_from(star.location).ok(),
                    });
                };
                out.open |= item.open;
                &item.columns
            }
        };
        out.list.extend(columns.iter().map(|(name, attr)| Output {
            name: name.clone(),
            expression: None,
            attr: Some(*attr),
        }));
        Ok(())
    }

    /// The type of an expression where it can be told without PostgreSQL; only types that are certain.
    pub(super) fn static_type(&self, node: &ast::Node) -> Option<Ty> {
        match &node.node {
            Some(Node::ColumnRef(c)) => match self.colrefs.get(&node_id(c))? {
                Resolved::Column { attr, .. } => self.attrs[*attr].ty.clone(),
                _ => None,
            },
            Some(Node::TypeCast(t)) => cast_type(t.type_name.as_ref()?),
            Some(Node::AConst(c)) => match c.val.as_ref()? {
                Val::Ival(_) => Some(Ty::plain(oid::INT4, "integer")),
                Val::Boolval(_) => Some(Ty::plain(oid::BOOL, "boolean")),
                _ => None,
            },
            Some(Node::BoolExpr(_) | Node::NullTest(_) | Node::BooleanTest(_)) => {
                Some(Ty::plain(oid::BOOL, "boolean"))
            }
            Some(Node::FuncCall(f)) if f.agg_star => Some(Ty::plain(oid::INT8, "bigint")),
            Some(Node::FuncCall(f)) => self.function_type(f),
            Some(Node::AExpr(e)) => self.operator_type(e),
            _ => None,
        }
    }

    /// True for a value that is plainly of a type of PostgreSQL's own, or a constant that becomes one.
    pub(super) fn is_of_builtin_type(&self, node: &ast::Node) -> bool {
        let is_own = |oid: u32| {
            self.catalog
                .types
                .get(&oid)
                .is_some_and(|t| t.schema == "pg_catalog")
        };
        match &node.node {
            Some(Node::AConst(_)) => true,
            Some(Node::ParamRef(p)) => usize::try_from(p.number - 1)
                .ok()
                .and_then(|n| self.parameter_types.get(n))
                .is_some_and(|oid| is_own(*oid)),
            Some(Node::CollateClause(c)) => {
                c.arg.as_deref().is_some_and(|a| self.is_of_builtin_type(a))
            }
            Some(Node::List(l)) => l.items.iter().all(|i| self.is_of_builtin_type(i)),
            _ => self.static_type(node).is_some_and(|t| is_own(t.oid)),
        }
    }

    /// The overloads that a call may mean: none that takes a user's type where an argument is plainly of PostgreSQL's own.
    pub(super) fn called(&self, call: &ast::FuncCall) -> Option<Called> {
        // A string may become anything.
        let is_builtin = |arg: &ast::Node| {
            let string = matches!(&arg.node, Some(Node::AConst(c)) if !matches!(c.val, Some(Val::Ival(_) | Val::Fval(_) | Val::Boolval(_))));
            !string && self.is_of_builtin_type(arg)
        };
        let takes = |f: &Function| {
            let apart = |oid: &u32| self.catalog.types.get(oid).is_some_and(|t| t.apart);
            let mut pairs = f.arguments.iter().zip(&call.args);
            !pairs.any(|(oid, arg)| apart(oid) && is_builtin(arg))
        };
        find_among(self.catalog, self.search_path, call, &takes)
    }

    fn function_type(&self, call: &ast::FuncCall) -> Option<Ty> {
        let name = super::functions::bare_name(call)?;
        let window = ["row_number", "rank", "dense_rank"];
        if name == "count" || (window.contains(&name) && call.over.is_some()) {
            return Some(Ty::plain(oid::INT8, "bigint"));
        }
        let [arg] = call.args.as_slice() else {
            return None;
        };
        let of = self.static_type(arg)?;
        match (name, of.oid) {
            ("sum", oid::INT2 | oid::INT4) => Some(Ty::plain(oid::INT8, "bigint")),
            ("sum" | "avg", oid::INT8 | oid::NUMERIC) => Some(Ty::plain(oid::NUMERIC, "numeric")),
            ("avg", oid::INT2 | oid::INT4) => Some(Ty::plain(oid::NUMERIC, "numeric")),
            ("avg" | "sum", oid::FLOAT8) | ("avg", oid::FLOAT4) => {
                Some(Ty::plain(oid::FLOAT8, "double precision"))
            }
            (
                "min" | "max",
                oid::INT2
                | oid::INT4
                | oid::INT8
                | oid::DATE
                | oid::TIMESTAMP
                | oid::TIMESTAMPTZ
                | oid::FLOAT8,
            ) => Some(of),
            _ => None,
        }
    }

    fn operator_type(&self, e: &ast::AExpr) -> Option<Ty> {
        let arithmetic = ["+", "-", "*", "/"];
        let name = match e.name.as_slice() {
            [
                ast::Node {
                    node: Some(Node::String(s)),
                },
            ] => s.sval.as_str(),
            _ => return None,
        };
        if !arithmetic.contains(&name)
            || self.catalog.overloaded_operators.iter().any(|u| u == name)
        {
            return None;
        }
        let right = self.static_type(e.rexpr.as_deref()?)?;
        let left = match e.lexpr.as_deref() {
            Some(l) => self.static_type(l)?,
            None => right.clone(),
        };
        let rank = |t: &Ty| match t.oid {
            oid::INT2 => Some(0),
            oid::INT4 => Some(1),
            oid::INT8 => Some(2),
            oid::NUMERIC => Some(3),
            _ => None,
        };
        match rank(&left)?.max(rank(&right)?) {
            0 => Some(Ty::plain(oid::INT2, "smallint")),
            1 => Some(Ty::plain(oid::INT4, "integer")),
            2 => Some(Ty::plain(oid::INT8, "bigint")),
            _ => Some(Ty::plain(oid::NUMERIC, "numeric")),
        }
    }
}

fn cast_type(name: &ast::TypeName) -> Option<Ty> {
    let parts: Vec<&str> = name
        .names
        .iter()
        .filter_map(|n| match &n.node {
            Some(Node::String(s)) => Some(s.sval.as_str()),
            _ => None,
        })
        .collect();
    if !name.typmods.is_empty() || !name.array_bounds.is_empty() || name.setof || name.pct_type {
        return None;
    }
    let (["pg_catalog", bare] | [bare]) = parts[..] else {
        return None;
    };
    let (oid, text) = match bare {
        "bool" => (oid::BOOL, "boolean"),
        "int2" => (oid::INT2, "smallint"),
        "int4" => (oid::INT4, "integer"),
        "int8" => (oid::INT8, "bigint"),
        "numeric" => (oid::NUMERIC, "numeric"),
        "float4" => (oid::FLOAT4, "real"),
        "float8" => (oid::FLOAT8, "double precision"),
        "date" => (oid::DATE, "date"),
        "timestamp" => (oid::TIMESTAMP, "timestamp without time zone"),
        "timestamptz" => (oid::TIMESTAMPTZ, "timestamp with time zone"),
        "uuid" => (oid::UUID, "uuid"),
        _ => return None,
    };
    Some(Ty::plain(oid, text))
}

pub(super) fn targets(select: &ast::SelectStmt) -> impl Iterator<Item = &ast::ResTarget> {
    select.target_list.iter().filter_map(|t| match &t.node {
        Some(Node::ResTarget(t)) => Some(&**t),
        _ => None,
    })
}

fn ends_in_star(indirection: &[ast::Node]) -> bool {
    matches!(
        indirection.last().and_then(|n| n.node.as_ref()),
        Some(Node::AStar(_))
    )
}

/// Identifiers are cut to 63 bytes at a character's edge, as NAMEDATALEN says.
pub(super) fn truncate_name(name: &str) -> String {
    let mut end = name.len().min(63);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// The name PostgreSQL gives a column without alias, and how much it means it (`FigureColname` in parse_target.c).
pub(super) fn column_name(node: &ast::Node) -> (u8, String) {
    let last = |list: &[ast::Node]| {
        list.iter().rev().find_map(|n| match &n.node {
            Some(Node::String(s)) => Some(s.sval.clone()),
            _ => None,
        })
    };
    let none = || (0, "?column?".to_owned());
    match &node.node {
        Some(Node::ColumnRef(c)) => last(&c.fields).map_or_else(none, |n| (2, n)),
        Some(Node::AIndirection(i)) => match last(&i.indirection) {
            Some(name) => (2, name),
            None => i.arg.as_deref().map_or_else(none, column_name),
        },
        Some(Node::FuncCall(f)) => last(&f.funcname).map_or_else(none, |n| (2, n)),
        Some(Node::AExpr(e)) if e.kind == ast::AExprKind::AexprNullif as i32 => {
            (2, "nullif".into())
        }
        Some(Node::TypeCast(t)) => match t.arg.as_deref().map(column_name) {
            Some((strength, name)) if strength > 1 => (strength, name),
            other => match t.type_name.as_ref().and_then(|n| last(&n.names)) {
                Some(name) => (1, name),
                None => other.unwrap_or_else(none),
            },
        },
        Some(Node::CollateClause(c)) => c.arg.as_deref().map_or_else(none, column_name),
        Some(Node::GroupingFunc(_)) => (2, "grouping".into()),
        Some(Node::SubLink(s)) => sublink_name(s).map_or_else(none, |n| (2, n)),
        Some(Node::CaseExpr(c)) => match c.defresult.as_deref().map(column_name) {
            Some((strength, name)) if strength > 1 => (strength, name),
            _ => (1, "case".into()),
        },
        Some(Node::AArrayExpr(_)) => (2, "array".into()),
        Some(Node::RowExpr(_)) => (2, "row".into()),
        Some(Node::CoalesceExpr(_)) => (2, "coalesce".into()),
        Some(Node::MinMaxExpr(m)) if m.op == ast::MinMaxOp::IsLeast as i32 => (2, "least".into()),
        Some(Node::MinMaxExpr(_)) => (2, "greatest".into()),
        Some(Node::XmlSerialize(_)) => (2, "xmlserialize".into()),
        Some(Node::SqlvalueFunction(f)) => {
            value_function_name(f.op).map_or_else(none, |n| (2, n.into()))
        }
        _ => none(),
    }
}

fn sublink_name(s: &ast::SubLink) -> Option<String> {
    use ast::SubLinkType as T;
    match T::try_from(s.sub_link_type).ok()? {
        T::ExistsSublink => Some("exists".into()),
        T::ArraySublink => Some("array".into()),
        T::ExprSublink => {
            let Some(Node::SelectStmt(q)) = &s.subselect.as_deref()?.node else {
                return None;
            };
            let first = targets(q).next()?;
            match first.name.as_str() {
                "" => first.val.as_deref().map(|v| column_name(v).1),
                name => Some(name.to_owned()),
            }
        }
        _ => None,
    }
}

fn value_function_name(op: i32) -> Option<&'static str> {
    use ast::SqlValueFunctionOp as F;
    Some(match F::try_from(op).ok()? {
        F::SvfopCurrentDate => "current_date",
        F::SvfopCurrentTime | F::SvfopCurrentTimeN => "current_time",
        F::SvfopCurrentTimestamp | F::SvfopCurrentTimestampN => "current_timestamp",
        F::SvfopLocaltime | F::SvfopLocaltimeN => "localtime",
        F::SvfopLocaltimestamp | F::SvfopLocaltimestampN => "localtimestamp",
        F::SvfopCurrentRole => "current_role",
        F::SvfopCurrentUser => "current_user",
        F::SvfopUser => "user",
        F::SvfopSessionUser => "session_user",
        F::SvfopCurrentCatalog => "current_catalog",
        F::SvfopCurrentSchema => "current_schema",
        F::SqlvalueFunctionOpUndefined => return None,
    })
}
