//! SQL cursors: random walks beside one server, clients that leave, shards that are lost, and what blocks and pools make of them.

use crate::harness::client::query;
use crate::harness::random::Random;
use crate::harness::relay::Fault;
use crate::harness::{Config, Pgbraid, Relay, cluster, eventually, target_is_postgres};
use crate::snapshots::Both;

const QUERIES: [&str; 7] = [
    "select id, name from users where id < 40 order by id",
    "select id from users where id < 0 order by id",
    "select count(*), sum(score) from users",
    "select country, count(*) from users group by 1 order by 2, 1",
    "select l.id, (select count(*) from dupes d where d.k <> l.k) from lonely l order by l.id limit 9",
    "select id, score from users order by score nulls first, id limit 30",
    "select code from countries order by 1 limit 6",
];

#[test]
fn walks_go_where_they_go_on_one_server() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    let mut moved = 0;
    for seed in 1..=50 {
        let mut random = Random::new(seed);
        both.same("begin isolation level repeatable read");
        let scroll = random.one_of(&["scroll", "scroll", "no scroll"]);
        let hold = random.one_of(&["", "with hold"]);
        let sql = random.one_of(&QUERIES);
        both.same(&format!("declare c {scroll} cursor {hold} for {sql}"));
        let mut savepoint = false;
        for _ in 0..random.below(25) {
            if !savepoint && random.chance(20) {
                savepoint = true;
                both.same("savepoint a");
            }
            let reply = both.same(&step(&mut random));
            moved += reply.rows.len();
            if reply.error.is_some() {
                if !savepoint {
                    break;
                }
                both.same("rollback to a");
            }
        }
        both.same(random.one_of(&["commit", "commit", "rollback"]));
        for _ in 0..random.below(6) {
            both.same(&step(&mut random));
        }
        both.same("close all");
    }
    assert!(moved > 200, "{moved} rows");
    both.all(&["select count(*) from users"]);
}

fn step(random: &mut Random) -> String {
    let n = random.one_of(&["0", "1", "2", "3", "7", "100", "-1", "-2", "-9"]);
    let way = random.one_of(&[
        "next",
        "prior",
        "first",
        "last",
        "all",
        "",
        "forward",
        "backward",
        "backward all",
        "absolute",
        "absolute",
        "relative",
        "relative",
        "forward",
        "backward",
    ]);
    let counts =
        matches!(way, "absolute" | "relative") || way.ends_with("ward") && random.chance(50);
    let verb = random.one_of(&["fetch", "fetch", "move"]);
    let n = if counts { n } else { "" };
    format!("{verb} {way} {n} from c")
}

/// A pool of one: whoever comes next meets nothing of the cursor, however its owner went.
#[test]
fn a_client_that_leaves_takes_its_cursors_along() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(1));
    for (number, last) in [
        "fetch 3 from c",
        "fetch all from c",
        "move 2 from c",
        "fetch backward 1 from c",
        "close c",
        "savepoint a",
        "commit",
        "rollback",
        "select nope",
        "select l.id, (select count(*) from dupes d where d.k <> l.k) from lonely l",
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = pgbraid.client();
        client.query("begin");
        let hold = ["", "with hold"][number % 2];
        let reply = client.query(&format!(
            "declare c cursor {hold} for select id from big order by id"
        ));
        assert_eq!(reply.tag, "DECLARE CURSOR", "{}", reply.complaint());
        client.query("fetch 2 from c");
        client.send(&query(last)).expect("sent");
        if number % 3 > 0 {
            client.until_ready().expect("an answer");
        }
        drop(client);
        let mut next = pgbraid.client();
        let reply = eventually("a connection", || {
            let reply = next.query("select count(*) from users");
            reply.error.is_none().then_some(reply)
        });
        assert_eq!(reply.value(), "300", "after {last}");
        assert_eq!(next.query("fetch c").sqlstate().as_deref(), Some("34000"));
        next.assert_in_step(last);
    }
    pgbraid.assert_no_panic();
}

#[test]
fn a_shard_lost_between_two_fetches_is_an_error() {
    if target_is_postgres() {
        return;
    }
    let relay = Relay::start(cluster().shards[1]);
    let config = Config::new(cluster()).with_port(1, relay.port);
    let pgbraid = Pgbraid::start(config);
    let mut client = pgbraid.client();
    for after in [0, 7, 300, 2_000] {
        client.query("begin");
        let declared =
            client.query("declare c scroll cursor for select id, pad from big order by id");
        assert!(declared.error.is_none(), "{}", declared.complaint());
        let first = client.query("fetch 5 from c");
        assert_eq!(first.rows.len(), 5, "{}", first.complaint());
        relay.arm(Fault::Cut { after });
        let reply = client.query("fetch all from c");
        assert_eq!(
            reply.sqlstate().as_deref(),
            Some("08006"),
            "{}",
            reply.complaint()
        );
        assert_eq!(reply.tag, "", "after {after} bytes");
        assert_eq!(client.query("fetch c").sqlstate().as_deref(), Some("25P02"));
        client.query("rollback");
        relay.heal();
        let reply = eventually("the shard", || {
            let reply = client.query("select count(*) from users");
            reply.error.is_none().then_some(reply)
        });
        assert_eq!(reply.value(), "300");
    }
    pgbraid.assert_no_panic();
}

#[test]
fn what_is_read_beside_a_cursor_is_right_or_refused() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    let steps =
        "select l.id, (select count(*) from dupes d where d.k <> l.k) from lonely l order by l.id";
    both.all(&[
        "begin isolation level repeatable read",
        "declare c cursor for select id from users order by id",
        "fetch 2 from c",
        steps,
        "fetch 2 from c",
        "select sum(10 / id) from users",
        "fetch 2 from c",
        "commit",
        // A cursor of steps leaves nothing on the shards.
        "begin",
        &format!("declare c scroll cursor for {steps}"),
        "fetch 2 from c",
        steps,
        "fetch backward all from c",
        "fetch all from c",
        "commit",
    ]);
    both.client.query("begin");
    both.client
        .query("declare c cursor for select id from users order by id");
    both.client.query("fetch 2 from c");
    let reply = both.client.query(steps);
    assert_eq!(
        reply.sqlstate().as_deref(),
        Some("0A000"),
        "{}",
        reply.complaint()
    );
    both.client.query("rollback");
    both.client.assert_in_step("a refusal");
}

/// A statement that is alone on its shard's connection owes a reply when the cursor goes on.
#[test]
fn replies_that_are_owed_are_not_the_cursors() {
    if target_is_postgres() {
        return;
    }
    Both::start().all(&[
        "begin",
        "declare c no scroll cursor for select id from users order by id",
        "fetch 2 from c",
        "select id, case when id > 0 then 100 / id end from users where id < 4 order by 2, 1",
        "fetch 3 from c",
        "select count(*) from users where 100 / id > 2",
        "fetch 300 from c",
        "commit",
    ]);
}

#[test]
fn settings_changed_behind_a_cursor_are_noticed() {
    if target_is_postgres() {
        return;
    }
    let mut both = Both::start();
    both.all(&[
        "begin",
        "declare c scroll cursor for select created_at from users where id < 9 order by id",
        "fetch 2 from c",
        "savepoint a",
    ]);
    both.client.query("set local timezone to 'Asia/Tokyo'");
    let reply = both.client.query("fetch backward 1 from c");
    assert_eq!(
        reply.sqlstate().as_deref(),
        Some("0A000"),
        "{}",
        reply.complaint()
    );
    both.all(&[
        "rollback to a",
        "set local statement_timeout to '1min'",
        "fetch 2 from c",
        "commit",
    ]);
}

#[test]
fn more_rows_than_may_be_kept_are_an_error() {
    if target_is_postgres() {
        return;
    }
    let config = Config::new(cluster()).server("[merge]\nmemory_max = \"1MiB\"\n");
    let pgbraid = Pgbraid::start(config);
    let mut client = pgbraid.client();
    for (options, all) in [("scroll", false), ("no scroll", true), ("", true)] {
        client.query("begin");
        client.query(&format!(
            "declare c {options} cursor for select * from big order by id"
        ));
        let reply = client.query("move all in c");
        match all {
            true => assert!(reply.error.is_none(), "{}", reply.complaint()),
            false => assert_eq!(reply.sqlstate().as_deref(), Some("53200")),
        }
        client.query("rollback");
    }
    let reply = client.query("declare c cursor with hold for select * from big");
    assert_eq!(
        reply.sqlstate().as_deref(),
        Some("53200"),
        "{}",
        reply.complaint()
    );
    client.assert_in_step("53200");
    pgbraid.assert_no_panic();
}
