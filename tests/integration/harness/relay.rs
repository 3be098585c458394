//! A TCP relay between pgbraid and a shard that cuts, resets, stalls or slows the shard's answers at a chosen byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// What happens to bytes from the shard, counted over all connections since the fault was armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// After so many bytes every connection is closed, and new ones are closed at once until the relay is healed.
    Cut {
        after: u64,
    },
    /// As `Cut`, with a TCP reset.
    Reset {
        after: u64,
    },
    /// After so many bytes nothing moves any more, and nothing is closed.
    Stall {
        after: u64,
    },
    /// Every piece is held back so long.
    Delay {
        pause: Duration,
    },
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    /// Grows with each fault: pieces read before it do not count.
    passed: u64,
    connections: Vec<TcpStream>,
    opened: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    upstream: SocketAddr,
}

/// A running relay. Its threads end with the connections and, at the latest, with the process.
pub struct Relay {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Relay {
    /// Relays to 127.0.0.1:`upstream`.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            upstream: SocketAddr::from(([127, 0, 0, 1], upstream)),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.connect(client);
            }
        });
        Self { port, shared }
    }

    /// Arms a fault; byte counts start here.
    pub fn arm(&self, fault: Fault) {
        let mut state = self.shared.lock();
        state.fault = Some(fault);
        state.passed = 0;
        self.shared.strike_if_due(&mut state);
        self.shared.changed.notify_all();
    }

    /// Everything passes again. Connections that were cut stay cut; stalled ones go on.
    pub fn heal(&self) {
        self.arm(Fault::None);
    }

    /// Bytes from the shard since the last fault was armed.
    pub fn passed(&self) -> u64 {
        self.shared.lock().passed
    }

    /// Connections that were ever opened.
    pub fn opened(&self) -> usize {
        self.shared.lock().opened
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    fn connect(self: &Arc<Self>, client: TcpStream) {
        let mut state = self.lock();
        let down = matches!(state.fault, Some(Fault::Cut { after } | Fault::Reset { after }) if state.passed >= after);
        if down {
            return;
        }
        let Ok(server) = TcpStream::connect(self.upstream) else {
            return;
        };
        client.set_nodelay(true).ok();
        server.set_nodelay(true).ok();
        let copy = |s: &TcpStream| s.try_clone().expect("descriptor");
        state.opened += 1;
        state.connections.extend([copy(&client), copy(&server)]);
        let (down, up) = ((copy(&server), copy(&client)), (client, server));
        let shared = Arc::clone(self);
        thread::spawn(move || shared.pump_answers(down.0, down.1));
        thread::spawn(move || pump(up.0, up.1));
    }

    fn pump_answers(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut chunk = [0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut chunk) {
            if !self.pass(&chunk[..n], &mut to) {
                break;
            }
        }
        end(&from);
        end(&to);
    }

    /// Hands on what the fault allows; false ends the connection.
    fn pass(&self, bytes: &[u8], to: &mut TcpStream) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut state = self.lock();
            let fault = state.fault.unwrap_or(Fault::None);
            let allowed = match fault {
                Fault::None | Fault::Delay { .. } => rest.len() as u64,
                Fault::Cut { after } | Fault::Reset { after } | Fault::Stall { after } => {
                    after.saturating_sub(state.passed)
                }
            };
            if allowed == 0 {
                if matches!(fault, Fault::Stall { .. }) {
                    drop(self.changed.wait(state).expect("no panic while held"));
                    continue;
                }
                return false;
            }
            let piece = allowed.min(rest.len() as u64);
            state.passed += piece;
            drop(state);
            if let Fault::Delay { pause } = fault {
                thread::sleep(pause);
            }
            let (now, later) = rest.split_at(usize::try_from(piece).expect("part of a slice"));
            if to.write_all(now).is_err() {
                return false;
            }
            rest = later;
            self.strike_if_due(&mut self.lock());
        }
        true
    }

    /// Closes everything once a cut's byte has passed.
    fn strike_if_due(&self, state: &mut State) {
        let reset = match state.fault {
            Some(Fault::Cut { after }) if state.passed >= after => false,
            Some(Fault::Reset { after }) if state.passed >= after => true,
            _ => return,
        };
        for connection in state.connections.drain(..) {
            if reset {
                SockRef::from(&connection)
                    .set_linger(Some(Duration::ZERO))
                    .ok();
            }
            end(&connection);
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::io::copy(&mut from, &mut to).ok();
    end(&from);
    end(&to);
}

/// Ends a connection: in order, or, where it was told not to linger, so that its last close becomes a reset.
fn end(connection: &TcpStream) {
    let how = match SockRef::from(connection).linger() {
        Ok(Some(_)) => Shutdown::Read,
        _ => Shutdown::Both,
    };
    connection.shutdown(how).ok();
}
