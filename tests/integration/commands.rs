//! The subcommands as an operator runs them: what they print, and their exit status.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::cluster::free_port;
use crate::harness::{Config, adopt, cluster, eventually, release};

/// A configuration in a file of its own; `change` edits its text.
fn file(name: &str, change: impl Fn(String) -> String) -> (PathBuf, u16) {
    let port = free_port();
    let path = cluster()
        .folder
        .join(format!("{name}-{}.toml", std::process::id()));
    fs::write(&path, change(Config::new(cluster()).print(port))).expect("configuration file");
    (path, port)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbraid"));
    command.args(arguments).stdin(Stdio::null());
    command
        .env_remove("PGBRAID_TEST_TARGET")
        .env_remove("PGBRAID_TEST_CASE");
    command
}

/// Runs one to its end: whether it succeeded, and all it printed.
fn run(arguments: &[&str]) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(arguments).output().expect("the built pgbraid");
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (status.success(), text.concat())
}

fn run_with(verb: &str, config: &std::path::Path, rest: &[&str]) -> (bool, String) {
    let config = config.to_str().expect("a path in UTF-8");
    run(&[&[verb, "--config", config], rest].concat())
}

#[test]
fn check_is_content_with_shards_that_agree() {
    let (path, _) = file("check-good", |text| text);
    let (well, printed) = run_with("check", &path, &[]);
    assert!(well, "{printed}");
    assert!(
        printed.contains("public.orders  sharded by id (postgres)"),
        "{printed}"
    );
    assert!(printed.trim_end().ends_with("ok"), "{printed}");
}

#[test]
fn check_names_a_table_that_is_nowhere() {
    let (path, _) = file("check-table", |text| {
        text.replace("public.dupes", "public.duppes")
    });
    let (well, printed) = run_with("check", &path, &[]);
    assert!(!well, "{printed}");
    assert!(
        printed.contains("table public.duppes: is declared but on no shard"),
        "{printed}"
    );
}

#[test]
fn check_names_a_shard_that_is_down() {
    let third = format!("port = {}", cluster().shards[2]);
    let nobody = format!("port = {}", free_port());
    let (path, _) = file("check-shard", |text| text.replace(&third, &nobody));
    let (well, printed) = run_with("check", &path, &[]);
    assert!(!well, "{printed}");
    assert!(
        printed.contains("FAILED: shard s3 cannot be reached"),
        "{printed}"
    );
    assert!(
        printed.contains("1 of 3 shards cannot be used"),
        "{printed}"
    );
}

#[test]
fn check_reports_all_mistakes_of_the_file() {
    let (path, _) = file("check-file", |text| {
        text.replace("method = \"trust\"", "method = \"peer\"")
            .replace("size = 8", "siez = 8")
    });
    let (well, printed) = run_with("check", &path, &[]);
    assert!(!well, "{printed}");
    assert!(printed.contains("auth.method: is \"peer\""), "{printed}");
    assert!(printed.contains("pool.siez: unknown key"), "{printed}");
    assert!(
        printed.contains("2 mistakes in the configuration"),
        "{printed}"
    );
}

#[test]
fn plan_prints_without_running() {
    let (path, _) = file("plan", |text| text);
    let (well, printed) = run_with("plan", &path, &["SELECT * FROM orders ORDER BY id LIMIT 3"]);
    assert!(well, "{printed}");
    assert!(
        printed.starts_with("Limit: 3\n└─ GatherMerge: id\n"),
        "{printed}"
    );
    let (well, printed) = run_with("plan", &path, &["SELECT nothing FROM orders"]);
    assert!(!well && printed.contains("42703"), "{printed}");
    let (well, printed) = run_with("plan", &path, &["SELECT 1; SELECT 2"]);
    assert!(
        !well && printed.contains("one statement is needed"),
        "{printed}"
    );
}

#[test]
fn health_of_nobody_is_bad() {
    let (well, printed) = run(&["health", "--address", &format!("127.0.0.1:{}", free_port())]);
    assert!(!well, "{printed}");
}

/// `pgbraid serve`, ended with the test.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
        release(self.0.id());
    }
}

#[test]
fn serve_survives_sighup_and_ends_well_on_sigterm() {
    let (path, port) = file("serve", |text| text);
    let http = format!("127.0.0.1:{}", free_port());
    let child = command(&["serve", "--config", path.to_str().expect("UTF-8")])
        .env("PGBRAID_SERVER_HTTP", &http)
        .env("PGBRAID_LOG_LEVEL", "off")
        .spawn()
        .expect("the built pgbraid");
    adopt(child.id());
    let mut serving = Serving(child);
    let ready = || run(&["health", "--address", &http]).0.then_some(());
    eventually("pgbraid is ready", ready);
    let signal = |name: &str| {
        let sent = Command::new("kill")
            .args([name, &serving.0.id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
    };
    signal("-HUP");
    eventually("still ready", ready);
    crate::harness::Client::connect(port, "app", "app").expect("login after SIGHUP");
    signal("-TERM");
    let status = eventually("pgbraid ends", || serving.0.try_wait().expect("wait"));
    assert!(status.success(), "{status}");
}
