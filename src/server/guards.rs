//! What a statement may not do while its session is spread over several servers.

use super::prepare::Prepared;
use super::run::unsupported;
use super::session::Session;
use super::transaction::{Block, Clock, Company};
use crate::catalog::Catalog;
use crate::executor::{PrintedForm, printed_form};
use crate::plan::{Plan, Planned, ShardId};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::sql::{self, Statement};

/// Types whose binary form is an OID: regproc, regprocedure, regoper, regoperator, regclass, regtype, regconfig,
/// regdictionary, regnamespace, regrole, regcollation.
const OID_TYPES: [u32; 11] = [
    24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191,
];

/// A result column of such a type, or of arrays of a composite, unless the statement reads the catalog, whose OIDs are the
/// catalog shard's throughout.
pub fn oid_column(
    statement: &Statement,
    columns: Option<&[ColumnDescription]>,
    catalog: &Catalog,
) -> Option<usize> {
    let composites = |oid: u32| {
        let element = catalog.types.get(&oid).map_or(0, |t| t.element);
        catalog.types.get(&element).is_some_and(|t| t.kind == b'c')
    };
    let carries = |c: &ColumnDescription| OID_TYPES.contains(&c.type_oid) || composites(c.type_oid);
    let at = columns?.iter().position(carries)?;
    (!sql::reads_catalog(statement)).then_some(at)
}

/// Functions whose effect belongs to a session or to one server, where sessions are spread over servers.
pub fn refuse_session_functions(
    functions: &[String],
    is_set_config: bool,
) -> Result<(), ServerError> {
    let refused = functions.iter().find(|f| {
        matches!(
            f.as_str(),
            "nextval" | "setval" | "currval" | "lastval" | "pg_notify" | "pg_export_snapshot"
        ) || f.starts_with("lo_")
            || f.starts_with("dblink")
            || (f.as_str() == "set_config" && !is_set_config)
    });
    match refused {
        None => Ok(()),
        Some(name) => Err(unsupported(
            format!("function {name} is not supported over several shards"),
            "Call it on a shard directly; set_config works in a SELECT without FROM.",
        )),
    }
}

/// True when the text may hold one of PostgreSQL's date/time words as a literal.
pub fn has_clock_words(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    let quoted = |word: &str| {
        lower.match_indices(word).any(|(at, _)| {
            let opens = lower[..at].trim_end().ends_with(['\'', '$']);
            let goes_on =
                lower[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
            opens && !goes_on
        })
    };
    ["now", "today", "tomorrow", "yesterday"]
        .into_iter()
        .any(quoted)
}

impl Session {
    /// True when the client's text may go to the one shard as it is. In a block now() must have one value: the shard's, as long
    /// as only that shard is asked for it, or the proxy's, which a rewritten text carries to any shard.
    ///
    /// # Errors
    /// 0A000 where both would be mixed.
    pub fn runs_unchanged(
        &mut self,
        planned: &Planned,
        shard: ShardId,
    ) -> Result<bool, ServerError> {
        let open = !self.is_alone() && !self.shared.is_one_shard();
        if !open || !planned.uses_now {
            return Ok(true);
        }
        let rewritten = !matches!(planned.fan_out, Ok(Plan::Remote(_)) | Err(_));
        if rewritten && self.transaction.clock.is_none_or(|c| c == Clock::Proxy) {
            return Ok(false);
        }
        self.read_clock(Clock::Shard(shard))?;
        Ok(true)
    }

    /// True for the only statement of its transaction.
    pub fn is_alone(&self) -> bool {
        self.transaction.block == Block::Idle && self.company == Company::Alone
    }

    /// Notes whose now() the transaction has shown.
    ///
    /// # Errors
    /// 0A000 when it has shown another one before.
    pub fn read_clock(&mut self, clock: Clock) -> Result<(), ServerError> {
        match self.transaction.clock {
            Some(other) if other != clock => {
                let hint = "Run the statement in a transaction of its own, or pass the time as a parameter.";
                Err(unsupported(
                    "now() of one transaction on several shards is not supported here",
                    hint,
                ))
            }
            _ => {
                self.transaction.clock = Some(clock);
                Ok(())
            }
        }
    }

    /// Each shard would read such a literal by its own clock.
    ///
    /// # Errors
    /// 0A000 for a statement over several shards.
    pub fn refuse_clock_words(&self, prepared: &Prepared) -> Result<(), ServerError> {
        match prepared.clock_words {
            true => Err(unsupported(
                "a literal such as 'now' or 'today' is not supported over several shards",
                "Use now() or current_date.",
            )),
            false => Ok(()),
        }
    }

    /// Refuses a plan whose steps hand values on as text that would not mean the same to the next step.
    ///
    /// # Errors
    /// 0A000 naming the setting.
    pub fn refuse_lossy_text(&self, plan: &Plan) -> Result<(), ServerError> {
        let form = printed_form(plan);
        let refuse = |name: &str, value: &str, hint: &str| {
            let message = format!(
                "{name} = \"{value}\" is not supported for this statement over several shards"
            );
            Err(unsupported(message, hint))
        };
        let digits = self.setting("extra_float_digits").unwrap_or_default();
        if form == PrintedForm::Any {
            return Ok(());
        }
        if digits.parse::<i32>().is_ok_and(|d| d < 1) {
            return refuse("extra_float_digits", &digits, "Set it to 1 or more.");
        }
        let date = self.setting("DateStyle").unwrap_or_default();
        if !date.is_empty() && !date.to_ascii_uppercase().starts_with("ISO") {
            return refuse("DateStyle", &date, "Use DateStyle = ISO.");
        }
        let interval = self.setting("IntervalStyle").unwrap_or_default();
        if !matches!(
            interval.to_ascii_lowercase().as_str(),
            "" | "postgres" | "iso_8601"
        ) {
            return refuse("IntervalStyle", &interval, "Use IntervalStyle = postgres.");
        }
        Ok(())
    }

    /// A setting as this session has it: set by the client, or as the catalog shard reports it.
    fn setting(&self, name: &str) -> Option<String> {
        let set = self
            .transaction
            .local(name)
            .or_else(|| self.settings.get(name));
        set.map(str::to_owned).or_else(|| {
            let loaded = self.shared.catalog.loaded()?;
            loaded
                .parameters
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_words_are_found_as_literals_only() {
        for sql in [
            "select 'now'::timestamptz",
            "select date ' Today'",
            "select $$tomorrow$$::date",
        ] {
            assert!(has_clock_words(sql), "{sql}");
        }
        for sql in [
            "select now()",
            "select 'nowhere'",
            "select today from t",
            "select 'not now'",
        ] {
            assert!(!has_clock_words(sql), "{sql}");
        }
    }
}
