//! What is logged: the level, the threshold of the slow-query log, the level of refusals. All of it can be changed while pgbraid runs.

#[cfg(feature = "otlp")]
pub mod traces;

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Levels by name; a refusal's may be none of them.
const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];
const OFF: u8 = u8::MAX;
/// Where no statement is slow.
const NEVER: u64 = u64::MAX;

/// One set for the process, as there is one log.
#[derive(Debug)]
pub struct Telemetry {
    filter: OnceLock<reload::Handle<EnvFilter, tracing_subscriber::Registry>>,
    level: Mutex<String>,
    slow_nanoseconds: AtomicU64,
    refusals: AtomicU8,
}

/// The process' own.
pub fn global() -> &'static Telemetry {
    static GLOBAL: Telemetry = Telemetry {
        filter: OnceLock::new(),
        level: Mutex::new(String::new()),
        slow_nanoseconds: AtomicU64::new(NEVER),
        refusals: AtomicU8::new(OFF),
    };
    &GLOBAL
}

impl Telemetry {
    /// Logs to standard error from now on: one line an event for people, or one JSON object.
    ///
    /// # Errors
    /// A level that is none.
    pub fn start(&self, level: &str, json: bool) -> Result<(), String> {
        let filter = EnvFilter::try_new(level).map_err(|e| e.to_string())?;
        let (filter, handle) = reload::Layer::new(filter);
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        let registry = tracing_subscriber::registry().with(filter);
        let started = match json {
            true => registry.with(lines.json()).try_init(),
            false => registry
                .with(lines.with_ansi(io::stderr().is_terminal()))
                .try_init(),
        };
        started.map_err(|e| e.to_string())?;
        level.clone_into(&mut self.level.lock());
        // Tracing was not there before, so this is the first handle.
        let _ = self.filter.set(handle);
        Ok(())
    }

    /// Another level from now on.
    ///
    /// # Errors
    /// One that is none; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(level).map_err(|e| e.to_string())?;
        if let Some(handle) = self.filter.get() {
            handle.reload(filter).map_err(|e| e.to_string())?;
        }
        level.clone_into(&mut self.level.lock());
        Ok(())
    }

    /// The level in force, as it was given.
    pub fn level(&self) -> String {
        self.level.lock().clone()
    }

    /// Statements that take so long are logged; zero: none.
    pub fn set_slow_query(&self, threshold: Duration) {
        let nanoseconds = match threshold.is_zero() {
            true => NEVER,
            false => u64::try_from(threshold.as_nanos()).unwrap_or(NEVER),
        };
        self.slow_nanoseconds.store(nanoseconds, Ordering::Relaxed);
    }

    /// The threshold; zero where no statement is logged for its time.
    pub fn slow_query(&self) -> Duration {
        match self.slow_nanoseconds.load(Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            nanoseconds => Duration::from_nanos(nanoseconds),
        }
    }

    /// True when a statement that took so long is to be logged.
    #[inline]
    pub fn is_slow(&self, seconds: f64) -> bool {
        seconds * 1e9 >= self.slow_nanoseconds.load(Ordering::Relaxed) as f64
    }

    /// Refusals are logged at this level, by its name; "off": not at all.
    ///
    /// # Errors
    /// A name of no level.
    pub fn set_refusals(&self, name: &str) -> Result<(), String> {
        let is = |(level, _): &(&str, Level)| level.eq_ignore_ascii_case(name);
        let index = match LEVELS.iter().position(is) {
            Some(index) => index as u8,
            None if name.eq_ignore_ascii_case("off") => OFF,
            None => return Err(format!("{name:?} is no level")),
        };
        self.refusals.store(index, Ordering::Relaxed);
        Ok(())
    }

    /// The level of refusals; `None`: they are not logged.
    pub fn refusals(&self) -> Option<Level> {
        let index = self.refusals.load(Ordering::Relaxed);
        LEVELS.get(usize::from(index)).map(|(_, level)| *level)
    }

    /// Its name.
    pub fn refusals_name(&self) -> &'static str {
        let index = self.refusals.load(Ordering::Relaxed);
        LEVELS
            .get(usize::from(index))
            .map_or("off", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowness_has_a_threshold_or_none() {
        let telemetry = global();
        assert!(!telemetry.is_slow(1e6));
        telemetry.set_slow_query(Duration::from_millis(5));
        assert!(telemetry.is_slow(0.005) && !telemetry.is_slow(0.0049));
        assert_eq!(telemetry.slow_query(), Duration::from_millis(5));
        telemetry.set_slow_query(Duration::ZERO);
        assert!(!telemetry.is_slow(1e6));
    }

    #[test]
    fn refusals_have_a_level_or_none() {
        let telemetry = global();
        for (name, level) in [("warn", Some(Level::WARN)), ("off", None)] {
            telemetry.set_refusals(name).unwrap();
            assert_eq!(telemetry.refusals(), level);
            assert_eq!(telemetry.refusals_name(), name);
        }
        assert!(telemetry.set_refusals("loud").is_err());
        assert!(telemetry.set_level("pgbraid=loud").is_err());
    }
}
