//! pgbraid's own settings are SET, shown and undone as any other.

use crate::harness::client::{bind, execute, parse, sync};
use crate::harness::{Client, Reply, target_is_postgres};
use crate::routing::{COUNT, assert_refused, counts, show, started};

/// What SET and its like make of `pgbraid.partial_results`, one behind the other.
const SETS: &[(&str, &str)] = &[
    ("set pgbraid.partial_results = on", "on"),
    ("set PGBRAID.Partial_Results to false", "off"),
    ("set pgbraid.partial_results = 1", "on"),
    ("set pgbraid.partial_results to default", "off"),
    ("set session pgbraid.partial_results = 'yes'", "on"),
    ("reset pgbraid.partial_results", "off"),
    ("set pgbraid.partial_results = tr", "on"),
    ("reset all", "off"),
    ("set pgbraid.partial_results = on", "on"),
    ("discard all", "off"),
];

/// The same of transactions: rollbacks undo it, savepoints too; SET LOCAL ends with its block.
const SCRIPTS: &[(&[&str], &str)] = &[
    (
        &["begin", "set pgbraid.partial_results = on", "rollback"],
        "off",
    ),
    (
        &[
            "begin",
            "set pgbraid.partial_results = on",
            "select 1/0",
            "rollback",
        ],
        "off",
    ),
    (
        &["begin", "set local pgbraid.partial_results = on", "commit"],
        "off",
    ),
    (
        &["begin", "set pgbraid.partial_results = on", COUNT, "commit"],
        "on",
    ),
    (
        &[
            "begin",
            "savepoint a",
            "set pgbraid.partial_results = off",
            "rollback to a",
            "commit",
        ],
        "on",
    ),
    (&["set pgbraid.partial_results = off; select 1/0"], "on"),
    (
        &["begin", "reset pgbraid.partial_results", COUNT, "rollback"],
        "on",
    ),
    (&["begin", "reset pgbraid.partial_results", "commit"], "off"),
    (
        &["select set_config('pgbraid.partial_results', 'true', false)"],
        "on",
    ),
    (
        &[
            "begin",
            "select set_config('pgbraid.partial_results', 'off', true)",
            "commit",
        ],
        "on",
    ),
];

#[test]
fn own_settings_follow_the_session_and_its_transactions() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client) = started();
    let name = "pgbraid.partial_results";
    assert_eq!(show(&mut client, name), "off");
    assert_eq!(show(&mut client, "pgbraid.shard"), "");
    for (set, value) in SETS {
        let reply = client.query(set);
        assert!(reply.error.is_none(), "{set}: {}", reply.complaint());
        assert_eq!(show(&mut client, name), *value, "{set}");
    }
    for (script, value) in SCRIPTS {
        for sql in *script {
            client.query(sql);
        }
        assert_eq!(show(&mut client, name), *value, "{script:?}");
    }
    client.query("begin");
    client.query("set local pgbraid.partial_results = off");
    assert_eq!(show(&mut client, name), "off");
    assert_eq!(
        client
            .query("select current_setting('pgbraid.partial_results')")
            .value(),
        "off"
    );
    client.query("rollback");
    assert_eq!(
        client
            .query("select current_setting('pgbraid.partial_results')")
            .value(),
        "on"
    );
    assert_eq!(client.query(COUNT).value(), "300");
    client.assert_in_step("settings");
}

#[test]
fn wrong_settings_are_refused_and_change_nothing() {
    if target_is_postgres() {
        return;
    }
    let (pgbraid, mut client) = started();
    let set = |value: &str| format!("set pgbraid.{value}");
    assert_refused(
        &client.query(&set("partial_results = maybe")),
        "22023",
        "on, off",
    );
    assert_refused(&client.query(&set("shard = 's9'")), "22023", "s1, s2, s3");
    assert_refused(
        &client.query(&set("shards = 's1'")),
        "42602",
        "pgbraid.shard",
    );
    assert_refused(
        &client.query("show pgbraid.what"),
        "42704",
        "pgbraid.explain_routing",
    );
    let two = client.query(&set("shard = 's1', 's2'"));
    assert_eq!(two.sqlstate().as_deref(), Some("22023"));
    let call = "select set_config('pgbraid.what', '1', false)";
    assert_refused(&client.query(call), "42602", "pgbraid.shard");
    let call = "select set_config('pgbraid.shard', 's9', false)";
    let reply = client.query(call);
    assert_refused(&reply, "22023", "s1, s2, s3");
    assert!(reply.rows.is_empty(), "a row before the error");
    assert_eq!(show(&mut client, "pgbraid.shard"), "");
    assert_eq!(client.query(COUNT).value(), "300");
    // Nor does anybody else find what a shard had taken.
    for _ in 0..4 {
        let left = "select coalesce(current_setting('pgbraid.shard', true), '')";
        assert_eq!(pgbraid.client().query(left).value(), "");
    }
    let login = |options: &str| {
        let parameters = [("user", "app"), ("database", "app"), ("options", options)];
        Client::connect_with(pgbraid.port, &parameters, "app")
    };
    let mut client = login("-c pgbraid.shard=s2 -c pgbraid.explain_routing=true").expect("login");
    assert_eq!(show(&mut client, "pgbraid.shard"), "s2");
    assert_eq!(show(&mut client, "pgbraid.explain_routing"), "on");
    assert_eq!(client.query(COUNT).value(), counts()[1]);
    client.query("set pgbraid.shard = ''");
    assert_eq!(client.query(COUNT).value(), "300");
    client.query("reset pgbraid.shard");
    assert_eq!(show(&mut client, "pgbraid.shard"), "s2");
    for (options, said) in [
        ("-c pgbraid.shard=s9", "22023"),
        ("-c pgbraid.nothing=1", "42704"),
        ("-c pgbraid.partial_results=maybe", "22023"),
    ] {
        let error = login(options).err().unwrap_or_default();
        assert!(error.contains(said), "{options}: {error:?}");
    }
}

/// As with PostgreSQL's own settings the call returns what has come into force, and nothing where it fails.
#[test]
fn set_config_returns_the_value_in_force() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client) = started();
    let name = "pgbraid.partial_results";
    for (given, value) in [("true", "on"), ("F", "off"), ("1", "on"), ("off", "off")] {
        let call = format!("select set_config('{name}', '{given}', false)");
        assert_eq!(client.query(&call).value(), value, "{given}");
        assert_eq!(show(&mut client, name), value, "{given}");
    }
    let call = "select set_config('pgbraid.partial_results', $1, false)";
    client
        .send(&[parse("set", call, &[]), sync()].concat())
        .expect("sent");
    client.until_ready().expect("parsed");
    let mut run = |value: &str| {
        let value = [(0, Some(value.as_bytes().to_vec()))];
        let unit = [bind("", "set", &value, &[0]), execute("", 0), sync()];
        client.send(&unit.concat()).expect("sent");
        Reply::of(&client.until_ready().expect("answered"))
    };
    assert_eq!(run("yes").value(), "on");
    let refused = run("maybe");
    assert_refused(&refused, "22023", "on, off");
    assert!(refused.rows.is_empty(), "a row before the error");
    assert_eq!(run("n").value(), "off");
    assert_eq!(show(&mut client, name), "off");
    client.query("prepare p as select set_config('pgbraid.partial_results', $1, false)");
    assert_eq!(client.query("execute p ('t')").value(), "on");
    let refused = client.query("execute p ('maybe')");
    assert_refused(&refused, "22023", "on, off");
    assert!(refused.rows.is_empty(), "a row before the error");
    assert_eq!(show(&mut client, name), "on");
    client.assert_in_step("set_config");
}
