use std::time::Duration;

use crate::audit::settings as audit;
use crate::base::Secret;
use crate::store;

/// `queue_worker.*` of executor.toml.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `queue_worker.url`, `.password`, `.prefix`, …: where the tasks are; connections that may write.
    pub store: store::Settings,
    /// `queue_worker.key_env` or `.key_file`: proves which rows are ours; at least 32 bytes.
    pub key: Secret,
    /// `queue_worker.audit`: a line for each run, where no proxy of the same process has a log.
    pub audit: audit::Settings,
    /// `queue_worker.inside` (false): the executor's process runs a worker as well.
    pub inside: bool,
    /// `queue_worker.concurrency` (2): tasks at once.
    pub concurrency: usize,
    /// `queue_worker.poll` (500 ms): how often an idle worker looks.
    pub poll: Duration,
    /// `queue_worker.lease` (30 s): after that long without a sign of life a task is somebody else's.
    pub lease: Duration,
    /// `queue_worker.timeout` (5 min): then a run is given up as failed infrastructure.
    pub timeout: Duration,
    /// `queue_worker.drain` (20 s): how long runs at work may go on when the worker is told to stop.
    pub drain: Duration,
    /// `queue_worker.keep_days` (30): for so long ended tasks in our own table are kept.
    pub keep: Duration,
    /// `queue_worker.backoff` (2 s): before the second attempt; doubles with each, up to 5 minutes.
    pub backoff: Duration,
}

impl Settings {
    /// Settings with the defaults of executor.toml.
    #[must_use]
    pub fn new(store: store::Settings, key: Secret, audit: audit::Settings) -> Self {
        Self {
            store,
            key,
            audit,
            inside: false,
            concurrency: 2,
            poll: Duration::from_millis(500),
            lease: Duration::from_secs(30),
            timeout: Duration::from_secs(300),
            drain: Duration::from_secs(20),
            keep: Duration::from_secs(30 * 86_400),
            backoff: Duration::from_secs(2),
        }
    }
}
