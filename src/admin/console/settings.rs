//! SHOW CONFIG and SET.

use std::collections::BTreeMap;

use super::table::Type::Text;
use super::table::{Table, Value};
use crate::config::{self, Config};
use crate::protocol::error::ServerError;
use crate::telemetry;

/// The example file has every key with its default; a test holds it to that.
const EXAMPLE: &str = include_str!("../../../config/pgbraid.toml");

/// Names that PgBouncer's exporters look for, and ours.
const POOLER_NAMES: [(&str, &str); 2] = [
    ("max_client_conn", "server.max_clients"),
    ("default_pool_size", "pool.size"),
];

/// Settings of single sections. What a file says of shards, tables and users is in SHOW DATABASES, TABLES and USERS.
pub(super) fn config(config: &Config) -> Table {
    let columns = ["key", "value", "default", "changeable"].map(|name| (name, Text));
    let mut table = Table::new(&columns);
    let defaults = defaults();
    let mut values = defaults.clone();
    values.extend(config.given.clone());
    values.extend(in_force());
    for (name, key) in POOLER_NAMES {
        let of = |from: &BTreeMap<String, String>| from.get(key).cloned();
        let row = vec![
            name.into(),
            of(&values).into(),
            of(&defaults).into(),
            "no".into(),
        ];
        table.push(row);
    }
    for (key, value) in values {
        let default = defaults.get(&key).cloned();
        let changeable = in_force().contains_key(&key);
        table.push(vec![
            key.into(),
            value.into(),
            default.map_or(Value::Null, Value::Text),
            if changeable { "yes" } else { "no" }.into(),
        ]);
    }
    table
}

/// What can be changed, as it is.
fn in_force() -> BTreeMap<String, String> {
    let telemetry = telemetry::global();
    let slow = telemetry.slow_query();
    let slow = match slow.is_zero() {
        true => "0".to_owned(),
        false => format!("{}us", slow.as_micros()),
    };
    BTreeMap::from([
        ("log.level".to_owned(), telemetry.level()),
        ("log.slow_query".to_owned(), slow),
        (
            "log.refusals".to_owned(),
            telemetry.refusals_name().to_owned(),
        ),
    ])
}

fn defaults() -> BTreeMap<String, String> {
    let Ok(document) = EXAMPLE.parse::<toml::Table>() else {
        return BTreeMap::new();
    };
    let mut defaults = BTreeMap::new();
    for (section, keys) in &document {
        for (key, value) in keys.as_table().into_iter().flatten() {
            let text = match value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            defaults.insert(format!("{section}.{key}"), text);
        }
    }
    // What has none.
    defaults.remove("database.name");
    defaults
}

/// Changes a setting until the next start.
///
/// # Errors
/// 42704 for one that there is not, 55P02 for one that cannot change, 22023 for a value it cannot have.
pub(super) fn set(config: &Config, name: &str, value: &str) -> Result<(), ServerError> {
    let telemetry = telemetry::global();
    let wrong = |why: String| ServerError::new("22023", format!("invalid value for {name}: {why}"));
    match name {
        "log.level" if config::is_log_level(value) => telemetry.set_level(value).map_err(wrong),
        "log.level" => Err(wrong(format!("{value:?} is no level"))),
        "log.slow_query" => {
            let threshold = config::duration(value);
            let form = "a duration such as \"500ms\" is expected";
            let threshold = threshold.ok_or_else(|| wrong(form.into()))?;
            telemetry.set_slow_query(threshold);
            Ok(())
        }
        "log.refusals" => telemetry.set_refusals(value).map_err(wrong),
        _ if defaults().contains_key(name) || config.given.contains_key(name) => {
            let message = format!("{name} cannot be changed while pgbraid runs");
            Err(ServerError::new("55P02", message).with_hint("Change it in the configuration."))
        }
        _ => {
            let message = format!("unrecognized setting \"{name}\"");
            Err(ServerError::new("42704", message).with_hint("SHOW CONFIG lists the settings."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_example() {
        let defaults = defaults();
        assert_eq!(defaults["pool.size"], "32");
        assert_eq!(defaults["log.slow_query"], "0");
        assert!(!defaults.contains_key("database.name"));
        // Passwords are in none of the single sections.
        let secret = defaults.keys().find(|k| k.contains("password"));
        assert_eq!(secret, None);
    }
}
