//! What was done per second lately: SHOW STATS has averages beside totals.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::admin::Served;
use crate::metrics;

/// Averages are those of the last whole period, as poolers have it.
pub(in crate::admin) const PERIOD: Duration = Duration::from_secs(60);

/// All that SHOW STATS counts, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sample {
    pub assignments: f64,
    pub transactions: f64,
    pub queries: f64,
    pub received: f64,
    pub sent: f64,
    pub transaction_microseconds: f64,
    pub query_microseconds: f64,
    pub wait_microseconds: f64,
    pub client_parses: f64,
    pub server_parses: f64,
    pub binds: f64,
}

impl Sample {
    pub fn now(served: &Served) -> Self {
        let totals = served.registry.totals();
        let metrics = metrics::global();
        let config = served.config();
        let shards = config.shards.iter();
        let shards: Vec<_> = shards.map(|s| metrics.shard(&s.name)).collect();
        let waits = shards.iter().map(|s| s.wait_seconds.get_sample_sum());
        let lent = shards.iter().map(|s| s.wait_seconds.get_sample_count());
        let parses = shards.iter().map(|s| s.parses.get());
        Self {
            assignments: lent.sum::<u64>() as f64,
            transactions: totals.transactions as f64,
            queries: totals.queries as f64,
            received: totals.received as f64,
            sent: totals.sent as f64,
            transaction_microseconds: totals.transaction_nanoseconds as f64 / 1e3,
            query_microseconds: metrics.query_seconds_total() * 1e6,
            wait_microseconds: waits.sum::<f64>() * 1e6,
            client_parses: totals.parses as f64,
            server_parses: parses.sum::<u64>() as f64,
            binds: totals.binds as f64,
        }
    }
}

/// Two samples a period apart.
#[derive(Debug)]
pub(super) struct Averages(Mutex<Window>);

#[derive(Debug, Clone, Copy)]
struct Window {
    from: Sample,
    to: Sample,
    seconds: f64,
    taken: Instant,
    /// A whole period is over.
    full: bool,
}

impl Averages {
    pub fn new() -> Self {
        Self(Mutex::new(Window {
            from: Sample::default(),
            to: Sample::default(),
            seconds: 0.0,
            taken: Instant::now(),
            full: false,
        }))
    }

    /// A period is over.
    pub fn turn(&self, sample: Sample) {
        let mut window = self.0.lock();
        let now = Instant::now();
        *window = Window {
            from: window.to,
            to: sample,
            seconds: (now - window.taken).as_secs_f64(),
            taken: now,
            full: true,
        };
    }

    /// What was done in the last whole period, and how long that was; before its end, since the start. `now` is a sample of now.
    pub fn last(&self, now: Sample) -> (Change, f64) {
        let window = *self.0.lock();
        match window.full {
            true => (Change(window.from, window.to), window.seconds),
            false => (Change(window.to, now), window.taken.elapsed().as_secs_f64()),
        }
    }
}

/// From one sample to a later one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change(Sample, Sample);

impl Change {
    pub fn of(&self, count: fn(&Sample) -> f64) -> f64 {
        (count(&self.1) - count(&self.0)).max(0.0)
    }

    /// How much of `amount` there was for each of `count`.
    pub fn each(&self, amount: fn(&Sample) -> f64, count: fn(&Sample) -> f64) -> f64 {
        match self.of(count) {
            0.0 => 0.0,
            count => self.of(amount) / count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(queries: f64) -> Sample {
        Sample {
            queries,
            query_microseconds: queries * 30.0,
            ..Sample::default()
        }
    }

    #[test]
    fn averages_are_those_of_the_last_period() {
        let averages = Averages::new();
        let queries = |now| averages.last(now).0.of(|s| s.queries);
        assert_eq!(queries(sample(5.0)), 5.0);
        averages.turn(sample(10.0));
        averages.turn(sample(30.0));
        // Whatever has come since.
        assert_eq!(queries(sample(1000.0)), 20.0);
        let (change, _) = averages.last(sample(1000.0));
        assert_eq!(change.each(|s| s.query_microseconds, |s| s.queries), 30.0);
        assert_eq!(change.each(|s| s.sent, |s| s.transactions), 0.0);
    }
}
