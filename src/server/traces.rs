//! What a session tells of its statements as traces (feature `otlp`).

use std::time::Instant;

use super::session::Session;
use super::watch::Running;
use crate::executor::{Execution, ShardStatistics, Step};
use crate::plan::ShardId;
use crate::sql::{behind_comments, traceparent, without_literals};
use crate::telemetry::traces::{self, MERGE, Part, Traced};

/// Longer words are none that begins a statement.
const WORD_MAX: usize = 16;

/// What is noted of the statement in hand.
#[derive(Default)]
pub struct Noted {
    planned: Option<(Instant, Instant)>,
    statistics: Vec<ShardStatistics>,
    /// Rows and bytes of the one shard on the short way.
    direct: (u64, u64),
    error: Option<String>,
    /// The trace that the message in hand belongs to: the parser leaves comments before a statement out of its text.
    traceparent: Option<String>,
    /// What fails now is another one.
    is_done: bool,
}

impl Session {
    /// The text of the message in hand.
    pub(super) fn note_text(&mut self, text: &str) {
        if traces::is_on() {
            self.noted.traceparent = traceparent(text).map(str::to_owned);
        }
    }

    /// A statement of the message in hand has been planned.
    pub(super) fn note_planned(&mut self, since: Instant) {
        if traces::is_on() {
            self.noted.planned = Some((since, Instant::now()));
        }
    }

    pub(super) fn note_statistics(&mut self, execution: &Execution) {
        if traces::is_on() {
            self.noted.statistics = execution.statistics();
        }
    }

    pub(super) fn note_direct(&mut self, rows: u64, bytes: u64) {
        self.noted.direct = (rows, bytes);
    }

    /// It has failed.
    pub(super) fn note_failure(&mut self, sqlstate: &str) {
        if traces::is_on() && !self.noted.is_done {
            self.noted.error = Some(sqlstate.to_owned());
        }
    }

    /// It has been answered; the next one may be planned before its end is counted.
    pub(super) fn note_done(&mut self) {
        self.noted.is_done = true;
    }

    /// The message is answered: what was planned for it alone is no part of the next.
    pub(super) fn end_note(&mut self) {
        self.noted.planned = None;
        self.noted.traceparent = None;
    }

    /// Makes the spans of a statement that has ended just now.
    pub(super) fn trace(&mut self, running: &Running) {
        if !traces::is_on() {
            return;
        }
        let mut noted = std::mem::take(&mut self.noted);
        // The next one's.
        self.noted.planned = noted.planned.take_if(|(begun, _)| *begun > running.since);
        self.noted.traceparent.clone_from(&noted.traceparent);
        let entry = &self.registration.entry;
        let Some(statement) = entry.activity.statement() else {
            return;
        };
        let sql = &*statement.sql;
        let ran = (running.since, Instant::now());
        let traced = Traced {
            traceparent: traceparent(sql).or(noted.traceparent.as_deref()),
            name: first_word(sql),
            kind: running.kind.label(),
            user: &entry.user,
            ran,
            planned: noted.planned,
            error: noted.error,
        };
        let names = &self.shared.shard_names;
        let shard_name = |shard: ShardId| names[usize::from(shard.0)].to_string();
        let parts = || match (noted.statistics.is_empty(), running.shard) {
            (true, Some(shard)) => {
                let name = shard_name(shard);
                vec![Part {
                    name: format!("shard {name}"),
                    shard: name,
                    stage: None,
                    ran,
                    rows: noted.direct.0,
                    bytes: noted.direct.1,
                }]
            }
            _ => {
                let all = noted.statistics.iter();
                all.filter_map(|s| part(s, shard_name(s.shard), ran.1))
                    .collect()
            }
        };
        traces::record(&traced, || without_literals(sql), parts);
    }
}

fn part(s: &ShardStatistics, shard: String, now: Instant) -> Option<Part> {
    let started = s.started?;
    let (name, stage) = match s.step {
        Step::Merge => (MERGE.to_owned(), None),
        Step::Rows => (format!("shard {shard}"), None),
        Step::Stage(n) => (format!("shard {shard}"), Some(n + 1)),
    };
    Some(Part {
        name,
        shard,
        stage,
        ran: (started, s.completed.or(s.last_row).unwrap_or(now)),
        rows: s.rows,
        bytes: s.bytes,
    })
}

/// The word that says what a statement does, in capitals.
fn first_word(sql: &str) -> String {
    let text = behind_comments(sql).trim_start_matches(|c: char| c == '(' || c.is_whitespace());
    let end = text.find(|c: char| !c.is_ascii_alphabetic());
    match &text[..end.unwrap_or(text.len())] {
        word if (1..=WORD_MAX).contains(&word.len()) => word.to_ascii_uppercase(),
        _ => "statement".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_named_by_the_first_word_only() {
        for (sql, name) in [
            ("select 1", "SELECT"),
            ("/* a */ -- b\n ((table x))", "TABLE"),
            ("'secret'", "statement"),
            ("\"Secret\"", "statement"),
            ("", "statement"),
            ("averyveryverylongword", "statement"),
        ] {
            assert_eq!(first_word(sql), name, "{sql}");
        }
    }
}
