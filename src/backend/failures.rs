//! Why a bb8 pool opens no connection: bb8 itself would only let its callers wait and then say that time was up.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bb8::{ErrorSink, ManageConnection, PooledConnection, RunError};
use tokio::sync::watch;

use super::BackendError;

/// The sink of a pool; tells those who wait for a connection what the attempt to open one met with.
#[derive(Debug, Clone)]
pub(super) struct Failures {
    last: watch::Sender<Option<BackendError>>,
    /// How many there have been.
    count: Arc<AtomicU64>,
}

impl Failures {
    pub(super) fn new() -> Self {
        Self {
            last: watch::Sender::new(None),
            count: Arc::default(),
        }
    }

    /// A connection out of `pool`, or the first failure to open one since the call: not only this caller's attempt may have met it,
    /// but the server is the same.
    pub(super) async fn connection<M>(
        &self,
        pool: &bb8::Pool<M>,
        shard: &str,
        convert: impl FnOnce(M::Error) -> BackendError,
    ) -> Result<PooledConnection<'static, M>, BackendError>
    where
        M: ManageConnection,
    {
        let before = self.count.load(Ordering::Acquire);
        let mut get = pin!(pool.get_owned());
        let got = match poll_fn(|cx| Poll::Ready(get.as_mut().poll(cx))).await {
            // Most often one is there.
            Poll::Ready(got) => got,
            Poll::Pending => {
                let mut failures = self.last.subscribe();
                if self.count.load(Ordering::Acquire) != before {
                    failures.mark_changed();
                }
                tokio::select! {
                    biased;
                    got = get => got,
                    Ok(failure) = next_failure(&mut failures) => return Err(failure),
                }
            }
        };
        got.map_err(|e| match e {
            RunError::User(e) => convert(e),
            RunError::TimedOut => BackendError::TimedOut {
                shard: shard.to_owned(),
            },
        })
    }

    pub(super) fn tell(&self, error: BackendError) {
        // Counted first: who subscribes in between then looks.
        self.count.fetch_add(1, Ordering::Release);
        self.last.send_replace(Some(error));
    }
}

impl ErrorSink<BackendError> for Failures {
    fn sink(&self, error: BackendError) {
        self.tell(error);
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<BackendError>> {
        Box::new(self.clone())
    }
}

/// The next failure after subscription.
async fn next_failure(
    failures: &mut watch::Receiver<Option<BackendError>>,
) -> Result<BackendError, watch::error::RecvError> {
    loop {
        failures.changed().await?;
        if let Some(failure) = &*failures.borrow_and_update() {
            return Ok(failure.clone());
        }
    }
}
