//! FinalAggregate: partial aggregates of all shards put together, one row a group.
//!
//! ```text
//! shard 1  (de 2 10) (fr 1 7) ──┐
//! shard 2  (de 3 5) ────────────┼─→  (de 5 15) (fr 1 7)      count, sum by country
//! ```
//! Groups are equal when their bytes are: the planner lets only such types pass. Holds one state a group and aggregate within a
//! byte budget; rows go out when all shards are done. Without groups there is always one row. Over the budget it reads the shards to
//! their ends (nothing is cancelled, a transaction goes on) and leaves the result to the merge session, where the plan has that.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::aggregate_state::{Columns, Kind, State};
use super::operator::{Operator, Source};
use super::{Bound, error, row};
use crate::backend::raw_conn::Run;
use crate::plan::{Final, OutputColumn};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;

/// Size of an output run.
const RUN_BYTES: usize = 64 * 1024;

/// Groups whose states lie together.
const CHUNK_GROUPS: usize = 1024;

pub(super) struct FinalAggregate {
    bound: Arc<Bound>,
    groups: usize,
    aggregates: Vec<Final>,
    output: Vec<OutputColumn>,
    /// Over the budget it ends without rows, instead of an error.
    may_spill: bool,
    spilled: bool,
    /// Found from the first input's columns.
    kinds: Vec<Kind>,
    /// Columns of a shard's row; 0 until known.
    columns: usize,
    ended: Vec<bool>,
    table: Groups,
    /// The next group to go out, once all inputs have ended.
    next: usize,
    /// Places of the columns of the row at hand.
    starts: Vec<usize>,
}

/// Groups and their states.
#[derive(Default)]
struct Groups {
    hasher: RandomState,
    index: HashTable<u32>,
    /// Group columns, lengths included, one group behind the other.
    keys: Vec<u8>,
    /// Where each group's columns end in `keys`.
    ends: Vec<usize>,
    /// The states of all groups, group by group: in chunks, for a copy to a larger place would need three times their room.
    states: Vec<Vec<State>>,
    /// Bytes that states hold outside of themselves.
    held: usize,
}

impl FinalAggregate {
    pub(super) fn new(
        bound: Arc<Bound>,
        groups: usize,
        aggregates: Vec<Final>,
        output: Vec<OutputColumn>,
        (inputs, may_spill): (usize, bool),
    ) -> Self {
        Self {
            bound,
            groups,
            aggregates,
            output,
            may_spill,
            spilled: false,
            kinds: Vec::new(),
            columns: 0,
            ended: vec![false; inputs],
            table: Groups::default(),
            next: 0,
            starts: Vec::new(),
        }
    }

    /// Decides what each aggregate is, as soon as the shards' columns are known.
    fn decide(&mut self, columns: &[ColumnDescription]) -> Result<(), ServerError> {
        let kinds = self.aggregates.iter();
        self.kinds = kinds
            .map(|a| Kind::new(a, columns, &self.bound))
            .collect::<Result<_, _>>()?;
        let last = self.kinds.iter().map(|k| k.last_column() + 1).max();
        if last.unwrap_or(0).max(self.groups) > columns.len() {
            return Err(error::internal("a partial aggregate has no column"));
        }
        self.columns = columns.len();
        Ok(())
    }

    /// Reads all inputs to their ends.
    fn poll_inputs(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        let mut pending = false;
        for input in 0..self.ended.len() {
            while !self.ended[input] {
                match source.poll_run(input, cx)? {
                    Poll::Ready(Some(run)) => {
                        if self.spilled {
                            continue;
                        }
                        if self.columns == 0 {
                            self.decide(source.columns(input))?;
                        }
                        self.add_run(&run)?
                            .ok_or_else(|| error::malformed_row(source.name(input)))?;
                    }
                    Poll::Ready(None) => self.ended[input] = true,
                    Poll::Pending => {
                        pending = true;
                        break;
                    }
                }
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Adds the rows of a run; `None` when one is malformed.
    fn add_run(&mut self, run: &Run) -> Result<Option<()>, ServerError> {
        let mut at = 0;
        for _ in 0..run.rows {
            let Some(end) = row::frame_end(&run.frames, at) else {
                return Ok(None);
            };
            if self.add_row(&run.frames[..end], at)?.is_none() {
                return Ok(None);
            }
            at = end;
        }
        if self.table.bytes() > self.bound.memory_max && self.may_spill {
            self.spilled = true;
            self.table = Groups::default();
            return Ok(Some(()));
        }
        if self.table.bytes() > self.bound.memory_max {
            return Err(error::out_of_memory("aggregation", self.bound.memory_max));
        }
        Ok(Some(()))
    }

    fn add_row(&mut self, frame: &[u8], at: usize) -> Result<Option<()>, ServerError> {
        self.starts.clear();
        let mut from = at + row::ROW_HEADER_BYTES;
        self.starts.push(from);
        for _ in 0..self.columns {
            let Some(end) = row::column_end(frame, from) else {
                return Ok(None);
            };
            from = end;
            self.starts.push(from);
        }
        if from != frame.len() {
            return Ok(None);
        }
        let key = &frame[self.starts[0]..self.starts[self.groups]];
        let group = self.table.find_or_insert(key, &self.kinds);
        let columns = Columns {
            frame,
            starts: &self.starts,
        };
        let states = self.table.states_mut(group, self.kinds.len());
        let mut held = 0;
        for (state, kind) in states.iter_mut().zip(&self.kinds) {
            match kind.add(state, &columns)? {
                Some(more) => held += more,
                None => return Ok(None),
            }
        }
        self.table.held = self.table.held.saturating_add_signed(held);
        Ok(Some(()))
    }

    /// The next run of finished groups.
    fn flush(&mut self) -> Result<Option<Run>, ServerError> {
        let mut out = BytesMut::new();
        let mut columns = BytesMut::new();
        let mut rows = 0;
        while self.next < self.table.ends.len() && out.len() < RUN_BYTES {
            columns.clear();
            self.put_group(self.next, &mut columns)?;
            row::put(&columns, self.output.len() as u16, &mut out);
            self.next += 1;
            rows += 1;
        }
        if rows == 0 {
            self.table = Groups::default();
            self.next = 0;
            return Ok(None);
        }
        Ok(Some(Run {
            frames: out.freeze(),
            rows,
        }))
    }

    fn put_group(&self, group: usize, out: &mut BytesMut) -> Result<(), ServerError> {
        let key = self.table.key(group);
        let states = self.table.states(group, self.kinds.len());
        for (output, described) in self.output.iter().zip(&self.bound.columns[..]) {
            match output {
                OutputColumn::Group(index) => {
                    let place = row::skip_columns(key, 0, *index);
                    let place = place.and_then(|from| Some((from, row::column_end(key, from)?)));
                    let (from, to) =
                        place.ok_or_else(|| error::internal("a group has too few columns"))?;
                    out.extend_from_slice(&key[from..to]);
                }
                OutputColumn::Aggregate(index) => states[*index].value().put(described, out)?,
            }
        }
        Ok(())
    }
}

impl Groups {
    /// The group with these columns, made when it is new.
    fn find_or_insert(&mut self, key: &[u8], kinds: &[Kind]) -> usize {
        use std::hash::BuildHasher;
        let (keys, ends) = (&self.keys, &self.ends);
        let key_of = |group: u32| slice(keys, ends, group as usize);
        let hash = self.hasher.hash_one(key);
        if let Some(found) = self.index.find(hash, |g| key_of(*g) == key) {
            return *found as usize;
        }
        let group = ends.len();
        let hasher = &self.hasher;
        self.index
            .insert_unique(hash, group as u32, |g| hasher.hash_one(key_of(*g)));
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        if group.is_multiple_of(CHUNK_GROUPS) {
            // One group is most frequent.
            let room = if group == 0 { 1 } else { CHUNK_GROUPS };
            self.states.push(Vec::with_capacity(room * kinds.len()));
        }
        if let Some(chunk) = self.states.last_mut() {
            chunk.extend(kinds.iter().map(Kind::start));
        }
        group
    }

    fn key(&self, group: usize) -> &[u8] {
        slice(&self.keys, &self.ends, group)
    }

    fn states(&self, group: usize, width: usize) -> &[State] {
        let from = group % CHUNK_GROUPS * width;
        &self.states[group / CHUNK_GROUPS][from..from + width]
    }

    fn states_mut(&mut self, group: usize, width: usize) -> &mut [State] {
        let from = group % CHUNK_GROUPS * width;
        &mut self.states[group / CHUNK_GROUPS][from..from + width]
    }

    fn bytes(&self) -> usize {
        let chunks = self.states.iter().map(Vec::capacity).sum::<usize>();
        let (index, ends, keys) = (&self.index, &self.ends, &self.keys);
        let states = chunks * size_of::<State>();
        // The allocator rounds a chunk up.
        states
            + states / 8
            + growing(index.len(), index.capacity(), size_of::<u32>() + 1)
            + growing(ends.len(), ends.capacity(), size_of::<usize>())
            + growing(keys.len(), keys.capacity(), 1)
            + self.held
    }
}

/// The bytes of a collection that doubles when it is full: shortly before that, with those of the copy.
pub(super) fn growing(len: usize, capacity: usize, size: usize) -> usize {
    let times = if capacity - len <= capacity / 8 { 3 } else { 1 };
    capacity * times * size
}

fn slice<'k>(keys: &'k [u8], ends: &[usize], group: usize) -> &'k [u8] {
    let from = if group == 0 { 0 } else { ends[group - 1] };
    &keys[from..ends[group]]
}

impl Operator for FinalAggregate {
    fn poll_run(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        if self.ended.contains(&false) {
            std::task::ready!(self.poll_inputs(source, cx))?;
            if self.groups == 0 && self.table.ends.is_empty() && !self.spilled {
                if self.columns == 0 {
                    self.decide(source.columns(0))?;
                }
                self.table.find_or_insert(&[], &self.kinds);
            }
        }
        Poll::Ready(self.flush())
    }

    fn has_spilled(&self) -> bool {
        self.spilled
    }
}

#[cfg(test)]
mod tests;
