//! What commands do.

use std::time::Duration;

use super::{config, console, done, row, rows, state};
use crate::harness::client::query;
use crate::harness::{Client, Pgbraid, Reply, cluster, eventually, target_is_postgres};

fn answer(client: &mut Client) -> Reply {
    Reply::of(&client.until_ready().expect("an answer"))
}

fn held(ops: &mut Client, count: usize) {
    let waiting = "SHOW QUERIES WHERE state = 'waiting'";
    eventually("statements are held", || {
        (rows(ops, waiting).len() == count).then_some(())
    });
}

#[test]
fn pause_holds_statements_and_resume_lets_them_go() {
    if target_is_postgres() {
        return;
    }
    let mut config = config();
    config.pool = "[pool]\nsize = 8\nqueue_timeout = \"200ms\"\n".into();
    let pgbraid = Pgbraid::start(config);
    let (mut ops, mut one, mut many) =
        (console(&pgbraid, "ops"), pgbraid.client(), pgbraid.client());
    one.query("select name from users where id = 7");
    one.query("select name from users where id = 7");
    done(&mut ops, "PAUSE", "PAUSE");
    assert!(
        rows(&mut ops, "SHOW SERVERS").is_empty(),
        "connections are closed"
    );
    assert_eq!(
        row(&mut ops, "SHOW STATE WHERE key = 'paused'")["value"],
        "yes"
    );
    assert_eq!(rows(&mut ops, "SHOW DATABASES WHERE paused = 1").len(), 3);
    // On the short way, and over all shards.
    one.send(&query("select name from users where id = 7"))
        .expect("sent");
    many.send(&query("select count(*) from users"))
        .expect("sent");
    held(&mut ops, 2);
    // Longer than a statement waits for a connection otherwise.
    eventually("it has waited for a second", || {
        (row(&mut ops, "SHOW POOLS WHERE database = 's1'")["maxwait"] != "0").then_some(())
    });
    done(&mut ops, "RESUME", "RESUME");
    assert_eq!(answer(&mut one).rows.len(), 1);
    assert_eq!(answer(&mut many).value(), "300");
    assert!(rows(&mut ops, "SHOW DATABASES WHERE paused = 1").is_empty());
}

#[test]
fn pause_of_one_shard_leaves_the_others_at_work() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    let mut shard_of = |id: u32| {
        let explained = client.query(&format!("explain select name from users where id = {id}"));
        let line = explained.rows[0][0].clone().expect("a line");
        let line = String::from_utf8(line).expect("text");
        let (_, name) = line.rsplit_once('(').expect("a shard");
        name.trim_end_matches(')').to_owned()
    };
    let paused = "s2";
    let there = (1..100)
        .find(|id| shard_of(*id) == paused)
        .expect("a key of s2");
    let elsewhere = (1..100)
        .find(|id| shard_of(*id) == "s3")
        .expect("a key of s3");
    for id in [there, elsewhere] {
        client.query(&format!("select name from users where id = {id}"));
    }
    done(&mut ops, "PAUSE s2", "PAUSE");
    assert_eq!(
        row(&mut ops, "SHOW SHARDS WHERE paused = 1")["name"],
        paused
    );
    let reply = client.query(&format!("select name from users where id = {elsewhere}"));
    assert_eq!(reply.rows.len(), 1, "{}", reply.complaint());
    // Steps on merge sessions find another shard.
    let merged = "select count(*) from tags t join countries c on true limit 1";
    assert!(client.query(merged).error.is_none());
    client
        .send(&query(&format!(
            "select name from users where id = {there}"
        )))
        .expect("sent");
    held(&mut ops, 1);
    done(&mut ops, "RESUME s2", "RESUME");
    assert_eq!(answer(&mut client).rows.len(), 1);
}

#[test]
fn a_paused_shard_is_left_alone_by_those_who_come_by_way_of_others() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut ops = console(&pgbraid, "ops");
    done(&mut ops, "PAUSE s3", "PAUSE");
    // The first shard tells what the statement is; then it would be held with that one's connection in hand.
    let [mut alone, mut in_block] = [(); 2].map(|()| pgbraid.client());
    in_block.query("begin");
    for client in [&mut alone, &mut in_block] {
        let never_seen = format!("select count(*) + {} from users", client.key[3]);
        client.send(&query(&never_seen)).expect("sent");
    }
    held(&mut ops, 2);
    let of_shard = "SHOW DATABASES WHERE name = 's3'";
    assert_eq!(row(&mut ops, of_shard)["current_connections"], "0");
    // What has not begun holds nothing.
    let busy = rows(&mut ops, "SHOW POOLS WHERE cl_active > 0");
    assert_eq!(busy.len(), 1, "{busy:?}");
    done(&mut ops, "RESUME", "RESUME");
    for client in [&mut alone, &mut in_block] {
        let first = client.key[3];
        assert_eq!(answer(client).value(), (300 + u32::from(first)).to_string());
    }
    in_block.query("commit");
}

#[test]
fn pause_waits_for_transactions_which_may_go_on_to_other_shards() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut watcher, mut client) = (
        console(&pgbraid, "ops"),
        console(&pgbraid, "exporter"),
        pgbraid.client(),
    );
    client.query("begin");
    client.query("select name from users where id = 7");
    ops.send(&query("PAUSE")).expect("sent");
    eventually("the shards are paused", || {
        (rows(&mut watcher, "SHOW DATABASES WHERE paused = 1").len() == 3).then_some(())
    });
    // It needs shards it has no connection to yet.
    assert_eq!(client.query("select count(*) from users").value(), "300");
    let (early, _) = ops.drain(Duration::from_millis(100));
    assert!(early.is_empty(), "the pause is over before the transaction");
    client.query("commit");
    assert_eq!(answer(&mut ops).tag, "PAUSE");
    done(&mut ops, "RESUME", "RESUME");
}

#[test]
fn a_pause_that_waits_can_be_cancelled_and_resumed() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut other, mut client) = (
        console(&pgbraid, "ops"),
        console(&pgbraid, "ops"),
        pgbraid.client(),
    );
    client.query("begin");
    client.query("select count(*) from users");
    for end in ["cancel", "resume"] {
        ops.send(&query("PAUSE")).expect("sent");
        eventually("the shards are paused", || {
            (rows(&mut other, "SHOW DATABASES WHERE paused = 1").len() == 3).then_some(())
        });
        match end {
            "cancel" => {
                let key = ops.key.clone();
                Client::cancel(pgbraid.port, &key).expect("sent");
                assert_eq!(state(&answer(&mut ops)), "57014");
                done(&mut ops, "RESUME", "RESUME");
            }
            _ => {
                done(&mut other, "RESUME", "RESUME");
                assert_eq!(state(&answer(&mut ops)), "55000");
            }
        }
    }
    client.query("commit");
    assert_eq!(client.query("select count(*) from users").value(), "300");
}

#[test]
fn kill_ends_a_client_whatever_it_does() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut ops = console(&pgbraid, "ops");
    let sleeping = "select pg_sleep(60), id from users where id > 0";
    for (before, runs) in [("select 1", false), ("begin", false), ("begin", true)] {
        let mut client = pgbraid.client();
        client.query(before);
        if runs {
            client.send(&query(sleeping)).expect("sent");
            eventually("it runs", || {
                rows(&mut ops, "SHOW QUERIES WHERE state = 'active'").pop()
            });
        }
        let id = i32::from_be_bytes(client.key[..4].try_into().expect("4 bytes"));
        done(&mut ops, &format!("KILL CLIENT {id}"), "KILL");
        let (messages, ended) = client.drain(crate::harness::PATIENCE);
        let errors: Vec<_> = messages.iter().filter(|m| m.tag == b'E').collect();
        assert_eq!(errors.len(), 1, "{messages:?}");
        assert_eq!(errors[0].field(b'C').as_deref(), Some("57P01"));
        assert_eq!(errors[0].field(b'S').as_deref(), Some("FATAL"));
        assert!(ended && messages.iter().all(|m| m.tag != b'Z'));
        eventually("it is gone", || {
            let sql = format!("SHOW CLIENTS WHERE id = {id}");
            rows(&mut ops, &sql).is_empty().then_some(())
        });
    }
    // What it ran has stopped.
    let mut shard = Client::connect(cluster().shards[0], "postgres", "").expect("a shard");
    eventually("no shard sleeps", || {
        let sql = "select count(*) from pg_stat_activity where state = 'active' \
                   and query like 'select pg_sleep(60), id from users%'";
        (shard.query(sql).value() == "0").then_some(())
    });
}

#[test]
fn who_kills_itself_is_told_before_it_goes() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut ops = console(&pgbraid, "ops");
    let id = i32::from_be_bytes(ops.key[..4].try_into().expect("4 bytes"));
    done(&mut ops, &format!("KILL {id}"), "KILL");
    let (messages, ended) = ops.drain(crate::harness::PATIENCE);
    let errors: Vec<_> = messages.iter().filter_map(|m| m.field(b'C')).collect();
    assert_eq!((errors, ended), (vec!["57P01".to_owned()], true));
    assert_eq!(rows(&mut console(&pgbraid, "ops"), "SHOW SHARDS").len(), 3);
}

#[test]
fn pause_and_resume_may_be_said_twice() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    done(&mut ops, "RESUME", "RESUME");
    done(&mut ops, "PAUSE s2", "PAUSE");
    done(&mut ops, "PAUSE", "PAUSE");
    done(&mut ops, "PAUSE", "PAUSE");
    client
        .send(&query("select count(*) from users"))
        .expect("sent");
    held(&mut ops, 1);
    // Who paused may have left.
    drop(ops);
    let mut ops = console(&pgbraid, "ops");
    done(&mut ops, "RESUME s1; RESUME; RESUME s1", "RESUME");
    assert_eq!(answer(&mut client).value(), "300");
}

#[test]
fn a_paused_pgbraid_shuts_down_with_statements_held() {
    if target_is_postgres() {
        return;
    }
    let mut pgbraid = Pgbraid::start(config().server("shutdown_grace = \"1s\""));
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    done(&mut ops, "PAUSE", "PAUSE");
    client
        .send(&query("select count(*) from users"))
        .expect("sent");
    held(&mut ops, 1);
    done(&mut ops, "SHUTDOWN", "SHUTDOWN");
    eventually("it ends", || pgbraid.has_ended());
    let (messages, ended) = client.drain(crate::harness::PATIENCE);
    let errors = messages.iter().filter(|m| m.tag == b'E');
    assert_eq!((errors.count(), ended), (1, true), "{messages:?}");
}

#[test]
fn reconnect_replaces_connections_without_harm() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut busy, mut client) =
        (console(&pgbraid, "ops"), pgbraid.client(), pgbraid.client());
    busy.query("begin");
    busy.query("select count(*) from users");
    client.query("select count(*) from users");
    let ids = |ops: &mut Client, link: &str| {
        let all = rows(ops, &format!("SHOW SERVERS WHERE link {link} ''"));
        all.into_iter().map(|s| s["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (ids(&mut ops, "=").len(), ids(&mut ops, "<>").len()),
        (3, 3)
    );
    let used = ids(&mut ops, "<>");
    done(&mut ops, "RECONNECT", "RECONNECT");
    assert!(
        ids(&mut ops, "=").is_empty(),
        "idle ones are closed at once"
    );
    assert_eq!(ids(&mut ops, "<>"), used, "the others when they come back");
    assert_eq!(busy.query("select count(*) from users").value(), "300");
    busy.query("commit");
    eventually("they are closed", || {
        let left = ids(&mut ops, "=");
        left.iter().all(|id| !used.contains(id)).then_some(())
    });
    assert_eq!(client.query("select count(*) from users").value(), "300");
}

#[test]
fn shutdown_ends_the_process() {
    if target_is_postgres() {
        return;
    }
    let mut pgbraid = Pgbraid::start(config());
    let mut ops = console(&pgbraid, "ops");
    done(&mut ops, "SHUTDOWN", "SHUTDOWN");
    eventually("it ends", || pgbraid.has_ended());
}

#[test]
fn shutdown_may_wait_for_the_last_client() {
    if target_is_postgres() {
        return;
    }
    let mut pgbraid = Pgbraid::start(config().server("shutdown_grace = \"1s\""));
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    done(&mut ops, "SHUTDOWN WAIT_FOR_CLIENTS", "SHUTDOWN");
    eventually("no more clients are taken", || {
        Client::connect(pgbraid.port, "app", "app").err()
    });
    // Idle as it is, it may stay and go on, and so may the console.
    assert_eq!(client.query("select count(*) from users").value(), "300");
    assert_eq!(
        rows(&mut ops, "SHOW CLIENTS WHERE database = 'app'").len(),
        1
    );
    drop(client);
    eventually("it ends", || pgbraid.has_ended());
}

#[test]
fn reload_reads_the_catalogs_again() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut ops = console(&pgbraid, "ops");
    done(&mut ops, "RELOAD", "RELOAD");
    assert!(pgbraid.log().contains("command=Reload"));
}
