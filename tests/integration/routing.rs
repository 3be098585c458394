//! Statements that are sent to a shard by hand, and what is told of where statements go.

use crate::harness::client::{bind, describe_or_close, execute, parse, query, sync};
use crate::harness::{Client, Config, Message, Pgbraid, Reply, cluster, target_is_postgres};

pub const COUNT: &str = "select count(*) from users";

pub fn started() -> (Pgbraid, Client) {
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let client = pgbraid.client();
    (pgbraid, client)
}

/// Users on each shard, as the shards themselves say.
pub fn counts() -> Vec<String> {
    let count = |port: &u16| {
        let mut client = Client::connect(*port, "app", "app").expect("login");
        client.query(COUNT).value()
    };
    cluster().shards.iter().map(count).collect()
}

fn a_user_of(shard: usize) -> String {
    let mut client = Client::connect(cluster().shards[shard], "app", "app").expect("login");
    client.query("select min(id) from users").value()
}

pub fn assert_refused(reply: &Reply, sqlstate: &str, hint: &str) {
    assert_eq!(
        reply.sqlstate().as_deref(),
        Some(sqlstate),
        "{}",
        reply.complaint()
    );
    let said = reply.error.as_ref().and_then(|e| e.field(b'H'));
    let said = said.unwrap_or_default();
    assert!(said.contains(hint), "{}: {said}", reply.complaint());
}

pub fn show(client: &mut Client, name: &str) -> String {
    client.query(&format!("show {name}")).value()
}

#[test]
fn a_comment_or_a_setting_sends_a_select_to_one_shard() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client) = started();
    let counts = counts();
    for (n, count) in counts.iter().enumerate() {
        let sql = format!("/* pgbraid shard=s{} */ {COUNT}", n + 1);
        for _ in 0..2 {
            assert_eq!(client.query(&sql).value(), *count, "{sql}");
        }
        // In a message of several it is that of its own statement.
        client
            .send(&query(&format!("{COUNT}; {sql}")))
            .expect("sent");
        let both = Reply::of(&client.until_ready().expect("answers"));
        let value =
            |i: usize| String::from_utf8(both.rows[i][0].clone().expect("a value")).expect("text");
        assert_eq!((value(0).as_str(), &value(1)), ("300", count));
        // By keys and by shapes of statements it would be elsewhere.
        let id = a_user_of((n + 1) % 3);
        for _ in 0..3 {
            let by_key = format!(
                "/* pgbraid shard=s{} */ select name from users where id = {id}",
                n + 1
            );
            assert_eq!(client.query(&by_key).rows.len(), 0, "{by_key}");
            let whole = format!("select name from users where id = {id}");
            assert_eq!(client.query(&whole).rows.len(), 1, "{whole}");
        }
    }
    // The comment counts more than the setting.
    client.query("set pgbraid.shard = 's1'");
    assert_eq!(client.query(COUNT).value(), counts[0]);
    assert_eq!(
        client
            .query(&format!("/* pgbraid shard=s3 */ {COUNT}"))
            .value(),
        counts[2]
    );
    client.query("begin");
    client.query("set local pgbraid.shard = 's2'");
    assert_eq!(client.query(COUNT).value(), counts[1]);
    client.query("declare c cursor for select id from users");
    assert_eq!(
        client.query("fetch all from c").rows.len().to_string(),
        counts[1]
    );
    client.query("commit");
    assert_eq!(client.query(COUNT).value(), counts[0]);
    client
        .send(&query("copy users (id) to stdout"))
        .expect("sent");
    let copied = client.until_ready().expect("data");
    let rows = copied.iter().filter(|m| m.tag == b'd').count();
    assert_eq!(rows.to_string(), counts[0]);
    client.query("set pgbraid.shard = ''");
    assert_eq!(client.query(COUNT).value(), "300");
    // Comments of others are none of ours.
    let traced = "/* traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' */";
    assert_eq!(client.query(&format!("{traced} {COUNT}")).value(), "300");
    assert_eq!(
        client
            .query(&format!("{COUNT} /* pgbraid shard=s1 */"))
            .value(),
        "300"
    );
}

#[test]
fn prepared_statements_follow_the_setting() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client) = started();
    let counts = counts();
    let named = |name: &str, sql: &str| [parse(name, sql, &[]), sync()].concat();
    let run = |name: &str| {
        [
            bind("", name, &[], &[0]),
            describe_or_close(b'D', b'P', ""),
            execute("", 0),
            sync(),
        ]
        .concat()
    };
    client.send(&named("all", COUNT)).expect("sent");
    client.until_ready().expect("parsed");
    client
        .send(&named("two", &format!("/* pgbraid shard=s2 */ {COUNT}")))
        .expect("sent");
    client.until_ready().expect("parsed");
    let ask = |client: &mut Client, name: &str| {
        client.send(&run(name)).expect("sent");
        Reply::of(&client.until_ready().expect("answered")).value()
    };
    for _ in 0..2 {
        assert_eq!(ask(&mut client, "all"), "300");
        assert_eq!(ask(&mut client, "two"), counts[1]);
        client.query("set pgbraid.shard = 's3'");
        assert_eq!(ask(&mut client, "all"), counts[2]);
        assert_eq!(ask(&mut client, "two"), counts[1]);
        client.query("prepare p as select count(*) from users");
        assert_eq!(client.query("execute p").value(), counts[2]);
        client.query("reset pgbraid.shard");
        assert_eq!(client.query("execute p").value(), "300");
        client.query("deallocate p");
    }
    // A pipeline of them.
    let many: Vec<u8> = (0..12).flat_map(|i| run(["all", "two"][i % 2])).collect();
    client.send(&many).expect("sent");
    for i in 0..12 {
        let reply = Reply::of(&client.until_ready().expect("answered"));
        let expected = ["300", &counts[1]][i % 2];
        assert_eq!(reply.value(), expected, "{i}");
    }
}

#[test]
fn what_cannot_be_sent_by_hand_is_refused() {
    if target_is_postgres() {
        return;
    }
    let (pgbraid, mut client) = started();
    let to = |shard: &str, sql: &str| format!("/* pgbraid shard={shard} */ {sql}");
    assert_refused(&client.query(&to("s9", COUNT)), "22023", "s1, s2, s3");
    let wrong = client.query("/* pgbraid shrad=s1 */ select 1");
    assert_eq!(wrong.sqlstate().as_deref(), Some("42601"));
    let id = a_user_of(1);
    let update = format!("update accounts set owner = owner where id = {id}");
    assert_refused(
        &client.query(&to("s1", &update)),
        "0A000",
        "RESET pgbraid.shard",
    );
    assert_eq!(client.query(&to("s2", &update)).tag, "UPDATE 0");
    client.query("set pgbraid.shard = 's1'");
    assert_refused(&client.query(&update), "0A000", "RESET pgbraid.shard");
    client.query("reset pgbraid.shard");
    assert_eq!(client.query(&update).tag, "UPDATE 0");
    assert_refused(
        &client.query("explain /* pgbraid shard=s9 */ select 1"),
        "22023",
        "s1, s2, s3",
    );
    let wrong = client.query("prepare y as /* pgbraid shrad=s1 */ select 1");
    assert_eq!(wrong.sqlstate().as_deref(), Some("42601"));
    for sql in [
        "copy users to stdout",
        "explain select 1",
        "prepare x as select 1",
        "declare c cursor with hold for select 1",
        "create table x (a int4)",
    ] {
        assert_refused(&client.query(&to("s1", sql)), "0A000", "pgbraid.shard");
    }
    // Statements of the session have nowhere to go.
    assert_eq!(client.query(&to("s1", "begin")).status, b'T');
    assert_eq!(client.query(&to("s2", COUNT)).value(), counts()[1]);
    assert_eq!(client.query(&to("s1", "rollback")).status, b'I');
    client.query("create temp table mine (a int4)");
    assert_refused(
        &client.query(&to("s2", "select * from mine")),
        "0A000",
        "s1",
    );
    assert_eq!(client.query(&to("s1", "select * from mine")).rows.len(), 0);
    // What a role may not read it may not read there either.
    let mut other = Client::connect(pgbraid.port, "guarded", "secret").expect("login");
    let own = to("s2", "select count(*) from notes");
    assert_eq!(other.query(&own).value(), "0");
}

#[test]
fn a_comment_before_the_statement_within_another_one_counts() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client) = started();
    let counts = counts();
    let to = |n: usize, sql: &str| format!("/* pgbraid shard=s{n} */ {sql}");
    client.query(&format!("prepare p as {}", to(2, COUNT)));
    assert_eq!(client.query("execute p").value(), counts[1]);
    let by_id = to(3, "select count(*) from users where id > $1");
    client.query(&format!("prepare q (int8) as {by_id}"));
    assert_eq!(client.query("execute q (0)").value(), counts[2]);
    for explain in ["explain", "explain (analyze, costs off)"] {
        let plan = client.query(&format!("{explain} {}", to(1, COUNT)));
        let first = plan.rows.first().and_then(|row| row[0].clone());
        let first = String::from_utf8(first.unwrap_or_default()).expect("text");
        assert_eq!(first, "Remote on 1 of 3 shards (s1)", "{explain}");
    }
    client.query("begin");
    let declared = format!("declare c cursor for {}", to(2, "select id from users"));
    client.query(&declared);
    let fetched = client.query("fetch all from c");
    assert_eq!(fetched.rows.len().to_string(), counts[1]);
    client.query("commit");
    client.query("prepare r as select count(*) from users");
    assert_eq!(client.query("execute r").value(), "300");
}

/// Statements with what is in the NOTICE of each, and in its DETAIL.
const ROUTINGS: [(&str, &str, &str); 5] = [
    (
        "/* pgbraid shard=s3 */ select count(*) from users",
        "routed by hand to shard s3",
        "",
    ),
    (
        "select id from users order by id limit 2",
        "pushed down to shards s1, s2, s3, put together in pgbraid",
        "GatherMerge: id",
    ),
    (
        "select count(*) from tags where not exists (select from users u where u.id = tags.id)",
        "combined on a merge session of s",
        "Combine on merge session",
    ),
    (
        "select id, rank() over (order by score) from users",
        "gathered from shards s1, s2, s3, combined",
        "Stage stage_1",
    ),
    (
        "select country, count(*) from users group by country order by 2, 1",
        "shards s1, s2, s3",
        "Remote on 3 of 3 shards",
    ),
];

/// The NOTICEs of a statement: message and detail.
fn notices(messages: &[Message]) -> Vec<(String, String)> {
    let text = |m: &Message, code| m.field(code).unwrap_or_default();
    let told = messages.iter().filter(|m| m.tag == b'N');
    told.map(|m| (text(m, b'M'), text(m, b'D'))).collect()
}

#[test]
fn where_statements_go_is_told_to_who_asks() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, mut client) = started();
    let id = a_user_of(1);
    let ask = |client: &mut Client, sql: &str| {
        client.send(&query(sql)).expect("sent");
        let messages = client.until_ready().expect("answered");
        assert_eq!(Reply::of(&messages).complaint(), "", "{sql}");
        let first = messages.iter().position(|m| m.tag == b'D');
        let notice = messages.iter().position(|m| m.tag == b'N');
        assert!(
            notice.is_none() || notice < first || first.is_none(),
            "{sql}: behind rows"
        );
        notices(&messages)
    };
    let by_key = format!("select name from users where id = {id}");
    assert!(ask(&mut client, &by_key).is_empty());
    client.query("set pgbraid.explain_routing = on");
    for _ in 0..2 {
        let told = ask(&mut client, &by_key);
        let expected = (
            "routed to shard s2, the text unchanged".into(),
            String::new(),
        );
        assert_eq!(told, [expected]);
    }
    for (sql, message, detail) in ROUTINGS {
        let told = ask(&mut client, sql);
        let [(said, shown)] = told.as_slice() else {
            panic!("{sql}: {told:?}");
        };
        assert!(said.contains(message), "{sql}: {said}");
        assert!(shown.contains(detail), "{sql}: {shown}");
        assert_eq!(shown.is_empty(), detail.is_empty(), "{sql}: {shown}");
    }
    let update = format!("update accounts set owner = owner where id = {id}");
    assert_eq!(
        ask(&mut client, &update)[0].0,
        "routed to shard s2, the text unchanged"
    );
    assert!(ask(&mut client, "begin; commit; show pgbraid.shard").is_empty());
    // In the extended protocol as well.
    let unit = [
        parse("", &by_key, &[]),
        bind("", "", &[], &[0]),
        execute("", 0),
        sync(),
    ]
    .concat();
    client.send(&unit).expect("sent");
    let told = notices(&client.until_ready().expect("answered"));
    assert_eq!(told[0].0, "routed to shard s2, the text unchanged");
    client.query("set client_min_messages = warning");
    assert!(ask(&mut client, &by_key).is_empty());
    client.query("set client_min_messages = notice");
    client.query("set pgbraid.explain_routing = off");
    assert!(ask(&mut client, &by_key).is_empty());
}

#[test]
fn with_one_shard_there_is_one_to_choose() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::one_shard(cluster()));
    let mut client = pgbraid.client();
    client.query("set pgbraid.shard = 's1'");
    assert_eq!(show(&mut client, "pgbraid.shard"), "s1");
    assert_eq!(client.query(COUNT).value(), "300");
    assert_eq!(
        client
            .query("select current_setting('pgbraid.shard')")
            .value(),
        "s1"
    );
    assert_refused(&client.query("set pgbraid.shard = 's2'"), "22023", "s1");
    assert_refused(
        &client.query("/* pgbraid shard=s2 */ select 1"),
        "22023",
        "s1",
    );
    client.query("set pgbraid.explain_routing = on");
    client.send(&query(COUNT)).expect("sent");
    let told = notices(&client.until_ready().expect("answered"));
    assert!(told[0].0.contains("routed to shard s1"), "{told:?}");
    client.query("create temp table kept (a int4); set pgbraid.explain_routing = off");
    assert_eq!(client.query("select count(*) from kept").value(), "0");
    assert_eq!(show(&mut client, "pgbraid.explain_routing"), "off");
    client.assert_in_step("one shard");
}
