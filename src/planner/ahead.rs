//! Two plans for one statement: the fast one computes ahead of need, the lazy one runs when that fails.
//!
//! PostgreSQL evaluates lazily: a CASE branch that is not taken, the select list of EXISTS, a column nobody reads, a subquery
//! for no rows raise nothing. A stage is filled before anybody knows what will be read of it. So where an expression in a stage may
//! fail there is a second plan, whose stages hold total expressions only ([`super::total`]); what may fail then stays in the
//! statement over the stages, where PostgreSQL decides as on one server.

use std::cell::Cell;
use std::sync::Arc;

use super::Probe;
use super::analyse::Analysis;
use super::pushdown::Stop;
use crate::plan::{Plan, Planned, Refusal};
use crate::sql::ast;

/// Whether expressions that may fail are computed ahead of need.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// They may be.
    pub(super) allowed: Cell<bool>,
    /// One is.
    pub(super) used: Cell<bool>,
    /// Failing is no matter in what is being looked at.
    pub(super) relaxed: Cell<bool>,
}

/// The plan that may compute ahead of need, and where it does and may fail, the lazy one beside it.
pub(super) fn both(
    analysis: &Analysis<'_>,
    fan_out: impl Fn() -> Result<Plan, Stop>,
    planned: impl Fn(Result<Plan, Refusal>) -> Planned,
) -> Result<Planned, Vec<Probe>> {
    let answered = |plan| match plan {
        Ok(plan) => Ok(Ok(plan)),
        Err(Stop::Refuse(why)) => Ok(Err(why)),
        Err(Stop::Ask(probes)) => Err(probes),
    };
    analysis.ahead.allowed.set(true);
    let ahead = answered(fan_out())?;
    if !analysis.ahead.used.get() {
        return Ok(planned(ahead));
    }
    analysis.ahead.allowed.set(false);
    Ok(match (ahead, answered(fan_out())?) {
        (Ok(ahead), Ok(lazy)) if lazy != ahead => Planned {
            lazy: Some(Arc::new(lazy)),
            ..planned(Ok(ahead))
        },
        (ahead, lazy) => planned(ahead.or(lazy)),
    })
}

impl Analysis<'_> {
    /// True when a SELECT may be computed before anybody knows that its rows are read.
    pub(super) fn select_runs_ahead(&self, s: &ast::SelectStmt) -> bool {
        self.runs_ahead(|| self.is_total_select(s))
    }

    /// The same of FROM, WHERE and WITH alone.
    pub(super) fn source_runs_ahead(&self, s: &ast::SelectStmt) -> bool {
        self.runs_ahead(|| self.has_total_source(s))
    }

    /// The same of an expression.
    pub(super) fn node_runs_ahead(&self, node: &ast::Node) -> bool {
        self.runs_ahead(|| self.is_total(node))
    }

    fn runs_ahead(&self, is_total: impl Fn() -> bool) -> bool {
        if is_total() {
            return true;
        }
        if !self.ahead.allowed.get() {
            return false;
        }
        let around = self.ahead.relaxed.replace(true);
        let runs = is_total();
        self.ahead.relaxed.set(around);
        if runs {
            self.ahead.used.set(true);
        }
        runs
    }
}
