//! What differs between shards and must not: settings, types, functions, columns, views.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Difference;
use super::snapshot::{Contents, Relation, ShardType};

/// Differing functions are named one by one only up to here: another version of an extension changes hundreds.
const FUNCTIONS_NAMED: usize = 20;

/// The shards' names and contents, the catalog shard first.
pub(super) struct Shards<'a> {
    pub names: Vec<&'a str>,
    pub contents: Vec<&'a Contents>,
}

impl<'a> Shards<'a> {
    /// All but the catalog shard, with their places.
    pub(super) fn others(&self) -> impl Iterator<Item = (usize, &'a str, &'a Contents)> {
        let shards = self.names.iter().zip(&self.contents).enumerate();
        shards.skip(1).map(|(i, (name, c))| (i, *name, *c))
    }
}

/// Compares what holds for whole databases. `Some` when nothing that is on several shards can be exact.
pub(super) fn databases(shards: &Shards<'_>, differences: &mut Vec<Difference>) -> Option<String> {
    let first = shards.contents[0];
    let mut found = Vec::new();
    for (name, contents) in shards.names.iter().zip(&shards.contents) {
        for (setting, value) in &contents.settings {
            let wanted = match setting.as_str() {
                "server_encoding" => "UTF8",
                "integer_datetimes" | "standard_conforming_strings" => "on",
                _ => continue,
            };
            if value != wanted {
                let message = format!("is {value}, pgbraid needs {wanted}");
                found.push((*name, format!("setting {setting}"), message));
            }
        }
    }
    for (_, name, contents) in shards.others() {
        let unlike = |mine: &str, other: &str| {
            let first = shards.names[0];
            format!("is {mine}, on shard {first} it is {other}: results would differ")
        };
        for (setting, value) in &contents.settings {
            let other = first.settings.iter().find(|(s, _)| s == setting);
            if let Some((_, other)) = other
                && other != value
            {
                found.push((name, format!("setting {setting}"), unlike(value, other)));
            }
        }
        let path = |c: &Contents| c.search_path.join(", ");
        if contents.search_path != first.search_path {
            let message = unlike(&path(contents), &path(first));
            found.push((name, "search_path".into(), message));
        }
        let collation = |c: &Contents| {
            (
                c.default_collation.provider,
                c.default_collation.locale.clone(),
            )
        };
        if collation(contents) != collation(first) {
            let (mine, other) = (&contents.default_collation, &first.default_collation);
            let message = unlike(&mine.locale, &other.locale);
            found.push((name, "default collation".into(), message));
        }
    }
    let reason = found
        .first()
        .map(|(shard, object, message)| format!("{object} of shard {shard} {message}"));
    differences.extend(
        found
            .into_iter()
            .map(|(shard, object, message)| Difference {
                shard: shard.to_owned(),
                object,
                message,
                fatal: true,
            }),
    );
    versions(shards, differences);
    reason
}

fn versions(shards: &Shards<'_>, differences: &mut Vec<Difference>) {
    let first = shards.contents[0];
    for (_, name, contents) in shards.others() {
        if contents.major_version != first.major_version {
            differences.push(Difference {
                shard: name.to_owned(),
                object: "server version".into(),
                message: format!(
                    "is {}, on shard {} it is {}",
                    contents.server_version, shards.names[0], first.server_version
                ),
                fatal: false,
            });
        }
    }
}

/// Types of the catalog shard that mean something else on another one: by OID there, with the reason. Arrays of them included.
pub(super) fn types(
    shards: &Shards<'_>,
    differences: &mut Vec<Difference>,
) -> HashMap<u32, String> {
    let mut unlike = HashMap::new();
    for (_, name, contents) in shards.others() {
        let there = by_name(&contents.types);
        for known in shards.contents[0]
            .types
            .iter()
            .filter(|t| !t.signature.is_empty())
        {
            let definition = &known.definition;
            let key = (definition.schema.as_str(), definition.name.as_str());
            let message = match there.get(&key) {
                Some(other) if other.signature == known.signature => continue,
                Some(other) => format!(
                    "is {}, on shard {} {}",
                    other.signature, shards.names[0], known.signature
                ),
                None => "is missing".to_owned(),
            };
            let object = format!("type {}.{}", definition.schema, definition.name);
            let reason = format!("{object} differs on shard {name}");
            for oid in [definition.oid, definition.array] {
                unlike.insert(oid, reason.clone());
            }
            differences.push(Difference {
                shard: name.to_owned(),
                object,
                message,
                fatal: true,
            });
        }
    }
    unlike.remove(&0);
    unlike
}

pub(super) fn by_name(types: &[ShardType]) -> HashMap<(&str, &str), &ShardType> {
    types
        .iter()
        .map(|t| {
            (
                (t.definition.schema.as_str(), t.definition.name.as_str()),
                t,
            )
        })
        .collect()
}

/// Names of functions that are not the same everywhere.
pub(super) fn functions<'a>(
    shards: &Shards<'a>,
    differences: &mut Vec<Difference>,
) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (_, shard, contents) in shards.others() {
        let there: HashMap<_, _> = contents.bodies.iter().map(|b| (&b.signature, b)).collect();
        let here: HashMap<_, _> = shards.contents[0]
            .bodies
            .iter()
            .map(|b| (&b.signature, b))
            .collect();
        let mut unlike = Vec::new();
        // In the order of their signatures.
        let signatures: BTreeSet<_> = here.keys().chain(there.keys()).collect();
        for signature in signatures {
            let message = match (here.get(*signature), there.get(*signature)) {
                (Some(a), Some(b)) if a.digest == b.digest => continue,
                (Some(_), Some(_)) => "does something else there",
                (Some(_), None) => "is missing there",
                (None, _) => "is only there",
            };
            let body = here.get(*signature).or(there.get(*signature));
            names.extend(body.map(|b| b.name.as_str()));
            unlike.push((signature, message));
        }
        let more = unlike.len().saturating_sub(FUNCTIONS_NAMED);
        differences.extend(
            unlike
                .into_iter()
                .take(FUNCTIONS_NAMED)
                .map(|(signature, message)| Difference {
                    shard: shard.to_owned(),
                    object: format!("function {signature}"),
                    message: format!("{message}, compared with shard {}", shards.names[0]),
                    fatal: true,
                }),
        );
        if more > 0 {
            differences.push(Difference {
                shard: shard.to_owned(),
                object: "functions".into(),
                message: format!("{more} more differ"),
                fatal: true,
            });
        }
    }
    names
}

/// Why a relation that must be the same on all shards is not: the shard, and what. `relations` has one entry a shard.
pub(super) fn relation(names: &[&str], relations: &[Option<&Relation>]) -> Option<(usize, String)> {
    let missing = relations.iter().position(Option::is_none);
    if let Some(shard) = missing {
        return Some((shard, "is missing there".into()));
    }
    let mut present = relations.iter().flatten().enumerate();
    let (_, first) = present.next()?;
    present.find_map(|(shard, other)| {
        let what = columns_differ(first, other).or_else(|| {
            (first.kind == b'v' || other.kind == b'v')
                .then(|| first.view_definition != other.view_definition)
                .filter(|differs| *differs)
                .map(|_| "has another definition".to_owned())
        })?;
        Some((shard, format!("{what} than on shard {}", names[0])))
    })
}

fn columns_differ(first: &Relation, other: &Relation) -> Option<String> {
    if first.columns.len() != other.columns.len() {
        return Some(format!("has {} columns, other", other.columns.len()));
    }
    let pairs = first.columns.iter().zip(&other.columns);
    pairs.enumerate().find_map(|(i, (a, b))| {
        if a.name != b.name {
            return Some(format!("has {} as column {}, another one", b.name, i + 1));
        }
        if a.type_name != b.type_name {
            return Some(format!(
                "has column {} of type {}, another",
                b.name, b.type_name
            ));
        }
        (a.collation_name != b.collation_name)
            .then(|| format!("has column {} in another collation", b.name))
    })
}
