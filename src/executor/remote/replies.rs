//! What shards answer: how each message moves a stream on, and how columns and errors are checked.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::stream::{State, Stream};
use super::{CopyData, Form, RemoteStep};
use crate::backend::raw_conn::Run;
use crate::executor::translate::Translation;
use crate::executor::{Bound, Item, error};
use crate::protocol::error::ServerError;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::messages::{self, ColumnDescription};
use crate::protocol::sqlstate;

impl RemoteStep {
    /// The run with type OIDs of the catalog shard. Costs nothing unless a column holds values that name types.
    pub(super) fn translated(
        &self,
        index: usize,
        run: Run,
        bound: &Bound,
    ) -> Result<Run, ServerError> {
        let stream = &self.streams[index];
        let shard = stream.statistics.shard;
        let Some(translation) = Translation::of(bound.catalog.as_deref(), shard) else {
            return Ok(run);
        };
        let columns = match (&stream.columns[..], &self.statement.expected) {
            ([], Some(expected)) => expected,
            (described, _) => described,
        };
        if !columns.iter().any(|c| translation.concerns(c)) {
            return Ok(run);
        }
        let malformed = || error::malformed_row(&shard_name(bound, stream));
        translation.run(run, columns).ok_or_else(malformed)
    }

    pub(super) fn on_message(
        &mut self,
        index: usize,
        tag: u8,
        frame: &Bytes,
        bound: &Bound,
        forwards: &mut VecDeque<Item>,
    ) -> Result<(), ServerError> {
        let alone = self.streams.len() == 1;
        let stream = &mut self.streams[index];
        match tag {
            b'E' => return self.on_error(index, frame, bound),
            b'Z' => return stream.on_ready_for_query(),
            b'N' | b'A' => forwards.push_back(Item::Forward(frame.clone())),
            b'S' if alone => forwards.push_back(Item::Forward(frame.clone())),
            // CloseComplete answers the Close of a statement that made room for a new one.
            b'S' | b'2' | b'3' => {}
            _ if stream.preceding > 0 => {}
            b'1' => stream.unparsed = false,
            b'T' if self.statement.form == Form::Simple => {
                forwards.push_back(Item::Forward(frame.clone()));
            }
            b'T' => return self.on_description(index, frame, bound),
            b'n' if self.statement.columns.unwrap_or(0) > 0 => {
                let name = shard_name(bound, stream);
                return Err(differs_from_client(&name, self.statement.own_text));
            }
            b'n' => {}
            b'C' => {
                self.tag = Some(frame.slice(HEADER_BYTES..frame.len().max(6) - 1));
                stream.complete(self.statement.form, bound);
                if self.statement.copy == CopyData::Merged {
                    return self.on_copied(index, bound);
                }
            }
            b's' => stream.suspend(bound),
            b'I' => {
                self.empty_query = true;
                stream.complete(self.statement.form, bound);
            }
            b'G' if alone => forwards.push_back(Item::CopyIn(frame.clone())),
            b'H' if self.statement.copy == CopyData::Merged => {
                return self.on_copy_begun(index, frame, bound, forwards);
            }
            b'c' if self.statement.copy == CopyData::Merged => {}
            b'H' | b'd' | b'c' if alone => forwards.push_back(Item::Forward(frame.clone())),
            _ => {
                let name = shard_name(bound, stream);
                return Err(error::unexpected_message(&name, tag));
            }
        }
        Ok(())
    }

    /// With Sync the shard's ReadyForQuery follows at once: reading up to it leaves the connection usable.
    fn on_error(&mut self, index: usize, frame: &Bytes, bound: &Bound) -> Result<(), ServerError> {
        let own_text = self.statement.own_text;
        let stream = &mut self.streams[index];
        let shard = shard_name(bound, stream);
        let error = ServerError::parse(frame.get(HEADER_BYTES..).unwrap_or_default());
        let fatal = error.is_fatal();
        let error = if own_text { error } else { error.without(b'P') };
        let error = error::from_shard(error, &shard);
        let ready_follows =
            bound.sync || self.statement.form == Form::Simple || stream.preceding > 0;
        if fatal || !ready_follows {
            stream.state = State::Done;
            return Err(error);
        }
        stream.failed.get_or_insert(error);
        if stream.preceding == 0 {
            stream.state = State::Closing;
        }
        Ok(())
    }

    /// Compares a shard's columns with the client's, or with those of the first shard that answered.
    fn on_description(
        &mut self,
        index: usize,
        frame: &Bytes,
        bound: &Bound,
    ) -> Result<(), ServerError> {
        let shard = shard_name(bound, &self.streams[index]);
        let body = frame.get(HEADER_BYTES..).unwrap_or_default();
        let mut columns = messages::parse_row_description(body)
            .ok_or_else(|| error::unexpected_message(&shard, b'T'))?;
        let here = self.streams[index].statistics.shard;
        for column in &mut columns {
            column.type_oid = bound.type_of(here, column.type_oid);
        }
        if self
            .statement
            .columns
            .is_some_and(|c| usize::from(c) != columns.len())
        {
            return Err(differs_from_client(&shard, self.statement.own_text));
        }
        let visible = self.statement.expected.as_deref();
        let shown = |oid| described_type(bound, oid);
        if visible.is_some_and(|v| !begins_with(&columns, v, shown)) {
            return Err(differs_from_client(&shard, self.statement.own_text));
        }
        let other = self.streams.iter().find(|s| !s.columns.is_empty());
        if let Some(other) = other {
            let same = columns.len() == other.columns.len();
            if !same || !begins_with(&columns, &other.columns, |oid| oid) {
                return Err(error::internal(format!(
                    "shards {shard} and {} return different columns",
                    shard_name(bound, other)
                )));
            }
        }
        self.streams[index].columns = columns;
        Ok(())
    }
}

pub(super) fn shard_name(bound: &Bound, stream: &Stream) -> Arc<str> {
    let index = stream.statistics.shard.0 as usize;
    let name = bound.shard_names.get(index).cloned();
    name.unwrap_or_else(|| Arc::from(format!("{index}")))
}

/// True when the first columns of a shard have the types expected.
fn begins_with(
    columns: &[ColumnDescription],
    expected: &[ColumnDescription],
    shown: impl Fn(u32) -> u32,
) -> bool {
    let mut pairs = columns.iter().zip(expected);
    columns.len() >= expected.len() && pairs.all(|(c, e)| c.type_oid == shown(e.type_oid))
}

/// The type a RowDescription names for values of this one: a domain's base type.
fn described_type(bound: &Bound, oid: u32) -> u32 {
    let mut found = oid;
    let types = bound.catalog.as_ref().map(|c| &c.types);
    // A domain may be over a domain; a chain longer than this is no chain.
    for _ in 0..32 {
        match types.and_then(|t| t.get(&found)) {
            Some(t) if t.kind == b'd' => found = t.base,
            _ => break,
        }
    }
    found
}

fn differs_from_client(shard: &str, own_text: bool) -> ServerError {
    if own_text {
        // What PostgreSQL says when a table changed under a prepared statement.
        let message = "cached plan must not change result type";
        return ServerError::new(sqlstate::FEATURE_NOT_SUPPORTED, message).on_shard(shard);
    }
    error::internal(format!(
        "shard {shard} returns other columns than the statement was described with"
    ))
}
