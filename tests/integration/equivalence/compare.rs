//! Compares two replies: byte for byte, except for what must differ between servers (the OIDs of user-defined types).

use std::collections::HashMap;

use super::case::Case;
use crate::harness::type_names::{Row, show};
use crate::harness::{Reply, TypeNames};

/// How the target's reply differs from the oracle's; `superset` are the rows of the case's `subset-of`.
pub fn difference(
    case: &Case,
    (expected, oracle): (&Reply, &TypeNames),
    (given, target): (&Reply, &TypeNames),
    superset: Option<Vec<Row>>,
) -> Option<String> {
    if expected.sqlstate() != given.sqlstate() {
        let or = |r: &Reply| match &r.error {
            Some(_) => r.complaint(),
            None => format!("{} rows", r.rows.len()),
        };
        return Some(format!("oracle: {}; given: {}", or(expected), or(given)));
    }
    if let (Some(e), Some(g)) = (&expected.error, &given.error) {
        if case.any_message {
            return None;
        }
        let differs = |code: &&u8| e.field(**code) != g.field(**code);
        let field = *b"MPSV".iter().find(differs)?;
        return Some(format!(
            "error field {}: oracle {:?}, given {:?}",
            field as char,
            e.field(field),
            g.field(field)
        ));
    }
    let (e, g) = (oracle.columns(expected), target.columns(given));
    if e != g {
        return Some(format!("columns: oracle {e:?}\n            given  {g:?}"));
    }
    if expected.tag != given.tag {
        return Some(format!("tag: oracle {}, given {}", expected.tag, given.tag));
    }
    if expected.status != given.status {
        return Some("another transaction status".into());
    }
    if case.volatile {
        return (expected.rows.len() != given.rows.len()).then(|| "another number of rows".into());
    }
    let (e, g) = (oracle.neutral_rows(expected), target.neutral_rows(given));
    match superset {
        // The superset is text: cases of this kind select text or are compared in number.
        Some(superset) if expected.columns.iter().all(|c| c.format == 0) => subset(g, superset),
        Some(_) => (e.len() != g.len()).then(|| "another number of rows".into()),
        None => rows(case, e, g),
    }
}

fn rows(case: &Case, mut expected: Vec<Row>, mut given: Vec<Row>) -> Option<String> {
    let ordered = is_ordered(&case.sql);
    if !ordered {
        expected.sort();
        given.sort();
    }
    if expected == given {
        return None;
    }
    let at = expected.iter().zip(&given).position(|(e, g)| e != g);
    let at = at.unwrap_or(expected.len().min(given.len()));
    Some(format!(
        "{} rows, given {}; row {at} {}: oracle {}, given {}",
        expected.len(),
        given.len(),
        if ordered {
            "in order"
        } else {
            "sorted by bytes"
        },
        show(expected.get(at)),
        show(given.get(at))
    ))
}

/// `given` must be among `superset`, each row at most as often as there.
fn subset(given: Vec<Row>, superset: Vec<Row>) -> Option<String> {
    let mut left: HashMap<Row, usize> = HashMap::new();
    for row in superset {
        *left.entry(row).or_default() += 1;
    }
    for row in given {
        match left.get_mut(&row) {
            Some(n @ 1..) => *n -= 1,
            _ => return Some(format!("a row that cannot be: {}", show(Some(&row)))),
        }
    }
    None
}

/// True with an ORDER BY outside all parentheses: rows are compared in sequence, so a case's order must be total.
fn is_ordered(sql: &str) -> bool {
    let (mut depth, mut top) = (0, String::new());
    let mut quote = None;
    for c in sql.chars() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, c) if depth == 0 => top.push(c.to_ascii_lowercase()),
            (None, _) => {}
        }
    }
    let words: Vec<_> = top.split_whitespace().collect();
    words.windows(2).any(|w| w == ["order", "by"])
}
