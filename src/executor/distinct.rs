//! Distinct: each row once. Rows are equal when their bytes are: the planner lets only such columns pass.
//!
//! ```text
//! a b|a c|b d   ─→   a b|c|d
//! ```
//! Keeps the order of its input. Holds every row that has gone out, within a byte budget.

use std::hash::BuildHasher;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::final_aggregate::growing;
use super::operator::{Operator, Source};
use super::{error, row};
use crate::backend::raw_conn::Run;
use crate::protocol::error::ServerError;

pub(super) struct Distinct {
    input: Box<dyn Operator>,
    memory_max: usize,
    /// Seeded, so that nobody can choose rows that collide.
    hasher: RandomState,
    seen: HashTable<std::ops::Range<usize>>,
    /// The frames of rows seen, one behind the other.
    frames: Vec<u8>,
}

impl Distinct {
    pub(super) fn new(input: Box<dyn Operator>, memory_max: usize) -> Self {
        Self {
            input,
            memory_max,
            hasher: RandomState::default(),
            seen: HashTable::new(),
            frames: Vec::new(),
        }
    }

    /// True for a row that was not there before.
    fn insert(&mut self, frame: &[u8]) -> bool {
        let (frames, hasher) = (&self.frames, &self.hasher);
        let hash = hasher.hash_one(frame);
        let known = self.seen.find(hash, |r| &frames[r.clone()] == frame);
        if known.is_some() {
            return false;
        }
        let start = frames.len();
        self.frames.extend_from_slice(frame);
        let frames = &self.frames;
        self.seen.insert_unique(hash, start..frames.len(), |r| {
            hasher.hash_one(&frames[r.clone()])
        });
        true
    }

    /// What of a run is new; `None` when a row is malformed.
    fn filter(&mut self, run: &Run) -> Option<Run> {
        let mut out = BytesMut::new();
        let (mut at, mut rows) = (0, 0);
        for _ in 0..run.rows {
            let end = row::frame_end(&run.frames, at)?;
            let frame = &run.frames[at..end];
            if self.insert(frame) {
                out.extend_from_slice(frame);
                rows += 1;
            }
            at = end;
        }
        Some(Run {
            frames: out.freeze(),
            rows,
        })
    }

    fn bytes(&self) -> usize {
        let (frames, seen) = (&self.frames, &self.seen);
        growing(frames.len(), frames.capacity(), 1)
            + growing(
                seen.len(),
                seen.capacity(),
                size_of::<std::ops::Range<usize>>() + 1,
            )
    }
}

impl Operator for Distinct {
    fn poll_run(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        loop {
            let Some(run) = ready!(self.input.poll_run(source, cx))? else {
                return Poll::Ready(Ok(None));
            };
            let run = self
                .filter(&run)
                .ok_or_else(|| error::malformed_row(source.name(0)))?;
            if self.bytes() > self.memory_max {
                let error = error::out_of_memory("DISTINCT", self.memory_max);
                return Poll::Ready(Err(error));
            }
            if run.rows > 0 {
                return Poll::Ready(Ok(Some(run)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::Gather;
    use super::super::operator::testing::{Row, Script, Step, collect};
    use super::super::row::testing::run;
    use super::*;

    fn distinct(inputs: Vec<Vec<Step>>, memory_max: usize) -> Result<Vec<Row>, ServerError> {
        let mut distinct = Distinct::new(Box::new(Gather::default()), memory_max);
        collect(&mut distinct, &mut Script::new(inputs))
    }

    #[test]
    fn every_row_comes_out_once() {
        let step = || {
            Step::Run(run(&[
                &[Some(b"a"), None],
                &[Some(b"a"), Some(b"")],
                &[Some(b"a"), None],
            ]))
        };
        let rows = distinct(vec![vec![step()], vec![Step::Pending, step()]], 1 << 20).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0], [Some(b"a".to_vec()), None]);
        assert_eq!(rows[1], [Some(b"a".to_vec()), Some(vec![])]);
    }

    #[test]
    fn too_many_rows_are_refused() {
        let rows: Vec<[u8; 8]> = (0..1000_u64).map(u64::to_be_bytes).collect();
        let rows: Vec<_> = rows.iter().map(|r| [Some(&r[..])]).collect();
        let step = Step::Run(run(&rows.iter().map(|r| &r[..]).collect::<Vec<_>>()));
        let error = distinct(vec![vec![step]], 4096).unwrap_err();
        assert_eq!(error.sqlstate(), "53200");
    }

    #[test]
    fn an_error_of_one_input_ends_it() {
        let fail = Step::Fail(ServerError::new("08006", "lost"));
        assert!(distinct(vec![vec![fail]], 4096).is_err());
    }
}
