//! COPY TO STDOUT of rows that are put together here: DataRow frames become CopyData frames, a run at a time.
//!
//! A tuple of the binary format is the body of a DataRow. In the text formats a DataRow's values are what the type's output function
//! prints, as they would be in PostgreSQL's own COPY (`CopyAttributeOutText` and `CopyAttributeOutCSV` in its copyto.c); only the
//! escapes are made here.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};

use super::copy_gather::{BINARY_HEADER, BINARY_TRAILER, CopyHead};
use super::pipeline::Pipeline;
use super::{Bound, Execution, Item, error, row};
use crate::backend::connections::Connections;
use crate::backend::raw_conn::Run;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::messages;

/// How rows become data.
#[derive(Debug, Clone)]
pub enum Written {
    /// The shards have done it.
    Already,
    /// FORMAT binary.
    Binary,
    /// FORMAT text.
    Text(Box<TextForm>),
    /// FORMAT csv.
    Csv(Box<CsvForm>),
}

/// FORMAT text.
#[derive(Debug, Clone)]
pub struct TextForm {
    delimiter: u8,
    null: Bytes,
    /// What is written behind a backslash for a byte; 0: the byte itself without one.
    escapes: [u8; 256],
}

/// FORMAT csv.
#[derive(Debug, Clone)]
pub struct CsvForm {
    /// Between values.
    pub delimiter: u8,
    /// For NULL.
    pub null: Bytes,
    /// Around values that need it.
    pub quote: u8,
    /// Before a quote or itself within quotes.
    pub escape: u8,
    /// Columns whose values are quoted in any case; the others where they must.
    pub force_quote: Vec<bool>,
}

impl TextForm {
    /// FORMAT text with these options.
    pub fn new(delimiter: u8, null: Bytes) -> Self {
        let mut escapes = [0; 256];
        for (byte, letter) in b"\x08\x0c\n\r\t\x0b".iter().zip(b"bfnrtv") {
            escapes[usize::from(*byte)] = *letter;
        }
        escapes[usize::from(b'\\')] = b'\\';
        let own = &mut escapes[usize::from(delimiter)];
        if *own == 0 {
            *own = delimiter;
        }
        Self {
            delimiter,
            null,
            escapes,
        }
    }

    fn value(&self, mut value: &[u8], out: &mut BytesMut) {
        let escape = |byte: &u8| self.escapes[usize::from(*byte)];
        while let Some(at) = value.iter().position(|b| escape(b) != 0) {
            out.put_slice(&value[..at]);
            out.put_slice(&[b'\\', escape(&value[at])]);
            value = &value[at + 1..];
        }
        out.put_slice(value);
    }
}

impl CsvForm {
    fn value(&self, mut value: &[u8], (column, columns): (usize, usize), out: &mut BytesMut) {
        let special = |b: &u8| {
            let b = *b;
            b == self.delimiter || b == self.quote || b == b'\n' || b == b'\r'
        };
        let quoted = self.force_quote.get(column) == Some(&true)
            || value == self.null
            // Alone in a line it would end the data.
            || (columns == 1 && value == b"\\.")
            || value.iter().any(special);
        if !quoted {
            return out.put_slice(value);
        }
        out.put_u8(self.quote);
        while let Some(at) = memchr::memchr2(self.quote, self.escape, value) {
            out.put_slice(&value[..at]);
            out.put_slice(&[self.escape, value[at]]);
            value = &value[at + 1..];
        }
        out.put_slice(value);
        out.put_u8(self.quote);
    }
}

impl Execution {
    /// As COPY TO STDOUT gives its rows.
    #[must_use]
    pub fn copying(self, copy: CopyOut) -> Self {
        Self {
            copy: Some(Box::new(copy)),
            ..self
        }
    }

    /// A COPY … TO STDOUT, the client's own text on these shards: their data as one.
    pub fn copied(shards: Vec<ShardId>, sql: Arc<str>, head: CopyHead, bound: Bound) -> Self {
        let bound = Arc::new(bound);
        let pipeline = Pipeline::copied(&shards, sql, head);
        Self::over(pipeline, bound, shards).copying(CopyOut::relayed())
    }

    pub(super) fn poll_copy(
        &mut self,
        connections: &mut Connections,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Item, ServerError>> {
        if let Some(complete) = self.copy.as_mut().and_then(|copy| copy.complete()) {
            return Poll::Ready(Ok(complete));
        }
        match (ready!(self.poll_item(connections, cx))?, &mut self.copy) {
            (item, Some(copy)) => Poll::Ready(copy.item(item)),
            (item, None) => Poll::Ready(Ok(item)),
        }
    }
}

/// The data of one COPY on its way to the client.
#[derive(Debug, Clone)]
pub struct CopyOut {
    /// CopyOutResponse and what comes before the rows, until that is out.
    head: Option<Bytes>,
    written: Written,
    rows: u64,
    /// The end, once CopyDone is out.
    complete: Option<Bytes>,
}

impl CopyOut {
    /// With a CopyOutResponse, and the CopyData of the columns' names if they are wanted, as one server sends them.
    pub fn new(head: Bytes, written: Written) -> Self {
        Self {
            head: Some(head),
            written,
            rows: 0,
            complete: None,
        }
    }

    /// The shards' own data: only its end is ours.
    pub(super) fn relayed() -> Self {
        Self {
            head: None,
            written: Written::Already,
            rows: 0,
            complete: None,
        }
    }

    /// The item behind CopyDone.
    pub(super) fn complete(&mut self) -> Option<Item> {
        let tag = self.complete.take()?;
        Some(Item::Complete { tag: Some(tag) })
    }

    /// What an item of the execution is to the client.
    ///
    /// # Errors
    /// XX000 for a row that is none.
    pub(super) fn item(&mut self, item: Item) -> Result<Item, ServerError> {
        match item {
            Item::Rows(run) => self.rows(run).map(Item::Rows),
            Item::Complete { tag } => Ok(Item::Forward(self.end(tag))),
            other => Ok(other),
        }
    }

    fn rows(&mut self, run: Run) -> Result<Run, ServerError> {
        if matches!(self.written, Written::Already) {
            return Ok(run);
        }
        // Escapes are rare, and delimiters are shorter than lengths.
        let mut out = BytesMut::with_capacity(run.frames.len() + run.frames.len() / 8 + 64);
        let mut signature: &[u8] = &[];
        if let Some(head) = self.head.take() {
            out.put_slice(&head);
            if matches!(self.written, Written::Binary) {
                signature = BINARY_HEADER;
            }
        }
        let mut start = 0;
        for _ in 0..run.rows {
            let body = row::frame_end(&run.frames, start)
                .map(|end| (start + HEADER_BYTES, end))
                .and_then(|(from, end)| self.row(&run.frames[from..end], signature, &mut out));
            let Some(length) = body else {
                return Err(error::malformed_row("?"));
            };
            start += length + HEADER_BYTES;
            signature = &[];
        }
        self.rows += u64::from(run.rows);
        Ok(Run {
            frames: out.freeze(),
            rows: run.rows,
        })
    }

    /// Appends the CopyData of a row; returns the length of `body`, or `None` where it is none.
    #[inline]
    fn row(&self, body: &[u8], signature: &[u8], out: &mut BytesMut) -> Option<usize> {
        let start = out.len();
        out.put_slice(b"d\0\0\0\0");
        out.put_slice(signature);
        match &self.written {
            Written::Already => return None,
            Written::Binary => out.put_slice(body),
            Written::Text(form) => {
                values(body, out, form.delimiter, |value, _, out| match value {
                    Some(value) => form.value(value, out),
                    None => out.put_slice(&form.null),
                })?
            }
            Written::Csv(form) => {
                values(body, out, form.delimiter, |value, at, out| match value {
                    Some(value) => form.value(value, at, out),
                    None => out.put_slice(&form.null),
                })?
            }
        }
        let length = (out.len() - start - 1) as u32;
        out[start + 1..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        Some(body.len())
    }

    /// What follows the rows, up to CopyDone.
    fn end(&mut self, tag: Option<Bytes>) -> Bytes {
        let mut out = BytesMut::new();
        let head = self.head.take();
        out.put_slice(head.as_deref().unwrap_or_default());
        match (&self.written, head) {
            (Written::Binary, None) => out.put_slice(BINARY_TRAILER),
            (Written::Binary, Some(_)) => messages::frame(b'd', &mut out, |out| {
                out.put_slice(BINARY_HEADER);
                out.put_slice(&BINARY_TRAILER[HEADER_BYTES..]);
            }),
            _ => {}
        }
        messages::bare(b'c', &mut out);
        self.complete = Some(match self.written {
            Written::Already => tag.unwrap_or_default(),
            _ => format!("COPY {}", self.rows).into(),
        });
        out.freeze()
    }
}

/// Appends the values of a DataRow's body and the end of their line. `write` is given a value, and its place and their number.
#[inline]
fn values(
    body: &[u8],
    out: &mut BytesMut,
    delimiter: u8,
    write: impl Fn(Option<&[u8]>, (usize, usize), &mut BytesMut),
) -> Option<()> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count));
    for column in 0..count {
        let value;
        (value, rest) = row::take_column(rest)?;
        if column > 0 {
            out.put_u8(delimiter);
        }
        write(value, (column, count), out);
    }
    out.put_u8(b'\n');
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::super::row::testing::run;
    use super::*;

    /// The data of rows in two runs, behind the head `h`.
    fn data(written: &Written, rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut copy = CopyOut::new(Bytes::from_static(b"h"), written.clone());
        let (first, second) = rows.split_at(rows.len() / 2);
        let mut all = Vec::new();
        for part in [first, second] {
            if part.is_empty() {
                continue;
            }
            let Ok(Item::Rows(run)) = copy.item(Item::Rows(run(part))) else {
                panic!("no rows");
            };
            all.extend_from_slice(&run.frames);
        }
        let Ok(Item::Forward(end)) = copy.item(Item::Complete { tag: None }) else {
            panic!("no end");
        };
        all.extend_from_slice(&end);
        let Some(Item::Complete { tag: Some(tag) }) = copy.complete() else {
            panic!("no tag");
        };
        assert_eq!(tag, format!("COPY {}", rows.len()));
        assert!(copy.complete().is_none());
        bodies(all.strip_prefix(b"h").expect("the head first"))
    }

    /// What the frames hold.
    fn bodies(mut frames: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some([tag, a, b, c, d]) = frames.first_chunk::<5>() {
            let end = 1 + u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            if *tag == b'c' {
                assert_eq!(frames.len(), 5, "bytes behind CopyDone");
                return out;
            }
            assert_eq!(*tag, b'd');
            out.extend_from_slice(&frames[5..end]);
            frames = &frames[end..];
        }
        panic!("no CopyDone")
    }

    fn text(delimiter: u8, null: &'static str) -> Written {
        let form = TextForm::new(delimiter, Bytes::from_static(null.as_bytes()));
        Written::Text(Box::new(form))
    }

    fn csv(quote: u8, escape: u8, force_quote: &[bool]) -> Written {
        Written::Csv(Box::new(CsvForm {
            delimiter: b',',
            null: Bytes::from_static(b"nil"),
            quote,
            escape,
            force_quote: force_quote.to_vec(),
        }))
    }

    #[test]
    fn text_escapes_what_it_must() {
        let row: &[Option<&[u8]>] = &[Some(b"a\\b\tc\nd\r\x08\x0c\x0b|\x01"), None, Some(b"")];
        let tab = b"a\\\\b\\tc\\nd\\r\\b\\f\\v|\x01\t\\N\t\n";
        assert_eq!(data(&text(b'\t', "\\N"), &[row]), tab);
        let bar = b"a\\\\b\\tc\\nd\\r\\b\\f\\v\\|\x01|x|\n";
        assert_eq!(data(&text(b'|', "x"), &[row]), bar);
        let control = b"a\\\\b\\tc\\nd\\r\\b\\f\\v|\\\x01\x01\x01\n";
        assert_eq!(data(&text(1, ""), &[row]), control);
        assert_eq!(data(&text(b'\t', "\\N"), &[]), b"");
    }

    #[test]
    fn csv_quotes_what_it_must() {
        let form = csv(b'"', b'"', &[]);
        let one = |value: &'static [u8]| data(&form, &[&[Some(value)]]);
        assert_eq!(one(b"a b"), b"a b\n");
        assert_eq!(one(b"a,b"), b"\"a,b\"\n");
        assert_eq!(one(b"a\"b"), b"\"a\"\"b\"\n");
        assert_eq!(one(b"a\nb"), b"\"a\nb\"\n");
        assert_eq!(one(b"nil"), b"\"nil\"\n");
        assert_eq!(one(b"\\."), b"\"\\.\"\n");
        assert_eq!(one(b""), b"\n");
        assert_eq!(data(&form, &[&[Some(b"\\."), None]]), b"\\.,nil\n");
        let forced = csv(b'\'', b'\\', &[true, false]);
        let rows: &[&[Option<&[u8]>]] = &[&[Some(b"a\\'"), Some(b"a\\")], &[None, Some(b"'")]];
        assert_eq!(data(&forced, rows), b"'a\\\\\\'',a\\\nnil,'\\''\n");
    }

    #[test]
    fn binary_tuples_are_the_bodies_of_rows() {
        let rows: &[&[Option<&[u8]>]] = &[&[Some(b"ab")], &[None]];
        let tuples = b"\0\x01\0\0\0\x02ab\0\x01\xff\xff\xff\xff\xff\xff";
        let whole = [BINARY_HEADER, tuples].concat();
        assert_eq!(data(&Written::Binary, rows), whole);
        let empty = [BINARY_HEADER, b"\xff\xff"].concat();
        assert_eq!(data(&Written::Binary, &[]), empty);
    }

    #[test]
    fn a_row_that_is_none_is_an_error() {
        let mut copy = CopyOut::new(Bytes::new(), text(b'\t', ""));
        let frames = Bytes::from_static(b"D\0\0\0\x0a\0\x02\0\0\0\0");
        assert!(copy.item(Item::Rows(Run { frames, rows: 1 })).is_err());
    }
}
