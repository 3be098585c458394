//! Partial results: with a shard gone, answers are those of one PostgreSQL without that shard's rows, and say so; or errors, as before.

mod losses;

use crate::harness::client::{bind, cstr, describe_or_close, execute, parse, query, sync};
use crate::harness::relay::Fault;
use crate::harness::{Client, Config, Message, Pgbraid, Relay, Reply, cluster, target_is_postgres};

const ON: &str = "set pgbraid.partial_results = on";
const WARNING: &str = "01000";

/// Tables by integer keys, with their keys.
const TABLES: [(&str, &str); 10] = [
    ("users", "id"),
    ("events", "user_id"),
    ("visits", "user_id"),
    ("orders", "id"),
    ("lineitem", "order_id"),
    ("dupes", "id"),
    ("lonely", "id"),
    ("big", "id"),
    ("limits", "id"),
    ("small_keys", "k"),
];

/// Every kind of plan; those without an order are compared as sets.
const STATEMENTS: [&str; 38] = [
    // Any shard answers.
    "select 1",
    "select count(*), min(name) from countries",
    // Keys.
    "select name from users where id in (1, 2, 3, 4, 5, 6, 7, 8)",
    "select count(*) from users where id in (1, 2, 3)",
    "select u.name, e.id from users u join events e on e.user_id = u.id where u.id in (1, 2, 3, 4, 5)",
    // Gather.
    "select id, name from users",
    "select id from users union all select id from tags",
    "select u.id, c.name from users u join countries c on c.code = u.country",
    "select t.id, u.id from tags t left join users u on u.id = t.id",
    // Merge.
    "select id, name from users order by id",
    "select id, name, score from users order by score desc nulls last, id limit 17 offset 5",
    "select id, tags, country from users order by country nulls first, id fetch first 9 rows with ties",
    // Aggregates.
    "select count(*) from users",
    "select count(*), sum(score), avg(score), min(name), max(created_at), bool_and(active) from users",
    "select country, count(*), max(score) from users group by country order by country",
    "select kind, sum(amount) from events group by kind having count(*) > 3 order by kind",
    "select count(distinct country) from users",
    "select count(*) + 1 from users where id < 0",
    "select sum(x), count(*) from big",
    // Distinct and sets.
    "select distinct country from users",
    "select distinct v, k from dupes order by v nulls last, k nulls last",
    "select country from users intersect select code from countries",
    "select code from countries except select country from users",
    "select id from tags except select id from users",
    // Steps.
    "select id from users where id not in (select manager_id from users where manager_id is not null)",
    "select count(*) from users where score > (select avg(score) from users)",
    "select l.id, (select count(*) from dupes d where d.k <> l.k) from lonely l order by l.id",
    "select id from tags where id not in (select id from users)",
    "select count(*) from tags where not exists (select from users u where u.id = tags.id)",
    "with t as (select country, count(*) as n from users group by country) select max(n) from t",
    "with recursive r as (select id, manager_id from users where id = 1 union select u.id, u.manager_id from users u join r on u.id = r.manager_id) select count(*) from r",
    // Joins off the key, windows.
    "select a.id, b.id from users a join users b on a.manager_id = b.id order by a.id, b.id",
    "select o.id, u.name from orders o left join users u on u.id = o.customer_id order by o.id",
    "select o.id, u.name from orders o full join users u on u.id = o.customer_id where u.id is null or o.id is null order by o.id, u.name, u.id",
    "select id, rank() over (order by score nulls last, id) from users order by id",
    "select percentile_disc(0.5) within group (order by score) from users",
    // Views.
    "select * from v_user_totals order by id",
    "select * from v_kinds order by kind",
];

/// A server without the rows of one shard: the oracle, in a transaction that has deleted them and is never committed.
fn without(shard: usize) -> Client {
    let mut oracle = Client::connect(cluster().oracle, "postgres", "").expect("login");
    let mut run = |sql: &str| {
        let reply = oracle.query(sql);
        assert!(reply.error.is_none(), "{sql}: {}", reply.complaint());
    };
    run("begin");
    run("create temp table of_shard (k int8) partition by hash (k)");
    for (table, key) in TABLES {
        run(&format!(
            "delete from {table} where satisfies_hash_partition('of_shard'::regclass, 3, {shard}, {key}::int8)"
        ));
    }
    oracle
}

/// pgbraid with one shard behind a relay.
fn behind_relay(shard: usize) -> (Relay, Pgbraid) {
    behind_relay_with(shard, |config| config)
}

fn behind_relay_with(shard: usize, adjust: impl FnOnce(Config) -> Config) -> (Relay, Pgbraid) {
    let relay = Relay::start(cluster().shards[shard]);
    let config = Config::new(cluster()).with_port(shard, relay.port);
    (relay, Pgbraid::start(adjust(config)))
}

/// What a client is told besides the answer.
#[derive(Debug, Default)]
struct Told {
    reply: Reply,
    /// Messages of the WARNINGs.
    warnings: Vec<String>,
    /// The shards that the ParameterStatus names, where there is one.
    missing: Option<String>,
}

impl Told {
    fn of(messages: &[Message]) -> Self {
        let mut told = Self {
            reply: Reply::of(messages),
            ..Self::default()
        };
        for m in messages {
            if m.tag == b'N' && m.field(b'C').as_deref() == Some(WARNING) {
                told.warnings.push(m.field(b'M').unwrap_or_default());
            }
            if m.tag == b'S' && cstr(&m.body) == "pgbraid.missing_shards" {
                let value = cstr(&m.body["pgbraid.missing_shards".len() + 1..]);
                told.missing = Some(value);
            }
        }
        told
    }

    fn assert_partial(&self, what: &str) {
        assert!(
            self.reply.error.is_none(),
            "{what}: {}",
            self.reply.complaint()
        );
        let warns = self.warnings.iter().any(|w| w.contains("partial result"));
        assert!(warns, "{what}: no warning");
    }

    fn assert_whole(&self, what: &str) {
        assert!(
            self.reply.error.is_none(),
            "{what}: {}",
            self.reply.complaint()
        );
        assert!(self.warnings.is_empty(), "{what}: {:?}", self.warnings);
    }
}

fn ask(client: &mut Client, sql: &str) -> Told {
    client.send(&query(sql)).expect("sent");
    Told::of(&client.until_ready().expect("session lost"))
}

fn ask_extended(client: &mut Client, sql: &str) -> Told {
    let bytes = [
        parse("", sql, &[]),
        bind("", "", &[], &[0]),
        describe_or_close(b'D', b'P', ""),
        execute("", 0),
        sync(),
    ];
    client.send(&bytes.concat()).expect("sent");
    Told::of(&client.until_ready().expect("session lost"))
}

/// Rows in their order, where the statement asks for one.
fn rows(sql: &str, reply: &Reply) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut rows = reply.rows.clone();
    if !sql.contains(" order by ") || sql.contains("over (order") && !sql.ends_with("by id") {
        rows.sort();
    }
    rows
}

/// A Bind with one parameter, as text.
fn with_id(statement: &str, id: &str) -> Vec<u8> {
    bind("", statement, &[(0, Some(id.as_bytes().to_vec()))], &[0])
}

fn a_user_of(shard: usize) -> String {
    let mut client = Client::connect(cluster().shards[shard], "app", "app").expect("login");
    client.query("select min(id) from users").value()
}

/// All statements with one shard gone, in both protocols.
fn answers_are_those_without(shard: usize) {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = behind_relay(shard);
    let mut oracle = without(shard);
    let mut client = pgbraid.client();
    let name = format!("s{}", shard + 1);
    relay.arm(Fault::Cut { after: 0 });
    assert_eq!(client.query(ON).tag, "SET");
    for sql in STATEMENTS {
        let expected = oracle.query(sql);
        assert!(expected.error.is_none(), "{sql}: {}", expected.complaint());
        for extended in [false, true] {
            let told = match extended {
                false => ask(&mut client, sql),
                true => ask_extended(&mut client, sql),
            };
            let reply = &told.reply;
            assert!(reply.error.is_none(), "{sql}: {}", reply.complaint());
            assert_eq!(rows(sql, reply), rows(sql, &expected), "{sql}");
            assert_eq!(reply.tag, expected.tag, "{sql}");
            let any = sql == "select 1" || sql == STATEMENTS[1];
            // Their keys may all lie elsewhere.
            let by_keys = sql.contains(" in (1,");
            if !by_keys {
                assert_eq!(told.warnings.is_empty(), any, "{sql}: {:?}", told.warnings);
            }
            let named = told.warnings.iter().all(|w| w.contains(&name));
            assert!(named, "{sql}: {:?}", told.warnings);
        }
    }
    client.assert_in_step("partial results");
    pgbraid.assert_no_panic();
}

#[test]
fn answers_are_those_of_a_database_without_the_shards_rows() {
    answers_are_those_without(1);
}

#[test]
fn the_catalog_shard_may_be_the_missing_one() {
    answers_are_those_without(0);
}

#[test]
fn the_last_shard_may_be_the_missing_one() {
    answers_are_those_without(2);
}

#[test]
fn the_client_is_told_while_a_shard_is_missing_and_when_it_is_back() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = behind_relay(1);
    let mut client = pgbraid.client();
    let count = "select count(*) from users";
    assert_eq!(client.query(ON).tag, "SET");
    let told = ask(&mut client, count);
    told.assert_whole("all there");
    assert_eq!((told.reply.value().as_str(), told.missing), ("300", None));
    relay.arm(Fault::Cut { after: 0 });
    let told = ask(&mut client, count);
    told.assert_partial("one gone");
    assert_eq!(told.missing.as_deref(), Some("s2"));
    assert!(told.warnings[0].contains("shard s2"), "{:?}", told.warnings);
    let part = told.reply.value();
    // It is told once, and the warning each time.
    let told = ask(&mut client, count);
    told.assert_partial("still gone");
    assert_eq!((told.reply.value(), told.missing), (part.clone(), None));
    // Nothing is missing where no row of it is read.
    let elsewhere = a_user_of(0);
    let told = ask(
        &mut client,
        &format!("select id from users where id = {elsewhere}"),
    );
    told.assert_whole("elsewhere");
    assert_eq!(told.missing.as_deref(), Some(""));
    let told = ask(&mut client, count);
    assert_eq!(told.missing.as_deref(), Some("s2"));
    // Off again: an error, and nothing is said to be missing.
    let told = ask(&mut client, "set pgbraid.partial_results = off");
    assert_eq!(told.missing.as_deref(), Some(""));
    let told = ask(&mut client, count);
    assert_eq!(told.reply.sqlstate().as_deref(), Some("08006"));
    ask(&mut client, ON);
    let told = ask(&mut client, count);
    told.assert_partial("on again");
    relay.heal();
    let told = ask(&mut client, count);
    told.assert_whole("back");
    assert_eq!(told.reply.value(), "300");
    assert_eq!(told.missing.as_deref(), Some(""));
    // The log of other sessions: nobody else is concerned.
    relay.arm(Fault::Cut { after: 0 });
    let reply = pgbraid.client().query(count);
    assert_eq!(reply.sqlstate().as_deref(), Some("08006"));
}

#[test]
fn a_statement_by_the_key_of_a_missing_shard_finds_nothing() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = behind_relay(1);
    let mut client = pgbraid.client();
    let id = a_user_of(1);
    relay.arm(Fault::Cut { after: 0 });
    ask(&mut client, ON);
    for sql in [
        format!("select name from users where id = {id}"),
        format!(
            "select u.name, e.id from users u left join events e on e.user_id = u.id where u.id = {id}"
        ),
    ] {
        let told = ask(&mut client, &sql);
        told.assert_partial(&sql);
        assert_eq!(
            (told.reply.rows.len(), told.reply.tag.as_str()),
            (0, "SELECT 0")
        );
    }
    let told = ask(
        &mut client,
        &format!("select count(*) from users where id = {id}"),
    );
    told.assert_partial("a count");
    assert_eq!(told.reply.value(), "0");
}

#[test]
fn prepared_statements_and_pipelines_are_answered_too() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = behind_relay(1);
    let mut oracle = without(1);
    let mut client = pgbraid.client();
    let (here, gone) = (a_user_of(0), a_user_of(1));
    let one = "select id, name from users where id = $1::int8";
    let all = "select count(*) from users where id > $1::int8";
    let first = [parse("one", one, &[]), parse("all", all, &[]), sync()];
    client.send(&first.concat()).expect("sent");
    client.until_ready().expect("prepared");
    let unit = |name: &str, value: &str| [with_id(name, value), execute("", 0), sync()].concat();
    let with = unit("all", "0");
    client.send(&with).expect("sent");
    assert_eq!(
        Told::of(&client.until_ready().expect("answered"))
            .reply
            .value(),
        "300"
    );
    ask(&mut client, ON);
    relay.arm(Fault::Cut { after: 0 });
    let part = oracle.query("select count(*) from users").value();
    for _ in 0..3 {
        let sent = [
            unit("one", &here),
            unit("all", "0"),
            unit("one", &gone),
            unit("all", "0"),
        ];
        client.send(&sent.concat()).expect("sent");
        let told: Vec<Told> = (0..4)
            .map(|_| Told::of(&client.until_ready().expect("answered")))
            .collect();
        told[0].assert_whole("a shard that is there");
        assert_eq!(told[0].reply.rows.len(), 1);
        told[1].assert_partial("all");
        assert_eq!(told[1].reply.value(), part);
        told[2].assert_partial("the missing one's");
        assert_eq!(told[2].reply.rows.len(), 0);
        assert_eq!(told[3].reply.value(), part);
    }
    // Without a Sync in between.
    let sent = [
        with_id("all", "0"),
        execute("", 0),
        with_id("all", "0"),
        execute("", 0),
        sync(),
    ];
    client.send(&sent.concat()).expect("sent");
    let told = Told::of(&client.until_ready().expect("answered"));
    assert!(told.reply.error.is_none(), "{}", told.reply.complaint());
    assert_eq!((told.reply.rows.len(), told.warnings.len()), (2, 2));
    // By name, in SQL.
    ask(&mut client, "prepare n as select count(*) from users");
    let told = ask(&mut client, "execute n");
    told.assert_partial("EXECUTE");
    assert_eq!(told.reply.value(), part);
}
