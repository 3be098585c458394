//! GatherMerge: rows of all shards, each sorted, merged into one order; the hidden key columns are cut off on the way.
//!
//! ```text
//! shard 1  (a 1) (d 4) ──┐
//! shard 2  (b 2) (e 5) ──┼─→  (a) (b) (c) (d) (e)
//! shard 3  (c 3) ────────┘
//! ```
//! Holds one run an input and one of output, however many rows pass. A heap of the inputs has the next row on top; a
//! key is read once, as a number that decides most comparisons (see `types::compare`). Equal rows come in the order of shards.

use std::cmp::Ordering;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::operator::{Operator, Source};
use super::{Bound, error, keys, row};
use crate::backend::raw_conn::Run;
use crate::plan::SortKey;
use crate::protocol::error::ServerError;
use crate::types::compare::{KeyOrder, Rank};

/// Output goes out when it has reached this size, or when an input keeps it waiting.
const RUN_BYTES: usize = 64 * 1024;

pub(super) struct GatherMerge {
    bound: Arc<Bound>,
    keys: Vec<SortKey>,
    shape: Shape,
    inputs: Vec<Input>,
    /// Inputs that have a row, as a heap: the one whose row comes first is on top.
    heap: Vec<Head>,
    /// Inputs whose next run must come before anything else can go out.
    missing: Vec<usize>,
    out: BytesMut,
    rows: u32,
}

/// What all rows look like.
struct Shape {
    visible: usize,
    /// Columns between the visible ones and the keys.
    between: usize,
    /// One a key; found from the first input's columns.
    orders: Vec<KeyOrder>,
    /// The rank of the only key says all about a row.
    rank_decides: bool,
}

/// A heap's entry: the rank of the first key, and behind it the input. One comparison decides most, and equal rows come in the
/// order of the inputs.
#[derive(Clone, Copy)]
struct Head(u128);

/// A rank takes 66 bits; shards are numbered in 16.
const INPUT_BITS: u32 = 16;

impl Head {
    #[inline]
    fn new(rank: Rank, input: usize) -> Self {
        Self(rank << INPUT_BITS | input as u128)
    }

    #[inline]
    fn input(self) -> usize {
        usize::from(self.0 as u16)
    }

    #[inline]
    fn rank(self) -> Rank {
        self.0 >> INPUT_BITS
    }
}

/// One shard's rows.
#[derive(Default)]
struct Input {
    frames: Bytes,
    /// Rows of the run behind the current one.
    left: u32,
    /// Current row: from its tag to behind its last visible column.
    row: std::ops::Range<usize>,
    /// Where the next row begins.
    next: usize,
    /// Filled unless the rank of the first key decides alone.
    keys: Vec<Key>,
}

/// One key of a current row.
#[derive(Clone, Default)]
struct Key {
    rank: Rank,
    null: bool,
    /// Where its bytes are in the run.
    value: (usize, usize),
}

impl GatherMerge {
    pub(super) fn new(
        bound: Arc<Bound>,
        keys: Vec<SortKey>,
        visible: usize,
        hidden: usize,
        inputs: usize,
    ) -> Self {
        Self {
            bound,
            shape: Shape {
                visible,
                between: hidden.saturating_sub(keys.len()),
                orders: Vec::new(),
                rank_decides: false,
            },
            inputs: (0..inputs).map(|_| Input::new(keys.len())).collect(),
            heap: Vec::with_capacity(inputs),
            // Filled from its end: inputs are asked in their order.
            missing: (0..inputs).rev().collect(),
            out: BytesMut::new(),
            rows: 0,
            keys,
        }
    }

    /// Gets runs for the inputs that have none; true when all have one or are at their end.
    fn poll_missing(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Result<bool, ServerError> {
        for index in (0..self.missing.len()).rev() {
            let input = self.missing[index];
            match source.poll_run(input, cx)? {
                Poll::Pending => continue,
                Poll::Ready(None) => {}
                Poll::Ready(Some(run)) => {
                    if self.shape.orders.is_empty() {
                        let orders = keys::orders(&self.keys, source.columns(input), &self.bound)?;
                        self.shape.rank_decides = orders.len() == 1 && orders[0].rank_decides();
                        self.shape.orders = orders;
                    }
                    let rank = self.inputs[input]
                        .begin(run, &self.shape)
                        .ok_or_else(|| error::malformed_row(source.name(input)))?;
                    self.heap.push(Head::new(rank, input));
                    self.sift_up();
                }
            }
            self.missing.swap_remove(index);
        }
        Ok(self.missing.is_empty())
    }

    /// Restores the heap after its last element was added.
    fn sift_up(&mut self) {
        let mut child = self.heap.len() - 1;
        while child > 0 {
            let parent = (child - 1) / 2;
            if !before(
                self.heap[child],
                self.heap[parent],
                &self.inputs,
                &self.shape,
            ) {
                return;
            }
            self.heap.swap(child, parent);
            child = parent;
        }
    }

    /// Restores the heap after its top has changed.
    #[inline]
    fn sift_top(&mut self) {
        if self.shape.rank_decides {
            sift_down(&mut self.heap, |a, b| a.0 < b.0);
        } else {
            sift_down(&mut self.heap, |a, b| {
                before(a, b, &self.inputs, &self.shape)
            });
        }
    }

    /// Merges until the output is full or an input has used up its run.
    fn merge(&mut self, source: &dyn Source) -> Result<(), ServerError> {
        while let Some(top) = self.heap.first_mut() {
            if self.out.len() >= RUN_BYTES {
                return Ok(());
            }
            let index = top.input();
            let input = &mut self.inputs[index];
            input.emit(&mut self.out, self.shape.visible);
            self.rows += 1;
            if input.left == 0 {
                self.heap.swap_remove(0);
                self.missing.push(index);
                self.sift_top();
                return Ok(());
            }
            let Some(rank) = input.advance(&self.shape) else {
                return Err(error::malformed_row(source.name(index)));
            };
            *top = Head::new(rank, index);
            self.sift_top();
        }
        Ok(())
    }

    fn flush(&mut self) -> Option<Run> {
        (self.rows > 0).then(|| Run {
            frames: self.out.split().freeze(),
            rows: std::mem::take(&mut self.rows),
        })
    }
}

#[inline]
fn sift_down(heap: &mut [Head], before: impl Fn(Head, Head) -> bool) {
    let mut parent = 0;
    loop {
        let mut child = 2 * parent + 1;
        if child >= heap.len() {
            return;
        }
        let right = child + 1;
        if right < heap.len() && before(heap[right], heap[child]) {
            child = right;
        }
        if !before(heap[child], heap[parent]) {
            return;
        }
        heap.swap(child, parent);
        parent = child;
    }
}

/// True when the row of `a` comes before that of `b`.
#[inline]
fn before(a: Head, b: Head, inputs: &[Input], shape: &Shape) -> bool {
    if shape.rank_decides || a.rank() != b.rank() {
        return a.0 < b.0;
    }
    let (first, second) = (&inputs[a.input()], &inputs[b.input()]);
    match first.compare(second, &shape.orders) {
        Ordering::Equal => a.input() < b.input(),
        order => order == Ordering::Less,
    }
}

impl Input {
    fn new(keys: usize) -> Self {
        Self {
            keys: vec![Key::default(); keys],
            ..Self::default()
        }
    }

    /// Takes a run and moves to its first row.
    fn begin(&mut self, run: Run, shape: &Shape) -> Option<Rank> {
        self.frames = run.frames;
        self.left = run.rows;
        self.next = 0;
        self.advance(shape)
    }

    /// Moves to the next row and gives the rank of its first key; `None` when the row is malformed.
    #[inline]
    fn advance(&mut self, shape: &Shape) -> Option<Rank> {
        let start = self.next;
        let columns = row::columns(&self.frames, start)?;
        let end = start + row::ROW_HEADER_BYTES + columns.len();
        let mut rest = columns;
        for _ in 0..shape.visible {
            (_, rest) = row::take_column(rest)?;
        }
        self.row = start..end - rest.len();
        self.next = end;
        self.left = self.left.saturating_sub(1);
        for _ in 0..shape.between {
            (_, rest) = row::take_column(rest)?;
        }
        let (first, behind) = row::take_column(rest)?;
        let rank = shape.orders.first()?.rank(first)?;
        if shape.rank_decides {
            return behind.is_empty().then_some(rank);
        }
        self.read_keys(end - rest.len(), end, shape)?;
        Some(rank)
    }

    /// Notes all keys, which are in `at..end` of the run and fill it.
    fn read_keys(&mut self, mut at: usize, end: usize, shape: &Shape) -> Option<()> {
        for (key, order) in self.keys.iter_mut().zip(&shape.orders) {
            let (value, behind) = row::column(&self.frames[..end], at)?;
            key.rank = order.rank(value)?;
            key.null = value.is_none();
            key.value = (at + 4, behind);
            at = behind;
        }
        (at == end).then_some(())
    }

    /// Appends the current row: its visible columns under a header of their own.
    #[inline]
    fn emit(&self, out: &mut BytesMut, visible: usize) {
        let row = &self.frames[self.row.clone()];
        let start = out.len();
        out.extend_from_slice(row);
        if let Some(header) = out[start..].first_chunk_mut::<{ row::ROW_HEADER_BYTES }>() {
            *header = row::header(row.len(), visible as u16);
        }
    }

    fn value(&self, key: &Key) -> Option<&[u8]> {
        (!key.null).then(|| &self.frames[key.value.0..key.value.1])
    }

    /// Compares the current rows by all keys.
    fn compare(&self, other: &Self, orders: &[KeyOrder]) -> Ordering {
        for ((x, y), order) in self.keys.iter().zip(&other.keys).zip(orders) {
            let order = match x.rank.cmp(&y.rank) {
                Ordering::Equal if order.rank_decides() => Ordering::Equal,
                Ordering::Equal => order.compare(self.value(x), other.value(y)),
                unequal => unequal,
            };
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    }
}

impl Operator for GatherMerge {
    fn poll_run(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        loop {
            if !self.missing.is_empty() && !self.poll_missing(source, cx)? {
                // What is merged already need not wait for a slow shard.
                return match self.flush() {
                    Some(run) => Poll::Ready(Ok(Some(run))),
                    None => Poll::Pending,
                };
            }
            if self.heap.is_empty() || self.out.len() >= RUN_BYTES {
                return Poll::Ready(Ok(self.flush()));
            }
            self.out.reserve(RUN_BYTES);
            self.merge(source)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::operator::testing::{Row, Script, Step, collect};
    use super::super::row::testing::run;
    use super::super::testing::bound;
    use super::*;
    use crate::types::oid;

    fn key(descending: bool, nulls_first: bool) -> SortKey {
        SortKey {
            text: String::new(),
            descending,
            nulls_first,
            collation: None,
        }
    }

    /// One row: the keys' text as the visible column, then two int8 keys.
    fn row(first: Option<i64>, second: Option<i64>) -> Row {
        let binary = |v: Option<i64>| v.map(|v| v.to_be_bytes().to_vec());
        let text = format!("{first:?} {second:?}").into_bytes();
        vec![Some(text), binary(first), binary(second)]
    }

    fn step(rows: &[Row]) -> Step {
        let rows: Vec<Vec<_>> = rows
            .iter()
            .map(|r| r.iter().map(|v| v.as_deref()).collect())
            .collect();
        Step::Run(run(&rows.iter().map(|r| &r[..]).collect::<Vec<_>>()))
    }

    fn merge(inputs: Vec<Vec<Step>>) -> Result<Vec<Row>, ServerError> {
        let count = inputs.len();
        let mut source = Script::new(inputs).with_types(&[oid::TEXT, oid::INT8, oid::INT8]);
        let keys = vec![key(false, false), key(true, true)];
        let mut merge = GatherMerge::new(Arc::new(bound()), keys, 1, 2, count);
        collect(&mut merge, &mut source)
    }

    #[test]
    fn a_slow_input_holds_back_only_later_rows() {
        let inputs = vec![
            vec![step(&[row(Some(1), None), row(Some(3), None)])],
            vec![Step::Pending, step(&[row(Some(2), None)]), Step::Pending],
            vec![],
        ];
        let rows = merge(inputs).unwrap();
        let texts: Vec<_> = rows.iter().map(|r| r[0].clone().unwrap()).collect();
        assert_eq!(
            texts,
            [&b"Some(1) None"[..], b"Some(2) None", b"Some(3) None"]
        );
        assert!(rows.iter().all(|r| r.len() == 1));
    }

    #[test]
    fn an_error_of_one_input_ends_it() {
        let inputs = vec![
            vec![step(&[row(Some(1), None)])],
            vec![Step::Fail(ServerError::new("08006", "lost"))],
        ];
        assert_eq!(merge(inputs).unwrap_err().sqlstate(), "08006");
    }

    #[test]
    fn a_key_of_the_wrong_size_is_an_error() {
        let mut short = row(Some(1), None);
        short[1] = Some(vec![0; 4]);
        let error = merge(vec![vec![step(&[short])]]).unwrap_err();
        assert_eq!(error.sqlstate(), "XX000");
        let extra = [row(Some(1), None), vec![None]].concat();
        assert!(merge(vec![vec![step(&[extra])]]).is_err());
    }

    #[test]
    fn a_type_without_order_here_is_refused() {
        let mut source = Script::new(vec![vec![step(&[row(None, None)])]]).with_types(&[
            oid::TEXT,
            oid::JSONB,
            oid::INT8,
        ]);
        let keys = vec![key(false, false), key(true, true)];
        let mut merge = GatherMerge::new(Arc::new(bound()), keys, 1, 2, 1);
        let error = collect(&mut merge, &mut source).unwrap_err();
        assert_eq!(error.sqlstate(), "0A000");
    }

    /// NULLS LAST for the first key, DESC NULLS FIRST for the second.
    fn sorted(mut rows: Vec<(Option<i64>, Option<i64>)>) -> Vec<(Option<i64>, Option<i64>)> {
        let second = |v: Option<i64>| std::cmp::Reverse(v.map_or(i128::MAX, i128::from));
        rows.sort_by_key(|(a, b)| (a.map_or(i128::MAX, i128::from), second(*b)));
        rows
    }

    proptest! {
        #[test]
        fn merging_equals_sorting(
            inputs in proptest::collection::vec(
                proptest::collection::vec(
                    (proptest::option::of(-3_i64..3), proptest::option::of(any::<i64>())),
                    0..40,
                ),
                1..6,
            ),
            run_rows in 1_usize..9,
        ) {
            let steps = inputs.iter().map(|rows| {
                let rows: Vec<Row> = sorted(rows.clone()).into_iter().map(|(a, b)| row(a, b)).collect();
                rows.chunks(run_rows).flat_map(|c| [Step::Pending, step(c)]).collect()
            });
            let merged = merge(steps.collect()).unwrap();
            let expected: Vec<Row> = sorted(inputs.concat())
                .into_iter()
                .map(|(a, b)| row(a, b)[..1].to_vec())
                .collect();
            prop_assert_eq!(merged, expected);
        }
    }
}
