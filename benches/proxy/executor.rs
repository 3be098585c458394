//! The executor alone: a plan made by hand over pooled connections to the mock shards, its rows thrown away. What the session adds
//! on top is the difference to the whole process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgbraid::backend::connections::Connections;
use pgbraid::backend::roles::Roles;
use pgbraid::config::{self, Config};
use pgbraid::executor::{Bound, Execution, Item, Parameters};
use pgbraid::plan::{Final, FinalFunction, OutputColumn, Plan, Remote, SortKey, Targets};
use pgbraid::protocol::messages::ColumnDescription;

use crate::client::USER;
use crate::wire::Result;

/// Runs the plan of the kind (`union`, `merge`, `aggregate`) over `rows` rows and gives the number of rows that came out.
pub async fn run(kind: &str, rows: u64, shards: &[SocketAddr]) -> Result<u64> {
    let config = Arc::new(config(shards));
    let pools = Roles::new(&config).configured().clone();
    let (plan, columns) = plan(kind, rows)?;
    let names = config
        .shards
        .iter()
        .map(|s| Arc::from(s.name.as_str()))
        .collect();
    let mut execution = Execution::new(&plan, bound(columns, names), shards.len())?;
    let mut connections = Connections::new(shards.len());
    let deadline = Instant::now() + Duration::from_secs(60);
    let leases = pools.acquire(execution.shards(), deadline).await?;
    for (shard, lease) in execution.shards().to_vec().into_iter().zip(leases) {
        connections.put(shard, lease);
    }
    execution.start(&mut connections)?;
    let mut count = 0;
    loop {
        match std::future::poll_fn(|cx| execution.poll_next(&mut connections, cx)).await? {
            Item::Rows(run) => count += u64::from(run.rows),
            Item::Complete { .. } => return Ok(count),
            _ => {}
        }
    }
}

fn plan(kind: &str, rows: u64) -> Result<(Plan, Vec<ColumnDescription>)> {
    let remote = |sql: String, visible, hidden| {
        Box::new(Plan::Remote(Remote {
            targets: Targets::All,
            sql,
            first_sql: None,
            visible,
            hidden,
            extra: Vec::new(),
        }))
    };
    let int4_and = |oid| vec![column("n", 23), column("count", 20), column("sum", oid)];
    Ok(match kind {
        "union" => {
            let sql = format!("select id, n from bench_rows where id < {rows}");
            let input = remote(sql, 2, 0);
            (
                Plan::Gather { input },
                vec![column("id", 20), column("n", 23)],
            )
        }
        "merge" => {
            let sql = format!("select id, n, id from bench_rows where id < {rows} order by id");
            let key = SortKey {
                text: "id".to_owned(),
                descending: false,
                nulls_first: false,
                collation: None,
            };
            let input = remote(sql, 2, 1);
            (
                Plan::GatherMerge {
                    input,
                    keys: vec![key],
                },
                vec![column("id", 20), column("n", 23)],
            )
        }
        "aggregate" => {
            let sql =
                format!("select n, count(*), sum(id) from bench_rows where id < {rows} group by n");
            let aggregate = |function, text: &str| Final {
                function,
                text: text.to_owned(),
            };
            let plan = Plan::FinalAggregate {
                input: remote(sql, 3, 0),
                groups: 1,
                aggregates: vec![
                    aggregate(FinalFunction::Count { column: 1 }, "count(*)"),
                    aggregate(FinalFunction::Sum { column: 2 }, "sum(id)"),
                ],
                output: vec![
                    OutputColumn::Group(0),
                    OutputColumn::Aggregate(0),
                    OutputColumn::Aggregate(1),
                ],
                spill: None,
            };
            (plan, int4_and(1700))
        }
        _ => return Err(format!("no plan of the kind {kind}").into()),
    })
}

fn column(name: &str, type_oid: u32) -> ColumnDescription {
    ColumnDescription {
        name: Bytes::copy_from_slice(name.as_bytes()),
        table_oid: 0,
        attribute: 0,
        type_oid,
        type_length: -1,
        type_modifier: -1,
        format: 1,
    }
}

fn bound(columns: Vec<ColumnDescription>, shard_names: Arc<[Arc<str>]>) -> Bound {
    Bound {
        parameters: Arc::new(Parameters::default()),
        columns: columns.into(),
        transaction_timestamp: 0,
        statement_timestamp: 0,
        prepared_timestamp: 0,
        shows_objects: true,
        fetch: 0,
        deferred: false,
        sync: true,
        shard_names,
        memory_max: 256 << 20,
        max_staged_bytes: 1 << 30,
        catalog: None,
        preferred: None,
        missing: Vec::new(),
    }
}

fn config(shards: &[SocketAddr]) -> Config {
    let shard = |(i, address): (usize, &SocketAddr)| config::Shard {
        name: format!("s{i}"),
        host: address.ip().to_string(),
        port: address.port(),
        dbname: USER.to_owned(),
        user: USER.to_owned(),
        password: config::Secret::new(""),
        sslmode: config::SslMode::Disable,
        sslrootcert: None,
    };
    Config {
        server: config::Server::default(),
        database: config::Database {
            name: USER.to_owned(),
            ..config::Database::default()
        },
        shards: shards.iter().enumerate().map(shard).collect(),
        tables: Vec::new(),
        users: Vec::new(),
        auth: config::Auth {
            method: config::AuthMethod::Trust,
            ..config::Auth::default()
        },
        tls: config::Tls::default(),
        pool: config::Pool {
            connect_timeout: Duration::from_secs(60),
            ..config::Pool::default()
        },
        merge: config::Merge::default(),
        log: config::Log::default(),
        console: config::Console::default(),
        given: Default::default(),
    }
}
