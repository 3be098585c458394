//! Answers independent SELECTs of one client's pipeline side by side: each shard works on those that are its own, the client gets the
//! replies in the order of its messages.
//!
//! ```text
//! client   1a 2b 3a 4c 5b ───→ shard a: 1 3 ─┐
//!                              shard b: 2 5 ─┼─→ 1, then 2 (held back until 1 has been given), 3, 4, 5 ───→ client
//!                              shard c: 4 ───┘
//! ```
//! One connection a shard, on which they run in their order: what the client sees of a shard never goes back in time, and on one shard
//! nothing is different from PostgreSQL at all. Between shards a later SELECT may be run before an earlier one, as the parts of one
//! SELECT over several shards are.
//!
//! What is under way has a connection: the session asks only for what is idle and nobody else waits for, so it waits for none while it
//! holds another. It ends where there is something else to do (another statement, one that a connection would have to be prepared for,
//! a shard that others wait for): all that was sent is answered first, and the ordinary way goes on.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::direct::{Reply, send};
use super::held::Held;
use super::run::{FLUSH_BYTES, STOP_BYTES};
use super::session::{Ended, Session};
use super::silence::Silence;
use super::stream::Message;
use super::units::Unit;
use crate::backend::raw_conn::Event;
use crate::executor::{backend_error, shard_error};
use crate::metrics::QueryKind;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::messages;
use crate::protocol::sqlstate;

/// SELECTs under way on one connection: with fewer, keys that happen to lie on one shard leave the others idle (8: a tenth of the time
/// on three shards, 16: a twentieth); with more, a cancel or another client would wait longer for a connection.
const DEPTH: usize = 16;
/// SELECTs under way or behind a head that takes long.
const SENT_MAX: usize = 1024;
/// Bytes that a connection may have unsent before it is given more.
const UNSENT_BYTES_MAX: usize = 64 << 10;
/// Replies are held back up to about this, then their shards wait.
const HELD_BYTES_MAX: usize = 256 << 10;
/// How long a silent shard may take to stop after a cancel.
const RECOVER_TIME: Duration = Duration::from_secs(5);

/// A SELECT that is under way, or answered but not yet at the head.
struct Sent {
    reply: Reply,
    since: Instant,
    held: Held,
    done: bool,
}

/// A shard's connection and the SELECTs on it, by number, the one it works on first.
struct Lane {
    shard: ShardId,
    sent: VecDeque<u64>,
}

/// SELECTs under way, in the client's order.
pub(super) struct Run {
    sent: VecDeque<Sent>,
    /// The number of the first.
    first: u64,
    lanes: Vec<Lane>,
    /// The next one, where it has been read but could not be sent yet.
    next: Option<Unit>,
    /// Unread bytes of the client in which there was no next one.
    looked_at: usize,
    /// No more is sent.
    closed: bool,
    held_bytes: usize,
    /// Bytes that shards have sent.
    heard: u64,
    silence: Silence,
    /// Answers have been given since the last write to the client.
    answered: bool,
}

/// Why nothing moves.
enum Stop {
    Done,
    /// The shard at the head says nothing.
    Silent,
}

impl Session {
    /// Sends the unit that `message` begins, where there is more behind it and its shard is free; else nothing has happened.
    pub(super) fn begin_side_by_side(&mut self, message: &Message) -> Option<Run> {
        let is_free = self.has_sent_ahead(message)
            && self.shared.config().server.pipeline_parallelism > 1
            && !self.skipping
            && self.takes_short_way();
        if !is_free {
            return None;
        }
        let unit = self.unit(Some(message))?;
        let mut run = Run {
            sent: VecDeque::new(),
            first: 0,
            lanes: Vec::new(),
            next: Some(unit),
            looked_at: 0,
            closed: false,
            held_bytes: 0,
            heard: 0,
            silence: Silence::new(self.shared.config().server.shard_silence_timeout),
            answered: false,
        };
        if self.send_next(&mut run) {
            self.portals.clear();
            return Some(run);
        }
        self.connections.release();
        None
    }

    /// Answers all that can be sent, and gives the connections back.
    ///
    /// # Errors
    /// `Ended::Session` when the client is gone.
    pub(super) async fn answer_side_by_side(&mut self, mut run: Run) -> Result<(), Ended> {
        let entry = self.registration.entry.clone();
        loop {
            let stop = poll_fn(|cx| {
                if entry.hears_cancel(cx) {
                    self.cancel_head(&mut run);
                }
                if entry.is_looked_at()
                    && let Some(head) = run.sent.front()
                {
                    self.tell_direct(head.reply.rows, head.reply.shard);
                }
                match self.poll_side_by_side(&mut run, cx) {
                    Poll::Pending if run.silence.is_over(|| run.heard, cx) => {
                        Poll::Ready(Ok(Stop::Silent))
                    }
                    polled => polled.map_ok(|()| Stop::Done),
                }
            })
            .await?;
            match stop {
                Stop::Done => break,
                Stop::Silent => self.give_up_head(&mut run).await,
            }
        }
        if !self.cancels.is_empty() {
            self.cancels_sent().await;
        }
        self.end_statements().await;
        Ok(())
    }

    fn poll_side_by_side(
        &mut self,
        run: &mut Run,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Ended>> {
        loop {
            let mut moved = self.send_more(run);
            for lane in 0..run.lanes.len() {
                moved |= self.poll_lane(run, lane, cx)?;
            }
            moved |= self.give_answers(run);
            if moved {
                continue;
            }
            if run.sent.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.give_back_idle(run);
            if self.client.pending_bytes() >= STOP_BYTES {
                // It is the client that keeps us waiting.
                run.silence.end();
            }
            if std::mem::take(&mut run.answered) {
                let _ = self.poll_relieve(cx)?;
            }
            let unread = self.client.buffered_bytes();
            let waiting = self.pause(cx);
            if waiting.is_ready() || run.closed || self.client.buffered_bytes() == unread {
                return waiting;
            }
        }
    }

    /// Sends what has been read and may be under way.
    fn send_more(&mut self, run: &mut Run) -> bool {
        let mut any = false;
        // A client that takes no replies needs no connections for more of them.
        while !run.closed && run.sent.len() < SENT_MAX && self.client.pending_bytes() < STOP_BYTES {
            if run.next.is_none() && run.looked_at != self.client.buffered_bytes() {
                run.next = self.unit(None);
                run.looked_at = self.client.buffered_bytes();
            }
            if run.next.is_none() || !self.send_next(run) {
                break;
            }
            any = true;
        }
        any
    }

    /// Sends the next one where its shard is free for it.
    fn send_next(&mut self, run: &mut Run) -> bool {
        let Some(unit) = run.next.take() else {
            return false;
        };
        let shard = unit.call.shard;
        let now = Instant::now();
        let Some(lane) = self.lane(run, shard, now) else {
            run.next = Some(unit);
            return false;
        };
        let mark = self.settings.mark();
        let conn = self.connections.get(shard);
        if !conn.is_some_and(|conn| send(&unit.call, conn, mark)) {
            // The ordinary way prepares the connection.
            run.closed = true;
            return false;
        }
        self.client.take_input(unit.bytes);
        if !run.sent.is_empty() {
            self.shared.metrics.side_by_side.inc();
        }
        let mut held = Held::default();
        if !unit.confirms {
            // A Query ends the unnamed statement.
            self.statements.remove("");
        }
        let activity = &self.registration.entry.activity;
        activity.binds.add(u64::from(unit.confirms));
        if let Some(parsed) = unit.parsed {
            activity.parses.add(1);
            self.statements.insert(String::new(), parsed);
            held.write(|out| messages::bare(b'1', out));
        }
        run.held_bytes += held.bytes;
        run.lanes[lane]
            .sent
            .push_back(run.first + run.sent.len() as u64);
        run.sent.push_back(Sent {
            reply: Reply::new(unit.call, unit.confirms, unit.describes),
            since: now,
            held,
            done: false,
        });
        run.looked_at = 0;
        true
    }

    /// The lane of a shard, where it takes one more.
    fn lane(&mut self, run: &mut Run, shard: ShardId, now: Instant) -> Option<usize> {
        if let Some(index) = run.lanes.iter().position(|lane| lane.shard == shard) {
            if self.role.pools.is_waited_for(shard) {
                run.closed = true;
                return None;
            }
            let is_full = run.lanes[index].sent.len() >= DEPTH;
            let unsent = self.connections.get(shard)?.unsent_bytes();
            return (!is_full && unsent < UNSENT_BYTES_MAX).then_some(index);
        }
        if run.lanes.len() >= self.shared.config().server.pipeline_parallelism {
            self.give_back_idle(run);
            if run.lanes.len() >= self.shared.config().server.pipeline_parallelism {
                return None;
            }
        }
        let Some(lease) = self.role.pools.acquire_idle(shard, now) else {
            // The ordinary way waits for one, or opens one.
            run.closed = true;
            return None;
        };
        self.connections.put(shard, lease);
        run.lanes.push(Lane {
            shard,
            sent: VecDeque::new(),
        });
        Some(run.lanes.len() - 1)
    }

    /// Connections on which nothing is under way may serve others.
    fn give_back_idle(&mut self, run: &mut Run) {
        run.lanes.retain(|lane| {
            if lane.sent.is_empty() {
                self.connections.give_back(lane.shard);
            }
            !lane.sent.is_empty()
        });
    }

    /// Reads what a shard has sent, as far as there is room for it; true when it was something.
    fn poll_lane(
        &mut self,
        run: &mut Run,
        lane: usize,
        cx: &mut Context<'_>,
    ) -> Result<bool, Ended> {
        let shard = run.lanes[lane].shard;
        let mut moved = false;
        while let Some(number) = run.lanes[lane].sent.front() {
            let index = (number - run.first) as usize;
            if !self.has_room(run, index, cx)? {
                break;
            }
            let Some(conn) = self.connections.get(shard) else {
                break;
            };
            let columns = run.sent[index].reply.columns.len() as u16;
            let event = match conn.poll_event(Some(columns), cx) {
                Poll::Pending => break,
                Poll::Ready(event) => event.map_err(backend_error),
            };
            moved = true;
            run.silence.end();
            match event.and_then(|event| self.on_event(run, index, event)) {
                Ok(false) => {}
                Ok(true) => {
                    run.lanes[lane].sent.pop_front();
                }
                Err(error) => self.lose(run, lane, &error),
            }
        }
        Ok(moved)
    }

    /// The head's reply goes out as the client takes it, the others are held back.
    fn has_room(&mut self, run: &Run, index: usize, cx: &mut Context<'_>) -> Result<bool, Ended> {
        if index > 0 {
            return Ok(run.held_bytes < HELD_BYTES_MAX);
        }
        let is_stuck =
            self.client.pending_bytes() >= FLUSH_BYTES && self.poll_relieve(cx)?.is_pending();
        Ok(!is_stuck || self.client.pending_bytes() < STOP_BYTES)
    }

    /// Takes a part of a reply; true at its end.
    ///
    /// # Errors
    /// What makes the connection useless.
    fn on_event(&mut self, run: &mut Run, index: usize, event: Event) -> Result<bool, ServerError> {
        let sent = &mut run.sent[index];
        let before = sent.held.bytes;
        match event {
            Event::Rows(rows) if sent.reply.failed.is_some() => {
                run.heard += rows.frames.len() as u64;
            }
            Event::Rows(rows) => {
                run.heard += rows.frames.len() as u64;
                sent.reply.rows += u64::from(rows.rows);
                sent.held.push(rows.frames);
            }
            Event::Message { tag: b'Z', .. } => {
                sent.done = true;
                if sent.reply.failed.is_none() {
                    sent.held.push(std::mem::take(&mut sent.reply.complete));
                }
            }
            Event::Message { tag, frame } => {
                run.heard += frame.len() as u64;
                self.on_message(sent, tag, frame)?;
            }
        }
        run.held_bytes += sent.held.bytes - before;
        if index == 0 {
            self.give_held(run);
        }
        Ok(run.sent[index].done)
    }

    fn on_message(&mut self, sent: &mut Sent, tag: u8, frame: Bytes) -> Result<(), ServerError> {
        let (reply, held) = (&mut sent.reply, &mut sent.held);
        let shard = &self.shared.shard_names[reply.shard.0 as usize];
        match tag {
            b'2' => {
                if reply.confirms {
                    held.write(|out| messages::bare(b'2', out));
                }
                if reply.describes {
                    held.write(|out| messages::row_description(&reply.columns, out));
                }
            }
            b'T' => match self.on_direct_description(reply, &frame) {
                Ok(()) => held.write(|out| messages::row_description(&reply.columns, out)),
                Err(error) => reply.failed = Some(error),
            },
            b'C' | b'I' => reply.complete = frame,
            b'N' | b'A' => held.push(frame),
            b'S' => self.forward(frame),
            b'E' => {
                let error = ServerError::parse(frame.get(HEADER_BYTES..).unwrap_or_default());
                let fatal = error.is_fatal();
                let error = shard_error(error, shard);
                if fatal {
                    return Err(error);
                }
                reply.failed.get_or_insert(error);
            }
            tag => {
                let message = format!("shard {shard} sent an unexpected message {tag:#04x}");
                return Err(ServerError::new(sqlstate::INTERNAL_ERROR, message));
            }
        }
        Ok(())
    }

    /// The head's reply so far goes to the client.
    fn give_held(&mut self, run: &mut Run) {
        let Some(head) = run.sent.front_mut() else {
            return;
        };
        run.held_bytes -= head.held.bytes;
        std::mem::take(&mut head.held).give(&mut self.client);
    }

    /// Ends those at the head that are answered; the one behind them is the next head.
    fn give_answers(&mut self, run: &mut Run) -> bool {
        let mut any = false;
        loop {
            self.give_held(run);
            match run.sent.front() {
                Some(head) if head.done => {}
                _ => break,
            }
            let Some(Sent { reply, since, .. }) = run.sent.pop_front() else {
                break;
            };
            run.first += 1;
            any = true;
            let (sql, shard) = (&reply.prepared.sql, reply.shard);
            self.count_since(QueryKind::Routed, since, sql, Some(shard));
            self.shared.metrics.rows_to_clients.inc_by(reply.rows);
            self.count_row_at_end(reply.rows > 0);
            if let Some(error) = reply.failed {
                self.fail(&error);
            }
            self.end_count_of_message();
            self.send_ready();
        }
        run.answered |= any;
        any
    }

    /// A connection is of no use any more: what was under way on it fails.
    fn lose(&mut self, run: &mut Run, lane: usize, error: &ServerError) {
        let lane = &mut run.lanes[lane];
        if let Some(conn) = self.connections.get(lane.shard) {
            conn.poison();
        }
        self.connections.give_back(lane.shard);
        for number in lane.sent.drain(..) {
            let sent = &mut run.sent[(number - run.first) as usize];
            sent.done = true;
            // The error that the shard gave before says more.
            sent.reply.failed.get_or_insert_with(|| error.clone());
        }
        run.closed = true;
    }

    /// As in PostgreSQL a cancel ends one SELECT, the one whose reply comes next, and those behind it run.
    fn cancel_head(&mut self, run: &mut Run) {
        run.closed = true;
        if let Some(head) = run.sent.front() {
            self.cancel_shard(head.reply.shard);
        }
    }

    /// Stops the shard at the head, or closes its connection.
    async fn give_up_head(&mut self, run: &mut Run) {
        let Some(shard) = run.sent.front().map(|head| head.reply.shard) else {
            return;
        };
        let pools = self.role.pools.clone();
        let deadline = Instant::now() + RECOVER_TIME;
        let recovered = self.connections.recover_one(shard, &pools, deadline);
        Box::pin(recovered).await;
        let Ended::Statement(error) = self.silent(&[shard]) else {
            return;
        };
        if let Some(lane) = run.lanes.iter().position(|lane| lane.shard == shard) {
            self.lose(run, lane, &error);
        }
    }
}
