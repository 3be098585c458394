//! From a statement's text to what can be executed: parsed, described by the catalog shard, planned, and cached.

use std::sync::Arc;
use std::time::Instant;

use super::by_name::refuse_subquery;
use super::guards::{
    has_clock_words, is_plain, leaves_unseen, oid_column, refuse_cursor_names,
    refuse_session_functions, refuse_statement_names, takes_lock,
};
use super::own_settings::{is_own, shown};
use super::prepared::{CacheKey, Prepared};
use super::run::unsupported;
use super::session::Session;
use super::{Shared, control};
use crate::backend::catalog::Loaded;
use crate::catalog::Catalog;
use crate::executor::backend_error;
use crate::metrics::Reason;
use crate::plan::{Planned, Refusal, ShardId, Targets};
use crate::planner::{self, Facts, Request};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::{self, Kind, Statement};

/// Rounds of questions the planner may ask; each round answers all questions of the one before.
const PROBE_ROUNDS_MAX: usize = 8;

/// The shard whose OIDs clients see.
pub const CATALOG_SHARD: ShardId = ShardId(0);

impl Session {
    /// Prepares the one statement of a Parse message.
    ///
    /// # Errors
    /// What PostgreSQL finds wrong with it; 42601 for several statements; 0A000 for what is refused.
    pub async fn prepare(
        &mut self,
        sql: String,
        types: &[u32],
    ) -> Result<Arc<Prepared>, ServerError> {
        let key = CacheKey {
            sql,
            types: types.to_vec(),
            catalog_version: self.shared.catalog_version(),
            context: self.planning_context(),
        };
        if let Some(prepared) = self.cached(&key) {
            return Ok(prepared);
        }
        let mut statements = match sql::parse_with(&key.sql, self.strings()) {
            Ok(statements) => statements,
            Err(error) => return self.unparsed(&key, &error).await,
        };
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(ServerError::new(sqlstate::SYNTAX_ERROR, message));
        }
        match statements.pop() {
            None => Ok(Arc::new(self.bare(&key, Kind::Empty))),
            Some(statement) => self.prepare_statement(&statement, key).await,
        }
    }

    /// The role, and the settings that a plan or a statement's meaning may depend on, as a number.
    pub fn planning_context(&self) -> u64 {
        let settings = self.settings.planning_mark() ^ self.transaction.local_mark();
        let shared = self.role.mark ^ self.shared.schema_mark();
        settings ^ self.pins.tables.mark() ^ shared
    }

    fn bare(&self, key: &CacheKey, kind: Kind) -> Prepared {
        Prepared {
            sql: key.sql.as_str().into(),
            kind,
            parameter_types: Arc::from([]),
            columns: None,
            binary_columns: Default::default(),
            planned: None,
            set_config: Vec::new(),
            arguments: Vec::new(),
            computes: false,
            oid_column: None,
            reads_catalog: false,
            first_parameter: None,
            clock_words: false,
            moment: 0,
            pins: false,
            at_home: false,
            changes_home: false,
            changes_temporary: false,
            leaves_unseen: false,
            changes_schema: false,
            is_plain: false,
            chosen: None,
            catalog_version: key.catalog_version,
            context: key.context,
        }
    }

    /// What our parser does not take. With one shard, what that takes goes there: it may be another version.
    ///
    /// # Errors
    /// PostgreSQL's own words for a syntax error, with its position; ours where it finds nothing wrong.
    pub async fn unparsed(
        &mut self,
        key: &CacheKey,
        error: &sql::ParseError,
    ) -> Result<Arc<Prepared>, ServerError> {
        let ours = ServerError::new(error.sqlstate, error.message.clone());
        let ours = match error.position {
            Some(position) => ours.with_position(position),
            None => ours,
        };
        let one_shard = self.shared.is_one_shard();
        if error.sqlstate != sqlstate::SYNTAX_ERROR && !one_shard
            || self.transaction.block == super::transaction::Block::Failed
        {
            return Err(ours);
        }
        let described = self.describe_on_catalog_shard(&key.sql, &key.types).await?;
        if !one_shard {
            return Err(ours);
        }
        Ok(Arc::new(Prepared {
            parameter_types: described.parameter_types.into(),
            columns: described.columns.map(Arc::from),
            planned: Some(pass_through()),
            changes_schema: true,
            ..self.bare(key, Kind::Other)
        }))
    }

    /// What its text alone tells, and pgbraid's own settings.
    fn read(&self, statement: &Statement, key: &CacheKey) -> Result<Prepared, ServerError> {
        let mut prepared = self.bare(key, sql::classify(statement));
        prepared.chosen = self.chosen_shard(&statement.text, &prepared.kind)?;
        prepared.columns = match &prepared.kind {
            Kind::Show { name } if is_own(name) => Some(shown(name)?),
            _ => None,
        };
        prepared.arguments = match &prepared.kind {
            Kind::Prepare { .. } => sql::prepare_types(statement),
            Kind::Execute { .. } => sql::execute_arguments(statement),
            _ => Vec::new(),
        };
        prepared.computes = sql::execute_computes(statement);
        if self.shared.is_one_shard() {
            prepared.changes_schema = sql::changes_schema(statement);
            let loaded = self.shared.catalog.loaded();
            prepared.leaves_unseen = loaded.is_some_and(|loaded| {
                leaves_unseen(&prepared.kind, &statement.text, &loaded.catalog)
            });
        }
        Ok(prepared)
    }

    /// Describes and plans one parsed statement.
    pub async fn prepare_statement(
        &mut self,
        statement: &Statement,
        key: CacheKey,
    ) -> Result<Arc<Prepared>, ServerError> {
        let one_shard = self.shared.is_one_shard();
        let mut prepared = self.read(statement, &key)?;
        if !one_shard && self.transaction.block != super::transaction::Block::Failed {
            refuse_subquery(statement, &key.sql)?;
            Box::pin(self.place_at_home(statement, &mut prepared)).await?;
        }
        let by_session = match prepared.kind {
            Kind::Fetch { .. } => self.has_cursor(&prepared.kind),
            Kind::Execute { ref name } => self.executes(name),
            Kind::Show { ref name } => is_own(name),
            _ => false,
        };
        let made_of_rows = (one_shard || prepared.changes_temporary) && sql::reads_rows(statement);
        let described = made_of_rows || one_shard && takes_parameters(&prepared.kind);
        if by_session || !(runs_on_shards(&prepared.kind) || described) {
            prepared.planned = match prepared.at_home {
                true => Some(on_catalog_shard()),
                false => one_shard.then(pass_through),
            };
            return self.prepare_for_session(prepared, &key.types).await;
        }
        if self.transaction.block == super::transaction::Block::Failed {
            // Nothing can be asked of a shard in a failed block, and PostgreSQL would not look either.
            let message =
                "current transaction is aborted, commands ignored until end of transaction block";
            return Err(ServerError::new(sqlstate::IN_FAILED_TRANSACTION, message));
        }
        self.shared.metrics.plan_cache_misses.inc();
        self.show(None, &prepared.sql);
        let since = Instant::now();
        let loaded = self.loaded()?;
        let described = self.describe_on_catalog_shard(&key.sql, &key.types).await?;
        prepared.parameter_types = described.parameter_types.into();
        prepared.columns = described.columns.map(Arc::from);
        let reads = sql::reading(statement);
        let seen = reads.as_ref().unwrap_or(statement);
        // The catalog's OIDs are the catalog shard's throughout.
        prepared.reads_catalog = sql::reads_catalog(seen);
        if !prepared.reads_catalog {
            prepared.oid_column = oid_column(prepared.columns.as_deref(), &loaded.catalog);
        }
        prepared.first_parameter = sql::first_parameter(seen);
        prepared.clock_words = has_clock_words(&prepared.sql);
        prepared.moment = self.timestamp();
        let set_config = sql::set_config_calls(seen);
        let functions = sql::functions_called(&seen.node);
        prepared.pins |= one_shard && functions.iter().any(|f| takes_lock(f));
        if !one_shard && !prepared.at_home {
            refuse_statement_names(statement, &functions)?;
            refuse_cursor_names(statement, &functions)?;
            refuse_session_functions(&functions, set_config.is_some())?;
        }
        let planned = self
            .plan_for(statement, &mut prepared, &loaded.catalog)
            .await?;
        prepared.set_config = set_config.unwrap_or_default();
        prepared.planned = planned;
        if !prepared.set_config.is_empty() {
            self.note_set_config(statement, &mut prepared, &functions);
        }
        prepared.is_plain = is_plain(&prepared);
        let seconds = since.elapsed().as_secs_f64();
        self.shared.metrics.planning_seconds.observe(seconds);
        #[cfg(feature = "otlp")]
        self.note_planned(since);
        Ok(self.kept(key, prepared))
    }

    /// What is known beforehand of settings that a statement changes.
    fn note_set_config(
        &self,
        statement: &Statement,
        prepared: &mut Prepared,
        functions: &[String],
    ) {
        if let Some(planned) = &mut prepared.planned {
            // The session follows what it sets.
            let sets = |f: &String| matches!(f.as_str(), "set_config" | "current_setting");
            planned.leaves_nothing |= functions.iter().all(sets);
        }
        // A comment that sends it somewhere would be gone.
        if prepared.chosen.is_none()
            && prepared.set_config.iter().any(|set| is_own(&set.name))
            && let Some(text) = self.with_own_values(statement)
        {
            prepared.sql = text.into();
        }
    }

    /// The plan; `None` for what the session itself carries out, or refuses.
    async fn plan_for(
        &mut self,
        statement: &Statement,
        prepared: &mut Prepared,
        catalog: &Catalog,
    ) -> Result<Option<Planned>, ServerError> {
        Ok(match prepared.kind {
            _ if self.shared.is_one_shard() => Some(pass_through()),
            _ if prepared.at_home => {
                let mut planned = on_catalog_shard();
                self.send_to_chosen(prepared, &mut planned)?;
                Some(planned)
            }
            Kind::Select { writes: false, .. } | Kind::Insert | Kind::Update | Kind::Delete => {
                let mut planned = self.plan(statement, prepared, catalog).await?;
                self.bring_home(statement, prepared, &mut planned, catalog)?;
                self.send_to_chosen(prepared, &mut planned)?;
                Some(planned)
            }
            Kind::Show { .. } => Some(on_catalog_shard()),
            _ => None,
        })
    }

    /// The catalog, or why there is none yet.
    pub fn loaded(&self) -> Result<Arc<Loaded>, ServerError> {
        self.shared.catalog.loaded().ok_or_else(|| {
            let reason = self
                .shared
                .catalog
                .last_error()
                .unwrap_or_else(|| "it is being loaded".into());
            ServerError::new(
                sqlstate::CANNOT_CONNECT_NOW,
                format!("the shards' catalog is not available: {reason}"),
            )
        })
    }

    pub(super) async fn describe_on_catalog_shard(
        &mut self,
        sql: &str,
        types: &[u32],
    ) -> Result<control::Described, ServerError> {
        let teller = self.join_teller().await?;
        let conn = self.connections.get(teller).ok_or_else(no_connection)?;
        // In the middle of a pipeline a Sync would commit what came before.
        let sync = !conn.unsynced();
        let Some(loaded) = self.shared.catalog.loaded() else {
            return control::describe(conn, sql, types, sync).await;
        };
        let catalog = &loaded.catalog;
        let there: Vec<u32> = (types.iter().map(|t| catalog.type_there(teller, *t))).collect();
        let described = control::describe(conn, sql, &there, sync).await?;
        Ok(described.here(catalog, teller))
    }

    async fn plan(
        &mut self,
        statement: &Statement,
        prepared: &Prepared,
        catalog: &Catalog,
    ) -> Result<Planned, ServerError> {
        self.find_path().await?;
        let path = self.search_path(catalog);
        let mut facts = Facts::new();
        for _ in 0..PROBE_ROUNDS_MAX {
            let request = Request {
                sql: &prepared.sql,
                parameter_types: &prepared.parameter_types,
                search_path: &path,
                facts: &facts,
            };
            match planner::plan_parsed(statement.clone(), &request, catalog) {
                Ok(planned) => return Ok(planned),
                Err(probes) => {
                    for probe in probes {
                        let fact = self
                            .answer(&probe, &prepared.parameter_types, catalog)
                            .await?;
                        facts.insert(probe, fact);
                    }
                }
            }
        }
        Err(unsupported(
            Reason::Other,
            "the statement could not be planned",
            "Please report it with its text.",
        ))
    }

    /// Schemas for unqualified names, as this session has them.
    pub fn search_path(&self, catalog: &Catalog) -> Vec<String> {
        if let Some(schemas) = self.found_path() {
            return schemas.to_vec();
        }
        let user = &self.role.name;
        match self
            .transaction
            .local("search_path")
            .or_else(|| self.settings.get("search_path"))
        {
            Some(value) => super::settings::search_path(value, user),
            None => catalog.search_path.clone(),
        }
    }
}

/// The error of a refusal: 0A000, what the user may do instead, and where in the text.
pub fn refused(refusal: &Refusal, sql: &str) -> ServerError {
    let error = unsupported(refusal.reason, refusal.message.clone(), &refusal.hint);
    match refusal.location.and_then(|at| sql.get(..at)) {
        Some(before) => error.with_position(before.chars().count() + 1),
        None => error,
    }
}

/// Kinds that a shard executes; the session itself carries out the others, or refuses them.
fn runs_on_shards(kind: &Kind) -> bool {
    use Kind as K;
    matches!(
        kind,
        K::Select { .. }
            | K::Show { .. }
            | K::Insert
            | K::Update
            | K::Delete
            | K::Merge
            | K::Explain { .. }
            | K::Fetch { .. }
            | K::Execute { .. }
    )
}

/// Further kinds that parameters may stand in, or that return rows: one shard knows of which types.
fn takes_parameters(kind: &Kind) -> bool {
    matches!(kind, Kind::DeclareCursor { .. } | Kind::Other)
}

/// One shard holds everything: any statement goes there as it is.
fn pass_through() -> Planned {
    let fan_out = Err(Refusal {
        reason: Reason::Other,
        message: "one shard".into(),
        hint: String::new(),
        location: None,
    });
    Planned {
        route: Targets::Shard(CATALOG_SHARD),
        fan_out,
        lazy: None,
        gathers: false,
        write: None,
        read_only: true,
        leaves_nothing: true,
        // All go to that server one behind the other.
        in_turn: false,
        uses_now: false,
        frozen: false,
        clocked: None,
    }
}

/// SHOW: every shard has the session's settings.
fn on_catalog_shard() -> Planned {
    Planned {
        route: Targets::Catalog,
        ..pass_through()
    }
}

pub(super) fn no_connection() -> ServerError {
    backend_error(crate::backend::BackendError::TimedOut {
        shard: "catalog".into(),
    })
}

impl Shared {
    /// Version of the catalog in force; 0 before the first.
    pub fn catalog_version(&self) -> u64 {
        self.catalog.loaded().map_or(0, |l| l.catalog.version)
    }

    pub fn is_one_shard(&self) -> bool {
        self.shard_names.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_its_position_in_characters() {
        let refusal = Refusal {
            reason: Reason::Lock,
            message: "m".into(),
            hint: "h".into(),
            location: Some(3),
        };
        let error = refused(&refusal, "aäb");
        assert_eq!(error.field(b'P').as_deref(), Some("3"));
        assert_eq!(error.sqlstate(), "0A000");
        assert_eq!(error.reason(), Some(Reason::Lock));
    }
}
