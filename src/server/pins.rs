//! What a session keeps on a shard's connection that no replay brings back: advisory locks, channels it listens to, temporary tables,
//! libraries loaded. Such a connection stays the session's own.
//!
//! All of it lives on the catalog shard, so that two clients meet there. After each statement that may have taken or given up
//! something, once its transaction is over, that shard itself is asked what is left; when nothing is, the connection goes back.

use super::control;
use super::prepare::CATALOG_SHARD;
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::Session;
use super::temporary::OwnTables;
use super::transaction::Block;
use crate::metrics::Reason;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::Kind;

/// True while the session holds anything. Locks of a transaction are gone by the time this is asked.
const LEFT: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
    OR EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.pid = pg_catalog.pg_backend_pid()) \
    OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = pg_catalog.pg_my_temp_schema()) \
    OR EXISTS (SELECT FROM pg_catalog.pg_cursors c WHERE c.is_holdable)";

/// Why the session keeps connections, as far as it knows. Whether it does is [`Session::pinned`].
#[derive(Debug, Default)]
pub struct Pins {
    /// Those to all shards: a library is loaded there.
    everywhere: bool,
    /// Something may have been taken or given up since the shard was last asked.
    doubtful: bool,
    /// What would be lost with the connection, the client relies on.
    relied_on: bool,
    /// The session's temporary tables.
    pub tables: OwnTables,
}

impl Session {
    /// Before a statement that belongs on the catalog shard's connection: what it leaves there makes that connection the session's
    /// own, and what it does ends with the transaction of its message.
    pub(super) fn at_home(&mut self, prepared: &Prepared) {
        if !self.is_alone() {
            self.open_implicit();
        }
        if self.transaction.block == Block::Open {
            self.transaction.is_tied = true;
        }
        if prepared.pins {
            self.pinned = true;
            self.pins.doubtful = true;
        }
    }

    /// The statement has succeeded: from now on the client may rely on what it took.
    pub(super) fn rely_on(&mut self, prepared: &Prepared) {
        if prepared.pins && !self.shared.is_one_shard() {
            self.pins.relied_on = true;
            self.pins.doubtful = true;
        }
    }

    /// What the session has may be gone: DISCARD, UNLISTEN, the end of a transaction.
    pub(super) fn doubt_pins(&mut self) {
        self.pins.doubtful = true;
    }

    /// LOAD on every shard. No library is ever unloaded, so the connections stay the session's until it ends.
    ///
    /// # Errors
    /// What a shard says.
    pub(super) async fn load(&mut self, sql: &str) -> Result<String, ServerError> {
        if self.transaction.block != Block::Idle {
            let hint = "Load it before the transaction.";
            return Err(unsupported(
                Reason::Schema,
                "LOAD in a transaction block is not supported over several shards",
                hint,
            ));
        }
        let count = self.shared.shard_names.len() as u16;
        let all: Vec<ShardId> = (0..count).map(ShardId).collect();
        self.join_and_wait(&all).await?;
        let done = self.broadcast(sql).await;
        if done.is_err() && !self.pinned {
            // It may be loaded on some of them.
            let held = self.connections.iter_mut();
            held.for_each(|(_, conn)| conn.poison());
            return done.map(|()| String::new());
        }
        self.pinned = true;
        self.pins.everywhere = true;
        self.pins.relied_on = true;
        done.map(|()| "LOAD".into())
    }

    /// Gives back, of the connections that nothing keeps, all. To be called outside of blocks.
    pub(super) async fn release_unpinned(&mut self) {
        if !self.pinned {
            self.connections.release();
            return;
        }
        self.send_notifications();
        if self.shared.is_one_shard() {
            return;
        }
        if !self.pins.everywhere {
            self.connections.release_others(CATALOG_SHARD);
        }
        if !self.pins.doubtful || self.has_lost_pins() {
            return;
        }
        match self.has_pins().await {
            Some(true) => {
                self.pins.doubtful = false;
                self.pins.relied_on = true;
                self.send_notifications();
            }
            Some(false) if !self.pins.everywhere => self.unpin(),
            Some(false) => self.pins.doubtful = false,
            // Asked again behind the next statement; a connection that is gone is noticed by `has_lost_pins`.
            None => {}
        }
    }

    async fn has_pins(&mut self) -> Option<bool> {
        let Some(conn) = self.connections.get(CATALOG_SHARD) else {
            // No connection was to be had for the statement.
            return Some(false);
        };
        if conn.is_poisoned() {
            return (!self.pins.relied_on).then_some(false);
        }
        let rows = control::ask(conn, LEFT, &[]).await.ok()?;
        let value = rows.into_iter().flatten().flatten().next()?;
        Some(value == "t")
    }

    /// The connection goes back; one that has had temporary tables is closed, for it keeps a schema for them.
    fn unpin(&mut self) {
        self.send_notifications();
        let closes = self.pins.tables.have_been();
        if let Some(conn) = self.connections.get(CATALOG_SHARD) {
            conn.forget_notifications();
            if closes {
                conn.poison();
            }
        }
        self.pinned = false;
        self.pins = Pins::default();
        self.connections.release();
    }

    /// True when a connection is gone with things on it that the client relies on.
    pub(super) fn has_lost_pins(&mut self) -> bool {
        let relied_on = self.pins.relied_on || self.shared.is_one_shard();
        if !self.pinned || !relied_on {
            return false;
        }
        let there = self.connections.holds(CATALOG_SHARD) || !self.pins.relied_on;
        let mut held = self.connections.iter_mut();
        !there || held.any(|(_, conn)| conn.is_poisoned())
    }

    /// What the client is told then: as a server that ends the session would.
    pub(super) fn lost_pins() -> ServerError {
        let message = "terminating connection because a shard's connection was lost";
        ServerError::fatal(sqlstate::ADMIN_SHUTDOWN, message).with_detail(
            "What the session had there is gone: advisory locks, temporary tables, notifications.",
        )
    }
}

/// On one shard: kinds after which the connection is the session's own.
pub(super) fn pins_one_shard(kind: &Kind) -> bool {
    use Kind as K;
    !matches!(
        kind,
        K::Select { .. }
            | K::Show { .. }
            | K::Explain { .. }
            | K::Insert
            | K::Update
            | K::Delete
            | K::Merge
            | K::CopyIn
            | K::CopyTo(_)
            | K::Notify
            | K::Fetch { .. }
            | K::Commit { .. }
            | K::Rollback { .. }
    )
}

/// On one shard: kinds that may make, change or drop temporary tables.
pub(super) fn changes_unknown(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Ddl
            | Kind::Do
            | Kind::Other
            | Kind::Discard { .. }
            | Kind::Select { writes: true, .. }
    )
}
