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

/// Type and value of an integer expression over constants, as PostgreSQL computes it; `None` where that fails or is not plain.
pub(super) fn folded(
    node: &ast::Node,
    is_builtin: &dyn Fn(&[ast::Node], &str) -> bool,
) -> Option<(u32, i64)> {
    match &node.node {
        Some(Node::AConst(c)) => match c.val.as_ref()? {
            Val::Ival(i) => Some((oid::INT4, i64::from(i.ival))),
            Val::Fval(_) => Some((oid::INT8, integer(c)?)),
            _ => None,
        },
        Some(Node::TypeCast(t)) => {
            let to = builtin_type(t.type_name.as_ref()?)?;
            let arg = t.arg.as_deref()?;
            let value = match &arg.node {
                Some(Node::AConst(ast::AConst {
                    val: Some(Val::Sval(s)),
                    ..
                })) => digits(&s.sval)?,
                _ => folded(arg, is_builtin)?.1,
            };
            let integer = family(to) == Some(Family::Integer);
            (integer && fits(value, to)).then_some((to, value))
        }
        Some(Node::AExpr(e)) if e.kind == ast::AExprKind::AexprOp as i32 => {
            let operators = ["+", "-", "*", "/", "%"];
            let operator = operators.iter().find(|o| is_builtin(&e.name, o))?;
            let (of_right, right) = folded(e.rexpr.as_deref()?, is_builtin)?;
            let (of_left, left) = match e.lexpr.as_deref() {
                Some(left) => folded(left, is_builtin)?,
                None if matches!(*operator, "+" | "-") => (of_right, 0),
                None => return None,
            };
            let value = match *operator {
                "+" => left.checked_add(right)?,
                "-" => left.checked_sub(right)?,
                "*" => left.checked_mul(right)?,
                "/" => left.checked_div(right)?,
                _ => left.checked_rem(right)?,
            };
            let wider = [oid::INT8, oid::INT4]
                .into_iter()
                .find(|t| of_left == *t || of_right == *t);
            let to = wider.unwrap_or(oid::INT2);
            fits(value, to).then_some((to, value))
        }
        _ => None,
    }
}

fn digits(text: &str) -> Option<i64> {
    let digits = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    digits.parse().ok()
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
            let value = digits(text)?;
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
    fn integers_are_computed_as_postgresql_does() {
        let fold = |text: &str| {
            let sql = format!("select {text}");
            let Node::SelectStmt(s) = crate::sql::parse(&sql).unwrap().remove(0).node else {
                panic!("{sql}");
            };
            let Some(Node::ResTarget(t)) = &s.target_list[0].node else {
                panic!("{sql}");
            };
            let is = |name: &[ast::Node], op: &str| matches!(&name[0].node, Some(Node::String(s)) if s.sval == op);
            folded(t.val.as_deref().unwrap(), &is)
        };
        assert_eq!(fold("40 + 2"), Some((oid::INT4, 42)));
        assert_eq!(fold("-7 / 2 + 45"), Some((oid::INT4, 42)));
        assert_eq!(fold("-7 % 4"), Some((oid::INT4, -3)));
        assert_eq!(fold("- (-42)"), Some((oid::INT4, 42)));
        assert_eq!(
            fold("(40 + 2)::bigint * '2'::smallint"),
            Some((oid::INT8, 84))
        );
        assert_eq!(fold("2147483647 + 1"), None);
        assert_eq!(fold("2147483648 + 1"), Some((oid::INT8, 2_147_483_649)));
        assert_eq!(fold("9223372036854775807 + 1"), None);
        assert_eq!(fold("5 / 0"), None);
        assert_eq!(fold("40000::smallint"), None);
        assert_eq!(fold("1e1"), None);
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
