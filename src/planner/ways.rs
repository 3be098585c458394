//! Which way a statement goes: to one shard or to several, and what its plan brings to the merge session.

use super::analyse::{Dist, Rel};
use crate::catalog::{Catalog, FunctionKind};
use crate::plan::{KeyCondition, Plan, Targets};
use crate::sql;
use crate::sql::ast::node::Node;

/// True when the constants leave at most one shard.
pub(super) fn is_constant(route: &Targets) -> bool {
    let Targets::Keyed(condition) = route else {
        return false;
    };
    condition.constant_shards().is_some_and(|s| s.len() <= 1)
}

/// Where the whole statement may go.
pub(super) fn route(rel: &Rel, singles: bool) -> Targets {
    match (&rel.dist, &rel.cond) {
        (Dist::Single(shard), KeyCondition::Never) => Targets::Shard(*shard),
        (_, KeyCondition::Any) => Targets::All,
        // A single table has no part in the condition.
        _ if singles => Targets::All,
        (_, cond) => Targets::Keyed(cond.clone()),
    }
}

/// True where a stage holds rows of tables as they are, not what groups or limits make of them on the shards.
pub fn gathers(plan: &Plan, catalog: &Catalog) -> bool {
    match plan {
        Plan::Combine { stages, .. } => stages.iter().any(|s| is_of_rows(&s.plan, catalog)),
        _ => false,
    }
}

fn is_of_rows(plan: &Plan, catalog: &Catalog) -> bool {
    match plan {
        Plan::Remote(remote) => {
            // The catalog shard's rows alone are what one server would read.
            remote.targets == Targets::All && is_plain(&remote.sql, catalog)
        }
        Plan::Gather { input } | Plan::GatherMerge { input, .. } => is_of_rows(input, catalog),
        _ => false,
    }
}

fn is_plain(text: &str, catalog: &Catalog) -> bool {
    let parsed = sql::parse(text).unwrap_or_default();
    let [statement] = parsed.as_slice() else {
        return true;
    };
    let Node::SelectStmt(select) = &statement.node else {
        return true;
    };
    let aggregates = |name: &String| {
        let overloads = catalog.functions.get(name);
        overloads.is_some_and(|all| all.iter().any(|f| f.kind == FunctionKind::Aggregate))
    };
    select.group_clause.is_empty()
        && select.distinct_clause.is_empty()
        && select.limit_count.is_none()
        && !sql::functions_called(&statement.node)
            .iter()
            .any(aggregates)
}
