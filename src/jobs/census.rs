//! What a queue holds, counted for the metrics wherever a queue is configured: also where no worker runs.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::jobs::Queues;
use crate::policy::Snapshot;
use crate::store::Error;
use crate::telemetry::QueueMetrics;

/// Counts the tasks of the policy's queue.
pub struct Census {
    queues: Arc<Queues>,
    policy: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<QueueMetrics>,
    away: bool,
}

impl Census {
    /// A census of the queue that `policy` names each time.
    #[must_use]
    pub const fn new(queues: Arc<Queues>, policy: Arc<ArcSwap<Snapshot>>, metrics: Arc<QueueMetrics>) -> Self {
        Self { queues, policy, metrics, away: false }
    }

    /// Counts once. A queue that does not answer is told once, and leaves the numbers as they are.
    pub async fn take(&mut self) {
        let counted = self.count().await;
        let was_away = std::mem::replace(&mut self.away, counted.is_err());
        match counted {
            Err(error) if !was_away => tracing::warn!(%error, "jobs: the queue cannot be counted"),
            Ok(()) if was_away => tracing::info!("jobs: the queue can be counted again"),
            _ => {}
        }
    }

    async fn count(&self) -> Result<(), Error> {
        let (depth, oldest) = match self.queues.of(self.policy.load().queue.driver) {
            Some(queue) => (queue.depth().await?, queue.oldest_wait().await?),
            None => Default::default(),
        };
        self.metrics.depth(depth);
        self.metrics.oldest_wait(oldest);
        Ok(())
    }
}
