//! INSERT, UPDATE and DELETE of rows on one shard: what one server does, all or nothing, and what one shard cannot keep is refused.
//!
//! The tests share tables; each has keys of its own.

use crate::harness::client::{bind, execute, parse, sync};
use crate::harness::{Client, Reply, cluster, target_is_postgres};
use crate::snapshots::Both;

/// Statements with words of their refusal.
const REFUSED: &[(&str, &str)] = &[
    ("insert into accounts (owner) values ('x')", "needs a value"),
    ("insert into accounts default values", "needs a value"),
    ("insert into accounts (id) values (null)", "needs a value"),
    (
        "insert into accounts (id) values (null::int8), (501)",
        "needs a value",
    ),
    (
        "insert into accounts (id) values (default)",
        "needs a value",
    ),
    (
        "insert into accounts (id) values (abs(-501))",
        "needs a value",
    ),
    (
        "insert into accounts (id) select id from users",
        "needs a value",
    ),
    (
        "insert into accounts select * from accounts",
        "needs a value",
    ),
    (
        "insert into accounts (id, owner) select 501, name from users",
        "several shards",
    ),
    ("insert into accounts (id) values (501.4)", "several shards"),
    (
        "insert into accounts (id) values (501), (502), (503), (504), (505), (506)",
        "several shards",
    ),
    ("insert into by_code values ('a ')", "needs a value"),
    ("update accounts set owner = 'x'", "several shards"),
    (
        "update accounts set owner = 'x' where id in (501, 502, 503, 504, 505, 506)",
        "several shards",
    ),
    (
        "update accounts set id = 502 where id = 501",
        "sharding key",
    ),
    (
        "insert into accounts (id) values (501) on conflict (id) do update set id = 502",
        "sharding key",
    ),
    (
        "update accounts set balance = (select count(*) from users) where id = 501",
        "several shards",
    ),
    (
        "update accounts set owner = count_users()::text where id = 501",
        "count_users",
    ),
    ("delete from accounts", "several shards"),
    (
        "delete from accounts using users u where accounts.id = 501 and u.name = owner",
        "several shards",
    ),
    ("insert into numbered (id) values (501)", "sequence"),
    (
        "insert into numbered (id, n) values (501, default)",
        "sequence",
    ),
    ("update numbered set n = default where id = 501", "sequence"),
    (
        "insert into numbered (id, n) values (501, nextval('counter'))",
        "nextval",
    ),
    (
        "insert into single_names (id, name) values (501, 'x')",
        "unique key (name)",
    ),
    (
        "update single_names set name = 'x' where id = 501",
        "unique key (name)",
    ),
    (
        "insert into single_words (id, word) values (501, 'x')",
        "over an expression",
    ),
    (
        "update single_words set v = 'x' where id = 501",
        "over an expression",
    ),
    ("insert into orphans values (501, 1)", "foreign key"),
    ("delete from users where id = 501", "foreign key"),
    ("insert into watched values (501, 'x')", "triggers"),
    ("update part_watched set part = 1 where k = 501", "triggers"),
    ("insert into checked_rows values (501, 200)", "check"),
    ("update checked_rows set v = 1 where id = 501", "check"),
    ("insert into domain_rows values (501, 200)", "domain"),
    ("insert into tags (id) values (501)", "reference table"),
    ("update v_users set name = 'x' where id = 1", "view"),
    (
        "with d as (delete from accounts where id = 501 returning *) select * from d",
        "writing",
    ),
    (
        "with d as (delete from bookings where account = 501 returning *) insert into accounts (id) values (501)",
        "writes",
    ),
    (
        "with accounts as (select 501 as id) delete from accounts where id = 501",
        "WITH query",
    ),
    (
        "explain analyze update accounts set owner = 'x' where id = 501",
        "EXPLAIN ANALYZE",
    ),
    (
        "merge into accounts a using countries c on a.id = 501 when matched then delete",
        "writing",
    ),
    ("truncate accounts", "not supported"),
];

impl Both {
    /// Refused without a change, and the session goes on.
    fn refused(&mut self, sql: &str, words: &str) {
        let reply = self.client.query(sql);
        assert_eq!(reply.sqlstate().as_deref(), Some("0A000"), "{sql}");
        assert!(
            reply.complaint().contains(words),
            "{sql}: {}",
            reply.complaint()
        );
        assert_eq!(reply.status, b'I', "{sql}");
    }
}

#[test]
fn a_change_of_one_row_is_what_one_server_does() {
    if target_is_postgres() {
        return;
    }
    Both::start().all(&[
        "insert into accounts (id, owner, balance) values (1, 'ann', 10)",
        "insert into accounts (id, owner, balance) values ('2', 'bob', 20.005) returning id, balance, opened = now()",
        "insert into accounts values (3::int8, default, 30, '2024-01-01Z') returning id, owner, marks, opened = '2024-01-01Z'",
        "insert into accounts (owner, id) values ('dan', -4) returning id",
        "insert into accounts (id, owner) values (1, 'twice')",
        "insert into accounts (id, balance) values (5, -1)",
        "insert into accounts (id, country) values (5, 'XX')",
        "insert into accounts (id, country) values (5, 'BR') returning country",
        "insert into accounts (id, nobody) values (6, 1)",
        "insert into accounts (id) values (1) on conflict do nothing",
        "insert into accounts (id, balance) values (1, 5) on conflict (id) do update set balance = accounts.balance + excluded.balance returning balance",
        "insert into accounts as a (id, balance) values (1, 5) on conflict (id) do update set balance = 0 where a.balance > 100",
        "insert into accounts (id, owner) select 7, 'sel' || count(*) from countries returning owner",
        "insert into accounts (id, owner) select 8, 'no' where false",
        "insert into bookings values (1, 1, 'a'), (1, 2, 'b'), (1, 3, 'c') returning n, what",
        "insert into bookings values (1, 1, 'a')",
        "insert into bookings values (999, 1, 'no account')",
        "update accounts set balance = balance * 2, owner = upper(owner) where id = 1 returning id, owner, balance",
        "update accounts set balance = -1 where id = 1",
        "update accounts a set (owner, balance) = (select b.what, b.n from bookings b where b.account = 1 and b.n = 2) where a.id = 1 returning id, owner, balance, opened is null",
        "update accounts set marks[2] = 5, owner = default where id = 2 returning marks, owner",
        "update accounts a set owner = c.name from countries c where a.id = 2 and c.code = 'DE' returning a.owner, c.code",
        "update accounts set owner = 'nobody there' where id = 4711",
        "update accounts set owner = 'never' where id = 1 and id = 2",
        "with b as (select max(n) as n from bookings where account = 1) update accounts set balance = b.n from b where id = 1 returning balance",
        "update only bookings b set what = a.owner from accounts a where b.account = a.id and a.id = 1 returning b.n, b.what",
        "delete from bookings where account = 1 and n = 3 returning *",
        "delete from bookings b using accounts a where a.id = b.account and b.account = 1 and b.n = 2",
        "select id, owner, balance from accounts where id < 10 order by id",
        "delete from accounts where id = 1",
        "select count(*) from bookings where account = 1",
        "insert into parted values (1, 1, 'x'), (1, 2, 'y')",
        "update parted set part = 2 where k = 1 and part = 1",
        "update parted set part = 2, v = 'z' where k = 1 returning *",
        "insert into parted_1 values (5, 1, 'p') returning *",
        "insert into parted values (1, 3, 'nowhere')",
        "select * from parted order by k, part",
        "insert into by_code values ('ab', 1), ('ab', 2)",
        "insert into by_code values ('äöü€', 1), ('äöü€', 2) on conflict do nothing returning code, v",
        "insert into by_code values ('toolong', 1)",
        "update by_code set v = 'w' where code = 'äöü€' returning *",
        "select * from by_code order by code collate \"C\"",
    ]);
}

#[test]
fn keys_by_parameter() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    let run = |client: &mut Client, sql: &str, values: &[Option<&str>]| {
        let mut bytes = parse("", sql, &[]);
        let values: Vec<(i16, Option<Vec<u8>>)> =
            values.iter().map(|v| (0, v.map(Into::into))).collect();
        bytes.extend(bind("", "", &values, &[0]));
        bytes.extend(execute("", 0));
        bytes.extend(sync());
        client.send(&bytes).expect("send");
        let messages = client.until_ready().expect("reply");
        Reply::of(&messages)
    };
    let statements: [(&str, &[Option<&str>]); 6] = [
        (
            "insert into accounts (id, owner) values ($1, $2) returning owner",
            &[Some("101"), Some("p")],
        ),
        (
            "insert into accounts (id, owner) values ($1, $2), ($1::int8 , $2)",
            &[Some("102"), Some("p")],
        ),
        (
            "update accounts set owner = $2 where id = $1",
            &[Some("101"), Some("q")],
        ),
        (
            "update accounts set owner = $2 where id = $1",
            &[None, Some("q")],
        ),
        (
            "insert into by_code values ($1, $2)",
            &[Some("p"), Some("q")],
        ),
        (
            "delete from accounts where id = $1 returning owner",
            &[Some("101")],
        ),
    ];
    for (sql, values) in statements {
        let given = run(&mut both.client, sql, values);
        let expected = run(&mut both.oracle, sql, values);
        assert_eq!(
            given.sqlstate(),
            expected.sqlstate(),
            "{sql}: {}",
            given.complaint()
        );
        assert_eq!(
            (given.rows, given.tag),
            (expected.rows, expected.tag),
            "{sql}"
        );
    }
    for (sql, value) in [
        ("insert into accounts (id) values ($1)", None),
        ("insert into by_code values ($1)", Some("b ")),
    ] {
        let reply = run(&mut both.client, sql, &[value]);
        assert_eq!(reply.sqlstate().as_deref(), Some("0A000"), "{sql}");
    }
    both.client.assert_in_step("keys by parameter");
}

#[test]
fn a_transaction_is_all_or_nothing() {
    if target_is_postgres() {
        return;
    }
    Both::start().all(&[
        "insert into accounts (id) values (201); update accounts set owner = 'm' where id = 201; select owner from accounts where id = 201",
        "update accounts set owner = 'n' where id = 201; select 1 / 0",
        "select owner from accounts where id = 201",
        "begin",
        "update accounts set owner = 'o' where id = 201",
        "select count(*) from accounts where owner = 'o'",
        "savepoint a",
        "delete from accounts where id = 201",
        "select count(*) from accounts where id between 200 and 209",
        "rollback to a",
        "insert into accounts (id) values (201)",
        "select 1",
        "rollback to a",
        "select owner from accounts where id = 201",
        "commit",
        "select owner from accounts where id = 201",
        "begin",
        "insert into bookings values (2099, 1, 'deferred')",
        "select count(*) from bookings where account = 2099",
        "commit",
        "select count(*) from bookings where account = 2099",
        "begin",
        "set constraints all immediate",
        "insert into bookings values (2099, 1, 'at once')",
        "rollback",
        "begin",
        "insert into bookings values (2099, 1, 'later')",
        "set constraints bookings_account_fkey immediate",
        "rollback",
        "begin read only",
        "update accounts set owner = 'r' where id = 201",
        "rollback",
        "set default_transaction_read_only = on",
        "delete from accounts where id = 201",
        "reset default_transaction_read_only",
        "begin isolation level repeatable read",
        "update accounts set owner = 's' where id = 201",
        "select count(*) from accounts where owner = 's'",
        "rollback",
        "prepare w (int8, text) as update accounts set owner = $2 where id = $1 returning owner",
        "execute w (201, 't')",
        "begin; execute w (201, 'u'); rollback",
        "select owner from accounts where id = 201",
    ]);
}

#[test]
fn one_transaction_changes_one_shard() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    let all = (300..320).map(|id| format!("insert into accounts (id) values ({id})"));
    let text: Vec<String> = all.collect();
    both.refused(&text.join("; "), "on several shards");
    both.same("select count(*) from accounts where id between 300 and 320");
    for sql in &text {
        both.same(sql);
    }
    both.same("select id, balance from accounts where id between 300 and 320 order by id");
    both.same("begin");
    for id in 300..310 {
        let reply = both
            .client
            .query(&format!("delete from accounts where id = {id}"));
        if let Some(sqlstate) = reply.sqlstate() {
            assert_eq!((sqlstate.as_str(), reply.status), ("0A000", b'E'));
            break;
        }
        assert_ne!(id, 309, "ten keys on one shard");
    }
    both.client.query("commit");
    both.oracle.query("rollback");
    both.same("select count(*) from accounts where id between 300 and 320");
}

#[test]
fn a_pipeline_is_one_transaction() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    let pipeline = |client: &mut Client, statements: &[&str]| {
        let mut bytes = Vec::new();
        for sql in statements {
            bytes.extend(parse("", sql, &[]));
            bytes.extend(bind("", "", &[], &[]));
            bytes.extend(execute("", 0));
        }
        bytes.extend(sync());
        client.send(&bytes).expect("send");
        let reply = Reply::of(&client.until_ready().expect("reply"));
        (reply.sqlstate(), reply.rows, reply.status)
    };
    for statements in [
        &[
            "insert into accounts (id) values (401)",
            "update accounts set owner = 'p' where id = 401 returning owner",
        ][..],
        &[
            "update accounts set owner = 'q' where id = 401",
            "insert into accounts (id) values (401)",
        ],
        &[
            "select owner from accounts where id = 401",
            "delete from accounts where id = 401",
            "select 1 / 0",
        ],
        &[
            "select count(*) from accounts where id = 401",
            "delete from accounts where id = 401",
            "select count(*) from accounts where id = 401",
        ],
    ] {
        let given = pipeline(&mut both.client, statements);
        assert_eq!(
            given,
            pipeline(&mut both.oracle, statements),
            "{statements:?}"
        );
        both.same("select id, owner from accounts where id = 401");
    }
    both.client.assert_in_step("pipelines");
}

#[test]
fn what_one_shard_cannot_keep_is_refused() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    for (sql, words) in REFUSED {
        both.refused(sql, words);
    }
    both.all(&[
        "insert into numbered (id, n) values (501, 7) returning n",
        "update single_names set v = 'x' where id = 501",
        "update numbered set v = 'x' where id = 501 returning *",
        "select count(*) from accounts where id between 500 and 510",
    ]);
}

#[test]
fn a_shard_that_was_only_read_does_not_decide_over_a_commit() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    let names = |both: &mut Both| {
        let reply = both
            .client
            .query("explain delete from bookings where account = 601");
        let first = reply.rows[0][0].clone().expect("a line");
        String::from_utf8(first).expect("text")
    };
    let line = names(&mut both);
    let writer = (1..=3)
        .find(|n| line.contains(&format!("(s{n})")))
        .expect("its shard")
        - 1;
    both.client.query("begin");
    both.client
        .query("insert into bookings values (601, 1, 'kept')");
    both.client.query("select count(*) from users");
    let backends = "select pg_terminate_backend(pid) from pg_stat_activity \
        where usename = 'app' and state = 'idle in transaction' and query like '%users%'";
    for (n, port) in cluster().shards.iter().enumerate() {
        if n != writer {
            Client::connect(*port, "postgres", "")
                .expect("login")
                .query(backends);
        }
    }
    let reply = both.client.query("commit");
    // The foreign key is checked at COMMIT.
    assert_eq!(
        reply.sqlstate().as_deref(),
        Some("23503"),
        "{}",
        reply.complaint()
    );
    both.client.query("insert into accounts (id) values (601)");
    both.client.query("begin");
    both.client
        .query("insert into bookings values (601, 1, 'kept')");
    both.client.query("select count(*) from users");
    for (n, port) in cluster().shards.iter().enumerate() {
        if n != writer {
            Client::connect(*port, "postgres", "")
                .expect("login")
                .query(backends);
        }
    }
    let reply = both.client.query("commit");
    assert_eq!(
        (reply.sqlstate(), reply.status),
        (None, b'I'),
        "{}",
        reply.complaint()
    );
    let reply = both
        .client
        .query("select what from bookings where account = 601");
    assert_eq!(reply.rows.len(), 1);
    assert_eq!(
        both.client.query("select count(*) from users").value(),
        "300"
    );
}
