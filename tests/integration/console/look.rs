//! What SHOW tells, against what is known to be so.

use super::{config, console, row, rows};
use crate::harness::client::query;
use crate::harness::{Client, Pgbraid, eventually, target_is_postgres};

/// What the Prometheus exporter for PgBouncer reads, by its names: a label or a number of each row.
const EXPORTER: [(&str, &[&str], &[&str]); 3] = [
    (
        "databases",
        &[
            "name",
            "host",
            "port",
            "database",
            "force_user",
            "pool_mode",
        ],
        &[
            "pool_size",
            "max_connections",
            "current_connections",
            "paused",
            "disabled",
        ],
    ),
    (
        "stats_totals",
        &["database"],
        &[
            "query_count",
            "query_time",
            "bytes_received",
            "bytes_sent",
            "wait_time",
            "xact_count",
            "xact_time",
            "client_parse_count",
            "server_parse_count",
            "bind_count",
        ],
    ),
    (
        "pools",
        &["database", "user"],
        &[
            "cl_active",
            "cl_active_cancel_req",
            "cl_waiting",
            "cl_waiting_cancel_req",
            "sv_active",
            "sv_active_cancel",
            "sv_being_canceled",
            "sv_idle",
            "sv_used",
            "sv_tested",
            "sv_login",
            "maxwait",
        ],
    ),
];

#[test]
fn an_exporter_for_poolers_finds_its_columns() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut client = pgbraid.client();
    client.query("select count(*) from users");
    let mut exporter = console(&pgbraid, "exporter");
    exporter.query("SHOW STATS");
    let version = row(&mut exporter, "SHOW VERSION;");
    assert!(version["version"].starts_with("pgbraid "));
    for (what, labels, numbers) in EXPORTER {
        let mut seen = Vec::new();
        for row in rows(&mut exporter, &format!("SHOW {what};")) {
            let label: Vec<_> = labels.iter().map(|l| row[*l].clone()).collect();
            assert!(!seen.contains(&label), "{what}: {label:?} twice");
            seen.push(label);
            for number in numbers {
                let value = row[*number].parse::<f64>();
                assert!(value.is_ok(), "{what}.{number}: {}", row[*number]);
            }
        }
        assert!(!seen.is_empty(), "{what}");
    }
    let lists = exporter.query("SHOW LISTS;");
    assert_eq!(lists.columns.len(), 2);
    for name in [
        "databases",
        "users",
        "pools",
        "free_clients",
        "used_clients",
    ] {
        let list = row(&mut exporter, &format!("SHOW LISTS WHERE list = '{name}'"));
        assert!(list["items"].parse::<f64>().is_ok(), "{list:?}");
    }
    let config = exporter.query("SHOW CONFIG;");
    let names: Vec<_> = config.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["key", "value", "default", "changeable"]);
    let max = row(&mut exporter, "SHOW CONFIG WHERE key = 'max_client_conn'");
    assert_eq!(max["value"], "1000");
}

#[test]
fn pools_are_told_apart_by_shard_and_role() {
    if target_is_postgres() {
        return;
    }
    let config = config().scram();
    let pgbraid = Pgbraid::start(config.user("alice", "alice", "").user("bob", "bob", ""));
    let login = |role| Client::connect(pgbraid.port, role, role).expect("a session");
    let (mut alice, mut bob) = (login("alice"), login("bob"));
    let mut ops = console(&pgbraid, "ops");
    let one_row = "select id from notes where id = 1";
    alice.query("begin");
    assert!(alice.query(one_row).error.is_none());
    assert!(bob.query("select count(*) from notes").error.is_none());
    let pools = |ops: &mut Client, condition: &str| {
        rows(
            ops,
            &format!("SHOW POOLS WHERE {condition} ORDER BY database"),
        )
    };
    let held = pools(
        &mut ops,
        "user = 'alice' AND sv_active = 1 AND cl_active = 1",
    );
    // Its row's shard, behind the first one, which has told in which schemas it finds its tables.
    let shard = &held.last().expect("a connection")["database"];
    let idle = pools(&mut ops, "user = 'bob' AND sv_idle = 1 AND sv_active = 0");
    assert_eq!(idle.len(), 3, "{idle:?}");
    // The role that the configuration names is there without a client of its name.
    assert_eq!(pools(&mut ops, "user = 'app'").len(), 3);
    let all = rows(&mut ops, "SHOW POOLS").len();
    let listed = row(&mut ops, "SHOW LISTS WHERE list = 'pools'");
    assert_eq!(listed["items"], all.to_string());
    alice.query("commit");
    // Who waits is shown with the role that waits.
    assert_eq!(ops.query(&format!("PAUSE {shard}")).tag, "PAUSE");
    bob.send(&query(one_row)).expect("sent");
    let waiting = eventually("a statement that waits", || {
        Some(pools(&mut ops, "cl_waiting > 0")).filter(|w| !w.is_empty())
    });
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    let names = (
        &*waiting[0]["database"],
        &*waiting[0]["user"],
        &*waiting[0]["cl_waiting"],
    );
    assert_eq!(names, (shard.as_str(), "bob", "1"));
    assert_ne!(waiting[0]["maxwait_us"], "0");
    assert_eq!(ops.query("RESUME").tag, "RESUME");
    bob.until_ready().expect("an answer");
}

#[test]
fn totals_count_what_was_done() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    let before = row(&mut ops, "SHOW STATS");
    for _ in 0..3 {
        client.query("select * from users where id = 7");
    }
    client.query("begin");
    client.query("select count(*) from users");
    client.query("select count(*) from events");
    let open = row(&mut ops, "SHOW STATS");
    client.query("commit");
    let after = row(&mut ops, "SHOW STATS");
    let number = |row: &std::collections::BTreeMap<String, String>, name: &str| {
        row[name].parse::<i64>().expect("a number")
    };
    let grown = |name: &str| number(&after, name) - number(&before, name);
    assert_eq!(grown("total_query_count"), 5);
    assert_eq!(
        number(&open, "total_xact_count") - number(&before, "total_xact_count"),
        3
    );
    assert_eq!(grown("total_xact_count"), 4);
    for name in [
        "total_received",
        "total_sent",
        "total_query_time",
        "total_xact_time",
        "total_server_assignment_count",
    ] {
        assert!(grown(name) > 0, "{name}");
    }
    let own = row(&mut ops, "SHOW CLIENTS WHERE user = 'app' AND queries = 5");
    assert_eq!(own["transactions"], "4");
    assert_eq!(own["state"], "idle");
    // What others ask is not what the console asks.
    assert_eq!(
        row(&mut ops, "SHOW STATS")["total_query_count"],
        after["total_query_count"]
    );
}

#[test]
fn a_running_statement_is_shown_without_its_literals() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    client.query("begin");
    // The first shard alone keeps it waiting.
    let sql = "select id, name, pg_sleep(case when id = 7 then 60 else 0 end) from users where name <> 'secret'";
    client.send(&query(sql)).expect("sent");
    let shown = eventually("the statement is shown with its shards", || {
        let shown = rows(&mut ops, "SHOW QUERIES WHERE plan = 'push_down'").pop()?;
        (shown["shards_done"] == "2").then_some(shown)
    });
    assert_eq!(shown["state"], "active");
    assert_eq!(shown["user"], "app");
    assert_eq!(shown["shards"], "3");
    assert!(shown["query"].starts_with("select id, name, pg_sleep(case when id = $1 then $2 else"));
    assert!(!shown["query"].contains("secret"), "{}", shown["query"]);
    assert!(shown["elapsed_us"].parse::<u64>().expect("a number") > 0);
    let shard = &shown["slowest_shard"];
    let servers = format!(
        "SHOW SERVERS WHERE link = '{}' AND shard = '{shard}'",
        shown["id"]
    );
    let server = row(&mut ops, &servers);
    assert_eq!(server["state"], "active");
    // It is the backend that sleeps.
    let held = rows(
        &mut ops,
        &format!("SHOW SERVERS WHERE link = '{}'", shown["id"]),
    );
    assert_eq!(held.len(), 3);
    let linked = row(
        &mut ops,
        &format!("SHOW CLIENTS WHERE id = {}", shown["id"]),
    );
    assert_eq!(linked["shard"].split(' ').count(), 3);
    assert_eq!(linked["session_state"], "active");
    super::done(&mut ops, &format!("KILL {}", shown["id"]), "KILL");
}

#[test]
fn a_client_in_a_transaction_is_shown_as_such() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    let mut state = |client: &mut crate::harness::Client, sql: &str| {
        client.query(sql);
        let own = "SHOW CLIENTS WHERE database = 'app' ORDER BY connect_time DESC, id";
        rows(&mut ops, own)
            .iter()
            .map(|r| r["session_state"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(state(&mut client, "select 1"), ["idle"]);
    assert_eq!(state(&mut client, "begin"), ["idle in transaction"]);
    assert_eq!(
        state(&mut client, "select 1/0"),
        ["idle in transaction (aborted)"]
    );
    assert_eq!(state(&mut client, "rollback"), ["idle"]);
    client.query("set application_name to 'renamed'");
    client.query("select 1");
    let renamed = "SHOW CLIENTS WHERE application_name = 'renamed'";
    assert_eq!(rows(&mut ops, renamed).len(), 1);
}

#[test]
fn a_statement_that_waits_for_a_connection_is_shown() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config().pool_size(1));
    let (mut ops, mut first, mut second) =
        (console(&pgbraid, "ops"), pgbraid.client(), pgbraid.client());
    first.query("begin");
    first.query("select count(*) from users");
    second
        .send(&query("select count(*) from users where id > 41"))
        .expect("sent");
    eventually("a client waits", || {
        let waiting = rows(&mut ops, "SHOW QUERIES WHERE state = 'waiting'").pop()?;
        (waiting["query"] == "select count(*) from users where id > $1").then_some(())
    });
    let pool = row(&mut ops, "SHOW POOLS WHERE cl_waiting > 0");
    assert_eq!(
        (pool["cl_waiting"].as_str(), pool["cl_active"].as_str()),
        ("1", "1")
    );
    first.query("commit");
    second.until_ready().expect("an answer");
    assert!(rows(&mut ops, "SHOW POOLS WHERE cl_waiting > 0").is_empty());
}

#[test]
fn tables_plans_skew_and_errors_are_shown() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    let users = row(
        &mut ops,
        "SHOW TABLES WHERE name = 'users' AND schema = 'public'",
    );
    assert_eq!(
        (&*users["placement"], &*users["key"], &*users["function"]),
        ("sharded", "id", "postgres")
    );
    let tags = row(&mut ops, "SHOW TABLES WHERE name = 'tags'");
    assert_eq!((&*tags["placement"], &*tags["key"]), ("reference", "NULL"));
    for _ in 0..2 {
        client.query("select count(*) from users");
    }
    client.query("select id from users for update skip locked");
    client.query("insert into tags (id) values (1)");
    client.query("select 1/0");
    let cache = row(&mut ops, "SHOW CACHE");
    assert!(cache["entries"] != "0" && cache["hits"] != "0" && cache["bytes"] != "0");
    let skew = rows(&mut ops, "SHOW SKEW ORDER BY slowest DESC");
    assert_eq!(skew.len(), 3);
    let slowest: u64 = skew
        .iter()
        .map(|s| s["slowest"].parse::<u64>().expect("a count"))
        .sum();
    assert_eq!(slowest, 2);
    let count = |ops: &mut crate::harness::Client, kind: &str, name: &str| {
        let sql = format!("SHOW ERRORS WHERE kind = '{kind}' AND name = '{name}'");
        row(ops, &sql)["count"].clone()
    };
    assert_eq!(count(&mut ops, "error", "22"), "1");
    assert_eq!(count(&mut ops, "error", "0A"), "2");
    assert_eq!(count(&mut ops, "refusal", "lock"), "1");
    assert_eq!(count(&mut ops, "refusal", "write"), "1");
    let help = rows(&mut ops, "SHOW HELP WHERE command LIKE 'SHOW %'");
    for line in help.iter().filter(|line| !line["command"].contains("name")) {
        let reply = ops.query(&line["command"]);
        assert!(
            reply.error.is_none(),
            "{}: {}",
            line["command"],
            reply.complaint()
        );
    }
}
