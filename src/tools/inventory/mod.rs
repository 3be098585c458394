//! What a shard's database consists of, object by object, read from its catalog: each with a definition that is the same text wherever
//! the object is the same, and with the statements that make it so.

mod collations;
mod compare;
mod queries;
mod settings;

use std::collections::BTreeMap;

use tokio_postgres::types::{FromSqlOwned, ToSql, Type as SqlType};
use tokio_postgres::{Error, Row, Transaction};

pub use collations::{CollationVersion, versions_of_collations};
pub use compare::compare;
pub use settings::{Setting, compare_settings};

/// How many steps [`read`] tells of.
pub const STEPS: u64 = 11;

/// An object, or a property of one that is mended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// `index`, `column`, `default` …
    pub kind: String,
    /// In words, the same on every shard.
    pub object: String,
    /// The table it belongs to.
    pub table: Option<(String, String)>,
    /// The object it is part of: where that one is missing, this one is not missed.
    pub within: Option<String>,
    /// What makes two of them the same.
    pub definition: String,
    /// What `replace` cannot change.
    pub form: String,
    /// Creates it; empty where it comes with what it is part of.
    pub create: Vec<String>,
    /// Gives one of another definition this one.
    pub replace: Vec<String>,
    /// Does so where the form differs too.
    pub recreate: Vec<String>,
}

/// A table whose rows can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowTable {
    /// Not quoted, as is the name.
    pub schema: String,
    /// Within its schema.
    pub name: String,
    /// `relkind`: r, p, m.
    pub kind: String,
    /// A partition, or the child of another table.
    pub is_child: bool,
    /// Size with all partitions.
    pub blocks: i64,
    /// Not quoted, in their order.
    pub columns: Vec<RowColumn>,
    /// Names of the columns of the primary key; empty without one.
    pub primary_key: Vec<String>,
    /// It has a column GENERATED ALWAYS AS IDENTITY.
    pub always_identity: bool,
}

/// A column of such a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowColumn {
    /// Not quoted.
    pub name: String,
    /// On this shard.
    pub type_oid: u32,
    /// As `format_type` prints it.
    pub type_name: String,
    /// Its collation is, or it has none.
    pub deterministic: bool,
    /// Not generated.
    pub stored: bool,
}

impl RowTable {
    /// `public.orders`
    pub fn title(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Names and types that rows of two shards must share to be compared.
    pub fn same_columns(&self, other: &Self) -> bool {
        let plain = |t: &Self| -> Vec<(String, String)> {
            let columns = t.columns.iter();
            columns
                .map(|c| (c.name.clone(), c.type_name.clone()))
                .collect()
        };
        let (mut mine, mut theirs) = (plain(self), plain(other));
        mine.sort();
        theirs.sort();
        mine == theirs
    }
}

/// Reads all objects of a shard; `step` is told of each query that is done. Of the roles only those are taken that `is_wanted`.
///
/// # Errors
/// The shard's.
pub async fn read(
    transaction: &Transaction<'_>,
    is_wanted: impl Fn(&str) -> bool,
    step: impl Fn(),
) -> Result<Vec<Item>, Error> {
    let queries: [&str; STEPS as usize] = [
        queries::ROLES,
        queries::DATABASE,
        queries::TYPES,
        queries::SEQUENCES,
        queries::TABLES,
        queries::FUNCTIONS,
        queries::INDEXES,
        queries::CONSTRAINTS,
        queries::VIEWS,
        queries::TRIGGERS,
        queries::PRIVILEGES,
    ];
    let mut items = Vec::new();
    for query in queries {
        for row in transaction.query_typed(query, &[]).await? {
            items.push(item(&row)?);
        }
        step();
    }
    items.retain(|i| match i.object.strip_prefix("role ") {
        Some(name) if i.kind == "role" => is_wanted(name),
        _ => true,
    });
    Ok(items)
}

fn item(row: &Row) -> Result<Item, Error> {
    let schema: Option<String> = row.try_get(2)?;
    let table: Option<String> = row.try_get(3)?;
    Ok(Item {
        kind: row.try_get(0)?,
        object: row.try_get(1)?,
        table: schema.zip(table),
        within: row.try_get(4)?,
        definition: row.try_get(5)?,
        form: row.try_get::<_, Option<String>>(6)?.unwrap_or_default(),
        create: row.try_get(7)?,
        replace: row.try_get(8)?,
        recreate: row.try_get(9)?,
    })
}

/// The tables of a shard whose rows its user may read.
///
/// # Errors
/// The shard's.
pub async fn row_tables(transaction: &Transaction<'_>) -> Result<Vec<RowTable>, Error> {
    let rows = transaction.query_typed(queries::ROWS, &[]).await?;
    rows.iter().map(row_table).collect()
}

fn row_table(row: &Row) -> Result<RowTable, Error> {
    let names: Vec<String> = get(row, 5)?;
    let (oids, types): (Vec<u32>, Vec<String>) = (get(row, 6)?, get(row, 7)?);
    let (deterministic, stored): (Vec<bool>, Vec<bool>) = (get(row, 8)?, get(row, 9)?);
    let columns = names.into_iter().zip(oids).zip(types);
    let columns = columns.zip(deterministic).zip(stored).map(
        |((((name, type_oid), type_name), deterministic), stored)| RowColumn {
            name,
            type_oid,
            type_name,
            deterministic,
            stored,
        },
    );
    Ok(RowTable {
        schema: get(row, 0)?,
        name: get(row, 1)?,
        kind: get(row, 2)?,
        is_child: get(row, 3)?,
        blocks: get(row, 4)?,
        columns: columns.collect(),
        primary_key: get(row, 10)?,
        always_identity: get(row, 11)?,
    })
}

fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Result<T, Error> {
    row.try_get(column)
}

/// A list of names as a parameter.
fn names<'a>(list: &'a &[&str]) -> (&'a (dyn ToSql + Sync), SqlType) {
    (list, SqlType::TEXT_ARRAY)
}

/// The table that each partition or child belongs to, on any shard.
pub fn parents(shards: &[Vec<Item>]) -> BTreeMap<(String, String), (String, String)> {
    let all = || shards.iter().flatten().filter(|i| i.kind == "table");
    let by_object: BTreeMap<&str, &Item> = all().map(|i| (i.object.as_str(), i)).collect();
    let pairs = all().filter_map(|i| {
        let parent = by_object.get(i.within.as_deref()?)?;
        i.table.clone().zip(parent.table.clone())
    });
    pairs.collect()
}
