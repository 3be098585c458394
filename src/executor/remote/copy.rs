//! COPY TO STDOUT on shards: when its data may come, and what of it goes out.

use std::collections::VecDeque;

use bytes::Bytes;

use super::RemoteStep;
use super::replies::shard_name;
use crate::backend::raw_conn::Run;
use crate::executor::{Bound, Item, error};
use crate::protocol::error::ServerError;

/// COPY TO STDOUT, and what of it goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum CopyData {
    /// It is a statement of another kind.
    None,
    /// All of it, of the one shard there is.
    Passed,
    /// One CopyOutResponse, the data of all shards, and no CopyDone: that follows once all have said CommandComplete.
    Merged,
}

/// True for CopyData frames.
#[inline]
pub(super) fn is_data(run: &Run) -> bool {
    run.frames.first() == Some(&b'd')
}

impl RemoteStep {
    /// CopyData of a stream, where it has a place.
    pub(super) fn copy_data(
        &self,
        index: usize,
        run: Run,
        bound: &Bound,
    ) -> Result<Run, ServerError> {
        let begun = match self.statement.copy {
            CopyData::None => false,
            CopyData::Passed => true,
            CopyData::Merged => self.copy_begun.is_some(),
        };
        match begun {
            true => Ok(run),
            false => {
                let name = shard_name(bound, &self.streams[index]);
                Err(error::unexpected_message(&name, b'd'))
            }
        }
    }

    /// One CopyOutResponse goes out; those of the others must be the same.
    pub(super) fn on_copy_begun(
        &mut self,
        index: usize,
        frame: &Bytes,
        bound: &Bound,
        forwards: &mut VecDeque<Item>,
    ) -> Result<(), ServerError> {
        match &self.copy_begun {
            None => {
                self.copy_begun = Some(frame.clone());
                forwards.push_back(Item::Forward(frame.clone()));
                Ok(())
            }
            Some(first) if first == frame => Ok(()),
            Some(_) => {
                let name = shard_name(bound, &self.streams[index]);
                Err(error::internal(format!(
                    "shard {name} copies other columns than another one"
                )))
            }
        }
    }

    /// Adds a shard's rows to those of the others.
    pub(super) fn on_copied(&mut self, index: usize, bound: &Bound) -> Result<(), ServerError> {
        let tag = self.tag.as_deref().unwrap_or_default();
        let rows = tag.strip_prefix(b"COPY ").map(std::str::from_utf8);
        let Some(Ok(Ok(rows))) = rows.map(|r| r.map(str::parse::<u64>)) else {
            let name = shard_name(bound, &self.streams[index]);
            return Err(error::unexpected_message(&name, b'C'));
        };
        self.copied += rows;
        self.tag = Some(format!("COPY {}", self.copied).into());
        Ok(())
    }
}
