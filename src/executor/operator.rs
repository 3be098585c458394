//! What operators read from and what they are: a tree of boxed steps, called once a run of rows, never once a row.

use std::task::{Context, Poll};

use crate::backend::raw_conn::Run;
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;

/// The rows of the shards of one remote step, one input a shard.
pub(super) trait Source {
    fn inputs(&self) -> usize;

    /// The next run of an input, or `None` once its shard has said CommandComplete. May be asked again after `None`.
    fn poll_run(
        &mut self,
        input: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>>;

    /// Columns of an input, known from before its first run on; empty when the shard was not asked to describe them.
    fn columns(&self, input: usize) -> &[ColumnDescription];

    /// The shard's name, for errors.
    fn name(&self, input: usize) -> &str;

    /// No more rows are wanted: inputs end as soon as their shards do, and what they send is thrown away.
    fn stop(&mut self);
}

/// A step that yields runs of rows.
pub(super) trait Operator: Send {
    /// The next run, never an empty one, or `None` at the end (again and again).
    fn poll_run(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>>;

    /// True when it has ended without rows because they were more than it may hold, and another plan is to give them.
    fn has_spilled(&self) -> bool {
        false
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;
    use crate::executor::row::testing::rows;

    /// What a scripted input does when it is asked.
    pub(in crate::executor) enum Step {
        Run(Run),
        /// Not ready yet, once.
        Pending,
        Fail(ServerError),
    }

    /// Inputs that follow a script instead of shards.
    #[derive(Default)]
    pub(in crate::executor) struct Script {
        pub(in crate::executor) inputs: Vec<VecDeque<Step>>,
        pub(in crate::executor) columns: Vec<ColumnDescription>,
        pub(in crate::executor) stopped: bool,
    }

    impl Script {
        pub(in crate::executor) fn new(inputs: Vec<Vec<Step>>) -> Self {
            Self {
                inputs: inputs.into_iter().map(VecDeque::from).collect(),
                ..Self::default()
            }
        }

        /// Columns of these types, all binary.
        pub(in crate::executor) fn with_types(mut self, types: &[u32]) -> Self {
            let column = |type_oid| ColumnDescription {
                name: bytes::Bytes::from_static(b"c"),
                table_oid: 0,
                attribute: 0,
                type_oid,
                type_length: -1,
                type_modifier: -1,
                format: 1,
            };
            self.columns = types.iter().copied().map(column).collect();
            self
        }
    }

    impl Source for Script {
        fn inputs(&self) -> usize {
            self.inputs.len()
        }

        fn poll_run(
            &mut self,
            input: usize,
            _cx: &mut Context<'_>,
        ) -> Poll<Result<Option<Run>, ServerError>> {
            loop {
                match self.inputs[input].pop_front() {
                    Some(Step::Run(_)) if self.stopped => {}
                    Some(Step::Run(run)) => return Poll::Ready(Ok(Some(run))),
                    Some(Step::Pending) => return Poll::Pending,
                    Some(Step::Fail(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Ok(None)),
                }
            }
        }

        fn columns(&self, _input: usize) -> &[ColumnDescription] {
            &self.columns
        }

        fn name(&self, _input: usize) -> &str {
            "s1"
        }

        fn stop(&mut self) {
            self.stopped = true;
        }
    }

    /// A decoded row.
    pub(in crate::executor) type Row = Vec<Option<Vec<u8>>>;

    /// All rows that an operator makes of a script, polled on while it is pending.
    pub(in crate::executor) fn collect(
        operator: &mut dyn Operator,
        source: &mut Script,
    ) -> Result<Vec<Row>, ServerError> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        loop {
            match operator.poll_run(source, &mut cx) {
                Poll::Ready(Ok(Some(run))) => {
                    assert!(run.rows > 0, "an empty run");
                    all.extend(rows(&run));
                }
                Poll::Ready(Ok(None)) => return Ok(all),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
    }
}
