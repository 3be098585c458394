//! What a condition says about sharding keys: equalities between columns, and the shards that constants leave.

use std::sync::Arc;

use super::literals::{
    array_family, builtin_type, fits, folded, integer, literal_key, simple_array,
};

use super::analyse::Analysis;
use super::scope::{AttrId, Ty};
use crate::catalog::sharding::{KeyClass, KeyDatum, Sharding};
use crate::plan::{KeyCondition, KeyValue};
use crate::sql::ast::{self, a_const::Val, node::Node};
use crate::types::oid;

/// A condition that rows must pass: a piece of ON or WHERE, or the equality that USING writes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Conj<'a> {
    Expression(&'a ast::Node),
    Equal(AttrId, AttrId),
}

/// Splits a condition at its top-level ANDs.
pub(super) fn conjuncts<'a>(condition: Option<&'a ast::Node>, out: &mut Vec<Conj<'a>>) {
    let Some(node) = condition else { return };
    match &node.node {
        Some(Node::BoolExpr(b)) if b.boolop == ast::BoolExprType::AndExpr as i32 => {
            for arg in &b.args {
                conjuncts(Some(arg), out);
            }
        }
        _ => out.push(Conj::Expression(node)),
    }
}

/// Joins two conditions of which both hold.
pub(super) fn and(a: KeyCondition, b: KeyCondition) -> KeyCondition {
    match (a, b) {
        (KeyCondition::Any, x) | (x, KeyCondition::Any) => x,
        (KeyCondition::Never, _) | (_, KeyCondition::Never) => KeyCondition::Never,
        (KeyCondition::And(mut xs), KeyCondition::And(ys)) => {
            xs.extend(ys);
            KeyCondition::And(xs)
        }
        (KeyCondition::And(mut xs), y) | (y, KeyCondition::And(mut xs)) => {
            if !xs.contains(&y) {
                xs.push(y);
            }
            KeyCondition::And(xs)
        }
        (x, y) if x == y => x,
        (x, y) => KeyCondition::And(vec![x, y]),
    }
}

/// Joins two conditions of which one or the other holds.
pub(super) fn or(a: KeyCondition, b: KeyCondition) -> KeyCondition {
    match (a, b) {
        (KeyCondition::Never, x) | (x, KeyCondition::Never) => x,
        (KeyCondition::Any, _) | (_, KeyCondition::Any) => KeyCondition::Any,
        (KeyCondition::Or(mut xs), KeyCondition::Or(ys)) => {
            xs.extend(ys);
            KeyCondition::Or(xs)
        }
        (KeyCondition::Or(mut xs), y) | (y, KeyCondition::Or(mut xs)) => {
            if !xs.contains(&y) {
                xs.push(y);
            }
            KeyCondition::Or(xs)
        }
        (x, y) if x == y => x,
        (x, y) => KeyCondition::Or(vec![x, y]),
    }
}

/// The family in which equal values of a type are equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Integer,
    Text,
    Uuid,
    Date,
}

pub(super) fn family(type_oid: u32) -> Option<Family> {
    match type_oid {
        oid::INT2 | oid::INT4 | oid::INT8 => Some(Family::Integer),
        oid::TEXT | oid::VARCHAR => Some(Family::Text),
        oid::UUID => Some(Family::Uuid),
        oid::DATE => Some(Family::Date),
        _ => None,
    }
}

fn class_family(class: KeyClass) -> Family {
    match class {
        KeyClass::Integer | KeyClass::HiveBigint => Family::Integer,
        KeyClass::Text => Family::Text,
        KeyClass::Uuid => Family::Uuid,
        KeyClass::Date => Family::Date,
    }
}

/// A constant or parameter compared with a key.
enum Value {
    Null,
    Key(KeyValue),
}

impl<'a> Analysis<'a> {
    /// The column an expression is, if it is nothing but a column.
    pub(super) fn plain_attr(&self, node: &ast::Node) -> Option<AttrId> {
        match &node.node {
            Some(Node::ColumnRef(c)) => self.attr_of(c),
            _ => None,
        }
    }

    /// True for a built-in operator of this name, whatever it stands between: unqualified while nobody defined one of the same
    /// name, or in pg_catalog.
    pub(super) fn is_builtin_operator(&self, name: &[ast::Node], wanted: &str) -> bool {
        is_operator(name, wanted, &self.catalog.user_operators)
    }

    /// The same where it stands between values of PostgreSQL's own types, which operators of users' types do not take.
    pub(super) fn is_builtin_between_builtins(&self, name: &[ast::Node], wanted: &str) -> bool {
        is_operator(name, wanted, &self.catalog.overloaded_operators)
    }

    /// True where equality that nobody has written (USING, IN) is PostgreSQL's between values of its own types.
    pub(super) fn has_builtin_equality(&self) -> bool {
        !self.catalog.overloaded_operators.iter().any(|o| o == "=")
    }

    /// Two columns that a built-in equality of a key family compares.
    pub(super) fn equality(&self, conj: &Conj<'_>) -> Option<(AttrId, AttrId)> {
        let (a, b) = match conj {
            Conj::Equal(a, b) if self.has_builtin_equality() => (*a, *b),
            Conj::Expression(ast::Node {
                node: Some(Node::AExpr(e)),
            }) if e.kind == ast::AExprKind::AexprOp as i32
                && self.is_builtin_between_builtins(&e.name, "=") =>
            {
                (
                    self.plain_attr(e.lexpr.as_deref()?)?,
                    self.plain_attr(e.rexpr.as_deref()?)?,
                )
            }
            _ => return None,
        };
        self.comparable(a, b).then_some((a, b))
    }

    /// Columns that are equal wherever a condition holds: its own two, or those of each of its alternatives.
    pub(super) fn equalities(&self, conj: &Conj<'_>) -> Vec<(AttrId, AttrId)> {
        if let Some(pair) = self.equality(conj) {
            return vec![pair];
        }
        let Conj::Expression(ast::Node {
            node: Some(Node::BoolExpr(either)),
        }) = conj
        else {
            return Vec::new();
        };
        if either.boolop != ast::BoolExprType::OrExpr as i32 {
            return Vec::new();
        }
        let of_arm = |arm| {
            let mut conjs = Vec::new();
            conjuncts(Some(arm), &mut conjs);
            let pairs = conjs.iter().flat_map(|c| self.equalities(c));
            pairs.map(|(a, b)| (a.min(b), a.max(b))).collect::<Vec<_>>()
        };
        let arms = either.args.iter().map(of_arm);
        let common = arms.reduce(|mut all, arm| {
            all.retain(|pair| arm.contains(pair));
            all
        });
        common.unwrap_or_default()
    }

    /// True when equality between the two columns is key equality.
    pub(super) fn comparable(&self, a: AttrId, b: AttrId) -> bool {
        match (&self.attrs[a].ty, &self.attrs[b].ty) {
            (Some(x), Some(y)) => {
                family(x.oid).is_some()
                    && family(x.oid) == family(y.oid)
                    && self.deterministic(x.collation)
                    && self.deterministic(y.collation)
            }
            _ => false,
        }
    }

    fn deterministic(&self, collation: u32) -> bool {
        match collation {
            0 | 100 => true,
            oid => self
                .catalog
                .collations
                .get(&oid)
                .is_some_and(|c| c.deterministic),
        }
    }

    /// The shards on which rows can pass `node` when `keys` are columns holding the sharding key. `strict` keys are not
    /// nullable by an outer join.
    pub(super) fn restrict(
        &self,
        node: &ast::Node,
        keys: &[(AttrId, bool)],
        sharding: &Arc<Sharding>,
    ) -> KeyCondition {
        match &node.node {
            Some(Node::BoolExpr(b)) => self.restrict_bool(b, keys, sharding),
            Some(Node::AExpr(e)) => self
                .restrict_operator(e, keys, sharding)
                .unwrap_or(KeyCondition::Any),
            Some(Node::NullTest(t)) if t.nulltesttype == ast::NullTestType::IsNull as i32 => {
                let attr = t.arg.as_deref().and_then(|a| self.plain_attr(a));
                match attr {
                    Some(attr) if keys.contains(&(attr, true)) => KeyCondition::IsNull {
                        sharding: sharding.clone(),
                    },
                    _ => KeyCondition::Any,
                }
            }
            Some(Node::AConst(c)) if is_false_or_null(c) => KeyCondition::Never,
            _ => KeyCondition::Any,
        }
    }

    fn restrict_bool(
        &self,
        b: &ast::BoolExpr,
        keys: &[(AttrId, bool)],
        sharding: &Arc<Sharding>,
    ) -> KeyCondition {
        let parts = b.args.iter().map(|a| self.restrict(a, keys, sharding));
        if b.boolop == ast::BoolExprType::AndExpr as i32 {
            parts.fold(KeyCondition::Any, and)
        } else if b.boolop == ast::BoolExprType::OrExpr as i32 {
            parts.fold(KeyCondition::Never, or)
        } else {
            // NOT turns the rows around: nothing is known.
            KeyCondition::Any
        }
    }

    fn restrict_operator(
        &self,
        e: &ast::AExpr,
        keys: &[(AttrId, bool)],
        sharding: &Arc<Sharding>,
    ) -> Option<KeyCondition> {
        use ast::AExprKind as K;
        if !self.is_builtin_between_builtins(&e.name, "=") {
            return None;
        }
        let (left, right) = (e.lexpr.as_deref()?, e.rexpr.as_deref()?);
        let key = |n: &ast::Node| {
            let attr = self.plain_attr(n)?;
            keys.iter().any(|(k, _)| *k == attr).then_some(attr)
        };
        match K::try_from(e.kind).ok()? {
            K::AexprOp => {
                let (attr, constant) = match (key(left), key(right)) {
                    (Some(attr), None) => (attr, right),
                    (None, Some(attr)) => (attr, left),
                    _ => return None,
                };
                self.equal(attr, constant, sharding)
            }
            K::AexprIn => {
                let attr = key(left)?;
                let Some(Node::List(list)) = &right.node else {
                    return None;
                };
                self.any_equal(attr, &list.items, sharding)
            }
            K::AexprOpAny => {
                let attr = key(left)?;
                self.any_of(attr, right, sharding)
            }
            _ => None,
        }
    }

    fn any_equal(
        &self,
        attr: AttrId,
        values: &[ast::Node],
        sharding: &Arc<Sharding>,
    ) -> Option<KeyCondition> {
        // One element that is not of the key's family makes PostgreSQL compare them all as another type.
        let parts: Option<Vec<KeyCondition>> = values
            .iter()
            .map(|v| self.equal(attr, v, sharding))
            .collect();
        Some(parts?.into_iter().fold(KeyCondition::Never, or))
    }

    fn any_of(
        &self,
        attr: AttrId,
        array: &ast::Node,
        sharding: &Arc<Sharding>,
    ) -> Option<KeyCondition> {
        let (node, type_name) = match &array.node {
            Some(Node::TypeCast(t)) => (t.arg.as_deref()?, Some(t.type_name.as_ref()?)),
            _ => (array, None),
        };
        if let Some(name) = type_name {
            let element = ast::TypeName {
                array_bounds: Vec::new(),
                ..name.clone()
            };
            let cast = family(builtin_type(&element)?)?;
            if name.array_bounds.len() != 1 || cast != class_family(sharding.class) {
                return None;
            }
        }
        match &node.node {
            Some(Node::AArrayExpr(a)) => self.any_equal(attr, &a.elements, sharding),
            Some(Node::ParamRef(p)) => {
                let parameter = usize::try_from(p.number).ok()?.checked_sub(1)?;
                let of = array_family(*self.parameter_types.get(parameter)?)?;
                (of == class_family(sharding.class)).then(|| KeyCondition::AnyOf {
                    sharding: sharding.clone(),
                    parameter,
                })
            }
            Some(Node::AConst(c)) => {
                let Some(Val::Sval(text)) = &c.val else {
                    return None;
                };
                let ty = self.attrs[attr].ty.as_ref()?;
                let parts: Option<Vec<KeyCondition>> = simple_array(&text.sval)?
                    .into_iter()
                    .map(|element| {
                        literal_key(element, ty.oid, sharding).map(|k| constant(sharding, k))
                    })
                    .collect();
                Some(parts?.into_iter().fold(KeyCondition::Never, or))
            }
            _ => None,
        }
    }

    fn equal(
        &self,
        attr: AttrId,
        value: &ast::Node,
        sharding: &Arc<Sharding>,
    ) -> Option<KeyCondition> {
        let ty = self.attrs[attr].ty.as_ref()?;
        if family(ty.oid)? != class_family(sharding.class) || !self.deterministic(ty.collation) {
            return None;
        }
        // Under transform_null_equals that means IS NULL.
        if matches!(&value.node, Some(Node::AConst(c)) if c.isnull) {
            return None;
        }
        Some(match self.key_value(value, ty, sharding)? {
            Value::Null => KeyCondition::Never,
            Value::Key(value) => KeyCondition::Equal {
                sharding: sharding.clone(),
                value,
            },
        })
    }

    fn key_value(&self, node: &ast::Node, ty: &Ty, sharding: &Sharding) -> Option<Value> {
        let of = class_family(sharding.class);
        let key = |k| Some(Value::Key(KeyValue::Constant(k)));
        match &node.node {
            Some(Node::AConst(c)) if c.isnull => Some(Value::Null),
            Some(Node::AConst(c)) => match c.val.as_ref()? {
                Val::Sval(s) => key(literal_key(&s.sval, ty.oid, sharding)?),
                _ if of == Family::Integer => key(KeyDatum::Integer(integer(c)?)),
                _ => None,
            },
            Some(Node::ParamRef(p)) => self.parameter(p, of),
            Some(Node::TypeCast(t)) => self
                .cast_value(t, sharding)
                .or_else(|| self.computed(node, of)),
            Some(Node::AExpr(_)) => self.computed(node, of),
            _ => None,
        }
    }

    /// An expression over integer constants.
    fn computed(&self, node: &ast::Node, of: Family) -> Option<Value> {
        let is_builtin = |name: &[ast::Node], op: &str| self.is_builtin_between_builtins(name, op);
        let (_, value) = folded(node, &is_builtin).filter(|_| of == Family::Integer)?;
        Some(Value::Key(KeyValue::Constant(KeyDatum::Integer(value))))
    }

    fn parameter(&self, p: &ast::ParamRef, of: Family) -> Option<Value> {
        let index = usize::try_from(p.number).ok()?.checked_sub(1)?;
        let is = family(*self.parameter_types.get(index)?)?;
        (is == of).then_some(Value::Key(KeyValue::Parameter(index)))
    }

    /// A constant cast to a type of the key's family; casts between types of a family keep the value or fail.
    fn cast_value(&self, cast: &ast::TypeCast, sharding: &Sharding) -> Option<Value> {
        let to = builtin_type(cast.type_name.as_ref()?)?;
        let of = class_family(sharding.class);
        if family(to)? != of {
            return None;
        }
        match &cast.arg.as_deref()?.node {
            Some(Node::AConst(c)) if c.isnull => Some(Value::Null),
            Some(Node::AConst(c)) => match c.val.as_ref()? {
                Val::Sval(s) => Some(Value::Key(KeyValue::Constant(literal_key(
                    &s.sval, to, sharding,
                )?))),
                _ if of == Family::Integer => {
                    let value = integer(c)?;
                    fits(value, to)
                        .then_some(Value::Key(KeyValue::Constant(KeyDatum::Integer(value))))
                }
                _ => None,
            },
            Some(Node::ParamRef(p)) => self.parameter(p, of),
            _ => None,
        }
    }
}

pub(super) fn constant(sharding: &Arc<Sharding>, key: KeyDatum) -> KeyCondition {
    match key {
        KeyDatum::Null => KeyCondition::Never,
        key => KeyCondition::Equal {
            sharding: sharding.clone(),
            value: KeyValue::Constant(key),
        },
    }
}

/// True for an operator of this name that none of `others` is taken for.
fn is_operator(name: &[ast::Node], wanted: &str, others: &[String]) -> bool {
    let parts: Vec<&str> = name
        .iter()
        .filter_map(|n| match &n.node {
            Some(Node::String(s)) => Some(s.sval.as_str()),
            _ => None,
        })
        .collect();
    match parts[..] {
        [op] => op == wanted && !others.iter().any(|o| o == wanted),
        ["pg_catalog", op] => op == wanted,
        _ => false,
    }
}

fn is_false_or_null(c: &ast::AConst) -> bool {
    c.isnull || matches!(&c.val, Some(Val::Boolval(b)) if !b.boolval)
}
