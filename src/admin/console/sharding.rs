//! What only a console over shards has to show: the shards, statements that run, tables, plans, skew, errors.

use std::sync::Arc;

use super::table::Type::{Float, Integer, Text};
use super::table::{Table, Value};
use crate::admin::Served;
use crate::catalog::sharding::ShardingFunction;
use crate::catalog::{Distribution, TableKind};
use crate::metrics::{self, QueryKind, Reason, ShardMetrics};
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::registry::{Progress, SessionEntry, ShardProgress, State};
use crate::sql::without_literals;

pub(super) fn shards(served: &Served) -> Table {
    let mut table = Table::new(&[
        ("name", Text),
        ("host", Text),
        ("port", Integer),
        ("database", Text),
        ("up", Integer),
        ("paused", Integer),
        ("version", Text),
        ("size", Integer),
        ("in_use", Integer),
        ("idle", Integer),
        ("waiting", Integer),
        ("merge_in_use", Integer),
        ("merge_idle", Integer),
        ("batches", Integer),
        ("mean_us", Integer),
        ("connects", Integer),
        ("connect_errors", Integer),
        ("closed", Integer),
    ]);
    let loaded = served.catalog.loaded();
    let usages = served.roles.usage().into_iter();
    let usages = usages.zip(served.roles.merge_usage());
    let config = served.config();
    for (n, (shard, (data, merge))) in config.shards.iter().zip(usages).enumerate() {
        let counted = metrics::global().shard(&shard.name);
        let version = loaded
            .as_ref()
            .and_then(|l| l.server_versions.get(n).cloned())
            .filter(|version| !version.is_empty());
        table.push(vec![
            shard.name.clone().into(),
            shard.host.clone().into(),
            shard.port.into(),
            shard.dbname.clone().into(),
            counted.up.get().into(),
            served
                .roles
                .configured()
                .is_paused(ShardId(n as u16))
                .into(),
            version.into(),
            data.size.into(),
            data.in_use.into(),
            data.idle.into(),
            data.waiting.into(),
            merge.in_use.into(),
            merge.idle.into(),
            counted.query_seconds.get_sample_count().into(),
            mean_microseconds(&counted).map(|us| us as i64).into(),
            counted.connects.get().into(),
            counted.connect_errors.get().into(),
            counted.closed_total().into(),
        ]);
    }
    table
}

fn mean_microseconds(counted: &ShardMetrics) -> Option<f64> {
    let count = counted.query_seconds.get_sample_count();
    let seconds = counted.query_seconds.get_sample_sum();
    (count > 0).then(|| seconds * 1e6 / count as f64)
}

pub(super) fn queries(served: &Served) -> Table {
    let mut table = Table::new(&[
        ("id", Integer),
        ("user", Text),
        ("database", Text),
        ("client", Text),
        ("state", Text),
        ("plan", Text),
        ("query", Text),
        ("elapsed_us", Integer),
        ("rows", Integer),
        ("shards", Integer),
        ("shards_done", Integer),
        ("slowest_shard", Text),
    ]);
    let sessions = served.registry.sessions();
    let mut running: Vec<_> = sessions
        .into_iter()
        .filter(|s| !s.client.console)
        .filter(|s| matches!(s.activity.state(), State::Active | State::Waiting))
        .collect();
    running.sort_by_key(|s| s.activity.statement().map(|statement| statement.since));
    for session in running {
        table.push(query(served, &session));
    }
    table
}

fn query(served: &Served, session: &Arc<SessionEntry>) -> Vec<Value> {
    let config = served.config();
    let statement = session.activity.statement();
    let progress: Option<Progress> = session.activity.progress();
    let parts = progress.as_ref().map(|p| p.shards.as_slice());
    let steps = parts.map(|parts| parts.iter().filter(|p| !p.merge).count());
    let done = parts.map(|p| p.iter().filter(|p| !p.merge && p.done).count());
    let name = |p: &ShardProgress| {
        let shard = config.shards.get(usize::from(p.shard));
        match p.merge {
            true => Some("merge session".to_owned()),
            false => shard.map(|s| s.name.clone()),
        }
    };
    let since = statement.as_ref().map(|s| s.since);
    vec![
        session.pid.into(),
        session.user.clone().into(),
        session.client.database.clone().into(),
        session.client.peer.clone().into(),
        session.activity.state().label().into(),
        statement.as_ref().map(|s| plan_label(s.kind)).into(),
        statement.map(|s| without_literals(&s.sql)).into(),
        since.map(|at| at.elapsed().as_micros()).into(),
        progress.as_ref().map(|p| p.rows).into(),
        steps.into(),
        done.into(),
        parts.and_then(slowest).and_then(name).into(),
    ]
}

/// The one that is waited for: of those that are not done the one that has sent least, else the one that was done last.
pub(in crate::admin) fn slowest(parts: &[ShardProgress]) -> Option<&ShardProgress> {
    let waited_for = parts.iter().filter(|p| !p.done).min_by_key(|p| p.rows);
    waited_for.or_else(|| parts.iter().max_by_key(|p| p.last))
}

pub(in crate::admin) fn plan_label(kind: u8) -> &'static str {
    let known = QueryKind::ALL.into_iter().find(|k| *k as u8 == kind);
    known.map_or("planning", QueryKind::label)
}

pub(super) fn tables(served: &Served) -> Result<Table, ServerError> {
    let Some(loaded) = served.catalog.loaded() else {
        let message = "the shards' catalog has not been loaded";
        return Err(ServerError::new(sqlstate::CANNOT_CONNECT_NOW, message));
    };
    let mut table = Table::new(&[
        ("schema", Text),
        ("name", Text),
        ("kind", Text),
        ("placement", Text),
        ("key", Text),
        ("function", Text),
        ("shard", Text),
        ("rows", Integer),
        ("row_bytes", Integer),
    ]);
    let config = served.config();
    let all = loaded.catalog.tables.values();
    let mut all: Vec<_> = all.filter(|t| t.kind != TableKind::System).collect();
    all.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    for t in all {
        let (placement, key, function, shard) = match &t.distribution {
            Distribution::Sharded { key, sharding } => {
                let key = key.and_then(|k| t.columns.get(k)).map(|c| c.name.clone());
                let function = sharding.as_ref().map(|s| function_name(&s.function));
                ("sharded", key, function, None)
            }
            Distribution::Reference => ("reference", None, None, None),
            Distribution::Single(shard) => {
                let shard = config.shards.get(usize::from(shard.0));
                ("single", None, None, shard.map(|s| s.name.clone()))
            }
            Distribution::System => continue,
            Distribution::Undeclared { .. } => ("undeclared", None, None, None),
            Distribution::View => ("view", None, None, None),
        };
        table.push(vec![
            t.schema.clone().into(),
            t.name.clone().into(),
            kind_name(t.kind).into(),
            placement.into(),
            key.into(),
            function.into(),
            shard.into(),
            (t.rows as i64).into(),
            (t.row_bytes as i64).into(),
        ]);
    }
    Ok(table)
}

fn function_name(function: &ShardingFunction) -> &'static str {
    match function {
        ShardingFunction::Postgres => "postgres",
        ShardingFunction::Modulo => "modulo",
        ShardingFunction::Hive => "hive",
        ShardingFunction::Range(_) => "range",
        ShardingFunction::List(_) => "list",
    }
}

fn kind_name(kind: TableKind) -> &'static str {
    match kind {
        TableKind::Table => "table",
        TableKind::Partitioned => "partitioned table",
        TableKind::View => "view",
        TableKind::MaterializedView => "materialized view",
        TableKind::Foreign => "foreign table",
        TableKind::System => "catalog",
    }
}

pub(super) fn cache() -> Table {
    let metrics = metrics::global();
    let (hits, misses) = (
        metrics.plan_cache_hits.get(),
        metrics.plan_cache_misses.get(),
    );
    let all = hits + misses;
    let ratio = (all > 0).then(|| hits as f64 / all as f64);
    Table::of_row(vec![
        ("entries", metrics.plan_cache_entries.get().into()),
        ("bytes", metrics.plan_cache_bytes.get().into()),
        ("hits", hits.into()),
        ("misses", misses.into()),
        ("hit_ratio", Value::Float(ratio.unwrap_or(0.0))),
        ("planning_us_mean", mean(&metrics.planning_seconds).into()),
        ("catalog_version", metrics.catalog_version.get().into()),
    ])
}

fn mean(histogram: &prometheus::Histogram) -> i64 {
    match histogram.get_sample_count() {
        0 => 0,
        count => (histogram.get_sample_sum() * 1e6 / count as f64) as i64,
    }
}

pub(super) fn skew(served: &Served) -> Table {
    let mut table = Table::new(&[
        ("shard", Text),
        ("batches", Integer),
        ("mean_us", Integer),
        ("of_median", Float),
        ("slowest", Integer),
        ("slowest_share", Float),
    ]);
    let config = served.config();
    let names = config.shards.iter().map(|s| s.name.clone());
    let shards: Vec<_> = names
        .map(|name| {
            let counted = metrics::global().shard(&name);
            (name, mean_microseconds(&counted), counted)
        })
        .collect();
    let mut means: Vec<f64> = shards.iter().filter_map(|(_, mean, _)| *mean).collect();
    means.sort_by(f64::total_cmp);
    let median = means.get(means.len().saturating_sub(1) / 2).copied();
    let all: u64 = shards.iter().map(|(_, _, c)| c.slowest.get()).sum();
    for (name, mean, counted) in shards {
        let of_median = mean.zip(median).filter(|(_, median)| *median > 0.0);
        let slowest = counted.slowest.get();
        let share = (all > 0).then(|| slowest as f64 / all as f64);
        table.push(vec![
            name.into(),
            counted.query_seconds.get_sample_count().into(),
            mean.map(|us| us as i64).into(),
            of_median.map(|(mean, median)| mean / median).into(),
            slowest.into(),
            share.into(),
        ]);
    }
    table
}

/// Only classes and reasons: a message may hold a value.
pub(super) fn errors() -> Table {
    let mut table = Table::new(&[("kind", Text), ("name", Text), ("count", Integer)]);
    let metrics = metrics::global();
    for (class, count) in metrics.errors_by_class() {
        table.push(vec!["error".into(), class.into(), count.into()]);
    }
    for reason in Reason::ALL {
        let count = metrics.refusals(reason);
        if count > 0 {
            table.push(vec!["refusal".into(), reason.label().into(), count.into()]);
        }
    }
    table
}
