//! One `[[table]]`: where its rows are, and for ranges and lists which keys lie where.

use std::collections::HashSet;

use toml::Spanned;
use toml::de::DeValue;

use super::check::{FUNCTIONS, ShardNames};
use super::reader::{Place, Section};
use super::value::sql_name;
use super::{Database, FunctionName, Placement, TableRule};

type Bounds = Vec<(Option<String>, usize)>;

const PLACEMENT: &str =
    "one of: key = \"column\", sharded = true (key unknown), reference = true, home = \"shard\"";

/// Reads a table; `None` when its name is of no use.
pub(super) fn table_rule(
    name: &str,
    section: &Section<'_, '_>,
    database: &Database,
    shards: &ShardNames,
) -> Option<TableRule> {
    let placement = placement(section, database, shards);
    section.finish();
    let expected = "a table's name as in SQL: orders, public.orders, public.\"Order Items\"";
    if name.is_empty() {
        return None;
    }
    let (schema, name) = match sql_name(name).map(<[String; 2]>::try_from) {
        Ok(Ok([schema, name])) => (schema, name),
        Ok(Err(parts)) if parts.len() == 1 => ("public".into(), parts.into_iter().next()?),
        Ok(Err(parts)) => {
            section.mistake("name", format!("has {} parts", parts.len()), expected);
            return None;
        }
        Err(why) => {
            section.mistake("name", why, expected);
            return None;
        }
    };
    Some(TableRule {
        schema,
        name,
        placement,
    })
}

fn placement(section: &Section<'_, '_>, database: &Database, shards: &ShardNames) -> Placement {
    let key = key(section);
    let sharded = section.flag("sharded");
    let reference = section.flag("reference");
    let home = shards.read(section, "home");
    let function = section.choice("function", &FUNCTIONS);
    let given = [
        section.has("key") || sharded == Some(true),
        reference == Some(true),
        section.has("home"),
    ];
    match given.iter().filter(|g| **g).count() {
        1 => {}
        0 => section.missing("key", PLACEMENT),
        _ => section.mistake(
            if given[1] { "reference" } else { "home" },
            "contradicts what else is said of this table",
            PLACEMENT,
        ),
    }
    if section.has("key") && sharded == Some(false) {
        section.mistake("sharded", "contradicts key", PLACEMENT);
    }
    if given[0] {
        let function = function.unwrap_or(database.function);
        let bounds = bounds(section, function, key.is_some(), shards);
        return Placement::Sharded {
            key,
            function,
            bounds,
        };
    }
    for only in ["function", "ranges", "values"] {
        if section.raw(only).is_some() {
            section.mistake(
                only,
                "has no meaning for this table",
                "it only on tables with a key",
            );
        }
    }
    match home {
        Some(shard) => Placement::Home(shard),
        None => Placement::Reference,
    }
}

fn key(section: &Section<'_, '_>) -> Option<String> {
    let expected = "a column's name as in SQL: id, \"UserId\"";
    let text = section.text("key", expected)?;
    match sql_name(&text) {
        Ok(mut parts) if parts.len() == 1 => parts.pop(),
        Ok(_) => {
            section.mistake("key", "is qualified", expected);
            None
        }
        Err(why) => {
            section.mistake("key", why, expected);
            None
        }
    }
}

/// Which keys lie on which shard, for the functions that need to be told.
fn bounds(
    section: &Section<'_, '_>,
    function: FunctionName,
    has_key: bool,
    shards: &ShardNames,
) -> Bounds {
    const RANGES: &str = "ranges = [{ shard = \"s1\" }, { from = \"2024-01-01\", shard = \"s2\" }]";
    const VALUES: &str = "values = [{ shard = \"s1\", values = [\"BR\", \"AR\"] }, …]";
    let (wanted, other) = match function {
        FunctionName::Range => (Some(("ranges", RANGES)), vec!["values"]),
        FunctionName::List => (Some(("values", VALUES)), vec!["ranges"]),
        _ => (None, vec!["ranges", "values"]),
    };
    for key in other {
        if section.raw(key).is_some() {
            let expected = "function = \"range\" with ranges, function = \"list\" with values";
            section.mistake(key, "does not belong to this table's function", expected);
        }
    }
    let Some((key, form)) = wanted else {
        return Vec::new();
    };
    let Some(value) = section.raw(key) else {
        // Without a key nothing is routed, and nothing needs bounds.
        if has_key {
            section.missing(key, form);
        }
        return Vec::new();
    };
    let Some(list) = value.get_ref().as_array().filter(|list| !list.is_empty()) else {
        section.mistake(key, "is not a list of entries", form);
        return Vec::new();
    };
    let entries: Vec<Section<'_, '_>> = list
        .iter()
        .filter_map(|element| entry(section, key, form, element))
        .collect();
    match function {
        FunctionName::Range => ranges(&entries, shards),
        _ => values(&entries, shards),
    }
}

/// `{ … }` as a section of its own; environment variables do not reach into it.
fn entry<'r, 'a>(
    section: &Section<'r, 'a>,
    key: &'static str,
    form: &str,
    element: &'r Spanned<DeValue<'a>>,
) -> Option<Section<'r, 'a>> {
    let kind = if key == "ranges" {
        "table.ranges"
    } else {
        "table.values"
    };
    let Some(table) = element.get_ref().as_table() else {
        section
            .reader
            .mistake(&Place::File(element.span()), kind, "is not an entry", form);
        return None;
    };
    Some(Section::new(
        section.reader,
        kind,
        Some(table),
        Place::File(element.span()),
    ))
}

/// Lower bounds in ascending order; the first has none, so that every key has a shard.
fn ranges(entries: &[Section<'_, '_>], shards: &ShardNames) -> Bounds {
    let mut bounds: Bounds = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let shard = shard(entry, shards);
        let from = entry.raw("from").and_then(|v| bound(entry, "from", v));
        if i == 0 && from.is_some() {
            let expected = "no `from` in the first range: it starts at the lowest key";
            entry.mistake("from", "leaves lower keys without a shard", expected);
        } else if i > 0 && !entry.has("from") {
            entry.missing("from", "the lowest key of this range");
        }
        let before = bounds.last().and_then(|(from, _)| from.as_deref());
        if let (Some(before), Some(from)) = (before, from.as_deref())
            && !ascends(before, from)
        {
            entry.mistake(
                "from",
                format!("does not follow {before:?}"),
                "ranges in ascending order",
            );
        }
        entry.finish();
        bounds.push((from, shard));
    }
    bounds
}

/// Numbers as numbers, everything else (dates, UUIDs, text in byte order) by its bytes.
fn ascends(before: &str, from: &str) -> bool {
    match (before.parse::<i64>(), from.parse::<i64>()) {
        (Ok(before), Ok(from)) => before < from,
        _ => before.as_bytes() < from.as_bytes(),
    }
}

fn values(entries: &[Section<'_, '_>], shards: &ShardNames) -> Bounds {
    let mut bounds: Bounds = Vec::new();
    let mut seen = HashSet::new();
    for entry in entries {
        let shard = shard(entry, shards);
        let mut add = |value: Option<String>, key| {
            if !seen.insert(value.clone()) {
                let shown = value.as_deref().unwrap_or("NULL").to_string();
                entry.mistake(
                    key,
                    format!("lists {shown:?} a second time"),
                    "each key once",
                );
            }
            bounds.push((value, shard));
        };
        if entry.flag("null") == Some(true) {
            add(None, "null");
        }
        match entry.raw("values").map(Spanned::get_ref) {
            Some(DeValue::Array(list)) => {
                for value in list {
                    if let Some(value) = bound(entry, "values", value) {
                        add(Some(value), "values");
                    }
                }
            }
            Some(_) => entry.mistake(
                "values",
                "is not a list",
                "the keys on this shard: [\"BR\", \"AR\"]",
            ),
            None if entry.has("null") => {}
            None => entry.missing("values", "the keys on this shard: [\"BR\", \"AR\"]"),
        }
        entry.finish();
    }
    bounds
}

fn shard(entry: &Section<'_, '_>, shards: &ShardNames) -> usize {
    if !entry.has("shard") {
        entry.missing("shard", "the name of a [[shard]]");
    }
    shards.read(entry, "shard").unwrap_or(0)
}

/// A key's value as text: what the column's type makes of it is checked against the catalog.
fn bound(
    entry: &Section<'_, '_>,
    key: &'static str,
    value: &Spanned<DeValue<'_>>,
) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_string()),
        DeValue::Datetime(date) if date.time.is_none() => Some(date.to_string()),
        other => {
            let message = format!("is of type {}", other.type_str());
            entry.mistake(key, message, "a text, a whole number or a date");
            None
        }
    }
}
