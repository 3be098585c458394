//! One SELECT: plain, with window functions, grouped, DISTINCT or DISTINCT ON.

use super::{Env, Generator, Leaf, Place, Scope};
use crate::random::ast::*;
use crate::random::types::Type;

/// A SELECT and what its query needs to know.
pub(super) struct Selected {
    pub(super) select: Select,
    pub(super) keys: Vec<bool>,
    pub(super) rows: f64,
    /// Expressions that ORDER BY may have.
    pub(super) sortable: Vec<Expr>,
    /// The order that DISTINCT ON asks for.
    pub(super) order: Option<Order>,
}

impl Generator {
    pub(super) fn select(&mut self, want: &[Type], place: &Place) -> Selected {
        self.budget = self.budget.saturating_sub(1);
        let plain_only = want.contains(&Type::Opaque);
        if !plain_only && self.random.chance(3) {
            return self.without_from(want, place);
        }
        let (from, scope, mut filters) = self.from(place);
        filters.extend(self.filters(&scope, place));
        let select = Select {
            distinct: Distinct::No,
            outputs: Vec::new(),
            from,
            filters,
            grouping: None,
            having: None,
        };
        match self.random.below(100) {
            _ if plain_only => self.plain(select, want, place, &scope),
            0..30 => self.grouped(select, want, place, &scope),
            30..36 if place.depth > 0 || place.top => self.distinct_on(select, want, place, &scope),
            _ => self.plain(select, want, place, &scope),
        }
    }

    /// One row: aggregates over everything.
    pub(super) fn aggregate_select(&mut self, want: &[Type], place: &Place) -> Query {
        self.budget = self.budget.saturating_sub(1);
        let (from, scope, mut filters) = self.from(place);
        filters.extend(self.filters(&scope, place));
        let env = Env {
            aggregates: Some(&scope),
            ..Env::of(&[], place.outer)
        };
        let outputs = want.iter().map(|t| self.aggregate(&env, &scope, *t));
        let outputs = outputs.map(unnamed).collect();
        Query::of(Body::Select(Box::new(Select {
            distinct: Distinct::No,
            outputs,
            from,
            filters,
            grouping: None,
            having: None,
        })))
    }

    fn without_from(&mut self, want: &[Type], place: &Place) -> Selected {
        let env = Env::of(&[], place.outer);
        let exprs = want.iter().map(|t| self.expression(&env, *t, 2));
        let exprs = exprs.map(|e| exact(e, place.exact)).collect();
        Selected {
            keys: vec![false; want.len()],
            rows: 1.0,
            select: Select {
                distinct: Distinct::No,
                outputs: self.named(exprs, place),
                from: Vec::new(),
                filters: Vec::new(),
                grouping: None,
                having: None,
            },
            sortable: Vec::new(),
            order: None,
        }
    }

    fn filters(&mut self, scope: &Scope, place: &Place) -> Vec<Expr> {
        let mut filters = Vec::new();
        if place.correlate {
            filters.extend(self.tie(&scope.leaves, place.outer));
        }
        let env = Env::of(&scope.leaves, place.outer);
        let wanted = [0, 1, 1, 2][self.random.below(4)];
        for _ in 0..wanted {
            filters.push(self.condition(&env, 2));
        }
        filters
    }

    fn plain(
        &mut self,
        mut select: Select,
        want: &[Type],
        place: &Place,
        scope: &Scope,
    ) -> Selected {
        let distinct = !want.contains(&Type::Opaque) && self.random.chance(14);
        let mut env = Env::of(&scope.leaves, place.outer);
        if self.random.chance(22) {
            env.windows = Some(&scope.identity);
        }
        let mut keys = Vec::new();
        let mut exprs = Vec::new();
        for ty in want {
            let candidates: Vec<_> = keys_of(&scope.leaves, *ty);
            let (expr, key) = match candidates.is_empty() || self.random.chance(70) {
                true => (self.output(&env, *ty), false),
                false => (self.random.pick(&candidates).expr.clone(), true),
            };
            keys.push(key);
            exprs.push(exact(expr, place.exact || distinct));
        }
        // A set in the select list multiplies rows.
        let set = want.iter().position(|t| *t == Type::Int);
        if let Some(at) = set
            && !distinct
            && self.random.chance(3)
        {
            let bound = self.expression(&Env::of(&scope.leaves, &[]), Type::Int, 0);
            exprs[at] = Expr::form(Type::Int, "generate_series(1, ({} % 3)::int4)", vec![bound]);
            keys[at] = false;
        }
        if distinct {
            select.distinct = Distinct::All;
        }
        let mut sortable = Vec::new();
        if !distinct && self.random.chance(55) {
            sortable = self.sortable(&env);
        }
        select.outputs = self.named(exprs, place);
        Selected {
            select,
            keys,
            rows: scope.rows,
            sortable,
            order: None,
        }
    }

    fn distinct_on(
        &mut self,
        mut select: Select,
        want: &[Type],
        place: &Place,
        scope: &Scope,
    ) -> Selected {
        let env = Env::of(&scope.leaves, place.outer);
        let mut on = Vec::new();
        for _ in 0..=self.random.below(2) {
            let key = self.group_key(&scope.leaves);
            on.extend(key);
        }
        if on.is_empty() {
            return self.plain(select, want, place, scope);
        }
        let mut keys: Vec<_> = on
            .iter()
            .map(|e| SortBy::Expr(e.clone()))
            .map(|by| self.sort_key(by))
            .collect();
        keys.extend(self.total_order(&scope.identity));
        let exprs: Vec<_> = want.iter().map(|t| self.expression(&env, *t, 2)).collect();
        let exprs = exprs.into_iter().map(|e| exact(e, place.exact)).collect();
        select.outputs = self.named(exprs, place);
        select.distinct = Distinct::On(on);
        Selected {
            select,
            keys: vec![false; want.len()],
            rows: scope.rows / 3.0,
            sortable: Vec::new(),
            order: Some(Order {
                keys,
                total: false,
                pinned: true,
            }),
        }
    }

    fn grouped(
        &mut self,
        mut select: Select,
        want: &[Type],
        place: &Place,
        scope: &Scope,
    ) -> Selected {
        let (keys, groups, kind) = self.groups(scope);
        let identity: Vec<Expr> = keys.clone();
        let plain = Env {
            aggregates: Some(scope),
            ..Env::of(&groups, place.outer)
        };
        let mut env = plain;
        if self.random.chance(15) && kind == GroupingKind::Plain {
            env.windows = Some(&identity);
        }
        let distinct = self.random.chance(5);
        let mut exprs = Vec::new();
        let mut passed = Vec::new();
        for ty in want {
            let grouping = kind != GroupingKind::Plain && *ty == Type::Int;
            let expr = match grouping && self.random.chance(20) {
                true => {
                    let key = self.random.pick(&keys).clone();
                    Expr::form(Type::Int, "grouping({})", vec![key])
                }
                false => self.output(&env, *ty),
            };
            let key = groups.iter().any(|g| g.key && same_column(&g.expr, &expr));
            passed.push(key && kind == GroupingKind::Plain);
            exprs.push(exact(expr, place.exact || distinct));
        }
        select.having = self.having(&plain, keys.is_empty());
        let sortable = match !distinct && self.random.chance(45) {
            true => self.sortable(&env),
            false => Vec::new(),
        };
        if distinct {
            select.distinct = Distinct::All;
        }
        let rows = if keys.is_empty() {
            1.0
        } else {
            scope.rows / 2.0
        };
        select.grouping = (!keys.is_empty()).then(|| Grouping {
            kind,
            keys,
            by_ordinal: self.random.chance(30),
        });
        select.outputs = self.named(exprs, place);
        Selected {
            select,
            keys: passed,
            rows,
            sortable,
            order: None,
        }
    }

    /// What to group by, what expressions may then refer to, and how it is written.
    fn groups(&mut self, scope: &Scope) -> (Vec<Expr>, Vec<Leaf>, GroupingKind) {
        if !scope.primary_key.is_empty() && self.random.chance(12) {
            // Every column depends on it; the whole row does not count as one.
            let columns = scope.leaves.iter().filter(|l| l.expr.ty.is_ordered());
            let columns = columns.cloned().collect();
            return (scope.primary_key.clone(), columns, GroupingKind::Plain);
        }
        let mut keys = Vec::new();
        for _ in 0..[0, 1, 1, 1, 2][self.random.below(5)] {
            keys.extend(self.group_key(&scope.leaves));
        }
        let leaf = |expr: &Expr| Leaf {
            key: keys_of(&scope.leaves, expr.ty)
                .iter()
                .any(|k| same_column(&k.expr, expr)),
            expr: expr.clone(),
        };
        let groups = keys.iter().map(leaf).collect();
        let kind = match self.random.below(100) {
            _ if keys.is_empty() => GroupingKind::Plain,
            0..6 => GroupingKind::Rollup,
            6..10 => GroupingKind::Cube,
            10..15 => GroupingKind::Sets,
            _ => GroupingKind::Plain,
        };
        (keys, groups, kind)
    }

    /// Without GROUP BY there is always one: else the query might have no aggregate at all.
    fn having(&mut self, env: &Env, needed: bool) -> Option<Expr> {
        if self.random.chance(30) {
            return Some(self.condition(env, 1));
        }
        let count = Expr::new(Type::Int, Node::Aggregate(Box::new(count_all())));
        needed.then(|| Expr::form(Type::Bool, "({} >= 0)", vec![count]))
    }

    /// Something to group by: not a constant, and of a type with an order.
    pub(super) fn group_key(&mut self, leaves: &[Leaf]) -> Option<Expr> {
        let ordered: Vec<_> = leaves.iter().filter(|l| l.expr.ty.is_ordered()).collect();
        if ordered.is_empty() {
            return None;
        }
        let keys: Vec<_> = ordered.iter().filter(|l| l.key).copied().collect();
        if !keys.is_empty() && self.random.chance(30) {
            return Some(self.random.pick(&keys).expr.clone().canonical());
        }
        let ty = self.random.pick(&ordered).expr.ty;
        let depth = usize::from(self.random.chance(35));
        let env = Env::of(leaves, &[]).without_subqueries();
        let expr = self.expression(&env, ty, depth);
        (!is_constant(&expr)).then(|| expr.canonical())
    }

    fn sortable(&mut self, env: &Env) -> Vec<Expr> {
        let types = [
            Type::Int,
            Type::Int,
            Type::Text,
            Type::Numeric,
            Type::Date,
            Type::Float,
            Type::CText,
            Type::Interval,
        ];
        let count = 1 + self.random.below(2);
        let mut sortable = Vec::new();
        for _ in 0..count {
            let ty = self.random.one_of(&types);
            let expr = self.expression(env, ty, 1);
            if !is_constant(&expr) {
                sortable.push(expr);
            }
        }
        sortable
    }

    /// Output columns; those of the statement itself may have the names that PostgreSQL gives.
    fn named(&mut self, exprs: Vec<Expr>, place: &Place) -> Vec<Output> {
        let named = exprs.into_iter().enumerate().map(|(n, expr)| Output {
            name: match place.top && self.random.chance(35) {
                true => String::new(),
                false => format!("o{}", n + 1),
            },
            expr,
        });
        named.collect()
    }
}

fn unnamed(expr: Expr) -> Output {
    Output {
        expr,
        name: String::new(),
    }
}

fn exact(expr: Expr, wanted: bool) -> Expr {
    if wanted { expr.canonical() } else { expr }
}

fn keys_of(leaves: &[Leaf], ty: Type) -> Vec<&Leaf> {
    leaves.iter().filter(|l| l.key && l.expr.ty == ty).collect()
}

fn same_column(a: &Expr, b: &Expr) -> bool {
    match (&a.node, &b.node) {
        (
            Node::Column { relation, name },
            Node::Column {
                relation: other_relation,
                name: other,
            },
        ) => relation == other_relation && name == other,
        _ => false,
    }
}

/// ORDER BY and GROUP BY take constants for positions, or refuse them.
fn is_constant(expr: &Expr) -> bool {
    match &expr.node {
        Node::Literal { .. } => true,
        Node::Canonical(inner) => is_constant(inner),
        // The parser makes a negative constant of it.
        Node::Form {
            template: "(- {})",
            arguments,
        } => is_constant(&arguments[0]),
        _ => false,
    }
}

pub(super) fn count_all() -> Aggregate {
    Aggregate {
        template: "count(*)",
        arguments: Vec::new(),
        distinct: false,
        order: Vec::new(),
        within_group: false,
        filter: None,
    }
}
