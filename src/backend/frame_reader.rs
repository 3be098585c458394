//! The read side of a shard connection: bytes in, runs of DataRow or CopyData frames or single other frames out, nothing decoded.
//! The scan over rows is the product's fast path: one 8-byte load a row. Knows no socket; memory follows received bytes only.

use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::raw_conn::Run;
use crate::protocol::frame::{FrameError, HEADER_BYTES, frame_length};

/// What a first read asks for: less than a page of the stack.
const FIRST_READ_BYTES: usize = 3 << 10;
/// Where a buffer starts, and what a connection between two statements may keep.
pub(super) const CHUNK_BYTES_MIN: usize = 16 << 10;
/// Where it stops growing: beyond this a read call's own cost no longer shows (8 KiB 38 ns a row, 128 KiB 22, 256 KiB 15).
pub(super) const CHUNK_BYTES_MAX: usize = 256 << 10;
/// PostgreSQL itself cannot send more: its messages are built in memory of at most 1 GiB.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 30;
/// Tag, length and column count.
const ROW_HEADER_BYTES: usize = 7;
/// The length of a row without columns: it counts itself and the column count.
const ROW_LENGTH_MIN: u32 = 6;

/// What the buffer's first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    Rows(Run),
    Message { tag: u8, frame: Bytes },
}

/// Bytes no PostgreSQL sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameFault {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a row of {found} columns where {expected} were announced")]
    Columns { expected: u16, found: u16 },
    #[error("a DataRow without a column count")]
    TruncatedRow,
    #[error("a message with tag {0:#04x}")]
    Tag(u8),
}

/// A growing read buffer and the place up to which its first frame is known to be incomplete.
#[derive(Debug)]
pub(super) struct FrameReader {
    buffer: BytesMut,
    /// Bytes to ask for in one read; doubles while reads fill it.
    chunk: usize,
    /// The first frame cannot be complete before so many bytes have arrived, so nothing is scanned until then.
    needed: usize,
}

impl FrameReader {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            chunk: CHUNK_BYTES_MIN,
            needed: HEADER_BYTES,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes the longest run of whole DataRow frames, or of CopyData frames, or one other frame, off the buffer; `None` when more bytes are needed.
    ///
    /// # Errors
    /// A header that cannot be, or a row whose column count is not `columns`; the connection is useless after that.
    #[inline]
    pub(super) fn next(&mut self, columns: Option<u16>) -> Result<Option<Scanned>, FrameFault> {
        if self.buffer.len() < self.needed {
            return Ok(None);
        }
        let (end, rows) = scan_rows(&self.buffer, columns);
        if rows > 0 {
            self.needed = HEADER_BYTES;
            let frames = self.buffer.split_to(end).freeze();
            return Ok(Some(Scanned::Rows(Run { frames, rows })));
        }
        self.next_single(columns)
    }

    /// The first frame when it is no row that `scan_rows` takes: incomplete, another message, or faulty.
    fn next_single(&mut self, columns: Option<u16>) -> Result<Option<Scanned>, FrameFault> {
        let Some(total) = frame_length(&self.buffer, FRAME_BYTES_MAX)? else {
            self.needed = HEADER_BYTES;
            return Ok(None);
        };
        let tag = self.buffer[0];
        // Judged by its header: nobody waits for the body of something that is no message.
        if !is_backend_tag(tag) {
            return Err(FrameFault::Tag(tag));
        }
        if tag == b'D' {
            self.check_row_header(total, columns)?;
        }
        if self.buffer.len() < total {
            self.needed = total;
            return Ok(None);
        }
        self.needed = HEADER_BYTES;
        if tag == b'D' {
            let frames = self.buffer.split_to(total).freeze();
            return Ok(Some(Scanned::Rows(Run { frames, rows: 1 })));
        }
        if tag == b'd' {
            let (end, rows) = scan_copy_data(&self.buffer);
            let frames = self.buffer.split_to(end).freeze();
            return Ok(Some(Scanned::Rows(Run { frames, rows })));
        }
        let frame = match bare_frame(&self.buffer[..total]) {
            Some(known) => {
                self.buffer.advance(total);
                known
            }
            None => self.buffer.split_to(total).freeze(),
        };
        Ok(Some(Scanned::Message { tag, frame }))
    }

    /// Refuses a wrong row as soon as its column count is there, not only when its last byte is.
    fn check_row_header(&self, total: usize, columns: Option<u16>) -> Result<(), FrameFault> {
        if total < ROW_HEADER_BYTES {
            return Err(FrameFault::TruncatedRow);
        }
        let (Some(expected), Some(header)) =
            (columns, self.buffer.first_chunk::<ROW_HEADER_BYTES>())
        else {
            return Ok(());
        };
        let found = u16::from_be_bytes([header[5], header[6]]);
        if found != expected {
            return Err(FrameFault::Columns { expected, found });
        }
        Ok(())
    }

    /// Reads once from `socket`; `Ready(0)` is the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        socket: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        if self.buffer.is_empty() && self.chunk == CHUNK_BYTES_MIN {
            return self.poll_first_fill(socket, cx);
        }
        self.make_room();
        let spare = self.buffer.capacity() - self.buffer.len();
        // The future keeps no state of its own, so a new one for each poll loses nothing.
        let read = pin!(socket.read_buf(&mut self.buffer)).poll(cx);
        if let Poll::Ready(Ok(bytes)) = read
            && bytes == spare
            && self.chunk < CHUNK_BYTES_MAX
        {
            self.chunk *= 2;
        }
        read
    }

    /// A first read goes to the stack: most replies are short, and a buffer of their size costs less than one for any.
    fn poll_first_fill(
        &mut self,
        socket: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        let mut bytes = [const { MaybeUninit::uninit() }; FIRST_READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(socket).poll_read(cx, &mut read))?;
        let read = read.filled();
        self.buffer.extend_from_slice(read);
        if read.len() == FIRST_READ_BYTES {
            self.chunk *= 2;
        }
        Poll::Ready(Ok(read.len()))
    }

    /// Sees to room for a read. Runs that were handed out may still hold the memory in front: then a new buffer is taken only when
    /// less than half of this one is left, so that slow consumers hold at most twice the bytes they were given.
    fn make_room(&mut self) {
        let held = self.buffer.len();
        let spare = self.buffer.capacity() - held;
        let wanted = if held < self.chunk {
            self.chunk - held
        } else {
            // A frame larger than the buffer: double with what has arrived, whatever length it declares.
            held.min(self.needed.saturating_sub(held)).max(self.chunk)
        };
        if spare < wanted && !self.buffer.try_reclaim(wanted) && spare <= wanted / 2 {
            self.buffer.reserve(wanted);
        }
    }

    /// Gives memory back between statements: all of it, or only what exceeds the smallest buffer.
    pub(super) fn release(&mut self, all: bool) {
        if self.buffer.is_empty() && (all || self.chunk > CHUNK_BYTES_MIN) {
            self.buffer = BytesMut::new();
            self.chunk = CHUNK_BYTES_MIN;
        }
    }

    #[cfg(test)]
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }
}

/// End and number of the whole DataRow frames at the head of `buffer` that have `columns` columns.
///
/// Tag and column count are compared in one load, in whatever byte order. A length that is too small wraps around, and one that is
/// negative or too large exceeds the bytes at hand: in both cases the slow path judges it.
#[inline]
fn scan_rows(buffer: &[u8], columns: Option<u16>) -> (usize, u32) {
    let [high, low] = columns.unwrap_or(0).to_be_bytes();
    let checked = if columns.is_some() { 0xff } else { 0 };
    let mask = u64::from_ne_bytes([0xff, 0, 0, 0, 0, checked, checked, 0]);
    let expected = u64::from_ne_bytes([b'D', 0, 0, 0, 0, high, low, 0]);
    let mut rest = buffer;
    let mut rows = 0u32;
    while let Some(header) = rest.first_chunk::<8>() {
        if u64::from_ne_bytes(*header) & mask != expected {
            break;
        }
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let behind_header = length.wrapping_sub(ROW_LENGTH_MIN) as usize;
        let Some(next) = rest[ROW_HEADER_BYTES..].get(behind_header..) else {
            break;
        };
        rest = next;
        rows += 1;
    }
    (buffer.len() - rest.len(), rows)
}

/// End and number of the whole CopyData frames at the head of `buffer`. A length that cannot be is left to the next look.
fn scan_copy_data(buffer: &[u8]) -> (usize, u32) {
    let mut rest = buffer;
    let mut rows = 0;
    while let Some([b'd', length @ ..]) = rest.first_chunk::<HEADER_BYTES>() {
        let body = u32::from_be_bytes(*length).wrapping_sub(4) as usize;
        let Some(next) = rest[HEADER_BYTES..].get(body..) else {
            break;
        };
        rest = next;
        rows += 1;
    }
    (buffer.len() - rest.len(), rows)
}

/// The messages a server may send (PostgreSQL's manual, "Message Formats").
fn is_backend_tag(tag: u8) -> bool {
    matches!(
        tag,
        b'1' | b'2'
            | b'3'
            | b'A'
            | b'C'
            | b'D'
            | b'E'
            | b'G'
            | b'H'
            | b'I'
            | b'K'
            | b'N'
            | b'R'
            | b'S'
            | b'T'
            | b'V'
            | b'W'
            | b'Z'
            | b'c'
            | b'd'
            | b'n'
            | b's'
            | b't'
            | b'v'
    )
}

/// Frequent short messages are constants: handing them out costs neither memory nor a reference count.
fn bare_frame(frame: &[u8]) -> Option<Bytes> {
    let known: &'static [u8] = match frame {
        [b'1', 0, 0, 0, 4] => b"1\0\0\0\x04",
        [b'2', 0, 0, 0, 4] => b"2\0\0\0\x04",
        [b'3', 0, 0, 0, 4] => b"3\0\0\0\x04",
        [b'n', 0, 0, 0, 4] => b"n\0\0\0\x04",
        [b's', 0, 0, 0, 4] => b"s\0\0\0\x04",
        [b'I', 0, 0, 0, 4] => b"I\0\0\0\x04",
        [b'Z', 0, 0, 0, 5, b'I'] => b"Z\0\0\0\x05I",
        [b'Z', 0, 0, 0, 5, b'T'] => b"Z\0\0\0\x05T",
        [b'Z', 0, 0, 0, 5, b'E'] => b"Z\0\0\0\x05E",
        _ => return None,
    };
    Some(Bytes::from_static(known))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(columns: u16, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![b'D'];
        frame.extend((6 + body.len() as i32).to_be_bytes());
        frame.extend(columns.to_be_bytes());
        frame.extend(body);
        frame
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![tag];
        frame.extend((4 + body.len() as i32).to_be_bytes());
        frame.extend(body);
        frame
    }

    /// Everything that comes out, rows and messages one behind the other as single frames.
    fn drain(
        reader: &mut FrameReader,
        columns: Option<u16>,
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), FrameFault> {
        while let Some(scanned) = reader.next(columns)? {
            match scanned {
                Scanned::Message { frame, .. } => out.push(frame.to_vec()),
                Scanned::Rows(run) => {
                    let mut rest = &run.frames[..];
                    for _ in 0..run.rows {
                        let total = frame_length(rest, FRAME_BYTES_MAX).unwrap().unwrap();
                        out.push(rest[..total].to_vec());
                        rest = &rest[total..];
                    }
                    assert!(rest.is_empty());
                }
            }
        }
        Ok(())
    }

    #[test]
    fn frames_cut_at_every_byte_decode_the_same() {
        let frames = [
            message(b'T', b"\0\x01"),
            row(1, b"\0\0\0\x011"),
            row(1, b"\xff\xff\xff\xff"),
            row(1, b""),
            message(b'N', b"notice"),
            row(1, b""),
            message(b'd', b"line\n"),
            message(b'd', b""),
            message(b'd', b"DDDDDDDD"),
            message(b'C', b"SELECT 4\0"),
            message(b'Z', b"I"),
        ];
        let stream = frames.concat();
        for cut in 0..=stream.len() {
            let mut reader = FrameReader::new();
            let mut out = Vec::new();
            reader.feed(&stream[..cut]);
            drain(&mut reader, Some(1), &mut out).unwrap();
            reader.feed(&stream[cut..]);
            drain(&mut reader, Some(1), &mut out).unwrap();
            assert_eq!(out, frames, "cut at {cut}");
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn consecutive_rows_come_as_one_run() {
        let mut reader = FrameReader::new();
        reader.feed(&[row(2, b"12345678"), row(2, b"12345678"), row(2, b"123")].concat());
        reader.feed(&row(2, b"partial")[..9]);
        let Ok(Some(Scanned::Rows(run))) = reader.next(None) else {
            panic!("no run")
        };
        assert_eq!(run.rows, 3);
        assert_eq!(reader.next(None), Ok(None));
    }

    #[test]
    fn hostile_lengths_are_refused_before_their_bytes_arrive() {
        for length in [i32::MIN, -1, 0, 3, i32::MAX] {
            for tag in [b'D', b'C', b'd'] {
                let mut reader = FrameReader::new();
                reader.feed(&[tag]);
                reader.feed(&length.to_be_bytes());
                assert!(matches!(reader.next(None), Err(FrameFault::Frame(_))));
                assert!(reader.buffer.capacity() < 1024);
            }
        }
    }

    #[test]
    fn rows_without_a_column_count_are_refused() {
        for length in [4i32, 5] {
            let mut reader = FrameReader::new();
            reader.feed(b"D");
            reader.feed(&length.to_be_bytes());
            reader.feed(&[0; 16]);
            assert_eq!(reader.next(None), Err(FrameFault::TruncatedRow));
        }
    }

    #[test]
    fn a_wrong_column_count_is_refused_behind_the_good_rows() {
        let mut reader = FrameReader::new();
        reader.feed(&[row(1, b"abcd"), row(2, b"abcd")].concat());
        assert!(matches!(reader.next(Some(1)), Ok(Some(Scanned::Rows(run))) if run.rows == 1));
        let fault = FrameFault::Columns {
            expected: 1,
            found: 2,
        };
        assert_eq!(reader.next(Some(1)), Err(fault));
    }

    #[tokio::test]
    async fn huge_frames_grow_the_buffer_with_what_arrives() {
        let mut stream = row(1, &vec![7; 3 << 20]);
        stream.extend(message(b'Z', b"I"));
        let mut socket = &stream[..];
        let mut reader = FrameReader::new();
        let mut out = Vec::new();
        let mut peak = 0;
        loop {
            drain(&mut reader, None, &mut out).unwrap();
            peak = peak.max(reader.buffer.capacity());
            let read = std::future::poll_fn(|cx| reader.poll_fill(&mut socket, cx)).await;
            if read.unwrap() == 0 {
                break;
            }
            let held = reader.buffer.len();
            assert!(reader.buffer.capacity() <= 2 * held.max(CHUNK_BYTES_MAX) + CHUNK_BYTES_MAX);
        }
        assert_eq!(out.concat(), stream);
        assert!(peak < 8 << 20);
        reader.release(false);
        assert_eq!(reader.buffer.capacity(), 0);
    }

    #[tokio::test]
    async fn held_runs_cost_at_most_twice_their_bytes() {
        let stream = row(1, &[1; 90]).repeat(20_000);
        let mut reader = FrameReader::new();
        let (mut held, mut buffers) = (Vec::new(), 0);
        // Small arrivals while the consumer keeps everything.
        for part in stream.chunks(5_000) {
            let mut socket = part;
            while !socket.is_empty() {
                let before = reader.buffer.capacity();
                let _ = std::future::poll_fn(|cx| reader.poll_fill(&mut socket, cx)).await;
                buffers += usize::from(reader.buffer.capacity() > before);
            }
            while let Ok(Some(Scanned::Rows(run))) = reader.next(None) {
                held.push(run.frames);
            }
        }
        let bytes: usize = held.iter().map(Bytes::len).sum();
        assert_eq!(bytes, stream.len());
        assert!(buffers * CHUNK_BYTES_MIN <= 3 * bytes, "{buffers} buffers");
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_decoding(
            frames in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40).prop_map(|b| row(3, &b)),
                    (prop::sample::select(&b"TCNSEAZ123nsIddd"[..]), prop::collection::vec(any::<u8>(), 0..40))
                        .prop_map(|(t, b)| message(t, &b)),
                ],
                0..60,
            ),
            cuts in prop::collection::vec(1usize..50, 1..40),
        ) {
            let stream = frames.concat();
            let mut reader = FrameReader::new();
            let mut out = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                reader.feed(head);
                drain(&mut reader, Some(3), &mut out).unwrap();
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(out, frames);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), columns in any::<Option<u16>>()) {
            let mut reader = FrameReader::new();
            reader.feed(&bytes);
            while let Ok(Some(_)) = reader.next(columns) {}
        }
    }
}
