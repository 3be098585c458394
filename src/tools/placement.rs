//! Looks for rows on the wrong shard: keys, sampled or all, are read and put through the sharding function.

use std::collections::BTreeMap;

use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::{ToSql, Type as SqlType};
use tokio_postgres::{Error, Row, Transaction};

use super::inventory::RowTable;
use super::report::{Finding, Mend};
use super::rows::{self, OnConflict, TextRow};
use super::shards::{Settings, Shards};
use crate::backend::BackendError;
use crate::catalog::sharding::{KeyClass, KeyDatum, Sharding};
use crate::sql::{quote_identifier, quote_literal};

/// Blocks of a table that a sample reads on each shard (8 MiB with PostgreSQL's block size): smaller tables are read whole.
pub const SAMPLE_BLOCKS: i64 = 1024;
/// Misplaced keys that are kept; the others are only counted.
const KEYS_KEPT: usize = 1000;
/// Rows of one shard that are moved by statements.
const ROWS_MENDED: usize = 20;
/// Keys that a message tells.
const KEYS_NAMED: usize = 3;

/// How much of each table is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A random part of large tables.
    Sample,
    /// Every row.
    Full,
}

/// The clause that cuts a table down to a sample.
pub fn sample(table: &RowTable, extent: Extent) -> String {
    match extent {
        Extent::Sample if table.kind != "m" && table.blocks > SAMPLE_BLOCKS => {
            let percent = 100.0 * SAMPLE_BLOCKS as f64 / table.blocks as f64;
            format!(" TABLESAMPLE SYSTEM ({percent:.6})")
        }
        _ => String::new(),
    }
}

/// The expression whose value [`datum`] reads.
pub fn key_expression(column: &str, class: KeyClass) -> String {
    let key = quote_identifier(column);
    match class {
        KeyClass::Integer | KeyClass::HiveBigint => format!("{key}::pg_catalog.int8"),
        KeyClass::Text | KeyClass::Uuid => format!("{key}::pg_catalog.text"),
        // Days since 2000; the infinities are the ends of the type.
        KeyClass::Date => format!(
            "CASE WHEN pg_catalog.isfinite({key}) THEN {key} - pg_catalog.date '2000-01-01' WHEN {key} > pg_catalog.date '2000-01-01' \
             THEN 2147483647 WHEN {key} IS NOT NULL THEN -2147483648 END"
        ),
    }
}

/// A key as [`key_expression`] gives it.
///
/// # Errors
/// A column of another type.
pub fn datum(row: &Row, column: usize, class: KeyClass) -> Result<KeyDatum, Error> {
    let datum = match class {
        KeyClass::Integer | KeyClass::HiveBigint => row
            .try_get::<_, Option<i64>>(column)?
            .map(KeyDatum::Integer),
        KeyClass::Text => row
            .try_get::<_, Option<String>>(column)?
            .map(KeyDatum::Text),
        KeyClass::Uuid => row.try_get::<_, Option<String>>(column)?.and_then(|text| {
            let digits: String = text.chars().filter(|c| *c != '-').collect();
            let value = u128::from_str_radix(&digits, 16).ok()?;
            Some(KeyDatum::Uuid(value.to_be_bytes()))
        }),
        KeyClass::Date => row.try_get::<_, Option<i32>>(column)?.map(KeyDatum::Date),
    };
    Ok(datum.unwrap_or(KeyDatum::Null))
}

/// What one shard's keys came to.
#[derive(Debug, Default)]
struct Looked {
    rows: u64,
    misplaced: u64,
    /// With how many rows there are of each.
    keys: BTreeMap<KeyDatum, u64>,
}

/// Rows that lie where their key does not belong; also how many rows were looked at.
///
/// # Errors
/// The first failing shard's.
pub async fn compare(
    shards: &Shards,
    tables: &[&RowTable],
    key: &str,
    sharding: &Sharding,
    extent: Extent,
) -> Result<(Vec<Finding>, u64), BackendError> {
    let looked = shards
        .each(
            Settings::Fixed,
            async |shard, transaction: &Transaction<'_>| {
                let sql = format!(
                    "SELECT {} FROM {}{}",
                    key_expression(key, sharding.class),
                    rows::name(tables[shard]),
                    sample(tables[shard], extent)
                );
                look(transaction, &sql, shard, sharding).await
            },
        )
        .await?;
    let mut findings = Vec::new();
    let total = looked.iter().map(|l| l.rows).sum();
    for (shard, looked) in looked.into_iter().enumerate() {
        if looked.misplaced > 0 {
            let place = Place {
                shards,
                table: tables[shard],
                key,
                sharding,
                shard,
            };
            findings.push(place.explain(looked).await?);
        }
    }
    Ok((findings, total))
}

async fn look(
    transaction: &Transaction<'_>,
    sql: &str,
    shard: usize,
    sharding: &Sharding,
) -> Result<Looked, Error> {
    let none: [(String, SqlType); 0] = [];
    let rows = transaction.query_typed_raw(sql, none).await?;
    pin_mut!(rows);
    let mut looked = Looked::default();
    while let Some(row) = rows.try_next().await? {
        let key = datum(&row, 0, sharding.class)?;
        looked.rows += 1;
        if sharding.shard_of(&key).map(|s| usize::from(s.0)) == Some(shard) {
            continue;
        }
        looked.misplaced += 1;
        if looked.keys.len() < KEYS_KEPT || looked.keys.contains_key(&key) {
            *looked.keys.entry(key).or_default() += 1;
        }
    }
    Ok(looked)
}

/// A table on the shard where rows of it do not belong.
struct Place<'a> {
    shards: &'a Shards,
    table: &'a RowTable,
    key: &'a str,
    sharding: &'a Sharding,
    shard: usize,
}

impl Place<'_> {
    async fn explain(&self, looked: Looked) -> Result<Finding, BackendError> {
        let named: Vec<String> = looked
            .keys
            .keys()
            .take(KEYS_NAMED)
            .map(|key| {
                format!(
                    "{} = {} belongs on {}",
                    self.key,
                    shown(key),
                    self.home_name(key)
                )
            })
            .collect();
        let more = looked.keys.len() > named.len();
        let message = format!(
            "{} of the {} rows looked at belong elsewhere: {}{}",
            looked.misplaced,
            looked.rows,
            named.join(", "),
            if more { ", …" } else { "" }
        );
        let mut mend = Vec::new();
        let mut moved = 0;
        let mut notes = Vec::new();
        for key in looked.keys.keys() {
            let Some(home) = self.home(key) else {
                notes.push(format!("no shard is the place of {}", shown(key)));
                continue;
            };
            let found = self.rows_with(self.shard, key).await?;
            if moved + found.len() > ROWS_MENDED {
                notes.push("more rows are misplaced than statements are given".to_owned());
                break;
            }
            moved += found.len();
            match self.move_rows(key, home, &found).await? {
                Some(statements) => mend.extend(statements),
                None => notes.push(format!(
                    "shard {} has other rows with the same primary key as those of {}: one of them must go",
                    self.shards.name(home),
                    shown(key)
                )),
            }
        }
        let mut finding = Finding::new(
            self.shards.name(self.shard),
            format!("sharded table {}", self.table.title()),
            message,
        )
        .must()
        .of_table(&self.table.schema, &self.table.name);
        finding.mend = mend;
        Ok(match notes.is_empty() {
            true => finding,
            false => finding.noted(notes.join("; ")),
        })
    }

    fn home(&self, key: &KeyDatum) -> Option<usize> {
        self.sharding.shard_of(key).map(|s| usize::from(s.0))
    }

    fn home_name(&self, key: &KeyDatum) -> String {
        match self.home(key) {
            Some(shard) => format!("shard {}", self.shards.name(shard)),
            None => "no shard".to_owned(),
        }
    }

    /// INSERTs at home, then one DELETE here; `None` where other rows at home are in the way.
    async fn move_rows(
        &self,
        key: &KeyDatum,
        home: usize,
        found: &[TextRow],
    ) -> Result<Option<Vec<Mend>>, BackendError> {
        let at_home = self.rows_with(home, key).await?;
        let identity = |row: &TextRow| -> TextRow {
            let columns = rows::stored_columns(self.table);
            let places = self.table.primary_key.iter();
            places
                .filter_map(|k| columns.iter().position(|c| c == k))
                .map(|place| row[place].clone())
                .collect()
        };
        let mut statements = Vec::new();
        for row in found {
            if !self.table.primary_key.is_empty() {
                match at_home
                    .iter()
                    .find(|other| identity(other) == identity(row))
                {
                    // It has been copied already.
                    Some(other) if other == row => continue,
                    Some(_) => return Ok(None),
                    None => {}
                }
            }
            statements.push(Mend {
                shard: self.shards.name(home).to_owned(),
                statement: rows::insert(self.table, row, OnConflict::Fail),
            });
        }
        statements.push(Mend {
            shard: self.shards.name(self.shard).to_owned(),
            statement: format!(
                "DELETE FROM {} WHERE {}",
                rows::name(self.table),
                condition(self.key, key)
            ),
        });
        Ok(Some(statements))
    }

    async fn rows_with(&self, shard: usize, key: &KeyDatum) -> Result<Vec<TextRow>, BackendError> {
        let sql = format!(
            "SELECT {} FROM {} WHERE {} LIMIT {}",
            rows::text_array(&rows::stored_columns(self.table)),
            rows::name(self.table),
            condition(self.key, key),
            ROWS_MENDED + 1
        );
        let none: [(&(dyn ToSql + Sync), SqlType); 0] = [];
        self.shards
            .on(
                shard,
                Settings::Fixed,
                &async |_, transaction: &Transaction<'_>| {
                    let rows = transaction.query_typed(&sql, &none).await?;
                    rows.iter()
                        .map(|row| row.try_get(0))
                        .collect::<Result<_, Error>>()
                },
            )
            .await
    }
}

/// `"id" = 7`
fn condition(column: &str, key: &KeyDatum) -> String {
    let column = quote_identifier(column);
    match key {
        KeyDatum::Null => format!("{column} IS NULL"),
        key => format!("{column} = {}", shown(key)),
    }
}

/// As SQL writes it.
fn shown(key: &KeyDatum) -> String {
    match key {
        KeyDatum::Null => "NULL".to_owned(),
        KeyDatum::Integer(value) => value.to_string(),
        KeyDatum::Text(text) => quote_literal(text),
        KeyDatum::Uuid(bytes) => {
            let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("'{digits}'")
        }
        KeyDatum::Date(i32::MAX) => "date 'infinity'".to_owned(),
        KeyDatum::Date(i32::MIN) => "date '-infinity'".to_owned(),
        KeyDatum::Date(days) => format!("date '2000-01-01' + {days}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_sql() {
        assert_eq!(condition("id", &KeyDatum::Integer(-7)), "\"id\" = -7");
        assert_eq!(condition("k", &KeyDatum::Null), "\"k\" IS NULL");
        assert_eq!(shown(&KeyDatum::Text("it's".into())), "'it''s'");
        assert_eq!(shown(&KeyDatum::Date(-1)), "date '2000-01-01' + -1");
    }
}
