use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use super::label::{RunOutcome, Submission, TaskStatus};
use super::metrics::Metrics;
use super::name::Name;
use super::registrar::Registrar;

/// What the task queue counts; part of the process's metrics where there is an executor or a worker.
pub struct QueueMetrics {
    submissions: Vec<IntCounter>,
    runs: Vec<IntCounter>,
    tasks: Vec<IntGauge>,
    oldest: IntGauge,
}

impl Metrics {
    /// Adds what the task queue counts.
    ///
    /// # Errors
    /// When called twice.
    pub fn queue(&self) -> prometheus::Result<Arc<QueueMetrics>> {
        let r = Registrar(&self.registry);
        Ok(Arc::new(QueueMetrics {
            submissions: r.counter_each(Name::QueueSubmissions, Submission::WORDS)?,
            runs: r.counter_each(Name::QueueRuns, RunOutcome::WORDS)?,
            tasks: r.gauge_each(Name::QueueTasks, TaskStatus::WORDS)?,
            oldest: r.gauge(Name::QueueOldest)?,
        }))
    }
}

impl QueueMetrics {
    /// A call came to the desk.
    pub fn submission(&self, what: Submission) {
        self.submissions[what as usize].inc();
    }

    /// A task's run ended.
    pub fn run(&self, how: RunOutcome) {
        self.runs[how as usize].inc();
    }

    /// How many tasks there are, in the order of [`TaskStatus::ALL`].
    pub fn depth(&self, tasks: [u64; TaskStatus::ALL.len()]) {
        for (gauge, count) in self.tasks.iter().zip(tasks) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// For how long the task that waits longest has been due.
    pub fn oldest_wait(&self, waited: Duration) {
        self.oldest.set(i64::try_from(waited.as_secs()).unwrap_or(i64::MAX));
    }
}
