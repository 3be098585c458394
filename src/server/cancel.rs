//! Cancel requests of clients: what runs on the shards is asked to stop, what waits for a connection stops waiting.
//!
//! The signal stays set until somebody takes it ([`SessionEntry::take_cancel`]), so it is not lost between two steps of a statement; one
//! that finds the session idle is dropped when the next message comes.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::session::Session;
use crate::backend::BackendError;
use crate::backend::cancel::CancelHandle;
use crate::executor::{backend_error, cancelled_by_user};
use crate::metrics::QueryKind;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::registry::SessionEntry;

impl Session {
    /// Asks every shard a statement runs on to stop; each answers on its own connection.
    pub fn cancel_shards(&mut self) {
        self.shared.metrics.cancels.inc();
        let shards = self.connections.iter_mut();
        let mut handles: Vec<_> = shards.map(|(_, conn)| conn.cancel_handle()).collect();
        handles.extend(self.connections.merge().map(|conn| conn.cancel_handle()));
        self.send_cancels(handles);
    }

    /// Asks one of them only.
    pub(super) fn cancel_shard(&mut self, shard: ShardId) {
        self.shared.metrics.cancels.inc();
        let handle = self.connections.get(shard).map(|conn| conn.cancel_handle());
        self.send_cancels(handle);
    }

    fn send_cancels(&mut self, handles: impl IntoIterator<Item = CancelHandle>) {
        for handle in handles {
            let pools = self.role.pools.clone();
            let sent = self.shared.tasks.spawn(async move {
                if let Err(error) = pools.cancel(&handle).await {
                    tracing::warn!(%error, "cancel did not reach a shard");
                }
            });
            self.cancels.push(sent);
        }
    }

    /// Waits until all cancels have reached their shards: one that comes late would stop the next statement of the block.
    pub(super) async fn cancels_sent(&mut self) {
        for sent in self.cancels.drain(..) {
            // One that failed has said so.
            let _ = sent.await;
        }
    }
}

/// What the pools lend, unless the client cancels while it waits for that. A session that has to wait is shown as waiting, with `shown`
/// where its statement is not known yet. The future stays where it is: it is large, and moving it costs more than most of what is done
/// for a statement.
///
/// # Errors
/// 57014 after a cancel; the pools' own.
pub(super) async fn unless_cancelled<T>(
    entry: &SessionEntry,
    shown: Option<(&Arc<str>, Instant)>,
    mut acquired: Pin<&mut impl Future<Output = Result<T, BackendError>>>,
) -> Result<T, ServerError> {
    let mut waits = false;
    let lent = poll_fn(|cx| match acquired.as_mut().poll(cx) {
        Poll::Ready(lent) => Poll::Ready(lent.map_err(backend_error)),
        Poll::Pending if entry.hears_cancel(cx) => Poll::Ready(Err(cancelled_by_user())),
        Poll::Pending => {
            if !std::mem::replace(&mut waits, true) {
                if let Some((sql, since)) = shown {
                    entry.activity.show(QueryKind::Routed as u8, since, sql);
                }
                entry.activity.set_waiting(true);
            }
            Poll::Pending
        }
    })
    .await;
    if waits {
        entry.activity.set_waiting(false);
    }
    lent
}
