//! Statements the session carries out itself: transactions, settings, and what belongs to a session.

use std::time::Instant;

use super::control;
use super::own_settings::is_own;
use super::pins::{changes_unknown, pins_one_shard};
use super::prepare::CATALOG_SHARD;
use super::prepared::Prepared;
use super::session::{Ended, Session};
use super::settings;
use super::transaction::{Block, Company};
use super::wording::{changes, discard_tag, read_only, transaction_modes};
use crate::metrics::QueryKind;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::{CopySource, Kind, TransactionOptions};

/// A mark no session has: the connection's settings are replayed before anybody uses it again.
pub const MARK_UNKNOWN: u64 = u64::MAX;

impl Session {
    /// Carries a statement out if it is one of the session's own and returns its tag ("" for an empty statement); `None` for
    /// those that shards execute.
    ///
    /// # Errors
    /// 0A000 for what cannot be done over several shards.
    pub async fn control_statement(
        &mut self,
        prepared: &Prepared,
    ) -> Result<Option<String>, Ended> {
        self.leaves_unseen |= prepared.leaves_unseen;
        match &prepared.kind {
            Kind::Select { writes: false, .. } | Kind::Show { .. } | Kind::Explain { .. } => {
                Ok(None)
            }
            _ if self.goes_home(prepared) => Ok(None),
            _ => Box::pin(self.carry_out(prepared)).await,
        }
    }

    async fn carry_out(&mut self, prepared: &Prepared) -> Result<Option<String>, Ended> {
        let since = Instant::now();
        let sql = &*prepared.sql;
        let tag = match &prepared.kind {
            Kind::Empty => String::new(),
            Kind::Begin { options } => self.begin(sql, options.isolation.as_deref()).await?,
            Kind::Commit { .. } | Kind::Rollback { .. } if self.ends_pipeline(&prepared.kind) => {
                return Ok(None);
            }
            Kind::Commit { chain } => self.end_block(sql, true, *chain).await?,
            Kind::Rollback { chain } => self.end_block(sql, false, *chain).await?,
            Kind::Savepoint { name } => self.savepoint(sql, name).await?,
            Kind::Release { name } => self.release_savepoint(sql, name).await?,
            Kind::RollbackTo { name } => self.rollback_to(sql, name).await?,
            Kind::Set {
                name, local, value, ..
            } if is_encoding(name) => {
                self.set_encoding(value.as_deref(), *local)?;
                "SET".into()
            }
            Kind::Reset { name: Some(name) } if is_encoding(name) => {
                self.set_encoding(None, false)?;
                "RESET".into()
            }
            Kind::Set { name, .. } if is_own(name) => self.set_own_by(&prepared.kind).await?,
            Kind::Set {
                name, local, value, ..
            } => self.set(sql, name, value.as_deref(), *local).await?,
            Kind::Reset { name: Some(name) } => self.reset(sql, name).await?,
            Kind::Reset { name: None } => self.reset_all(sql, "RESET").await?,
            Kind::SetTransaction { .. } => {
                self.set_transaction(sql, Some("SET TRANSACTION")).await?
            }
            Kind::SetSessionCharacteristics { options } => {
                self.set_characteristics(options).await?
            }
            Kind::Lock(lock) if self.can_lock(lock) => self.lock(lock).await?,
            Kind::Deallocate { name } => match self.deallocate(name.as_deref())? {
                Some(tag) => tag,
                None => return Ok(None),
            },
            Kind::Prepare { name, inner } if !self.shared.is_one_shard() => {
                self.prepare_by_name(name, inner, &prepared.arguments)
                    .await?
            }
            Kind::Execute { .. } if !self.shared.is_one_shard() => return Ok(None),
            // Nothing is listened to over several shards.
            Kind::Unlisten if !self.shared.is_one_shard() => "UNLISTEN".into(),
            Kind::Discard { all: true } => self.discard_all(sql).await?,
            // Clients have no temporary tables, sequences or plans of their own on the shards.
            Kind::Discard { all: false } if !self.shared.is_one_shard() => discard_tag(sql),
            _ if self.shared.is_one_shard() => return Ok(None),
            Kind::SetConstraints => self.set_constraints(sql).await?,
            Kind::CopyTo(copy) if copy.to_client && copy.source != CopySource::Change => {
                return Ok(None);
            }
            kind if changes(kind) && self.is_read_only() => return Err(read_only(sql).into()),
            Kind::Insert | Kind::Update | Kind::Delete if prepared.planned.is_some() => {
                return Ok(None);
            }
            _ => self.carry_out_rest(prepared).await?,
        };
        let metrics = self.shared.metrics;
        metrics.query(QueryKind::Session);
        metrics.query_seconds(QueryKind::Session, since.elapsed().as_secs_f64());
        Ok(Some(tag))
    }

    async fn begin(&mut self, sql: &str, isolation: Option<&str>) -> Result<String, ServerError> {
        if self.transaction.implicit {
            // What the message has done so far belongs to the client's block.
            let modes = transaction_modes(sql);
            if !modes.is_empty() {
                self.set_transaction(&format!("SET TRANSACTION {modes}"), None)
                    .await?;
            }
            self.transaction.implicit = false;
        } else if self.transaction.block == Block::Idle {
            if self.has_run && isolation.is_some_and(|i| !i.eq_ignore_ascii_case("read committed"))
            {
                let message = "SET TRANSACTION ISOLATION LEVEL must be called before any query";
                return Err(ServerError::new(sqlstate::ACTIVE_TRANSACTION, message));
            }
            let before = self.before_pipeline.take();
            self.transaction
                .open(sql, before.unwrap_or_else(|| self.settings.clone()));
            self.join_held();
            self.timestamp();
            if self.pinned {
                // While the client is silent the session hears its own connections, as long as none owes it anything.
                self.join_and_wait(&[CATALOG_SHARD]).await?;
            }
        } else {
            self.warn(
                sqlstate::ACTIVE_TRANSACTION,
                "there is already a transaction in progress",
            );
            let modes = transaction_modes(sql);
            if !modes.is_empty() {
                self.set_transaction(&format!("SET TRANSACTION {modes}"), None)
                    .await?;
            }
        }
        // The tag repeats the client's word for it.
        match sql
            .get(..5)
            .is_some_and(|word| word.eq_ignore_ascii_case("start"))
        {
            true => Ok("START TRANSACTION".into()),
            false => Ok("BEGIN".into()),
        }
    }

    /// With one shard a pipeline is a transaction of that shard's own: COMMIT or ROLLBACK in its middle ends what was sent before, there.
    fn ends_pipeline(&mut self, kind: &Kind) -> bool {
        let unsynced = {
            let mut held = self.connections.iter_mut();
            held.any(|(_, conn)| conn.unsynced())
        };
        let is_idle = self.transaction.block == Block::Idle;
        let ends = unsynced && is_idle && self.shared.is_one_shard();
        if ends
            && let Some(before) = self.before_pipeline.take()
            && matches!(kind, Kind::Rollback { .. })
        {
            self.restore(before);
        }
        ends
    }

    /// Begins the transaction that the statements of one message, or of a pipeline, share anyway, where its shards must know.
    pub fn open_implicit(&mut self) {
        if self.transaction.block != Block::Idle {
            return;
        }
        let before = self.before_pipeline.take();
        self.transaction
            .open_implicit(before.unwrap_or_else(|| self.settings.clone()));
        self.join_held();
    }

    /// Takes the connections that the message has used already into its block.
    fn join_held(&mut self) {
        let joining = self.transaction.join();
        for (_, conn) in self.connections.iter_mut() {
            if conn.unsynced() {
                conn.sync();
            }
            joining.iter().for_each(|sql| conn.query(sql));
        }
    }

    /// True for a statement that shares its transaction with none before it: the block that it needs would have to be there.
    pub fn lacks_block(&self) -> bool {
        self.transaction.block == Block::Idle
            && matches!(self.company, Company::Alone | Company::Opening)
    }

    pub fn warn(&mut self, sqlstate: &str, message: &str) {
        let notice = ServerError::new(sqlstate, message)
            .with(b'S', "WARNING")
            .with(b'V', "WARNING");
        super::encoding::send_notice(&mut self.client, &notice);
    }

    /// COMMIT or ROLLBACK, on every shard that joined.
    async fn end_block(
        &mut self,
        sql: &str,
        commit: bool,
        chain: bool,
    ) -> Result<String, ServerError> {
        if self.transaction.block == Block::Idle || self.transaction.implicit {
            if chain {
                let name = if commit { "COMMIT" } else { "ROLLBACK" };
                let message = format!("{name} AND CHAIN can only be used in transaction blocks");
                return Err(ServerError::new(sqlstate::NO_ACTIVE_TRANSACTION, message));
            }
            self.warn(
                sqlstate::NO_ACTIVE_TRANSACTION,
                "there is no transaction in progress",
            );
            // It ends the implicit transaction of a message of several statements all the same.
            self.has_run = false;
            if self.transaction.implicit {
                self.end_transaction(commit, "COMMIT").await?;
            } else if let Some(before) = self.before_pipeline.take()
                && !commit
            {
                self.restore(before);
            }
            self.transaction.forget_clock();
            return Ok(if commit { "COMMIT" } else { "ROLLBACK" }.into());
        }
        self.has_run = false;
        let committed = commit && self.transaction.block == Block::Open;
        // After a failure on one shard the others must not commit.
        let changed = !self.transaction.touched().is_empty();
        let text = match (committed, chain) {
            (true, _) => sql,
            (false, true) if !changed => "ROLLBACK AND CHAIN",
            (false, _) => "ROLLBACK",
        };
        let begin = self.transaction.begin_texts();
        self.end_transaction(committed, text).await?;
        if chain {
            // Settings are brought back between the two blocks.
            let begins_anew = !committed && changed;
            if begins_anew {
                let held: Vec<_> = self.connections.iter_mut().map(|(s, _)| s).collect();
                self.replay_on_held(&held);
            }
            self.transaction.open_chained(begin, &self.settings);
            if begins_anew {
                self.join_held();
            }
        }
        Ok(if committed { "COMMIT" } else { "ROLLBACK" }.into())
    }

    /// Ends the block on every shard that joined; settings go back where it does not commit.
    ///
    /// # Errors
    /// What a shard says of `text`; the block is over all the same.
    pub async fn end_transaction(&mut self, commit: bool, text: &str) -> Result<(), ServerError> {
        let held = match commit {
            true => Box::pin(self.hold_cursors()).await,
            false => Ok(()),
        };
        let text = match (commit && held.is_ok(), self.transaction.implicit) {
            (false, true) => "ROLLBACK",
            (false, false) if commit => "ROLLBACK",
            _ => text,
        };
        for portal in self.portals.drain() {
            portal.abandon(&mut self.connections);
        }
        let result = match self.transaction.writer.filter(|_| commit) {
            Some(writer) => self.commit_writer_first(writer, text).await,
            None if commit => self.broadcast(text).await,
            None => self.broadcast_rollback(text).await,
        };
        let result = held.and(result);
        self.cursors.end_transaction(commit && result.is_ok());
        self.pins.tables.rolled();
        let changed = !self.transaction.touched().is_empty();
        if let Some(settings) = self.transaction.close(commit && result.is_ok()) {
            self.restore(settings);
            if changed {
                self.forget_settings();
            }
        }
        if changed {
            // What SET LOCAL said is over.
            self.follow_steering();
        }
        if changed {
            self.report_settings();
        }
        result
    }

    /// Closes all portals and cursors.
    pub(super) fn drop_portals(&mut self) {
        for portal in self.portals.drain() {
            portal.abandon(&mut self.connections);
        }
        self.cursors.close_all(&mut self.connections);
    }

    fn needs_block(&self, what: &str) -> Result<(), ServerError> {
        match self.transaction.block {
            _ if !self.transaction.implicit && self.transaction.block != Block::Idle => Ok(()),
            _ => {
                let message = format!("{what} can only be used in transaction blocks");
                Err(ServerError::new(sqlstate::NO_ACTIVE_TRANSACTION, message))
            }
        }
    }

    async fn savepoint(&mut self, sql: &str, name: &str) -> Result<String, ServerError> {
        self.needs_block("SAVEPOINT")?;
        self.broadcast(sql).await?;
        self.transaction.savepoint(name, &self.settings);
        Ok("SAVEPOINT".into())
    }

    async fn release_savepoint(&mut self, sql: &str, name: &str) -> Result<String, ServerError> {
        self.needs_block("RELEASE SAVEPOINT")?;
        if !self.transaction.release(name) {
            return Err(no_savepoint(name));
        }
        self.broadcast(sql).await?;
        self.cursors.released(self.transaction.depth());
        Ok("RELEASE".into())
    }

    async fn rollback_to(&mut self, sql: &str, name: &str) -> Result<String, ServerError> {
        self.needs_block("ROLLBACK TO SAVEPOINT")?;
        let Some(then) = self.transaction.rollback_to(name) else {
            return Err(no_savepoint(name));
        };
        self.broadcast(sql).await?;
        self.cursors.rolled_back_to(self.transaction.depth());
        self.pins.tables.rolled();
        let catch_up = then.catch_up(self.transaction.touched());
        self.restore(then.settings);
        self.follow_steering();
        if !catch_up.is_empty() {
            for text in catch_up {
                self.broadcast(&text).await?;
            }
            self.report_settings();
        }
        Ok("ROLLBACK".into())
    }

    /// `word`: what needs a block, if it is said at all.
    pub(super) async fn set_transaction(
        &mut self,
        sql: &str,
        word: Option<&str>,
    ) -> Result<String, ServerError> {
        if let Some(word) = word.filter(|_| self.lacks_block()) {
            let message = format!("{word} can only be used in transaction blocks");
            self.warn(sqlstate::NO_ACTIVE_TRANSACTION, &message);
        }
        self.open_implicit();
        let elsewhere = self.transaction.has_left || self.has_run && self.transaction.implicit;
        if elsewhere || self.transaction.has_savepoints() {
            self.join_and_wait(&[CATALOG_SHARD]).await?;
        }
        if elsewhere {
            // Queries ran in transactions of their own; a shard shall judge as if they had been in this one.
            let conn = self.connections.get(CATALOG_SHARD).ok_or_else(gone)?;
            control::command(conn, &["SELECT 1".into(), sql.to_owned()]).await?;
        }
        self.broadcast(sql).await?;
        self.transaction.add_characteristics(sql);
        Ok("SET".into())
    }

    /// DEALLOCATE of a name that the shard itself may know (PREPARE on one shard) is left to the shard.
    fn deallocate(&mut self, name: Option<&str>) -> Result<Option<String>, Ended> {
        match name {
            None => {
                self.statements.retain(|n, _| n.is_empty());
                let kept_here = !self.pinned || !self.shared.is_one_shard();
                Ok(kept_here.then(|| "DEALLOCATE ALL".into()))
            }
            Some(name) => match self.statements.remove(name) {
                Some(_) => Ok(Some("DEALLOCATE".into())),
                None if self.shared.is_one_shard() => Ok(None),
                None => {
                    let message = format!("prepared statement \"{name}\" does not exist");
                    Err(ServerError::new(sqlstate::INVALID_STATEMENT_NAME, message).into())
                }
            },
        }
    }

    async fn discard_all(&mut self, sql: &str) -> Result<String, ServerError> {
        let problem = match (self.transaction.block, self.company) {
            (Block::Idle, Company::Alone | Company::Opening) => None,
            (_, Company::Pipeline) => Some("DISCARD ALL cannot be executed within a pipeline"),
            _ => Some("DISCARD ALL cannot run inside a transaction block"),
        };
        if let Some(message) = problem {
            return Err(ServerError::new(sqlstate::ACTIVE_TRANSACTION, message));
        }
        self.statements.clear();
        self.drop_portals();
        if self.pinned {
            self.doubt_pins();
            self.pins.tables.changed();
        }
        match self.pinned {
            // The shard must forget too what only it knows.
            true => self.reset_all(sql, "DISCARD ALL").await,
            false => self.reset_all("RESET ALL", "DISCARD ALL").await,
        }
    }

    /// SET SESSION CHARACTERISTICS: defaults of the transactions to come.
    async fn set_characteristics(
        &mut self,
        options: &TransactionOptions,
    ) -> Result<String, ServerError> {
        let values = [
            ("default_transaction_isolation", options.isolation.clone()),
            (
                "default_transaction_read_only",
                options.read_only.map(|b| b.to_string()),
            ),
            (
                "default_transaction_deferrable",
                options.deferrable.map(|b| b.to_string()),
            ),
        ];
        for (name, value) in values.into_iter().filter_map(|(n, v)| v.map(|v| (n, v))) {
            self.apply(&settings::set_config(name, &value, false), name, false)
                .await?;
        }
        Ok("SET".into())
    }

    /// True where PostgreSQL would refuse any change, whatever it is.
    fn is_read_only(&self) -> bool {
        let default = self
            .settings
            .get("default_transaction_read_only")
            .is_some_and(|v| v.eq_ignore_ascii_case("on") || v.eq_ignore_ascii_case("true"));
        self.transaction.is_read_only().unwrap_or(default)
    }

    /// What a finished statement changes in the session.
    pub async fn after_statement(&mut self, prepared: &Prepared) -> Result<(), Ended> {
        self.pinned |=
            prepared.pins || self.shared.is_one_shard() && pins_one_shard(&prepared.kind);
        #[cfg(feature = "otlp")]
        self.note_done();
        self.rely_on(prepared);
        self.note_schema(prepared);
        if self.shared.is_one_shard() && changes_unknown(&prepared.kind) {
            self.pins.tables.changed();
        }
        if prepared.changes_temporary {
            self.pins.tables.changed();
        } else if matches!(prepared.kind, Kind::Ddl) {
            self.shared.catalog.changed();
        }
        if self.snapshot {
            Box::pin(self.end_snapshot()).await?;
        }
        if !prepared.set_config.is_empty() {
            Box::pin(self.follow_set_config(prepared)).await?;
        }
        Ok(())
    }
}

/// The one setting that is between the client and us.
fn is_encoding(name: &str) -> bool {
    name.eq_ignore_ascii_case("client_encoding")
}

fn no_savepoint(name: &str) -> ServerError {
    ServerError::new("3B001", format!("savepoint \"{name}\" does not exist"))
}

pub(super) fn gone() -> ServerError {
    ServerError::new(
        sqlstate::CONNECTION_FAILURE,
        "the connection to the catalog shard is gone",
    )
}
