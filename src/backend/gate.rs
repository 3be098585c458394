//! What an operator does to a shard as a whole: PAUSE holds new statements back, RESUME lets them go.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// In front of all pools of one shard. Open, it costs a load.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: AtomicBool,
    opened: Notify,
    /// Statements that wait for it to open.
    held: AtomicUsize,
    queue: Mutex<Queue>,
}

/// Since when statements wait, here or for a connection. Bounded by the number of clients.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

/// A statement's place in the queue, given up when dropped.
pub(super) struct Queued<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.gate.queue.lock().since.remove(&self.number);
    }
}

struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn open(&self) {
        self.closed.store(false, Ordering::Release);
        self.opened.notify_waiters();
    }

    /// Waits until it is open. Dropping the future gives the wait up.
    pub(super) async fn pass(&self) {
        if !self.is_closed() {
            return;
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        let _held = Held(&self.held);
        let _queued = self.queue();
        loop {
            let mut opened = pin!(self.opened.notified());
            // From here on it is woken, not only from its first poll on.
            opened.as_mut().enable();
            if !self.is_closed() {
                return;
            }
            opened.await;
        }
    }

    /// Statements that it holds back.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn queue(&self) -> Queued<'_> {
        let mut queue = self.queue.lock();
        let number = queue.next;
        queue.next += 1;
        queue.since.insert(number, Instant::now());
        Queued { gate: self, number }
    }

    /// How long the first of those that wait has waited.
    pub(super) fn longest_wait(&self) -> Duration {
        let queue = self.queue.lock();
        let first = queue.since.first_key_value();
        first.map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_closed_gate_holds_until_it_opens() {
        let gate = Arc::new(Gate::default());
        gate.pass().await;
        gate.close();
        let passing = tokio::spawn({
            let gate = gate.clone();
            async move { gate.pass().await }
        });
        while gate.held() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!passing.is_finished());
        gate.open();
        passing.await.unwrap();
        assert_eq!((gate.held(), gate.longest_wait()), (0, Duration::ZERO));
    }

    #[tokio::test]
    async fn who_gives_up_is_not_counted_any_more() {
        let gate = Gate::default();
        gate.close();
        let passed = tokio::time::timeout(Duration::from_millis(1), gate.pass());
        assert!(passed.await.is_err());
        assert_eq!((gate.held(), gate.longest_wait()), (0, Duration::ZERO));
    }
}
