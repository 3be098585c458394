//! From `[[table]]` rules to distributions: who inherits which rule, and whether a key can be what the configuration says.

use std::collections::HashMap;
use std::sync::Arc;

use super::snapshot::{Relation, ShardColumn};
use crate::catalog::Distribution;
use crate::catalog::sharding::{KeyClass, KeyDatum, Sharding, ShardingFunction};
use crate::config::{Config, FunctionName, Placement, Undeclared};
use crate::plan::ShardId;
use crate::types::oid;

/// A partition tree deeper than this is a mistake (or a cycle, which PostgreSQL does not make).
pub(super) const PARENTS_MAX: usize = 32;

/// The rules by table name, and one shard's relations to inherit through.
pub(super) struct Rules<'a> {
    rules: HashMap<(&'a str, &'a str), &'a Placement>,
    by_oid: HashMap<u32, &'a Relation>,
    /// What tables without a rule are, where that is anything.
    default: Option<Placement>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(config: &'a Config, relations: &'a [Relation]) -> Self {
        let rules = config.tables.iter();
        Self {
            rules: rules
                .map(|t| ((t.schema.as_str(), t.name.as_str()), &t.placement))
                .collect(),
            by_oid: relations.iter().map(|r| (r.oid, r)).collect(),
            default: match config.database.undeclared {
                Undeclared::Refuse => None,
                Undeclared::Reference => Some(Placement::Reference),
                Undeclared::Home(shard) => Some(Placement::Home(shard)),
            },
        }
    }

    /// A relation's own rule, or that of the table whose partition or child it is, or what undeclared tables are.
    ///
    /// # Errors
    /// Rules that contradict each other.
    pub(super) fn placement(&self, relation: &Relation) -> Result<Option<&Placement>, String> {
        let declared = self.declared(relation, PARENTS_MAX)?;
        Ok(declared.or(self.default.as_ref()))
    }

    pub(super) fn is_declared(&self, relation: &Relation) -> bool {
        matches!(self.declared(relation, PARENTS_MAX), Ok(Some(_)))
    }

    fn declared(&self, relation: &Relation, depth: usize) -> Result<Option<&'a Placement>, String> {
        let key = (relation.schema.as_str(), relation.name.as_str());
        let mut found = self.rules.get(&key).copied();
        if depth == 0 {
            return Ok(found);
        }
        for parent in &relation.parents {
            let Some(parent) = self.by_oid.get(parent) else {
                continue;
            };
            let inherited = self.declared(parent, depth - 1)?;
            match (found, inherited) {
                (Some(own), Some(other)) if !same(own, other) => {
                    return Err(format!(
                        "it is declared in another way than {}.{}, which its rows belong to",
                        parent.schema, parent.name
                    ));
                }
                (None, other) => found = other,
                _ => {}
            }
        }
        Ok(found)
    }

    /// Parents whose rows would partly lie elsewhere than the parent's own rule says: by OID, with the child that says so.
    pub(super) fn contradicted(&self) -> HashMap<u32, String> {
        let mut contradicted = HashMap::new();
        for child in self.by_oid.values() {
            let placed = self.placement(child);
            for parent in child.parents.iter().filter_map(|p| self.by_oid.get(p)) {
                let agrees = match (self.placement(parent), &placed) {
                    (Ok(Some(a)), Ok(Some(b))) => same(a, b),
                    (Ok(None), Ok(None)) => true,
                    _ => false,
                };
                if !agrees {
                    let reason = format!(
                        "{}.{}, whose rows belong to it, is declared in another way",
                        child.schema, child.name
                    );
                    contradicted.insert(parent.oid, reason);
                }
            }
        }
        contradicted
    }
}

fn same(a: &Placement, b: &Placement) -> bool {
    match (a, b) {
        (Placement::Reference, Placement::Reference) => true,
        (Placement::Home(a), Placement::Home(b)) => a == b,
        (
            Placement::Sharded {
                key: ka,
                function: fa,
                bounds: ba,
            },
            Placement::Sharded {
                key: kb,
                function: fb,
                bounds: bb,
            },
        ) => ka == kb && fa == fb && ba == bb,
        _ => false,
    }
}

/// What a rule makes of a relation. `deterministic` says it of a column's collation.
///
/// # Errors
/// Why the key cannot be what the rule says.
pub(super) fn distribution(
    placement: &Placement,
    relation: &Relation,
    shards: usize,
    deterministic: impl Fn(&ShardColumn) -> bool,
) -> Result<Distribution, String> {
    let (key, function, bounds) = match placement {
        Placement::Reference => return Ok(Distribution::Reference),
        Placement::Home(shard) => return Ok(Distribution::Single(ShardId(*shard as u16))),
        Placement::Sharded {
            key,
            function,
            bounds,
        } => (key, *function, bounds),
    };
    let Some(key) = key else {
        return Ok(Distribution::Sharded {
            key: None,
            sharding: None,
        });
    };
    let place = relation.columns.iter().position(|c| c.name == *key);
    let place = place.ok_or_else(|| format!("it has no column {key}, its sharding key"))?;
    let column = &relation.columns[place];
    let known = KeyColumn {
        name: &column.name,
        type_oid: column.type_oid,
        type_name: &column.type_name,
        collation_name: &column.collation_name,
        deterministic: deterministic(column),
    };
    let sharding = sharding(&known, function, bounds, shards)?;
    Ok(Distribution::Sharded {
        key: Some(place),
        sharding: Some(Arc::new(sharding)),
    })
}

/// What must be known of a column before it can be a key.
#[derive(Debug, Clone, Copy)]
pub struct KeyColumn<'a> {
    /// For messages, as are the other names.
    pub name: &'a str,
    /// That of a built-in type, or it is no key.
    pub type_oid: u32,
    /// As `format_type` prints it.
    pub type_name: &'a str,
    /// Empty without one.
    pub collation_name: &'a str,
    /// Its strings are equal only when their bytes are; true without a collation.
    pub deterministic: bool,
}

/// How a column's values spread over the shards.
///
/// # Errors
/// Why it cannot be a key by this function, or what is wrong with the ranges or values of the configuration.
pub fn sharding(
    column: &KeyColumn<'_>,
    function: FunctionName,
    bounds: &[(Option<String>, usize)],
    shards: usize,
) -> Result<Sharding, String> {
    let class = key_class(column, function)?;
    Ok(Sharding {
        function: sharding_function(function, class, bounds)?,
        class,
        shards,
    })
}

fn key_class(column: &KeyColumn<'_>, function: FunctionName) -> Result<KeyClass, String> {
    let class = match column.type_oid {
        oid::INT8 if function == FunctionName::Hive => KeyClass::HiveBigint,
        oid::INT2 | oid::INT4 | oid::INT8 => KeyClass::Integer,
        // Equal texts of different bytes would hash apart.
        oid::TEXT | oid::VARCHAR if column.deterministic => KeyClass::Text,
        oid::TEXT | oid::VARCHAR => {
            return Err(format!(
                "its key {} has the nondeterministic collation {}",
                column.name, column.collation_name
            ));
        }
        oid::UUID => KeyClass::Uuid,
        oid::DATE => KeyClass::Date,
        _ => {
            return Err(format!(
                "its key {} is of type {}; a key is an integer, text, varchar, uuid or date",
                column.name, column.type_name
            ));
        }
    };
    match (function, class) {
        (FunctionName::Modulo, KeyClass::Integer) | (FunctionName::Postgres, _) => Ok(class),
        (FunctionName::Range | FunctionName::List, _) => Ok(class),
        (FunctionName::Hive, class) if class != KeyClass::Uuid => Ok(class),
        _ => Err(format!(
            "function {} does not spread keys of type {}",
            if function == FunctionName::Hive {
                "hive"
            } else {
                "modulo"
            },
            column.type_name
        )),
    }
}

fn sharding_function(
    function: FunctionName,
    class: KeyClass,
    bounds: &[(Option<String>, usize)],
) -> Result<ShardingFunction, String> {
    let entries = || {
        bounds
            .iter()
            .map(|(text, shard)| {
                // Without a value: the first range, from minus infinity on, and the place of NULL keys in a list.
                let datum = match text {
                    None => KeyDatum::Null,
                    Some(text) => parse_key(text, class)
                        .ok_or_else(|| format!("{text:?} is no value its key can have"))?,
                };
                Ok((datum, ShardId(*shard as u16)))
            })
            .collect::<Result<Vec<_>, String>>()
    };
    Ok(match function {
        FunctionName::Postgres => ShardingFunction::Postgres,
        FunctionName::Modulo => ShardingFunction::Modulo,
        FunctionName::Hive => ShardingFunction::Hive,
        FunctionName::List => ShardingFunction::List(entries()?),
        FunctionName::Range => {
            let ranges = entries()?;
            if !ranges.is_sorted_by(|a, b| a.0 < b.0) {
                return Err("its ranges are not in ascending order".into());
            }
            ShardingFunction::Range(ranges)
        }
    })
}

/// A key as the configuration writes it.
fn parse_key(text: &str, class: KeyClass) -> Option<KeyDatum> {
    match class {
        KeyClass::Integer | KeyClass::HiveBigint => text.parse().ok().map(KeyDatum::Integer),
        KeyClass::Text => Some(KeyDatum::Text(text.to_owned())),
        KeyClass::Uuid => {
            let digits: String = text.chars().filter(|c| *c != '-').collect();
            let value = u128::from_str_radix(&digits, 16).ok();
            let value = value.filter(|_| digits.len() == 32 && !digits.starts_with('+'));
            value.map(|v| KeyDatum::Uuid(v.to_be_bytes()))
        }
        KeyClass::Date => parse_date(text).map(KeyDatum::Date),
    }
}

/// `2024-02-29` in days since 2000-01-01 (the civil calendar in eras of 400 years of 146,097 days).
fn parse_date(text: &str) -> Option<i32> {
    let mut parts = text.splitn(3, '-');
    let mut part = || parts.next()?.parse::<u32>().ok();
    let (year, month, day) = (part()?, part()?, part()?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=9999).contains(&year) || !(1..=days).contains(&day) {
        return None;
    }
    // Years begin in March, so that a leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    // 2000-01-01 counted so.
    i32::try_from(days).ok().map(|d| d - 730_425)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_2000() {
        for (text, days) in [
            ("2000-01-01", Some(0)),
            ("1999-12-31", Some(-1)),
            ("2024-02-29", Some(8825)),
            ("1970-01-01", Some(-10957)),
            ("2023-02-29", None),
            ("2023-13-01", None),
            ("2023-1", None),
            ("nonsense", None),
        ] {
            assert_eq!(parse_date(text), days, "{text}");
        }
    }

    #[test]
    fn keys_are_read_by_their_class() {
        let uuid = "00000000-0000-0000-0000-0000000000ff";
        let mut bytes = [0; 16];
        bytes[15] = 255;
        assert_eq!(parse_key(uuid, KeyClass::Uuid), Some(KeyDatum::Uuid(bytes)));
        assert_eq!(parse_key("ff", KeyClass::Uuid), None);
        assert_eq!(
            parse_key("-7", KeyClass::Integer),
            Some(KeyDatum::Integer(-7))
        );
        assert_eq!(parse_key("BR", KeyClass::Integer), None);
        assert_eq!(
            parse_key("BR", KeyClass::Text),
            Some(KeyDatum::Text("BR".into()))
        );
    }

    fn column(name: &str, type_oid: u32, type_name: &str) -> ShardColumn {
        ShardColumn {
            attribute: 1,
            name: name.into(),
            type_oid,
            type_modifier: -1,
            type_name: type_name.into(),
            not_null: false,
            collation: 0,
            collation_name: String::new(),
        }
    }

    fn sharded(function: FunctionName, type_oid: u32) -> Result<Distribution, String> {
        let placement = Placement::Sharded {
            key: Some("k".into()),
            function,
            bounds: vec![(None, 0), (Some("5".into()), 1)],
        };
        let relation = Relation {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            kind: b'r',
            parents: vec![],
            view_definition: None,
            guarded: false,
            policies: vec![],
            primary_key: vec![],
            columns: vec![
                column("a", oid::TEXT, "text"),
                column("k", type_oid, "the type"),
            ],
            writes: Default::default(),
        };
        distribution(&placement, &relation, 2, |_| true)
    }

    #[test]
    fn only_types_that_hash_by_value_are_keys() {
        use FunctionName::{Hive, List, Modulo, Postgres, Range};
        let class = |function, type_oid| match sharded(function, type_oid) {
            Ok(Distribution::Sharded {
                key: Some(1),
                sharding: Some(s),
            }) => Some(s.class),
            _ => None,
        };
        assert_eq!(class(Postgres, oid::INT8), Some(KeyClass::Integer));
        assert_eq!(class(Hive, oid::INT8), Some(KeyClass::HiveBigint));
        assert_eq!(class(Hive, oid::INT4), Some(KeyClass::Integer));
        assert_eq!(class(Hive, oid::UUID), None);
        assert_eq!(class(Modulo, oid::TEXT), None);
        assert_eq!(class(Range, oid::VARCHAR), Some(KeyClass::Text));
        assert_eq!(class(List, oid::DATE), None, "5 is no date");
        assert_eq!(class(Postgres, oid::NUMERIC), None);
        assert_eq!(class(Postgres, oid::FLOAT8), None);
    }
}
