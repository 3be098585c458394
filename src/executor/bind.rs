//! Bind messages: the client's parameters as they came, the proxy's own behind them, and a format for each result column.

use bytes::{BufMut, BytesMut};

use super::Parameters;
use crate::protocol::messages::frame;

/// Formats of result columns in the shortest form Bind knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ResultFormats {
    /// All columns alike.
    All(i16),
    Each(Vec<i16>),
}

impl ResultFormats {
    pub(super) fn new(formats: impl Iterator<Item = i16> + Clone) -> Self {
        let first = formats.clone().next().unwrap_or(0);
        if formats.clone().all(|f| f == first) {
            Self::All(first)
        } else {
            Self::Each(formats.collect())
        }
    }
}

/// A value the proxy adds behind the client's, in binary form.
pub(super) type Added = bytes::Bytes;

/// Appends a Bind of `statement` to `portal`.
pub(super) fn bind(
    portal: &str,
    statement: &str,
    parameters: &Parameters,
    added: &[Added],
    formats: &ResultFormats,
    out: &mut BytesMut,
) {
    frame(b'B', out, |out| {
        out.put_slice(portal.as_bytes());
        out.put_u8(0);
        out.put_slice(statement.as_bytes());
        out.put_u8(0);
        let count = (parameters.values.len() + added.len()) as u16;
        out.put_u16(count);
        for format in &parameters.formats {
            out.put_i16(*format);
        }
        added.iter().for_each(|_| out.put_i16(1));
        out.put_u16(count);
        for value in &parameters.values {
            put_value(value.as_deref(), out);
        }
        for value in added {
            put_value(Some(value), out);
        }
        match formats {
            ResultFormats::All(format) => {
                out.put_u16(1);
                out.put_i16(*format);
            }
            ResultFormats::Each(each) => {
                out.put_u16(each.len() as u16);
                each.iter().for_each(|f| out.put_i16(*f));
            }
        }
    });
}

/// About how many bytes a Bind and the messages around it take: room for them is made once.
pub(super) fn size_hint(parameters: &Parameters) -> usize {
    let values = parameters.values.iter().flatten().map(|v| v.len() + 6);
    values.sum::<usize>() + 192
}

fn put_value(value: Option<&[u8]>, out: &mut BytesMut) {
    match value {
        Some(v) => {
            out.put_i32(v.len() as i32);
            out.put_slice(v);
        }
        None => out.put_i32(-1),
    }
}
