//! Project: cuts hidden columns off the end of rows.
//!
//! ```text
//! (a1 a2 | k) (b1 b2 | k)   ─→   (a1 a2) (b1 b2)
//! ```
//! Holds one run. Stands above a remote of one shard, where there is nothing to merge.

use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use super::operator::{Operator, Source};
use super::{error, row};
use crate::backend::raw_conn::Run;
use crate::protocol::error::ServerError;

pub(super) struct Project {
    input: Box<dyn Operator>,
    /// Columns that stay.
    visible: usize,
}

impl Project {
    pub(super) fn new(input: Box<dyn Operator>, visible: usize) -> Self {
        Self { input, visible }
    }

    fn cut(&self, run: &Run) -> Option<Run> {
        let mut out = BytesMut::with_capacity(run.frames.len());
        let mut at = 0;
        for _ in 0..run.rows {
            let end = row::frame_end(&run.frames, at)?;
            let from = at + row::ROW_HEADER_BYTES;
            let to = row::skip_columns(&run.frames[..end], from, self.visible)?;
            row::put(&run.frames[from..to], self.visible as u16, &mut out);
            at = end;
        }
        Some(Run {
            frames: out.freeze(),
            rows: run.rows,
        })
    }
}

impl Operator for Project {
    fn poll_run(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        let Some(run) = ready!(self.input.poll_run(source, cx))? else {
            return Poll::Ready(Ok(None));
        };
        let cut = self
            .cut(&run)
            .ok_or_else(|| error::malformed_row(source.name(0)))?;
        Poll::Ready(Ok(Some(cut)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::Gather;
    use super::super::operator::testing::{Script, Step, collect};
    use super::super::row::testing::run;
    use super::*;

    #[test]
    fn hidden_columns_are_cut() {
        let rows = run(&[&[Some(b"a"), None, Some(b"key")], &[None, Some(b""), None]]);
        let mut source = Script::new(vec![vec![Step::Run(rows)]]);
        let mut project = Project::new(Box::new(Gather::default()), 2);
        let got = collect(&mut project, &mut source).unwrap();
        assert_eq!(got[0], [Some(b"a".to_vec()), None]);
        assert_eq!(got[1], [None, Some(vec![])]);
    }

    #[test]
    fn a_row_with_too_few_columns_is_an_error() {
        let mut source = Script::new(vec![vec![Step::Run(run(&[&[Some(b"a")]]))]]);
        let mut project = Project::new(Box::new(Gather::default()), 2);
        let error = collect(&mut project, &mut source).unwrap_err();
        assert_eq!(error.sqlstate(), "XX000");
    }
}
