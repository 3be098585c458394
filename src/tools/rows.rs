//! Rows as text, and the statements that put one into a table or take it out: what can be read on one server and run on another.

use crate::sql::{quote_identifier, quote_literal};

use super::inventory::RowTable;

/// Types whose values cannot be compared for equality, by name.
const NOT_COMPARABLE: [&str; 9] = [
    "json", "xml", "point", "polygon", "path", "line", "box", "lseg", "circle",
];

/// The stored values of a row as text, in the order of [`stored_columns`].
pub type TextRow = Vec<Option<String>>;

/// `"public"."orders"`
pub fn name(table: &RowTable) -> String {
    format!(
        "{}.{}",
        quote_identifier(&table.schema),
        quote_identifier(&table.name)
    )
}

/// Names of the columns that a row consists of: all but the generated ones.
pub fn stored_columns(table: &RowTable) -> Vec<&str> {
    let stored = table.columns.iter().filter(|c| c.stored);
    stored.map(|c| c.name.as_str()).collect()
}

/// The text of some columns as one value that is NULL nowhere.
pub fn row_text(columns: &[&str]) -> String {
    let list: Vec<String> = columns.iter().map(|c| quote_identifier(c)).collect();
    format!("ROW({})::pg_catalog.text", list.join(", "))
}

/// The text of each column, as an array.
pub fn text_array(columns: &[&str]) -> String {
    let list = columns
        .iter()
        .map(|c| format!("{}::pg_catalog.text", quote_identifier(c)));
    format!(
        "ARRAY[{}]::pg_catalog.text[]",
        list.collect::<Vec<_>>().join(", ")
    )
}

/// The 64-bit hash of a text, the same on every server.
pub fn hash(text: &str) -> String {
    format!("pg_catalog.hashtextextended({text}, 0)")
}

/// What tells a row from the others: its primary key, or all of it.
pub fn identity(table: &RowTable) -> Vec<&str> {
    match table.primary_key.is_empty() {
        true => stored_columns(table),
        false => table.primary_key.iter().map(String::as_str).collect(),
    }
}

/// INSERT of a row. With a primary key it gives way to `on_conflict`.
pub fn insert(table: &RowTable, row: &TextRow, on_conflict: OnConflict) -> String {
    let columns = stored_columns(table);
    let quoted: Vec<String> = columns.iter().map(|c| quote_identifier(c)).collect();
    let values: Vec<String> = row.iter().map(|v| literal(v.as_deref())).collect();
    let overriding = match table.always_identity {
        true => " OVERRIDING SYSTEM VALUE",
        false => "",
    };
    let mut statement = format!(
        "INSERT INTO {} ({}){overriding} VALUES ({})",
        name(table),
        quoted.join(", "),
        values.join(", ")
    );
    if on_conflict == OnConflict::Replace && !table.primary_key.is_empty() {
        let is_key = |c: &&str| table.primary_key.iter().any(|k| k == c);
        let assigned = columns.iter().filter(|c| !is_key(c)).map(|c| {
            let c = quote_identifier(c);
            format!("{c} = excluded.{c}")
        });
        let assigned: Vec<String> = assigned.collect();
        let key: Vec<String> = table
            .primary_key
            .iter()
            .map(|c| quote_identifier(c))
            .collect();
        statement.push_str(&format!(" ON CONFLICT ({}) DO ", key.join(", ")));
        statement.push_str(&match assigned.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", assigned.join(", ")),
        });
    }
    statement
}

/// What an INSERT does where the key is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// It fails.
    Fail,
    /// It becomes an update.
    Replace,
}

/// DELETE of a row, found by its primary key; of `count` rows that are equal where there is none.
pub fn delete(table: &RowTable, row: &TextRow, count: usize) -> String {
    let columns = stored_columns(table);
    let value = |column: &str| {
        let place = columns.iter().position(|c| *c == column);
        place.and_then(|p| row.get(p)?.as_deref())
    };
    let conditions = identity(table)
        .into_iter()
        .map(|column| {
            let type_name = table.columns.iter().find(|c| c.name == column);
            let comparable = type_name.is_none_or(|c| !NOT_COMPARABLE.contains(&&*c.type_name));
            let quoted = quote_identifier(column);
            match (value(column), comparable) {
                (None, _) => format!("{quoted} IS NULL"),
                (Some(v), true) => format!("{quoted} = {}", quote_literal(v)),
                (Some(v), false) => format!("{quoted}::text = {}", quote_literal(v)),
            }
        })
        .collect::<Vec<_>>()
        .join(" AND ");
    let name = name(table);
    match table.primary_key.is_empty() {
        false => format!("DELETE FROM {name} WHERE {conditions}"),
        true => format!(
            "DELETE FROM {name} WHERE ctid IN (SELECT ctid FROM {name} WHERE {conditions} LIMIT {count})"
        ),
    }
}

fn literal(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), quote_literal)
}

#[cfg(test)]
mod tests {
    use super::super::inventory::RowColumn;
    use super::*;

    fn table(key: &[&str]) -> RowTable {
        let column = |name: &str, type_name: &str, stored| RowColumn {
            name: name.into(),
            type_oid: 25,
            type_name: type_name.into(),
            deterministic: true,
            stored,
        };
        RowTable {
            schema: "public".into(),
            name: "T".into(),
            kind: "r".into(),
            is_child: false,
            blocks: 1,
            columns: vec![
                column("id", "integer", true),
                column("twice", "integer", false),
                column("j", "json", true),
            ],
            primary_key: key.iter().map(|k| (*k).to_owned()).collect(),
            always_identity: false,
        }
    }

    #[test]
    fn rows_are_written_without_generated_columns() {
        let row = vec![Some("1".to_owned()), Some("{\"a\": \"it's\"}".to_owned())];
        assert_eq!(
            insert(&table(&["id"]), &row, OnConflict::Replace),
            r#"INSERT INTO "public"."T" ("id", "j") VALUES ('1', '{"a": "it''s"}') ON CONFLICT ("id") DO UPDATE SET "j" = excluded."j""#
        );
        assert_eq!(
            delete(&table(&["id"]), &row, 1),
            r#"DELETE FROM "public"."T" WHERE "id" = '1'"#
        );
    }

    #[test]
    fn rows_without_a_key_are_found_by_all_they_have() {
        assert_eq!(
            delete(&table(&[]), &vec![None, Some("{}".to_owned())], 2),
            r#"DELETE FROM "public"."T" WHERE ctid IN (SELECT ctid FROM "public"."T" WHERE "id" IS NULL AND "j"::text = '{}' LIMIT 2)"#
        );
    }
}
