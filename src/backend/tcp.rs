//! What the kernel is told of TCP: of a connection, to a client or to a shard, and of a socket that listens.

use std::io;
use std::time::Duration;

use socket2::{SockFilter, SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::config::Tcp;

/// Connections that the kernel lets wait to be accepted; it may have a lower limit of its own.
const BACKLOG: u32 = 1024;

/// Drops the packets that begin a connection: BPF over the TCP header, whose 14th byte has the flag SYN as 2 (RFC 9293, section 3.1).
const NO_SYN: [SockFilter; 4] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x45, 0, 1, 2),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Listens on the first address that this comes to and that can be listened on. With `reuse_port` other processes of this user may
/// listen there too, as long as all of them want it.
///
/// # Errors
/// The operating system's.
pub async fn listen(address: &str, reuse_port: bool) -> io::Result<TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "there is no such address");
    for address in tokio::net::lookup_host(address).await? {
        let socket = match address.is_ipv4() {
            true => TcpSocket::new_v4()?,
            false => TcpSocket::new_v6()?,
        };
        // Else the connections of a process that has ended keep the next one out.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuse_port)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Has the kernel leave new clients unanswered: they ask again a second later, and find whoever listens then. Those whose handshake has begun
/// still come in. Where others listen on the same port, a socket that is closed without it loses who came since the last accept.
///
/// # Errors
/// The operating system's.
pub fn turn_away(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).attach_filter(&NO_SYN)
}

/// Small messages go out at once, and an end that is gone is found out as the configuration wants.
///
/// # Errors
/// The operating system's; what it had taken up to then holds.
pub fn tune(stream: &TcpStream, settings: &Tcp) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let some = |d: Duration| (!d.is_zero()).then_some(d);
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = some(settings.keepalives_idle) {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = some(settings.keepalives_interval) {
        keepalive = keepalive.with_interval(interval);
    }
    if settings.keepalives_count > 0 {
        keepalive = keepalive.with_retries(settings.keepalives_count);
    }
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    match some(settings.user_timeout) {
        Some(timeout) => socket.set_tcp_user_timeout(Some(timeout)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_has_what_was_configured() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap());
        let stream = stream.await.unwrap();
        let mut settings = Tcp {
            keepalives_idle: Duration::from_secs(7),
            keepalives_interval: Duration::from_secs(3),
            keepalives_count: 4,
            user_timeout: Duration::from_millis(1500),
        };
        tune(&stream, &settings).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 7);
        assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 3);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        let timeout = socket.tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(Duration::from_millis(1500)));
        // Zero leaves the system's own.
        settings.keepalives_count = 0;
        tune(&stream, &settings).unwrap();
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
    }
}
