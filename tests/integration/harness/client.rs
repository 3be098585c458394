//! A raw client: sends bytes, collects messages, hides nothing. It shares no code with pgbraid's own protocol layer, so that
//! a mistake there shows here.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};

use super::PATIENCE;

/// A backend message behind its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse.
    pub fn field(&self, code: u8) -> Option<String> {
        let mut rest = &self.body[..];
        while let Some((&c, tail)) = rest.split_first() {
            let end = tail.iter().position(|b| *b == 0)?;
            if c == code {
                return Some(String::from_utf8_lossy(&tail[..end]).into_owned());
            }
            rest = &tail[end + 1..];
        }
        None
    }

    /// The values of a DataRow.
    pub fn values(&self) -> Vec<Option<Vec<u8>>> {
        let mut rest = &self.body[2..];
        let count = i16::from_be_bytes([self.body[0], self.body[1]]);
        let mut values = Vec::new();
        for _ in 0..count {
            let (length, tail) = rest.split_first_chunk::<4>().expect("a length");
            let length = i32::from_be_bytes(*length);
            let (value, tail) = tail.split_at(usize::try_from(length).unwrap_or(0));
            values.push((length >= 0).then(|| value.to_vec()));
            rest = tail;
        }
        assert!(rest.is_empty(), "bytes behind the last value of a row");
        values
    }
}

/// A column of a RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub has_table: bool,
    pub attribute: i16,
    pub oid: u32,
    pub length: i16,
    pub modifier: i32,
    pub format: i16,
}

/// The answer to one statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// The tag of CommandComplete; empty without one.
    pub tag: String,
    pub error: Option<Message>,
    /// The transaction status of ReadyForQuery.
    pub status: u8,
}

impl Reply {
    /// Puts messages up to ReadyForQuery together.
    pub fn of(messages: &[Message]) -> Self {
        let mut reply = Self::default();
        for m in messages {
            match m.tag {
                b'T' => reply.columns = columns(&m.body),
                b'D' => reply.rows.push(m.values()),
                b'C' => reply.tag = cstr(&m.body),
                b'E' => {
                    assert!(reply.error.is_none(), "two ErrorResponses in one reply");
                    reply.error = Some(m.clone());
                }
                b'Z' => reply.status = m.body[0],
                _ => {}
            }
        }
        reply
    }

    pub fn sqlstate(&self) -> Option<String> {
        self.error.as_ref().and_then(|e| e.field(b'C'))
    }

    /// The only value, as text.
    pub fn value(&self) -> String {
        assert!(self.error.is_none(), "{}", self.complaint());
        assert_eq!((self.rows.len(), self.rows[0].len()), (1, 1));
        match &self.rows[0][0] {
            Some(v) => String::from_utf8_lossy(v).into_owned(),
            None => "NULL".into(),
        }
    }

    pub fn complaint(&self) -> String {
        let Some(e) = &self.error else {
            return String::new();
        };
        let text = |code| e.field(code).unwrap_or_default();
        format!("{} {}", text(b'C'), text(b'M'))
    }
}

/// The columns of a RowDescription.
pub fn columns(body: &[u8]) -> Vec<Column> {
    let count = i16::from_be_bytes([body[0], body[1]]);
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    for _ in 0..count {
        let name = cstr(rest);
        let end = rest.iter().position(|b| *b == 0).expect("a name");
        let (fixed, tail) = rest[end + 1..]
            .split_first_chunk::<18>()
            .expect("18 bytes behind the name");
        rest = tail;
        let short = |at| i16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let long = |at: usize| i32::from_be_bytes(fixed[at..at + 4].try_into().expect("4 bytes"));
        columns.push(Column {
            name,
            has_table: long(0) != 0,
            attribute: short(4),
            oid: long(6) as u32,
            length: short(10),
            modifier: long(12),
            format: short(16),
        });
    }
    assert!(rest.is_empty(), "bytes behind the last column");
    columns
}

/// The text before the first NUL.
pub fn cstr(body: &[u8]) -> String {
    let end = body.iter().position(|b| *b == 0).unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

/// A connection. Every read ends at a deadline.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    pub parameters: BTreeMap<String, String>,
    /// The body of BackendKeyData: process id and secret.
    pub key: Vec<u8>,
}

impl Client {
    /// Opens the socket and sends nothing.
    pub fn open(port: u16) -> io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            parameters: BTreeMap::new(),
            key: Vec::new(),
        })
    }

    /// Logs in to the database `app`.
    ///
    /// # Errors
    /// What the server said, or what became of the connection.
    pub fn connect(port: u16, user: &str, password: &str) -> Result<Self, String> {
        Self::connect_with(port, &[("user", user), ("database", "app")], password)
    }

    /// Logs in with these startup parameters.
    ///
    /// # Errors
    /// As `connect`.
    pub fn connect_with(
        port: u16,
        parameters: &[(&str, &str)],
        password: &str,
    ) -> Result<Self, String> {
        let mut client = Self::open(port).map_err(|e| e.to_string())?;
        client
            .send(&startup(parameters))
            .map_err(|e| e.to_string())?;
        client.log_in(password)?;
        Ok(client)
    }

    /// Goes on from a sent StartupMessage to ReadyForQuery.
    fn log_in(&mut self, password: &str) -> Result<(), String> {
        let mut scram = None;
        loop {
            let m = self.receive().map_err(|e| e.to_string())?;
            match m.tag {
                b'R' => self.prove(&m.body, password, &mut scram)?,
                b'S' => {
                    let name = cstr(&m.body);
                    let value = cstr(&m.body[name.len() + 1..]);
                    self.parameters.insert(name, value);
                }
                b'K' => self.key = m.body,
                b'Z' => return Ok(()),
                b'E' => {
                    let text = |code| m.field(code).unwrap_or_default();
                    return Err(format!("{} {}", text(b'C'), text(b'M')));
                }
                _ => {}
            }
        }
    }

    fn prove(
        &mut self,
        body: &[u8],
        password: &str,
        scram: &mut Option<ScramSha256>,
    ) -> Result<(), String> {
        let kind = i32::from_be_bytes(body[..4].try_into().expect("4 bytes"));
        let answer = match kind {
            0 => return Ok(()),
            10 => {
                let new = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                let first = scram.insert(new).message().to_vec();
                let length = i32::try_from(first.len()).expect("short");
                [
                    SCRAM_SHA_256.as_bytes(),
                    &[0],
                    &length.to_be_bytes(),
                    &first,
                ]
                .concat()
            }
            11 | 12 => {
                let scram = scram.as_mut().ok_or("SASL out of order")?;
                if kind == 12 {
                    return scram.finish(&body[4..]).map_err(|e| e.to_string());
                }
                scram.update(&body[4..]).map_err(|e| e.to_string())?;
                scram.message().to_vec()
            }
            n => return Err(format!("authentication method {n}")),
        };
        self.send(&frame(b'p', &answer)).map_err(|e| e.to_string())
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The same connection for another thread to send on.
    pub fn writer(&self) -> Self {
        Self {
            stream: self.stream.try_clone().expect("descriptor"),
            buffer: Vec::new(),
            parameters: BTreeMap::new(),
            key: Vec::new(),
        }
    }

    /// Reads one bare byte: the answer to SSLRequest and GSSENCRequest.
    pub fn receive_byte(&mut self) -> io::Result<u8> {
        self.fill(1)?;
        Ok(self.buffer.remove(0))
    }

    /// Waits for a message until the deadline.
    pub fn receive(&mut self) -> io::Result<Message> {
        self.fill(5)?;
        let length = i32::from_be_bytes(self.buffer[1..5].try_into().expect("4 bytes"));
        let length = usize::try_from(length)
            .ok()
            .filter(|n| *n >= 4)
            .ok_or_else(|| io::Error::other(format!("message length {length}")))?;
        self.fill(length + 1)?;
        let tag = self.buffer[0];
        let body = self.buffer[5..=length].to_vec();
        self.buffer.drain(..=length);
        Ok(Message { tag, body })
    }

    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        while self.buffer.len() < bytes {
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
        Ok(())
    }

    /// Messages up to and with ReadyForQuery.
    pub fn until_ready(&mut self) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.receive()?);
            if messages.last().is_some_and(|m| m.tag == b'Z') {
                return Ok(messages);
            }
        }
    }

    /// Runs one statement in the simple protocol.
    pub fn try_query(&mut self, sql: &str) -> io::Result<Reply> {
        self.send(&query(sql))?;
        Ok(Reply::of(&self.until_ready()?))
    }

    /// As `try_query`, for a connection that must hold.
    pub fn query(&mut self, sql: &str) -> Reply {
        self.try_query(sql)
            .unwrap_or_else(|e| panic!("connection lost ({e}) by: {sql}"))
    }

    /// The messages that came after the last one taken, and whether the connection has ended behind them.
    pub fn drain(&mut self, wait: Duration) -> (Vec<Message>, bool) {
        self.stream.set_read_timeout(Some(wait)).expect("a timeout");
        let mut messages = Vec::new();
        let ended = loop {
            match self.receive() {
                Ok(m) => messages.push(m),
                Err(e) => {
                    break !matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    );
                }
            }
        };
        self.stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout");
        (messages, ended)
    }

    /// Panics unless the connection is in step: what is sent is answered, and by its own answer.
    pub fn assert_in_step(&mut self, after: &str) {
        let reply = self.query("select 'in' || 'step'");
        assert_eq!(reply.value(), "instep", "after: {after}");
    }

    /// Sends a CancelRequest for `key` on a connection of its own.
    pub fn cancel(port: u16, key: &[u8]) -> io::Result<()> {
        let mut client = Self::open(port)?;
        client.send(&untagged(80_877_102, key))?;
        // The server closes without a word.
        client.drain(PATIENCE);
        Ok(())
    }
}

/// A message with a tag.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// A message of the startup phase: length, code, rest.
pub fn untagged(code: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(rest.len() + 8).expect("short");
    [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
}

/// A StartupMessage of protocol 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in parameters {
        body.extend_from_slice(&[name.as_bytes(), &[0], value.as_bytes(), &[0]].concat());
    }
    body.push(0);
    untagged(196_608, &body)
}

pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &[sql.as_bytes(), &[0]].concat())
}

pub fn parse(name: &str, sql: &str, oids: &[u32]) -> Vec<u8> {
    let count = u16::try_from(oids.len()).expect("short").to_be_bytes();
    let oids: Vec<u8> = oids.iter().flat_map(|o| o.to_be_bytes()).collect();
    frame(
        b'P',
        &[name.as_bytes(), &[0], sql.as_bytes(), &[0], &count, &oids].concat(),
    )
}

/// A Bind; parameters come with their formats, `result_formats` as the protocol has them (none, one for all, or one each).
pub fn bind(
    portal: &str,
    statement: &str,
    parameters: &[(i16, Option<Vec<u8>>)],
    result_formats: &[i16],
) -> Vec<u8> {
    let mut body = [portal.as_bytes(), &[0], statement.as_bytes(), &[0]].concat();
    let count = u16::try_from(parameters.len())
        .expect("short")
        .to_be_bytes();
    body.extend(count);
    parameters
        .iter()
        .for_each(|(f, _)| body.extend(f.to_be_bytes()));
    body.extend(count);
    for (_, value) in parameters {
        match value {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(v) => {
                body.extend(i32::try_from(v.len()).expect("short").to_be_bytes());
                body.extend(v);
            }
        }
    }
    body.extend(
        u16::try_from(result_formats.len())
            .expect("short")
            .to_be_bytes(),
    );
    result_formats
        .iter()
        .for_each(|f| body.extend(f.to_be_bytes()));
    frame(b'B', &body)
}

/// Describe (`D`) or Close (`C`) of a statement (`S`) or a portal (`P`).
pub fn describe_or_close(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    frame(tag, &[&[kind], name.as_bytes(), &[0]].concat())
}

pub fn execute(portal: &str, rows_max: i32) -> Vec<u8> {
    frame(
        b'E',
        &[portal.as_bytes(), &[0], &rows_max.to_be_bytes()].concat(),
    )
}

pub fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

pub fn flush() -> Vec<u8> {
    frame(b'H', &[])
}
