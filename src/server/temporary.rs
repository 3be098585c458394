//! Temporary tables over several shards: they live on the session's own connection to the catalog shard. A statement over them goes there
//! as it is, where the rest of what it names is the same on every shard.

use std::sync::atomic::{AtomicU64, Ordering};

use super::control;
use super::guards::refuse_session_functions;
use super::prepare::{CATALOG_SHARD, no_connection, refused};
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::Session;
use super::settings::quote;
use super::transaction::{Block, quote_identifier};
use super::wording::{refuse, words};
use crate::catalog::Catalog;
use crate::metrics::Reason;
use crate::planner::temporary::{Temporary, is_temporary_schema};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::{self, CopySource, Kind, RelationName, RelationWork, Statement};

/// All relations of the session's own, indexes among them.
const NAMES: &str = "SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() ORDER BY 1";

/// The session's temporary relations, as the shard has told.
#[derive(Debug, Default)]
pub struct OwnTables {
    names: Vec<String>,
    /// A number for what they are, which plans are cached by; 0 without any.
    mark: u64,
    /// They may have changed since.
    stale: bool,
    /// They changed in the block: its end, or a rollback in it, may change them again.
    block_changes: bool,
    /// There may have been some.
    have_been: bool,
}

impl OwnTables {
    /// See [`Session::planning_context`].
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// True once there may have been one.
    pub fn have_been(&self) -> bool {
        self.have_been
    }

    /// A statement has made, changed or dropped some.
    pub fn changed(&mut self) {
        self.have_been = true;
        self.stale = true;
        self.block_changes = true;
    }

    /// A block, or a part of it, is over.
    pub fn rolled(&mut self) {
        self.stale |= self.block_changes;
    }

    /// They may be others from now on: no plan of before fits.
    fn renew_mark(&mut self) {
        static MARKS: AtomicU64 = AtomicU64::new(1);
        // No other session's, and none of before.
        let number = MARKS.fetch_add(1, Ordering::Relaxed);
        self.mark = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What a statement over temporary relations is to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemporaryWork {
    /// It reads them, or changes rows.
    Rows,
    /// It makes, changes or drops them.
    Tables,
}

impl Session {
    /// Asks for the names of the temporary relations, where they may have changed. Before a statement is looked up or planned.
    ///
    /// # Errors
    /// What the shard says.
    pub(super) async fn follow_temporary(&mut self) -> Result<(), ServerError> {
        match self.pins.tables.stale && self.transaction.block != Block::Failed {
            true => Box::pin(self.ask_temporary()).await,
            false => Ok(()),
        }
    }

    async fn ask_temporary(&mut self) -> Result<(), ServerError> {
        if self.shared.is_one_shard() {
            // Whatever they are, the shard knows.
            let tables = &mut self.pins.tables;
            tables.renew_mark();
            tables.stale = false;
            tables.block_changes &= self.transaction.block != Block::Idle;
            return Ok(());
        }
        let mut names = Vec::new();
        if let Some(conn) = self.connections.get(CATALOG_SHARD).filter(|_| self.pinned) {
            if conn.unsynced() {
                return Err(unsupported(
                    Reason::Temporary,
                    "temporary tables were changed while a portal is half read",
                    "Read the portal to its end, or close it.",
                ));
            }
            let rows = control::ask(conn, NAMES, &[]).await?;
            names = rows.into_iter().flatten().flatten().collect();
        }
        let tables = &mut self.pins.tables;
        match names.is_empty() {
            true => tables.mark = 0,
            false => tables.renew_mark(),
        }
        tables.names = names;
        tables.stale = false;
        tables.block_changes &= self.transaction.block != Block::Idle;
        Ok(())
    }

    /// What the statement does with temporary relations; `None` where it has none to do with.
    ///
    /// # Errors
    /// 0A000 where it cannot be proved that the catalog shard alone answers it rightly.
    pub(super) fn temporary_work(
        &self,
        statement: &Statement,
        kind: &Kind,
        catalog: &Catalog,
    ) -> Result<Option<TemporaryWork>, ServerError> {
        let path = self.search_path(catalog);
        let own = Temporary {
            names: &self.pins.tables.names,
            search_path: &path,
        };
        let prove = |new: Option<&str>, like: &[String]| {
            let functions = sql::names_in_order(&statement.text).unwrap_or_default();
            refuse_session_functions(&functions, false)?;
            let proved = own.prove(&statement.text, catalog, new, like);
            proved.map_err(|why| refused(&why, &statement.text))
        };
        match sql::relation_work(statement) {
            Some(RelationWork::Creates {
                name,
                by_query,
                like,
                parents,
            }) => {
                refuse_type_name(catalog, &name)?;
                if !parents.iter().all(|p| own.has(&p.schema, &p.name)) {
                    return Err(unsupported(
                        Reason::Temporary,
                        "a temporary table as the child of a permanent one is not supported over several shards",
                        "Make it a table of its own.",
                    ));
                }
                prove((!by_query).then_some(&*name), &like)?;
                Ok(Some(TemporaryWork::Tables))
            }
            Some(RelationWork::Changes {
                relations,
                new_name,
                ..
            }) if all_own(&own, &relations) => {
                if let Some(name) = &new_name {
                    refuse_type_name(catalog, name)?;
                }
                prove(new_name.as_deref(), &[])?;
                Ok(Some(match kind {
                    Kind::Ddl => TemporaryWork::Tables,
                    _ => TemporaryWork::Rows,
                }))
            }
            _ if !own.concerns(statement, catalog) => Ok(None),
            _ => {
                self.refuse_other_work(&own, statement, kind, catalog)?;
                prove(None, &[])?;
                Ok(Some(TemporaryWork::Rows))
            }
        }
    }

    /// Of a statement that names temporary relations, anything but reading.
    fn refuse_other_work(
        &self,
        own: &Temporary<'_>,
        statement: &Statement,
        kind: &Kind,
        catalog: &Catalog,
    ) -> Result<(), ServerError> {
        let locks_others = match kind {
            Kind::Select {
                writes: false,
                locks,
            } => *locks && own.names_others(&statement.text, catalog),
            Kind::CopyTo(copy) => !copy.to_client || copy.source == CopySource::Change,
            Kind::Explain { .. } => false,
            _ => true,
        };
        match locks_others {
            false => Ok(()),
            true => Err(unsupported(
                Reason::Temporary,
                "this statement over temporary tables is not supported over several shards",
                "Change temporary tables and others in statements of their own.",
            )),
        }
    }

    /// What is left: DDL over what is not there at all, of which PostgreSQL says so, and goes on behind DROP … IF EXISTS.
    ///
    /// # Errors
    /// 42P01 for such, 0A000 for the others; what the shard says.
    pub(super) async fn change_nothing(
        &mut self,
        prepared: &Prepared,
    ) -> Result<String, ServerError> {
        let statements = sql::parse(&prepared.sql).unwrap_or_default();
        let work = statements.first().and_then(sql::relation_work);
        let Some(RelationWork::Changes {
            relations,
            if_exists,
            ..
        }) = work
        else {
            return Err(refuse(&prepared.kind));
        };
        for relation in &relations {
            if !self.is_nowhere(relation).await? {
                return Err(refuse(&prepared.kind));
            }
        }
        let mut said = words(&prepared.sql);
        let verb = said.next().unwrap_or_default();
        let object = said.next().unwrap_or_default();
        match (verb.as_str(), if_exists) {
            ("DROP", true) => {}
            (_, true) => return Err(refuse(&prepared.kind)),
            (_, false) => {
                let name = &relations[0].name;
                let kind = match verb.as_str() {
                    "DROP" => object.to_lowercase(),
                    _ => "relation".to_owned(),
                };
                let message = format!("{kind} \"{name}\" does not exist");
                return Err(ServerError::new(sqlstate::UNDEFINED_TABLE, message));
            }
        }
        for relation in &relations {
            let what = match is_temporary_schema(&relation.schema) {
                true => format!("schema \"{}\"", relation.schema),
                false => format!("{} \"{}\"", object.to_lowercase(), relation.name),
            };
            let notice = ServerError::new("00000", format!("{what} does not exist, skipping"))
                .with(b'S', "NOTICE")
                .with(b'V', "NOTICE");
            super::encoding::send_notice(&mut self.client, &notice);
        }
        Ok(format!("DROP {object}"))
    }

    async fn is_nowhere(&mut self, relation: &RelationName) -> Result<bool, ServerError> {
        let mut name = quote_identifier(&relation.name);
        if !relation.schema.is_empty() {
            name = format!("{}.{name}", quote_identifier(&relation.schema));
        }
        self.join_and_wait(&[CATALOG_SHARD]).await?;
        let conn = self
            .connections
            .get(CATALOG_SHARD)
            .ok_or_else(no_connection)?;
        let sql = format!("SELECT pg_catalog.to_regclass({}) IS NULL", quote(&name));
        let rows = control::ask(conn, &sql, &[]).await?;
        Ok(rows.into_iter().flatten().flatten().next().as_deref() == Some("t"))
    }
}

fn all_own(own: &Temporary<'_>, relations: &[RelationName]) -> bool {
    !relations.is_empty() && relations.iter().all(|r| own.has(&r.schema, &r.name))
}

/// The row type of a temporary table comes before all other types.
fn refuse_type_name(catalog: &Catalog, name: &str) -> Result<(), ServerError> {
    let mut types = catalog.types.values();
    match types.any(|t| t.name == name && (t.kind != b'c' || t.schema == "pg_catalog")) {
        true => Err(unsupported(
            Reason::Temporary,
            format!(
                "a temporary table with the name of a type, \"{name}\", is not supported over several shards"
            ),
            "Give it another name.",
        )),
        false => Ok(()),
    }
}
