//! A worker: takes tasks, runs them, writes down what came of them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::jobs::desk::result;
use crate::jobs::{Meta, Queues, Run, Settings, judge, meta};
use crate::policy::{QueueDriver, Snapshot, may_call_tools};
use crate::store::Error;
use crate::store::queue::{Claim, Driver, Queue, Settlement};
use crate::telemetry::{QueueMetrics, RunOutcome};

/// The longest wait before another attempt.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// How often keys whose time is over are forgotten, and the queue is counted.
const SWEEP: Duration = Duration::from_secs(60);

/// A worker; any number of them share a queue.
pub struct Worker {
    queues: Arc<Queues>,
    run: Arc<dyn Run>,
    policy: Arc<ArcSwap<Snapshot>>,
    settings: Settings,
    metrics: Arc<QueueMetrics>,
    taken: Arc<Notify>,
    /// Nobody else's, so that a lease is this process's alone.
    name: String,
}

/// How one run ended.
enum Ended {
    Finished { result: String, meta: Box<Meta> },
    Failed(&'static str, RunOutcome),
    Again(&'static str, Duration, RunOutcome),
}

impl Worker {
    /// A worker that judges by whatever `policy` holds when a task begins. `taken` wakes it before its time.
    #[must_use]
    pub fn new(
        queues: Arc<Queues>,
        run: Arc<dyn Run>,
        policy: Arc<ArcSwap<Snapshot>>,
        settings: Settings,
        metrics: Arc<QueueMetrics>,
        taken: Arc<Notify>,
    ) -> Arc<Self> {
        let name = uuid::Uuid::new_v4().to_string();
        Arc::new(Self { queues, run, policy, settings, metrics, taken, name })
    }

    /// Works until `stop` goes up; runs at work then have `queue_worker.drain` to end, and are given back.
    pub async fn work(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        tracing::info!(worker = self.name, concurrency = self.settings.concurrency, "jobs: worker started");
        let (cut, cutting) = watch::channel(false);
        let mut runs = JoinSet::new();
        let (mut swept, mut away): (Option<Instant>, bool) = (None, false);
        while !*stop.borrow() {
            if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
                swept = Some(Instant::now());
                self.sweep().await;
            }
            let filled = self.fill(&mut runs, &cutting).await;
            let was_away = std::mem::replace(&mut away, filled.is_err());
            match filled {
                // Asked again and again: what has been said is not said again.
                Err(error) if !was_away => tracing::warn!(%error, "jobs: the queue does not answer"),
                Ok(()) if was_away => tracing::info!("jobs: the queue answers again"),
                _ => {}
            }
            tokio::select! {
                () = raised(&mut stop) => break,
                () = tokio::time::sleep(self.settings.poll) => {}
                () = self.taken.notified() => {}
                Some(_) = runs.join_next() => {}
            }
        }
        let deadline = Instant::now() + self.settings.drain;
        if tokio::time::timeout_at(deadline, async { while runs.join_next().await.is_some() {} }).await.is_err() {
            cut.send_replace(true);
            while runs.join_next().await.is_some() {}
        }
        tracing::info!(worker = self.name, "jobs: worker stopped");
    }

    /// Runs what is due until nothing is, or `stop` goes up.
    ///
    /// # Errors
    /// When the queue does not answer, or the policy has none.
    pub async fn once(self: Arc<Self>, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
        let (cut, cutting) = watch::channel(false);
        self.sweep().await;
        let mut runs = JoinSet::new();
        loop {
            self.fill(&mut runs, &cutting).await?;
            if runs.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = raised(&mut stop) => {
                    cut.send_replace(true);
                    while runs.join_next().await.is_some() {}
                    return Ok(());
                }
                _ = runs.join_next() => {}
            }
        }
    }

    /// Begins as many runs as there is room for.
    async fn fill(self: &Arc<Self>, runs: &mut JoinSet<()>, cut: &watch::Receiver<bool>) -> Result<(), Error> {
        let policy = self.policy.load_full();
        let Some(queue) = self.queues.of(policy.queue.driver) else { return Ok(()) };
        if policy.queue.accept_foreign && policy.queue.driver == QueueDriver::Stask {
            queue.adopt().await?;
        }
        while runs.len() < self.settings.concurrency.max(1) {
            let Some(claim) = queue.claim(&self.name, self.settings.lease).await? else { break };
            let (worker, queue, cut) = (Arc::clone(self), queue.clone(), cut.clone());
            runs.spawn(async move { worker.serve(&queue, &claim, cut).await });
        }
        Ok(())
    }

    /// One run, from its claim to its settlement.
    async fn serve(&self, queue: &Queue, claim: &Claim, mut cut: watch::Receiver<bool>) {
        if let Some(lost) = &claim.lost {
            tracing::warn!(task.id = claim.id, lost.worker = lost, "jobs: a worker was lost; its task runs again");
        }
        let began = Instant::now();
        let ended = tokio::select! {
            ended = self.execute(queue, claim) => ended,
            () = self.keep(queue, claim) => {
                tracing::warn!(task.id = claim.id, run = claim.run, "jobs: the task is this worker's no more");
                self.metrics.run(RunOutcome::Lost);
                return;
            }
            () = raised(&mut cut) => Ended::Again("The worker was stopped", Duration::ZERO, RunOutcome::Again),
            () = tokio::time::sleep(self.settings.timeout) => self.again(claim, "The call took too long"),
        };
        let (how, outcome) = match &ended {
            Ended::Finished { result, meta } => {
                let ttl_ms = u64::from(self.policy.load().idempotency.ttl_seconds) * 1000;
                let key = meta.mcp_sidecar.as_ref().map(|own| (&*own.key, ttl_ms)).filter(|(key, _)| !key.is_empty());
                (Settlement::Finished { result, key }, RunOutcome::Finished)
            }
            Ended::Failed(message, outcome) => (Settlement::Failed { message }, *outcome),
            Ended::Again(message, after, outcome) => (Settlement::Again { message, after: *after }, *outcome),
        };
        let outcome = match queue.settle(claim, &self.name, how).await {
            Ok(true) => outcome,
            Ok(false) => RunOutcome::Lost,
            Err(error) => {
                // Its lease ends by itself, and it runs again.
                tracing::error!(%error, task.id = claim.id, "jobs: what came of a task could not be written");
                RunOutcome::Lost
            }
        };
        self.metrics.run(outcome);
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(task.id = claim.id, run = claim.run, outcome = outcome.as_str(), duration_ms, "jobs: task run");
    }

    async fn execute(&self, queue: &Queue, claim: &Claim) -> Ended {
        let policy = self.policy.load_full();
        let sealed = meta::is_sealed(&self.settings.key, queue.driver(), claim.id, &claim.meta, &claim.mac);
        let foreign = claim.mac.is_empty() && queue.driver() == Driver::Stask && policy.queue.accept_foreign;
        if !sealed && !foreign {
            tracing::warn!(task.id = claim.id, "jobs: a task's row is not as it was made here; it is not run");
            return Ended::Failed("The task was not made here", RunOutcome::Forged);
        }
        let Ok(mut meta) = serde_json::from_str::<Meta>(&claim.meta) else {
            return Ended::Failed("The task cannot be read", RunOutcome::Forged);
        };
        if !sealed {
            // Whoever wrote the row could have written anything here.
            meta.mcp_sidecar = None;
        }
        if claim.attempt > claim.max_attempts {
            return Ended::Failed("Workers were lost while they ran this task", RunOutcome::Failed);
        }
        let (principal, call) = (meta.principal(), meta.call());
        if let Err(denial) = judge(&policy, &meta.server_handle, &principal, &call) {
            tracing::info!(task.id = claim.id, deny.code = denial.reason.code(), "jobs: a task is denied today");
            return Ended::Failed(denial.reason.message(), RunOutcome::Denied);
        }
        let mut caller = meta.caller();
        if policy.security.hide_denied_tools
            && let (Some(server), Some(principal)) = (policy.server(&meta.server_handle), principal.restore())
        {
            caller.may_call_tools = may_call_tools(&policy, server, &principal);
        }
        let ran = self.run.run(&policy, &caller, &call).await;
        if ran.infrastructure {
            return self.again(claim, "Internal error");
        }
        let result = result(&policy, &meta, ran).to_string();
        Ended::Finished { result, meta: Box::new(meta) }
    }

    /// Another attempt after a while, if there are any left.
    fn again(&self, claim: &Claim, why: &'static str) -> Ended {
        if claim.attempt >= claim.max_attempts {
            return Ended::Failed(why, RunOutcome::Failed);
        }
        let doublings = u32::try_from(claim.attempt - 1).unwrap_or(0).min(16);
        Ended::Again(why, (self.settings.backoff * 2_u32.pow(doublings)).min(MAX_BACKOFF), RunOutcome::Again)
    }

    /// Keeps the lease alive; returns when it is lost, or may be.
    async fn keep(&self, queue: &Queue, claim: &Claim) {
        let lease = self.settings.lease;
        let mut until = Instant::now() + lease;
        loop {
            tokio::time::sleep(lease / 3).await;
            let asked = Instant::now();
            match tokio::time::timeout_at(until, queue.renew(claim, &self.name, lease)).await {
                Ok(Ok(true)) => until = asked + lease,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) if Instant::now() >= until => {
                    tracing::warn!(%error, task.id = claim.id, "jobs: a lease could not be renewed in time");
                    return;
                }
                Ok(Err(_)) => {}
            }
        }
    }

    async fn sweep(&self) {
        let Some(queue) = self.queues.of(self.policy.load().queue.driver) else { return };
        let swept = async {
            queue.register().await?;
            queue.sweep().await?;
            queue.prune(self.settings.keep).await?;
            self.metrics.depth(queue.depth().await?);
            Ok::<(), Error>(())
        };
        if let Err(error) = swept.await {
            tracing::warn!(%error, "jobs: the queue could not be swept");
        }
    }
}

/// Waits until it goes up, or nobody can raise it any more.
async fn raised(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|up| *up).await;
}
