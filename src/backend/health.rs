//! Whether a shard answers, asked on a control connection: a login costs it more than the question.

use std::time::{Duration, Instant};

use super::BackendError;
use super::control::ControlPlane;
use crate::plan::ShardId;

/// Asks a shard `SELECT 1`; how long the answer took.
///
/// # Errors
/// What connecting met with; `TimedOut` past `limit`.
pub async fn probe(
    control: &ControlPlane,
    shard: ShardId,
    limit: Duration,
) -> Result<Duration, BackendError> {
    let shard = &control.shards[usize::from(shard.0)];
    let asked = Instant::now();
    let answered = tokio::time::timeout(limit, async {
        let client = shard.client().await?;
        let answer = client.simple_query("SELECT 1").await;
        answer.map_err(|e| shard.connector.control_error(&e))
    });
    match answered.await {
        Ok(answer) => answer.map(|_| asked.elapsed()),
        Err(_) => Err(BackendError::TimedOut {
            shard: shard.connector.name.to_string(),
        }),
    }
}
