//! From an accepted socket to a startup packet: SSLRequest, GSSENCRequest, CancelRequest, protocol versions.
//!
//! Source: PostgreSQL manual, "Message Flow" / "Start-up". Nothing is buffered before authentication beyond one packet.

use std::collections::BTreeMap;

use bytes::BytesMut;
use pgwire::messages::Message as _;
use pgwire::messages::startup::NegotiateProtocolVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stream::ClientStream;
use super::tls::ServerTls;
use crate::config::TlsMode;
use crate::protocol::error::ServerError;
use crate::protocol::messages::Reader;
use crate::protocol::sqlstate;

/// As PostgreSQL's MAX_STARTUP_PACKET_LENGTH.
const STARTUP_BYTES_MAX: usize = 10_000;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// What PostgreSQL sends as the newest version it speaks: the whole number, not only the minor one.
const PROTOCOL_3_0: i32 = 196_608;
/// First byte of a TLS ClientHello: a client that starts TLS without asking.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client came for.
pub enum Arrival {
    Startup(Box<Startup>),
    Cancel(Cancel),
}

/// A CancelRequest.
pub struct Cancel {
    pub pid: i32,
    pub secret: i32,
    /// Closed once the session knows: clients wait for that before they send it the next statement.
    pub stream: ClientStream,
}

/// A client's startup packet and the stream it goes on with.
pub struct Startup {
    pub stream: ClientStream,
    pub encrypted: bool,
    pub parameters: BTreeMap<String, String>,
    /// NegotiateProtocolVersion, where the client asked for more than 3.0.
    pub negotiate: Option<BytesMut>,
}

/// Why there is no session: `Some` is told to the client, `None` ends the connection silently.
pub struct Rejected(pub Option<(ClientStream, ServerError)>);

impl From<std::io::Error> for Rejected {
    fn from(_: std::io::Error) -> Self {
        Self(None)
    }
}

/// Reads packets until a StartupMessage or CancelRequest.
///
/// # Errors
/// Garbage, a second SSLRequest, bytes sent behind a request for encryption, an unknown protocol version, no TLS where it is required.
pub async fn receive(
    socket: ClientStream,
    tls: Option<&ServerTls>,
    mode: TlsMode,
) -> Result<Arrival, Rejected> {
    // As PostgreSQL: what does not leave the machine is not encrypted.
    let (tls, mode) = match socket {
        ClientStream::Local(_) => (None, TlsMode::Disable),
        _ => (tls, mode),
    };
    let mut asked_ssl = false;
    let mut asked_gss = false;
    let mut stream = match (socket, tls) {
        (ClientStream::Plain(socket), Some(tls)) if begins_with_tls(&socket).await? => {
            asked_ssl = true;
            accept_direct(socket, tls).await?
        }
        (socket, _) => socket,
    };
    loop {
        let packet = read_packet(&mut stream).await?;
        let mut reader = Reader(&packet);
        let code = reader.u32().ok_or(Rejected(None))?;
        match (code, stream) {
            (SSL_REQUEST, socket) if !asked_ssl && !socket.is_encrypted() => {
                asked_ssl = true;
                stream = match (socket, tls) {
                    (ClientStream::Plain(mut socket), Some(tls)) => {
                        refuse_early_bytes(&socket)?;
                        socket.write_all(b"S").await?;
                        ClientStream::Tls(Box::new(tls.acceptor.accept(socket).await?))
                    }
                    (mut socket, _) => {
                        socket.write_all(b"N").await?;
                        socket
                    }
                };
            }
            (GSSENC_REQUEST, mut socket) if !asked_gss && !socket.is_encrypted() => {
                asked_gss = true;
                socket.write_all(b"N").await?;
                stream = socket;
            }
            (SSL_REQUEST | GSSENC_REQUEST, stream) => {
                let error = ServerError::fatal(
                    sqlstate::PROTOCOL_VIOLATION,
                    "encryption was already negotiated",
                );
                return Err(Rejected(Some((stream, error))));
            }
            (CANCEL_REQUEST, stream) => {
                let (pid, secret) = (
                    reader.i32().ok_or(Rejected(None))?,
                    reader.i32().ok_or(Rejected(None))?,
                );
                return if reader.0.is_empty() {
                    Ok(Arrival::Cancel(Cancel {
                        pid,
                        secret,
                        stream,
                    }))
                } else {
                    Err(Rejected(None))
                };
            }
            (version, stream) => {
                return startup(version, reader, stream, mode)
                    .map(|s| Arrival::Startup(Box::new(s)));
            }
        }
    }
}

async fn begins_with_tls(socket: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0u8; 1];
    Ok(socket.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE)
}

async fn accept_direct(socket: TcpStream, tls: &ServerTls) -> Result<ClientStream, Rejected> {
    let stream = tls.acceptor.accept(socket).await?;
    // Without this protocol name another protocol's client could be tricked into talking to us.
    match stream.get_ref().1.alpn_protocol() {
        Some(b"postgresql") => Ok(ClientStream::Tls(Box::new(stream))),
        _ => Err(Rejected(None)),
    }
}

/// Bytes that lie behind an SSLRequest were sent in the clear, perhaps by someone in between: they must never be taken for encrypted ones.
fn refuse_early_bytes(socket: &TcpStream) -> Result<(), Rejected> {
    let mut byte = [0u8; 1];
    match socket.try_read(&mut byte) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(Rejected(None)),
    }
}

async fn read_packet(stream: &mut ClientStream) -> Result<Vec<u8>, Rejected> {
    let length = stream.read_u32().await? as usize;
    // HTTP, TLS and other garbage have an absurd length here; nothing is allocated for it.
    if !(8..=STARTUP_BYTES_MAX).contains(&length) {
        return Err(Rejected(None));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

fn startup(
    version: u32,
    mut reader: Reader<'_>,
    stream: ClientStream,
    mode: TlsMode,
) -> Result<Startup, Rejected> {
    let (major, minor) = (version >> 16, version & 0xffff);
    if major != 3 {
        let text =
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
        return Err(Rejected(Some((
            stream,
            ServerError::fatal(sqlstate::FEATURE_NOT_SUPPORTED, text),
        ))));
    }
    let Some((parameters, options)) = read_parameters(&mut reader) else {
        let error = ServerError::fatal(
            sqlstate::PROTOCOL_VIOLATION,
            "invalid startup packet layout: expected terminator as last byte",
        );
        return Err(Rejected(Some((stream, error))));
    };
    let encrypted = stream.is_encrypted();
    if mode == TlsMode::Require && !encrypted {
        let error = ServerError::fatal(
            sqlstate::INVALID_AUTHORIZATION,
            "this server accepts encrypted connections only",
        )
        .with_hint("Connect with sslmode=require.");
        return Err(Rejected(Some((stream, error))));
    }
    let negotiate = (minor > 0 || !options.is_empty()).then(|| {
        let mut out = BytesMut::new();
        // Encoding a short message into memory has no failure to report.
        let _ = NegotiateProtocolVersion::new(PROTOCOL_3_0, options).encode(&mut out);
        out
    });
    Ok(Startup {
        stream,
        encrypted,
        parameters,
        negotiate,
    })
}

/// Name/value pairs up to the empty name that ends them, and the `_pq_.` options among them.
fn read_parameters(reader: &mut Reader<'_>) -> Option<(BTreeMap<String, String>, Vec<String>)> {
    let mut parameters = BTreeMap::new();
    let mut options = Vec::new();
    loop {
        let name = std::str::from_utf8(reader.cstr()?).ok()?;
        if name.is_empty() {
            return reader.0.is_empty().then_some((parameters, options));
        }
        let value = std::str::from_utf8(reader.cstr()?).ok()?;
        match name.starts_with("_pq_.") {
            true => options.push(name.to_owned()),
            false => {
                parameters.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_need_their_terminator() {
        let read = |bytes: &[u8]| read_parameters(&mut Reader(bytes));
        assert!(read(b"user\0app\0").is_none());
        assert!(read(b"user\0app\0\0x").is_none());
        let (parameters, options) = read(b"user\0app\0_pq_.new\x001\0\0").unwrap();
        assert_eq!(parameters["user"], "app");
        assert_eq!(options, ["_pq_.new"]);
    }
}
