//! The operators' tools against databases of their own on the test servers: what the doctor finds and what mends it, what init makes of
//! shards nobody declared, how files of statements would run, and whether answers are those of a reference server.

mod doctor;
mod init;
mod plan;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Client, cluster, eventually};

/// A database of a test on every shard; gone with it.
struct Databases {
    name: String,
}

impl Databases {
    /// Makes it, and fills it on the shard with index `n` by `schema(n)`, as the superuser.
    fn create(name: &str, schema: impl Fn(usize) -> String) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tools_{name}_{}_{number}", std::process::id());
        let this = Self { name };
        for shard in 0..cluster().shards.len() {
            let sql = format!("create database {}", this.name);
            // Two tests may copy the template at once, which only one of them can.
            eventually("a database is made", || {
                let made = server(shard, "postgres").query(&sql);
                (made.sqlstate().as_deref() != Some("55006")).then(|| {
                    assert!(made.error.is_none(), "{}", made.complaint());
                })
            });
            this.run(shard, &schema(shard));
        }
        this
    }

    /// Runs statements on a shard as the superuser.
    fn run(&self, shard: usize, sql: &str) {
        let reply = server(shard, &self.name).query(sql);
        assert!(reply.error.is_none(), "{sql}\n{}", reply.complaint());
    }

    /// A configuration over them; `tables` are its sections.
    fn config(&self, tables: &str) -> PathBuf {
        let mut text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nhttp = \"\"\n[database]\nname = \"{}\"\n[auth]\nmethod = \"trust\"\n",
            self.name
        );
        for (n, port) in cluster().shards.iter().enumerate() {
            text.push_str(&format!(
                "[[shard]]\nname = \"s{}\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"app\"\npassword = \"app\"\n",
                n + 1
            ));
        }
        text.push_str(tables);
        let path = cluster().folder.join(format!("{}.toml", self.name));
        fs::write(&path, text).expect("configuration file");
        path
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        for shard in 0..cluster().shards.len() {
            server(shard, "postgres").query(&format!("drop database {} with (force)", self.name));
        }
    }
}

fn server(shard: usize, database: &str) -> Client {
    let parameters = [("user", "postgres"), ("database", database)];
    Client::connect_with(cluster().shards[shard], &parameters, "").expect("login")
}

/// Exit status, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    run_with(arguments, &[])
}

fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbraid"));
    command
        .args(arguments)
        .envs(environment.iter().copied())
        // pgbraid takes variables of its prefix for settings.
        .env_remove("PGBRAID_TEST_TARGET")
        .env_remove("PGBRAID_TEST_CASE")
        .stdin(Stdio::null());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the built pgbraid");
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (status.code().unwrap_or(-1), out, err)
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A file of a test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = cluster()
        .folder
        .join(format!("{}-{name}", std::process::id()));
    fs::write(&path, text).expect("a file");
    path
}
