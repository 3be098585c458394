//! What is not answered in part, and shards that are lost on the way.

use super::{ON, a_user_of, ask, ask_extended, behind_relay, behind_relay_with, rows, without};
use crate::harness::relay::Fault;
use crate::harness::{Client, Config, Pgbraid, Relay, cluster, target_is_postgres};

#[test]
fn nothing_but_reading_is_answered_in_part() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = behind_relay(1);
    let mut client = pgbraid.client();
    let (here, gone) = (a_user_of(0), a_user_of(1));
    ask(&mut client, ON);
    // Planned while it was there.
    let locks = "select id from users where id = 1 for update";
    client.query(locks);
    let write = |id: &str| format!("update accounts set owner = owner where id = {id}");
    relay.arm(Fault::Cut { after: 0 });
    let lost = |client: &mut Client, sql: &str, hint: &str| {
        let told = ask(client, sql);
        assert_eq!(told.reply.sqlstate().as_deref(), Some("08006"), "{sql}");
        assert!(told.warnings.is_empty(), "{sql}: {:?}", told.warnings);
        let said = told
            .reply
            .error
            .and_then(|e| e.field(b'H'))
            .unwrap_or_default();
        assert!(said.contains(hint), "{sql}: {said}");
    };
    lost(&mut client, &write(&gone), "more than read");
    let lock = format!("select id from users where id = {gone} for update");
    lost(&mut client, &lock, "more than read");
    for (begin, hint) in [
        ("begin isolation level repeatable read", "keeps a snapshot"),
        ("begin isolation level serializable", "keeps a snapshot"),
    ] {
        client.query(begin);
        lost(&mut client, "select count(*) from users", hint);
        assert_eq!(client.query("rollback").status, b'I');
    }
    client.query("begin");
    assert!(client.query(&write(&here)).error.is_none());
    lost(&mut client, "select count(*) from users", "has changed");
    client.query("rollback");
    // A block that has only read goes on.
    client.query("begin");
    assert_eq!(
        client
            .query(&format!("select id from users where id = {here}"))
            .value(),
        here
    );
    let told = ask(&mut client, "select count(*) from users");
    told.assert_partial("in a block");
    assert_eq!(told.reply.status, b'T');
    assert_eq!(client.query("commit").tag, "COMMIT");
    // Cursors and COPY are not read in part.
    client.query("begin");
    assert!(
        client
            .query("declare c cursor for select id from users")
            .error
            .is_some()
    );
    client.query("rollback");
    for copy in [
        "copy (select id from users) to stdout",
        "copy users to stdout",
    ] {
        // Behind one that was answered in part.
        ask(&mut client, "select count(*) from users").assert_partial("before a COPY");
        let told = ask(&mut client, copy);
        assert_eq!(told.reply.sqlstate().as_deref(), Some("08006"), "{copy}");
    }
    let told = ask(&mut client, "select count(*) from users");
    told.assert_partial("after all that");
}

#[test]
fn what_only_the_missing_shard_has_is_an_error() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = behind_relay(0);
    let mut client = pgbraid.client();
    let catalog = "select count(*) from pg_class where relname = 'v_users'";
    ask(&mut client, ON);
    assert_eq!(client.query(catalog).value(), "1");
    relay.arm(Fault::Cut { after: 0 });
    let told = ask(&mut client, catalog);
    assert_eq!(told.reply.sqlstate().as_deref(), Some("08006"));
    let hint = told
        .reply
        .error
        .and_then(|e| e.field(b'H'))
        .unwrap_or_default();
    assert!(hint.contains("catalog"), "{hint}");
    // By hand it is that shard's answer or none.
    let told = ask(
        &mut client,
        "/* pgbraid shard=s1 */ select count(*) from users",
    );
    assert_eq!(told.reply.sqlstate().as_deref(), Some("08006"));
    let told = ask(&mut client, "select count(*) from users");
    told.assert_partial("the others");
}

/// User-defined types have other numbers on every shard; the client knows those of the catalog shard.
#[test]
fn columns_are_described_as_ever_without_the_catalog_shard() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = behind_relay(0);
    let mut client = pgbraid.client();
    let statements = [
        "select id, email, tags from users order by id limit 3",
        "select mood, count(*) from tags group by mood order by mood",
        "select t.mood, count(u.id) from tags t join users u on u.id = t.id group by t.mood order by 1",
    ];
    let before = statements.map(|sql| ask_extended(&mut client, sql).reply.columns);
    // The same statements, not planned yet.
    let config = Config::new(cluster()).with_port(0, relay.port);
    let other = Pgbraid::start(config);
    let mut fresh = other.client();
    relay.arm(Fault::Cut { after: 0 });
    ask(&mut fresh, ON);
    for (sql, columns) in statements.iter().zip(before) {
        let told = ask_extended(&mut fresh, sql);
        assert!(
            told.reply.error.is_none(),
            "{sql}: {}",
            told.reply.complaint()
        );
        assert_eq!(told.reply.columns, columns, "{sql}");
    }
}

#[test]
fn a_shard_lost_on_the_way_is_left_out_or_an_error_and_never_half_of_it() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = behind_relay(1);
    let mut oracle = without(1);
    let mut client = pgbraid.client();
    ask(&mut client, ON);
    for sql in [
        "select id, pad from big where id <= 6000",
        "select id, pad from big where id <= 6000 order by x, id",
        "select id % 500 as g, count(*), sum(x), min(pad) from big group by id % 500",
        "select count(*) from big where x > (select avg(x) from big)",
    ] {
        relay.arm(Fault::None);
        let whole = ask(&mut client, sql);
        whole.assert_whole(sql);
        let whole = rows("", &whole.reply);
        let bytes = relay.passed();
        let part = rows("", &oracle.query(sql));
        let (mut parts, mut errors) = (0, 0);
        for point in 0..24 {
            let after = match point {
                0..4 => point * 11,
                _ => bytes * point / 24,
            };
            relay.arm(Fault::Cut { after });
            let told = ask(&mut client, sql);
            let found = rows("", &told.reply);
            match (&told.reply.error, told.warnings.is_empty()) {
                (None, true) => assert_eq!(found, whole, "{sql}: cut after {after}"),
                (None, false) => {
                    parts += 1;
                    assert_eq!(found, part, "{sql}: cut after {after}");
                }
                (Some(_), _) => {
                    errors += 1;
                    assert_eq!(told.reply.sqlstate().as_deref(), Some("08006"), "{sql}");
                }
            }
            relay.heal();
            let told = ask(&mut client, sql);
            told.assert_whole("healed");
            assert_eq!(rows("", &told.reply), whole, "after a cut after {after}");
        }
        assert!(parts > 0, "{sql}: {parts} in part, {errors} errors");
    }
}

#[test]
fn a_silent_shard_is_waited_for_once() {
    if target_is_postgres() {
        return;
    }
    let (relay, pgbraid) = behind_relay_with(1, |mut config| {
        config.pool = "[pool]\nsize = 8\nconnect_timeout = \"1s\"\n".into();
        config
    });
    let mut client = pgbraid.client();
    // No connection to it is open yet.
    relay.arm(Fault::Stall { after: 0 });
    ask(&mut client, ON);
    let count = "select count(*) from users where id > 0";
    let begun = std::time::Instant::now();
    ask(&mut client, count).assert_partial("the first");
    let first = begun.elapsed();
    let begun = std::time::Instant::now();
    ask(&mut client, count).assert_partial("the second");
    let second = begun.elapsed();
    assert!(second * 2 < first, "{first:?}, then {second:?}");
    relay.heal();
}

/// The first beginning lacks one shard, the second one two: the client hears of the answer that it gets.
#[test]
fn a_statement_that_begins_anew_warns_once() {
    if target_is_postgres() {
        return;
    }
    let relays = [1, 2].map(|shard| Relay::start(cluster().shards[shard]));
    let config = Config::new(cluster())
        .with_port(1, relays[0].port)
        .with_port(2, relays[1].port);
    let pgbraid = Pgbraid::start(config);
    let mut client = pgbraid.client();
    ask(&mut client, ON);
    let mut both = 0;
    for sql in [
        "select id, pad from big where id <= 6000 order by x, id",
        "select count(*) from big where x > (select avg(x) from big)",
    ] {
        for extended in [false, true] {
            for after in [0, 11, 60, 200] {
                // Connections to lose.
                relays[0].heal();
                relays[1].heal();
                ask(&mut client, sql).assert_whole(sql);
                relays[0].arm(Fault::Cut { after: 0 });
                relays[1].arm(Fault::Cut { after });
                let told = match extended {
                    false => ask(&mut client, sql),
                    true => ask_extended(&mut client, sql),
                };
                let place = format!("{sql}: cut after {after}");
                assert!(told.warnings.len() <= 1, "{place}: {:?}", told.warnings);
                match told.reply.error {
                    // Rows were out, or it was lost a second time.
                    Some(_) => assert_eq!(told.reply.sqlstate().as_deref(), Some("08006")),
                    None => {
                        let warning = told.warnings.first().map_or("", String::as_str);
                        assert!(warning.contains("s2, s3"), "{place}: {warning}");
                        both += 1;
                    }
                }
            }
        }
    }
    assert!(both > 0, "it never began anew");
}
