//! pgbraid's own settings, which a client SETs as it does PostgreSQL's: `pgbraid.partial_results` and its like.
//!
//! As a setting of an extension is, they are the session's, follow its transactions and are replayed on shard connections, where
//! current_setting() finds them once they have been SET. What they are is known here: no shard is asked to set or to show one, so that
//! they can be changed while one is down.

use std::sync::Arc;

use super::control;
use super::missing::MISSING_SHARDS;
use super::prepared::Prepared;
use super::session::Session;
use super::settings::{self, set_config};
use super::statements::MARK_UNKNOWN;
use super::transaction::Block;
use crate::executor::Parameters;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;
use crate::sql::{self, Kind, SetValue, Statement};
use crate::types::oid;

/// What their names begin with.
const PREFIX: &str = "pgbraid.";

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// Answers may lack the rows of shards that cannot be reached.
    PartialResults,
    /// A NOTICE tells where each statement goes.
    ExplainRouting,
    /// SELECTs go to this shard, whatever they read.
    Shard,
}

impl Own {
    const ALL: [Self; 3] = [Self::PartialResults, Self::ExplainRouting, Self::Shard];

    /// In lower case.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PartialResults => "pgbraid.partial_results",
            Self::ExplainRouting => "pgbraid.explain_routing",
            Self::Shard => "pgbraid.shard",
        }
    }

    fn default(self) -> &'static str {
        match self {
            Self::PartialResults | Self::ExplainRouting => "off",
            Self::Shard => "",
        }
    }

    /// A value as SHOW prints it.
    ///
    /// # Errors
    /// 22023 with what there is.
    fn read(self, value: &str, shards: &[Arc<str>]) -> Result<String, ServerError> {
        let read = match self {
            Self::PartialResults | Self::ExplainRouting => truth(value).map(str::to_owned),
            Self::Shard => {
                let known = value.is_empty() || shards.iter().any(|name| **name == *value);
                known.then(|| value.to_owned())
            }
        };
        read.ok_or_else(|| {
            let name = self.name();
            let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
            let hint = match self {
                Self::PartialResults | Self::ExplainRouting => "Available values: on, off.".into(),
                Self::Shard => format!("{}, or '' for none.", available(shards)),
            };
            ServerError::new(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint(hint)
        })
    }
}

/// `Available values: s1, s2`
pub(super) fn available(shards: &[Arc<str>]) -> String {
    format!("Available values: {}", shards.join(", "))
}

/// `on` or `off`, from the words PostgreSQL takes for a boolean, which may be cut short where they stay clear.
fn truth(value: &str) -> Option<&'static str> {
    let value = value.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&*value);
    match &*value {
        "1" => Some("on"),
        "0" => Some("off"),
        _ if begins("true", 1) || begins("yes", 1) || begins("on", 2) => Some("on"),
        _ if begins("false", 1) || begins("no", 1) || begins("off", 2) => Some("off"),
        _ => None,
    }
}

/// True for a name that is one of them, or would be.
pub(super) fn is_own(name: &str) -> bool {
    let head = name.get(..PREFIX.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(PREFIX))
}

/// The setting of such a name; `sqlstate` is what PostgreSQL says at the place of one that it does not know.
fn find(name: &str, sqlstate: &str) -> Result<Own, ServerError> {
    let found = Own::ALL.into_iter();
    let mut found = found.filter(|own| own.name().eq_ignore_ascii_case(name));
    found.next().ok_or_else(|| {
        let names = Own::ALL.map(Own::name).join(", ");
        let message = format!("unrecognized configuration parameter \"{name}\"");
        ServerError::new(sqlstate, message).with_hint(format!("pgbraid has {names}."))
    })
}

/// The one column of SHOW.
///
/// # Errors
/// 42704 for a name that is none.
pub(super) fn shown(name: &str) -> Result<Arc<[ColumnDescription]>, ServerError> {
    let own = find(name, sqlstate::UNDEFINED_OBJECT)?;
    Ok(Arc::from([ColumnDescription {
        name: own.name().into(),
        table_oid: 0,
        attribute: 0,
        type_oid: oid::TEXT,
        type_length: -1,
        type_modifier: -1,
        format: 0,
    }]))
}

impl Session {
    /// The value in force of one of pgbraid's own settings.
    pub(super) fn own(&self, own: Own) -> &str {
        let name = own.name();
        let local = self.transaction.local(name);
        let set = local.or_else(|| self.settings.get(name));
        set.unwrap_or(own.default())
    }

    /// As SHOW prints it; `None` where that is PostgreSQL's to say.
    pub(super) fn own_shown(&self, name: &str) -> Option<String> {
        is_own(name).then_some(())?;
        let own = find(name, sqlstate::UNDEFINED_OBJECT).ok()?;
        Some(self.own(own).to_owned())
    }

    /// True where one of those that are on or off is on.
    pub(super) fn is_on(&self, own: Own) -> bool {
        self.own(own) == "on"
    }

    /// The shard that `pgbraid.shard` names.
    pub(super) fn shard_by_setting(&self) -> Option<ShardId> {
        self.shard_named(self.own(Own::Shard))
    }

    /// A shard by its name in the configuration.
    pub(super) fn shard_named(&self, name: &str) -> Option<ShardId> {
        let mut names = self.shared.shard_names.iter();
        let found = names.position(|known| **known == *name);
        found.map(|i| ShardId(i as u16))
    }

    /// SET as a statement.
    ///
    /// # Errors
    /// As [`Session::set_own`]; 22023 for several values.
    pub(super) async fn set_own_by(&mut self, kind: &Kind) -> Result<String, ServerError> {
        if let Kind::Set {
            name,
            local,
            to_default,
            value,
        } = kind
        {
            if value.is_none() && !to_default {
                let message = format!("SET {name} takes only one argument");
                return Err(ServerError::new(sqlstate::INVALID_PARAMETER_VALUE, message));
            }
            self.set_own(name, value.as_deref(), *local).await?;
        }
        Ok("SET".into())
    }

    /// SET of one of them; `None` goes back to what it was when the session began.
    ///
    /// # Errors
    /// 42602 for a name that is none, 22023 for a value; what a held connection says.
    pub(super) async fn set_own(
        &mut self,
        name: &str,
        value: Option<&str>,
        local: bool,
    ) -> Result<(), ServerError> {
        let own = find(name, sqlstate::INVALID_NAME)?;
        let first = self.startup.get(own.name()).unwrap_or(own.default());
        let value = own.read(value.unwrap_or(first), &self.shared.shard_names)?;
        self.note_settings();
        let before = self.settings.mark();
        if local {
            self.begin_local();
        }
        let name = own.name();
        self.transaction.touch(name);
        match local {
            true => self.transaction.add_local(name, &value),
            false => {
                self.transaction.remove_local(name);
                self.settings.set(name, value.clone());
            }
        }
        self.follow_steering();
        self.tell_held(&set_config(name, &value, local), before)
            .await
    }

    /// RESET of one of them.
    ///
    /// # Errors
    /// As [`Session::set_own`].
    pub(super) async fn reset_own(&mut self, name: &str) -> Result<(), ServerError> {
        self.set_own(name, None, false).await?;
        if self.transaction.block == Block::Idle && self.startup.get(name).is_none() {
            // Back at the default: nothing to replay.
            self.settings.remove(name);
        }
        Ok(())
    }

    /// Brings held connections along; those with settings other than the session had before, or with a portal that it would end, when
    /// they are used next.
    async fn tell_held(&mut self, sql: &str, before: u64) -> Result<(), ServerError> {
        let in_block = self.transaction.block != Block::Idle;
        let text = [sql.to_owned()];
        let mark = self.settings.mark();
        let work = self.connections.iter_mut().map(|(_, conn)| {
            let text = &text;
            async move {
                let follows = conn.settings_mark() == before && !conn.unsynced();
                conn.set_settings_mark(MARK_UNKNOWN);
                if in_block || follows {
                    control::command(conn, text).await?;
                    conn.set_settings_mark(mark);
                }
                Ok(())
            }
        });
        let done = futures_util::future::join_all(work).await;
        done.into_iter().collect()
    }

    /// Looks at what has been set: to be called where it may have changed.
    pub(super) fn follow_steering(&mut self) {
        let partial = self.is_on(Own::PartialResults);
        if !partial && !std::mem::take(&mut self.steering.told).is_empty() {
            self.report(MISSING_SHARDS, "");
        }
        self.steered = partial || self.is_on(Own::ExplainRouting);
        if !self.steered {
            // What the last statement left says nothing of the next ones, which nobody looks at.
            self.begin_steered();
        }
    }

    /// The parameters of a statement that sets some of them by set_config(), each value as SHOW prints it, which is what the call
    /// returns. Of a value that is computed the shard is asked afterwards.
    ///
    /// # Errors
    /// 22023 for a value, before anything of the statement is out.
    pub(super) fn own_values(
        &self,
        prepared: &Prepared,
        parameters: Arc<Parameters>,
    ) -> Result<Arc<Parameters>, ServerError> {
        let mut parameters = parameters;
        for set in prepared.set_config.iter().filter(|set| is_own(&set.name)) {
            let own = find(&set.name, sqlstate::INVALID_NAME)?;
            match &set.value {
                SetValue::Literal(value) => {
                    own.read(value, &self.shared.shard_names)?;
                }
                SetValue::Parameter(place) => {
                    let is_text = prepared.parameter_types.get(*place) == Some(&oid::TEXT);
                    let given = parameters.values.get(*place).cloned().flatten();
                    let Some(given) = given.filter(|_| is_text) else {
                        continue;
                    };
                    // Of text both formats are the same bytes.
                    let given = String::from_utf8_lossy(&given);
                    let read = own.read(&given, &self.shared.shard_names)?;
                    if read != given {
                        let values = &mut Arc::make_mut(&mut parameters).values;
                        values[*place] = Some(read.into());
                    }
                }
                SetValue::Computed => {}
            }
        }
        Ok(parameters)
    }

    /// The text of a statement that sets some of them, with those literals as SHOW prints them that are not; `None` where all are.
    pub(super) fn with_own_values(&self, statement: &Statement) -> Option<String> {
        sql::with_set_values(statement, |name, value| {
            let own = find(name, sqlstate::INVALID_NAME).ok()?;
            let read = own.read(value, &self.shared.shard_names).ok()?;
            (read != value).then_some(read)
        })
    }

    /// Refuses set_config() of what is none of them, before it runs.
    ///
    /// # Errors
    /// 42602.
    pub(super) fn check_own(name: &str) -> Result<(), ServerError> {
        match is_own(name) {
            true => find(name, sqlstate::INVALID_NAME).map(drop),
            false => Ok(()),
        }
    }
}

/// A startup parameter's value, where it is one of pgbraid's own.
///
/// # Errors
/// 22023 for its value, 42704 for its name.
pub(super) fn add_own(
    settings: &mut settings::Settings,
    name: &str,
    value: &str,
    shards: &[Arc<str>],
) -> Result<bool, ServerError> {
    if !is_own(name) {
        return Ok(false);
    }
    let value = find(name, sqlstate::UNDEFINED_OBJECT)?.read(value, shards)?;
    settings.set(name, value);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards() -> Vec<Arc<str>> {
        vec!["s1".into(), "s2".into()]
    }

    #[test]
    fn booleans_are_read_as_postgresql_does() {
        for word in ["on", "ON", "t", "tru", "true", "y", "yes", "1", " on "] {
            assert_eq!(truth(word), Some("on"), "{word}");
        }
        for word in ["of", "off", "f", "false", "n", "no", "0"] {
            assert_eq!(truth(word), Some("off"), "{word}");
        }
        for word in ["", "o", "maybe", "onn", "2", "yess"] {
            assert_eq!(truth(word), None, "{word}");
        }
    }

    #[test]
    fn a_wrong_value_names_the_right_ones() {
        let error = Own::Shard.read("s3", &shards()).unwrap_err();
        assert_eq!(error.sqlstate(), "22023");
        let hint = error.field(b'H').unwrap_or_default();
        assert!(hint.contains("s1, s2"), "{hint}");
        let error = Own::PartialResults.read("some", &shards()).unwrap_err();
        let hint = error.field(b'H').unwrap_or_default();
        assert!(hint.contains("on, off"), "{hint}");
    }

    #[test]
    fn an_unknown_name_lists_what_there_is() {
        let error = find("pgbraid.shards", "42704").unwrap_err();
        let hint = error.field(b'H').unwrap_or_default();
        assert!(hint.contains("pgbraid.shard,") || hint.contains("pgbraid.shard."));
        assert!(is_own("PGBRAID.x") && !is_own("pgbraid") && !is_own("pgbraids.x"));
    }
}
