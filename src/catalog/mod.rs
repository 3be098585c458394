//! Tables, columns, types, functions and sharding as the planner sees them: pure data, loaded by `backend::catalog`.

pub mod sharding;
pub mod writes;

use std::collections::HashMap;
use std::sync::Arc;

use crate::plan::Collation;
use sharding::Sharding;
use writes::Writes;

/// A shard by its place in the configuration, 0-based.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// One consistent picture of the shards' catalogs. Replaced whole; `version` grows with each replacement.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// 1 for the first.
    pub version: u64,
    /// How many there are.
    pub shards: usize,
    /// Whose OIDs these are.
    pub catalog_shard: Option<ShardId>,
    /// By (schema, name).
    pub tables: HashMap<(String, String), Arc<Table>>,
    /// All functions of a name, over all schemas.
    pub functions: HashMap<String, Vec<Arc<Function>>>,
    /// By OID on the catalog shard.
    pub types: HashMap<u32, Arc<Type>>,
    /// By OID on the catalog shard.
    pub collations: HashMap<u32, Arc<Collation>>,
    /// OID of the collation that `COLLATE "default"` stands for is 100; this is what it means in this database.
    pub default_collation: Option<Collation>,
    /// Names of operators that someone defined outside pg_catalog (`=`, `<` …): expressions with one prove nothing. Casts to a type,
    /// and checks of a domain, that run functions of users go by `::type`.
    pub user_operators: Vec<String>,
    /// Those of them that operands of PostgreSQL's own types may come to mean. `=` of citext or ltree is none: it takes nothing but
    /// its own type, so between two numbers there is one `=` as before.
    pub overloaded_operators: Vec<String>,
    /// All of them with the names of the functions behind them.
    pub operator_functions: Vec<(String, String)>,
    /// The search_path a new session has, as schema names ("$user" resolved).
    pub search_path: Vec<String>,
    /// Per shard: user-defined type OIDs there → the catalog shard's. Identity entries are left out.
    pub type_oids: Vec<HashMap<u32, u32>>,
    /// The same for the OIDs of tables, views and the like, which row descriptions name.
    pub relation_oids: Vec<HashMap<u32, u32>>,
}

impl Catalog {
    /// A shard's type as the catalog shard numbers it.
    pub fn type_here(&self, shard: ShardId, oid: u32) -> u32 {
        here(&self.type_oids, shard, oid)
    }

    /// A type of the catalog shard as this one numbers it.
    pub fn type_there(&self, shard: ShardId, oid: u32) -> u32 {
        let types = self.type_oids.get(shard.0 as usize);
        let mut pairs = types.into_iter().flatten();
        let found = pairs.find(|(_, here)| **here == oid);
        found.map_or(oid, |(there, _)| *there)
    }

    /// A shard's relation as the catalog shard numbers it.
    pub fn relation_here(&self, shard: ShardId, oid: u32) -> u32 {
        here(&self.relation_oids, shard, oid)
    }
}

fn here(oids: &[HashMap<u32, u32>], shard: ShardId, oid: u32) -> u32 {
    let known = oids.get(shard.0 as usize);
    known.and_then(|k| k.get(&oid)).copied().unwrap_or(oid)
}

/// A relation that a FROM may name: table, partition, view, materialized view, foreign table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Not quoted, as is the name.
    pub schema: String,
    /// Within its schema.
    pub name: String,
    /// On the catalog shard; 0 when it is not there.
    pub oid: u32,
    /// From `relkind`.
    pub kind: TableKind,
    /// Where its rows are.
    pub distribution: Distribution,
    /// In their order, dropped ones left out.
    pub columns: Vec<Column>,
    /// Column positions (0-based) of the primary key; empty without one.
    pub primary_key: Vec<usize>,
    /// The text of a view's query as `pg_get_viewdef` prints it under an empty search_path.
    pub view_definition: Option<String>,
    /// A view with security_barrier, a table with row security, or a view of one.
    pub guarded: bool,
    /// What its row security asks of rows, as PostgreSQL prints it under an empty search_path; of all shards, each once.
    pub policies: Vec<String>,
    /// Estimated rows over all shards, and bytes a row; 0 when unknown.
    pub rows: f64,
    /// See `rows`.
    pub row_bytes: f64,
    /// What to know before it is changed.
    pub writes: Writes,
}

/// What kind of relation a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// With rows of its own; a partition is one, too.
    Table,
    /// Its rows are its partitions'.
    Partitioned,
    /// A query by name.
    View,
    /// A query's rows, kept on each shard as they were when it was refreshed there.
    MaterializedView,
    /// Rows that the shard fetches from elsewhere.
    Foreign,
    /// pg_catalog and information_schema relations.
    System,
}

/// Where a table's rows are.
#[derive(Debug, Clone)]
pub enum Distribution {
    /// Spread by a key; `key` is the column position, `None` when the key is unknown.
    Sharded {
        /// Its position in the columns.
        key: Option<usize>,
        /// Where a key's rows are; `None` without a key.
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
    Undeclared {
        /// A sentence about the table, without its name.
        reason: Option<String>,
    },
    /// A view: what its query's tables make of it.
    View,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Not quoted.
    pub name: String,
    /// On the catalog shard.
    pub type_oid: u32,
    /// `atttypmod`; -1 without one.
    pub type_modifier: i32,
    /// As `format_type` prints it, with type modifier.
    pub type_name: String,
    /// On every shard.
    pub not_null: bool,
    /// OID of its collation, 0 without one; 100 is the database's default.
    pub collation: u32,
}

/// A data type of the catalog shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// There.
    pub oid: u32,
    /// Not quoted, as is the name.
    pub schema: String,
    /// `typname`: `int4`, `_text`.
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
    /// Its values have a collation.
    pub collatable: bool,
    /// A user's type to which PostgreSQL casts none of its own by itself: values of those are never taken for one.
    pub apart: bool,
}

/// One overload of a function, of the catalog shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Not quoted, as is the name.
    pub schema: String,
    /// `proname`
    pub name: String,
    /// From `prokind`.
    pub kind: FunctionKind,
    /// What its author says; always volatile where it is not the same on all shards.
    pub volatility: Volatility,
    /// NULL whenever an argument is.
    pub strict: bool,
    /// Types of the arguments of a call; the last one is the array's where it is variadic.
    pub arguments: Vec<u32>,
    /// Type of its value, or of a row of it.
    pub result: u32,
    /// It returns rows.
    pub returns_set: bool,
    /// sql, plpgsql, c, internal …: functions not in C may read tables.
    pub language: String,
    /// Its last argument stands for any number of them.
    pub variadic: bool,
    /// How many of the last arguments may be left out.
    pub default_arguments: usize,
    /// Names of its OUT, INOUT and TABLE arguments, empty where one has none: the columns it makes in FROM.
    pub columns: Vec<String>,
    /// Of a user-defined function: names and operators in its body and its arguments' defaults, sorted, those of an aggregate
    /// its support functions; `None` where they do not tell what it does.
    pub names: Option<Vec<String>>,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    /// Anywhere in an expression.
    Function,
    /// By CALL.
    Procedure,
    /// Over the rows of a group, ordered-set and hypothetical-set ones included.
    Aggregate,
    /// Only with OVER.
    Window,
}

/// What a function's value depends on (PostgreSQL's manual, 38.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// Its arguments alone.
    Immutable,
    /// Also the database and the session's settings, but not the moment within a statement.
    Stable,
    /// Anything.
    Volatile,
}
