//! Aggregates and window functions.

use super::{Env, Generator, Scope};
use crate::random::ast::*;
use crate::random::forms::{AGGREGATES, AggregateForm, Input, WINDOWS};
use crate::random::types::Type;

impl Generator {
    /// An aggregate with a value of `ty`. Its arguments are of its own query: else it would belong to the outer one.
    pub(super) fn aggregate(&mut self, env: &Env, scope: &Scope, ty: Type) -> Expr {
        let forms: Vec<_> = AGGREGATES.iter().filter(|f| f.result == ty).collect();
        let extreme = ty.has_extremes() && (forms.is_empty() || self.random.chance(30));
        if !extreme && forms.is_empty() {
            // No aggregate has such a value: still, the query must be one of aggregates.
            let count = Expr::new(
                Type::Int,
                Node::Aggregate(Box::new(super::select::count_all())),
            );
            let arguments = vec![count, self.literal(ty)];
            return Expr::form(ty, "case when {} > 0 then {} end", arguments);
        }
        let inner = Env {
            leaves: &scope.leaves,
            outer: &[],
            aggregates: None,
            windows: None,
            subqueries: env.subqueries && self.random.chance(15),
        };
        let mut aggregate = match extreme {
            true => {
                let template = self.random.one_of(&["min({})", "max({})"]);
                let argument = self.expression(&inner, ty, 1).canonical();
                plain(template, vec![argument])
            }
            false => {
                let form = self.random.one_of(&forms);
                self.aggregate_of(&inner, form)
            }
        };
        if self.random.chance(14) {
            aggregate.filter = Some(self.condition(&inner, 1));
        }
        Expr::new(ty, Node::Aggregate(Box::new(aggregate)))
    }

    fn aggregate_of(&mut self, inner: &Env, form: &AggregateForm) -> Aggregate {
        let depth = usize::from(self.random.chance(45));
        let arguments = form.arguments.iter();
        let arguments = arguments.map(|t| self.expression(inner, *t, depth));
        let mut arguments: Vec<_> = arguments.collect();
        if form.input != Input::Unordered {
            arguments = arguments.into_iter().map(Expr::canonical).collect();
        }
        // Arrays of different integers, or of a domain and its type, do not mix.
        let cast = match form.result {
            Type::Ints => Some("({})::int8"),
            Type::Texts => Some("({})::text"),
            _ => None,
        };
        if let Some(cast) = cast {
            let cast = |a: Expr| Expr::form(a.ty, cast, vec![a]);
            arguments = arguments.into_iter().map(cast).collect();
        }
        let mut aggregate = plain(form.template, arguments);
        match form.input {
            Input::Unordered => {
                let may = !aggregate.arguments.is_empty();
                if may && self.random.chance(16) {
                    aggregate.distinct = true;
                    let arguments = std::mem::take(&mut aggregate.arguments);
                    aggregate.arguments = arguments.into_iter().map(Expr::canonical).collect();
                }
            }
            Input::Ordered => {
                let by = SortBy::Expr(aggregate.arguments[0].clone());
                aggregate.distinct = self.random.chance(20);
                if !aggregate.distinct && self.random.chance(35) {
                    let other = self.window_key(inner);
                    aggregate.order.push(self.sort_key(SortBy::Expr(other)));
                }
                aggregate.order.push(self.sort_key(by));
            }
            Input::WithinGroup => {
                let by = aggregate.arguments.pop().expect("what is ordered by");
                aggregate.order.push(self.sort_key(SortBy::Expr(by)));
                aggregate.within_group = true;
            }
        }
        aggregate
    }

    pub(super) fn window(&mut self, env: &Env, ty: Type) -> Expr {
        let forms: Vec<_> = WINDOWS.iter().filter(|f| f.result == ty).collect();
        let identity = env.windows.unwrap_or_default();
        let plain = Env {
            windows: None,
            subqueries: false,
            ..*env
        };
        // Long orders are slow, and show nothing that short ones do not.
        let fits = |total: bool| !total || identity.len() <= 12;
        let Some(form) = (!forms.is_empty())
            .then(|| self.random.one_of(&forms))
            .filter(|f| fits(f.total_order))
        else {
            return self.expression(&plain, ty, 2);
        };
        let arguments = form.arguments.iter();
        let arguments = arguments.map(|t| self.expression(&plain, *t, 1).canonical());
        let arguments = arguments.collect();
        let mut partition = Vec::new();
        if self.random.chance(65) {
            for _ in 0..=self.random.below(2) {
                partition.push(self.window_key(&plain));
            }
        }
        let mut order = Vec::new();
        if form.total_order || self.random.chance(70) {
            let by = SortBy::Expr(self.window_key(&plain));
            order.push(self.sort_key(by));
        }
        let mut frame = "";
        if form.total_order {
            order.extend(self.total_order(identity));
            let frames = [
                "",
                "",
                "rows between 1 preceding and current row",
                "rows between unbounded preceding and unbounded following",
                "rows between 2 preceding and 1 following exclude current row",
            ];
            frame = self.random.one_of(&frames);
        } else if !order.is_empty() {
            let frames = [
                "",
                "",
                "range between unbounded preceding and current row",
                "groups between 1 preceding and 1 following",
            ];
            frame = self.random.one_of(&frames);
        }
        let window = Window {
            template: form.template,
            arguments,
            partition,
            order,
            pinned: form.total_order,
            frame,
        };
        Expr::new(ty, Node::Window(Box::new(window)))
    }

    fn window_key(&mut self, env: &Env) -> Expr {
        let types = [
            Type::Int,
            Type::Int,
            Type::Text,
            Type::Date,
            Type::Numeric,
            Type::Bool,
        ];
        let ty = self.random.one_of(&types);
        let keys = env.leaves.iter().filter(|l| l.key);
        let keys: Vec<_> = keys.collect();
        match !keys.is_empty() && self.random.chance(35) {
            true => self.random.pick(&keys).expr.clone(),
            false => self.expression(env, ty, 1),
        }
    }

    /// Sort keys that leave no two rows equal, unless they are alike.
    pub(super) fn total_order(&mut self, identity: &[Expr]) -> Vec<SortKey> {
        let mut keys = Vec::new();
        for expr in identity.iter().filter(|e| e.ty.is_ordered()) {
            keys.push(SortKey {
                by: SortBy::Expr(expr.clone()),
                direction: "",
            });
            // Equal values may still look different.
            if expr.ty.canonical().is_some() {
                let text = Expr::form(Type::Text, "({})::text", vec![expr.clone()]);
                keys.push(SortKey {
                    by: SortBy::Expr(text),
                    direction: " desc",
                });
            }
        }
        keys
    }
}

fn plain(template: &'static str, arguments: Vec<Expr>) -> Aggregate {
    Aggregate {
        template,
        arguments,
        ..super::select::count_all()
    }
}
