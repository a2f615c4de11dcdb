//! The task queue of this process: the executor's calls go to the desk, the worker's to the executor.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::audit::Audit;
use crate::base::SystemClock;
use crate::config::{self, Unkept};
use crate::executor::{Dispatch, Executor, Submission};
use crate::jobs::{Away, Census, Desk, Queues, Ran, Run, Settings, Worker};
use crate::policy::{Reason, Snapshot};
use crate::protocol::Identity;
use crate::telemetry::{Metrics, QueueMetrics};

/// How long an audit log may take to be written to its end.
const AUDIT_CLOSES: Duration = Duration::from_secs(5);

/// How often the queue is counted, and looked for.
const CENSUS: Duration = Duration::from_secs(10);

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

    async fn permissions(&self, policy: &Snapshot, user: u64) -> Result<Option<Vec<String>>, Away> {
        self.0.manager_permissions(&policy.manager, user).await.map_err(|error| {
            tracing::warn!(%error, "jobs: what a manager's user may do could not be read");
            Away
        })
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
    /// What a worker is made of; `None` without `queue_worker`.
    parts: Option<Parts>,
    task: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

struct Parts {
    queues: Arc<Queues>,
    run: Arc<dyn Run>,
    policy: Arc<ArcSwap<Snapshot>>,
    settings: Settings,
    metrics: Arc<QueueMetrics>,
    taken: Arc<Notify>,
}

impl RunningJobs {
    /// Gives the executor its desk.
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
        let parts = match &plan.queue_worker {
            Some(settings) => Some(Parts {
                queues: Queues::open(&settings.store).context("queue_worker")?,
                run: Arc::clone(&run),
                policy: Arc::clone(policy),
                settings: settings.clone(),
                metrics: Arc::clone(&metrics),
                taken: Arc::clone(&taken),
            }),
            None => None,
        };
        let desk = parts.as_ref().map(|parts| (Arc::clone(&parts.queues), parts.settings.key.clone()));
        executor.take_calls(Arc::new(AtDesk(Desk::new(desk, run, metrics, taken))));
        Ok(Self { parts, task: None, stop: watch::channel(false).0 })
    }

    /// Counts the queue from now on; where a policy wants one and there is none, says so.
    pub fn observe(&self, plan: &config::Executor, policy: &Arc<ArcSwap<Snapshot>>) {
        let mut stop = self.stop.subscribe();
        let mut census = self
            .parts
            .as_ref()
            .map(|parts| Census::new(Arc::clone(&parts.queues), Arc::clone(&parts.policy), Arc::clone(&parts.metrics)));
        let (plan, policy) = (plan.clone(), Arc::clone(policy));
        tokio::spawn(async move {
            let mut told = None;
            loop {
                match &mut census {
                    Some(census) => census.take().await,
                    None => {
                        let unkept = Unkept::of(&plan, &policy.load());
                        if let Some(unkept) = unkept.filter(|_| told != unkept) {
                            tracing::error!("jobs: {}", unkept.as_str());
                        }
                        told = unkept;
                    }
                }
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(CENSUS) => {}
                }
            }
        });
    }

    /// A worker whose runs are lines of this log, if there is a queue.
    pub fn worker(&self, audit: Audit) -> Option<Arc<Worker>> {
        let parts = self.parts.as_ref()?;
        Some(Worker::new(
            Arc::clone(&parts.queues),
            Arc::clone(&parts.run),
            Arc::clone(&parts.policy),
            parts.settings.clone(),
            audit,
            Arc::clone(&parts.metrics),
            Arc::clone(&parts.taken),
        ))
    }

    /// Begins to work, if there is a queue.
    pub fn start(&mut self, audit: Audit) {
        self.task = self.worker(audit).map(|worker| tokio::spawn(worker.work(self.stop.subscribe())));
    }

    /// What ends the worker.
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Tells the worker to stop, and waits until it has, or until `impatient` is over.
    pub async fn stop(&mut self, impatient: impl Future<Output = ()>) {
        self.stop.send_replace(true);
        let Some(mut task) = self.task.take() else { return };
        tokio::select! {
            _ = &mut task => {}
            () = impatient => {
                task.abort();
                let _ = task.await;
            }
        }
    }
}

/// Opens the log of a worker whose process has no proxy, and so no log of the proxy's.
pub(in crate::app) fn open_audit(settings: &Settings, metrics: &Arc<Metrics>) -> anyhow::Result<Audit> {
    Audit::open(&settings.audit, Arc::clone(metrics), Arc::new(SystemClock))
        .with_context(|| format!("cannot write the audit log in {}", settings.audit.dir.display()))
}

/// Writes what is left and closes the log.
pub(in crate::app) async fn close_audit(audit: Audit) {
    let closed = tokio::task::spawn_blocking(move || audit.close(AUDIT_CLOSES)).await;
    if let Ok(Err(unflushed)) = closed {
        tracing::error!(%unflushed, "audit lines were lost at shutdown");
    }
}
