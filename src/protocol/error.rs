//! ErrorResponse and NoticeResponse: a server's fields kept whole, and errors the proxy makes.

use bytes::{BufMut, Bytes, BytesMut};

use super::sqlstate;
use crate::metrics::Reason;

/// An error as the protocol carries it: one-byte field codes with their texts, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    fields: Vec<(u8, Bytes)>,
    /// Not on the wire.
    reason: Option<Reason>,
}

impl ServerError {
    /// Makes an ERROR of our own.
    pub fn new(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::with_severity("ERROR", sqlstate, message)
    }

    /// Makes a FATAL error of our own: the connection ends behind it.
    pub fn fatal(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::with_severity("FATAL", sqlstate, message)
    }

    /// Makes the ERROR (0A000) of a statement that pgbraid refuses.
    pub fn refusal(reason: Reason, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(sqlstate::FEATURE_NOT_SUPPORTED, message);
        refusal.reason = Some(reason);
        refusal
    }

    fn with_severity(severity: &str, sqlstate: &str, message: impl Into<String>) -> Self {
        let text = |s: &str| Bytes::copy_from_slice(s.as_bytes());
        Self {
            fields: vec![
                (b'S', text(severity)),
                (b'V', text(severity)),
                (b'C', text(sqlstate)),
                (b'M', text(&message.into())),
            ],
            reason: None,
        }
    }

    /// Reads the body of an ErrorResponse or NoticeResponse (behind tag and length). Fields after a malformed one are lost.
    pub fn parse(body: &[u8]) -> Self {
        let mut fields = Vec::with_capacity(10);
        let mut rest = body;
        while let Some((&code, tail)) = rest.split_first() {
            if code == 0 {
                break;
            }
            let Some(end) = memchr::memchr(0, tail) else {
                break;
            };
            fields.push((code, Bytes::copy_from_slice(&tail[..end])));
            rest = &tail[end + 1..];
        }
        Self {
            fields,
            reason: None,
        }
    }

    /// The text of a field, lossily as UTF-8.
    pub fn field(&self, code: u8) -> Option<std::borrow::Cow<'_, str>> {
        self.fields
            .iter()
            .find(|(c, _)| *c == code)
            .map(|(_, v)| String::from_utf8_lossy(v))
    }

    /// Field `C`; empty where a server sent none.
    pub fn sqlstate(&self) -> String {
        self.field(b'C').map(|s| s.into_owned()).unwrap_or_default()
    }

    /// Why pgbraid refuses the statement; `None` for all other errors.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Field `M`; empty where a server sent none.
    pub fn message(&self) -> String {
        self.field(b'M').map(|s| s.into_owned()).unwrap_or_default()
    }

    /// True for FATAL and PANIC: the server closes the connection.
    pub fn is_fatal(&self) -> bool {
        self.field(b'V')
            .or_else(|| self.field(b'S'))
            .is_some_and(|s| s == "FATAL" || s == "PANIC")
    }

    /// Sets or replaces a field.
    #[must_use]
    pub fn with(mut self, code: u8, text: impl Into<String>) -> Self {
        let value = Bytes::from(text.into().into_bytes());
        match self.fields.iter_mut().find(|(c, _)| *c == code) {
            Some((_, v)) => *v = value,
            None => self.fields.push((code, value)),
        }
        self
    }

    /// Sets DETAIL.
    #[must_use]
    pub fn with_detail(self, text: impl Into<String>) -> Self {
        self.with(b'D', text)
    }

    /// Sets HINT.
    #[must_use]
    pub fn with_hint(self, text: impl Into<String>) -> Self {
        self.with(b'H', text)
    }

    /// Sets the 1-based character position in the client's statement.
    #[must_use]
    pub fn with_position(self, characters: usize) -> Self {
        self.with(b'P', characters.to_string())
    }

    /// Takes a field away (a position that belongs to a rewritten text).
    #[must_use]
    pub fn without(mut self, code: u8) -> Self {
        self.fields.retain(|(c, _)| *c != code);
        self
    }

    /// The same with every text made another.
    #[must_use]
    pub fn map(&self, text: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let fields = self.fields.iter();
        Self {
            fields: fields.map(|(c, v)| (*c, Bytes::from(text(v)))).collect(),
            reason: self.reason,
        }
    }

    /// Adds which shard said it, on a line of its own behind what DETAIL already says.
    #[must_use]
    pub fn on_shard(self, shard: &str) -> Self {
        let detail = match self.field(b'D') {
            Some(d) => format!("{d}\nShard: {shard}"),
            None => format!("Shard: {shard}"),
        };
        self.with_detail(detail)
    }

    /// Appends the whole message; `tag` is `E` or `N`.
    pub fn encode(&self, tag: u8, out: &mut BytesMut) {
        let body: usize = self.fields.iter().map(|(_, v)| v.len() + 2).sum::<usize>() + 1;
        out.put_u8(tag);
        out.put_i32(body as i32 + 4);
        for (code, value) in &self.fields {
            out.put_u8(*code);
            out.put_slice(value);
            out.put_u8(0);
        }
        out.put_u8(0);
    }
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.sqlstate(), self.message())
    }
}

impl std::error::Error for ServerError {}
