//! Owns the servers of a test run: started by the first test process that needs them, it stops them and removes their files
//! when the last one is gone, however that one ended. Every test process holds a connection to the watchdog's socket; a closed
//! connection is a process that is gone. This also serves runners that give each test a process of its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Servers};

/// Set for the process that is to be the watchdog: the folder of the run.
const ROLE: &str = "PGBRAID_TEST_WATCHDOG";

/// There while servers run: `make test` ends when it is gone.
const RUNNING: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/test-servers");

/// This process' tie to the watchdog; the process' end unties it.
pub struct Tie {
    stream: Mutex<UnixStream>,
}

impl Tie {
    /// Has the watchdog kill process `pid` when this process ends, in case it cannot do so itself.
    pub fn adopt(&self, pid: u32) {
        self.tell(&format!("adopt {pid}\n"));
    }

    /// Takes that back: the process has ended and been waited for.
    pub fn release(&self, pid: u32) {
        self.tell(&format!("release {pid}\n"));
    }

    fn tell(&self, line: &str) {
        let mut stream = self.stream.lock().expect("no panic while held");
        stream
            .write_all(line.as_bytes())
            .expect("the watchdog lives as long as its tests");
    }
}

/// Connects to the run's servers, starting them if nobody has yet.
pub fn join() -> (Cluster, Tie) {
    let root = root();
    // Held until the watchdog has counted us, so that it cannot leave in between.
    let lock = lock(&root);
    let stream = UnixStream::connect(root.join("socket")).unwrap_or_else(|_| start(&root));
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone().expect("descriptor"));
    reader.read_line(&mut line).expect("greeting");
    drop(lock);
    let cluster = line
        .trim_end()
        .strip_prefix("ready ")
        .unwrap_or_else(|| panic!("the servers did not start: {line}"));
    let stream = Mutex::new(stream);
    (Cluster::parse(cluster), Tie { stream })
}

fn lock(root: &Path) -> File {
    let path = root.join("lock");
    loop {
        fs::create_dir_all(root).expect("temporary folder");
        let Ok(file) = File::create(&path) else {
            continue;
        };
        file.lock().expect("lock");
        // A leaving watchdog removes the folder, and this file may have been in it.
        let inode = |m: std::io::Result<fs::Metadata>| m.map(|m| m.ino()).ok();
        if inode(fs::metadata(&path)) == inode(file.metadata()) {
            return file;
        }
    }
}

/// One folder a checkout, so that two checkouts test side by side. Short: socket paths have 107 bytes.
fn root() -> PathBuf {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in env!("CARGO_MANIFEST_DIR").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    std::env::temp_dir().join(format!("pgbraid-test-{:08x}", hash as u32))
}

/// Starts a watchdog and returns a connection to it. A socket that is there belongs to one that was killed.
#[allow(
    clippy::zombie_processes,
    reason = "the watchdog outlives whoever started it"
)]
fn start(root: &Path) -> UnixStream {
    let socket = root.join("socket");
    fs::remove_file(&socket).ok();
    let log = File::create(root.join("watchdog.log")).expect("log file");
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "harness::watchdog::serves_the_run", "--ignored"])
        .arg("--nocapture")
        .env(ROLE, root)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("descriptor"))
        .stderr(log)
        // Not of our group: Ctrl-C ends the tests, and that is what the watchdog waits for.
        .process_group(0)
        .spawn()
        .expect("watchdog");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(stream) = UnixStream::connect(&socket) {
            return stream;
        }
        if let Some(status) = child.try_wait().expect("wait") {
            let log = fs::read_to_string(root.join("watchdog.log")).unwrap_or_default();
            panic!("watchdog ended with {status}: {log}");
        }
        assert!(Instant::now() < deadline, "no watchdog");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Not a test but the watchdog itself, run by `start` in a process of its own.
#[test]
#[ignore = "started by the harness"]
fn serves_the_run() {
    if let Some(root) = std::env::var_os(ROLE) {
        run(Path::new(&root));
    }
}

/// A test process came or went; as a number, what that adds to their count.
enum Event {
    Joined = 1,
    Left = -1,
}

fn run(root: &Path) {
    remove_leftovers(root);
    fs::write(RUNNING, root.display().to_string()).expect("target folder");
    let folder = root.join(format!("run-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("run folder");
    let socket = root.join("socket");
    let listener = UnixListener::bind(&socket).expect("socket");
    let (servers, greeting) = match Servers::boot(&folder) {
        Ok(servers) => {
            let greeting = format!("ready {}\n", servers.cluster.print());
            (Some(servers), greeting)
        }
        Err(problem) => (None, format!("failed {}\n", problem.replace('\n', " | "))),
    };
    let (sender, events) = channel();
    std::thread::spawn(move || accept(&listener, &sender, &greeting));
    // Nobody can join from here to the end.
    let _lock = wait_until_deserted(root, &events);
    drop(servers);
    fs::remove_dir_all(root).ok();
    fs::remove_file(RUNNING).ok();
}

fn accept(listener: &UnixListener, events: &Sender<Event>, greeting: &str) {
    let greeting: Arc<str> = Arc::from(greeting);
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let (events, greeting) = (events.clone(), Arc::clone(&greeting));
        events.send(Event::Joined).ok();
        std::thread::spawn(move || {
            follow(stream, &greeting);
            events.send(Event::Left).ok();
        });
    }
}

/// Serves one test process until it is gone, then kills what it left running.
fn follow(mut stream: UnixStream, greeting: &str) {
    if stream.write_all(greeting.as_bytes()).is_err() {
        return;
    }
    let mut adopted: HashMap<u32, String> = HashMap::new();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let Some((verb, pid)) = line.split_once(' ') else {
            continue;
        };
        let Ok(pid) = pid.parse() else { continue };
        match verb {
            "adopt" => adopted.insert(pid, started_at(pid)),
            _ => adopted.remove(&pid),
        };
    }
    for (pid, start) in adopted {
        // The number may be another process' by now.
        if !start.is_empty() && started_at(pid) == start {
            signal(pid, "KILL");
        }
    }
}

/// Returns holding the lock once no test is left.
fn wait_until_deserted(root: &Path, events: &Receiver<Event>) -> File {
    // A runner with a process a test leaves short gaps between them.
    let linger = match std::env::var_os("NEXTEST") {
        Some(_) => Duration::from_secs(3),
        None => Duration::from_millis(1),
    };
    let mut tests = 0_i64;
    // Whoever started us has this long to join.
    let mut wait = Duration::from_secs(60);
    loop {
        match events.recv_timeout(wait) {
            Ok(event) => tests += event as i64,
            Err(_) if tests > 0 => {}
            Err(_) => {
                let lock = lock(root);
                tests += events.try_iter().map(|e| e as i64).sum::<i64>();
                if tests == 0 {
                    return lock;
                }
            }
        }
        wait = if tests == 0 {
            linger
        } else {
            Duration::from_secs(60)
        };
    }
}

/// The kernel's start time of a process, empty when there is none.
fn started_at(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name
        .split(' ')
        .nth(19)
        .unwrap_or_default()
        .to_string()
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .ok();
}

/// Stops and removes what a watchdog left that was itself killed.
fn remove_leftovers(root: &Path) {
    for run in fs::read_dir(root).expect("own folder").flatten() {
        if !run.file_name().to_string_lossy().starts_with("run-") {
            continue;
        }
        for node in fs::read_dir(run.path()).into_iter().flatten().flatten() {
            let pid_file = fs::read_to_string(node.path().join("postmaster.pid"));
            let pid = pid_file.ok().and_then(|s| s.lines().next()?.parse().ok());
            let Some(pid) = pid else { continue };
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.contains(&*node.path().to_string_lossy()) {
                signal(pid, "QUIT");
            }
        }
        fs::remove_dir_all(run.path()).ok();
    }
}
