//! A shard for tests: a listener on 127.0.0.1 that logs anybody in and answers by a script.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{self, Config};
use crate::protocol::error::ServerError;
use crate::protocol::messages;

/// What the mock does with a simple query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One row and ReadyForQuery.
    Row,
    /// Nothing, ever.
    Silence,
    /// A row, then the connection ends.
    Die,
    /// Closes once the reply is out.
    RowThenClose,
}

#[derive(Debug)]
pub(crate) struct Mock {
    pub port: u16,
    pub answer: Mutex<Answer>,
    /// What the login sends instead of AuthenticationOk and the rest.
    pub greeting: Mutex<Option<Vec<u8>>>,
    pub logins: AtomicUsize,
    /// Sessions at the moment.
    pub sessions: AtomicUsize,
    pub sessions_max: AtomicUsize,
    /// Who has logged in, in order.
    pub users: Mutex<Vec<String>>,
    pub cancels: Mutex<Vec<(i32, Vec<u8>)>>,
}

pub(crate) const KEY: [u8; 32] = [7; 32];

impl Mock {
    pub(crate) async fn start() -> Arc<Self> {
        Self::start_at("127.0.0.1:0").await
    }

    pub(crate) async fn start_at(address: &str) -> Arc<Self> {
        let listener = TcpListener::bind(address).await.unwrap();
        let mock = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            answer: Mutex::new(Answer::Row),
            greeting: Mutex::new(None),
            logins: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            sessions_max: AtomicUsize::new(0),
            users: Mutex::default(),
            cancels: Mutex::default(),
        });
        let accepting = mock.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mock = accepting.clone();
                tokio::spawn(async move {
                    let now = mock.sessions.fetch_add(1, Ordering::SeqCst) + 1;
                    mock.sessions_max.fetch_max(now, Ordering::SeqCst);
                    let _ = mock.session(stream).await;
                    mock.sessions.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        mock
    }

    async fn session(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let length = stream.read_u32().await?;
        let mut startup = vec![0; length as usize - 4];
        stream.read_exact(&mut startup).await?;
        if startup[..4] == 80_877_102u32.to_be_bytes() {
            let process_id = i32::from_be_bytes(startup[4..8].try_into().unwrap());
            self.cancels
                .lock()
                .push((process_id, startup[8..].to_vec()));
            return Ok(());
        }
        let mut parameters = startup[4..].split(|b| *b == 0);
        parameters.find(|p| p == b"user");
        let user = parameters.next().unwrap_or_default();
        self.users
            .lock()
            .push(String::from_utf8_lossy(user).into_owned());
        let login = self.logins.fetch_add(1, Ordering::SeqCst) as i32;
        let greeting = self.greeting.lock().clone();
        stream
            .write_all(&greeting.unwrap_or_else(|| greeting_of(login)))
            .await?;
        loop {
            let tag = stream.read_u8().await?;
            let length = stream.read_u32().await?;
            let mut body = vec![0; length as usize - 4];
            stream.read_exact(&mut body).await?;
            let answer = *self.answer.lock();
            if (tag != b'Q' && tag != b'S') || answer == Answer::Silence {
                continue;
            }
            let mut reply = BytesMut::new();
            messages::frame(b'D', &mut reply, |out| {
                out.put_i16(1);
                out.put_i32(-1);
            });
            if answer != Answer::Die {
                messages::command_complete("SELECT 1", &mut reply);
                messages::ready_for_query(b'I', &mut reply);
            }
            stream.write_all(&reply).await?;
            if answer != Answer::Row {
                return Ok(());
            }
        }
    }
}

pub(crate) fn authentication(method: i32, rest: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    messages::frame(b'R', &mut out, |out| {
        out.put_i32(method);
        out.put_slice(rest);
    });
    out.to_vec()
}

pub(crate) fn error(severity_fatal: bool, sqlstate: &str, message: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    let error = match severity_fatal {
        true => ServerError::fatal(sqlstate, message),
        false => ServerError::new(sqlstate, message),
    };
    error.encode(b'E', &mut out);
    out.to_vec()
}

fn greeting_of(process_id: i32) -> Vec<u8> {
    let mut out = BytesMut::from(&authentication(0, b"")[..]);
    messages::parameter_status("server_version", "15.2", &mut out);
    messages::frame(b'K', &mut out, |out| {
        out.put_i32(process_id);
        out.put_slice(&KEY);
    });
    messages::ready_for_query(b'I', &mut out);
    out.to_vec()
}

/// A configuration over mocks, `size` connections each.
pub(crate) fn config(ports: &[u16], size: usize) -> Arc<Config> {
    use std::fmt::Write as _;
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[database]\nname = \"d\"\n[pool]\nsize = {size}\nmerge_size = 1\n\
         [[user]]\nname = \"u\"\npassword = \"p\"\n"
    );
    for (i, port) in ports.iter().enumerate() {
        write!(
            text,
            "[[shard]]\nname = \"s{i}\"\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"d\"\nuser = \"u\"\npassword = \"p\"\n\
             sslmode = \"disable\"\n"
        )
        .unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Arc::new(config::load(file.path(), &BTreeMap::new()).unwrap())
}
