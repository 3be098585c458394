//! Runs a plan over the connections a session holds: one operator a file, rows as raw frames in runs.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::backend::connections::Connections;
use crate::backend::raw_conn::Run;
use crate::plan::{Plan, ShardId};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;

/// The values of a Bind.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    /// Type OIDs, one a parameter, as Describe gave them.
    pub types: Vec<u32>,
    /// 0 text, 1 binary, one a parameter.
    pub formats: Vec<i16>,
    pub values: Vec<Option<Bytes>>,
}

/// What one execution of a plan is given.
#[derive(Debug, Clone)]
pub struct Bound {
    pub parameters: Arc<Parameters>,
    /// The client's result columns, in the formats it asked for.
    pub columns: Arc<[ColumnDescription]>,
    /// now() of the transaction, microseconds since 2000-01-01 UTC.
    pub transaction_timestamp: i64,
    /// Rows a shard may send before it waits to be asked again; 0: all. Set for row-limited portals and cursors.
    pub fetch: u32,
    /// End each shard's message sequence with Sync (else Flush: the client's transaction or pipeline goes on).
    pub sync: bool,
    /// Shard names, for errors.
    pub shard_names: Arc<[Arc<str>]>,
    /// Limits of operators that hold rows.
    pub memory_max: usize,
    pub max_staged_bytes: u64,
}

/// What comes out of an execution, in order.
#[derive(Debug)]
pub enum Item {
    Rows(Run),
    /// NOTICE, NOTIFY or COPY OUT frames in their place, for the client as they are.
    Forward(Bytes),
    /// The shard waits for COPY data (one-shard pass-through); the frame is its CopyInResponse.
    CopyIn(Bytes),
    /// All shards have said CommandComplete. `tag` is the shard's own for one remote step, else `None`: the session counts rows.
    Complete {
        tag: Option<Bytes>,
    },
    /// EmptyQueryResponse.
    Empty,
}

/// A plan in execution.
pub struct Execution {}

impl Execution {
    /// Evaluates targets and prepares operators; nothing is sent yet.
    ///
    /// # Errors
    /// 0A000 where a type or collation turns out not to be comparable here; 2201W/2201X for a negative LIMIT/OFFSET.
    pub fn new(_plan: &Plan, _bound: Bound, _shards: usize) -> Result<Self, ServerError> {
        unimplemented!()
    }

    /// Shards it needs connections to, ascending.
    pub fn shards(&self) -> &[ShardId] {
        unimplemented!()
    }

    /// True when a merge session is needed too.
    pub fn needs_merge(&self) -> bool {
        unimplemented!()
    }

    /// Appends the first messages to the connections' write buffers.
    pub fn start(&mut self, _connections: &mut Connections) -> Result<(), ServerError> {
        unimplemented!()
    }

    /// Next item; after `Complete` or an error it must not be polled again.
    pub fn poll_next(
        &mut self,
        _connections: &mut Connections,
        _cx: &mut Context<'_>,
    ) -> Poll<Result<Item, ServerError>> {
        unimplemented!()
    }
}
