//! Settings in blocks over shards that join at different times: what rollbacks undo, what the client is told, and what the next user of
//! a connection finds.

use crate::harness::client::{bind, execute, parse, query, sync};
use crate::harness::{Client, target_is_postgres};
use crate::snapshots::Both;

/// On one shard each; between them they ask all shards.
const ONES: [&str; 4] = [
    "select min(at)::text from events where user_id = 1",
    "select min(at)::text from events where user_id = 2",
    "select min(at)::text from events where user_id = 3",
    "select min(at)::text from events where user_id = 5",
];
/// In several steps.
const STEPS: &str = "select l.id, (select min(e.at) from events e where e.user_id <> l.id)::text from lonely l order by l.id";
const TOKYO: &str = "set timezone to 'Asia/Tokyo'";
const UTC: &str = "set timezone to 'UTC'";
const LOCAL: &str = "set local timezone to 'America/Lima'";

/// The time zone that the client knows of, after a message that may change it.
fn told(client: &mut Client, message: &[u8], known: &mut String) {
    client.send(message).expect("sent");
    for m in client.until_ready().expect("session lost") {
        if let Some(zone) = m.body.strip_prefix(b"TimeZone\0").filter(|_| m.tag == b'S') {
            *known = String::from_utf8_lossy(zone).into_owned();
        }
    }
}

/// Runs scripts in one session: rows, and what is told of the time zone, are PostgreSQL's.
fn run(scripts: &[&[&str]]) {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    both.all(&[UTC]);
    let mut known = [String::new(), String::new()];
    for script in scripts {
        for sql in *script {
            told(&mut both.client, &query(sql), &mut known[0]);
            told(&mut both.oracle, &query(sql), &mut known[1]);
            assert_eq!(known[0], known[1], "{sql} in {script:?}");
            if ["select", "show"].iter().any(|word| sql.starts_with(word)) {
                both.same(sql);
            }
        }
        both.all(&ONES);
        both.all(&[UTC]);
    }
}

#[test]
fn a_setting_set_back_before_the_rollback() {
    run(&[
        &["begin", TOKYO, ONES[0], ONES[1], UTC, "rollback"],
        &["begin", TOKYO, ONES[2], ONES[1], ONES[3], UTC, "rollback"],
        &[
            "begin",
            "savepoint a",
            TOKYO,
            ONES[0],
            ONES[1],
            ONES[2],
            UTC,
            "rollback to a",
            ONES[0],
            ONES[1],
            ONES[2],
            ONES[3],
            "commit",
        ],
        &[
            "begin",
            "savepoint a",
            TOKYO,
            ONES[1],
            "savepoint a",
            ONES[2],
            LOCAL,
            "rollback to a",
            ONES[0],
            ONES[1],
            ONES[2],
            "release a",
            "rollback to a",
            ONES[0],
            ONES[1],
            ONES[2],
            ONES[3],
            "rollback",
        ],
    ]);
}

#[test]
fn a_chained_block_begins_with_the_settings_of_before() {
    run(&[
        &[
            "begin",
            TOKYO,
            ONES[0],
            ONES[1],
            ONES[2],
            "rollback and chain",
            ONES[0],
            ONES[1],
            ONES[2],
            ONES[3],
            "commit",
        ],
        &[
            "begin",
            LOCAL,
            ONES[0],
            STEPS,
            ONES[1],
            "commit and chain",
            ONES[0],
            ONES[1],
            STEPS,
            "commit",
        ],
    ]);
}

#[test]
fn reset_all_ends_local_values() {
    run(&[
        &[
            "begin",
            LOCAL,
            ONES[0],
            "savepoint a",
            "reset all",
            ONES[0],
            ONES[1],
            ONES[2],
            STEPS,
            "rollback to a",
            ONES[0],
            ONES[1],
            ONES[2],
            ONES[3],
            STEPS,
            "commit",
        ],
        &[
            TOKYO,
            "reset all; select 1 / 0",
            ONES[0],
            ONES[1],
            ONES[2],
            ONES[3],
        ],
        &[TOKYO, "begin", "reset all", "rollback", ONES[0]],
    ]);
}

#[test]
fn the_client_is_told_of_values_that_go_or_stay() {
    run(&[
        &[
            "begin",
            LOCAL,
            "savepoint a",
            TOKYO,
            ONES[0],
            "rollback to a",
            ONES[1],
            "commit",
        ],
        &["begin", TOKYO, LOCAL, ONES[0], STEPS, ONES[1], "commit"],
        &["begin", LOCAL, STEPS, "rollback"],
        &[
            "begin",
            LOCAL,
            "savepoint a",
            STEPS,
            TOKYO,
            STEPS,
            "rollback to a",
            "release a",
            "commit",
        ],
    ]);
}

/// A driver that wants one value asks for one row and leaves it at that.
#[test]
fn set_config_in_a_portal_that_is_not_read_to_its_end() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    let pipeline = |rows_max| {
        [
            parse(
                "",
                "select set_config('TimeZone', 'Asia/Tokyo', false)",
                &[],
            ),
            bind("", "", &[], &[]),
            execute("", rows_max),
            sync(),
        ]
        .concat()
    };
    for rows_max in [1, 0, 2] {
        let mut known = [String::new(), String::new()];
        told(&mut both.client, &pipeline(rows_max), &mut known[0]);
        told(&mut both.oracle, &pipeline(rows_max), &mut known[1]);
        assert_eq!(known[0], known[1], "{rows_max}");
        both.all(&ONES);
        // Nobody else finds it.
        let mut other = both.pgbraid().client();
        assert_eq!(other.query("show timezone").value(), "UTC", "{rows_max}");
        both.all(&["reset timezone"]);
        both.all(&ONES);
    }
}

#[test]
fn set_transaction_is_judged_as_on_one_server() {
    run(&[
        &[
            "begin",
            "savepoint a",
            "set transaction isolation level repeatable read",
            "rollback",
        ],
        &[
            "begin",
            LOCAL,
            "set transaction isolation level repeatable read",
            STEPS,
            "commit",
        ],
        &[
            "begin",
            "begin read only",
            "show transaction_read_only",
            "commit",
        ],
        &[
            "begin",
            "set transaction_read_only to on",
            STEPS,
            "show transaction_read_only",
            "commit",
        ],
    ]);
}

/// Clients that tell policies who asks do it so, at the head of each block.
#[test]
fn set_config_does_not_tie_a_block() {
    run(&[
        &[
            "begin",
            "select set_config('timezone', 'Asia/Tokyo', true), set_config('my.tenant', '7', true)",
            STEPS,
            ONES[0],
            "select current_setting('my.tenant')",
            STEPS,
            "commit",
        ],
        &[
            "begin",
            "savepoint a",
            "select set_config('timezone', 'Asia/Tokyo', false)",
            STEPS,
            ONES[1],
            "rollback to a",
            ONES[1],
            STEPS,
            "rollback",
        ],
    ]);
}

#[test]
fn settings_of_the_steps_are_not_shown() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    let sql = |name: &str| {
        format!(
            "select l.id, current_setting('{name}'), (select count(*) from dupes d where d.k <> l.id) from lonely l order by 1"
        )
    };
    for begin in ["begin isolation level repeatable read", "begin"] {
        for name in [
            "transaction_isolation",
            "TRANSACTION_read_only",
            "enable_nestloop",
        ] {
            both.client.query(begin);
            let reply = both.client.query(&sql(name));
            assert_eq!(reply.sqlstate().as_deref(), Some("0A000"), "{name}");
            both.client.query("rollback");
        }
        both.all(&[begin, &sql("TimeZone"), &sql("work_mem"), "commit"]);
    }
}
