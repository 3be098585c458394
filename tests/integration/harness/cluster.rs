//! The servers: one PostgreSQL that holds all rows (the oracle) and three shards, booted from one `initdb`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::watchdog::signal;

pub const SHARDS: usize = 3;
const SCHEMA: &str = include_str!("schema.sql");
const DATA: &str = include_str!("data.sql");
const ALLTYPES: &str = include_str!("alltypes.sql");

/// Where the run's servers listen on 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub oracle: u16,
    pub shards: [u16; SHARDS],
    /// For files of tests; goes with the run.
    pub folder: PathBuf,
}

impl Cluster {
    pub fn print(&self) -> String {
        let [a, b, c] = self.shards;
        format!("{} {a} {b} {c} {}", self.oracle, self.folder.display())
    }

    pub fn parse(text: &str) -> Self {
        let mut words = text.splitn(5, ' ');
        let mut next = || words.next().expect("five words");
        let mut port = || next().parse().expect("a port");
        Self {
            oracle: port(),
            shards: [port(), port(), port()],
            folder: next().into(),
        }
    }
}

/// The running servers; dropping stops them.
pub struct Servers {
    pub cluster: Cluster,
    postgres: Vec<Child>,
}

impl Servers {
    /// Boots and loads all nodes, at once. Nodes have the same schema and different OIDs for its types.
    pub fn boot(folder: &Path) -> Result<Self, String> {
        let bin = find_binaries()?;
        let owner = Owner::find()?;
        owner.give(folder)?;
        let template = folder.join("template");
        let mut initdb = owner.command(&bin.join("initdb"));
        initdb
            .arg("-D")
            .arg(&template)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
            .arg(format!("--locale={}", locale()));
        run(initdb)?;
        let mut servers = Self {
            cluster: Cluster {
                oracle: 0,
                shards: [0; SHARDS],
                folder: folder.to_path_buf(),
            },
            postgres: Vec::new(),
        };
        for node in 0..=SHARDS {
            let name = match node {
                0 => "oracle".to_string(),
                n => format!("shard{n}"),
            };
            let data = folder.join(&name);
            let mut copy = owner.command(Path::new("cp"));
            copy.arg("-a").arg(&template).arg(&data);
            run(copy)?;
            let port = servers.start(&bin, &owner, &data, &name)?;
            match node {
                0 => servers.cluster.oracle = port,
                n => servers.cluster.shards[n - 1] = port,
            }
        }
        fs::remove_dir_all(&template).ok();
        servers.load(&bin)?;
        Ok(servers)
    }

    fn start(&mut self, bin: &Path, owner: &Owner, data: &Path, name: &str) -> Result<u16, String> {
        let port = free_port();
        let folder = data.parent().expect("a node's folder is in the run's");
        fs::write(data.join("postgresql.auto.conf"), settings(port, folder)).map_err(text)?;
        fs::write(data.join("pg_hba.conf"), HBA).map_err(text)?;
        let log = fs::File::create(folder.join(format!("{name}.log"))).map_err(text)?;
        let mut command = owner.command(&bin.join("postgres"));
        command
            .arg("-D")
            .arg(data)
            .arg(format!("--cluster-name={name}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(text)?)
            .stderr(log);
        self.postgres.push(command.spawn().map_err(text)?);
        Ok(port)
    }

    fn load(&self, bin: &Path) -> Result<(), String> {
        let ports = std::iter::once(self.cluster.oracle).chain(self.cluster.shards);
        let loaders: Vec<_> = ports
            .enumerate()
            .map(|(node, port)| {
                let bin = bin.to_path_buf();
                std::thread::spawn(move || load_node(&bin, node, port))
            })
            .collect();
        loaders
            .into_iter()
            .try_for_each(|l| l.join().expect("loader"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // QUIT is PostgreSQL's immediate shutdown: nothing of these servers is wanted again.
        for server in &self.postgres {
            signal(server.id(), "QUIT");
        }
        for server in &mut self.postgres {
            server.wait().ok();
        }
    }
}

fn load_node(bin: &Path, node: usize, port: u16) -> Result<(), String> {
    let psql = |database: &str, sql: &str| {
        let mut command = Command::new(bin.join("psql"));
        command
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"])
            .args(["-U", "postgres", "-d", database, "-f", "-"])
            .args(["-p", &port.to_string()])
            .env_remove("PGOPTIONS");
        feed(command, sql)
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(problem) = psql("postgres", "select 1") {
        if Instant::now() > deadline {
            return Err(problem);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    psql("postgres", "create database app")?;
    // Type and table OIDs differ from node to node on purpose, as on real servers.
    let burn = "create type burn as enum ('x'); drop type burn;\n".repeat(5 * node);
    let own = match node {
        0 => String::new(),
        n => format!("call shardfn.keep_only({});\n", n - 1),
    };
    // The last shard's table is not what the others' is.
    let drifted = if node == SHARDS { "text" } else { "int4" };
    // A role whose defaults the others do not share.
    let zone = if node < 2 { "Asia/Tokyo" } else { "UTC" };
    let sql = format!(
        "begin;\n{burn}{SCHEMA}\n{ALLTYPES}\n{DATA}\n{own}\
         create table drift (id int8 primary key, v {drifted});\ninsert into drift values ({node}, '1');\n\
         grant all on drift to app;\nalter role dora set timezone to '{zone}';\ndrop schema shardfn cascade;\ncommit;\nvacuum analyze;\n"
    );
    psql("app", &sql)
}

const HBA: &str = "\
local all all trust
host all guarded,carol,dora,erin,fred,gina,hugo 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
";

fn settings(port: u16, folder: &Path) -> String {
    format!(
        "listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{}'
max_connections = 200
shared_buffers = 32MB
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
max_prepared_transactions = 10
timezone = 'UTC'
datestyle = 'ISO, MDY'
password_encryption = 'scram-sha-256'
",
        folder.display()
    )
}

/// PostgreSQL refuses to run as root: then everything of the servers belongs to the user `postgres`.
struct Owner(Option<(u32, u32)>);

impl Owner {
    fn find() -> Result<Self, String> {
        let id = |args: &[&str]| -> Option<u32> {
            let output = Command::new("id").args(args).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        if id(&["-u"]) != Some(0) {
            return Ok(Self(None));
        }
        match (id(&["-u", "postgres"]), id(&["-g", "postgres"])) {
            (Some(user), Some(group)) => Ok(Self(Some((user, group)))),
            _ => Err("running as root, and there is no user postgres to run servers as".into()),
        }
    }

    fn give(&self, folder: &Path) -> Result<(), String> {
        if let Some((user, group)) = self.0 {
            std::os::unix::fs::chown(folder, Some(user), Some(group)).map_err(text)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(text)?;
        }
        Ok(())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("LC_MESSAGES", "C");
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command
    }
}

pub fn find_binaries() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    installed.sort_by_key(|bin| version_of(bin));
    std::env::split_paths(&path)
        .chain(installed.into_iter().rev())
        .find(|bin| {
            ["initdb", "postgres", "psql"]
                .iter()
                .all(|program| bin.join(program).exists())
        })
        .ok_or_else(|| "no PostgreSQL server found: apt-get install postgresql".into())
}

fn version_of(bin: &Path) -> u32 {
    let version = bin.parent().and_then(|v| v.file_name()?.to_str());
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// A linguistic collation where there is one: it finds more mistakes than byte order.
fn locale() -> &'static str {
    let list = Command::new("locale").arg("-a").output();
    let list = list.map(|o| String::from_utf8_lossy(&o.stdout).to_lowercase());
    match list {
        Ok(l) if l.contains("en_us.utf8") || l.contains("en_us.utf-8") => "en_US.UTF-8",
        _ => "C.UTF-8",
    }
}

/// A port nobody listens on right now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

fn feed(mut command: Command, input: &str) -> Result<(), String> {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let mut stdin = child.stdin.take().expect("piped");
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    checked(child.wait_with_output().map_err(text)?)?;
    written.map_err(text)
}

fn run(mut command: Command) -> Result<(), String> {
    checked(command.output().map_err(text)?)
}

fn checked(output: Output) -> Result<(), String> {
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn text(e: std::io::Error) -> String {
    e.to_string()
}
