//! Makes a statement small while it still shows what it showed: every simplification has a number, and those that keep the
//! outcome stay.

use std::time::{Duration, Instant};

use super::ast::*;
use super::types::Type;

/// Tries simplifications until none keeps the outcome or the time is over. The result means what `keeps` says.
pub fn shrink(
    statement: Statement,
    time: Duration,
    mut keeps: impl FnMut(&Statement) -> bool,
) -> Statement {
    let deadline = Instant::now() + time;
    let mut smallest = statement;
    let mut number = 0;
    while Instant::now() < deadline {
        let Some(candidate) = simplified(&smallest, number) else {
            break;
        };
        match keeps(&candidate) {
            // What stood behind it has moved up to the same number.
            true => smallest = candidate,
            false => number += 1,
        }
    }
    smallest
}

/// The statement with its `number`th simplification made; `None`: it has fewer.
pub fn simplified(statement: &Statement, number: usize) -> Option<Statement> {
    let mut statement = statement.clone();
    let mut cut = Cut {
        left: number,
        done: false,
    };
    cut.query(&mut statement.query);
    cut.done.then_some(statement)
}

/// Counts the simplifications that it passes, and makes one.
struct Cut {
    left: usize,
    done: bool,
}

impl Cut {
    /// True once: for the simplification that is to be made.
    fn now(&mut self) -> bool {
        if self.done {
            return false;
        }
        self.done = self.left == 0;
        self.left = self.left.saturating_sub(1);
        self.done
    }

    /// Takes one element out, but leaves `least`.
    fn shorten<T>(&mut self, all: &mut Vec<T>, least: usize) {
        if all.len() <= least {
            return;
        }
        if let Some(at) = (0..all.len()).find(|_| self.now()) {
            all.remove(at);
        }
    }

    fn query(&mut self, query: &mut Query) {
        self.shorten(&mut query.ctes, 0);
        if let Body::SetOperation { left, right, .. } = &query.body {
            let arms = [left, right].map(|arm| (**arm).clone());
            if let Some(arm) = arms.into_iter().find(|_| self.now()) {
                query.ctes.extend(arm.ctes);
                (query.body, query.order, query.limit) = (arm.body, arm.order, arm.limit);
                return;
            }
        }
        if query.limit.is_some() && self.now() {
            query.limit = None;
        }
        let ordered = query.order.total || !query.order.keys.is_empty();
        if ordered && !query.order.pinned && query.limit.is_none() && self.now() {
            query.order = Order::default();
        }
        if let Body::Select(select) = &mut query.body
            && matches!(select.distinct, Distinct::On(_))
            && query.limit.is_none()
            && self.now()
        {
            select.distinct = Distinct::No;
            query.order = Order::default();
        }
        if !query.order.pinned && (query.order.total || query.limit.is_none()) {
            self.shorten(&mut query.order.keys, 0);
        }
        if let Some(limit) = &mut query.limit
            && limit.count.is_some()
            && limit.offset.is_some()
            && self.now()
        {
            limit.offset = None;
        }
        self.outputs_of(query);
        match &mut query.body {
            Body::Select(select) => self.select(select),
            Body::Values(rows) => self.shorten(rows, 1),
            Body::SetOperation { left, right, .. } => {
                self.query(left);
                self.query(right);
            }
        }
        for cte in &mut query.ctes {
            if !cte.suffix.is_empty() && self.now() {
                cte.suffix = "";
            }
            if cte.materialized.is_some() && self.now() {
                cte.materialized = None;
            }
            self.query(&mut cte.query);
            self.columns(&mut cte.columns, &mut cte.query);
        }
        for key in &mut query.order.keys {
            if !query.order.pinned {
                self.key(key);
            }
        }
    }

    /// Takes a column out of a query.
    fn outputs_of(&mut self, query: &mut Query) {
        let width = query.width();
        if width > 1
            && let Some(at) = (0..width).find(|_| self.now())
        {
            remove_output(query, at);
        }
    }

    /// Takes a column out of a query and of its list of names.
    fn columns(&mut self, names: &mut Vec<String>, query: &mut Query) {
        if names.len() > 1
            && let Some(at) = (0..names.len()).find(|_| self.now())
        {
            names.remove(at);
            remove_output(query, at);
        }
    }

    fn select(&mut self, select: &mut Select) {
        if matches!(select.distinct, Distinct::All) && self.now() {
            select.distinct = Distinct::No;
        }
        self.shorten(&mut select.filters, 0);
        if select.having.is_some() && self.now() {
            select.having = None;
        }
        self.items(&mut select.from);
        if let Some(grouping) = &mut select.grouping {
            if grouping.kind != GroupingKind::Plain && self.now() {
                grouping.kind = GroupingKind::Plain;
            }
            if grouping.by_ordinal && self.now() {
                grouping.by_ordinal = false;
            }
            self.shorten(&mut grouping.keys, 1);
        }
        if select.grouping.is_some() && self.now() {
            select.grouping = None;
        }
        for filter in &mut select.filters {
            self.expr(filter);
        }
        for output in &mut select.outputs {
            self.expr(&mut output.expr);
        }
        if let Some(having) = &mut select.having {
            self.expr(having);
        }
    }

    fn items(&mut self, from: &mut Vec<From>) {
        self.shorten(from, 1);
        for item in from {
            self.from(item);
        }
    }

    fn from(&mut self, from: &mut From) {
        match from {
            From::Table { .. } => {}
            From::Rows { arguments, .. } => arguments.iter_mut().for_each(|a| self.expr(a)),
            From::Derived {
                lateral,
                query,
                columns,
                ..
            } => {
                if *lateral && self.now() {
                    *lateral = false;
                }
                self.columns(columns, query);
                self.query(query);
            }
            From::Join { left, right, .. } => {
                let (left, right) = (left.clone(), right.clone());
                if self.now() {
                    *from = *left;
                } else if self.now() {
                    *from = *right;
                } else {
                    self.join(from);
                }
            }
        }
    }

    fn join(&mut self, from: &mut From) {
        let From::Join {
            kind,
            left,
            right,
            on,
        } = from
        else {
            return;
        };
        if !["join", "cross join"].contains(kind) && self.now() {
            *kind = "join";
        }
        self.from(left);
        self.from(right);
        if let On::Conditions(conditions) = on {
            self.shorten(conditions, 0);
            for condition in conditions {
                self.expr(condition);
            }
        }
    }

    fn key(&mut self, key: &mut SortKey) {
        if !key.direction.is_empty() && self.now() {
            key.direction = "";
        }
        if let SortBy::Expr(expr) = &mut key.by {
            self.expr(expr);
        }
    }

    fn expr(&mut self, expr: &mut Expr) {
        if !matches!(expr.node, Node::Column { .. } | Node::Literal { .. }) && self.now() {
            expr.node = constant(expr.ty);
            return;
        }
        let ty = expr.ty;
        match &mut expr.node {
            Node::Column { .. } => {}
            Node::Literal { parameter, .. } => {
                if parameter.is_some() && self.now() {
                    *parameter = None;
                }
            }
            Node::Form { arguments, .. } => {
                let same = |a: &&mut Expr| a.ty == ty;
                if let Some(argument) = arguments.iter_mut().filter(same).find(|_| self.now()) {
                    *expr = argument.clone();
                    return;
                }
                arguments.iter_mut().for_each(|a| self.expr(a));
            }
            Node::Canonical(inner) => self.expr(inner),
            Node::Aggregate(aggregate) => self.aggregate(aggregate),
            Node::Window(window) => self.window(window),
            Node::Subquery {
                arguments, query, ..
            } => {
                arguments.iter_mut().for_each(|a| self.expr(a));
                self.query(query);
            }
        }
    }

    fn aggregate(&mut self, aggregate: &mut Aggregate) {
        if aggregate.distinct && self.now() {
            aggregate.distinct = false;
        }
        if aggregate.filter.is_some() && self.now() {
            aggregate.filter = None;
        }
        // What is ordered by is also an argument: both would have to change alike.
        if aggregate.order.is_empty() || aggregate.within_group {
            aggregate.arguments.iter_mut().for_each(|a| self.expr(a));
        }
        if aggregate.within_group {
            aggregate.order.iter_mut().for_each(|k| self.key(k));
        } else if aggregate.order.len() > 1 && self.now() {
            aggregate.order.remove(0);
        }
        if let Some(filter) = &mut aggregate.filter {
            self.expr(filter);
        }
    }

    fn window(&mut self, window: &mut Window) {
        self.shorten(&mut window.partition, 0);
        if !window.frame.is_empty() && self.now() {
            window.frame = "";
        }
        if !window.pinned {
            self.shorten(&mut window.order, 0);
        }
        window.arguments.iter_mut().for_each(|a| self.expr(a));
        window.partition.iter_mut().for_each(|p| self.expr(p));
    }
}

fn remove_output(query: &mut Query, at: usize) {
    match &mut query.body {
        Body::Select(select) => {
            select.outputs.remove(at);
        }
        Body::Values(rows) => rows.iter_mut().for_each(|row| {
            row.remove(at);
        }),
        Body::SetOperation { left, right, .. } => {
            remove_output(left, at);
            remove_output(right, at);
        }
    }
}

fn constant(ty: Type) -> Node {
    let value = match ty {
        Type::Bool => "true",
        _ => ty.literals()[0],
    };
    Node::Literal {
        value: Some(value),
        parameter: None,
    }
}

#[test]
fn simplifications_end() {
    for seed in 0..20 {
        let smallest = shrink(
            super::generate::statement(seed),
            Duration::from_secs(60),
            |_| true,
        );
        assert!(simplified(&smallest, 0).is_none());
        assert!(smallest.sql(true).len() < 250, "{}", smallest.sql(true));
    }
}
