//! The connections to the shards that are open, for whoever looks at them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// One connection to a shard.
#[derive(Debug)]
pub struct ServerEntry {
    /// In the order they were opened, from 1.
    pub id: u64,
    /// The shard's name.
    pub shard: Arc<str>,
    /// The role it is logged in as.
    pub user: String,
    /// The process that serves it there.
    pub remote_pid: i32,
    /// It is encrypted.
    pub encrypted: bool,
    /// When it had logged in.
    pub connected: Instant,
    /// Of which session it is on loan; 0: of none.
    link: AtomicI32,
    at_work: AtomicBool,
}

impl ServerEntry {
    /// It is lent to the session with this process id; 0: to none any more.
    #[inline]
    pub fn lend(&self, pid: i32) {
        self.link.store(pid, Ordering::Relaxed);
    }

    /// The process id of the session that has it.
    pub fn link(&self) -> Option<i32> {
        Some(self.link.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// The shard has something to answer on it from now on, or no more.
    #[inline]
    pub fn set_at_work(&self, at_work: bool) {
        self.at_work.store(at_work, Ordering::Relaxed);
    }

    /// The shard has something to answer on it.
    pub fn is_at_work(&self) -> bool {
        self.at_work.load(Ordering::Relaxed)
    }
}

/// An entry for as long as its connection is open.
#[derive(Debug)]
pub struct Listed(Arc<ServerEntry>);

impl std::ops::Deref for Listed {
    type Target = ServerEntry;
    fn deref(&self) -> &ServerEntry {
        &self.0
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        SERVERS.lock().remove(&self.id);
    }
}

/// One table for the process, as there is one registry of metrics. Bounded by the pools' sizes.
static SERVERS: LazyLock<Mutex<BTreeMap<u64, Arc<ServerEntry>>>> = LazyLock::new(Mutex::default);

/// Lists a connection that has logged in.
pub fn list(shard: Arc<str>, user: String, remote_pid: i32, encrypted: bool) -> Listed {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let entry = Arc::new(ServerEntry {
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        shard,
        user,
        remote_pid,
        encrypted,
        connected: Instant::now(),
        link: AtomicI32::new(0),
        at_work: AtomicBool::new(false),
    });
    SERVERS.lock().insert(entry.id, entry.clone());
    Listed(entry)
}

/// All of them, the oldest first.
pub fn servers() -> Vec<Arc<ServerEntry>> {
    SERVERS.lock().values().cloned().collect()
}

/// Connections to a shard on which it has something to answer.
pub fn at_work(shard: &str) -> usize {
    let servers = SERVERS.lock();
    let of_shard = servers.values().filter(|s| &*s.shard == shard);
    of_shard.filter(|s| s.is_at_work()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_listed_while_it_is_open() {
        let listed = list("listed_in_a_test".into(), "app".into(), 1, false);
        let found = || {
            let mut all = servers().into_iter();
            all.find(|s| &*s.shard == "listed_in_a_test")
        };
        listed.lend(7);
        assert_eq!(found().and_then(|s| s.link()), Some(7));
        assert_eq!(at_work("listed_in_a_test"), 0);
        listed.set_at_work(true);
        assert_eq!(at_work("listed_in_a_test"), 1);
        drop(listed);
        assert!(found().is_none());
    }
}
