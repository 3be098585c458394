//! What the tests share: servers, pgbraid processes, a raw client and a relay that breaks connections.

pub mod client;
pub mod cluster;
pub mod config;
pub mod load;
pub mod pgbraid;
pub mod random;
pub mod relay;
pub mod type_names;
pub mod watchdog;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use client::{Client, Message, Reply};
pub use cluster::{Cluster, free_port};
pub use config::Config;
pub use load::Load;
pub use pgbraid::Pgbraid;
pub use random::Random;
pub use relay::Relay;
pub use type_names::TypeNames;

/// No single step of a test takes longer, on two slow cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

struct Run {
    cluster: Cluster,
    tie: watchdog::Tie,
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let (cluster, tie) = watchdog::join();
        Run { cluster, tie }
    })
}

/// The run's servers; the first call boots them.
pub fn cluster() -> &'static Cluster {
    &run().cluster
}

/// A process of this test, for the watchdog to end when the test process is gone.
pub fn adopt(pid: u32) {
    run().tie.adopt(pid);
}

/// A process that has ended.
pub fn release(pid: u32) {
    run().tie.release(pid);
}

/// True when the tests are tried on PostgreSQL itself: the oracle stands in for pgbraid.
pub fn target_is_postgres() -> bool {
    std::env::var("PGBRAID_TEST_TARGET").is_ok_and(|t| t == "postgres")
}

/// The port of the pgbraid that tests share which change nothing of it (three shards, trust).
pub fn target() -> u16 {
    match target_is_postgres() {
        true => cluster().oracle,
        false => shared().port,
    }
}

fn shared() -> &'static Pgbraid {
    static SHARED: OnceLock<Pgbraid> = OnceLock::new();
    SHARED.get_or_init(|| Pgbraid::start(Config::new(cluster())))
}

/// Panics if the shared pgbraid has panicked: a task may end without its process.
pub fn assert_target_sound() {
    if !target_is_postgres() {
        shared().assert_no_panic();
    }
}

/// Tries until `attempt` gives something; panics with `what` at the deadline.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
