//! A new process takes over from one that ends: clients that connect anew for each transaction notice nothing.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::has_no_proxy;
use crate::harness::{Client, Config, Pgbraid, cluster, eventually};

const CLIENTS: usize = 8;
const READY: &str = "ready for connections";
/// Passes the socket on its standard input as systemd does.
const ACTIVATE: &str = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null";

#[test]
fn another_process_on_the_same_port_takes_over_under_load() {
    if has_no_proxy() {
        return;
    }
    let config = Config::new(cluster()).server("reuse_port = true\nshutdown_wait = \"20s\"");
    let mut current = Pgbraid::start(config);
    under_load(current.port, |served| {
        for _ in 0..3 {
            let next = current.again();
            next.wait_for_log(READY);
            current.signal("TERM");
            assert!(current.wait_for_end().success());
            current = next;
            served();
        }
    });
}

#[test]
fn a_process_on_the_same_socket_takes_over_under_load() {
    if has_no_proxy() {
        return;
    }
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = socket.local_addr().expect("its address").port();
    let config = Config::new(cluster()).server("shutdown_wait = \"20s\"");
    let start = || {
        let input = OwnedFd::from(socket.try_clone().expect("a descriptor"));
        let mut command = Command::new("sh");
        command
            .args(["-c", ACTIVATE, "sh"])
            .stdin(Stdio::from(input));
        let started = Pgbraid::launch_by(&mut command, &config, port);
        started.wait_for_log(READY);
        started
    };
    let mut current = start();
    under_load(port, |served| {
        for round in 0..4 {
            // One beside the old one, as well as one after it: clients wait at the socket meanwhile.
            let beside = (round % 2 == 0).then(start);
            current.signal("TERM");
            assert!(current.wait_for_end().success());
            current = beside.unwrap_or_else(start);
            served();
        }
    });
}

/// Runs `take_over` while clients connect, run a transaction and leave. None of it may fail. What it is given waits for more of them.
fn under_load(port: u16, take_over: impl FnOnce(&dyn Fn())) {
    let (done, end) = (AtomicUsize::new(0), AtomicBool::new(false));
    let served = || {
        let before = done.load(Ordering::Relaxed);
        eventually("transactions of the next process", || {
            (done.load(Ordering::Relaxed) > before + 10 * CLIENTS).then_some(())
        });
    };
    let load = |number: usize| {
        let mut failed = Vec::new();
        while !end.load(Ordering::Relaxed) {
            match transaction(port, number) {
                Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                Err(error) => failed.push(error),
            }
        }
        failed
    };
    let failed = thread::scope(|scope| {
        let load = &load;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || load(number)))
            .collect();
        let ends = EndsLoad(&end);
        served();
        take_over(&served);
        drop(ends);
        let ended = clients.into_iter().map(|c| c.join().expect("a client"));
        ended.flatten().collect::<Vec<String>>()
    });
    let done = done.into_inner();
    println!("{done} transactions, {} of them failed", failed.len());
    assert!(failed.is_empty(), "beside {done} transactions: {failed:#?}");
}

/// Ends the clients' loops, also where the test has failed.
struct EndsLoad<'a>(&'a AtomicBool);

impl Drop for EndsLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn transaction(port: u16, number: usize) -> Result<(), String> {
    let mut client = Client::connect(port, "app", "app")?;
    let id = 1 + number * 31;
    let select = format!("select id from users where id = {id}");
    for (sql, tag) in [
        ("begin", "BEGIN"),
        (&select, "SELECT 1"),
        ("select count(*) from users", "SELECT 1"),
        ("commit", "COMMIT"),
    ] {
        let reply = client.try_query(sql).map_err(|e| format!("{sql}: {e}"))?;
        if reply.tag != tag {
            return Err(format!("{sql}: {}", reply.complaint()));
        }
    }
    // Goodbye.
    client.send(b"X\0\0\0\x04").map_err(|e| e.to_string())
}
