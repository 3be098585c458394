//! More clients than connections.

use std::thread;
use std::time::{Duration, Instant};

use super::has_no_proxy;
use crate::harness::{Config, Pgbraid, cluster};

const CLIENTS: usize = 64;

#[test]
fn many_clients_share_few_connections_without_deadlock() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()).pool_size(4));
    let begun = Instant::now();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let pgbraid = &pgbraid;
            scope.spawn(move || work(pgbraid, number));
        }
    });
    assert!(
        begun.elapsed() < Duration::from_secs(90),
        "{:?}",
        begun.elapsed()
    );
}

/// Statements over one, two and three shards in another order for every client; every answer is checked.
fn work(pgbraid: &Pgbraid, number: usize) {
    let mut client = pgbraid.client();
    for round in 0..12 {
        let id = 1 + (number * 37 + round * 101) % 290;
        match (number + round) % 5 {
            0 => assert_eq!(client.query("select count(*) from users").value(), "300"),
            1 => {
                let sql = format!("select id from users where id = {id}");
                assert_eq!(client.query(&sql).value(), id.to_string());
            }
            2 => {
                let sql = format!("select sum(id) from users where id in ({id}, {})", id + 1);
                assert_eq!(client.query(&sql).value(), (2 * id + 1).to_string());
            }
            3 => {
                let sql = format!("select id from users where id >= {id} order by id limit 3");
                assert_eq!(client.query(&sql).rows.len(), 3);
            }
            _ => transaction(&mut client),
        }
    }
}

/// Its first statement takes a connection of every shard, in one go.
fn transaction(client: &mut crate::harness::Client) {
    client.query("begin");
    for _ in 0..2 {
        assert_eq!(client.query("select count(*) from users").value(), "300");
    }
    assert_eq!(client.query("commit").tag, "COMMIT");
}
