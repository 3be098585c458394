//! How long a client may say nothing between two transactions (`server.client_idle_timeout`, idle_session_timeout).

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::session::Session;

/// The timer of a session's waits. It is set once, and again only when it has run off too early: a wait that begins and ends
/// touches no timer.
#[derive(Default)]
pub struct Idle {
    timer: Option<Pin<Box<Sleep>>>,
    since: Option<Instant>,
}

impl Idle {
    /// A wait begins.
    pub fn begin(&mut self) {
        self.since = None;
    }

    /// True when the wait has taken as long as it may; else the task is woken when it is time to look again. A `limit` of zero
    /// never ends, and may be another each time.
    pub fn is_over(&mut self, limit: Duration, cx: &mut Context<'_>) -> bool {
        if limit.is_zero() {
            self.timer = None;
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let end = since + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= end {
                return true;
            }
            // It was set for a wait before this one.
            timer.as_mut().reset(end);
        }
        false
    }
}

impl Session {
    /// The client's own idle_session_timeout, where it has SET one, or the server's.
    pub(super) fn idle_limit(&self) -> Duration {
        let own = match self.settings.mark() {
            0 => None,
            _ => self.settings.get("idle_session_timeout").and_then(printed),
        };
        own.unwrap_or(self.shared.config().server.client_idle_timeout)
    }
}

/// A time as `current_setting` prints it, or a bare number of milliseconds.
fn printed(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds: u64 = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    async fn waits(idle: &mut Idle, limit: Duration) {
        poll_fn(|cx| match idle.is_over(limit, cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    #[tokio::test]
    async fn a_wait_ends_with_its_own_limit_whatever_the_timer_was_set_for() {
        let limit = Duration::from_millis(100);
        let mut idle = Idle::default();
        let looks = |idle: &mut Idle, limit| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            idle.is_over(limit, &mut cx)
        };
        assert!(!looks(&mut idle, limit));
        tokio::time::sleep(limit * 2).await;
        // Another message came meanwhile: the timer has run off for a wait of the past.
        idle.begin();
        let begun = Instant::now();
        waits(&mut idle, limit).await;
        assert!(begun.elapsed() >= limit, "{:?}", begun.elapsed());
        // A shorter limit counts from the same beginning.
        idle.begin();
        let begun = Instant::now();
        assert!(!looks(&mut idle, Duration::from_secs(600)));
        waits(&mut idle, limit).await;
        assert!(begun.elapsed() >= limit, "{:?}", begun.elapsed());
        assert!(!looks(&mut idle, Duration::ZERO));
    }

    #[test]
    fn reads_what_postgresql_prints() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(printed("0"), seconds(0));
        assert_eq!(printed("90s"), seconds(90));
        assert_eq!(printed("2min"), seconds(120));
        assert_eq!(printed("1500ms"), Some(Duration::from_millis(1500)));
        assert_eq!(printed("soon"), None);
    }
}
