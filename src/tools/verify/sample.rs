//! Statements made from the tables: each way through pgbraid is taken, and every one has one right answer.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::catalog::{Catalog, Column, Distribution, Table, TableKind};
use crate::sql::{quote_identifier, quote_literal};
use crate::types::oid;

/// Keys of a sharded table that are looked up.
const KEYS: usize = 3;
/// Rows that an ordered statement asks for.
const ROWS: usize = 100;
/// Columns of a table that are aggregated.
const COLUMNS: usize = 8;

/// Up to `count` statements, from all tables in turn. Keys come from the reference; where it does not have a table, its answer to the
/// other statements says so.
pub async fn statements(catalog: &Catalog, reference: &Client, count: usize) -> Vec<String> {
    let mut tables: Vec<&Table> = catalog
        .tables
        .values()
        .map(|t| &**t)
        .filter(|t| matches!(t.kind, TableKind::Table | TableKind::Partitioned))
        .filter(|t| {
            !matches!(
                t.distribution,
                Distribution::Undeclared { .. } | Distribution::System
            )
        })
        .collect();
    tables.sort_by_key(|t| (&t.schema, &t.name));
    let mut of_tables = Vec::new();
    for table in &tables {
        let keys = keys(table, reference).await;
        of_tables.push(of_table(table, &keys, &tables).into_iter());
    }
    let mut all = Vec::new();
    // One of each table, then the next ones: whatever the count, no table is left out for another one's sake.
    loop {
        let before = all.len();
        for statements in &mut of_tables {
            all.extend(statements.next().filter(|_| all.len() < count));
        }
        if all.len() == before {
            return all;
        }
    }
}

/// A few values of the sharding key, as text.
async fn keys(table: &Table, reference: &Client) -> Vec<String> {
    let Distribution::Sharded { key: Some(key), .. } = &table.distribution else {
        return Vec::new();
    };
    let Some(key) = table.columns.get(*key) else {
        return Vec::new();
    };
    let column = quote_identifier(&key.name);
    let sql = format!(
        "SELECT DISTINCT {column} FROM (SELECT {column} FROM {} WHERE {column} IS NOT NULL LIMIT 100) q ORDER BY {column} LIMIT {KEYS}",
        name(table)
    );
    let messages = client_rows(reference, &sql).await;
    messages.into_iter().flatten().collect()
}

async fn client_rows(client: &Client, sql: &str) -> Vec<Option<String>> {
    // A table that the reference does not have gives no keys.
    let messages = client.simple_query(sql).await.unwrap_or_default();
    let rows = messages.into_iter().filter_map(|m| match m {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    });
    rows.collect()
}

fn name(table: &Table) -> String {
    format!(
        "{}.{}",
        quote_identifier(&table.schema),
        quote_identifier(&table.name)
    )
}

fn of_table(table: &Table, keys: &[String], tables: &[&Table]) -> Vec<String> {
    let name = name(table);
    let quoted = |c: &Column| quote_identifier(&c.name);
    let mut all = vec![format!("SELECT count(*) FROM {name}")];
    let aggregated: Vec<&Column> = table.columns.iter().filter(|c| is_ordered(c)).collect();
    let aggregates: Vec<String> = aggregated
        .iter()
        .take(COLUMNS)
        .map(|c| {
            let column = quoted(c);
            let sum = match c.type_oid {
                oid::INT2 | oid::INT4 | oid::INT8 | oid::NUMERIC => format!(", sum({column})"),
                _ => String::new(),
            };
            format!("min({column}), max({column}), count({column}){sum}")
        })
        .collect();
    if !aggregates.is_empty() {
        all.push(format!("SELECT {} FROM {name}", aggregates.join(", ")));
    }
    let primary: Vec<String> = table
        .primary_key
        .iter()
        .filter_map(|p| table.columns.get(*p))
        .map(quoted)
        .collect();
    if !primary.is_empty() {
        let list = primary.join(", ");
        all.push(format!("SELECT * FROM {name} ORDER BY {list} LIMIT {ROWS}"));
    }
    if let Distribution::Sharded { key: Some(key), .. } = &table.distribution
        && let Some(key) = table.columns.get(*key)
    {
        for value in keys {
            let value = quote_literal(value);
            all.push(format!(
                "SELECT * FROM {name} WHERE {} = {value}",
                quoted(key)
            ));
        }
    }
    let is_key = |c: &&&Column| {
        let place = table.columns.iter().position(|o| o.name == c.name);
        place.is_some_and(|p| table.primary_key.contains(&p))
    };
    if let Some(group) = aggregated.iter().find(|c| !is_key(c)) {
        let group = quoted(group);
        all.push(format!(
            "SELECT {group}, count(*) FROM {name} GROUP BY {group} ORDER BY count(*) DESC, {group} LIMIT {ROWS}"
        ));
        all.push(format!("SELECT count(DISTINCT {group}) FROM {name}"));
        if !primary.is_empty() {
            let list = primary.join(", ");
            all.push(format!(
                "SELECT {list}, rank() OVER (ORDER BY {group}) FROM {name} ORDER BY {list} DESC LIMIT 20 OFFSET 5"
            ));
        }
    }
    all.extend(joins(table, tables));
    all
}

/// Along foreign keys, which is how applications join.
fn joins(table: &Table, tables: &[&Table]) -> Vec<String> {
    let keys = table.writes.foreign_keys.iter().filter(|k| !k.referenced);
    let known = keys.filter(|k| {
        let mut names = tables.iter().map(|t| (&t.schema, &t.name));
        names.any(|n| n == (&k.other.0, &k.other.1))
    });
    let join = |k: &crate::catalog::writes::ForeignKey| {
        let pairs = k.columns.iter().zip(&k.other_columns);
        let on: Vec<String> = pairs
            .map(|(a, b)| format!("a.{} = b.{}", quote_identifier(a), quote_identifier(b)))
            .collect();
        format!(
            "SELECT count(*) FROM {} a JOIN {}.{} b ON {}",
            name(table),
            quote_identifier(&k.other.0),
            quote_identifier(&k.other.1),
            on.join(" AND ")
        )
    };
    known.map(join).collect()
}

/// Types that have an order, and print the same where they are equal: numeric without a scale does not (1 and 1.0).
fn is_ordered(column: &Column) -> bool {
    if column.type_oid == oid::NUMERIC && column.type_modifier == -1 {
        return false;
    }
    matches!(
        column.type_oid,
        oid::INT2
            | oid::INT4
            | oid::INT8
            | oid::NUMERIC
            | oid::TEXT
            | oid::VARCHAR
            | oid::DATE
            | oid::TIMESTAMP
            | oid::TIMESTAMPTZ
    )
}
