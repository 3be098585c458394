//! From a statement and the catalog to a plan: pure, the same answer every time. What it cannot prove exact it refuses.

mod aggregate;
mod ahead;
mod analyse;
mod blocks;
mod bounds;
mod clock;
mod condition;
mod ctes;
mod dependent;
mod final_aggregate;
mod flatten;
mod from_items;
mod functions;
mod grouping;
mod inherited_order;
mod joins;
mod key_classes;
mod literals;
mod order;
mod outputs;
mod partials;
mod proof;
mod pushdown;
mod range_functions;
mod relations;
mod rewrite;
mod samples;
mod scope;
mod semi_joins;
mod set_operations;
mod stage_conditions;
mod stage_rows;
mod stage_sets;
mod stage_subqueries;
mod stage_tables;
mod stages;
pub mod temporary;
mod total;
mod types;
mod whole_rows;
mod writes;

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::metrics::Reason;
use crate::plan::{KeyCondition, Plan, Planned, Refusal, Remote, Targets};
use crate::sql::Statement;
use crate::sql::ast::{self, node::Node};
use analyse::{Analysis, Dist, refusal};
use pushdown::{FanOut, Stop};
use whole_rows::gathers;

pub use scope::find_table;

/// A statement to plan.
pub struct Request<'a> {
    /// One statement, without the others of its message.
    pub sql: &'a str,
    /// Type OIDs of $1.. as the catalog shard inferred them.
    pub parameter_types: &'a [u32],
    /// Schemas searched for unqualified names, in order, pg_catalog included where the session has it elsewhere than first.
    pub search_path: &'a [String],
    /// What earlier rounds asked for.
    pub facts: &'a Facts,
}

/// A question that only PostgreSQL can answer, asked of the catalog shard before planning goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Types and collations of the columns this SELECT would return (Parse and Describe; it is never run over rows). May name parameters.
    Columns {
        /// The statement.
        sql: String,
    },
    /// The text of the single value this SELECT returns, or NULL. No parameters.
    Value {
        /// The statement.
        sql: String,
    },
}

/// PostgreSQL's answer to a `Probe`.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// Types and collations of columns.
    Columns(Vec<ProbedColumn>),
    /// One value as text, or NULL.
    Value(Option<String>),
}

/// A column as PostgreSQL describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbedColumn {
    /// The type's OID on the catalog shard.
    pub type_oid: u32,
    /// The type's modifier, -1 for none.
    pub type_modifier: i32,
    /// As `pg_collation_for` prints it, without quotes or schema (`default`, `C`, `en_US`); `None` for types without one.
    pub collation: Option<String>,
}

/// Answers by question.
pub type Facts = HashMap<Probe, Fact>;

/// Plans one statement; `Err` asks for facts first.
pub fn plan(request: &Request<'_>, catalog: &Catalog) -> Result<Planned, Vec<Probe>> {
    let why = match crate::sql::parse(request.sql) {
        Ok(all) => match <[_; 1]>::try_from(all) {
            Ok([statement]) => return plan_parsed(statement, request, catalog),
            Err(_) => refusal(
                Reason::Other,
                "one statement is expected",
                "Send statements one by one.",
                -1,
            ),
        },
        Err(e) => refusal(Reason::Other, e.message, "Correct the statement.", -1),
    };
    Ok(refused(why, true))
}

/// As [`plan`], of a statement whose tree is there already; `request.sql` is its text.
pub fn plan_parsed(
    mut statement: Statement,
    request: &Request<'_>,
    catalog: &Catalog,
) -> Result<Planned, Vec<Probe>> {
    match &mut statement.node {
        Node::SelectStmt(select) => {
            let planner = Planner::new(request, catalog);
            planner.spell_out(select);
            let in_order = inherited_order::inherit(catalog, request.search_path, select);
            planner.select(select, in_order)
        }
        other => match crate::sql::change(other) {
            Some(change) => Planner::new(request, catalog).change(&change),
            None => Ok(refused(
                refusal(
                    Reason::Write,
                    "only SELECT, and INSERT, UPDATE and DELETE on one shard, are supported over several shards",
                    "Run the statement on the shard itself.",
                    -1,
                ),
                false,
            )),
        },
    }
}

fn refused(why: Refusal, read_only: bool) -> Planned {
    Planned {
        route: Targets::All,
        fan_out: Err(why),
        lazy: None,
        gathers: false,
        write: None,
        read_only,
        leaves_nothing: false,
        in_turn: true,
        uses_now: false,
        frozen: false,
        clocked: None,
    }
}

#[derive(Clone, Copy)]
struct Planner<'p> {
    request: &'p Request<'p>,
    catalog: &'p Catalog,
    /// It is only asked where the whole statement may go.
    routes_only: bool,
}

impl<'p> Planner<'p> {
    fn new(request: &'p Request<'p>, catalog: &'p Catalog) -> Self {
        Self {
            request,
            catalog,
            routes_only: false,
        }
    }

    /// Shorthands that read the clock are written out, unless somebody has defined a function of that name.
    fn spell_out(&self, select: &mut ast::SelectStmt) {
        let overloads = self.catalog.functions.get("age").into_iter().flatten();
        if overloads.into_iter().all(|f| f.schema == "pg_catalog") {
            clock::spell_out_age(select);
        }
    }

    /// `in_order`: the rows are in an order that only one server keeps.
    fn select(&self, select: &ast::SelectStmt, in_order: bool) -> Result<Planned, Vec<Probe>> {
        let mut found = match relations::collect(self.catalog, self.request.search_path, select) {
            Ok(found) => found,
            Err(why) => return Ok(refused(why, false)),
        };
        found.views.values_mut().for_each(|v| self.spell_out(v));
        let effects =
            functions::effects(self.catalog, self.request.search_path, [select].into_iter());
        let of_views = functions::effects(self.catalog, &[], found.views.values());
        let read_only = !effects.writes && !of_views.writes;
        let uses_now = effects.uses_now || of_views.uses_now;
        let mut analysis = Analysis::new(
            self.catalog,
            &found.views,
            self.request.search_path,
            self.request.parameter_types,
        );
        let analysed = analysis.select(select, None, &None);
        let hidden = effects.hidden_now || of_views.hidden_now || analysed.is_err();
        let clocked = self.clocked(select, &analysis, uses_now && !hidden);
        let planned = |route, fan_out: Result<Plan, Refusal>| Planned {
            route,
            gathers: fan_out
                .as_ref()
                .is_ok_and(|plan| gathers(plan, self.catalog)),
            fan_out: fan_out.map(Arc::new),
            lazy: None,
            write: None,
            read_only,
            leaves_nothing: effects.leaves_nothing() && of_views.leaves_nothing(),
            in_turn: effects.varies() || of_views.varies(),
            uses_now,
            frozen: effects.frozen && clocked.is_some(),
            clocked: clocked.clone(),
        };
        let unproved = effects.unproved.clone().or(of_views.unproved.clone());
        if let Some(why) = unproved
            .filter(|_| self.catalog.shards > 1)
            .or(found.undeclared.clone())
        {
            return Ok(planned(Targets::All, Err(why)));
        }
        if let Some(targets) = found.one_place(effects.catalog || of_views.catalog) {
            return Ok(planned(targets.clone(), self.one_step(targets)));
        }
        if let Some(why) = found.unmixable(&[&effects, &of_views], analysed.is_err()) {
            return Ok(planned(Targets::All, Err(why)));
        }
        let rel = match analysed {
            Ok(rel) => rel,
            Err(why) => return Ok(planned(Targets::All, Err(why))),
        };
        if let Some(why) = self.overlooked(&analysis, select) {
            return Ok(planned(Targets::All, Err(why)));
        }
        if read_only && self.reads_nothing(select, &effects) {
            return Ok(planned(Targets::Any, self.one_step(Targets::Any)));
        }
        let route = route(&rel, found.singles || found.system);
        let kept = forbidden(effects.forbidden.clone(), &of_views, read_only)
            .or_else(|| self.guarded_clock_view(&analysis))
            .or_else(|| analysis.system_columns.clone());
        if let Some(why) = kept {
            return Ok(planned(route, Err(why)));
        }
        // Constants only: a parameter that cannot be read as a key still goes to every shard.
        if self.routes_only || is_constant(&route) {
            return Ok(planned(route.clone(), self.one_step(route)));
        }
        let merge_only = in_order || self.is_merge_only(select, &effects, &of_views);
        let fan_out = || self.fan_out(select, &analysis, effects.volatile_row, merge_only);
        ahead::both(&analysis, fan_out, |plan| planned(route.clone(), plan))
    }

    fn fan_out<'a>(
        &self,
        select: &'a ast::SelectStmt,
        analysis: &Analysis<'a>,
        volatile: bool,
        merge_only: bool,
    ) -> Result<Plan, Stop> {
        let fan_out = FanOut {
            request: self.request,
            analysis,
            select,
            block: &analysis.blocks[&analyse::node_id(select)],
            parameters: self.parameters(select),
            volatile,
            merge_only,
        };
        fan_out.plan()
    }

    /// True where something must be computed once for the whole statement, or for rows that more than one shard would compute.
    fn is_merge_only(
        &self,
        select: &ast::SelectStmt,
        here: &functions::Effects,
        of_views: &functions::Effects,
    ) -> bool {
        here.per_statement
            || of_views.per_statement
            || (here.samples && !samples::reads_one_sample(select))
            || of_views.samples
            || of_views.volatile_row
            || (here.volatile_row
                && is_misplaced_volatile(self.catalog, self.request.search_path, select))
    }

    fn reads_nothing(&self, select: &ast::SelectStmt, here: &functions::Effects) -> bool {
        let path = self.request.search_path;
        here.forbidden.is_none() && grouping::reads_nothing(self.catalog, path, select)
    }

    /// A view that reads the clock stands in the text by its query, which protects nothing.
    fn guarded_clock_view(&self, analysis: &Analysis<'_>) -> Option<Refusal> {
        let is_guarded = |key: &&(String, String)| {
            let table = self.catalog.tables.get(*key);
            table.is_some_and(|t| t.guarded)
        };
        let (_, name) = analysis.clock_views.iter().find(is_guarded)?;
        Some(refusal(
            Reason::Clock,
            format!(
                "view {name}, which protects its rows and uses now(), is not supported over several shards"
            ),
            "Write the view's query into the statement.",
            -1,
        ))
    }

    /// The statement for one shard with parameters in the place of now() and its like.
    fn clocked(
        &self,
        select: &ast::SelectStmt,
        analysis: &Analysis<'_>,
        wanted: bool,
    ) -> Option<Remote> {
        if !wanted || self.guarded_clock_view(analysis).is_some() {
            return None;
        }
        let rewrite = rewrite::Rewrite {
            analysis,
            first_extra: self.parameters(select) as i32 + 1,
            clocks: Default::default(),
            empty_arms: false,
        };
        let copy = rewrite.copy(select);
        Some(Remote {
            targets: Targets::Any,
            sql: crate::sql::verified_select_text(&copy).ok()?,
            first_sql: None,
            visible: 0,
            hidden: 0,
            extra: rewrite.extras(),
        })
    }

    /// A relation that the analysis has not met: what it did not count must not be left out of the route.
    fn overlooked(&self, analysis: &Analysis<'_>, select: &ast::SelectStmt) -> Option<Refusal> {
        let mut found = None;
        for root in analysis.views.values().chain([select]) {
            crate::sql::walk(crate::sql::Child::Select(root), &mut |c| {
                if let crate::sql::Child::Node(n) = c
                    && let Some(Node::RangeVar(v)) = &n.node
                    && !analysis.has_met(v)
                {
                    found = Some(v.location);
                }
                found.is_none()
            });
        }
        found.map(|location| {
            refusal(
                Reason::Form,
                "a subquery in this place is not supported over several shards",
                "Move the subquery to FROM, or to a statement of its own.",
                location,
            )
        })
    }

    /// Client parameters of the statement: as many as were described, or as its text names.
    fn parameters(&self, select: &ast::SelectStmt) -> usize {
        let mut highest = 0;
        crate::sql::walk(crate::sql::Child::Select(select), &mut |c| {
            if let crate::sql::Child::Node(ast::Node {
                node: Some(Node::ParamRef(p)),
            }) = c
            {
                highest = highest.max(usize::try_from(p.number).unwrap_or(0));
            }
            true
        });
        highest.max(self.request.parameter_types.len())
    }

    /// The plan of a statement that one shard answers.
    fn one_step(&self, targets: Targets) -> Result<Plan, Refusal> {
        Ok(Plan::Remote(Remote {
            targets,
            sql: self.request.sql.to_owned(),
            first_sql: None,
            visible: 0,
            hidden: 0,
            extra: Vec::new(),
        }))
    }
}

/// True when the constants leave at most one shard.
fn is_constant(route: &Targets) -> bool {
    let Targets::Keyed(condition) = route else {
        return false;
    };
    condition.constant_shards().is_some_and(|s| s.len() <= 1)
}

/// Where the whole statement may go.
fn route(rel: &analyse::Rel, elsewhere: bool) -> Targets {
    match (&rel.dist, &rel.cond) {
        (Dist::Single(shard), KeyCondition::Never) => Targets::Shard(*shard),
        (_, KeyCondition::Any) => Targets::All,
        // What one shard has for all has no part in the condition.
        _ if elsewhere => Targets::All,
        (_, cond) => Targets::Keyed(cond.clone()),
    }
}

/// Why functions keep the statement from several shards.
fn forbidden(
    here: Option<Refusal>,
    of_views: &functions::Effects,
    read_only: bool,
) -> Option<Refusal> {
    if !read_only {
        return Some(refusal(
            Reason::Write,
            "writes are not supported over several shards",
            "Restrict the statement to reading.",
            -1,
        ));
    }
    here.or(of_views.forbidden.clone())
}

/// Volatile functions may run where the row is in the outermost select list of a statement that only reads rows. Elsewhere
/// they must run once, over stages.
fn is_misplaced_volatile(
    catalog: &Catalog,
    search_path: &[String],
    select: &ast::SelectStmt,
) -> bool {
    let is_volatile = |n: &Node| match n {
        Node::FuncCall(f) => functions::find(catalog, search_path, f)
            .is_some_and(|c| c.volatility == crate::catalog::Volatility::Volatile && !c.aggregate),
        _ => false,
    };
    let count = |nodes: &mut dyn Iterator<Item = &ast::Node>| {
        let mut n = 0;
        for node in nodes {
            crate::sql::any_node(node, &mut |x| {
                n += usize::from(is_volatile(x));
                false
            });
        }
        n
    };
    let root = ast::Node {
        node: Some(Node::SelectStmt(Box::new(select.clone()))),
    };
    let everywhere = count(&mut [root].iter());
    let mut plain = select.larg.is_none()
        && select.group_clause.is_empty()
        && select.having_clause.is_none()
        && select.distinct_clause.is_empty();
    for target in outputs::targets(select) {
        if let Some(value) = target.val.as_deref() {
            plain &= !crate::sql::any_node(value, &mut |n| match n {
                Node::SubLink(_) => true,
                Node::FuncCall(f) => {
                    f.over.is_some()
                        || functions::find(catalog, search_path, f).is_some_and(|c| c.aggregate)
                }
                _ => false,
            });
        }
    }
    let listed = count(&mut select.target_list.iter());
    !plain || listed != everywhere
}
