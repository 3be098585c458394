//! PAUSE, RESUME and RECONNECT: over the connections of all roles to a shard; and shards that nothing is known of yet.

use std::time::Duration;

use super::BackendError;
use super::gate::Gate;
use super::pool::Pools;
use super::roles::Roles;
use crate::plan::ShardId;

/// How often PAUSE looks whether the last connection has come back.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Roles {
    /// Holds back statements of sessions without a connection, waits until all connections of `shards` have come back, and closes
    /// them. Meanwhile a session that has a connection goes on to the end of its transaction, whatever shards it needs; from then on
    /// nobody gets one. Dropping the future leaves the shards paused.
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
            let idle = shards.iter().all(|s| self.in_use(usize::from(s.0)) == 0);
            let gates = shards.iter().map(|s| self.configured().gate(*s));
            match (idle, gates.clone().all(Gate::is_shut)) {
                (true, true) => break,
                (false, false) => {}
                // Once more: somebody may just have passed, who must not wait for the other shards then.
                _ => gates.for_each(|gate| gate.set_shut(idle)),
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

    /// Lets nothing run on `unread` shards, whose catalog is not known, until a later call leaves them out.
    pub(super) fn bar(&self, unread: &[ShardId]) {
        let gates = unread.iter().map(|s| self.configured().gate(*s));
        gates.for_each(Gate::bar);
    }

    /// Lets statements run on the other shards that are planned by catalogs from `version` on.
    pub(super) fn admit(&self, unread: &[ShardId], version: u64) {
        let gates = self.connectors().map(|connector| connector.gate());
        let known = gates.enumerate().filter(|(shard, _)| {
            let mut unread = unread.iter();
            unread.all(|u| usize::from(u.0) != *shard)
        });
        known.for_each(|(_, gate)| gate.admit_from(version));
    }

    /// Closes the idle connections of `shards`, and those on loan when they come back.
    pub fn reconnect(&self, shards: &[ShardId]) {
        shards.iter().for_each(|s| self.retire(usize::from(s.0)));
    }
}

impl Pools {
    /// True while nothing is known of the shard, because it has not been there since the start.
    #[inline]
    pub fn is_barred(&self, shard: ShardId) -> bool {
        self.gate(shard).is_barred()
    }

    /// True where a statement may run on the shard that was planned by that version of the catalog.
    #[inline]
    pub fn admits(&self, shard: ShardId, version: u64) -> bool {
        self.gate(shard).admits(version)
    }

    /// Why a statement may not run there.
    pub fn not_read(&self, shard: ShardId) -> BackendError {
        self.connector(shard).not_read()
    }

    /// The shards of which that is not true, ascending; nearly always none.
    pub fn not_admitting(&self, version: u64) -> Vec<ShardId> {
        let shards = (0..self.data().len()).map(|i| ShardId(i as u16));
        shards.filter(|s| !self.admits(*s, version)).collect()
    }

    /// True while the shard is paused, for every role.
    #[inline]
    pub fn is_paused(&self, shard: ShardId) -> bool {
        self.gate(shard).is_closed()
    }

    /// True while the shard is paused for a session that `holds` connections to others.
    #[inline]
    pub fn stops(&self, shard: ShardId, holds: bool) -> bool {
        self.gate(shard).stops(holds)
    }

    /// Waits until none of `shards` stops the session. No deadline is kept: it ends with RESUME, or is dropped.
    pub async fn pass(&self, shards: &[ShardId], holds: bool) {
        // While it waits for one, another may be paused.
        while let Some(shard) = shards.iter().find(|s| self.stops(**s, holds)) {
            let user = || self.user(*shard);
            self.gate(*shard).pass(holds, user).await;
        }
    }
}
