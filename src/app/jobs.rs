//! The task queue of this process: the executor's calls go to the desk, the worker's to the executor.

use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::config;
use crate::executor::{Dispatch, Executor, Submission};
use crate::jobs::{Desk, Queues, Ran, Run, Worker};
use crate::policy::{Reason, Snapshot};
use crate::protocol::Identity;
use crate::telemetry::Metrics;

/// Runs calls on the executor of this process.
struct OnExecutor(Arc<Executor>);

#[async_trait]
impl Run for OnExecutor {
    async fn run(&self, policy: &Snapshot, caller: &Identity, body: &[u8]) -> Ran {
        let called = self.0.run(policy, caller, body).await;
        Ran {
            http_status: called.status,
            body: called.body,
            session_id: called.session_id,
            infrastructure: called.failed,
        }
    }
}

/// Takes the executor's calls to the desk.
struct AtDesk(Desk);

#[async_trait]
impl Dispatch for AtDesk {
    async fn dispatch(&self, policy: Arc<Snapshot>, submission: Submission) -> Result<(u16, Vec<u8>), Reason> {
        let Submission { caller, body, key, session_id } = submission;
        let reply = self.0.dispatch(&policy, &caller, &body, key.as_deref(), &session_id).await?;
        Ok((reply.status, reply.body.to_string().into_bytes()))
    }
}

/// The queue of this process.
pub(in crate::app) struct RunningJobs {
    /// `None` without `queue_worker`.
    pub worker: Option<Arc<Worker>>,
    task: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl RunningJobs {
    /// Gives the executor its desk, and a worker to whoever wants one.
    ///
    /// # Errors
    /// When the queue's database settings cannot be used.
    pub fn new(
        plan: &config::Executor,
        executor: &Arc<Executor>,
        policy: &Arc<ArcSwap<Snapshot>>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let metrics = metrics.queue()?;
        let taken = Arc::new(Notify::new());
        let run: Arc<dyn Run> = Arc::new(OnExecutor(Arc::clone(executor)));
        let queues = match &plan.queue_worker {
            Some(settings) => Some(Queues::open(&settings.store).context("queue_worker")?),
            None => None,
        };
        let mut worker = None;
        let mut desk = None;
        if let (Some(queues), Some(settings)) = (queues, &plan.queue_worker) {
            desk = Some((Arc::clone(&queues), settings.key.clone()));
            worker = Some(Worker::new(
                queues,
                Arc::clone(&run),
                Arc::clone(policy),
                settings.clone(),
                Arc::clone(&metrics),
                Arc::clone(&taken),
            ));
        }
        executor.take_calls(Arc::new(AtDesk(Desk::new(desk, run, metrics, taken))));
        Ok(Self { worker, task: None, stop: watch::channel(false).0 })
    }

    /// Begins to work, if there is a queue.
    pub fn start(&mut self) {
        self.task = self.worker.clone().map(|worker| tokio::spawn(worker.work(self.stop.subscribe())));
    }

    /// What ends the worker.
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Tells the worker to stop, and waits until it has.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task {
            let _ = task.await;
        }
    }
}
