//! Clients over a unix socket, and clients that say nothing.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::has_no_proxy;
use crate::harness::cluster::find_binaries;
use crate::harness::{Config, Pgbraid, cluster};

#[test]
fn libpq_finds_the_unix_socket_and_asks_it_for_no_tls() {
    if has_no_proxy() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().display().to_string();
    let mut config = Config::new(cluster()).scram();
    config.server = format!("unix_socket = \"{name}\"\nunix_socket_permissions = \"0700\"\n");
    // What may not go over the network in the clear may stay inside of the machine.
    let certificates = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/integration/lifecycle/certificates"
    );
    config.more = format!(
        "[tls]\nmode = \"require\"\ncert = \"{certificates}/first.crt\"\nkey = \"{certificates}/first.key\"\n"
    );
    let mut pgbraid = Pgbraid::launch(&config);
    let path = folder.path().join(format!(".s.PGSQL.{}", pgbraid.port));
    let port = pgbraid.port;
    let ask = |password: &str| {
        let mut psql = Command::new(find_binaries().expect("psql").join("psql"));
        psql.args(["-XqAt", "-h", &name, "-U", "app", "-d", "app"])
            .args(["-p", &port.to_string()])
            .args(["-c", "select count(*) from users"])
            .env("PGPASSWORD", password)
            .env_remove("PGSSLMODE");
        let output = psql.output().expect("psql runs");
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    crate::harness::eventually("an answer over the unix socket", || {
        (ask("app").0 == "300").then_some(())
    });
    let (_, complaint) = ask("wrong");
    assert!(
        complaint.contains("password authentication failed"),
        "{complaint}"
    );
    let mode = std::fs::metadata(&path).expect("a socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
    // A killed one leaves its file behind, which the next one replaces; one that ends takes it along.
    pgbraid.signal("KILL");
    pgbraid.wait_for_end();
    assert!(path.exists());
    let mut next = pgbraid.again();
    crate::harness::eventually("an answer after a kill", || {
        (ask("app").0 == "300").then_some(())
    });
    next.signal("TERM");
    assert!(next.wait_for_end().success());
    assert!(!path.exists());
}

#[test]
fn an_idle_session_ends_and_an_open_transaction_does_not() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()).server("client_idle_timeout = \"1s\""));
    let (mut idle, mut open) = (pgbraid.client(), pgbraid.client());
    idle.query("select count(*) from users");
    open.query("begin");
    let begun = Instant::now();
    let told = idle.receive().expect("a word of the end");
    assert_eq!(told.field(b'C').as_deref(), Some("57P05"));
    assert!(begun.elapsed() >= Duration::from_millis(900));
    assert!(idle.receive().is_err(), "the connection goes on");
    assert_eq!(open.query("select count(*) from users").value(), "300");
    assert_eq!(open.query("commit").tag, "COMMIT");
}

#[test]
fn a_session_may_limit_its_own_idle_time_and_a_reload_everybodys() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let (mut own, mut other) = (pgbraid.client(), pgbraid.client());
    own.query("set idle_session_timeout = '300ms'");
    let told = own.receive().expect("a word of the end");
    assert_eq!(told.field(b'C').as_deref(), Some("57P05"));
    other.assert_in_step("another session's timeout");
    // It sleeps already when the limit comes.
    let config = Config::new(cluster()).server("client_idle_timeout = \"300ms\"");
    pgbraid.reload(&config, "configuration reloaded");
    let told = other.receive().expect("a word of the end");
    assert_eq!(told.field(b'C').as_deref(), Some("57P05"));
}
