//! Shards that die at any byte, fall silent, are slow, refuse the login or have another schema.

use std::time::{Duration, Instant};

use super::{BROKEN, behind_relay, has_no_proxy, user_on};
use crate::harness::client::{bind, execute, parse, sync};
use crate::harness::relay::Fault;
use crate::harness::{Client, Config, Load, Message, Pgbraid, Relay, Reply, cluster, eventually};

const GATHER: &str = "select id, pad from big where id <= 6000";
const MERGE: &str = "select id, pad from big where id <= 6000 order by x, id";
const AGGREGATE: &str =
    "select id % 500 as g, count(*), sum(x), min(pad) from big group by id % 500";

#[test]
fn a_shard_cut_while_rows_flow_is_an_error() {
    cut_everywhere(GATHER, 40, false);
}

#[test]
fn a_shard_cut_while_rows_are_merged_is_an_error() {
    cut_everywhere(MERGE, 40, false);
}

#[test]
fn a_shard_cut_while_aggregating_is_an_error() {
    cut_everywhere(AGGREGATE, 20, false);
}

#[test]
fn a_shard_cut_in_the_extended_protocol_is_an_error() {
    cut_everywhere(GATHER, 20, true);
}

#[test]
fn a_shard_cut_on_the_short_way_is_an_error() {
    let id = user_on(1);
    let sql =
        format!("select b.id, b.pad, g from big b, generate_series(1, 100) g where b.id = {id}");
    cut_everywhere(&sql, 30, true);
    cut_everywhere(&sql, 10, false);
}

fn cut_everywhere(sql: &str, points: u64, extended: bool) {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let mut client = pgbraid.client();
    let ask = |client: &mut Client| match extended {
        false => {
            client
                .send(&crate::harness::client::query(sql))
                .expect("sent");
            client.until_ready().expect("session lost")
        }
        true => ask_extended(client, sql),
    };
    let whole = sorted(ask(&mut client));
    relay.arm(Fault::None);
    assert_eq!(sorted(ask(&mut client)), whole);
    let bytes = relay.passed();
    assert!(bytes > 500, "{bytes} bytes from the shard");
    for point in 0..points {
        // Most points lie among the rows, some right at the beginning and the end.
        let after = match point {
            0..5 => point * 7,
            5..8 => bytes - 1 - (point - 5) * 40,
            _ => bytes * point / points,
        };
        relay.arm(match point % 2 {
            0 => Fault::Cut { after },
            _ => Fault::Reset { after },
        });
        let messages = ask(&mut client);
        let reply = Reply::of(&messages);
        let place = format!("cut after {after} of {bytes} bytes");
        if reply.error.is_none() {
            // The shard had said everything but its last word.
            assert!(after + 30 >= bytes, "{place}: an answer");
            assert_eq!(sorted(messages), whole, "{place}");
        } else {
            assert_is_loss(&reply, &place);
        }
        relay.heal();
        assert_eq!(sorted(ask(&mut client)), whole, "after a {place}");
    }
}

fn ask_extended(client: &mut Client, sql: &str) -> Vec<Message> {
    let bytes = [
        parse("", sql, &[]),
        bind("", "", &[], &[1]),
        execute("", 0),
        sync(),
    ];
    client.send(&bytes.concat()).expect("sent");
    client.until_ready().expect("session lost")
}

fn sorted(messages: Vec<Message>) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut rows = Reply::of(&messages).rows;
    rows.sort();
    rows
}

/// One ERROR that names the shard, and nothing that looks like an end.
pub(super) fn assert_is_loss(reply: &Reply, place: &str) {
    let error = reply.error.as_ref().expect("an error");
    let state = error.field(b'C').unwrap_or_default();
    assert!(
        state.starts_with("08") || state.starts_with("57"),
        "{place}: {}",
        reply.complaint()
    );
    assert_eq!(error.field(b'V').as_deref(), Some("ERROR"), "{place}");
    assert_eq!(reply.tag, "", "{place}: CommandComplete");
    let text = [b'M', b'D']
        .map(|c| error.field(c).unwrap_or_default())
        .concat();
    assert!(
        text.contains("s2"),
        "{place}: does not name the shard: {text}"
    );
}

#[test]
fn a_dead_shard_fails_its_statements_only() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let mut client = pgbraid.client();
    relay.arm(Fault::Cut { after: 0 });
    for _ in 0..3 {
        assert_is_loss(&client.query("select count(*) from users"), "dead");
    }
    let elsewhere = user_on(0);
    let sql = format!("select id from users where id = {elsewhere}");
    assert_eq!(client.query(&sql).value(), elsewhere);
    // A new client can log in, too.
    assert_eq!(pgbraid.client().query(&sql).value(), elsewhere);
    relay.heal();
    assert_eq!(client.query("select count(*) from users").value(), "300");
}

#[test]
fn a_lost_shard_fails_the_transaction_and_not_the_session() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let mut client = pgbraid.client();
    assert_eq!(client.query("begin").status, b'T');
    assert_eq!(client.query("select count(*) from users").value(), "300");
    relay.arm(Fault::Cut { after: 0 });
    let reply = client.query("select count(*) from users");
    assert_is_loss(&reply, "in a transaction");
    assert_eq!(reply.status, b'E');
    relay.heal();
    assert_eq!(
        client.query("select 1").sqlstate().as_deref(),
        Some("25P02")
    );
    assert_eq!(client.query("rollback").status, b'I');
    assert_eq!(client.query("select count(*) from users").value(), "300");
}

#[test]
fn a_silent_shard_is_an_error_at_the_deadline() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c.server("shard_silence_timeout = \"1s\""));
    let mut client = pgbraid.client();
    let whole = client.query(GATHER).rows.len();
    relay.arm(Fault::None);
    client.query(GATHER);
    let bytes = relay.passed();
    for after in [0, 9, bytes / 2, bytes - 40] {
        relay.arm(Fault::Stall { after });
        let begun = Instant::now();
        let reply = client.query(GATHER);
        let place = format!("silent after {after} of {bytes} bytes");
        assert_is_loss(&reply, &place);
        let waited = begun.elapsed();
        assert!(
            waited > Duration::from_millis(900) && waited < Duration::from_secs(10),
            "{place}: {waited:?}"
        );
        relay.heal();
        assert_eq!(client.query(GATHER).rows.len(), whole, "after {place}");
    }
}

#[test]
fn a_slow_shard_slows_nobody_else() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let mut waiting = pgbraid.client();
    let mut other = pgbraid.client();
    assert_eq!(waiting.query("select count(*) from users").value(), "300");
    let sql = format!("select id from users where id = {}", user_on(0));
    other.query(&sql);
    let pause = Duration::from_millis(700);
    relay.arm(Fault::Delay { pause });
    let begun = Instant::now();
    waiting
        .send(&crate::harness::client::query("select count(*) from users"))
        .expect("sent");
    for _ in 0..5 {
        other.query(&sql);
    }
    assert!(begun.elapsed() < pause, "others took {:?}", begun.elapsed());
    let reply = Reply::of(&waiting.until_ready().expect("session lost"));
    assert_eq!(reply.value(), "300");
    assert!(begun.elapsed() >= pause);
}

#[test]
fn a_restarted_shard_is_found_again() {
    if has_no_proxy() {
        return;
    }
    // Another pgbraid's connections are not to be ended: this one logs in under another name.
    let mut config = Config::new(cluster()).pool_size(4);
    config.shard_user = "guarded";
    config.shard_password = "secret".into();
    let relay = Relay::start(cluster().shards[BROKEN]);
    let pgbraid = Pgbraid::start(config.with_port(BROKEN, relay.port));
    let mut clients: Vec<_> = (0..4).map(|_| pgbraid.client()).collect();
    for client in &mut clients {
        client
            .send(&crate::harness::client::query(GATHER))
            .expect("sent");
    }
    for client in &mut clients {
        client.until_ready().expect("session lost");
    }
    // Every idle connection ends, as at a restart.
    relay.arm(Fault::Cut { after: 0 });
    relay.heal();
    for client in &mut clients {
        let first = client.query("select count(*) from users");
        if first.error.is_some() {
            assert_is_loss(&first, "restarted");
        }
        assert_eq!(client.query("select count(*) from users").value(), "300");
    }
}

/// Keys of accounts that no other test has.
const OWN_KEYS: std::ops::RangeInclusive<u32> = 7000..=7039;

/// One account on each shard.
fn own_accounts(client: &mut Client) -> Vec<String> {
    for id in OWN_KEYS {
        let sql = format!("insert into accounts (id) values ({id})");
        assert!(client.query(&sql).error.is_none(), "{sql}");
    }
    let on_shard = |port: &u16| {
        let mut shard = Client::connect(*port, "app", "app").expect("login");
        let sql = format!("select min(id) from accounts where {}", own_keys());
        shard.query(&sql).value()
    };
    cluster().shards.iter().map(on_shard).collect()
}

fn own_keys() -> String {
    format!("id between {} and {}", OWN_KEYS.start(), OWN_KEYS.end())
}

/// A statement that failed, with whether it needed the shard that is broken.
type Failure = (bool, Reply);

/// What a client does over and over: an account is read, then changed in a transaction, and all users are counted.
fn round(client: &mut Client, shard: usize, account: &str) -> Result<(), Vec<Failure>> {
    let read = format!("select id from accounts where id = {account}");
    let change = format!("update accounts set balance = balance + 1 where id = {account}");
    let needs_it = shard == BROKEN;
    let mut failed = Vec::new();
    let mut ask = |sql: &str, needs_it: bool| {
        let reply = client.query(sql);
        let done = reply.error.is_none();
        if !done {
            failed.push((needs_it, reply));
        }
        done
    };
    ask(&read, needs_it);
    ask("begin", false);
    let changed = ask(&change, needs_it) && ask(&read, needs_it);
    // A shard that has gone with a change in hand tells only now.
    ask(if changed { "commit" } else { "rollback" }, needs_it);
    ask("select count(*) from users", true);
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed)
    }
}

#[test]
fn a_shard_that_dies_under_load_fails_only_what_needs_it() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let accounts = own_accounts(&mut pgbraid.client());
    let work = |client: &mut Client, number: usize| {
        let shard = number % accounts.len();
        round(client, shard, &accounts[shard])
    };
    let failed = Load::run(
        8,
        |_| pgbraid.client(),
        work,
        |load| {
            load.wait_for_done(16);
            relay.arm(Fault::Cut { after: 0 });
            load.wait_for_failed(16);
            relay.heal();
            load.wait_for_done(16);
        },
    );
    for (needs_it, reply) in failed.iter().flatten() {
        assert!(needs_it, "{}", reply.complaint());
        assert_is_loss(reply, "under load");
    }
    for port in cluster().shards {
        let mut shard = Client::connect(port, "app", "app").expect("login");
        let delete = format!("delete from accounts where {}", own_keys());
        assert!(shard.query(&delete).error.is_none());
    }
}

#[test]
fn a_wrong_password_for_a_shard_is_said_and_not_shown() {
    if has_no_proxy() {
        return;
    }
    let mut config = Config::new(cluster());
    config.shard_user = "guarded";
    config.shard_password = "wr0ng-pa55word".into();
    let pgbraid = Pgbraid::launch(&config);
    let named = eventually("a word about the shard's login", || {
        let log = pgbraid.log();
        let asked = Client::connect(pgbraid.port, "app", "app").map(|mut c| {
            c.try_query("select count(*) from users")
                .map(|r| r.complaint())
        });
        let said = match asked {
            Ok(Ok(complaint)) => complaint,
            Ok(Err(_)) => String::new(),
            Err(complaint) => complaint,
        };
        let all = format!("{log}\n{said}");
        (all.contains("password authentication failed") || all.contains("28P01")).then_some(all)
    });
    assert!(!named.contains("wr0ng-pa55word"), "the password is shown");
}

#[test]
fn shards_may_ask_for_scram() {
    if has_no_proxy() {
        return;
    }
    let mut config = Config::new(cluster());
    config.shard_user = "guarded";
    config.shard_password = "secret".into();
    let pgbraid = Pgbraid::start(config);
    let mut client = pgbraid.client();
    assert_eq!(client.query("select count(*) from users").value(), "300");
}

#[test]
fn tables_that_differ_between_shards_are_an_error_before_the_first_row() {
    if has_no_proxy() {
        return;
    }
    let mut config = Config::new(cluster());
    config.more = "[[table]]\nname = \"public.drift\"\nkey = \"id\"\n".into();
    let pgbraid = Pgbraid::start(config);
    let mut client = pgbraid.client();
    for sql in [
        "select * from drift",
        "select v from drift order by v",
        "select max(v) from drift",
    ] {
        let reply = client.query(sql);
        assert!(reply.error.is_some(), "{sql}: answered");
        assert!(reply.rows.is_empty(), "{sql}: rows before the error");
        client.assert_in_step(sql);
    }
}

#[test]
fn a_connection_to_a_shard_is_used_again() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let mut client = pgbraid.client();
    client.query("select count(*) from users");
    let before = opened(&relay);
    for _ in 0..20 {
        client.query("select count(*) from users");
        client.query("select nope from users");
    }
    let more = opened(&relay) - before;
    assert!(more <= 2, "{more} more connections for 40 statements");
}

fn opened(relay: &Relay) -> usize {
    relay.opened()
}

/// The block has failed, and its shards have rolled back: COMMIT says so, as in PostgreSQL.
#[test]
fn the_end_of_a_block_that_lost_a_shard_is_a_rollback() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let mut client = pgbraid.client();
    let count = "select count(*) from users";
    let lose = |client: &mut Client, relay: &Relay| {
        assert_eq!(client.query(count).value(), "300");
        relay.arm(Fault::Cut { after: 0 });
        assert_is_loss(&Reply::of(&ask_extended(client, count)), "in a block");
    };
    for (end, status) in [
        ("commit", b'I'),
        ("rollback", b'I'),
        ("end", b'I'),
        ("commit and chain", b'T'),
        ("rollback and chain", b'T'),
    ] {
        for healed in [false, true] {
            client.query("begin");
            client.query("set local work_mem = '7MB'");
            lose(&mut client, &relay);
            if healed {
                relay.heal();
            }
            let reply = client.query(end);
            assert!(reply.error.is_none(), "{end}: {}", reply.complaint());
            assert_eq!(
                (reply.tag.as_str(), reply.status),
                ("ROLLBACK", status),
                "{end}"
            );
            relay.heal();
            let again = client.query(count);
            assert_eq!(again.value(), "300", "{end}: {}", again.complaint());
            client.query("rollback");
            assert_ne!(client.query("show work_mem").value(), "7MB");
        }
    }
    // Nobody has seen yet that the connection is lost.
    client.query("begin");
    assert_eq!(client.query(count).value(), "300");
    assert!(client.query("select 1/0").error.is_some());
    relay.arm(Fault::Cut { after: 0 });
    let reply = client.query("commit");
    assert_eq!(reply.tag, "ROLLBACK", "{}", reply.complaint());
    // A block that has not failed cannot be said to have ended well.
    relay.heal();
    client.query("begin");
    assert_eq!(client.query(count).value(), "300");
    relay.arm(Fault::Cut { after: 0 });
    let reply = client.query("commit");
    assert_eq!(reply.sqlstate().as_deref(), Some("08006"));
    relay.heal();
    client.assert_in_step("blocks");
}
