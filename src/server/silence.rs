//! How long shards may say nothing while a statement runs (`server.shard_silence_timeout`).

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::Sleep;

/// A timer that runs only while a statement waits for its shards, and starts again whenever one of them sent something.
pub struct Silence {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    heard: u64,
}

impl Silence {
    /// A `limit` of zero never ends.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            timer: None,
            heard: 0,
        }
    }

    /// Something came, or it is not the shards that are waited for.
    pub fn end(&mut self) {
        self.timer = None;
    }

    /// True when nothing has come for the whole limit; `heard` counts what shards have sent and is asked only then. Otherwise the
    /// task is woken when it is time to look again.
    pub fn is_over(&mut self, heard: impl FnOnce() -> u64, cx: &mut Context<'_>) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        let limit = self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        let heard = heard();
        if heard == self.heard {
            return true;
        }
        self.heard = heard;
        let mut again = Box::pin(tokio::time::sleep(limit));
        // Polled once, so that this task is woken by it.
        let over = again.as_mut().poll(cx).is_ready();
        self.timer = Some(again);
        over
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn wait(silence: &mut Silence, mut heard: impl FnMut() -> u64) {
        poll_fn(|cx| match silence.is_over(&mut heard, cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    #[tokio::test]
    async fn ends_only_after_a_whole_limit_without_a_byte() {
        let mut silence = Silence::new(Duration::from_millis(5));
        let mut asked = 0;
        wait(&mut silence, || {
            asked += 1;
            asked.min(3)
        })
        .await;
        assert_eq!(asked, 4);
    }
}
