//! One statement on all shards of a block.

use super::control;
use super::missing::is_of_connection;
use super::session::Session;
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

impl Session {
    /// Runs a statement on every connection the session holds.
    pub async fn broadcast(&mut self, sql: &str) -> Result<(), ServerError> {
        self.broadcast_to(sql, |_| true).await
    }

    /// As `broadcast`, on some shards.
    pub(super) async fn broadcast_to(
        &mut self,
        sql: &str,
        wanted: impl Fn(ShardId) -> bool,
    ) -> Result<(), ServerError> {
        let text = [sql.to_owned()];
        let names = self.shared.shard_names.clone();
        let held = self.connections.iter_mut();
        let work = held
            .filter(|(shard, _)| wanted(*shard))
            .map(|(shard, conn)| {
                let text = &text;
                async move {
                    // Replies of what ran before (a Sync that is still owed) come first.
                    if conn.unsynced() {
                        conn.sync();
                    }
                    (shard, control::command(conn, text).await)
                }
            });
        let replies = futures_util::future::join_all(work).await;
        let mut failure = None;
        for (shard, reply) in replies {
            match reply {
                Ok((frames, _)) => frames.into_iter().for_each(|f| self.forward(f)),
                Err(error) => failure = failure.or(Some(error.on_shard(&names[shard.0 as usize]))),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// ROLLBACK. A shard whose connection is lost has rolled back by itself: that is no news for who wanted it. Where the connection was
    /// the session's own, more is lost than a transaction.
    pub(super) async fn broadcast_rollback(&mut self, text: &str) -> Result<(), ServerError> {
        match self.broadcast(text).await {
            Err(error) if is_of_connection(&error) && !self.pinned => {
                self.connections.drop_lost();
                Ok(())
            }
            done => done,
        }
    }

    /// COMMIT on the shard that was changed; what it says counts. The others have only read.
    pub(super) async fn commit_writer_first(
        &mut self,
        writer: ShardId,
        text: &str,
    ) -> Result<(), ServerError> {
        let committed = self.broadcast_to(text, |shard| shard == writer).await;
        let others = match committed {
            Ok(()) => self.broadcast_to(text, |shard| shard != writer).await,
            Err(_) => self.broadcast_to("ROLLBACK", |shard| shard != writer).await,
        };
        if let Err(error) = others {
            tracing::warn!(%error, "a shard that was only read did not end its transaction");
            self.recover().await;
        }
        committed.map_err(|error| match error.sqlstate().as_str() {
            sqlstate::CONNECTION_FAILURE => error.with(b'C', "08007").with(
                b'D',
                "The connection was lost during COMMIT: whether it took effect is not known.",
            ),
            _ => error,
        })
    }
}
