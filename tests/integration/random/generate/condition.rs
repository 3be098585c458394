//! Conditions: comparisons, those that pin a sharding key, and those with subqueries.

use super::{Env, Generator, Leaf, Place};
use crate::random::ast::*;
use crate::random::types::Type;

impl Generator {
    pub(super) fn condition(&mut self, env: &Env, depth: usize) -> Expr {
        let nested = |this: &mut Self| this.condition(env, depth.saturating_sub(1));
        let (template, arguments) = match self.random.below(100) {
            0..11 if depth > 0 => ("({} and {})", vec![nested(self), nested(self)]),
            11..23 if depth > 0 => ("({} or {})", vec![nested(self), nested(self)]),
            23..28 if depth > 0 => ("(not {})", vec![nested(self)]),
            28..30 if depth > 0 => ("({} is not true)", vec![nested(self)]),
            30..46 if depth > 0 && env.subqueries && self.budget > 0 => {
                return self.subquery_condition(env);
            }
            46..58 => return self.key_condition(env, depth),
            58..66 => return self.expression(&without(env), Type::Bool, 0),
            _ => return self.comparison(env, depth),
        };
        Expr::form(Type::Bool, template, arguments)
    }

    fn comparison(&mut self, env: &Env, depth: usize) -> Expr {
        let ordered: Vec<_> = env.leaves.iter().map(|l| l.expr.ty).collect();
        let ordered: Vec<_> = ordered.into_iter().filter(|t| t.is_ordered()).collect();
        let ty = match ordered.is_empty() || self.random.chance(15) {
            true => Type::Int,
            false => self.random.one_of(&ordered),
        };
        let depth = depth.min(1);
        let a = self.expression(env, ty, depth);
        let operators = [
            "({} = {})",
            "({} = {})",
            "({} < {})",
            "({} > {})",
            "({} <= {})",
            "({} >= {})",
            "({} <> {})",
            "({} is distinct from {})",
            "({} is not distinct from {})",
        ];
        match self.random.below(100) {
            0..9 => Expr::form(Type::Bool, "({} is null)", vec![a]),
            9..17 => Expr::form(Type::Bool, "({} is not null)", vec![a]),
            17..28 => {
                let (b, c) = (self.literal(ty), self.literal(ty));
                let templates = ["({} in ({}, {}))", "({} not in ({}, {}))"];
                let template = self.random.pick(&templates);
                Expr::form(Type::Bool, template, vec![a, b, c])
            }
            28..65 => {
                let template = self.random.pick(&operators);
                let b = self.literal(ty);
                Expr::form(Type::Bool, template, vec![a, b])
            }
            _ => {
                let template = self.random.pick(&operators);
                let b = self.expression(env, ty, depth);
                Expr::form(Type::Bool, template, vec![a, b])
            }
        }
    }

    /// Compares a sharding key with constants, in every way that may pin it or not.
    fn key_condition(&mut self, env: &Env, depth: usize) -> Expr {
        let keys: Vec<_> = env.leaves.iter().filter(|l| l.key).collect();
        if keys.is_empty() {
            return self.comparison(env, depth);
        }
        let key = self.random.pick(&keys).expr.clone();
        let (a, b) = (self.literal(key.ty), self.literal(key.ty));
        if key.ty != Type::Int {
            return Expr::form(Type::Bool, "({} = {})", vec![key, a]);
        }
        let templates = [
            ("({} = {})", 2),
            ("({} = {})", 2),
            ("({} in ({}, {}))", 3),
            ("({} = any (array[{}, {}]::int8[]))", 3),
            ("({} between {} and {} + 40)", 3),
            ("({} <> {})", 2),
            ("({} not in ({}, {}))", 3),
            ("({} is null)", 1),
            ("({} is not null)", 1),
            ("({} is not distinct from {})", 2),
            ("({} = {}::numeric)", 2),
            ("({} = {}::int2)", 2),
            ("({} = {}::float8)", 2),
            ("({} = {} + 1)", 2),
            ("({} = '7')", 1),
            ("({} in ('3', '40'))", 1),
            ("({} = 7.0)", 1),
            ("({} = ('7'::text)::int8)", 1),
            ("({} = (select 7))", 1),
            ("({} = (select {}))", 2),
            ("(({}, {}) in ((7, 1), (3, 2)))", 2),
            ("({} = any ('{3,7}'))", 1),
            ("({} < 60)", 1),
            ("({} > 200)", 1),
            ("({} % 10 = 3)", 1),
        ];
        let (template, count) = self.random.one_of(&templates);
        let arguments = [key, a, b].into_iter().take(count).collect();
        Expr::form(Type::Bool, template, arguments)
    }

    /// Ties a subquery to the query around it: key to key, or by columns of one type.
    pub(super) fn tie(&mut self, inner: &[Leaf], outer: &[Leaf]) -> Option<Expr> {
        let columns = inner.iter().filter(|l| l.expr.is_column());
        let all: Vec<_> = columns
            .flat_map(|a| outer.iter().map(move |b| (a, b)))
            .filter(|(a, b)| a.expr.ty == b.expr.ty && a.expr.ty.is_ordered())
            .collect();
        let keys: Vec<_> = all.iter().filter(|(a, b)| a.key && b.key).collect();
        let (a, b) = match (keys.is_empty(), all.is_empty()) {
            (_, true) => return None,
            (false, _) if self.random.chance(62) => self.random.one_of(&keys),
            _ => self.random.pick(&all),
        };
        let templates = [
            "({} = {})",
            "({} = {})",
            "({} = {})",
            "({} = {})",
            "({} < {})",
            "({} is not distinct from {})",
        ];
        let template = self.random.pick(&templates);
        let (a, b) = (a.expr.clone(), b.expr.clone());
        Some(match self.random.chance(50) {
            true => Expr::form(Type::Bool, template, vec![a, b]),
            false => Expr::form(Type::Bool, template, vec![b, a]),
        })
    }

    /// EXISTS, IN, NOT IN, ANY, ALL, and rows of two columns in a subquery.
    fn subquery_condition(&mut self, env: &Env) -> Expr {
        let quantified = [
            "({} in ({}))",
            "({} in ({}))",
            "({} in ({}))",
            "({} not in ({}))",
            "({} not in ({}))",
            "({} = any ({}))",
            "({} <> all ({}))",
            "({} > all ({}))",
            "({} <= any ({}))",
            "({} = all ({}))",
            "({} <> any ({}))",
            "(({} in ({})) is not false)",
            "(({} not in ({})) is null)",
        ];
        let kind = self.random.below(100);
        let correlated = kind < 40 || self.random.chance(30);
        let outer = match correlated {
            true => env.for_subquery(),
            false => Vec::new(),
        };
        let correlate = !outer.is_empty() && self.random.chance(85);
        let place = Place::correlated(&outer, correlate);
        let (template, arguments, made) = match kind {
            0..36 => {
                let templates = ["exists ({})", "exists ({})", "(not exists ({}))"];
                let template = self.random.one_of(&templates);
                let types = self.types(1);
                (template, Vec::new(), self.query(&types, &place))
            }
            36..44 => {
                let arguments = vec![self.key_or(env, Type::Int), self.key_or(env, Type::Text)];
                let templates = ["(({}, {}) in ({}))", "(({}, {}) not in ({}))"];
                let template = self.random.one_of(&templates);
                (
                    template,
                    arguments,
                    self.query(&[Type::Int, Type::Text], &place),
                )
            }
            _ => {
                let types = [
                    Type::Int,
                    Type::Int,
                    Type::Int,
                    Type::Text,
                    Type::Date,
                    Type::Numeric,
                ];
                let ty = self.random.one_of(&types);
                let template = self.random.one_of(&quantified);
                (
                    template,
                    vec![self.key_or(env, ty)],
                    self.query(&[ty], &place),
                )
            }
        };
        let node = Node::Subquery {
            template,
            arguments,
            query: Box::new(made.query),
        };
        Expr::new(Type::Bool, node)
    }

    /// A key where there is one, else an expression.
    fn key_or(&mut self, env: &Env, ty: Type) -> Expr {
        let keys = env.leaves.iter().filter(|l| l.key && l.expr.ty == ty);
        let keys: Vec<_> = keys.collect();
        match keys.is_empty() || self.random.chance(55) {
            true => self.expression(&without(env), ty, 1),
            false => self.random.pick(&keys).expr.clone(),
        }
    }
}

fn without<'a>(env: &Env<'a>) -> Env<'a> {
    env.without_subqueries()
}
