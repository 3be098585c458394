//! Statements of several steps in the client's transaction: each sees one snapshot, and the block goes on as if nothing had happened.

use crate::harness::client::{bind, execute, parse, sync};
use crate::harness::{Client, Config, Pgbraid, Reply, cluster, target_is_postgres};

/// Reads every shard twice.
const STEPS: &str =
    "select l.id, (select count(*) from dupes d where d.k <> l.k) from lonely l order by l.id";

pub struct Both {
    pub client: Client,
    pub oracle: Client,
    // Dropped last.
    pgbraid: Pgbraid,
}

impl Both {
    pub fn start() -> Self {
        let pgbraid = Pgbraid::start(Config::new(cluster()));
        Self {
            client: pgbraid.client(),
            oracle: Client::connect(cluster().oracle, "app", "app").expect("login"),
            pgbraid,
        }
    }

    pub fn pgbraid(&self) -> &Pgbraid {
        &self.pgbraid
    }

    /// Runs it on both sides and compares.
    pub fn same(&mut self, sql: &str) -> Reply {
        let (given, expected) = (self.client.query(sql), self.oracle.query(sql));
        let complaint = given.complaint();
        assert_eq!(given.sqlstate(), expected.sqlstate(), "{sql}: {complaint}");
        assert_eq!(given.tag, expected.tag, "{sql}");
        assert_eq!(given.rows, expected.rows, "{sql}");
        assert_eq!(given.status, expected.status, "{sql}");
        given
    }

    pub fn all(&mut self, statements: &[&str]) {
        for sql in statements {
            self.same(sql);
        }
        self.client.assert_in_step("blocks");
        self.pgbraid.assert_no_panic();
    }
}

#[test]
fn a_block_that_only_reads_may_read_in_steps() {
    if target_is_postgres() {
        return;
    }
    Both::start().all(&[
        "begin",
        STEPS,
        "select count(*) from users",
        "savepoint a",
        STEPS,
        "select name from users where id = 7",
        "savepoint b",
        "rollback to a",
        STEPS,
        "select 1 / (id - 7) from users where id = 7",
        STEPS,
        "rollback to a",
        STEPS,
        "rollback to b",
        "rollback to a",
        "release a",
        "rollback to a",
        "rollback",
        "begin read only",
        STEPS,
        "select count(*) from orders",
        "commit and chain",
        STEPS,
        "commit",
        STEPS,
    ]);
}

#[test]
fn an_error_in_one_of_the_steps_fails_the_block() {
    if target_is_postgres() {
        return;
    }
    let failing =
        "select l.id, (select max(1 / (d.id - 1)) from dupes d where d.k <> l.k) from lonely l";
    Both::start().all(&[
        "begin",
        "savepoint a",
        failing,
        "select 1",
        "rollback to a",
        STEPS,
        failing,
        "rollback",
        "select count(*) from users",
        failing,
        STEPS,
    ]);
}

#[test]
fn settings_of_the_block_hold_in_every_step() {
    if target_is_postgres() {
        return;
    }
    let zone = "select l.id, (select min(e.at) from events e where e.user_id <> l.id)::text from lonely l order by l.id";
    let mut both = Both::start();
    both.all(&[
        zone,
        "begin",
        zone,
        "set local timezone to 'Asia/Tokyo'",
        zone,
        "select min(at)::text from events",
        "savepoint a",
        "set timezone to 'America/Lima'",
        zone,
        "rollback to a",
        zone,
        "commit",
        zone,
        "begin isolation level repeatable read",
        zone,
        "set local timezone to 'Asia/Tokyo'",
        zone,
        "commit",
        zone,
        "begin",
        "set timezone to 'America/Lima'",
        zone,
        "rollback",
        zone,
        "begin",
        "set timezone to 'America/Lima'",
        zone,
        "commit",
        zone,
    ]);
}

#[test]
fn characteristics_come_before_any_query() {
    if target_is_postgres() {
        return;
    }
    Both::start().all(&[
        "begin",
        STEPS,
        "set transaction isolation level repeatable read",
        "rollback",
        "begin",
        STEPS,
        "set transaction read only",
        STEPS,
        "commit",
    ]);
}

/// A default from before the block, or a setting of it, says REPEATABLE READ just as BEGIN does: two statements see one snapshot.
#[test]
fn a_block_of_one_snapshot_stays_on_its_shards() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    let ways: [&[&str]; 4] = [
        &[
            "set default_transaction_isolation to 'repeatable read'",
            "begin",
        ],
        &["begin", "set transaction_isolation to 'repeatable read'"],
        &[
            "begin",
            "set local transaction_isolation to 'repeatable read'",
        ],
        &[
            "set session characteristics as transaction isolation level repeatable read",
            "start transaction",
            "set session characteristics as transaction isolation level read committed",
        ],
    ];
    for way in ways {
        both.all(way);
        // The same rows are seen before and after, by the row's place in a transaction's own list of snapshots.
        let virtual_id =
            "select virtualtransaction from pg_locks where pid = pg_backend_pid() limit 1";
        both.client.query("select count(*) from users");
        let first = both.client.query(virtual_id).value();
        both.all(&[STEPS, "show transaction_isolation"]);
        assert_eq!(both.client.query(virtual_id).value(), first, "{way:?}");
        both.all(&["commit", "reset all"]);
    }
    both.all(&[
        "set default_transaction_isolation to 'repeatable read'",
        "begin isolation level read committed",
        STEPS,
        "show transaction_isolation",
        "commit",
    ]);
}

/// Shards on which the block of a session with this application_name is open.
fn in_block(name: &str) -> usize {
    let sql = format!(
        "select 1 from pg_stat_activity where application_name = '{name}' and state = 'idle in transaction'"
    );
    let rows = |port: &u16| {
        let mut observer = Client::connect(*port, "postgres", "").expect("login");
        observer.query(&sql).rows.len()
    };
    cluster().shards.iter().map(rows).sum()
}

#[test]
fn a_level_that_a_role_has_by_default_keeps_its_snapshot() {
    if target_is_postgres() {
        return;
    }
    for port in &cluster().shards {
        let mut shard = Client::connect(*port, "postgres", "").expect("login");
        for sql in [
            "create role repeats login password 'app' in role pg_read_all_data",
            "alter role repeats set default_transaction_isolation = 'repeatable read'",
        ] {
            assert_eq!(shard.query(sql).sqlstate(), None, "{sql}");
        }
    }
    for (user, kept) in [("app", 0), ("repeats", 3)] {
        let mut config = Config::new(cluster());
        config.shard_user = user;
        let config = config.auth("shard_role = \"service\"");
        let pgbraid = Pgbraid::start(config);
        let mut client = pgbraid.client();
        let name = format!("block_of_{user}");
        client.query(&format!("set application_name to '{name}'"));
        client.query("begin");
        assert_eq!(client.query("select count(*) from users").value(), "300");
        assert_eq!(in_block(&name), 3, "{user}");
        for _ in 0..2 {
            assert_eq!(client.query(STEPS).sqlstate(), None, "{user}");
            assert_eq!(in_block(&name), kept, "{user}");
        }
        client.query("commit");
        client.assert_in_step("a level by default");
    }
}

#[test]
fn what_a_block_holds_is_not_given_up() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = pgbraid.client();
    let holding = [
        "select id from users where id = 7 for update",
        "explain analyze select id from users where id = 7 for update",
        "with u as (select id from users where id = 7 for share) select * from u",
        "select pg_advisory_xact_lock(4711)",
    ];
    for sql in holding {
        client.query("begin");
        assert_eq!(client.query(sql).sqlstate(), None, "{sql}");
        assert_eq!(
            client.query(STEPS).sqlstate().as_deref(),
            Some("0A000"),
            "{sql}"
        );
        client.query("rollback");
    }
    // A portal that is half read lives in the block.
    client.query("begin");
    let half = [
        parse("", "select id from users order by id", &[]),
        bind("p", "", &[], &[]),
        execute("p", 2),
        sync(),
    ];
    client.send(&half.concat()).expect("sent");
    assert_eq!(
        Reply::of(&client.until_ready().expect("session lost"))
            .rows
            .len(),
        2
    );
    assert_eq!(client.query(STEPS).sqlstate().as_deref(), Some("0A000"));
    client.query("rollback");
    client.assert_in_step("blocks that hold something");
}
