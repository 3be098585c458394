//! Everything needed to open a connection to one shard: its address, TLS settings and login, within one deadline.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::BackendError;
use super::cancel::CancelHandle;
use super::login;
use super::raw_conn::RawConn;
use super::scram::ClientKeys;
use super::socket::Socket;
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
    settings: Shard,
    /// `None`: in the clear. `Err`: why the certificates cannot be used; said at the first connection.
    tls: Result<Option<Arc<ClientConfig>>, String>,
    connect_timeout: Duration,
    tcp: Tcp,
    metrics: Arc<ShardMetrics>,
}

impl Connector {
    /// One for each shard of the configuration, in its order.
    pub fn all(config: &Config) -> Vec<Arc<Self>> {
        let connector = |(i, shard): (usize, &Shard)| {
            Arc::new(Self {
                id: ShardId(i as u16),
                name: shard.name.as_str().into(),
                tls: tls::client_config(shard),
                metrics: metrics::global().shard(&shard.name),
                settings: shard.clone(),
                connect_timeout: config.pool.connect_timeout,
                tcp: config.pool.tcp.clone(),
            })
        };
        config.shards.iter().enumerate().map(connector).collect()
    }

    pub(super) fn settings(&self) -> &Shard {
        &self.settings
    }

    pub(super) fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    pub(super) fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(super) fn tls(&self) -> Result<Option<&Arc<ClientConfig>>, BackendError> {
        self.tls
            .as_ref()
            .map(Option::as_ref)
            .map_err(|reason| self.unreachable(reason))
    }

    /// The role that the configuration names for the shard.
    pub fn own_login(&self) -> Login {
        Login {
            user: self.settings.user.as_str().into(),
            password: self.settings.password.clone(),
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
        let connected = timeout(self.connect_timeout, async {
            let socket = self.open().await?;
            login::log_in(self, login, socket).await
        });
        let connected = connected.await.unwrap_or_else(|_| {
            let limit = self.connect_timeout.as_secs_f64();
            Err(self.unreachable(format!("no connection within {limit} s")))
        });
        match &connected {
            Ok(_) => {
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
        let cancelled = timeout(self.connect_timeout, async {
            let mut socket = self.open().await?;
            let lost = |e: std::io::Error| self.unreachable(format!("cancel request: {e}"));
            socket
                .write_all(&cancel_request(handle.process_id, &handle.secret))
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

    /// Opens the socket, TLS included where the settings say so.
    async fn open(&self) -> Result<Socket, BackendError> {
        let tls = self.tls()?;
        let settings = &self.settings;
        let socket = Socket::connect(&settings.host, settings.port, &self.tcp)
            .await
            .map_err(|e| self.unreachable(format!("{}:{}: {e}", settings.host, settings.port)))?;
        let Some(tls) = tls else {
            return Ok(socket);
        };
        self.start_tls(socket, tls).await
    }

    async fn start_tls(
        &self,
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
            b'N' if self.settings.sslmode == SslMode::Prefer => return Ok(Socket::Tcp(stream)),
            b'N' => return Err(self.unreachable("the server does not offer TLS")),
            b'E' => return Err(self.unreachable("the server refused the request for TLS")),
            other => {
                return Err(self.protocol(format!("answer {other:#04x} to the request for TLS")));
            }
        }
        let name = ServerName::try_from(self.settings.host.clone())
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
