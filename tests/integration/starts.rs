//! Starts while a shard is not there: the others are used, that one is named, and used as soon as it has come.

use std::net::TcpListener;

use crate::harness::client::{bind, execute, parse, query, sync};
use crate::harness::relay::Fault;
use crate::harness::{
    Client, Config, Pgbraid, Relay, Reply, cluster, eventually, target_is_postgres,
};
use crate::page::http::get;

/// The last one.
const GONE: usize = 2;

/// pgbraid that has started while this shard was not there.
fn started_without(shard: usize, adjust: impl FnOnce(Config) -> Config) -> (Relay, Pgbraid) {
    let relay = Relay::start(cluster().shards[shard]);
    relay.arm(Fault::Cut { after: 0 });
    let config = Config::new(cluster()).with_port(shard, relay.port);
    (relay, Pgbraid::start(adjust(config)))
}

fn with_http(config: Config) -> (Config, String) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound").to_string();
    (config.http(&address), address)
}

fn a_user_of(shard: usize) -> String {
    let mut client = Client::connect(cluster().shards[shard], "app", "app").expect("login");
    client.query("select min(id) from users").value()
}

/// One ERROR of a lost connection that names the shard.
fn assert_needs(shard: usize, reply: &Reply, sql: &str) {
    assert_eq!(reply.sqlstate().as_deref(), Some("08006"), "{sql}");
    let error = reply.error.as_ref().expect("an error");
    let message = error.field(b'M').unwrap_or_default();
    let named = format!("shard s{} cannot be reached", shard + 1);
    assert!(message.starts_with(&named), "{sql}: {message}");
    assert!(reply.rows.is_empty(), "{sql}: rows before the error");
}

/// The value of a statement once it is answered.
fn answered(client: &mut Client, sql: &str) -> String {
    eventually("the shard is in use", || {
        let reply = client.query(sql);
        reply.error.is_none().then(|| reply.value())
    })
}

#[test]
fn what_needs_only_shards_that_are_there_is_answered_from_the_start() {
    if target_is_postgres() {
        return;
    }
    let address = with_http(Config::new(cluster())).1;
    let (relay, pgbraid) = started_without(GONE, |c| c.http(&address));
    let log = pgbraid.log();
    let line = log.lines().find(|l| l.contains("goes on without a shard"));
    assert!(line.is_some_and(|l| l.contains("s3")), "{log}");
    let mut oracle = Client::connect(cluster().oracle, "app", "app").expect("login");
    let mut client = pgbraid.client();
    let (here, there) = (a_user_of(0), a_user_of(GONE));
    // Each of them often enough that every shard would have had its turn.
    for _ in 0..4 {
        for sql in [
            "select 1".to_owned(),
            "select count(*), min(name) from countries".to_owned(),
            "select count(*) from tags".to_owned(),
            format!("select name from users where id = {here}"),
            format!(
                "select count(*) from users u join events e on e.user_id = u.id where u.id = {here}"
            ),
            "select count(*) from users where id = 1 and id = 2".to_owned(),
        ] {
            let reply = client.query(&sql);
            assert!(reply.error.is_none(), "{sql}: {}", reply.complaint());
            assert_eq!(reply.rows, oracle.query(&sql).rows, "{sql}");
        }
        for sql in [
            "select count(*) from users".to_owned(),
            "select id from users order by id".to_owned(),
            format!("select name from users where id = {there}"),
            format!("update users set name = name where id = {there}"),
            "copy users to stdout".to_owned(),
            "select count(*) from users a join users b on a.manager_id = b.id".to_owned(),
            "/* pgbraid shard=s3 */ select count(*) from users".to_owned(),
        ] {
            assert_needs(GONE, &client.query(&sql), &sql);
        }
    }
    let changed = client.query(&format!("update users set name = name where id = {here}"));
    assert_eq!(changed.tag, "UPDATE 1", "{}", changed.complaint());
    let started = get(&address, "/startupz", &[]).expect("an answer");
    assert_eq!(started.status, 200, "{}", started.body);
    let ready = get(&address, "/readyz", &[]).expect("an answer");
    assert_eq!(ready.status, 503);
    let named = "shard s3 cannot be reached";
    assert!(ready.body.contains(named), "{}", ready.body);
    // A block goes on where it needs nothing else.
    client.query("begin");
    let name = format!("select name from users where id = {here}");
    assert_eq!(client.query(&name).rows.len(), 1);
    assert_eq!(client.query("commit").tag, "COMMIT");

    relay.heal();
    let count = "select count(*) from users";
    assert_eq!(answered(&mut client, count), "300");
    pgbraid.wait_for_log("is in use from now on");
    let one = client.query(&format!("select id from users where id = {there}"));
    assert_eq!(one.value(), there);
    eventually("it is ready", || {
        let ready = get(&address, "/readyz", &[]).expect("an answer");
        (ready.status == 200).then_some(())
    });
    client.assert_in_step("a late shard");
    pgbraid.assert_no_panic();
}

#[test]
fn statements_prepared_before_the_shard_has_come_run_on_it_afterwards() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = started_without(GONE, |c| c);
    let mut client = pgbraid.client();
    let there = a_user_of(GONE);
    let one = "select id from users where id = $1::int8";
    let all = "select count(*) from users where id > $1::int8";
    let first = [parse("one", one, &[]), parse("all", all, &[]), sync()];
    client.send(&first.concat()).expect("sent");
    let prepared = Reply::of(&client.until_ready().expect("prepared"));
    assert!(prepared.error.is_none(), "{}", prepared.complaint());
    let mut run = |statement: &str, value: &str| {
        let value = Some(value.as_bytes().to_vec());
        let unit = [
            bind("", statement, &[(0, value)], &[0]),
            execute("", 0),
            sync(),
        ];
        client.send(&unit.concat()).expect("sent");
        Reply::of(&client.until_ready().expect("session lost"))
    };
    assert_needs(GONE, &run("one", &there), one);
    assert_needs(GONE, &run("all", "0"), all);
    relay.heal();
    let count = eventually("the shard is in use", || {
        let reply = run("all", "0");
        reply.error.is_none().then(|| reply.value())
    });
    assert_eq!(count, "300");
    for _ in 0..3 {
        assert_eq!(run("one", &there).value(), there);
    }
}

#[test]
fn partial_results_do_without_it() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = started_without(GONE, |c| c);
    let mut client = pgbraid.client();
    assert_eq!(client.query("set pgbraid.partial_results = on").tag, "SET");
    let parts = [0, 1].map(|shard| {
        let port = cluster().shards[shard];
        let mut client = Client::connect(port, "app", "app").expect("login");
        let count = client.query("select count(*) from users").value();
        count.parse::<u64>().expect("a number")
    });
    let part = parts.iter().sum::<u64>().to_string();
    for sql in [
        "select count(*) from users",
        "select count(*) from (select id from users where id not in (select id from users where id < 0)) x",
    ] {
        client.send(&query(sql)).expect("sent");
        let messages = client.until_ready().expect("session lost");
        let reply = Reply::of(&messages);
        assert!(reply.error.is_none(), "{sql}: {}", reply.complaint());
        assert_eq!(reply.value(), part, "{sql}");
        let warns = |m: &crate::harness::Message| {
            m.tag == b'N' && m.field(b'M').is_some_and(|text| text.contains("shard s3"))
        };
        assert!(messages.iter().any(warns), "{sql}: no warning");
    }
    let there = a_user_of(GONE);
    let none = client.query(&format!("select id from users where id = {there}"));
    assert_eq!((none.rows.len(), none.tag.as_str()), (0, "SELECT 0"));
    relay.heal();
    let count = "select count(*) from users";
    eventually("the shard is in use", || {
        (client.query(count).value() == "300").then_some(())
    });
}

#[test]
fn a_late_shard_that_differs_is_treated_as_it_would_have_been_at_the_start() {
    if target_is_postgres() {
        return;
    }
    let name = format!("late_{}", std::process::id());
    let mut server = Client::connect(cluster().shards[GONE], "postgres", "").expect("login");
    let made = server.query(&format!("create database {name}"));
    assert!(made.error.is_none(), "{}", made.complaint());
    let parameters = [("user", "postgres"), ("database", &name)];
    let mut there = Client::connect_with(cluster().shards[GONE], &parameters, "").expect("login");
    let made =
        there.query("create table countries (name text, code char(2) primary key, region text)");
    assert!(made.error.is_none(), "{}", made.complaint());
    drop(there);
    {
        let (relay, pgbraid) = started_without(GONE, |c| c.with_database(GONE, &name));
        let mut client = pgbraid.client();
        let sql = "select * from countries order by code";
        let before = client.query(sql);
        assert!(!before.rows.is_empty(), "{}", before.complaint());
        relay.heal();
        // Any shard has a reference table: not for a moment is this one asked.
        let refused = eventually("the shard is compared", || {
            let reply = client.query(sql);
            if reply.error.is_none() {
                assert_eq!(reply.rows, before.rows);
            }
            reply.error.is_some().then_some(reply)
        });
        assert_eq!(refused.sqlstate().as_deref(), Some("0A000"));
        assert!(
            refused.complaint().contains("s3"),
            "{}",
            refused.complaint()
        );
        assert!(pgbraid.log().contains("table public.countries"));
    }
    server.query(&format!("drop database {name} with (force)"));
}

#[test]
fn without_the_catalog_shard_clients_are_told_which_one_is_missing() {
    if target_is_postgres() {
        return;
    }
    let relay = Relay::start(cluster().shards[0]);
    relay.arm(Fault::Cut { after: 0 });
    let (config, address) = with_http(Config::new(cluster()).with_port(0, relay.port));
    let mut pgbraid = Pgbraid::launch(&config);
    pgbraid.wait_for_log("ready for connections");
    let started = get(&address, "/startupz", &[]).expect("an answer");
    assert_eq!(started.status, 503);
    let named = "shard s1 cannot be reached";
    assert!(started.body.contains(named), "{}", started.body);
    let refused = Client::connect(pgbraid.port, "app", "app");
    let refused = refused
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(refused.contains("shard s1 cannot be reached"), "{refused}");
    relay.heal();
    let mut client = eventually("pgbraid accepts logins", || {
        pgbraid.assert_alive();
        Client::connect(pgbraid.port, "app", "app").ok()
    });
    let count = client.query("select count(*) from users").value();
    assert_eq!(count, "300");
}

#[test]
fn a_shard_that_says_nothing_at_the_start_does_not_hold_up_the_others() {
    if target_is_postgres() {
        return;
    }
    let relay = Relay::start(cluster().shards[GONE]);
    relay.arm(Fault::Stall { after: 0 });
    let mut config = Config::new(cluster()).with_port(GONE, relay.port);
    config.pool = "[pool]\nsize = 8\nconnect_timeout = \"1s\"\n".into();
    let pgbraid = Pgbraid::start(config);
    let mut client = pgbraid.client();
    let here = a_user_of(0);
    let one = client.query(&format!("select id from users where id = {here}"));
    assert_eq!(one.value(), here);
    let count = "select count(*) from users";
    let refused = client.query(count);
    assert_needs(GONE, &refused, count);
    // Nobody tried to reach it for this.
    let why = "has not been read since pgbraid started";
    assert!(refused.complaint().contains(why), "{}", refused.complaint());
    relay.heal();
    assert_eq!(answered(&mut client, count), "300");
}
