//! Statements whose first plan fails over a value that one server never looks at: the client sees one server's answer, and its
//! transaction goes on.

use crate::harness::client::{bind, describe_or_close, execute, parse, sync};
use crate::harness::{Client, Config, Pgbraid, Reply, cluster, target_is_postgres};

/// Its stage divides by zero where no CASE asks for it.
const AHEAD: &str = "select case when l.id > 9 then (select max(1 / (d.id - 1)) from dupes d) end from (values (1), (2)) l(id)";
/// The same with two stages on a shard, which share a snapshot.
const TWICE: &str = "select case when l.id > 1000000 then (select max(1 / (d.id - 1)) from dupes d) end from lonely l";
/// Its stage divides by zero, and so does one server.
const FAILING: &str = "select case when l.id > 1 then (select max(1 / (d.id - 1)) from dupes d) end from (values (1), (2)) l(id)";

fn same(client: &mut Client, oracle: &mut Client, sql: &str) {
    let (given, expected) = (client.query(sql), oracle.query(sql));
    assert_eq!(
        given.sqlstate(),
        expected.sqlstate(),
        "{sql}: {}",
        given.complaint()
    );
    assert_eq!(given.tag, expected.tag, "{sql}");
    assert_eq!(sorted(&given), sorted(&expected), "{sql}");
}

fn sorted(reply: &Reply) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut rows = reply.rows.clone();
    rows.sort();
    rows
}

fn both() -> (Pgbraid, Client, Client) {
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let client = pgbraid.client();
    let oracle = Client::connect(cluster().oracle, "app", "app").expect("login");
    (pgbraid, client, oracle)
}

#[test]
fn a_block_goes_on_after_a_plan_that_failed() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client, mut oracle) = both();
    let statements = [
        AHEAD,
        TWICE,
        "begin",
        AHEAD,
        "select count(*) from users",
        "savepoint a",
        AHEAD,
        "savepoint b",
        "rollback to a",
        AHEAD,
        "release a",
        "select count(*) from orders",
        "commit",
        "begin isolation level repeatable read",
        AHEAD,
        TWICE,
        "savepoint a",
        FAILING,
        AHEAD,
        "rollback to a",
        AHEAD,
        "commit",
        FAILING,
        TWICE,
    ];
    for sql in statements {
        same(&mut client, &mut oracle, sql);
    }
    client.assert_in_step("reruns");
}

/// Functions raise what they like.
#[test]
fn any_error_of_an_expression_counts() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client, mut oracle) = both();
    for failing in [
        "current_setting('no.' || d.v)",
        "('no_' || d.v)::regclass::text",
        "repeat(d.v, 2000000000 + d.id::int)",
    ] {
        for compared in ["> 9", "> 1"] {
            let sql = format!(
                "select case when l.id {compared} then (select max({failing}) from dupes d) end from (values (1), (2)) l(id)"
            );
            same(&mut client, &mut oracle, &sql);
        }
    }
    client.assert_in_step("errors of functions");
}

#[test]
fn messages_of_several_statements_do_not_run_ahead() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client, mut oracle) = both();
    same(
        &mut client,
        &mut oracle,
        &format!("select count(*) from users; {AHEAD}; select 2"),
    );
    same(&mut client, &mut oracle, &format!("begin; {AHEAD}; commit"));
    client.assert_in_step("messages");
}

#[test]
fn pipelines_get_the_answer_in_its_place() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client, mut oracle) = both();
    let run = |sql: &str, rows_max| {
        [
            parse("", sql, &[]),
            bind("", "", &[], &[1]),
            describe_or_close(b'D', b'P', ""),
            execute("", rows_max),
        ]
        .concat()
    };
    let pipelines = [
        [run(AHEAD, 0), sync()].concat(),
        [run(AHEAD, 1), sync()].concat(),
        [run("select count(*) from users", 0), run(AHEAD, 0), sync()].concat(),
        [run(AHEAD, 0), run("select count(*) from users", 0), sync()].concat(),
        [run(FAILING, 0), run(AHEAD, 0), sync()].concat(),
    ];
    for block in [["", ""], ["begin", "commit"]] {
        for (n, pipeline) in pipelines.iter().enumerate() {
            let replies = [&mut client, &mut oracle].map(|c| {
                c.query(block[0]);
                c.send(pipeline).expect("sent");
                let reply = Reply::of(&c.until_ready().expect("session lost"));
                c.query(block[1]);
                reply
            });
            let [given, expected] = replies;
            assert_eq!(
                given.sqlstate(),
                expected.sqlstate(),
                "{n}: {}",
                given.complaint()
            );
            assert_eq!(sorted(&given), sorted(&expected), "{n} in {block:?}");
        }
    }
    client.assert_in_step("pipelines");
}
