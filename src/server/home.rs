//! Which statements belong on the session's connection to the catalog shard: over several shards, that is where sessions meet and where
//! what a session keeps is kept.

use super::guards::refuse_session_functions;
use super::prepare::{CATALOG_SHARD, no_connection};
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::Session;
use super::settings::quote;
use super::temporary::TemporaryWork;
use super::transaction::Block;
use crate::catalog::Catalog;
use crate::metrics::Reason;
use crate::plan::{Planned, Targets};
use crate::planner::temporary::{Leaves, prove_block, unknown_names};
use crate::protocol::error::ServerError;
use crate::sql::{self, Kind, Statement};

impl Session {
    /// Marks a statement that belongs there; true when it is to be described there, too. Others are planned, or refused.
    ///
    /// # Errors
    /// 0A000 for one that cannot be proved to be answered rightly by one shard.
    pub(super) async fn place_at_home(
        &mut self,
        statement: &Statement,
        prepared: &mut Prepared,
    ) -> Result<(), ServerError> {
        match &prepared.kind {
            Kind::Listen | Kind::Unlisten | Kind::Discard { all: false } => {
                prepared.at_home = true;
                prepared.pins = true;
                prepared.changes_temporary = matches!(prepared.kind, Kind::Discard { .. });
            }
            Kind::Notify => {
                prepared.at_home = true;
                prepared.changes_home = true;
            }
            Kind::Do => {
                let catalog = self.loaded()?.catalog.clone();
                let body = sql::do_body(statement);
                prepared.pins = block_pins(&catalog, body.as_deref())?;
                prepared.at_home = true;
                self.refuse_unknown(body.as_deref().unwrap_or_default(), &catalog)
                    .await?;
            }
            Kind::Ddl
            | Kind::CopyIn
            | Kind::CopyTo(_)
            | Kind::Select { .. }
            | Kind::Insert
            | Kind::Update
            | Kind::Delete
            | Kind::Merge => {
                let catalog = self.loaded()?.catalog.clone();
                let work = self.temporary_work(statement, &prepared.kind, &catalog)?;
                prepared.at_home = work.is_some();
                prepared.changes_temporary = work == Some(TemporaryWork::Tables);
                prepared.pins = prepared.changes_temporary;
                let reads = matches!(
                    prepared.kind,
                    Kind::Select { writes: false, .. } | Kind::CopyTo(_)
                );
                prepared.changes_home = prepared.at_home && !reads;
                if prepared.at_home {
                    self.refuse_unknown(&statement.text, &catalog).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Proofs go by names, so all must be known: a table or function that the catalog does not have yet is none of those.
    async fn refuse_unknown(&mut self, text: &str, catalog: &Catalog) -> Result<(), ServerError> {
        let names: Vec<String> = unknown_names(text, catalog)
            .iter()
            .map(|n| quote(n))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let list = names.join(", ");
        let sql = format!(
            "SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relname IN ({list}) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
             AND c.relnamespace <> pg_catalog.pg_my_temp_schema() AND c.relpersistence <> 't' \
             UNION ALL SELECT p.proname FROM pg_catalog.pg_proc p WHERE p.proname IN ({list}) LIMIT 1"
        );
        self.join_and_wait(&[CATALOG_SHARD]).await?;
        let conn = self
            .connections
            .get(CATALOG_SHARD)
            .ok_or_else(no_connection)?;
        if conn.unsynced() {
            return Err(unsupported(
                Reason::Cursor,
                "this statement is not supported while a portal is half read",
                "Read the portal to its end, or close it.",
            ));
        }
        let rows = super::control::ask(conn, &sql, &[]).await?;
        match rows.into_iter().flatten().flatten().next() {
            None => Ok(()),
            Some(name) => {
                self.shared.catalog.changed();
                Err(unsupported(
                    Reason::Undeclared,
                    format!("\"{name}\" is not known to pgbraid"),
                    "If it was just created, try again in a moment.",
                ))
            }
        }
    }

    /// Sends a SELECT that takes locks or notifies to the catalog shard.
    ///
    /// # Errors
    /// 0A000 for one that reads rows of other shards.
    pub(super) fn bring_home(
        &self,
        statement: &Statement,
        prepared: &mut Prepared,
        planned: &mut Planned,
        catalog: &Catalog,
    ) -> Result<(), ServerError> {
        let mut names = sql::functions_called(&statement.node);
        names.extend(sql::names_in_order(&statement.text).unwrap_or_default());
        let leaves = Leaves::of(catalog, &names);
        if !leaves.locks && !leaves.notifies {
            return Ok(());
        }
        match planned.route {
            Targets::Any | Targets::Catalog if planned.write.is_none() => {
                planned.route = Targets::Catalog
            }
            Targets::Shard(CATALOG_SHARD) if planned.write.is_none() => {}
            // It is refused anyway.
            Targets::All if planned.fan_out.is_err() => return Ok(()),
            _ => {
                let what = match leaves.locks {
                    true => "an advisory lock",
                    false => "pg_notify()",
                };
                return Err(unsupported(
                    Reason::Function,
                    format!("{what} in a statement over sharded tables is not supported"),
                    "Read the rows first, and call the function in a statement of its own.",
                ));
            }
        }
        prepared.at_home = true;
        prepared.pins = leaves.session_locks;
        prepared.changes_home = leaves.notifies;
        Ok(())
    }

    /// Carries out what no other part of the session knows.
    ///
    /// # Errors
    /// 0A000 for nearly all of it.
    pub(super) async fn carry_out_rest(
        &mut self,
        prepared: &Prepared,
    ) -> Result<String, ServerError> {
        match prepared.kind {
            Kind::Load => self.load(&prepared.sql).await,
            _ => self.change_nothing(prepared).await,
        }
    }

    /// True for a COPY … TO that has to be put together.
    pub(super) fn copies_shards(&self, prepared: &Prepared) -> bool {
        prepared.copies() && !prepared.at_home && !self.shared.is_one_shard()
    }

    /// A transaction changes one shard, so that its commit is one: what is done at home counts.
    ///
    /// # Errors
    /// 0A000 where it has changed another one.
    pub(super) fn claim_home(&mut self, prepared: &Prepared) -> Result<(), ServerError> {
        if !prepared.changes_home || self.transaction.block == Block::Idle {
            return Ok(());
        }
        if self.transaction.writer.is_some_and(|w| w != CATALOG_SHARD) {
            return Err(unsupported(
                Reason::Temporary,
                "NOTIFY, or a change of temporary tables, in a transaction that changes another shard is not supported",
                "Do it in a transaction of its own, after COMMIT.",
            ));
        }
        self.transaction.writer = Some(CATALOG_SHARD);
        Ok(())
    }

    /// True for a statement that a shard executes on the session's own connection to it. What gives up something the session does not
    /// have is answered here.
    pub(super) fn goes_home(&self, prepared: &Prepared) -> bool {
        let gives_up = matches!(prepared.kind, Kind::Unlisten | Kind::Discard { .. });
        prepared.at_home && (self.pinned || !gives_up)
    }
}

/// Whether a DO block leaves locks.
fn block_pins(catalog: &Catalog, body: Option<&str>) -> Result<bool, ServerError> {
    let proved = body.filter(|body| prove_block(catalog, body));
    let Some(names) = proved.and_then(sql::names_in_order) else {
        return Err(unsupported(
            Reason::Schema,
            "this DO block is not supported over several shards",
            "A block may be in PL/pgSQL, without dynamic SQL, and may neither change anything nor read tables other than reference tables. Run others on each shard.",
        ));
    };
    refuse_session_functions(&names, false)?;
    Ok(Leaves::of(catalog, &names).session_locks)
}
