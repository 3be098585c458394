//! Rows that a cursor keeps: for going backward, or because its transaction is over.

use bytes::{Bytes, BytesMut};

use crate::backend::raw_conn::Run;
use crate::protocol::frame::frame_length;

/// Rows are handed out in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;

/// DataRow frames, one behind the other. Rows that have been passed over and are kept no more count all the same.
#[derive(Debug, Default)]
pub struct Kept {
    /// Rows before those that are here.
    gone: u64,
    frames: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Kept {
    /// The number of the last row there was.
    pub fn last(&self) -> u64 {
        self.gone + self.ends.len() as u64
    }

    /// True when every row so far is here.
    pub fn is_whole(&self) -> bool {
        self.gone == 0
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.frames.len() + self.ends.len() * size_of::<usize>()
    }

    /// Rows that need not be kept.
    pub fn pass(&mut self, rows: u64) {
        self.gone += rows;
    }

    /// Forgets the rows up to the last one.
    pub fn forget(&mut self) {
        *self = Self {
            gone: self.last(),
            ..Self::default()
        };
    }

    /// `None` when a frame is malformed.
    pub fn add(&mut self, run: &Run) -> Option<()> {
        let base = self.frames.len();
        let mut at = 0;
        for _ in 0..run.rows {
            let length = frame_length(run.frames.get(at..)?, usize::MAX).ok()??;
            at += length;
            if at > run.frames.len() {
                return None;
            }
            self.ends.push(base + at);
        }
        self.frames.extend_from_slice(&run.frames[..at]);
        Some(())
    }

    /// Rows from number `first` on, at most `count` and a piece, in their order; none when they are not here.
    pub fn piece(&self, first: u64, count: u64) -> Run {
        let Some(index) = self.index(first) else {
            return empty();
        };
        let start = self.start(index);
        let full = |end: &usize| *end - start >= PIECE_BYTES;
        let ends = &self.ends[index..];
        let most = usize::try_from(count).unwrap_or(usize::MAX).min(ends.len());
        let rows = ends[..most].iter().position(full).map_or(most, |i| i + 1);
        let end = self.start(index + rows);
        Run {
            frames: Bytes::copy_from_slice(&self.frames[start..end]),
            rows: rows as u32,
        }
    }

    /// Rows from number `first` on, at most `count` and a piece, each before the one read last.
    pub fn piece_backward(&self, first: u64, count: u64) -> Run {
        let mut frames = BytesMut::new();
        let mut rows = 0;
        while u64::from(rows) < count && frames.len() < PIECE_BYTES {
            let Some(index) = first
                .checked_sub(u64::from(rows))
                .and_then(|n| self.index(n))
            else {
                break;
            };
            frames.extend_from_slice(&self.frames[self.start(index)..self.ends[index]]);
            rows += 1;
        }
        Run {
            frames: frames.freeze(),
            rows,
        }
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = number.checked_sub(self.gone + 1)?;
        let index = usize::try_from(index).ok()?;
        (index < self.ends.len()).then_some(index)
    }

    /// Where the row of this index begins.
    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

fn empty() -> Run {
    Run {
        frames: Bytes::new(),
        rows: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: u8, bytes: usize) -> Vec<u8> {
        let mut frame = vec![b'D'];
        frame.extend_from_slice(&(bytes as u32 + 4).to_be_bytes());
        frame.resize(bytes + 5, value);
        frame
    }

    fn kept(sizes: &[usize]) -> Kept {
        let mut kept = Kept::default();
        let rows = sizes.iter().enumerate();
        let frames: Vec<u8> = rows.flat_map(|(i, n)| row(i as u8 + 1, *n)).collect();
        let run = Run {
            frames: frames.into(),
            rows: sizes.len() as u32,
        };
        kept.add(&run).unwrap();
        kept
    }

    #[test]
    fn rows_come_out_in_both_directions() {
        let kept = kept(&[1, 2, 3]);
        assert_eq!(kept.last(), 3);
        assert_eq!(kept.piece(2, 9).frames, [row(2, 2), row(3, 3)].concat());
        assert_eq!(kept.piece(1, 1).frames, row(1, 1));
        let back = kept.piece_backward(2, 9);
        assert_eq!(
            (back.rows, &back.frames[..]),
            (2, &[row(2, 2), row(1, 1)].concat()[..])
        );
        assert_eq!(kept.piece(4, 1).rows, 0);
    }

    #[test]
    fn large_rows_come_in_pieces() {
        let kept = kept(&[PIECE_BYTES, 1, 1]);
        assert_eq!(kept.piece(1, 3).rows, 1);
        assert_eq!(kept.piece(2, 3).rows, 2);
        assert_eq!(kept.piece_backward(3, 3).rows, 3);
    }

    #[test]
    fn forgotten_rows_keep_their_numbers() {
        let mut kept = kept(&[1, 1]);
        kept.forget();
        kept.pass(3);
        assert_eq!((kept.last(), kept.bytes(), kept.is_whole()), (5, 0, false));
        let run = Run {
            frames: row(6, 1).into(),
            rows: 1,
        };
        kept.add(&run).unwrap();
        assert_eq!(kept.piece(6, 1).frames, row(6, 1));
        assert_eq!(kept.piece(5, 1).rows, 0);
    }

    #[test]
    fn a_frame_that_is_not_whole_is_refused() {
        let run = Run {
            frames: Bytes::from_static(b"D\0\0\0\x09\0"),
            rows: 1,
        };
        assert!(Kept::default().add(&run).is_none());
    }
}
