//! Nothing of one client reaches another through a shared connection. One connection to each shard makes sure it is the same.

use super::{has_no_proxy, user_on};
use crate::harness::client::{bind, execute, parse, query};
use crate::harness::cluster::SHARDS;
use crate::harness::{Client, Config, Pgbraid, cluster, eventually};

#[test]
fn settings_do_not_leak() {
    leaves_nothing(|client| {
        client.query("set timezone to 'Asia/Tokyo'");
        client.query("set application_name to 'left behind'");
        client.query("set my.value to 'left behind'");
        client.query("select count(*) from users");
    });
}

#[test]
fn settings_made_inside_a_select_do_not_leak() {
    leaves_nothing(|client| {
        client.query("select set_config('timezone', 'Asia/Tokyo', false)");
        client.query("select set_config('my.value', 'left behind', false)");
        client.query("select count(*) from users");
    });
}

#[test]
fn search_paths_do_not_leak() {
    leaves_nothing(|client| {
        client.query("set search_path to other");
        client.query("select count(*) from users");
    });
}

#[test]
fn roles_do_not_leak() {
    leaves_nothing(|client| {
        client.query("set role pg_monitor");
        client.query("select count(*) from countries");
    });
}

#[test]
fn open_transactions_do_not_leak() {
    leaves_nothing(|client| {
        client.query("begin isolation level repeatable read");
        client.query("set local timezone to 'Asia/Tokyo'");
        client.query("select count(*) from users");
    });
}

#[test]
fn failed_transactions_do_not_leak() {
    leaves_nothing(|client| {
        client.query("begin");
        client.query("select count(*) from users");
        client.query("select count(1 / (id - 17)) from users");
    });
}

#[test]
fn prepared_statements_do_not_leak() {
    leaves_nothing(|client| {
        client.query("prepare left_behind as select 1");
        client
            .send(&[parse("left_behind2", "select count(*) from users", &[])].concat())
            .expect("sent");
        client.query("select count(*) from users");
    });
}

#[test]
fn unread_rows_do_not_leak() {
    leaves_nothing(|client| {
        client
            .send(&query("select id, repeat(pad, 100) from big"))
            .expect("sent");
        client.receive().expect("a row description");
        client.receive().expect("a row");
    });
}

#[test]
fn unfinished_pipelines_do_not_leak() {
    leaves_nothing(|client| {
        let bytes = [
            parse("", "select id from users order by id", &[]),
            bind("p", "", &[], &[]),
            execute("p", 3),
        ];
        // No Sync: the portal stays open, and so does the implicit transaction.
        client.send(&bytes.concat()).expect("sent");
    });
}

#[test]
fn half_a_message_does_not_leak() {
    leaves_nothing(|client| {
        client.query("select count(*) from users");
        let bytes = query("select count(*) from users");
        client.send(&bytes[..bytes.len() - 5]).expect("sent");
    });
}

#[test]
fn temporary_tables_do_not_leak() {
    leaves_nothing(|client| {
        client.query("create temporary table users (id int8)");
        client.query("select count(*) from users");
    });
}

#[test]
fn advisory_locks_do_not_leak() {
    leaves_nothing(|client| {
        client.query("select pg_advisory_lock(711)");
    });
    let mut observer = Client::connect(cluster().shards[0], "postgres", "").expect("login");
    eventually("the lock is free", || {
        let reply = observer.query("select pg_try_advisory_lock(711)");
        (reply.value() == "t").then_some(())
    });
}

/// Has a client leave a mess behind, several times; the next one finds everything as if it were alone.
fn leaves_nothing(mess: impl Fn(&mut Client)) {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(1));
    for _ in 0..4 {
        let mut client = pgbraid.client();
        mess(&mut client);
        drop(client);
        let mut next = pgbraid.client();
        for user in (0..SHARDS).map(user_on) {
            let sql = format!(
                "select current_setting('timezone') || current_user || coalesce(current_setting('my.value', true), '') from users where id = {user}"
            );
            assert_eq!(next.query(&sql).value(), "UTCapp");
        }
        for (sql, expected) in [
            ("select count(*) from users", "300"),
            ("show search_path", "\"$user\", public"),
            ("show transaction_isolation", "read committed"),
        ] {
            assert_eq!(next.query(sql).value(), expected, "{sql}");
        }
        let application = next.query("show application_name").value();
        assert_ne!(application, "left behind");
        let reply = next.query("execute left_behind");
        assert!(reply.error.is_some(), "another client's statement ran");
        assert_eq!(reply.status, b'I');
    }
}
