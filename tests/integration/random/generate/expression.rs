//! Scalar expressions.

use super::{Env, Generator, Leaf, Place};
use crate::random::ast::*;
use crate::random::forms::FORMS;
use crate::random::types::Type;

impl Generator {
    /// An expression of a type, at most `depth` levels of functions deep.
    pub(super) fn expression(&mut self, env: &Env, ty: Type, depth: usize) -> Expr {
        if ty == Type::Bool && depth > 0 && self.random.chance(50) {
            return self.condition(env, depth - 1);
        }
        if depth == 0 || self.random.chance(42) {
            return self.leaf(env, ty, depth);
        }
        match self.random.below(100) {
            0..9 if env.subqueries && self.budget > 0 => self.scalar_subquery(env, ty),
            9..38 => self.any_type_form(env, ty, depth),
            38..43 if env.windows.is_some() => self.window(env, ty),
            _ => self.form(env, ty, depth),
        }
    }

    /// An output column: where there are windows, often one of them.
    pub(super) fn output(&mut self, env: &Env, ty: Type) -> Expr {
        match env.windows.is_some() && self.random.chance(45) {
            true => self.window(env, ty),
            false => self.expression(env, ty, 2),
        }
    }

    pub(super) fn literal(&mut self, ty: Type) -> Expr {
        let value = match self.random.chance(4) {
            true => None,
            false => Some(self.random.one_of(ty.literals())),
        };
        let as_parameter =
            self.parametrised && ty.parameter_oid().is_some() && self.random.chance(40);
        let parameter = as_parameter.then(|| {
            self.parameters.push(Parameter { ty, value });
            self.parameters.len() - 1
        });
        Expr::new(ty, Node::Literal { value, parameter })
    }

    /// A column, an aggregate, or a constant.
    fn leaf(&mut self, env: &Env, ty: Type, depth: usize) -> Expr {
        if !env.outer.is_empty()
            && self.random.chance(12)
            && let Some(outer) = self.column(env.outer, ty)
        {
            return outer;
        }
        if let Some(scope) = env.aggregates
            && self.random.chance(55)
        {
            return self.aggregate(env, scope, ty);
        }
        match self.column(env.leaves, ty) {
            Some(column) if self.random.chance(88) => column,
            None if depth > 0 && self.random.chance(50) => self.form(env, ty, depth),
            None if depth == 0 && env.aggregates.is_some() && self.random.chance(40) => {
                let scope = env.aggregates.expect("just seen");
                self.aggregate(env, scope, ty)
            }
            _ => self.literal(ty),
        }
    }

    fn column(&mut self, leaves: &[Leaf], ty: Type) -> Option<Expr> {
        let fitting: Vec<_> = leaves.iter().filter(|l| l.expr.ty == ty).collect();
        let keys: Vec<_> = fitting.iter().filter(|l| l.key).collect();
        match (fitting.is_empty(), keys.is_empty()) {
            (true, _) => None,
            (_, false) if self.random.chance(35) => Some(self.random.pick(&keys).expr.clone()),
            _ => Some(self.random.pick(&fitting).expr.clone()),
        }
    }

    fn form(&mut self, env: &Env, ty: Type, depth: usize) -> Expr {
        let forms: Vec<_> = FORMS.iter().filter(|f| f.result == ty).collect();
        if forms.is_empty() {
            return self.any_type_form(env, ty, depth);
        }
        let form = self.random.pick(&forms);
        let arguments = form.arguments.iter();
        let arguments = arguments.map(|t| self.expression(env, *t, depth - 1));
        let arguments = arguments.collect();
        Expr::form(ty, form.template, arguments)
    }

    /// What exists for every type: COALESCE, CASE, NULLIF, GREATEST.
    fn any_type_form(&mut self, env: &Env, ty: Type, depth: usize) -> Expr {
        let depth = depth.saturating_sub(1);
        let mut one = |ty| self.expression(env, ty, depth);
        let (template, arguments) = match ty.is_ordered() {
            false => ("case when {} then {} end", vec![one(Type::Bool), one(ty)]),
            true => {
                let (a, b, c) = (one(ty), one(ty), one(ty));
                let condition = one(Type::Bool);
                match self.random.below(7) {
                    0 | 1 => ("coalesce({}, {})", vec![a, b]),
                    2 => ("nullif({}, {})", vec![a, b]),
                    3 => ("greatest({}, {})", vec![a, b]),
                    4 => ("least({}, {}, {})", vec![a, b, c]),
                    5 => (
                        "case {} when {} then {} else {} end",
                        vec![a.clone(), b, c, a],
                    ),
                    _ => ("case when {} then {} else {} end", vec![condition, a, b]),
                }
            }
        };
        Expr::form(ty, template, arguments)
    }

    /// One value: an aggregate, the first row of an order, or the row with a primary key.
    fn scalar_subquery(&mut self, env: &Env, ty: Type) -> Expr {
        let outer = match self.random.chance(65) {
            true => env.for_subquery(),
            false => Vec::new(),
        };
        let correlate = !outer.is_empty() && self.random.chance(75);
        let place = Place::correlated(&outer, correlate);
        if matches!(ty, Type::Ints | Type::Texts) && self.random.chance(60) {
            return self.array_subquery(ty, &place);
        }
        let query = match self.random.below(100) {
            0..30 if ty != Type::Opaque => {
                let exact = Place {
                    exact: true,
                    ..place
                };
                let mut made = self.query(&[ty], &exact);
                // The order of DISTINCT ON is total as it is.
                made.query.order.total = !made.query.order.pinned;
                made.query.limit = Some(Limit {
                    count: Some(super::number("1")),
                    offset: None,
                    with_ties: false,
                });
                made.query
            }
            _ => self.aggregate_select(&[ty], &place),
        };
        let node = Node::Subquery {
            template: "({})",
            arguments: Vec::new(),
            query: Box::new(query),
        };
        Expr::new(ty, node)
    }

    fn array_subquery(&mut self, ty: Type, place: &Place) -> Expr {
        let (element, template) = match ty {
            Type::Ints => (Type::Int, "array({})::int8[]"),
            _ => (Type::Text, "array({})::text[]"),
        };
        let exact = Place {
            exact: true,
            ..*place
        };
        let mut query = self.query(&[element], &exact).query;
        query.order.total = !query.order.pinned;
        // With ties their order is open.
        if query.limit.as_ref().is_some_and(|l| l.with_ties) {
            query.limit = None;
        }
        let node = Node::Subquery {
            template,
            arguments: Vec::new(),
            query: Box::new(query),
        };
        Expr::new(ty, node)
    }
}
