//! NotificationResponses that a shard has sent, kept until the client may have them: a server sends them between statements only.

use bytes::Bytes;

use super::raw_conn::RawConn;

/// More than this is not kept: a session with so many at once has to begin anew, which it is told.
const BYTES_MAX: usize = 64 << 20;

/// What a connection has heard of channels it listens to.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    frames: Vec<Bytes>,
    bytes: usize,
    /// Something on this connection listens: it is for nobody else.
    listens: bool,
}

impl Notifications {
    /// Keeps one; false when they are too many.
    pub(super) fn keep(&mut self, frame: Bytes) -> bool {
        self.listens = true;
        self.bytes += frame.len();
        if self.bytes > BYTES_MAX {
            return false;
        }
        self.frames.push(frame);
        true
    }

    /// Takes all of them out, in their order.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }

    /// Whether one waits.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether any has come that nobody has accounted for, see [`Notifications::forget`].
    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    /// Nothing on the connection listens any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl RawConn {
    /// Notifications that have come since they were last taken, each a whole frame.
    pub fn take_notifications(&mut self) -> Vec<Bytes> {
        self.notifications.take()
    }

    /// True when a notification waits to be taken.
    pub fn has_notifications(&self) -> bool {
        !self.notifications.is_empty()
    }

    /// Tells that nothing on this connection listens any more: it may be lent to somebody else.
    pub fn forget_notifications(&mut self) {
        self.notifications.forget();
    }

    /// The server's own number for this session.
    pub fn process_id(&self) -> i32 {
        self.cancel_key.process_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_out_in_order_and_mark_the_connection() {
        let mut kept = Notifications::default();
        assert!(kept.is_empty() && !kept.listens());
        assert!(kept.keep(Bytes::from_static(b"a")) && kept.keep(Bytes::from_static(b"b")));
        assert_eq!(kept.take(), ["a", "b"]);
        assert!(kept.is_empty() && kept.listens());
        kept.forget();
        assert!(!kept.listens());
    }

    #[test]
    fn memory_is_bounded() {
        let mut kept = Notifications::default();
        let frame = Bytes::from(vec![0; BYTES_MAX / 2]);
        assert!(kept.keep(frame.clone()) && kept.keep(frame.clone()));
        assert!(!kept.keep(frame));
    }
}
