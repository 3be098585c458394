//! Which columns may be the sharding key of a table: those of which every value looked at lies where a function puts it, on every shard.

use std::collections::BTreeSet;

use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::Type as SqlType;
use tokio_postgres::{Error, Transaction};

use super::super::inventory::RowTable;
use super::super::placement::{self, Extent};
use super::super::rows;
use super::super::shards::{Settings, Shards};
use crate::backend::BackendError;
use crate::backend::catalog::{self, KeyColumn};
use crate::catalog::sharding::{KeyDatum, Sharding};
use crate::config::FunctionName;

/// Functions that need no telling, the likeliest first.
const FUNCTIONS: [FunctionName; 3] = [
    FunctionName::Postgres,
    FunctionName::Modulo,
    FunctionName::Hive,
];
/// Rows of each shard by which most columns are ruled out, before the others are read further.
const FIRST_ROWS: usize = 200;
/// Different keys that are counted; more prove nothing more.
const KEYS_COUNTED: usize = 64;
/// How likely chance may be to bring a column as far as to be declared.
const CHANCE_MAX: f64 = 1e-6;

/// A column that may be the key.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Not quoted.
    pub column: String,
    /// By which its values lie where they lie.
    pub function: FunctionName,
    /// Rows that were looked at, on all shards.
    pub rows: u64,
}

/// What came of a table.
#[derive(Debug, Default)]
pub struct Found {
    /// Beyond chance; columns of the primary key first.
    pub proved: Vec<Key>,
    /// Not contradicted.
    pub possible: Vec<Key>,
}

struct Candidate {
    /// Position in the table's columns.
    column: usize,
    function: FunctionName,
    sharding: Sharding,
}

/// What one shard says of a candidate; `None` when a value contradicts it.
type Verdict = Option<(u64, BTreeSet<KeyDatum>)>;

/// Looks for keys; `tables` is the table on each shard.
///
/// # Errors
/// The first failing shard's.
pub async fn look(
    shards: &Shards,
    tables: &[&RowTable],
    extent: Extent,
) -> Result<Found, BackendError> {
    let all = candidates(tables[0], shards.len());
    let tried = all.len();
    // Of one shard everything is true.
    if shards.len() < 2 || all.is_empty() {
        return Ok(Found::default());
    }
    let mut left = all;
    let mut verdicts = Vec::new();
    for limit in [Some(FIRST_ROWS), None] {
        verdicts = ask(shards, tables, &left, extent, limit).await?;
        let mut verdict = verdicts.iter();
        left.retain(|_| verdict.next().is_some_and(Option::is_some));
        verdicts.retain(Option::is_some);
        if left.is_empty() {
            break;
        }
    }
    let mut found = Found::default();
    for (candidate, verdict) in left.iter().zip(verdicts) {
        let (rows, keys) = verdict.unwrap_or_default();
        if rows == 0 {
            continue;
        }
        let key = Key {
            column: tables[0].columns[candidate.column].name.clone(),
            function: candidate.function,
            rows,
        };
        match chance(keys.len(), shards.len(), tried) < CHANCE_MAX {
            true => found.proved.push(key),
            false => found.possible.push(key),
        }
    }
    let outside = |key: &Key| !tables[0].primary_key.contains(&key.column);
    found.proved.sort_by_key(outside);
    found.possible.sort_by_key(outside);
    Ok(found)
}

/// How likely some candidate would be to come this far if rows lay anywhere.
fn chance(keys: usize, shards: usize, tried: usize) -> f64 {
    tried as f64 * (1.0 / shards as f64).powi(i32::try_from(keys).unwrap_or(i32::MAX))
}

fn candidates(table: &RowTable, shards: usize) -> Vec<Candidate> {
    let columns = table.columns.iter().enumerate();
    let pairs = columns.flat_map(|(n, c)| FUNCTIONS.map(|f| (n, c, f)));
    pairs
        .filter_map(|(column, c, function)| {
            let known = KeyColumn {
                name: &c.name,
                type_oid: c.type_oid,
                type_name: &c.type_name,
                collation_name: "",
                deterministic: c.deterministic,
            };
            let sharding = catalog::sharding(&known, function, &[], shards).ok()?;
            Some(Candidate {
                column,
                function,
                sharding,
            })
        })
        .collect()
}

/// One verdict a candidate, over all shards.
async fn ask(
    shards: &Shards,
    tables: &[&RowTable],
    candidates: &[Candidate],
    extent: Extent,
    limit: Option<usize>,
) -> Result<Vec<Verdict>, BackendError> {
    let answers = shards
        .each(
            Settings::Fixed,
            async |shard, transaction: &Transaction<'_>| {
                let list: Vec<String> = candidates
                    .iter()
                    .map(|c| {
                        let name = &tables[0].columns[c.column].name;
                        placement::key_expression(name, c.sharding.class)
                    })
                    .collect();
                let mut sql = format!(
                    "SELECT {} FROM {}{}",
                    list.join(", "),
                    rows::name(tables[shard]),
                    placement::sample(tables[shard], extent)
                );
                if let Some(limit) = limit {
                    sql.push_str(&format!(" LIMIT {limit}"));
                }
                verdicts(transaction, &sql, candidates, shard).await
            },
        )
        .await?;
    let mut all: Vec<Verdict> = candidates
        .iter()
        .map(|_| Some(Default::default()))
        .collect();
    for of_shard in answers {
        for (sum, verdict) in all.iter_mut().zip(of_shard) {
            *sum = match (sum.take(), verdict) {
                (Some((rows, mut keys)), Some((more, others))) => {
                    keys.extend(others);
                    Some((rows + more, keys))
                }
                _ => None,
            };
        }
    }
    Ok(all)
}

async fn verdicts(
    transaction: &Transaction<'_>,
    sql: &str,
    candidates: &[Candidate],
    shard: usize,
) -> Result<Vec<Verdict>, Error> {
    let none: [(String, SqlType); 0] = [];
    let rows = transaction.query_typed_raw(sql, none).await?;
    pin_mut!(rows);
    let mut verdicts: Vec<Verdict> = candidates
        .iter()
        .map(|_| Some(Default::default()))
        .collect();
    while let Some(row) = rows.try_next().await? {
        for (n, candidate) in candidates.iter().enumerate() {
            let Some((rows, keys)) = &mut verdicts[n] else {
                continue;
            };
            let key = placement::datum(&row, n, candidate.sharding.class)?;
            let place = candidate.sharding.shard_of(&key);
            if place.map(|s| usize::from(s.0)) != Some(shard) {
                verdicts[n] = None;
                continue;
            }
            *rows += 1;
            // NULLs all lie in one place: they say nothing more than one of them.
            if keys.len() < KEYS_COUNTED && key != KeyDatum::Null {
                keys.insert(key);
            }
        }
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_keys_prove_nothing() {
        assert!(chance(3, 3, 10) > CHANCE_MAX);
        assert!(chance(20, 3, 10) < CHANCE_MAX);
        assert!(chance(20, 2, 10) > CHANCE_MAX);
        assert!(chance(30, 2, 10) < CHANCE_MAX);
    }
}
