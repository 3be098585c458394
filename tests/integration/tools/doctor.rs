//! Differences are planted on one of three shards, found by name, mended by the statements given, and gone.

use std::path::Path;

use serde_json::Value;

use super::{Databases, run, server, utf8};
use crate::harness::cluster::free_port;
use crate::harness::{Client, Config, cluster};

const TABLES: &str = "
[[table]]
name = \"orders\"
key = \"id\"
[[table]]
name = \"words\"
key = \"word\"
function = \"hive\"
[[table]]
name = \"countries\"
reference = true
[[table]]
name = \"notes\"
reference = true
";

/// Healthy shards: rows lie where PostgreSQL's hash partitioning (and Hive's, for the words) puts them.
fn schema(shard: usize) -> String {
    format!(
        "create type mood as enum ('sad', 'ok');
         create domain cents as int8 check (value >= 0);
         create sequence counter;
         create table countries (code char(2) primary key, name text not null, since date default date '1900-01-01');
         create table notes (at timestamptz, note text, j json, amount float8);
         create table orders (id int8 primary key, country char(2) references countries, placed timestamptz, total cents, mood mood,
             doubled int8 generated always as (id * 2) stored, constraint id_is_positive check (id > 0));
         create index orders_placed on orders (placed);
         create index on orders (country) where total > 100;
         create table words (word text primary key, n int4);
         create table forgotten_{shard} (a int4);
         create view dear as select id, total from orders where total > 1000;
         create function tax(int8) returns int8 language sql immutable as 'select $1 / 5';
         create trigger unchanged before update on orders for each row execute function suppress_redundant_updates_trigger();
         insert into countries select code, 'Country ' || code from unnest('{{BR,US,DE,FR,JP}}'::text[]) code;
         insert into notes select timestamptz '2024-01-01' + n * interval '1 day', 'it''s ' || n % 3, '{{\"n\": 1}}', n / 3.0
         from generate_series(1, 40) n;
         insert into notes select * from notes where note = 'it''s 1';
         create table h (k int8) partition by hash (k);
         insert into orders select n, 'BR', timestamptz '2024-01-01' + n * interval '1 hour', n, 'ok' from generate_series(1, 300) n
         where satisfies_hash_partition('h'::regclass, 3, {shard}, n::int8);
         drop table h;
         insert into words select word, length(word) from unnest('{{{words}}}'::text[]) word;
         grant all on all tables in schema public to app;
         analyze;",
        // Java's hashCode modulo 3.
        words = ["c,f,i", "a,d,g", "b,e,h"][shard]
    )
}

struct Planted {
    /// What is found, or the beginning of it.
    object: &'static str,
    shard: usize,
    sql: &'static str,
    /// True where answers may be wrong.
    must: bool,
}

const fn planted(object: &'static str, shard: usize, sql: &'static str, must: bool) -> Planted {
    Planted {
        object,
        shard,
        sql,
        must,
    }
}

const PLANTED: [Planted; 22] = [
    planted(
        "index public.orders_placed",
        1,
        "drop index orders_placed",
        false,
    ),
    planted(
        "version of the default collation",
        2,
        "update pg_database set datcollversion = '1.0' where datname = current_database()",
        false,
    ),
    planted(
        "reference table public.countries",
        1,
        "update countries set name = 'Brésil' where code = 'BR'",
        true,
    ),
    planted(
        "reference table public.notes",
        2,
        "delete from notes where ctid in (select ctid from notes where amount > 10 and note = 'it''s 1' limit 1)",
        true,
    ),
    planted(
        "sharded table public.orders",
        0,
        "insert into orders select n, 'US', timestamptz '2024-02-03 04:05:06.789+01', n, 'sad' from generate_series(901, 903) n",
        true,
    ),
    planted(
        "sharded table public.words",
        1,
        "insert into words values ('it''s', 4), ('b', 1)",
        true,
    ),
    planted(
        "setting TimeZone",
        1,
        "do $$ begin execute format('alter database %I set timezone = ''Asia/Tokyo''', current_database()); end $$",
        true,
    ),
    planted(
        "function public.tax(bigint)",
        2,
        "create or replace function tax(int8) returns int8 language sql immutable as 'select $1 / 4'",
        true,
    ),
    planted(
        "type public.mood",
        0,
        "alter type mood add value 'happy' after 'ok'",
        true,
    ),
    planted(
        "constraint id_is_positive of table public.orders",
        2,
        "alter table orders drop constraint id_is_positive",
        false,
    ),
    planted(
        "constraint orders_country_fkey of table public.orders",
        1,
        "alter table orders drop constraint orders_country_fkey",
        false,
    ),
    planted(
        "nullability of column public.countries.name",
        0,
        "alter table countries alter name drop not null",
        false,
    ),
    planted(
        "default of column public.countries.since",
        1,
        "alter table countries alter since set default date '2000-01-01'",
        false,
    ),
    planted(
        "column public.words.n",
        2,
        "alter table words alter n type int8",
        true,
    ),
    planted(
        "view public.dear",
        1,
        "create or replace view dear as select id, total from orders where total > 999",
        true,
    ),
    planted(
        "state of trigger unchanged of table public.orders",
        1,
        "alter table orders disable trigger unchanged",
        false,
    ),
    planted(
        "privileges of app on table public.orders",
        2,
        "revoke insert on orders from app",
        false,
    ),
    planted(
        "privileges of PUBLIC on function public.tax(bigint)",
        1,
        "revoke execute on function tax from public",
        false,
    ),
    planted(
        "privileges of guarded on table public.notes",
        0,
        "grant select on notes to guarded",
        false,
    ),
    planted("extension plpgsql", 1, "drop extension plpgsql", false),
    planted(
        "sequence public.counter",
        0,
        "alter sequence counter increment by 10",
        false,
    ),
    planted(
        "setting statement_timeout",
        2,
        "do $$ begin execute format('alter role app in database %I set statement_timeout = ''61s''', current_database()); end $$",
        false,
    ),
];

fn diagnose(config: &Path) -> (i32, Value) {
    let (status, out, err) = run(&["doctor", "--json", "--config", utf8(config)]);
    let report = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}\n{err}"));
    (status, report)
}

fn findings(report: &Value) -> &Vec<Value> {
    report["findings"].as_array().expect("a list")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("text")
}

/// Runs what mends the findings, in its order, each statement by itself.
fn mend(databases: &Databases, report: &Value) {
    let mut clients: Vec<Client> = (0..3).map(|n| server(n, &databases.name)).collect();
    for finding in findings(report) {
        for step in finding["mend"].as_array().expect("a list") {
            let shard: usize = text(step, "shard")[1..].parse().expect("a number");
            let reply = clients[shard - 1].query(text(step, "statement"));
            assert!(
                reply.error.is_none(),
                "{}: {}",
                text(step, "statement"),
                reply.complaint()
            );
        }
    }
}

fn has_library_collation(databases: &Databases) -> bool {
    let sql =
        "select datcollversion is not null from pg_database where datname = current_database()";
    server(0, &databases.name).query(sql).value() == "t"
}

#[test]
fn planted_differences_are_found_one_by_one_and_mended() {
    let databases = Databases::create("doctor", schema);
    let config = databases.config(TABLES);
    let (status, report) = diagnose(&config);
    assert_eq!(status, 0, "healthy shards: {report:#}");
    assert!(findings(&report).is_empty());
    for plant in &PLANTED {
        if plant.object.starts_with("version") && !has_library_collation(&databases) {
            eprintln!(
                "the servers' locale has no version: {} is not planted",
                plant.object
            );
            continue;
        }
        databases.run(plant.shard, plant.sql);
        let (status, report) = diagnose(&config);
        assert_eq!(status, 1, "{}: {report:#}", plant.sql);
        for finding in findings(&report) {
            assert!(
                text(finding, "object").starts_with(plant.object),
                "{}: {finding:#}",
                plant.sql
            );
            assert_eq!(finding["must"], plant.must, "{finding:#}");
            assert!(
                !finding["mend"].as_array().expect("a list").is_empty(),
                "{finding:#}"
            );
        }
        // A growing enum is mended on the others.
        if plant.object != "type public.mood" {
            let all = findings(&report);
            let shard = format!("s{}", plant.shard + 1);
            assert!(
                all.len() == 1 && text(&all[0], "shard") == shard,
                "{}: {report:#}",
                plant.sql
            );
        }
        mend(&databases, &report);
        let (status, report) = diagnose(&config);
        assert_eq!(status, 0, "mended, {}: {report:#}", plant.sql);
    }
}

#[test]
fn planted_differences_are_found_all_at_once_and_mended() {
    let databases = Databases::create("doctors", schema);
    let config = databases.config(TABLES);
    let plants = || {
        let versioned = has_library_collation(&databases);
        let all = PLANTED.iter();
        all.filter(move |p| versioned || !p.object.starts_with("version"))
    };
    for plant in plants() {
        databases.run(plant.shard, plant.sql);
    }
    let (status, report) = diagnose(&config);
    assert_eq!(status, 1, "{report:#}");
    for plant in plants() {
        // Rows are compared where the columns are the same.
        if plant.object == "sharded table public.words" {
            continue;
        }
        assert!(
            findings(&report)
                .iter()
                .any(|f| text(f, "object").starts_with(plant.object)),
            "{} is not found: {report:#}",
            plant.object
        );
    }
    mend(&databases, &report);
    let (_, report) = diagnose(&config);
    mend(&databases, &report);
    let (status, report) = diagnose(&config);
    assert_eq!(status, 0, "{report:#}");
}

#[test]
fn people_are_told_the_statement() {
    let databases = Databases::create("told", schema);
    let config = databases.config(TABLES);
    databases.run(1, "drop index orders_placed");
    let (status, out, _) = run(&["doctor", "--config", utf8(&config)]);
    assert_eq!(status, 1, "{out}");
    assert!(
        out.contains("shard s2: index public.orders_placed: is missing, shard s1 has it"),
        "{out}"
    );
    assert!(
        out.contains("on s2:  CREATE INDEX orders_placed ON public.orders USING btree (placed);"),
        "{out}"
    );
}

#[test]
fn rows_that_cannot_be_read_are_not_called_healthy() {
    let databases = Databases::create("unread", schema);
    let config = databases.config(TABLES);
    for shard in 0..3 {
        databases.run(shard, "revoke all on notes from app");
    }
    let (status, report) = diagnose(&config);
    assert_eq!(status, 2, "{report:#}");
    assert!(
        report["not_looked_at"][0]
            .as_str()
            .is_some_and(|t| t.contains("public.notes"))
    );
}

/// One of nearly everything that a schema can hold, with names that need quotes.
const MUSEUM: &str = r#"
create schema "Odd Names";
create type "Odd Names"."Mood's" as enum ('sad', 'it''s ok', 'happy');
create type pair as (a int4, "B b" text collate "C");
create domain posint as int4 default 7 not null constraint positive check (value > 0);
create type span as range (subtype = float8);
create sequence ticket as int4 increment by 5 cycle;
create table "Odd Names"."Tab le" (
  "Id" int8 generated always as identity primary key, "Mood" "Odd Names"."Mood's" default 'it''s ok', p pair, n posint, s span,
  twice int8 generated always as ("Id" * 2) stored, label text collate "C" not null default 'a''b', during int4range, tags text[] default '{}',
  constraint "No overlap" exclude using gist (during with &&), constraint "Long enough" check (length(label) > 0));
create index "By low" on "Odd Names"."Tab le" using btree (lower(label) text_pattern_ops desc nulls last) include (n) where n > 3;
create unique index on "Odd Names"."Tab le" (label, "Mood");
create table facts (id int8 not null, at date not null, kind char(2) not null, v numeric(10,2) default 1.5) partition by range (at);
create table facts_old partition of facts for values from (minvalue) to ('2024-01-01') partition by list (kind);
create table facts_old_a partition of facts_old for values in ('aa', 'ab');
create table facts_new partition of facts default;
create index on facts (id);
alter table facts add constraint facts_key primary key (id, at, kind);
create table base (id int8 primary key, note text);
create table derived (extra int4 default 3) inherits (base);
create table child (id int8 primary key, base int8, state int2 not null);
alter table child add foreign key (base) references base deferrable initially deferred not valid;
create view open_child with (security_barrier = true) as select id, state from child where state = 1;
create materialized view totals as select count(*) as n from child;
create function add(a int8, b int8 default 1) returns int8 language sql immutable strict as 'select a + b';
create function rows_of(out id int8, out v text) returns setof record language plpgsql stable as $$ begin id := 1; v := 'x'; return next; end $$;
create procedure nothing() language sql as 'select 1';
create aggregate product(int8) (sfunc = int8mul, stype = int8, initcond = '1');
create function touch() returns trigger language plpgsql as 'begin return new; end';
create trigger touch before update of state on child for each row when (old.state <> new.state) execute function touch();
alter table child enable always trigger touch;
create policy mine on child for select to app using (state > 0);
alter table child enable row level security;
grant select, insert on child to app;
grant usage on schema "Odd Names" to app;
grant select on all tables in schema "Odd Names", public to app;
grant usage on sequence ticket to app;
revoke execute on function add from public;
"#;

/// Everything but `child`, which row security hides from the doctor.
const MUSEUM_TABLES: &str = "
[[table]]
name = '\"Odd Names\".\"Tab le\"'
reference = true
[[table]]
name = \"facts\"
key = \"id\"
[[table]]
name = \"base\"
reference = true
[[table]]
name = \"totals\"
reference = true
[[table]]
name = \"child\"
sharded = true
";

#[test]
fn an_empty_shard_gets_its_schema_and_reference_rows() {
    let databases = Databases::create("museum", |shard| {
        match shard {
        1 => String::from("select 1"),
        _ => format!(
            "{MUSEUM}
             insert into \"Odd Names\".\"Tab le\" (\"Mood\", p, s, label, during) values
                 ('happy', '(1,\"x y\")', '[1.5,2.5)', 'l''1', '[1,5)'), (null, null, null, E'tab\\there \\\\ back', null);
             insert into base values (1, 'one'), (2, null);"
        ),
    }
    });
    let config = databases.config(MUSEUM_TABLES);
    // Some statements need what a later one makes: they are right in the next round.
    for _ in 0..4 {
        let (_, report) = diagnose(&config);
        let mut client = server(1, &databases.name);
        for finding in findings(&report) {
            for step in finding["mend"].as_array().expect("a list") {
                assert_eq!(text(step, "shard"), "s2", "{finding:#}");
                client.query(text(step, "statement"));
            }
        }
    }
    let (status, report) = diagnose(&config);
    assert_eq!(status, 0, "{report:#}");
}

#[test]
fn a_locked_table_is_not_waited_for() {
    let databases = Databases::create("locked", schema);
    let config = databases.config(TABLES);
    let mut holder = server(1, &databases.name);
    holder.query("begin");
    holder.query("lock table orders");
    let begin = std::time::Instant::now();
    let (status, out, err) = run(&["doctor", "--timeout", "1", "--config", utf8(&config)]);
    assert_eq!(status, 2, "{out}{err}");
    assert!(begin.elapsed() < std::time::Duration::from_secs(30));
    assert!((out.clone() + &err).contains("timeout"), "{out}{err}");
    holder.query("rollback");
    let (status, out, err) = run(&["doctor", "--timeout", "1", "--config", utf8(&config)]);
    assert_eq!(status, 0, "{out}{err}");
}

#[test]
fn the_test_servers_are_healthy() {
    // Row security hides nothing from this one.
    let mut config = Config::new(cluster());
    config.shard_user = "postgres";
    let path = super::file("healthy.toml", &config.print(free_port()));
    let (status, out, err) = run(&["doctor", "--full", "--config", utf8(&path)]);
    assert_eq!(status, 0, "{out}{err}");
}

#[test]
fn a_shard_that_is_down_is_not_looked_at() {
    let databases = Databases::create("down", |_| String::from("select 1"));
    let third = format!("port = {}", cluster().shards[2]);
    let path = databases.config("");
    let text = std::fs::read_to_string(&path).expect("written");
    let path = super::file(
        "down.toml",
        &text.replace(&third, &format!("port = {}", free_port())),
    );
    let (status, _, err) = run(&["doctor", "--config", utf8(&path)]);
    assert_eq!(status, 2, "{err}");
    assert!(err.contains("shard s3 cannot be reached"), "{err}");
}
