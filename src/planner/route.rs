//! From a condition on keys to shards, once parameters are bound.

use crate::catalog::sharding::{KeyDatum, Sharding};
use crate::plan::{KeyCondition, KeyValue, ShardId, Targets};

/// The client's parameter values, decoded as keys.
pub trait KeyParameters {
    /// The value of the 0-based parameter as a key of `sharding`, NULL included. `None` when it cannot be decoded: then it
    /// says nothing about shards.
    fn key(&self, parameter: usize, sharding: &Sharding) -> Option<KeyDatum>;

    /// The elements of an array parameter; an empty list for a NULL array. `None` as above.
    fn keys(&self, parameter: usize, sharding: &Sharding) -> Option<Vec<KeyDatum>>;
}

/// Knows no parameter: what a condition says before Bind.
pub struct NoParameters;

impl KeyParameters for NoParameters {
    fn key(&self, _: usize, _: &Sharding) -> Option<KeyDatum> {
        None
    }

    fn keys(&self, _: usize, _: &Sharding) -> Option<Vec<KeyDatum>> {
        None
    }
}

/// Shards a step must visit, ascending, never none: `any` is the shard that answers where every shard would do.
pub fn evaluate(
    targets: &Targets,
    shards: usize,
    catalog_shard: ShardId,
    any: ShardId,
    parameters: &dyn KeyParameters,
) -> Vec<ShardId> {
    match targets {
        Targets::Any => vec![any],
        Targets::Catalog => vec![catalog_shard],
        Targets::Shard(shard) => vec![*shard],
        Targets::All => all(shards),
        Targets::Keyed(condition) => match condition_shards(condition, shards, parameters) {
            None => all(shards),
            Some(set) if set.is_empty() => vec![any],
            Some(set) => set,
        },
    }
}

fn all(shards: usize) -> Vec<ShardId> {
    (0..shards).map(|i| ShardId(i as u16)).collect()
}

/// The shards a condition leaves, ascending; `None` for every shard.
pub fn condition_shards(
    condition: &KeyCondition,
    shards: usize,
    parameters: &dyn KeyParameters,
) -> Option<Vec<ShardId>> {
    let mut set = match condition {
        KeyCondition::Any => return None,
        KeyCondition::Never => Vec::new(),
        KeyCondition::Equal { sharding, value } => {
            let key = match value {
                KeyValue::Constant(datum) => datum.clone(),
                KeyValue::Parameter(n) => parameters.key(*n, sharding)?,
            };
            shard_of(sharding, &key)?
        }
        KeyCondition::AnyOf {
            sharding,
            parameter,
        } => {
            let mut found = Vec::new();
            for key in parameters.keys(*parameter, sharding)? {
                found.extend(shard_of(sharding, &key)?);
            }
            found
        }
        KeyCondition::IsNull { sharding } => sharding.shard_of(&KeyDatum::Null).into_iter().collect(),
        KeyCondition::And(parts) => {
            let mut left: Option<Vec<ShardId>> = None;
            for set in parts.iter().filter_map(|p| condition_shards(p, shards, parameters)) {
                left = Some(match left {
                    None => set,
                    Some(old) => old.into_iter().filter(|s| set.contains(s)).collect(),
                });
            }
            return left;
        }
        KeyCondition::Or(parts) => {
            let mut found = Vec::new();
            for part in parts {
                found.extend(condition_shards(part, shards, parameters)?);
            }
            found
        }
    };
    set.sort_unstable();
    set.dedup();
    set.retain(|s| usize::from(s.0) < shards);
    Some(set)
}

/// A NULL equals nothing; a key that the function cannot place says nothing.
fn shard_of(sharding: &Sharding, key: &KeyDatum) -> Option<Vec<ShardId>> {
    match key {
        KeyDatum::Null => Some(Vec::new()),
        key if !sharding.accepts(key) => None,
        key => Some(sharding.shard_of(key).into_iter().collect()),
    }
}
