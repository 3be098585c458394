//! DataRow frames in a run: where each ends, where its columns are, and runs cut at row boundaries. Every read is checked:
//! a row whose columns do not fill its frame is `None`, never a panic.

use bytes::{BufMut, BytesMut};

use crate::backend::raw_conn::Run;

/// Bytes before the first column: tag, length, column count.
pub(super) const ROW_HEADER_BYTES: usize = 7;

/// The end of the frame that begins at `start`; `None` when it is not wholly there.
#[inline]
pub(super) fn frame_end(frames: &[u8], start: usize) -> Option<usize> {
    let length = *frames.get(start + 1..)?.first_chunk()?;
    let length = u32::from_be_bytes(length) as usize;
    let end = start + 1 + length;
    (length >= 6 && end <= frames.len()).then_some(end)
}

/// The columns of the row whose frame begins at `start`; `None` when it is not wholly there.
#[inline]
pub(super) fn columns(frames: &[u8], start: usize) -> Option<&[u8]> {
    let (header, rest) = frames
        .get(start..)?
        .split_first_chunk::<ROW_HEADER_BYTES>()?;
    let [_, a, b, c, d, ..] = *header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    rest.get(..length.checked_sub(6)?)
}

/// The first column's value, and what follows it.
#[inline]
pub(super) fn take_column(columns: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = columns.split_first_chunk()?;
    match u32::from_be_bytes(*length) {
        u32::MAX => Some((None, rest)),
        length => {
            // Other negative lengths are more than any frame holds.
            let (value, rest) = rest.split_at_checked(length as usize)?;
            Some((Some(value), rest))
        }
    }
}

/// The place behind the column that begins at `at`.
#[inline]
pub(super) fn column_end(frames: &[u8], at: usize) -> Option<usize> {
    skip_columns(frames, at, 1)
}

/// The value of the column that begins at `at`, and the place behind it.
#[inline]
pub(super) fn column(frames: &[u8], at: usize) -> Option<(Option<&[u8]>, usize)> {
    let (value, rest) = take_column(frames.get(at..)?)?;
    Some((value, frames.len() - rest.len()))
}

/// The place behind `count` columns that begin at `at`.
#[inline]
pub(super) fn skip_columns(frames: &[u8], at: usize, count: usize) -> Option<usize> {
    let mut rest = frames.get(at..)?;
    for _ in 0..count {
        (_, rest) = take_column(rest)?;
    }
    Some(frames.len() - rest.len())
}

/// Cuts `run` behind its first `rows` rows; what follows is returned.
pub(super) fn split(run: &mut Run, rows: u32) -> Run {
    let mut at = 0;
    for _ in 0..rows.min(run.rows) {
        match frame_end(&run.frames, at) {
            Some(end) => at = end,
            None => break,
        }
    }
    let rest = Run {
        frames: run.frames.split_off(at),
        rows: run.rows - rows.min(run.rows),
    };
    run.rows = rows.min(run.rows);
    rest
}

/// The header of a frame of `frame_bytes`, itself included, with `count` columns.
#[inline]
pub(super) fn header(frame_bytes: usize, count: u16) -> [u8; ROW_HEADER_BYTES] {
    let [a, b, c, d] = (frame_bytes as u32 - 1).to_be_bytes();
    let [e, f] = count.to_be_bytes();
    [b'D', a, b, c, d, e, f]
}

/// Appends the row whose columns are `columns` (lengths included), `count` of them.
#[inline]
pub(super) fn put(columns: &[u8], count: u16, out: &mut BytesMut) {
    out.reserve(ROW_HEADER_BYTES + columns.len());
    out.put_slice(&header(ROW_HEADER_BYTES + columns.len(), count));
    out.put_slice(columns);
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A run with one row an element; `None` is NULL.
    pub(in crate::executor) fn run(rows: &[&[Option<&[u8]>]]) -> Run {
        let mut out = BytesMut::new();
        for row in rows {
            let mut columns = BytesMut::new();
            for value in *row {
                match value {
                    Some(v) => {
                        columns.put_i32(v.len() as i32);
                        columns.put_slice(v);
                    }
                    None => columns.put_i32(-1),
                }
            }
            put(&columns, row.len() as u16, &mut out);
        }
        Run {
            frames: out.freeze(),
            rows: rows.len() as u32,
        }
    }

    /// The rows of a run, decoded.
    pub(in crate::executor) fn rows(run: &Run) -> Vec<Vec<Option<Vec<u8>>>> {
        let mut all = Vec::new();
        let mut at = 0;
        while at < run.frames.len() {
            let end = frame_end(&run.frames, at).unwrap();
            let count = u16::from_be_bytes([run.frames[at + 5], run.frames[at + 6]]);
            let mut row = Vec::new();
            let mut from = at + ROW_HEADER_BYTES;
            for _ in 0..count {
                let (value, next) = column(&run.frames[..end], from).unwrap();
                row.push(value.map(<[u8]>::to_vec));
                from = next;
            }
            assert_eq!(from, end);
            all.push(row);
            at = end;
        }
        assert_eq!(all.len(), run.rows as usize);
        all
    }
}
