//! Replies that have to wait for their turn.

use bytes::{Bytes, BytesMut};

use super::stream::Client;

/// Runs at least this long are held back in the buffer they were read into, others are copied together.
const COPY_BYTES_MAX: usize = 8 << 10;

/// Part of a reply whose turn has not come.
#[derive(Default)]
pub(super) struct Held {
    frames: Vec<Bytes>,
    /// What follows them.
    tail: BytesMut,
    /// How many there are of it.
    pub(super) bytes: usize,
}

impl Held {
    /// Appends whole frames.
    pub(super) fn push(&mut self, frames: Bytes) {
        self.bytes += frames.len();
        if frames.len() < COPY_BYTES_MAX {
            self.tail.extend_from_slice(&frames);
            return;
        }
        if !self.tail.is_empty() {
            self.frames.push(self.tail.split().freeze());
        }
        self.frames.push(frames);
    }

    /// Appends a message.
    pub(super) fn write(&mut self, message: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        message(&mut self.tail);
        self.bytes += self.tail.len() - before;
    }

    /// Its turn has come.
    pub(super) fn give(self, client: &mut Client) {
        self.frames.into_iter().for_each(|f| client.push(f));
        client.out().extend_from_slice(&self.tail);
    }
}
