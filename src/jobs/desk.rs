//! Where calls are taken: a task and a key, or what is known of the same request from before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::base::{PrincipalRecord, Secret};
use crate::jobs::meta::{self, Own};
use crate::jobs::request::{Request, ascii, hex, payload_hash};
use crate::jobs::{Meta, Queues, Ran, Run, Unpermitted, judge_now};
use crate::policy::{Failover, Reason, Snapshot, Wire};
use crate::protocol::{Identity, transport_error};
use crate::store::Error;
use crate::store::queue::{Key, NewTask, Priority, Queue, Record, Status, Submitted};
use crate::telemetry::{QueueMetrics, Submission};

/// How long a key is taken while its call is answered at once.
const IN_PROGRESS_MS: u64 = 60_000;

/// How often keys of calls that were answered at once are looked through.
const SWEEP: Duration = Duration::from_secs(60);

/// The answer to a dispatch: its status and JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

/// Takes calls.
pub struct Desk {
    queues: Option<(Arc<Queues>, Secret)>,
    run: Arc<dyn Run>,
    metrics: Arc<QueueMetrics>,
    taken: Arc<tokio::sync::Notify>,
    /// When keys of calls that were answered at once were last looked through.
    swept: Mutex<Option<Instant>>,
}

/// One call at the desk.
struct Visit<'a> {
    policy: &'a Snapshot,
    caller: &'a Identity,
    /// As the client has it.
    key: Option<String>,
    /// As the database has it.
    key_id: String,
    hash: String,
    meta: Meta,
}

impl Desk {
    /// A desk over the queues, if there is a database for them. `taken` is told of each new task.
    #[must_use]
    pub fn new(
        queues: Option<(Arc<Queues>, Secret)>,
        run: Arc<dyn Run>,
        metrics: Arc<QueueMetrics>,
        taken: Arc<tokio::sync::Notify>,
    ) -> Self {
        Self { queues, run, metrics, taken, swept: Mutex::default() }
    }

    /// Takes one call. `key` is the header, which goes before the body's member.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn dispatch(
        &self,
        policy: &Snapshot,
        caller: &Identity,
        body: &[u8],
        key: Option<&str>,
        session_id: &str,
    ) -> Result<Reply, Reason> {
        let visit = visit(policy, caller, body, key, session_id)?;
        let (record, call) = (visit.meta.principal(), visit.meta.call());
        let judged = judge_now(&*self.run, policy, &caller.server, &record, &call).await;
        judged.map_err(|unpermitted| match unpermitted {
            Unpermitted::Unknown => Reason::AsyncUnavailable,
            Unpermitted::Denied(denial) => match denial.reason.wire() {
                Wire::Rpc { .. } => Reason::InvalidPayload,
                Wire::Transport { .. } => denial.reason,
            },
        })?;
        let queue = self.queues.as_ref().and_then(|(queues, key)| Some((queues.of(policy.queue.driver)?, key)));
        let taken = match queue {
            Some((queue, key)) => self.queued(queue, key, &visit).await,
            None => None,
        };
        let done = match taken {
            Some(done) => done,
            None if policy.queue.failover == Failover::Sync => self.at_once(visit).await,
            None => Err(Reason::AsyncUnavailable),
        };
        self.metrics.submission(match &done {
            Ok(reply) if reply.body["reused"] == true => Submission::Reused,
            Ok(reply) if reply.status == 202 => Submission::Accepted,
            Ok(_) => Submission::Sync,
            Err(Reason::IdempotencyConflict) => Submission::Conflict,
            Err(_) => Submission::Unavailable,
        });
        done
    }

    /// The queue's answer; `None` when it does not answer.
    async fn queued(&self, queue: &Queue, secret: &Secret, visit: &Visit<'_>) -> Option<Result<Reply, Reason>> {
        let text = ascii(&serde_json::to_string(&visit.meta).ok()?);
        let seal = |id: i64| meta::seal(secret, queue.driver(), id, &text);
        let task = NewTask {
            meta: &text,
            started_by: visit.caller.user_id,
            priority: Priority::Normal,
            max_attempts: visit.policy.queue.max_attempts,
            seal: &seal,
        };
        match queue.submit(&task, visit.row()).await {
            Ok(Submitted::New(id)) => {
                self.taken.notify_one();
                Some(Ok(visit.reply(202, "accepted", id.into(), &visit.caller.trace_id, false)))
            }
            Ok(Submitted::Known(record)) => Some(visit.known(&record)),
            Err(error) => {
                tracing::error!(%error, trace.id = visit.caller.trace_id, "jobs: a task could not be made");
                // With a key, running it here could be a second time; without the table there was no first.
                let none = matches!(error, Error::NoTable(_));
                (visit.key.is_some() && !none).then_some(Err(Reason::AsyncUnavailable))
            }
        }
    }

    /// The failover: the call is run now. Its key is kept where there is a database for it; an answer whose key is not
    /// kept names none.
    async fn at_once(&self, mut visit: Visit<'_>) -> Result<Reply, Reason> {
        let keys = self.queues.as_ref().map(|(queues, _)| queues.keys());
        let asked = visit.key.is_some();
        if asked && keys.is_none() {
            // A key that cannot be kept promises nothing.
            return Err(Reason::AsyncUnavailable);
        }
        if !asked && keys.is_some() && is_verified(&visit.meta.principal()) {
            let key = format!("sync:{}", &visit.hash[..40]);
            visit.key_id = key_id(visit.caller, &key);
            visit.key = Some(key);
        }
        let mut taken = None;
        if let (Some(keys), Some(key)) = (keys, visit.row()) {
            // Should this process die, the key is free again soon.
            match keys.reserve(Key { ttl_ms: IN_PROGRESS_MS, ..key }).await {
                Ok(Submitted::Known(record)) => return visit.known(&record),
                Ok(Submitted::New(_)) => taken = Some((keys, key)),
                Err(error) => {
                    tracing::error!(%error, trace.id = visit.caller.trace_id, "jobs: a key could not be taken");
                    if asked {
                        return Err(Reason::AsyncUnavailable);
                    }
                }
            }
        }
        let ran = self.run.run(visit.policy, visit.caller, &visit.meta.call()).await;
        let failed = ran.infrastructure;
        let result = result(visit.policy, &visit.meta, ran);
        let mut kept = false;
        if let Some((queue, key)) = taken {
            let done =
                if failed { queue.release(key).await } else { queue.keep(key, &ascii(&result.to_string())).await };
            kept = !failed && done.is_ok();
            if let Err(error) = done {
                tracing::error!(%error, trace.id = visit.caller.trace_id, "jobs: an answer could not be kept");
            }
        }
        visit.key = visit.key.filter(|_| kept);
        if kept {
            self.sweep();
        }
        let mut reply = visit.reply(200, "completed", Value::Null, &visit.caller.trace_id, false);
        reply.body["result"] = result;
        Ok(reply)
    }
}

impl Desk {
    /// Has keys forgotten whose time is over. A worker does that for its own driver's, and calls may be answered at
    /// once where none runs.
    fn sweep(&self) {
        let Some((queues, _)) = &self.queues else { return };
        {
            let mut swept = self.swept.lock();
            if swept.is_some_and(|at| at.elapsed() < SWEEP) {
                return;
            }
            *swept = Some(Instant::now());
        }
        let keys = queues.keys().clone();
        tokio::spawn(async move {
            if let Err(error) = keys.sweep().await {
                tracing::warn!(%error, "jobs: old keys could not be forgotten");
            }
        });
    }
}

impl Visit<'_> {
    fn row(&self) -> Option<Key<'_>> {
        self.key.as_ref().map(|_| Key {
            id: &self.key_id,
            payload_hash: &self.hash,
            trace_id: &self.caller.trace_id,
            ttl_ms: u64::from(self.policy.idempotency.ttl_seconds) * 1000,
        })
    }

    fn reply(&self, status: u16, word: &str, task_id: Value, trace_id: &str, reused: bool) -> Reply {
        let body = json!({
            "status": word,
            "task_id": task_id,
            "trace_id": trace_id,
            "idempotency_key": self.key,
            "reused": reused,
        });
        Reply { status, body }
    }

    /// What is answered to a request that came before.
    fn known(&self, record: &Record) -> Result<Reply, Reason> {
        if record.payload_hash != self.hash {
            return Err(Reason::IdempotencyConflict);
        }
        let task_id = Value::from(record.task_id.unwrap_or(0));
        let (status, word) = match record.status {
            Status::Finished => (200, "completed"),
            Status::Failed => (200, "failed"),
            Status::Queued | Status::Preparing | Status::Running => (202, "accepted"),
        };
        let mut reply = self.reply(status, word, task_id, &record.trace_id, true);
        if record.status == Status::Finished {
            let result = record.result.as_deref().unwrap_or("null");
            reply.body["result"] = serde_json::from_str(result).unwrap_or(Value::Null);
        }
        if record.status == Status::Failed {
            reply.body["error"] = record.message.as_deref().map_or("The task failed".into(), error_text);
        }
        Ok(reply)
    }
}

/// What a client sees of a failure. The text is ours, but the row may have been written by others since.
fn error_text(message: &str) -> Value {
    let mut text: String = message.trim().chars().filter(|letter| !letter.is_control()).take(240).collect();
    if text.len() < message.trim().len() {
        text.push_str("...");
    }
    text.into()
}

fn visit<'a>(
    policy: &'a Snapshot,
    caller: &'a Identity,
    body: &[u8],
    header: Option<&str>,
    session_id: &str,
) -> Result<Visit<'a>, Reason> {
    let request = Request::read(body).map_err(|_| Reason::InvalidPayload)?;
    let principal = caller.principal.clone().ok_or(Reason::Unauthenticated)?;
    let header = header.map_or(Ok(None), Request::key).map_err(|_| Reason::InvalidPayload)?;
    // Of callers who are not verified a key would be everybody's.
    let key = header.or(request.key).filter(|_| is_verified(&principal));
    let hash = payload_hash(&caller.server, &request.method, request.params.as_ref(), caller.user_id);
    let key_id = key.as_deref().map(|key| key_id(caller, key)).unwrap_or_default();
    let meta = Meta {
        server_handle: caller.server.clone(),
        jsonrpc_method: request.method,
        jsonrpc_params: request.params.unwrap_or_else(|| json!([])),
        request_id: request.id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string().into()),
        session_id: session_id.to_owned(),
        trace_id: caller.trace_id.clone(),
        idempotency_key: key.clone().unwrap_or_default(),
        actor_user_id: caller.user_id,
        initiated_by_user_id: caller.user_id,
        context: caller.context.clone(),
        attempts: 0,
        max_attempts: policy.queue.max_attempts,
        payload_hash: hash.clone(),
        mcp_sidecar: Some(Own {
            principal,
            identity: caller.identity.clone(),
            key: key_id.clone(),
            policy_digest: policy.digest.clone(),
        }),
    };
    Ok(Visit { policy, caller, key, key_id, hash, meta })
}

/// Whether it is known who this is. Callers who are told apart by address alone may share one, and must not get each
/// other's answers.
fn is_verified(caller: &PrincipalRecord) -> bool {
    caller.restore().is_some_and(|caller| caller.is_named())
}

/// Stands for a caller's key: no two callers share one, whatever their keys hold.
fn key_id(caller: &Identity, key: &str) -> String {
    let mut hash = Sha256::new();
    let digest = caller.principal.as_ref().and_then(|principal| principal.restore()).map(|p| p.digest().0);
    for part in [b"idempotency v1".as_slice(), &digest.unwrap_or_default(), key.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// What is kept of an answer (emcp.md 10.4).
#[must_use]
pub(in crate::jobs) fn result(policy: &Snapshot, meta: &Meta, ran: Ran) -> Value {
    let limits = policy.server(&meta.server_handle).map_or(policy.limits, |server| server.limits);
    let (status, body) = if ran.body.len() > limits.max_result_bytes {
        let reason = Reason::ResultTooLarge;
        (reason.status(), transport_error(reason.code(), reason.message(), &meta.trace_id))
    } else {
        (ran.http_status, ran.body)
    };
    let response = serde_json::from_slice::<Value>(&body)
        .ok()
        .filter(Value::is_object)
        .unwrap_or_else(|| json!({"raw": String::from_utf8_lossy(&body)}));
    let session_id = if ran.session_id.is_empty() { meta.session_id.clone() } else { ran.session_id };
    json!({"http_status": status, "session_id": session_id, "trace_id": meta.trace_id, "response": response})
}
