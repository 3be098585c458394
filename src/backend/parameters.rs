//! What a server reports of its settings (ParameterStatus), as last reported.

use super::raw_conn::RawConn;
use crate::protocol::messages::Reader;

/// Parameters a server may report. PostgreSQL has 15, extensions add a few.
const PARAMETERS_MAX: usize = 100;

/// Names and values, in the order of their first report.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Takes the body of a ParameterStatus.
    ///
    /// # Errors
    /// Why no server sends this.
    pub(super) fn note(&mut self, body: &[u8]) -> Result<(), &'static str> {
        let mut reader = Reader(body);
        let (Some(name), Some(value)) = (reader.cstr(), reader.cstr()) else {
            return Err("malformed ParameterStatus");
        };
        let name = String::from_utf8_lossy(name);
        let value = String::from_utf8_lossy(value).into_owned();
        if let Some((_, known)) = self.0.iter_mut().find(|(n, _)| *n == name) {
            *known = value;
        } else if self.0.len() < PARAMETERS_MAX {
            self.0.push((name.into_owned(), value));
        } else {
            return Err("too many parameters");
        }
        Ok(())
    }

    pub(super) fn all(&self) -> &[(String, String)] {
        &self.0
    }
}

impl RawConn {
    /// Values of ParameterStatus as last reported.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut known = self.parameters.all().iter();
        known.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All of them, in the order of their first report.
    pub fn parameters(&self) -> &[(String, String)] {
        self.parameters.all()
    }
}
