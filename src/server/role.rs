//! The role that a session's statements run as at the shards: the client's own, whose connections no other role's sessions ever get.
//!
//! Whatever a statement does to its role (SET ROLE, SET SESSION AUTHORIZATION, RESET ROLE, in dynamic SQL or not), the connection
//! was opened by that client's own role and cannot become more than that.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::Shared;
use super::control;
use super::prepare::CATALOG_SHARD;
use super::session::Session;
use super::settings;
use crate::backend::BackendError;
use crate::backend::pool::Pools;
use crate::backend::raw_conn::RawConn;
use crate::backend::roles::{self, Defaults, Known};
use crate::backend::scram::{ClientKeys, Keys};
use crate::config::ShardRole;
use crate::executor::backend_error;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

/// Settings that may differ from shard to shard for a role, and with them what a statement means, sees or returns.
const SETTINGS: &str = "SELECT n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest(ARRAY[\
    'search_path', 'role', 'row_security', 'TimeZone', 'timezone_abbreviations', 'DateStyle', 'IntervalStyle', 'bytea_output', \
    'extra_float_digits', 'xmlbinary', 'xmloption', 'array_nulls', 'transform_null_equals', 'standard_conforming_strings', \
    'lc_monetary', 'lc_numeric', 'lc_time', 'default_text_search_config', 'default_transaction_isolation', \
    'default_transaction_read_only']) n";
/// Of a level that pgbraid itself keeps, or has to know of, sessions know as if they had set it.
const ISOLATION: &str = "default_transaction_isolation";
/// Schemas in which the session's unqualified names are looked for: those that there are and that its role may use.
const SCHEMAS: &str = "SELECT s FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) s";

/// Whose statements a session's are.
pub struct Role {
    /// As the shards know it.
    pub name: Arc<str>,
    /// The role's connections, and nobody else's.
    pub pools: Arc<Pools>,
    /// What its sessions begin with; `None`: what the catalog was loaded with.
    pub defaults: Option<Arc<Defaults>>,
    /// Part of every planning context: privileges and names are a role's.
    pub mark: u64,
}

/// Schemas found by [`SCHEMAS`], for one catalog version and planning context.
pub struct FoundPath {
    version: u64,
    context: u64,
    schemas: Vec<String>,
}

impl Shared {
    /// The role for a client that has proved to be `user`; `keys` are what its proof gave.
    ///
    /// # Errors
    /// FATAL: a shard that does not let the role in, or gives it settings under which answers could not be exact.
    pub async fn role(&self, user: &str, keys: Option<Keys>) -> Result<Role, ServerError> {
        let config = self.live.snapshot();
        let shards = &config.shards;
        let is_configured = shards.iter().all(|s| s.user == user);
        if is_configured || config.auth.shard_role == ShardRole::Service {
            return Ok(Role {
                name: shards[0].user.as_str().into(),
                pools: self.roles.configured().clone(),
                defaults: None,
                mark: 0,
            });
        }
        let known = self.roles.known(user);
        let client_keys = known.as_ref().map(|k| k.keys.clone()).unwrap_or_default();
        if let Some(keys) = keys {
            client_keys.renew(keys);
        }
        let known = self.current(user, known, client_keys).await?;
        Ok(Role {
            name: user.into(),
            pools: known.pools,
            defaults: Some(known.defaults),
            mark: mark(user),
        })
    }

    /// The pools of the role, whose defaults are looked at again as often as the catalog.
    async fn current(
        &self,
        user: &str,
        known: Option<Known>,
        keys: ClientKeys,
    ) -> Result<Known, ServerError> {
        let version = self.catalog_version();
        let patience = self.config().database.catalog_refresh;
        let fresh = |known: &Known| known.seen.0.elapsed() < patience && known.seen.1 == version;
        if let Some(known) = known.as_ref().filter(|k| fresh(k)) {
            return Ok(known.clone());
        }
        let login = roles::login(&self.config(), user, CATALOG_SHARD, &keys);
        let deadline = Instant::now() + self.config().pool.queue_timeout;
        let read = self
            .roles
            .connect(CATALOG_SHARD, &login, deadline, defaults);
        let defaults = match (read.await, known) {
            (Ok(defaults), _) => defaults?,
            // It can do nothing now, but a session may wait for the shard.
            (Err(BackendError::Unreachable { .. }), Some(known)) => return Ok(known),
            (Err(error), _) => return Err(no_login(user, error)),
        };
        for (name, value) in defaults.settings.iter() {
            settings::check(name, value, self.is_one_shard())?;
        }
        let seen = (Instant::now(), version);
        let logins = |shard, keys: &ClientKeys| roles::login(&self.config(), user, shard, keys);
        Ok(self.roles.enter(user, defaults, seen, keys, logins))
    }
}

/// Reads what a session of the role finds.
async fn defaults(mut conn: RawConn) -> Result<Defaults, ServerError> {
    let rows = control::ask(&mut conn, SETTINGS, &[]).await?;
    let pair = |row: Vec<Option<String>>| {
        let mut row = row.into_iter();
        Some((row.next()??, row.next()??))
    };
    Ok(Defaults {
        parameters: conn.parameters().to_vec(),
        settings: rows.into_iter().filter_map(pair).collect(),
    })
}

/// Why the role cannot work. Its client has proved who it is, so another password is not the remedy.
fn no_login(user: &str, error: BackendError) -> ServerError {
    let message = format!("role \"{user}\" cannot log in at shard {}", error.shard());
    match error {
        BackendError::Server { error, .. } if error.sqlstate().starts_with("28") => {
            ServerError::new(sqlstate::INVALID_AUTHORIZATION, message).with_detail(error.message())
        }
        other => backend_error(other),
    }
}

fn mark(user: &str) -> u64 {
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    KEYS.get_or_init(RandomState::new).hash_one(user)
}

impl Role {
    /// Adds what the shards keep for the role and a session must know: its isolation level, where that is not READ COMMITTED.
    pub(super) fn add_defaults(&self, shared: &Shared, settings: &mut settings::Settings) {
        let loaded = shared.catalog.loaded();
        let level = match &self.defaults {
            Some(defaults) => (defaults.settings.iter())
                .find(|(name, _)| name == ISOLATION)
                .map(|(_, level)| level.clone()),
            None => loaded.map(|loaded| loaded.isolation.clone()),
        };
        let committed = |level: &String| level.ends_with("committed");
        if let Some(level) = level.filter(|l| !committed(l))
            && settings.get(ISOLATION).is_none()
            && !shared.is_one_shard()
        {
            settings.set(ISOLATION, level);
        }
    }
}

impl Session {
    /// Asks the catalog shard for the schemas of the session's unqualified names, where the role is not the one whose schemas the
    /// catalog tells.
    ///
    /// # Errors
    /// What the shard says.
    pub(super) async fn find_path(&mut self) -> Result<(), ServerError> {
        if self.role.defaults.is_none() || self.found_path().is_some() {
            return Ok(());
        }
        let teller = self.join_teller().await?;
        let conn = self.connections.get(teller);
        let conn = conn.ok_or_else(super::prepare::no_connection)?;
        let rows = control::ask(conn, SCHEMAS, &[]).await?;
        self.found_path = Some(FoundPath {
            version: self.shared.catalog_version(),
            context: self.planning_context(),
            schemas: rows.into_iter().flatten().flatten().collect(),
        });
        Ok(())
    }

    /// What [`Session::find_path`] has found, as long as it holds.
    pub(super) fn found_path(&self) -> Option<&[String]> {
        let found = self.found_path.as_ref()?;
        let holds = found.version == self.shared.catalog_version()
            && found.context == self.planning_context();
        holds.then_some(&found.schemas)
    }

    /// ParameterStatus values of a fresh session.
    pub(super) fn first_parameters(&self) -> Option<Vec<(String, String)>> {
        match &self.role.defaults {
            Some(defaults) => Some(defaults.parameters.clone()),
            None => Some(self.shared.catalog.loaded()?.parameters.clone()),
        }
    }
}
