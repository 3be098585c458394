//! Pipelines of small reads that run side by side, when something goes wrong in the middle: every SELECT gets its own rows or an error, in
//! its place, and the next one works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{BROKEN, behind_relay, has_no_proxy, running, user_on};
use crate::harness::client::{parse, query, sync};
use crate::harness::relay::Fault;
use crate::harness::{Client, Config, Message, Pgbraid, Reply, cluster, eventually};
use crate::pipelines::{prepared, unit};

/// Ids of users on shards 0, 1, 2.
fn users() -> [i64; 3] {
    [0, 1, 2].map(|shard| user_on(shard).parse().expect("a number"))
}

/// A session whose statements every connection knows that a short pipeline uses.
fn warm(pgbraid: &Pgbraid) -> Client {
    let mut client = prepared(pgbraid.client());
    for _ in 0..3 {
        for id in users() {
            for name in ["point", "long"] {
                client.send(&unit(name, id)).expect("sent");
                client.until_ready().expect("answered");
            }
        }
    }
    client
}

/// Prepares, and runs for a key that has no row, a statement that takes its shard minutes for any other key.
fn prepare_slow(client: &mut Client, marker: &str) {
    let sql = format!(
        "select count(*) from users x, tags t, tags u, tags v, tags w, tags y where x.id = $1 and x.id + t.id + u.id + v.id + w.id + y.id < -{marker}"
    );
    client
        .send(&[parse("slow", &sql, &[20]), sync()].concat())
        .expect("sent");
    client.until_ready().expect("prepared");
    // Every shard has no user of some of these.
    for id in -9..0 {
        client.send(&unit("slow", id)).expect("sent");
        client.until_ready().expect("answered");
    }
}

fn id_of(batch: &[Message]) -> Result<i64, String> {
    let reply = Reply::of(batch);
    match reply.sqlstate() {
        Some(state) => Err(state),
        None => {
            assert_eq!(reply.rows.len(), 1, "{batch:?}");
            assert!(reply.tag.starts_with("SELECT 1"));
            let value = reply.rows[0][0].clone().expect("an id");
            Ok(String::from_utf8_lossy(&value).parse().expect("a number"))
        }
    }
}

#[test]
fn a_cancel_ends_the_read_at_the_head_only() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = warm(&pgbraid);
    prepare_slow(&mut client, "722001");
    let [a, b, c] = users();
    for statement in [false, true] {
        if statement {
            client.query("set statement_timeout = '300ms'");
        }
        let rest = [b, c, a, b, c].map(|id| unit("point", id)).concat();
        client
            .send(&[unit("slow", a), rest].concat())
            .expect("sent");
        eventually("the first runs", || {
            (running("722001") == [1, 0, 0] || statement).then_some(())
        });
        if !statement {
            assert!(client.drain(Duration::from_millis(200)).0.is_empty());
            Client::cancel(pgbraid.port, &client.key).expect("sent");
        }
        let first = client.until_ready().expect("session lost");
        assert_eq!(id_of(&first), Err("57014".into()));
        for id in [b, c, a, b, c] {
            let batch = client.until_ready().expect("session lost");
            assert_eq!(id_of(&batch), Ok(id));
        }
    }
    client.assert_in_step("a cancel");
    assert_eq!(running("722001"), [0, 0, 0]);
}

/// The head keeps its shard busy; the others have run meanwhile.
#[test]
fn other_shards_work_while_the_head_does() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = warm(&pgbraid);
    prepare_slow(&mut client, "722002");
    let [a, b, c] = users();
    let marked = "select id from users where 722003 > 0 and id = $1";
    client
        .send(&[parse("marked", marked, &[20]), sync()].concat())
        .expect("sent");
    client.until_ready().expect("prepared");
    for id in [a, b, c] {
        client.send(&unit("marked", id)).expect("sent");
        assert_eq!(id_of(&client.until_ready().expect("answered")), Ok(id));
    }
    let since = [0, 1, 2].map(clock);
    let others = [unit("marked", b), unit("marked", c)].concat();
    client
        .send(&[unit("slow", a), others.clone(), others].concat())
        .expect("sent");
    eventually("the first runs", || {
        (running("722002") == [1, 0, 0]).then_some(())
    });
    eventually("the others have run", || {
        let all = (1..3).all(|shard| has_run(shard, "722003", &since[shard]));
        all.then_some(())
    });
    assert!(client.drain(Duration::from_millis(100)).0.is_empty());
    Client::cancel(pgbraid.port, &client.key).expect("sent");
    let first = client.until_ready().expect("session lost");
    assert_eq!(id_of(&first), Err("57014".into()));
    for id in [b, c, b, c] {
        let batch = client.until_ready().expect("session lost");
        assert_eq!(id_of(&batch), Ok(id));
    }
}

/// A shard's clock.
fn clock(shard: usize) -> String {
    let mut observer = Client::connect(cluster().shards[shard], "postgres", "").expect("login");
    observer.query("select clock_timestamp()").value()
}

/// True when a connection's last statement was this one, since then.
fn has_run(shard: usize, marker: &str, since: &str) -> bool {
    let mut observer = Client::connect(cluster().shards[shard], "postgres", "").expect("login");
    let (head, tail) = marker.split_at(3);
    let sql = format!(
        "select count(*) > 0 from pg_stat_activity where state = 'idle' and query_start > '{since}' \
         and query like '%' || '{head}' || '{tail}' || '%'"
    );
    observer.query(&sql).value() == "t"
}

/// Reads a pipeline's replies: every one is its own row or an error of class 08.
fn own_rows_or_lost(client: &mut Client, ids: &[i64]) -> usize {
    let mut lost = 0;
    for (n, id) in ids.iter().enumerate() {
        let batch = client.until_ready().expect("session lost");
        match id_of(&batch) {
            Ok(found) => assert_eq!(found, *id, "reply {n}"),
            Err(state) => {
                assert!(state.starts_with("08"), "reply {n}: {state}");
                let error = Reply::of(&batch).complaint();
                assert!(error.contains(&format!("s{}", BROKEN + 1)), "{error}");
                lost += 1;
            }
        }
    }
    lost
}

#[test]
fn a_shard_that_dies_in_the_middle_takes_no_others_reads_along() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let mut client = warm(&pgbraid);
    let ids: Vec<i64> = (0..200).map(|n| 1 + n * 37 % 300).collect();
    let mut lost = 0;
    for point in 0..12 {
        let name = ["point", "long"][point % 2];
        let pipeline: Vec<u8> = ids.iter().flat_map(|id| unit(name, *id)).collect();
        let after = [0, 1, 90, 700, 1300, 3000, 7777, 20_000][point % 8];
        relay.arm(match point % 3 {
            0 => Fault::Reset { after },
            _ => Fault::Cut { after },
        });
        let mut writer = client.writer();
        lost += thread::scope(|scope| {
            scope.spawn(move || writer.send(&pipeline).expect("sent"));
            own_rows_or_lost(&mut client, &ids)
        });
        relay.heal();
        client.assert_in_step("a lost shard");
        // What is left of the cut is replaced.
        eventually("the shard is back", || {
            let reply = client.query("select count(*) from users");
            reply.error.is_none().then_some(())
        });
    }
    assert!(lost > 0);
}

#[test]
fn a_silent_shard_ends_its_own_reads_only() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c.server("shard_silence_timeout = \"400ms\""));
    let mut client = warm(&pgbraid);
    let [a, b, c] = users();
    let ids = [a, b, c, b, a, c];
    relay.arm(Fault::Stall { after: 0 });
    let pipeline: Vec<u8> = ids.iter().flat_map(|id| unit("point", *id)).collect();
    client.send(&pipeline).expect("sent");
    assert_eq!(own_rows_or_lost(&mut client, &ids), 2);
    relay.heal();
    client.assert_in_step("a silent shard");
}

#[test]
fn pipelines_share_one_connection_a_shard() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(1));
    thread::scope(|scope| {
        for number in 0..6 {
            let pgbraid = &pgbraid;
            scope.spawn(move || {
                let mut client = warm(pgbraid);
                for round in 0..4 {
                    let ids: Vec<i64> = (0..150).map(|n| 1 + (n * 41 + number) % 300).collect();
                    let name = ["point", "long"][(round + number as usize) % 2];
                    let pipeline: Vec<u8> = ids.iter().flat_map(|id| unit(name, *id)).collect();
                    let mut writer = client.writer();
                    thread::scope(|scope| {
                        scope.spawn(move || writer.send(&pipeline).expect("sent"));
                        assert_eq!(own_rows_or_lost(&mut client, &ids), 0);
                    });
                    assert_eq!(client.query("select count(*) from users").value(), "300");
                }
            });
        }
    });
}

#[test]
fn a_long_pipeline_lets_others_in() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(1));
    let (mut busy, mut other) = (warm(&pgbraid), warm(&pgbraid));
    let ids: Vec<i64> = (0..20_000).map(|n| 1 + n * 37 % 300).collect();
    let pipeline: Vec<u8> = ids.iter().flat_map(|id| unit("point", *id)).collect();
    let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut writer = busy.writer();
    thread::scope(|scope| {
        scope.spawn(move || writer.send(&pipeline).expect("sent"));
        scope.spawn(|| {
            assert_eq!(own_rows_or_lost(&mut busy, &ids[..100]), 0);
            begun.store(true, Ordering::SeqCst);
            assert_eq!(own_rows_or_lost(&mut busy, &ids[100..]), 0);
            ended.store(true, Ordering::SeqCst);
        });
        eventually("the pipeline is under way", || {
            begun.load(Ordering::SeqCst).then_some(())
        });
        // One shard's connection, then all of them.
        for id in users() {
            other.send(&unit("point", id)).expect("sent");
            assert_eq!(id_of(&other.until_ready().expect("answered")), Ok(id));
        }
        assert_eq!(other.query("select count(*) from users").value(), "300");
        assert!(
            !ended.load(Ordering::SeqCst),
            "the other client has waited for the end of the pipeline"
        );
    });
}

#[test]
fn a_client_that_does_not_read_a_pipelines_replies_costs_no_memory() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = warm(&pgbraid);
    let before = pgbraid.resident_bytes();
    // 48 KB each, 96 MB together.
    let ids: Vec<i64> = (0..2000).map(|n| 1 + n * 37 % 300).collect();
    let pipeline: Vec<u8> = ids.iter().flat_map(|id| unit("long", *id)).collect();
    let mut writer = client.writer();
    thread::scope(|scope| {
        scope.spawn(move || writer.send(&pipeline).expect("sent"));
        let until = Instant::now() + Duration::from_secs(2);
        let mut most = before;
        while Instant::now() < until {
            most = most.max(pgbraid.resident_bytes());
            thread::sleep(Duration::from_millis(20));
        }
        for ids in ids.chunks(100) {
            assert_eq!(own_rows_or_lost(&mut client, ids), 0);
            most = most.max(pgbraid.resident_bytes());
        }
        let grown = (most - before) / 1024;
        assert!(grown < 24 * 1024, "{grown} KiB more");
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(1));
    let [a, b, c] = users();
    for round in 0..20 {
        let mut client = warm(&pgbraid);
        if round % 4 == 0 {
            prepare_slow(&mut client, "722004");
            client.send(&unit("slow", a)).expect("sent");
        }
        let name = ["point", "long"][round % 2];
        let some: Vec<u8> = (0..60).flat_map(|n| unit(name, [a, b, c][n % 3])).collect();
        let length = some.len() - round % 7;
        client.send(&some[..length]).expect("sent");
        if round % 4 != 0 {
            for _ in 0..round {
                client.until_ready().expect("answered");
            }
        }
        drop(client);
        let mut next = warm(&pgbraid);
        assert_eq!(next.query("select count(*) from users").value(), "300");
        next.send(&query("select id from users where id = 9"))
            .expect("sent");
        assert_eq!(id_of(&next.until_ready().expect("answered")), Ok(9));
    }
    eventually("nothing of them runs", || {
        (running("722004") == [0, 0, 0]).then_some(())
    });
}
