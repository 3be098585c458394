//! SERIALIZABLE over several shards: their snapshots are those of one instant, and who reads several shards changes none.
//!
//! Each shard keeps the promise for what happens on it (PostgreSQL's manual, "Serializable Isolation Level"). A cycle that no shard sees
//! leads through transactions that read several of them. Where these change nothing and each reads all shards as of one instant, some part
//! of the cycle leads on one shard from a change behind the reader's instant to one before it. The last two steps of that part are
//! read-write dependencies whose end was committed first: what PostgreSQL answers with 40001 on that shard, cycle or not.
//!
//! ```text
//!            P1 ───────┐                  ┌── BEGIN, S1
//! session ── P2 ───────┤ all answered ────┤── BEGIN, S2     P = S on every shard: that was the instant
//!            P3 ───────┘                  └── BEGIN, S3     else once more, with S for P
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::control;
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::Session;
use super::transaction::Block;
use crate::backend::raw_conn::RawConn;
use crate::executor::{Execution, Parameters, cancelled_by_user};
use crate::metrics::{QueryKind, Reason};
use crate::plan::{ShardId, Targets};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;

/// Which transactions' changes are seen. It is another one as soon as any transaction that has changed something ends.
const SNAPSHOT: &str = "SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text";
/// A round lasts as long as one to the slowest shard; a change that ends meanwhile costs another one. Shards that change so often
/// that none is quiet for so long leave little hope.
const ROUNDS_TIME: Duration = Duration::from_secs(2);

/// Begins the transaction of a statement outside of a block.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

/// What a SERIALIZABLE block over several shards has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serial {
    /// All shards are in it, with snapshots of one instant.
    pub at_one_instant: bool,
    /// Those that statements have run on.
    used: BTreeSet<ShardId>,
}

impl Session {
    /// True where the shards of the statement in hand are to be read as of one instant, and are not yet.
    pub(super) fn wants_one_instant(&self) -> bool {
        if self.shared.is_one_shard() {
            return false;
        }
        match self.transaction.block {
            Block::Open => {
                self.transaction.is_serializable() && !self.transaction.serial.at_one_instant
            }
            Block::Idle => self.snapshot && self.is_serializable_by_default(),
            Block::Failed => false,
        }
    }

    pub(super) fn is_serializable_by_default(&self) -> bool {
        let default = self.settings.get("default_transaction_isolation");
        default.is_some_and(|level| level.eq_ignore_ascii_case("serializable"))
    }

    /// True for a statement outside of a block that needs a transaction of its own only to be SERIALIZABLE.
    pub(super) fn is_serializable_alone(&self, execution: &Execution) -> bool {
        self.transaction.block == Block::Idle
            && execution.shards().len() > 1
            && self.is_serializable_by_default()
    }

    /// Takes connections to `shards`, in a block to all there are, into a transaction whose snapshots are of one instant. `begin` begins a
    /// statement's own; a block has its own words.
    ///
    /// # Errors
    /// As `join`; 40001 where changes on the shards leave no such instant; 0A000 where the session keeps a connection that cannot begin
    /// anew.
    pub(super) async fn join_at_one_instant(
        &mut self,
        shards: &[ShardId],
        begin: &[String],
    ) -> Result<(), ServerError> {
        let in_block = self.transaction.block == Block::Open;
        if in_block {
            if self.pinned && shards.iter().all(|s| self.connections.holds(*s)) {
                // What is on that one shard alone, that shard can promise.
                return Ok(());
            }
            self.leave_early().await?;
        }
        let count = self.shared.shard_names.len();
        let all: Vec<ShardId> = (0..count).map(|i| ShardId(i as u16)).collect();
        let (shards, texts) = match in_block {
            true => (&all[..], self.transaction.join()),
            false => (shards, begin.to_vec()),
        };
        self.refuse_half_read(shards)?;
        self.replay_on_held(shards);
        self.lend(shards, &[], false).await?;
        self.begin_at_one_instant(shards, &texts).await?;
        self.transaction.serial.at_one_instant = in_block;
        Ok(())
    }

    /// Shards that have heard BEGIN, and have run nothing of the block, hear it again.
    async fn leave_early(&mut self) -> Result<(), ServerError> {
        if self.connections.iter_mut().next().is_none() {
            return Ok(());
        }
        if self.pinned || self.transaction.was_tied {
            return Err(unsupported(
                Reason::Snapshot,
                "a SERIALIZABLE transaction over several shards is not supported in a session that keeps a connection",
                "Give up temporary tables, advisory locks, LISTEN and cursors WITH HOLD first, or use REPEATABLE READ.",
            ));
        }
        self.broadcast("ROLLBACK").await?;
        self.connections.release();
        Ok(())
    }

    async fn begin_at_one_instant(
        &mut self,
        shards: &[ShardId],
        texts: &[String],
    ) -> Result<(), ServerError> {
        let mut before = self.on_each(shards, &[]).await?;
        let mut again: Vec<String> = texts.to_vec();
        let deadline = Instant::now() + ROUNDS_TIME;
        while Instant::now() < deadline {
            if self.registration.entry.take_cancel() {
                return Err(cancelled_by_user());
            }
            let now = self.on_each(shards, &again).await?;
            if now == before {
                return Ok(());
            }
            before = now;
            if again.len() == texts.len() {
                again.insert(0, "ROLLBACK".into());
            }
        }
        let error = ServerError::new(
            sqlstate::SERIALIZATION_FAILURE,
            "could not read all shards as of one instant",
        );
        Err(error
            .with_hint("The shards are being changed. The transaction might succeed if retried."))
    }

    /// Runs `texts` and then asks for the snapshot, on all of them at once.
    async fn on_each(
        &mut self,
        shards: &[ShardId],
        texts: &[String],
    ) -> Result<Vec<Option<String>>, ServerError> {
        let names = self.shared.shard_names.clone();
        let held = self.connections.iter_mut();
        let work = held.filter(|(shard, _)| shards.contains(shard));
        let work = work.map(|(shard, conn)| {
            let name = &names[shard.0 as usize];
            async move {
                let seen = snapshot_after(conn, texts).await;
                if seen.is_err() {
                    conn.poison();
                }
                seen.map_err(|error| error.on_shard(name))
            }
        });
        join_all(work).await.into_iter().collect()
    }

    /// As `open`, not counted.
    pub(super) fn execution(
        &mut self,
        prepared: &Prepared,
        parameters: Arc<Parameters>,
        columns: Arc<[ColumnDescription]>,
        portal: (u32, bool),
    ) -> Result<(QueryKind, Result<Execution, ServerError>), ServerError> {
        let (kind, execution) = self.planned_execution(prepared, parameters, columns, portal)?;
        let execution = execution.and_then(|e| {
            self.check_known(prepared, e.shards())?;
            self.stays_serializable(prepared, e)
        });
        Ok((kind, execution))
    }

    /// Notes which shards an execution is about to run on.
    ///
    /// # Errors
    /// 0A000 in a SERIALIZABLE block that then would have changed one shard and run on another.
    fn stays_serializable(
        &mut self,
        prepared: &Prepared,
        execution: Execution,
    ) -> Result<Execution, ServerError> {
        let transaction = &mut self.transaction;
        if !transaction.serial.at_one_instant && !transaction.is_serializable()
            || self.shared.is_one_shard()
        {
            return Ok(execution);
        }
        // PostgreSQL itself leaves catalogs out of it.
        let planned = prepared.planned.as_ref();
        if planned.is_none_or(|p| !matches!(p.route, Targets::Catalog)) {
            transaction.serial.used.extend(execution.shards());
        }
        let mut used = transaction.serial.used.iter();
        match transaction.writer {
            Some(writer) if used.any(|shard| *shard != writer) => Err(unsupported(
                Reason::Snapshot,
                "a SERIALIZABLE transaction that changes one shard and reads others is not supported",
                "Use REPEATABLE READ, or read and change the rows of one sharding key only.",
            )),
            _ => Ok(execution),
        }
    }

    /// Where to read what every shard has.
    pub(super) fn preferred_shard(&mut self) -> Option<ShardId> {
        let transaction = &self.transaction;
        let used = || transaction.serial.used.first().copied();
        let preferred = transaction.writer.or_else(used);
        match preferred {
            Some(shard) if self.connections.holds(shard) => Some(shard),
            _ => self.connections.iter_mut().map(|(shard, _)| shard).next(),
        }
    }
}

async fn snapshot_after(
    conn: &mut RawConn,
    texts: &[String],
) -> Result<Option<String>, ServerError> {
    if !texts.is_empty() {
        control::command(conn, texts).await?;
    }
    // Settings that were replayed before have answers, too: this one is the last.
    let rows = control::ask(conn, SNAPSHOT, &[]).await?;
    Ok(rows.into_iter().flatten().next_back().flatten())
}
