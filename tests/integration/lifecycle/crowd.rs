//! Thousands of clients of which most are silent: what each of them costs, and that nobody is in their way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{has_no_proxy, work};
use crate::harness::client::{bind, describe_or_close, execute, parse, sync};
use crate::harness::{Client, Config, Pgbraid, Reply, cluster};

/// What an idle client may cost, beyond the first hundred.
const BYTES_PER_CLIENT_MAX: u64 = 20 << 10;
const FIRST: usize = 100;

#[test]
fn an_idle_client_costs_little_whatever_it_has_done() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = start();
    let (clients, bytes) = idle_clients(&pgbraid, 600);
    assert!(bytes <= BYTES_PER_CLIENT_MAX, "{bytes} bytes a client");
    drop(clients);
}

/// The whole size, as long as it takes: `cargo test --release --test integration -- --ignored --exact lifecycle::crowd::five_thousand…`
#[test]
#[ignore = "takes minutes and 10,000 file descriptors: run it by itself"]
fn five_thousand_idle_and_two_hundred_active_clients() {
    let pgbraid = start();
    let (mut clients, bytes) = idle_clients(&pgbraid, 5000);
    println!("{bytes} bytes for each of 5,000 idle clients");
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..200 {
            let (pgbraid, stop, done) = (&pgbraid, &stop, &done);
            scope.spawn(move || {
                let mut client = pgbraid.client();
                while !stop.load(Ordering::Relaxed) {
                    work(&mut client, number).expect("all answers");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(Duration::from_secs(60));
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} rounds of 200 active clients", done.into_inner());
    let begun = Instant::now();
    for (number, client) in clients.iter_mut().enumerate() {
        client.assert_in_step(&format!("a crowd, idle client {number}"));
    }
    println!("all idle ones answered within {:?}", begun.elapsed());
    assert!(bytes <= BYTES_PER_CLIENT_MAX, "{bytes} bytes a client");
}

fn start() -> Pgbraid {
    Pgbraid::start(Config::new(cluster()).server("max_clients = 6000"))
}

/// So many clients, and what each beyond the first hundred costs pgbraid.
fn idle_clients(pgbraid: &Pgbraid, count: usize) -> (Vec<Client>, u64) {
    let mut clients = Vec::new();
    let mut first = 0;
    for number in 0..count {
        let mut client = pgbraid.client();
        past(&mut client, number);
        clients.push(client);
        if clients.len() == FIRST {
            first = resident_bytes(pgbraid);
        }
    }
    let all = resident_bytes(pgbraid);
    let more = (count - FIRST) as u64;
    (clients, all.saturating_sub(first) / more)
}

/// Memory once nothing happens any more: the last replies are out before their buffers are given up.
fn resident_bytes(pgbraid: &Pgbraid) -> u64 {
    thread::sleep(Duration::from_millis(300));
    pgbraid.resident_bytes()
}

/// What a client has done before it fell silent.
fn past(client: &mut Client, number: usize) {
    let id = 1 + number % 300;
    match number % 5 {
        0 => {}
        1 => {
            let sql = format!("select id from users where id = {id}");
            assert_eq!(client.query(&sql).value(), id.to_string());
        }
        2 => {
            let sql = "select id, pad from big where id <= 3000";
            assert_eq!(client.query(sql).rows.len(), 3000);
        }
        3 => {
            let bytes = [
                parse("kept", "select id from users where id = $1", &[20]),
                bind("", "kept", &[(0, Some(id.to_string().into()))], &[]),
                describe_or_close(b'D', b'P', ""),
                execute("", 0),
                sync(),
            ];
            client.send(&bytes.concat()).expect("sent");
            let reply = Reply::of(&client.until_ready().expect("session lost"));
            assert_eq!(reply.value(), id.to_string());
        }
        _ => {
            client.query("set timezone to 'Asia/Tokyo'");
            work(client, number).expect("all answers");
        }
    }
}
