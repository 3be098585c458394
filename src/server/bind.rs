//! The bodies of Parse, Bind, Describe and Close, read without copying what is only looked at.

use std::sync::Arc;

use bytes::Bytes;

use super::prepared::Prepared;
use crate::executor::Parameters;
use crate::protocol::error::ServerError;
use crate::protocol::messages::{ColumnDescription, Reader};
use crate::protocol::sqlstate;

/// Names and SQL must be UTF-8; elsewhere bytes go through untouched.
pub fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Parse: name, text, parameter types.
pub fn read_parse(body: &[u8]) -> Option<(&str, &str, Vec<u32>)> {
    let mut r = Reader(body);
    let (name, sql) = (text(r.cstr()?)?, text(r.cstr()?)?);
    let count = r.i16()? as u16;
    let types = (0..count).map(|_| r.u32()).collect::<Option<Vec<_>>>()?;
    r.0.is_empty().then_some((name, sql, types))
}

/// Describe and Close: `S`tatement or `P`ortal, and its name.
pub fn read_kind_and_name(body: &[u8]) -> Option<(u8, &str)> {
    let mut r = Reader(body);
    let (kind, name) = (r.u8()?, text(r.cstr()?)?);
    r.0.is_empty().then_some((kind, name))
}

/// A list of format codes: none, one for all, or one for each.
#[derive(Debug, Clone, Copy)]
pub struct Formats<'a>(&'a [u8]);

impl<'a> Formats<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let bytes = usize::from(r.i16()? as u16) * 2;
        let (codes, rest) = r.0.split_at_checked(bytes)?;
        r.0 = rest;
        Some(Self(codes))
    }

    fn codes(self) -> impl ExactSizeIterator<Item = i16> + 'a {
        let pairs = self.0.chunks_exact(2);
        pairs.map(|pair| i16::from_be_bytes([pair[0], pair[1]]))
    }

    /// The code of all `count` things where they have one code, else `None`.
    ///
    /// # Errors
    /// 08P01 for a list of another length, 22023 for a code that is neither 0 nor 1.
    fn of_all(self, count: usize, what: &str) -> Result<Option<i16>, ServerError> {
        let given = self.codes().len();
        if given > 1 && given != count {
            let message = format!("bind message has {given} {what} formats but {count} {what}s");
            return Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, message));
        }
        if let Some(bad) = self.codes().find(|code| !(0..=1).contains(code)) {
            let message = format!("unsupported format code: {bad}");
            return Err(ServerError::new("22023", message));
        }
        let first = self.codes().next().unwrap_or(0);
        Ok(self.codes().all(|code| code == first).then_some(first))
    }

    /// One code for each of `count` things.
    ///
    /// # Errors
    /// As `of_all`.
    pub fn spread(self, count: usize, what: &str) -> Result<Vec<i16>, ServerError> {
        Ok(match self.of_all(count, what)? {
            Some(code) => vec![code; count],
            None => self.codes().collect(),
        })
    }
}

/// A Bind message.
#[derive(Debug)]
pub struct Bind<'a> {
    pub portal: &'a str,
    pub statement: &'a str,
    /// What follows the statement's name.
    pub rest: &'a [u8],
    parameter_formats: Formats<'a>,
    values: Vec<Option<Bytes>>,
    result_formats: Formats<'a>,
}

impl<'a> Bind<'a> {
    /// `None` when the body is malformed.
    pub fn read(body: &'a Bytes) -> Option<Self> {
        let mut r = Reader(body);
        let (portal, statement) = (text(r.cstr()?)?, text(r.cstr()?)?);
        let rest = r.0;
        let parameter_formats = Formats::read(&mut r)?;
        let count = usize::from(r.i16()? as u16);
        // A value takes four bytes at least: no more room than a body of this size can fill.
        let mut values = Vec::with_capacity(count.min(r.0.len() / 4));
        for _ in 0..count {
            values.push(r.value()?.map(|v| body.slice_ref(v)));
        }
        let result_formats = Formats::read(&mut r)?;
        r.0.is_empty().then_some(Self {
            portal,
            statement,
            rest,
            parameter_formats,
            values,
            result_formats,
        })
    }

    /// The result columns in the formats asked for.
    ///
    /// # Errors
    /// As [`Formats::spread`].
    pub fn columns(
        &self,
        prepared: &Prepared,
    ) -> Result<Option<Arc<[ColumnDescription]>>, ServerError> {
        let Some(columns) = &prepared.columns else {
            return Ok(None);
        };
        Ok(Some(
            match self.result_formats.of_all(columns.len(), "result")? {
                Some(0) => columns.clone(),
                Some(_) => prepared.binary_columns(columns).clone(),
                None => with_formats(columns, self.result_formats.codes()),
            },
        ))
    }

    /// It brings values for parameters.
    pub fn has_values(&self) -> bool {
        !self.values.is_empty()
    }

    /// Format codes of the result: none, one for all columns, or one for each.
    pub fn result_formats(&self) -> Vec<i16> {
        self.result_formats.codes().collect()
    }

    /// The values.
    ///
    /// # Errors
    /// 08P01 when there are more or fewer than the statement has; else as [`Formats::spread`].
    pub fn parameters(self, prepared: &Prepared) -> Result<Parameters, ServerError> {
        let expected = prepared.parameter_types.len();
        if self.values.len() != expected {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires {expected}",
                self.values.len(),
                self.statement
            );
            return Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, message));
        }
        Ok(Parameters {
            types: prepared.parameter_types.clone(),
            formats: self.parameter_formats.spread(expected, "parameter")?,
            values: self.values,
        })
    }
}

/// The columns in other formats.
pub fn with_formats(
    columns: &[ColumnDescription],
    formats: impl Iterator<Item = i16>,
) -> Arc<[ColumnDescription]> {
    let pairs = columns.iter().zip(formats);
    pairs
        .map(|(column, format)| ColumnDescription {
            format,
            ..column.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(formats: &[i16], count: usize) -> Result<Vec<i16>, ServerError> {
        let bytes: Vec<u8> = formats.iter().flat_map(|f| f.to_be_bytes()).collect();
        Formats(&bytes).spread(count, "result")
    }

    #[test]
    fn formats_spread_over_columns() {
        assert_eq!(spread(&[], 2).unwrap(), [0, 0]);
        assert_eq!(spread(&[1], 2).unwrap(), [1, 1]);
        assert_eq!(spread(&[1, 0], 2).unwrap(), [1, 0]);
        assert!(spread(&[1, 0, 1], 2).is_err());
        assert!(spread(&[2], 1).is_err());
    }

    #[test]
    fn malformed_bodies_are_told_apart_from_short_ones() {
        assert!(read_parse(b"\0select 1\0\0\0").is_some());
        assert!(read_parse(b"\0select 1\0\0\x01").is_none());
        assert!(Bind::read(&Bytes::from_static(b"\0\0\0\0\0\0\0\0")).is_some());
        let short = b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0";
        assert!(Bind::read(&Bytes::from_static(short)).is_none());
        let many_formats_of_nothing = b"\0\0\xff\xff\0\x01\0\0\0\0";
        assert!(Bind::read(&Bytes::from_static(many_formats_of_nothing)).is_none());
    }
}
