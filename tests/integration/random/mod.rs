//! Random SELECTs, each on one PostgreSQL that holds all rows and through pgbraid over three shards: names, types, rows, tags
//! and SQLSTATEs must agree. A seed is a statement: what fails is printed with its seed, as it was and made small.

mod ast;
mod compare;
mod forms;
mod generate;
mod render;
mod report;
mod schema;
mod shrink;
mod types;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use compare::{Mode, Pair};
use report::Report;

use crate::harness::{assert_target_sound, target_is_postgres};

/// In `make test`: always the same.
const SEED: u64 = 1_000_000;
const COUNT: u64 = 300;

const SHRINK_TIME: Duration = Duration::from_secs(45);

/// Statements may be refused, but no more than this part of them.
const REFUSED_PERCENT_MAX: u64 = 5;

#[test]
fn random_statements_answer_as_on_one_server() {
    let report = run(SEED, COUNT, Duration::from_secs(120), 4);
    report.print();
    assert_target_sound();
    assert!(!report.has_differences(), "see above");
    let refused = report.refused();
    assert!(
        refused * 100 <= report.statements() * REFUSED_PERCENT_MAX || target_is_postgres(),
        "{refused} statements refused"
    );
}

/// `make soak ARGS="seconds=600 seed=7 count=20000 threads=2"`: any of them, in any order.
#[test]
#[ignore = "runs for as long as asked: make soak"]
fn soak() {
    let arguments = std::env::var("PGBRAID_SOAK").unwrap_or_default();
    let argument = |name: &str| -> Option<u64> {
        let mut pairs = arguments
            .split_whitespace()
            .filter_map(|a| a.split_once('='));
        let (_, value) = pairs.find(|(n, _)| *n == name)?;
        Some(
            value
                .parse()
                .unwrap_or_else(|e| panic!("{name}={value}: {e}")),
        )
    };
    let known = ["seconds", "seed", "count", "threads"];
    for word in arguments.split_whitespace() {
        let name = word.split('=').next().unwrap_or(word);
        assert!(known.contains(&name), "{word}: not one of {known:?}");
    }
    let count = argument("count");
    // A count alone has no end but its own.
    let seconds = argument("seconds").unwrap_or(if count.is_some() { 1 << 32 } else { 60 });
    let report = run(
        argument("seed").unwrap_or(SEED),
        count.unwrap_or(u64::MAX),
        Duration::from_secs(seconds),
        argument("threads").unwrap_or(4),
    );
    report.print();
    assert_target_sound();
    assert!(!report.has_differences(), "see above");
}

/// Runs the statements of `count` seeds from `seed` on, or until the time is over.
fn run(seed: u64, count: u64, time: Duration, threads: u64) -> Report {
    let (next, report) = (AtomicU64::new(0), Report::default());
    let deadline = Instant::now() + time;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut pair = Pair::connect();
                while Instant::now() < deadline {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    examine(seed.wrapping_add(n), &mut pair, &report);
                }
            });
        }
    });
    report
}

fn examine(seed: u64, pair: &mut Pair, report: &Report) {
    let statement = generate::statement(seed);
    let modes = [
        Mode::Simple,
        Mode::ExtendedText,
        Mode::ExtendedBinary,
        Mode::Prepared,
        Mode::Simple,
        Mode::Portions,
        Mode::Block,
        Mode::Prepared,
    ];
    let mode = modes[usize::try_from(seed % 8).expect("below 8")];
    let start = Instant::now();
    let outcome = pair.run(&statement, mode);
    report.count(seed, &outcome, start.elapsed());
    if report.wants_example(&outcome) {
        let keeps = |s: &ast::Statement| pair.run(s, mode).resembles(&outcome);
        let small = shrink::shrink(statement.clone(), SHRINK_TIME, keeps);
        let last = pair.run(&small, mode);
        let last = if last.resembles(&outcome) {
            &last
        } else {
            &outcome
        };
        report.example(seed, mode, &statement, &small, last);
    }
}
