//! One connection to a shard at the level of raw frames: what is written is appended to a buffer by the caller, what is
//! read comes back as runs of DataRow frames or as single other messages, none of it decoded.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::BackendError;
use crate::plan::ShardId;

/// Whole DataRow frames, one behind the other, as they lay in a read buffer.
#[derive(Debug, Clone)]
pub struct Run {
    pub frames: Bytes,
    pub rows: u32,
}

/// What a shard sends.
#[derive(Debug)]
pub enum Event {
    Rows(Run),
    /// Any other message, as a whole frame. ReadyForQuery and ParameterStatus have already been noted by the connection.
    Message {
        tag: u8,
        frame: Bytes,
    },
}

/// A logged-in session on a shard.
pub struct RawConn {
    pub shard: ShardId,
}

impl RawConn {
    /// Where the caller appends frontend messages. Sync must go through [`RawConn::sync`].
    pub fn write_buffer(&mut self) -> &mut BytesMut {
        unimplemented!()
    }

    /// Appends Sync and counts the ReadyForQuery that is now owed.
    pub fn sync(&mut self) {
        unimplemented!()
    }

    /// Appends a simple Query (which owes a ReadyForQuery as Sync does).
    pub fn query(&mut self, _sql: &str) {
        unimplemented!()
    }

    /// Writes what is buffered; ready when all is handed to the socket.
    pub fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BackendError>> {
        unimplemented!()
    }

    /// Next run or message. Flushes first what is still unwritten. `columns`: a DataRow with another number of columns is an error.
    pub fn poll_event(
        &mut self,
        _columns: Option<u16>,
        _cx: &mut Context<'_>,
    ) -> Poll<Result<Event, BackendError>> {
        unimplemented!()
    }

    /// ReadyForQuery messages still owed by the shard.
    pub fn outstanding(&self) -> u32 {
        unimplemented!()
    }

    /// Transaction status of the last ReadyForQuery: `I`, `T` or `E`.
    pub fn status(&self) -> u8 {
        unimplemented!()
    }

    /// The name under which the statement with this text and these parameter types is prepared here; second is true when it is
    /// new: the caller must then append the Parse. Bounded: the least recently used one is closed (Close is appended).
    pub fn statement_name(
        &mut self,
        _sql: &std::sync::Arc<str>,
        _parameter_types: &[u32],
    ) -> (String, bool) {
        unimplemented!()
    }

    /// Forgets a statement whose Parse failed.
    pub fn forget_statement(&mut self, _sql: &str, _parameter_types: &[u32]) {
        unimplemented!()
    }

    /// Values of ParameterStatus as last reported.
    pub fn parameter(&self, _name: &str) -> Option<&str> {
        unimplemented!()
    }

    /// A mark for which session settings are in force here; 0: those of a fresh connection.
    pub fn settings_mark(&self) -> u64 {
        unimplemented!()
    }

    pub fn set_settings_mark(&mut self, _mark: u64) {
        unimplemented!()
    }

    /// The connection must not be used again: it is closed when its lease ends.
    pub fn poison(&mut self) {
        unimplemented!()
    }

    /// No reply outstanding, buffers empty, idle, no cancel sent, default settings or a mark that can be replayed over.
    pub fn is_clean(&self) -> bool {
        unimplemented!()
    }

    /// Process id and secret key for CancelRequest.
    pub fn cancel_key(&self) -> (i32, Bytes) {
        unimplemented!()
    }
}
