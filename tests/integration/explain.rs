//! EXPLAIN through pgbraid: the steps, what the shards expect of them, and with ANALYZE what came.

use crate::harness::{Client, Config, Pgbraid, cluster, target_is_postgres};

const STATEMENT: &str =
    "select d.id, (select count(*) from lonely l where l.k <> d.k) from dupes d where d.id < 40";

fn lines(client: &mut Client, sql: &str) -> Vec<String> {
    let reply = client.query(sql);
    assert_eq!(reply.sqlstate(), None, "{}", reply.complaint());
    let text = |row: &Vec<Option<Vec<u8>>>| {
        String::from_utf8(row[0].clone().expect("a line")).expect("UTF-8")
    };
    reply.rows.iter().map(text).collect()
}

/// The number that stands before `unit` in a line.
fn number(line: &str, unit: &str) -> u64 {
    let before = line.split(unit).next().expect("a part");
    let word = before.trim_end().rsplit([' ', '=']).next().expect("a word");
    word.parse().unwrap_or_else(|_| panic!("{line}: {word}"))
}

/// What the shards themselves expect of a step's text.
fn expected(sql: &str) -> u64 {
    let shards = cluster().shards.iter();
    let rows = shards.map(|port| {
        let mut shard = Client::connect(*port, "app", "app").expect("login");
        number(&lines(&mut shard, &format!("explain {sql}"))[0], " width=")
    });
    rows.sum()
}

#[test]
fn estimates_are_those_of_the_shards() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let explained = lines(&mut pgbraid.client(), &format!("explain {STATEMENT}"));
    assert!(
        explained[0].starts_with("Combine on merge session: "),
        "{explained:#?}"
    );
    let texts = explained
        .iter()
        .filter_map(|l| l.split_once("Remote on 3 of 3 shards: "));
    let texts: Vec<&str> = texts.map(|(_, text)| text).collect();
    assert_eq!(texts.len(), 2, "{explained:#?}");
    for (n, text) in texts.into_iter().enumerate() {
        let start = format!("Estimate of stage_{}: ", n + 1);
        let line = explained
            .iter()
            .find(|l| l.starts_with(&start))
            .expect(&start);
        assert_eq!(number(line, " rows"), expected(text), "{line}");
        let plan = format!("Plan of stage_{} on s1:", n + 1);
        assert!(explained.contains(&plan), "{explained:#?}");
    }
    let all = lines(
        &mut pgbraid.client(),
        &format!("explain (verbose) {STATEMENT}"),
    );
    assert!(
        all.iter().any(|l| l == "Plan of stage_2 on s3:"),
        "{all:#?}"
    );
    let bare = lines(
        &mut pgbraid.client(),
        &format!("explain (costs off) {STATEMENT}"),
    );
    assert!(!bare.iter().any(|l| l.starts_with("Estimate")), "{bare:#?}");
}

#[test]
fn analyze_counts_what_came() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut oracle = Client::connect(cluster().oracle, "app", "app").expect("login");
    let rows = oracle.query(STATEMENT).rows.len() as u64;
    let mut client = pgbraid.client();
    let explained = lines(&mut client, &format!("explain (analyze) {STATEMENT}"));
    assert!(
        explained.contains(&format!("Rows: {rows}")),
        "{explained:#?}"
    );
    let of = |what: &str| -> u64 {
        let lines = explained
            .iter()
            .filter(|l| l.starts_with("Shard ") && l.contains(what));
        lines.map(|l| number(l, " rows, ")).sum()
    };
    let count =
        |sql: &str, oracle: &mut Client| oracle.query(sql).value().parse::<u64>().expect("a count");
    let stages = of("for stage_1") + of("for stage_2");
    let tables = count("select count(*) from dupes where id < 40", &mut oracle)
        + count("select count(*) from lonely", &mut oracle);
    assert_eq!(stages, tables, "{explained:#?}");
    assert_eq!(of("as merge session"), rows, "{explained:#?}");
    client.assert_in_step("EXPLAIN ANALYZE");
}
