//! What systemd hears of a service with `Type=notify`, here from a socket like its own.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::has_no_proxy;
use crate::harness::{Config, Pgbraid, cluster, free_port};

#[test]
fn systemd_hears_of_the_start_of_reloads_of_life_and_of_the_end() {
    if has_no_proxy() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    let patience = Some(Duration::from_secs(60));
    systemd.set_read_timeout(patience).expect("a time limit");
    // The next word that is no sign of life.
    let hear = |signs: &mut usize| {
        let mut buffer = [0; 512];
        loop {
            let length = systemd.recv(&mut buffer).expect("a word");
            match std::str::from_utf8(&buffer[..length]).expect("text") {
                "WATCHDOG=1\n" => *signs += 1,
                word => return word.to_owned(),
            }
        }
    };
    let mut command = Command::new("env");
    command
        .stdin(Stdio::null())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000");
    let config = Config::new(cluster());
    let mut pgbraid = Pgbraid::launch_by(&mut command, &config, free_port());
    let mut signs = 0;
    assert_eq!(hear(&mut signs), "READY=1\n");
    // Ready is who lets clients in.
    let mut client = pgbraid.client();
    client.query("begin");
    let mut buffer = [0; 512];
    for _ in 0..3 {
        let length = systemd.recv(&mut buffer).expect("a sign of life");
        assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
    }
    pgbraid.signal("HUP");
    let word = hear(&mut signs);
    assert!(word.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{word}");
    assert_eq!(hear(&mut signs), "READY=1\n");
    pgbraid.signal("TERM");
    assert_eq!(hear(&mut signs), "STOPPING=1\n");
    // While a transaction keeps it, it is still alive.
    let length = systemd.recv(&mut buffer).expect("a sign of life");
    assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
    client.query("commit");
    assert!(pgbraid.wait_for_end().success());
}
