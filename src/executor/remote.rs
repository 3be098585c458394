//! Remote: one text run on shards through the extended protocol, every shard's replies followed on their own.
//!
//! ```text
//!          [Parse] Bind [Describe] Execute Sync|Flush
//! Idle ──────────────────────────────────────────────→ Running ──CommandComplete──→ Closing ──ReadyForQuery──→ Done
//!                                              Execute ↑     ↓ PortalSuspended      (with Sync only)
//!                                                     Suspended ←──ReadyForQuery── Pausing (with Sync only)
//! ```
//! What is deferred ([`Bound::deferred`]) is bound and goes straight to Pausing: its portal has the snapshot of that moment, and
//! nothing is computed until rows are asked for.
//!
//! Rows are passed on as runs, undecoded. An input ends only after its shard's CommandComplete, so a lost shard is always
//! an error and never a short result.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;

use super::bind::{self, Added, ResultFormats};
use super::translate::Translation;
use super::{Bound, Item, ShardStatistics, error};
use crate::backend::connections::Connections;
use crate::backend::raw_conn::{Event, RawConn, Run};
use crate::plan::{Extra, ShardId};
use crate::protocol::error::ServerError;
use crate::protocol::messages::{self, ColumnDescription};
use crate::types::oid;

mod copy;
mod replies;
mod source;
mod stream;

pub(super) use copy::CopyData;
pub(super) use source::RemoteSource;
use stream::{State, Stream};

/// Where a stream runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Shard(ShardId),
    Merge,
}

impl Place {
    fn connection(self, connections: &mut Connections) -> Result<&mut RawConn, ServerError> {
        let found = match self {
            Self::Shard(shard) => connections.get(shard),
            Self::Merge => connections.merge(),
        };
        found.ok_or_else(|| error::internal(format!("no connection for {self:?}")))
    }
}

/// How the text is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As a prepared statement; always described first, so that shards' columns can be compared.
    Described,
    /// As a prepared statement; described when it is new on a connection.
    Prepared,
    /// As a simple Query: its RowDescription goes to the client.
    Simple,
}

/// What a remote step runs.
pub(super) struct Statement {
    pub(super) form: Form,
    pub(super) sql: Arc<str>,
    pub(super) first_sql: Option<Arc<str>>,
    pub(super) formats: ResultFormats,
    /// Columns of its rows, where that is known.
    pub(super) columns: Option<u16>,
    pub(super) extra: Vec<Extra>,
    /// Values and types of further parameters behind `extra`.
    pub(super) added: Vec<(u32, Added)>,
    /// The text will hardly come again with such values: it is not kept prepared, and planned for these values alone.
    pub(super) once: bool,
    /// The text is the client's own: positions in errors mean something to it.
    pub(super) own_text: bool,
    /// What the rows must be: the client's columns.
    pub(super) expected: Option<Arc<[ColumnDescription]>>,
    /// Whether COPY data may come in their place.
    pub(super) copy: CopyData,
}

/// A text on its shards.
pub(super) struct RemoteStep {
    statement: Statement,
    /// Values and types behind the client's parameters; made at start.
    added: Vec<Added>,
    types: Vec<u32>,
    /// Empty: the unnamed portal.
    portal: String,
    streams: Vec<Stream>,
    stopped: bool,
    empty_query: bool,
    tag: Option<Bytes>,
    /// Of a COPY: its CopyOutResponse, and the rows of the shards that are done.
    copy_begun: Option<Bytes>,
    copied: u64,
}

/// A portal's name that no other portal of a connection has.
fn portal_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("pgbraid_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl RemoteStep {
    pub(super) fn new(statement: Statement, places: impl Iterator<Item = Place>) -> Self {
        Self {
            statement,
            added: Vec::new(),
            types: Vec::new(),
            portal: String::new(),
            streams: places.map(Stream::new).collect(),
            stopped: false,
            empty_query: false,
            tag: None,
            copy_begun: None,
            copied: 0,
        }
    }

    pub(super) fn inputs(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.streams.iter().filter_map(|s| match s.place {
            Place::Shard(shard) => Some(shard),
            Place::Merge => None,
        })
    }

    pub(super) fn tag(&self) -> Option<Bytes> {
        self.tag.clone()
    }

    pub(super) fn was_empty_query(&self) -> bool {
        self.empty_query
    }

    pub(super) fn unfinished(&self) -> impl Iterator<Item = ShardId> {
        self.streams
            .iter()
            .filter(|s| s.owes())
            .filter_map(|s| match s.place {
                Place::Shard(shard) => Some(shard),
                Place::Merge => None,
            })
    }

    pub(super) fn statistics(&self) -> impl Iterator<Item = ShardStatistics> {
        self.streams.iter().map(|s| s.statistics.clone())
    }

    /// Adds a condition on values to the text, which ends in a WHERE clause.
    pub(super) fn restrict(&mut self, expression: &str, values: (u32, Added), bound: &Bound) {
        let statement = &mut self.statement;
        statement.added.push(values);
        statement.once = true;
        let number = bound.parameters.values.len() + statement.extra.len() + statement.added.len();
        let condition = format!(" AND {expression} = ANY (${number})");
        statement.sql = Arc::from([&statement.sql, condition.as_str()].concat());
        let first = statement.first_sql.as_deref();
        statement.first_sql = first.map(|sql| Arc::from([sql, &condition].concat()));
    }

    /// Appends the first messages of every stream.
    pub(super) fn start(
        &mut self,
        bound: &Bound,
        connections: &mut Connections,
    ) -> Result<(), ServerError> {
        self.gather_parameters(bound);
        if bound.fetch > 0 && self.statement.form != Form::Simple {
            self.portal = portal_name();
        }
        let now = Instant::now();
        for index in 0..self.streams.len() {
            let connection = self.streams[index].place.connection(connections)?;
            let preceding = connection.outstanding();
            let unparsed = match self.statement.form {
                Form::Simple => {
                    connection.query(&self.statement.sql);
                    false
                }
                Form::Described | Form::Prepared => self.send(index, bound, connection),
            };
            let stream = &mut self.streams[index];
            stream.statistics.shard = connection.shard;
            stream.statistics.started = Some(now);
            stream.preceding = preceding;
            stream.unparsed = unparsed;
            stream.state = match bound.deferred {
                true => State::Pausing,
                false => State::Running,
            };
        }
        Ok(())
    }

    fn gather_parameters(&mut self, bound: &Bound) {
        if self.statement.extra.is_empty() && self.statement.added.is_empty() {
            return;
        }
        self.types.extend_from_slice(&bound.parameters.types);
        for extra in &self.statement.extra {
            let value = match extra {
                Extra::TransactionTimestamp => bound.transaction_timestamp,
                Extra::StatementTimestamp => bound.statement_timestamp,
                Extra::PreparedTimestamp => bound.prepared_timestamp,
            };
            self.types.push(oid::TIMESTAMPTZ);
            self.added
                .push(Bytes::copy_from_slice(&value.to_be_bytes()));
        }
        for (type_oid, value) in self.statement.added.drain(..) {
            self.types.push(type_oid);
            self.added.push(value);
        }
    }

    /// Text and parameter types as this stream prepares them.
    fn prepared<'s>(&'s self, index: usize, bound: &'s Bound) -> (&'s Arc<str>, &'s [u32]) {
        let sql = match &self.statement.first_sql {
            Some(first) if index == 0 => first,
            _ => &self.statement.sql,
        };
        let types = if self.types.is_empty() {
            &bound.parameters.types[..]
        } else {
            &self.types
        };
        (sql, types)
    }

    /// True when a Parse was needed.
    fn send(&self, index: usize, bound: &Bound, connection: &mut RawConn) -> bool {
        let (sql, types) = self.prepared(index, bound);
        let (name, new) = match self.statement.once {
            true => (Arc::from(""), true),
            false => connection.statement_name(sql, types),
        };
        // Types of users have other OIDs on every shard; the client's are the catalog shard's.
        let catalog = bound.catalog.as_deref();
        let translation = Translation::of_parameters(catalog, connection.shard, types);
        let there = translation.map(|t| (t.there(types), t.parameters(&bound.parameters)));
        let (types, parameters) = match &there {
            Some((types, parameters)) => (&types[..], parameters),
            None => (types, &*bound.parameters),
        };
        let out = connection.write_buffer();
        out.reserve(bind::size_hint(parameters));
        if new {
            messages::parse(&name, sql, types, out);
        }
        bind::bind(
            &self.portal,
            &name,
            parameters,
            &self.added,
            &self.statement.formats,
            out,
        );
        if new || self.statement.form == Form::Described {
            messages::describe_or_close(b'D', b'P', &self.portal, out);
        }
        if !bound.deferred {
            messages::execute(&self.portal, bound.fetch, out);
        }
        end_sequence(bound, connection);
        new && !self.statement.once
    }

    /// The next run of a stream, `None` at its end.
    pub(super) fn poll_stream(
        &mut self,
        index: usize,
        (bound, connections): (&Bound, &mut Connections),
        forwards: &mut VecDeque<Item>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        if self.stopped {
            self.streams[index].buffered.clear();
        }
        if let Some(run) = self.streams[index].buffered.pop_front() {
            return Poll::Ready(Ok(Some(run)));
        }
        loop {
            match self.streams[index].state {
                State::Idle | State::Done => return Poll::Ready(Ok(None)),
                State::Suspended if self.stopped => self.streams[index].state = State::Done,
                State::Suspended => {
                    let connection = self.streams[index].place.connection(connections)?;
                    // What was sent since, and nobody waited for, is answered first.
                    let preceding = connection.outstanding();
                    messages::execute(&self.portal, bound.fetch, connection.write_buffer());
                    end_sequence(bound, connection);
                    self.streams[index].preceding = preceding;
                    self.streams[index].state = State::Running;
                }
                State::Running | State::Pausing | State::Closing => {
                    let reply = self.poll_reply(index, (bound, connections), forwards, cx);
                    match ready!(reply)? {
                        Some(run) if !self.stopped => return Poll::Ready(Ok(Some(run))),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Reads what streams still owe into memory, up to their PortalSuspended or end.
    pub(super) fn poll_settle(
        &mut self,
        (bound, connections): (&Bound, &mut Connections),
        forwards: &mut VecDeque<Item>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ServerError>> {
        let mut pending = false;
        for index in 0..self.streams.len() {
            while self.streams[index].owes() {
                match self.poll_reply(index, (bound, &mut *connections), forwards, cx)? {
                    Poll::Ready(Some(run)) if !self.stopped => {
                        self.streams[index].buffered.push_back(run);
                    }
                    Poll::Ready(_) => {}
                    Poll::Pending => {
                        pending = true;
                        break;
                    }
                }
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Reads one run or message of a stream that owes some.
    fn poll_reply(
        &mut self,
        index: usize,
        (bound, connections): (&Bound, &mut Connections),
        forwards: &mut VecDeque<Item>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Run>, ServerError>> {
        let stream = &mut self.streams[index];
        let connection = stream.place.connection(connections)?;
        let columns = if stream.preceding > 0 {
            None
        } else {
            self.statement.columns
        };
        let event = ready!(connection.poll_event(columns, cx));
        match event {
            // The error the shard gave before it went away says more than that it did.
            Err(lost) => {
                let known = stream.failed.take();
                Poll::Ready(Err(known.unwrap_or_else(|| error::from_backend(lost))))
            }
            Ok(Event::Rows(_)) if stream.preceding > 0 => Poll::Ready(Ok(None)),
            Ok(Event::Rows(run)) if copy::is_data(&run) => {
                stream.count(&run);
                Poll::Ready(self.copy_data(index, run, bound).map(Some))
            }
            Ok(Event::Rows(run)) => {
                stream.count(&run);
                Poll::Ready(self.translated(index, run, bound).map(Some))
            }
            Ok(Event::Message { tag, frame }) => {
                let handled = self.on_message(index, tag, &frame, bound, forwards);
                Poll::Ready(handled.map(|()| None))
            }
        }
    }

    /// Forgets the statements whose Parse no shard has confirmed: it may have failed unread, or may never run.
    pub(super) fn abandon(&mut self, bound: &Bound, connections: &mut Connections) {
        for index in 0..self.streams.len() {
            if std::mem::take(&mut self.streams[index].unparsed) {
                let (sql, types) = self.prepared(index, bound);
                if let Ok(connection) = self.streams[index].place.connection(connections) {
                    connection.forget_statement(sql, types);
                }
            }
        }
    }

    /// Appends Close for named portals that are still there.
    pub(super) fn close(&mut self, connections: &mut Connections) {
        if self.portal.is_empty() {
            return;
        }
        for stream in &mut self.streams {
            if let Ok(connection) = stream.place.connection(connections) {
                let out = connection.write_buffer();
                messages::describe_or_close(b'C', b'P', &self.portal, out);
            }
            if stream.state == State::Suspended {
                stream.state = State::Done;
            }
        }
        self.portal.clear();
    }
}

fn end_sequence(bound: &Bound, connection: &mut RawConn) {
    if bound.sync {
        connection.sync();
    } else {
        messages::flush(connection.write_buffer());
    }
}
