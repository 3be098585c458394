//! From a prepared statement to its execution: the shards its parameters lead to, what every execution is given, and what is refused only
//! now that the parameters are known.

use std::sync::Arc;

use super::guards::{refuse_clock_parameters, refuse_settings_of_steps};
use super::portals::Portal;
use super::prepare::refused;
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::Session;
use crate::executor::{Bound, Execution, Parameters, backend_error};
use crate::metrics::{QueryKind, Reason};
use crate::plan::{Plan, ShardId};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;

impl Session {
    /// The execution of a prepared statement with its parameters: the client's own text where one shard has all the rows.
    ///
    /// # Errors
    /// The refusal, where several shards are needed and no plan was proved exact.
    pub fn open(
        &mut self,
        prepared: &Prepared,
        parameters: Arc<Parameters>,
        columns: Arc<[ColumnDescription]>,
        fetch: u32,
        sync: bool,
    ) -> Result<Execution, ServerError> {
        let (kind, execution) = self.execution(prepared, parameters, columns, (fetch, sync))?;
        self.count(kind, &prepared.sql);
        if self.steered
            && let Ok(execution) = &execution
        {
            self.tell_routing(prepared, kind, execution);
        }
        execution
    }

    /// As `open`, neither counted nor looked at for what its transaction promises.
    pub(super) fn planned_execution(
        &mut self,
        prepared: &Prepared,
        parameters: Arc<Parameters>,
        columns: Arc<[ColumnDescription]>,
        (fetch, sync): (u32, bool),
    ) -> Result<(QueryKind, Result<Execution, ServerError>), ServerError> {
        let Some(planned) = &prepared.planned else {
            // A prepared INSERT and its like come here by EXECUTE.
            return Err(unsupported(
                Reason::Write,
                "only SELECT is supported over several shards",
                "Writes over several shards are not there yet: run the statement on the shard itself.",
            ));
        };
        let parameters = match prepared.set_config.is_empty() {
            true => parameters,
            false => self.own_values(prepared, parameters)?,
        };
        self.tie(prepared);
        self.claim_home(prepared)?;
        let shards = self.shared.shard_names.len();
        self.refuse_encoding_functions(&prepared.sql)?;
        if shards > 1
            && prepared
                .oid_column
                .is_some_and(|i| columns.get(i).is_some_and(|c| c.format == 1))
        {
            let hint = "Ask for the column in text form, or cast it to text.";
            return Err(unsupported(
                Reason::Catalog,
                "binary output that carries OIDs is not supported over several shards",
                hint,
            ));
        }
        let mut bound = self.bound(parameters, columns, fetch, sync)?;
        bound.shows_objects = prepared.reads_catalog || shards == 1;
        self.reads_clock = prepared.clock_words;
        if let Some(write) = &planned.write {
            return Ok(self.execution_of_write(prepared, planned, write, bound));
        }
        let single = Execution::single_shard(&planned.route, &bound, shards);
        bound.prepared_timestamp = prepared.moment;
        if let Some(shard) = single {
            let (shard, lacking) = Execution::in_place_of(shard, &planned.route, &bound, shards)?;
            let execution = match self.clocked(planned, shard, bound.columns.len())? {
                Some(plan) => Execution::new(&plan, bound, shards),
                None => Ok(Execution::routed(shard, prepared.sql.clone(), bound)),
            };
            let execution = execution.map(|e| e.with_lacking(lacking));
            return Ok((QueryKind::Routed, execution));
        }
        refuse_clock_parameters(&bound.parameters)?;
        match &planned.fan_out {
            Ok(plan) => {
                let kind = match &**plan {
                    Plan::Combine { .. } if planned.gathers => QueryKind::Gathered,
                    Plan::Combine { .. } => QueryKind::Staged,
                    _ => QueryKind::PushDown,
                };
                self.refuse_lossy_text(plan, &bound.columns)?;
                refuse_settings_of_steps(plan, &prepared.sql, &bound.parameters)?;
                if planned.uses_now && !self.is_alone() {
                    self.read_clock(super::transaction::Clock::Proxy)?;
                }
                let execution = Execution::new(plan, bound, shards);
                let execution = execution.map(|e| e.of_plan(plan).or_lazily(planned.lazy.clone()));
                Ok((kind, execution))
            }
            Err(refusal) => {
                let refused = refused(refusal, &prepared.sql);
                Ok((QueryKind::Refused, Err(refused)))
            }
        }
    }

    /// What every execution of this session is given. `sync`: the client's Sync is next.
    pub fn bound(
        &mut self,
        parameters: Arc<Parameters>,
        columns: Arc<[ColumnDescription]>,
        fetch: u32,
        sync: bool,
    ) -> Result<Bound, ServerError> {
        let loaded = self.loaded()?;
        let unread = self.role.pools.not_admitting(loaded.catalog.version);
        let preferred = match self.preferred_shard() {
            // What any shard has is asked of one that is known.
            None if !unread.is_empty() => Some(self.shared.next_merge_shard(&unread)),
            preferred => preferred,
        };
        Ok(Bound {
            parameters,
            columns,
            transaction_timestamp: self.timestamp(),
            statement_timestamp: self.message_time,
            prepared_timestamp: 0,
            fetch,
            deferred: false,
            // Over several shards there are only reads, which need no common transaction up to the client's Sync. On one,
            // a pipeline is one transaction. A portal that is read in batches must outlive this message.
            sync: fetch == 0
                && (sync || !self.shared.is_one_shard())
                && !self.portals.iter().any(Portal::is_suspended),
            shard_names: self.shared.shard_names.clone(),
            memory_max: self.shared.config().merge.memory_max,
            max_staged_bytes: self.shared.config().merge.max_staged_bytes,
            catalog: Some(loaded.catalog.clone()),
            shows_objects: true,
            preferred,
            missing: self.steering.missing.clone(),
        })
    }

    /// Refuses what was planned while nothing was known of a shard that it runs on.
    ///
    /// # Errors
    /// 08006.
    pub(super) fn check_known(
        &self,
        prepared: &Prepared,
        shards: &[ShardId],
    ) -> Result<(), ServerError> {
        let pools = &self.role.pools;
        let mut shards = shards.iter();
        match shards.find(|shard| !pools.admits(**shard, prepared.catalog_version)) {
            Some(shard) => Err(backend_error(pools.not_read(*shard))),
            None => Ok(()),
        }
    }

    /// now() of the transaction: when the message came that began it, as in PostgreSQL.
    pub fn timestamp(&mut self) -> i64 {
        *self.transaction.timestamp.get_or_insert(self.message_time)
    }
}
