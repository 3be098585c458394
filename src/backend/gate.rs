//! What an operator does to a shard as a whole: PAUSE holds new statements back, RESUME lets them go.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// No version of the catalog has the shard.
const NEVER: u64 = u64::MAX;

/// In front of all pools of one shard. Open, it costs a load.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: AtomicBool,
    /// Closed for those as well who are in the middle of something on other shards.
    shut: AtomicBool,
    /// The first version of the catalog that the shard is part of; 0: of all.
    since: AtomicU64,
    opened: Notify,
    /// Statements that wait for it to open.
    held: AtomicUsize,
    queue: Mutex<Queue>,
}

/// Statements that wait, here or for a connection. Bounded by the number of clients.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waits: BTreeMap<u64, Wait>,
}

/// A statement that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wait {
    /// Whose pool it is of.
    pub user: Arc<str>,
    /// It waits for a merge session.
    pub merge: bool,
    pub since: Instant,
}

/// A statement's place in the queue, given up when dropped.
pub(super) struct Queued<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.gate.queue.lock().waits.remove(&self.number);
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
        self.set_shut(false);
    }

    #[inline]
    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    pub(super) fn set_shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::Release);
        self.opened.notify_waiters();
    }

    /// Nothing is known of the shard: nobody is let through.
    pub(super) fn bar(&self) {
        self.since.store(NEVER, Ordering::Release);
    }

    /// The shard is part of the catalog from `version` on.
    pub(super) fn admit_from(&self, version: u64) {
        if self.is_barred() {
            self.since.store(version, Ordering::Release);
        }
    }

    #[inline]
    pub(super) fn is_barred(&self) -> bool {
        self.since.load(Ordering::Acquire) == NEVER
    }

    /// True for what was planned by a catalog that the shard is part of.
    #[inline]
    pub(super) fn admits(&self, version: u64) -> bool {
        self.since.load(Ordering::Acquire) <= version
    }

    /// True where it lets nobody through, or nobody but who `holds` connections to other shards.
    #[inline]
    pub(super) fn stops(&self, holds: bool) -> bool {
        self.is_closed() && (!holds || self.is_shut())
    }

    /// Waits until it lets through. Dropping the future gives the wait up.
    pub(super) async fn pass(&self, holds: bool, user: impl FnOnce() -> Arc<str>) {
        if !self.stops(holds) {
            return;
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        let _held = Held(&self.held);
        let _queued = self.queue(user(), false);
        loop {
            let mut opened = pin!(self.opened.notified());
            // From here on it is woken, not only from its first poll on.
            opened.as_mut().enable();
            if !self.stops(holds) {
                return;
            }
            opened.await;
        }
    }

    /// Statements that it holds back.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn queue(&self, user: Arc<str>, merge: bool) -> Queued<'_> {
        let mut queue = self.queue.lock();
        let number = queue.next;
        queue.next += 1;
        let since = Instant::now();
        queue.waits.insert(number, Wait { user, merge, since });
        Queued { gate: self, number }
    }

    /// Those that wait, the first one first.
    pub(super) fn waits(&self) -> Vec<Wait> {
        self.queue.lock().waits.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn app() -> Arc<str> {
        "app".into()
    }

    #[tokio::test]
    async fn a_closed_gate_holds_until_it_opens() {
        let gate = Arc::new(Gate::default());
        gate.pass(false, app).await;
        gate.close();
        // It is on its way.
        gate.pass(true, app).await;
        gate.set_shut(true);
        assert!(gate.stops(true));
        let passing = tokio::spawn({
            let gate = gate.clone();
            async move { gate.pass(true, app).await }
        });
        while gate.held() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!passing.is_finished());
        assert_eq!(gate.waits()[0].user, app());
        gate.open();
        passing.await.unwrap();
        assert_eq!((gate.held(), gate.waits()), (0, vec![]));
    }

    #[test]
    fn a_plan_from_before_the_shard_was_known_is_not_let_through() {
        let gate = Gate::default();
        gate.admit_from(3);
        assert!(gate.admits(1), "it was known from the start");
        gate.bar();
        assert!(gate.is_barred() && !gate.admits(1));
        gate.admit_from(2);
        gate.admit_from(3);
        assert!(!gate.is_barred() && !gate.admits(1) && gate.admits(2));
    }

    #[tokio::test]
    async fn who_gives_up_is_not_counted_any_more() {
        let gate = Gate::default();
        gate.close();
        let passed = tokio::time::timeout(Duration::from_millis(1), gate.pass(false, app));
        assert!(passed.await.is_err());
        assert_eq!((gate.held(), gate.waits()), (0, vec![]));
    }
}
