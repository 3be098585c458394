//! The values of a stage's column, each once: what later stages are restricted to.
//!
//! ```text
//! (7 a) (7 b) (NULL c) (9 d)  ─→  {7,9}
//! ```
//! NULLs equal nothing and are left out. Many values are forgotten: as a filter they would leave most rows, and they would have to
//! be held and sent.

use std::hash::BuildHasher;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::row::{self, ROW_HEADER_BYTES};
use crate::backend::raw_conn::Run;

/// More values than this are no filter. A shard compares a row with so many in one look at a hash table, or looks them up in an
/// index one by one, which is still less than moving its rows.
const VALUES_MAX: usize = 20_000;
/// As many bytes of values, with their lengths, are no filter either.
const BYTES_MAX: usize = 512 << 10;

/// The different values of one column so far.
pub(super) struct StageKeys {
    /// Its position in the rows.
    pub(super) column: usize,
    /// Seeded, so that nobody can choose values that collide.
    hasher: RandomState,
    seen: HashTable<Range<usize>>,
    /// Each behind its length, as elements of an array are sent.
    values: Vec<u8>,
    too_many: bool,
}

impl StageKeys {
    pub(super) fn new(column: usize) -> Self {
        Self {
            column,
            hasher: RandomState::default(),
            seen: HashTable::new(),
            values: Vec::new(),
            too_many: false,
        }
    }

    /// Adds the values of a run; `None` when a row is malformed.
    pub(super) fn add(&mut self, run: &Run) -> Option<()> {
        let mut start = 0;
        for _ in 0..run.rows {
            if self.too_many {
                return Some(());
            }
            let end = row::frame_end(&run.frames, start)?;
            let frame = &run.frames[..end];
            let at = row::skip_columns(frame, start + ROW_HEADER_BYTES, self.column)?;
            if let (Some(value), _) = row::column(frame, at)? {
                self.insert(value);
            }
            start = end;
        }
        Some(())
    }

    fn insert(&mut self, value: &[u8]) {
        let (values, hasher) = (&self.values, &self.hasher);
        let hash = hasher.hash_one(value);
        if self
            .seen
            .find(hash, |r| &values[r.clone()] == value)
            .is_some()
        {
            return;
        }
        let start = values.len() + 4;
        let full = start + value.len() > BYTES_MAX || self.seen.len() == VALUES_MAX;
        if full {
            self.too_many = true;
            self.seen = HashTable::new();
            self.values = Vec::new();
            return;
        }
        self.values.put_i32(value.len() as i32);
        self.values.extend_from_slice(value);
        let (values, hasher) = (&self.values, &self.hasher);
        self.seen.insert_unique(hash, start..values.len(), |r| {
            hasher.hash_one(&values[r.clone()])
        });
    }

    /// The values as a binary array of this element type; `None` when they were too many.
    pub(super) fn array(&self, element: u32) -> Option<Bytes> {
        if self.too_many {
            return None;
        }
        let mut array = BytesMut::with_capacity(20 + self.values.len());
        array.put_i32(i32::from(!self.seen.is_empty()));
        array.put_i32(0);
        array.put_u32(element);
        if !self.seen.is_empty() {
            array.put_u32(self.seen.len() as u32);
            array.put_i32(1);
            array.put_slice(&self.values);
        }
        Some(array.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::testing::run;
    use super::*;
    use crate::types::oid;

    #[test]
    fn values_come_once_and_nulls_not_at_all() {
        let mut keys = StageKeys::new(1);
        keys.add(&run(&[&[None, Some(b"a")], &[Some(b"x"), None]]))
            .unwrap();
        keys.add(&run(&[&[None, Some(b"a")], &[None, Some(b"bc")]]))
            .unwrap();
        let array = keys.array(oid::TEXT).unwrap();
        let words = |w: &[i32]| w.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
        let expected = [&words(&[1, 0, 25, 2, 1, 1])[..], b"a", &words(&[2]), b"bc"];
        assert_eq!(array, expected.concat());
    }

    #[test]
    fn no_values_are_an_empty_array() {
        let array = StageKeys::new(0).array(oid::INT8).unwrap();
        assert_eq!(array[..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20]);
    }

    #[test]
    fn too_many_values_are_no_filter() {
        let mut keys = StageKeys::new(0);
        for n in 0..=VALUES_MAX as u32 {
            let value: &[u8] = &n.to_be_bytes();
            keys.add(&run(&[&[Some(value)]])).unwrap();
        }
        assert_eq!(keys.array(oid::INT4), None);
        let long = vec![b'x'; BYTES_MAX];
        let mut keys = StageKeys::new(0);
        keys.add(&run(&[&[Some(&long)]])).unwrap();
        assert_eq!(keys.array(oid::TEXT), None);
    }

    #[test]
    fn rows_without_the_column_are_malformed() {
        assert_eq!(StageKeys::new(1).add(&run(&[&[Some(b"a")]])), None);
    }
}
