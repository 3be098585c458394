//! Where clients connect: the addresses of the configuration, or sockets that whoever started this process has opened for it (socket
//! activation). Those outlive the process, and who waits there is served by the next one.

use std::io;
use std::net;
use std::os::unix::net as unix;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use super::listener::ServeError;
use super::local::LocalSocket;
use super::stream::ClientStream;
use crate::backend::tcp;
use crate::config;

/// Sockets that this process has been started with.
#[derive(Default)]
pub struct Inherited {
    tcp: Vec<net::TcpListener>,
    local: Vec<unix::UnixListener>,
}

impl Inherited {
    /// Takes what `LISTEN_FDS` speaks of (sd_listen_fds(3)), and the variable with it. To be called before there are threads.
    ///
    /// # Errors
    /// One of them is no stream socket.
    pub fn take() -> io::Result<Self> {
        let mut given = ListenFd::from_env();
        let mut this = Self::default();
        for place in 0..given.len() {
            // One of another kind is left where it is.
            match given.take_tcp_listener(place) {
                Ok(listener) => this.tcp.extend(listener),
                Err(_) => this.local.extend(given.take_unix_listener(place)?),
            }
        }
        for listener in &this.tcp {
            listener.set_nonblocking(true)?;
        }
        for listener in &this.local {
            listener.set_nonblocking(true)?;
        }
        Ok(this)
    }

    fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.local.is_empty()
    }
}

/// A client that has connected, and its address as the log shows it.
pub(super) type Accepted = (ClientStream, String);

enum Listener {
    Tcp(TcpListener),
    Local(LocalSocket),
    /// Of somebody else's making, and so is its file.
    Foreign(UnixListener),
}

/// All that is listened on.
pub(super) struct Sockets {
    listeners: Vec<Listener>,
    inherited: bool,
    /// Another process may listen there as well.
    shared: bool,
    /// The one that is asked first: none has to wait for the others to be silent.
    turn: AtomicUsize,
}

impl Sockets {
    /// Takes what was inherited, or listens where the configuration says.
    pub async fn open(settings: &config::Server, inherited: Inherited) -> Result<Self, ServeError> {
        let given = !inherited.is_empty();
        let listeners = match given {
            true => adopt(inherited).map_err(failed("the sockets it was started with"))?,
            false => bind(settings).await?,
        };
        Ok(Self {
            listeners,
            inherited: given,
            shared: settings.reuse_port,
            turn: AtomicUsize::new(0),
        })
    }

    /// Where that is, for the log.
    pub fn addresses(&self) -> Vec<String> {
        let shown = |listener: &Listener| match listener {
            Listener::Tcp(tcp) => tcp.local_addr().map(|a| a.to_string()),
            Listener::Local(local) => Ok(local.file().display().to_string()),
            Listener::Foreign(local) => local.local_addr().map(|a| {
                let path = a.as_pathname();
                path.map_or_else(|| "[local]".into(), |p| p.display().to_string())
            }),
        };
        self.listeners.iter().flat_map(shown).collect()
    }

    /// The next client.
    pub async fn accept(&self) -> io::Result<Accepted> {
        std::future::poll_fn(|cx| {
            let first = self.turn.fetch_add(1, Ordering::Relaxed);
            for place in 0..self.listeners.len() {
                let listener = &self.listeners[first.wrapping_add(place) % self.listeners.len()];
                if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Leaves those who come now to the other processes that listen there.
    fn turn_away(&self) {
        for listener in &self.listeners {
            if let Listener::Tcp(tcp) = listener
                && let Err(error) = tcp::turn_away(tcp)
            {
                tracing::debug!(%error, "no filter on the listening socket");
            }
        }
    }

    /// Ends listening. Clients that the kernel has let in already would be lost with the sockets, so `accepted` gets them; those of
    /// inherited sockets wait there for the process that comes.
    pub async fn close(self, mut accepted: impl FnMut(Accepted)) {
        if self.inherited {
            return;
        }
        if self.shared {
            self.turn_away();
            let last = async {
                while let Ok(client) = self.accept().await {
                    accepted(client);
                }
            };
            let _ = tokio::time::timeout(HANDSHAKE_TIME, last).await;
        }
        for listener in self.listeners {
            // By the plain system call, right up to the moment it is closed: the runtime may not have heard yet of those who came last.
            let rest = match listener {
                Listener::Tcp(tcp) => tcp.into_std().map(|tcp| {
                    while let Ok(client) = tcp.accept().and_then(tcp_client) {
                        accepted(client);
                    }
                }),
                Listener::Local(local) => local.close(|stream| {
                    accepted((ClientStream::Local(stream), LOCAL.into()));
                }),
                Listener::Foreign(_) => Ok(()),
            };
            if let Err(error) = rest {
                tracing::warn!(%error, "clients that waited to be accepted are lost");
            }
        }
    }
}

impl Listener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let local = |stream| (ClientStream::Local(stream), LOCAL.into());
        match self {
            Self::Tcp(tcp) => tcp
                .poll_accept(cx)
                .map_ok(|(stream, peer)| (ClientStream::Plain(stream), peer.to_string())),
            Self::Local(socket) => socket.poll_accept(cx).map_ok(local),
            Self::Foreign(socket) => socket.poll_accept(cx).map_ok(|(stream, _)| local(stream)),
        }
    }
}

/// How long a handshake that has begun may take before a socket that others listen on too is closed.
const HANDSHAKE_TIME: Duration = Duration::from_millis(100);

/// The address of a client of this machine, as PostgreSQL calls it.
const LOCAL: &str = "[local]";

fn tcp_client((stream, peer): (net::TcpStream, net::SocketAddr)) -> io::Result<Accepted> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    Ok((ClientStream::Plain(stream), peer.to_string()))
}

fn adopt(inherited: Inherited) -> io::Result<Vec<Listener>> {
    let tcp = inherited.tcp.into_iter().map(TcpListener::from_std);
    let local = inherited.local.into_iter().map(UnixListener::from_std);
    tcp.map(|listener| listener.map(Listener::Tcp))
        .chain(local.map(|listener| listener.map(Listener::Foreign)))
        .collect()
}

async fn bind(settings: &config::Server) -> Result<Vec<Listener>, ServeError> {
    let tcp = tcp::listen(&settings.listen, settings.reuse_port).await;
    let tcp = tcp.map_err(failed(&settings.listen))?;
    let port = tcp.local_addr().map_err(failed(&settings.listen))?.port();
    let mut listeners = vec![Listener::Tcp(tcp)];
    if let Some(folder) = &settings.unix_socket {
        // Its name carries the port, also where the operating system has chosen that.
        let path: PathBuf = LocalSocket::path(folder, port);
        let address = path.display().to_string();
        let permissions = settings.unix_socket_permissions;
        let bound = LocalSocket::bind(path, permissions, settings.reuse_port);
        listeners.push(Listener::Local(bound.map_err(failed(&address))?));
    }
    Ok(listeners)
}

fn failed(address: &str) -> impl FnOnce(io::Error) -> ServeError {
    let address = address.to_owned();
    move |reason| ServeError::Listen {
        address,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(reuse_port: bool) -> config::Server {
        config::Server {
            listen: "127.0.0.1:0".into(),
            reuse_port,
            ..config::Server::default()
        }
    }

    #[tokio::test]
    async fn who_waits_to_be_accepted_is_served_when_listening_ends() {
        let nobody = Inherited::default();
        let sockets = Sockets::open(&settings(true), nobody).await.unwrap();
        let address = sockets.addresses().remove(0);
        // The runtime has not heard of them: nothing was awaited since.
        let waiting: Vec<_> = (0..5)
            .map(|_| net::TcpStream::connect(&address).unwrap())
            .collect();
        let mut served = Vec::new();
        sockets.close(|client| served.push(client.1)).await;
        let own = waiting.iter().map(|s| s.local_addr().unwrap().to_string());
        assert_eq!(served, own.collect::<Vec<_>>());
        assert!(net::TcpStream::connect(&address).is_err());
    }

    #[tokio::test]
    async fn who_waits_at_an_inherited_socket_waits_for_the_next_process() {
        let socket = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let inherit = || Inherited {
            tcp: vec![socket.try_clone().unwrap()],
            local: Vec::new(),
        };
        socket.set_nonblocking(true).unwrap();
        let first = Sockets::open(&settings(false), inherit()).await.unwrap();
        assert_eq!(first.addresses(), [address.to_string()]);
        let early = net::TcpStream::connect(address).unwrap();
        first.close(|_| panic!("it is the next one's")).await;
        let late = net::TcpStream::connect(address).unwrap();
        let second = Sockets::open(&settings(false), inherit()).await.unwrap();
        for client in [early, late] {
            let (_, peer) = second.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap().to_string());
        }
    }

    #[tokio::test]
    async fn who_comes_while_one_of_two_sockets_closes_is_served_by_the_other() {
        let mut shared = settings(true);
        let first = Sockets::open(&shared, Inherited::default()).await.unwrap();
        shared.listen = first.addresses().remove(0);
        first.turn_away();
        let address = shared.listen.clone();
        let late = tokio::task::spawn_blocking(move || net::TcpStream::connect(address));
        // The first one hears nothing of it.
        let heard = tokio::time::timeout(Duration::from_millis(300), first.accept()).await;
        assert!(heard.is_err());
        let second = Sockets::open(&shared, Inherited::default()).await.unwrap();
        first.close(|_| panic!("it is the second one's")).await;
        let (_, peer) = second.accept().await.unwrap();
        let late = late.await.unwrap().unwrap();
        assert_eq!(peer, late.local_addr().unwrap().to_string());
    }

    #[tokio::test]
    async fn only_those_who_want_it_share_a_port() {
        let mut second = settings(true);
        let first = Sockets::open(&second, Inherited::default()).await.unwrap();
        second.listen = first.addresses().remove(0);
        let shared = Sockets::open(&second, Inherited::default()).await;
        assert_eq!(shared.unwrap().addresses(), first.addresses());
        second.reuse_port = false;
        let refused = Sockets::open(&second, Inherited::default()).await.err();
        assert!(refused.unwrap().to_string().contains("cannot listen on"));
    }
}
