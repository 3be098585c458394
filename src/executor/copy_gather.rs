//! CopyGather: the data of a COPY that every shard makes of its own rows, as if one had made it of all.
//!
//! ```text
//! shard 1  head r r|r end ──┐
//! shard 2  head s|s end ────┼─→  head r r|s|r|s end
//! shard 3  head end ────────┘
//! ```
//! Lines and tuples go out untouched as they arrive, whichever shard is ready. Holds nothing but the head of the shard that was first.

use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};

use super::error;
use super::operator::{Operator, Source};
use crate::backend::raw_conn::Run;
use crate::protocol::error::ServerError;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::messages;

/// What stands before the rows of a COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyHead {
    /// Nothing.
    None,
    /// One CopyData with the names of the columns.
    Names,
    /// The signature of the binary format, in the CopyData of the first row; there is a trailer then as well.
    Binary,
}

/// Signature, flags and the length of the extension of the binary format (PostgreSQL's manual, COPY).
pub(super) const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The CopyData that ends the binary format.
pub(super) const BINARY_TRAILER: &[u8] = b"d\0\0\0\x06\xff\xff";

/// CopyData of all inputs, with one head.
#[derive(Debug)]
pub(super) struct CopyGather {
    head: CopyHead,
    /// The input that is asked first.
    next: usize,
    /// Inputs whose head has been taken off; empty before the first poll.
    begun: Vec<bool>,
    /// The CopyData with the names that went out.
    names: Option<Bytes>,
    /// The signature is out.
    signed: bool,
    ended: bool,
}

impl CopyGather {
    pub(super) fn new(head: CopyHead) -> Self {
        Self {
            head,
            next: 0,
            begun: Vec::new(),
            names: None,
            signed: false,
            ended: false,
        }
    }

    /// What of an input's run goes out.
    fn taken(&mut self, input: usize, run: Run) -> Option<Result<Run, ()>> {
        let first = !std::mem::replace(self.begun.get_mut(input)?, true);
        match self.head {
            CopyHead::None => Some(Ok(run)),
            CopyHead::Names if first => self.without_names(run),
            CopyHead::Names => Some(Ok(run)),
            CopyHead::Binary => Some(self.without_frame(run, first)),
        }
    }

    /// The names go out once and must be the same everywhere: the columns would be others.
    fn without_names(&mut self, mut run: Run) -> Option<Result<Run, ()>> {
        let end = frame_end(&run.frames)?;
        let names = run.frames.slice(..end);
        match &self.names {
            None => self.names = Some(names),
            Some(known) if *known == names => {
                run.frames = run.frames.slice(end..);
                run.rows -= 1;
            }
            Some(_) => return Some(Err(())),
        }
        Some(Ok(run))
    }

    /// A run of the binary format without an input's trailer, with the signature in the very first tuple.
    fn without_frame(&mut self, mut run: Run, first: bool) -> Result<Run, ()> {
        let mut head = None;
        if first {
            let end = frame_end(&run.frames).ok_or(())?;
            let body = &run.frames[HEADER_BYTES..end];
            head = Some(body.strip_prefix(BINARY_HEADER).ok_or(())?.to_vec());
            run.frames = run.frames.slice(end..);
            run.rows -= 1;
        }
        // The trailer is the last CopyData of an input, but the same bytes may end a tuple: only its frame tells.
        let (mut at, mut last) = (0, 0);
        for _ in 0..run.rows {
            last = at;
            at += frame_end(&run.frames[at..]).ok_or(())?;
        }
        if run.frames[last..] == *BINARY_TRAILER {
            run.frames.truncate(last);
            run.rows -= 1;
        }
        match head {
            Some(tuple) if tuple != BINARY_TRAILER[HEADER_BYTES..] => {
                run.frames = self.signed_tuple(&tuple, &run.frames);
                run.rows += 1;
            }
            _ => {}
        }
        Ok(run)
    }

    fn signed_tuple(&mut self, tuple: &[u8], rest: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(rest.len() + tuple.len() + 32);
        let signature = match std::mem::replace(&mut self.signed, true) {
            true => &[],
            false => BINARY_HEADER,
        };
        messages::frame(b'd', &mut out, |out| {
            out.put_slice(signature);
            out.put_slice(tuple);
        });
        out.put_slice(rest);
        out.freeze()
    }

    /// What follows the rows of all inputs.
    fn end(&mut self) -> Option<Run> {
        if std::mem::replace(&mut self.ended, true) || self.head != CopyHead::Binary {
            return None;
        }
        let frames = match self.signed {
            true => Bytes::from_static(BINARY_TRAILER),
            false => self.signed_tuple(&BINARY_TRAILER[HEADER_BYTES..], &[]),
        };
        Some(Run { frames, rows: 1 })
    }
}

impl Operator for CopyGather {
    fn poll_run(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        let inputs = source.inputs();
        self.begun.resize(inputs, false);
        let mut ended = 0;
        let mut turn = 0;
        while turn < inputs {
            let input = (self.next + turn) % inputs;
            match source.poll_run(input, cx) {
                Poll::Ready(Ok(Some(run))) => match self.taken(input, run) {
                    // Its head alone: the same input is asked again.
                    Some(Ok(run)) if run.rows == 0 => continue,
                    Some(Ok(run)) => {
                        self.next = (input + 1) % inputs;
                        return Poll::Ready(Ok(Some(run)));
                    }
                    _ => return Poll::Ready(Err(unlike(source.name(input)))),
                },
                Poll::Ready(Ok(None)) => ended += 1,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            turn += 1;
        }
        match ended == inputs {
            true => Poll::Ready(Ok(self.end())),
            false => Poll::Pending,
        }
    }
}

/// The end of the first CopyData frame.
fn frame_end(frames: &[u8]) -> Option<usize> {
    let header = frames.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    (length >= 4 && length < frames.len()).then_some(length + 1)
}

fn unlike(shard: &str) -> ServerError {
    error::internal(format!(
        "the data of shard {shard} does not begin as the others' do"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::operator::testing::{Script, Step};
    use super::*;
    use std::task::Waker;

    fn run(bodies: &[&[u8]]) -> Step {
        let mut frames = BytesMut::new();
        for body in bodies {
            messages::frame(b'd', &mut frames, |out| out.put_slice(body));
        }
        Step::Run(Run {
            frames: frames.freeze(),
            rows: bodies.len() as u32,
        })
    }

    fn gathered(head: CopyHead, inputs: Vec<Vec<Step>>) -> Result<Vec<Vec<u8>>, ServerError> {
        let mut source = Script::new(inputs);
        let mut gather = CopyGather::new(head);
        let mut cx = Context::from_waker(Waker::noop());
        let mut bodies = Vec::new();
        loop {
            match gather.poll_run(&mut source, &mut cx) {
                Poll::Ready(Ok(Some(run))) => {
                    let mut rest = &run.frames[..];
                    for _ in 0..run.rows {
                        let end = frame_end(rest).expect("a frame");
                        bodies.push(rest[HEADER_BYTES..end].to_vec());
                        rest = &rest[end..];
                    }
                    assert!(rest.is_empty() && run.rows > 0);
                }
                Poll::Ready(Ok(None)) => return Ok(bodies),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
    }

    #[test]
    fn names_go_out_once() {
        let inputs = vec![
            vec![run(&[b"a"]), Step::Pending, run(&[b"1", b"2"])],
            vec![run(&[b"a", b"3"])],
            vec![Step::Pending, run(&[b"a"])],
        ];
        let mut bodies = gathered(CopyHead::Names, inputs).unwrap();
        assert_eq!(bodies.remove(0), b"a");
        bodies.sort();
        assert_eq!(bodies, [b"1", b"2", b"3"]);
        let unlike = vec![vec![run(&[b"a"])], vec![run(&[b"b"])]];
        assert!(gathered(CopyHead::Names, unlike).is_err());
    }

    #[test]
    fn one_signature_and_one_trailer() {
        let first = |tuple: &[u8]| [BINARY_HEADER, tuple].concat();
        let trailer: &[u8] = b"\xff\xff";
        // A tuple may end as the trailer's frame reads.
        let tricky = [&b"\0\x01\0\0\0\x07"[..], BINARY_TRAILER].concat();
        let inputs = vec![
            vec![run(&[&first(trailer)])],
            vec![run(&[&first(b"\0\0")]), run(&[&tricky]), run(&[trailer])],
            vec![run(&[&first(b"\0\0"), &tricky, trailer])],
        ];
        let bodies = gathered(CopyHead::Binary, inputs).unwrap();
        assert_eq!(bodies.len(), 5);
        assert_eq!(bodies[0], first(b"\0\0"));
        assert_eq!(bodies[4], trailer);
        assert_eq!(bodies.iter().filter(|b| **b == tricky).count(), 2);
        assert_eq!(bodies.iter().filter(|b| **b == b"\0\0").count(), 1);
        let empty = || vec![run(&[&first(trailer)])];
        let bodies = gathered(CopyHead::Binary, vec![empty(), empty()]).unwrap();
        assert_eq!(bodies, [first(trailer)]);
    }

    #[test]
    fn an_error_is_no_end() {
        let error = ServerError::new("58030", "disk full");
        let inputs = vec![vec![run(&[b"1"]), Step::Fail(error)], vec![run(&[b"2"])]];
        let error = gathered(CopyHead::None, inputs).unwrap_err();
        assert_eq!(error.sqlstate(), "58030");
    }
}
