//! How much faster one client's pipeline of point selects is when all shards may work on it at once, each answering after a
//! millisecond.

use std::time::Instant;

use crate::client::Client;
use crate::wire::Result;
use crate::{Bench, ROUNDS};

pub const NAME: &str = "pipelined point selects, shards of 1 ms";
/// The mock shards wait where they read this comment.
const SQL: &str = "select id, n from bench_rows where id = $1 /* after 1 ms */";
const SELECTS: i64 = 5_000;
const BAR: f64 = 2.5;

/// Seconds of a pipeline with the default parallelism, and with none.
pub fn compare(bench: &Bench) -> Result<String> {
    let processes = [
        bench.pgbraid(None)?,
        bench.pgbraid_with("pipeline_parallelism = 1")?,
    ];
    let mut clients = Vec::new();
    for process in &processes {
        let mut client = Client::connect(process.port)?;
        client.prepare("point", SQL, 1)?;
        // Every shard's connection learns the statement.
        for key in 0..50 {
            client.execute("point", &[key], 1)?;
        }
        clients.push(client);
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS / 2 {
        for (client, times) in clients.iter_mut().zip(&mut times) {
            let since = Instant::now();
            let rows = client.pipeline("point", 0..SELECTS)?;
            if rows != SELECTS as u64 {
                return Err(format!("{NAME}: {rows} rows").into());
            }
            times.push(since.elapsed().as_secs_f64());
        }
    }
    let [four, one] = times.map(|mut t| {
        t.sort_by(f64::total_cmp);
        t[t.len() / 2]
    });
    let ratio = one / four;
    let verdict = if ratio >= BAR { "" } else { "NOT " };
    Ok(format!(
        "pipeline_parallelism                        4           1   speed     bar\n\
         {NAME:<40} {four:>5.2} s {one:>9.2} s {ratio:>6.2} × {verdict}≥ {BAR}\n"
    ))
}
