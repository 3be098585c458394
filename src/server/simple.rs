//! The simple protocol: one message, any number of statements, one ReadyForQuery.

use std::sync::Arc;

use super::prepared::{CacheKey, Prepared};
use super::run::Outcome;
use super::session::{Ended, Session};
use super::transaction::{Block, Company};
use crate::executor::Execution;
use crate::metrics::QueryKind;
use crate::protocol::error::ServerError;
use crate::protocol::messages;
use crate::protocol::sqlstate;
use crate::sql::{self, Kind};

impl Session {
    /// Query: runs its statements up to the first error.
    pub async fn simple_query(&mut self, body: &[u8]) -> Result<(), Ended> {
        self.drop_portal("");
        self.statements.remove("");
        let outcome = match body.strip_suffix(&[0]).map(std::str::from_utf8) {
            Some(Ok(text)) if !text.contains('\0') => self.run_text(text).await,
            Some(_) => Err(super::encoding::invalid_utf8(body).into()),
            None => Err(ServerError::new(
                sqlstate::PROTOCOL_VIOLATION,
                "invalid message format: Query",
            )
            .into()),
        };
        match outcome {
            Ok(()) => {}
            Err(Ended::Statement(error)) => self.failed(&error).await?,
            Err(Ended::Session) => return Err(Ended::Session),
        }
        self.settle().await
    }

    async fn run_text(&mut self, text: &str) -> Result<(), Ended> {
        #[cfg(feature = "otlp")]
        self.note_text(text);
        self.follow_temporary().await?;
        let bare = text.trim().trim_end_matches(';').trim_end();
        if let Some(prepared) = self.cached(&self.cache_key(bare)) {
            let done = match self.query_directly(&prepared).await {
                Ok(false) => self.run_statement(&prepared, true).await,
                other => other.map(drop),
            };
            let offset = text.len() - text.trim_start().len();
            return done.map_err(|ended| match ended {
                Ended::Statement(error) => shifted(error, text, offset).into(),
                Ended::Session => Ended::Session,
            });
        }
        if self.query_by_shape(text, bare).await? {
            return Ok(());
        }
        let statements = match sql::parse_with(text, self.strings()) {
            Ok(statements) => statements,
            Err(error) if self.transaction.block == Block::Failed => {
                return Err(ServerError::new(error.sqlstate, error.message).into());
            }
            Err(error) => {
                let key = self.cache_key(text);
                let prepared = self.unparsed(&key, &error).await?;
                return self.run_statement(&prepared, true).await;
            }
        };
        if statements.is_empty() {
            messages::bare(b'I', self.client.out());
            return Ok(());
        }
        let count = statements.len();
        if count > 1 {
            self.company = Company::Message;
        }
        for (n, statement) in statements.into_iter().enumerate() {
            let done = self.run_parsed(&statement, n + 1 == count).await;
            if let Err(Ended::Statement(error)) = done {
                return Err(shifted(error, text, statement.offset).into());
            }
            done?;
        }
        Ok(())
    }

    async fn run_parsed(&mut self, statement: &sql::Statement, last: bool) -> Result<(), Ended> {
        self.follow_temporary().await?;
        let key = self.cache_key(&statement.text);
        let prepared = match self.cached(&key) {
            Some(prepared) => prepared,
            None => self.prepare_statement(statement, key).await?,
        };
        if self.company == Company::Message
            && self.shared.is_one_shard()
            && !matches!(
                prepared.kind,
                Kind::Begin { .. } | Kind::Commit { .. } | Kind::Rollback { .. }
            )
        {
            // What they write is committed together.
            self.open_implicit();
        }
        self.run_statement(&prepared, last).await
    }

    pub fn cache_key(&self, text: &str) -> CacheKey {
        CacheKey {
            sql: text.to_owned(),
            types: Vec::new(),
            catalog_version: self.shared.catalog_version(),
            context: self.planning_context(),
        }
    }

    async fn run_statement(&mut self, prepared: &Arc<Prepared>, last: bool) -> Result<(), Ended> {
        self.show(Some(QueryKind::Session), &prepared.sql);
        self.refuse_when_failed(prepared)?;
        if let Some(tag) = Box::pin(self.cursor_statement(prepared)).await? {
            messages::command_complete(&tag, self.client.out());
            return Ok(());
        }
        if let Some(tag) = self.control_statement(prepared).await? {
            match tag.is_empty() {
                true => messages::bare(b'I', self.client.out()),
                false => messages::command_complete(&tag, self.client.out()),
            }
            return Ok(());
        }
        if let Some((number, position)) = prepared.first_parameter {
            let message = format!("there is no parameter ${number}");
            let error = ServerError::new(sqlstate::UNDEFINED_PARAMETER, message);
            return Err(error.with_position(position).into());
        }
        self.check_set_config(prepared)?;
        let (resolved, parameters) = self.resolve(prepared).await?;
        let prepared = &resolved;
        if let Some(explained) = self.explain(prepared).await? {
            return self.send_lines(prepared, explained);
        }
        let columns = prepared.columns.clone();
        if self.steered {
            self.begin_steered();
        }
        let mut execution = match prepared.kind {
            Kind::CopyIn => self.open_copy_in(prepared)?,
            _ if self.copies_shards(prepared) => {
                Box::pin(self.open_copy_out(prepared, last)).await?
            }
            _ if self.steered => {
                let described = columns.clone().unwrap_or_else(|| Arc::from([]));
                let opened = self.open_steered(prepared, parameters, described, (0, last));
                Box::pin(opened).await?
            }
            _ => {
                let described = columns.clone().unwrap_or_else(|| Arc::from([]));
                self.open(prepared, parameters, described, 0, last)?
            }
        };
        if let Err(error) = self.start(&mut execution).await {
            self.recover().await;
            if !self.steered {
                return Err(error.into());
            }
            Box::pin(self.start_again(&mut execution, error)).await?;
        }
        if let Some(columns) = &columns {
            self.describe_rows(columns)?;
        }
        self.finish_simple(prepared, &mut execution).await
    }

    async fn finish_simple(
        &mut self,
        prepared: &Prepared,
        execution: &mut Execution,
    ) -> Result<(), Ended> {
        let mut outcome = self.stream(execution, 0).await?;
        if matches!(outcome, Outcome::CopyIn) {
            self.copy_in(execution).await?;
            outcome = self.stream(execution, 0).await?;
        }
        match outcome {
            Outcome::Complete { tag: Some(tag), .. } => {
                messages::command_complete_bytes(&tag, self.client.out())
            }
            Outcome::Complete { rows, tag: None } => {
                messages::select_complete(rows, self.client.out())
            }
            Outcome::Empty => messages::bare(b'I', self.client.out()),
            Outcome::CopyIn | Outcome::Suspended | Outcome::Spilled => {
                return Err(ServerError::new(
                    sqlstate::PROTOCOL_VIOLATION,
                    "COPY asked for data twice",
                )
                .into());
            }
        }
        self.after_statement(prepared).await
    }
}

/// Moves an error's position from a statement to the message it stood in.
fn shifted(error: ServerError, text: &str, offset: usize) -> ServerError {
    let position = error.field(b'P').and_then(|p| p.parse::<usize>().ok());
    match (position, text.get(..offset)) {
        (Some(position), Some(before)) => error.with_position(position + before.chars().count()),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_whole_message() {
        let error = ServerError::new("42601", "m").with_position(2);
        assert_eq!(
            shifted(error.clone(), "ä; x", 4).field(b'P').as_deref(),
            Some("5")
        );
        assert_eq!(shifted(error.without(b'P'), "a; x", 3).field(b'P'), None);
    }
}
