//! Gather: runs go out untouched as they arrive, whichever shard is ready.
//!
//! ```text
//! shard 1  r r|r r r|r ──┐
//! shard 2  s s s|s ──────┼─→  r r|s s s|r r r|s|r
//! shard 3  (nothing) ────┘
//! ```
//! Holds nothing. A busy shard cannot keep the others waiting: the next poll begins behind the input that gave last.

use std::task::{Context, Poll};

use super::operator::{Operator, Source};
use crate::backend::raw_conn::Run;
use crate::protocol::error::ServerError;

/// Rows of all inputs, in any order.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// The input that is asked first.
    next: usize,
}

impl Operator for Gather {
    fn poll_run(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        let inputs = source.inputs();
        let mut ended = 0;
        for turn in 0..inputs {
            let input = (self.next + turn) % inputs;
            match source.poll_run(input, cx) {
                Poll::Ready(Ok(Some(run))) => {
                    self.next = (input + 1) % inputs;
                    return Poll::Ready(Ok(Some(run)));
                }
                Poll::Ready(Ok(None)) => ended += 1,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if ended == inputs {
            Poll::Ready(Ok(None))
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::operator::testing::{Script, Step, collect};
    use super::super::row::testing::{rows, run};
    use super::*;

    fn one(value: &[u8]) -> Step {
        Step::Run(run(&[&[Some(value)]]))
    }

    #[test]
    fn rows_of_all_inputs_come_out() {
        let mut source = Script::new(vec![
            vec![one(b"a"), Step::Pending, one(b"b")],
            vec![],
            vec![Step::Pending, one(b"c")],
        ]);
        let mut values: Vec<_> = collect(&mut Gather::default(), &mut source)
            .unwrap()
            .into_iter()
            .map(|row| row[0].clone().unwrap())
            .collect();
        values.sort();
        assert_eq!(values, [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_busy_input_does_not_starve_the_others() {
        let mut source = Script::new(vec![
            vec![one(b"a"), one(b"a"), one(b"a")],
            vec![one(b"b"), one(b"b")],
        ]);
        let got = collect(&mut Gather::default(), &mut source).unwrap();
        let order: Vec<_> = got.iter().map(|r| r[0].clone().unwrap()).collect();
        assert_eq!(order, [b"a", b"b", b"a", b"b", b"a"]);
    }

    #[test]
    fn an_error_ends_it() {
        let error = ServerError::new("58030", "disk full");
        let mut source = Script::new(vec![
            vec![one(b"a"), Step::Fail(error)],
            vec![Step::Pending],
        ]);
        let error = collect(&mut Gather::default(), &mut source).unwrap_err();
        assert_eq!(error.sqlstate(), "58030");
    }

    #[test]
    fn a_waiting_input_is_not_an_end() {
        let mut source = Script::new(vec![vec![], vec![Step::Pending, one(b"a")]]);
        let mut gather = Gather::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(gather.poll_run(&mut source, &mut cx).is_pending());
        let Poll::Ready(Ok(Some(run))) = gather.poll_run(&mut source, &mut cx) else {
            panic!("a run was ready");
        };
        assert_eq!(rows(&run).len(), 1);
    }
}
