//! COPY … TO STDOUT over shards that die, and for clients that leave, cancel or do not read.

use super::clients::{all_run, does_not_read, none_run};
use super::shards::assert_is_loss;
use super::{behind_relay, has_no_proxy};
use crate::harness::client::query;
use crate::harness::relay::Fault;
use crate::harness::{Client, Config, Message, Pgbraid, Reply, cluster};

const TABLE: &str = "copy big to stdout";
const TABLE_BINARY: &str = "copy big to stdout (format binary)";
const MERGED: &str =
    "copy (select id, pad from big where id <= 6000 order by x, id) to stdout (format csv, header)";
const GATHERED: &str = "copy (select id, pad from big where id <= 6000) to stdout (format binary)";

#[test]
fn a_shard_cut_in_a_copy_is_an_error() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let mut client = pgbraid.client();
    for sql in [TABLE, TABLE_BINARY, MERGED, GATHERED] {
        cut(&relay, &mut client, sql, 12);
    }
}

fn cut(relay: &crate::harness::Relay, client: &mut Client, sql: &str, points: u64) {
    let ask = |client: &mut Client| {
        client.send(&query(sql)).expect("sent");
        client.until_ready().expect("session lost")
    };
    ask(client);
    relay.arm(Fault::None);
    let rows = data(&ask(client)).len();
    let bytes = relay.passed();
    for point in 0..points {
        let after = match point {
            0..3 => point * 7,
            3..6 => bytes - 1 - (point - 3) * 20,
            _ => bytes * point / points,
        };
        relay.arm(match point % 2 {
            0 => Fault::Cut { after },
            _ => Fault::Reset { after },
        });
        let messages = ask(client);
        let reply = Reply::of(&messages);
        let place = format!("{sql}: cut after {after} of {bytes} bytes");
        if reply.error.is_none() {
            assert!(after + 30 >= bytes, "{place}: an answer");
            assert_eq!(data(&messages).len(), rows, "{place}");
        } else {
            assert_is_loss(&reply, &place);
            assert!(!messages.iter().any(|m| m.tag == b'c'), "{place}: CopyDone");
        }
        relay.heal();
        assert_eq!(data(&ask(client)).len(), rows, "after a {place}");
    }
}

fn data(messages: &[Message]) -> Vec<&Message> {
    messages.iter().filter(|m| m.tag == b'd').collect()
}

#[test]
fn a_cancel_ends_a_copy_on_every_shard() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = pgbraid.client();
    for (marker, order) in [("711101", ""), ("711102", "order by id")] {
        let sql = format!(
            "copy (select id, repeat(pad, 300) from big where id <> {marker} {order}) to stdout"
        );
        client.send(&query(&sql)).expect("sent");
        while client.receive().expect("a message").tag != b'd' {}
        all_run(marker);
        Client::cancel(pgbraid.port, &client.key).expect("sent");
        let messages = client.until_ready().expect("session lost");
        let reply = Reply::of(&messages);
        assert_eq!(
            reply.sqlstate().as_deref(),
            Some("57014"),
            "{}",
            reply.complaint()
        );
        assert!(!messages.iter().any(|m| m.tag == b'c'), "CopyDone");
        none_run(marker);
        client.assert_in_step("a cancelled COPY");
    }
}

#[test]
fn a_client_that_leaves_a_copy_ends_it() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(1));
    for (marker, order) in [("711103", ""), ("711104", "order by id")] {
        let mut client = pgbraid.client();
        let sql = format!(
            "copy (select id, repeat(pad, 300) from big where id <> {marker} {order}) to stdout csv"
        );
        client.send(&query(&sql)).expect("sent");
        while client.receive().expect("a message").tag != b'd' {}
        all_run(marker);
        drop(client);
        none_run(marker);
        assert_eq!(
            pgbraid.client().query("select count(*) from users").value(),
            "300"
        );
    }
}

#[test]
fn a_client_that_does_not_read_a_copy_costs_no_memory() {
    for (marker, order) in [("711105", ""), ("711106", "order by id")] {
        let query = format!("select id, repeat(pad, 100) from big where id <> {marker} {order}");
        does_not_read(&format!("copy ({query}) to stdout"), marker);
    }
}
