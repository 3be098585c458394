//! Takes connections for a statement, runs its execution, and streams what comes out to the client.
//!
//! One task does it all: it polls the shards, the client's socket in both directions and the cancel signal, so a slow
//! client slows its shards, and a client that hangs up stops them.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cancel::unless_cancelled;
use super::encoding::{no_copy, send_notice};
use super::session::{Ended, Session};
use super::silence::Silence;
use super::statements::MARK_UNKNOWN;
use super::transaction::Block;
use crate::backend::BackendError;
use crate::backend::raw_conn::RawConn;
use crate::executor::{Execution, Item, backend_error};
use crate::metrics::Reason;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::messages;

/// A reply is written once it has grown to this, or ends.
pub const FLUSH_BYTES: usize = 64 << 10;
/// Rows wait in the shards' sockets while more than this is unwritten.
pub const STOP_BYTES: usize = 256 << 10;
/// While shards pause, rows go out from this size on: about where PostgreSQL itself would have written (8 kB).
const TRICKLE_BYTES: usize = 8 << 10;
/// Pipelined messages read ahead while a statement runs.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// How long a transaction waits for a shard below one it holds.
const OUT_OF_ORDER_WAIT: Duration = Duration::from_secs(1);
/// How long shards may take to stop after a cancel before their connections are closed.
const RECOVER_TIME: Duration = Duration::from_secs(5);

/// How a run of an execution stopped.
#[derive(Debug)]
pub enum Outcome {
    /// All rows are out; `tag` is the shard's own where one shard answered, else rows are counted.
    Complete { rows: u64, tag: Option<Bytes> },
    /// The row limit was reached; the portal may go on.
    Suspended,
    /// The statement was empty.
    Empty,
    /// COPY FROM STDIN: the client's data is awaited.
    CopyIn,
    /// Nothing is out: the execution is to be replaced by its [`Execution::spill`].
    Spilled,
}

impl Session {
    /// Takes connections to the shards the session does not hold yet and appends what brings them into its settings and
    /// transaction. The replies are still owed: an execution reads past them, so a statement needs no round trip for it.
    ///
    /// # Errors
    /// 53300 when none becomes free in time; what connecting says.
    async fn join(&mut self, shards: &[ShardId], begin: &[String]) -> Result<(), ServerError> {
        let own = self.transaction.block == Block::Idle;
        self.give_way(shards);
        if self.wants_one_instant() {
            Box::pin(self.join_at_one_instant(shards, begin)).await?;
            if own {
                return Ok(());
            }
        }
        self.replay_on_held(shards);
        self.begin_on_held(shards, begin)?;
        self.lend(shards, begin, true).await
    }

    /// Takes connections to those shards that the session holds none to; `joins`: into the block, too.
    pub(super) async fn lend(
        &mut self,
        shards: &[ShardId],
        begin: &[String],
        joins: bool,
    ) -> Result<(), ServerError> {
        let held = shards.iter().any(|s| self.connections.holds(*s));
        let missing = match held {
            // Most often: nothing is copied for it.
            false => Cow::Borrowed(shards),
            true => {
                let missing = shards.iter().copied();
                Cow::Owned(missing.filter(|s| !self.connections.holds(*s)).collect())
            }
        };
        if missing.is_empty() {
            return Ok(());
        }
        let holds = !self.connections.is_empty();
        if missing.iter().any(|s| self.role.pools.stops(*s, holds)) {
            Box::pin(self.await_resume(&missing, holds)).await?;
        }
        let deadline = Instant::now() + self.patience(&missing);
        let leases = {
            let acquired = pin!(self.role.pools.acquire(&missing, deadline));
            unless_cancelled(&self.registration.entry, None, acquired).await?
        };
        // A snapshot of the statement's own is no part of the client's block.
        let (settings, joining) = match self.snapshot && self.transaction.block == Block::Open {
            true => (
                Cow::Owned(self.settings_in_force().into_owned()),
                Vec::new(),
            ),
            false if joins => (Cow::Borrowed(&self.settings), self.transaction.join()),
            false => (Cow::Borrowed(&self.settings), Vec::new()),
        };
        let mark = settings.mark();
        for (shard, mut lease) in missing.iter().zip(leases) {
            if lease.settings_mark() != mark {
                let replay = match lease.settings_mark() {
                    MARK_UNKNOWN => settings.take_over(),
                    _ => settings.replay(),
                };
                lease.query(&replay);
                lease.set_settings_mark(mark);
            }
            joining.iter().chain(begin).for_each(|sql| lease.query(sql));
            self.connections.put(*shard, lease);
        }
        Ok(())
    }

    /// Gives the connections back where an operator has one of `shards` paused and nothing holds them: they have only told what the
    /// statement is.
    fn give_way(&mut self, shards: &[ShardId]) {
        let is_paused = |s: &ShardId| self.role.pools.is_paused(*s) && !self.connections.holds(*s);
        if !shards.iter().any(is_paused)
            || self.pinned
            || self.transaction.block != Block::Idle
            || self.connections.merge().is_some()
        {
            return;
        }
        if self.connections.iter_mut().all(|(_, conn)| conn.is_clean()) {
            self.connections.release();
        }
    }

    /// Waits for as long as an operator has one of `shards` paused.
    async fn await_resume(&mut self, shards: &[ShardId], holds: bool) -> Result<(), ServerError> {
        let pools = &self.role.pools;
        let passed = pin!(async {
            pools.pass(shards, holds).await;
            Ok(())
        });
        unless_cancelled(&self.registration.entry, None, passed).await
    }

    /// Connections are brought back to the session's settings after an implicit transaction that changed them was rolled back.
    pub(super) fn replay_on_held(&mut self, shards: &[ShardId]) {
        let stale = |conn: &RawConn| conn.settings_mark() == MARK_UNKNOWN && !conn.unsynced();
        if self.transaction.block != Block::Idle {
            return;
        }
        let (mark, replay) = (self.settings.mark(), self.settings.replay());
        for (shard, conn) in self.connections.iter_mut() {
            if shards.contains(&shard) && stale(conn) {
                conn.query(&replay);
                conn.set_settings_mark(mark);
            }
        }
    }

    /// Connections that the message has used already join the statement's own transaction as well.
    fn begin_on_held(&mut self, shards: &[ShardId], begin: &[String]) -> Result<(), ServerError> {
        if begin.is_empty() {
            return Ok(());
        }
        self.refuse_half_read(shards)?;
        let held = self.connections.iter_mut();
        for (_, conn) in held.filter(|(shard, _)| shards.contains(shard)) {
            begin.iter().for_each(|sql| conn.query(sql));
        }
        Ok(())
    }

    /// What is told a shard before a statement would end a portal that is open there.
    pub(super) fn refuse_half_read(&mut self, shards: &[ShardId]) -> Result<(), ServerError> {
        let mut held = self.connections.iter_mut();
        match held.any(|(shard, conn)| shards.contains(&shard) && conn.unsynced()) {
            true => Err(unsupported(
                Reason::Cursor,
                "the statement reads a shard in several steps while a portal on it is half read",
                "Read the portal to its end, or close it, before the next statement.",
            )),
            false => Ok(()),
        }
    }

    /// How long to wait for connections. Whoever holds a higher shard and asks for a lower one breaks the order that keeps
    /// sessions from waiting for each other, and gives up soon.
    pub(super) fn patience(&mut self, missing: &[ShardId]) -> Duration {
        let timeout = self.shared.config().pool.queue_timeout;
        let highest = self.connections.iter_mut().map(|(shard, _)| shard).max();
        match highest > missing.first().copied() {
            true => timeout.min(OUT_OF_ORDER_WAIT),
            false => timeout,
        }
    }

    /// As `join`, and waits until the connections are ready.
    ///
    /// # Errors
    /// As `join`; what replaying says. A connection on which it failed is not lent again.
    pub async fn join_and_wait(&mut self, shards: &[ShardId]) -> Result<(), ServerError> {
        self.join(shards, &[]).await?;
        let names = self.shared.shard_names.clone();
        let waiting = self
            .connections
            .iter_mut()
            .filter(|(shard, conn)| shards.contains(shard) && conn.outstanding() > 0);
        let work = waiting.map(|(shard, conn)| {
            let name = &names[shard.0 as usize];
            async move {
                let done = super::control::settle(conn).await;
                if done.is_err() {
                    conn.poison();
                }
                done.map_err(|e| e.on_shard(name))
            }
        });
        futures_util::future::join_all(work)
            .await
            .into_iter()
            .collect()
    }

    /// Takes the connections an execution needs and sends its first messages.
    pub async fn start(&mut self, execution: &mut Execution) -> Result<(), ServerError> {
        let begin = Box::pin(self.before_steps(execution)).await?;
        self.has_run = true;
        self.join(execution.shards(), &begin).await?;
        if execution.needs_merge() {
            Box::pin(self.join_merge(execution.missing())).await?;
        }
        let context = match std::mem::take(&mut self.reads_clock) {
            // Never met before: the shard prepares it again, and reads its literals anew.
            true => rand::random(),
            false => self.planning_context(),
        };
        let held = self.connections.iter_mut().map(|(_, conn)| conn);
        held.for_each(|conn| conn.set_statement_context(context));
        if let Some(conn) = self.connections.merge() {
            conn.set_statement_context(context);
        }
        execution.start(&mut self.connections)
    }

    /// Runs an execution to its end and counts its rows.
    ///
    /// # Errors
    /// As `stream`.
    pub async fn discard(&mut self, execution: &mut Execution) -> Result<u64, Ended> {
        let mut rows = 0;
        let entry = self.registration.entry.clone();
        let result = poll_fn(|cx| {
            if entry.hears_cancel(cx) {
                execution.cancel();
                self.cancel_shards();
            }
            loop {
                match execution.poll_next(&mut self.connections, cx) {
                    Poll::Ready(Ok(Item::Rows(run))) => rows += u64::from(run.rows),
                    Poll::Ready(Ok(
                        Item::Complete { .. } | Item::Empty | Item::Suspended | Item::Spilled,
                    )) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        if result.is_err() {
            self.forget_marks();
            self.recover().await;
        }
        self.cancels_sent().await;
        self.connections.take_merge();
        result.map(|()| rows).map_err(Ended::Statement)
    }

    /// After an error nobody knows whether a replay of settings was what failed: they are replayed before anybody else's use.
    pub(super) fn forget_marks(&mut self) {
        if self.pinned && self.shared.is_one_shard() {
            // Its connections are the session's own, and nothing was replayed on them.
            return;
        }
        self.connections
            .iter_mut()
            .for_each(|(_, conn)| conn.set_settings_mark(MARK_UNKNOWN));
        if let Some(conn) = self.connections.merge() {
            conn.set_settings_mark(MARK_UNKNOWN);
        }
    }

    /// As `stream`, up to what cannot be held.
    pub(super) async fn stream_once(
        &mut self,
        execution: &mut Execution,
        max_rows: u64,
    ) -> Result<Outcome, Ended> {
        let budget = (max_rows > 0).then_some(max_rows);
        self.stream_within(execution, budget).await
    }

    /// The same, at most `budget` rows.
    pub(super) async fn stream_within(
        &mut self,
        execution: &mut Execution,
        budget: Option<u64>,
    ) -> Result<Outcome, Ended> {
        execution.set_row_budget(budget);
        let entry = self.registration.entry.clone();
        let mut rows = 0;
        let mut silence = Silence::new(self.shared.config().server.shard_silence_timeout);
        let result = poll_fn(|cx| {
            if entry.hears_cancel(cx) {
                execution.cancel();
                self.cancel_shards();
            }
            if entry.is_looked_at() {
                self.tell(rows, execution);
            }
            match self.poll_stream(execution, &mut rows, &mut silence, cx) {
                Poll::Pending if silence.is_over(|| heard(execution), cx) => {
                    Poll::Ready(Err(self.silent(&execution.unfinished())))
                }
                polled => polled,
            }
        })
        .await;
        let done = match result {
            Ok(outcome) => {
                self.shared.metrics.rows_to_clients.inc_by(rows);
                if !matches!(outcome, Outcome::Suspended) {
                    self.note_parts(execution);
                    self.connections.take_merge();
                }
                Ok(outcome)
            }
            Err(ended) => {
                execution.abandon(&mut self.connections);
                self.forget_marks();
                self.recover().await;
                self.connections.take_merge();
                Err(ended)
            }
        };
        if !self.cancels.is_empty() {
            Box::pin(self.cancels_sent()).await;
        }
        done
    }

    fn poll_stream(
        &mut self,
        execution: &mut Execution,
        rows: &mut u64,
        silence: &mut Silence,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Outcome, Ended>> {
        loop {
            if self.client.pending_bytes() >= FLUSH_BYTES {
                match self.client.poll_flush(cx) {
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Ended::Session)),
                    Poll::Pending if self.client.pending_bytes() >= STOP_BYTES => {
                        // It is the client that keeps us waiting.
                        silence.end();
                        return self.watch_client(cx);
                    }
                    _ => {}
                }
            }
            let item = match execution.poll_next(&mut self.connections, cx) {
                Poll::Ready(Ok(item)) => item,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Ended::Statement(error))),
                Poll::Pending => return self.pause(cx),
            };
            silence.end();
            if self.steered && !matches!(item, Item::Forward(_) | Item::Spilled) {
                self.tell_untold();
            }
            match item {
                Item::Rows(run) => {
                    if *rows == 0 {
                        self.count_first_row();
                    }
                    *rows += u64::from(run.rows);
                    let Some(run) = self.through_cursor(run)? else {
                        continue;
                    };
                    let (frames, error) = self.encoded(run, execution.columns());
                    self.client.push(frames);
                    if let Some(error) = error {
                        return Poll::Ready(Err(Ended::Statement(error)));
                    }
                }
                item if self.cannot_copy(&item) => return Poll::Ready(Err(no_copy().into())),
                Item::Suspended => return Poll::Ready(Ok(Outcome::Suspended)),
                Item::Forward(frame) => self.forward(frame),
                Item::CopyIn(frame) => {
                    self.client.push(frame);
                    return Poll::Ready(Ok(Outcome::CopyIn));
                }
                Item::Complete { tag } => {
                    return Poll::Ready(Ok(Outcome::Complete { rows: *rows, tag }));
                }
                Item::Empty => return Poll::Ready(Ok(Outcome::Empty)),
                Item::Spilled => return Poll::Ready(Ok(Outcome::Spilled)),
            }
        }
    }

    /// The error for shards that have said nothing for too long.
    pub fn silent(&self, unfinished: &[ShardId]) -> Ended {
        let name = |shard: &ShardId| self.shared.shard_names[shard.0 as usize].to_string();
        let shard = match unfinished {
            [] => "of the merge session".to_owned(),
            shards => shards.iter().map(name).collect::<Vec<_>>().join(", "),
        };
        Ended::Statement(backend_error(BackendError::TimedOut { shard }))
    }

    /// Nothing to do but wait for a shard, the client or a cancel.
    pub fn pause<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Ended>> {
        if self.client.pending_bytes() >= TRICKLE_BYTES
            && let Poll::Ready(Err(_)) = self.client.poll_flush(cx)
        {
            return Poll::Ready(Err(Ended::Session));
        }
        self.watch_client(cx)
    }

    /// Notices that the client hung up, and reads ahead a little of what it pipelines.
    pub fn watch_client<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Ended>> {
        while self.client.buffered_bytes() < READ_AHEAD_BYTES {
            match self.client.poll_fill(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(Ended::Session)),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    /// Sends a message of a shard on to the client; a ParameterStatus only when it tells something new.
    pub fn forward(&mut self, frame: Bytes) {
        if frame.first() == Some(&b'S') {
            let mut reader = messages::Reader(&frame[5..]);
            if let (Some(name), Some(value)) = (reader.cstr(), reader.cstr()) {
                let (name, value) = (
                    String::from_utf8_lossy(name).into_owned(),
                    String::from_utf8_lossy(value),
                );
                self.report(&name, &value);
            }
            return;
        }
        if frame.first() == Some(&b'N') && self.client.encoding.is_some() {
            return send_notice(&mut self.client, &ServerError::parse(&frame[5..]));
        }
        self.client.push(frame);
    }

    /// Stops whatever still runs and brings the connections in step, or closes them.
    pub async fn recover(&mut self) {
        let deadline = Instant::now() + RECOVER_TIME;
        let pools = self.role.pools.clone();
        Box::pin(self.connections.recover(&pools, deadline)).await;
    }
}

/// Bytes all shards have sent for an execution.
fn heard(execution: &Execution) -> u64 {
    execution.statistics().iter().map(|s| s.bytes).sum()
}

/// The error for statements that pgbraid cannot run exactly.
pub fn unsupported(reason: Reason, message: impl Into<String>, hint: &str) -> ServerError {
    ServerError::refusal(reason, message).with_hint(hint)
}
