//! SERIALIZABLE over several shards: what is read is of one instant, and what no order of transactions explains is refused.
//!
//! The tests share a table with `writes`; each has keys of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Client, Config, Pgbraid, cluster, target_is_postgres};
use crate::snapshots::Both;

/// Reads every shard twice.
const STEPS: &str =
    "select l.id, (select count(*) from dupes d where d.k <> l.k) from lonely l order by l.id";

#[test]
fn blocks_over_several_shards_answer_as_one_server() {
    if target_is_postgres() {
        return;
    }
    Both::start().all(&[
        "begin isolation level serializable",
        "select count(*) from users",
        "show transaction_isolation",
        STEPS,
        "select name from users where id = 7",
        "select count(*) from tags",
        "savepoint a",
        "select 1 / (id - 7) from users where id = 7",
        "rollback to a",
        STEPS,
        "commit and chain",
        "select count(*) from dupes",
        "show transaction_isolation",
        "rollback and chain",
        STEPS,
        "commit",
        "begin",
        "set transaction isolation level serializable, read only",
        "select count(*) from users",
        "insert into accounts (id, owner) values (5201, 'x')",
        "rollback",
        "begin",
        "set local timezone to 'Asia/Tokyo'",
        "set transaction_isolation to serializable",
        "select min(at)::text from events",
        "commit",
        "select min(at)::text from events",
        // A statement that is planned already, and locks: it ties the block to its shards only once these are in it.
        "begin",
        "select id from users order by id for update",
        "rollback",
        "begin",
        "set transaction isolation level serializable",
        "select id from users order by id for update",
        "show transaction_isolation",
        "commit and chain",
        "select id from users order by id for update",
        "rollback",
    ]);
}

#[test]
fn a_default_level_is_that_of_single_statements_and_messages() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    both.all(&[
        "set default_transaction_isolation to serializable",
        "select count(*) from users",
        STEPS,
        "select 1 / (id - 7) from users where id = 7",
        "select id from users order by id for update",
        "show transaction_isolation",
        "begin",
        "select count(*) from users",
        STEPS,
        "commit",
        "reset default_transaction_isolation",
        "show transaction_isolation",
        "select count(*) from users",
    ]);
    let message = "set default_transaction_isolation to serializable; select count(*) from users; select count(*) from dupes";
    both.same(message);
    both.all(&["select count(*) from users", STEPS]);
}

/// Nobody has said it in the session.
#[test]
fn a_level_that_a_role_has_by_default_is_kept() {
    if target_is_postgres() {
        return;
    }
    for port in &cluster().shards {
        let mut shard = Client::connect(*port, "postgres", "").expect("login");
        for sql in [
            "create role serial login password 'serial' in role pg_read_all_data, pg_write_all_data",
            "alter role serial set default_transaction_isolation = 'serializable'",
        ] {
            assert_eq!(shard.query(sql).sqlstate(), None, "{sql}");
        }
    }
    let config = || Config::new(cluster());
    let mut service = config().auth("shard_role = \"service\"");
    service.shard_user = "serial";
    service.shard_password = "serial".into();
    for (config, user) in [
        (config().user("serial", "serial", ""), "serial"),
        (service, "app"),
    ] {
        let pgbraid = Pgbraid::start(config);
        let mut client = Client::connect(pgbraid.port, user, user).expect("login");
        assert_eq!(client.query("select count(*) from users").value(), "300");
        client.query("begin");
        client.query("select count(*) from users");
        let level = client.query("show transaction_isolation");
        assert_eq!(level.value(), "serializable", "{user}");
        let refused = client.query("insert into accounts (id) values (5203)");
        assert_eq!(refused.sqlstate().as_deref(), Some("0A000"), "{user}");
        client.query("rollback");
        client.query("begin isolation level read committed");
        client.query("select count(*) from users");
        let inserted = client.query("insert into accounts (id) values (5203)");
        assert_eq!(
            inserted.sqlstate(),
            None,
            "{user}: {}",
            inserted.complaint()
        );
        client.query("rollback");
        client.assert_in_step("a level by default");
    }
}

#[test]
fn one_shard_is_changed_and_read_as_on_one_server() {
    if target_is_postgres() {
        return;
    }
    Both::start().all(&[
        "begin isolation level serializable",
        "select relname from pg_class where relname = 'accounts'",
        "select balance from accounts where id = 5202",
        "select count(*) from tags",
        "insert into accounts (id, owner, balance) values (5202, 'x', 7)",
        "select balance from accounts where id = 5202",
        "select count(*) from tags",
        "update accounts set balance = balance + 1 where id = 5202 returning balance",
        "commit",
        "select balance from accounts where id = 5202",
        "begin isolation level serializable",
        "delete from accounts where id = 5202",
        "commit",
    ]);
}

fn refused(client: &mut Client, sql: &str) {
    let reply = client.query(sql);
    let complaint = reply.complaint();
    assert_eq!(
        reply.sqlstate().as_deref(),
        Some("0A000"),
        "{sql}: {complaint}"
    );
}

/// Each of two doctors may leave while the other one stays. On one server one of them is told 40001; no shard would see it.
#[test]
fn who_reads_several_shards_changes_none() {
    if target_is_postgres() {
        return;
    }
    let both = Both::start();
    let mut client = both.pgbraid().client();
    client.query("begin isolation level serializable");
    client.query("select count(*) from accounts where id between 5210 and 5219");
    refused(&mut client, "insert into accounts (id) values (5210)");
    client.query("rollback");
    client.query("begin isolation level serializable");
    let inserted = client.query("insert into accounts (id) values (5210)");
    assert_eq!(inserted.sqlstate(), None, "{}", inserted.complaint());
    refused(&mut client, "select count(*) from users");
    client.query("rollback");
    assert_eq!(
        client
            .query("select count(*) from accounts where id = 5210")
            .value(),
        "0"
    );
    client.assert_in_step("refusals");
}

/// A session that keeps its connection to the first shard has that one only.
#[test]
fn a_kept_connection_stays_on_its_shard() {
    if target_is_postgres() {
        return;
    }
    let both = Both::start();
    let mut client = both.pgbraid().client();
    client.query("create temp table own (a int)");
    client.query("begin isolation level serializable");
    assert_eq!(client.query("select count(*) from own").value(), "0");
    refused(&mut client, "select count(*) from users");
    client.query("rollback");
    client.query("drop table own");
    client.query("begin isolation level serializable");
    assert_eq!(client.query("select count(*) > 0 from users").value(), "t");
    client.query("commit");
    client.assert_in_step("pins");
}

/// One account is added to behind another, on another shard, by whoever writes there. Whatever instant is read, the second has not got
/// ahead of the first.
#[test]
fn all_shards_are_read_as_of_one_instant() {
    if target_is_postgres() {
        return;
    }
    let both = Both::start();
    let mut client = both.pgbraid().client();
    let (first, second) = accounts_apart(&mut client);
    let done = AtomicBool::new(false);
    let (read, again) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let add = |(port, id): (u16, i64), client: &mut Client| {
                let sql = format!("update accounts set balance = balance + 1 where id = {id}");
                let reply = client.query(&sql);
                assert_eq!(reply.tag, "UPDATE 1", "{} on {port}", reply.complaint());
            };
            let mut writers = [first, second].map(|(port, _)| shard_client(port));
            while !done.load(Ordering::Relaxed) {
                add(first, &mut writers[0]);
                add(second, &mut writers[1]);
                // Other tests look for instants without changes, too.
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let _ended = Ended(&done);
        read_pairs(&mut client, first.1, second.1)
    });
    assert!(read > 0, "no instant was found, {again} times");
    client.query(&format!("delete from accounts where id = {}", first.1));
    client.query(&format!("delete from accounts where id = {}", second.1));
    client.assert_in_step("instants");
}

/// Has the writer stop, also when the reader fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How often both accounts were read, and how often there was no instant for it.
fn read_pairs(client: &mut Client, first: i64, second: i64) -> (u32, u32) {
    let (mut read, mut again) = (0, 0);
    while read < 100 && again < 20 {
        client.query("begin isolation level serializable");
        let mut balance = |id: i64| {
            let reply = client.query(&format!("select balance from accounts where id = {id}"));
            match reply.sqlstate().as_deref() {
                None => Some(reply.value().parse::<f64>().expect("a number")),
                Some("40001") => None,
                Some(_) => panic!("{}", reply.complaint()),
            }
        };
        // The second is read later, but as of the same instant.
        match balance(first).zip(balance(second)) {
            Some((first, second)) => {
                assert!(second <= first, "{second} and {first} after {read} reads");
                read += 1;
            }
            None => again += 1,
        }
        client.query("rollback");
    }
    (read, again)
}

/// Two accounts on two shards, each with that shard's port.
fn accounts_apart(client: &mut Client) -> ((u16, i64), (u16, i64)) {
    let found: Vec<_> = (5220..5240)
        .map(|id| {
            client.query(&format!(
                "insert into accounts (id, balance) values ({id}, 0)"
            ));
            let holds = |port: &&u16| {
                let sql = format!("select count(*) from accounts where id = {id}");
                shard_client(**port).query(&sql).value() == "1"
            };
            let port = cluster().shards.iter().find(holds).expect("a shard has it");
            (*port, id)
        })
        .collect();
    let first = found[0];
    let second = *found
        .iter()
        .find(|(port, _)| *port != first.0)
        .expect("another shard");
    for (_, id) in found.iter().filter(|f| **f != first && **f != second) {
        client.query(&format!("delete from accounts where id = {id}"));
    }
    (first, second)
}

fn shard_client(port: u16) -> Client {
    Client::connect(port, "app", "app").expect("login")
}
