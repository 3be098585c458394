//! What a session keeps on its own connection: two clients meet on one shard, and a loss is not silent.

use std::time::Duration;

use crate::harness::client::query;
use crate::harness::{Client, Config, Message, Pgbraid, cluster, eventually, target_is_postgres};

fn notification(m: &Message) -> (String, String) {
    assert_eq!(m.tag, b'A', "{m:?}");
    let channel = crate::harness::client::cstr(&m.body[4..]);
    let payload = crate::harness::client::cstr(&m.body[5 + channel.len()..]);
    (channel, payload)
}

/// Waits for one without a word.
fn heard(client: &mut Client) -> (String, String) {
    notification(&client.receive().expect("a notification"))
}

fn silent(client: &mut Client) {
    let (messages, ended) = client.drain(Duration::from_millis(100));
    assert!(messages.is_empty() && !ended, "{messages:?}");
}

#[test]
fn notifications_reach_idle_clients_of_other_proxies_too() {
    if target_is_postgres() {
        return;
    }
    let (one, two) = (
        Pgbraid::start(Config::new(cluster())),
        Pgbraid::start(Config::new(cluster())),
    );
    let mut listener = one.client();
    let mut neighbour = one.client();
    let mut distant = two.client();
    let mut direct = Client::connect(cluster().shards[0], "app", "app").expect("login");
    for client in [&mut listener, &mut distant, &mut direct] {
        client.query("listen meet");
    }
    for (n, sender) in [
        &mut neighbour,
        &mut Client::connect(cluster().shards[0], "app", "app").expect("login"),
    ]
    .into_iter()
    .enumerate()
    {
        sender.query(&format!("notify meet, '{n}'"));
        for client in [&mut listener, &mut distant, &mut direct] {
            assert_eq!(heard(client), ("meet".into(), n.to_string()));
        }
    }
    // In a block they wait for its end, whoever listens.
    listener.query("begin");
    listener
        .query("select count(*) from users where id not in (select id from users where id < 5)");
    neighbour.query("begin; notify meet, 'late'; select count(*) from users");
    silent(&mut distant);
    neighbour.query("commit");
    assert_eq!(heard(&mut distant).1, "late");
    silent(&mut listener);
    listener.send(&query("commit")).expect("sent");
    let tags: Vec<u8> = listener
        .until_ready()
        .expect("ready")
        .iter()
        .map(|m| m.tag)
        .collect();
    assert_eq!(tags, b"CAZ");
    // Many, and nothing else.
    for n in 0..500 {
        neighbour.query(&format!("select pg_notify('meet', '{n}')"));
    }
    for n in 0..500 {
        assert_eq!(heard(&mut listener).1, n.to_string());
    }
    listener.assert_in_step("notifications");
}

#[test]
fn a_result_is_not_interrupted_by_notifications() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let (mut listener, mut sender) = (pgbraid.client(), pgbraid.client());
    listener.query("listen interrupted");
    for round in 0..20 {
        listener
            .send(&query("select id, repeat(pad, 20) from big"))
            .expect("sent");
        sender.query(&format!("notify interrupted, '{round}'"));
        let messages = listener.until_ready().expect("ready");
        let tags: Vec<u8> = messages.iter().map(|m| m.tag).collect();
        let complete = tags.iter().position(|t| *t == b'C').expect("complete");
        assert!(
            !tags[..complete].contains(&b'A'),
            "in the middle of the rows"
        );
        let after = tags[complete + 1..].iter().filter(|t| **t == b'A').count();
        if after == 0 {
            assert_eq!(heard(&mut listener).1, round.to_string());
        }
    }
}

#[test]
fn clients_meet_at_their_locks() {
    if target_is_postgres() {
        return;
    }
    let (one, two) = (
        Pgbraid::start(Config::new(cluster())),
        Pgbraid::start(Config::new(cluster())),
    );
    let (mut a, mut b) = (one.client(), two.client());
    for lock in ["pg_try_advisory_lock(7500)", "pg_try_advisory_lock(75, 1)"] {
        let take = format!("select {lock}");
        let give = take.replace("try_advisory_lock", "advisory_unlock");
        for _ in 0..2 {
            assert_eq!(a.query(&take).value(), "t");
            assert_eq!(b.query(&take).value(), "f");
        }
        assert_eq!(a.query(&give).value(), "t");
        // Taken twice, given up once.
        assert_eq!(b.query(&take).value(), "f");
        assert_eq!(
            a.query("select count(*) from users where id not in (select 1)")
                .value(),
            "299"
        );
        assert_eq!(b.query(&take).value(), "f");
        assert_eq!(a.query(&give).value(), "t");
        assert_eq!(b.query(&take).value(), "t");
        assert_eq!(b.query(&give).value(), "t");
    }
    a.query("begin; select pg_advisory_xact_lock(7501)");
    assert_eq!(
        b.query("select pg_try_advisory_xact_lock(7501)").value(),
        "f"
    );
    a.query("select count(*) from users");
    a.query("commit");
    assert_eq!(
        b.query("select pg_try_advisory_xact_lock(7501)").value(),
        "t"
    );
    assert_eq!(
        a.query("select pg_try_advisory_xact_lock(7501)").value(),
        "t"
    );
    for sql in [
        "select pg_advisory_lock(id) from users where id = 7",
        "select pg_try_advisory_xact_lock(1) from orders",
    ] {
        assert_eq!(a.query(sql).sqlstate().as_deref(), Some("0A000"), "{sql}");
    }
}

#[test]
fn an_idle_client_is_told_of_a_lost_connection() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut observer = Client::connect(cluster().shards[0], "postgres", "").expect("login");
    for made in [
        "listen lost",
        "select pg_advisory_lock(7600)",
        "create temp table lost (a int)",
    ] {
        for begin in [None, Some("begin"), Some("select nope")] {
            let parameters = [
                ("user", "app"),
                ("database", "app"),
                ("application_name", "kept_lost"),
            ];
            let mut client = Client::connect_with(pgbraid.port, &parameters, "app").expect("login");
            client.query(made);
            begin.iter().for_each(|sql| drop(client.query(sql)));
            let killed = observer.query(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'kept_lost'",
            );
            assert_eq!(killed.value(), "1");
            let (messages, ended) = client.drain(crate::harness::PATIENCE);
            assert!(ended, "{made} {begin:?}: the session goes on");
            let last = messages.last().expect("a word about it");
            assert_eq!(last.field(b'V').as_deref(), Some("FATAL"), "{made}");
            assert_eq!(last.field(b'C').as_deref(), Some("57P01"), "{made}");
        }
    }
    // In the middle of a statement: its error first.
    let mut client = pgbraid.client();
    client.query("set application_name to 'kept_lost'");
    client.query("listen lost");
    client
        .send(&query("select pg_sleep(60) from orders"))
        .expect("sent");
    eventually("it runs", || {
        let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'kept_lost' and query like '%pg_sleep(60)%'";
        (observer.query(sql).value() == "1").then_some(())
    });
    let (messages, ended) = client.drain(crate::harness::PATIENCE);
    assert!(ended, "{messages:?}");
    let last = messages.last().expect("a word about it");
    assert_eq!(last.field(b'V').as_deref(), Some("FATAL"));
}

#[test]
fn temporary_tables_of_two_clients_do_not_meet() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let (mut a, mut b) = (pgbraid.client(), pgbraid.client());
    for (client, value) in [(&mut a, "1"), (&mut b, "2")] {
        client.query("create temp table mine (v int)");
        client.query(&format!("insert into mine values ({value})"));
    }
    assert_eq!(a.query("select v from mine").value(), "1");
    assert_eq!(b.query("select v from mine").value(), "2");
    b.query("drop table mine");
    assert_eq!(
        b.query("select v from mine").sqlstate().as_deref(),
        Some("42P01")
    );
    assert_eq!(a.query("select v from mine").value(), "1");
    a.query("alter table mine alter v type text using 'x' || v");
    assert_eq!(a.query("select v from mine").value(), "x1");
    // What would have to be read elsewhere, or changed elsewhere.
    for sql in [
        "select count(*) from mine, users",
        "insert into mine select name from users",
        "create temp table t as select mine.*, orders.id from mine, orders",
        "update mine set v = (select name from users where id = 7)",
        "insert into countries select v, v from mine",
        "with x as (delete from countries returning *) insert into mine select code from x",
        "select * from mine where v in (select count_users()::text)",
        "create temp view w as select * from users",
        "create temp table child () inherits (countries)",
        "create temp table text (a int)",
        "alter table mine rename to int4",
        "alter table mine inherit countries",
        "create temp table u (like users including all)",
        "create temp table u (id int8 default nextval('counter'))",
        "create table u (id int8)",
        "create trigger t before insert on mine for each row execute function suppress_redundant_updates_trigger()",
        "select * from mine, countries for update",
        "insert into visits select 7, v, 1 from mine",
        "update users set name = (select v from mine) where id = 7",
        "delete from users where id = 7 and pg_try_advisory_lock(7)",
        "insert into visits (user_id, page) values (7, 'x') returning pg_notify('c', page)",
        "copy (insert into countries select v, v from mine returning 1) to stdout",
        "copy (select mine.v from mine, users) to stdout",
    ] {
        assert_eq!(a.query(sql).sqlstate().as_deref(), Some("0A000"), "{sql}");
    }
    assert_eq!(
        a.query("select count(*) from countries").value(),
        b.query("select count(*) from countries").value()
    );
    a.query("set search_path to public, pg_temp");
    a.query("create temp table users (id int8)");
    assert_eq!(
        a.query("select count(*) from users").sqlstate().as_deref(),
        Some("0A000")
    );
    assert_eq!(a.query("select count(*) from pg_temp.users").value(), "0");
    a.assert_in_step("temporary tables");
    pgbraid.assert_no_panic();
}

#[test]
fn what_is_kept_counts_as_a_change_of_its_shard() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut a = pgbraid.client();
    a.query("create temp table mine (v text)");
    for scripts in [
        [
            "insert into visits (user_id, page) values ({}, 'x')",
            "notify c",
        ],
        [
            "notify c",
            "insert into visits (user_id, page) values ({}, 'x')",
        ],
        [
            "insert into visits (user_id, page) values ({}, 'x')",
            "insert into mine values ('y')",
        ],
        [
            "select pg_notify('c', 'x')",
            "delete from visits where user_id = {}",
        ],
    ] {
        let mut states = Vec::new();
        for user in 1..=9 {
            a.query("begin");
            let replies =
                scripts.map(|sql| a.query(&sql.replace("{}", &user.to_string())).sqlstate());
            a.query("rollback");
            assert_eq!(replies[0], None, "{scripts:?}");
            states.push(replies[1].clone());
        }
        assert!(
            states.contains(&None) && states.contains(&Some("0A000".into())),
            "{scripts:?}: {states:?}"
        );
    }
    a.assert_in_step("changes of two shards");
    pgbraid.assert_no_panic();
}
