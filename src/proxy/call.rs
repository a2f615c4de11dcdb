//! One MCP call, from the header to the audit line: credential, body, decision, charges, permit, upstream, answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::audit::{Record, Slot};
use crate::auth::{self, Verified};
use crate::base::Principal;
use crate::limits::Verdict;
use crate::policy::{
    AuthMode, Body, Credential, Decision, Denial, Facts, HttpMethod, Permit, ProtocolHeaders, Reason, Rule, Server,
    Snapshot, Wire, decide, may_call_tools,
};
use crate::protocol::{self, Envelope, Id, Identity, MethodClass, Refused};
use crate::proxy::body::{self, ReadBody};
use crate::proxy::gateway::{Gateway, RequestContext};
use crate::proxy::headers;
use crate::proxy::media::media_type;
use crate::proxy::pump::{self, Bounds, End};
use crate::proxy::respond::{self, Marks};
use crate::proxy::upstream::{Answer, push_header};
use crate::telemetry::{UpstreamFailure, event};

/// Request headers that an MCP upstream gets as the client sent them; nothing else passes.
const PASSED: [&str; 4] = ["mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name"];

/// Serves one request on an MCP route.
pub async fn serve(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &RequestContext,
    policy: &Arc<Snapshot>,
    handle: &str,
) {
    let request_headers = session.req_header().headers.clone();
    let call = Call {
        gateway,
        ctx,
        policy,
        handle,
        trace_id: headers::trace_id(&request_headers, &policy.trace),
        request_id: uuid::Uuid::new_v4().to_string(),
        headers: request_headers,
    };
    call.run(session).await;
}

/// The body as far as it came.
enum Input {
    Unread(Reason),
    TooLarge,
    Whole(Bytes),
}

/// What is the same for all stages of a call.
struct Call<'a> {
    gateway: &'a Gateway,
    ctx: &'a RequestContext,
    policy: &'a Arc<Snapshot>,
    handle: &'a str,
    trace_id: String,
    request_id: String,
    headers: HeaderMap,
}

/// What is known about a call when its audit line is written.
#[derive(Default)]
struct Trail {
    method: Option<MethodClass>,
    tool: Option<String>,
    bytes_in: u64,
}

impl Call<'_> {
    async fn run(&self, session: &mut Session) {
        let now_ms = self.gateway.clock.now_ms();
        let malformed = headers::check_mcp(&self.headers, &self.policy.security.allow_origins).err();
        let verified = self.credential(now_ms);
        let principal: Result<&Principal, Reason> = match &verified {
            Ok(who) => Ok(who.principal()),
            Err(reason) => Err(*reason),
        };
        let credential = principal.map_or_else(Credential::Refused, Credential::Principal);
        let post = session.req_header().method == http::Method::POST;
        let known = self.policy.server(self.handle);

        // Nothing is read from a caller whom the header alone refuses.
        let (input, _share) = if malformed.is_some() || principal.is_err() || !post {
            session.set_keepalive(None);
            (Input::Unread(Reason::BadRequest), None)
        } else {
            let limit = known.map_or(self.policy.limits.max_payload_bytes, |server| server.limits.max_payload_bytes);
            match body::read(session, limit, self.gateway.settings.timeouts.body, &self.gateway.budget).await {
                ReadBody::Whole(bytes, share) => (Input::Whole(bytes), Some(share)),
                ReadBody::TooLarge => (Input::TooLarge, None),
                ReadBody::Failed(reason) => (Input::Unread(reason), None),
            }
        };
        let parsed = match &input {
            Input::Whole(bytes) => Some(protocol::parse(bytes)),
            _ => None,
        };
        let decoded = |name: &str| self.headers.get(name).map(|value| headers::decoded(value).unwrap_or_default());
        let (version, method, name) = (decoded("mcp-protocol-version"), decoded("mcp-method"), decoded("mcp-name"));
        let facts = Facts {
            server: self.handle,
            http_method: if post { HttpMethod::Post } else { HttpMethod::Other },
            malformed,
            credential,
            media_type: media_type(&self.headers),
            body: match (&input, &parsed) {
                (Input::Whole(_), Some(Ok(envelope))) => Body::Call(envelope),
                (Input::Whole(_), Some(Err(refused))) => Body::Refused(refused),
                (Input::TooLarge, _) => Body::TooLarge,
                (Input::Unread(reason), _) => Body::Unread(*reason),
                (Input::Whole(_), None) => Body::Unread(Reason::InternalError),
            },
            headers: ProtocolHeaders { version: version.as_deref(), method: method.as_deref(), name: name.as_deref() },
        };
        let decision = decide(self.policy, &facts);
        let trail = Trail::of(&decision, parsed.as_ref(), &input);
        let id = request_id(parsed.as_ref());
        if self.gateway.is_draining() {
            let denial = Denial::new(Reason::Draining, Rule::Builtin("drain"));
            return self.deny(session, denial, &id, principal.ok(), &trail).await;
        }
        let charged = self.charge(&decision, now_ms).await;
        match decision.settle(charged) {
            Err(denial) => {
                if denial.reason == Reason::Unauthenticated {
                    self.gateway.failed_auth.record(self.ctx.client, now_ms);
                }
                self.deny(session, denial, &id, principal.ok(), &trail).await;
            }
            Ok(permit) => {
                let (Ok(principal), Input::Whole(bytes)) = (principal, &input) else {
                    let denial = Denial::new(Reason::InternalError, Rule::Builtin("permit"));
                    return self.deny(session, denial, &id, None, &trail).await;
                };
                let slot = match self.policy.logging.audit_enabled {
                    true => match self.gateway.audit.reserve().await {
                        Ok(slot) => Some(slot),
                        Err(_) => {
                            let denial = Denial::new(Reason::AuditUnavailable, Rule::Builtin("audit"));
                            return self.deny(session, denial, &id, Some(principal), &trail).await;
                        }
                    },
                    false => None,
                };
                self.forward(session, permit, slot, principal, &id, bytes, &trail).await;
            }
        }
    }

    fn credential(&self, now_ms: u64) -> Result<Who, Reason> {
        if self.policy.auth.mode == AuthMode::None {
            return Ok(Who::Anonymous(Principal::anonymous(self.ctx.client)));
        }
        let limit = self.policy.auth.failures_per_minute;
        if limit > 0 && self.gateway.failed_auth.check(self.ctx.client, limit, now_ms).is_err() {
            return Err(Reason::RateLimited);
        }
        let header = self.headers.get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let token = auth::bearer(header)?;
        self.gateway.verifier.verify(self.policy, token, now_ms).map(Who::Bearer)
    }

    async fn charge(&self, decision: &Decision, now_ms: u64) -> Result<(), Denial> {
        if decision.charges.is_empty() {
            return Ok(());
        }
        match self.gateway.limits.reserve(&self.policy.rate_limit, &decision.charges, now_ms).await {
            Verdict::Admitted => Ok(()),
            Verdict::Refused { retry_after_s, .. } => {
                let mut denial = Denial::new(Reason::RateLimited, Rule::Builtin("rate_limit"));
                denial.retry_after_s = Some(retry_after_s.max(1));
                Err(denial)
            }
            Verdict::Unavailable => Err(Denial::new(Reason::LimitsUnavailable, Rule::Builtin("rate_limit"))),
        }
    }

    fn marks(&self) -> Marks<'_> {
        Marks { trace_header: &self.policy.trace.header, trace_id: &self.trace_id, request_id: &self.request_id }
    }

    async fn deny(
        &self,
        session: &mut Session,
        mut denial: Denial,
        id: &Id<'_>,
        principal: Option<&Principal>,
        trail: &Trail,
    ) {
        if denial.reason == Reason::RateLimited && denial.retry_after_s.is_none() {
            denial.retry_after_s = Some(60);
        }
        let notification = matches!(denial.reason.wire(), Wire::Rpc { .. }) && *id == Id::Null;
        let id = if notification { &Id::Absent } else { id };
        let (status, bytes_out) = respond::deny(session, &denial, id, self.marks()).await;
        let code = denial.reason.code();
        self.count(trail, false, code);
        let mut record = self.record(principal, trail, status, bytes_out);
        record.decision = "deny";
        record.deny_code = Some(code);
        record.rule = denial.rule.to_string();
        if !self.policy.logging.audit_enabled {
            // Switched off by the policy.
        } else if principal.is_none() {
            self.gateway.audit.deny(record);
        } else if let Some(slot) = self.gateway.audit.try_reserve() {
            let _ = slot.write(record).await;
        } else {
            self.gateway.audit.deny(record);
        }
        let own = micros(self.ctx.started.elapsed());
        self.gateway.metrics.request_seconds(own, 0, own);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one permitted call, each used once")]
    async fn forward(
        &self,
        session: &mut Session,
        permit: Permit,
        slot: Option<Slot>,
        principal: &Principal,
        id: &Id<'_>,
        body: &Bytes,
        trail: &Trail,
    ) {
        let server = Arc::clone(permit.server());
        let mut ledger = Ledger { call: self, open: true, slot, principal, trail, rule: permit.rule().to_string() };
        let Some(target) = self.gateway.targets.get(&server.upstream) else {
            return self
                .fail(session, ledger, Reason::UpstreamFailed, UpstreamFailure::Connect, id, Instant::now())
                .await;
        };
        let mut head = target.head(&server.handle, body.len());
        push_header(&mut head, "X-Trace-Id", self.trace_id.as_bytes());
        push_header(&mut head, "X-Request-Id", self.request_id.as_bytes());
        for name in PASSED {
            if let Some(value) = self.headers.get(name) {
                push_header(&mut head, name, value.as_bytes());
            }
        }
        if target.upstream().identity {
            let identity = self.identity(&server, principal);
            let now_s = self.gateway.clock.now_ms() / 1000;
            let (identity, signature) = protocol::sign_identity(&identity, body, target.upstream().key.as_ref(), now_s);
            push_header(&mut head, protocol::IDENTITY_HEADER, identity.as_bytes());
            if let Some(signature) = signature {
                push_header(&mut head, protocol::SIGNATURE_HEADER, signature.as_bytes());
            }
        }
        let sent = Instant::now();
        let timeouts = &self.gateway.settings.timeouts;
        let answer = match target.exchange(&self.gateway.connector, head, body, timeouts).await {
            Ok(answer) => answer,
            Err(failure) => {
                let reason =
                    if failure == UpstreamFailure::Timeout { Reason::UpstreamTimeout } else { Reason::UpstreamFailed };
                return self.fail(session, ledger, reason, failure, id, sent).await;
            }
        };
        if is_event_stream(answer.header()) {
            if !server.stream.enabled {
                return self.fail(session, ledger, Reason::StreamingDisabled, UpstreamFailure::Garbage, id, sent).await;
            }
            return self.stream(session, answer, ledger, &server, principal, id, sent).await;
        }
        match self.whole(answer, &server).await {
            Ok((mut header, bytes)) => {
                respond::mark(&mut header, self.marks());
                let upstream = sent.elapsed();
                let status = header.status.as_u16();
                let length = bytes.len() as u64;
                // With `durability = "written"` the answer ends after its audit line was written.
                ledger.close(status, length, None).await;
                respond::write(session, header, bytes).await;
                self.time(upstream);
            }
            Err(UpstreamFailure::TooLarge) => {
                self.fail(session, ledger, Reason::ResultTooLarge, UpstreamFailure::TooLarge, id, sent).await;
            }
            Err(failure) => {
                let reason =
                    if failure == UpstreamFailure::Timeout { Reason::UpstreamTimeout } else { Reason::UpstreamFailed };
                self.fail(session, ledger, reason, failure, id, sent).await;
            }
        }
    }

    /// A plain answer: read whole, capped, its header reduced to what may pass.
    async fn whole(&self, mut answer: Answer<'_>, server: &Server) -> Result<(ResponseHeader, Bytes), UpstreamFailure> {
        let status = answer.header().status.as_u16();
        let passes = matches!(status, 200 | 202 | 400 | 404);
        if !passes {
            return Err(UpstreamFailure::Garbage);
        }
        let limit = self.gateway.settings.timeouts.response_header;
        let bytes = answer.collect(server.limits.max_result_bytes, limit).await?;
        if !bytes.is_empty() && !is_json(answer.header()) {
            return Err(UpstreamFailure::Garbage);
        }
        let mut header = answer_header(answer.header(), status).ok_or(UpstreamFailure::Garbage)?;
        respond::insert(&mut header, "Content-Length", itoa::Buffer::new().format(bytes.len()));
        answer.finish().await;
        Ok((header, bytes))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one streamed call, each used once")]
    async fn stream(
        &self,
        session: &mut Session,
        answer: Answer<'_>,
        mut ledger: Ledger<'_, '_>,
        server: &Server,
        principal: &Principal,
        id: &Id<'_>,
        sent: Instant,
    ) {
        let Some(mut header) = answer_header(answer.header(), 200) else {
            return self.fail(session, ledger, Reason::UpstreamFailed, UpstreamFailure::Garbage, id, sent).await;
        };
        respond::insert(&mut header, "Content-Type", "text/event-stream");
        respond::insert(&mut header, "Cache-Control", "no-cache, no-transform");
        respond::insert(&mut header, "X-Accel-Buffering", "no");
        respond::insert(&mut header, "X-eMCP-Stream-Max-Seconds", &server.stream.max_stream_seconds.to_string());
        respond::insert(&mut header, "X-eMCP-Heartbeat-Seconds", &server.stream.heartbeat_seconds.to_string());
        respond::insert(&mut header, "Transfer-Encoding", "chunked");
        respond::mark(&mut header, self.marks());
        let metrics = &self.gateway.metrics;
        metrics.stream_opened();
        let opened = Instant::now();
        let token_end = principal.expires_at_s().map(|end_s| {
            let left_ms = (end_s * 1000).saturating_sub(self.gateway.clock.now_ms());
            tokio::time::Instant::now() + Duration::from_millis(left_ms)
        });
        let stall = self.gateway.settings.timeouts.write_stall;
        let summary = if session.write_response_header(Box::new(header), false).await.is_ok() {
            let bounds = Bounds::of(server, token_end, stall, id, self.gateway.streams_end.clone());
            pump::pump(session, answer, bounds).await
        } else {
            pump::Summary { end: End::ClientGone, bytes: 0, heartbeats: 0 }
        };
        for _ in 0..summary.heartbeats {
            metrics.heartbeat();
        }
        metrics.stream_closed(summary.end.label(), micros(opened.elapsed()));
        if let End::Upstream(failure) = summary.end {
            event::upstream_failed(metrics, &server.handle, failure, &self.request_id, "stream broke off");
        }
        ledger.close(200, summary.bytes, summary.end.detail()).await;
    }

    /// Answers for an upstream that failed; the call was permitted, so its audit line says `allow` and how it ended.
    async fn fail(
        &self,
        session: &mut Session,
        mut ledger: Ledger<'_, '_>,
        reason: Reason,
        failure: UpstreamFailure,
        id: &Id<'_>,
        sent: Instant,
    ) {
        let upstream = sent.elapsed();
        if !matches!(reason, Reason::ResultTooLarge | Reason::StreamingDisabled) {
            event::upstream_failed(&self.gateway.metrics, self.handle, failure, &self.request_id, reason.code());
        }
        let denial = Denial::new(reason, Rule::Builtin("upstream"));
        let detail = match reason {
            Reason::ResultTooLarge | Reason::StreamingDisabled => reason.code(),
            _ => failure.as_str(),
        };
        ledger.close(reason.status(), 0, Some(detail)).await;
        respond::deny(session, &denial, id, self.marks()).await;
        self.time(upstream);
    }

    fn identity(&self, server: &Server, principal: &Principal) -> Identity {
        Identity {
            context: principal.context().as_str().to_owned(),
            identity: principal.identity().to_owned(),
            user_id: principal.user_id(),
            server: server.handle.to_string(),
            trace_id: self.trace_id.clone(),
            request_id: self.request_id.clone(),
            policy_revision: self.policy.revision,
            streaming: server.stream.enabled,
            may_call_tools: self.policy.security.hide_denied_tools && may_call_tools(self.policy, server, principal),
        }
    }

    fn count(&self, trail: &Trail, allowed: bool, code: &'static str) {
        let method = trail.method.unwrap_or(MethodClass::Unknown);
        self.gateway.metrics.decision(self.handle, method, allowed, code);
    }

    fn time(&self, upstream: Duration) {
        let total = micros(self.ctx.started.elapsed());
        let upstream = micros(upstream);
        self.gateway.metrics.request_seconds(total, upstream, total.saturating_sub(upstream));
    }

    fn record(&self, principal: Option<&Principal>, trail: &Trail, status: u16, bytes_out: u64) -> Record {
        let client_request_id = self.headers.get("x-request-id").and_then(|value| value.to_str().ok());
        Record {
            timestamp_ms: self.gateway.clock.now_ms(),
            request_id: self.request_id.clone(),
            client_request_id: client_request_id.map(str::to_owned),
            trace_id: self.trace_id.clone(),
            server_handle: self.handle.to_owned(),
            method: trail.method.unwrap_or(MethodClass::Unknown).as_str().to_owned(),
            status,
            actor_user_id: principal.and_then(Principal::user_id),
            context: principal.map_or("unknown", |principal| principal.context().as_str()),
            duration_ms: u64::try_from(self.ctx.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            task_id: None,
            rate_limit_identity: principal
                .map_or_else(|| format!("ip:{}", self.ctx.client), |principal| principal.identity().to_owned()),
            decision: "allow",
            deny_code: None,
            tool: trail.tool.clone(),
            rule: String::new(),
            policy_revision: self.policy.revision,
            bytes_in: trail.bytes_in,
            bytes_out,
            peer: Some(self.ctx.client),
            outcome: None,
        }
    }
}

/// The audit line of a permitted call: written once, also when the call is dropped half-way.
struct Ledger<'a, 'c> {
    call: &'a Call<'c>,
    open: bool,
    /// `None` when the policy switches the audit off: the call is counted all the same.
    slot: Option<Slot>,
    principal: &'a Principal,
    trail: &'a Trail,
    rule: String,
}

impl Ledger<'_, '_> {
    async fn close(&mut self, status: u16, bytes_out: u64, detail: Option<&'static str>) {
        if let Some((slot, record)) = self.entry(status, bytes_out, detail) {
            let _ = slot.write(record).await;
        }
    }

    fn entry(&mut self, status: u16, bytes_out: u64, detail: Option<&'static str>) -> Option<(Slot, Record)> {
        if !std::mem::take(&mut self.open) {
            return None;
        }
        self.call.count(self.trail, true, "ok");
        let slot = self.slot.take()?;
        let mut record = self.call.record(Some(self.principal), self.trail, status, bytes_out);
        record.rule = std::mem::take(&mut self.rule);
        record.outcome = detail;
        Some((slot, record))
    }
}

impl Drop for Ledger<'_, '_> {
    fn drop(&mut self) {
        if let Some((slot, record)) = self.entry(0, 0, Some("aborted")) {
            drop(slot.write(record));
        }
    }
}

/// Who calls, kept alive for the call.
enum Who {
    Anonymous(Principal),
    Bearer(Arc<Verified>),
}

impl Who {
    fn principal(&self) -> &Principal {
        match self {
            Self::Anonymous(principal) => principal,
            Self::Bearer(verified) => &verified.principal,
        }
    }
}

impl Trail {
    fn of(decision: &Decision, parsed: Option<&Result<Envelope<'_>, Refused<'_>>>, input: &Input) -> Self {
        let tool = match parsed {
            Some(Ok(envelope)) => envelope.name.as_deref().map(str::to_owned),
            _ => None,
        };
        let bytes_in = match input {
            Input::Whole(bytes) => bytes.len() as u64,
            _ => 0,
        };
        Self { method: Some(decision.method), tool, bytes_in }
    }
}

fn request_id<'a>(parsed: Option<&'a Result<Envelope<'_>, Refused<'_>>>) -> Id<'a> {
    match parsed {
        Some(Ok(envelope)) => envelope.id.clone(),
        Some(Err(refused)) => refused.id.clone(),
        None => Id::Absent,
    }
}

/// The header of an answer, reduced to what may pass.
fn answer_header(upstream: &ResponseHeader, status: u16) -> Option<ResponseHeader> {
    let mut header = ResponseHeader::build(status, Some(12)).ok()?;
    for (name, value) in &headers::mcp_response_headers(&upstream.headers) {
        header.insert_header(name.clone(), value.clone()).ok()?;
    }
    Some(header)
}

fn is_event_stream(header: &ResponseHeader) -> bool {
    content_type(header).is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn is_json(header: &ResponseHeader) -> bool {
    content_type(header).is_some_and(|kind| kind.starts_with("application/json"))
}

fn content_type(header: &ResponseHeader) -> Option<String> {
    Some(header.headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?.trim().to_ascii_lowercase())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
