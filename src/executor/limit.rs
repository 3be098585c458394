//! Limit: the first `count` rows behind the first `offset` rows.
//!
//! ```text
//! a b c|d e f|g h   offset 2, count 3   ─→   c|d e
//! ```
//! Holds nothing. Rows past the last wanted one are thrown away while the shards finish: the planner has pushed
//! `LIMIT count + offset` to them, so that is little, and no shard is left in the middle of a reply.

use std::task::{Context, Poll, ready};

use super::operator::{Operator, Source};
use super::{Bound, row};
use crate::backend::raw_conn::Run;
use crate::plan::Count;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

pub(super) struct Limit {
    input: Box<dyn Operator>,
    offset: u64,
    /// `None`: no limit.
    count: Option<u64>,
    stopped: bool,
}

impl Limit {
    pub(super) fn new(input: Box<dyn Operator>, count: Option<u64>, offset: u64) -> Self {
        Self {
            input,
            offset,
            count,
            stopped: false,
        }
    }

    /// What of a run goes out.
    fn take(&mut self, mut run: Run) -> Option<Run> {
        let rows = u64::from(run.rows);
        if self.offset >= rows {
            self.offset -= rows;
            return None;
        }
        if self.offset > 0 {
            run = row::split(&mut run, self.offset as u32);
            self.offset = 0;
        }
        if let Some(count) = &mut self.count {
            if u64::from(run.rows) > *count {
                row::split(&mut run, *count as u32);
            }
            *count -= u64::from(run.rows);
        }
        (run.rows > 0).then_some(run)
    }
}

impl Operator for Limit {
    fn poll_run(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        loop {
            if self.count == Some(0) && !self.stopped {
                self.stopped = true;
                source.stop();
            }
            let Some(run) = ready!(self.input.poll_run(source, cx))? else {
                return Poll::Ready(Ok(None));
            };
            if let Some(run) = self.take(run) {
                return Poll::Ready(Ok(Some(run)));
            }
        }
    }
}

/// LIMIT and OFFSET with their parameters. PostgreSQL computes OFFSET first.
pub(super) fn counts(
    count: Option<Count>,
    offset: Option<Count>,
    bound: &Bound,
) -> Result<(Option<u64>, u64), ServerError> {
    let offset = row_count(offset, bound)
        .map_err(|()| ServerError::new(sqlstate::INVALID_OFFSET, "OFFSET must not be negative"))?;
    let count = row_count(count, bound)
        .map_err(|()| ServerError::new(sqlstate::INVALID_LIMIT, "LIMIT must not be negative"))?;
    Ok((count, offset.unwrap_or(0)))
}

fn row_count(count: Option<Count>, bound: &Bound) -> Result<Option<u64>, ()> {
    match count {
        None => Ok(None),
        Some(Count::Rows(rows)) => Ok(Some(rows)),
        Some(Count::Parameter(index)) => match bound.parameters.encoded(index) {
            Some(Some(value)) => match value.integer() {
                Some(rows) => u64::try_from(rows).map(Some).map_err(|_| ()),
                // The shards refuse what is no number before a row is counted.
                None => Ok(None),
            },
            _ => Ok(None),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::Gather;
    use super::super::operator::testing::{Script, Step, collect};
    use super::super::row::testing::run;
    use super::*;

    /// Runs of 3, 1 and 4 rows with the numbers 0 to 7.
    fn source() -> Script {
        let rows = |from: u8, to: u8| {
            let values: Vec<_> = (from..to).map(|v| [v]).collect();
            let rows: Vec<_> = values.iter().map(|v| [Some(&v[..])]).collect();
            Step::Run(run(&rows.iter().map(|r| &r[..]).collect::<Vec<_>>()))
        };
        Script::new(vec![vec![
            rows(0, 3),
            Step::Pending,
            rows(3, 4),
            rows(4, 8),
        ]])
    }

    fn numbers(count: Option<u64>, offset: u64) -> Vec<u8> {
        let mut limit = Limit::new(Box::new(Gather::default()), count, offset);
        let rows = collect(&mut limit, &mut source()).unwrap();
        rows.iter().map(|r| r[0].as_ref().unwrap()[0]).collect()
    }

    #[test]
    fn every_limit_and_offset_is_a_slice() {
        for offset in 0..10_usize {
            for count in 0..10_usize {
                let expected: Vec<u8> = (0..8).skip(offset).take(count).collect();
                assert_eq!(numbers(Some(count as u64), offset as u64), expected);
            }
            let expected: Vec<u8> = (0..8).skip(offset).collect();
            assert_eq!(numbers(None, offset as u64), expected);
        }
        assert_eq!(numbers(Some(u64::MAX), u64::MAX), [0_u8; 0]);
    }

    #[test]
    fn limit_stops_reading_shards() {
        let mut source = source();
        let mut limit = Limit::new(Box::new(Gather::default()), Some(2), 0);
        collect(&mut limit, &mut source).unwrap();
        assert!(source.stopped);
    }

    #[test]
    fn an_error_behind_the_limit_is_still_an_error() {
        let mut source = source();
        source.inputs[0].push_back(Step::Fail(ServerError::new("08006", "lost")));
        let mut limit = Limit::new(Box::new(Gather::default()), Some(2), 0);
        assert!(collect(&mut limit, &mut source).is_err());
    }
}
