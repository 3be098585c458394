//! A large stage as a temporary table on the merge session: its definition, its rows as binary COPY, its indexes, and the SQL
//! that reads it.
//!
//! ```text
//! DataRow 2 [4 1] [1 a]  ─→  CopyData( 2 [4 1] [1 a] … )  ─→  pg_temp.pgbraid_stage_7 (c1 bigint, c2 text)
//! ```
//! A row of COPY in binary form is a DataRow without its header, so nothing is decoded. Columns that [`stage`](super::stage)
//! moves as text are text here too and are cast where the table is read.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use super::row;
use super::stage::{array_of, cast, quoted};
use crate::backend::raw_conn::Run;
use crate::plan::StageColumn;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::messages;
use crate::types::oid;

/// Signature, flags and the length of no extension: what binary COPY data begins with.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Indexes made for one stage.
const INDEXES_MAX: usize = 3;
/// Longest value that is indexed: a btree refuses those over 2704 bytes, and the statement would fail.
const INDEXED_BYTES_MAX: usize = 1000;

/// One table of one statement.
#[derive(Debug)]
pub(super) struct StageTable {
    number: u32,
    /// The longest value of each column so far.
    longest: Vec<usize>,
}

/// The table's column definitions: what makes a table fit for a stage.
pub(super) fn shape(columns: &[StageColumn]) -> String {
    let mut shape = String::new();
    for (index, column) in columns.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let number = index + 1;
        if array_of(column.type_oid).is_none() {
            let _ = write!(shape, "{comma}c{number} pg_catalog.text");
            continue;
        }
        let _ = write!(shape, "{comma}c{number} {}", column.type_name);
        if let Some(collation) = &column.collation {
            let _ = write!(shape, " COLLATE {collation}");
        }
    }
    shape
}

/// The statement that makes the table.
pub(super) fn create(number: u32, shape: &str) -> String {
    format!("CREATE TEMP TABLE pgbraid_stage_{number} ({shape}) ON COMMIT DELETE ROWS")
}

impl StageTable {
    pub(super) fn new(number: u32, columns: usize) -> Self {
        Self {
            number,
            longest: vec![0; columns],
        }
    }

    fn name(&self) -> String {
        format!("pg_temp.pgbraid_stage_{}", self.number)
    }

    /// The statement that takes the rows.
    pub(super) fn copy(&self) -> String {
        format!("COPY {} FROM STDIN (FORMAT binary)", self.name())
    }

    /// Appends what the data begins with.
    pub(super) fn begin(&self, out: &mut BytesMut) {
        messages::frame(b'd', out, |out| out.put_slice(COPY_HEADER));
    }

    /// Appends the rows of a run; `None` when one is malformed.
    pub(super) fn put(&mut self, run: &Run, out: &mut BytesMut) -> Option<()> {
        let mut whole = None;
        messages::frame(b'd', out, |out| {
            out.reserve(run.frames.len());
            whole = self.put_rows(run, out);
        });
        whole
    }

    fn put_rows(&mut self, run: &Run, out: &mut BytesMut) -> Option<()> {
        let mut start = 0;
        for _ in 0..run.rows {
            let end = row::frame_end(&run.frames, start)?;
            let frame = &run.frames[..end];
            let count = frame.get(start + HEADER_BYTES..)?.first_chunk()?;
            let mut at = start + row::ROW_HEADER_BYTES;
            for longest in &mut self.longest {
                let behind = row::column_end(frame, at)?;
                *longest = (*longest).max(behind - at);
                at = behind;
            }
            if at != end || usize::from(u16::from_be_bytes(*count)) != self.longest.len() {
                return None;
            }
            out.put_slice(&frame[start + HEADER_BYTES..end]);
            start = end;
        }
        Some(())
    }

    /// Appends the end of the data.
    pub(super) fn end(&self, out: &mut BytesMut) {
        messages::frame(b'd', out, |out| out.put_i16(-1));
        messages::bare(b'c', out);
    }

    /// Statements to run once the rows are there: indexes and statistics. Names of the indexes are added to `made`.
    pub(super) fn prepare(&self, columns: &[StageColumn], made: &mut Vec<String>) -> String {
        let mut sql = String::new();
        let joined = columns.iter().zip(&self.longest).enumerate();
        let joined = joined.filter(|(_, (column, longest))| {
            // A length word goes with each value.
            column.joined && is_indexable(column.type_oid) && **longest <= INDEXED_BYTES_MAX + 4
        });
        for (index, _) in joined.take(INDEXES_MAX) {
            let (table, column) = (self.number, index + 1);
            let name = format!("pgbraid_index_{table}_{column}");
            let _ = write!(sql, "CREATE INDEX {name} ON {} (c{column}); ", self.name());
            made.push(format!("pg_temp.{name}"));
        }
        let _ = write!(sql, "ANALYZE {}", self.name());
        sql
    }

    /// The FROM item, without alias, that reads the table.
    pub(super) fn relation(&self, columns: &[StageColumn]) -> String {
        let mut select = String::new();
        for (index, column) in columns.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let value = format!("t.c{}", index + 1);
            // A cast of what has the type already would keep indexes from being used.
            let value = match array_of(column.type_oid) {
                Some(_) => value,
                None => cast(&value, column),
            };
            let _ = write!(select, "{comma}{value} AS {}", quoted(&column.name));
        }
        format!("(SELECT {select} FROM {} AS t)", self.name())
    }
}

/// True for types, among those moved in binary form, whose short values a btree takes.
fn is_indexable(type_oid: u32) -> bool {
    array_of(type_oid).is_some() && !matches!(type_oid, oid::JSON | oid::JSONB | oid::XID8)
}

#[cfg(test)]
mod tests {
    use super::super::row::testing::run;
    use super::*;

    fn column(type_name: &str, type_oid: u32) -> StageColumn {
        StageColumn {
            name: "n".into(),
            type_name: type_name.into(),
            type_oid,
            collation: None,
            joined: true,
        }
    }

    #[test]
    fn rows_become_copy_data() {
        let mut table = StageTable::new(7, 2);
        let mut out = BytesMut::new();
        table.begin(&mut out);
        assert_eq!(out[..5], [b'd', 0, 0, 0, 4 + 19]);
        out.clear();
        let rows = run(&[&[Some(b"ab"), None], &[Some(b""), Some(b"x")]]);
        table.put(&rows, &mut out).unwrap();
        let first = [&[0, 2, 0, 0, 0, 2][..], b"ab", &[255; 4]].concat();
        let second = [&[0, 2, 0, 0, 0, 0, 0, 0, 0, 1][..], b"x"].concat();
        let length = 4 + first.len() + second.len();
        let expected = [&[b'd', 0, 0, 0, length as u8][..], &first, &second].concat();
        assert_eq!(out, expected);
        out.clear();
        table.end(&mut out);
        assert_eq!(out[..], [b'd', 0, 0, 0, 6, 255, 255, b'c', 0, 0, 0, 4]);
    }

    #[test]
    fn rows_with_other_columns_are_malformed() {
        let mut out = BytesMut::new();
        let mut table = StageTable::new(1, 2);
        assert_eq!(table.put(&run(&[&[Some(b"a")]]), &mut out), None);
        let mut table = StageTable::new(1, 1);
        assert_eq!(table.put(&run(&[&[None, None]]), &mut out), None);
    }

    #[test]
    fn columns_keep_their_type_or_are_text() {
        let mut columns = [
            column("numeric(15,2)", oid::NUMERIC),
            column("mood", 99_999),
            column("text", oid::TEXT),
        ];
        columns[2].collation = Some("\"C\"".into());
        let expected = "c1 numeric(15,2), c2 pg_catalog.text, c3 text COLLATE \"C\"";
        assert_eq!(shape(&columns), expected);
        let expected = "(SELECT t.c1 AS \"n\", t.c2::mood AS \"n\", t.c3 AS \"n\" FROM pg_temp.pgbraid_stage_7 AS t)";
        assert_eq!(StageTable::new(7, 3).relation(&columns), expected);
    }

    #[test]
    fn indexes_are_made_for_short_values_that_are_looked_up() {
        let mut columns = [
            column("bigint", oid::INT8),
            column("text", oid::TEXT),
            column("mood", 99_999),
            column("jsonb", oid::JSONB),
            column("date", oid::DATE),
        ];
        columns[4].joined = false;
        let mut table = StageTable::new(7, 5);
        let long = [b'x'; INDEXED_BYTES_MAX + 1];
        let rows = run(&[&[Some(&[0; 8]), Some(&long), None, None, None]]);
        table.put(&rows, &mut BytesMut::new()).unwrap();
        let mut made = Vec::new();
        let expected = "CREATE INDEX pgbraid_index_7_1 ON pg_temp.pgbraid_stage_7 (c1); ANALYZE pg_temp.pgbraid_stage_7";
        assert_eq!(table.prepare(&columns, &mut made), expected);
        assert_eq!(made, ["pg_temp.pgbraid_index_7_1"]);
    }
}
