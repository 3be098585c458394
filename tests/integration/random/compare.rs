//! Runs a statement on the oracle and through pgbraid and says how the answers compare.

use std::io;

use super::ast::Statement;
use crate::harness::client::{bind, describe_or_close, execute, parse, sync};
use crate::harness::type_names::{Row, show};
use crate::harness::{Client, Reply, TypeNames, cluster, target};

const FLOAT8: u32 = 701;

/// How a statement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Simple,
    ExtendedText,
    ExtendedBinary,
    /// A named statement, run with other parameters first; binary results.
    Prepared,
    /// Execute with row limits.
    Portions,
    /// In a transaction block with one snapshot.
    Block,
}

/// What became of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The same rows, or the same SQLSTATE (the oracle's, with its message).
    Same(Option<String>),
    /// pgbraid says 0A000, and PostgreSQL does not.
    Refused(String),
    /// Not within the time given, on this side.
    Slow(&'static str),
    Different(Kind, String),
}

/// In which way answers differ: the shrinker keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Lost,
    /// The SQLSTATEs, the oracle's first; empty: an answer.
    Error(String, String),
    Columns,
    Tag,
    Rows,
    Sequence,
}

impl Outcome {
    /// True for outcomes that one simplification does not change.
    pub fn resembles(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Different(a, _), Self::Different(b, _)) => a == b,
            (a, b) => a == b,
        }
    }
}

/// A session on each side.
pub struct Pair {
    oracle: (Client, TypeNames),
    target: (Client, TypeNames),
}

impl Pair {
    pub fn connect() -> Self {
        let open = |port, timeout: &str| {
            let mut client = Client::connect(port, "app", "app").expect("login");
            let types = TypeNames::read(&mut client);
            client.query(&format!("set statement_timeout = '{timeout}'"));
            (client, types)
        };
        Self {
            oracle: open(cluster().oracle, "3s"),
            target: open(target(), "20s"),
        }
    }

    /// Runs a statement on both sides. Behind an outcome other than `Same` the sessions are new ones.
    pub fn run(&mut self, statement: &Statement, mode: Mode) -> Outcome {
        let outcome = self.run_on_both(statement, mode);
        if !matches!(outcome, Outcome::Same(None)) {
            *self = Self::connect();
        }
        outcome
    }

    fn run_on_both(&mut self, statement: &Statement, mode: Mode) -> Outcome {
        let expected = ask(&mut self.oracle.0, statement, mode).expect("the oracle lives");
        if expected.sqlstate().as_deref() == Some("57014") {
            return Outcome::Slow("oracle");
        }
        let given = match ask(&mut self.target.0, statement, mode) {
            Ok(given) => given,
            Err(e) => return Outcome::Different(Kind::Lost, e.to_string()),
        };
        match (expected.sqlstate(), given.sqlstate()) {
            (e, Some(g)) if g == "57014" && e.is_none() => return Outcome::Slow("pgbraid"),
            (e, Some(g)) if g == "0A000" && e.as_deref() != Some("0A000") => {
                let hint = given.error.as_ref().and_then(|e| e.field(b'H'));
                let complaint = given.complaint();
                return match hint.is_some_and(|h| !h.is_empty()) && given.rows.is_empty() {
                    true => Outcome::Refused(complaint),
                    false => Outcome::Different(Kind::Error(e.unwrap_or_default(), g), complaint),
                };
            }
            (e, g) if e != g => {
                let text = |r: &Reply| match &r.error {
                    Some(_) => r.complaint(),
                    None => format!("{} rows", r.rows.len()),
                };
                let message = format!("oracle: {}; pgbraid: {}", text(&expected), text(&given));
                let kind = Kind::Error(e.unwrap_or_default(), g.unwrap_or_default());
                return Outcome::Different(kind, message);
            }
            (Some(_), _) => return Outcome::Same(Some(expected.complaint())),
            _ => {}
        }
        match self.rows(statement, &expected, &given) {
            Some((kind, message)) => Outcome::Different(kind, message),
            None => Outcome::Same(None),
        }
    }

    fn rows(
        &self,
        statement: &Statement,
        expected: &Reply,
        given: &Reply,
    ) -> Option<(Kind, String)> {
        let (oracle, target) = (&self.oracle.1, &self.target.1);
        let (mut e, g) = (oracle.columns(expected), target.columns(given));
        for (e, g) in e.iter_mut().zip(&g).filter(|(_, g)| g.2 == -1) {
            // Folding constants may bring a modifier to light that the statement's analysis does not know of.
            e.2 = g.2;
        }
        if e != g {
            return Some((Kind::Columns, format!("oracle {e:?}\npgbraid {g:?}")));
        }
        if (&expected.tag, expected.status) != (&given.tag, given.status) {
            let message = format!("oracle {}, pgbraid {}", expected.tag, given.tag);
            return Some((Kind::Tag, message));
        }
        let (mut e, mut g) = (oracle.neutral_rows(expected), target.neutral_rows(given));
        unsign_nan(expected, &mut e);
        unsign_nan(given, &mut g);
        let in_sequence = statement.query.order.total;
        if !in_sequence {
            e.sort();
            g.sort();
        }
        let at = e.iter().zip(&g).position(|(e, g)| e != g)?;
        let message = format!(
            "{} rows; row {at}: oracle {}, pgbraid {}",
            e.len(),
            show(e.get(at)),
            show(g.get(at))
        );
        e.sort();
        g.sort();
        Some(match e == g {
            true => (Kind::Sequence, message),
            false => (Kind::Rows, message),
        })
    }
}

/// NaN has a sign that PostgreSQL neither compares nor prints, and that of a sum depends on the order of its rows.
fn unsign_nan(reply: &Reply, rows: &mut [Row]) {
    for (n, column) in reply.columns.iter().enumerate() {
        if column.oid != FLOAT8 || column.format == 0 {
            continue;
        }
        for value in rows.iter_mut().filter_map(|row| row[n].as_mut()) {
            let float = value.as_slice().try_into().map(f64::from_be_bytes);
            if float.is_ok_and(f64::is_nan) {
                *value = f64::NAN.to_be_bytes().to_vec();
            }
        }
    }
}

fn ask(client: &mut Client, statement: &Statement, mode: Mode) -> io::Result<Reply> {
    if mode == Mode::Simple {
        return client.try_query(&statement.sql(true));
    }
    if mode == Mode::Block {
        client.try_query("begin isolation level repeatable read")?;
        let reply = client.try_query(&statement.sql(true))?;
        client.try_query("commit")?;
        return Ok(reply);
    }
    let sql = statement.sql(false);
    let oids = statement.parameters.iter().map(|p| p.ty.parameter_oid());
    let oids: Vec<_> = oids.map(|oid| oid.unwrap_or(0)).collect();
    let text = |value: Option<&str>| (0, value.map(|v| v.as_bytes().to_vec()));
    let values = statement.parameters.iter().map(|p| text(p.value));
    let values: Vec<_> = values.collect();
    let format = i16::from(mode != Mode::ExtendedText);
    let describe = describe_or_close(b'D', b'P', "");
    if mode == Mode::Portions {
        let parts = [execute("", 3), execute("", 40), execute("", 0), sync()].concat();
        let start = [parse("", &sql, &oids), bind("", "", &values, &[format])];
        return round(client, &[start.concat(), describe, parts].concat());
    }
    if mode != Mode::Prepared {
        let start = [parse("", &sql, &oids), bind("", "", &values, &[format])];
        let rest = [describe, execute("", 0), sync()];
        return round(client, &[start.concat(), rest.concat()].concat());
    }
    let prepared = round(client, &[parse("s", &sql, &oids), sync()].concat())?;
    if prepared.error.is_some() {
        return Ok(prepared);
    }
    let others = statement.parameters.iter();
    let others: Vec<_> = others
        .map(|p| text(p.ty.literals().first().copied()))
        .collect();
    let rest = [describe, execute("", 0), sync()].concat();
    let once = [bind("", "s", &others, &[format]), rest.clone()].concat();
    let mut reply = round(client, &once)?;
    if reply.error.is_none() {
        let mut second = round(client, &[bind("", "s", &values, &[format]), rest].concat())?;
        second.rows.append(&mut reply.rows);
        reply = second;
    }
    round(
        client,
        &[describe_or_close(b'C', b'S', "s"), sync()].concat(),
    )?;
    Ok(reply)
}

fn round(client: &mut Client, bytes: &[u8]) -> io::Result<Reply> {
    client.send(bytes)?;
    Ok(Reply::of(&client.until_ready()?))
}
