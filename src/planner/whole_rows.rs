//! How much a last step on a merge session is given: what the shards have made less of, or rows of tables.

use crate::catalog::{Catalog, FunctionKind};
use crate::plan::{Plan, Targets};
use crate::sql::{self, ast::node::Node};

/// True for a plan that brings rows of tables to a merge session as they are, not what groups or limits leave of them on the shards.
pub(super) fn gathers(plan: &Plan, catalog: &Catalog) -> bool {
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
    let is_aggregate = |name: &String| {
        let overloads = catalog.functions.get(name);
        overloads.is_some_and(|all| all.iter().any(|f| f.kind == FunctionKind::Aggregate))
    };
    select.group_clause.is_empty()
        && select.distinct_clause.is_empty()
        && select.limit_count.is_none()
        && !sql::functions_called(&statement.node)
            .iter()
            .any(is_aggregate)
}
