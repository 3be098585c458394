//! Which stages leave out the rows that meet nothing of an earlier stage, and the order that makes this worth most.
//!
//! ```text
//! part (few)  ──keys──→  lineitem where l_partkey = ANY (keys)  ──keys──→  customer where c_custkey = ANY (keys)
//! ```
//! A row may go where a condition that it must pass compares one of its columns with one of the other stage, for equality: the
//! other side of any row of the result is in that stage, or NULL. This holds whatever else is left out, so restrictions add up. It
//! holds from a query to its subqueries, whatever those are for (a row that passes no condition is not in them either), and from
//! the subquery of an IN to the query around it where rows must pass the IN.

use std::collections::HashMap;

use super::scope::AttrId;
use super::stage_conditions::Base;
use crate::catalog::Table;
use crate::plan::{Plan, SqlPart, Stage, StageFilter};
use crate::sql::ast::{self, node::Node};

/// Conditions of one stage on values of others; more would cost the shards more than they save.
const FILTERS_MAX: usize = 4;
/// A stage that keeps more than this part of its rows leaves out hardly any of another's.
const KEPT_MAX: f64 = 0.8;
/// Rows of what nothing is known about.
const ROWS_UNKNOWN: f64 = 1000.0;

/// An interval holds less than its two bounds by themselves would leave.
const INTERVAL_OF_BOUNDS: f64 = 0.2;

/// How many rows a stage brings, as far as can be guessed.
#[derive(Debug, Clone)]
pub(super) struct Size {
    /// Of its largest table.
    all: f64,
    /// The part of them that passes its conditions.
    kept: f64,
    /// Columns with a bound on one side.
    bounded: Vec<ast::Node>,
    /// Its text has a WHERE clause.
    pub(super) has_where: bool,
}

impl Size {
    pub(super) fn of<'t>(tables: impl Iterator<Item = &'t Table>) -> Self {
        let rows = tables.map(|t| t.rows).fold(0.0, f64::max);
        Self {
            all: if rows > 0.0 { rows } else { ROWS_UNKNOWN },
            kept: 1.0,
            bounded: Vec::new(),
            has_where: false,
        }
    }

    pub(super) fn restrict(&mut self, condition: &ast::Node) {
        self.kept *= selectivity(condition);
        let column = |n: &ast::Node| matches!(n.node, Some(Node::ColumnRef(_)));
        if let Some(Node::AExpr(e)) = &condition.node
            && let Some(Node::String(op)) = e.name.first().and_then(|n| n.node.as_ref())
            && ["<", "<=", ">", ">="].contains(&op.sval.as_str())
            && let Some(bounded) = e.lexpr.as_deref().filter(|n| column(n))
        {
            let mut bounded = bounded.clone();
            if let Some(Node::ColumnRef(c)) = &mut bounded.node {
                c.location = -1;
            }
            if self.bounded.contains(&bounded) {
                self.kept *= INTERVAL_OF_BOUNDS;
            }
            self.bounded.push(bounded);
        }
    }
}

/// The part of rows that passes a condition, by its form alone.
fn selectivity(condition: &ast::Node) -> f64 {
    use ast::{AExprKind as K, BoolExprType as B};
    match &condition.node {
        Some(Node::BoolExpr(b)) => {
            let parts = b.args.iter().map(selectivity);
            match B::try_from(b.boolop) {
                Ok(B::AndExpr) => parts.product(),
                Ok(B::OrExpr) => parts.sum::<f64>().min(1.0),
                _ => 1.0 - parts.product::<f64>(),
            }
        }
        Some(Node::AExpr(e)) => {
            let columns = |side: Option<&ast::Node>| {
                let column = |n: &Node| matches!(n, Node::ColumnRef(_));
                side.is_some_and(|n| crate::sql::any_node(n, &mut |n| column(n)))
            };
            // Columns of one stage with each other: how its tables are joined.
            if columns(e.lexpr.as_deref()) && columns(e.rexpr.as_deref()) {
                return 1.0;
            }
            let name = match e.name.first().and_then(|n| n.node.as_ref()) {
                Some(Node::String(s)) => s.sval.as_str(),
                _ => "",
            };
            let values = match e.rexpr.as_deref().and_then(|n| n.node.as_ref()) {
                Some(Node::List(list)) => list.items.len() as f64,
                _ => 1.0,
            };
            match (K::try_from(e.kind), name) {
                (Ok(K::AexprOp), "=") => 0.05,
                (Ok(K::AexprIn | K::AexprOpAny), "=") => (0.05 * values).min(0.5),
                (Ok(K::AexprLike | K::AexprIlike), "~~" | "~~*") => 0.1,
                (Ok(K::AexprBetween), _) => 0.2,
                (_, "<>" | "!~~" | "!~~*") => 0.9,
                _ => 0.4,
            }
        }
        Some(Node::NullTest(t)) if t.nulltesttype == ast::NullTestType::IsNull as i32 => 0.1,
        _ => 0.9,
    }
}

/// A stage whose rows an equality may leave out.
#[derive(Debug)]
struct Edge {
    stage: usize,
    expression: String,
    source: AttrId,
    base: Option<Base>,
}

/// What is known of the stages while they are made.
#[derive(Debug, Default)]
pub(super) struct SemiJoins {
    edges: Vec<Edge>,
    /// Where columns of tables are: stage and column. `None` for a table that is read twice (in a view).
    places: HashMap<Base, Option<(usize, usize)>>,
    /// Where output columns of subqueries are that are stages as a whole.
    outputs: HashMap<AttrId, Option<(usize, usize)>>,
    sizes: HashMap<usize, Size>,
    /// How often each stage is read: equal ones are one.
    reads: HashMap<usize, usize>,
}

impl SemiJoins {
    pub(super) fn place(&mut self, base: Base, at: (usize, usize)) {
        let known = self.places.entry(base).or_insert(Some(at));
        if *known != Some(at) {
            *known = None;
        }
    }

    pub(super) fn output(&mut self, attr: AttrId, at: (usize, usize)) {
        let known = self.outputs.entry(attr).or_insert(Some(at));
        if *known != Some(at) {
            *known = None;
        }
    }

    pub(super) fn size(&mut self, stage: usize, size: Size) {
        self.sizes.insert(stage, size);
    }

    /// Notes one more place where a stage is read.
    pub(super) fn read(&mut self, stage: usize) {
        *self.reads.entry(stage).or_default() += 1;
    }

    pub(super) fn may_restrict(
        &mut self,
        stage: usize,
        expression: String,
        (source, base): (AttrId, Option<Base>),
    ) {
        self.edges.push(Edge {
            stage,
            expression,
            source,
            base,
        });
    }

    /// Where the values of an edge come from. What one place may leave out another may need, so a stage that is read twice is
    /// not restricted.
    fn source(&self, edge: &Edge) -> Option<(usize, usize)> {
        let place = edge.base.and_then(|b| self.places.get(&b));
        let place = *place.or_else(|| self.outputs.get(&edge.source))?;
        let once = self.reads.get(&edge.stage) == Some(&1);
        place.filter(|(source, _)| once && *source != edge.stage)
    }

    /// Puts the stages in the order in which they run, each with the conditions that earlier ones make.
    pub(super) fn arrange(self, stages: Vec<Stage>, sql: &mut [SqlPart]) -> Vec<Stage> {
        if self.edges.iter().all(|e| self.source(e).is_none()) {
            return stages;
        }
        let mut order: Vec<usize> = Vec::new();
        let mut kept: Vec<Option<f64>> = vec![None; stages.len()];
        let mut filters: Vec<Vec<StageFilter>> = Vec::new();
        while order.len() < stages.len() {
            let next = (0..stages.len())
                .filter(|s| !order.contains(s))
                .map(|s| (s, self.restricted(s, &kept)))
                .min_by(|(a, (x, _)), (b, (y, _))| {
                    let rows = |s: &usize, part: f64| self.rows(*s) * part;
                    let waits = self.waits(*a, &kept).cmp(&self.waits(*b, &kept));
                    waits
                        .then(rows(a, *x).total_cmp(&rows(b, *y)))
                        .then(a.cmp(b))
                });
            let Some((stage, (part, edges))) = next else {
                break;
            };
            kept[stage] = Some(part);
            let place = |s: usize| order.iter().position(|o| *o == s);
            let made = edges.iter().filter_map(|edge| {
                let (source, column) = self.source(edge)?;
                Some(StageFilter {
                    expression: edge.expression.clone(),
                    stage: place(source)?,
                    column,
                })
            });
            filters.push(made.collect());
            order.push(stage);
        }
        for part in sql {
            if let SqlPart::Stage(n) = part {
                *n = order.iter().position(|o| o == n).unwrap_or(*n);
            }
        }
        let mut stages: Vec<Option<Stage>> = stages.into_iter().map(Some).collect();
        let arranged = order.iter().zip(filters).filter_map(|(stage, filters)| {
            let mut out = stages[*stage].take()?;
            let open = self.sizes.get(stage).is_some_and(|s| !s.has_where);
            if let (false, true, Some(text)) = (filters.is_empty(), open, text(&mut out.plan)) {
                text.push_str(" WHERE true");
            }
            out.filters = filters;
            Some(out)
        });
        arranged.collect()
    }

    /// True for a stage that another one, which has nothing to gain from it, may still restrict.
    fn waits(&self, stage: usize, done: &[Option<f64>]) -> bool {
        let from = |to: usize| {
            let edges = self.edges.iter().filter(move |e| e.stage == to);
            edges
                .filter_map(|e| self.source(e))
                .map(|(source, _)| source)
        };
        from(stage).any(|other| {
            let few = self.sizes.get(&other).is_some_and(|s| s.kept <= KEPT_MAX);
            done[other].is_none() && few && !from(other).any(|s| s == stage)
        })
    }

    fn rows(&self, stage: usize) -> f64 {
        self.sizes.get(&stage).map_or(ROWS_UNKNOWN, |s| s.all)
    }

    /// The part of its rows that a stage would bring now, and what restricts it.
    fn restricted(&self, stage: usize, done: &[Option<f64>]) -> (f64, Vec<&Edge>) {
        let mut part = self.sizes.get(&stage).map_or(1.0, |s| s.kept);
        let mut used: Vec<&Edge> = Vec::new();
        for edge in self.edges.iter().filter(|e| e.stage == stage) {
            let Some((source, _)) = self.source(edge) else {
                continue;
            };
            let Some(kept) = done[source].filter(|k| *k <= KEPT_MAX) else {
                continue;
            };
            let known = |e: &&Edge| {
                e.expression == edge.expression && self.source(e).map(|s| s.0) == Some(source)
            };
            if used.len() < FILTERS_MAX && !used.iter().any(known) {
                used.push(edge);
                part *= kept;
            }
        }
        (part, used)
    }
}

/// The text of the remote below a gather.
fn text(plan: &mut Plan) -> Option<&mut String> {
    match plan {
        Plan::Gather { input } => text(input),
        Plan::Remote(remote) => Some(&mut remote.sql),
        _ => None,
    }
}
