//! Messages the proxy writes and reads itself: builders append whole frames, readers never panic on any bytes.

use bytes::{BufMut, Bytes, BytesMut};

/// A column of a RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDescription {
    /// Bytes as the server sent them: names need not be UTF-8.
    pub name: Bytes,
    /// 0 where the column is no table's.
    pub table_oid: u32,
    /// `attnum` in that table, else 0.
    pub attribute: i16,
    /// As the sender numbers types.
    pub type_oid: u32,
    /// `typlen`; negative for a varying length.
    pub type_length: i16,
    /// `atttypmod`; -1 without one.
    pub type_modifier: i32,
    /// 0 text, 1 binary.
    pub format: i16,
}

/// Reads the body of a RowDescription; `None` when it is malformed.
pub fn parse_row_description(body: &[u8]) -> Option<Vec<ColumnDescription>> {
    let mut r = Reader(body);
    let count = r.i16()?;
    let mut columns = Vec::with_capacity(usize::try_from(count).ok()?.min(1664));
    for _ in 0..count {
        columns.push(ColumnDescription {
            name: Bytes::copy_from_slice(r.cstr()?),
            table_oid: r.u32()?,
            attribute: r.i16()?,
            type_oid: r.u32()?,
            type_length: r.i16()?,
            type_modifier: r.i32()?,
            format: r.i16()?,
        });
    }
    r.0.is_empty().then_some(columns)
}

/// Appends a RowDescription.
pub fn row_description(columns: &[ColumnDescription], out: &mut BytesMut) {
    frame(b'T', out, |out| {
        out.put_i16(columns.len() as i16);
        for c in columns {
            out.put_slice(&c.name);
            out.put_u8(0);
            out.put_u32(c.table_oid);
            out.put_i16(c.attribute);
            out.put_u32(c.type_oid);
            out.put_i16(c.type_length);
            out.put_i32(c.type_modifier);
            out.put_i16(c.format);
        }
    });
}

/// Reads the body of a ParameterDescription.
pub fn parse_parameter_description(body: &[u8]) -> Option<Vec<u32>> {
    let mut r = Reader(body);
    let count = r.i16()? as u16;
    let oids = (0..count).map(|_| r.u32()).collect::<Option<Vec<_>>>()?;
    r.0.is_empty().then_some(oids)
}

/// Appends a ParameterDescription.
pub fn parameter_description(oids: &[u32], out: &mut BytesMut) {
    frame(b't', out, |out| {
        out.put_u16(oids.len() as u16);
        oids.iter().for_each(|oid| out.put_u32(*oid));
    });
}

/// Appends a CommandComplete with a tag such as `SELECT 5`.
pub fn command_complete(tag: &str, out: &mut BytesMut) {
    command_complete_bytes(tag.as_bytes(), out);
}

/// As `command_complete`, with a shard's own tag, which need not be UTF-8.
pub fn command_complete_bytes(tag: &[u8], out: &mut BytesMut) {
    frame(b'C', out, |out| {
        out.put_slice(tag);
        out.put_u8(0);
    });
}

/// Appends a ReadyForQuery: `I` idle, `T` in a transaction, `E` in a failed one.
pub fn ready_for_query(status: u8, out: &mut BytesMut) {
    frame(b'Z', out, |out| out.put_u8(status));
}

/// Appends a ParameterStatus: a setting's value at present.
pub fn parameter_status(name: &str, value: &str, out: &mut BytesMut) {
    frame(b'S', out, |out| {
        out.put_slice(name.as_bytes());
        out.put_u8(0);
        out.put_slice(value.as_bytes());
        out.put_u8(0);
    });
}

/// A message without a body: ParseComplete `1`, BindComplete `2`, CloseComplete `3`, NoData `n`, EmptyQueryResponse `I`, PortalSuspended `s`.
pub fn bare(tag: u8, out: &mut BytesMut) {
    out.put_slice(&[tag, 0, 0, 0, 4]);
}

/// Appends a frame whose body `write` makes.
pub fn frame(tag: u8, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u8(tag);
    out.put_i32(0);
    write(out);
    let length = (out.len() - start - 1) as i32;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
}

/// A Parse message: `statement`, `sql` and parameter type OIDs.
pub fn parse(statement: &str, sql: &str, oids: &[u32], out: &mut BytesMut) {
    frame(b'P', out, |out| {
        put_cstr(statement, out);
        put_cstr(sql, out);
        out.put_u16(oids.len() as u16);
        oids.iter().for_each(|oid| out.put_u32(*oid));
    });
}

/// Describe (`D`) or Close (`C`) of a statement (`S`) or portal (`P`).
pub fn describe_or_close(tag: u8, kind: u8, name: &str, out: &mut BytesMut) {
    frame(tag, out, |out| {
        out.put_u8(kind);
        put_cstr(name, out);
    });
}

/// Execute with a row limit; 0: all rows.
pub fn execute(portal: &str, max_rows: u32, out: &mut BytesMut) {
    frame(b'E', out, |out| {
        put_cstr(portal, out);
        out.put_u32(max_rows);
    });
}

/// Appends a CommandComplete "SELECT n".
pub fn select_complete(rows: u64, out: &mut BytesMut) {
    let mut buffer = itoa::Buffer::new();
    let mut tag = String::with_capacity(28);
    tag.push_str("SELECT ");
    tag.push_str(buffer.format(rows));
    command_complete(&tag, out);
}

/// Appends a Sync.
pub fn sync(out: &mut BytesMut) {
    bare(b'S', out);
}

/// Appends a Flush.
pub fn flush(out: &mut BytesMut) {
    bare(b'H', out);
}

/// Appends a Query; `sql` must be without NUL.
pub fn query(sql: &str, out: &mut BytesMut) {
    frame(b'Q', out, |out| put_cstr(sql, out));
}

fn put_cstr(text: &str, out: &mut BytesMut) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

/// A cursor over a message body; every read is checked.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `n` bytes; `None`, and nothing consumed, when there are fewer.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    /// The next two bytes, big-endian.
    pub fn i16(&mut self) -> Option<i16> {
        self.take(2).map(|b| i16::from_be_bytes([b[0], b[1]]))
    }

    /// The next four bytes, big-endian.
    pub fn i32(&mut self) -> Option<i32> {
        self.take(4)
            .map(|b| i32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The next four bytes, big-endian: OIDs.
    pub fn u32(&mut self) -> Option<u32> {
        self.i32().map(|v| v as u32)
    }

    /// The bytes before the next NUL, which is consumed.
    pub fn cstr(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    /// A value with its i32 length; `Some(None)` is NULL.
    pub fn value(&mut self) -> Option<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Some(None),
            n => self.take(usize::try_from(n).ok()?).map(Some),
        }
    }
}
