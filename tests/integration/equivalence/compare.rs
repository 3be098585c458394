//! Compares two replies: byte for byte, except for what must differ between servers (the OIDs of user-defined types).

use std::collections::HashMap;

use super::case::Case;
use crate::harness::client::Column;
use crate::harness::{Client, Reply};

type Row = Vec<Option<Vec<u8>>>;

/// OIDs below are PostgreSQL's own and the same everywhere.
const FIRST_USER_OID: u32 = 16_384;
/// Of the pseudo-type record.
const RECORD: u32 = 2249;

/// Kind and names of the types of one server, by OID.
pub struct TypeNames(HashMap<u32, TypeName>);

struct TypeName {
    name: String,
    /// OID of an array's elements, else 0.
    element: u32,
    composite: bool,
}

impl TypeNames {
    /// Reads them with the OIDs that this server gives to its clients.
    pub fn read(client: &mut Client) -> Self {
        let reply = client.query(
            "select oid, typname, case when typlen = -1 then typelem else 0 end, typtype from pg_catalog.pg_type",
        );
        assert!(reply.error.is_none(), "pg_type: {}", reply.complaint());
        let text = |v: &Option<Vec<u8>>| {
            String::from_utf8_lossy(v.as_ref().expect("not null")).into_owned()
        };
        let entry = |row: &Row| {
            let number = |n: usize| text(&row[n]).parse().expect("an OID");
            let name = TypeName {
                name: text(&row[1]),
                element: number(2),
                composite: text(&row[3]) == "c",
            };
            (number(0), name)
        };
        Self(reply.rows.iter().map(entry).collect())
    }

    fn name(&self, oid: u32) -> String {
        match self.0.get(&oid) {
            Some(t) if oid >= FIRST_USER_OID => t.name.clone(),
            _ => oid.to_string(),
        }
    }

    /// A binary value with the OIDs in it replaced by names.
    fn neutral(&self, oid: u32, value: &[u8]) -> Vec<u8> {
        let known = self.0.get(&oid);
        let neutral = match known {
            Some(t) if t.element != 0 => self.neutral_array(value),
            Some(t) if t.composite || oid == RECORD => self.neutral_record(value),
            _ => None,
        };
        neutral.unwrap_or_else(|| value.to_vec())
    }

    fn neutral_array(&self, value: &[u8]) -> Option<Vec<u8>> {
        let (head, rest) = value.split_first_chunk::<12>()?;
        let dimensions = i32::from_be_bytes(head[..4].try_into().ok()?);
        let element = u32::from_be_bytes(head[8..].try_into().ok()?);
        let (bounds, mut rest) = rest.split_at_checked(usize::try_from(dimensions).ok()? * 8)?;
        let mut out = [&head[..8], self.name(element).as_bytes(), bounds].concat();
        while !rest.is_empty() {
            rest = self.neutral_field(element, rest, &mut out)?;
        }
        Some(out)
    }

    fn neutral_record(&self, value: &[u8]) -> Option<Vec<u8>> {
        let (count, mut rest) = value.split_first_chunk::<4>()?;
        let mut out = count.to_vec();
        while !rest.is_empty() {
            let (oid, tail) = rest.split_first_chunk::<4>()?;
            let oid = u32::from_be_bytes(*oid);
            out.extend(self.name(oid).as_bytes());
            rest = self.neutral_field(oid, tail, &mut out)?;
        }
        Some(out)
    }

    fn neutral_field<'a>(&self, oid: u32, rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        out.extend(length);
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (value, tail) = tail.split_at_checked(length)?;
        out.extend(self.neutral(oid, value));
        Some(tail)
    }

    fn neutral_rows(&self, reply: &Reply) -> Vec<Row> {
        let value = |(c, v): (&Column, &Option<Vec<u8>>)| {
            let v = v.as_ref()?;
            Some(match c.format {
                1 => self.neutral(c.oid, v),
                _ => v.clone(),
            })
        };
        let row = |row: &Row| reply.columns.iter().zip(row).map(value).collect();
        reply.rows.iter().map(row).collect()
    }
}

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
    let (e, g) = (columns(expected, oracle), columns(given, target));
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

fn columns(reply: &Reply, types: &TypeNames) -> Vec<(String, String, i32, i16, i16)> {
    let column = |c: &Column| {
        let t = types.name(c.oid);
        (c.name.clone(), t, c.modifier, c.length, c.format)
    };
    reply.columns.iter().map(column).collect()
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

fn show(row: Option<&Row>) -> String {
    let Some(row) = row else {
        return "nothing".into();
    };
    let value = |v: &Option<Vec<u8>>| match v {
        None => "NULL".to_string(),
        Some(v) => v
            .escape_ascii()
            .take(80)
            .collect::<Vec<_>>()
            .into_iter()
            .map(char::from)
            .collect(),
    };
    row.iter().map(value).collect::<Vec<_>>().join(" | ")
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
