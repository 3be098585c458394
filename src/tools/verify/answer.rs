//! One side's answer to a statement: columns by Describe, rows as text.

use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::types::oid;

/// Rows that are held of one answer.
const ROWS_MAX: usize = 200_000;
/// OIDs from here on are given when something is created, and differ between servers.
const FIRST_USER_OID: u32 = 16_384;

/// What a side says.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Columns and rows.
    Rows(Rows),
    /// An error.
    Failed {
        /// SQLSTATE.
        state: String,
        /// Its words.
        message: String,
    },
    /// More than can be compared, or nothing to compare; in words.
    TooMany(String),
}

/// A row as text.
pub type Row = Vec<Option<String>>;

/// Columns and rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    /// Name and type of each.
    pub columns: Vec<(String, String)>,
    /// In the order in which they came.
    pub rows: Vec<Row>,
}

/// Runs a statement. Where the connection is lost this is `Failed`, and the client says that it is closed.
pub async fn ask(client: &Client, statement: &str) -> Answer {
    match rows(client, statement).await {
        Ok(answer) => answer,
        Err(error) => Answer::Failed {
            state: error.code().map_or("08006", |c| c.code()).to_owned(),
            message: match error.as_db_error() {
                Some(said) => said.message().to_owned(),
                None => error.to_string(),
            },
        },
    }
}

async fn rows(client: &Client, statement: &str) -> Result<Answer, tokio_postgres::Error> {
    let prepared = client.prepare(statement).await?;
    if !prepared.params().is_empty() {
        return Ok(Answer::TooMany("its parameters are not known".to_owned()));
    }
    let types: Vec<u32> = prepared.columns().iter().map(|c| c.type_().oid()).collect();
    let columns = prepared.columns().iter();
    let columns = columns
        .map(|c| (c.name().to_owned(), type_name(c.type_())))
        .collect();
    let messages = client.simple_query_raw(statement).await?;
    pin_mut!(messages);
    let mut rows = Vec::new();
    while let Some(message) = messages.try_next().await? {
        if let SimpleQueryMessage::Row(row) = message {
            let value = |n: usize| row.get(n).map(|v| neutral(v, types.get(n).copied()));
            rows.push((0..row.len()).map(value).collect());
        }
        if rows.len() > ROWS_MAX {
            // The rest is read and thrown away, so that the connection is in step.
            while messages.try_next().await?.is_some() {}
            return Ok(Answer::TooMany(format!(
                "it gives more than {ROWS_MAX} rows"
            )));
        }
    }
    Ok(Answer::Rows(Rows { columns, rows }))
}

/// Built-in types are known by their OIDs, the others by name.
fn type_name(of: &Type) -> String {
    match of.oid() {
        oid if oid < FIRST_USER_OID => format!("{} (OID {oid})", of.name()),
        _ => format!("{}.{}", of.schema(), of.name()),
    }
}

/// The last digits of a float depend on the order in which a sum was made, on one server too, and so does which of the equal values 0
/// and -0 stands for a group.
fn neutral(value: &str, type_oid: Option<u32>) -> String {
    let digits = match type_oid {
        Some(oid::FLOAT8) => 12,
        Some(oid::FLOAT4) => 4,
        _ => return value.to_owned(),
    };
    match value.parse::<f64>() {
        // Negative zero as well.
        Ok(0.0) => "0".to_owned(),
        Ok(number) if number.is_finite() => format!("{number:.digits$e}"),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_compared_without_their_last_digits() {
        let neutral = |v: &str| neutral(v, Some(oid::FLOAT8));
        assert_eq!(neutral("0.30000000000000004"), neutral("0.3"));
        assert_ne!(neutral("0.3000001"), neutral("0.3"));
        assert_eq!(neutral("-0"), neutral("0"));
        assert_eq!(neutral("NaN"), "NaN");
        assert_eq!(
            super::neutral("0.30000000000000004", Some(1700)),
            "0.30000000000000004"
        );
    }
}
