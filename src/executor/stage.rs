//! A small stage's rows on their way to the merge session: one array a column, and the SQL that makes a relation of them.
//!
//! ```text
//! (1 a) (2 NULL)  ─→  $3 = {1,2}, $4 = {a,NULL}
//!                     (SELECT u.c1::bigint AS "id", u.c2::text AS "name" FROM ROWS FROM (unnest($3), unnest($4)) AS u(c1, c2))
//! ```
//! Values of the types in [`array_of`] travel in binary form. All others travel as text and are cast back on the merge
//! session: enums, composites and ranges, whose OIDs differ between shards, and arrays, which `unnest` would flatten.
//! Their text depends on DateStyle, IntervalStyle, extra_float_digits and bytea_output, so the session must hold these alike (and
//! extra_float_digits above 0) on the shards and on the merge session.

use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};

use super::row::{self, ROW_HEADER_BYTES};
use crate::backend::raw_conn::Run;
use crate::plan::StageColumn;
use crate::types::oid;

/// More rows than this become a table: over arrays PostgreSQL has neither statistics nor indexes.
const ROWS_MAX: u32 = 2_000;
/// As many bytes as a read brings at most; what is larger should not be held here.
const BYTES_MAX: usize = 256 << 10;

/// The array type of a built-in scalar type whose binary form is the same on every server.
pub(super) fn array_of(type_oid: u32) -> Option<u32> {
    Some(match type_oid {
        oid::BOOL => 1000,
        oid::BYTEA => oid::BYTEA_ARRAY,
        oid::CHAR => 1002,
        oid::NAME => 1003,
        oid::INT8 => oid::INT8_ARRAY,
        oid::INT2 => oid::INT2_ARRAY,
        oid::INT4 => oid::INT4_ARRAY,
        oid::TEXT => oid::TEXT_ARRAY,
        oid::OID => 1028,
        oid::JSON => 199,
        oid::CIDR => 651,
        oid::FLOAT4 => 1021,
        oid::FLOAT8 => 1022,
        oid::MACADDR8 => 775,
        oid::MONEY => 791,
        oid::MACADDR => 1040,
        oid::INET => 1041,
        oid::BPCHAR => oid::BPCHAR_ARRAY,
        oid::VARCHAR => oid::VARCHAR_ARRAY,
        oid::DATE => oid::DATE_ARRAY,
        oid::TIME => 1183,
        oid::TIMESTAMP => 1115,
        oid::TIMESTAMPTZ => 1185,
        oid::INTERVAL => 1187,
        oid::TIMETZ => 1270,
        oid::BIT => 1561,
        oid::VARBIT => 1563,
        oid::NUMERIC => 1231,
        oid::UUID => oid::UUID_ARRAY,
        oid::PG_LSN => 3221,
        oid::JSONB => 3807,
        oid::XID8 => 271,
        _ => return None,
    })
}

/// The format in which a stage's column is asked for.
pub(super) fn format_of(column: &StageColumn) -> i16 {
    i16::from(array_of(column.type_oid).is_some())
}

/// The rows of a stage, column by column.
#[derive(Debug, Default)]
pub(super) struct Collected {
    columns: Vec<Elements>,
    rows: u32,
}

/// The values of a column, each with its length.
#[derive(Debug, Default)]
struct Elements {
    values: BytesMut,
    has_null: bool,
}

impl Collected {
    pub(super) fn new(columns: usize) -> Self {
        Self {
            columns: (0..columns).map(|_| Elements::default()).collect(),
            rows: 0,
        }
    }

    /// Adds the rows of a run; `None` when one is malformed.
    pub(super) fn add(&mut self, run: &Run) -> Option<()> {
        let mut start = 0;
        for _ in 0..run.rows {
            let end = row::frame_end(&run.frames, start)?;
            let frame = &run.frames[..end];
            let mut at = start + ROW_HEADER_BYTES;
            for elements in &mut self.columns {
                let behind = row::column_end(frame, at)?;
                elements.has_null |= frame[at] & 0x80 != 0;
                elements.values.put_slice(&frame[at..behind]);
                at = behind;
            }
            if at != end {
                return None;
            }
            start = end;
        }
        self.rows = self.rows.checked_add(run.rows)?;
        Some(())
    }

    /// True when the rows should rather be a table. Rows without columns are only counted.
    pub(super) fn is_large(&self) -> bool {
        let bytes: usize = self.columns.iter().map(|c| c.values.len()).sum();
        !self.columns.is_empty() && (self.rows > ROWS_MAX || bytes > BYTES_MAX)
    }

    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// The rows as one run, as they came.
    pub(super) fn into_run(self) -> Option<Run> {
        let count = self.columns.len() as u16;
        let bytes: usize = self.columns.iter().map(|c| c.values.len()).sum();
        let mut frames = BytesMut::with_capacity(bytes + self.rows as usize * ROW_HEADER_BYTES);
        let mut rests: Vec<&[u8]> = self.columns.iter().map(|c| &c.values[..]).collect();
        for _ in 0..self.rows {
            let start = frames.len();
            frames.put_slice(&row::header(ROW_HEADER_BYTES, count));
            for rest in &mut rests {
                let (value, behind) = rest.split_at_checked(row::column_end(rest, 0)?)?;
                frames.put_slice(value);
                *rest = behind;
            }
            let header = row::header(frames.len() - start, count);
            frames[start..start + ROW_HEADER_BYTES].copy_from_slice(&header);
        }
        Some(Run {
            frames: frames.freeze(),
            rows: self.rows,
        })
    }

    /// The parameters that carry the rows: types and values. Without columns, the number of rows.
    pub(super) fn into_parameters(self, columns: &[StageColumn]) -> Vec<(u32, Bytes)> {
        if columns.is_empty() {
            let rows = i64::from(self.rows).to_be_bytes();
            return vec![(oid::INT8, Bytes::copy_from_slice(&rows))];
        }
        let arrays = columns.iter().zip(self.columns);
        arrays
            .map(|(column, elements)| match array_of(column.type_oid) {
                Some(array) => (array, elements.into_array(column.type_oid, self.rows)),
                None => (oid::TEXT_ARRAY, elements.into_array(oid::TEXT, self.rows)),
            })
            .collect()
    }
}

impl Elements {
    /// The binary form of an array: dimensions, a flag for NULLs, the element type, length and lower bound, elements.
    fn into_array(self, element: u32, rows: u32) -> Bytes {
        let mut array = BytesMut::with_capacity(20 + self.values.len());
        array.put_i32(i32::from(rows > 0));
        array.put_i32(i32::from(self.has_null));
        array.put_u32(element);
        if rows > 0 {
            array.put_u32(rows);
            array.put_i32(1);
            array.put_slice(&self.values);
        }
        array.freeze()
    }
}

/// The FROM item, without alias, that a stage's parameters become; the first of them is `$first`.
pub(super) fn relation(columns: &[StageColumn], first: usize) -> String {
    if columns.is_empty() {
        return format!("(SELECT FROM pg_catalog.generate_series(1, ${first}))");
    }
    let mut select = String::new();
    let mut parameters = String::new();
    let mut aliases = String::new();
    for (index, column) in columns.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let number = index + 1;
        let value = cast(&format!("u.c{number}"), column);
        let _ = write!(select, "{comma}{value} AS {}", quoted(&column.name));
        let _ = write!(parameters, "{comma}pg_catalog.unnest(${})", first + index);
        let _ = write!(aliases, "{comma}c{number}");
    }
    format!("(SELECT {select} FROM ROWS FROM ({parameters}) AS u({aliases}))")
}

/// A value with its column's type and collation.
pub(super) fn cast(value: &str, column: &StageColumn) -> String {
    let collation = column.collation.as_ref();
    let collation = collation.map_or(String::new(), |c| format!(" COLLATE {c}"));
    format!("{value}::{}{collation}", column.type_name)
}

/// A name as an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::super::row::testing::run;
    use super::*;

    fn column(name: &str, type_name: &str, type_oid: u32) -> StageColumn {
        StageColumn {
            name: name.into(),
            type_name: type_name.into(),
            type_oid,
            collation: None,
            joined: false,
        }
    }

    #[test]
    fn rows_become_arrays() {
        let columns = [
            column("a", "smallint", oid::INT2),
            column("b", "mood", 99_999),
        ];
        let mut collected = Collected::new(2);
        let rows = run(&[&[Some(&[0, 7]), Some(b"ok")], &[Some(&[0, 8]), None]]);
        collected.add(&rows).unwrap();
        let parameters = collected.into_parameters(&columns);
        let words = |w: &[i32]| w.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
        let numbers = [
            &words(&[1, 0, 21, 2, 1, 2])[..],
            &[0, 7],
            &words(&[2]),
            &[0, 8],
        ];
        assert_eq!(parameters[0].0, oid::INT2_ARRAY);
        assert_eq!(parameters[0].1, numbers.concat());
        let labels = [&words(&[1, 1, 25, 2, 1, 2])[..], b"ok", &words(&[-1])];
        assert_eq!(parameters[1].0, oid::TEXT_ARRAY);
        assert_eq!(parameters[1].1, labels.concat());
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let mut collected = Collected::new(2);
        let rows = run(&[&[Some(&[0, 7]), Some(b"ok")], &[None, Some(b"")]]);
        collected.add(&rows).unwrap();
        assert_eq!(collected.into_run(), Some(rows));
    }

    #[test]
    fn many_rows_or_bytes_are_large() {
        let mut collected = Collected::new(1);
        let row = run(&[&[None]]);
        (0..ROWS_MAX).for_each(|_| collected.add(&row).unwrap());
        assert!(!collected.is_large());
        collected.add(&row).unwrap();
        assert!(collected.is_large());
        let mut collected = Collected::new(1);
        let long = vec![b'x'; BYTES_MAX];
        collected.add(&run(&[&[Some(&long)]])).unwrap();
        assert!(collected.is_large());
        let mut collected = Collected::new(0);
        let row = run(&[&[]]);
        (0..=ROWS_MAX).for_each(|_| collected.add(&row).unwrap());
        assert!(!collected.is_large());
    }

    #[test]
    fn no_rows_are_empty_arrays() {
        let columns = [column("a", "bigint", oid::INT8)];
        let parameters = Collected::new(1).into_parameters(&columns);
        assert_eq!(parameters[0].1[..4], [0; 4]);
        assert_eq!(parameters[0].1.len(), 12);
    }

    #[test]
    fn relations_name_and_type_their_columns() {
        let mut columns = [
            column("a\"b", "bigint", oid::INT8),
            column("t", "character varying(3)", oid::VARCHAR),
        ];
        columns[1].collation = Some("\"C\"".into());
        let expected = "(SELECT u.c1::bigint AS \"a\"\"b\", u.c2::character varying(3) COLLATE \"C\" AS \"t\" \
             FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4)) AS u(c1, c2))";
        assert_eq!(relation(&columns, 3), expected);
        let none = "(SELECT FROM pg_catalog.generate_series(1, $1))";
        assert_eq!(relation(&[], 1), none);
    }

    #[test]
    fn rows_with_other_columns_are_malformed() {
        let mut collected = Collected::new(2);
        assert_eq!(collected.add(&run(&[&[Some(b"a")]])), None);
        let mut collected = Collected::new(1);
        assert_eq!(collected.add(&run(&[&[None, None]])), None);
    }
}
