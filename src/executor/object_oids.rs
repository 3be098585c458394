//! Binary values of regclass and its like are OIDs. Those of built-in objects are the same on every server; those of objects that
//! users made are not, and what a client would make of them is not known: they are refused, not translated.

use super::Bound;
use super::error;
use super::row;
use crate::backend::raw_conn::Run;
use crate::catalog::Catalog;
use crate::metrics::Reason;
use crate::protocol::error::ServerError;
use crate::types::oid;

/// Values may hold values; deeper ones than this are taken for an attack.
const DEPTH_MAX: usize = 64;

/// Why a value is not passed on.
enum Fault {
    Malformed,
    NamesObject,
}

/// True when a column may hold such values.
pub(super) fn concerns(bound: &Bound) -> bool {
    let catalog = bound.catalog.as_deref();
    let mut columns = bound.columns.iter();
    columns.any(|c| c.format == 1 && may_hold(catalog, c.type_oid, 0))
}

fn may_hold(catalog: Option<&Catalog>, type_oid: u32, depth: usize) -> bool {
    match type_oid {
        oid::RECORD | oid::RECORD_ARRAY => true,
        _ if oid::REG_TYPES.contains(&type_oid) || oid::REG_ARRAYS.contains(&type_oid) => true,
        _ if type_oid < oid::FIRST_NORMAL_OBJECT || depth > DEPTH_MAX => false,
        _ => catalog
            .and_then(|c| c.types.get(&type_oid))
            .is_some_and(|t| {
                let parts = t.fields.iter().chain([&t.element, &t.base, &t.subtype]);
                parts.into_iter().any(|p| may_hold(catalog, *p, depth + 1))
            }),
    }
}

/// Looks through rows in the client's columns.
///
/// # Errors
/// 0A000 for the OID of an object that a user made.
pub(super) fn check(run: &Run, bound: &Bound) -> Result<(), ServerError> {
    let frames = &run.frames[..];
    let mut start = 0;
    for _ in 0..run.rows {
        let columns = row::columns(frames, start).ok_or(Fault::Malformed);
        columns
            .and_then(|columns| check_row(columns, bound))
            .map_err(fault)?;
        start = row::frame_end(frames, start).unwrap_or(frames.len());
    }
    Ok(())
}

fn check_row(mut columns: &[u8], bound: &Bound) -> Result<(), Fault> {
    for column in bound.columns.iter() {
        let (value, rest) = row::take_column(columns).ok_or(Fault::Malformed)?;
        columns = rest;
        if let (Some(value), 1) = (value, column.format) {
            check_value(value, column.type_oid, bound.catalog.as_deref(), 0)?;
        }
    }
    Ok(())
}

fn check_value(
    value: &[u8],
    type_oid: u32,
    catalog: Option<&Catalog>,
    depth: usize,
) -> Result<(), Fault> {
    if oid::REG_TYPES.contains(&type_oid) {
        return match word(value, 0)? >= oid::FIRST_NORMAL_OBJECT {
            true => Err(Fault::NamesObject),
            false => Ok(()),
        };
    }
    if !may_hold(catalog, type_oid, depth) {
        return Ok(());
    }
    let known = catalog.and_then(|c| c.types.get(&type_oid));
    match known {
        Some(t) if t.kind == b'd' => check_value(value, t.base, catalog, depth + 1),
        _ if type_oid == oid::RECORD || known.is_some_and(|t| t.kind == b'c') => {
            let mut at = 4;
            for _ in 0..word(value, 0)? {
                at = check_part(value, at + 4, word(value, at)?, (catalog, depth))?;
            }
            Ok(())
        }
        // Flags in a byte, then the bounds there are; or a number, and so many ranges.
        Some(t) if t.kind == b'r' => check_parts(value, 1, t.subtype, (catalog, depth)),
        Some(t) if t.kind == b'm' => check_parts(value, 4, t.subtype, (catalog, depth)),
        _ => {
            let values = 12 + 8 * word(value, 0)? as usize;
            check_parts(value, values, word(value, 8)?, (catalog, depth))
        }
    }
}

/// Checks values of one type that stand one behind the other from `at` to the end.
fn check_parts(
    whole: &[u8],
    mut at: usize,
    type_oid: u32,
    known: (Option<&Catalog>, usize),
) -> Result<(), Fault> {
    while at < whole.len() {
        at = check_part(whole, at, type_oid, known)?;
    }
    Ok(())
}

/// Checks the value whose length stands at `at`; returns the place behind it.
fn check_part(
    whole: &[u8],
    at: usize,
    type_oid: u32,
    (catalog, depth): (Option<&Catalog>, usize),
) -> Result<usize, Fault> {
    let (value, behind) = row::column(whole, at).ok_or(Fault::Malformed)?;
    if let Some(value) = value {
        check_value(value, type_oid, catalog, depth + 1)?;
    }
    Ok(behind)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Fault> {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
    four.map(|four| u32::from_be_bytes(*four))
        .ok_or(Fault::Malformed)
}

fn fault(fault: Fault) -> ServerError {
    match fault {
        Fault::Malformed => error::malformed_row("?"),
        Fault::NamesObject => ServerError::refusal(
            Reason::Catalog,
            "binary output of an object's OID is not supported over several shards",
        )
        .with_hint("Ask for the column in text form, or cast it to text."),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::testing::run;
    use super::super::testing::bound;
    use super::*;
    use crate::protocol::messages::ColumnDescription;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    fn passes(type_oid: u32, value: &[u8]) -> bool {
        let mut bound = bound();
        bound.columns = [ColumnDescription {
            name: bytes::Bytes::new(),
            table_oid: 0,
            attribute: 0,
            type_oid,
            type_length: -1,
            type_modifier: -1,
            format: 1,
        }]
        .into();
        assert!(concerns(&bound));
        check(&run(&[&[None], &[Some(value)]]), &bound).is_ok()
    }

    #[test]
    fn built_in_objects_pass_and_those_of_users_do_not() {
        assert!(passes(2205, &words(&[1259])));
        assert!(!passes(2205, &words(&[16_384])));
        assert!(passes(2210, &words(&[1, 0, 2205, 1, 1, 4, 1259])));
        assert!(!passes(
            2210,
            &words(&[1, 0, 2205, 2, 1, u32::MAX, 4, 20_000])
        ));
        assert!(passes(2210, &words(&[0, 0, 2205])));
        assert!(passes(
            oid::RECORD,
            &words(&[2, 23, 4, 99_999, 2206, 4, 23])
        ));
        assert!(!passes(oid::RECORD, &words(&[1, 2206, 4, 99_999])));
        assert!(!passes(2205, &words(&[])));
    }
}
