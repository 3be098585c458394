//! Roles at the shards: every client works as the role it has logged in as, and as no other one, whatever it tries.

use crate::harness::client::{bind, execute, parse, sync};
use crate::harness::{Client, Config, Pgbraid, Reply, cluster, target_is_postgres};

/// As in harness/schema.sql.
const CAROL: &str = "SCRAM-SHA-256$4096:c2FsdCBvZiBjYXJvbCAxNg==$hfU1Fb0tLVGAwLk3M+9SvaRxHDDALpzuKXLwgCSkF0U=:f3r42IMKqqK91C7exeG25Zhsh+N58tjkD/xkkBrLXWo=";
const WHO: &str = "select current_user::text || ' ' || session_user::text";

fn with_users(config: Config) -> Config {
    config
        .user("alice", "alice", "")
        .user("bob", "bob", "")
        .user("dora", "dora", "")
        .user("erin", "erin", "")
        .user("jane", "", "method = \"trust\"")
}

fn start(config: Config) -> Pgbraid {
    Pgbraid::start(with_users(config.scram()))
}

fn login(port: u16, role: &str) -> Client {
    Client::connect(port, role, role).unwrap_or_else(|e| panic!("{role}: {e}"))
}

/// The statement in the extended protocol.
fn extended(client: &mut Client, sql: &str) -> Reply {
    let messages = [
        parse("", sql, &[]),
        bind("", "", &[], &[]),
        execute("", 0),
        sync(),
    ];
    client.send(&messages.concat()).expect("sent");
    Reply::of(&client.until_ready().expect("session lost"))
}

/// Who the session is on every shard.
fn on_all_shards(client: &mut Client, who: &str, after: &str) {
    assert_eq!(client.query(WHO).value(), who, "{after}");
    for id in 1..=6 {
        let sql = format!("{WHO} from notes where id = {id} union all {WHO} limit 1");
        assert_eq!(client.query(&sql).value(), who, "{after}: note {id}");
    }
}

#[test]
fn rows_and_privileges_are_those_of_the_clients_own_role() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = start(Config::new(cluster()));
    for role in ["alice", "bob", "dora"] {
        let mut client = login(pgbraid.port, role);
        let mut oracle = login(cluster().oracle, role);
        for sql in [
            WHO,
            "show timezone",
            "show session_authorization",
            "select count(*), sum(v) from notes",
            "select * from notes order by v, id",
            "select n.id, (select count(*) from notes m where m.v = n.v) from notes n order by n.id",
            "select count(*) from users",
            "select * from notes where id = 6",
            "select count(*), sum(v) from all_notes",
            "select user_id, min(at)::text from events group by user_id order by user_id",
            "set search_path = hidden, public",
            "select count(*) from hides",
            "reset search_path",
            "explain select 1",
        ] {
            let (simple, expected) = (client.query(sql), oracle.query(sql));
            let complaint = simple.complaint();
            assert_eq!(
                simple.sqlstate(),
                expected.sqlstate(),
                "{role}: {sql}: {complaint}"
            );
            if !sql.starts_with("explain") {
                assert_eq!(simple.rows, expected.rows, "{role}: {sql}");
                assert_eq!(
                    extended(&mut client, sql).rows,
                    expected.rows,
                    "{role}: {sql}"
                );
            }
        }
        on_all_shards(&mut client, &format!("{role} {role}"), "the start");
    }
}

#[test]
fn a_view_over_guarded_rows_is_not_taken_apart() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = start(Config::new(cluster()));
    // Its rows are those that the view's owner sees; the client's own role sees fewer.
    let sql = "select a.id, (select count(*) from all_notes b where b.v = a.v) from all_notes a order by a.id";
    let reply = login(pgbraid.port, "alice").query(sql);
    assert_eq!(
        reply.sqlstate().as_deref(),
        Some("0A000"),
        "{}",
        reply.complaint()
    );
}

#[test]
fn names_are_found_by_the_roles_own_search_path() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = start(Config::new(cluster()));
    let sql = "select count(*) from hides";
    let mut alice = login(pgbraid.port, "alice");
    let mut bob = login(pgbraid.port, "bob");
    for _ in 0..2 {
        assert_eq!(alice.query(sql).value(), "3");
        // His own table, which no configuration names.
        let reply = bob.query(sql);
        assert!(
            reply.complaint().contains("is not declared"),
            "{}",
            reply.complaint()
        );
    }
    assert_eq!(bob.query("select count(*) from public.hides").value(), "3");
}

#[test]
fn roles_share_a_pool_of_one_connection_and_nothing_else() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = start(Config::new(cluster()).pool_size(1));
    let roles = ["alice", "bob", "app", "dora"];
    let mut clients: Vec<Client> = roles.iter().map(|role| login(pgbraid.port, role)).collect();
    let count = "select count(*) from notes";
    let expected: Vec<String> = roles
        .iter()
        .map(|role| login(cluster().oracle, role).query(count).value())
        .collect();
    for round in 0..4 {
        for ((client, role), expected) in clients.iter_mut().zip(roles).zip(&expected) {
            let after = format!("round {round}");
            on_all_shards(client, &format!("{role} {role}"), &after);
            assert_eq!(&client.query(count).value(), expected, "{role}");
            assert_eq!(&extended(client, count).value(), expected, "{role}");
        }
    }
    // No more connections than the pool may have, all roles together.
    let mut observer = Client::connect(cluster().shards[1], "postgres", "").expect("login");
    let open = "select count(*) from pg_stat_activity where application_name = 'pgbraid' and usename in ('alice', 'bob', 'dora')";
    let open: usize = observer.query(open).value().parse().expect("a number");
    assert!(open <= 2, "{open} connections");
}

#[test]
fn a_verifier_logs_in_where_it_is_the_same() {
    if target_is_postgres() {
        return;
    }
    let config = Config::new(cluster()).scram();
    let pgbraid = Pgbraid::start(
        config
            .user("carol", CAROL, "")
            // Their verifiers differ from server to server; erin's password is known for the shards.
            .user("dora", CAROL, "")
            .user("erin", CAROL, "shard_password = \"erin\""),
    );
    let mut carol = Client::connect(pgbraid.port, "carol", "carol").expect("login");
    on_all_shards(&mut carol, "carol carol", "a login with a verifier");
    assert_eq!(carol.query("select count(*) from notes").value(), "80");
    let mut erin = Client::connect(pgbraid.port, "erin", "carol").expect("login");
    assert_eq!(erin.query(WHO).value(), "erin erin");
    let refused = Client::connect(pgbraid.port, "dora", "carol").map(drop);
    let refused = refused.expect_err("another verifier");
    assert!(refused.contains("another verifier"), "{refused}");
    assert!(Client::connect(pgbraid.port, "carol", "wrong").is_err());
    let log = pgbraid.log();
    assert!(
        !log.contains("hfU1Fb0tLVGAwLk3M"),
        "a secret in the log:\n{log}"
    );
}

#[test]
fn the_shards_role_serves_others_only_where_that_is_asked_for() {
    if target_is_postgres() {
        return;
    }
    let service = start(Config::new(cluster()).auth("shard_role = \"service\""));
    let mut alice = login(service.port, "alice");
    assert_eq!(alice.query(WHO).value(), "app app");
    // Without [[user]]s trust would let everybody be whoever they say.
    let mut config = Config::new(cluster());
    config.users.clear();
    let trusting = Pgbraid::start(config);
    let refused = Client::connect(trusting.port, "alice", "").map(drop);
    assert!(refused.expect_err("not configured").starts_with("28000"));
}

#[test]
fn defaults_of_a_role_hold_on_every_shard() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = start(Config::new(cluster()).pool_size(1));
    let mut erin = login(pgbraid.port, "erin");
    for sql in [
        "show transaction_isolation",
        "begin",
        "show transaction_isolation",
        "commit",
    ] {
        let reply = erin.query(sql);
        assert!(
            !sql.starts_with("show") || reply.value() == "serializable",
            "{sql}"
        );
    }
    erin.query("set default_transaction_isolation to 'read committed'");
    assert_eq!(
        erin.query("show transaction_isolation").value(),
        "read committed"
    );
    erin.query("reset default_transaction_isolation");
    assert_eq!(
        erin.query("show transaction_isolation").value(),
        "serializable"
    );
    let mut jane = login(pgbraid.port, "jane");
    for after in [
        "the start",
        "an error on a shard",
        "another session's error",
    ] {
        on_all_shards(&mut jane, "staff jane", after);
        let fails = "select 1 / (id - id) from notes";
        assert_eq!(jane.query(fails).sqlstate().as_deref(), Some("22012"));
        login(pgbraid.port, "jane").query(fails);
    }
    jane.query("set role none");
    assert_eq!(jane.query("select count(*) from notes").value(), "80");
}

/// What a client may try to become another role, or to leave its own behind. In a block and without one.
const ATTEMPTS: [&str; 22] = [
    "set role staff",
    "set role app",
    "set local role staff",
    "set session authorization app",
    "set session authorization default",
    "reset role",
    "reset session authorization",
    "reset all",
    "discard all",
    "select set_config('role', 'staff', false)",
    "select set_config('role', 'app', false)",
    "select set_config('session_authorization', 'app', false)",
    "select become('staff')",
    "select become('app')",
    "select become('none') from notes where id = 6",
    "select become('staff') from notes where id = 6",
    "do $$ begin execute 'set role staff'; end $$",
    "do $$ begin set role staff; end $$",
    "do $$ begin perform set_config('role', 'staff', false); end $$",
    "do $$ begin execute 'set session authorization app'; end $$",
    "do $$ begin execute 'reset role'; execute 'reset session authorization'; end $$",
    "set role staff; reset role; set role none",
];

fn attack(pgbraid: &Pgbraid, run: fn(&mut Client, &str) -> Reply) {
    let mut others = [login(pgbraid.port, "alice"), login(pgbraid.port, "bob")];
    for attempt in ATTEMPTS {
        for block in ["", "begin", "begin, rollback"] {
            let after = format!("{attempt} ({block})");
            let mut alice = login(pgbraid.port, "alice");
            if !block.is_empty() {
                alice.query("begin");
            }
            run(&mut alice, attempt);
            let end = if block.contains("rollback") {
                "rollback"
            } else {
                "commit"
            };
            if !block.is_empty() {
                alice.query(end);
            }
            // Her own role, or one that is hers to take; never that of the service or of another client.
            let who = alice.query(WHO).value();
            assert!(
                ["alice alice", "staff alice"].contains(&&*who),
                "{after}: {who}"
            );
            drop(alice);
            for (other, role) in others.iter_mut().zip(["alice", "bob"]) {
                on_all_shards(other, &format!("{role} {role}"), &after);
            }
        }
    }
}

#[test]
fn nobody_becomes_another_role() {
    if target_is_postgres() {
        return;
    }
    // Shards that trust make the switch from role to role cheap.
    for config in [Config::new(cluster()), Config::one_shard(cluster())] {
        let pgbraid = Pgbraid::start(with_users(config.pool_size(1)));
        attack(&pgbraid, |client, sql| client.query(sql));
        attack(&pgbraid, extended);
    }
}
