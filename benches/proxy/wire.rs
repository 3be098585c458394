//! Blocking protocol plumbing for the mock shard and the client: whole messages in, buffers out.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use bytes::{BufMut, BytesMut};

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Error>;

/// A message without its header.
#[derive(Debug, Clone)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Message {
    pub fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.tag);
        out.put_u32(self.body.len() as u32 + 4);
        out.put_slice(&self.body);
    }
}

/// A connection with a read buffer of its own.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Wire {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 1 << 20],
            start: 0,
            end: 0,
        })
    }

    /// Logs in to a server that trusts; also gives what the server sent before ReadyForQuery.
    pub fn connect(address: impl ToSocketAddrs, startup: &[u8]) -> Result<(Self, BytesMut)> {
        let mut wire = Self::new(TcpStream::connect(address)?)?;
        wire.stream.write_all(startup)?;
        let mut greeting = BytesMut::new();
        loop {
            let message = wire.message()?;
            message.put(&mut greeting);
            match message.tag {
                b'Z' => return Ok((wire, greeting)),
                b'E' => return Err(error_text(&message.body).into()),
                _ => {}
            }
        }
    }

    /// What is there, at least `bytes` of it.
    pub fn peek(&mut self, bytes: usize) -> io::Result<&[u8]> {
        while self.end - self.start < bytes {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.buffer.len() < bytes {
                self.buffer.resize(bytes, 0);
            }
            let n = self.stream.read(&mut self.buffer[self.end..])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.end += n;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    pub fn message(&mut self) -> io::Result<Message> {
        let header = self.peek(5)?;
        let (tag, length) = (header[0], length(&header[1..5]));
        let body = self.peek(length + 1)?[5..=length].to_vec();
        self.consume(length + 1);
        Ok(Message { tag, body })
    }
}

/// The four bytes of a message length.
pub fn length(bytes: &[u8]) -> usize {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

/// A StartupMessage.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u32(196_608);
    for text in ["user", user, "database", database] {
        body.put_slice(text.as_bytes());
        body.put_u8(0);
    }
    body.put_u8(0);
    let mut out = (body.len() as u32 + 4).to_be_bytes().to_vec();
    out.extend(body);
    out
}

/// SQLSTATE and message of an ErrorResponse's body.
pub fn error_text(body: &[u8]) -> String {
    pgbraid::protocol::error::ServerError::parse(body).to_string()
}
