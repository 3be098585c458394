//! The merge session that a statement's last step runs on.

use std::pin::pin;
use std::time::Instant;

use super::cancel::unless_cancelled;
use super::session::Session;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;

impl Session {
    /// A merge session in this session's settings; outside of its transaction. It is the execution's own and goes back when
    /// that ends.
    pub(super) async fn join_merge(&mut self, missing: &[ShardId]) -> Result<(), ServerError> {
        let deadline = Instant::now() + self.shared.config().pool.queue_timeout;
        // What a failed start left: to wait for a second one while holding it could be to wait for oneself.
        self.connections.take_merge();
        let told = self.steering.merge.take();
        let mut shard = told.unwrap_or_else(|| self.shared.next_merge_shard(missing));
        let mut avoided = missing.to_vec();
        let lease = loop {
            let acquired = pin!(self.role.pools.acquire_merge(shard, deadline));
            match unless_cancelled(&self.registration.entry, None, acquired).await {
                Ok(lease) => break lease,
                Err(error) if self.may_merge_elsewhere(&error, &mut avoided, shard) => {
                    shard = self.shared.next_merge_shard(&avoided);
                }
                Err(error) => return Err(error),
            }
        };
        self.connections.put_merge(lease);
        let settings = self.settings_in_force();
        let (mark, replay) = (settings.mark(), settings.take_over());
        if let Some(conn) = self.connections.merge()
            && conn.settings_mark() != mark
        {
            conn.set_settings_mark(mark);
            conn.query(&replay);
        }
        Ok(())
    }
}
