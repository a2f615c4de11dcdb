//! The token endpoint: a name and a password of the CMS become a bearer token (emcp.md 2.5).
//!
//! The executor knows the users and compares the password; this end counts attempts, signs, and writes the audit line.
//! Neither name nor password is written anywhere. Every refusal of a credential looks the same and takes as long,
//! unless `compat.token_errors` asks for sApi's codes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use crate::audit::Record;
use crate::auth::{MintClaims, mint};
use crate::base::{Digest, client_network};
use crate::limits::Verdict;
use crate::policy::{Charge, RateKey, Reason, Snapshot, TokenPolicy, Window};
use crate::protocol::{
    self, CREDENTIALS_CONTEXT, CREDENTIALS_PATH, Credentials, CredentialsVerdict, Identity, MethodClass,
};
use crate::proxy::asked::Asked;
use crate::proxy::body::{self, ReadBody};
use crate::proxy::exchange::Exchange;
use crate::proxy::form::{self, Form};
use crate::proxy::gateway::{Gateway, RequestContext};
use crate::proxy::headers;
use crate::proxy::respond::{self, Marks};
use crate::proxy::upstream::{Target, push_header};
use crate::telemetry::{UpstreamFailure, event};

/// What requests to this endpoint are counted and recorded under; no server can have this handle.
const HANDLE: &str = "token";
/// Longest body, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// Longest name, in bytes.
const MAX_NAME: usize = 255;
/// Longest answer of the executor, in bytes.
const MAX_ANSWER: usize = 4 * 1024;
const MINUTE: Window = Window::FromFirstHit { seconds: 60 };

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// As every other route refuses.
    Reason(Reason, Option<u32>),
    /// The credential is refused; the words of the enum are sApi's reasons.
    NameMissing,
    UnknownUser,
    WrongPassword,
    NotPermitted,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason, reason.default_retry_after_s())
    }
}

impl Refused {
    /// The reason by which it is counted and recorded.
    const fn reason(self) -> Reason {
        match self {
            Self::Reason(reason, _) => reason,
            _ => Reason::Unauthenticated,
        }
    }

    /// Status and message where sApi's codes are wanted.
    const fn compat(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Reason(..) => None,
            Self::NameMissing => Some((422, "The username is missing")),
            Self::UnknownUser => Some((404, "User not found")),
            Self::WrongPassword => Some((401, "Invalid credentials")),
            Self::NotPermitted => Some((403, "Forbidden")),
        }
    }
}

/// A token, and whose.
struct Issued {
    token: String,
    user_id: u64,
}

/// Serves one request on the token route.
pub async fn serve(gateway: &Gateway, exchange: &mut Exchange, ctx: &RequestContext, policy: &Arc<Snapshot>) {
    let asked = Asked::of(exchange, policy);
    let mut call = Call { gateway, policy, client: ctx.client, asked, bytes_in: 0, upstream: Duration::ZERO };
    let outcome = Box::pin(call.run(exchange)).await;
    call.answer(exchange, ctx.started, outcome).await;
}

struct Call<'a> {
    gateway: &'a Gateway,
    policy: &'a Arc<Snapshot>,
    client: std::net::IpAddr,
    asked: Asked,
    bytes_in: u64,
    upstream: Duration,
}

impl Call<'_> {
    async fn run(&mut self, exchange: &mut Exchange) -> Result<Issued, Refused> {
        let policy = Arc::clone(self.policy);
        let rules = &policy.auth.token;
        let now_ms = self.gateway.clock.now_ms();
        if self.gateway.is_draining() {
            return Err(Reason::Draining.into());
        }
        let hosts = &self.gateway.settings.server_names;
        headers::check_mcp(exchange.headers(), &policy.security.allow_origins, hosts)?;
        if exchange.request().method != http::Method::POST {
            return Err(Reason::MethodNotAllowed.into());
        }
        self.gateway
            .failed_auth
            .check(self.client, policy.auth.failures_per_minute, now_ms)
            .map_err(|seconds| Refused::Reason(Reason::RateLimited, Some(seconds)))?;
        let network = client_network(self.client).to_string();
        self.charge(&[b"token-address", network.as_bytes()], rules.address_per_minute, now_ms).await?;
        let form = form::kind(exchange.headers()).ok_or(Reason::UnsupportedMediaType)?;
        let timeout = self.gateway.settings.timeouts.body;
        let (body, _share) = match body::read(exchange, MAX_BODY, timeout, &self.gateway.budget).await {
            ReadBody::Whole(bytes, share) => (bytes, share),
            ReadBody::TooLarge => return Err(Reason::PayloadTooLarge.into()),
            ReadBody::Failed(reason) => return Err(reason.into()),
        };
        self.bytes_in = body.len() as u64;
        let Form { username, password } = form::read(form, &body).ok_or(Refused::NameMissing)?;
        let username = username.filter(|name| !name.trim().is_empty()).ok_or(Refused::NameMissing)?;
        if username.len() > MAX_NAME || username.chars().any(char::is_control) {
            return Err(Refused::UnknownUser);
        }
        self.charge(&[b"token-account", username.as_bytes()], rules.account_per_minute, now_ms).await?;
        let Some(secret) = policy.auth.secrets.first() else {
            event::internal_error(
                &self.gateway.metrics,
                &self.asked.request_id,
                "auth: there is no secret to sign with",
            );
            return Err(Reason::InternalError.into());
        };
        let verdict = self.ask(rules, &username, password.unwrap_or_default()).await?;
        let user_id = match verdict {
            CredentialsVerdict::Granted { .. } if denied(&policy, &username) => return Err(Refused::NotPermitted),
            CredentialsVerdict::Granted { user_id } => user_id,
            CredentialsVerdict::UnknownUser => return Err(Refused::UnknownUser),
            CredentialsVerdict::WrongPassword => return Err(Refused::WrongPassword),
            CredentialsVerdict::NotPermitted => return Err(Refused::NotPermitted),
        };
        let claims = MintClaims {
            sub: username,
            scopes: rules.scopes.clone(),
            user_id: Some(user_id),
            issuer: policy.auth.issuer.clone(),
            audience: policy.auth.audience.clone(),
            issued_at_s: self.gateway.clock.now_ms() / 1000,
            ttl_s: rules.ttl_s.into(),
            jti: Some(headers::new_id().to_string()),
        };
        Ok(Issued { token: mint(secret, &claims), user_id })
    }

    /// Takes one unit; each of the two limits is a principal of its own.
    async fn charge(&self, who: &[&[u8]], limit: u32, now_ms: u64) -> Result<(), Refused> {
        if limit == 0 {
            return Ok(());
        }
        let key = RateKey { principal: Digest::of(who), server: Arc::from(HANDLE), method: None };
        let charges = [Charge { key, limit, window: MINUTE }];
        match self.gateway.limits.reserve_for_strangers(&self.policy.rate_limit, &charges, now_ms).await {
            Verdict::Admitted => Ok(()),
            Verdict::Refused { retry_after_s, .. } => {
                Err(Refused::Reason(Reason::RateLimited, Some(retry_after_s.max(1))))
            }
            Verdict::Unavailable => Err(Reason::LimitsUnavailable.into()),
        }
    }

    /// Asks the executor.
    async fn ask(
        &mut self,
        rules: &TokenPolicy,
        username: &str,
        password: String,
    ) -> Result<CredentialsVerdict, Refused> {
        let target = self.gateway.targets.get(&rules.upstream).filter(|target| target.may_carry_passwords());
        let Some(target) = target else {
            let why = "auth.token.upstream is not our executor over a unix socket, TLS or loopback";
            event::internal_error(&self.gateway.metrics, &self.asked.request_id, why);
            return Err(Reason::InternalError.into());
        };
        let sent = Instant::now();
        let answer = self.exchange(target, username, password).await;
        self.upstream = sent.elapsed();
        answer.map_err(|(reason, failure)| {
            if let Some(failure) = failure {
                let request_id = &self.asked.request_id;
                event::upstream_failed(&self.gateway.metrics, HANDLE, failure, request_id, reason.code());
            }
            reason.into()
        })
    }

    async fn exchange(
        &self,
        target: &Target,
        username: &str,
        password: String,
    ) -> Result<CredentialsVerdict, (Reason, Option<UpstreamFailure>)> {
        let broken = |failure| {
            let timeout = matches!(failure, UpstreamFailure::Timeout);
            (if timeout { Reason::UpstreamTimeout } else { Reason::UpstreamFailed }, Some(failure))
        };
        let question = Credentials { username: username.to_owned(), password };
        let body = Bytes::from(serde_json::to_vec(&question).expect("two strings serialise"));
        let mut head = target.head_of(CREDENTIALS_PATH, body.len());
        let identity = Identity {
            context: CREDENTIALS_CONTEXT.to_owned(),
            identity: format!("ip:{}", self.client),
            trace_id: self.asked.trace_id.to_string(),
            request_id: self.asked.request_id.to_string(),
            policy_revision: self.policy.revision,
            policy_digest: self.policy.digest.clone(),
            ..Identity::default()
        };
        let now_s = self.gateway.clock.now_ms() / 1000;
        let (identity, signature) = protocol::sign_identity(&identity, &body, target.upstream().key.as_ref(), now_s);
        push_header(&mut head, protocol::IDENTITY_HEADER, identity.as_bytes());
        if let Some(signature) = signature {
            push_header(&mut head, protocol::SIGNATURE_HEADER, signature.as_bytes());
        }
        let timeouts = &self.gateway.settings.timeouts;
        let mut answer =
            target.exchange(&self.gateway.connector, head, &body, timeouts, Instant::now()).await.map_err(broken)?;
        let status = answer.head().status;
        let mut share = self.gateway.budget.share();
        let limit = timeouts.response_header;
        let collected = answer.collect(MAX_ANSWER, limit, &mut share).await;
        let bytes = collected.map_err(|_| broken(UpstreamFailure::Garbage))?;
        answer.finish();
        match status {
            200 => serde_json::from_slice(&bytes).map_err(|_| broken(UpstreamFailure::Garbage)),
            503 => Err((Reason::Overloaded, None)),
            _ => Err(broken(UpstreamFailure::Garbage)),
        }
    }

    /// Counts, writes the audit line, and answers in sApi's four keys.
    async fn answer(&self, exchange: &mut Exchange, started: Instant, outcome: Result<Issued, Refused>) {
        let metrics = &self.gateway.metrics;
        let mut outcome = outcome;
        let mut slot = None;
        if outcome.is_ok() && self.policy.logging.audit_enabled {
            match self.gateway.audit.reserve().await {
                Ok(reserved) => slot = Some(reserved),
                Err(_) => outcome = Err(Reason::AuditUnavailable.into()),
            }
        }
        let (status, body) = match &outcome {
            Ok(issued) => {
                let body = json!({"success": true, "message": "", "object": {"token": issued.token}, "code": 200});
                (200, body)
            }
            Err(refused) => {
                let reason = refused.reason();
                let compat = refused.compat().filter(|_| self.policy.compat.token_errors);
                let localised = reason.message_in(respond::locale(exchange, self.policy.i18n));
                let (status, message) = compat.unwrap_or((reason.status(), localised));
                (status, json!({"success": false, "message": message, "object": {}, "code": status}))
            }
        };
        let body = Bytes::from(body.to_string());
        let mut record = self.record(status, body.len() as u64, started);
        match &outcome {
            Ok(issued) => {
                metrics.decision(HANDLE, MethodClass::Unknown, true, "ok");
                record.actor_user_id = Some(issued.user_id);
                record.context = "api";
                record.rate_limit_identity = format!("api:{}", issued.user_id).into();
                if let Some(slot) = slot {
                    let _ = slot.write(record).await;
                }
            }
            Err(refused) => {
                let reason = refused.reason();
                if reason == Reason::Unauthenticated {
                    self.gateway.failed_auth.record(self.client, self.gateway.clock.now_ms());
                }
                metrics.decision(HANDLE, MethodClass::Unknown, false, reason.code());
                record.decision = "deny";
                record.deny_code = Some(reason.code());
                if self.policy.logging.audit_enabled {
                    self.gateway.audit.deny(record);
                }
            }
        }
        self.write(exchange, status, body, outcome.err()).await;
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let total = started.elapsed();
        metrics.request_seconds(micros(total), micros(self.upstream), micros(total.saturating_sub(self.upstream)));
    }

    async fn write(&self, exchange: &mut Exchange, status: u16, body: Bytes, refused: Option<Refused>) {
        let marks = Marks {
            trace_header: &self.policy.trace.header,
            trace_id: &self.asked.trace_id,
            request_id: &self.asked.request_id,
            i18n: self.policy.i18n,
            allow: "POST",
        };
        let mut response = respond::json_cached(status, marks, b"no-store");
        if let Some(Refused::Reason(reason, retry_after_s)) = refused {
            if let Some(seconds) = retry_after_s {
                response.number("Retry-After", seconds.max(1).into());
            }
            if reason == Reason::MethodNotAllowed {
                response.set("Allow", b"POST");
            }
        }
        exchange.answer(response, &body).await;
    }

    fn record(&self, status: u16, bytes_out: u64, started: Instant) -> Record {
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let client_request_id = self.asked.client_request_id.as_ref().and_then(|value| value.to_str().ok());
        Record {
            timestamp_ms: self.gateway.clock.now_ms().saturating_sub(duration_ms),
            request_id: Arc::clone(&self.asked.request_id),
            client_request_id: client_request_id.map(str::to_owned),
            trace_id: Arc::clone(&self.asked.trace_id),
            server_handle: Arc::from(HANDLE),
            method: HANDLE,
            status,
            actor_user_id: None,
            context: "unknown",
            duration_ms,
            task_id: None,
            run: None,
            rate_limit_identity: format!("ip:{}", self.client).into(),
            decision: "allow",
            deny_code: None,
            tool: None,
            rule: Arc::from("auth.token"),
            policy_revision: self.policy.revision,
            bytes_in: self.bytes_in,
            bytes_out,
            peer: Some(self.client),
            outcome: None,
        }
    }
}

/// Whether tokens of this name are refused anyway.
fn denied(policy: &Snapshot, username: &str) -> bool {
    policy.auth.deny_sub.iter().any(|(sub, _)| sub.trim() == username.trim())
}
