//! A remote step's streams as the inputs of an operator.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use super::RemoteStep;
use crate::backend::connections::Connections;
use crate::backend::raw_conn::Run;
use crate::executor::operator::Source;
use crate::executor::{Bound, Item};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;

/// The streams of a step as operators read them.
pub(in crate::executor) struct RemoteSource<'a> {
    step: &'a mut RemoteStep,
    bound: &'a Bound,
    connections: &'a mut Connections,
    forwards: &'a mut VecDeque<Item>,
}

impl<'a> RemoteSource<'a> {
    pub(in crate::executor) fn new(
        step: &'a mut RemoteStep,
        bound: &'a Bound,
        connections: &'a mut Connections,
        forwards: &'a mut VecDeque<Item>,
    ) -> Self {
        Self {
            step,
            bound,
            connections,
            forwards,
        }
    }
}

impl Source for RemoteSource<'_> {
    fn inputs(&self) -> usize {
        self.step.inputs()
    }

    fn poll_run(
        &mut self,
        input: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        let over = (self.bound, &mut *self.connections);
        self.step.poll_stream(input, over, self.forwards, cx)
    }

    fn columns(&self, input: usize) -> &[ColumnDescription] {
        &self.step.streams[input].columns
    }

    fn name(&self, input: usize) -> &str {
        let shard = self.step.streams[input].statistics.shard.0 as usize;
        self.bound.shard_names.get(shard).map_or("?", |n| n)
    }

    fn stop(&mut self) {
        self.step.stopped = true;
    }
}
