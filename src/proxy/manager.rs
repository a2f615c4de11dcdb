//! The manager routes' own part: who uses the CMS's manager, as its executor knows (decisions T4), and the list of
//! servers. Everything else of a call is as on the API routes ([`call`](crate::proxy::call)).
//!
//! Invariants: without an identity nothing is answered but 403; a browser that another site sent is refused before
//! the identity is looked at; what the executor said is kept for `manager.cache_seconds` and no longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use parking_lot::Mutex;

use crate::auth::{self, Refusal};
use crate::base::{Digest, Principal};
use crate::policy::{Charge, Charges, Credential, Denial, RateKey, Reason, Rule, Snapshot, Window, check_permission};
use crate::protocol::{
    self, Id, Identity, MANAGER_HANDLE, ManagerAnswer, ManagerQuestion, ManagerUser, MethodClass, csrf_digest,
    is_access_token, is_session_id,
};
use crate::proxy::asked::Asked;
use crate::proxy::call::{Call, Who};
use crate::proxy::exchange::Exchange;
use crate::proxy::gateway::{Gateway, RequestContext};
use crate::proxy::headers;
use crate::proxy::ledger::{Ledger, Trail};
use crate::proxy::path::{Door, SERVERS};
use crate::proxy::respond;
use crate::proxy::upstream::push_header;
use crate::telemetry::{UpstreamFailure, event};

/// The header that carries a session's CSRF token.
const CSRF: &str = "x-csrf-token";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Identities that are kept.
const KEPT: usize = 4096;
/// An answer of the executor is a few permissions long.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// What the executor said lately.
#[derive(Default)]
pub struct Identities(Mutex<HashMap<Digest, (u64, Arc<Known>)>>);

struct Known {
    principal: Principal,
    csrf: Option<String>,
}

impl Identities {
    fn find(&self, key: &Digest, now_ms: u64) -> Option<Arc<Known>> {
        self.0.lock().get(key).filter(|(until_ms, _)| now_ms < *until_ms).map(|(_, known)| Arc::clone(known))
    }

    fn keep(&self, key: Digest, now_ms: u64, until_ms: u64, known: &Arc<Known>) {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.retain(|_, (until_ms, _)| now_ms < *until_ms);
        }
        if kept.len() < KEPT && now_ms < until_ms {
            kept.insert(key, (until_ms, Arc::clone(known)));
        }
    }
}

/// What the request's headers tell about its sender.
struct Sender {
    /// Whether a browser may have been sent by another site, or the headers are not to be had here.
    malformed: Option<Reason>,
    question: Result<ManagerQuestion, ()>,
    csrf: Option<String>,
    /// Whether the method changes nothing.
    safe: bool,
}

impl Sender {
    fn of(exchange: &Exchange, policy: &Snapshot) -> Self {
        let request = exchange.request();
        let csrf = request.headers.get(CSRF).and_then(|value| value.to_str().ok()).map(|text| text.trim().to_owned());
        Self {
            malformed: headers::check_own(&request.headers)
                .and_then(|()| check_site(&request.headers, &policy.security.allow_origins))
                .err(),
            question: question(&request.headers, &policy.manager.cookie),
            csrf,
            safe: request.method == http::Method::GET || request.method == http::Method::HEAD,
        }
    }
}

/// Refuses what a browser says another site sent. A client that says nothing of the kind is no browser of today, and
/// only the JSON media type, which no form can send, keeps an old one from being sent.
fn check_site(headers: &HeaderMap, allow_origins: &[String]) -> Result<(), Reason> {
    if headers.get_all(&FETCH_SITE).iter().nth(1).is_some() {
        return Err(Reason::BadRequest);
    }
    if let Some(origin) = headers::text(headers, &header::ORIGIN) {
        if origin != "null" && allow_origins.contains(&origin) {
            return Ok(());
        }
        if !headers::is_own(headers, &origin) {
            return Err(Reason::ForeignOrigin);
        }
    }
    match headers::text(headers, &FETCH_SITE).as_deref() {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => Err(Reason::ForeignOrigin),
    }
}

/// The one credential that is looked at. A bearer token shuts the cookie out: nothing is tried after it.
fn question(headers: &HeaderMap, cookie: &str) -> Result<ManagerQuestion, ()> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let token = auth::bearer(Some(authorization.as_bytes())).map_err(drop)?;
        let token = is_access_token(token).then(|| token.to_owned()).ok_or(())?;
        return Ok(ManagerQuestion { token: Some(token), session: None });
    }
    let mut sessions = headers.get_all(header::COOKIE).iter().flat_map(|line| {
        let pairs = line.to_str().unwrap_or_default().split(';');
        pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == cookie).map(|(_, value)| value)
    });
    // Twice is as good as never: the CMS might take the other one.
    match (sessions.next(), sessions.next()) {
        (Some(session), None) if is_session_id(session) => {
            Ok(ManagerQuestion { session: Some(session.to_owned()), token: None })
        }
        _ => Err(()),
    }
}

/// Who sent a request to a manager route, and what is wrong with its headers.
pub async fn admit(call: &Call<'_>, exchange: &Exchange, now_ms: u64) -> (Option<Reason>, Result<Who, Refusal>) {
    let sender = Sender::of(exchange, call.policy);
    if sender.malformed.is_some() {
        return (sender.malformed, Err(Reason::Forbidden.into()));
    }
    (None, call.identify(sender, now_ms).await.map(|known| Who::Manager(known.principal.clone())))
}

impl Call<'_> {
    async fn identify(&self, sender: Sender, now_ms: u64) -> Result<Arc<Known>, Refusal> {
        let Ok(question) = sender.question else { return Err(Refusal::By(Reason::Forbidden, "manager.identity")) };
        let limit = self.policy.auth.failures_per_minute;
        if limit > 0 && self.gateway.failed_auth.check(self.ctx.client, limit, now_ms).is_err() {
            return Err(Reason::RateLimited.into());
        }
        let parts = [question.session.as_deref(), question.token.as_deref()].map(Option::unwrap_or_default);
        let key = Digest::of(&[self.policy.digest.as_bytes(), parts[0].as_bytes(), parts[1].as_bytes()]);
        let known = match self.gateway.identities.find(&key, now_ms) {
            Some(known) => known,
            None => {
                let Some(user) = self.ask(&question).await? else {
                    self.gateway.failed_auth.record(self.ctx.client, now_ms);
                    return Err(Refusal::By(Reason::Forbidden, "manager.identity"));
                };
                let known = Arc::new(Known {
                    principal: Principal::manager(user.id, user.permissions.into()),
                    csrf: user.csrf,
                });
                // Counted from before the question: what changed meanwhile counts as soon.
                let until_ms = now_ms.saturating_add(self.policy.manager.cache_seconds * 1000);
                self.gateway.identities.keep(key, self.gateway.clock.now_ms(), until_ms, &known);
                known
            }
        };
        let by_session = question.session.is_some();
        let matches = match (&known.csrf, &sender.csrf) {
            (Some(held), Some(sent)) => *held == csrf_digest(sent),
            _ => !self.policy.manager.require_csrf_token || sender.safe,
        };
        if by_session && !matches { Err(Refusal::By(Reason::Forbidden, "manager.csrf")) } else { Ok(known) }
    }

    /// Asks the executor.
    async fn ask(&self, question: &ManagerQuestion) -> Result<Option<ManagerUser>, Refusal> {
        let policy = self.policy;
        let failed = |failure: UpstreamFailure| {
            let detail = "the manager's user could not be told";
            event::upstream_failed(&self.gateway.metrics, "unknown", failure, &self.asked.request_id, detail);
            Refusal::By(Reason::UpstreamFailed, "manager.upstream")
        };
        let target = self.gateway.targets.get(&policy.manager.upstream).filter(|target| target.upstream().identity);
        let Some(target) = target else { return Err(failed(UpstreamFailure::Connect)) };
        let body = Bytes::from(serde_json::to_vec(question).map_err(|_| Reason::InternalError)?);
        let identity = Identity {
            context: "mgr".to_owned(),
            server: MANAGER_HANDLE.to_owned(),
            trace_id: self.asked.trace_id.to_string(),
            request_id: self.asked.request_id.to_string(),
            policy_revision: policy.revision,
            policy_digest: policy.digest.clone(),
            ..Identity::default()
        };
        let now_s = self.gateway.clock.now_ms() / 1000;
        let (identity, signature) = protocol::sign_identity(&identity, &body, target.upstream().key.as_ref(), now_s);
        let mut head = target.head(MANAGER_HANDLE, body.len());
        push_header(&mut head, protocol::IDENTITY_HEADER, identity.as_bytes());
        if let Some(signature) = signature {
            push_header(&mut head, protocol::SIGNATURE_HEADER, signature.as_bytes());
        }
        let timeouts = &self.gateway.settings.timeouts;
        let answered = target.exchange(&self.gateway.connector, head, &body, timeouts, Instant::now()).await;
        let mut answer = answered.map_err(failed)?;
        let mut share = self.gateway.budget.share();
        let bytes = answer.collect(MAX_ANSWER_BYTES, timeouts.response_header, &mut share).await;
        let bytes = bytes.map_err(|_| failed(UpstreamFailure::Garbage))?;
        let known = answer.head().status == 200;
        answer.finish();
        let said = if known { serde_json::from_slice::<ManagerAnswer>(&bytes).ok() } else { None };
        said.map(|said| said.user).ok_or_else(|| failed(UpstreamFailure::Garbage))
    }

    /// `GET /{manager_prefix}/servers`.
    async fn list(&self, exchange: &mut Exchange) {
        let now_ms = self.gateway.clock.now_ms();
        let trail = Trail::of(MethodClass::Other, None, 0);
        let (malformed, who) = admit(self, exchange, now_ms).await;
        let principal = who.as_ref().map(Who::principal);
        let denial = match (malformed, principal) {
            (Some(reason), _) => Err(Denial::new(reason, Rule::Builtin("request"))),
            (None, Err(refusal)) => Err(match refusal.credential() {
                Credential::RefusedBy(reason, word) => Denial::new(reason, Rule::Builtin(word)),
                _ => Denial::new(refusal.reason(), Rule::Builtin("manager.identity")),
            }),
            (None, Ok(principal)) => self.listed(exchange, principal, now_ms).await,
        };
        let slot = match denial {
            Err(denial) => return self.deny(exchange, denial, &Id::Absent, principal.ok(), &trail).await,
            Ok(()) if !self.policy.logging.audit_enabled => None,
            Ok(()) => match self.gateway.audit.reserve().await {
                Ok(slot) => Some(slot),
                Err(_) => {
                    let denial = Denial::new(Reason::AuditUnavailable, Rule::Builtin("audit"));
                    return self.deny(exchange, denial, &Id::Absent, principal.ok(), &trail).await;
                }
            },
        };
        let Ok(principal) = principal else { return };
        let mut ledger = Ledger::open(self, slot, principal, &trail, &Rule::Builtin("acl.permission"));
        let allowed = |handle: &str| self.policy.security.allow_servers.find(handle).is_some();
        let handles: Vec<&str> =
            self.policy.servers.iter().map(|server| &*server.handle).filter(|h| allowed(h)).collect();
        let body = serde_json::json!({"items": handles}).to_string();
        ledger.close(200, body.len() as u64, None).await;
        exchange.answer(respond::json(200, self.marks()), body.as_bytes()).await;
    }

    /// Whether this caller may see the list now.
    async fn listed(&self, exchange: &Exchange, principal: &Principal, now_ms: u64) -> Result<(), Denial> {
        if exchange.request().method != http::Method::GET {
            return Err(Denial::new(Reason::MethodNotAllowed, Rule::Builtin("http.method")));
        }
        check_permission(self.policy, principal)?;
        if self.gateway.is_draining() {
            return Err(Denial::new(Reason::Draining, Rule::Builtin("drain")));
        }
        let policy = &self.policy.rate_limit;
        let mut charges = Charges::new();
        for (server, method, limit) in [
            (Arc::clone(&self.policy.unknown_handle), Some(MethodClass::Other), policy.per_minute),
            (Arc::from("*"), None, policy.total_per_minute),
        ] {
            if policy.enabled && limit > 0 {
                let key = RateKey { principal: principal.digest(), server, method };
                charges.push(Charge { key, limit, window: Window::FromFirstHit { seconds: 60 } });
            }
        }
        self.charge(&charges, now_ms).await
    }
}

/// Serves one request on a manager route; `name` is the handle, or [`SERVERS`].
pub async fn serve(
    gateway: &Gateway,
    exchange: &mut Exchange,
    ctx: &RequestContext,
    policy: &Arc<Snapshot>,
    name: &str,
) {
    let asked = Asked::of(exchange, policy);
    let call = Call { gateway, ctx, policy, handle: name, asked, door: Door::Manager };
    if name == SERVERS { call.list(exchange).await } else { call.run(exchange).await }
}
