//! What operators see of the task queue, and do to it.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::config;
use crate::jobs::Queues;
use crate::policy::{QueueDriver, Snapshot};
use crate::store::queue::{Registration, Status, Task, Undone};

/// What an operator wants of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The newest tasks; of one status (sTask's word), if given.
    List {
        status: Option<String>,
        limit: u32,
    },
    Show(i64),
    Cancel(i64),
    Retry(i64),
    /// Our row in sTask's register of workers is made, or repaired.
    SyncWorkers,
}

/// Fulfils it; what there is to be shown, as JSON: a list, a task, or `null`.
///
/// # Errors
/// When there is no queue, it does not answer, or the task is not such that it could be done.
pub async fn fulfil(executor: &config::Executor, policy: &Snapshot, wish: Wish) -> anyhow::Result<Value> {
    if wish == Wish::SyncWorkers && policy.queue.driver != QueueDriver::Stask {
        return Ok(Registration::Skipped.as_str().into());
    }
    let Some(settings) = &executor.queue_worker else { bail!("executor.toml has no [queue_worker]") };
    let queues = Queues::open(&settings.store).context("queue_worker")?;
    let Some(queue) = queues.of(policy.queue.driver) else {
        bail!("the policy names no queue: set queue.driver to \"own\" or \"stask\"");
    };
    let away = "the queue does not answer";
    let (id, done) = match wish {
        Wish::List { status, limit } => {
            let status = match status {
                None => None,
                Some(word) => Some(named(&word)?),
            };
            let tasks = queue.list(status, limit.clamp(1, 10_000)).await.context(away)?;
            return Ok(tasks.iter().map(summary).collect());
        }
        Wish::Show(id) => {
            let Some(task) = queue.task(id).await.context(away)? else { bail!("there is no task {id}") };
            let attempts = queue.attempts(id).await.context(away)?;
            let mut shown = summary(&task);
            shown["result"] = serde_json::from_str(&task.result).unwrap_or(Value::Null);
            shown["runs"] = attempts
                .into_iter()
                .map(|(run, worker, outcome)| {
                    let outcome = if outcome.is_empty() { "running" } else { &*outcome };
                    json!({"run": run, "worker": worker, "outcome": outcome})
                })
                .collect();
            return Ok(shown);
        }
        Wish::SyncWorkers => return Ok(queue.register().await.context(away)?.as_str().into()),
        Wish::Cancel(id) => (id, queue.cancel(id).await.context(away)?),
        Wish::Retry(id) => (id, queue.retry(id).await.context(away)?),
    };
    match done {
        Ok(()) => Ok(Value::Null),
        Err(Undone::NoSuchTask) => bail!("there is no task {id}"),
        Err(Undone::WrongStatus) => bail!("task {id}: only what has not ended is cancelled, only what failed retried"),
    }
}

fn named(word: &str) -> anyhow::Result<Status> {
    Status::ALL.into_iter().find(|status| status.as_str() == word).with_context(|| {
        let words: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
        format!("there is no status {word:?}: use one of {}", words.join(", "))
    })
}

/// Arguments and keys of callers are left out.
fn summary(task: &Task) -> Value {
    let meta: Value = serde_json::from_str(&task.meta).unwrap_or(Value::Null);
    json!({
        "id": task.id,
        "status": task.status.map_or("unknown", Status::as_str),
        "server": meta["server_handle"],
        "method": meta["jsonrpc_method"],
        "tool": meta["jsonrpc_params"]["name"],
        "caller": meta["mcp_sidecar"]["identity"],
        "trace_id": meta["trace_id"],
        "started_by": task.started_by,
        "attempts": task.attempts,
        "max_attempts": task.max_attempts,
        "priority": task.priority,
        "progress": task.progress,
        "message": task.message,
        "created_at": task.created_at,
        "start_at": task.start_at,
        "finished_at": task.finished_at,
    })
}
