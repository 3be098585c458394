//! SIGTERM: transactions finish within the grace, idle sessions are told, what is left ends with the grace.

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::has_no_proxy;
use crate::harness::client::{bind, execute, parse, query, sync};
use crate::harness::{Client, Config, Pgbraid, Reply, cluster};

const CLIENTS: usize = 12;

#[test]
fn sigterm_breaks_no_transaction_within_the_grace() {
    if has_no_proxy() {
        return;
    }
    let mut pgbraid = Pgbraid::start(Config::new(cluster()));
    let busy = Barrier::new(CLIENTS + 1);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (pgbraid, busy) = (&pgbraid, &busy);
            scope.spawn(move || {
                let mut client = pgbraid.client();
                let mut rounds = 0;
                while transaction(&mut client, number, || {
                    if rounds == 3 {
                        busy.wait();
                    }
                    rounds += 1;
                }) {}
                assert!(rounds > 3, "ended before the signal");
            });
        }
        busy.wait();
        pgbraid.signal("TERM");
    });
    assert!(pgbraid.wait_for_end().success());
}

/// One transaction with pauses; false when the server was gone before it began. Once begun nothing of it may fail.
fn transaction(client: &mut Client, number: usize, begun: impl FnOnce()) -> bool {
    match client.try_query("begin") {
        Ok(reply) if reply.error.is_none() => assert_eq!(reply.tag, "BEGIN"),
        Ok(reply) => {
            assert_eq!(reply.sqlstate().as_deref(), Some("57P01"));
            return false;
        }
        Err(error) => {
            assert_is_end(&error);
            return false;
        }
    }
    begun();
    for step in 0..4 {
        assert_eq!(client.query("select count(*) from users").value(), "300");
        let id = 1 + (number * 31 + step) % 290;
        let sql = format!("select id from users where id = {id}");
        assert_eq!(client.query(&sql).value(), id.to_string());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.query("commit").tag, "COMMIT");
    true
}

fn assert_is_end(error: &io::Error) {
    use io::ErrorKind as Kind;
    let kinds = [Kind::UnexpectedEof, Kind::ConnectionReset, Kind::BrokenPipe];
    assert!(kinds.contains(&error.kind()), "{error}");
}

#[test]
fn sigterm_tells_idle_sessions_and_turns_new_clients_away() {
    if has_no_proxy() {
        return;
    }
    let mut pgbraid = Pgbraid::start(Config::new(cluster()));
    let (mut idle, mut open) = (pgbraid.client(), pgbraid.client());
    idle.query("select count(*) from users");
    open.query("begin");
    pgbraid.signal("TERM");
    let told = idle.receive().expect("a word of the end");
    assert_eq!(told.field(b'C').as_deref(), Some("57P01"));
    assert!(Client::connect(pgbraid.port, "app", "app").is_err());
    assert_eq!(open.query("select count(*) from users").value(), "300");
    assert_eq!(open.query("commit").tag, "COMMIT");
    assert!(pgbraid.wait_for_end().success());
}

#[test]
fn sigterm_waits_for_a_pipeline_and_its_sync() {
    if has_no_proxy() {
        return;
    }
    let mut pgbraid = Pgbraid::start(Config::new(cluster()));
    let (mut client, mut idle) = (pgbraid.client(), pgbraid.client());
    let statement = [
        parse("", "select count(*) from users", &[]),
        bind("", "", &[], &[]),
        execute("", 0),
    ]
    .concat();
    let flush = crate::harness::client::flush();
    client
        .send(&[&statement[..], &flush].concat())
        .expect("sent");
    while client.receive().expect("an answer").tag != b'C' {}
    pgbraid.signal("TERM");
    idle.receive().expect("a word of the end");
    // Half of it was answered: the other half is the same transaction's.
    client
        .send(&[&statement[..], &sync()].concat())
        .expect("sent");
    let reply = Reply::of(&client.until_ready().expect("the rest of the pipeline"));
    assert_eq!(reply.value(), "300");
    assert!(pgbraid.wait_for_end().success());
}

#[test]
fn a_transaction_ends_with_the_grace() {
    if has_no_proxy() {
        return;
    }
    let config = Config::new(cluster()).server("shutdown_grace = \"1s\"");
    let mut pgbraid = Pgbraid::start(config);
    let mut client = pgbraid.client();
    client.query("begin");
    let begun = Instant::now();
    pgbraid.signal("TERM");
    let told = client.receive().expect("a word of the end");
    assert_eq!(told.field(b'C').as_deref(), Some("57P01"));
    assert!(begun.elapsed() >= Duration::from_millis(900));
    assert!(client.send(&query("commit")).is_err() || client.until_ready().is_err());
    assert!(pgbraid.wait_for_end().success());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}
