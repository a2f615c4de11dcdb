use std::sync::Arc;
use std::time::Instant;

use crate::telemetry::{ExecutorMetrics, ExecutorOutcome, ToolClass};

/// One request as it is counted: once, when this is dropped. Whoever drops it before an outcome is known (the
/// caller left) counts as abandoned.
pub(in crate::executor) struct Observation {
    metrics: Arc<ExecutorMetrics>,
    began: Instant,
    pub tool: ToolClass,
    pub outcome: ExecutorOutcome,
}

impl Observation {
    pub(in crate::executor) fn begin(metrics: &Arc<ExecutorMetrics>) -> Self {
        let metrics = Arc::clone(metrics);
        Self { metrics, began: Instant::now(), tool: ToolClass::None, outcome: ExecutorOutcome::Abandoned }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.metrics.request(self.tool, self.outcome, us);
    }
}
