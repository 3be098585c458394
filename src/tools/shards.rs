//! The shards as the tools see them: the same read-only question put to all of them side by side, each within a time limit.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::{Error, IsolationLevel, Transaction};

use crate::backend::BackendError;
use crate::backend::control::{ControlPlane, ControlShard};
use crate::config::Config;

/// A piece of work is this many statements at most. Each has its time limit on the server; the limit of all of them is there for servers
/// that say nothing any more.
const STATEMENTS_MAX: u32 = 20;

/// What prints the same on every server, whatever the defaults of its roles and databases. A locked table must not stop the tool.
const FIXED: &str = "
SET LOCAL search_path = ''; SET LOCAL lock_timeout = '5s'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL TimeZone = 'UTC';
SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL lc_monetary = 'C';
SET LOCAL xmlbinary = 'base64'; SET LOCAL row_security = off; ";

/// The settings a question is put under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settings {
    /// Those a new session has.
    Own,
    /// The same on every shard, with an empty search_path.
    Fixed,
}

/// Control connections to all shards.
pub struct Shards {
    /// Names, tables, functions.
    pub config: Arc<Config>,
    control: Arc<ControlPlane>,
    limit: Duration,
}

impl Shards {
    /// `limit` is for each statement. Must be called inside a runtime.
    pub fn new(config: &Arc<Config>, limit: Duration) -> Self {
        Self {
            config: config.clone(),
            control: ControlPlane::new(config),
            limit,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.control.shards.len()
    }

    /// The name of one.
    pub fn name(&self, shard: usize) -> &str {
        &self.control.shards[shard].connector.name
    }

    /// Does `work` on all shards at once, in a read-only transaction that is rolled back.
    ///
    /// # Errors
    /// Of the first shard, in their order, on which it failed.
    pub async fn each<T>(
        &self,
        settings: Settings,
        work: impl AsyncFn(usize, &Transaction<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, BackendError> {
        let all = (0..self.len()).map(|shard| self.on(shard, settings, &work));
        join_all(all).await.into_iter().collect()
    }

    /// The same on one shard.
    ///
    /// # Errors
    /// What the shard says; `TimedOut` where it says nothing for longer than its statements may take.
    pub async fn on<T>(
        &self,
        shard: usize,
        settings: Settings,
        work: &impl AsyncFn(usize, &Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, BackendError> {
        let control = &self.control.shards[shard];
        let done = tokio::time::timeout(
            self.limit * STATEMENTS_MAX,
            self.within(control, shard, settings, work),
        );
        done.await.unwrap_or_else(|_| {
            Err(BackendError::TimedOut {
                shard: self.name(shard).to_owned(),
            })
        })
    }

    async fn within<T>(
        &self,
        control: &ControlShard,
        shard: usize,
        settings: Settings,
        work: &impl AsyncFn(usize, &Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, BackendError> {
        let mut client = control.client().await?;
        let result = async {
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            let limit = self.limit.as_millis();
            let mut prepare = format!("SET LOCAL statement_timeout = {limit}; ");
            if settings == Settings::Fixed {
                prepare.insert_str(0, FIXED);
            }
            transaction.batch_execute(&prepare).await?;
            let answer = work(shard, &transaction).await?;
            transaction.rollback().await?;
            Ok(answer)
        };
        result
            .await
            .map_err(|e| control.connector.control_error(&e))
    }
}
