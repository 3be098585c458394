//! THE loop: one task a client, one message after the other, until the client leaves.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::Shared;
use super::cursors::{Cursors, Sink};
use super::encoding::send_error;
use super::idle::Idle;
use super::missing::Steering;
use super::pins::Pins;
use super::portals::Portals;
use super::prepared::Prepared;
use super::role::{FoundPath, Role};
use super::settings::Settings;
use super::stream::{Client, Message, ReadError};
use super::transaction::{Block, Company, Transaction};
use super::watch::Running;
use crate::backend::connections::Connections;
use crate::metrics::Reason;
use crate::protocol::error::ServerError;
use crate::protocol::messages;
use crate::protocol::sqlstate;
use crate::registry::{Registration, ShardProgress, State};

/// How long a client that takes its leave may take for the replies to what it has sent before.
const LAST_WRITE_TIME: Duration = Duration::from_secs(5);

/// Why work on a message stopped early.
#[derive(Debug)]
pub enum Ended {
    /// The statement failed; the session goes on.
    Statement(ServerError),
    /// The client is gone, or may not stay.
    Session,
}

impl From<ServerError> for Ended {
    fn from(error: ServerError) -> Self {
        Self::Statement(error)
    }
}

/// A logged-in client and all that belongs to it.
pub struct Session {
    pub shared: Arc<Shared>,
    pub client: Client,
    pub registration: Registration,
    /// Settings of the startup packet: what RESET goes back to.
    pub startup: Settings,
    /// Settings in force.
    pub settings: Settings,
    /// ParameterStatus values as the client knows them.
    pub reported: HashMap<String, String>,
    /// ParameterStatus messages for the next ReadyForQuery.
    pub reports: BytesMut,
    pub transaction: Transaction,
    /// The statement in hand has literals that mean another time whenever they are read.
    pub reads_clock: bool,
    /// Settings before the first SET of an implicit transaction: what an error in it goes back to.
    pub before_pipeline: Option<Settings>,
    /// When the message in hand came, microseconds since 2000-01-01 UTC: statement_timestamp().
    pub message_time: i64,
    /// What the statement in hand shares its implicit transaction with.
    pub company: Company,
    /// What ran since connections were last given back may have set something on them that nobody saw.
    pub leaves_unseen: bool,
    /// A statement of the transaction in hand may have changed the schema, see [`super::schema`].
    pub changes_schema: bool,
    /// A query has run in that implicit transaction.
    pub has_run: bool,
    /// Whose statements these are at the shards.
    pub role: Role,
    /// See [`Session::find_path`].
    pub found_path: Option<FoundPath>,
    pub connections: Connections,
    /// The session has state on its connections that cannot be replayed: it keeps that to the catalog shard, or all.
    pub pinned: bool,
    /// What that state is.
    pub pins: Pins,
    pub statements: hashbrown::HashMap<String, Arc<Prepared>, foldhash::fast::RandomState>,
    pub portals: Portals,
    pub cursors: Cursors,
    /// Where rows go while a cursor is read.
    pub sink: Option<Sink>,
    /// An extended-protocol message failed: everything up to Sync is ignored.
    pub skipping: bool,
    /// Messages of a pipeline have come, and not yet its Sync: the client is in the middle of something.
    pub in_pipeline: bool,
    /// How long the client has been silent.
    pub idle: Idle,
    /// One of pgbraid's own settings is on, or the client has been told of missing shards: nothing takes the short way.
    pub steered: bool,
    /// What those have made of the statement in hand.
    pub steering: Steering,
    /// The running statement's steps share a transaction of our own on the shards.
    pub snapshot: bool,
    /// The running statement has a savepoint of our own in the client's transaction.
    pub savepoint: bool,
    /// Cancels that are on their way to shards.
    pub cancels: Vec<tokio::task::JoinHandle<()>>,
    /// The statement in hand, for the metrics.
    pub running: Option<Running>,
    /// What the shards have done for it, where that was worth a look.
    pub parts: Vec<ShardProgress>,
    /// When the first statement of the transaction in hand began.
    pub transaction_since: Option<Instant>,
    /// The registry has the text of the statement in hand.
    pub shows_text: bool,
    /// What is noted of the statement in hand for its trace.
    #[cfg(feature = "otlp")]
    pub noted: super::traces::Noted,
    /// The client has been told that its session is over.
    pub killed: bool,
}

impl Session {
    /// Serves the client until it leaves, the connection breaks, or the process shuts down.
    pub async fn run(mut self) {
        loop {
            let handled = match self.next_message().await {
                Ok(message) => match self.begin_side_by_side(&message) {
                    None => self.dispatch(message).await,
                    Some(run) => Box::pin(self.answer_side_by_side(run)).await,
                },
                Err(ReadError::Shutdown) => {
                    self.fatal(&terminated()).await;
                    break;
                }
                Err(ReadError::Idle) => {
                    self.fatal(&ServerError::fatal(
                        sqlstate::IDLE_SESSION_TIMEOUT,
                        "terminating connection due to idle-session timeout",
                    ))
                    .await;
                    break;
                }
                Err(ReadError::Shard(error)) => {
                    self.fatal(&error).await;
                    break;
                }
                Err(ReadError::Frame(error)) => {
                    self.fatal(&ServerError::fatal(
                        sqlstate::PROTOCOL_VIOLATION,
                        error.to_string(),
                    ))
                    .await;
                    break;
                }
                Err(_) => break,
            };
            if handled.is_err() {
                break;
            }
            if self.killed {
                let _ = tokio::time::timeout(LAST_WRITE_TIME, self.client.flush()).await;
                break;
            }
        }
        self.leave().await;
    }

    /// The client's next message. One that has been read already costs nothing to take; only who waits looks for a shutdown.
    async fn next_message(&mut self) -> Result<Message, ReadError> {
        if let Some(message) = self.client.buffered()? {
            return Ok(message);
        }
        let idle = self.transaction.block == Block::Idle && !self.in_pipeline;
        self.idle.begin();
        poll_fn(|cx| {
            // Who is woken by a message has one.
            if let Poll::Ready(message) = self.client.poll_message(cx) {
                // As PostgreSQL does with one that finds it idle.
                self.registration.entry.take_cancel();
                let ended = self.registration.entry.is_ending();
                return Poll::Ready(match ended || idle && self.shared.shutdown.is_cancelled() {
                    true => Err(ReadError::Shutdown),
                    false => message,
                });
            }
            if self.pinned {
                if let Poll::Ready(error) = self.poll_pinned(cx) {
                    return Poll::Ready(Err(ReadError::Shard(error)));
                }
                if self.client.pending_bytes() > 0 {
                    match self.client.poll_flush(cx) {
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        // What was read for, it waits for again.
                        Poll::Ready(Ok(())) => cx.waker().wake_by_ref(),
                        Poll::Pending => {}
                    }
                }
            }
            let ended = self.registration.entry.hears_end(cx);
            if ended || idle && self.shared.shutdown.is_cancelled() {
                return Poll::Ready(Err(ReadError::Shutdown));
            }
            let limit = self.idle_limit();
            match idle && self.idle.is_over(limit, cx) {
                true => Poll::Ready(Err(ReadError::Idle)),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// A message's future is moved several times on its way to being polled: what is seldom or long is boxed, here and below, so
    /// that those of a prepared statement's messages stay small.
    async fn dispatch(&mut self, message: Message) -> Result<(), Ended> {
        if self.skipping && !matches!(message.tag, b'S' | b'X') {
            return Ok(());
        }
        self.registration.entry.activity.set_state(State::Active);
        self.shows_text = false;
        if matches!(message.tag, b'Q' | b'P' | b'E') {
            self.note_time();
        }
        let tag = message.tag;
        // Until ReadyForQuery says otherwise.
        self.in_pipeline |= matches!(tag, b'P' | b'B' | b'D' | b'E' | b'C');
        let message = match self.decoded(message) {
            Ok(message) => message,
            Err(error) => {
                self.fail(&error);
                if tag == b'Q' {
                    return self.settle().await;
                }
                self.skipping = true;
                return Ok(());
            }
        };
        let outcome = match message.tag {
            b'Q' => return Box::pin(self.simple_query(&message.body)).await,
            b'S' => return self.sync().await,
            b'P' => self.parse(&message.body).await,
            b'B' => self.bind(message.body).await,
            b'D' => self.describe(&message.body).await,
            b'E' => self.execute(&message.body).await,
            b'C' => self.close(&message.body).await,
            b'H' => return self.client.flush().await.map_err(|_| Ended::Session),
            b'F' => return Box::pin(self.function_call()).await,
            // COPY messages that arrive after the COPY failed are dropped, as PostgreSQL does.
            b'd' | b'c' | b'f' => Ok(()),
            b'X' => {
                // What it has asked for before it still gets.
                let _ = tokio::time::timeout(LAST_WRITE_TIME, self.client.flush()).await;
                Err(Ended::Session)
            }
            tag => {
                let error = ServerError::fatal(
                    sqlstate::PROTOCOL_VIOLATION,
                    format!("invalid frontend message type {tag}"),
                );
                Box::pin(self.fatal(&error)).await;
                Err(Ended::Session)
            }
        };
        match outcome {
            Err(Ended::Statement(error)) => {
                self.failed(&error).await?;
                self.skipping = true;
                Ok(())
            }
            other => other,
        }
    }

    /// A statement has failed. With one shard, one that ends the connection in its course ends the session, as that server does.
    ///
    /// # Errors
    /// `Ended::Session` then.
    pub async fn failed(&mut self, error: &ServerError) -> Result<(), Ended> {
        let ended = |session: &mut Self| {
            let mut held = session.connections.iter_mut();
            held.any(|(_, conn)| conn.is_lost())
        };
        if self.shared.is_one_shard() && ended(self) {
            let fatal = error.clone().with(b'S', "FATAL").with(b'V', "FATAL");
            Box::pin(self.fatal(&fatal)).await;
            return Err(Ended::Session);
        }
        self.fail(error);
        Ok(())
    }

    /// The time of a message that statements see as theirs.
    pub fn note_time(&mut self) {
        self.message_time = super::transaction::now();
        self.timestamp();
    }

    /// Queues a statement's error and notes what it does to the transaction.
    pub fn fail(&mut self, error: &ServerError) {
        let state = error.sqlstate();
        if state == sqlstate::QUERY_CANCELED && self.registration.entry.is_ending() {
            // What it was cancelled for.
            self.killed = true;
            self.shared.metrics.error(sqlstate::ADMIN_SHUTDOWN);
            return send_error(&mut self.client, &terminated());
        }
        self.shared.metrics.error(&state);
        #[cfg(feature = "otlp")]
        self.note_failure(&state);
        if state == sqlstate::FEATURE_NOT_SUPPORTED {
            self.note_refusal(error);
        }
        if self.transaction.block == Block::Open {
            self.transaction.block = Block::Failed;
        }
        if self.transaction.block == Block::Idle
            && let Some(settings) = self.before_pipeline.take()
        {
            self.restore(settings);
        }
        self.shared.note_error(error);
        send_error(&mut self.client, error);
    }

    async fn sync(&mut self) -> Result<(), Ended> {
        self.skipping = false;
        self.settle().await
    }

    /// Ends a simple query or a pipeline: implicit transactions end, connections go back, ReadyForQuery goes out.
    pub async fn settle(&mut self) -> Result<(), Ended> {
        self.end_statements().await;
        if self.pinned && self.has_lost_pins() {
            Box::pin(self.fatal(&Self::lost_pins())).await;
            return Err(Ended::Session);
        }
        self.send_ready();
        // Reading the next message flushes; a message that is already here is answered in the same write.
        Ok(())
    }

    /// What has come up, and ReadyForQuery.
    pub fn send_ready(&mut self) {
        self.in_pipeline = false;
        if self.killed {
            return;
        }
        #[cfg(feature = "otlp")]
        self.end_note();
        self.show_state();
        self.send_reports();
        messages::ready_for_query(self.transaction.block.status(), self.client.out());
    }

    /// Ends implicit transactions; connections go back.
    pub async fn end_statements(&mut self) {
        if self.snapshot {
            // Of a statement that failed.
            let _ = Box::pin(self.end_snapshot()).await;
        }
        if self.transaction.implicit {
            let commit = self.transaction.block == Block::Open;
            if let Err(error) = Box::pin(self.end_transaction(commit, "COMMIT")).await {
                self.fail(&error);
                self.recover().await;
            }
        }
        if self.transaction.block == Block::Idle {
            self.portals.clear();
        }
        if let Err(error) = self.end_pipeline().await {
            self.fail(&error);
            self.recover().await;
        }
        self.before_pipeline = None;
        self.tell_schema();
        self.company = Company::Alone;
        self.has_run = false;
        if self.transaction.block == Block::Idle {
            self.transaction.forget_clock();
            if std::mem::take(&mut self.leaves_unseen) {
                self.forget_marks();
            }
            match self.pinned {
                true => Box::pin(self.release_unpinned()).await,
                false => self.connections.release(),
            }
        }
        self.end_count_of_message();
    }

    /// Sends the Sync that is still owed on each connection, and waits for the replies.
    async fn end_pipeline(&mut self) -> Result<(), ServerError> {
        let mut owed: Vec<_> = self
            .connections
            .iter_mut()
            .map(|(_, conn)| conn)
            .filter(|c| c.unsynced())
            .collect();
        if owed.is_empty() {
            return Ok(());
        }
        owed.iter_mut().for_each(|conn| conn.sync());
        let done =
            futures_util::future::join_all(owed.into_iter().map(super::control::drain)).await;
        done.into_iter().collect()
    }

    async fn function_call(&mut self) -> Result<(), Ended> {
        let error = super::run::unsupported(
            Reason::Function,
            "the function call message is not supported",
            "Use SELECT function(…).",
        );
        self.fail(&error);
        self.settle().await
    }

    /// Has the client told a parameter's value, if that is news, with the next ReadyForQuery: as PostgreSQL does since 14.
    pub fn report(&mut self, name: &str, value: &str) {
        if self.reported.get(name).is_none_or(|known| known != value) {
            if name == "application_name" {
                self.registration.entry.set_application_name(value);
            }
            self.reported.insert(name.to_owned(), value.to_owned());
            messages::parameter_status(name, value, &mut self.reports);
        }
    }

    /// Queues the ParameterStatus messages that have come up.
    pub fn send_reports(&mut self) {
        let reports = self.reports.split();
        self.client.out().extend_from_slice(&reports);
    }

    /// Sends a FATAL error; the caller ends the session.
    pub async fn fatal(&mut self, error: &ServerError) {
        send_error(&mut self.client, error);
        // The client may be gone already: there is nobody left to tell.
        let _ = self.client.flush().await;
    }

    /// Rolls back what is open and gives the connections back or closes them.
    async fn leave(&mut self) {
        self.recover().await;
        if self.pinned || self.transaction.block != Block::Idle {
            // Closing a connection rolls back and drops what the session left on it.
            self.connections
                .iter_mut()
                .for_each(|(_, conn)| conn.poison());
        }
        self.connections.release();
    }
}

/// PostgreSQL's words for a session that an operator ends.
pub(super) fn terminated() -> ServerError {
    let message = "terminating connection due to administrator command";
    ServerError::fatal(sqlstate::ADMIN_SHUTDOWN, message)
}
