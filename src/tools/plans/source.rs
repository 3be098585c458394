//! Files of statements: SQL, or what pg_stat_statements holds as CSV (`psql --csv -c "SELECT * FROM pg_stat_statements"`) or as JSON.

use std::path::PathBuf;

use serde_json::Value;

use crate::sql;

/// A statement of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// Its text.
    pub text: String,
    /// How often it ran.
    pub calls: Option<f64>,
    /// Milliseconds it took in all.
    pub total_ms: Option<f64>,
}

/// Columns that hold the time in all: since PostgreSQL 13, and before.
const TOTAL: [&str; 2] = ["total_exec_time", "total_time"];

/// The statements of files on disk, as [`read`].
///
/// # Errors
/// Why one cannot be read.
pub fn read_files(paths: &[PathBuf]) -> Result<Vec<Given>, String> {
    let mut all = Vec::new();
    for path in paths {
        let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| named(&e))?;
        all.extend(read(&text).map_err(|why| named(&why))?);
    }
    slowest_first(&mut all);
    Ok(all)
}

fn slowest_first(all: &mut [Given]) {
    all.sort_by(|a, b| {
        b.total_ms
            .partial_cmp(&a.total_ms)
            .unwrap_or(std::cmp::Ordering::Equal)
    });
}

/// The statements of a file, those that took longest first where that is known.
///
/// # Errors
/// Why it is none of the three.
pub fn read(text: &str) -> Result<Vec<Given>, String> {
    let trimmed = text.trim_start_matches('\u{feff}').trim_start();
    let mut all = match trimmed.chars().next() {
        Some('[' | '{') => json(trimmed)?,
        _ if is_csv(trimmed) => csv(trimmed)?,
        _ => statements(trimmed),
    };
    slowest_first(&mut all);
    Ok(all)
}

/// A header line with a column `query` and no space is no SQL.
fn is_csv(text: &str) -> bool {
    let header = text.lines().next().unwrap_or_default();
    let mut columns = header.split(',').map(|c| c.trim_matches('"'));
    !header.contains(' ') && columns.any(|c| c == "query")
}

fn csv(text: &str) -> Result<Vec<Given>, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| e.to_string())?.clone();
    let place = |names: &[&str]| {
        names
            .iter()
            .find_map(|n| header.iter().position(|h| h == *n))
    };
    let query = place(&["query"]).ok_or("there is no column query")?;
    let (calls, total) = (place(&["calls"]), place(&TOTAL));
    let mut all = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| e.to_string())?;
        let number = |column: Option<usize>| record.get(column?)?.parse().ok();
        all.push(Given {
            text: record.get(query).unwrap_or_default().to_owned(),
            calls: number(calls),
            total_ms: number(total),
        });
    }
    Ok(all)
}

/// A list of objects with a `query`, or one object a line, as `row_to_json` gives.
fn json(text: &str) -> Result<Vec<Given>, String> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut all = Vec::new();
    for value in values {
        match value.map_err(|e| e.to_string())? {
            Value::Array(list) => {
                for value in &list {
                    all.push(of_object(value)?);
                }
            }
            value => all.push(of_object(&value)?),
        }
    }
    Ok(all)
}

fn of_object(value: &Value) -> Result<Given, String> {
    if let Some(text) = value.as_str() {
        return Ok(Given {
            text: text.to_owned(),
            calls: None,
            total_ms: None,
        });
    }
    let text = value.get("query").and_then(Value::as_str);
    let text = text.ok_or("there is an entry without a query")?.to_owned();
    Ok(Given {
        text,
        calls: value.get("calls").and_then(Value::as_f64),
        total_ms: TOTAL.iter().find_map(|name| value.get(name)?.as_f64()),
    })
}

/// Statements of SQL, each by itself even where another one does not parse. Lines that are psql's own are left out.
fn statements(text: &str) -> Vec<Given> {
    let lines = text.lines().map(|line| match line.starts_with('\\') {
        true => "",
        false => line,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let given = |text: String| Given {
        text,
        calls: None,
        total_ms: None,
    };
    sql::split(&text).into_iter().map(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let all = read(text).expect("readable");
        all.into_iter().map(|g| g.text).collect()
    }

    #[test]
    fn sql_is_cut_into_statements_that_need_not_parse() {
        let sql = "\\timing on\nselect 1;\n-- two\nselect ';' ; selec x;\nselect $$;$$";
        assert_eq!(
            texts(sql),
            ["select 1", "-- two\nselect ';'", "selec x", "select $$;$$"]
        );
        assert_eq!(
            texts("select query, calls from t"),
            ["select query, calls from t"]
        );
    }

    #[test]
    fn pg_stat_statements_is_read_as_csv_and_json() {
        let csv = "userid,query,calls,total_exec_time\n10,\"select \"\"a\"\",\n $1\",5,1.5\n10,select 2,1,20\n";
        let all = read(csv).expect("readable");
        assert_eq!(all[0].text, "select 2");
        assert_eq!(all[1].text, "select \"a\",\n $1");
        assert_eq!((all[1].calls, all[1].total_ms), (Some(5.0), Some(1.5)));
        let json =
            r#"[{"query": "select 1", "calls": 3, "total_time": 2.5}, {"query": "select 2"}]"#;
        let all = read(json).expect("readable");
        assert_eq!(
            (all.len(), all[0].calls, all[0].total_ms),
            (2, Some(3.0), Some(2.5))
        );
        assert_eq!(
            texts("{\"query\": \"select 1\"}\n{\"query\": \"select 2\"}").len(),
            2
        );
        assert!(read("[{\"sql\": \"select 1\"}]").is_err());
    }
}
