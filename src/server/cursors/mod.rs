//! SQL cursors over merged results. What one shard alone has goes through it all the same: a block's cursors are the proxy's.
//!
//! ```text
//! DECLARE   the shards' portals are bound, in text and in binary form: each has the snapshot of that moment
//! FETCH     the first one says which form it is; rows are asked for as they are wanted, and kept for going backward
//! COMMIT    closes it, or, WITH HOLD, has the rest of its rows read and kept by the session
//! ```
//! A statement that needs the merge session has its stages filled at DECLARE; the rest waits on a merge session of its own.

mod declare;
mod fetch;
mod hold;
mod kept;
mod one_shard;
mod output;
mod place;
mod portal;

use std::sync::Arc;

use hashbrown::HashMap;

use super::prepared::Prepared;
use crate::backend::connections::Connections;
use crate::backend::pool::Lease;
use crate::executor::Execution;
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;

pub use fetch::Aside;
use kept::Kept;
pub use output::Sink;
use place::Place;

/// Cursors one session may have open.
const CURSORS_MAX: usize = 1_000;

/// Whether a cursor goes backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scroll {
    /// NO SCROLL, or more rows have passed than are kept unasked.
    No,
    /// Nobody said: PostgreSQL does where it costs nothing.
    Unasked,
    /// SCROLL.
    Asked,
}

/// Where the rows come from that have not been read yet.
enum Source {
    /// Portals on the shards, one form of which the first FETCH will choose; `Err`: why there is none.
    Bound {
        text: Box<Execution>,
        binary: Result<Box<Execution>, ServerError>,
    },
    /// Its stages are filled; it takes the form of the first FETCH.
    Staged(Box<Execution>),
    /// Being read.
    Running(Box<Execution>),
    /// All rows have been read.
    Ended,
}

/// An open cursor.
struct Cursor {
    query: Arc<Prepared>,
    /// In text form.
    columns: Arc<[ColumnDescription]>,
    /// BINARY: the form of FETCH in a Query.
    binary: bool,
    hold: bool,
    /// Declared over the extended protocol: any FETCH may ask for any form.
    extended: bool,
    scroll: Scroll,
    /// Savepoints there were when it was declared; `None` for one that has outlived its transaction.
    level: Option<usize>,
    /// A FETCH failed.
    failed: bool,
    place: Place,
    rows: Kept,
    /// The same in binary form, of a held cursor nobody has read from.
    binary_rows: Option<Kept>,
    source: Source,
    /// The merge session it waits on.
    merge: Option<Lease>,
    /// The format code of its rows, once one has been asked for.
    form: Option<i16>,
    /// Settings it was declared under, see [`super::session::Session::planning_context`].
    context: u64,
}

/// All cursors of a session.
#[derive(Default)]
pub struct Cursors {
    named: HashMap<String, Box<Cursor>, foldhash::fast::RandomState>,
}

impl Cursor {
    /// True while portals of it are open on the shards.
    fn is_on_shards(&self) -> bool {
        match &self.source {
            Source::Bound { .. } => true,
            Source::Running(execution) => !execution.needs_merge(),
            Source::Staged(_) | Source::Ended => false,
        }
    }

    /// The result columns in one format.
    fn columns_in(&self, form: i16) -> Arc<[ColumnDescription]> {
        match form {
            0 => self.columns.clone(),
            _ => self.query.binary_columns(&self.columns).clone(),
        }
    }

    /// Has the shards close what they hold for it.
    fn close(self, connections: &mut Connections) {
        match self.source {
            Source::Bound { mut text, binary } => {
                text.close(connections);
                if let Ok(mut binary) = binary {
                    binary.close(connections);
                }
            }
            Source::Running(mut execution) if !execution.needs_merge() => {
                execution.close(connections);
            }
            // A merge session of its own goes with it, and is closed.
            Source::Running(_) | Source::Staged(_) | Source::Ended => {}
        }
    }
}

impl Cursors {
    pub fn contains(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// The result columns of a cursor, as text.
    pub fn columns(&self, name: &str) -> Option<Arc<[ColumnDescription]>> {
        self.named.get(name).map(|c| c.columns.clone())
    }

    /// True while a shard has a portal open for one of them.
    pub fn any_on_shards(&self) -> bool {
        self.named.values().any(|c| c.is_on_shards())
    }

    /// Bytes of rows kept.
    fn bytes(&self) -> usize {
        let kept = |c: &Cursor| c.rows.bytes() + c.binary_rows.as_ref().map_or(0, Kept::bytes);
        self.named.values().map(|c| kept(c)).sum()
    }

    /// Closes one; false when there is none of the name.
    pub fn close(&mut self, name: &str, connections: &mut Connections) -> bool {
        let cursor = self.named.remove(name);
        cursor.is_some_and(|cursor| {
            cursor.close(connections);
            true
        })
    }

    pub fn close_all(&mut self, connections: &mut Connections) {
        for (_, cursor) in self.named.drain() {
            cursor.close(connections);
        }
    }

    /// The block went back to its `depth`-th savepoint: cursors declared behind it are gone, on the shards too.
    pub fn rolled_back_to(&mut self, depth: usize) {
        self.named
            .retain(|_, c| c.level.is_none_or(|level| level < depth));
    }

    /// Savepoints from the one at `depth` on are released: what was declared behind them belongs to what is before.
    pub fn released(&mut self, depth: usize) {
        for cursor in self.named.values_mut() {
            cursor.level = cursor.level.map(|level| level.min(depth));
        }
    }

    /// The transaction is over. What is left are cursors of earlier ones and, after a commit, those held now.
    pub fn end_transaction(&mut self, committed: bool) {
        self.named.retain(|_, c| {
            let held = committed && c.hold && !c.failed;
            let stays = held || c.level.is_none();
            c.level = None;
            stays
        });
    }
}

fn forward_only() -> ServerError {
    ServerError::new("55000", "cursor can only scan forward")
        .with_hint("Declare it with SCROLL option to enable backward scan.")
}

fn no_cursor(name: &str) -> ServerError {
    let message = format!("cursor \"{name}\" does not exist");
    ServerError::new(sqlstate::INVALID_CURSOR_NAME, message)
}
