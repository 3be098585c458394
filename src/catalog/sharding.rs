//! Which shard holds a key: PostgreSQL's hash partitioning, modulo, Hive's hash, ranges and lists.

use super::ShardId;
use crate::types::hash;

/// How the keys of a colocation group are spread. Two tables are colocated when their `Sharding`s are equal.
#[derive(Debug, Clone, PartialEq)]
pub struct Sharding {
    /// How a key becomes a shard.
    pub function: ShardingFunction,
    /// The types its keys may have.
    pub class: KeyClass,
    /// Number of shards the function spreads over (the modulus).
    pub shards: usize,
}

/// How a key becomes a shard.
#[derive(Debug, Clone, PartialEq)]
pub enum ShardingFunction {
    /// `satisfies_hash_partition(parent, shards, i, key)`.
    Postgres,
    /// `((key % n) + n) % n`, integers only.
    Modulo,
    /// Hive's `hash()`, then `(hash & MAX_INT) % n`.
    Hive,
    /// Lower bounds in ascending order; a key goes to the last entry whose bound is ≤ it.
    Range(Vec<(KeyDatum, ShardId)>),
    /// Listed values; others nowhere, NULL where listed.
    List(Vec<(KeyDatum, ShardId)>),
}

/// Key types that hash and compare alike. Under `Hive` int8 differs from the smaller integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyClass {
    /// int2, int4, int8 (under Hive: int2 and int4).
    Integer,
    /// int8 under Hive.
    HiveBigint,
    /// text, varchar under a deterministic collation.
    Text,
    /// uuid.
    Uuid,
    /// date.
    Date,
}

/// A key's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyDatum {
    /// NULL.
    Null,
    /// Any integer type.
    Integer(i64),
    /// A string.
    Text(String),
    /// A uuid, in the order it is written.
    Uuid([u8; 16]),
    /// Days since 2000-01-01.
    Date(i32),
}

impl Sharding {
    /// True when `key` is of a kind this sharding spreads. Anything else says nothing about a row's place.
    pub fn accepts(&self, key: &KeyDatum) -> bool {
        match key {
            KeyDatum::Null => true,
            KeyDatum::Integer(_) => {
                matches!(self.class, KeyClass::Integer | KeyClass::HiveBigint)
            }
            KeyDatum::Text(_) => self.class == KeyClass::Text,
            KeyDatum::Uuid(_) => self.class == KeyClass::Uuid,
            KeyDatum::Date(_) => self.class == KeyClass::Date,
        }
    }

    /// The shard on which rows with this key are; `None` when they can be on none (a value not listed, below all ranges).
    /// Must be asked only for keys that [`Sharding::accepts`].
    pub fn shard_of(&self, key: &KeyDatum) -> Option<ShardId> {
        debug_assert!(self.accepts(key), "{key:?} is no key of {:?}", self.class);
        match &self.function {
            ShardingFunction::Postgres => Some(self.shard(self.postgres_remainder(key))),
            ShardingFunction::Modulo => match key {
                KeyDatum::Integer(value) => {
                    Some(self.shard(value.rem_euclid(self.shards as i64) as usize))
                }
                // NULL keys lie where PostgreSQL's own hash partitioning puts them.
                KeyDatum::Null => Some(self.shard(0)),
                _ => None,
            },
            ShardingFunction::Hive => self.hive_shard(key),
            ShardingFunction::Range(bounds) => range_shard(bounds, key),
            ShardingFunction::List(values) => values
                .iter()
                .find(|(value, _)| value == key)
                .map(|(_, shard)| *shard),
        }
    }

    fn shard(&self, index: usize) -> ShardId {
        ShardId(index as u16)
    }

    fn postgres_remainder(&self, key: &KeyDatum) -> usize {
        use hash::PARTITION_SEED as SEED;
        let hash = match key {
            KeyDatum::Null => None,
            KeyDatum::Integer(value) => Some(hash::hash_int8(*value, SEED)),
            KeyDatum::Text(text) => Some(hash::hash_bytes(text.as_bytes(), SEED)),
            KeyDatum::Uuid(uuid) => Some(hash::hash_bytes(uuid, SEED)),
            KeyDatum::Date(days) => Some(hash::hash_int4(*days, SEED)),
        };
        hash::partition_remainder(hash, self.shards as u64) as usize
    }

    fn hive_shard(&self, key: &KeyDatum) -> Option<ShardId> {
        let hash = match key {
            KeyDatum::Null => 0,
            KeyDatum::Integer(value) if self.class == KeyClass::HiveBigint => {
                hash::hive_bigint(*value)
            }
            // int2 and int4 are their own hash; a value no int4 holds equals no stored key.
            KeyDatum::Integer(value) => i32::try_from(*value).ok()?,
            KeyDatum::Text(text) => hash::hive_string(text),
            KeyDatum::Date(days) => days.wrapping_add(hash::HIVE_EPOCH_DAYS),
            // Hive has no such type.
            KeyDatum::Uuid(_) => return None,
        };
        Some(self.shard(hash::hive_bucket(hash, self.shards)))
    }
}

/// Text bounds are in byte order. NULL is in no range, as with PostgreSQL's range partitions.
fn range_shard(bounds: &[(KeyDatum, ShardId)], key: &KeyDatum) -> Option<ShardId> {
    if *key == KeyDatum::Null {
        return None;
    }
    let above = bounds.partition_point(|(bound, _)| bound <= key);
    bounds[..above].last().map(|(_, shard)| *shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sharding(function: ShardingFunction, class: KeyClass) -> Sharding {
        Sharding {
            function,
            class,
            shards: 7,
        }
    }

    // Expected shards: the i for which a PostgreSQL 15 server says satisfies_hash_partition(parent, 7, i, key).
    #[test]
    fn postgres_sharding_is_hash_partitioning() {
        let shard = |class, key| {
            sharding(ShardingFunction::Postgres, class)
                .shard_of(&key)
                .unwrap()
                .0
        };
        for (key, expected) in [(0, 4), (1, 5), (-1, 0), (42, 0), (2147483648, 3)] {
            assert_eq!(shard(KeyClass::Integer, KeyDatum::Integer(key)), expected);
        }
        for (key, expected) in [("", 1), ("a", 3), ("abcdefgh", 5), ("Grüße", 1)] {
            assert_eq!(shard(KeyClass::Text, KeyDatum::Text(key.into())), expected);
        }
        assert_eq!(shard(KeyClass::Uuid, KeyDatum::Uuid([0; 16])), 2);
        for (days, expected) in [(0, 4), (-1, 0), (9821, 1)] {
            assert_eq!(shard(KeyClass::Date, KeyDatum::Date(days)), expected);
        }
        assert_eq!(shard(KeyClass::Date, KeyDatum::Null), 0);
    }

    #[test]
    fn modulo_is_never_negative() {
        let s = sharding(ShardingFunction::Modulo, KeyClass::Integer);
        assert_eq!(s.shard_of(&KeyDatum::Integer(-1)), Some(ShardId(6)));
        assert_eq!(s.shard_of(&KeyDatum::Integer(i64::MIN)), Some(ShardId(6)));
        assert_eq!(s.shard_of(&KeyDatum::Integer(15)), Some(ShardId(1)));
    }

    #[test]
    fn hive_folds_bigints_only() {
        let key = KeyDatum::Integer(-1);
        let small = sharding(ShardingFunction::Hive, KeyClass::Integer);
        assert_eq!(small.shard_of(&key), Some(ShardId((i32::MAX % 7) as u16)));
        let big = sharding(ShardingFunction::Hive, KeyClass::HiveBigint);
        assert_eq!(big.shard_of(&key), Some(ShardId(0)));
        // No stored int4 equals it.
        assert_eq!(small.shard_of(&KeyDatum::Integer(1 << 40)), None);
    }

    #[test]
    fn ranges_begin_at_their_bound() {
        let bound = |v, s| (KeyDatum::Integer(v), ShardId(s));
        let s = sharding(
            ShardingFunction::Range(vec![bound(10, 0), bound(20, 1), bound(30, 0)]),
            KeyClass::Integer,
        );
        for (key, shard) in [
            (9, None),
            (10, Some(0)),
            (19, Some(0)),
            (20, Some(1)),
            (99, Some(0)),
        ] {
            assert_eq!(s.shard_of(&KeyDatum::Integer(key)), shard.map(ShardId));
        }
        assert_eq!(s.shard_of(&KeyDatum::Null), None);
    }

    #[test]
    fn lists_hold_only_what_they_name() {
        let s = sharding(
            ShardingFunction::List(vec![
                (KeyDatum::Text("de".into()), ShardId(1)),
                (KeyDatum::Null, ShardId(2)),
            ]),
            KeyClass::Text,
        );
        assert_eq!(s.shard_of(&KeyDatum::Text("de".into())), Some(ShardId(1)));
        assert_eq!(s.shard_of(&KeyDatum::Text("fr".into())), None);
        assert_eq!(s.shard_of(&KeyDatum::Null), Some(ShardId(2)));
    }
}
