//! Compares the copies of a reference table: by one count and checksum a shard, computed there. Only where they differ are rows looked
//! at, and only those in the parts of the table (by the hash of their key) that differ.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::types::{ToSql, Type as SqlType};
use tokio_postgres::{Error, Transaction};

use super::inventory::RowTable;
use super::report::{Finding, Mend};
use super::rows::{self, OnConflict, TextRow};
use super::shards::{Settings, Shards};
use crate::backend::BackendError;

/// Parts a table is divided into when its copies differ.
const PARTS: i32 = 4096;
/// Differing parts whose rows are read: one in 256 of the table at most.
const PARTS_READ: usize = 16;
/// Rows of one shard that get a statement each.
const ROWS_MENDED: usize = 20;
/// Rows whose key a message tells.
const ROWS_NAMED: usize = 3;

/// Count and sum of hashes: the same rows in any order give the same.
pub type Checksum = (i64, String);

/// Each shard's checksum of a table, over the columns of `table` in its order.
///
/// # Errors
/// The first failing shard's.
pub async fn checksums(shards: &Shards, table: &RowTable) -> Result<Vec<Checksum>, BackendError> {
    let columns = rows::stored_columns(table);
    let sql = format!(
        "SELECT count(*), coalesce(sum({}), 0)::pg_catalog.text FROM {}",
        rows::hash(&rows::row_text(&columns)),
        rows::name(table)
    );
    shards
        .each(Settings::Fixed, async |_, transaction: &Transaction<'_>| {
            let row = transaction.query_typed_one(&sql, &[]).await?;
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await
}

/// Differences between the copies of a table whose columns are the same everywhere.
///
/// # Errors
/// The first failing shard's.
pub async fn compare(shards: &Shards, table: &RowTable) -> Result<Vec<Finding>, BackendError> {
    let sums = checksums(shards, table).await?;
    if sums.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(Vec::new());
    }
    let differing = differing_parts(&parts(shards, table).await?);
    let read: Vec<i32> = differing.iter().copied().take(PARTS_READ).collect();
    let drift = drift(&hashes(shards, table, &read).await?);
    let whole = read.len() == differing.len();
    let mut findings = Vec::new();
    for (shard, odd) in drift.into_iter().enumerate() {
        if odd.is_empty() {
            continue;
        }
        let count = sums[shard].0;
        findings.push(explain(shards, table, shard, count, odd, whole).await?);
    }
    Ok(findings)
}

type Parts = HashMap<i32, Checksum>;

fn part(table: &RowTable) -> String {
    let key = rows::hash(&rows::row_text(&rows::identity(table)));
    format!("({key} & {})::pg_catalog.int4", PARTS - 1)
}

async fn parts(shards: &Shards, table: &RowTable) -> Result<Vec<Parts>, BackendError> {
    let sql = format!(
        "SELECT {}, count(*), sum({})::pg_catalog.text FROM {} GROUP BY 1",
        part(table),
        rows::hash(&rows::row_text(&rows::stored_columns(table))),
        rows::name(table)
    );
    shards
        .each(Settings::Fixed, async |_, transaction: &Transaction<'_>| {
            let rows = transaction.query_typed(&sql, &[]).await?;
            let part =
                |r: &tokio_postgres::Row| Ok((r.try_get(0)?, (r.try_get(1)?, r.try_get(2)?)));
            rows.iter().map(part).collect::<Result<Parts, Error>>()
        })
        .await
}

fn differing_parts(shards: &[Parts]) -> Vec<i32> {
    let all: std::collections::BTreeSet<i32> =
        shards.iter().flat_map(|p| p.keys().copied()).collect();
    let differs = |n: &i32| {
        shards
            .windows(2)
            .any(|pair| pair[0].get(n) != pair[1].get(n))
    };
    all.into_iter().filter(differs).collect()
}

/// By the text of a row's identity: the hash of all of it, and how many there are.
type Hashes = HashMap<String, (i64, i64)>;

async fn hashes(
    shards: &Shards,
    table: &RowTable,
    parts: &[i32],
) -> Result<Vec<Hashes>, BackendError> {
    let sql = format!(
        "SELECT {}, min({}), count(*) FROM {} WHERE {} = ANY ($1) GROUP BY 1",
        rows::row_text(&rows::identity(table)),
        rows::hash(&rows::row_text(&rows::stored_columns(table))),
        rows::name(table),
        part(table)
    );
    shards
        .each(Settings::Fixed, async |_, transaction: &Transaction<'_>| {
            let parameters: [(&(dyn ToSql + Sync), SqlType); 1] = [(&parts, SqlType::INT4_ARRAY)];
            let rows = transaction.query_typed(&sql, &parameters).await?;
            let row = |r: &tokio_postgres::Row| Ok((r.try_get(0)?, (r.try_get(1)?, r.try_get(2)?)));
            rows.iter().map(row).collect::<Result<Hashes, Error>>()
        })
        .await
}

/// A row that is not on a shard as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Odd {
    identity: String,
    /// A shard that has it right; `None` where it should not be at all.
    model: Option<usize>,
    /// How many are there, and how many should be.
    count: (i64, i64),
}

/// What is odd on each shard, by the identity of rows: most shards are right, of two equal parties that of the first one.
fn drift(shards: &[Hashes]) -> Vec<Vec<Odd>> {
    let mut drift = vec![Vec::new(); shards.len()];
    let mut all: BTreeMap<&String, ()> = BTreeMap::new();
    all.extend(shards.iter().flat_map(|s| s.keys().map(|k| (k, ()))));
    for identity in all.into_keys() {
        let copies: Vec<Option<(i64, i64)>> =
            shards.iter().map(|s| s.get(identity).copied()).collect();
        let votes = |copy: &Option<(i64, i64)>| copies.iter().filter(|c| *c == copy).count();
        // Of equals the last one wins with max_by_key.
        let right = (0..copies.len()).rev().max_by_key(|i| votes(&copies[*i]));
        let right = right.unwrap_or(0);
        for (shard, copy) in copies.iter().enumerate() {
            if *copy == copies[right] {
                continue;
            }
            drift[shard].push(Odd {
                identity: identity.clone(),
                model: copies[right].map(|_| right),
                count: (
                    copy.map_or(0, |(_, n)| n),
                    copies[right].map_or(0, |(_, n)| n),
                ),
            });
        }
    }
    drift
}

/// The finding for one shard, with a statement for each of its first odd rows.
async fn explain(
    shards: &Shards,
    table: &RowTable,
    shard: usize,
    rows: i64,
    odd: Vec<Odd>,
    whole: bool,
) -> Result<Finding, BackendError> {
    let count = |f: fn(&Odd) -> bool| odd.iter().filter(|o| f(o)).count();
    let missing = count(|o| o.count.0 < o.count.1);
    let extra = count(|o| o.count.0 > o.count.1);
    let changed = odd.len() - missing - extra;
    let named: Vec<&str> = odd
        .iter()
        .take(ROWS_NAMED)
        .map(|o| o.identity.as_str())
        .collect();
    let mut message = format!(
        "{}{} of its {rows} rows are not as on the other shards ({missing} missing, {extra} too many, {changed} different): {}",
        if whole { "" } else { "at least " },
        odd.len(),
        named.join(", ")
    );
    if odd.len() > named.len() {
        message.push_str(", …");
    }
    let listed = &odd[..odd.len().min(ROWS_MENDED)];
    let mut texts: HashMap<usize, HashMap<String, TextRow>> = HashMap::new();
    for source in listed.iter().map(|o| o.model.unwrap_or(shard)) {
        if texts.contains_key(&source) {
            continue;
        }
        let of_source = listed.iter().filter(|o| o.model.unwrap_or(shard) == source);
        let wanted: Vec<&str> = of_source.map(|o| o.identity.as_str()).collect();
        texts.insert(source, row_texts(shards, table, source, &wanted).await?);
    }
    let mut finding = Finding::new(
        shards.name(shard),
        format!("reference table {}", table.title()),
        message,
    )
    .must()
    .of_table(&table.schema, &table.name);
    for row in listed {
        let source = row.model.unwrap_or(shard);
        let Some(text) = texts.get(&source).and_then(|t| t.get(&row.identity)) else {
            continue;
        };
        let name = shards.name(shard).to_owned();
        finding
            .mend
            .extend(mends(table, row, text).into_iter().map(|statement| Mend {
                shard: name.clone(),
                statement,
            }));
    }
    if odd.len() > listed.len() || !whole {
        finding = finding.noted(format!(
            "{} statements are given: look again behind them, or copy the whole table from another shard",
            listed.len()
        ));
    }
    Ok(finding)
}

fn mends(table: &RowTable, row: &Odd, text: &TextRow) -> Vec<String> {
    let (have, want) = row.count;
    match (row.model, have > want) {
        (None, _) | (Some(_), true) => vec![rows::delete(
            table,
            text,
            usize::try_from(have - want).unwrap_or(0),
        )],
        (Some(_), false) => {
            let times = if table.primary_key.is_empty() {
                want - have
            } else {
                1
            };
            let insert = rows::insert(table, text, OnConflict::Replace);
            vec![insert; usize::try_from(times).unwrap_or(1)]
        }
    }
}

/// Whole rows of one shard, by identity.
async fn row_texts(
    shards: &Shards,
    table: &RowTable,
    shard: usize,
    identities: &[&str],
) -> Result<HashMap<String, TextRow>, BackendError> {
    let key = rows::row_text(&rows::identity(table));
    let sql = format!(
        "SELECT {key}, {} FROM {} WHERE {key} = ANY ($1)",
        rows::text_array(&rows::stored_columns(table)),
        rows::name(table)
    );
    shards
        .on(
            shard,
            Settings::Fixed,
            &async |_, transaction: &Transaction<'_>| {
                let parameters: [(&(dyn ToSql + Sync), SqlType); 1] =
                    [(&identities, SqlType::TEXT_ARRAY)];
                let rows = transaction.query_typed(&sql, &parameters).await?;
                let row = |r: &tokio_postgres::Row| Ok((r.try_get(0)?, r.try_get(1)?));
                rows.iter().map(row).collect::<Result<_, Error>>()
            },
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(rows: &[(&str, i64, i64)]) -> Hashes {
        let row = |(key, hash, count): &(&str, i64, i64)| ((*key).to_owned(), (*hash, *count));
        rows.iter().map(row).collect()
    }

    #[test]
    fn the_odd_row_is_found_on_the_shard_that_is_alone() {
        let good = hashes(&[("(1)", 7, 1), ("(2)", 8, 1)]);
        let bad = hashes(&[("(1)", 9, 1), ("(3)", 8, 1)]);
        let drift = drift(&[good.clone(), bad, good]);
        assert!(drift[0].is_empty() && drift[2].is_empty());
        let words: Vec<_> = drift[1]
            .iter()
            .map(|o| (o.identity.as_str(), o.model, o.count))
            .collect();
        assert_eq!(
            words,
            [
                ("(1)", Some(0), (1, 1)),
                ("(2)", Some(0), (0, 1)),
                ("(3)", None, (1, 0))
            ]
        );
    }

    #[test]
    fn of_two_shards_the_first_is_right() {
        let drift = drift(&[hashes(&[]), hashes(&[("(1)", 7, 2)])]);
        assert!(drift[0].is_empty());
        assert_eq!(drift[1][0].model, None);
    }
}
