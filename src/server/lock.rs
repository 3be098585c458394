//! LOCK TABLE … IN ACCESS SHARE MODE over several shards: the lock that a read takes, on every shard that has the table. It only waits
//! for who changes or drops the table, so sessions cannot wait for each other in a circle over shards.

use std::collections::BTreeMap;

use super::control;
use super::prepare::CATALOG_SHARD;
use super::session::Session;
use crate::catalog::{Catalog, Distribution};
use crate::plan::ShardId;
use crate::planner;
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::{LockTables, LockedTable};

impl Session {
    /// True for a lock that is taken here: one shard takes any by itself.
    pub fn can_lock(&self, lock: &LockTables) -> bool {
        lock.as_reads && !self.shared.is_one_shard()
    }

    /// Takes the locks and returns the tag; they are held until the transaction ends.
    ///
    /// # Errors
    /// 25P01 outside of a transaction; what a shard says.
    pub async fn lock(&mut self, lock: &LockTables) -> Result<String, ServerError> {
        if self.lacks_block() {
            let message = "LOCK TABLE can only be used in transaction blocks";
            return Err(ServerError::new(sqlstate::NO_ACTIVE_TRANSACTION, message));
        }
        self.open_implicit();
        self.find_path().await?;
        let texts = self.lock_texts(lock)?;
        let shards: Vec<ShardId> = texts.keys().copied().collect();
        self.transaction.was_tied = self.transaction.is_tied;
        self.join_and_wait(&shards).await?;
        self.transaction.is_tied = true;
        let names = self.shared.shard_names.clone();
        let held = self.connections.iter_mut();
        let work = held.filter_map(|(shard, conn)| {
            let text = [texts.get(&shard)?.clone()];
            Some(async move {
                // Replies of what ran before (a Sync that is still owed) come first.
                if conn.unsynced() {
                    conn.sync();
                }
                (shard, control::command(conn, &text).await)
            })
        });
        let replies = futures_util::future::join_all(work).await;
        let mut failure = None;
        for (shard, reply) in replies {
            match reply {
                Ok((frames, _)) => frames.into_iter().for_each(|f| self.forward(f)),
                Err(error) => {
                    let error = error.on_shard(&names[shard.0 as usize]);
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or_else(|| Ok("LOCK TABLE".into()), Err)
    }

    /// The LOCK for each shard, of the tables that are there.
    fn lock_texts(&self, lock: &LockTables) -> Result<BTreeMap<ShardId, String>, ServerError> {
        let loaded = self.loaded()?;
        let path = self.search_path(&loaded.catalog);
        let mut tables: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
        for table in &lock.tables {
            for shard in places(&loaded.catalog, &path, table) {
                tables.entry(shard).or_default().push(table.quoted());
            }
        }
        let nowait = if lock.nowait { " NOWAIT" } else { "" };
        let text = |names: Vec<String>| {
            let names = names.join(", ");
            format!("LOCK TABLE {names} IN ACCESS SHARE MODE{nowait}")
        };
        Ok(tables
            .into_iter()
            .map(|(s, names)| (s, text(names)))
            .collect())
    }
}

/// Where a table is. What only the catalog shard is sure to know cannot be read elsewhere.
fn places(catalog: &Catalog, path: &[String], table: &LockedTable) -> Vec<ShardId> {
    let found = planner::find_table(catalog, path, &table.schema, &table.name);
    match found.map(|t| &t.distribution) {
        Some(Distribution::Sharded { .. } | Distribution::Reference | Distribution::View) => {
            (0..catalog.shards).map(|n| ShardId(n as u16)).collect()
        }
        Some(Distribution::Single(shard)) => vec![*shard],
        Some(Distribution::System | Distribution::Undeclared { .. }) | None => vec![CATALOG_SHARD],
    }
}
