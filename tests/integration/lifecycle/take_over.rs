//! A new process takes over from one that ends: clients notice nothing, whether they connect anew for each transaction or stay.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use super::{has_no_proxy, work};
use crate::harness::{Client, Config, Load, Pgbraid, cluster};

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
fn clients_that_stay_are_served_by_the_process_that_ends() {
    if has_no_proxy() {
        return;
    }
    let config = Config::new(cluster()).server("reuse_port = true\nshutdown_wait = \"60s\"");
    let mut old = Pgbraid::start(config);
    let mut next = None;
    let failed = Load::run(
        CLIENTS,
        |_| old.client(),
        work,
        |load| {
            load.wait_for_done(CLIENTS);
            let started = next.insert(old.again());
            started.wait_for_log(READY);
            old.signal("TERM");
            // Some of these come while the old one ends listening.
            for number in 0..20 {
                visit(old.port, number).expect("served");
            }
            load.wait_for_done(20 * CLIENTS);
        },
    );
    assert!(failed.is_empty(), "{failed:#?}");
    // All have left.
    assert!(old.wait_for_end().success());
    next.expect("another one").assert_alive();
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

/// Runs `take_over` while clients connect, work and leave. None of it may fail. What it is given waits for more of them.
fn under_load(port: u16, take_over: impl FnOnce(&dyn Fn())) {
    let round = |(): &mut (), number| visit(port, number);
    let failed = Load::run(
        CLIENTS,
        |_| (),
        round,
        |load| {
            let served = || load.wait_for_done(10 * CLIENTS);
            served();
            take_over(&served);
        },
    );
    assert!(failed.is_empty(), "{failed:#?}");
}

fn visit(port: u16, number: usize) -> Result<(), String> {
    let mut client = Client::connect(port, "app", "app")?;
    work(&mut client, number)?;
    // Goodbye.
    client.send(b"X\0\0\0\x04").map_err(|e| e.to_string())
}
