//! Throwaway PostgreSQL servers: finds the binaries, makes the data folders, starts the servers on free ports of 127.0.0.1 and takes
//! everything away again when dropped. Never touches a server it has not started itself.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The superuser of every server made here; logs in without a password, from this machine only.
pub const SUPERUSER: &str = "postgres";

/// What goes wrong while servers are made.
#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    /// None anywhere.
    #[error(
        "no PostgreSQL server binaries found (looked for initdb, pg_ctl and postgres on PATH and in the usual places); \
         install them: `apt-get install postgresql`, `dnf install postgresql-server` or `brew install postgresql`"
    )]
    NoBinaries,
    /// We are root and know nobody else.
    #[error(
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as"
    )]
    NoUser,
    /// One of PostgreSQL's programs failed.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// Which one.
        program: String,
        /// Its exit status.
        status: String,
        /// What it said.
        output: String,
    },
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// To what.
        what: String,
        /// Why.
        source: io::Error,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ServersError {
    let what = what.into();
    move |source| ServersError::Io { what, source }
}

/// A folder with `initdb`, `pg_ctl` and `postgres` of one version.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// Where they are.
    pub folder: PathBuf,
    /// As `postgres --version` prints it: `postgres (PostgreSQL) 15.8`.
    pub version: String,
}

/// Where packages put the server binaries: a parent folder, the start of the folder's name in it, the rest of the path.
const USUAL_PLACES: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/local", "pgsql", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ("/usr/lib64", "pgsql", "bin"),
];

impl Binaries {
    /// Finds the binaries: the first on PATH, else the newest in the usual places.
    ///
    /// # Errors
    /// `NoBinaries`.
    pub fn find() -> Result<Self, ServersError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(found) = std::env::split_paths(&path).find_map(Self::in_folder) {
            return Ok(found);
        }
        USUAL_PLACES
            .iter()
            .flat_map(|(parent, prefix, rest)| folders(parent, prefix, rest))
            .filter_map(Self::in_folder)
            .max_by_key(Self::major)
            .ok_or(ServersError::NoBinaries)
    }

    fn in_folder(folder: PathBuf) -> Option<Self> {
        let complete = ["initdb", "pg_ctl", "postgres"]
            .iter()
            .all(|program| folder.join(program).is_file());
        let output = complete.then(|| {
            Command::new(folder.join("postgres"))
                .arg("--version")
                .output()
        });
        let version = String::from_utf8(output?.ok()?.stdout)
            .ok()?
            .trim()
            .to_owned();
        Some(Self { folder, version })
    }

    fn major(&self) -> u32 {
        let number = self
            .version
            .rsplit(' ')
            .find(|w| w.starts_with(|c: char| c.is_ascii_digit()));
        let major = number.and_then(|n| n.split(|c: char| !c.is_ascii_digit()).next());
        major.and_then(|m| m.parse().ok()).unwrap_or(0)
    }
}

/// `parent/prefix*/rest`, as a shell would find them.
fn folders(parent: &str, prefix: &str, rest: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(prefix))
        .map(|e| e.path().join(rest))
        .collect()
}

/// A running server.
#[derive(Debug, Clone)]
pub struct Server {
    /// As it was asked for.
    pub name: String,
    /// On 127.0.0.1.
    pub port: u16,
    data: PathBuf,
}

/// Servers that live as long as this value. Dropping it stops them at once and removes their files.
pub struct Servers {
    binaries: Binaries,
    owner: Option<Owner>,
    servers: Vec<Server>,
    // Last: its own drop removes the files, when the servers are gone.
    folder: TempDir,
}

/// Whom the servers run as when we are root.
#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Servers {
    /// Makes and starts one server for each name, all with the same `settings` (lines of postgresql.conf). Blocks for some seconds.
    ///
    /// # Errors
    /// No binaries, no user to run them as, or what initdb and pg_ctl say.
    pub fn start(names: &[String], settings: &str) -> Result<Self, ServersError> {
        let binaries = Binaries::find()?;
        let folder = tempfile::Builder::new()
            .prefix("pgbraid-")
            .tempdir()
            .map_err(io_error("cannot make a temporary folder"))?;
        let owner = owner_for(folder.path())?;
        let mut servers = Self {
            binaries,
            owner,
            servers: Vec::new(),
            folder,
        };
        servers.make(names, settings)?;
        servers.control_all(&["start", "-w", "-s", "-l", "log"])?;
        Ok(servers)
    }

    /// The servers, in the order of their names as given.
    pub fn iter(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter()
    }

    /// As `postgres --version` prints it.
    pub fn version(&self) -> &str {
        &self.binaries.version
    }

    /// One initdb, the others are copies of its folder: a second each saved.
    fn make(&mut self, names: &[String], settings: &str) -> Result<(), ServersError> {
        let template = self.folder.path().join("template");
        self.initdb(&template)?;
        for (name, port) in names.iter().zip(free_ports(names.len())?) {
            let data = self.folder.path().join(name);
            let mut copy = self.command("cp");
            run(copy.arg("-Rp").arg(&template).arg(&data))?;
            let sockets = self.folder.path().display();
            let own = format!(
                "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{sockets}'\n{settings}\n"
            );
            append(&data.join("postgresql.conf"), &own)?;
            let name = name.clone();
            self.servers.push(Server { name, port, data });
        }
        fs::remove_dir_all(&template).map_err(io_error("cannot remove the template folder"))
    }

    /// Takes the first locale that this machine has: linguistic order where possible, as most real databases have.
    fn initdb(&self, data: &Path) -> Result<(), ServersError> {
        let with = |locale: &str| {
            let mut initdb = self.command(self.binaries.folder.join("initdb"));
            initdb.args([
                "-U",
                SUPERUSER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "--locale",
                locale,
            ]);
            run(initdb.arg("-D").arg(data))
        };
        with("en_US.UTF-8")
            .or_else(|_| with("C.UTF-8"))
            .or_else(|_| with("C"))
    }

    /// Runs `pg_ctl` with `arguments` for every server, side by side.
    fn control_all(&self, arguments: &[&str]) -> Result<(), ServersError> {
        let mut children = Vec::new();
        for server in &self.servers {
            let mut control = self.command(self.binaries.folder.join("pg_ctl"));
            control.args(arguments).arg("-D").arg(&server.data);
            control.current_dir(&server.data);
            // pg_ctl's child keeps its output open for ever: nothing may wait for the end of it.
            control.stdout(Stdio::null()).stderr(Stdio::null());
            children.push((
                server,
                control.spawn().map_err(io_error("cannot run pg_ctl"))?,
            ));
        }
        let ended: Vec<_> = children
            .iter_mut()
            .map(|(server, child)| (server, child.wait()))
            .collect();
        for (server, status) in ended {
            let status = status.map_err(io_error("cannot wait for pg_ctl"))?;
            if !status.success() {
                let output = fs::read_to_string(server.data.join("log")).unwrap_or_default();
                let program = format!("pg_ctl {} of {}", arguments[0], server.name);
                let status = status.to_string();
                return Err(ServersError::Failed {
                    program,
                    status,
                    output,
                });
            }
        }
        Ok(())
    }

    /// A command that runs as the servers' owner, apart from our terminal's signals and the caller's PG… variables.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .current_dir(self.folder.path())
            .process_group(0);
        let foreign =
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"));
        foreign.for_each(|(name, _)| {
            command.env_remove(name);
        });
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Nobody needs the data any more, and a server that never came up makes pg_ctl fail: both are fine.
        let _ = self.control_all(&["stop", "-w", "-s", "-m", "immediate"]);
    }
}

/// Gives the folder to a user that PostgreSQL accepts when it belongs to root.
fn owner_for(folder: &Path) -> Result<Option<Owner>, ServersError> {
    let uid = fs::metadata(folder)
        .map_err(io_error("cannot read the temporary folder"))?
        .uid();
    if uid != 0 {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").map_err(io_error("cannot read /etc/passwd"))?;
    let owner = ["postgres", "nobody"]
        .iter()
        .find_map(|name| user(&passwd, name))
        .ok_or(ServersError::NoUser)?;
    chown(folder, Some(owner.uid), Some(owner.gid))
        .map_err(io_error("cannot give the temporary folder away"))?;
    Ok(Some(owner))
}

/// Looks a user up in the text of /etc/passwd (`name:password:uid:gid:…`).
fn user(passwd: &str, name: &str) -> Option<Owner> {
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|f| f[0] == name)?;
    let uid = fields.get(2)?.parse().ok()?;
    let gid = fields.get(3)?.parse().ok()?;
    Some(Owner { uid, gid })
}

/// Ports of 127.0.0.1 that are free at this moment; all are held until all are found, so that none is given twice.
///
/// # Errors
/// Whatever binding says.
pub fn free_ports(count: usize) -> Result<Vec<u16>, ServersError> {
    let bind = |_| TcpListener::bind(("127.0.0.1", 0));
    let held: Vec<_> = (0..count)
        .map(bind)
        .collect::<io::Result<_>>()
        .map_err(io_error("no free port"))?;
    held.iter()
        .map(|listener| {
            Ok(listener
                .local_addr()
                .map_err(io_error("no free port"))?
                .port())
        })
        .collect()
}

fn append(path: &Path, text: &str) -> Result<(), ServersError> {
    let what = format!("cannot write {}", path.display());
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(path)
        .map_err(io_error(what.clone()))?;
    file.write_all(text.as_bytes()).map_err(io_error(what))
}

fn run(command: &mut Command) -> Result<(), ServersError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(io_error(format!("cannot run {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServersError::Failed {
        program,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:/bin/sh\npostgres:x:101:104::/:/bin/sh\n";
        let owner = user(passwd, "postgres").map(|o| (o.uid, o.gid));
        assert_eq!(owner, Some((101, 104)));
        assert!(user(passwd, "nobody").is_none());
    }

    #[test]
    fn free_ports_are_different() {
        let mut ports = free_ports(4).expect("ports");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 4);
    }

    #[test]
    fn major_version_is_read_from_distribution_suffixed_text() {
        let binaries = |version: &str| Binaries {
            folder: PathBuf::new(),
            version: version.to_owned(),
        };
        assert_eq!(binaries("postgres (PostgreSQL) 15.8").major(), 15);
        assert_eq!(
            binaries("postgres (PostgreSQL) 17.2 (Debian 17.2-1)").major(),
            17
        );
        assert_eq!(binaries("postgres (PostgreSQL) 18beta1").major(), 18);
    }
}
