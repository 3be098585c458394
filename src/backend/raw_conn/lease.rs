//! A connection as its pool and operators see it: whose it is, and whether it may be lent again.

use std::time::Instant;

use bytes::BytesMut;

use super::RawConn;
use crate::registry::servers;

/// What a connection that nobody uses may keep for its next statement.
const WRITE_BYTES_RESTING: usize = 512;

impl RawConn {
    /// Shows it to operators: it has logged in as `user`.
    pub(in crate::backend) fn list(&mut self, user: &str) {
        let encrypted = self.socket.server_certificate().is_some();
        let pid = self.cancel_key.process_id;
        let listed = servers::list(self.name.clone(), user.to_owned(), pid, encrypted);
        self.listed = Some(listed);
    }

    /// Shows that the session with this process id has it.
    #[inline]
    pub(in crate::backend) fn show_holder(&self, pid: i32) {
        if let Some(listed) = &self.listed {
            listed.lend(pid);
        }
    }

    /// Counts an answer that is whole by now; `asked` is when the first byte of its question went out.
    pub(super) fn count_answer(&mut self, asked: Instant) {
        let seconds = (self.rests_since - asked).as_secs_f64();
        self.metrics.query_seconds.observe(seconds);
        if std::mem::take(&mut self.has_row) {
            let first = self.first_row.take().map(|at| (at - asked).as_secs_f64());
            let first = first.unwrap_or(seconds);
            self.metrics.first_row_seconds.observe(first);
            self.metrics.last_row_seconds.inc_by(seconds);
        }
    }

    /// Whether the shard has something to answer on it, for operators.
    pub(super) fn show_at_work(&self, at_work: bool) {
        if let Some(listed) = &self.listed {
            listed.set_at_work(at_work);
        }
    }

    /// Ends a lease; true when the connection may be lent again. Atomic against a cancel: one of the two comes first.
    pub(in crate::backend) fn end_lease(&mut self) -> bool {
        self.show_holder(0);
        if !self.is_clean() {
            return false;
        }
        self.reader.release(true);
        if self.write.capacity() > WRITE_BYTES_RESTING {
            self.write = BytesMut::new();
        }
        self.lease.end()
    }

    /// It was the shard or the network that ended it.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Poisons it because the shard, not its holder, has ended it.
    pub(in crate::backend) fn mark_lost(&mut self) {
        self.poisoned = true;
        self.lost = true;
    }
}
