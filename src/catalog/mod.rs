//! Tables, columns, types, functions and sharding as the planner sees them: pure data, loaded by `backend::catalog`.

pub mod sharding;

use std::collections::HashMap;
use std::sync::Arc;

use crate::plan::Collation;
use sharding::Sharding;

/// A shard by its place in the configuration, 0-based.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// One consistent picture of the shards' catalogs. Replaced whole; `version` grows with each replacement.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    pub version: u64,
    pub shards: usize,
    pub catalog_shard: Option<ShardId>,
    /// By (schema, name).
    pub tables: HashMap<(String, String), Arc<Table>>,
    /// All functions of a name, over all schemas.
    pub functions: HashMap<String, Vec<Arc<Function>>>,
    /// By OID on the catalog shard.
    pub types: HashMap<u32, Arc<Type>>,
    pub collations: HashMap<u32, Arc<Collation>>,
    /// OID of the collation that `COLLATE "default"` stands for is 100; this is what it means in this database.
    pub default_collation: Option<Collation>,
    /// Names of operators that someone defined outside pg_catalog (`=`, `<` …): expressions with one prove nothing.
    pub user_operators: Vec<String>,
    /// The search_path a new session has, as schema names ("$user" resolved).
    pub search_path: Vec<String>,
    /// Per shard: user-defined type OIDs there → the catalog shard's. Identity entries are left out.
    pub type_oids: Vec<HashMap<u32, u32>>,
    /// The same for the OIDs of tables, views and the like, which row descriptions name.
    pub relation_oids: Vec<HashMap<u32, u32>>,
}

/// A relation that a FROM may name: table, partition, view, materialized view, foreign table.
#[derive(Debug, Clone)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub oid: u32,
    pub kind: TableKind,
    pub distribution: Distribution,
    pub columns: Vec<Column>,
    /// Column positions (0-based) of the primary key; empty without one.
    pub primary_key: Vec<usize>,
    /// The text of a view's query as `pg_get_viewdef` prints it under an empty search_path.
    pub view_definition: Option<String>,
    /// A view with security_barrier, or a table with row security that binds our role.
    pub guarded: bool,
    /// Estimated rows over all shards, and bytes a row; 0 when unknown.
    pub rows: f64,
    pub row_bytes: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    Table,
    Partitioned,
    View,
    MaterializedView,
    Foreign,
    /// pg_catalog and information_schema relations.
    System,
}

/// Where a table's rows are.
#[derive(Debug, Clone)]
pub enum Distribution {
    /// Spread by a key; `key` is the column position, `None` when the key is unknown.
    Sharded {
        key: Option<usize>,
        sharding: Option<Arc<Sharding>>,
    },
    /// A full copy everywhere.
    Reference,
    /// On one shard.
    Single(ShardId),
    /// Catalog relations.
    System,
    /// Statements over it are refused: nobody declared it and the configuration says refuse, or (with a reason) it is not the
    /// same on all shards, or its key cannot be what the configuration says.
    Undeclared { reason: Option<String> },
    /// A view: what its query's tables make of it.
    View,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub type_oid: u32,
    pub type_modifier: i32,
    /// As `format_type` prints it, with type modifier.
    pub type_name: String,
    pub not_null: bool,
    /// OID of its collation, 0 without one; 100 is the database's default.
    pub collation: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `typtype`: b base, c composite, d domain, e enum, r range, m multirange, p pseudo.
    pub kind: u8,
    /// Element type of an array, else 0.
    pub element: u32,
    /// The array type of this type, else 0.
    pub array: u32,
    /// Base type of a domain, else 0.
    pub base: u32,
    /// Subtype of a range, or the range of a multirange, else 0.
    pub subtype: u32,
    /// Labels of an enum in their order.
    pub labels: Vec<String>,
    /// Field types of a composite.
    pub fields: Vec<u32>,
    pub collatable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub schema: String,
    pub name: String,
    pub kind: FunctionKind,
    pub volatility: Volatility,
    pub strict: bool,
    pub arguments: Vec<u32>,
    pub result: u32,
    pub returns_set: bool,
    /// sql, plpgsql, c, internal …: functions not in C may read tables.
    pub language: String,
    pub variadic: bool,
    pub default_arguments: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    Function,
    Procedure,
    Aggregate,
    Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    Immutable,
    Stable,
    Volatile,
}
