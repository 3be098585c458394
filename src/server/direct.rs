//! The short way of the most frequent statement: a SELECT that one shard answers and has prepared before, as a Query of its own or as
//! Bind, Execute and Sync that are all here. It needs neither portal nor execution. Whatever is not quite as simple goes the long way, and
//! nothing has happened until that is known. Both ways give the client the same bytes; this one costs half the instructions.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{BufMut, Bytes};

use super::bind::Bind;
use super::cancel::unless_cancelled;
use super::prepare::CATALOG_SHARD;
use super::prepared::Prepared;
use super::run::{FLUSH_BYTES, STOP_BYTES};
use super::session::{Ended, Session};
use super::silence::Silence;
use crate::backend::raw_conn::{Event, RawConn};
use crate::executor::target::{self, Choice};
use crate::executor::{Parameters, backend_error, shard_error};
use crate::metrics::QueryKind;
use crate::plan::{ShardId, Targets};
use crate::protocol::error::ServerError;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::messages::{self, ColumnDescription};
use crate::protocol::sqlstate;
use crate::types::oid;

/// Behind the statement's name in a Bind: no parameters, all columns as text.
const NO_PARAMETERS: &[u8] = b"\0\0\0\0\0\0";

/// What is to be run, and where.
pub(super) struct Call<'a> {
    pub(super) prepared: Arc<Prepared>,
    pub(super) columns: Arc<[ColumnDescription]>,
    pub(super) shard: ShardId,
    pub(super) form: Form<'a>,
}

/// How a shard is told.
pub(super) enum Form<'a> {
    /// By a Bind; of the client's, everything behind the statement's name.
    Bind(Bytes),
    /// By the text itself: its literals stand where the prepared statement has parameters.
    Text(Cow<'a, str>),
}

/// A shard's reply as far as it has been read.
pub(super) struct Reply {
    pub(super) shard: ShardId,
    pub(super) prepared: Arc<Prepared>,
    pub(super) columns: Arc<[ColumnDescription]>,
    /// The client has sent a Bind.
    pub(super) confirms: bool,
    /// The client wants the columns described.
    pub(super) describes: bool,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// CommandComplete: it holds only once ReadyForQuery follows.
    pub(super) complete: Bytes,
    pub(super) failed: Option<ServerError>,
}

impl Reply {
    pub(super) fn new(call: Call<'_>, confirms: bool, describes: bool) -> Self {
        Self {
            shard: call.shard,
            prepared: call.prepared,
            columns: call.columns,
            confirms,
            describes,
            rows: 0,
            bytes: 0,
            complete: Bytes::new(),
            failed: None,
        }
    }
}

impl Session {
    /// Answers the Bind in hand together with the Execute and Sync behind it; false when it must go the long way.
    ///
    /// # Errors
    /// `Ended::Session` when the client is gone.
    pub async fn bind_directly(&mut self, body: &Bytes) -> Result<bool, Ended> {
        let Some(describes) = self.client.peek_execution() else {
            return Ok(false);
        };
        let Some(call) = self.direct_call(body) else {
            return Ok(false);
        };
        let done = self.run_directly(call, true, describes).await;
        match done {
            Ok(false) => return Ok(false),
            Ok(true) => {
                self.client.take_execution(describes);
                self.send_ready();
                if self.client.buffered_bytes() == 0 {
                    // The client need not wait for what is left to do here. What it does not take now it gets later.
                    poll_fn(|cx| Poll::Ready(self.client.poll_flush(cx).is_ready())).await;
                }
                self.end_statements().await;
                return Ok(true);
            }
            Err(Ended::Statement(error)) => {
                self.client.take_execution(describes);
                self.failed(&error).await?;
            }
            Err(Ended::Session) => return Err(Ended::Session),
        }
        self.settle().await.map(|()| true)
    }

    /// Answers a Query of one statement, all but its ReadyForQuery; false when it must go the long way.
    ///
    /// # Errors
    /// The statement's; `Ended::Session` when the client is gone.
    pub async fn query_directly(&mut self, prepared: &Arc<Prepared>) -> Result<bool, Ended> {
        if !self.takes_short_way() {
            return Ok(false);
        }
        match self.call_of_query(prepared) {
            Some(call) => self.run_directly(call, false, true).await,
            None => Ok(false),
        }
    }

    pub(super) fn call_of_query(&self, prepared: &Arc<Prepared>) -> Option<Call<'static>> {
        if !prepared.is_plain || prepared.first_parameter.is_some() {
            return None;
        }
        let shard = self.direct_target(prepared, &Parameters::default())?;
        Some(Call {
            prepared: prepared.clone(),
            columns: prepared.columns.clone()?,
            shard,
            form: Form::Bind(Bytes::from_static(NO_PARAMETERS)),
        })
    }

    /// Sends the statement and streams the reply. False: nothing has happened.
    pub(super) async fn run_directly(
        &mut self,
        call: Call<'_>,
        confirms: bool,
        describes: bool,
    ) -> Result<bool, Ended> {
        if self.role.pools.is_paused(call.shard) {
            // There it waits.
            return Ok(false);
        }
        let (now, patience) = (Instant::now(), self.shared.config().pool.queue_timeout);
        let mut lease = {
            let pools = &self.role.pools;
            let acquired = pin!(pools.acquire_one(call.shard, now, patience));
            let shown = Some((&call.prepared.sql, now));
            unless_cancelled(&self.registration.entry, shown, acquired).await?
        };
        if !send(&call, &mut lease, self.settings.mark()) {
            return Ok(false);
        }
        self.count_since(QueryKind::Routed, now, &call.prepared.sql, Some(call.shard));
        self.portals.clear();
        self.connections.put(call.shard, lease);
        let mut reply = Reply::new(call, confirms, describes);
        let done = self.stream_directly(&mut reply).await;
        self.shared.metrics.rows_to_clients.inc_by(reply.rows);
        #[cfg(feature = "otlp")]
        self.note_direct(reply.rows, reply.bytes);
        self.count_row_at_end(reply.rows > 0);
        if done.is_err() {
            self.recover().await;
        }
        done.map(|()| true)
    }

    /// Nothing is under way in this session that the short way would not see. To wait for a connection while holding another might
    /// be to wait for each other.
    pub(super) fn takes_short_way(&self) -> bool {
        self.is_alone()
            && !self.pinned
            && !self.steered
            && self.client.encoding.is_none()
            && self.portals.named() == 0
            && self.connections.is_empty()
    }

    pub(super) fn direct_target(
        &self,
        prepared: &Prepared,
        parameters: &Parameters,
    ) -> Option<ShardId> {
        let route = &prepared.planned.as_ref()?.route;
        if matches!(route, Targets::Catalog) {
            return None;
        }
        let choice = Choice {
            shards: self.shared.shard_names.len(),
            catalog_shard: CATALOG_SHARD,
            preferred: None,
        };
        let shard = target::single(route, parameters, choice)?;
        let pools = &self.role.pools;
        pools
            .admits(shard, prepared.catalog_version)
            .then_some(shard)
    }

    /// What a Bind asks for, where the short way may be taken.
    fn direct_call(&self, body: &Bytes) -> Option<Call<'static>> {
        if !self.takes_short_way() {
            return None;
        }
        self.call_of_bind(body, None)
    }

    /// The same where the way is free; `parsed` is the unnamed statement, where its Parse has not been carried out yet.
    pub(super) fn call_of_bind(
        &self,
        body: &Bytes,
        parsed: Option<&Arc<Prepared>>,
    ) -> Option<Call<'static>> {
        let bind = Bind::read(body)?;
        let prepared = match parsed.filter(|_| bind.statement.is_empty()) {
            Some(parsed) => parsed,
            None => self.statements.get(bind.statement)?,
        };
        let current = prepared.catalog_version == self.shared.catalog_version()
            && prepared.context == self.planning_context();
        if !bind.portal.is_empty() || !prepared.is_plain || !current {
            return None;
        }
        let form = Form::Bind(body.slice_ref(bind.rest));
        let columns = bind.columns(prepared).ok()??;
        let parameters = bind.parameters(prepared).ok()?;
        Some(Call {
            prepared: prepared.clone(),
            columns,
            shard: self.direct_target(prepared, &parameters)?,
            form,
        })
    }

    async fn stream_directly(&mut self, reply: &mut Reply) -> Result<(), Ended> {
        let entry = self.registration.entry.clone();
        let mut silence = Silence::new(self.shared.config().server.shard_silence_timeout);
        poll_fn(|cx| {
            if entry.hears_cancel(cx) {
                self.cancel_shards();
            }
            if entry.is_looked_at() {
                self.tell_direct(reply.rows, reply.shard);
            }
            match self.poll_direct(reply, &mut silence, cx) {
                Poll::Pending if silence.is_over(|| reply.bytes, cx) => {
                    Poll::Ready(Err(self.silent(&[reply.shard])))
                }
                polled => polled,
            }
        })
        .await
    }

    /// Reads the shard's reply up to its ReadyForQuery.
    fn poll_direct(
        &mut self,
        reply: &mut Reply,
        silence: &mut Silence,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Ended>> {
        loop {
            if self.client.pending_bytes() >= FLUSH_BYTES
                && self.poll_relieve(cx)?.is_pending()
                && self.client.pending_bytes() >= STOP_BYTES
            {
                // It is the client that keeps us waiting.
                silence.end();
                return self.watch_client(cx);
            }
            let Some(conn) = self.connections.get(reply.shard) else {
                return Poll::Ready(Err(Ended::Statement(super::prepare::no_connection())));
            };
            let event = match conn.poll_event(Some(reply.columns.len() as u16), cx) {
                Poll::Ready(Ok(event)) => event,
                // The error the shard gave before it went away says more than that it did.
                Poll::Ready(Err(lost)) => {
                    let error = reply.failed.take().unwrap_or_else(|| backend_error(lost));
                    return Poll::Ready(Err(Ended::Statement(error)));
                }
                Poll::Pending => {
                    if reply.rows > 0 {
                        self.count_first_row();
                    }
                    return self.pause(cx);
                }
            };
            silence.end();
            match event {
                Event::Rows(run) => {
                    reply.rows += u64::from(run.rows);
                    reply.bytes += run.frames.len() as u64;
                    self.client.push(run.frames);
                }
                Event::Message { tag: b'Z', .. } => {
                    if let Some(error) = reply.failed.take() {
                        return Poll::Ready(Err(Ended::Statement(error)));
                    }
                    self.client.push(std::mem::take(&mut reply.complete));
                    return Poll::Ready(Ok(()));
                }
                Event::Message { tag, frame } => self.on_direct(reply, tag, frame)?,
            }
        }
    }

    fn on_direct(&mut self, reply: &mut Reply, tag: u8, frame: Bytes) -> Result<(), Ended> {
        match tag {
            b'2' => {
                if reply.confirms {
                    messages::bare(b'2', self.client.out());
                }
                if reply.describes {
                    messages::row_description(&reply.columns, self.client.out());
                }
            }
            b'T' => {
                self.on_direct_description(reply, &frame)?;
                messages::row_description(&reply.columns, self.client.out());
            }
            b'C' | b'I' => reply.complete = frame,
            b'N' | b'A' | b'S' => self.forward(frame),
            b'E' => {
                let error = ServerError::parse(frame.get(HEADER_BYTES..).unwrap_or_default());
                let shard = &self.shared.shard_names[reply.shard.0 as usize];
                let fatal = error.is_fatal();
                let error = shard_error(error, shard);
                if fatal {
                    return Err(Ended::Statement(error));
                }
                reply.failed.get_or_insert(error);
            }
            tag => {
                let shard = &self.shared.shard_names[reply.shard.0 as usize];
                let message = format!("shard {shard} sent an unexpected message {tag:#04x}");
                return Err(ServerError::new(sqlstate::INTERNAL_ERROR, message).into());
            }
        }
        Ok(())
    }

    /// Of a text whose literals the prepared statement does not have: its columns are as expected. Should they not be, the client is
    /// told what they are.
    pub(super) fn on_direct_description(
        &self,
        reply: &mut Reply,
        frame: &[u8],
    ) -> Result<(), ServerError> {
        let body = frame.get(HEADER_BYTES..).unwrap_or_default();
        let shard = &self.shared.shard_names[reply.shard.0 as usize];
        let columns = messages::parse_row_description(body).ok_or_else(|| {
            let message = format!("shard {shard} sent a malformed description");
            ServerError::new(sqlstate::INTERNAL_ERROR, message)
        })?;
        let key = |c: &ColumnDescription| (c.name.clone(), c.type_oid, c.type_modifier);
        if !columns.iter().map(key).eq(reply.columns.iter().map(key)) {
            if columns
                .iter()
                .any(|c| c.type_oid >= oid::FIRST_NORMAL_OBJECT)
            {
                return Err(super::schema::cached_plan());
            }
            let foreign = columns.into_iter().map(|column| ColumnDescription {
                table_oid: 0,
                attribute: 0,
                ..column
            });
            reply.columns = foreign.collect();
        }
        Ok(())
    }

    /// Writes to the client what it takes.
    pub(super) fn poll_relieve(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Ended> {
        match self.client.poll_flush(cx) {
            Poll::Ready(Err(_)) => Err(Ended::Session),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Pending => Ok(Poll::Pending),
        }
    }
}

/// Appends the messages; false when the connection would have to be prepared first. `mark` is that of the session's settings.
pub(super) fn send(call: &Call<'_>, conn: &mut RawConn, mark: u64) -> bool {
    if conn.settings_mark() != mark {
        return false;
    }
    let rest = match &call.form {
        Form::Bind(rest) => rest,
        Form::Text(sql) => {
            conn.query(sql);
            return true;
        }
    };
    conn.set_statement_context(call.prepared.context);
    let known = conn.known_statement(&call.prepared.sql, &call.prepared.parameter_types);
    let Some(name) = known else {
        return false;
    };
    let out = conn.write_buffer();
    out.reserve(rest.len() + 64);
    messages::frame(b'B', out, |out| {
        out.put_u8(0);
        out.put_slice(name.as_bytes());
        out.put_u8(0);
        out.put_slice(rest);
    });
    messages::execute("", 0, out);
    conn.sync();
    true
}
