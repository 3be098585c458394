//! What pgbraid costs, in units that no other load on the machine changes much: user instructions (counted by callgrind), and CPU
//! time against a byte relay that carries the same rows in the same run. No absolute time is asserted.
//!
//! Three mock shards send rows made in advance; a throwaway PostgreSQL behind them answers for catalogs. `cargo bench` runs
//! everything; `cargo bench -- --only union --no-callgrind` a part.

mod client;
mod executor;
mod mock;
mod pipeline;
mod process;
mod relay;
mod wire;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use pgbraid::demo::servers::{self, SUPERUSER, Servers};
use tempfile::TempDir;

use client::{Client, USER};
use process::Process;
use wire::Result;

const SHARDS: usize = 3;
/// Runs of a measurement, pgbraid's and the relay's in turn; the median counts.
const ROUNDS: usize = 7;
const TRANSACTIONS: u64 = 10_000;
const MIB: f64 = 1024.0;

#[derive(Parser)]
struct Options {
    /// Rows of a scan
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Only scans and transactions whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Leave out the counting of instructions (it needs valgrind)
    #[arg(long)]
    no_callgrind: bool,
    /// Measure this pgbraid instead of the one built with the benches
    #[arg(long, default_value = env!("CARGO_BIN_EXE_pgbraid"))]
    pgbraid: PathBuf,
    /// Run as the byte relay to this address
    #[arg(long, hide = true)]
    relay: Option<String>,
    /// Run this kind of plan in this process, over the shards named
    #[arg(long, hide = true)]
    executor: Option<String>,
    /// Shards of `--executor`
    #[arg(hide = true)]
    shards: Vec<SocketAddr>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// A statement that moves many rows. `{}` is their number.
struct Scan {
    name: &'static str,
    sql: &'static str,
    format: i16,
    /// Its answer must be sorted by the first column.
    ordered: bool,
    /// Instructions a row, and CPU over the relay's, that the project has set itself.
    bars: (Option<u32>, Option<f64>),
}

const SCANS: &[Scan] = &[
    Scan {
        name: "union, text",
        sql: "select id, n from bench_rows where id < {}",
        format: 0,
        ordered: false,
        bars: (Some(25), Some(2.0)),
    },
    Scan {
        name: "union, binary",
        sql: "select id, n from bench_rows where id < {}",
        format: 1,
        ordered: false,
        bars: (Some(25), Some(2.0)),
    },
    Scan {
        name: "merge by int8, text",
        sql: "select id, n from bench_rows where id < {} order by id",
        format: 0,
        ordered: true,
        bars: (Some(350), None),
    },
    Scan {
        name: "merge by int8, binary",
        sql: "select id, n from bench_rows where id < {} order by id",
        format: 1,
        ordered: true,
        bars: (Some(350), None),
    },
    Scan {
        name: "aggregate, 65,536 groups",
        sql: "select n, count(*), sum(id) from bench_rows where id < {} group by n",
        format: 1,
        ordered: false,
        bars: (None, None),
    },
];

const POINT: &str = "point select, prepared";
const POINT_SQL: &str = "select id, n from bench_rows where id = $1";
const POINT_BAR: f64 = 1.25;

impl Scan {
    fn sql(&self, rows: u64) -> String {
        self.sql.replace("{}", &rows.to_string())
    }

    fn run(&self, client: &mut Client, rows: u64) -> Result<()> {
        let answer = client.query(&self.sql(rows), self.format)?;
        if self.ordered && !answer.ordered {
            return Err(format!("{}: rows out of order", self.name).into());
        }
        let complete = answer.rows == rows || self.name.starts_with("aggregate");
        if complete {
            Ok(())
        } else {
            Err(format!("{}: {} rows of {rows}", self.name, answer.rows).into())
        }
    }
}

fn transactions(client: &mut Client, count: u64) -> Result<()> {
    client.prepare("point", POINT_SQL, 1)?;
    for key in 0..count {
        if client.execute("point", &[key as i64], 1)?.rows != 1 {
            return Err("a point select without its row".into());
        }
    }
    client.simple("deallocate all").map(drop).or(Ok(()))
}

/// Everything around the process under measurement.
struct Bench {
    options: Options,
    folder: TempDir,
    shards: Vec<SocketAddr>,
    /// A mock shard that gives all rows alone: what the relay is connected to.
    whole: SocketAddr,
    _upstream: Servers,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if let Some(target) = &options.relay {
        return runtime.block_on(relay::serve(target));
    }
    if let Some(kind) = &options.executor {
        runtime.block_on(executor::run(kind, options.rows, &options.shards))?;
        return Ok(());
    }
    let bench = Bench::start(options, &runtime)?;
    if bench.scans().next().is_some() || bench.point() {
        println!("{}", bench.against_relay()?);
        println!("{}", bench.memory()?);
    }
    if pipeline::NAME.contains(&bench.options.only) {
        println!("{}", pipeline::compare(&bench)?);
    }
    if !bench.options.no_callgrind {
        println!("{}", bench.instructions()?);
    }
    Ok(())
}

impl Bench {
    fn start(options: Options, runtime: &tokio::runtime::Runtime) -> Result<Self> {
        let upstream = Servers::start(&["upstream".to_owned()], "fsync = off")?;
        let port = upstream.iter().next().ok_or("no upstream")?.port;
        runtime.block_on(make_database(port))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let shards = (0..SHARDS)
            .map(|i| mock::start(i, SHARDS, address))
            .collect::<Result<_>>()?;
        Ok(Self {
            options,
            folder: tempfile::tempdir()?,
            shards,
            whole: mock::start(0, 1, address)?,
            _upstream: upstream,
        })
    }

    fn pgbraid(&self, callgrind: Option<&Path>) -> Result<Process> {
        self.start_pgbraid("", callgrind)
    }

    /// With a line for the section `[server]`.
    fn pgbraid_with(&self, line: &str) -> Result<Process> {
        self.start_pgbraid(line, None)
    }

    fn start_pgbraid(&self, line: &str, callgrind: Option<&Path>) -> Result<Process> {
        let ports = servers::free_ports(1)?;
        let file = self.folder.path().join("pgbraid.toml");
        std::fs::write(&file, self.config(ports[0], line)?)?;
        Process::pgbraid(&self.options.pgbraid, &file, ports[0], callgrind)
    }

    /// Deadlines are long enough for a process under valgrind.
    fn config(&self, port: u16, line: &str) -> Result<String> {
        let mut text = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\nhttp = \"\"\n{line}\n[database]\nname = \"{USER}\"\n[auth]\nmethod = \"trust\"\n\
             [pool]\nconnect_timeout = \"60s\"\nqueue_timeout = \"60s\"\n[log]\nlevel = \"warn\"\n\
             [[table]]\nname = \"public.bench_rows\"\nkey = \"id\"\n"
        );
        for (i, shard) in self.shards.iter().enumerate() {
            write!(
                text,
                "[[shard]]\nname = \"s{i}\"\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{USER}\"\nuser = \"{USER}\"\n\
                 password = \"\"\nsslmode = \"disable\"\n",
                shard.port()
            )?;
        }
        Ok(text)
    }

    fn scans(&self) -> impl Iterator<Item = &'static Scan> {
        SCANS
            .iter()
            .filter(|scan| scan.name.contains(&self.options.only))
    }

    fn point(&self) -> bool {
        POINT.contains(&self.options.only)
    }

    /// CPU time of pgbraid and of the relay, in turn.
    fn against_relay(&self) -> Result<String> {
        let pgbraid = self.pgbraid(None)?;
        let relay = Process::relay(&self.whole.to_string())?;
        let rows = self.options.rows;
        let mut out = format!(
            "CPU time, median of {ROUNDS} runs in turn    pgbraid       relay   ratio     bar\n"
        );
        for scan in self.scans() {
            let ns = medians(&pgbraid, &relay, rows, |client| scan.run(client, rows))?;
            line(&mut out, scan.name, ns, "ns/row", scan.bars.1)?;
        }
        if self.point() {
            let ns = medians(&pgbraid, &relay, TRANSACTIONS, |client| {
                transactions(client, TRANSACTIONS)
            })?;
            line(
                &mut out,
                POINT,
                ns.map(|ns| ns / 1e3),
                "µs/txn",
                Some(POINT_BAR),
            )?;
        }
        Ok(out)
    }

    /// Peak memory while a hundred times as many rows pass.
    fn memory(&self) -> Result<String> {
        let pgbraid = self.pgbraid(None)?;
        let mut out =
            "peak resident memory, MiB      100 k rows   10 M rows  growth     bar\n".to_owned();
        for scan in self.scans().filter(|s| !s.name.starts_with("aggregate")) {
            let mut client = Client::connect(pgbraid.port)?;
            let mut peaks = [0.0; 2];
            for (peak, rows) in peaks.iter_mut().zip([100_000, 10_000_000]) {
                pgbraid.reset_peak()?;
                scan.run(&mut client, rows)?;
                *peak = pgbraid.peak_kib()? as f64 / MIB;
            }
            let growth = peaks[1] - peaks[0];
            writeln!(
                out,
                "{:<28} {:>12.1} {:>11.1} {growth:>7.1} {:>7}",
                scan.name,
                peaks[0],
                peaks[1],
                verdict(growth, 8.0)
            )?;
        }
        Ok(out)
    }

    /// Instructions per row: what a run with many rows has counted more than a run with few.
    fn instructions(&self) -> Result<String> {
        let folder = output_folder()?;
        let whole_process = self.scans().next().is_some() || self.point();
        let base = if whole_process {
            self.count(&folder, "base", |_| Ok(()))?
        } else {
            0
        };
        let mut out = "user instructions                    per row     bar\n".to_owned();
        let mut add = |name: &str, instructions: u64, units: u64, bar: Option<u32>| {
            let each = instructions.saturating_sub(base) as f64 / units as f64;
            let verdict = bar
                .map(|bar| verdict(each, f64::from(bar)))
                .unwrap_or_default();
            writeln!(out, "{name:<32} {each:>11.1} {verdict:>7}")
        };
        let rows = self.options.rows;
        for scan in self.scans() {
            let count = self.count(&folder, scan.name, |client| scan.run(client, rows))?;
            add(scan.name, count, rows, scan.bars.0)?;
        }
        let executor = "executor alone".contains(&self.options.only);
        for kind in ["union", "merge", "aggregate"].iter().filter(|_| executor) {
            let count = self.count_executor(&folder, kind, rows)?;
            add(&format!("executor alone: {kind}"), count + base, rows, None)?;
        }
        if self.point() {
            let count = self.count(&folder, POINT, |client| {
                transactions(client, TRANSACTIONS / 5)
            })?;
            add(&format!("{POINT} (per txn)"), count, TRANSACTIONS / 5, None)?;
        }
        writeln!(out, "profiles for callgrind_annotate: {}", folder.display())?;
        Ok(out)
    }

    /// Instructions of one plan in a process of its own: `rows` rows more than a few.
    fn count_executor(&self, folder: &Path, kind: &str, rows: u64) -> Result<u64> {
        let file = folder.join(format!("executor-{kind}.callgrind"));
        let mut counts = [0, 0];
        for (count, rows) in counts.iter_mut().zip([300, rows]) {
            Process::executor(kind, rows, &self.shards, &file)?;
            *count = process::instructions(&file)?;
        }
        Ok(counts[1].saturating_sub(counts[0]))
    }

    /// Counts one pgbraid's life: start, one small run of every statement, then `work`.
    fn count(
        &self,
        folder: &Path,
        name: &str,
        work: impl Fn(&mut Client) -> Result<()>,
    ) -> Result<u64> {
        let file = folder.join(format!("{}.callgrind", name.replace([' ', ','], "-")));
        let pgbraid = self.pgbraid(Some(&file))?;
        let mut client = Client::connect(pgbraid.port)?;
        for scan in self.scans() {
            scan.run(&mut client, 300)?;
        }
        if self.point() {
            transactions(&mut client, 10)?;
        }
        work(&mut client)?;
        drop(client);
        pgbraid.terminate()?;
        process::instructions(&file)
    }
}

/// CPU time for each of `units`, in nanoseconds: pgbraid's and the relay's.
fn medians(
    pgbraid: &Process,
    relay: &Process,
    units: u64,
    work: impl Fn(&mut Client) -> Result<()>,
) -> Result<[f64; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    let mut clients = [Client::connect(pgbraid.port)?, Client::connect(relay.port)?];
    // The first run fills caches everywhere and does not count.
    for round in 0..=ROUNDS {
        for (i, process) in [pgbraid, relay].into_iter().enumerate() {
            let before = process.cpu_ns()?;
            work(&mut clients[i])?;
            if round > 0 {
                times[i].push(process.cpu_ns()? - before);
            }
        }
    }
    Ok(times.map(|mut t| {
        t.sort_unstable();
        t[t.len() / 2] as f64 / units as f64
    }))
}

fn line(
    out: &mut String,
    name: &str,
    [ours, relay]: [f64; 2],
    unit: &str,
    bar: Option<f64>,
) -> std::fmt::Result {
    let ratio = ours / relay.max(1e-9);
    let verdict = bar.map(|bar| verdict(ratio, bar)).unwrap_or_default();
    writeln!(
        out,
        "{name:<32} {ours:>7.1} {unit} {relay:>6.1} {unit} {ratio:>6.2} {verdict:>9}"
    )
}

fn verdict(value: f64, bar: f64) -> String {
    format!("{}≤ {bar}", if value <= bar { "" } else { "NOT " })
}

/// `target/callgrind`, beside the build that was measured.
fn output_folder() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_BIN_EXE_pgbraid"))
        .ancestors()
        .nth(2)
        .ok_or("no target folder")?
        .join("callgrind");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

async fn make_database(port: u16) -> Result<()> {
    let target = |user: &str, database: &str| {
        format!("host=127.0.0.1 port={port} dbname={database} user={user}")
    };
    let run = async |target: String, statements: &[&str]| -> Result<()> {
        let (client, connection) = tokio_postgres::connect(&target, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        for statement in statements {
            client.batch_execute(statement).await?;
        }
        Ok(())
    };
    run(
        target(SUPERUSER, "postgres"),
        &[
            "create role bench login",
            "create database bench owner bench",
        ],
    )
    .await?;
    let table = "create table bench_rows (id int8 primary key, n int4 not null)";
    run(target(USER, USER), &[table]).await
}
