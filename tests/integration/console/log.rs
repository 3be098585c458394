//! The slow-query log, refusals in the log, and levels that change at run time.

use super::{config, console, done, row};
use crate::harness::{Pgbraid, eventually, target_is_postgres};

fn lines(pgbraid: &Pgbraid, part: &str) -> Vec<String> {
    let log = pgbraid.log();
    let found = log.lines().filter(|line| line.contains(part));
    found.map(str::to_owned).collect()
}

#[test]
fn slow_statements_are_logged_without_literals() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    client.query("select pg_sleep(0.3), 'before' from users where id = 7");
    done(&mut ops, "SET log.slow_query = '250ms'", "SET");
    let setting = row(&mut ops, "SHOW CONFIG WHERE key = 'log.slow_query'");
    assert_eq!(
        (&*setting["value"], &*setting["default"]),
        ("250000us", "0")
    );
    assert_eq!(setting["changeable"], "yes");
    client.query("select name from users where id = 7");
    client.query("select pg_sleep(0.3), 'secret' from users where id = 7");
    client.query("select id, 'secret', pg_sleep(0.02) from users where id > 0");
    let slow = eventually("two lines", || {
        let slow = lines(&pgbraid, "slow statement");
        (slow.len() == 2).then_some(slow)
    });
    assert!(
        slow[0].contains("plan=\"routed\"") && slow[0].contains("user=app"),
        "{slow:?}"
    );
    assert!(
        slow[0].contains("select pg_sleep($1), $2 from users where id = $3"),
        "{slow:?}"
    );
    assert!(slow[1].contains("plan=\"push_down\""), "{slow:?}");
    for shard in ["s1 ", "s2 ", "s3 "] {
        assert!(slow[1].contains(shard), "{slow:?}");
    }
    assert!(lines(&pgbraid, "secret").is_empty() && lines(&pgbraid, "before").is_empty());
    done(&mut ops, "SET log.slow_query = '0'", "SET");
    client.query("select pg_sleep(0.3) from users where id = 7");
    assert_eq!(lines(&pgbraid, "slow statement").len(), 2);
}

#[test]
fn refusals_are_logged_with_their_reason_at_the_level_asked_for() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    let refused = "select id from users where id <> 4711 for update skip locked";
    client.query(refused);
    assert!(
        lines(&pgbraid, "statement refused").is_empty(),
        "at debug by default"
    );
    done(&mut ops, "SET log.refusals = warn", "SET");
    client.query(refused);
    let line = eventually("a line", || lines(&pgbraid, "statement refused").pop());
    assert!(
        line.contains("WARN") && line.contains("reason=\"lock\""),
        "{line}"
    );
    assert!(
        line.contains("FOR UPDATE with LIMIT, SKIP LOCKED"),
        "{line}"
    );
    assert!(
        line.contains("select id from users where id <> $1 for update skip locked"),
        "{line}"
    );
    assert!(lines(&pgbraid, "4711").is_empty());
    // An error of the statement is no refusal.
    client.query("select 1/0");
    assert_eq!(lines(&pgbraid, "statement refused").len(), 1);
}

#[test]
fn the_level_changes_at_run_time() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, mut client) = (console(&pgbraid, "ops"), pgbraid.client());
    done(
        &mut ops,
        "SET log.level = 'warn,pgbraid::refused=debug'",
        "SET",
    );
    let level = row(&mut ops, "SHOW CONFIG WHERE key = 'log.level'");
    assert_eq!(level["value"], "warn,pgbraid::refused=debug");
    client.query("select id from users for update skip locked");
    eventually("a line", || lines(&pgbraid, "statement refused").pop());
    // Below the level: the console's own commands.
    let before = lines(&pgbraid, "command=").len();
    done(&mut ops, "RELOAD", "RELOAD");
    assert_eq!(lines(&pgbraid, "command=").len(), before);
}
