//! A connection as its pool and operators see it: whose it is, and whether it may be lent again.

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
