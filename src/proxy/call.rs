//! One MCP call, from the header to the audit line: credential, body, decision, charges, permit, upstream, answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::audit::Slot;
use crate::auth::{self, Verified};
use crate::base::Principal;
use crate::limits::Verdict;
use crate::policy::{
    AuthMode, Body, Charges, Credential, Denial, Facts, HttpMethod, Permit, ProtocolHeaders, Reason, Rule, Server,
    Snapshot, Wire, decide, may_call_tools,
};
use crate::protocol::{self, Envelope, Id, Identity, Refused};
use crate::proxy::asked::{Asked, SESSION_ID};
use crate::proxy::body::{self, ReadBody};
use crate::proxy::budget::Share;
use crate::proxy::exchange::Exchange;
use crate::proxy::framing::Head;
use crate::proxy::gateway::{Gateway, RequestContext};
use crate::proxy::headers;
use crate::proxy::ledger::{Ledger, Trail};
use crate::proxy::manager;
use crate::proxy::path::{Door, SERVERS};
use crate::proxy::pump::{self, Bounds, End};
use crate::proxy::respond::{self, Marks};
use crate::proxy::response::Response;
use crate::proxy::session;
use crate::proxy::upstream::{Answer, Uncollected, push_header};
use crate::telemetry::{UpstreamFailure, event};

/// Serves one request on an MCP route.
pub async fn serve(
    gateway: &Gateway,
    exchange: &mut Exchange,
    ctx: &RequestContext,
    policy: &Arc<Snapshot>,
    handle: &str,
) {
    let asked = Asked::of(exchange, policy);
    Call { gateway, ctx, policy, handle, asked, door: Door::Api }.run(exchange).await;
}

/// The body as far as it came.
enum Input {
    Unread(Reason),
    TooLarge,
    Whole(Bytes),
}

/// What is the same for all stages of a call.
pub struct Call<'a> {
    pub gateway: &'a Gateway,
    pub ctx: &'a RequestContext,
    pub policy: &'a Arc<Snapshot>,
    /// As the path has it; may be unknown.
    pub handle: &'a str,
    pub asked: Asked,
    pub door: Door,
}

impl Call<'_> {
    pub async fn run(&self, exchange: &mut Exchange) {
        let now_ms = self.ctx.started_ms;
        let (malformed, verified) = match self.door {
            Door::Api => {
                let request_headers = exchange.headers();
                let malformed = self.malformed(request_headers);
                (malformed, self.credential(request_headers.get(AUTHORIZATION), now_ms))
            }
            // Rare and large: boxed, so that it is not a part of every call's future.
            Door::Manager => Box::pin(manager::admit(self, exchange, now_ms)).await,
        };
        let principal = verified.as_ref().map(Who::principal);
        let credential = principal.map_or_else(auth::Refusal::credential, Credential::Principal);
        let post = exchange.request().method == http::Method::POST;
        let known = self.policy.server(self.handle);

        let malformed = malformed.or_else(|| self.session_of_another(known?, principal.ok()?));

        // Nothing is read from a caller whom the header alone refuses.
        let (input, _share) = if malformed.is_some() || principal.is_err() || !post {
            (Input::Unread(Reason::BadRequest), None)
        } else {
            let limit = known.map_or(self.policy.limits.max_payload_bytes, |server| server.limits.max_payload_bytes);
            match body::read(exchange, limit, self.gateway.settings.timeouts.body, &self.gateway.budget).await {
                ReadBody::Whole(bytes, share) => (Input::Whole(bytes), Some(share)),
                ReadBody::TooLarge => (Input::TooLarge, None),
                ReadBody::Failed(reason) => (Input::Unread(reason), None),
            }
        };
        let parsed = match &input {
            Input::Whole(bytes) => Some(protocol::parse(bytes)),
            _ => None,
        };
        let [version, method, name] =
            ["mcp-protocol-version", "mcp-method", "mcp-name"].map(|name| self.asked.text(name));
        let facts = Facts {
            server: self.handle,
            http_method: if post { HttpMethod::Post } else { HttpMethod::Other },
            dispatch: false,
            malformed,
            credential,
            media_type: self.asked.media_type,
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
        let bytes_in = if let Input::Whole(bytes) = &input { bytes.len() as u64 } else { 0 };
        let trail = Trail::of(decision.method, parsed.as_ref(), bytes_in);
        let id = request_id(parsed.as_ref());
        if self.gateway.is_draining() {
            let denial = Denial::new(Reason::Draining, Rule::Builtin("drain"));
            return Box::pin(self.deny(exchange, denial, &id, principal.ok(), &trail)).await;
        }
        let charged = self.charge(&decision.charges, now_ms).await;
        match decision.settle(charged) {
            Err(denial) => {
                if denial.reason == Reason::Unauthenticated {
                    self.gateway.failed_auth.record(self.ctx.client, now_ms);
                }
                Box::pin(self.deny(exchange, denial, &id, principal.ok(), &trail)).await;
            }
            Ok(permit) => {
                let (Ok(principal), Input::Whole(bytes)) = (principal, &input) else {
                    let denial = Denial::new(Reason::InternalError, Rule::Builtin("permit"));
                    return Box::pin(self.deny(exchange, denial, &id, None, &trail)).await;
                };
                let slot = match self.policy.logging.audit_enabled {
                    true => match self.gateway.audit.reserve().await {
                        Ok(slot) => Some(slot),
                        Err(_) => {
                            let denial = Denial::new(Reason::AuditUnavailable, Rule::Builtin("audit"));
                            return Box::pin(self.deny(exchange, denial, &id, Some(principal), &trail)).await;
                        }
                    },
                    false => None,
                };
                self.forward(exchange, permit, slot, principal, &id, bytes, &trail).await;
            }
        }
    }

    /// Whether the caller presents a session that a foreign server gave to somebody else. Our executor keeps none.
    fn session_of_another(&self, server: &Server, caller: &Principal) -> Option<Reason> {
        let bound =
            self.asked.passed.iter().find(|(name, _)| *name == SESSION_ID).map(|(_, value)| value.as_bytes())?;
        let ours = self.gateway.targets.get(&server.upstream).is_some_and(|target| target.upstream().identity);
        let own = ours || session::unbind(&self.policy.auth.secrets, &server.handle, caller, bound).is_some();
        (!own).then_some(Reason::SessionNotFound)
    }

    /// What is wrong with the headers of a request on the API's routes.
    pub(in crate::proxy) fn malformed(&self, sent: &HeaderMap) -> Option<Reason> {
        let hosts = &self.gateway.settings.server_names;
        headers::check_mcp(sent, &self.policy.security.allow_origins, hosts).err()
    }

    pub(in crate::proxy) fn credential(&self, header: Option<&HeaderValue>, now_ms: u64) -> Result<Who, auth::Refusal> {
        if self.policy.auth.mode == AuthMode::None {
            return Ok(Who::Anonymous(Principal::anonymous(self.ctx.client)));
        }
        let limit = self.policy.auth.failures_per_minute;
        if limit > 0 && self.gateway.failed_auth.check(self.ctx.client, limit, now_ms).is_err() {
            return Err(Reason::RateLimited.into());
        }
        let token = auth::bearer(header.map(HeaderValue::as_bytes))?;
        let verified = self.gateway.verifier.verify(self.policy, token, now_ms)?;
        if verified.principal.is_named() {
            return Ok(Who::Bearer(verified));
        }
        let principal = verified.principal.clone().at(self.ctx.client);
        Ok(Who::Nameless(Box::new(principal), verified))
    }

    pub async fn charge(&self, charges: &Charges, now_ms: u64) -> Result<(), Denial> {
        if charges.is_empty() {
            return Ok(());
        }
        match self.gateway.limits.reserve(&self.policy.rate_limit, charges, now_ms).await {
            Verdict::Admitted => Ok(()),
            Verdict::Refused { retry_after_s, .. } => {
                let mut denial = Denial::new(Reason::RateLimited, Rule::Builtin("rate_limit"));
                denial.retry_after_s = Some(retry_after_s.max(1));
                Err(denial)
            }
            Verdict::Unavailable => Err(Denial::new(Reason::LimitsUnavailable, Rule::Builtin("rate_limit"))),
        }
    }

    pub fn marks(&self) -> Marks<'_> {
        Marks {
            trace_header: &self.policy.trace.header,
            trace_id: &self.asked.trace_id,
            request_id: &self.asked.request_id,
            i18n: self.policy.i18n,
            allow: if self.door == Door::Manager && self.handle == SERVERS { "GET" } else { "POST" },
        }
    }

    pub async fn deny(
        &self,
        exchange: &mut Exchange,
        mut denial: Denial,
        id: &Id<'_>,
        principal: Option<&Principal>,
        trail: &Trail,
    ) {
        if denial.reason == Reason::RateLimited && denial.retry_after_s.is_none() {
            // Not a charge's refusal, then, but that of an address whose authentications failed too often.
            let limit = self.policy.auth.failures_per_minute;
            let again = self.gateway.failed_auth.check(self.ctx.client, limit, self.ctx.started_ms);
            denial.retry_after_s = Some(again.err().unwrap_or(1));
        }
        let notification = matches!(denial.reason.wire(), Wire::Rpc { .. }) && *id == Id::Null;
        let id = if notification { &Id::Absent } else { id };
        let code = denial.reason.code();
        // Counted before the caller can know of it.
        if denial.reason == Reason::InternalError {
            event::internal_error(&self.gateway.metrics, &self.asked.request_id, &denial.rule.to_string());
        }
        self.count(trail, false, code);
        let (status, bytes_out) = respond::deny(exchange, &denial, id, self.marks()).await;
        let mut record = self.record(principal, trail, status, bytes_out);
        record.decision = "deny";
        record.deny_code = Some(code);
        record.rule = denial.rule.name();
        // What is charged to nobody can be caused without end.
        let free = principal.is_none()
            || matches!(denial.rule, Rule::Builtin("request"))
            || matches!(denial.reason, Reason::RateLimited | Reason::ScopeDenied | Reason::Forbidden);
        if !self.policy.logging.audit_enabled {
            // Switched off by the policy.
        } else if free {
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
        exchange: &mut Exchange,
        permit: Permit,
        slot: Option<Slot>,
        principal: &Principal,
        id: &Id<'_>,
        body: &Bytes,
        trail: &Trail,
    ) {
        let server = Arc::clone(permit.server());
        let mut ledger = Ledger::open(self, slot, principal, trail, permit.rule());
        let Some(target) = self.gateway.targets.get(&server.upstream) else {
            let failed = (Reason::UpstreamFailed, UpstreamFailure::Connect);
            return Box::pin(self.fail(exchange, ledger, failed, id, Instant::now())).await;
        };
        let mut head = target.head(&server.handle, body.len());
        push_header(&mut head, "X-Trace-Id", self.asked.trace_id.as_bytes());
        push_header(&mut head, "X-Request-Id", self.asked.request_id.as_bytes());
        let ours = target.upstream().identity;
        let secrets = &self.policy.auth.secrets;
        for (name, value) in &self.asked.passed {
            let value = match *name == SESSION_ID && !ours {
                true => session::unbind(secrets, &server.handle, principal, value.as_bytes()).unwrap_or_default(),
                false => value.as_bytes(),
            };
            push_header(&mut head, name, value);
        }
        if ours {
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
        let asking = target.exchange(&self.gateway.connector, head, body, timeouts, sent);
        let Some(exchanged) = while_client_stays(exchange, &server, asking).await else {
            exchange.close();
            return ledger.close(0, 0, End::ClientGone.detail()).await;
        };
        let mut answer = match exchanged {
            Ok(answer) => answer,
            Err(failure) => return Box::pin(self.fail(exchange, ledger, failed(failure), id, sent)).await,
        };
        if answer.head().is("text/event-stream") && answer.head().status == 200 {
            if !server.stream.enabled {
                let failed = (Reason::StreamingDisabled, UpstreamFailure::Garbage);
                return Box::pin(self.fail(exchange, ledger, failed, id, sent)).await;
            }
            let header = self.response(answer.head(), true, &server, (!ours).then_some(principal));
            return Box::pin(self.stream(exchange, answer, header, ledger, &server, principal, id)).await;
        }
        let caller = (!ours).then_some(principal);
        let Some(whole) = while_client_stays(exchange, &server, self.whole(&mut answer, &server, caller)).await else {
            exchange.close();
            return ledger.close(0, 0, End::ClientGone.detail()).await;
        };
        match whole {
            Ok((header, bytes, _share)) => {
                answer.finish();
                let upstream = sent.elapsed();
                // With `durability = "written"` the answer ends after its audit line was written.
                ledger.close(header.status(), bytes.len() as u64, None).await;
                exchange.answer(header, &bytes).await;
                self.time(upstream);
            }
            Err(uncollected) => Box::pin(self.fail(exchange, ledger, uncollected, id, sent)).await,
        }
    }

    /// A plain answer: read whole, capped, its header reduced to what may pass; for this caller of a foreign server, or
    /// of our executor, which judges once more. The share keeps its bytes counted until they are written.
    async fn whole(
        &self,
        answer: &mut Answer,
        server: &Server,
        caller: Option<&Principal>,
    ) -> Result<(Response, Bytes, Share), (Reason, UpstreamFailure)> {
        let refused = caller.is_none() && matches!(answer.head().status, 403 | 413);
        if !refused && !matches!(answer.head().status, 200 | 202 | 400 | 404) {
            return Err(failed(UpstreamFailure::Garbage));
        }
        let limit = self.gateway.settings.timeouts.response_header;
        let mut share = self.gateway.budget.share();
        let collected = answer.collect(server.limits.max_result_bytes, limit, &mut share).await;
        let bytes = collected.map_err(|uncollected| match uncollected {
            Uncollected::Exhausted => (Reason::Overloaded, UpstreamFailure::TooLarge),
            Uncollected::Failure(failure) => failed(failure),
        })?;
        if !bytes.is_empty() && !answer.head().is("application/json") {
            return Err(failed(UpstreamFailure::Garbage));
        }
        if refused {
            return Err((refusal(answer.head().status, &bytes), UpstreamFailure::Garbage));
        }
        Ok((self.response(answer.head(), false, server, caller), bytes, share))
    }

    /// The header of an answer: what may pass of the upstream's, and our marks. A stream has its own of some. A foreign
    /// server's session is given to this caller alone.
    fn response(&self, upstream: &Head, streams: bool, server: &Server, caller: Option<&Principal>) -> Response {
        let mut response = Response::new(upstream.status);
        let mut cached = streams;
        for (name, value) in &upstream.passed {
            if let (Some(caller), SESSION_ID) = (caller, name.as_str()) {
                let secrets = &self.policy.auth.secrets;
                response.set(SESSION_ID, &session::bind(secrets, &server.handle, caller, value.as_bytes()));
            } else if !(streams && (name == CONTENT_TYPE || name == CACHE_CONTROL)) {
                response.set(name.as_str(), value.as_bytes());
                cached |= name == CACHE_CONTROL;
            }
        }
        if !cached {
            response.set("Cache-Control", respond::KEPT_BY_NOBODY);
        }
        respond::mark(&mut response, self.marks());
        response
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one permitted call, each used once")]
    async fn stream(
        &self,
        exchange: &mut Exchange,
        answer: Answer,
        mut response: Response,
        mut ledger: Ledger<'_, '_>,
        server: &Server,
        principal: &Principal,
        id: &Id<'_>,
    ) {
        response.set("Content-Type", b"text/event-stream");
        response.set("Cache-Control", b"no-cache, no-transform");
        response.set("X-Accel-Buffering", b"no");
        response.number("X-eMCP-Stream-Max-Seconds", server.stream.max_stream_seconds.into());
        response.number("X-eMCP-Heartbeat-Seconds", server.stream.heartbeat_seconds.into());
        ledger.lasts();
        let metrics = &self.gateway.metrics;
        metrics.stream_opened();
        let opened = Instant::now();
        let token_end = principal.expires_at_s().map(|end_s| {
            let left_ms = end_s.saturating_mul(1000).saturating_sub(self.gateway.clock.now_ms());
            tokio::time::Instant::now() + Duration::from_millis(left_ms)
        });
        let stall = self.gateway.settings.timeouts.write_stall;
        let summary = if exchange.begin(response).await.is_ok() {
            let share = self.gateway.budget.share();
            let ended = self.gateway.streams_end.clone();
            let bounds = Bounds::of(server, token_end, stall, share, id, ended, metrics);
            pump::pump(exchange, answer, bounds).await
        } else {
            pump::Summary { end: End::ClientGone, bytes: 0 }
        };
        metrics.stream_closed(summary.end.label(), micros(opened.elapsed()));
        if let End::Upstream(failure) = summary.end {
            event::upstream_failed(metrics, &server.handle, failure, &self.asked.request_id, "stream broke off");
        }
        ledger.close(200, summary.bytes, summary.end.detail()).await;
    }

    /// Answers for an upstream that failed; the call was permitted, so its audit line says `allow` and how it ended.
    pub(in crate::proxy) async fn fail(
        &self,
        exchange: &mut Exchange,
        mut ledger: Ledger<'_, '_>,
        (reason, failure): (Reason, UpstreamFailure),
        id: &Id<'_>,
        sent: Instant,
    ) {
        let upstream = sent.elapsed();
        let ours = !matches!(reason, Reason::UpstreamFailed | Reason::UpstreamTimeout);
        if !ours {
            event::upstream_failed(&self.gateway.metrics, self.handle, failure, &self.asked.request_id, reason.code());
        }
        let denial = Denial::new(reason, Rule::Builtin("upstream"));
        let detail = if ours { reason.code() } else { failure.as_str() };
        ledger.code = reason.code();
        ledger.close(reason.status(), 0, Some(detail)).await;
        respond::deny(exchange, &denial, id, self.marks()).await;
        self.time(upstream);
    }

    pub(in crate::proxy) fn identity(&self, server: &Server, principal: &Principal) -> Identity {
        Identity {
            context: principal.context().as_str().to_owned(),
            identity: principal.identity().to_string(),
            user_id: self.policy.actor_of(principal),
            server: server.handle.to_string(),
            trace_id: self.asked.trace_id.to_string(),
            request_id: self.asked.request_id.to_string(),
            policy_revision: self.policy.revision,
            policy_digest: self.policy.digest.clone(),
            streaming: server.stream.enabled,
            may_call_tools: self.policy.security.hide_denied_tools && may_call_tools(self.policy, server, principal),
            principal: None,
        }
    }

    pub(in crate::proxy) fn time(&self, upstream: Duration) {
        let total = micros(self.ctx.started.elapsed());
        let upstream = micros(upstream);
        self.gateway.metrics.request_seconds(total, upstream, total.saturating_sub(upstream));
    }
}

/// What the upstream comes to; `None` when the client leaves first, which ends the upstream's work unless the policy
/// wants it finished.
async fn while_client_stays<T>(exchange: &Exchange, server: &Server, work: impl Future<Output = T>) -> Option<T> {
    if !server.stream.abort_on_disconnect {
        return Some(work.await);
    }
    tokio::select! {
        biased;
        done = work => Some(done),
        () = exchange.connection().left() => None,
    }
}

/// Who calls, kept alive for the call.
pub enum Who {
    Anonymous(Principal),
    Manager(Principal),
    Bearer(Arc<Verified>),
    /// A token that says nothing of who calls, and the caller by address.
    Nameless(Box<Principal>, Arc<Verified>),
}

impl Who {
    pub fn principal(&self) -> &Principal {
        match self {
            Self::Anonymous(principal) | Self::Manager(principal) => principal,
            Self::Bearer(verified) => &verified.principal,
            Self::Nameless(principal, _) => principal,
        }
    }

    /// The token's `jti`.
    pub(in crate::proxy) fn jti(&self) -> Option<&str> {
        match self {
            Self::Anonymous(_) | Self::Manager(_) => None,
            Self::Bearer(verified) | Self::Nameless(_, verified) => verified.jti.as_deref(),
        }
    }
}

fn request_id<'a>(parsed: Option<&'a Result<Envelope<'_>, Refused<'_>>>) -> Id<'a> {
    match parsed {
        Some(Ok(envelope)) => envelope.id.clone(),
        Some(Err(refused)) => refused.id.clone(),
        None => Id::Absent,
    }
}

/// What our executor refused with, in its own look at a call: it may have another policy than this one for a moment.
pub(in crate::proxy) fn refusal(status: u16, body: &[u8]) -> Reason {
    #[derive(serde::Deserialize)]
    struct Answer {
        error: Told,
    }
    #[derive(serde::Deserialize)]
    struct Told {
        code: String,
    }
    if status == 413 {
        return Reason::PayloadTooLarge;
    }
    let code = serde_json::from_slice::<Answer>(body).map(|answer| answer.error.code).unwrap_or_default();
    [Reason::Forbidden, Reason::ScopeDenied, Reason::ServerDenied, Reason::PromptDenied, Reason::ResourceDenied]
        .into_iter()
        .find(|reason| reason.code() == code)
        .unwrap_or(Reason::ToolDenied)
}

/// What the caller is told of an upstream's failure.
pub(in crate::proxy) const fn failed(failure: UpstreamFailure) -> (Reason, UpstreamFailure) {
    let reason = match failure {
        UpstreamFailure::TooLarge => Reason::ResultTooLarge,
        UpstreamFailure::Timeout => Reason::UpstreamTimeout,
        _ => Reason::UpstreamFailed,
    };
    (reason, failure)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
