//! INSERT, UPDATE and DELETE of rows on one shard. A transaction changes one shard only, so that it commits in one phase there.

use super::prepare::{CATALOG_SHARD, refused};
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::Session;
use super::transaction::{Block, Clock};
use crate::executor::{Bound, Execution, Parameters};
use crate::metrics::{QueryKind, Reason};
use crate::plan::{Planned, ShardId, Write};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

impl Session {
    /// The client's own text on the shard that has the rows; 0A000 where that is not one shard, or the transaction has changed
    /// another one.
    pub(super) fn execution_of_write(
        &mut self,
        prepared: &Prepared,
        planned: &Planned,
        write: &Write,
        bound: Bound,
    ) -> (QueryKind, Result<Execution, ServerError>) {
        let found = self.written_shard(planned, write, &bound);
        let found = found.map_err(|error| error.unwrap_or_else(|| why_not(prepared, planned)));
        let found = found.and_then(|shard| self.check_chosen(prepared, shard).map(|()| shard));
        match found.and_then(|shard| self.claim(shard, write)) {
            Ok(shard) => {
                let execution = Execution::routed(shard, prepared.sql.clone(), bound);
                (QueryKind::Routed, Ok(execution))
            }
            Err(error) => (QueryKind::Refused, Err(error)),
        }
    }

    /// Makes it the one shard that the transaction changes.
    fn claim(&mut self, shard: ShardId, write: &Write) -> Result<ShardId, ServerError> {
        if !self.is_alone() {
            // All of a message, or a pipeline up to its Sync, is one transaction.
            self.open_implicit();
            if write.reads_clock {
                self.read_clock(Clock::Shard(shard))?;
            }
        }
        if self.transaction.writer.is_some_and(|other| other != shard) {
            return Err(unsupported(
                Reason::Write,
                "a transaction that changes rows on several shards is not supported",
                "Commit first, or change rows with the same sharding key only.",
            ));
        }
        if self.transaction.block != Block::Idle {
            self.transaction.writer = Some(shard);
        }
        Ok(shard)
    }

    /// SET CONSTRAINTS: on every shard of the transaction, also those that join later.
    ///
    /// # Errors
    /// What a shard says.
    pub(super) async fn set_constraints(&mut self, sql: &str) -> Result<String, ServerError> {
        match self.lacks_block() {
            true => self.warn(
                sqlstate::NO_ACTIVE_TRANSACTION,
                "SET CONSTRAINTS can only be used in transaction blocks",
            ),
            false => {
                self.open_implicit();
                self.join_and_wait(&[CATALOG_SHARD]).await?;
                self.broadcast(sql).await?;
                self.transaction.add_characteristics(sql);
            }
        }
        Ok("SET CONSTRAINTS".into())
    }

    /// The shard that a change runs on; the inner `None` is the planner's refusal.
    pub(super) fn written_shard(
        &self,
        planned: &Planned,
        write: &Write,
        bound: &Bound,
    ) -> Result<ShardId, Option<ServerError>> {
        if write.inserts {
            placed(write, &bound.parameters).map_err(Some)?;
        }
        let shards = self.shared.shard_names.len();
        match Execution::shards_of(&planned.route, bound, shards)[..] {
            [shard] => Ok(shard),
            [] if write.inserts => Err(Some(unsupported(
                Reason::Write,
                "no shard is the place of the row",
                "Look at the sharding key's value: the configuration names no shard for it.",
            ))),
            // No row can match: any shard says so.
            [] => Ok(Execution::single_shard(&planned.route, bound, shards).unwrap_or(ShardId(0))),
            _ => Err(None),
        }
    }
}

/// Parameters that become sharding keys have a place.
fn placed(write: &Write, parameters: &Parameters) -> Result<(), ServerError> {
    for index in &write.key_parameters {
        match parameters.values.get(*index) {
            Some(Some(value)) if write.trims && value.ends_with(b" ") => {
                return Err(unsupported(
                    Reason::Write,
                    "a sharding key with blanks at its end is not supported",
                    "Cut them: the column's type would.",
                ));
            }
            Some(None) => {
                return Err(unsupported(
                    Reason::Write,
                    "NULL as the sharding key of a new row is not supported",
                    "Give the key a value.",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn why_not(prepared: &Prepared, planned: &Planned) -> ServerError {
    match &planned.fan_out {
        Err(why) => refused(why, &prepared.sql),
        Ok(_) => unsupported(
            Reason::Write,
            "writing over several shards is not supported",
            "",
        ),
    }
}
