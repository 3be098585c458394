//! The stream under a shard connection: TCP, TLS over TCP, or a unix socket.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::tcp;
use crate::config::Tcp;

/// A connection that was used so short a time ago is taken for open unless the runtime has heard otherwise.
const FRESH: Duration = Duration::from_millis(100);

pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

/// Where a name leads now; asked of the operating system each time.
pub(super) async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    #[cfg(test)]
    if let Some(address) = hosts::address(host) {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

impl Socket {
    /// Connects to a host and port, or to the unix socket in a folder (a host that starts with `/`).
    pub(super) async fn connect(host: &str, port: u16, settings: &Tcp) -> io::Result<Self> {
        if host.starts_with('/') {
            let path = format!("{host}/.s.PGSQL.{port}");
            return Ok(Self::Unix(UnixStream::connect(path).await?));
        }
        // Nothing remembers where a name has led. Every address it has now is tried, in turn.
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in look_up(host, port).await? {
            match Self::connect_to(address, settings).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to one address.
    pub(super) async fn connect_to(address: SocketAddr, settings: &Tcp) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        tcp::tune(&stream, settings)?;
        Ok(Self::Tcp(stream))
    }

    /// The other end of a TCP connection.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
            _ => None,
        }
    }

    /// Nobody else can read along: TLS, or a socket inside this machine.
    pub(super) fn is_private(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    /// The server's certificate in DER form, of a TLS connection.
    pub(super) fn server_certificate(&self) -> Option<&[u8]> {
        let Self::Tls(stream) = self else {
            return None;
        };
        let certificates = stream.get_ref().1.peer_certificates()?;
        certificates.first().map(|c| c.as_ref())
    }

    /// True when the peer has neither closed nor sent anything since it was last read from, which was `rested` ago. Does not wait; the
    /// kernel is asked only where the runtime may not have heard the latest.
    pub(super) fn is_quiet(&mut self, rested: Duration) -> bool {
        (rested < FRESH && self.seems_quiet()) || self.peeks_quiet()
    }

    fn seems_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match self {
            Self::Tcp(s) => s.poll_read_ready(&mut cx).is_pending(),
            Self::Unix(s) => s.poll_read_ready(&mut cx).is_pending(),
            Self::Tls(s) => s.get_ref().0.poll_read_ready(&mut cx).is_pending(),
            #[cfg(test)]
            Self::Memory(_) => true,
        }
    }

    fn peeks_quiet(&mut self) -> bool {
        let mut byte = [MaybeUninit::uninit(); 1];
        let peeked = match self {
            Self::Tcp(s) => SockRef::from(&*s).peek(&mut byte),
            Self::Unix(s) => SockRef::from(&*s).peek(&mut byte),
            Self::Tls(s) => SockRef::from(s.get_ref().0).peek(&mut byte),
            #[cfg(test)]
            Self::Memory(_) => Ok(1),
        };
        match peeked {
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
            Ok(0) => false,
            // TLS has messages of its own, such as session tickets: they are no data.
            Ok(_) => !matches!(self, Self::Tcp(_) | Self::Unix(_)) && self.reads_nothing(),
        }
    }

    fn reads_nothing(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(self)
            .poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
            .is_pending()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
            #[cfg(test)]
            Self::Memory(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_write(cx, buf),
            #[cfg(test)]
            Self::Memory(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
            #[cfg(test)]
            Self::Memory(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
            #[cfg(test)]
            Self::Memory(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// Names of tests: where they lead can change.
#[cfg(test)]
pub(super) mod hosts {
    use std::collections::HashMap;
    use std::net::IpAddr;

    use parking_lot::Mutex;

    static HOSTS: Mutex<Option<HashMap<String, IpAddr>>> = Mutex::new(None);

    pub(crate) fn lead(name: &str, address: IpAddr) {
        let mut hosts = HOSTS.lock();
        hosts
            .get_or_insert_default()
            .insert(name.to_owned(), address);
    }

    pub(super) fn address(name: &str) -> Option<IpAddr> {
        HOSTS.lock().as_ref()?.get(name).copied()
    }
}
