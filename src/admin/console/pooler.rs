//! What PgBouncer's console shows too, in columns of the same names (its manual, section "Show commands"). Columns for states that do not
//! exist here (a connection that is being tested, say) are truly 0; what is not known is NULL. Columns of our own come last.

use super::averages::{Change, Sample};
use super::clock::wall_clock;
use super::table::Type::{Integer, Text};
use super::table::{Table, Value};
use crate::admin::Served;
use crate::backend::pool::Usage;
use crate::plan::ShardId;
use crate::registry::servers::servers as open_servers;
use crate::registry::{SessionEntry, State};

/// Sessions share connections per transaction, always.
const POOL_MODE: &str = "transaction";

/// A shard with how its two pools are used.
fn usages(served: &Served) -> impl Iterator<Item = (ShardId, Usage, Usage)> {
    let usages = served.roles.usage().into_iter();
    let both = usages.zip(served.roles.merge_usage()).enumerate();
    // The configuration allows no more shards than fit.
    both.map(|(n, (data, merge))| (ShardId(n as u16), data, merge))
}

pub(super) fn databases(served: &Served) -> Table {
    let mut table = Table::new(&[
        ("name", Text),
        ("host", Text),
        ("port", Integer),
        ("database", Text),
        ("force_user", Text),
        ("pool_size", Integer),
        ("min_pool_size", Integer),
        ("reserve_pool_size", Integer),
        ("server_lifetime", Integer),
        ("pool_mode", Text),
        ("load_balance_hosts", Text),
        ("max_connections", Integer),
        ("current_connections", Integer),
        ("max_client_connections", Integer),
        ("current_client_connections", Integer),
        ("paused", Integer),
        ("disabled", Integer),
        ("reserve_pool", Integer),
    ]);
    let config = served.config();
    for (shard, data, merge) in usages(served) {
        let s = &config.shards[usize::from(shard.0)];
        table.push(vec![
            s.name.clone().into(),
            s.host.clone().into(),
            s.port.into(),
            s.dbname.clone().into(),
            s.user.clone().into(),
            data.size.into(),
            config.pool.min_size.into(),
            0.into(),
            config.pool.max_lifetime.as_secs().into(),
            POOL_MODE.into(),
            Value::Null,
            (data.size + merge.size).into(),
            (data.in_use + data.idle + merge.in_use + merge.idle).into(),
            config.server.max_clients.into(),
            served.registry.clients().into(),
            served.roles.configured().is_paused(shard).into(),
            0.into(),
            // An earlier name, which older exporters look for.
            0.into(),
        ]);
    }
    table
}

/// One row for each shard and role, as PgBouncer has one for each database and user.
pub(super) fn pools(served: &Served) -> Table {
    let mut table = Table::new(&[
        ("database", Text),
        ("user", Text),
        ("cl_active", Integer),
        ("cl_waiting", Integer),
        ("cl_active_cancel_req", Integer),
        ("cl_waiting_cancel_req", Integer),
        ("sv_active", Integer),
        ("sv_active_cancel", Integer),
        ("sv_being_canceled", Integer),
        ("sv_idle", Integer),
        ("sv_used", Integer),
        ("sv_tested", Integer),
        ("sv_login", Integer),
        ("maxwait", Integer),
        ("maxwait_us", Integer),
        ("pool_mode", Text),
        ("load_balance_hosts", Text),
        ("merge_active", Integer),
        ("merge_idle", Integer),
        ("merge_waiting", Integer),
    ]);
    let config = served.config();
    for (n, shard) in config.shards.iter().enumerate() {
        for role in served.roles.usage_by_role(ShardId(n as u16)) {
            let (data, merge, wait) = (role.data, role.merge, role.longest_wait);
            let active = data.in_use - data.opening + merge.in_use - merge.opening;
            table.push(vec![
                shard.name.clone().into(),
                role.user.to_string().into(),
                data.in_use.into(),
                (data.waiting + merge.waiting).into(),
                0.into(),
                0.into(),
                active.into(),
                0.into(),
                0.into(),
                (data.idle + merge.idle).into(),
                0.into(),
                0.into(),
                (data.opening + merge.opening).into(),
                wait.as_secs().into(),
                u64::from(wait.subsec_micros()).into(),
                POOL_MODE.into(),
                Value::Null,
                merge.in_use.into(),
                merge.idle.into(),
                merge.waiting.into(),
            ]);
        }
    }
    table
}

/// Columns that SHOW CLIENTS and SHOW SERVERS have in common.
const SOCKETS: [(&str, super::Type); 22] = [
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("replication", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Integer),
    ("local_addr", Text),
    ("local_port", Integer),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Integer),
    ("wait_us", Integer),
    ("close_needed", Integer),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Integer),
    ("tls", Text),
    ("application_name", Text),
    ("prepared_statements", Integer),
    ("id", Integer),
    ("shard", Text),
];

pub(super) fn clients(served: &Served) -> Table {
    let own = [
        ("queries", Integer),
        ("transactions", Integer),
        ("received", Integer),
        ("sent", Integer),
        ("session_state", Text),
    ];
    let columns: Vec<_> = SOCKETS.into_iter().chain(own).collect();
    let mut table = Table::new(&columns);
    let servers = open_servers();
    let mut sessions = served.registry.sessions();
    sessions.sort_by_key(|s| s.connected);
    for session in sessions {
        let state = session.activity.state();
        let linked = servers.iter().filter(|s| s.link() == Some(session.pid));
        let linked: Vec<_> = linked
            .map(|s| (s.id.to_string(), s.shard.to_string()))
            .collect();
        let (links, shards): (Vec<_>, Vec<_>) = linked.into_iter().unzip();
        let statement = session.activity.statement();
        let requested = statement.as_ref().map_or(session.connected, |s| s.since);
        let wait = match state {
            State::Waiting => requested.elapsed(),
            _ => std::time::Duration::ZERO,
        };
        let (addr, port) = address(&session.client.peer);
        let (local_addr, local_port) = address(&session.client.local);
        let totals = session.activity.totals();
        table.push(vec![
            "C".into(),
            session.user.clone().into(),
            session.client.database.clone().into(),
            "none".into(),
            pooler_state(&session).into(),
            addr,
            port,
            local_addr,
            local_port,
            wall_clock(session.connected).into(),
            wall_clock(requested).into(),
            wait.as_secs().into(),
            u64::from(wait.subsec_micros()).into(),
            0.into(),
            session.pid.to_string().into(),
            links.join(" ").into(),
            0.into(),
            tls(session.client.encrypted),
            session.application_name().into(),
            Value::Null,
            session.pid.into(),
            shards.join(" ").into(),
            totals.queries.into(),
            totals.transactions.into(),
            totals.received.into(),
            totals.sent.into(),
            state.label().into(),
        ]);
    }
    table
}

/// A pooler's word: a client in a transaction is active, as its connection is kept for it.
fn pooler_state(session: &SessionEntry) -> &'static str {
    match session.activity.state() {
        State::Idle => "idle",
        State::Waiting => "waiting",
        State::Active | State::InTransaction | State::InFailedTransaction => "active",
    }
}

pub(super) fn servers(served: &Served) -> Table {
    let mut table = Table::new(&SOCKETS);
    let config = served.config();
    for server in open_servers() {
        let Some(shard) = config.shards.iter().find(|s| s.name == *server.shard) else {
            continue;
        };
        let session = server.link().and_then(|pid| served.registry.session(pid));
        let statement = session.as_ref().and_then(|s| s.activity.statement());
        let requested = statement.map(|s| wall_clock(s.since));
        let name = session.as_ref().map(|s| s.application_name());
        table.push(vec![
            "S".into(),
            server.user.clone().into(),
            shard.dbname.clone().into(),
            "none".into(),
            match server.link() {
                Some(_) => "active".into(),
                None => "idle".into(),
            },
            shard.host.clone().into(),
            shard.port.into(),
            Value::Null,
            Value::Null,
            wall_clock(server.connected).into(),
            requested.into(),
            0.into(),
            0.into(),
            0.into(),
            server.id.to_string().into(),
            server
                .link()
                .map_or_else(String::new, |pid| pid.to_string())
                .into(),
            server.remote_pid.into(),
            tls(server.encrypted),
            name.unwrap_or_default().into(),
            Value::Null,
            server.id.into(),
            server.shard.to_string().into(),
        ]);
    }
    table
}

fn tls(encrypted: bool) -> Value {
    if encrypted { "TLS" } else { "" }.into()
}

/// `host:port`, or only a text where it is none.
fn address(text: &str) -> (Value, Value) {
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) => (address.ip().to_string().into(), address.port().into()),
        Err(_) => (text.into(), Value::Null),
    }
}

/// A count of [`Sample`] with the names it goes by: in totals, in averages, and in SHOW STATS_TOTALS and STATS_AVERAGES.
type Counted = (&'static str, &'static str, &'static str, fn(&Sample) -> f64);

const COUNTS: [Counted; 11] = [
    (
        "total_server_assignment_count",
        "avg_server_assignment_count",
        "server_assignment_count",
        |s| s.assignments,
    ),
    ("total_xact_count", "avg_xact_count", "xact_count", |s| {
        s.transactions
    }),
    ("total_query_count", "avg_query_count", "query_count", |s| {
        s.queries
    }),
    ("total_received", "avg_recv", "bytes_received", |s| {
        s.received
    }),
    ("total_sent", "avg_sent", "bytes_sent", |s| s.sent),
    ("total_xact_time", "avg_xact_time", "xact_time", |s| {
        s.transaction_microseconds
    }),
    ("total_query_time", "avg_query_time", "query_time", |s| {
        s.query_microseconds
    }),
    ("total_wait_time", "avg_wait_time", "wait_time", |s| {
        s.wait_microseconds
    }),
    (
        "total_client_parse_count",
        "avg_client_parse_count",
        "client_parse_count",
        |s| s.client_parses,
    ),
    (
        "total_server_parse_count",
        "avg_server_parse_count",
        "server_parse_count",
        |s| s.server_parses,
    ),
    ("total_bind_count", "avg_bind_count", "bind_count", |s| {
        s.binds
    }),
];

/// Totals since the start, and averages: of counts per second, of times per what they are times of.
pub(super) fn stats(
    served: &Served,
    now: Sample,
    (change, seconds): (Change, f64),
    (totals, averages): (bool, bool),
) -> Table {
    let mut row = vec![("database", served.config().database.name.clone().into())];
    let both = totals && averages;
    if totals {
        row.extend(COUNTS.map(|(name, _, short, count)| {
            let value = Value::Integer(count(&now) as i64);
            (if both { name } else { short }, value)
        }));
    }
    if averages {
        row.extend(COUNTS.map(|(_, name, short, count)| {
            let average = match short {
                "xact_time" => change.each(count, |s| s.transactions),
                "query_time" => change.each(count, |s| s.queries),
                "wait_time" => change.each(count, |s| s.assignments),
                _ if seconds > 0.0 => change.of(count) / seconds,
                _ => 0.0,
            };
            (
                if both { name } else { short },
                Value::Integer(average as i64),
            )
        }));
    }
    if both {
        // What there was before transactions and statements were told apart: older exporters look for it.
        row.push(("total_requests", Value::Integer(now.queries as i64)));
    }
    Table::of_row(row)
}

pub(super) fn lists(served: &Served) -> Table {
    let mut table = Table::new(&[("list", Text), ("items", Integer)]);
    let shards = served.config().shards.len();
    let by_role = |n| served.roles.usage_by_role(ShardId(n as u16)).len();
    let sessions = served.registry.sessions().len();
    let (mut idle, mut in_use) = (0, 0);
    for (_, data, merge) in usages(served) {
        idle += data.idle + merge.idle;
        in_use += data.in_use + merge.in_use;
    }
    let lists = [
        ("databases", shards),
        ("users", served.config().users.len()),
        ("pools", (0..shards).map(by_role).sum()),
        ("free_clients", 0),
        ("used_clients", sessions),
        (
            "login_clients",
            served.registry.clients().saturating_sub(sessions),
        ),
        ("free_servers", 0),
        ("used_servers", idle + in_use),
        // The operating system keeps names, not pgbraid.
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    for (list, items) in lists {
        table.push(vec![list.into(), items.into()]);
    }
    table
}

pub(super) fn users(served: &Served) -> Table {
    let mut table = Table::new(&[
        ("name", Text),
        ("pool_size", Integer),
        ("reserve_pool_size", Integer),
        ("pool_mode", Text),
        ("max_user_connections", Integer),
        ("current_connections", Integer),
        ("max_user_client_connections", Integer),
        ("current_client_connections", Integer),
    ]);
    let sessions = served.registry.sessions();
    let servers = open_servers();
    for user in &served.config().users {
        let own: Vec<_> = sessions.iter().filter(|s| s.user == user.name).collect();
        let held = servers
            .iter()
            .filter_map(|s| s.link())
            .filter(|pid| own.iter().any(|s| s.pid == *pid));
        table.push(vec![
            user.name.clone().into(),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            held.count().into(),
            Value::Null,
            own.len().into(),
        ]);
    }
    table
}

pub(super) fn state(served: &Served) -> Table {
    let mut table = Table::new(&[("key", Text), ("value", Text)]);
    let shards = 0..served.config().shards.len() as u16;
    let paused = shards
        .clone()
        .all(|n| served.roles.configured().is_paused(ShardId(n)));
    let yes = |is: bool| if is { "yes" } else { "no" };
    for (key, value) in [
        ("active", yes(!paused)),
        ("paused", yes(paused)),
        ("suspended", yes(false)),
    ] {
        table.push(vec![key.into(), value.into()]);
    }
    table
}
