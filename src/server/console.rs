//! A session of the administration console: `admin::console` for a client of PostgreSQL's. It holds no connection to a shard, and its own
//! login is an ordinary one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{BufMut, Bytes};

use super::Shared;
use super::console_extended::{Prepared, data_row, descriptions};
use super::session::terminated;
use super::stream::{Client, Message, ReadError};
use crate::admin::console::{self, Access, Answer, Command, Table};
use crate::executor::cancelled_by_user;
use crate::protocol::error::ServerError;
use crate::protocol::messages;
use crate::protocol::sqlstate;
use crate::registry::{Registration, State};

/// What drivers want to know of a server before they send anything.
const PARAMETERS: [(&str, &str); 7] = [
    (
        "server_version",
        concat!(env!("CARGO_PKG_VERSION"), "/pgbraid"),
    ),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
];

/// An operator who has logged in.
pub(super) struct ConsoleSession {
    shared: Arc<Shared>,
    pub(super) client: Client,
    pub(super) prepared: Prepared,
    registration: Registration,
    access: Access,
}

/// Why a message is not answered.
pub(super) enum Failed {
    /// The client is told.
    Error(ServerError),
    /// The client has gone.
    Gone,
}

impl From<ServerError> for Failed {
    fn from(error: ServerError) -> Self {
        Self::Error(error)
    }
}

impl ConsoleSession {
    /// With ParameterStatus, BackendKeyData and ReadyForQuery on their way.
    pub fn new(
        shared: &Arc<Shared>,
        client: Client,
        registration: Registration,
        access: Access,
    ) -> Self {
        let mut this = Self {
            shared: shared.clone(),
            client,
            prepared: Prepared::default(),
            registration,
            access,
        };
        this.greet();
        this
    }

    fn greet(&mut self) {
        let out = self.client.out();
        for (name, value) in PARAMETERS {
            messages::parameter_status(name, value, out);
        }
        let (pid, secret) = (self.registration.entry.pid, self.registration.secret());
        messages::frame(b'K', out, |out| {
            out.put_i32(pid);
            out.put_i32(secret);
        });
        messages::ready_for_query(b'I', out);
    }

    /// Serves the operator until it leaves or the process ends.
    pub async fn run(mut self) {
        // Something of the extended protocol has failed: all up to Sync is ignored.
        let mut skipping = false;
        loop {
            let message = match self.next_message().await {
                Ok(message) => message,
                Err(error) => return self.say_why(error).await,
            };
            let done = match message.tag {
                b'S' => {
                    skipping = false;
                    self.prepared.end_portals();
                    messages::ready_for_query(b'I', self.client.out());
                    continue;
                }
                b'X' => return,
                _ if skipping => continue,
                b'Q' => self.query(&message.body).await,
                b'P' | b'B' | b'D' | b'E' | b'C' => {
                    let done = self.extended(message.tag, &message.body).await;
                    skipping = done.is_err();
                    done
                }
                b'F' => {
                    self.fail(&no_functions());
                    messages::ready_for_query(b'I', self.client.out());
                    continue;
                }
                b'H' | b'd' | b'c' | b'f' => continue,
                tag => {
                    let text = format!("invalid frontend message type {tag}");
                    return self.farewell(sqlstate::PROTOCOL_VIOLATION, text).await;
                }
            };
            match done {
                Ok(()) => {}
                Err(Failed::Error(error)) => self.fail(&error),
                Err(Failed::Gone) => return,
            }
        }
    }

    async fn next_message(&mut self) -> Result<Message, ReadError> {
        let entry = self.registration.entry.clone();
        entry.activity.set_state(State::Idle);
        poll_fn(|cx| {
            if let Poll::Ready(message) = self.client.poll_message(cx) {
                entry.take_cancel();
                entry.activity.set_state(State::Active);
                return Poll::Ready(message);
            }
            match entry.hears_end(cx) || self.shared.shutdown.is_cancelled() {
                true => Poll::Ready(Err(ReadError::Shutdown)),
                false => Poll::Pending,
            }
        })
        .await
    }

    async fn say_why(&mut self, error: ReadError) {
        match error {
            ReadError::Shutdown => {
                self.fail(&terminated());
                // The client may be gone already: there is nobody left to tell.
                let _ = self.client.flush().await;
            }
            ReadError::Frame(error) => {
                self.farewell(sqlstate::PROTOCOL_VIOLATION, error.to_string())
                    .await;
            }
            ReadError::Closed | ReadError::Io(_) | ReadError::Shard(_) | ReadError::Idle => {}
        }
    }

    async fn farewell(&mut self, sqlstate: &str, message: String) {
        self.fail(&ServerError::fatal(sqlstate, message));
        let _ = self.client.flush().await;
    }

    fn fail(&mut self, error: &ServerError) {
        self.shared.metrics.error(&error.sqlstate());
        error.encode(b'E', self.client.out());
    }

    /// Query: commands up to the first error.
    async fn query(&mut self, body: &Bytes) -> Result<(), Failed> {
        self.prepared.end_unnamed();
        let text = body.strip_suffix(&[0]).map(std::str::from_utf8);
        let commands = match text {
            Some(Ok(text)) if !text.contains('\0') => console::split(text),
            _ => {
                let message = "invalid message format: Query";
                self.fail(&ServerError::new(sqlstate::PROTOCOL_VIOLATION, message));
                messages::ready_for_query(b'I', self.client.out());
                return Ok(());
            }
        };
        if commands.is_empty() {
            messages::bare(b'I', self.client.out());
        }
        for command in commands {
            match self.answer_of(&command).await {
                Ok(Answer::Rows(table)) => self.send(&table)?,
                Ok(Answer::Done(tag)) => messages::command_complete(tag, self.client.out()),
                Err(Failed::Error(error)) => {
                    self.fail(&error);
                    break;
                }
                Err(Failed::Gone) => return Err(Failed::Gone),
            }
        }
        messages::ready_for_query(b'I', self.client.out());
        Ok(())
    }

    async fn answer_of(&mut self, text: &str) -> Result<Answer, Failed> {
        let command = console::parse(text)?;
        self.carry_out(&command).await
    }

    /// What a command answers.
    pub(super) async fn carry_out(&mut self, command: &Command) -> Result<Answer, Failed> {
        let (shared, entry) = (self.shared.clone(), self.registration.entry.clone());
        let mut carried_out = pin!(shared.console.execute(command, self.access, &entry));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = carried_out.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(Failed::Error));
            }
            // PAUSE may take long.
            if entry.hears_cancel(cx) {
                return Poll::Ready(Err(cancelled_by_user().into()));
            }
            match self.client.poll_hangup(cx) {
                true => Poll::Ready(Err(Failed::Gone)),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn send(&mut self, table: &Table) -> Result<(), ServerError> {
        let columns = descriptions(table, &[])?;
        let out = self.client.out();
        messages::row_description(&columns, out);
        for row in &table.rows {
            data_row(row, columns.iter().map(|c| c.format), out);
        }
        messages::command_complete("SHOW", out);
        Ok(())
    }
}

fn no_functions() -> ServerError {
    let message = "the console has no functions to call";
    ServerError::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}
