//! What a statement may not do while its session is spread over several servers.

use std::collections::HashSet;
use std::sync::Arc;

use super::prepared::Prepared;
use super::run::unsupported;
use super::session::Session;
use super::transaction::{Block, Clock, Company};
use crate::catalog::{Catalog, Function, Table, TableKind};
use crate::executor::{Parameters, printed};
use crate::metrics::Reason;
use crate::plan::{Plan, Planned, Remote, ShardId, Targets};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::sql::{self, Kind, Statement};
use crate::types::oid;

/// A result column of arrays of a composite.
pub fn oid_column(columns: Option<&[ColumnDescription]>, catalog: &Catalog) -> Option<usize> {
    let composites = |oid: u32| {
        let element = catalog.types.get(&oid).map_or(0, |t| t.element);
        catalog.types.get(&element).is_some_and(|t| t.kind == b'c')
    };
    columns?.iter().position(|c| composites(c.type_oid))
}

/// True for a SELECT of ordinary values without any effect, see [`Prepared::is_plain`].
pub fn is_plain(prepared: &Prepared) -> bool {
    let ordinary = |c: &ColumnDescription| {
        let object = oid::REG_TYPES.contains(&c.type_oid) || oid::REG_ARRAYS.contains(&c.type_oid);
        let record = matches!(c.type_oid, oid::RECORD | oid::RECORD_ARRAY);
        c.type_oid < oid::FIRST_NORMAL_OBJECT && !object && !record
    };
    let translated = |type_oid: &u32| *type_oid >= oid::FIRST_NORMAL_OBJECT;
    matches!(prepared.kind, Kind::Select { writes: false, .. })
        && !prepared.parameter_types.iter().any(translated)
        && prepared.columns.iter().all(|c| c.iter().all(ordinary))
        && prepared.columns.is_some()
        && prepared
            .planned
            .iter()
            .all(|p| p.read_only && !p.uses_now && !p.frozen)
        && prepared.set_config.is_empty()
        && !prepared.reads_catalog
        && !prepared.clock_words
        && !prepared.pins
        && !prepared.at_home
        && !prepared.leaves_unseen
}

/// On one shard, where every function is run: true for a statement that may run one of users which sets something, the role
/// included. By the names in its text; what changes rows may run triggers.
pub fn leaves_unseen(kind: &Kind, sql: &str, catalog: &Catalog) -> bool {
    let setters = setters(catalog);
    let may_set = setters.len() > 1 || sql.to_ascii_lowercase().contains(SETTER);
    if !may_set {
        return false;
    }
    let reads = matches!(
        kind,
        Kind::Select { writes: false, .. }
            | Kind::Show { .. }
            | Kind::Explain { .. }
            | Kind::CopyTo(_)
    );
    let names = sql::names_in_order(sql).filter(|_| reads);
    let Some(names) = names.map(HashSet::<String>::from_iter) else {
        return true;
    };
    // The query of a view, a policy on rows.
    let hides = |((_, name), table): (&(String, String), &Arc<Table>)| {
        names.contains(name) && (table.kind == TableKind::View || table.guarded)
    };
    let mut operators = catalog.operator_functions.iter();
    let runs_setter = |(operator, function): &(String, String)| {
        setters.contains(function.as_str()) && names.contains(operator.trim_start_matches("::"))
    };
    setters.iter().any(|name| names.contains(*name))
        || operators.any(runs_setter)
        || catalog.tables.iter().any(hides)
}

/// What sets something itself.
const SETTER: &str = "set_config";

/// Functions that may set something: of users', those whose source does not tell what they do, or that call such ones.
fn setters(catalog: &Catalog) -> HashSet<&str> {
    let all = catalog.functions.values().flatten();
    // Who may write functions in C may do everything anyway.
    let of_users = all.filter(|f| {
        !matches!(&*f.schema, "pg_catalog" | "information_schema")
            && !matches!(&*f.language, "c" | "internal")
    });
    let of_users: Vec<&Arc<Function>> = of_users.collect();
    let calls = |f: &Function, name: &str| f.names.iter().flatten().any(|n| n == name);
    let untold = of_users.iter().filter(|f| f.names.is_none());
    let mut setters: HashSet<&str> = untold.map(|f| f.name.as_str()).collect();
    setters.insert(SETTER);
    let operators = &catalog.operator_functions;
    loop {
        let known = setters.len();
        for f in &of_users {
            let by_name = setters.iter().any(|s| calls(f, s));
            let by_operator = |(o, s): &(String, String)| {
                setters.contains(s.as_str()) && calls(f, o.trim_start_matches("::"))
            };
            if by_name || operators.iter().any(by_operator) {
                setters.insert(&f.name);
            }
        }
        if setters.len() == known {
            return setters;
        }
    }
}

/// A lock of the session.
pub fn takes_lock(function: &str) -> bool {
    ["pg_advisory_lock", "pg_try_advisory_lock"]
        .iter()
        .any(|f| function.starts_with(f))
}

/// The session's prepared statements, which no shard knows: its connections have ours, with texts of other clients among them.
///
/// # Errors
/// 0A000 for a statement that asks for them.
pub fn refuse_statement_names(
    statement: &Statement,
    functions: &[String],
) -> Result<(), ServerError> {
    let asks = sql::names_relation(statement, "pg_prepared_statements")
        || functions.iter().any(|f| f == "pg_prepared_statement");
    if asks {
        return Err(unsupported(
            Reason::Catalog,
            "pg_prepared_statements is not supported over several shards",
            "DEALLOCATE and EXECUTE tell whether there is a statement of a name.",
        ));
    }
    Ok(())
}

/// The names of cursors, which no shard knows.
///
/// # Errors
/// 0A000 for a statement that asks for them.
pub fn refuse_cursor_names(statement: &Statement, functions: &[String]) -> Result<(), ServerError> {
    if sql::names_relation(statement, "pg_cursors") || functions.iter().any(|f| f == "pg_cursor") {
        // The shard has portals of ours, and none of the client's.
        return Err(unsupported(
            Reason::Cursor,
            "pg_cursors is not supported over several shards",
            "FETCH and CLOSE tell whether there is a cursor of a name.",
        ));
    }
    Ok(())
}

/// Functions whose effect belongs to a session or to one server, where sessions are spread over servers.
pub fn refuse_session_functions(
    functions: &[String],
    is_set_config: bool,
) -> Result<(), ServerError> {
    let refused = functions.iter().find(|f| {
        matches!(
            f.as_str(),
            "nextval" | "setval" | "currval" | "lastval" | "pg_export_snapshot"
        ) || f.starts_with("lo_")
            || f.starts_with("dblink")
            || (f.as_str() == "set_config" && !is_set_config)
    });
    match refused {
        None => Ok(()),
        Some(name) => Err(unsupported(
            Reason::Function,
            format!("function {name} is not supported over several shards"),
            "Call it on a shard directly; set_config works in a SELECT without FROM.",
        )),
    }
}

/// Types that read words such as `now` in their text form: date, time and timestamp types, their arrays, ranges and multiranges.
const CLOCK_TYPES: [u32; 16] = [
    1082, 1083, 1114, 1115, 1182, 1183, 1184, 1185, 1266, 1270, 3908, 3910, 3912, 4533, 4534, 4535,
];

/// Each shard would read such a value by its own clock.
///
/// # Errors
/// 0A000 for a parameter `now`, `today` and the like.
pub fn refuse_clock_parameters(parameters: &Parameters) -> Result<(), ServerError> {
    let words = ["now", "today", "tomorrow", "yesterday"];
    let reads = |value: &[u8]| {
        let mut parts = value.split(|b| !b.is_ascii_alphabetic());
        parts.any(|part| {
            words
                .iter()
                .any(|w| part.eq_ignore_ascii_case(w.as_bytes()))
        })
    };
    let columns = parameters.types.iter().zip(&parameters.formats);
    let mut all = columns.zip(&parameters.values);
    match all.any(|((t, format), value)| {
        *format == 0 && CLOCK_TYPES.contains(t) && value.as_deref().is_some_and(reads)
    }) {
        true => Err(unsupported(
            Reason::Clock,
            "a parameter such as 'now' or 'today' is not supported over several shards",
            "Pass the moment itself, or use now() or current_date.",
        )),
        false => Ok(()),
    }
}

/// Settings that are not the session's own on a merge session, or in the transaction of a statement of several steps.
const OF_STEPS: [&str; 7] = [
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
    "enable_nestloop",
    "synchronous_commit",
    "default_statistics_target",
    "idle_in_transaction_session_timeout",
];

/// A statement of several steps would show such a setting as its steps have it.
///
/// # Errors
/// 0A000 for current_setting() of one, by a literal or a parameter.
pub fn refuse_settings_of_steps(
    plan: &Plan,
    sql: &str,
    parameters: &Parameters,
) -> Result<(), ServerError> {
    if !matches!(plan, Plan::Combine { .. }) {
        return Ok(());
    }
    let sql = sql.to_ascii_lowercase();
    if !sql.contains("current_setting") {
        return Ok(());
    }
    let passed = |name: &str| {
        let mut values = parameters.values.iter().flatten();
        values.any(|v| v.eq_ignore_ascii_case(name.as_bytes()))
    };
    let shown = OF_STEPS.iter().find(|n| sql.contains(**n) || passed(n));
    shown.map_or(Ok(()), |name| {
        Err(unsupported(
            Reason::Function,
            format!(
                "current_setting('{name}') is not supported in this statement over several shards"
            ),
            "Ask for it in a statement of its own.",
        ))
    })
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
    /// The plan of a statement that one shard answers, where its own text would not do: now() has one value in a transaction, the
    /// proxy's, which parameters carry. Where none can, the shard's, as long as only that shard is asked for it.
    ///
    /// # Errors
    /// 0A000 where both would be mixed.
    pub fn clocked(
        &mut self,
        planned: &Planned,
        shard: ShardId,
        columns: usize,
    ) -> Result<Option<Plan>, ServerError> {
        if !planned.uses_now || self.shared.is_one_shard() || (self.is_alone() && !planned.frozen) {
            return Ok(None);
        }
        let Some(remote) = &planned.clocked else {
            self.open_implicit();
            self.read_clock(Clock::Shard(shard))?;
            return Ok(None);
        };
        if !self.is_alone() {
            self.read_clock(Clock::Proxy)?;
        }
        Ok(Some(Plan::Remote(Remote {
            targets: Targets::Shard(shard),
            visible: columns,
            ..remote.clone()
        })))
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
                    Reason::Clock,
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

    /// Refuses a plan whose steps hand values on as text that would not mean the same to the next step.
    ///
    /// # Errors
    /// 0A000 naming the setting.
    pub fn refuse_lossy_text(
        &self,
        plan: &Plan,
        columns: &[ColumnDescription],
    ) -> Result<(), ServerError> {
        let loaded = self.loaded()?;
        let printed = printed(plan, columns, &loaded.catalog);
        let refuse = |name: &str, value: &str, hint: &str| {
            let message = format!(
                "{name} = \"{value}\" is not supported for this statement over several shards"
            );
            Err(unsupported(Reason::Setting, message, hint))
        };
        let digits = self.setting("extra_float_digits").unwrap_or_default();
        if printed.floats && digits.parse::<i32>().is_ok_and(|d| d < 1) {
            return refuse("extra_float_digits", &digits, "Set it to 1 or more.");
        }
        let date = self.setting("DateStyle").unwrap_or_default();
        if printed.moments && !date.is_empty() && !date.to_ascii_uppercase().starts_with("ISO") {
            return refuse("DateStyle", &date, "Use DateStyle = ISO.");
        }
        let interval = self.setting("IntervalStyle").unwrap_or_default();
        let exact = matches!(
            interval.to_ascii_lowercase().as_str(),
            "" | "postgres" | "iso_8601"
        );
        match printed.intervals && !exact {
            true => refuse("IntervalStyle", &interval, "Use IntervalStyle = postgres."),
            false => Ok(()),
        }
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
