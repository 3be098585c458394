//! Stages large enough to become tables: shards cut while their rows come, merge sessions that die, clients that leave or
//! cancel in the middle of COPY.

use super::{BROKEN, behind_relay, has_no_proxy};
use crate::harness::client::query;
use crate::harness::relay::Fault;
use crate::harness::{Client, Config, Pgbraid, Relay, Reply, cluster, eventually};

/// Both stages of it are large; every row depends on all others.
const STAGED: &str = "select b.id, b.pad, row_number() over (order by b.x, b.id) from big b \
     where b.id < 9000 and b.id <= (select max(c.id) from big c where c.x = b.x)";

/// Bytes after which the broken shard stalls: the stage is a table by then and not yet complete.
const STALL_AFTER: u64 = 100_000;

fn rows(reply: Reply) -> Vec<Vec<Option<Vec<u8>>>> {
    assert!(reply.error.is_none(), "{}", reply.complaint());
    let mut rows = reply.rows;
    rows.sort();
    rows
}

#[test]
fn a_shard_cut_while_its_rows_become_a_table_is_an_error() {
    if has_no_proxy() {
        return;
    }
    let (relay, pgbraid) = behind_relay(|c| c);
    let mut client = pgbraid.client();
    let whole = rows(client.query(STAGED));
    assert!(whole.len() > 5000);
    for point in 0..24_u64 {
        let after = point * point * 2500;
        relay.arm(match point % 2 {
            0 => Fault::Cut { after },
            _ => Fault::Reset { after },
        });
        let reply = client.query(STAGED);
        match &reply.error {
            // Behind the relay is one shard and now and then the merge session: fewer bytes may have passed.
            None => assert_eq!(rows(reply), whole, "cut after {after} bytes"),
            Some(error) => {
                let state = error.field(b'C').unwrap_or_default();
                let known = state.starts_with("08") || state.starts_with("57");
                assert!(known, "cut after {after} bytes: {}", reply.complaint());
                assert_eq!(reply.tag, "", "CommandComplete");
            }
        }
        relay.heal();
        assert_eq!(rows(client.query(STAGED)), whole, "after a cut");
    }
}

/// Groups that take more memory than the proxy may hold are put together on the merge session.
#[test]
fn more_groups_than_may_be_held() {
    if has_no_proxy() {
        return;
    }
    let mut config = Config::new(cluster());
    config.more = "[merge]\nmemory_max = \"1MiB\"\n".into();
    let pgbraid = Pgbraid::start(config);
    let mut client = pgbraid.client();
    let mut oracle = Client::connect(cluster().oracle, "app", "app").expect("login");
    let statements = [
        "select pad, count(*), sum(x), avg(x), min(id), max(pad), bool_or(x > 3) from big group by pad",
        "select x % 100, count(distinct pad), count(*), sum(id) from big group by 1",
        "select count(distinct pad) from big",
        "select pad, sum(id::int4), avg(id::float8), avg(x::numeric) from big where id > 5 group by pad",
    ];
    for around in [["", ""], ["begin", "commit"]] {
        for sql in statements {
            client.query(around[0]);
            let given = client.query(sql);
            let tag = given.tag.clone();
            assert_eq!(tag, oracle.query(sql).tag, "{sql}");
            assert_eq!(rows(given), rows(oracle.query(sql)), "{sql}");
            client.query(around[1]);
        }
    }
    pgbraid.assert_no_panic();
}

/// A statement that waits for its stalled shard in the middle of COPY, on the first shard's first merge session.
struct Stalled {
    relay: Relay,
    // Dropped last.
    pgbraid: Pgbraid,
}

impl Stalled {
    /// `name` tells its sessions from those of other tests.
    fn start(name: &str) -> (Self, Client) {
        let (relay, pgbraid) = behind_relay(|c| c);
        let mut client = pgbraid.client();
        client.query(&format!("set application_name to '{name}'"));
        client.query("select count(*) from big");
        relay.arm(Fault::Stall { after: STALL_AFTER });
        client.send(&query(STAGED)).expect("sent");
        eventually("COPY", || (copies(name, "count(*)") == "1").then_some(()));
        (Self { relay, pgbraid }, client)
    }
}

/// Something about the merge sessions on the first shard that take rows for this test.
fn copies(name: &str, what: &str) -> String {
    const { assert!(BROKEN != 0) };
    let mut observer = Client::connect(cluster().shards[0], "postgres", "").expect("login");
    let sql = format!(
        "select {what} from pg_stat_activity where application_name = '{name}' and state = 'active' and query like 'COPY%'"
    );
    observer.query(&sql).value()
}

#[test]
fn a_merge_session_that_dies_during_copy_is_an_error() {
    if has_no_proxy() {
        return;
    }
    let (stalled, mut client) = Stalled::start("copy_killed");
    assert_eq!(copies("copy_killed", "pg_terminate_backend(pid)"), "t");
    eventually("its end", || {
        (copies("copy_killed", "count(*)") == "0").then_some(())
    });
    stalled.relay.heal();
    let reply = Reply::of(&client.until_ready().expect("session lost"));
    let error = reply.error.as_ref().expect("an error");
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"));
    assert_eq!(error.field(b'V').as_deref(), Some("ERROR"));
    assert!(error.field(b'D').unwrap_or_default().contains("s1"));
    let whole = rows(stalled.pgbraid.client().query(STAGED));
    assert_eq!(rows(client.query(STAGED)), whole);
}

#[test]
fn a_client_that_leaves_during_copy_ends_it() {
    if has_no_proxy() {
        return;
    }
    let (stalled, client) = Stalled::start("copy_left");
    drop(client);
    eventually("the end of COPY", || {
        (copies("copy_left", "count(*)") == "0").then_some(())
    });
    stalled.relay.heal();
    assert!(!rows(stalled.pgbraid.client().query(STAGED)).is_empty());
}

#[test]
fn a_cancel_during_copy_ends_it() {
    if has_no_proxy() {
        return;
    }
    let (stalled, mut client) = Stalled::start("copy_cancelled");
    Client::cancel(stalled.pgbraid.port, &client.key).expect("sent");
    eventually("the end of COPY", || {
        // The cancel of the stalled shard passes the relay, its error does not.
        stalled.relay.heal();
        (copies("copy_cancelled", "count(*)") == "0").then_some(())
    });
    let reply = Reply::of(&client.until_ready().expect("session lost"));
    assert_eq!(reply.sqlstate().as_deref(), Some("57014"));
    assert!(!rows(client.query(STAGED)).is_empty());
}
