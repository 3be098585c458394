//! Executions that are read in batches by cursors: bound at once, asked for rows later.

use std::sync::Arc;

use super::{Bound, Execution, object_oids};
use crate::protocol::messages::ColumnDescription;

impl Execution {
    /// Makes [`Execution::start`] only bind the shards' portals, with the snapshot of that moment, or fill the stages of a Combine:
    /// with a budget of no rows it then runs up to [`super::Item::Suspended`]. For executions in a transaction block that were made
    /// with a batch size ([`Bound::fetch`]); nothing is owed by a shard between two batches.
    #[must_use]
    pub fn deferred(mut self) -> Self {
        let merges = self.needs_merge();
        let bound = self.bound_mut();
        bound.deferred = true;
        // A merge session is in no block, where a Sync would end the portal.
        bound.sync = !merges;
        self
    }

    /// True when its stages are filled first and the rest follows later: nothing of it stays on the shards.
    pub fn is_staged(&self) -> bool {
        self.bound.deferred && self.needs_merge()
    }

    /// Rows a shard may send from now on before it waits to be asked again; 0: all.
    pub fn set_fetch(&mut self, rows: u32) {
        let rows = if self.reads_all { 0 } else { rows };
        if self.bound.fetch != rows {
            self.bound_mut().fetch = rows;
        }
    }

    /// The formats of the rows of a staged execution, which it learns late.
    pub fn set_columns(&mut self, columns: Arc<[ColumnDescription]>) {
        let bound = self.bound_mut();
        bound.columns = columns;
        bound.deferred = false;
        self.checks_oids = !self.bound.shows_objects && object_oids::concerns(&self.bound);
    }

    fn bound_mut(&mut self) -> &mut Bound {
        Arc::make_mut(&mut self.bound)
    }
}
