//! The administration console, as an operator and an exporter meet it.

mod counted;
mod extended;
mod log;
mod look;
mod steer;

use std::collections::BTreeMap;

use crate::harness::{Client, Config, Pgbraid, Reply, cluster, target_is_postgres};

/// An administrator `ops`, a watcher `exporter`; passwords as the names.
fn config() -> Config {
    let mut config = Config::new(cluster());
    config.more = "[console]\nadmin_users = \"ops\"\nstats_users = \"exporter\"\n\
        [[user]]\nname = \"ops\"\npassword = \"ops\"\n\
        [[user]]\nname = \"exporter\"\npassword = \"exporter\"\n"
        .into();
    config
}

fn connect(pgbraid: &Pgbraid, user: &str, database: &str) -> Result<Client, String> {
    let parameters = [
        ("user", user),
        ("database", database),
        ("application_name", "a console"),
    ];
    Client::connect_with(pgbraid.port, &parameters, user)
}

fn console(pgbraid: &Pgbraid, user: &str) -> Client {
    connect(pgbraid, user, "pgbraid").expect("a console")
}

/// Rows by their columns' names.
fn rows(client: &mut Client, sql: &str) -> Vec<BTreeMap<String, String>> {
    let reply = client.query(sql);
    assert!(reply.error.is_none(), "{sql}: {}", reply.complaint());
    assert_eq!((reply.tag.as_str(), reply.status), ("SHOW", b'I'), "{sql}");
    let row = |row: &Vec<Option<Vec<u8>>>| {
        let text = |value: &Option<Vec<u8>>| match value {
            Some(value) => String::from_utf8_lossy(value).into_owned(),
            None => "NULL".to_owned(),
        };
        let names = reply.columns.iter().map(|c| c.name.clone());
        names.zip(row.iter().map(text)).collect()
    };
    reply.rows.iter().map(row).collect()
}

fn row(client: &mut Client, sql: &str) -> BTreeMap<String, String> {
    let mut all = rows(client, sql);
    assert_eq!(all.len(), 1, "{sql}: {all:?}");
    all.remove(0)
}

fn done(client: &mut Client, sql: &str, tag: &str) {
    let reply = client.query(sql);
    assert!(reply.error.is_none(), "{sql}: {}", reply.complaint());
    assert_eq!(reply.tag, tag, "{sql}");
}

fn state(reply: &Reply) -> String {
    assert_eq!(reply.status, b'I');
    reply.sqlstate().unwrap_or_default()
}

#[test]
fn only_its_own_users_enter() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config().scram());
    let refused = |user: &str, database: &str| {
        let entered = connect(&pgbraid, user, database);
        entered.map(drop).expect_err("refused")
    };
    assert!(refused("app", "pgbraid").starts_with("42501 "));
    // Theirs is the console, and nothing else.
    assert!(refused("ops", "app").starts_with("42501 "));
    assert!(refused("exporter", "app").starts_with("42501 "));
    // Who has no password learns nothing.
    let wrong = [("user", "ops"), ("database", "pgbraid")];
    let entered = Client::connect_with(pgbraid.port, &wrong, "wrong");
    assert!(entered.map(drop).expect_err("refused").starts_with("28P01"));
    assert_eq!(row(&mut console(&pgbraid, "ops"), "SHOW VERSION").len(), 1);
    done(&mut console(&pgbraid, "ops"), "RELOAD;", "RELOAD");
}

#[test]
fn nobody_is_its_user_by_default() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let entered = connect(&pgbraid, "app", "pgbraid");
    assert!(entered.map(drop).expect_err("refused").starts_with("42501"));
}

#[test]
fn who_may_look_may_not_steer() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut exporter = console(&pgbraid, "exporter");
    for command in [
        "PAUSE",
        "RESUME s1",
        "RECONNECT",
        "RELOAD",
        "KILL 1",
        "SHUTDOWN",
        "SHUTDOWN WAIT_FOR_CLIENTS",
        "SET log.level = 'debug'",
    ] {
        assert_eq!(state(&exporter.query(command)), "42501", "{command}");
    }
    assert_eq!(rows(&mut exporter, "SHOW SHARDS").len(), 3);
}

#[test]
fn what_is_no_command_is_refused_and_the_console_goes_on() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut ops = console(&pgbraid, "ops");
    for (sql, expected) in [
        ("SELECT 1", "42601"),
        ("SHOW NOTHING", "42601"),
        ("PAUSE nowhere", "42704"),
        ("KILL 2147483647", "42704"),
        ("KILL me", "42601"),
        ("SHOW POOLS LIMIT 1", "0A000"),
        ("SHOW POOLS WHERE nothing = 1", "42703"),
        ("SHOW POOLS WHERE sv_idle = 'many'", "22P02"),
        ("SET log.level = 'loud'", "22023"),
        ("SET log.slow_query = '1'", "22023"),
        ("SET pool.size = 5", "55P02"),
        ("SET nothing = 5", "42704"),
        ("SHOW", "42601"),
        ("SHOW POOLS WHERE", "42601"),
        ("SHOW POOLS WHERE database = 's1", "42601"),
        ("SHOW POOLS more", "0A000"),
        ("RESET log.level", "42601"),
        ("BEGIN", "42601"),
        ("ä", "42601"),
        ("RESUME nowhere", "42704"),
        ("RECONNECT nowhere", "42704"),
        ("SET log.slow_query = '99999999999999999999s'", "22023"),
        ("SET log.refusals = 'loud'", "22023"),
        ("SET log.level", "42601"),
    ] {
        assert_eq!(state(&ops.query(sql)), expected, "{sql}");
    }
    for (text, expected) in [
        (
            format!("SHOW POOLS WHERE {}sv_idle = 0", "NOT ".repeat(4000)),
            "42601",
        ),
        (
            format!("SHOW POOLS WHERE {}1", "sv_idle = 0 AND ".repeat(9000)),
            "54000",
        ),
        ("x".repeat(1 << 20), "54000"),
    ] {
        assert_eq!(state(&ops.query(&text)), expected, "{} bytes", text.len());
    }
    // Many short ones in one message are as good as many messages.
    assert_eq!(ops.query(&"SHOW STATE;".repeat(2000)).tag, "SHOW");
    assert!(rows(&mut ops, "SHOW QUERIES; ;").is_empty());
    // The commands behind one that fails are not carried out.
    let reply = ops.query("SHOW VERSION; SHOW NOTHING; PAUSE");
    assert_eq!(state(&reply), "42601");
    assert_eq!(
        row(&mut ops, "SHOW STATE WHERE key = 'paused'")["value"],
        "no"
    );
    // As drivers ask whether there is anybody.
    let reply = ops.query("-- ping");
    assert_eq!((reply.rows.len(), reply.error), (0, None));
}

#[test]
fn a_crowd_does_not_keep_operators_out() {
    if target_is_postgres() {
        return;
    }
    // One that asks whether pgbraid is up takes a place for a moment, too.
    let pgbraid = Pgbraid::start(config().server("max_clients = 2"));
    let clients = crate::harness::eventually("two clients", || {
        let connect = || Client::connect(pgbraid.port, "app", "app").ok();
        Some([connect()?, connect()?])
    });
    let third = Client::connect(pgbraid.port, "app", "app");
    assert!(third.map(drop).expect_err("full").starts_with("53300"));
    let mut ops = console(&pgbraid, "ops");
    assert_eq!(rows(&mut ops, "SHOW CLIENTS WHERE user = 'app'").len(), 2);
    drop(clients);
}
