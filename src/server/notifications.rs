//! LISTEN: what a shard has to say while the client says nothing.

use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};

use super::run::STOP_BYTES;
use super::session::Session;
use super::transaction::Block;
use crate::backend::raw_conn::Event;
use crate::protocol::error::ServerError;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::messages;

impl Session {
    /// Queues the notifications that have come, each as if this session's server process had been asked. Inside of a block they
    /// wait for its end.
    pub(super) fn send_notifications(&mut self) {
        if self.transaction.block != Block::Idle {
            return;
        }
        let own = self.registration.entry.pid;
        let mut all = Vec::new();
        for (_, conn) in self.connections.iter_mut() {
            let process = conn.process_id();
            let frames = conn.take_notifications().into_iter();
            all.extend(frames.map(|frame| (process, frame)));
        }
        for (process, frame) in all {
            self.send_notification(process, own, &frame);
        }
    }

    fn send_notification(&mut self, process: i32, own: i32, frame: &Bytes) {
        let mut reader = messages::Reader(frame.get(HEADER_BYTES..).unwrap_or_default());
        let Some(((sender, channel), payload)) = reader.i32().zip(reader.cstr()).zip(reader.cstr())
        else {
            return;
        };
        // The client knows itself by the number that it was given at login.
        let sender = if sender == process { own } else { sender };
        let encoding = self.client.encoding;
        let text = |bytes: &[u8]| match encoding {
            Some(encoding) => encoding.encode_lossy(bytes),
            None => bytes.to_vec(),
        };
        messages::frame(b'A', self.client.out(), |out| {
            out.put_i32(sender);
            for bytes in [channel, payload] {
                out.put_slice(&text(bytes));
                out.put_u8(0);
            }
        });
    }

    /// Hears, while the client is silent, what the session's own connections have to say. Ready when one of them has ended.
    pub(super) fn poll_pinned(&mut self, cx: &mut Context<'_>) -> Poll<ServerError> {
        let mut forwards = Vec::new();
        let mut notified = false;
        let mut ended = None;
        // What the client does not take waits at the shard.
        if self.client.pending_bytes() < STOP_BYTES {
            for (_, conn) in self.connections.iter_mut() {
                // Replies that are owed are for whoever asked.
                while conn.outstanding() == 0 && !conn.unsynced() {
                    match conn.poll_event(None, cx) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(Event::Message { tag: b'E', frame })) => {
                            let error =
                                ServerError::parse(frame.get(HEADER_BYTES..).unwrap_or_default());
                            ended = Some(error);
                        }
                        Poll::Ready(Ok(Event::Message { frame, .. })) => forwards.push(frame),
                        Poll::Ready(Ok(Event::Rows(_))) => conn.poison(),
                        Poll::Ready(Err(_)) => {
                            ended.get_or_insert_with(Self::lost_pins);
                            break;
                        }
                    }
                }
                notified |= conn.has_notifications();
            }
        }
        forwards.into_iter().for_each(|frame| self.forward(frame));
        if notified {
            self.send_notifications();
        }
        match ended {
            Some(error) => Poll::Ready(error),
            None => Poll::Pending,
        }
    }
}
