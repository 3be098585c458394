//! Who is let in: users that a shard knows, and what strangers can tell from being refused.

use crate::harness::{Client, Config, Pgbraid, cluster, eventually, target_is_postgres};
use crate::transcripts::{first_challenge, login_shape};

const WHO: &str = "select current_user::text || ' ' || session_user::text";
const QUERY: &str =
    "query = \"SELECT usename, passwd, valuntil FROM pg_shadow WHERE usename = $1;\"";

fn start(query: &str) -> Pgbraid {
    let mut config = Config::new(cluster()).scram().auth(query);
    // Who may read pg_shadow.
    config.shard_user = "postgres";
    config.shard_password.clear();
    let pgbraid = Pgbraid::launch(&config);
    eventually("the catalog", || {
        Client::connect(pgbraid.port, "app", "app").ok()
    });
    pgbraid
}

#[test]
fn users_that_a_shard_knows_log_in() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = start(QUERY);
    for (role, password) in [("carol", "carol"), ("gina", "carol"), ("guarded", "secret")] {
        let mut client = Client::connect(pgbraid.port, role, password).expect(role);
        assert_eq!(client.query(WHO).value(), format!("{role} {role}"));
    }
    let mut carol = Client::connect(pgbraid.port, "carol", "carol").expect("login");
    assert_eq!(carol.query("select count(*) from notes").value(), "80");
    // Without a third column there is nothing to expire by; whatever a shard's own login says holds.
    let plain = start("query = \"select usename, passwd from pg_shadow where usename = $1\"");
    assert!(Client::connect(plain.port, "gina", "carol").is_ok());
    let refused = Client::connect(plain.port, "fred", "carol").map(drop);
    let refused = refused.expect_err("expired at the shard");
    assert!(refused.contains("VALID UNTIL"), "{refused}");
}

#[test]
fn strangers_cannot_tell_who_is_there() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = start(QUERY);
    let unknown = login_shape(pgbraid.port, "nobody");
    assert!(
        unknown.last().is_some_and(|l| l.contains("28P01")),
        "{unknown:?}"
    );
    // A wrong password, of a user of the shard's or of the configuration; expired; md5; none.
    for user in ["carol", "guarded", "fred", "hugo", "ines", "x' or true --"] {
        assert_eq!(login_shape(pgbraid.port, user), unknown, "{user}");
        let salt = first_challenge(pgbraid.port, user);
        assert_eq!(salt, first_challenge(pgbraid.port, user), "{user}");
        assert_eq!(
            salt.len(),
            first_challenge(pgbraid.port, "nobody").len(),
            "{user}"
        );
    }
    // The right one does not help who may not use it.
    for (user, password) in [("fred", "carol"), ("ines", ""), ("hugo", "hugo")] {
        let refused = Client::connect(pgbraid.port, user, password).map(drop);
        assert!(refused.expect_err(user).starts_with("28P01"), "{user}");
    }
    let salt = first_challenge(pgbraid.port, "nobody");
    let again = start(QUERY);
    assert_eq!(
        salt,
        first_challenge(again.port, "nobody"),
        "a restart tells"
    );
    let log = pgbraid.log();
    for word in [
        "expired",
        "no SCRAM-SHA-256 verifier",
        "no password",
        "no such user",
    ] {
        assert!(
            log.contains(word),
            "the operator is not told: {word}\n{log}"
        );
    }
    assert!(
        !log.contains("SCRAM-SHA-256$") && !log.contains("md5a7d0"),
        "{log}"
    );
}

#[test]
fn a_query_that_mixes_users_up_lets_nobody_in() {
    if target_is_postgres() {
        return;
    }
    for query in [
        // Somebody else.
        "select 'gina'::text, passwd from pg_shadow where usename = 'gina' and $1 <> ''",
        // Everybody.
        "select usename, passwd from pg_shadow where $1 <> ''",
        // Not of pg_catalog, and its schema is not named.
        "select v, v from tags where $1 <> ''",
        "select 1 where $1 <> ''",
        "insert into notes values (1, $1, 1) returning owner, owner",
    ] {
        let pgbraid = start(&format!("query = \"{query}\""));
        let refused = Client::connect(pgbraid.port, "carol", "carol").map(drop);
        assert!(refused.expect_err(query).starts_with("57P03"), "{query}");
        // Users of the configuration do not depend on it.
        assert!(Client::connect(pgbraid.port, "guarded", "secret").is_ok());
    }
}
