//! The stream under a shard connection: TCP, TLS over TCP, or a unix socket.

use std::io;
use std::mem::MaybeUninit;
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

impl Socket {
    /// Connects to a host and port, or to the unix socket in a folder (a host that starts with `/`).
    pub(super) async fn connect(host: &str, port: u16, settings: &Tcp) -> io::Result<Self> {
        if host.starts_with('/') {
            let path = format!("{host}/.s.PGSQL.{port}");
            return Ok(Self::Unix(UnixStream::connect(path).await?));
        }
        // Tries every address the name has, in turn.
        let stream = TcpStream::connect((host, port)).await?;
        tcp::tune(&stream, settings)?;
        Ok(Self::Tcp(stream))
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
