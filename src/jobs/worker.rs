//! A worker: takes tasks, runs them, writes down what came of them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::audit::Audit;
use crate::jobs::desk::result;
use crate::jobs::entry::Entry;
use crate::jobs::request::ascii;
use crate::jobs::{Halted, Meta, Pass, Permitted, Queues, Run, Settings, Unpermitted, judge_now, meta};
use crate::policy::{Denial, QueueDriver, Reason, Rule, Snapshot, may_call_tools};
use crate::store::Error;
use crate::store::queue::{Claim, Driver, Queue, Settlement};
use crate::telemetry::{QueueMetrics, RunOutcome};

/// The longest wait before another attempt.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// How often keys whose time is over are forgotten, and what ended long ago.
const SWEEP: Duration = Duration::from_secs(60);

/// A worker; any number of them share a queue.
pub struct Worker {
    queues: Arc<Queues>,
    run: Arc<dyn Run>,
    policy: Arc<ArcSwap<Snapshot>>,
    settings: Settings,
    audit: Audit,
    metrics: Arc<QueueMetrics>,
    taken: Arc<Notify>,
    /// Nobody else's, so that a lease is this process's alone.
    name: String,
}

/// How one run ended.
enum Ended {
    Finished {
        result: String,
        meta: Box<Meta>,
    },
    Failed(&'static str, RunOutcome),
    /// Another attempt is due after a while.
    Again(&'static str, Duration),
    /// Nothing was found out about the task: this run was none of its attempts.
    Untried(&'static str, Duration),
}

impl Worker {
    /// A worker that judges by whatever `policy` holds when a task begins. `taken` wakes it before its time.
    #[must_use]
    pub fn new(
        queues: Arc<Queues>,
        run: Arc<dyn Run>,
        policy: Arc<ArcSwap<Snapshot>>,
        settings: Settings,
        audit: Audit,
        metrics: Arc<QueueMetrics>,
        taken: Arc<Notify>,
    ) -> Arc<Self> {
        let name = uuid::Uuid::new_v4().to_string();
        Arc::new(Self { queues, run, policy, settings, audit, metrics, taken, name })
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
                Ok(_) if was_away => tracing::info!("jobs: the queue answers again"),
                _ => {}
            }
            tokio::select! {
                () = raised(&mut stop) => break,
                () = tokio::time::sleep(self.settings.poll) => {}
                () = self.taken.notified() => {}
                Some(_) = runs.join_next() => {}
            }
        }
        self.drain(&mut runs, &cut, |_| {}).await;
        tracing::info!(worker = self.name, "jobs: worker stopped");
    }

    /// Runs what is due until nothing is, or `stop` goes up; what was done. Runs at work then have
    /// `queue_worker.drain` to end, and are given back, whatever the reason.
    ///
    /// # Errors
    /// When the queue does not answer, or runs cannot be told of in the audit log.
    pub async fn once(self: Arc<Self>, mut stop: watch::Receiver<bool>) -> Result<Pass, Halted> {
        let (cut, cutting) = watch::channel(false);
        self.sweep().await;
        let mut pass = Pass::default();
        let mut runs = JoinSet::new();
        let mut failed = None;
        while !*stop.borrow() {
            match self.fill(&mut runs, &cutting).await {
                Ok(adopted) => pass.adopted += adopted,
                Err(error) => {
                    failed = Some(Halted::Queue(error));
                    break;
                }
            }
            tokio::select! {
                () = raised(&mut stop) => break,
                ended = runs.join_next() => match ended {
                    Some(ended) => pass.count(ended.ok()),
                    None => break,
                }
            }
        }
        self.drain(&mut runs, &cut, |ended| pass.count(ended)).await;
        let unwritable = (!self.audit.writable()).then_some(Halted::Audit);
        failed.or(unwritable).map_or(Ok(pass), Err)
    }

    /// Waits until all runs have ended, and cuts them off when that takes too long.
    async fn drain(
        &self,
        runs: &mut JoinSet<RunOutcome>,
        cut: &watch::Sender<bool>,
        mut ended: impl FnMut(Option<RunOutcome>),
    ) {
        let patience = tokio::time::sleep(self.settings.drain);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                biased;
                run = runs.join_next() => match run {
                    Some(run) => ended(run.ok()),
                    None => return,
                },
                () = &mut patience, if !*cut.borrow() => {
                    cut.send_replace(true);
                }
            }
        }
    }

    /// Begins as many runs as there is room for; how many tasks of others were taken over.
    async fn fill(self: &Arc<Self>, runs: &mut JoinSet<RunOutcome>, cut: &watch::Receiver<bool>) -> Result<u64, Error> {
        let policy = self.policy.load_full();
        let Some(queue) = self.queues.of(policy.queue.driver) else { return Ok(0) };
        let mut adopted = 0;
        if policy.queue.accept_foreign && policy.queue.driver == QueueDriver::Stask {
            adopted = queue.adopt().await?;
        }
        // What nobody could read of is not begun; the audit log says that it cannot be written.
        while runs.len() < self.settings.concurrency.max(1) && self.audit.writable() {
            let Some(claim) = queue.claim(&self.name, self.settings.lease).await? else { break };
            let (worker, queue, cut) = (Arc::clone(self), queue.clone(), cut.clone());
            runs.spawn(async move { worker.serve(&queue, &claim, cut).await });
        }
        Ok(adopted)
    }

    /// One run, from its claim to its settlement.
    async fn serve(&self, queue: &Queue, claim: &Claim, mut cut: watch::Receiver<bool>) -> RunOutcome {
        if let Some(lost) = &claim.lost {
            tracing::warn!(task.id = claim.id, lost.worker = lost, "jobs: a worker was lost; its task runs again");
        }
        let policy = self.policy.load_full();
        let slot = match policy.logging.audit_enabled {
            true => self.audit.reserve().await.map(Some),
            false => Ok(None),
        };
        let unwritable = slot.is_err();
        let mut entry = Entry::open(slot.unwrap_or_default(), claim, &policy, &self.metrics);
        let ended = tokio::select! {
            biased;
            () = raised(&mut cut) => Ended::Untried("The worker was stopped", Duration::ZERO),
            ended = async {
                match unwritable {
                    true => Ended::Untried("The audit log has no place", self.settings.backoff),
                    false => self.execute(queue, claim, &policy, &mut entry).await,
                }
            } => ended,
            () = self.keep(queue, claim) => {
                tracing::warn!(task.id = claim.id, run = claim.run, "jobs: the task is this worker's no more");
                entry.close(RunOutcome::Lost).await;
                return RunOutcome::Lost;
            }
            () = tokio::time::sleep(self.settings.timeout) => self.again(claim, "The call took too long"),
        };
        let (how, outcome) = match &ended {
            Ended::Finished { result, meta } => {
                let ttl_ms = u64::from(policy.idempotency.ttl_seconds) * 1000;
                let key = meta.mcp_sidecar.as_ref().map(|own| (&*own.key, ttl_ms)).filter(|(key, _)| !key.is_empty());
                (Settlement::Finished { result, key }, RunOutcome::Finished)
            }
            Ended::Failed(message, outcome) => (Settlement::Failed { message }, *outcome),
            Ended::Again(message, after) => {
                (Settlement::Again { message, after: *after, counts: true }, RunOutcome::Again)
            }
            Ended::Untried(message, after) => {
                (Settlement::Again { message, after: *after, counts: false }, RunOutcome::Again)
            }
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
        let (outcome_word, duration_ms) = (outcome.as_str(), entry.duration_ms());
        entry.close(outcome).await;
        tracing::info!(task.id = claim.id, run = claim.run, outcome = outcome_word, duration_ms, "jobs: task run");
        outcome
    }

    async fn execute(&self, queue: &Queue, claim: &Claim, policy: &Snapshot, entry: &mut Entry) -> Ended {
        let sealed = meta::is_sealed(&self.settings.key, queue.driver(), claim.id, &claim.meta, &claim.mac);
        let foreign = claim.mac.is_empty() && queue.driver() == Driver::Stask && policy.queue.accept_foreign;
        let mut refuse = |reason, word, message, outcome| {
            entry.denied(&Denial::new(reason, Rule::Builtin(word)));
            Ended::Failed(message, outcome)
        };
        if !sealed && !foreign {
            tracing::warn!(task.id = claim.id, "jobs: a task's row is not as it was made here; it is not run");
            let message = "The task was not made here";
            return refuse(Reason::Unauthenticated, "task.seal", message, RunOutcome::Forged);
        }
        let Ok(mut meta) = serde_json::from_str::<Meta>(&claim.meta) else {
            return refuse(Reason::InvalidPayload, "task.meta", "The task cannot be read", RunOutcome::Forged);
        };
        if !sealed {
            // Whoever wrote the row could have written anything here.
            meta.mcp_sidecar = None;
        }
        let (record, call) = (meta.principal(), meta.call());
        entry.read(policy, &meta, record.restore().as_ref(), &call);
        if claim.attempt > claim.max_attempts {
            let message = "Workers were lost while they ran this task";
            entry.denied(&Denial::new(Reason::AsyncUnavailable, Rule::Builtin("queue.max_attempts")));
            return Ended::Failed(message, RunOutcome::Failed);
        }
        let Permitted { caller: principal, rule } =
            match judge_now(&*self.run, policy, &meta.server_handle, &record, &call).await {
                Ok(permitted) => permitted,
                Err(Unpermitted::Unknown) => return self.again(claim, "Internal error"),
                Err(Unpermitted::Denied(denial)) => {
                    tracing::info!(
                        task.id = claim.id,
                        deny.code = denial.reason.code(),
                        "jobs: a task is denied today"
                    );
                    entry.denied(&denial);
                    return Ended::Failed(denial.reason.message(), RunOutcome::Denied);
                }
            };
        entry.permitted(&rule);
        let mut caller = meta.caller();
        if policy.security.hide_denied_tools
            && let Some(server) = policy.server(&meta.server_handle)
        {
            caller.may_call_tools = may_call_tools(policy, server, &principal);
        }
        let ran = self.run.run(policy, &caller, &call).await;
        if ran.infrastructure {
            entry.answered(ran.http_status, ran.body.len());
            return self.again(claim, "Internal error");
        }
        let bytes = ran.body.len();
        let result = result(policy, &meta, ran);
        entry
            .answered(result["http_status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(0), bytes);
        Ended::Finished { result: ascii(&result.to_string()), meta: Box::new(meta) }
    }

    /// Another attempt after a while, if there are any left.
    fn again(&self, claim: &Claim, why: &'static str) -> Ended {
        if claim.attempt >= claim.max_attempts {
            return Ended::Failed(why, RunOutcome::Failed);
        }
        Ended::Again(why, backoff(self.settings.backoff, claim.attempt))
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
            Ok::<(), Error>(())
        };
        if let Err(error) = swept.await {
            tracing::warn!(%error, "jobs: the queue could not be swept");
        }
    }
}

/// How long to wait after so many attempts: twice as long after each.
pub(super) fn backoff(first: Duration, attempts: i64) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1).clamp(0, 16)).unwrap_or_default();
    first.saturating_mul(2_u32.pow(doublings)).min(MAX_BACKOFF)
}

/// Waits until it goes up, or nobody can raise it any more.
async fn raised(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|up| *up).await;
}
