//! What `/metrics` counts, against what was done.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use super::{config, console, done};
use crate::harness::cluster::free_port;
use crate::harness::{Config, Pgbraid, eventually, target_is_postgres};

/// One that answers on the HTTP port that comes with it.
fn start(config: &Config) -> (Pgbraid, u16) {
    let http = free_port();
    let mut command = Command::new("env");
    command.env("PGBRAID_SERVER_HTTP", format!("127.0.0.1:{http}"));
    let pgbraid = Pgbraid::launch_by(&mut command, config, free_port());
    pgbraid.wait_for_log("ready for connections");
    (pgbraid, http)
}

/// The figures of all time series, by name and labels.
fn metrics(port: u16) -> BTreeMap<String, f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the http side");
    // HTTP/1.0: the answer ends with the connection.
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    lines.filter_map(pair).collect()
}

#[test]
fn statements_are_told_apart_by_how_they_run() {
    if target_is_postgres() {
        return;
    }
    let (pgbraid, http) = start(&config());
    let mut client = pgbraid.client();
    let before = metrics(http);
    for (sql, kind) in [
        ("set timezone to 'UTC'", "session"),
        ("select id from users where id = 7", "routed"),
        ("select count(*) from users", "push_down"),
        (
            "select status, count(*) from orders group by status",
            "staged",
        ),
        (
            "select percentile_cont(0.5) within group (order by id) from users",
            "gathered",
        ),
        ("select id from users for update skip locked", "refused"),
    ] {
        let before = metrics(http);
        let reply = client.query(sql);
        assert_eq!(
            reply.error.is_some(),
            kind == "refused",
            "{sql}: {}",
            reply.complaint()
        );
        let after = metrics(http);
        let grown = after
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(value));
        let grown: Vec<_> = grown
            .filter_map(|(name, _)| name.strip_prefix("pgbraid_queries_total"))
            .collect();
        assert_eq!(grown, [format!("{{kind=\"{kind}\"}}")], "{sql}");
    }
    let after = metrics(http);
    let refused = "pgbraid_refusals_total{reason=\"lock\"}";
    assert_eq!(after[refused] - before[refused], 1.0);
}

#[test]
fn what_is_prepared_and_loaded_is_counted() {
    if target_is_postgres() {
        return;
    }
    let (pgbraid, http) = start(&config());
    let parses = || -> f64 {
        let of_shards = |(name, _): &(String, f64)| name.starts_with("pgbraid_shard_parses_total");
        let all = metrics(http).into_iter().filter(of_shards);
        all.map(|(_, count)| count).sum()
    };
    let mut client = pgbraid.client();
    let before = parses();
    for _ in 0..3 {
        client.query("select count(*) from users");
    }
    // Once on each shard.
    assert_eq!(parses() - before, 3.0);
    let loads = || metrics(http)["pgbraid_catalog_loads_total"];
    let before = loads();
    // One that finds nothing new is one, too.
    done(&mut console(&pgbraid, "ops"), "RELOAD", "RELOAD");
    eventually("another load", || (loads() > before).then_some(()));
}
