//! PAUSE, RESUME and RECONNECT: over the connections of all roles to a shard.

use std::time::Duration;

use super::pool::Pools;
use super::roles::Roles;
use crate::plan::ShardId;

/// How often PAUSE looks whether the last connection has come back.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Roles {
    /// Holds back statements of sessions without a connection, waits until all connections of `shards` have come back, and closes
    /// them. A session that has a connection goes on to the end of its transaction, whatever shards it needs. Dropping the future
    /// leaves the shards paused.
    ///
    /// False when a shard was resumed meanwhile.
    pub async fn pause(&self, shards: &[ShardId]) -> bool {
        for shard in shards {
            let connector = self.connector(usize::from(shard.0));
            connector.gate().close();
            connector.metrics().paused.set(1);
        }
        loop {
            // Also at first: who has just passed gets its connection meanwhile.
            tokio::time::sleep(LOOK_AGAIN).await;
            if shards.iter().any(|s| !self.configured().is_paused(*s)) {
                return false;
            }
            if shards.iter().all(|s| self.in_use(usize::from(s.0)) == 0) {
                break;
            }
        }
        self.reconnect(shards);
        true
    }

    /// Lets the statements go that a pause holds back.
    pub fn resume(&self, shards: &[ShardId]) {
        for shard in shards {
            let connector = self.connector(usize::from(shard.0));
            connector.metrics().paused.set(0);
            connector.gate().open();
        }
    }

    /// Closes the idle connections of `shards`, and those on loan when they come back.
    pub fn reconnect(&self, shards: &[ShardId]) {
        shards.iter().for_each(|s| self.retire(usize::from(s.0)));
    }
}

impl Pools {
    /// True while the shard is paused, for every role.
    #[inline]
    pub fn is_paused(&self, shard: ShardId) -> bool {
        self.gate(shard).is_closed()
    }

    /// Waits until none of `shards` is paused. No deadline is kept: it ends with RESUME, or is dropped.
    pub async fn pass(&self, shards: &[ShardId]) {
        // While it waits for one, another may be paused.
        while let Some(shard) = shards.iter().find(|s| self.is_paused(**s)) {
            let user = || self.user(*shard);
            self.gate(*shard).pass(user).await;
        }
    }
}
