//! Startup and authentication at a shard: from an open socket to a session that is ready for queries.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

use super::BackendError;
use super::connector::{Connector, Login};
use super::raw_conn::RawConn;
use super::scram::Exchange;
use super::socket::Socket;
use super::tls;
use crate::protocol::error::ServerError;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::messages::Reader;

/// Messages a server may send before it is ready: about 15 in practice. A bound, so that none can talk for ever.
const LOGIN_MESSAGES_MAX: usize = 1000;
/// PostgreSQL's limit for the key of BackendKeyData (protocol 3.2).
const CANCEL_KEY_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// Logs in over `socket` to the shard's database.
pub(super) async fn log_in(
    connector: &Connector,
    login: &Login,
    socket: Socket,
) -> Result<RawConn, BackendError> {
    let settings = connector.settings();
    let mut conn = RawConn::new(connector.id, connector.name.clone(), socket);
    let parameters = [
        ("user", &*login.user),
        ("database", settings.dbname.as_str()),
        ("client_encoding", "UTF8"),
        ("application_name", "pgbraid"),
    ];
    let of_role = login.settings.iter();
    let parameters = parameters
        .into_iter()
        .chain(of_role.map(|(name, value)| (name.as_str(), value.as_str())));
    frontend::startup_message(parameters, conn.write_buffer())
        .map_err(|e| connector.unreachable(format!("user or database name: {e}")))?;
    authenticate(connector, login, &mut conn).await?;
    await_ready(connector, &mut conn).await?;
    Ok(conn)
}

/// Answers the server's questions up to AuthenticationOk.
async fn authenticate(
    connector: &Connector,
    login: &Login,
    conn: &mut RawConn,
) -> Result<(), BackendError> {
    for _ in 0..LOGIN_MESSAGES_MAX {
        let body = authentication(connector, conn).await?;
        let mut reader = Reader(&body);
        match reader.i32() {
            Some(0) => return Ok(()),
            Some(3) => {
                // The password itself: whoever can read the network would have it.
                if !conn.is_private() {
                    return Err(connector.unreachable(
                        "the server asks for the password in clear text over a connection without TLS",
                    ));
                }
                let password = password(connector, login)?.to_owned();
                send(connector, conn, |out| {
                    frontend::password_message(&password, out)
                })?;
            }
            Some(5) => {
                let salt = reader.take(4).and_then(|s| s.try_into().ok());
                let salt: [u8; 4] =
                    salt.ok_or_else(|| connector.protocol("MD5 request without salt"))?;
                let hash = md5_hash(login.user.as_bytes(), password(connector, login)?, salt);
                send(connector, conn, |out| {
                    frontend::password_message(hash.as_bytes(), out)
                })?;
            }
            Some(10) => return scram(connector, login, conn, reader.0).await,
            Some(method) => {
                return Err(connector.unreachable(format!(
                    "the server asks for authentication method {method}, pgbraid knows \
                     scram-sha-256, md5, password and trust"
                )));
            }
            None => return Err(connector.protocol("authentication request without a method")),
        }
    }
    Err(connector.protocol("authentication without end"))
}

/// SCRAM-SHA-256, bound to the TLS session where both sides can. The server proves that it knows the password, too: an
/// AuthenticationOk before that proof is refused. (`ScramSha256` refuses more than 100,000 iterations.)
async fn scram(
    connector: &Connector,
    login: &Login,
    conn: &mut RawConn,
    mechanisms: &[u8],
) -> Result<(), BackendError> {
    let offers = |name: &str| mechanisms.split(|b| *b == 0).any(|m| m == name.as_bytes());
    let (binding, mechanism) = match conn.server_certificate().and_then(tls::end_point) {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => (Binding::EndPoint(hash), SCRAM_SHA_256_PLUS),
        // "We could have": a server that offers it, too, then knows that someone took its offer away.
        Some(_) => (Binding::NotOffered, SCRAM_SHA_256),
        None => (Binding::Impossible, SCRAM_SHA_256),
    };
    if !offers(mechanism) {
        return Err(connector.unreachable("the server offers no SASL mechanism pgbraid knows"));
    }
    let failed = |e: String| connector.unreachable(format!("SCRAM authentication: {e}"));

    let mut scram = Scram::new(connector, login, binding)?;
    send(connector, conn, |out| {
        frontend::sasl_initial_response(mechanism, scram.message(), out)
    })?;
    let challenge = sasl_answer(connector, conn, 11).await?;
    scram.update(&challenge).map_err(failed)?;
    send(connector, conn, |out| {
        frontend::sasl_response(scram.message(), out)
    })?;
    let proof = sasl_answer(connector, conn, 12).await?;
    scram.finish(&proof).map_err(failed)?;
    sasl_answer(connector, conn, 0).await.map(drop)
}

/// What SCRAM is bound to.
enum Binding {
    Impossible,
    NotOffered,
    /// The hash of the server's certificate.
    EndPoint(Vec<u8>),
}

/// By the password, or by the keys that a client has shown.
enum Scram {
    Password(Box<ScramSha256>),
    Keys(Exchange),
}

impl Scram {
    fn new(connector: &Connector, login: &Login, binding: Binding) -> Result<Self, BackendError> {
        let keys = login.keys.newest();
        if let (true, Some(keys)) = (login.password.reveal().is_empty(), keys) {
            return Ok(Self::Keys(match binding {
                Binding::Impossible => Exchange::new(keys, "n,,", b""),
                Binding::NotOffered => Exchange::new(keys, "y,,", b""),
                Binding::EndPoint(hash) => Exchange::new(keys, "p=tls-server-end-point,,", &hash),
            }));
        }
        let binding = match binding {
            Binding::Impossible => ChannelBinding::unsupported(),
            Binding::NotOffered => ChannelBinding::unrequested(),
            Binding::EndPoint(hash) => ChannelBinding::tls_server_end_point(hash),
        };
        let scram = ScramSha256::new(password(connector, login)?, binding);
        Ok(Self::Password(Box::new(scram)))
    }

    fn message(&self) -> &[u8] {
        match self {
            Self::Password(scram) => scram.message(),
            Self::Keys(exchange) => exchange.message(),
        }
    }

    fn update(&mut self, challenge: &[u8]) -> Result<(), String> {
        match self {
            Self::Password(scram) => scram.update(challenge).map_err(|e| e.to_string()),
            Self::Keys(exchange) => exchange.update(challenge),
        }
    }

    fn finish(&mut self, proof: &[u8]) -> Result<(), String> {
        match self {
            Self::Password(scram) => scram.finish(proof).map_err(|e| e.to_string()),
            Self::Keys(exchange) => exchange.finish(proof),
        }
    }
}

/// The body of the next authentication message, which must be of the given kind.
async fn sasl_answer(
    connector: &Connector,
    conn: &mut RawConn,
    kind: i32,
) -> Result<Bytes, BackendError> {
    let mut body = authentication(connector, conn).await?;
    if body.len() < 4 || body.get_i32() != kind {
        return Err(connector.protocol("SASL messages out of order"));
    }
    Ok(body)
}

fn password<'a>(connector: &Connector, login: &'a Login) -> Result<&'a [u8], BackendError> {
    match login.password.reveal() {
        "" => Err(connector.unreachable(format!(
            "the server asks for a password and none is configured for {}",
            login.user
        ))),
        password => Ok(password.as_bytes()),
    }
}

fn send(
    connector: &Connector,
    conn: &mut RawConn,
    build: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
) -> Result<(), BackendError> {
    build(conn.write_buffer()).map_err(|e| connector.unreachable(format!("password: {e}")))
}

/// The body of the next `R` message.
async fn authentication(connector: &Connector, conn: &mut RawConn) -> Result<Bytes, BackendError> {
    for _ in 0..LOGIN_MESSAGES_MAX {
        let (tag, body) = message(connector, conn).await?;
        match tag {
            b'R' => return Ok(body),
            // A notice, or the minor versions and options the server does not know.
            b'N' | b'v' => {}
            tag => return Err(unexpected(connector, tag)),
        }
    }
    Err(connector.protocol("no authentication request"))
}

/// Takes parameters and the cancel key up to the first ReadyForQuery.
async fn await_ready(connector: &Connector, conn: &mut RawConn) -> Result<(), BackendError> {
    for _ in 0..LOGIN_MESSAGES_MAX {
        let (tag, body) = message(connector, conn).await?;
        match tag {
            b'S' => conn.note_parameter(&body)?,
            b'K' => {
                let mut reader = Reader(&body);
                let process_id = reader.i32();
                let Some(process_id) =
                    process_id.filter(|_| CANCEL_KEY_BYTES.contains(&reader.0.len()))
                else {
                    return Err(connector.protocol("malformed BackendKeyData"));
                };
                conn.set_cancel_key(process_id, body.slice(4..));
            }
            b'Z' if body[..] == *b"I" => return Ok(()),
            b'N' | b'v' => {}
            tag => return Err(unexpected(connector, tag)),
        }
    }
    Err(connector.protocol("login without end"))
}

/// The next message's tag and body; an ErrorResponse becomes an error.
async fn message(connector: &Connector, conn: &mut RawConn) -> Result<(u8, Bytes), BackendError> {
    let (tag, mut frame) = conn.next_frame().await?;
    frame.advance(HEADER_BYTES);
    if tag == b'E' {
        return Err(BackendError::Server {
            shard: connector.name.to_string(),
            error: ServerError::parse(&frame),
        });
    }
    Ok((tag, frame))
}

fn unexpected(connector: &Connector, tag: u8) -> BackendError {
    connector.protocol(format!("message {:?} during login", char::from(tag)))
}
