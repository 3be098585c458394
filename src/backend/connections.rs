//! The connections one client session holds at the moment: at most one a shard, and one merge session.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout_at;

use super::pool::{Lease, Pools};
use super::raw_conn::{Event, RawConn};
use crate::plan::ShardId;

/// What a shard may still be about to send after another one failed is usually there within this time: then no cancel is
/// needed, which would cost a connection.
const DRAIN_WITHOUT_CANCEL: Duration = Duration::from_millis(5);

/// A cancel that came before the statement it is meant for had begun has done nothing: another one follows after so long, then after
/// twice as long.
const CANCEL_AGAIN: Duration = Duration::from_millis(200);

/// At most one lease a shard, and one of a merge session.
#[derive(Debug, Default)]
pub struct Connections {
    shards: Vec<Option<Lease>>,
    merge: Option<Lease>,
    /// The session's process id, for operators.
    holder: i32,
}

impl Connections {
    /// Holds nothing yet.
    pub fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| None).collect(),
            merge: None,
            holder: 0,
        }
    }

    /// The same of the session with this process id.
    pub fn held_by(mut self, pid: i32) -> Self {
        self.holder = pid;
        self
    }

    /// True when the session has no connection at all.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(Option::is_none) && self.merge.is_none()
    }

    /// True when the session has a connection to this shard.
    pub fn holds(&self, shard: ShardId) -> bool {
        self.shards
            .get(shard.0 as usize)
            .is_some_and(Option::is_some)
    }

    /// Keeps a connection; one held before goes back.
    pub fn put(&mut self, shard: ShardId, lease: Lease) {
        lease.show_holder(self.holder);
        self.shards[shard.0 as usize] = Some(lease);
    }

    /// Keeps the merge session.
    pub fn put_merge(&mut self, lease: Lease) {
        lease.show_holder(self.holder);
        self.merge = Some(lease);
    }

    /// Gives the merge session out of hand.
    pub fn take_merge(&mut self) -> Option<Lease> {
        self.merge.take()
    }

    /// The connection to a shard the session has been given.
    pub fn get(&mut self, shard: ShardId) -> Option<&mut RawConn> {
        self.shards.get_mut(shard.0 as usize)?.as_deref_mut()
    }

    /// The merge session, where there is one.
    pub fn merge(&mut self) -> Option<&mut RawConn> {
        self.merge.as_deref_mut()
    }

    /// All held shard connections.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ShardId, &mut RawConn)> {
        self.shards
            .iter_mut()
            .enumerate()
            .filter_map(|(i, l)| l.as_deref_mut().map(|c| (ShardId(i as u16), c)))
    }

    /// Gives one connection back, as [`Connections::release`] does all.
    pub fn give_back(&mut self, shard: ShardId) {
        self.shards[shard.0 as usize] = None;
    }

    /// Gives those back that are lost, to be closed.
    pub fn drop_lost(&mut self) {
        let lost = |lease: &Lease| lease.is_poisoned();
        let shards = self.shards.iter_mut();
        shards
            .filter(|lease| lease.as_ref().is_some_and(lost))
            .for_each(|lease| *lease = None);
    }

    /// Gives all connections back (dirty ones are closed by their lease).
    pub fn release(&mut self) {
        self.shards.iter_mut().for_each(|l| *l = None);
        self.merge = None;
    }

    /// Gives all back but the one to this shard.
    pub fn release_others(&mut self, shard: ShardId) {
        let kept = shard.0 as usize;
        let others = self.shards.iter_mut().enumerate();
        others
            .filter(|(i, _)| *i != kept)
            .for_each(|(_, lease)| *lease = None);
        self.merge = None;
    }

    /// Brings every held connection, the merge session included, to the end of its replies after an error or when the client
    /// is gone: what does not end by itself at once is cancelled, and all is read up to the last ReadyForQuery. A connection that
    /// does not get there by `deadline` is poisoned, as is one whose shard fails meanwhile. A connection that got a cancel may
    /// finish its transaction but is closed afterwards.
    ///
    /// Must not be dropped half way: a connection would keep replies of the past.
    pub async fn recover(&mut self, pools: &Pools, deadline: Instant) {
        let held = self.shards.iter_mut().chain([&mut self.merge]);
        let held = held.filter_map(Option::as_deref_mut);
        join_all(held.map(|conn| recover(conn, pools, deadline))).await;
    }

    /// The same for one of them.
    pub async fn recover_one(&mut self, shard: ShardId, pools: &Pools, deadline: Instant) {
        if let Some(conn) = self.get(shard) {
            recover(conn, pools, deadline).await;
        }
    }
}

async fn recover(conn: &mut RawConn, pools: &Pools, deadline: Instant) {
    if conn.is_poisoned() || (conn.outstanding() == 0 && !conn.unsynced()) {
        return;
    }
    conn.finish();
    let grace = deadline.min(Instant::now() + DRAIN_WITHOUT_CANCEL);
    if timeout_at(grace.into(), drain(conn)).await.is_ok() {
        return;
    }
    let handle = conn.cancel_handle();
    let mut pause = CANCEL_AGAIN;
    while Instant::now() < deadline {
        let patience = deadline.min(Instant::now() + pause);
        pause *= 2;
        // Both at once: the shard may be unable to finish before we read.
        let drained = timeout_at(patience.into(), drain(conn));
        let both = futures_util::future::join(pools.cancel(&handle), drained);
        let Ok((cancelled, drained)) = timeout_at(deadline.into(), both).await else {
            break;
        };
        if let Err(error) = cancelled {
            tracing::warn!(shard = error.shard(), %error, "cancel request failed");
        }
        if drained.is_ok() {
            return;
        }
    }
    conn.poison();
}

/// Reads and forgets up to the last ReadyForQuery owed, or until the connection fails (which poisons it).
async fn drain(conn: &mut RawConn) {
    poll_fn(|cx| {
        while conn.outstanding() > 0 {
            match conn.poll_event(None, cx) {
                Poll::Ready(Ok(Event::Rows(_) | Event::Message { .. })) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
}
