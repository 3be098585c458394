//! Which shard holds a key: PostgreSQL's hash partitioning, modulo, Hive's hash, ranges and lists.

use super::ShardId;

/// How the keys of a colocation group are spread. Two tables are colocated when their `Sharding`s are equal.
#[derive(Debug, Clone, PartialEq)]
pub struct Sharding {
    pub function: ShardingFunction,
    pub class: KeyClass,
    /// Number of shards the function spreads over (the modulus).
    pub shards: usize,
}

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
    Uuid,
    Date,
}

/// A key's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyDatum {
    Null,
    Integer(i64),
    Text(String),
    Uuid([u8; 16]),
    /// Days since 2000-01-01.
    Date(i32),
}
