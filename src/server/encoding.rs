//! Clients that do not speak UTF8: their messages are converted when they come, replies when they go. Shards, and all between,
//! speak UTF8.

use bytes::{BufMut, Bytes, BytesMut};

use super::run::unsupported;
use super::session::Session;
use super::stream::{Client, Message};
use crate::backend::raw_conn::Run;
use crate::catalog::Catalog;
use crate::executor::Item;
use crate::metrics::Reason;
use crate::protocol::error::ServerError;
use crate::protocol::messages::{self, ColumnDescription, Reader};
use crate::protocol::sqlstate;
use crate::types::encoding::{Encoding, Untranslatable, Unusable};
use crate::types::oid;

/// How the binary form of a type's values depends on the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BinaryForm {
    Same,
    /// All text but for so many bytes at the start.
    TextBehind(usize),
    /// Text is somewhere within.
    Unknown,
}

fn binary_form(type_oid: u32, catalog: Option<&Catalog>) -> BinaryForm {
    let kind = |oid: u32| catalog.and_then(|c| c.types.get(&oid)).map(|t| t.kind);
    match type_oid {
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::JSON | 705 | 2275 => {
            BinaryForm::TextBehind(0)
        }
        oid::JSONB => BinaryForm::TextBehind(1),
        oid::BOOL | oid::BYTEA | oid::CHAR | oid::INT8 | oid::INT2 | oid::INT4 | oid::OID => {
            BinaryForm::Same
        }
        oid::FLOAT4 | oid::FLOAT8 | oid::MONEY | oid::NUMERIC | oid::UUID | oid::PG_LSN => {
            BinaryForm::Same
        }
        oid::DATE | oid::TIME | oid::TIMETZ | oid::TIMESTAMP | oid::TIMESTAMPTZ => BinaryForm::Same,
        oid::INTERVAL | oid::INET | oid::CIDR | oid::MACADDR | oid::MACADDR8 => BinaryForm::Same,
        oid::BIT | oid::VARBIT | oid::XID8 | 28 | 29 | 2278 => BinaryForm::Same,
        oid::INT2_ARRAY | oid::INT4_ARRAY | oid::INT8_ARRAY | oid::UUID_ARRAY | oid::DATE_ARRAY => {
            BinaryForm::Same
        }
        1000 | 1021 | 1022 | 1028 | 1115 | 1183 | 1185 | 1231 | oid::BYTEA_ARRAY => {
            BinaryForm::Same
        }
        _ if oid::REG_TYPES.contains(&type_oid) => BinaryForm::Same,
        _ if kind(type_oid) == Some(b'e') => BinaryForm::TextBehind(0),
        _ => BinaryForm::Unknown,
    }
}

fn no_binary(encoding: &Encoding) -> ServerError {
    unsupported(
        Reason::Encoding,
        format!(
            "binary values of this type are not supported with client_encoding \"{}\"",
            encoding.name()
        ),
        "Use client_encoding = UTF8, or the text form.",
    )
}

/// PostgreSQL's error for a character that has no equivalent.
fn untranslatable(Untranslatable(bytes): Untranslatable, from: &str, to: &str) -> ServerError {
    let bytes: Vec<String> = bytes.iter().map(|b| format!("0x{b:02x}")).collect();
    ServerError::new(
        "22P05",
        format!(
            "character with byte sequence {} in encoding \"{from}\" has no equivalent in encoding \"{to}\"",
            bytes.join(" ")
        ),
    )
}

/// PostgreSQL's error for a text that is not UTF8: the bytes of the character where it breaks.
pub fn invalid_utf8(text: &[u8]) -> ServerError {
    let start = std::str::from_utf8(text).map_or_else(|e| e.valid_up_to(), str::len);
    let broken = text.get(start..).unwrap_or_default();
    let length = match broken.first() {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => 4,
        _ => 1,
    };
    let broken: Vec<String> = broken
        .iter()
        .take(length)
        .map(|b| format!("0x{b:02x}"))
        .collect();
    let message = format!(
        "invalid byte sequence for encoding \"UTF8\": {}",
        broken.join(" ")
    );
    ServerError::new(sqlstate::CHARACTER_NOT_IN_REPERTOIRE, message)
}

/// The encoding of a name.
///
/// # Errors
/// 22023 for a name that nobody knows, 0A000 for an encoding of several bytes a character.
pub fn named(name: &str) -> Result<&'static Encoding, ServerError> {
    Encoding::named(name).map_err(|why| match why {
        Unusable::Unknown => ServerError::new(
            "22023",
            format!("invalid value for parameter \"client_encoding\": \"{name}\""),
        ),
        Unusable::Unsupported => unsupported(
            Reason::Encoding,
            format!("client encoding \"{name}\" is not supported"),
            "Use client_encoding = UTF8.",
        ),
    })
}

/// COPY data would have to be converted too.
pub fn no_copy() -> ServerError {
    unsupported(
        Reason::Encoding,
        "COPY is not supported with this client_encoding",
        "Use client_encoding = UTF8.",
    )
}

/// Queues an error for the client.
pub fn send_error(client: &mut Client, error: &ServerError) {
    match client.encoding {
        Some(encoding) => error
            .map(|text| encoding.encode_lossy(text))
            .encode(b'E', client.out()),
        None => error.encode(b'E', client.out()),
    }
}

/// Queues a notice for the client.
pub fn send_notice(client: &mut Client, notice: &ServerError) {
    match client.encoding {
        Some(encoding) => notice
            .map(|text| encoding.encode_lossy(text))
            .encode(b'N', client.out()),
        None => notice.encode(b'N', client.out()),
    }
}

impl Session {
    /// Takes the encoding over from the settings, and tells the client.
    pub fn follow_encoding(&mut self) {
        let encoding = self.settings.get("client_encoding").unwrap_or("UTF8");
        let Ok(encoding) = Encoding::named(encoding) else {
            return;
        };
        self.client.encoding = encoding.converts().then_some(encoding);
        self.report("client_encoding", encoding.name());
    }

    /// SET client_encoding; `None` goes back to what the client asked for when it came.
    ///
    /// # Errors
    /// 22023 or 0A000 for encodings that are not spoken, 0A000 for SET LOCAL.
    pub fn set_encoding(&mut self, value: Option<&str>, local: bool) -> Result<(), ServerError> {
        let value = value
            .or_else(|| self.startup.get("client_encoding"))
            .unwrap_or("UTF8");
        let encoding = named(value)?;
        let before = self.settings.clone();
        match encoding.name() {
            "UTF8" => self.settings.remove("client_encoding"),
            name => self.settings.set("client_encoding", name.into()),
        }
        if local && before != self.settings {
            self.settings = before;
            return Err(unsupported(
                Reason::Encoding,
                "SET LOCAL client_encoding is not supported",
                "Use SET client_encoding.",
            ));
        }
        if self.transaction.block == super::transaction::Block::Idle {
            self.before_pipeline.get_or_insert(before);
        }
        self.follow_encoding();
        Ok(())
    }

    /// True for the start of a COPY whose data would have to be converted.
    pub fn cannot_copy(&self, item: &Item) -> bool {
        let starts = match item {
            Item::CopyIn(_) => true,
            Item::Forward(frame) => frame.first() == Some(&b'H'),
            _ => false,
        };
        starts && self.client.encoding.is_some()
    }

    /// On shards the client's encoding is always UTF8.
    ///
    /// # Errors
    /// 0A000 for a statement that may ask for it, where it is not.
    pub fn refuse_encoding_functions(&self, sql: &str) -> Result<(), ServerError> {
        let asked = self.settings.get("client_encoding").is_some()
            && sql.to_ascii_lowercase().contains("client_encoding");
        match asked {
            true => Err(unsupported(
                Reason::Encoding,
                "functions of the client's encoding are not supported",
                "Use SHOW client_encoding.",
            )),
            false => Ok(()),
        }
    }

    /// A client's message in UTF8.
    ///
    /// # Errors
    /// 22P05 for bytes that mean nothing, 0A000 for binary values that cannot be converted.
    pub fn decoded(&self, message: Message) -> Result<Message, ServerError> {
        let Some(encoding) = self.client.encoding else {
            return match message.tag {
                // A broken text is not a broken message.
                b'P' if std::str::from_utf8(strings(&message.body)).is_err() => {
                    Err(invalid_utf8(strings(&message.body)))
                }
                _ => Ok(message),
            };
        };
        let body = match message.tag {
            b'Q' | b'P' | b'D' | b'C' | b'E' | b'B' => &message.body,
            _ => return Ok(message),
        };
        let text = |bytes: &[u8]| {
            let from = encoding.name();
            encoding
                .decode(bytes)
                .map_err(|e| untranslatable(e, from, "UTF8"))
        };
        let mut out = BytesMut::with_capacity(body.len() + 16);
        let mut reader = Reader(body);
        if matches!(message.tag, b'D' | b'C')
            && let Some(kind) = reader.u8()
        {
            out.put_u8(kind);
        }
        let strings = if matches!(message.tag, b'P' | b'B') {
            2
        } else {
            1
        };
        let mut last = Vec::new();
        for _ in 0..strings {
            let Some(string) = reader.cstr() else {
                // Malformed: whoever reads it says so.
                return Ok(message);
            };
            last = text(string)?;
            out.extend_from_slice(&last);
            out.put_u8(0);
        }
        let rest = reader.0;
        if message.tag != b'B' {
            out.extend_from_slice(rest);
        } else {
            let statement = self.statements.get(&*String::from_utf8_lossy(&last));
            let types = statement.map_or(&[][..], |s| &s.parameter_types);
            match self.decoded_values(encoding, rest, types)? {
                Some(values) => out.extend_from_slice(&values),
                None => return Ok(message),
            }
        }
        Ok(Message {
            tag: message.tag,
            body: out.freeze(),
        })
    }

    /// What of a Bind follows the names; `None` where it is malformed.
    fn decoded_values(
        &self,
        encoding: &Encoding,
        body: &[u8],
        types: &[u32],
    ) -> Result<Option<BytesMut>, ServerError> {
        let loaded = self.shared.catalog.loaded();
        let catalog = loaded.as_ref().map(|l| &*l.catalog);
        let mut reader = Reader(body);
        let mut read = || {
            let formats = reader.i16()? as u16;
            let formats = (0..formats)
                .map(|_| reader.i16())
                .collect::<Option<Vec<_>>>()?;
            let count = reader.i16()? as u16;
            let values = (0..count)
                .map(|_| reader.value())
                .collect::<Option<Vec<_>>>()?;
            Some((formats, values))
        };
        let Some((formats, values)) = read() else {
            return Ok(None);
        };
        let rest = reader.0;
        let mut out = BytesMut::with_capacity(body.len() + 16);
        out.put_i16(formats.len() as i16);
        formats.iter().for_each(|f| out.put_i16(*f));
        out.put_i16(values.len() as i16);
        for (at, value) in values.iter().enumerate() {
            let Some(value) = value else {
                out.put_i32(-1);
                continue;
            };
            let format = match formats[..] {
                [one] => one,
                _ => formats.get(at).copied().unwrap_or(0),
            };
            let form = match (format, types.get(at)) {
                (0, _) => BinaryForm::TextBehind(0),
                (_, Some(t)) => binary_form(*t, catalog),
                (_, None) => BinaryForm::Unknown,
            };
            let skip = match form {
                BinaryForm::Same => value.len(),
                BinaryForm::TextBehind(bytes) => bytes.min(value.len()),
                BinaryForm::Unknown => return Err(no_binary(encoding)),
            };
            let text = encoding
                .decode(&value[skip..])
                .map_err(|e| untranslatable(e, encoding.name(), "UTF8"))?;
            out.put_i32((skip + text.len()) as i32);
            out.extend_from_slice(&value[..skip]);
            out.extend_from_slice(&text);
        }
        out.extend_from_slice(rest);
        Ok(Some(out))
    }

    /// Sends a RowDescription in the client's encoding.
    ///
    /// # Errors
    /// 22P05 for a name that the client cannot read.
    pub fn describe_rows(&mut self, columns: &[ColumnDescription]) -> Result<(), ServerError> {
        let Some(encoding) = self.client.encoding else {
            messages::row_description(columns, self.client.out());
            return Ok(());
        };
        let mut named = columns.to_vec();
        for column in &mut named {
            let mut name = Vec::new();
            encoding
                .encode(&column.name, &mut name)
                .map_err(|e| untranslatable(e, "UTF8", encoding.name()))?;
            column.name = Bytes::from(name);
        }
        messages::row_description(&named, self.client.out());
        Ok(())
    }

    /// Rows in the client's encoding, and why they end before their time.
    pub fn encoded(&self, run: Run, columns: &[ColumnDescription]) -> (Bytes, Option<ServerError>) {
        let Some(encoding) = self.client.encoding else {
            return (run.frames, None);
        };
        let loaded = self.shared.catalog.loaded();
        let catalog = loaded.as_ref().map(|l| &*l.catalog);
        let forms: Vec<BinaryForm> = columns
            .iter()
            .map(|c| match c.format {
                0 => BinaryForm::TextBehind(0),
                _ => binary_form(c.type_oid, catalog),
            })
            .collect();
        let mut out = BytesMut::with_capacity(run.frames.len());
        let mut reader = Reader(&run.frames);
        while !reader.0.is_empty() {
            let whole = out.len();
            if let Err(error) = encode_row(encoding, &mut reader, &forms, &mut out) {
                out.truncate(whole);
                return (out.freeze(), Some(error));
            }
        }
        (out.freeze(), None)
    }
}

/// The two strings at the start of a Parse.
fn strings(body: &[u8]) -> &[u8] {
    let mut ends = memchr::memchr_iter(0, body);
    let end = ends.nth(1).unwrap_or(body.len());
    &body[..end]
}

fn encode_row(
    encoding: &Encoding,
    reader: &mut Reader<'_>,
    forms: &[BinaryForm],
    out: &mut BytesMut,
) -> Result<(), ServerError> {
    let malformed = || ServerError::new("XX000", "a row does not fit its description");
    let start = out.len();
    out.extend_from_slice(reader.take(5).ok_or_else(malformed)?);
    let columns = reader.i16().ok_or_else(malformed)?;
    out.put_i16(columns);
    let mut text = Vec::new();
    for at in 0..columns as usize {
        let Some(value) = reader.value().ok_or_else(malformed)? else {
            out.put_i32(-1);
            continue;
        };
        let skip = match forms.get(at).unwrap_or(&BinaryForm::TextBehind(0)) {
            BinaryForm::Same => value.len(),
            BinaryForm::TextBehind(bytes) => (*bytes).min(value.len()),
            BinaryForm::Unknown => return Err(no_binary(encoding)),
        };
        text.clear();
        encoding
            .encode(&value[skip..], &mut text)
            .map_err(|e| untranslatable(e, "UTF8", encoding.name()))?;
        out.put_i32((skip + text.len()) as i32);
        out.extend_from_slice(&value[..skip]);
        out.extend_from_slice(&text);
    }
    let length = (out.len() - start - 1) as u32;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
