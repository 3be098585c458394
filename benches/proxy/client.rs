//! A client that throws rows away as fast as they come: its own cost must not hold back what is measured.

use std::io::Write;
use std::ops::Range;

use bytes::{BufMut, BytesMut};
use pgbraid::protocol::messages;

use crate::wire::{self, Result, Wire};

pub const USER: &str = "bench";

/// A logged-in connection.
pub struct Client(Wire);

/// What a query gave.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer {
    pub rows: u64,
    /// The first columns never went down. Of text values: as text, which is the same when all are of one length.
    pub ordered: bool,
}

impl Client {
    pub fn connect(port: u16) -> Result<Self> {
        let startup = wire::startup(USER, USER);
        Ok(Self(Wire::connect(("127.0.0.1", port), &startup)?.0))
    }

    /// Prepares a statement with int8 parameters under a name.
    pub fn prepare(&mut self, name: &str, sql: &str, parameters: usize) -> Result<()> {
        let mut out = BytesMut::new();
        messages::parse(name, sql, &vec![20; parameters], &mut out);
        messages::sync(&mut out);
        self.exchange(&out).map(drop)
    }

    /// Binds, executes and drains a prepared statement, all columns in `format`.
    pub fn execute(&mut self, name: &str, parameters: &[i64], format: i16) -> Result<Answer> {
        let mut out = BytesMut::new();
        execution(name, parameters, format, &mut out);
        self.exchange(&out)
    }

    /// Executes a prepared statement for many keys without waiting, each with its own Sync; the rows of all.
    pub fn pipeline(&mut self, name: &str, keys: Range<i64>) -> Result<u64> {
        let count = keys.end - keys.start;
        let mut out = BytesMut::new();
        keys.for_each(|key| execution(name, &[key], 1, &mut out));
        let mut stream = self.0.stream.try_clone()?;
        let sender = std::thread::spawn(move || stream.write_all(&out));
        let mut rows = 0;
        for _ in 0..count {
            rows += self.exchange(&[])?.rows;
        }
        sender.join().map_err(|_| "the sender panicked")??;
        Ok(rows)
    }

    /// Prepares, executes and drains.
    pub fn query(&mut self, sql: &str, format: i16) -> Result<Answer> {
        self.prepare("", sql, 0)?;
        self.execute("", &[], format)
    }

    /// Runs a statement without looking for rows.
    pub fn simple(&mut self, sql: &str) -> Result<Answer> {
        let mut out = BytesMut::new();
        messages::query(sql, &mut out);
        self.exchange(&out)
    }

    fn exchange(&mut self, out: &[u8]) -> Result<Answer> {
        self.0.stream.write_all(out)?;
        let mut answer = Answer {
            rows: 0,
            ordered: true,
        };
        let mut last = Vec::new();
        let mut error = None;
        loop {
            let header = self.0.peek(5)?;
            let (tag, length) = (header[0], wire::length(&header[1..5]) + 1);
            let body = &self.0.peek(length)?[5..length];
            match tag {
                b'D' => {
                    answer.rows += 1;
                    let first = first_column(body);
                    answer.ordered &= last.as_slice() <= first;
                    last.clear();
                    last.extend_from_slice(first);
                }
                b'E' => error = Some(wire::error_text(body)),
                _ => {}
            }
            self.0.consume(length);
            if tag == b'Z' {
                return error.map_or(Ok(answer), |e| Err(e.into()));
            }
        }
    }
}

/// Bind, Execute and Sync; all columns in `format`.
fn execution(name: &str, parameters: &[i64], format: i16, out: &mut BytesMut) {
    messages::frame(b'B', out, |out| {
        out.put_u8(0);
        out.put_slice(name.as_bytes());
        out.put_slice(&[0, 0, 1, 0, 1]);
        out.put_u16(parameters.len() as u16);
        for parameter in parameters {
            out.put_u32(8);
            out.put_i64(*parameter);
        }
        out.put_slice(&[0, 1]);
        out.put_i16(format);
    });
    messages::execute("", 0, out);
    messages::sync(out);
}

fn first_column(row: &[u8]) -> &[u8] {
    let value = row
        .get(2..6)
        .map(wire::length)
        .and_then(|n| row.get(6..6 + n));
    value.unwrap_or_default()
}
