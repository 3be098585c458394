//! What a run has found: counts by outcome, and an example of each kind of failure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::ast::Statement;
use super::compare::{Kind, Mode, Outcome};

/// Differences beyond these are counted, not made small: that takes a while each.
const EXAMPLES_MAX: usize = 20;

/// A line about the progress this often.
const PROGRESS: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Report(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    statements: u64,
    /// Answered by rows on both sides.
    rows: u64,
    /// By SQLSTATE, with the first seed and message.
    errors: BTreeMap<String, (u64, u64, String)>,
    refused: BTreeMap<String, u64>,
    slow: BTreeMap<&'static str, Vec<u64>>,
    different: Vec<u64>,
    lost: u64,
    /// Refusals that have an example.
    shown: HashSet<String>,
    examples: Vec<String>,
    slowest: (Duration, u64),
    said: Option<Instant>,
}

impl Report {
    pub fn count(&self, seed: u64, outcome: &Outcome, time: Duration) {
        let mut counts = self.0.lock().expect("no panic while held");
        counts.statements += 1;
        counts.slowest = counts.slowest.max((time, seed));
        match outcome {
            Outcome::Same(None) => counts.rows += 1,
            Outcome::Same(Some(message)) => {
                let state = message.split(' ').next().unwrap_or_default();
                let first = (0, seed, message.clone());
                let entry = counts.errors.entry(state.to_string());
                entry.or_insert(first).0 += 1;
            }
            Outcome::Refused(message) => {
                *counts.refused.entry(message.clone()).or_default() += 1;
            }
            Outcome::Slow(side) => counts.slow.entry(side).or_default().push(seed),
            Outcome::Different(kind, _) => {
                counts.different.push(seed);
                counts.lost += u64::from(*kind == Kind::Lost);
            }
        }
        let said = *counts.said.get_or_insert_with(Instant::now);
        if said.elapsed() > PROGRESS {
            counts.said = Some(Instant::now());
            eprintln!("{}", counts.summary());
        }
    }

    /// Differences, up to a number, and the first refusal of each reason deserve a small example.
    pub fn wants_example(&self, outcome: &Outcome) -> bool {
        let mut counts = self.0.lock().expect("no panic while held");
        match outcome {
            Outcome::Same(_) | Outcome::Slow(_) => false,
            Outcome::Refused(message) => counts.shown.insert(message.clone()),
            Outcome::Different(..) => counts.different.len() <= EXAMPLES_MAX,
        }
    }

    pub fn example(
        &self,
        seed: u64,
        mode: Mode,
        whole: &Statement,
        small: &Statement,
        outcome: &Outcome,
    ) {
        let text = match outcome {
            Outcome::Different(kind, message) => format!("DIFFERENT {kind:?}: {message}"),
            other => format!("{other:?}"),
        };
        let inline = mode == Mode::Simple;
        let values: Vec<_> = small.parameters.iter().map(|p| p.value).collect();
        let values = match inline || values.is_empty() {
            true => String::new(),
            false => format!("\n  parameters {values:?}"),
        };
        let (whole, small) = (whole.sql(inline), small.sql(inline));
        let example =
            format!("--- seed {seed}, {mode:?}\n{whole}\n  small:\n{small}{values}\n  => {text}");
        eprintln!("{example}");
        let mut counts = self.0.lock().expect("no panic while held");
        counts.examples.push(example);
    }

    pub fn statements(&self) -> u64 {
        self.0.lock().expect("no panic while held").statements
    }

    pub fn refused(&self) -> u64 {
        let counts = self.0.lock().expect("no panic while held");
        counts.refused.values().sum()
    }

    pub fn has_differences(&self) -> bool {
        let counts = self.0.lock().expect("no panic while held");
        !counts.different.is_empty()
    }

    /// Everything that was found.
    pub fn print(&self) {
        let counts = self.0.lock().expect("no panic while held");
        println!("{}", counts.summary());
        for (count, seed, message) in counts.errors.values() {
            println!("  the same error {count} times: {message} (seed {seed})");
        }
        for (message, count) in &counts.refused {
            println!("  refused {count} times: {message}");
        }
        for (side, seeds) in &counts.slow {
            println!("  too slow on {side}: {seeds:?}");
        }
        println!(
            "  slowest: {:?} (seed {})",
            counts.slowest.0, counts.slowest.1
        );
        if !counts.different.is_empty() {
            println!("  different: seeds {:?}", counts.different);
        }
        for example in &counts.examples {
            println!("{example}");
        }
    }
}

impl Counts {
    fn summary(&self) -> String {
        let errors: u64 = self.errors.values().map(|e| e.0).sum();
        let refused: u64 = self.refused.values().sum();
        let slow: usize = self.slow.values().map(Vec::len).sum();
        format!(
            "{} statements: {} with the same rows, {errors} with the same error, {refused} refused, {slow} too slow, \
             {} different ({} lost sessions)",
            self.statements,
            self.rows,
            self.different.len(),
            self.lost
        )
    }
}
