//! One connection to a shard at the level of raw frames: what is written is appended to a buffer by the caller, what is
//! read comes back as runs of DataRow frames or as single other messages, none of it decoded.

mod lease;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::BackendError;
use super::cancel::{CancelHandle, CancelKey, LeaseNumber};
use super::frame_reader::{FrameReader, Scanned};
use super::notifications::Notifications;
use super::parameters::Parameters;
use super::socket::Socket;
use super::stage_tables::StageTables;
use super::statements::{Statements, name_of};
use crate::metrics::{self, ShardMetrics};
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::messages;
use crate::registry::servers::Listed;

/// A write buffer that grew beyond this is given back once it is sent.
const WRITE_BYTES_KEPT: usize = 64 << 10;

/// Whole DataRow frames, one behind the other, as they lay in a read buffer; or CopyData frames of a COPY TO STDOUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Tag, length and body of each, nothing between them.
    pub frames: Bytes,
    /// How many there are.
    pub rows: u32,
}

/// What a shard sends.
#[derive(Debug)]
pub enum Event {
    /// All the rows that had arrived.
    Rows(Run),
    /// Any other message, as a whole frame. ReadyForQuery and ParameterStatus have already been noted by the connection.
    Message {
        /// Its first byte.
        tag: u8,
        /// All of it, tag and length included.
        frame: Bytes,
    },
}

/// A logged-in session on a shard.
pub struct RawConn {
    /// Where it leads.
    pub shard: ShardId,
    name: Arc<str>,
    socket: Socket,
    reader: FrameReader,
    write: BytesMut,
    /// How much of `write` the socket has taken.
    written: usize,
    /// Bytes ever taken off `write`, and the count of bytes up to and with the last Sync: more than that means unsynced.
    flushed: u64,
    synced: u64,
    socket_unflushed: bool,
    /// Why writing failed. What the shard had to say before it closed is read first.
    write_error: Option<String>,
    outstanding: u32,
    /// ReadyForQuery messages ever asked for.
    batches: u64,
    status: u8,
    statements: Statements,
    stage_tables: StageTables,
    pub(super) notifications: Notifications,
    pub(super) parameters: Parameters,
    settings_mark: u64,
    /// The shard waits for COPY data.
    copy_in: bool,
    poisoned: bool,
    pub(super) cancel_key: CancelKey,
    lease: LeaseNumber,
    metrics: Arc<ShardMetrics>,
    /// When the first byte went out of what the shard has not answered in full.
    asked: Option<Instant>,
    /// Rows have come of that, and when the first one had, unless all has come at once.
    has_row: bool,
    first_row: Option<Instant>,
    /// When it had answered all it was asked.
    rests_since: Instant,
    /// It was the shard or the network that ended it.
    lost: bool,
    /// Where operators see it; not before it has logged in.
    listed: Option<Listed>,
}

impl RawConn {
    pub(super) fn new(shard: ShardId, name: Arc<str>, socket: Socket) -> Self {
        Self {
            metrics: metrics::global().shard(&name),
            shard,
            name,
            socket,
            reader: FrameReader::new(),
            write: BytesMut::new(),
            written: 0,
            flushed: 0,
            synced: 0,
            socket_unflushed: false,
            write_error: None,
            outstanding: 0,
            batches: 0,
            status: b'I',
            statements: Statements::default(),
            stage_tables: StageTables::default(),
            notifications: Notifications::default(),
            parameters: Parameters::default(),
            settings_mark: 0,
            copy_in: false,
            poisoned: false,
            cancel_key: CancelKey::default(),
            lease: LeaseNumber::default(),
            asked: None,
            has_row: false,
            first_row: None,
            rests_since: Instant::now(),
            lost: false,
            listed: None,
        }
    }

    /// Where the caller appends frontend messages. Sync must go through [`RawConn::sync`], Query through [`RawConn::query`].
    pub fn write_buffer(&mut self) -> &mut BytesMut {
        &mut self.write
    }

    /// Appends Sync and counts the ReadyForQuery that is now owed.
    pub fn sync(&mut self) {
        messages::sync(&mut self.write);
        self.owe();
    }

    /// Appends a simple Query (which owes a ReadyForQuery as Sync does).
    pub fn query(&mut self, sql: &str) {
        messages::query(sql, &mut self.write);
        self.owe();
    }

    fn owe(&mut self) {
        self.outstanding += 1;
        self.batches += 1;
        self.synced = self.appended();
    }

    fn appended(&self) -> u64 {
        self.flushed + self.write.len() as u64
    }

    /// Messages were appended since the last Sync or Query: the shard owes no ReadyForQuery for them yet.
    pub fn unsynced(&self) -> bool {
        self.appended() > self.synced
    }

    /// Ends what was begun, so that the shard owes a last ReadyForQuery for all of it: COPY data that it waits for is refused,
    /// messages without a Sync get theirs.
    pub(super) fn finish(&mut self) {
        // The reply that a COPY waits for data may be unread yet; a server that waits for none ignores CopyFail.
        if self.copy_in || self.outstanding > 0 && self.unsynced() {
            self.copy_in = false;
            messages::frame(b'f', &mut self.write, |out| {
                out.extend_from_slice(b"the client is gone\0");
            });
        }
        if self.unsynced() {
            self.sync();
        }
    }

    /// Bytes appended that the socket has not taken yet.
    pub fn unsent_bytes(&self) -> usize {
        self.write.len() - self.written
    }

    /// Temporary tables that stay on this connection, of a merge session.
    pub fn stage_tables(&mut self) -> &mut StageTables {
        &mut self.stage_tables
    }

    /// Writes what is buffered; ready when all is handed to the socket.
    ///
    /// # Errors
    /// `Lost`. [`RawConn::poll_event`] may still yield what the shard said before it closed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BackendError>> {
        ready!(self.poll_write_out(cx));
        Poll::Ready(match &self.write_error {
            None => Ok(()),
            Some(reason) => Err(self.lost(reason.clone())),
        })
    }

    /// Sends the write buffer; an error is kept in `write_error`.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.write_error.is_none() && self.written < self.write.len() {
            let unwritten = &self.write[self.written..];
            match ready!(Pin::new(&mut self.socket).poll_write(cx, unwritten)) {
                Ok(0) => self.write_failed("the connection takes no more data".into()),
                Ok(n) => {
                    self.metrics.bytes_sent.inc_by(n as u64);
                    if self.asked.is_none() {
                        self.asked = Some(Instant::now());
                        self.show_at_work(true);
                    }
                    self.written += n;
                    self.socket_unflushed = true;
                }
                Err(e) => self.write_failed(e.to_string()),
            }
        }
        if self.written > 0 {
            self.flushed += self.write.len() as u64;
            self.written = 0;
            self.write.clear();
            if self.write.capacity() > WRITE_BYTES_KEPT {
                self.write = BytesMut::new();
            }
        }
        if self.socket_unflushed && self.write_error.is_none() {
            match ready!(Pin::new(&mut self.socket).poll_flush(cx)) {
                Ok(()) => self.socket_unflushed = false,
                Err(e) => self.write_failed(e.to_string()),
            }
        }
        Poll::Ready(())
    }

    fn write_failed(&mut self, reason: String) {
        self.mark_lost();
        self.write_error = Some(reason);
    }

    /// Next run or message. Sends what is still unwritten while it reads, so that a long pipeline cannot block both sides.
    /// `columns`: a DataRow with another number of columns is an error. A Close that [`RawConn::statement_name`] appended is
    /// answered by a CloseComplete here, which nobody asked for. Notifications are kept, see
    /// [`RawConn::take_notifications`].
    ///
    /// # Errors
    /// `Lost` at the end of the stream, `Protocol`; the connection is poisoned by either.
    #[inline]
    pub fn poll_event(
        &mut self,
        columns: Option<u16>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event, BackendError>> {
        loop {
            match ready!(self.poll_scanned(columns, cx))? {
                Scanned::Rows(run) => {
                    self.metrics.rows.inc_by(u64::from(run.rows));
                    self.has_row = true;
                    return Poll::Ready(Ok(Event::Rows(run)));
                }
                Scanned::Message { tag: b'A', frame } => {
                    if !self.notifications.keep(frame) {
                        return Poll::Ready(Err(self.broken("too many notifications".into())));
                    }
                }
                Scanned::Message { tag, frame } => {
                    self.note(tag, &frame)?;
                    return Poll::Ready(Ok(Event::Message { tag, frame }));
                }
            }
        }
    }

    fn poll_scanned(
        &mut self,
        columns: Option<u16>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Scanned, BackendError>> {
        // Pending is no reason to wait: the shard may be unable to read before we do.
        if !self.write.is_empty() || self.socket_unflushed {
            let _ = self.poll_write_out(cx);
        }
        loop {
            match self.reader.next(columns) {
                Ok(Some(scanned)) => return Poll::Ready(Ok(scanned)),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(self.broken(fault.to_string()))),
            }
            if self.has_row && self.first_row.is_none() {
                // There is more to come: the first row's time is not the last one's.
                self.first_row = Some(Instant::now());
            }
            match ready!(self.reader.poll_fill(&mut self.socket, cx)) {
                Ok(0) => {
                    let reason = match &self.write_error {
                        Some(reason) => reason.clone(),
                        None => "the server closed the connection".into(),
                    };
                    return Poll::Ready(Err(self.ended(reason)));
                }
                Ok(n) => self.metrics.bytes_received.inc_by(n as u64),
                Err(e) => return Poll::Ready(Err(self.ended(e.to_string()))),
            }
        }
    }

    /// Keeps the connection's own account of what the shard said.
    fn note(&mut self, tag: u8, frame: &Bytes) -> Result<(), BackendError> {
        let body = &frame[HEADER_BYTES..];
        match tag {
            b'Z' => self.note_ready(body),
            b'S' => self.note_parameter(body),
            b'E' => {
                // The batch this error ends: those before it have had their ReadyForQuery.
                let batch = self.batches - u64::from(self.outstanding);
                self.statements.forget_batch(batch);
                self.copy_in = false;
                if ServerError::parse(body).is_fatal() {
                    self.mark_lost();
                }
                Ok(())
            }
            b'C' => {
                self.copy_in = false;
                if body == b"DISCARD ALL\0" || body == b"DEALLOCATE ALL\0" {
                    self.statements.forget_all();
                }
                Ok(())
            }
            b'G' => {
                self.copy_in = true;
                Ok(())
            }
            b'1' | b'2' | b'3' | b'H' | b'I' | b'N' | b'T' | b'V' | b'W' | b'c' | b'd' | b'n'
            | b's' | b't' => Ok(()),
            tag => Err(self.broken(format!("unexpected message {:?}", char::from(tag)))),
        }
    }

    fn note_ready(&mut self, body: &[u8]) -> Result<(), BackendError> {
        let [status @ (b'I' | b'T' | b'E')] = *body else {
            return Err(self.broken("malformed ReadyForQuery".into()));
        };
        if self.outstanding == 0 {
            return Err(self.broken("ReadyForQuery that nobody asked for".into()));
        }
        self.outstanding -= 1;
        self.status = status;
        if self.outstanding == 0 {
            if let Some(asked) = self.asked.take() {
                self.rests_since = Instant::now();
                self.count_answer(asked);
                self.show_at_work(false);
            }
            self.reader.release(false);
        }
        Ok(())
    }

    pub(super) fn note_parameter(&mut self, body: &[u8]) -> Result<(), BackendError> {
        let noted = self.parameters.note(body);
        noted.map_err(|reason| self.broken(reason.into()))
    }

    /// ReadyForQuery messages still owed by the shard.
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Transaction status of the last ReadyForQuery: `I`, `T` or `E`.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The name under which the statement with this text and these parameter types is prepared here; second is true when it is
    /// new: the caller must then append the Parse. Bounded: the least recently used one is closed (Close is appended).
    ///
    /// When an error skips messages up to a Sync, all statements that were new before that Sync are forgotten without a call.
    pub fn statement_name(&mut self, sql: &Arc<str>, parameter_types: &[u32]) -> (Arc<str>, bool) {
        let (name, new) = self.statements.name(sql, parameter_types, self.batches);
        if new {
            self.metrics.parses.inc();
            for number in self.statements.take_to_close() {
                messages::describe_or_close(b'C', b'S', &name_of(number), &mut self.write);
            }
        }
        (name, new)
    }

    /// The same, of a statement that is not new.
    pub fn known_statement(&mut self, sql: &str, parameter_types: &[u32]) -> Option<Arc<str>> {
        self.statements.known(sql, parameter_types)
    }

    /// Which settings the statements that follow are parsed under. PostgreSQL reads a literal once, when it prepares a
    /// statement: under another DateStyle, TimeZone or search_path the same text is another statement.
    pub fn set_statement_context(&mut self, context: u64) {
        self.statements.context = context;
    }

    /// Forgets a statement whose Parse failed.
    pub fn forget_statement(&mut self, sql: &str, parameter_types: &[u32]) {
        self.statements.forget(sql, parameter_types);
    }

    /// A mark for which session settings are in force here; 0: those of a fresh connection.
    pub fn settings_mark(&self) -> u64 {
        self.settings_mark
    }

    /// Tells what has been set here, see [`RawConn::settings_mark`].
    pub fn set_settings_mark(&mut self, mark: u64) {
        self.settings_mark = mark;
    }

    /// The connection must not be used again: it is closed when its lease ends.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// True when it failed, or its holder said so.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// No reply outstanding, nothing unsynced, buffers empty, idle, no cancel sent, nothing listens. Session settings are the holder's care: see
    /// [`RawConn::settings_mark`].
    pub fn is_clean(&self) -> bool {
        !self.poisoned
            && self.outstanding == 0
            && !self.unsynced()
            && self.write.is_empty()
            && self.reader.is_empty()
            && self.status == b'I'
            && !self.notifications.listens()
            && !self.lease.is_cancelled()
    }

    /// What [`super::pool::Pools::cancel`] needs, for as long as this lease lasts.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::new(self.shard, self.cancel_key.clone(), &self.lease)
    }

    /// True when an idle connection is still open and the shard has said nothing on it. No round trip.
    pub(super) fn is_quiet(&mut self, now: Instant) -> bool {
        let rested = now.saturating_duration_since(self.rests_since);
        self.socket.is_quiet(rested)
    }

    pub(super) fn is_private(&self) -> bool {
        self.socket.is_private()
    }

    pub(super) fn server_certificate(&self) -> Option<&[u8]> {
        self.socket.server_certificate()
    }

    pub(super) fn set_cancel_key(&mut self, process_id: i32, secret: Bytes) {
        (self.cancel_key.process_id, self.cancel_key.secret) = (process_id, secret);
    }

    /// The next frame during login, when nothing is outstanding and no row can come.
    pub(super) async fn next_frame(&mut self) -> Result<(u8, Bytes), BackendError> {
        let frame = match poll_fn(|cx| self.poll_scanned(None, cx)).await? {
            Scanned::Message { tag, frame } => (tag, frame),
            Scanned::Rows(run) => (b'D', run.frames),
        };
        self.synced = self.appended();
        self.asked = None;
        Ok(frame)
    }

    fn lost(&self, reason: String) -> BackendError {
        let shard = self.name.to_string();
        BackendError::Lost { shard, reason }
    }

    fn ended(&mut self, reason: String) -> BackendError {
        self.mark_lost();
        self.lost(reason)
    }

    fn broken(&mut self, reason: String) -> BackendError {
        self.poisoned = true;
        BackendError::Protocol {
            shard: self.name.to_string(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::super::mock;
    use super::*;

    fn conn(buffer: usize) -> (RawConn, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let conn = RawConn::new(ShardId(0), "s0".into(), Socket::Memory(ours));
        (conn, theirs)
    }

    async fn event(conn: &mut RawConn) -> Result<Event, BackendError> {
        poll_fn(|cx| conn.poll_event(None, cx)).await
    }

    fn reply(status: u8) -> Vec<u8> {
        let mut out = BytesMut::new();
        messages::command_complete("SELECT 0", &mut out);
        messages::ready_for_query(status, &mut out);
        out.to_vec()
    }

    #[tokio::test]
    async fn a_fatal_error_is_told_before_the_end() {
        let (mut conn, mut shard) = conn(1000);
        let fatal = mock::error(true, "57P01", "terminating connection");
        shard.write_all(&fatal).await.unwrap();
        drop(shard);
        conn.query("SELECT 1");
        assert!(matches!(
            event(&mut conn).await,
            Ok(Event::Message { tag: b'E', .. })
        ));
        assert!(conn.is_poisoned());
        assert!(matches!(
            event(&mut conn).await,
            Err(BackendError::Lost { .. })
        ));
    }

    #[tokio::test]
    async fn a_reply_to_nothing_is_a_fault() {
        let (mut conn, mut shard) = conn(1000);
        shard.write_all(&reply(b'I')).await.unwrap();
        assert!(event(&mut conn).await.is_ok());
        assert!(matches!(
            event(&mut conn).await,
            Err(BackendError::Protocol { .. })
        ));
        assert!(!conn.is_clean());
    }

    #[tokio::test]
    async fn messages_of_no_server_are_a_fault() {
        for bytes in [
            &b"R\0\0\0\x08\0\0\0\0"[..],
            b"\x16\x03\x01\x02\0",
            b"HTTP/1.1 400",
            b"Z\0\0\0\x05X",
        ] {
            let (mut conn, mut shard) = conn(1000);
            conn.query("SELECT 1");
            shard.write_all(bytes).await.unwrap();
            assert!(matches!(
                event(&mut conn).await,
                Err(BackendError::Protocol { .. })
            ));
            assert!(conn.is_poisoned());
        }
    }

    #[tokio::test]
    async fn status_and_outstanding_replies_are_kept() {
        let (mut conn, mut shard) = conn(1000);
        assert!(conn.is_clean());
        conn.query("BEGIN");
        messages::execute("", 0, conn.write_buffer());
        assert!(conn.unsynced());
        conn.sync();
        assert_eq!((conn.outstanding(), conn.unsynced()), (2, false));
        shard
            .write_all(&[reply(b'T'), reply(b'E')].concat())
            .await
            .unwrap();
        while conn.outstanding() > 0 {
            event(&mut conn).await.unwrap();
        }
        assert_eq!(conn.status(), b'E');
        assert!(!conn.is_clean());
    }

    #[tokio::test]
    async fn parameters_follow_their_reports() {
        let (mut conn, mut shard) = conn(1000);
        let mut out = BytesMut::new();
        messages::parameter_status("TimeZone", "UTC", &mut out);
        messages::parameter_status("TimeZone", "Europe/Berlin", &mut out);
        shard.write_all(&out).await.unwrap();
        event(&mut conn).await.unwrap();
        event(&mut conn).await.unwrap();
        assert_eq!(conn.parameter("TimeZone"), Some("Europe/Berlin"));
        assert_eq!(conn.parameters().len(), 1);
    }

    #[tokio::test]
    async fn statements_behind_an_error_are_prepared_again() {
        let (mut conn, mut shard) = conn(10_000);
        let (first, second): (Arc<str>, Arc<str>) = ("SELECT 1".into(), "SELECT 2".into());
        assert_eq!(conn.statement_name(&first, &[]), ("pgbraid_1".into(), true));
        conn.sync();
        assert_eq!(
            conn.statement_name(&second, &[]),
            ("pgbraid_2".into(), true)
        );
        conn.sync();
        let error = mock::error(false, "42601", "syntax error");
        shard
            .write_all(&[reply(b'I'), error, reply(b'I')].concat())
            .await
            .unwrap();
        while conn.outstanding() > 0 {
            event(&mut conn).await.unwrap();
        }
        assert!(!conn.statement_name(&first, &[]).1);
        assert_eq!(
            conn.statement_name(&second, &[]),
            ("pgbraid_3".into(), true)
        );
        // The shard may have it or not.
        assert!(conn.write_buffer().windows(9).any(|w| w == b"pgbraid_2"));
    }

    #[tokio::test]
    async fn statements_go_with_discard_all() {
        let (mut conn, mut shard) = conn(10_000);
        let sql: Arc<str> = "SELECT 1".into();
        conn.statement_name(&sql, &[]);
        let mut out = BytesMut::new();
        messages::command_complete("DISCARD ALL", &mut out);
        shard.write_all(&out).await.unwrap();
        event(&mut conn).await.unwrap();
        assert!(conn.statement_name(&sql, &[]).1);
    }

    #[tokio::test]
    async fn a_long_pipeline_does_not_block_both_sides() {
        // The shard answers each message before it reads the next one; neither direction holds more than a few of them.
        let (mut conn, mut shard) = conn(64);
        const MESSAGES: usize = 2000;
        let server = tokio::spawn(async move {
            for _ in 0..MESSAGES {
                let mut sync = [0; 5];
                shard.read_exact(&mut sync).await.unwrap();
                shard.write_all(&reply(b'I')).await.unwrap();
            }
            shard
        });
        (0..MESSAGES).for_each(|_| conn.sync());
        while conn.outstanding() > 0 {
            event(&mut conn).await.unwrap();
        }
        assert!(conn.is_clean());
        drop(server.await.unwrap());
    }

    #[tokio::test]
    async fn what_the_shard_said_is_read_although_it_takes_no_more() {
        let (mut conn, mut shard) = conn(1000);
        shard
            .write_all(&mock::error(true, "57P01", "bye"))
            .await
            .unwrap();
        drop(shard);
        conn.query("SELECT 1");
        assert!(poll_fn(|cx| conn.poll_flush(cx)).await.is_err());
        assert!(matches!(
            event(&mut conn).await,
            Ok(Event::Message { tag: b'E', .. })
        ));
    }
}
