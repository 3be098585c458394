//! Progress on the terminal: a bar where there is one, else a line for each quarter of the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// How far one part of the work is; shared by its workers.
pub struct Progress {
    what: &'static str,
    total: u64,
    done: AtomicU64,
    started: Instant,
    bar: ProgressBar,
}

impl Progress {
    /// Starts to count towards `total`.
    pub fn new(what: &'static str, total: u64) -> Arc<Self> {
        let bar = ProgressBar::new(total).with_message(what);
        let style =
            ProgressStyle::with_template("{msg:24} {bar:32} {human_pos:>10} of {human_len}  {eta}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Arc::new(Self {
            what,
            total,
            done: AtomicU64::new(0),
            started: Instant::now(),
            bar,
        })
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        let before = self.done.fetch_add(n, Ordering::Relaxed);
        self.bar.inc(n);
        let quarter = |done: u64| done * 4 / self.total.max(1);
        let now = quarter(before + n);
        // indicatif shows nothing without a terminal.
        if self.bar.is_hidden() && now > quarter(before) && now < 4 {
            eprintln!("{}: {} of {}", self.what, before + n, self.total);
        }
    }

    /// Replaces the bar by a line that stays.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
        eprintln!(
            "{}: {} in {:.1} s",
            self.what,
            self.total,
            self.started.elapsed().as_secs_f64()
        );
    }
}
