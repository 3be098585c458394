//! Several steps that read one shard see one snapshot: a transaction of the statement's own, where the client's does not keep one.
//!
//! ```text
//! no block:        BEGIN REPEATABLE READ (or SERIALIZABLE, where that is the default), the steps, COMMIT
//! REPEATABLE READ: the steps
//! READ COMMITTED:  COMMIT, BEGIN REPEATABLE READ, the steps, COMMIT; shards join the block anew when it needs them
//! ```
//! In a READ COMMITTED block each statement sees what is committed when it begins, in whatever transaction it runs. So a block that
//! has only read may leave its shards: they hold nothing of it ([`Transaction::is_tied`]).
//!
//! [`Transaction::is_tied`]: super::transaction::Transaction::is_tied

use std::borrow::Cow;

use super::prepared::Prepared;
use super::run::unsupported;
use super::serializable;
use super::session::Session;
use super::settings::Settings;
use super::transaction::{Block, Clock};
use crate::executor::Execution;
use crate::metrics::Reason;
use crate::protocol::error::ServerError;
use crate::sql::Kind;

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl Session {
    /// What the shards of an execution are told before it. An execution that may fail over what nobody reads, where that could
    /// not be undone, is replaced.
    ///
    /// # Errors
    /// 0A000 where its steps would see several snapshots.
    pub(super) async fn before_steps(
        &mut self,
        execution: &mut Execution,
    ) -> Result<Vec<String>, ServerError> {
        self.savepoint = false;
        let own = execution.needs_snapshot() && self.may_have_snapshot(execution);
        let savepoint = match own {
            true => None,
            false => self.before_ahead(execution)?,
        };
        if self.is_serializable_alone(execution) {
            self.snapshot = true;
            return Ok(vec![serializable::BEGIN.into()]);
        }
        if !execution.needs_snapshot() || self.transaction.keeps_snapshot() {
            return Ok(savepoint.into_iter().collect());
        }
        if !self.may_have_snapshot(execution) {
            let hint = "Begin the transaction with ISOLATION LEVEL REPEATABLE READ, or run the statement outside of it.";
            return Err(unsupported(
                Reason::Snapshot,
                "the statement reads a shard in several steps, which READ COMMITTED gives several snapshots",
                hint,
            ));
        }
        if self.transaction.block == Block::Open {
            self.broadcast("COMMIT").await?;
            self.connections.release();
            if self.transaction.locals().next().is_some() {
                // They hold on.
                self.report_settings();
            }
            self.transaction.has_left = true;
        }
        self.snapshot = true;
        Ok(vec![BEGIN.into()])
    }

    /// True where a transaction of the statement's own changes nothing for the client.
    fn may_have_snapshot(&mut self, execution: &Execution) -> bool {
        if self.transaction.keeps_snapshot() {
            return false;
        }
        match self.transaction.block {
            Block::Idle => true,
            Block::Failed => false,
            Block::Open => {
                // A connection of the session's own does not leave the block.
                !self.pinned
                    && !self.transaction.is_tied
                    && !matches!(self.transaction.clock, Some(Clock::Shard(_)))
                    && !self.portals.any_suspended()
                    && !self.cursors.any_on_shards()
                    && self.is_between_statements(execution)
            }
        }
    }

    /// True in a block that the client began, where its shards may be told something of ours before a statement and after it.
    pub(super) fn is_between_statements(&mut self, execution: &Execution) -> bool {
        self.transaction.block == Block::Open
            && !self.transaction.implicit
            // A portal read in steps would be open over what comes in between.
            && (execution.fetch() == 0 || execution.is_staged())
            && self.connections.iter_mut().all(|(_, c)| !c.unsynced())
    }

    /// Ends the statement's own transaction; the shards are in no block of the client's then.
    ///
    /// # Errors
    /// A lost shard.
    pub async fn end_snapshot(&mut self) -> Result<(), ServerError> {
        if !std::mem::take(&mut self.snapshot) {
            return Ok(());
        }
        let commit = ["COMMIT".to_owned()];
        let work = self
            .connections
            .iter_mut()
            .filter(|(_, conn)| conn.status() != b'I' || conn.unsynced())
            .map(|(_, conn)| {
                if conn.unsynced() {
                    conn.sync();
                }
                super::control::command(conn, &commit)
            });
        let done = futures_util::future::join_all(work).await;
        if self.transaction.block != Block::Idle {
            self.connections.release();
        }
        done.into_iter().try_for_each(|d| d.map(|_| ()))
    }

    /// Notes that a statement may leave something in the client's block on its shards.
    pub(super) fn tie(&mut self, prepared: &Prepared) {
        let reads = match prepared.kind {
            Kind::Select { writes, locks } => !writes && !locks,
            Kind::Show { .. } => true,
            _ => false,
        };
        let leaves_nothing = prepared.planned.as_ref().is_some_and(|p| p.leaves_nothing);
        self.transaction.was_tied = self.transaction.is_tied;
        if prepared.at_home {
            self.at_home(prepared);
        }
        if self.transaction.block == Block::Open && !(reads && leaves_nothing) {
            self.transaction.is_tied = true;
        }
    }

    /// The session's settings with what SET LOCAL has made of them.
    pub(super) fn settings_in_force(&self) -> Cow<'_, Settings> {
        let mut locals = self.transaction.locals().peekable();
        if locals.peek().is_none() {
            return Cow::Borrowed(&self.settings);
        }
        let mut settings = self.settings.clone();
        locals.for_each(|(name, value)| settings.set(name, value.to_owned()));
        Cow::Owned(settings)
    }
}
