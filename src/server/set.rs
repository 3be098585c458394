//! SET and RESET over several connections: tried on the catalog shard, kept as the value PostgreSQL made of it, and brought
//! to every other connection the session holds now or later.

use super::control;
use super::own_settings::is_own;
use super::prepare::CATALOG_SHARD;
use super::run::unsupported;
use super::session::Session;
use super::settings::{self, REPORTED, Settings};
use super::statements::{MARK_UNKNOWN, gone};
use super::transaction::{Block, quote_name, set_transaction};
use crate::metrics::Reason;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

impl Session {
    /// Goes back to earlier settings. Connections do not know which of theirs a rollback undid, so all are replayed.
    pub fn restore(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            self.follow_encoding();
            self.follow_steering();
            self.forget_settings();
        }
    }

    /// What was set on the held connections may have been undone, to whatever they had before.
    pub fn forget_settings(&mut self) {
        self.connections
            .iter_mut()
            .for_each(|(_, conn)| conn.set_settings_mark(MARK_UNKNOWN));
        self.report_settings();
    }

    /// Has the client told what the reported settings are now, where it does not know.
    pub fn report_settings(&mut self) {
        let Some(parameters) = self.first_parameters() else {
            return;
        };
        for (name, default) in &parameters {
            // Those that no SET changes are as they were at login.
            let default = match name.as_str() {
                "client_encoding" | "session_authorization" => continue,
                // The shards have ours.
                "application_name" => "",
                _ => default,
            };
            let local = self.transaction.local(name);
            let value = local.or_else(|| self.settings.get(name));
            let value = value.unwrap_or(default).to_owned();
            self.report(name, &value);
        }
    }

    /// SET, run on every held connection (or the catalog shard's), then kept as the value PostgreSQL made of it.
    /// What SET TRANSACTION says too is told to every shard of the block, also later ones.
    pub async fn set(
        &mut self,
        sql: &str,
        name: &str,
        value: Option<&str>,
        local: bool,
    ) -> Result<String, ServerError> {
        if let Some(modes) = value.and_then(|v| set_transaction(name, v)) {
            return self
                .set_transaction(&modes, local.then_some("SET LOCAL"))
                .await;
        }
        self.refuse_identity(name)?;
        self.apply(sql, name, local).await?;
        Ok("SET".into())
    }

    /// The role decides what a session may see; no replay of it can be made safe on a shared connection.
    pub fn refuse_identity(&mut self, name: &str) -> Result<(), ServerError> {
        if !matches!(
            name.to_ascii_lowercase().as_str(),
            "role" | "session_authorization"
        ) {
            return Ok(());
        }
        if self.shared.is_one_shard() {
            self.pinned = true;
            return Ok(());
        }
        Err(unsupported(
            Reason::Setting,
            format!("SET {name} is not supported over several shards"),
            "Log in as the role you need.",
        ))
    }

    /// SET LOCAL lasts as long as the transaction it is in.
    pub(super) fn begin_local(&mut self) {
        if self.lacks_block() {
            self.warn(
                sqlstate::NO_ACTIVE_TRANSACTION,
                "SET LOCAL can only be used in transaction blocks",
            );
        }
        self.open_implicit();
    }

    pub async fn apply(&mut self, sql: &str, name: &str, local: bool) -> Result<(), ServerError> {
        if local {
            self.begin_local();
        }
        self.note_settings();
        self.join_and_wait(&[CATALOG_SHARD]).await?;
        let conn = self.connections.get(CATALOG_SHARD).ok_or_else(gone)?;
        let before = conn.settings_mark();
        conn.set_settings_mark(MARK_UNKNOWN);
        let (frames, _) = control::command(conn, &[sql.to_owned()]).await?;
        // No query: SET TRANSACTION may follow.
        let shown = format!("SHOW {}", quote_name(name));
        let value = control::ask(conn, &shown, &[])
            .await?
            .into_iter()
            .flatten()
            .flatten()
            .next()
            .unwrap_or_default();
        if let Err(error) = settings::check(name, &value, self.shared.is_one_shard()) {
            // Undo what the shard has already accepted.
            let old = self.settings.get(name).map(str::to_owned);
            let undo = old.map_or(format!("RESET {}", quote_name(name)), |v| {
                settings::set_config(name, &v, false)
            });
            control::command(conn, &[undo]).await?;
            conn.set_settings_mark(before);
            return Err(error);
        }
        frames.into_iter().for_each(|f| self.forward(f));
        if let Some(name) = REPORTED.iter().find(|r| r.eq_ignore_ascii_case(name)) {
            // A shard that has it already, by set_config(), says nothing.
            self.report(name, &value);
        }
        self.transaction.touch(name);
        match local {
            true => self.transaction.add_local(name, &value),
            false => {
                self.transaction.remove_local(name);
                self.settings.set(name, value.clone());
            }
        }
        self.spread(&settings::set_config(name, &value, local))
            .await
    }

    /// Keeps what an error later in the implicit transaction goes back to.
    pub(super) fn note_settings(&mut self) {
        if self.transaction.block == Block::Idle && self.before_pipeline.is_none() {
            self.before_pipeline = Some(self.settings.clone());
        }
    }

    /// Brings the other held connections to what the catalog shard's has just been given.
    async fn spread(&mut self, sql: &str) -> Result<(), ServerError> {
        let text = [sql.to_owned()];
        let mark = self.settings.mark();
        let work = self.connections.iter_mut().map(|(shard, conn)| {
            let text = &text;
            async move {
                let done = match shard {
                    CATALOG_SHARD => Ok(()),
                    _ => control::command(conn, text).await.map(|_| ()),
                };
                conn.set_settings_mark(if done.is_ok() { mark } else { MARK_UNKNOWN });
                done
            }
        });
        futures_util::future::join_all(work)
            .await
            .into_iter()
            .collect()
    }

    pub async fn reset(&mut self, sql: &str, name: &str) -> Result<String, ServerError> {
        if is_own(name) {
            self.reset_own(name).await?;
            return Ok("RESET".into());
        }
        if matches!(
            name.to_ascii_lowercase().as_str(),
            "role" | "session_authorization"
        ) {
            self.refuse_identity(name)?;
        }
        match self.startup.get(name).map(str::to_owned) {
            Some(value) => {
                self.apply(&settings::set_config(name, &value, false), name, false)
                    .await?
            }
            None => {
                self.apply(sql, name, false).await?;
                if self.transaction.block == Block::Idle {
                    // Back at the default: nothing to replay.
                    self.settings.remove(name);
                    let mark = self.settings.mark();
                    self.connections
                        .iter_mut()
                        .for_each(|(_, conn)| conn.set_settings_mark(mark));
                }
            }
        }
        Ok("RESET".into())
    }

    pub async fn reset_all(&mut self, sql: &str, tag: &str) -> Result<String, ServerError> {
        self.note_settings();
        self.join_and_wait(&[CATALOG_SHARD]).await?;
        let all = [&self.settings, &self.startup];
        all.into_iter().for_each(|s| self.transaction.touch_all(s));
        self.settings = self.startup.clone();
        self.follow_encoding();
        self.follow_steering();
        let replay: Vec<String> = self
            .startup
            .of_shards()
            .map(|(n, v)| settings::set_config(n, v, false))
            .collect();
        self.connections
            .iter_mut()
            .for_each(|(_, conn)| conn.set_settings_mark(MARK_UNKNOWN));
        self.broadcast(sql).await?;
        if !replay.is_empty() {
            self.broadcast(&replay.join("; ")).await?;
        }
        let mark = self.settings.mark();
        self.connections
            .iter_mut()
            .for_each(|(_, conn)| conn.set_settings_mark(mark));
        Ok(tag.into())
    }
}
