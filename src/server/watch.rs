//! What a session tells of its statements: to the metrics, to the registry for whoever looks, to the log where they are slow or refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::session::Session;
use super::transaction::Block;
use crate::executor::{Execution, ShardStatistics, Step};
use crate::metrics::QueryKind;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::registry::refusals::{self, Refused};
use crate::registry::{Outline, PLANNING, Progress, ShardProgress, State};
use crate::sql::without_literals;
use crate::telemetry;

/// How a statement is answered, and since when.
#[derive(Debug)]
pub struct Running {
    pub(super) kind: QueryKind,
    pub(super) since: Instant,
    has_row: bool,
    /// See [`Session::count_row_at_end`].
    row_at_end: bool,
    text_bytes: usize,
    /// The one shard it runs on.
    pub(super) shard: Option<ShardId>,
}

impl Session {
    /// Notes how a statement is answered; the one before it has ended.
    pub fn count(&mut self, kind: QueryKind, sql: &Arc<str>) {
        self.count_since(kind, Instant::now(), sql, None);
    }

    /// The same, of one that began a moment ago, and of which shard runs it.
    #[inline]
    pub fn count_since(
        &mut self,
        kind: QueryKind,
        since: Instant,
        sql: &Arc<str>,
        shard: Option<ShardId>,
    ) {
        self.end_count();
        self.shared.metrics.query(kind);
        self.registration
            .entry
            .activity
            .begin(kind as u8, since, sql);
        self.transaction_since.get_or_insert(since);
        self.running = Some(Running {
            kind,
            since,
            has_row: false,
            row_at_end: false,
            text_bytes: sql.len(),
            shard,
        });
    }

    /// Shows the text of a statement before it is known how it runs. Not done for those on the short way.
    pub fn show(&mut self, kind: Option<QueryKind>, sql: &Arc<str>) {
        self.shows_text = true;
        let kind = kind.map_or(PLANNING, |kind| kind as u8);
        let activity = &self.registration.entry.activity;
        activity.show(kind, Instant::now(), sql);
    }

    /// The statement in hand ends just now, and it has had a row: the first one came together with the last.
    pub fn count_row_at_end(&mut self, has_row: bool) {
        if let Some(running) = &mut self.running {
            running.row_at_end = has_row && !running.has_row;
        }
    }

    /// Notes that the statement in hand has its first row.
    pub fn count_first_row(&mut self) {
        if let Some(running) = &mut self.running
            && !std::mem::replace(&mut running.has_row, true)
        {
            let seconds = running.since.elapsed().as_secs_f64();
            self.shared.metrics.first_row_seconds.observe(seconds);
        }
    }

    /// The statement in hand has ended; since when it ran and for how long, if there was one.
    pub(super) fn end_count(&mut self) -> Option<(Instant, Duration)> {
        let running = self.running.take()?;
        let duration = running.since.elapsed();
        let seconds = duration.as_secs_f64();
        let metrics = self.shared.metrics;
        metrics.query_seconds(running.kind, seconds);
        if running.row_at_end {
            metrics.first_row_seconds.observe(seconds);
        }
        if telemetry::global().is_slow(seconds) {
            self.log_slow(&running, seconds);
        }
        #[cfg(feature = "otlp")]
        self.trace(&running);
        let activity = &self.registration.entry.activity;
        activity.end(running.text_bytes);
        Some((running.since, duration))
    }

    /// The same, and the transaction that it ran in, where that has ended too.
    pub(super) fn end_count_of_message(&mut self) {
        let ended = self.end_count();
        if self.transaction.block == Block::Idle
            && let Some(since) = self.transaction_since.take()
        {
            let duration = match ended {
                // It was alone.
                Some((begun, duration)) if begun == since => duration,
                _ => since.elapsed(),
            };
            self.registration.entry.activity.end_transaction(duration);
        }
    }

    /// The session stands where the ReadyForQuery tells its client.
    #[inline]
    pub(super) fn show_state(&self) {
        let state = match self.transaction.block {
            Block::Idle => State::Idle,
            Block::Open => State::InTransaction,
            Block::Failed => State::InFailedTransaction,
        };
        self.registration.entry.activity.set_state(state);
    }

    /// Tells whoever looks how far an execution is.
    pub(super) fn tell(&self, rows: u64, execution: &Execution) {
        let shards = progress(execution.statistics());
        let activity = &self.registration.entry.activity;
        let plan = execution
            .plan()
            .map(|plan| plan.clone() as Arc<dyn Outline>);
        activity.tell(Progress { rows, shards }, plan);
    }

    /// The same of a statement on the short way.
    pub(super) fn tell_direct(&self, rows: u64, shard: ShardId) {
        let part = ShardProgress {
            shard: shard.0,
            merge: false,
            first_row: None,
            last: None,
            rows,
            done: false,
        };
        let activity = &self.registration.entry.activity;
        let shards = vec![part];
        activity.tell(Progress { rows, shards }, None);
    }

    /// An execution has run to its end: notes what is unequal between its shards, and keeps their times for the log.
    pub(super) fn note_parts(&mut self, execution: &Execution) {
        #[cfg(feature = "otlp")]
        self.note_statistics(execution);
        let several = execution.shards().len() > 1;
        if !several && telemetry::global().slow_query().is_zero() {
            return;
        }
        let statistics = execution.statistics();
        if several {
            note_skew(&statistics, self.shared.metrics, &self.shared.shard_names);
        }
        self.parts = progress(statistics);
    }

    fn log_slow(&mut self, running: &Running, seconds: f64) {
        self.shared.metrics.slow_queries.inc();
        let parts = std::mem::take(&mut self.parts);
        let entry = &self.registration.entry;
        let name = |shard: u16| &*self.shared.shard_names[usize::from(shard)];
        let parts = match (parts.as_slice(), running.shard) {
            ([], Some(shard)) => format!("{} {:.3}", name(shard.0), seconds * 1e3),
            (parts, _) => {
                let part = |p: &ShardProgress| {
                    let name = if p.merge {
                        "merge session"
                    } else {
                        name(p.shard)
                    };
                    match p.last {
                        Some(last) => format!("{name} {:.3}", last.as_secs_f64() * 1e3),
                        None => format!("{name} -"),
                    }
                };
                parts.iter().map(part).collect::<Vec<_>>().join(", ")
            }
        };
        let statement = entry.activity.statement();
        tracing::info!(
            target: "pgbraid::slow_query",
            user = %entry.user,
            pid = entry.pid,
            plan = running.kind.label(),
            milliseconds = (seconds * 1e6).round() / 1e3,
            shards_milliseconds = parts,
            statement = statement.map(|s| without_literals(&s.sql)).unwrap_or_default(),
            "slow statement"
        );
    }

    /// Counts an error of ours that refuses a statement, keeps it for the live page, and logs it where that is asked for.
    pub(super) fn note_refusal(&mut self, error: &ServerError) {
        // A server's own 0A000 is none of ours.
        let Some(reason) = error.reason() else {
            return;
        };
        let message = error.message();
        self.shared.metrics.refused(reason);
        let is_counted = self
            .running
            .as_ref()
            .is_some_and(|r| r.kind == QueryKind::Refused);
        if !is_counted {
            // Before it was planned, by the session's own rules.
            self.shared.metrics.query(QueryKind::Refused);
        }
        let entry = &self.registration.entry;
        let statement = entry.activity.statement().filter(|_| self.shows_text);
        let statement = statement.map(|s| without_literals(&s.sql));
        let statement = statement.unwrap_or_default();
        let now = Instant::now();
        refusals::note(Refused {
            reason: reason.label(),
            message: without_values(&message),
            hint: error.field(b'H').unwrap_or_default().into_owned(),
            statement: statement.clone(),
            user: entry.user.clone(),
            count: 1,
            first: now,
            last: now,
        });
        let Some(level) = telemetry::global().refusals() else {
            return;
        };
        macro_rules! refused {
            ($level:expr) => {
                tracing::event!(
                    target: "pgbraid::refused",
                    $level,
                    user = %entry.user,
                    pid = entry.pid,
                    reason = reason.label(),
                    why = message,
                    statement,
                    "statement refused"
                )
            };
        }
        // The level of an event is part of the program.
        match level {
            tracing::Level::ERROR => refused!(tracing::Level::ERROR),
            tracing::Level::WARN => refused!(tracing::Level::WARN),
            tracing::Level::INFO => refused!(tracing::Level::INFO),
            tracing::Level::DEBUG => refused!(tracing::Level::DEBUG),
            tracing::Level::TRACE => refused!(tracing::Level::TRACE),
        }
    }
}

/// A message without the values of settings that it names: `DateStyle = "…"`.
fn without_values(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(" = \"") {
        out.push_str(before);
        out.push_str(" = \"…\"");
        // A value may hold a quote; what stands behind the last one does not belong to any.
        rest = after.rsplit_once('"').map_or("", |(_, behind)| behind);
    }
    out.push_str(rest);
    out
}

fn progress(statistics: Vec<ShardStatistics>) -> Vec<ShardProgress> {
    statistics
        .into_iter()
        .map(|s| {
            let since_start = |at: Instant| s.started.map(|started| at - started);
            ShardProgress {
                shard: s.shard.0,
                merge: s.step == Step::Merge,
                first_row: s.first_row.and_then(since_start),
                last: s.completed.or(s.last_row).and_then(since_start),
                rows: s.rows,
                done: s.completed.is_some(),
            }
        })
        .collect()
}

/// How much longer the slowest shard took than the median one. A statement that was stopped early says nothing of it.
fn note_skew(
    statistics: &[ShardStatistics],
    metrics: &crate::metrics::Metrics,
    names: &[Arc<str>],
) {
    let steps = statistics.iter().filter(|s| s.step != Step::Merge);
    let mut times = Vec::with_capacity(statistics.len());
    for s in steps {
        let (Some(started), Some(completed)) = (s.started, s.completed) else {
            return;
        };
        times.push(((completed - started).as_secs_f64(), s.shard));
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let median = times.get(times.len().saturating_sub(1) / 2);
    let (Some((median, _)), Some((slowest, shard))) = (median, times.last()) else {
        return;
    };
    if *median > 0.0 {
        metrics.skew_ratio.observe(slowest / median);
    }
    metrics.shard(&names[usize::from(shard.0)]).slowest.inc();
}

#[cfg(test)]
mod tests {
    use super::without_values;

    #[test]
    fn values_of_settings_are_not_kept() {
        for (message, kept) in [
            (
                "DateStyle = \"a \" secret\" is not supported here",
                "DateStyle = \"…\" is not supported here",
            ),
            ("x = \"secret", "x = \"…\""),
            ("table \"a\" is not declared", "table \"a\" is not declared"),
        ] {
            assert_eq!(without_values(message), kept);
        }
    }
}
