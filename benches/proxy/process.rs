//! The processes under measurement: how they are started, and what they have used of the machine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::wire::Result;

/// How long a process may take to listen; valgrind needs most of it.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running relay or pgbraid; killed when dropped.
pub struct Process {
    child: Child,
    pub port: u16,
}

impl Process {
    /// Starts this program again as a byte relay to `target`.
    pub fn relay(target: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command
            .args(["--relay", target])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let port = line.trim().parse()?;
        Ok(Self { child, port })
    }

    /// Starts pgbraid, which the configuration makes listen on `port`; under callgrind when a file for its counts is given.
    pub fn pgbraid(
        program: &Path,
        config: &Path,
        port: u16,
        callgrind: Option<&Path>,
    ) -> Result<Self> {
        let mut command = match callgrind {
            None => Command::new(program),
            Some(file) => {
                let mut valgrind = valgrind(file);
                valgrind.arg(program);
                valgrind
            }
        };
        let child = command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdout(Stdio::null())
            .spawn()?;
        let mut process = Self { child, port };
        process.wait_until_ready()?;
        Ok(process)
    }

    /// Runs this program again with a plan over the shards, under callgrind, to its end.
    pub fn executor(kind: &str, rows: u64, shards: &[SocketAddr], callgrind: &Path) -> Result<()> {
        let mut valgrind = valgrind(callgrind);
        valgrind.arg(std::env::current_exe()?).args([
            "--executor",
            kind,
            "--rows",
            &rows.to_string(),
        ]);
        valgrind.args(shards.iter().map(ToString::to_string));
        let status = valgrind.status()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("executor of {kind}: {status}").into())
        }
    }

    /// It listens before it has read the catalogs: only an answer counts.
    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = Client::connect(self.port).and_then(|mut c| c.simple("select 1")) {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("pgbraid ended at start: {status}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("pgbraid does not answer: {error}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    /// CPU time of all threads so far, user and system, in nanoseconds.
    pub fn cpu_ns(&self) -> Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(self.proc("task"))? {
            let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else {
                // A thread that has just ended.
                continue;
            };
            sum += schedstat
                .split(' ')
                .next()
                .unwrap_or_default()
                .parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Forgets the highest memory use so far.
    pub fn reset_peak(&self) -> Result<()> {
        Ok(fs::write(self.proc("clear_refs"), "5")?)
    }

    /// The highest resident memory since the last reset, KiB.
    pub fn peak_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmHWM:"))
            .ok_or("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Asks it to end, and waits.
    pub fn terminate(mut self) -> Result<()> {
        Command::new("kill")
            .arg("-TERM")
            .arg(self.child.id().to_string())
            .status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn valgrind(file: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind"]);
    valgrind.arg(format!("--callgrind-out-file={}", file.display()));
    valgrind
}

/// All instructions that a callgrind file has counted.
pub fn instructions(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let count = text.lines().rev().find_map(|l| {
        l.strip_prefix("totals:")
            .or_else(|| l.strip_prefix("summary:"))
    });
    Ok(count
        .ok_or("callgrind has counted nothing")?
        .trim()
        .parse()?)
}
