//! Constants of a statement as values of a sharding key.

use super::condition::{Family, family};
use crate::catalog::sharding::{KeyDatum, Sharding};
use crate::sql::ast::{self, a_const::Val, node::Node};
use crate::types::oid;

/// An integer constant of any size that int8 holds; a decimal point makes it numeric.
pub(super) fn integer(c: &ast::AConst) -> Option<i64> {
    match c.val.as_ref()? {
        Val::Ival(i) => Some(i64::from(i.ival)),
        Val::Fval(f) => f.fval.parse().ok(),
        _ => None,
    }
}

pub(super) fn fits(value: i64, type_oid: u32) -> bool {
    match type_oid {
        oid::INT2 => i16::try_from(value).is_ok(),
        oid::INT4 => i32::try_from(value).is_ok(),
        _ => true,
    }
}

/// The OID of a built-in key type by its name; none with a type modifier or of arrays.
pub(super) fn builtin_type(name: &ast::TypeName) -> Option<u32> {
    let parts: Vec<&str> = name
        .names
        .iter()
        .filter_map(|n| match &n.node {
            Some(Node::String(s)) => Some(s.sval.as_str()),
            _ => None,
        })
        .collect();
    if !name.typmods.is_empty() || !name.array_bounds.is_empty() || name.setof || name.pct_type {
        return None;
    }
    match parts[..] {
        ["int2"] | ["pg_catalog", "int2"] => Some(oid::INT2),
        ["int4"] | ["pg_catalog", "int4"] => Some(oid::INT4),
        ["int8"] | ["pg_catalog", "int8"] => Some(oid::INT8),
        ["text"] | ["pg_catalog", "text"] => Some(oid::TEXT),
        ["varchar"] | ["pg_catalog", "varchar"] => Some(oid::VARCHAR),
        ["uuid"] | ["pg_catalog", "uuid"] => Some(oid::UUID),
        ["date"] | ["pg_catalog", "date"] => Some(oid::DATE),
        _ => None,
    }
}

pub(super) fn array_family(type_oid: u32) -> Option<Family> {
    match type_oid {
        oid::INT2_ARRAY | oid::INT4_ARRAY | oid::INT8_ARRAY => Some(Family::Integer),
        oid::TEXT_ARRAY | oid::VARCHAR_ARRAY => Some(Family::Text),
        oid::UUID_ARRAY => Some(Family::Uuid),
        oid::DATE_ARRAY => Some(Family::Date),
        _ => None,
    }
}

/// A string constant as PostgreSQL reads it for a key type; only forms that mean the same under every setting.
pub(super) fn literal_key(text: &str, type_oid: u32, sharding: &Sharding) -> Option<KeyDatum> {
    let key = match family(type_oid)? {
        Family::Integer => {
            let digits = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
            let value = digits.parse::<i64>().ok()?;
            fits(value, type_oid).then_some(KeyDatum::Integer(value))?
        }
        Family::Text => KeyDatum::Text(text.to_owned()),
        Family::Uuid => KeyDatum::Uuid(uuid(text)?),
        Family::Date => KeyDatum::Date(iso_date(text)?),
    };
    sharding.accepts(&key).then_some(key)
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let dashes = [8, 13, 18, 23];
    if text.len() != 36 || dashes.iter().any(|i| text.as_bytes()[*i] != b'-') {
        return None;
    }
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(u128::to_be_bytes)
}

/// `YYYY-MM-DD`, which every DateStyle reads alike, as days since 2000-01-01.
fn iso_date(text: &str) -> Option<i32> {
    let b = text.as_bytes();
    if b.len() != 10 || b[4] != b'-' || b[7] != b'-' {
        return None;
    }
    let number = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        part.bytes()
            .all(|c| c.is_ascii_digit())
            .then(|| part.parse::<i32>().ok())?
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [
        31,
        if leap { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if year == 0 || day == 0 || day > length {
        return None;
    }
    // Days by the proleptic Gregorian calendar, from March so that leap days end a year.
    let (y, m) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1;
    Some(days - 730_425)
}

/// The elements of a one-dimensional array literal without quotes, escapes or NULL.
pub(super) fn simple_array(text: &str) -> Option<Vec<&str>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    if inner.contains(['"', '\\', '{', '}']) {
        return None;
    }
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    let elements: Vec<&str> = inner.split(',').map(str::trim).collect();
    let plain = |e: &&str| !e.is_empty() && !e.eq_ignore_ascii_case("null");
    elements.iter().all(plain).then_some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_dates_count_from_2000() {
        assert_eq!(iso_date("2000-01-01"), Some(0));
        assert_eq!(iso_date("1999-12-31"), Some(-1));
        assert_eq!(iso_date("2000-03-01"), Some(60));
        assert_eq!(iso_date("2024-02-29"), Some(8825));
        assert_eq!(iso_date("1900-02-29"), None);
        assert_eq!(iso_date("01/02/2000"), None);
    }

    #[test]
    fn array_literals_that_need_unquoting_are_left_alone() {
        assert_eq!(simple_array("{1, 2,3}"), Some(vec!["1", "2", "3"]));
        assert_eq!(simple_array("{}"), Some(vec![]));
        assert_eq!(simple_array("{1,NULL}"), None);
        assert_eq!(simple_array("{\"a\"}"), None);
        assert_eq!(simple_array("{{1},{2}}"), None);
    }

    #[test]
    fn uuids_in_their_usual_form() {
        let last = |t| uuid(t).map(|u| u[15]);
        assert_eq!(last("00000000-0000-0000-0000-0000000000FF"), Some(255));
        assert_eq!(last("{00000000-0000-0000-0000-0000000000ff}"), None);
    }
}
