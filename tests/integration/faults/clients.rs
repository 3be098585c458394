//! Clients that leave, do not read, or cancel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{has_no_proxy, long_query, running};
use crate::harness::client::query;
use crate::harness::{Client, Config, Pgbraid, Reply, cluster, eventually};

#[test]
fn a_client_that_leaves_ends_its_shards_queries() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = pgbraid.client();
    client.send(&query(&long_query("711001"))).expect("sent");
    all_run("711001");
    drop(client);
    none_run("711001");
    assert_eq!(
        pgbraid.client().query("select count(*) from users").value(),
        "300"
    );
}

#[test]
fn a_client_that_leaves_while_rows_flow_ends_its_shards_queries() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = pgbraid.client();
    let sql = "select id, repeat(pad, 300) from big where id <> 711002";
    client.send(&query(sql)).expect("sent");
    client.receive().expect("a row description");
    client.receive().expect("a row");
    all_run("711002");
    drop(client);
    none_run("711002");
}

#[test]
fn a_cancel_reaches_every_shard_and_nobody_else() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let (mut one, mut other) = (pgbraid.client(), pgbraid.client());
    one.send(&query(&long_query("711003"))).expect("sent");
    other.send(&query(&long_query("711004"))).expect("sent");
    all_run("711003");
    all_run("711004");
    // A key that nobody has: nothing happens.
    let mut wrong = one.key.clone();
    *wrong.last_mut().expect("a key") ^= 1;
    Client::cancel(pgbraid.port, &wrong).expect("sent");
    assert_eq!(running("711003"), [1, 1, 1]);

    Client::cancel(pgbraid.port, &one.key).expect("sent");
    let reply = Reply::of(&one.until_ready().expect("session lost"));
    assert_eq!(
        reply.sqlstate().as_deref(),
        Some("57014"),
        "{}",
        reply.complaint()
    );
    none_run("711003");
    assert_eq!(running("711004"), [1, 1, 1], "another client's query");
    one.assert_in_step("a cancel");
    assert_eq!(one.query("select count(*) from users").value(), "300");

    Client::cancel(pgbraid.port, &other.key).expect("sent");
    let reply = Reply::of(&other.until_ready().expect("session lost"));
    assert_eq!(reply.sqlstate().as_deref(), Some("57014"));
    // A cancel that comes too late hits nothing.
    for _ in 0..20 {
        Client::cancel(pgbraid.port, &one.key).expect("sent");
        assert_eq!(one.query("select count(*) from users").value(), "300");
    }
}

#[test]
fn a_cancel_ends_the_wait_for_a_connection() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(1));
    let (mut holder, mut waiting) = (pgbraid.client(), pgbraid.client());
    holder.query("begin");
    assert_eq!(holder.query("select count(*) from users").value(), "300");
    let statements = [
        "select count(*) from users",
        "select name from users where id = 7",
        "select u.id, (select count(*) from big b where b.x = u.x) from users u",
    ];
    for sql in statements {
        let done = AtomicBool::new(false);
        let key = waiting.key.clone();
        let reply = thread::scope(|scope| {
            scope.spawn(|| {
                // One that comes before the statement is nobody's.
                while !done.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(50));
                    Client::cancel(pgbraid.port, &key).expect("sent");
                }
            });
            let reply = waiting.query(sql);
            done.store(true, Ordering::Relaxed);
            reply
        });
        assert_eq!(reply.sqlstate().as_deref(), Some("57014"), "{sql}");
    }
    holder.query("commit");
    waiting.assert_in_step("a cancel");
    assert_eq!(waiting.query("select count(*) from users").value(), "300");
}

/// In a block the connections stay with the client: a cancel that is still on its way to a shard would stop what comes next.
#[test]
fn a_late_cancel_does_not_hit_the_next_statement_of_the_block() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = pgbraid.client();
    let (key, port) = (client.key.clone(), pgbraid.port);
    let mut ended = [0, 0];
    for n in 0..60 {
        client.query("begin");
        client.query("savepoint a");
        let reply = thread::scope(|scope| {
            let canceller = scope.spawn(|| {
                thread::sleep(Duration::from_micros(17_000 + 100 * n));
                Client::cancel(port, &key).expect("sent");
            });
            let reply = client.query("select pg_sleep(0.02) from users where id = 7");
            canceller.join().expect("a canceller");
            reply
        });
        let state = reply.sqlstate();
        assert!(matches!(state.as_deref(), None | Some("57014")));
        ended[usize::from(state.is_some())] += 1;
        client.query("rollback to a");
        for _ in 0..3 {
            let reply = client.query("select count(*) from users");
            assert_eq!(reply.sqlstate(), None, "{n}: {}", reply.complaint());
            assert_eq!(reply.value(), "300");
        }
        assert_eq!(client.query("commit").tag, "COMMIT");
    }
    client.assert_in_step("cancels in blocks");
    assert!(ended[1] > 0, "{ended:?}");
}

#[test]
fn a_late_cancel_never_hits_a_later_statement_of_another_client() {
    if has_no_proxy() {
        return;
    }
    // Two connections to each shard: they change hands all the time.
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(2));
    let mut canceled = pgbraid.client();
    let key = canceled.key.clone();
    let port = pgbraid.port;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..150 {
                Client::cancel(port, &key).expect("sent");
            }
            done.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            let mut other = pgbraid.client();
            while !done.load(Ordering::Relaxed) {
                let reply = other.query("select count(*) from users");
                assert_eq!(reply.value(), "300");
            }
        });
        while !done.load(Ordering::Relaxed) {
            let reply = canceled.query("select count(*), sum(x) from big");
            let state = reply.sqlstate();
            assert!(
                matches!(state.as_deref(), None | Some("57014")),
                "{}",
                reply.complaint()
            );
        }
    });
    canceled.assert_in_step("cancels");
}

#[test]
fn a_client_that_does_not_read_costs_no_memory() {
    does_not_read(
        "select id, repeat(pad, 100) from big where id <> 711005",
        "711005",
    );
}

#[test]
fn a_client_that_does_not_read_merged_rows_costs_no_memory() {
    let sql = "select id, repeat(pad, 100) from big where id <> 711006 order by id";
    does_not_read(sql, "711006");
}

/// About 96 MB are to come; nothing is read until everything has filled up.
pub(super) fn does_not_read(sql: &str, marker: &str) {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = pgbraid.client();
    client.query("select count(*) from big");
    let before = pgbraid.resident_bytes();
    client.send(&query(sql)).expect("sent");
    all_run(marker);
    let until = Instant::now() + Duration::from_secs(2);
    let mut most = before;
    while Instant::now() < until {
        most = most.max(pgbraid.resident_bytes());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        running(marker),
        [1, 1, 1],
        "the shards have to wait for the client"
    );
    let mut rows = 0;
    loop {
        let message = client.receive().expect("session lost");
        match message.tag {
            b'D' | b'd' => rows += 1,
            b'E' => panic!("{:?}", message.field(b'M')),
            b'Z' => break,
            _ => {}
        }
        if rows % 1000 == 0 {
            most = most.max(pgbraid.resident_bytes());
        }
    }
    assert_eq!(rows, 30_000);
    let grown = (most - before) / 1024;
    assert!(grown < 24 * 1024, "{grown} KiB more");
}

pub(super) fn all_run(marker: &str) {
    eventually("the statement runs on every shard", || {
        (running(marker) == [1, 1, 1]).then_some(())
    });
}

pub(super) fn none_run(marker: &str) {
    eventually("the statement has ended on every shard", || {
        (running(marker) == [0, 0, 0]).then_some(())
    });
}
