//! `pgbraid doctor`: holds the shards against each other and against the configuration. It starts from what loading the catalogs finds,
//! as `pgbraid check` does, and looks closer: object by object, with the statement that mends it, and into the rows.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Transaction;

use super::inventory::{self, CollationVersion, RowTable, Setting};
pub use super::placement::Extent;

use super::placement;
use super::reference;
use super::report::{Finding, Mend, Report};
use super::rows;
use super::shards::{Settings, Shards};
use crate::backend::BackendError;
use crate::backend::catalog::{self, Difference, KeyColumn};
use crate::catalog::sharding::Sharding;
use crate::catalog::{Catalog, TableKind};
use crate::config::{Config, Placement, Undeclared};
use crate::progress::Progress;

/// What is asked of it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Of sharded tables: a sample, or every row.
    pub extent: Extent,
    /// For each statement on a shard.
    pub limit: Duration,
}

type TableName = (String, String);

/// Looks at everything.
///
/// # Errors
/// What the first failing shard met with while its catalog was read. A table whose rows cannot be read is in the report.
pub async fn run(config: &Arc<Config>, options: Options) -> Result<Report, BackendError> {
    let loaded = catalog::load(config, 1).await?;
    let shards = Shards::new(config, options.limit);
    let mut report = Report {
        findings: versions(config, &loaded.server_versions),
        ..Report::default()
    };
    let tables = schemas(&shards, &mut report).await?;
    unreadable(&loaded.catalog, config, &tables, &mut report);
    look_into_rows(&shards, &tables, options.extent, &mut report).await;
    add_differences(&mut report, &loaded.differences);
    report
        .looked_at
        .insert(0, format!("{} shards", shards.len()));
    Ok(report)
}

/// Servers that do not run what most of them run.
fn versions(config: &Config, versions: &[String]) -> Vec<Finding> {
    let votes = |v: &String| versions.iter().filter(|other| *other == v).count();
    let right = (0..versions.len())
        .rev()
        .max_by_key(|i| votes(&versions[*i]));
    let Some(right) = right else {
        return Vec::new();
    };
    let odd = config.shards.iter().zip(versions);
    odd.filter(|(_, v)| **v != versions[right])
        .map(|(shard, version)| {
            let message = format!(
                "is {version}, on shard {} {}",
                config.shards[right].name, versions[right]
            );
            Finding::new(&shard.name, "server version", message)
                .noted("no statement changes it: run the same release everywhere")
        })
        .collect()
}

/// Compares settings, collations and objects; returns each shard's tables for those who look into their rows.
async fn schemas(shards: &Shards, report: &mut Report) -> Result<Vec<Vec<RowTable>>, BackendError> {
    let config = shards.config.clone();
    let progress = Progress::new(
        "comparing schemas",
        (inventory::STEPS + 1) * shards.len() as u64,
    );
    // Roles that statements run as. Where each shard has its own `user`, the others need not know it.
    let is_used = |role: &str| {
        let everywhere = config.shards.iter().all(|s| s.user == role);
        everywhere || config.users.iter().any(|u| u.name == role)
    };
    let settings = shards
        .each(Settings::Own, async |_, t: &Transaction<'_>| {
            Setting::read(t).await
        })
        .await?;
    let read = shards
        .each(Settings::Fixed, async |_, t: &Transaction<'_>| {
            let items = inventory::read(t, is_used, || progress.add(1)).await?;
            let collations = CollationVersion::read(t).await?;
            let tables = inventory::row_tables(t).await?;
            progress.add(1);
            Ok((items, collations, tables))
        })
        .await?;
    progress.finish();
    let (mut items, mut collations, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    for (shard, (of_shard, versions, rows)) in read.into_iter().enumerate() {
        items.push(of_shard);
        collations.push((shards.name(shard), versions));
        tables.push(rows);
    }
    let objects: HashSet<&str> = items.iter().flatten().map(|i| i.object.as_str()).collect();
    report.looked_at.push(format!("{} objects", objects.len()));
    report
        .findings
        .extend(inventory::compare_settings(&config, &settings));
    report
        .findings
        .extend(inventory::versions_of_collations(&collations));
    let named: Vec<(&str, &[inventory::Item])> = items
        .iter()
        .enumerate()
        .map(|(shard, items)| (shards.name(shard), items.as_slice()))
        .collect();
    let parents = inventory::parents(&items);
    let is_shared = |table: &TableName| match declared(&config, &parents, table) {
        Some(Placement::Home(_)) | None => false,
        Some(_) => true,
    };
    report
        .findings
        .extend(inventory::compare(&named, is_shared));
    Ok(tables)
}

/// What a table is by its own rule, its parents', or that for undeclared ones.
fn declared(
    config: &Config,
    parents: &BTreeMap<TableName, TableName>,
    table: &TableName,
) -> Option<Placement> {
    let mut at = table;
    // A chain as long as the number of tables is a cycle, which PostgreSQL does not make.
    for _ in 0..=parents.len() {
        let rule = config
            .tables
            .iter()
            .find(|r| (&r.schema, &r.name) == (&at.0, &at.1));
        if let Some(rule) = rule {
            return Some(rule.placement.clone());
        }
        match parents.get(at) {
            Some(parent) => at = parent,
            None => break,
        }
    }
    match config.database.undeclared {
        Undeclared::Refuse => None,
        Undeclared::Reference => Some(Placement::Reference),
        Undeclared::Home(shard) => Some(Placement::Home(shard)),
    }
}

/// Declared tables that no shard lets us read.
fn unreadable(catalog: &Catalog, config: &Config, tables: &[Vec<RowTable>], report: &mut Report) {
    for rule in &config.tables {
        let known = catalog
            .tables
            .get(&(rule.schema.clone(), rule.name.clone()));
        let has_rows = known.is_some_and(|t| {
            matches!(
                t.kind,
                TableKind::Table | TableKind::Partitioned | TableKind::MaterializedView
            )
        });
        let mut readable = tables.iter().flatten();
        let read = readable.any(|t| (&t.schema, &t.name) == (&rule.schema, &rule.name));
        if has_rows && !read && !matches!(rule.placement, Placement::Home(_)) {
            report.not_looked_at.push(format!(
                "rows of table {}.{}: no shard lets its user read it",
                rule.schema, rule.name
            ));
        }
    }
}

/// A table with the rule for its rows, as each shard has it.
struct Task<'a> {
    copies: Vec<&'a RowTable>,
    placement: Placement,
}

async fn look_into_rows(
    shards: &Shards,
    tables: &[Vec<RowTable>],
    extent: Extent,
    report: &mut Report,
) {
    let tasks = tasks(shards, tables, report);
    let progress = Progress::new("comparing rows", tasks.len() as u64);
    let (mut references, mut sharded, mut rows_looked_at) = (0, 0, 0);
    for task in &tasks {
        let table = task.copies[0];
        let found = match &task.placement {
            Placement::Reference => {
                references += 1;
                reference::compare(shards, table).await
            }
            _ => {
                sharded += 1;
                match sharding(&shards.config, task) {
                    Some((key, sharding)) => {
                        placement::compare(shards, &task.copies, &key, &sharding, extent)
                            .await
                            .map(|(findings, rows)| {
                                rows_looked_at += rows;
                                findings
                            })
                    }
                    // The key is unknown, or cannot be one: the catalogs' comparison says so.
                    None => Ok(Vec::new()),
                }
            }
        };
        match found {
            Ok(found) => report
                .findings
                .extend(found.into_iter().map(|f| refreshed(f, table))),
            Err(error) => {
                let shard = error.shard();
                let what = format!("rows of table {}: shard {shard}: {error}", table.title());
                report.not_looked_at.push(what);
            }
        }
        progress.add(1);
    }
    progress.finish();
    report
        .looked_at
        .push(format!("{references} reference tables"));
    let extent = match extent {
        Extent::Sample => "sampled",
        Extent::Full => "all",
    };
    report.looked_at.push(format!(
        "{sharded} sharded tables ({rows_looked_at} rows, {extent})"
    ));
}

/// Rows of a materialized view are made, not written.
fn refreshed(mut finding: Finding, table: &RowTable) -> Finding {
    if table.kind == "m" {
        finding.mend = vec![Mend {
            shard: finding.shard.clone(),
            statement: format!("REFRESH MATERIALIZED VIEW {}", rows::name(table)),
        }];
    }
    finding
}

/// Tables with the same columns on every shard; the others are differences already.
fn tasks<'a>(shards: &Shards, tables: &'a [Vec<RowTable>], report: &mut Report) -> Vec<Task<'a>> {
    let mut by_name: BTreeMap<(&str, &str), Vec<Option<&RowTable>>> = BTreeMap::new();
    for (shard, of_shard) in tables.iter().enumerate() {
        for table in of_shard {
            let copies = by_name
                .entry((&table.schema, &table.name))
                .or_insert_with(|| vec![None; tables.len()]);
            copies[shard] = Some(table);
        }
    }
    let mut tasks = Vec::new();
    for (name, copies) in by_name {
        let name = (name.0.to_owned(), name.1.to_owned());
        let own = shards.config.tables.iter();
        let own = own
            .clone()
            .any(|r| (&r.schema, &r.name) == (&name.0, &name.1));
        // Rows of partitions and children are looked at with their parent's.
        let is_child = copies.iter().flatten().any(|t| t.is_child);
        let placement = declared(&shards.config, &BTreeMap::new(), &name);
        let placement = placement.filter(|p| !matches!(p, Placement::Home(_)));
        let Some(placement) = placement.filter(|_| own || !is_child) else {
            continue;
        };
        let all: Option<Vec<&RowTable>> = copies.iter().copied().collect();
        match all {
            Some(copies) if copies.iter().all(|c| c.same_columns(copies[0])) => {
                tasks.push(Task { copies, placement });
            }
            Some(_) => {}
            None => {
                let missing = copies.iter().position(Option::is_none).unwrap_or(0);
                report.not_looked_at.push(format!(
                    "rows of table {}.{}: shard {} does not have it or does not let its user read it",
                    name.0,
                    name.1,
                    shards.name(missing)
                ));
            }
        }
    }
    tasks
}

/// The key of a sharded table and how it is spread, where the configuration's rule can be followed.
fn sharding(config: &Config, task: &Task<'_>) -> Option<(String, Sharding)> {
    let Placement::Sharded {
        key: Some(key),
        function,
        bounds,
    } = &task.placement
    else {
        return None;
    };
    let column = task.copies[0].columns.iter().find(|c| c.name == *key)?;
    let known = KeyColumn {
        name: key,
        type_oid: column.type_oid,
        type_name: &column.type_name,
        collation_name: "",
        deterministic: column.deterministic,
    };
    let sharding = catalog::sharding(&known, *function, bounds, config.shards.len()).ok()?;
    Some((key.clone(), sharding))
}

/// What loading the catalogs has found: what is named above already is only as serious as it says there.
fn add_differences(report: &mut Report, differences: &[Difference]) {
    for difference in differences {
        let about_table = |f: &Finding| {
            let table = f.table.as_ref();
            table
                .is_some_and(|(schema, name)| difference.object == format!("table {schema}.{name}"))
        };
        let mut known = false;
        for finding in &mut report.findings {
            if finding.object == difference.object || (about_table(finding) && !is_of_rows(finding))
            {
                known = true;
                finding.must |= difference.fatal;
            }
        }
        if known || difference.object == "functions" {
            continue;
        }
        let mut finding = Finding::new(&difference.shard, &difference.object, &difference.message);
        finding.must = difference.fatal;
        report.findings.push(finding);
    }
}

fn is_of_rows(finding: &Finding) -> bool {
    finding.object.starts_with("reference table") || finding.object.starts_with("sharded table")
}
