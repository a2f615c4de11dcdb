//! One call that is to be run later: judged and charged as the call itself would be, then handed to the executor,
//! which makes a task of it. Beside [`crate::proxy::call`], whose path it does not lengthen.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::HeaderValue;

use crate::audit::Slot;
use crate::auth;
use crate::base::Principal;
use crate::policy::{
    Body, Credential, Denial, Facts, HttpMethod, Permit, ProtocolHeaders, Reason, Rule, ServerKind, Snapshot, Wire,
    decide,
};
use crate::protocol::{self, Id};
use crate::proxy::asked::{Asked, SESSION_ID};
use crate::proxy::body::{self, ReadBody};
use crate::proxy::call::{Call, Who, failed, refusal};
use crate::proxy::exchange::Exchange;
use crate::proxy::gateway::{Gateway, RequestContext};
use crate::proxy::ledger::{Ledger, Trail};
use crate::proxy::manager;
use crate::proxy::path::Door;
use crate::proxy::respond;
use crate::proxy::upstream::{Uncollected, push_header};
use crate::telemetry::UpstreamFailure;

/// What an answer says beside the result that it carries, in bytes.
const ENVELOPE_BYTES: usize = 4096;

/// Serves one request on a dispatch route.
pub async fn serve(
    gateway: &Gateway,
    exchange: &mut Exchange,
    ctx: &RequestContext,
    policy: &Arc<Snapshot>,
    handle: &str,
    door: Door,
) {
    let asked = Asked::of(exchange, policy);
    // Large, and rare beside the calls that are answered at once.
    Box::pin(run(&Call { gateway, ctx, policy, handle, asked, door }, exchange)).await;
}

async fn run(call: &Call<'_>, exchange: &mut Exchange) {
    let (gateway, policy) = (call.gateway, call.policy);
    let now_ms = gateway.clock.now_ms();
    let (mut malformed, verified) = match call.door {
        Door::Api => {
            let sent = exchange.headers();
            (call.malformed(sent), call.credential(sent.get(http::header::AUTHORIZATION), now_ms))
        }
        Door::Manager => manager::admit(call, exchange, now_ms).await,
    };
    let sent = exchange.headers();
    let mut keys = sent.get_all(&policy.idempotency.header).iter();
    let key = keys.next().cloned();
    if keys.next().is_some() {
        malformed = malformed.or(Some(Reason::BadRequest));
    }
    let principal = verified.as_ref().map(Who::principal);
    let post = exchange.request().method == http::Method::POST;
    let known = policy.server(call.handle);
    let mut body = Err(Reason::BadRequest);
    let mut too_large = false;
    let mut _share = None;
    if malformed.is_none() && principal.is_ok() && post {
        let limit = known.map_or(policy.limits.max_payload_bytes, |server| server.limits.max_payload_bytes);
        match body::read(exchange, limit, gateway.settings.timeouts.body, &gateway.budget).await {
            ReadBody::Whole(bytes, share) => {
                body = Ok(bytes);
                _share = Some(share);
            }
            ReadBody::TooLarge => too_large = true,
            ReadBody::Failed(reason) => body = Err(reason),
        }
    }
    let parsed = body.as_ref().ok().map(|bytes| protocol::parse_submission(bytes));
    let [version, method, name] = ["mcp-protocol-version", "mcp-method", "mcp-name"].map(|name| call.asked.text(name));
    let facts = Facts {
        server: call.handle,
        http_method: if post { HttpMethod::Post } else { HttpMethod::Other },
        dispatch: true,
        malformed,
        credential: principal.map_or_else(auth::Refusal::credential, Credential::Principal),
        media_type: call.asked.media_type,
        body: match (&body, &parsed) {
            _ if too_large => Body::TooLarge,
            (_, Some(Ok(envelope))) => Body::Call(envelope),
            (_, Some(Err(refused))) => Body::Refused(refused),
            (Err(reason), None) => Body::Unread(*reason),
            (Ok(_), None) => Body::Unread(Reason::InternalError),
        },
        headers: ProtocolHeaders { version: version.as_deref(), method: method.as_deref(), name: name.as_deref() },
    };
    let decision = decide(policy, &facts);
    let trail = Trail::of(decision.method, parsed.as_ref(), body.as_ref().map_or(0, |bytes| bytes.len() as u64));
    if gateway.is_draining() {
        let denial = Denial::new(Reason::Draining, Rule::Builtin("drain"));
        return call.deny(exchange, denial, &Id::Absent, principal.ok(), &trail).await;
    }
    let charged = call.charge(&decision.charges, now_ms).await;
    let permit = match decision.settle(charged) {
        Ok(permit) => permit,
        Err(denial) => {
            if denial.reason == Reason::Unauthenticated {
                gateway.failed_auth.record(call.ctx.client, now_ms);
            }
            let denial = as_dispatch(denial, known.is_some());
            return call.deny(exchange, denial, &Id::Absent, principal.ok(), &trail).await;
        }
    };
    let (Ok(who), Ok(bytes)) = (&verified, &body) else {
        let denial = Denial::new(Reason::InternalError, Rule::Builtin("permit"));
        return call.deny(exchange, denial, &Id::Absent, None, &trail).await;
    };
    let slot = match policy.logging.audit_enabled {
        true => match gateway.audit.reserve().await {
            Ok(slot) => Some(slot),
            Err(_) => {
                let denial = Denial::new(Reason::AuditUnavailable, Rule::Builtin("audit"));
                return call.deny(exchange, denial, &Id::Absent, Some(who.principal()), &trail).await;
            }
        },
        false => None,
    };
    submit(call, exchange, permit, slot, who, bytes, key.as_ref(), &trail).await;
}

/// What a dispatch is refused with (emcp.md 1.5): nothing here is a JSON-RPC error, and a server that is not there goes
/// before what is wrong with the call.
fn as_dispatch(mut denial: Denial, known: bool) -> Denial {
    let rpc = matches!(denial.reason.wire(), Wire::Rpc { .. });
    let about_the_call =
        rpc || matches!(denial.reason, Reason::ToolDenied | Reason::PromptDenied | Reason::ResourceDenied);
    if about_the_call && !known {
        denial.reason = Reason::ServerNotFound;
    } else if rpc {
        denial.reason = Reason::InvalidPayload;
    }
    denial
}

#[expect(clippy::too_many_arguments, reason = "the parts of one permitted call, each used once")]
async fn submit(
    call: &Call<'_>,
    exchange: &mut Exchange,
    permit: Permit,
    slot: Option<Slot>,
    who: &Who,
    body: &Bytes,
    key: Option<&HeaderValue>,
    trail: &Trail,
) {
    let (gateway, server) = (call.gateway, Arc::clone(permit.server()));
    let principal: &Principal = who.principal();
    let mut ledger = Ledger::open(call, slot, principal, trail, permit.rule());
    let target = gateway.targets.get(&server.upstream).filter(|target| {
        // Only our executor has a queue, and may know who calls.
        server.kind == ServerKind::Content && target.upstream().identity
    });
    let Some(target) = target else {
        return refuse(call, exchange, ledger, Reason::AsyncUnavailable, Instant::now()).await;
    };
    let mut head = target.head(&format!("{}/dispatch", server.handle), body.len());
    push_header(&mut head, "X-Trace-Id", call.asked.trace_id.as_bytes());
    push_header(&mut head, "X-Request-Id", call.asked.request_id.as_bytes());
    for (name, value) in call.asked.passed.iter().filter(|(name, _)| *name == SESSION_ID) {
        push_header(&mut head, name, value.as_bytes());
    }
    if let Some(key) = key {
        push_header(&mut head, &call.policy.idempotency.header, key.as_bytes());
    }
    let mut identity = call.identity(&server, principal);
    identity.principal = Some(principal.record(who.jti()));
    let now_s = gateway.clock.now_ms() / 1000;
    let (identity, signature) = protocol::sign_identity(&identity, body, target.upstream().key.as_ref(), now_s);
    push_header(&mut head, protocol::IDENTITY_HEADER, identity.as_bytes());
    if let Some(signature) = signature {
        push_header(&mut head, protocol::SIGNATURE_HEADER, signature.as_bytes());
    }
    let sent = Instant::now();
    let timeouts = &gateway.settings.timeouts;
    let mut answer = match target.exchange(&gateway.connector, head, body, timeouts, sent).await {
        Ok(answer) => answer,
        Err(failure) => return call.fail(exchange, ledger, failed(failure), &Id::Absent, sent).await,
    };
    let status = answer.head().status;
    let refused = refused_as(status);
    if !(refused.is_some() || matches!(status, 200 | 202)) || !answer.head().is("application/json") {
        return call.fail(exchange, ledger, failed(UpstreamFailure::Garbage), &Id::Absent, sent).await;
    }
    let mut share = gateway.budget.share();
    let most = server.limits.max_result_bytes + ENVELOPE_BYTES;
    let bytes = match answer.collect(most, timeouts.response_header, &mut share).await {
        Ok(bytes) => bytes,
        Err(Uncollected::Exhausted) => {
            let exhausted = (Reason::Overloaded, UpstreamFailure::TooLarge);
            return call.fail(exchange, ledger, exhausted, &Id::Absent, sent).await;
        }
        Err(Uncollected::Failure(failure)) => {
            return call.fail(exchange, ledger, failed(failure), &Id::Absent, sent).await;
        }
    };
    answer.finish();
    if let Some(reason) = refused {
        let reason = if status == 403 { refusal(status, &bytes) } else { reason };
        return refuse(call, exchange, ledger, reason, sent).await;
    }
    let upstream = sent.elapsed();
    ledger.task_id = task_id(&bytes);
    ledger.close(status, bytes.len() as u64, None).await;
    exchange.answer(respond::json(status, call.marks()), &bytes).await;
    call.time(upstream);
}

/// What the executor refused with, in its own look at the submission.
const fn refused_as(status: u16) -> Option<Reason> {
    Some(match status {
        400 => Reason::InvalidPayload,
        403 => Reason::ToolDenied,
        404 => Reason::ServerNotFound,
        409 => Reason::IdempotencyConflict,
        413 => Reason::PayloadTooLarge,
        503 => Reason::AsyncUnavailable,
        _ => return None,
    })
}

async fn refuse(call: &Call<'_>, exchange: &mut Exchange, mut ledger: Ledger<'_, '_>, reason: Reason, sent: Instant) {
    let upstream = sent.elapsed();
    ledger.code = reason.code();
    ledger.close(reason.status(), 0, Some(reason.code())).await;
    respond::deny(exchange, &Denial::new(reason, Rule::Builtin("dispatch")), &Id::Absent, call.marks()).await;
    call.time(upstream);
}

fn task_id(body: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Answer {
        task_id: Option<u64>,
    }
    serde_json::from_slice::<Answer>(body).ok()?.task_id
}
