//! What happens when shards die, fall silent, are slow or lie, and when clients leave, stall, cancel or crowd: always an error
//! or the whole answer, never a part of it, and the next statement works.

mod clients;
mod copies;
mod crowd;
mod hygiene;
mod pipelines;
mod shards;
mod stages;

use crate::harness::{Client, Cluster, Config, Pgbraid, Relay, cluster, target_is_postgres};

/// The shard (0-based) that is reached through the relay.
const BROKEN: usize = 1;

/// pgbraid with one shard behind a relay.
fn behind_relay(adjust: impl FnOnce(Config) -> Config) -> (Relay, Pgbraid) {
    let relay = Relay::start(cluster().shards[BROKEN]);
    let config = Config::new(cluster()).with_port(BROKEN, relay.port);
    (relay, Pgbraid::start(adjust(config)))
}

/// These tests need a pgbraid: there is nothing to break in front of PostgreSQL itself.
fn has_no_proxy() -> bool {
    target_is_postgres()
}

/// Statements with `marker` in their text that run on the shards now, counted per shard by someone who sees them all.
fn running(marker: &str) -> Vec<usize> {
    let Cluster { shards, .. } = cluster();
    let count = |port: &u16| {
        let mut observer = Client::connect(*port, "postgres", "").expect("login at a shard");
        // Put together on the server, so that this statement does not count itself.
        let (head, tail) = marker.split_at(3);
        let sql = format!(
            "select count(*) from pg_stat_activity where state = 'active' and query like '%' || '{head}' || '{tail}' || '%'"
        );
        observer.query(&sql).value().parse().expect("a number")
    };
    shards.iter().map(count).collect()
}

/// A statement that keeps every shard busy for minutes before it returns a row; `marker` is a number in it.
fn long_query(marker: &str) -> String {
    format!(
        "select count(*) from big b, tags t, tags u, tags v, tags w where b.id + t.id + u.id + v.id + w.id < -{marker}"
    )
}

/// An id of `users` on this shard (0-based).
fn user_on(shard: usize) -> String {
    let mut client = Client::connect(cluster().shards[shard], "app", "app").expect("login");
    client.query("select min(id) from users").value()
}
