//! pgbraid processes: the built program with a configuration of its own on a free port.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::Client;
use super::cluster::free_port;
use super::{Config, cluster, eventually, run, watchdog};

/// A running pgbraid; dropping kills it, and so does the watchdog when the test process is gone.
pub struct Pgbraid {
    pub port: u16,
    child: Child,
    file: PathBuf,
    log: PathBuf,
}

impl Pgbraid {
    /// Starts one and waits until clients can log in.
    pub fn start(config: Config) -> Self {
        let mut this = Self::launch(&config);
        eventually("pgbraid accepts logins", || {
            this.assert_alive();
            Client::connect(this.port, "app", "app").ok()
        });
        this
    }

    /// Starts one whose logins may fail.
    pub fn launch(config: &Config) -> Self {
        Self::launch_by(&mut plain(), config, free_port())
    }

    /// The same by way of another command, which is given the program and its arguments.
    pub fn launch_by(command: &mut Command, config: &Config, port: u16) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = &cluster().folder;
        let name = format!("pgbraid-{}-{number}", std::process::id());
        let (file, log) = (
            folder.join(format!("{name}.toml")),
            folder.join(format!("{name}.log")),
        );
        fs::write(&file, config.print(port)).expect("configuration file");
        Self::spawn(command, port, file, log)
    }

    /// Starts another one with the configuration and the port of one that has ended, or lets others listen where it does.
    pub fn again(&self) -> Self {
        let log = self.log.with_extension("again.log");
        Self::spawn(&mut plain(), self.port, self.file.clone(), log)
    }

    fn spawn(command: &mut Command, port: u16, file: PathBuf, log: PathBuf) -> Self {
        let output = File::create(&log).expect("log file");
        let child = command
            .arg(env!("CARGO_BIN_EXE_pgbraid"))
            .args(["serve", "--config"])
            .arg(&file)
            // pgbraid takes variables of its prefix for settings.
            .env_remove("PGBRAID_TEST_TARGET")
            .env_remove("PGBRAID_TEST_CASE")
            .stdout(output.try_clone().expect("descriptor"))
            .stderr(output)
            .spawn()
            .expect("the built pgbraid");
        run().tie.adopt(child.id());
        Self {
            port,
            child,
            file,
            log,
        }
    }

    /// Gives its file another text; nobody tells it.
    pub fn write(&self, config: &Config) {
        fs::write(&self.file, config.print(self.port)).expect("configuration file");
    }

    /// Waits until its log says so.
    pub fn wait_for_log(&self, said: &str) {
        eventually(said, || self.log().contains(said).then_some(()));
    }

    /// Gives it another configuration, and waits until it has done with that: `said` is what the log then says.
    pub fn reload(&self, config: &Config, said: &str) {
        self.reload_text(&config.print(self.port), said);
    }

    /// The same with any text for a file.
    pub fn reload_text(&self, text: &str, said: &str) {
        let before = self.log().matches(said).count();
        fs::write(&self.file, text).expect("configuration file");
        self.signal("HUP");
        eventually(said, || {
            (self.log().matches(said).count() > before).then_some(())
        });
    }

    pub fn signal(&self, name: &str) {
        watchdog::signal(self.child.id(), name);
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        eventually("pgbraid ends", || self.child.try_wait().expect("wait"))
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port, "app", "app").expect("login")
    }

    /// Panics with its log if it has ended.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("wait") {
            panic!("pgbraid ended with {status}:\n{}", self.log());
        }
    }

    /// `Some` once it has ended well.
    pub fn has_ended(&mut self) -> Option<()> {
        let status = self.child.try_wait().expect("wait")?;
        assert!(status.success(), "{status}:\n{}", self.log());
        Some(())
    }

    /// Panics if any of its tasks has: the process survives that.
    pub fn assert_no_panic(&self) {
        let log = self.log();
        assert!(!log.contains("panicked at"), "pgbraid panicked:\n{log}");
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory it holds now.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("alive");
        let line = status.lines().find(|l| l.starts_with("VmRSS:"));
        let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.expect("VmRSS") * 1024
    }
}

/// Runs the program as it is.
fn plain() -> Command {
    let mut command = Command::new("env");
    command.stdin(Stdio::null());
    command
}

impl Drop for Pgbraid {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        run().tie.release(self.child.id());
        if std::thread::panicking() {
            eprintln!("log of pgbraid:\n{}", self.log());
        } else {
            self.assert_no_panic();
        }
    }
}
