//! Statements whose first plan fails over a value that one server never looks at: the client sees one server's answer, and its
//! transaction goes on.

use crate::harness::client::{bind, describe_or_close, execute, parse, sync};
use crate::harness::{Reply, target_is_postgres};
use crate::snapshots::Both;

/// Its stage divides by zero where no CASE asks for it.
const AHEAD: &str = "select case when l.id > 9 then (select max(1 / (d.id - 1)) from dupes d) end from (values (1), (2)) l(id)";
/// The same with two stages on a shard, which share a snapshot.
const TWICE: &str = "select case when l.id > 1000000 then (select max(1 / (d.id - 1)) from dupes d) end from lonely l order by l.id";
/// Its stage divides by zero, and so does one server.
const FAILING: &str = "select case when l.id > 1 then (select max(1 / (d.id - 1)) from dupes d) end from (values (1), (2)) l(id)";

#[test]
fn a_block_goes_on_after_a_plan_that_failed() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
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
        both.same(sql);
    }
    both.client.assert_in_step("reruns");
}

/// Functions raise what they like.
#[test]
fn any_error_of_an_expression_counts() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    for failing in [
        "current_setting('no.' || d.v)",
        "('no_' || d.v)::regclass::text",
        "repeat(d.v, 2000000000 + d.id::int)",
    ] {
        for compared in ["> 9", "> 1"] {
            let sql = format!(
                "select case when l.id {compared} then (select max({failing}) from dupes d) end from (values (1), (2)) l(id)"
            );
            both.same(&sql);
        }
    }
    both.client.assert_in_step("errors of functions");
}

#[test]
fn messages_of_several_statements_do_not_run_ahead() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    both.same(&format!("select count(*) from users; {AHEAD}; select 2"));
    both.same(&format!("begin; {AHEAD}; commit"));
    both.client.assert_in_step("messages");
}

#[test]
fn pipelines_get_the_answer_in_its_place() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
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
            let replies = [&mut both.client, &mut both.oracle].map(|c| {
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
            assert_eq!(given.rows, expected.rows, "{n} in {block:?}");
        }
    }
    both.client.assert_in_step("pipelines");
}
