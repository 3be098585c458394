//! PREPARE and EXECUTE in SQL over several shards, and settings that a SELECT changes: both are kept by the session.

use std::sync::Arc;

use super::control;
use super::own_settings::is_own;
use super::prepare::{CATALOG_SHARD, no_connection, refused};
use super::prepared::Prepared;
use super::session::{Ended, Session};
use super::settings;
use crate::executor::Parameters;
use crate::metrics::Reason;
use crate::plan::{Refusal, Targets};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::{self, Kind, Statement};
use crate::types::oid;

impl Session {
    /// PREPARE: the statement joins those of the extended protocol, as it does in PostgreSQL.
    pub async fn prepare_by_name(
        &mut self,
        name: &str,
        inner: &str,
        types: &[String],
    ) -> Result<String, Ended> {
        if self.statements.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(ServerError::new(sqlstate::DUPLICATE_STATEMENT, message).into());
        }
        let mut oids = Vec::with_capacity(types.len());
        let known = self.ask_catalog_shard(&type_oids(types)).await?;
        for (given, oid) in types.iter().zip(known) {
            let oid = oid.and_then(|text| text.parse().ok());
            oids.push(oid.ok_or_else(|| {
                let message = format!("type \"{given}\" does not exist");
                ServerError::new("42704", message)
            })?);
        }
        let prepared = self.prepare(inner.to_owned(), &oids).await?;
        self.statements.insert(name.to_owned(), prepared);
        Ok("PREPARE".into())
    }

    /// True where an EXECUTE is carried out here: with one shard, of a statement that the client has named in a Parse.
    pub fn executes(&self, name: &str) -> bool {
        !self.shared.is_one_shard() || self.statements.contains_key(name)
    }

    /// The statement that an EXECUTE means and its argument values; other statements mean themselves, without any.
    pub async fn resolve(
        &mut self,
        prepared: &Arc<Prepared>,
    ) -> Result<(Arc<Prepared>, Arc<Parameters>), ServerError> {
        let name = match &prepared.kind {
            Kind::Execute { name } if self.executes(name) => name,
            _ => return Ok((prepared.clone(), Arc::default())),
        };
        let inner = self.statement(name)?;
        let inner = self.refreshed(name, inner).await?;
        let (given, wanted) = (prepared.arguments.len(), inner.parameter_types.len());
        if given != wanted {
            let message = format!("wrong number of parameters for prepared statement \"{name}\"");
            let detail = format!("Expected {wanted} parameters but got {given}.");
            return Err(ServerError::new(sqlstate::SYNTAX_ERROR, message).with_detail(detail));
        }
        if wanted == 0 {
            return Ok((inner, Arc::default()));
        }
        let names: Vec<String> = inner
            .parameter_types
            .iter()
            .map(|oid| format!("pg_catalog.format_type({oid}, -1)"))
            .collect();
        let types = self
            .ask_catalog_shard(&format!("SELECT {}", names.join(", ")))
            .await?;
        // The cast is the assignment PostgreSQL would make; what it prints is what the shards then read.
        let cast = |(argument, ty): (&String, &Option<String>)| {
            let ty = ty.as_deref().unwrap_or("text");
            format!("CAST(({argument}) AS {ty})")
        };
        let list: Vec<String> = prepared.arguments.iter().zip(&types).map(cast).collect();
        let query = format!("SELECT {}", list.join(", "));
        let of_users = |t: &u32| *t >= oid::FIRST_NORMAL_OBJECT;
        let values = match prepared.computes || inner.parameter_types.iter().any(of_users) {
            true => self.computed(&query).await,
            false => self.ask_catalog_shard(&query).await,
        };
        // A position would be one in our text.
        let values = values.map_err(|error| error.without(b'P'))?;
        let parameters = Parameters {
            types: inner.parameter_types.clone(),
            formats: vec![0; wanted],
            values: values
                .into_iter()
                .map(|v| v.map(|text| text.into_bytes().into()))
                .collect(),
        };
        Ok((inner, Arc::new(parameters)))
    }

    /// The one row of a query without FROM, as text: of one that no table decides, for a function or a domain may read rows of
    /// every shard.
    async fn computed(&mut self, sql: &str) -> Result<Vec<Option<String>>, ServerError> {
        let prepared = self.prepare(sql.to_owned(), &[]).await?;
        let refusal = match &prepared.planned {
            Some(planned) if matches!(planned.route, Targets::Any | Targets::Catalog) => None,
            Some(planned) => planned.fan_out.as_ref().err().map(|why| refused(why, sql)),
            None => None,
        };
        match refusal {
            Some(error) => Err(error),
            None => self.ask_catalog_shard(sql).await,
        }
    }

    /// The one row of a query, as text.
    pub(super) async fn ask_catalog_shard(
        &mut self,
        sql: &str,
    ) -> Result<Vec<Option<String>>, ServerError> {
        self.join_and_wait(&[CATALOG_SHARD]).await?;
        let conn = self
            .connections
            .get(CATALOG_SHARD)
            .ok_or_else(no_connection)?;
        Ok(control::ask(conn, sql, &[])
            .await?
            .into_iter()
            .next()
            .unwrap_or_default())
    }

    /// Settings that the statement has just changed on the catalog shard become the session's.
    pub async fn follow_set_config(&mut self, prepared: &Prepared) -> Result<(), ServerError> {
        for set in &prepared.set_config {
            let shown = format!(
                "SELECT pg_catalog.current_setting({}, true)",
                settings::quote(&set.name)
            );
            let value = self.ask_catalog_shard(&shown).await?;
            let Some(value) = value.into_iter().flatten().next() else {
                // There was none to change.
                continue;
            };
            let text = settings::set_config(&set.name, &value, set.is_local);
            // Alone in its transaction a local one has had all its effect.
            let lasts = !set.is_local || self.transaction.block != super::transaction::Block::Idle;
            if lasts && is_own(&set.name) {
                let done = self.set_own(&set.name, Some(&value), set.is_local).await;
                if done.is_err() {
                    // The shard has taken it.
                    self.forget_settings();
                }
                done?;
            } else if lasts {
                self.apply(&text, &set.name, set.is_local).await?;
            }
        }
        Ok(())
    }

    /// Refuses set_config of what no session here may change.
    pub fn check_set_config(&mut self, prepared: &Prepared) -> Result<(), ServerError> {
        let sets = &prepared.set_config;
        sets.iter()
            .try_for_each(|set| self.refuse_identity(&set.name))?;
        sets.iter().try_for_each(|set| Self::check_own(&set.name))?;
        let encodings = sets
            .iter()
            .filter(|s| s.name.eq_ignore_ascii_case("client_encoding"));
        for set in encodings {
            settings::check(&set.name, "", false)?;
        }
        if sets.iter().any(|set| set.is_local) && !self.is_alone() {
            self.open_implicit();
        }
        Ok(())
    }
}

/// An argument of EXECUTE is no subquery.
///
/// # Errors
/// 0A000, as in PostgreSQL.
pub fn refuse_subquery(statement: &Statement, text: &str) -> Result<(), ServerError> {
    match sql::execute_subquery(statement) {
        None => Ok(()),
        location => {
            let why = Refusal {
                reason: Reason::Form,
                message: "cannot use subquery in EXECUTE parameter".into(),
                hint: "Give its value.".into(),
                location,
            };
            Err(refused(&why, text))
        }
    }
}

fn type_oids(types: &[String]) -> String {
    let oid = |t: &String| {
        format!(
            "CAST(pg_catalog.to_regtype({}) AS pg_catalog.oid)",
            settings::quote(t)
        )
    };
    let list: Vec<String> = types.iter().map(oid).collect();
    format!("SELECT {}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_asked_by_their_names() {
        assert_eq!(
            type_oids(&["int".into()]),
            "SELECT CAST(pg_catalog.to_regtype('int') AS pg_catalog.oid)"
        );
    }
}
