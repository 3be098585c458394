//! Which shards a step runs on, with the parameters of a Bind. What a value says nothing about goes to every shard.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Parameters;
use crate::catalog::sharding::{KeyClass, KeyDatum, Sharding, ShardingFunction};
use crate::plan::{KeyCondition, KeyValue, ShardId, Targets};
use crate::types::parameter::{Encoded, element_type};

/// The shards there are, and which to take where any would do.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// How many there are.
    pub shards: usize,
    /// The one that answers catalog queries.
    pub catalog_shard: ShardId,
    /// A shard whose connection is already held.
    pub preferred: Option<ShardId>,
}

/// The shards of `targets`, ascending, never none.
pub fn evaluate(targets: &Targets, parameters: &Parameters, choice: Choice) -> Vec<ShardId> {
    match targets {
        Targets::Any => vec![any(choice)],
        Targets::Catalog => vec![choice.catalog_shard],
        Targets::Shard(shard) => vec![*shard],
        Targets::All => all(choice.shards),
        Targets::Keyed(condition) => {
            let found = keyed(condition, parameters, choice.shards);
            // An aggregate over no rows still returns a row.
            if found.is_empty() {
                vec![any(choice)]
            } else {
                found
            }
        }
    }
}

/// The shards of `targets` that can have rows, ascending; possibly none.
pub fn possible(targets: &Targets, parameters: &Parameters, choice: Choice) -> Vec<ShardId> {
    match targets {
        Targets::Keyed(condition) => keyed(condition, parameters, choice.shards),
        targets => evaluate(targets, parameters, choice),
    }
}

/// The shard, where `targets` come to one only.
pub fn single(targets: &Targets, parameters: &Parameters, choice: Choice) -> Option<ShardId> {
    match targets {
        Targets::Any => Some(any(choice)),
        Targets::Shard(shard) => Some(*shard),
        targets => match evaluate(targets, parameters, choice)[..] {
            [shard] => Some(shard),
            _ => None,
        },
    }
}

/// One shard, another one each time, so that reads of reference tables spread.
fn any(choice: Choice) -> ShardId {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    choice.preferred.unwrap_or_else(|| {
        ShardId((TURN.fetch_add(1, Ordering::Relaxed) % choice.shards.max(1)) as u16)
    })
}

fn all(shards: usize) -> Vec<ShardId> {
    (0..shards).map(|i| ShardId(i as u16)).collect()
}

/// The shards a condition allows, ascending; possibly none.
fn keyed(condition: &KeyCondition, parameters: &Parameters, shards: usize) -> Vec<ShardId> {
    match condition {
        KeyCondition::Any => all(shards),
        KeyCondition::Never => Vec::new(),
        KeyCondition::Equal { sharding, value } => equal(sharding, value, parameters, shards),
        KeyCondition::AnyOf {
            sharding,
            parameter,
        } => any_of(sharding, *parameter, parameters).unwrap_or_else(|| all(shards)),
        KeyCondition::IsNull { sharding } => null_key(sharding, shards),
        KeyCondition::And(parts) => parts.iter().fold(all(shards), |found, part| {
            let part = keyed(part, parameters, shards);
            found.into_iter().filter(|s| part.contains(s)).collect()
        }),
        KeyCondition::Or(parts) => sorted(
            parts
                .iter()
                .flat_map(|part| keyed(part, parameters, shards))
                .collect(),
        ),
    }
}

fn equal(
    sharding: &Sharding,
    value: &KeyValue,
    parameters: &Parameters,
    shards: usize,
) -> Vec<ShardId> {
    let datum = match value {
        KeyValue::Constant(datum) => Some(datum.clone()),
        KeyValue::Parameter(index) => match parameters.encoded(*index) {
            Some(Some(value)) => key_datum(sharding.class, value),
            Some(None) => Some(KeyDatum::Null),
            None => None,
        },
    };
    match datum {
        // `key = NULL` is never true.
        Some(KeyDatum::Null) => Vec::new(),
        Some(datum) if sharding.accepts(&datum) => sharding.shard_of(&datum).into_iter().collect(),
        _ => all(shards),
    }
}

/// `None`: nothing is known about the elements.
fn any_of(sharding: &Sharding, index: usize, parameters: &Parameters) -> Option<Vec<ShardId>> {
    let Some(array) = parameters.encoded(index)? else {
        return Some(Vec::new());
    };
    let type_oid = element_type(array.type_oid)?;
    let mut found = Vec::new();
    for bytes in array.elements()? {
        let element = Encoded {
            type_oid,
            format: array.format,
            bytes: &bytes,
        };
        found.extend(sharding.shard_of(&key_datum(sharding.class, element)?));
    }
    Some(sorted(found))
}

/// Where rows with a NULL key are. Applications that spread rows by themselves may put them anywhere.
fn null_key(sharding: &Sharding, shards: usize) -> Vec<ShardId> {
    match sharding.function {
        ShardingFunction::Postgres | ShardingFunction::List(_) => {
            sharding.shard_of(&KeyDatum::Null).into_iter().collect()
        }
        ShardingFunction::Modulo | ShardingFunction::Hive | ShardingFunction::Range(_) => {
            all(shards)
        }
    }
}

fn key_datum(class: KeyClass, value: Encoded<'_>) -> Option<KeyDatum> {
    match class {
        KeyClass::Integer | KeyClass::HiveBigint => value.integer().map(KeyDatum::Integer),
        KeyClass::Text => value.string().map(|s| KeyDatum::Text(s.to_owned())),
        KeyClass::Uuid => value.uuid().map(KeyDatum::Uuid),
        KeyClass::Date => value.date().map(KeyDatum::Date),
    }
}

fn sorted(mut shards: Vec<ShardId>) -> Vec<ShardId> {
    shards.sort_unstable();
    shards.dedup();
    shards
}

impl Parameters {
    /// A parameter's value; the inner `None` is NULL, the outer one says there is no such parameter.
    pub(super) fn encoded(&self, index: usize) -> Option<Option<Encoded<'_>>> {
        let value = self.values.get(index)?;
        Some(match value {
            None => None,
            Some(bytes) => Some(Encoded {
                type_oid: *self.types.get(index)?,
                format: *self.formats.get(index)?,
                bytes,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::types::oid;

    fn modulo() -> Arc<Sharding> {
        Arc::new(Sharding {
            function: ShardingFunction::Modulo,
            class: KeyClass::Integer,
            shards: 3,
        })
    }

    fn parameters(values: &[(u32, Option<&str>)]) -> Parameters {
        Parameters {
            types: values.iter().map(|(t, _)| *t).collect(),
            formats: vec![0; values.len()],
            values: values
                .iter()
                .map(|(_, v)| v.map(|v| Bytes::copy_from_slice(v.as_bytes())))
                .collect(),
        }
    }

    fn found(condition: &KeyCondition, values: &[(u32, Option<&str>)]) -> Vec<u16> {
        keyed(condition, &parameters(values), 3)
            .iter()
            .map(|s| s.0)
            .collect()
    }

    fn equal_to(value: KeyValue) -> KeyCondition {
        KeyCondition::Equal {
            sharding: modulo(),
            value,
        }
    }

    #[test]
    fn a_parameter_selects_one_shard() {
        let condition = equal_to(KeyValue::Parameter(0));
        assert_eq!(found(&condition, &[(oid::INT8, Some("4"))]), [1]);
        assert_eq!(found(&condition, &[(oid::INT4, Some("-1"))]), [2]);
        assert_eq!(found(&condition, &[(oid::INT8, None)]), [0_u16; 0]);
    }

    #[test]
    fn what_cannot_be_read_goes_everywhere() {
        let condition = equal_to(KeyValue::Parameter(0));
        for value in [(oid::NUMERIC, Some("4")), (oid::INT8, Some("x"))] {
            assert_eq!(found(&condition, &[value]), [0, 1, 2]);
        }
        assert_eq!(found(&condition, &[]), [0, 1, 2]);
        let wrong = equal_to(KeyValue::Constant(KeyDatum::Text("4".into())));
        assert_eq!(found(&wrong, &[]), [0, 1, 2]);
    }

    #[test]
    fn arrays_select_the_shards_of_their_elements() {
        let condition = KeyCondition::AnyOf {
            sharding: modulo(),
            parameter: 0,
        };
        let with = |value| found(&condition, &[(oid::INT8_ARRAY, value)]);
        assert_eq!(with(Some("{3,NULL,5,6}")), [0, 2]);
        assert_eq!(with(Some("{}")), [0_u16; 0]);
        assert_eq!(with(None), [0_u16; 0]);
        assert_eq!(with(Some("{1,x}")), [0, 1, 2]);
    }

    #[test]
    fn conditions_intersect_and_unite() {
        let key = |v| equal_to(KeyValue::Constant(KeyDatum::Integer(v)));
        let either = KeyCondition::Or(vec![key(5), key(3)]);
        assert_eq!(found(&either, &[]), [0, 2]);
        let both = KeyCondition::And(vec![either, key(2), KeyCondition::Any]);
        assert_eq!(found(&both, &[]), [2]);
        assert_eq!(found(&KeyCondition::And(vec![]), &[]), [0, 1, 2]);
        assert_eq!(found(&KeyCondition::Or(vec![]), &[]), [0_u16; 0]);
    }

    #[test]
    fn no_shard_left_still_runs_on_one() {
        let choice = Choice {
            shards: 3,
            catalog_shard: ShardId(0),
            preferred: Some(ShardId(2)),
        };
        let never = Targets::Keyed(KeyCondition::Never);
        let shards = evaluate(&never, &Parameters::default(), choice);
        assert_eq!(shards, [ShardId(2)]);
    }
}
