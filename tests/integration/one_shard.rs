//! One shard passes everything. What sessions know of statements met before must follow what is done to its schema.

use crate::harness::client::{bind, describe_or_close, execute, parse, sync};
use crate::harness::{Client, Config, Pgbraid, Reply, cluster, target_is_postgres};

/// Runs a story on the oracle itself and through pgbraid over it as the only shard; what it tells must be the same.
fn same(story: impl Fn(u16) -> Vec<String>) {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::one_shard(cluster()));
    let expected = story(cluster().oracle);
    assert_eq!(story(pgbraid.port), expected);
}

fn login(port: u16) -> Client {
    Client::connect(port, "app", "app").expect("login")
}

fn reply(client: &mut Client, messages: &[Vec<u8>]) -> Reply {
    client.send(&messages.concat()).expect("sent");
    Reply::of(&client.until_ready().expect("session lost"))
}

fn does(client: &mut Client, sql: &str) {
    let reply = client.query(sql);
    assert!(reply.error.is_none(), "{sql}: {}", reply.complaint());
}

/// Types of the columns, then values, or the complaint and the routine that made it.
fn told(reply: &Reply) -> String {
    if let Some(error) = &reply.error {
        let routine = error.field(b'R').unwrap_or_default();
        return format!("{} {routine}", reply.complaint());
    }
    let oids: Vec<u32> = reply.columns.iter().map(|c| c.oid).collect();
    let text = |v: &Option<Vec<u8>>| v.as_deref().map(String::from_utf8_lossy).map(String::from);
    let rows = reply.rows.iter().map(|r| r.iter().map(text).collect());
    let rows: Vec<Vec<Option<String>>> = rows.collect();
    format!("{oids:?} {rows:?}")
}

/// Parse, Bind, Describe and Execute of a statement without parameters.
fn anew(client: &mut Client, name: &str, sql: &str) -> String {
    let run = [
        parse(name, sql, &[]),
        bind("", name, &[], &[]),
        describe_or_close(b'D', b'P', ""),
        execute("", 0),
        sync(),
    ];
    told(&reply(client, &run))
}

fn again(client: &mut Client, name: &str) -> String {
    let run = [
        bind("", name, &[], &[]),
        describe_or_close(b'D', b'P', ""),
        execute("", 0),
        sync(),
    ];
    told(&reply(client, &run))
}

#[test]
fn a_schema_changed_by_another_session_is_seen_at_once() {
    same(|port| {
        let (mut ours, mut other) = (login(port), login(port));
        does(
            &mut ours,
            "create table seen_at_once as select 1::int4 as a",
        );
        let sql = "select * from seen_at_once";
        let mut story = vec![anew(&mut other, "first", sql)];
        for change in [
            "alter table seen_at_once alter a type int8",
            "alter table seen_at_once add b text default 'x'",
            "do $$ begin alter table seen_at_once add c text default 'y'; end $$",
            "begin; drop table seen_at_once; create table seen_at_once as select 'z' as d; commit",
        ] {
            does(&mut ours, change);
            story.push(anew(&mut other, "", sql));
            story.push(told(&other.query(sql)));
            story.push(again(&mut other, "first"));
        }
        does(&mut ours, "drop table seen_at_once");
        story
    });
}

#[test]
fn a_schema_changed_behind_pgbraid_is_seen_after_the_error() {
    same(|port| {
        let mut behind = login(cluster().oracle);
        let made = "create type weather as enum ('ok'); create table forecasts (w weather)";
        does(&mut behind, made);
        let mut client = login(port);
        let insert = "insert into forecasts values ($1::weather)";
        let run = |client: &mut Client| {
            let value = (0, Some(b"ok".to_vec()));
            let messages = [
                parse("", insert, &[]),
                bind("", "", &[value], &[]),
                execute("", 0),
                sync(),
            ];
            reply(client, &messages).error.is_none()
        };
        let mut story = vec![run(&mut client).to_string()];
        does(&mut behind, "drop table forecasts; drop type weather");
        does(&mut behind, made);
        // The first one may meet what was known before.
        run(&mut client);
        story.push(run(&mut client).to_string());
        does(&mut behind, "drop table forecasts; drop type weather");
        story
    });
}

/// Runs statements in one session and tells of each.
fn run(port: u16, statements: &[&str]) -> Vec<String> {
    let mut client = login(port);
    statements
        .iter()
        .map(|sql| told(&client.query(sql)))
        .collect()
}

#[test]
fn backslashes_are_escapes_where_the_session_says_so() {
    same(|port| {
        let mut story = run(
            port,
            &[
                "set escape_string_warning = off",
                r"select 'a\b', '\\'",
                "set standard_conforming_strings = off",
                r"select 'a\'b;c' as x; select 1",
                r"select 'q\\w'",
                r"select 'q\\x'",
                r"select 'q\\y'",
                "begin; set local standard_conforming_strings = on",
                r"select 'q\\w'",
                "rollback",
                r"select 'q\\w', 'it\'s'",
                "reset standard_conforming_strings",
                r"select 'q\\w'",
            ],
        );
        let parameters = [
            ("user", "app"),
            ("database", "app"),
            ("options", "-c standard_conforming_strings=off"),
        ];
        let mut client = Client::connect_with(port, &parameters, "app").expect("login");
        client.query("set escape_string_warning = off");
        story.push(anew(&mut client, "", r"select 'it\'s'"));
        story
    });
}

#[test]
fn settings_that_plans_could_not_bear_are_taken() {
    same(|port| {
        run(
            port,
            &[
                "set transform_null_equals = on",
                "select count(*) from users where id = null",
                "set array_nulls = off",
                "select '{NULL}'::text[]",
            ],
        )
    });
}

#[test]
fn what_only_the_shard_can_parse_goes_there() {
    // A name in PostgreSQL 15, a keyword in later ones.
    let sql = "select system_user.n from (select 2 as n) system_user";
    assert!(pg_query::parse(sql, 0).is_err());
    same(|port| {
        let mut story = run(port, &["begin", sql, "selec 1", "rollback", sql, "selec 1"]);
        story.push(anew(&mut login(port), "", sql));
        story
    });
}

#[test]
fn a_session_ends_with_its_server_process() {
    same(|port| {
        let mut story = Vec::new();
        for begin in ["select 1", "begin", "create temp table here (a int4)"] {
            let mut client = login(port);
            does(&mut client, begin);
            let last = "select pg_terminate_backend(pg_backend_pid())";
            client
                .send(&crate::harness::client::query(last))
                .expect("sent");
            let (messages, ended) = client.drain(crate::harness::PATIENCE);
            let told: Vec<_> = messages
                .iter()
                .map(|m| (m.tag as char, m.field(b'S'), m.field(b'C')))
                .collect();
            story.push(format!("{told:?} {ended}"));
        }
        story
    });
}

/// Parse, Bind and Execute of each in one pipeline.
fn pipeline(statements: &[&str]) -> Vec<Vec<u8>> {
    let one = |sql: &&str| [parse("", sql, &[]), bind("", "", &[], &[]), execute("", 0)];
    let mut messages: Vec<_> = statements.iter().flat_map(one).collect();
    messages.push(sync());
    messages
}

#[test]
fn commit_and_rollback_end_what_a_pipeline_has_done() {
    same(|port| {
        let mut client = login(port);
        does(&mut client, "create table piped (a int4)");
        let [one, two] = [
            "insert into piped values (1)",
            "insert into piped values (2)",
        ];
        let mut story = Vec::new();
        for statements in [
            &[one, "rollback"][..],
            &[one, "rollback", two],
            &[one, "commit", two, "select 1 / 0"],
            &["set timezone = 'Asia/Tokyo'", one, "rollback"],
        ] {
            let reply = reply(&mut client, &pipeline(statements));
            story.push(format!("{} {}", reply.complaint(), reply.status as char));
            story.push(told(&client.query("select * from piped order by a")));
            story.push(told(&client.query("show timezone")));
        }
        does(&mut client, "drop table piped");
        story
    });
}

#[test]
fn a_portal_read_to_its_end_and_closed_leaves_its_table() {
    same(|port| {
        let mut client = login(port);
        does(&mut client, "begin; create table left_alone (a int4)");
        let read = [
            parse("", "select * from left_alone", &[]),
            bind("p", "", &[], &[]),
            execute("p", 50),
            sync(),
        ];
        let mut story = vec![told(&reply(&mut client, &read))];
        let close = [describe_or_close(b'C', b'P', "p"), sync()];
        story.push(told(&reply(&mut client, &close)));
        story.push(told(&client.query("drop table left_alone")));
        does(&mut client, "rollback");
        story
    });
}

#[test]
fn execute_knows_statements_named_in_a_parse() {
    same(|port| {
        let mut client = login(port);
        let named = [parse("named", "select $1::int4 + 1 as a", &[]), sync()];
        reply(&mut client, &named);
        vec![
            told(&client.query("execute named(41)")),
            anew(&mut client, "", "execute named(1)"),
            told(&client.query("prepare own as select 3")),
            told(&client.query("execute own")),
            told(&client.query("execute nobody")),
        ]
    });
}
