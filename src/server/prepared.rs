//! A statement ready to be bound, as sessions and the plan cache share it.

use std::sync::{Arc, OnceLock};

use super::bind;
use crate::plan::{Planned, ShardId};
use crate::protocol::messages::ColumnDescription;
use crate::sql::{self, Kind};

/// A statement ready to be bound. Shared between sessions through the plan cache.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub sql: Arc<str>,
    pub kind: Kind,
    pub parameter_types: Arc<[u32]>,
    /// Result columns in text format; `None` for statements that return no rows.
    pub columns: Option<Arc<[ColumnDescription]>>,
    /// The same in binary format, made when first asked for.
    pub binary_columns: OnceLock<Arc<[ColumnDescription]>>,
    /// Where and how it runs; `None` for what the session itself carries out.
    pub planned: Option<Planned>,
    /// Settings it changes by calling set_config.
    pub set_config: Vec<sql::SetConfig>,
    /// Argument expressions of an EXECUTE, parameter types of a PREPARE, as SQL.
    pub arguments: Vec<String>,
    /// Of an EXECUTE: some argument is more than a constant.
    pub computes: bool,
    /// Position of a column whose binary form carries OIDs that no two servers share: binary output of it is refused.
    pub oid_column: Option<usize>,
    /// It names a relation of pg_catalog or information_schema.
    pub reads_catalog: bool,
    /// It has a literal such as 'now' or 'today', which means another time whenever it is read.
    pub clock_words: bool,
    /// now() of the transaction in which it was prepared.
    pub moment: i64,
    /// The first parameter in the text, as (number, 1-based character position).
    pub first_parameter: Option<(i32, usize)>,
    /// It leaves something on its connection that no replay brings back, or takes it away: locks, channels, temporary tables.
    pub pins: bool,
    /// Over several shards: it belongs on the session's connection to the catalog shard, in the transaction of its message.
    pub at_home: bool,
    /// What it does there ends with the transaction, and must not get lost: it notifies, or changes temporary tables.
    pub changes_home: bool,
    /// It makes, changes or drops temporary tables.
    pub changes_temporary: bool,
    /// On one shard: users' functions that it runs may set things on its connection without a word of the shard.
    pub leaves_unseen: bool,
    /// With one shard: it may change what other statements mean.
    pub changes_schema: bool,
    /// A SELECT of ordinary values without any effect: where one shard answers it, nothing is to be looked at but its rows.
    pub is_plain: bool,
    /// The shard that it is sent to by hand.
    pub chosen: Option<ShardId>,
    pub catalog_version: u64,
    /// Of the settings it was planned under, see [`Session::planning_context`].
    pub context: u64,
}

impl Prepared {
    /// COMMIT, ROLLBACK and ROLLBACK TO: heard in a failed block.
    pub fn ends_block(&self) -> bool {
        matches!(
            self.kind,
            Kind::Commit { .. } | Kind::Rollback { .. } | Kind::RollbackTo { .. }
        )
    }

    /// COPY … TO.
    pub fn copies(&self) -> bool {
        matches!(self.kind, Kind::CopyTo(_))
    }

    /// `columns` in binary format.
    pub fn binary_columns(&self, columns: &[ColumnDescription]) -> &Arc<[ColumnDescription]> {
        let make = || bind::with_formats(columns, std::iter::repeat(1));
        self.binary_columns.get_or_init(make)
    }

    /// Bytes it holds, for the cache's limit; the tree of a plan is counted by the texts it was made from.
    pub fn weight(&self) -> u64 {
        let columns = self.columns.as_ref().map_or(0, |c| c.len() * 192);
        (self.sql.len() * 4 + columns + self.parameter_types.len() * 4 + 512) as u64
    }
}

/// What the plan cache is asked by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    pub sql: String,
    pub types: Vec<u32>,
    pub catalog_version: u64,
    pub context: u64,
}
