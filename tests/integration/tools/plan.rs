//! Files of statements, and which way each would go.

use serde_json::Value;

use super::{file, run, utf8};
use crate::harness::cluster::free_port;
use crate::harness::{Config, cluster};

fn plan(name: &str, text: &str, rest: &[&str]) -> (i32, String) {
    let config = file(
        &format!("plan-{name}.toml"),
        &Config::new(cluster()).print(free_port()),
    );
    let statements = file(&format!("plan-{name}"), text);
    let arguments = [
        &[
            "plan",
            "--config",
            utf8(&config),
            "--file",
            utf8(&statements),
        ],
        rest,
    ];
    let (status, out, err) = run(&arguments.concat());
    (status, out + &err)
}

const STATEMENTS: [(&str, &str); 15] = [
    ("select 1", "route"),
    ("select * from orders where id = 7", "route"),
    ("select * from orders where id = $1", "route"),
    ("update orders set note = 'x' where id = $1", "route"),
    ("select name from countries order by code", "route"),
    ("select count(*) from orders", "push_down"),
    ("select * from orders where id in (7, 8, 9)", "push_down"),
    ("copy (select id, note from orders) to stdout", "push_down"),
    // Equal char(n) may differ in bytes: groups are put together by a server.
    (
        "select status, count(*) from orders group by status",
        "stage",
    ),
    (
        "select percentile_cont(0.5) within group (order by total) from orders",
        "gather",
    ),
    ("set timezone = 'UTC'", "session"),
    ("create table x (a int)", "refused"),
    ("update orders set note = 'x'", "refused"),
    ("select nothing from orders", "failed"),
    ("selec 1", "failed"),
];

#[test]
fn every_statement_of_a_file_is_judged() {
    let sql: Vec<&str> = STATEMENTS.iter().map(|(sql, _)| *sql).collect();
    let (status, printed) = plan("ways", &sql.join(";\n"), &["--json"]);
    assert_eq!(status, 0, "{printed}");
    let outcomes: Vec<Value> = serde_json::from_str(&printed).expect("a list");
    assert_eq!(outcomes.len(), STATEMENTS.len(), "{printed}");
    for (outcome, (sql, way)) in outcomes.iter().zip(STATEMENTS) {
        assert_eq!(outcome["statement"], sql, "{outcome:#}");
        assert_eq!(outcome["way"], way, "{outcome:#}");
        if matches!(way, "refused" | "failed") {
            assert!(!outcome["reason"].as_str().expect("text").is_empty());
        }
        if way == "push_down" {
            assert!(
                outcome["plan"]
                    .as_str()
                    .expect("a plan")
                    .contains("Remote on")
            );
        }
    }
}

#[test]
fn statistics_of_statements_are_summed_up() {
    let csv = "queryid,query,calls,total_exec_time,rows\n\
        1,select count(*) from orders,10,25.0,10\n\
        2,\"update orders set note = \"\"note\"\" || $1\",2,75,4\n";
    let (status, printed) = plan("statistics.csv", csv, &[]);
    assert_eq!(status, 0, "{printed}");
    let (refused, pushed) = (printed.find("refused"), printed.find("push down"));
    assert!(
        refused.is_some() && refused < pushed,
        "the slowest comes first: {printed}"
    );
    assert!(
        printed.contains(
            "2 statements, 1 push down (25.0 % of the time), 1 refused (75.0 % of the time)"
        ),
        "{printed}"
    );
    assert!(printed.contains("hint: Give the sharding key"), "{printed}");
}

#[test]
fn a_file_that_is_not_there_is_said() {
    let config = file("plan-none.toml", &Config::new(cluster()).print(free_port()));
    let (status, _, err) = run(&[
        "plan",
        "--config",
        utf8(&config),
        "--file",
        "/nowhere/x.sql",
    ]);
    assert_eq!(status, 1);
    assert!(err.contains("/nowhere/x.sql"), "{err}");
}
