//! The figures as JSON: counts since the start, of which the page makes rates, and what is so at the moment.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::running::{Running, cut};
use crate::admin::Served;
use crate::admin::readiness::Report;
use crate::backend::pool::Usage;
use crate::config::Shard;
use crate::metrics::{self, QueryKind, Spread};
use crate::plan::ShardId;
use crate::registry::refusals::{self, Refused};
use crate::registry::{State, servers};

/// All of it.
#[derive(Serialize)]
pub(super) struct Figures {
    version: &'static str,
    /// Seconds since 1970, as are all moments here.
    now: f64,
    /// Counts begin anew with another process.
    started: f64,
    database: String,
    /// `None` before the shards have been looked at.
    ready: Option<bool>,
    reasons: Vec<String>,
    catalog_version: u64,
    /// How many differences between the shards' catalogs there are; /readyz names them.
    differences: usize,
    clients: BTreeMap<&'static str, usize>,
    clients_max: usize,
    /// Statements by how they were answered.
    statements: BTreeMap<&'static str, u64>,
    errors: u64,
    rows_to_clients: u64,
    bytes_to_clients: u64,
    /// Upper bounds of all buckets below but the last, seconds.
    bounds: Vec<f64>,
    /// Times of statements, by how they were answered.
    seconds: BTreeMap<&'static str, Spread>,
    first_row_seconds: Spread,
    shards: Vec<ShardFigures>,
    running: Running,
    refusals: Vec<RefusalFigures>,
}

/// A lane of the page.
#[derive(Serialize)]
struct ShardFigures {
    name: String,
    address: String,
    /// `None` before it has been looked at.
    reachable: Option<bool>,
    /// Why it is not.
    error: Option<String>,
    paused: bool,
    connections: Connections,
    /// The same of its merge sessions.
    merge: Connections,
    /// Batches that it has not answered in full.
    in_flight: usize,
    rows: u64,
    bytes_received: u64,
    bytes_sent: u64,
    /// From sending to the first row, of batches that have one.
    first_row: Times,
    /// The same to the end of the answer.
    last_row: Times,
    /// Statements over several shards that waited for this one longest.
    slowest: u64,
    connects: u64,
    connect_errors: u64,
}

#[derive(Serialize)]
struct Connections {
    in_use: usize,
    idle: usize,
    size: usize,
    waiting: usize,
}

/// Two sums, of which a mean can be made.
#[derive(Serialize)]
struct Times {
    count: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct RefusalFigures {
    reason: &'static str,
    message: String,
    /// What to do instead.
    hint: String,
    text: String,
    user: String,
    count: u64,
    first: f64,
    last: f64,
}

/// Puts them together.
pub(super) fn figures(
    served: &Served,
    health: Option<Report>,
    running: Running,
    started: f64,
) -> Figures {
    let config = served.config();
    let metrics = metrics::global();
    let spreads = metrics.query_seconds_spread();
    Figures {
        version: env!("CARGO_PKG_VERSION"),
        now: super::now(),
        started,
        database: config.database.name.clone(),
        ready: health.as_ref().map(|h| h.ready),
        catalog_version: health.as_ref().map_or(0, |h| h.catalog_version),
        differences: health.as_ref().map_or(0, |h| h.differences.len()),
        clients: clients(served),
        clients_max: config.server.max_clients,
        statements: metrics
            .queries_by_kind()
            .map(|(kind, n)| (kind.label(), n))
            .into(),
        errors: metrics.errors_by_class().iter().map(|(_, n)| n).sum(),
        rows_to_clients: metrics.rows_to_clients.get(),
        bytes_to_clients: metrics.bytes_to_clients.get(),
        bounds: spreads[QueryKind::Routed as usize].1.bounds.clone(),
        seconds: spreads.map(|(kind, spread)| (kind.label(), spread)).into(),
        first_row_seconds: Spread::of(&metrics.first_row_seconds),
        shards: shards(served, &config.shards, health.as_ref()),
        running,
        refusals: refusals::recent().into_iter().map(refusal).collect(),
        reasons: health.map(|h| h.reasons).unwrap_or_default(),
    }
}

fn clients(served: &Served) -> BTreeMap<&'static str, usize> {
    let mut clients: BTreeMap<_, _> = State::ALL.map(|state| (state.label(), 0)).into();
    for session in served.registry.sessions() {
        *clients.entry(session.activity.state().label()).or_default() += 1;
    }
    clients
}

fn shards(served: &Served, shards: &[Shard], health: Option<&Report>) -> Vec<ShardFigures> {
    let usages = served.roles.usage().into_iter();
    let usages = usages.zip(served.roles.merge_usage());
    let one = |(n, (shard, (data, merge))): (usize, (&Shard, (Usage, Usage)))| {
        let report = health.and_then(|h| h.shards.get(n));
        let counted = metrics::global().shard(&shard.name);
        let id = ShardId(n as u16);
        ShardFigures {
            name: shard.name.clone(),
            address: format!("{}:{}", shard.host, shard.port),
            reachable: report.map(|r| r.reachable),
            error: report.and_then(|r| r.error.clone()),
            paused: served.roles.configured().is_paused(id),
            connections: connections(data),
            merge: connections(merge),
            in_flight: servers::at_work(&shard.name),
            rows: counted.rows.get(),
            bytes_received: counted.bytes_received.get(),
            bytes_sent: counted.bytes_sent.get(),
            first_row: Times {
                count: counted.first_row_seconds.get_sample_count(),
                seconds: counted.first_row_seconds.get_sample_sum(),
            },
            last_row: Times {
                count: counted.first_row_seconds.get_sample_count(),
                seconds: counted.last_row_seconds.get(),
            },
            slowest: counted.slowest.get(),
            connects: counted.connects.get(),
            connect_errors: counted.connect_errors.get(),
        }
    };
    shards.iter().zip(usages).enumerate().map(one).collect()
}

fn connections(usage: Usage) -> Connections {
    Connections {
        in_use: usage.in_use,
        idle: usage.idle,
        size: usage.size,
        waiting: usage.waiting,
    }
}

fn refusal(refused: Refused) -> RefusalFigures {
    let moment = |at: Instant| super::now() - at.elapsed().as_secs_f64();
    RefusalFigures {
        reason: refused.reason,
        message: cut(refused.message),
        hint: cut(refused.hint),
        text: cut(refused.statement),
        user: refused.user,
        count: refused.count,
        first: moment(refused.first),
        last: moment(refused.last),
    }
}
