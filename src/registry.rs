//! Live sessions: who is connected, and how a CancelRequest finds its session.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::Context;
use std::time::Instant;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// What the rest of the process may know of one session.
#[derive(Debug)]
pub struct SessionEntry {
    /// The process id told to the client in BackendKeyData.
    pub pid: i32,
    secret: i32,
    /// The role it logged in as.
    pub user: String,
    /// The client's address, as the log shows it.
    pub peer: String,
    /// When it had logged in.
    pub connected: Instant,
    /// What it has been told and not yet heard.
    signals: AtomicU8,
    /// Its task, while that waits.
    waiting: AtomicWaker,
}

/// A CancelRequest came.
const CANCEL: u8 = 1;
/// The session is to end, whatever it does.
const END: u8 = 2;

impl SessionEntry {
    /// True when a cancel has come; it has been heard then. Also drops one that came while nothing ran.
    pub fn take_cancel(&self) -> bool {
        // Nearly always there is none, and a load costs less than a change.
        self.signals.load(Ordering::Acquire) & CANCEL != 0
            && self.signals.fetch_and(!CANCEL, Ordering::AcqRel) & CANCEL != 0
    }

    /// True when a cancel has come; else the task is woken by the next signal.
    pub fn hears_cancel(&self, cx: &Context<'_>) -> bool {
        self.waiting.register(cx.waker());
        self.take_cancel()
    }

    /// True when the session is to end; else the task is woken by the next signal.
    pub fn hears_end(&self, cx: &Context<'_>) -> bool {
        self.waiting.register(cx.waker());
        self.signals.load(Ordering::Acquire) & END != 0
    }

    /// Ends the session even in the middle of a transaction.
    pub fn end(&self) {
        self.signal(END);
    }

    /// Has the session look around: the process shuts down.
    pub fn wake(&self) {
        self.waiting.wake();
    }

    fn signal(&self, bit: u8) {
        self.signals.fetch_or(bit, Ordering::AcqRel);
        self.waiting.wake();
    }
}

/// All live sessions. Bounded by `server.max_clients`.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: Mutex<HashMap<i32, Arc<SessionEntry>>>,
    clients: AtomicUsize,
}

/// Holds a client's place among `max_clients`; given up when dropped.
pub struct Place {
    registry: Arc<Registry>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A session's entry, removed when dropped.
pub struct Registration {
    registry: Arc<Registry>,
    /// What the registry shows of it.
    pub entry: Arc<SessionEntry>,
}

impl Registration {
    /// The secret that BackendKeyData carries.
    pub fn secret(&self) -> i32 {
        self.entry.secret
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.sessions.lock().remove(&self.entry.pid);
    }
}

impl Registry {
    /// Takes a place, or `None` when `max` clients are there already.
    pub fn enter(self: &Arc<Self>, max: usize) -> Option<Place> {
        let before = self.clients.fetch_add(1, Ordering::AcqRel);
        if before >= max {
            self.clients.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Place {
            registry: self.clone(),
        })
    }

    /// Connections being served, those that have not logged in yet included.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Acquire)
    }

    /// Adds a logged-in session under a process id and secret nobody can guess.
    pub fn register(self: &Arc<Self>, user: String, peer: String) -> Registration {
        let mut sessions = self.sessions.lock();
        let pid = loop {
            let pid = rand::random_range(1..i32::MAX);
            if !sessions.contains_key(&pid) {
                break pid;
            }
        };
        let entry = Arc::new(SessionEntry {
            pid,
            secret: rand::random(),
            user,
            peer,
            connected: Instant::now(),
            signals: AtomicU8::new(0),
            waiting: AtomicWaker::new(),
        });
        sessions.insert(pid, entry.clone());
        Registration {
            registry: self.clone(),
            entry,
        }
    }

    /// Wakes the session with this process id and secret; false when there is none.
    pub fn cancel(&self, pid: i32, secret: i32) -> bool {
        let found = self
            .sessions
            .lock()
            .get(&pid)
            .filter(|s| s.secret == secret)
            .cloned();
        found.is_some_and(|s| {
            s.signal(CANCEL);
            true
        })
    }

    /// Every live session, for the console and for shutdown.
    pub fn sessions(&self) -> Vec<Arc<SessionEntry>> {
        self.sessions.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_secret_cancels_nobody() {
        let registry = Arc::new(Registry::default());
        let one = registry.register("app".into(), "peer".into());
        assert!(!registry.cancel(one.entry.pid, one.secret().wrapping_add(1)));
        assert!(registry.cancel(one.entry.pid, one.secret()));
        assert!(one.entry.take_cancel());
        assert!(!one.entry.take_cancel());
        let pid = one.entry.pid;
        drop(one);
        assert!(!registry.cancel(pid, 0));
    }

    #[test]
    fn places_are_given_back() {
        let registry = Arc::new(Registry::default());
        let first = registry.enter(1);
        assert!(first.is_some());
        assert!(registry.enter(1).is_none());
        drop(first);
        assert!(registry.enter(1).is_some());
    }
}
