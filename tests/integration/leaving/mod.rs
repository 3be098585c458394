//! Kinds of leaving: a client makes everything that a session can leave behind, and goes. The next one, over pools of one connection a
//! shard, finds nothing of it.

mod kinds;

use std::time::{Duration, Instant};

use crate::harness::client::frame;
use crate::harness::cluster::SHARDS;
use crate::harness::{Client, Config, Pgbraid, cluster, eventually, target_is_postgres};

use kinds::{End, KINDS, Leaving};

/// On the session's connection, and hiding a sharded table.
const MESS: [&str; 9] = [
    "set timezone to 'Asia/Tokyo'",
    "set my.value to 'left behind'",
    "select set_config('work_mem', '7MB', false)",
    "prepare left_behind as select 1",
    "listen left_behind",
    "select pg_advisory_lock(7110), pg_try_advisory_lock_shared(7111)",
    "create temp table users (id int8)",
    "create temp table left_behind as select code from countries",
    "select count(*) from orders",
];

fn leave(port: u16, mut client: Client, leaving: &Leaving) -> Option<Client> {
    client.send(&(leaving.bytes)()).expect("sent");
    let mut read = |count: usize| {
        for _ in 0..count {
            if client.receive().is_err() {
                break;
            }
        }
    };
    match leaving.end {
        End::Close => {}
        End::Terminate => client.send(&frame(b'X', &[])).expect("sent"),
        End::CloseBehind(count) => read(count),
        End::TerminateBehind(count) => {
            read(count);
            client.send(&frame(b'X', &[])).ok();
        }
        End::Cancel => {
            std::thread::sleep(Duration::from_millis(200));
            Client::cancel(port, &client.key).expect("cancel");
            client.until_ready().expect("an answer");
        }
        End::CancelAndClose => {
            std::thread::sleep(Duration::from_millis(200));
            Client::cancel(port, &client.key).expect("cancel");
        }
        End::Killed => kill_listeners(&mut client),
        End::Stay => return Some(client),
    }
    None
}

/// Ends the server process that has the lock, and hears the session out.
fn kill_listeners(client: &mut Client) {
    let mut observer = Client::connect(cluster().shards[0], "postgres", "").expect("login");
    observer.query(
        "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = 7110",
    );
    let (messages, ended) = client.drain(crate::harness::PATIENCE);
    assert!(ended, "a session without its locks went on");
    let last = messages.last().expect("a word about it");
    assert_eq!(last.field(b'V').as_deref(), Some("FATAL"));
    assert_eq!(last.field(b'C').as_deref(), Some("57P01"));
}

#[test]
fn nothing_is_left_behind() {
    if target_is_postgres() {
        return;
    }
    assert!(KINDS.len() >= 25);
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(1));
    let mut blocker = Client::connect(cluster().shards[0], "postgres", "").expect("login");
    blocker.query("select pg_advisory_lock(7199)");
    for leaving in KINDS {
        let since = Instant::now();
        let mut other = pgbraid.client();
        let mut client = pgbraid.client();
        for sql in MESS.iter().chain(leaving.before) {
            client.query(sql);
        }
        let stays = leave(pgbraid.port, client, leaving);
        finds_nothing(&mut other, leaving.name);
        drop(stays);
        println!("{:?} {}", since.elapsed(), leaving.name);
        pgbraid.assert_no_panic();
    }
}

fn finds_nothing(other: &mut Client, after: &str) {
    // First of all: what it would meet by chance.
    let reply = eventually(after, || {
        let reply = other.query("select count(*), sum(id) from users");
        // The pool's only connection is given back, or replaced, in a moment.
        (reply.sqlstate().as_deref() != Some("53300")).then_some(reply)
    });
    assert_eq!(
        reply.rows[0][0].as_deref(),
        Some(&b"300"[..]),
        "{after}: {}",
        reply.complaint()
    );
    for (sql, expected) in [
        ("show timezone", "UTC"),
        ("show work_mem", "4MB"),
        ("show transaction_isolation", "read committed"),
        ("select coalesce(current_setting('my.value', true), '')", ""),
        ("select count(*) from pg_listening_channels()", "0"),
        (
            "select count(*) from pg_class where relnamespace = pg_my_temp_schema()",
            "0",
        ),
        (
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
            "0",
        ),
        (
            "select to_regclass('left_behind') is null and to_regclass('left_too') is null",
            "t",
        ),
    ] {
        assert_eq!(other.query(sql).value(), expected, "{after}: {sql}");
    }
    for key in 1..=2 * SHARDS {
        let sql = format!(
            "select current_setting('timezone') || current_setting('work_mem') || coalesce(current_setting('my.value', true), '') from users where id = {key}"
        );
        assert_eq!(other.query(&sql).value(), "UTC4MB", "{after}");
    }
    for (sql, state) in [
        ("execute left_behind", "26000"),
        ("select * from left_behind", "42P01"),
        ("fetch left_c", "34000"),
    ] {
        let given = other.query(sql).sqlstate();
        assert_eq!(given.as_deref(), Some(state), "{after}: {sql}");
    }
    locks_are_free(after);
    // Whoever still listened would hear it.
    let mut observer = Client::connect(cluster().shards[0], "postgres", "").expect("login");
    observer.query("notify left_behind, 'heard'");
    observer.query("notify left_behind_too, 'heard'");
    let (messages, ended) = other.drain(Duration::from_millis(30));
    assert!(messages.is_empty() && !ended, "{after}: {messages:?}");
    other.assert_in_step(after);
}

fn locks_are_free(after: &str) {
    let mut observer = Client::connect(cluster().shards[0], "postgres", "").expect("login");
    for lock in [7110, 7111, 7112] {
        eventually(after, || {
            let reply = observer.query(&format!("select pg_try_advisory_lock({lock})"));
            (reply.value() == "t").then_some(())
        });
    }
}
