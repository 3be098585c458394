//! Everything needed to open a connection to one shard: its address, TLS settings and login, within one deadline.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::BackendError;
use super::cancel::CancelHandle;
use super::gate::Gate;
use super::login;
use super::raw_conn::RawConn;
use super::scram::ClientKeys;
use super::socket::{self, Socket};
use super::tls;
use crate::config::{Config, Secret, Shard, SslMode, Tcp};
use crate::metrics::{self, ShardMetrics};
use crate::plan::ShardId;

/// Who logs in at a shard, and with what.
#[derive(Debug, Clone)]
pub struct Login {
    /// The role.
    pub user: Arc<str>,
    /// Empty where there is none.
    pub password: Secret,
    /// In the password's place: what the client itself has proved to know.
    pub keys: ClientKeys,
    /// What its sessions begin with, whatever the shard has for it.
    pub settings: Arc<[(String, String)]>,
}

/// Opens connections to one shard.
#[derive(Debug)]
pub struct Connector {
    /// Its place in the configuration.
    pub id: ShardId,
    /// Its name there.
    pub name: Arc<str>,
    target: ArcSwap<Target>,
    metrics: Arc<ShardMetrics>,
    gate: Gate,
}

/// Where a shard is and how one gets in. It is replaced as a whole: connections that were opened by another one are of the past.
#[derive(Debug, Clone)]
struct Target {
    shard: Arc<Shard>,
    /// `None`: in the clear. `Err`: why the certificates cannot be used; said at the first connection.
    tls: Result<Option<Arc<ClientConfig>>, String>,
    /// What was in `sslrootcert`.
    authorities: Option<Vec<u8>>,
    connect_timeout: Duration,
    tcp: Tcp,
}

/// How a connection was opened, and to which of the addresses that its shard's name may have.
#[derive(Debug)]
pub(super) struct Origin {
    target: Arc<Target>,
    address: Option<SocketAddr>,
}

impl Target {
    fn new(shard: &Shard, config: &Config) -> Self {
        let authorities = shard.sslrootcert.as_ref();
        Self {
            tls: tls::client_config(shard),
            authorities: authorities.and_then(|path| std::fs::read(path).ok()),
            shard: Arc::new(shard.clone()),
            connect_timeout: config.pool.connect_timeout,
            tcp: config.pool.tcp.clone(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.shard == other.shard
            && self.authorities == other.authorities
            && self.connect_timeout == other.connect_timeout
            && self.tcp == other.tcp
    }
}

impl Connector {
    /// One for each shard of the configuration, in its order.
    pub fn all(config: &Config) -> Vec<Arc<Self>> {
        let connector = |(i, shard): (usize, &Shard)| {
            Arc::new(Self {
                id: ShardId(i as u16),
                name: shard.name.as_str().into(),
                target: ArcSwap::from_pointee(Target::new(shard, config)),
                metrics: metrics::global().shard(&shard.name),
                gate: Gate::default(),
            })
        };
        config.shards.iter().enumerate().map(connector).collect()
    }

    /// Takes over what another configuration says of the shard, and what its files of certificates say now; true when that is
    /// something new. Connections opened before are of the past then, see [`Connector::is_current`].
    pub(super) fn renew(&self, config: &Config) -> bool {
        let Some(shard) = config.shards.get(usize::from(self.id.0)) else {
            return false;
        };
        let new = Target::new(shard, config);
        let changed = !new.is_same(&self.target.load());
        if changed {
            self.target.store(Arc::new(new));
        }
        changed
    }

    /// Makes all connections opened so far ones of the past: the shard's name leads elsewhere now.
    pub(super) fn retire(&self) {
        self.target.rcu(|target| Target::clone(target));
    }

    /// False for a connection that would be opened otherwise today.
    pub(super) fn is_current(&self, conn: &RawConn) -> bool {
        let target = self.target.load();
        conn.cancel_key
            .origin
            .as_ref()
            .is_none_or(|origin| Arc::ptr_eq(&origin.target, &target))
    }

    /// The addresses of the shard's name, in an order of their own; `None` where there is no name to be looked up, or where that
    /// fails just now.
    pub(super) async fn addresses(&self) -> Option<Vec<SocketAddr>> {
        let shard = self.settings();
        if shard.host.starts_with('/') || shard.host.parse::<IpAddr>().is_ok() {
            return None;
        }
        let limit = self.connect_timeout();
        let found = timeout(limit, socket::look_up(&shard.host, shard.port)).await;
        let mut addresses = found.ok()?.ok()?;
        addresses.sort();
        addresses.dedup();
        (!addresses.is_empty()).then_some(addresses)
    }

    pub(super) fn settings(&self) -> Arc<Shard> {
        self.target.load().shard.clone()
    }

    pub(super) fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Refuses a shard that was not there when pgbraid started: nothing is known of its tables.
    ///
    /// # Errors
    /// `Unreachable`.
    pub(super) fn check_known(&self) -> Result<(), BackendError> {
        match self.gate.is_barred() {
            true => Err(self.not_read()),
            false => Ok(()),
        }
    }

    pub(super) fn not_read(&self) -> BackendError {
        self.unreachable("its catalog has not been read since pgbraid started")
    }

    pub(super) fn tcp(&self) -> Tcp {
        self.target.load().tcp.clone()
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.target.load().connect_timeout
    }

    pub(super) fn tls(&self) -> Result<Option<Arc<ClientConfig>>, BackendError> {
        let tls = self.target.load().tls.clone();
        tls.map_err(|reason| self.unreachable(reason))
    }

    /// The role that the configuration names for the shard.
    pub fn own_login(&self) -> Login {
        let shard = self.settings();
        Login {
            user: shard.user.as_str().into(),
            password: shard.password.clone(),
            keys: ClientKeys::default(),
            settings: Arc::from([]),
        }
    }

    /// Connects and logs in as the role that the configuration names.
    ///
    /// # Errors
    /// As [`Connector::connect_as`].
    pub async fn connect(&self) -> Result<RawConn, BackendError> {
        self.connect_as(&self.own_login()).await
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// `Unreachable`, the shard's own refusal as `Server`, `Protocol`; past the connect timeout `Unreachable`.
    pub async fn connect_as(&self, login: &Login) -> Result<RawConn, BackendError> {
        let target = self.target.load_full();
        let limit = target.connect_timeout;
        let connected = timeout(limit, async {
            let socket = self.open(&target, None).await?;
            let address = socket.address();
            let mut conn = login::log_in(self, login, socket).await?;
            conn.cancel_key.origin = Some(Arc::new(Origin { target, address }));
            Ok(conn)
        });
        let mut connected = connected.await.unwrap_or_else(|_| {
            let limit = limit.as_secs_f64();
            Err(self.unreachable(format!("no connection within {limit} s")))
        });
        match &mut connected {
            Ok(conn) => {
                conn.list(&login.user);
                self.metrics.up.set(1);
                self.metrics.connects.inc();
            }
            Err(error) => {
                if matches!(error, BackendError::Unreachable { .. }) {
                    self.metrics.up.set(0);
                }
                self.metrics.connect_errors.inc();
            }
        }
        connected
    }

    /// Asks the shard to cancel what the backend of `handle` does, and waits until the shard has taken notice.
    pub(super) async fn send_cancel(&self, handle: &CancelHandle) -> Result<(), BackendError> {
        // To the very server: neither a name nor a configuration need lead there any more.
        let (target, address) = match &handle.key.origin {
            Some(origin) => (origin.target.clone(), origin.address),
            None => (self.target.load_full(), None),
        };
        let cancelled = timeout(target.connect_timeout, async {
            let mut socket = self.open(&target, address).await?;
            let lost = |e: std::io::Error| self.unreachable(format!("cancel request: {e}"));
            socket
                .write_all(&cancel_request(handle.key.process_id, &handle.key.secret))
                .await
                .map_err(lost)?;
            socket.flush().await.map_err(lost)?;
            // The server answers by closing, after it has sent the signal.
            let mut rest = [0; 16];
            let _ = socket.read(&mut rest).await;
            Ok(())
        });
        cancelled.await.unwrap_or_else(|_| {
            Err(BackendError::TimedOut {
                shard: self.name.to_string(),
            })
        })
    }

    /// Opens the socket, TLS included where the settings say so; to `address` where that is known, else to where the name leads now.
    async fn open(
        &self,
        target: &Target,
        address: Option<SocketAddr>,
    ) -> Result<Socket, BackendError> {
        let Shard { host, port, .. } = &*target.shard;
        let tls = target.tls.as_ref().map_err(|e| self.unreachable(e))?;
        let socket = match address {
            Some(address) => Socket::connect_to(address, &target.tcp).await,
            None => Socket::connect(host, *port, &target.tcp).await,
        };
        let socket = socket.map_err(|e| self.unreachable(format!("{host}:{port}: {e}")))?;
        match tls {
            Some(tls) => self.start_tls(&target.shard, socket, tls).await,
            None => Ok(socket),
        }
    }

    async fn start_tls(
        &self,
        settings: &Shard,
        socket: Socket,
        tls: &Arc<ClientConfig>,
    ) -> Result<Socket, BackendError> {
        let Socket::Tcp(mut stream) = socket else {
            return Ok(socket);
        };
        let lost = |e: std::io::Error| self.unreachable(format!("TLS: {e}"));
        // SSLRequest
        stream
            .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
            .await
            .map_err(lost)?;
        // One byte and no more: anything behind the answer would be injected text taken for encrypted (CVE-2021-23222).
        match stream.read_u8().await.map_err(lost)? {
            b'S' => {}
            b'N' if settings.sslmode == SslMode::Prefer => return Ok(Socket::Tcp(stream)),
            b'N' => return Err(self.unreachable("the server does not offer TLS")),
            b'E' => return Err(self.unreachable("the server refused the request for TLS")),
            other => {
                return Err(self.protocol(format!("answer {other:#04x} to the request for TLS")));
            }
        }
        let name = ServerName::try_from(settings.host.clone())
            .map_err(|e| self.unreachable(format!("host name: {e}")))?;
        let stream = TlsConnector::from(tls.clone())
            .connect(name, stream)
            .await
            .map_err(lost)?;
        Ok(Socket::Tls(Box::new(stream)))
    }

    pub(super) fn unreachable(&self, reason: impl Into<String>) -> BackendError {
        BackendError::Unreachable {
            shard: self.name.to_string(),
            reason: reason.into(),
        }
    }

    pub(super) fn protocol(&self, reason: impl Into<String>) -> BackendError {
        BackendError::Protocol {
            shard: self.name.to_string(),
            reason: reason.into(),
        }
    }
}

/// CancelRequest with a key of any length (4 bytes up to protocol 3.0, more since 3.2).
fn cancel_request(process_id: i32, secret: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(12 + secret.len());
    request.extend((12 + secret.len() as u32).to_be_bytes());
    request.extend(80_877_102u32.to_be_bytes());
    request.extend(process_id.to_be_bytes());
    request.extend(secret);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancel_requests_carry_keys_of_any_length() {
        assert_eq!(
            cancel_request(258, &[9; 4]),
            [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 1, 2, 9, 9, 9, 9]
        );
        assert_eq!(cancel_request(1, &[0; 256])[..4], [0, 0, 1, 12]);
    }
}
