//! The oracle as the reference: no difference. A shard as the reference: it lacks the others' rows.

use serde_json::Value;

use super::{Databases, file, run, utf8};
use crate::equivalence::case::{self, Expect};
use crate::harness::cluster::free_port;
use crate::harness::{Config, Pgbraid, cluster};

fn oracle() -> String {
    format!("postgres://app:app@127.0.0.1:{}/app", cluster().oracle)
}

fn verify(name: &str, rest: &[&str]) -> (i32, String) {
    let config = file(
        &format!("verify-{name}.toml"),
        &Config::new(cluster()).print(free_port()),
    );
    let arguments = [&["verify", "--config", utf8(&config)], rest];
    let (status, out, err) = run(&arguments.concat());
    (status, if out.is_empty() { err } else { out })
}

fn verdicts(printed: &str, verdict: &str) -> Vec<Value> {
    let all: Vec<Value> =
        serde_json::from_str(printed).unwrap_or_else(|e| panic!("{e}: {printed}"));
    all.into_iter()
        .filter(|o| o["verdict"] == verdict)
        .collect()
}

#[test]
fn statements_made_from_the_tables_agree_with_one_server() {
    let (status, printed) = verify(
        "sample",
        &["--reference", &oracle(), "--sample", "1000", "--json"],
    );
    assert_eq!(status, 0, "{printed}");
    assert!(verdicts(&printed, "different").is_empty());
    let same = verdicts(&printed, "same").len();
    assert!(same > 100, "{same}: {printed}");
}

#[test]
fn equivalence_cases_agree_with_one_server() {
    let cases = case::load();
    let fit = cases.iter().filter(|c| {
        let plain = c.before.is_empty() && c.after.is_empty() && c.oids().is_empty();
        plain
            && !c.volatile
            && c.subset_of.is_none()
            && !c.only_extended
            && c.expect == Expect::Same
    });
    let statements: Vec<&str> = fit.map(|c| c.sql.as_str()).collect();
    assert!(statements.len() > 100, "{}", statements.len());
    let list = file(
        "verify-cases.json",
        &serde_json::to_string(&statements).expect("text"),
    );
    let braid = Pgbraid::start(Config::new(cluster()));
    let via = format!("host=127.0.0.1 port={} user=app password=app", braid.port);
    let (status, printed) = verify(
        "cases",
        &[
            "--reference",
            &oracle(),
            "--via",
            &via,
            "--file",
            utf8(&list),
            "--json",
        ],
    );
    assert_eq!(status, 0, "{:#?}", verdicts(&printed, "different"));
    let same = verdicts(&printed, "same").len();
    assert!(
        same * 10 > statements.len() * 8,
        "{same} of {}: {:#?}",
        statements.len(),
        verdicts(&printed, "skipped")
    );
}

#[test]
fn what_differs_is_named() {
    let databases = Databases::create("verify", |shard| {
        format!(
            "create table orders (id int8 primary key, n numeric);
             create table tags (id int4 primary key, v text);
             insert into orders select {shard}, 1 from (values (0), (2)) v(shard) where v.shard = {shard};
             insert into tags values (1, 'a');
             grant all on all tables in schema public to app"
        )
    });
    let config = databases.config(
        "[[table]]\nname = \"orders\"\nkey = \"id\"\nfunction = \"modulo\"\n[[table]]\nname = \"tags\"\nreference = true\n",
    );
    let statements = file(
        "verify-planted.sql",
        "select count(*) from orders; select v from tags; select id / 0 from tags; select * from orders where id = 2; delete from tags",
    );
    let reference = format!(
        "postgres://app:app@127.0.0.1:{}/{}",
        cluster().shards[0],
        databases.name
    );
    let (status, out, err) = run(&[
        "verify",
        "--config",
        utf8(&config),
        "--reference",
        &reference,
        "--file",
        utf8(&statements),
    ]);
    assert_eq!(status, 1, "{out}{err}");
    assert!(
        out.contains("DIFFERENT  select count(*) from orders\n           other rows; only the reference has [Some(\"1\")]; only pgbraid has [Some(\"2\")]"),
        "{out}"
    );
    assert!(
        out.contains("DIFFERENT  select * from orders where id = 2\n           the reference gives 0 rows, pgbraid 1"),
        "{out}"
    );
    assert!(
        out.ends_with("5 statements: 2 the same, 2 different, 0 refused, 1 not comparable\n"),
        "{out}"
    );
}

#[test]
fn a_reference_that_is_down_is_not_compared() {
    let nobody = format!("host=127.0.0.1 port={} user=app", free_port());
    let (status, printed) = verify("down", &["--reference", &nobody]);
    assert_eq!(status, 2, "{printed}");
    assert!(printed.contains("the reference"), "{printed}");
}
