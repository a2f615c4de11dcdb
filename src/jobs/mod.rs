//! Asynchronous dispatch: calls that are taken now, run later by any worker, and asked for until they are done.
//!
//! # Where things live
//! A call that the proxy permitted comes to the [`Desk`], in the executor's process, which is the only place with a
//! database. It becomes a task: a row in the table of the policy's `queue.driver` (`own`: ours; `stask`: the site's
//! `s_tasks`, so that its screens show it), beside it a lease and perhaps a key. A [`Worker`], in that process or in
//! others, on this machine or on others, takes it, runs it through [`Run`], and writes down what came of it. The
//! client sends the same request again, with the same key, until the answer is there.
//!
//! # States
//! ```text
//!            submit          claim            settle
//!   request ───────► preparing ────► running ────────► finished (completed)
//!                     30  ▲           50  │ │     └───► failed
//!                         └── again ──────┘ └─ lease lost: claimed again as it is
//! ```
//! Tasks begin at 30, not at sTask's 10, because its own worker takes every row at 10 without asking anybody. A
//! JSON-RPC error is a result: it finishes a task. What fails one: the policy of the day denies it, its row was not
//! made here, or the infrastructure failed as often as `queue.max_attempts` allows.
//!
//! # Invariants
//! - A task runs only when its row carries the code over it, made with `queue_worker.key`, and when [`judge_now`]
//!   permits it again for the recorded caller under today's policy; what a user of the CMS's manager may do is read
//!   from the database then.
//! - Each run is a line in the audit log and one in the metrics, whatever became of it; while lines cannot be written,
//!   no task is begun.
//! - A lease is fenced: whoever lost it completes nothing. No task is lost, none completes twice; a second run
//!   happens only after a lost lease or an infrastructure failure, and each run is a line in the attempts table.
//! - A key belongs to one caller, as verified: equal keys of two callers never meet. Without verified callers
//!   (`auth.mode = "none"`) there are no keys.
//! - What a client sees of a failure is a sentence of ours, never a text of the database.
//!
//! # Non-goals
//! Calls to foreign servers (their upstreams are the proxy's), streams, schedules.

mod census;
mod desk;
mod entry;
mod judge;
mod meta;
mod pass;
mod request;
pub mod settings;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use async_trait::async_trait;

pub use census::Census;
pub use desk::{Desk, Reply};
pub use judge::{Away, Permitted, Unpermitted, judge, judge_now};
pub use meta::Meta;
pub use pass::{Halted, Pass};
pub use request::{Invalid, Request, payload_hash};
pub use settings::Settings;
pub use worker::Worker;

use crate::policy::{QueueDriver, Snapshot};
use crate::protocol::Identity;
use crate::store::queue::{Driver, Queue};
use crate::store::{self, Error};

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// As the call's own endpoint would have answered.
    pub http_status: u16,
    /// JSON, or empty for a notification.
    pub body: Vec<u8>,
    pub session_id: String,
    /// What the call needs did not answer: the same call may succeed later.
    pub infrastructure: bool,
}

/// Runs one permitted call. Dropping the future ends it.
#[async_trait]
pub trait Run: Send + Sync {
    /// Runs `body`, a JSON-RPC request, for `caller`.
    async fn run(&self, policy: &Snapshot, caller: &Identity, body: &[u8]) -> Ran;

    /// What a user of the CMS's manager may do now; `None` for nobody who may use it.
    ///
    /// # Errors
    /// When that cannot be told now.
    async fn permissions(&self, policy: &Snapshot, user: u64) -> Result<Option<Vec<String>>, Away>;
}

/// The queue of each driver; connected to when first used.
#[derive(Clone, Debug)]
pub struct Queues {
    own: Queue,
    stask: Queue,
}

impl Queues {
    /// Queues over one database.
    ///
    /// # Errors
    /// When the URL or the prefix cannot be used.
    pub fn open(settings: &store::Settings) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self { own: Queue::open(settings, Driver::Own)?, stask: Queue::open(settings, Driver::Stask)? }))
    }

    /// The queue that the policy names, if it names one.
    #[must_use]
    pub const fn of(&self, driver: QueueDriver) -> Option<&Queue> {
        match driver {
            QueueDriver::Own => Some(&self.own),
            QueueDriver::Stask => Some(&self.stask),
            QueueDriver::Off | QueueDriver::Sync => None,
        }
    }

    /// Where keys of calls are kept that are answered at once.
    #[must_use]
    pub const fn keys(&self) -> &Queue {
        &self.own
    }
}
