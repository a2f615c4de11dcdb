//! Calls that are to be run later: handed to whoever takes them, and run when they are handed back.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{Request, StatusCode};

use crate::executor::Executor;
use crate::executor::http::{SESSION_HEADER, json, refused};
use crate::executor::observation::Observation;
use crate::executor::rpc::{Answer, Desk};
use crate::policy::{Reason, ServerKind, Snapshot};
use crate::protocol::{Identity, transport_error};
use crate::telemetry::ExecutorOutcome;

/// A call that is to be run later.
pub struct Submission {
    pub caller: Identity,
    pub body: Bytes,
    /// The header that `idempotency.header` names.
    pub key: Option<String>,
    /// `MCP-Session-Id`, or empty.
    pub session_id: String,
}

/// Takes calls that are to be run later.
#[async_trait]
pub trait Dispatch: Send + Sync {
    /// The answer's status and JSON.
    ///
    /// # Errors
    /// Why the call was not taken.
    async fn dispatch(&self, policy: Arc<Snapshot>, submission: Submission) -> Result<(u16, Vec<u8>), Reason>;
}

/// What a call came to.
pub struct Called {
    /// As the call's own endpoint would have answered.
    pub status: u16,
    pub body: Vec<u8>,
    /// Set by `initialize` alone.
    pub session_id: String,
    /// The database or we failed: the same call may succeed later.
    pub failed: bool,
}

/// One submission.
pub(in crate::executor) async fn take(
    State(executor): State<Arc<Executor>>,
    Path(handle): Path<String>,
    request: Request<Body>,
) -> Response {
    let policy = executor.policy().load_full();
    let (head, body) = request.into_parts();
    let server = policy.server(&handle).filter(|server| server.kind == ServerKind::Content);
    let most = server.map_or(policy.limits.max_payload_bytes, |server| server.limits.max_payload_bytes);
    let Ok(body) = axum::body::to_bytes(body, most).await else { return refused(Reason::PayloadTooLarge, "") };
    let caller = match executor.identity(&head.headers, &body) {
        Some(identity) if identity.server == handle => identity,
        _ => return refused(Reason::Unauthenticated, ""),
    };
    if caller.policy_digest != policy.digest {
        executor.metrics.policy_mismatch();
    }
    let trace_id = caller.trace_id.clone();
    if server.is_none() {
        return refused(Reason::ServerNotFound, &trace_id);
    }
    let Some(desk) = executor.desk.get() else { return refused(Reason::AsyncUnavailable, &trace_id) };
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().map(str::to_owned));
    let (Ok(key), Ok(session_id)) =
        (text(&policy.idempotency.header).transpose(), text(SESSION_HEADER.as_str()).transpose())
    else {
        return refused(Reason::InvalidPayload, &trace_id);
    };
    let submission = Submission { caller, body, key, session_id: session_id.unwrap_or_default() };
    match desk.dispatch(policy, submission).await {
        Ok((status, body)) => match StatusCode::from_u16(status) {
            Ok(status) => json(status, body),
            Err(_) => refused(Reason::InternalError, &trace_id),
        },
        Err(reason) => refused(reason, &trace_id),
    }
}

impl Executor {
    /// Runs one call for a caller whom the proxy vouched for when it was taken. Answers in JSON, never in a stream.
    pub async fn run(&self, policy: &Snapshot, caller: &Identity, body: &[u8]) -> Called {
        let of = |reason: Reason| Called {
            status: reason.status(),
            body: transport_error(reason.code(), reason.message(), &caller.trace_id),
            session_id: String::new(),
            failed: false,
        };
        let server = policy.server(&caller.server).filter(|server| server.kind == ServerKind::Content);
        let Some(server) = server else { return of(Reason::ServerNotFound) };
        let mut observation = Observation::begin(&self.metrics);
        let caller = Identity { streaming: false, ..caller.clone() };
        let answer = Desk { executor: self, policy, server, caller: &caller }.answer(body, &mut observation).await;
        let failed = observation.outcome == ExecutorOutcome::Failed;
        let called = |status, body, session_id| Called { status, body, session_id, failed };
        match answer {
            Answer::Nothing => called(202, Vec::new(), String::new()),
            Answer::Json(body) => called(200, body, String::new()),
            Answer::Session(body) => called(200, body, uuid::Uuid::new_v4().to_string()),
            Answer::Denied(reason) => of(reason),
            // Streams are asked for by `streaming` alone.
            Answer::Stream(_) => of(Reason::InternalError),
        }
    }
}
