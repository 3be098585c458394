//! The connections one client session holds at the moment: at most one a shard, and one merge session.

use super::pool::Lease;
use super::raw_conn::RawConn;
use crate::plan::ShardId;

#[derive(Default)]
pub struct Connections {
    shards: Vec<Option<Lease>>,
    merge: Option<Lease>,
}

impl Connections {
    pub fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| None).collect(),
            merge: None,
        }
    }

    pub fn holds(&self, shard: ShardId) -> bool {
        self.shards
            .get(shard.0 as usize)
            .is_some_and(Option::is_some)
    }

    pub fn put(&mut self, shard: ShardId, lease: Lease) {
        self.shards[shard.0 as usize] = Some(lease);
    }

    pub fn put_merge(&mut self, lease: Lease) {
        self.merge = Some(lease);
    }

    pub fn take_merge(&mut self) -> Option<Lease> {
        self.merge.take()
    }

    /// The connection to a shard the session has been given.
    pub fn get(&mut self, shard: ShardId) -> Option<&mut RawConn> {
        self.shards.get_mut(shard.0 as usize)?.as_deref_mut()
    }

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

    /// Gives all connections back (dirty ones are closed by their lease).
    pub fn release(&mut self) {
        self.shards.iter_mut().for_each(|l| *l = None);
        self.merge = None;
    }
}
