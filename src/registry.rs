//! Live sessions: who is connected, what each does, and how a CancelRequest finds its session.

mod activity;
pub mod refusals;
pub mod servers;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

pub use activity::{
    Activity, Outline, PLANNING, PlanStep, Progress, ShardProgress, State, Statement, Totals,
    Traffic,
};

/// What the rest of the process may know of one session.
#[derive(Debug)]
pub struct SessionEntry {
    /// The process id told to the client in BackendKeyData.
    pub pid: i32,
    secret: i32,
    /// The role it logged in as.
    pub user: String,
    /// What the client has told of itself, and where it is.
    pub client: Client,
    /// When it had logged in.
    pub connected: Instant,
    /// What it does.
    pub activity: Activity,
    application_name: Mutex<String>,
    /// What it has been told and not yet heard.
    signals: AtomicU8,
    /// Its task, while that waits.
    waiting: AtomicWaker,
}

/// A client as the registry shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The database it is connected to.
    pub database: String,
    /// Its address, as the log shows it.
    pub peer: String,
    /// The address it has connected to.
    pub local: String,
    /// The connection is encrypted.
    pub encrypted: bool,
    /// It is there to look and to steer, not to ask the shards.
    pub console: bool,
}

/// A CancelRequest came.
const CANCEL: u8 = 1;
/// The session is to end, whatever it does.
const END: u8 = 2;
/// Somebody wants to know how far its statement is.
const LOOK: u8 = 4;

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

    /// True when somebody wants to know how far the statement is; to be answered by [`Activity::tell`].
    #[inline]
    pub fn is_looked_at(&self) -> bool {
        self.signals.load(Ordering::Acquire) & LOOK != 0
            && self.signals.fetch_and(!LOOK, Ordering::AcqRel) & LOOK != 0
    }

    /// True when the session is to end.
    pub fn is_ending(&self) -> bool {
        self.signals.load(Ordering::Acquire) & END != 0
    }

    /// Ends the session even in the middle of a statement, which is cancelled.
    pub fn end(&self) {
        self.signal(CANCEL | END);
    }

    /// The application's name, as the client has set it.
    pub fn application_name(&self) -> String {
        self.application_name.lock().clone()
    }

    /// The client calls itself by this name from now on.
    pub fn set_application_name(&self, name: &str) {
        name.clone_into(&mut self.application_name.lock());
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
    sessions: Mutex<Sessions>,
    clients: AtomicUsize,
    /// Woken when a session has ended.
    left: Notify,
}

#[derive(Debug, Default)]
struct Sessions {
    live: HashMap<i32, Arc<SessionEntry>>,
    /// What those have done that are gone.
    gone: Totals,
}

/// Holds a client's place among `max_clients`; given up when dropped.
pub struct Place {
    registry: Arc<Registry>,
    /// It is one of those kept for consoles.
    pub reserved: bool,
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
        let mut sessions = self.registry.sessions.lock();
        sessions.live.remove(&self.entry.pid);
        sessions.gone += self.entry.activity.totals();
        drop(sessions);
        self.registry.left.notify_waiters();
    }
}

impl Registry {
    /// Takes a place, one of the `reserved` ones when `max` clients are there already; `None` when those are taken too.
    pub fn enter(self: &Arc<Self>, max: usize, reserved: usize) -> Option<Place> {
        let before = self.clients.fetch_add(1, Ordering::AcqRel);
        if before >= max.saturating_add(reserved) {
            self.clients.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Place {
            registry: self.clone(),
            reserved: before >= max,
        })
    }

    /// Connections being served, those that have not logged in yet included.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Acquire)
    }

    /// Adds a logged-in session under a process id and secret nobody can guess.
    pub fn register(
        self: &Arc<Self>,
        user: String,
        client: Client,
        traffic: Arc<Traffic>,
    ) -> Registration {
        let mut sessions = self.sessions.lock();
        let pid = loop {
            let pid = rand::random_range(1..i32::MAX);
            if !sessions.live.contains_key(&pid) {
                break pid;
            }
        };
        let entry = Arc::new(SessionEntry {
            pid,
            secret: rand::random(),
            user,
            client,
            connected: Instant::now(),
            activity: Activity::new(traffic),
            application_name: Mutex::default(),
            signals: AtomicU8::new(0),
            waiting: AtomicWaker::new(),
        });
        sessions.live.insert(pid, entry.clone());
        Registration {
            registry: self.clone(),
            entry,
        }
    }

    /// Wakes the session with this process id and secret; false when there is none.
    pub fn cancel(&self, pid: i32, secret: i32) -> bool {
        let found = self.session(pid).filter(|s| s.secret == secret);
        found.is_some_and(|s| {
            s.signal(CANCEL);
            true
        })
    }

    /// Every live session, for the console and for shutdown.
    pub fn sessions(&self) -> Vec<Arc<SessionEntry>> {
        self.sessions.lock().live.values().cloned().collect()
    }

    /// The live session with this process id.
    pub fn session(&self, pid: i32) -> Option<Arc<SessionEntry>> {
        self.sessions.lock().live.get(&pid).cloned()
    }

    /// What all sessions have done since the start, those that are gone included; consoles do not count.
    pub fn totals(&self) -> Totals {
        let sessions = self.sessions.lock();
        let mut totals = sessions.gone;
        for session in sessions.live.values() {
            totals += session.activity.totals();
        }
        totals
    }

    /// Has every session at work tell how far its statement is, and waits for that: for `patience` at most, as one that waits for a
    /// connection tells nothing. What they have told is [`Activity::progress`].
    pub async fn look(&self, patience: Duration) {
        Self::look_at(&self.sessions(), patience).await;
    }

    /// The same, of some sessions.
    pub async fn look_at(sessions: &[Arc<SessionEntry>], patience: Duration) {
        let at_work = sessions.iter();
        let at_work = at_work.filter(|s| s.activity.state() == State::Active);
        let told = at_work.map(|session| async move {
            let mut told = pin!(session.activity.told.notified());
            // From here on it is woken, not only from its first poll on.
            told.as_mut().enable();
            session.signal(LOOK);
            // Who has nothing to tell in time is shown without.
            let _ = timeout(patience, told).await;
        });
        join_all(told).await;
    }

    /// Waits until every session has ended that is no console.
    pub async fn emptied(&self) {
        loop {
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            if self.sessions().iter().all(|s| s.client.console) {
                return;
            }
            left.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(registry: &Arc<Registry>) -> Registration {
        let client = Client {
            database: "app".into(),
            peer: "peer".into(),
            local: "local".into(),
            encrypted: false,
            console: false,
        };
        registry.register("app".into(), client, Arc::default())
    }

    #[tokio::test]
    async fn who_is_looked_at_tells() {
        let registry = Arc::new(Registry::default());
        let one = register(&registry);
        one.entry.activity.set_state(State::Active);
        let entry = one.entry.clone();
        let session = async move {
            std::future::poll_fn(|cx| {
                entry.waiting.register(cx.waker());
                match entry.is_looked_at() {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            })
            .await;
            let progress = Progress {
                rows: 7,
                shards: Vec::new(),
            };
            entry.activity.tell(progress, None);
        };
        tokio::join!(registry.look(Duration::from_secs(60)), session);
        assert_eq!(one.entry.activity.progress().map(|p| p.rows), Some(7));
    }

    #[tokio::test]
    async fn who_is_gone_still_counts() {
        let registry = Arc::new(Registry::default());
        let one = register(&registry);
        one.entry
            .activity
            .begin(0, Instant::now(), &"select 1".into());
        assert_eq!(registry.totals().queries, 1);
        drop(one);
        registry.emptied().await;
        assert_eq!(registry.totals().queries, 1);
    }

    #[test]
    fn a_wrong_secret_cancels_nobody() {
        let registry = Arc::new(Registry::default());
        let one = register(&registry);
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
        let first = registry.enter(1, 1);
        assert!(first.as_ref().is_some_and(|place| !place.reserved));
        let second = registry.enter(1, 1);
        assert!(second.is_some_and(|place| place.reserved));
        assert!(registry.enter(1, 0).is_none());
        drop(first);
        assert!(registry.enter(1, 0).is_some());
    }
}
