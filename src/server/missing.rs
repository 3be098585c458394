//! Partial results (`pgbraid.partial_results`): an answer without the rows of shards that cannot be reached, where the client has asked
//! for that.
//!
//! It is the answer of a PostgreSQL that holds the rows of those shards which are there: every step of a statement leaves out the same
//! shards, so that counts, NOT IN and EXCEPT are those of that database. Which shards are there is found out before the statement is
//! begun, by taking a connection to each; the client is told those whose rows are left out, by a WARNING and by the parameter
//! `pgbraid.missing_shards`.
//!
//! What would have to be read on a missing shard and nowhere else (a table that only that one has, the catalog with its OIDs) is refused,
//! as is everything but reading: changes, locks, blocks that have changed something or keep a snapshot. A shard that is lost on the way,
//! before anything of the answer is out, makes the statement begin anew, once; then it is there again or missing. Later it is an error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::cancel::unless_cancelled;
use super::own_settings::Own;
use super::prepare::CATALOG_SHARD;
use super::prepared::Prepared;
use super::routing::listed;
use super::run::Outcome;
use super::session::{Ended, Session};
use super::transaction::Block;
use crate::executor::{Execution, Parameters};
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;
use crate::sql::Kind;

/// The ParameterStatus that names the shards whose rows the last answer lacked.
pub(super) const MISSING_SHARDS: &str = "pgbraid.missing_shards";

/// A shard that let us wait for so long before it turned out to be missing …
const SLOW: Duration = Duration::from_millis(250);
/// … is not asked again by this session for so long: else every statement would wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the session's own settings have made of the statement in hand.
#[derive(Default)]
pub struct Steering {
    /// Shards whose rows are to be left out, ascending.
    pub(super) missing: Vec<ShardId>,
    /// The shards that the client has been told of last.
    pub(super) told: String,
    /// Those whose rows the answer in hand lacks, until its first row or its end tells so: before that it may begin anew.
    untold: Option<Vec<ShardId>>,
    /// How to begin it anew.
    again: Option<Box<Again>>,
    /// Why it has to be answered whole, though partial results are wanted.
    whole: Option<&'static str>,
    /// Where its last step is to run, once that has been told.
    pub(super) merge: Option<ShardId>,
    /// Shards that have let the session wait in vain, and since when.
    silent: Vec<(ShardId, Instant)>,
}

/// What [`Session::open`] was called with.
struct Again {
    prepared: Arc<Prepared>,
    parameters: Arc<Parameters>,
    columns: Arc<[ColumnDescription]>,
    portal: (u32, bool),
}

impl Session {
    /// Another statement is opened.
    pub(super) fn begin_steered(&mut self) {
        self.steering.again = None;
        self.steering.untold = None;
        self.steering.whole = None;
        self.steering.merge = None;
    }

    /// As [`Session::open`], of a session with one of pgbraid's own settings on: without the rows of shards that cannot be reached,
    /// where that may be.
    ///
    /// # Errors
    /// As there; 08006 where what only a missing shard has is read.
    pub(super) async fn open_steered(
        &mut self,
        prepared: &Arc<Prepared>,
        parameters: Arc<Parameters>,
        columns: Arc<[ColumnDescription]>,
        (fetch, sync): (u32, bool),
    ) -> Result<Execution, ServerError> {
        if !self.is_on(Own::PartialResults) {
            return self.open(prepared, parameters, columns, fetch, sync);
        }
        self.steering.whole = self.obstacle(prepared);
        if self.steering.whole.is_some() {
            let opened = self.open(prepared, parameters, columns, fetch, sync);
            if opened.is_ok() {
                self.tell_missing(&[]);
            }
            return opened;
        }
        let again = Again {
            prepared: prepared.clone(),
            parameters,
            columns,
            portal: (fetch, sync),
        };
        let opened = self.open_without_missing(&again).await;
        self.steering.missing.clear();
        let execution = opened?;
        self.steering.untold = Some(execution.lacking());
        self.steering.again = Some(Box::new(again));
        Ok(execution.partially())
    }

    /// Looks which shards are there until all that are needed are, and opens the statement on those.
    async fn open_without_missing(&mut self, call: &Again) -> Result<Execution, ServerError> {
        let clock = self.transaction.clock;
        self.steering.missing = self.role.pools.not_admitting(call.prepared.catalog_version);
        loop {
            let (parameters, columns) = (call.parameters.clone(), call.columns.clone());
            let (_, execution) =
                self.execution(&call.prepared, parameters, columns, call.portal)?;
            let Ok(execution) = execution else {
                break;
            };
            let more = self.unreachable(execution.shards()).await?;
            if more.is_empty() {
                break;
            }
            self.steering.missing.extend(more);
            self.steering.missing.sort_unstable();
            self.transaction.clock = clock;
        }
        self.transaction.clock = clock;
        let (fetch, sync) = call.portal;
        let (parameters, columns) = (call.parameters.clone(), call.columns.clone());
        self.open(&call.prepared, parameters, columns, fetch, sync)
    }

    /// Why a statement has to be answered whole.
    fn obstacle(&self, prepared: &Prepared) -> Option<&'static str> {
        let planned = prepared.planned.as_ref();
        let reads = matches!(
            prepared.kind,
            Kind::Select {
                writes: false,
                locks: false
            }
        );
        let leaves_nothing = planned.is_some_and(|p| p.read_only && p.leaves_nothing);
        let transaction = &self.transaction;
        let is_tied = transaction.writer.is_some() || transaction.is_tied;
        match () {
            () if !reads || !leaves_nothing || !prepared.set_config.is_empty() => {
                Some("a statement that does more than read")
            }
            () if prepared.at_home => Some("what the session has on one shard only"),
            () if transaction.block == Block::Open && is_tied => {
                Some("a transaction that has changed or locked something")
            }
            () if transaction.keeps_snapshot() || self.is_serializable_by_default() => {
                Some("a transaction that keeps a snapshot")
            }
            () => None,
        }
    }

    /// Those of `shards` that no connection can be had to. A session that holds one has that.
    async fn unreachable(&mut self, shards: &[ShardId]) -> Result<Vec<ShardId>, ServerError> {
        let now = Instant::now();
        self.steering
            .silent
            .retain(|(_, since)| now.duration_since(*since) < PATIENCE);
        let silent = &self.steering.silent;
        let is_silent = |shard: &ShardId| silent.iter().any(|(s, _)| s == shard);
        let asked = shards
            .iter()
            .copied()
            .filter(|shard| !self.connections.holds(*shard) && !self.role.pools.is_paused(*shard));
        let (mut missing, asked): (Vec<ShardId>, Vec<ShardId>) = asked.partition(is_silent);
        let patience = self.patience(&asked);
        let pools = &self.role.pools;
        let found = {
            let each = asked.iter().map(|shard| async move {
                // It goes back at once, and is the first to be lent.
                let lent = pools.acquire_one(*shard, now, patience).await.map(drop);
                (*shard, lent, now.elapsed())
            });
            let all = std::pin::pin!(async { Ok(join_all(each).await) });
            unless_cancelled(&self.registration.entry, None, all).await?
        };
        for (shard, lent, took) in found {
            if lent.is_err_and(|error| error.is_absence()) {
                missing.push(shard);
                if took >= SLOW {
                    self.steering.silent.push((shard, Instant::now()));
                }
            }
        }
        missing.sort_unstable();
        Ok(missing)
    }

    /// Something of the answer goes out: it does not begin anew any more.
    pub(super) fn tell_untold(&mut self) {
        if let Some(lacking) = self.steering.untold.take() {
            self.tell_missing(&lacking);
        }
    }

    /// Tells the client whose rows the answer lacks, where it is not whole.
    fn tell_missing(&mut self, lacking: &[ShardId]) {
        let names = self.shared.shard_names.clone();
        if !lacking.is_empty() && !self.hears_no(&["error"]) {
            let list = listed(lacking, &names);
            let warning = ServerError::new(
                sqlstate::WARNING,
                format!("partial result: {list} cannot be reached"),
            );
            let warning = warning
                .with(b'S', "WARNING")
                .with(b'V', "WARNING")
                .with_detail("The answer is that of a database without their rows.")
                .with_hint("SET pgbraid.partial_results = off makes it an error.");
            super::encoding::send_notice(&mut self.client, &warning);
        }
        let list: Vec<&str> = lacking.iter().map(|s| &*names[s.0 as usize]).collect();
        let list = list.join(",");
        if list != self.steering.told {
            self.report(MISSING_SHARDS, &list);
            self.steering.told = list;
        }
        if !lacking.is_empty() {
            self.shared.metrics.partial_results.inc();
        }
    }

    /// Starts a statement once more after its start met with a shard that was there a moment ago.
    ///
    /// # Errors
    /// That of the first start where it cannot be begun anew, else that of the second.
    pub(super) async fn start_again(
        &mut self,
        execution: &mut Execution,
        error: ServerError,
    ) -> Result<(), ServerError> {
        if !self.may_begin_anew(execution, &error) {
            return Err(self.told_whole(error));
        }
        let Some(next) = self.anew(&error).await? else {
            return Err(self.told_whole(error));
        };
        *execution = next;
        if let Err(error) = self.start(execution).await {
            self.recover().await;
            return Err(self.told_whole(error));
        }
        Ok(())
    }

    /// True where the last step may run on the merge session of another shard than this one, which is not there: no row of it is read.
    pub(super) fn may_merge_elsewhere(
        &self,
        error: &ServerError,
        avoided: &mut Vec<ShardId>,
        shard: ShardId,
    ) -> bool {
        avoided.push(shard);
        self.steering.again.is_some()
            && is_of_connection(error)
            && avoided.len() < self.shared.shard_names.len()
    }

    /// True for an execution that may begin anew because a shard was lost before anything of it was out.
    pub(super) fn may_begin_anew(&mut self, execution: &Execution, error: &ServerError) -> bool {
        self.steering.again.is_some()
            && is_of_connection(error)
            && self.is_alone()
            && execution.may_begin_anew()
    }

    /// Streams a statement from its beginning, once more.
    ///
    /// # Errors
    /// As [`Session::stream`].
    pub(super) async fn stream_anew(
        &mut self,
        execution: &mut Execution,
        max_rows: u64,
        error: ServerError,
    ) -> Result<Outcome, Ended> {
        match self.anew(&error).await? {
            Some(next) => self.stream_next(execution, next, max_rows).await,
            None => Err(Ended::Statement(error)),
        }
    }

    /// The statement in hand opened a second time, on connections of now; there is no third.
    async fn anew(&mut self, why: &ServerError) -> Result<Option<Execution>, ServerError> {
        let Some(call) = self.steering.again.take() else {
            return Ok(None);
        };
        tracing::debug!(error = why.message(), "begins anew without what is missing");
        // Of a lost connection the end of its transaction says no more than that.
        let _ = self.end_snapshot().await;
        match self.pinned {
            true => self.release_unpinned().await,
            false => self.connections.release(),
        }
        let opened = self.open_without_missing(&call).await;
        self.steering.missing.clear();
        let execution = opened?;
        self.steering.untold = Some(execution.lacking());
        Ok(Some(execution))
    }

    /// An error over a lost shard, with why there is no partial result in its place.
    pub(super) fn told_whole(&self, error: ServerError) -> ServerError {
        match self.steering.whole {
            Some(why) if is_of_connection(&error) => {
                error.with_hint(format!("There are no partial results of {why}."))
            }
            _ => error,
        }
    }

    /// The shard that is asked about a statement before it runs: the catalog shard; where that cannot be reached and partial results are
    /// wanted, another. What it says is translated by whoever asks.
    ///
    /// # Errors
    /// As [`Session::join_and_wait`].
    pub(super) async fn join_teller(&mut self) -> Result<ShardId, ServerError> {
        let mut teller = CATALOG_SHARD;
        let partial = self.steered && self.is_on(Own::PartialResults);
        if partial && self.may_ask_another() {
            let count = self.shared.shard_names.len() as u16;
            for shard in (0..count).map(ShardId) {
                if self.connections.holds(shard) || self.unreachable(&[shard]).await?.is_empty() {
                    teller = shard;
                    break;
                }
            }
        }
        self.join_and_wait(&[teller]).await?;
        Ok(teller)
    }

    fn may_ask_another(&self) -> bool {
        !self.pinned && !self.connections.holds(CATALOG_SHARD) && !self.shared.is_one_shard()
    }
}

/// True where a shard's connection was lost or could not be had.
pub(super) fn is_of_connection(error: &ServerError) -> bool {
    let state = error.sqlstate();
    state == sqlstate::CONNECTION_FAILURE || sqlstate::is_going(&state)
}
