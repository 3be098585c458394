//! What is more than the proxy may hold runs again on the merge session.

use super::run::Outcome;
use super::session::{Ended, Session};
use crate::executor::Execution;

impl Session {
    /// Streams an execution to the client, at most `max_rows` rows (0: all). What the proxy cannot hold is run again on the merge
    /// session.
    ///
    /// # Errors
    /// `Ended::Statement` when it failed: the shards have been stopped and the connections are usable or closed.
    /// `Ended::Session` when the client is gone.
    pub async fn stream(
        &mut self,
        execution: &mut Execution,
        max_rows: u64,
    ) -> Result<Outcome, Ended> {
        match self.stream_once(execution, max_rows).await? {
            Outcome::Spilled => Box::pin(self.stream_spilled(execution, max_rows)).await,
            outcome => Ok(outcome),
        }
    }

    async fn stream_spilled(
        &mut self,
        execution: &mut Execution,
        max_rows: u64,
    ) -> Result<Outcome, Ended> {
        let mut next = execution.spill().map_err(Ended::Statement)?;
        if let Err(error) = self.start(&mut next).await {
            self.forget_marks();
            self.recover().await;
            self.connections.take_merge();
            return Err(Ended::Statement(error));
        }
        *execution = next;
        self.stream_once(execution, max_rows).await
    }
}
