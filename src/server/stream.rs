//! A client's socket: whole frames in, queued runs and messages out, one write a reply.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::metrics;
use crate::protocol::frame::{FrameError, check_frontend_tag, frame_length};
use crate::registry::Traffic;
use crate::types::encoding::Encoding;

/// Room made for the messages of a short reply.
const REPLY_BYTES: usize = 512;
/// Small messages are copied together; runs at least this long go out from the buffer they were read into.
const COPY_BYTES_MAX: usize = 8 << 10;
/// Bytes asked for in one read.
const READ_BYTES: usize = 16 << 10;
/// A first read goes to the stack (less than a page of it): a session between two messages holds no buffer, and does not make one for
/// every message.
const FIRST_READ_BYTES: usize = 3 << 10;
/// Describe of the unnamed portal.
const DESCRIBE_UNNAMED: &[u8] = b"D\0\0\0\x06P\0";
/// Execute of the unnamed portal, all rows, and Sync.
const EXECUTE_AND_SYNC: &[u8] = b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";
/// Most slices handed to one vectored write.
const SLICES_MAX: usize = 16;

/// A client connection, encrypted or not.
pub enum ClientStream {
    Plain(TcpStream),
    /// A unix socket: never encrypted, and never leaves this machine.
    Local(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientStream {
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl ClientStream {
    /// The address that the client has connected to; empty where that is none of the network's.
    pub fn local_address(&self) -> String {
        match self {
            Self::Plain(socket) => socket.local_addr().map_or(String::new(), |a| a.to_string()),
            _ => String::new(),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Local(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Local(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write_vectored(cx, slices),
            Self::Local(s) => Pin::new(s).poll_write_vectored(cx, slices),
            Self::Tls(s) => Pin::new(s).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Local(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Local(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// As [`Client::peek_execution`], of any bytes.
pub fn execution(input: &[u8]) -> Option<bool> {
    let described = input.strip_prefix(DESCRIBE_UNNAMED);
    let rest = described.unwrap_or(input);
    rest.starts_with(EXECUTE_AND_SYNC)
        .then_some(described.is_some())
}

/// How long the messages are that [`execution`] finds.
pub fn execution_bytes(describes: bool) -> usize {
    let describe = if describes { DESCRIBE_UNNAMED.len() } else { 0 };
    describe + EXECUTE_AND_SYNC.len()
}

/// One frontend message.
#[derive(Debug)]
pub struct Message {
    pub tag: u8,
    pub body: Bytes,
}

/// Why no further message can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the client closed the connection")]
    Closed,
    #[error("pgbraid is shutting down")]
    Shutdown,
    #[error("the client has said nothing for too long")]
    Idle,
    #[error("a shard has ended the session: {0}")]
    Shard(crate::protocol::error::ServerError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A client's socket with its buffers. An idle session holds none.
pub struct Client {
    stream: ClientStream,
    input: BytesMut,
    /// Messages appended since `queue`'s last entry.
    output: BytesMut,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// TLS keeps written bytes until it is flushed.
    unflushed: bool,
    message_bytes_max: usize,
    /// Its bytes, as the registry shows them.
    pub traffic: Arc<Traffic>,
    /// What the client speaks, where that is not UTF8.
    pub encoding: Option<&'static Encoding>,
}

impl Client {
    pub fn new(stream: ClientStream, message_bytes_max: usize) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            unflushed: false,
            message_bytes_max,
            traffic: Arc::default(),
            encoding: None,
        }
    }

    /// Where messages for the client are appended.
    pub fn out(&mut self) -> &mut BytesMut {
        if self.output.capacity() == 0 {
            // A short reply in one piece instead of growing from message to message.
            self.output.reserve(REPLY_BYTES);
        }
        &mut self.output
    }

    /// Queues whole frames behind what is there, without copying long ones.
    pub fn push(&mut self, frames: Bytes) {
        if frames.len() < COPY_BYTES_MAX {
            self.out().extend_from_slice(&frames);
            return;
        }
        self.seal();
        self.queued_bytes += frames.len();
        self.queue.push_back(frames);
    }

    /// Bytes waiting to be written.
    pub fn pending_bytes(&self) -> usize {
        self.queued_bytes + self.output.len()
    }

    fn seal(&mut self) {
        if !self.output.is_empty() {
            self.queued_bytes += self.output.len();
            self.queue.push_back(self.output.split().freeze());
        }
    }

    /// Writes all that is queued; ready when the socket has taken it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending_bytes() > 0 {
            if self.queue.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
                self.wrote(written)?;
                continue;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = (self.queue.len() + 1).min(SLICES_MAX);
            let pending = self.queue.iter().map(|bytes| &bytes[..]);
            let pending = pending.chain(std::iter::once(&self.output[..]));
            for (slice, bytes) in slices.iter_mut().zip(pending) {
                *slice = IoSlice::new(bytes);
            }
            let written =
                ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]))?;
            self.wrote(written)?;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, mut written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unflushed = true;
        metrics::global().bytes_to_clients.inc_by(written as u64);
        self.traffic.sent.add(written as u64);
        while let Some(front) = self.queue.front_mut() {
            if front.len() > written {
                front.advance(written);
                self.queued_bytes -= written;
                return Ok(());
            }
            written -= front.len();
            self.queued_bytes -= front.len();
            self.queue.pop_front();
        }
        self.output.advance(written);
        Ok(())
    }

    /// Writes all that is queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Takes the next message out of what has been read, without reading.
    pub fn buffered(&mut self) -> Result<Option<Message>, FrameError> {
        check_frontend_tag(&self.input)?;
        let Some(total) = frame_length(&self.input, self.message_bytes_max)? else {
            return Ok(None);
        };
        if self.input.len() < total {
            return Ok(None);
        }
        let mut frame = self.input.split_to(total).freeze();
        let tag = frame[0];
        frame.advance(5);
        Ok(Some(Message { tag, body: frame }))
    }

    /// The tag of the next message when it has been read whole.
    pub fn peek_tag(&self) -> Option<u8> {
        match frame_length(&self.input, self.message_bytes_max) {
            Ok(Some(total)) if self.input.len() >= total => Some(self.input[0]),
            _ => None,
        }
    }

    /// When Execute of the unnamed portal without a limit and Sync are what comes next, perhaps behind a Describe of that portal: whether
    /// there is one.
    pub fn peek_execution(&self) -> Option<bool> {
        execution(&self.input)
    }

    /// What has been read and not taken.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Takes whole messages that [`Client::input`] showed.
    pub fn take_input(&mut self, bytes: usize) {
        self.input.advance(bytes);
    }

    /// Takes what [`Client::peek_execution`] saw.
    pub fn take_execution(&mut self, describes: bool) {
        self.input.advance(execution_bytes(describes));
    }

    /// Reads what the socket has; false at its end. Memory follows received bytes, never a declared length.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let room = self.input.capacity() - self.input.len();
        let n = match room < FIRST_READ_BYTES && self.input.len() < READ_BYTES {
            // Room is made once it is known that something comes.
            true => ready!(self.poll_first_fill(cx))?,
            false => {
                if room < READ_BYTES / 2 {
                    self.input.reserve(READ_BYTES.max(self.input.len()));
                }
                let stream = Pin::new(&mut self.stream);
                ready!(tokio_util::io::poll_read_buf(stream, cx, &mut self.input))?
            }
        };
        metrics::global().bytes_from_clients.inc_by(n as u64);
        self.traffic.received.add(n as u64);
        Poll::Ready(Ok(n > 0))
    }

    fn poll_first_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [const { MaybeUninit::uninit() }; FIRST_READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        let read = read.filled();
        self.input.extend_from_slice(read);
        Poll::Ready(Ok(read.len()))
    }

    /// True when the client has hung up. Reads ahead what it sends meanwhile, up to a message's limit; else the task is woken by more.
    pub fn poll_hangup(&mut self, cx: &mut Context<'_>) -> bool {
        while self.input.len() < READ_BYTES {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => return true,
                Poll::Pending => break,
            }
        }
        false
    }

    /// The next message. What is queued is flushed before the task waits.
    ///
    /// # Errors
    /// The client's end, a broken socket, or a header nobody may send.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, ReadError>> {
        loop {
            if let Some(message) = self.buffered()? {
                return Poll::Ready(Ok(message));
            }
            if self.pending_bytes() > 0 || self.unflushed {
                ready!(self.poll_flush(cx))?;
            }
            if self.input.is_empty() {
                // An idle session holds no buffer but that of a short reply.
                self.input = BytesMut::new();
                if self.output.capacity() > REPLY_BYTES {
                    self.output = BytesMut::new();
                }
            }
            if !ready!(self.poll_fill(cx))? {
                return Poll::Ready(Err(ReadError::Closed));
            }
        }
    }

    /// As [`Client::poll_message`].
    pub async fn message(&mut self) -> Result<Message, ReadError> {
        std::future::poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Bytes read and not yet taken: while a statement runs, no more than this is read ahead.
    pub fn buffered_bytes(&self) -> usize {
        self.input.len()
    }
}
