//! A session of the administration console: `admin::console` in the simple protocol. It holds no connection to a shard, and its own login
//! is an ordinary one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{BufMut, Bytes};

use super::Shared;
use super::session::terminated;
use super::stream::{Client, Message, ReadError};
use crate::admin::console::{self, Access, Answer, Table, Type, Value};
use crate::executor::cancelled_by_user;
use crate::protocol::error::ServerError;
use crate::protocol::messages::{self, ColumnDescription};
use crate::protocol::sqlstate;
use crate::registry::{Registration, State};
use crate::types::oid;

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
    client: Client,
    registration: Registration,
    access: Access,
}

/// The client is gone, or may not stay.
struct Gone;

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
        // An extended-protocol message was refused: everything up to Sync is ignored.
        let mut skipping = false;
        loop {
            let message = match self.next_message().await {
                Ok(message) => message,
                Err(error) => return self.say_why(error).await,
            };
            match message.tag {
                b'Q' => {
                    if self.query(&message.body).await.is_err() {
                        return;
                    }
                }
                b'S' => {
                    skipping = false;
                    messages::ready_for_query(b'I', self.client.out());
                }
                b'X' => return,
                b'P' | b'B' | b'D' | b'E' | b'C' => {
                    if !std::mem::replace(&mut skipping, true) {
                        self.fail(&only_simple());
                    }
                }
                b'F' => {
                    self.fail(&only_simple());
                    messages::ready_for_query(b'I', self.client.out());
                }
                b'H' | b'd' | b'c' | b'f' => {}
                tag => {
                    let text = format!("invalid frontend message type {tag}");
                    return self.farewell(sqlstate::PROTOCOL_VIOLATION, text).await;
                }
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
    async fn query(&mut self, body: &Bytes) -> Result<(), Gone> {
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
            match self.carry_out(&command).await {
                Ok(Answer::Rows(table)) => self.send(&table),
                Ok(Answer::Done(tag)) => messages::command_complete(tag, self.client.out()),
                Err(Some(error)) => {
                    self.fail(&error);
                    break;
                }
                Err(None) => return Err(Gone),
            }
        }
        messages::ready_for_query(b'I', self.client.out());
        Ok(())
    }

    /// What a command answers; no error where the client has gone meanwhile.
    async fn carry_out(&mut self, command: &str) -> Result<Answer, Option<ServerError>> {
        let command = console::parse(command)?;
        let (shared, entry) = (self.shared.clone(), self.registration.entry.clone());
        let mut carried_out = pin!(shared.console.execute(&command, self.access, &entry));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = carried_out.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(Some));
            }
            // PAUSE may take long.
            if entry.hears_cancel(cx) {
                return Poll::Ready(Err(Some(cancelled_by_user())));
            }
            match self.client.poll_hangup(cx) {
                true => Poll::Ready(Err(None)),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn send(&mut self, table: &Table) {
        let columns: Vec<_> = table.columns.iter().map(description).collect();
        let out = self.client.out();
        messages::row_description(&columns, out);
        for row in &table.rows {
            messages::frame(b'D', out, |out| {
                out.put_i16(row.len() as i16);
                for value in row.iter().map(Value::text) {
                    match value {
                        None => out.put_i32(-1),
                        Some(text) => {
                            out.put_i32(text.len() as i32);
                            out.put_slice(text.as_bytes());
                        }
                    }
                }
            });
        }
        messages::command_complete("SHOW", out);
    }
}

fn description(column: &console::Column) -> ColumnDescription {
    let (type_oid, type_length) = match column.kind {
        Type::Integer => (oid::INT8, 8),
        Type::Float => (oid::FLOAT8, 8),
        Type::Text => (oid::TEXT, -1),
    };
    ColumnDescription {
        name: column.name.into(),
        table_oid: 0,
        attribute: 0,
        type_oid,
        type_length,
        type_modifier: -1,
        format: 0,
    }
}

fn only_simple() -> ServerError {
    let message = "the console speaks the simple query protocol only";
    ServerError::new(sqlstate::FEATURE_NOT_SUPPORTED, message).with_hint(
        "Ask the driver for it: default_query_exec_mode=simple_protocol, preferQueryMode=simple.",
    )
}
