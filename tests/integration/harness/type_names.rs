//! What the types of a server are called, and answers with names in place of what differs between servers: the OIDs of
//! user-defined types.

use std::collections::HashMap;

use super::client::{Client, Column, Reply};

pub type Row = Vec<Option<Vec<u8>>>;

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

    /// The rows with what differs between servers taken out.
    pub fn neutral_rows(&self, reply: &Reply) -> Vec<Row> {
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

    /// Name, type, modifier, length and format of each column.
    pub fn columns(&self, reply: &Reply) -> Vec<(String, String, i32, i16, i16)> {
        let column = |c: &Column| {
            let t = self.name(c.oid);
            (c.name.clone(), t, c.modifier, c.length, c.format)
        };
        reply.columns.iter().map(column).collect()
    }
}

/// A row for a message.
pub fn show(row: Option<&Row>) -> String {
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
