//! Which requests are answered here, which go to the CMS by way of Pingora, and what is logged of both.
//!
//! Every request is judged by [`Gateway::serve`] first, on the header that it came with; Pingora gets one
//! ([`front`](crate::proxy::front)) only when it is for the CMS.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::prelude::HttpPeer;
use tokio::sync::watch;

use crate::audit::Audit;
use crate::auth::Verifier;
use crate::base::Clock;
use crate::limits::{FailedAuth, Limits};
use crate::origin::Page;
use crate::policy::{Denial, QueueDriver, Reason, Rule, Snapshot};
use crate::protocol::{Id, transport_error};
use crate::proxy::access_log::{AccessLog, Entry};
use crate::proxy::budget::Budget;
use crate::proxy::client_address::client_address;
use crate::proxy::connection::{Connection, Unread};
use crate::proxy::exchange::Exchange;
use crate::proxy::gate::Gate;
use crate::proxy::manager::{self, Identities};
use crate::proxy::path::{MAX_TARGET_BYTES, Route, SERVERS, is_token, route};
use crate::proxy::redaction::mcp_target;
use crate::proxy::request::Request;
use crate::proxy::respond::{self, Marks};
use crate::proxy::response::Response;
use crate::proxy::settings::{AccessLogFormat, Settings};
use crate::proxy::upstream::Target;
use crate::proxy::{call, dispatch, headers, issue};
use crate::telemetry::{Metrics, ProxyReading};

/// What the gateway is built from; the composition root owns each part.
pub struct Parts {
    pub settings: Settings,
    pub policy: Arc<ArcSwap<Snapshot>>,
    pub verifier: Arc<Verifier>,
    pub limits: Arc<Limits>,
    pub audit: Audit,
    pub metrics: Arc<Metrics>,
    pub access_log: Arc<AccessLog>,
    pub clock: Arc<dyn Clock>,
}

/// The proxy's one application: shared by all workers.
pub struct Gateway {
    pub(in crate::proxy) settings: Settings,
    pub(in crate::proxy) policy: Arc<ArcSwap<Snapshot>>,
    pub(in crate::proxy) verifier: Arc<Verifier>,
    pub(in crate::proxy) limits: Arc<Limits>,
    pub(in crate::proxy) failed_auth: FailedAuth,
    pub(in crate::proxy) audit: Audit,
    pub(in crate::proxy) metrics: Arc<Metrics>,
    pub(in crate::proxy) clock: Arc<dyn Clock>,
    pub(in crate::proxy) budget: Arc<Budget>,
    pub(in crate::proxy) connector: TransportConnector,
    pub(in crate::proxy) targets: std::collections::HashMap<String, Target>,
    pub(in crate::proxy) streams_end: watch::Receiver<bool>,
    pub(in crate::proxy) identities: Identities,
    access_log: Arc<AccessLog>,
    pub(in crate::proxy) cms: Option<HttpPeer>,
    gate: Arc<Gate>,
    draining: AtomicBool,
    in_flight: AtomicU64,
}

impl Gateway {
    /// Builds the gateway; `streams_end` goes up when open streams must end for a shutdown.
    ///
    /// # Errors
    /// When an upstream's or the CMS's address does not resolve.
    pub fn new(parts: Parts, streams_end: watch::Receiver<bool>) -> std::io::Result<Self> {
        let mut targets = std::collections::HashMap::new();
        for (name, upstream) in &parts.settings.upstreams {
            targets.insert(name.clone(), Target::new(upstream)?);
        }
        let cms = match &parts.settings.cms {
            None => None,
            Some(cms) => {
                let address = std::net::ToSocketAddrs::to_socket_addrs(&(cms.host.as_str(), cms.port))?
                    .next()
                    .ok_or(std::io::ErrorKind::AddrNotAvailable)?;
                let mut peer = HttpPeer::new(address, false, String::new());
                peer.options.connection_timeout = Some(parts.settings.timeouts.connect);
                peer.options.read_timeout = Some(Duration::from_secs(300));
                peer.options.idle_timeout = Some(Duration::from_secs(30));
                Some(peer)
            }
        };
        Ok(Self {
            failed_auth: FailedAuth::new(),
            identities: Identities::default(),
            budget: Budget::new(parts.settings.in_flight_bytes),
            connector: TransportConnector::new(Some(ConnectorOptions::new(1))),
            gate: Gate::new(parts.settings.max_connections, parts.settings.per_address),
            draining: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            policy: parts.policy,
            verifier: parts.verifier,
            limits: parts.limits,
            audit: parts.audit,
            metrics: parts.metrics,
            access_log: parts.access_log,
            clock: parts.clock,
            settings: parts.settings,
            targets,
            streams_end,
            cms,
        })
    }

    /// Who may connect.
    #[must_use]
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What the gateway was started with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The metrics that it counts in.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// From now on new MCP requests are refused (`draining`) and connections are closed after their answer.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it drains.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a request as being served until the flight is dropped.
    #[must_use]
    pub fn flight(&self) -> Flight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Flight(&self.in_flight)
    }

    /// Requests being served now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What is read when somebody scrapes.
    #[must_use]
    pub fn reading(&self) -> ProxyReading {
        ProxyReading {
            requests_in_flight: self.in_flight(),
            connections_open: self.gate.open() as u64,
            connections_limit: self.gate.max() as u64,
            in_flight_bytes: self.in_flight_bytes() as u64,
            in_flight_limit_bytes: self.settings.in_flight_bytes as u64,
            access_log_dropped: self.access_log.dropped(),
        }
    }

    /// Bytes of bodies held now.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.budget.used()
    }
}

/// What is known of one request while it is served.
pub struct RequestContext {
    pub(in crate::proxy) started: Instant,
    /// The same by the clock on the wall, in Unix milliseconds.
    pub(in crate::proxy) started_ms: u64,
    pub(in crate::proxy) client: IpAddr,
    pub(in crate::proxy) peer: IpAddr,
    /// What the access log shows in place of the target.
    shown: Option<String>,
}

impl RequestContext {
    pub(in crate::proxy) fn begin(gateway: &Gateway, client: IpAddr, peer: IpAddr) -> Self {
        Self { started: Instant::now(), started_ms: gateway.clock.now_ms(), client, peer, shown: None }
    }

    /// What the access log shows of a target on our routes: no query, and no handle that is not known.
    fn show(&mut self, target: Result<&str, Reason>, name: &str, known: bool) {
        let sent = target.unwrap_or_default();
        if !known || sent.contains('?') {
            self.shown = Some(mcp_target(sent, (!known).then_some(name)));
        }
    }
}

/// A request being served, counted until it is dropped: also when its handler panics.
#[derive(Debug)]
pub struct Flight<'a>(&'a AtomicU64);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    Here,
    /// It is for the CMS, and nothing of it but the header has been read.
    ByCms,
}

/// Longest request line beside its target, in bytes; a method of any length that fits is judged by the policy.
const REQUEST_LINE: usize = 256;

impl Gateway {
    /// How many bytes of a header are held before it is refused. What stays below is measured exactly.
    pub fn longest_header(&self) -> usize {
        self.policy.load().limits.max_header_bytes + MAX_TARGET_BYTES + REQUEST_LINE
    }

    /// Answers what could not be read as a request, and ends the connection.
    pub async fn refuse_unread(&self, mut connection: Connection, reason: Reason) {
        let request_id = headers::new_id();
        let policy = self.policy.load_full();
        let body = transport_error(reason.code(), reason.message_in(policy.i18n.locale), &request_id);
        self.metrics.refused(reason);
        let mut response = Response::new(reason.status());
        response.set("Content-Type", b"application/json");
        response.set("X-Request-Id", request_id.as_bytes());
        response.number("Content-Length", body.len() as u64);
        let mut bytes = response.into_head(false);
        bytes.extend_from_slice(body.as_ref());
        let sent = connection.send(&bytes).await.is_ok();
        self.log_unread(connection.peer(), reason, if sent { body.len() } else { 0 }, &policy);
        if sent {
            connection.close(true).await;
        }
    }

    /// A line in the access log for what has no method and no target.
    fn log_unread(&self, client: IpAddr, reason: Reason, bytes: usize, policy: &Snapshot) {
        self.access_log.write(&Entry {
            at_ms: self.clock.now_ms(),
            client,
            method: "-",
            target: "-",
            protocol: "-",
            status: reason.status(),
            bytes: bytes as u64,
            referer: None,
            user_agent: None,
            host: None,
            trace_id: "",
            duration_ms: 0,
            redactor: &policy.logging.redactor,
        });
    }

    /// Answers a request, unless it is for the CMS.
    pub async fn serve(&self, exchange: &mut Exchange) -> Answered {
        let peer = exchange.connection().peer();
        let client = client_address(peer, exchange.headers(), &self.settings.trusted_proxies);
        let mut ctx = RequestContext::begin(self, client, peer);
        if self.is_draining() {
            exchange.close();
        }
        // The one snapshot of this request: a reload never splits it.
        let policy = self.policy.load_full();
        let answered = self.route(exchange, &mut ctx, &policy).await;
        if answered == Answered::Here && self.settings.access_log.format != AccessLogFormat::Off {
            self.log(exchange, &ctx);
        }
        answered
    }

    async fn route(&self, exchange: &mut Exchange, ctx: &mut RequestContext, policy: &Arc<Snapshot>) -> Answered {
        let request = exchange.request();
        let target = request.target.clone();
        let target = std::str::from_utf8(&target).map_err(|_| Reason::BadRequest);
        let checked = headers::check_request(&request.headers, request.version, &policy.limits, &policy.trace)
            .and_then(|()| self.check_host(&request.headers));
        let route = match checked.and(target).and_then(|target| route(&policy.routes, target)) {
            Ok(route) => route,
            Err(reason) => {
                self.refuse(exchange, policy, reason).await;
                return Answered::Here;
            }
        };
        match route {
            Route::Mcp { server } => {
                ctx.show(target, &server, policy.server(&server).is_some());
                call::serve(self, exchange, ctx, policy, &server).await;
            }
            Route::Reserved
                if policy.auth.token.enabled
                    && policy.routes.api
                    && is_token(&policy.routes, target.unwrap_or_default()) =>
            {
                Box::pin(issue::serve(self, exchange, ctx, policy)).await;
            }
            Route::Manager { name } => {
                ctx.show(target, name, name == SERVERS || policy.server(name).is_some());
                Box::pin(manager::serve(self, exchange, ctx, policy, name)).await;
            }
            Route::Dispatch { server, door } if policy.queue.driver != QueueDriver::Off => {
                ctx.show(target, server, policy.server(server).is_some());
                dispatch::serve(self, exchange, ctx, policy, server, door).await;
            }
            Route::Reserved | Route::Dispatch { .. } => {
                ctx.shown = Some(mcp_target(target.unwrap_or_default(), None));
                self.refuse(exchange, policy, Reason::RouteNotFound).await;
            }
            Route::Cms if headers::check_for_cms(exchange.request()).is_err() || !exchange.begins_plainly() => {
                self.refuse(exchange, policy, Reason::BadRequest).await;
            }
            Route::Cms if self.cms.is_some() => return Answered::ByCms,
            Route::Cms => {
                let path = target.unwrap_or_default();
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                respond::page(exchange, Page::without_cms(path)).await;
                self.metrics.cms_request(exchange.sent().0);
            }
        }
        Answered::Here
    }

    fn check_host(&self, sent: &http::HeaderMap) -> Result<(), Reason> {
        let host = sent.get(http::header::HOST).and_then(|host| host.to_str().ok());
        headers::check_host(host, &self.settings.server_names)
    }

    async fn refuse(&self, exchange: &mut Exchange, policy: &Snapshot, reason: Reason) {
        let request_id = headers::new_id();
        let trace_id = headers::trace_id(exchange.headers(), &policy.trace, &request_id);
        exchange.trace(&trace_id);
        let marks = Marks {
            trace_header: &policy.trace.header,
            trace_id: &trace_id,
            request_id: &request_id,
            i18n: policy.i18n,
            allow: "POST",
        };
        self.metrics.refused(reason);
        let denial = Denial::new(reason, Rule::Builtin("route"));
        respond::deny(exchange, &denial, &Id::Absent, marks).await;
    }

    fn log(&self, exchange: &Exchange, ctx: &RequestContext) {
        let Request { method, target, version, headers, .. } = exchange.request();
        let (status, bytes) = exchange.sent();
        let sent = Sent { status, bytes, trace_id: exchange.trace_id() };
        self.write_access_log(ctx, method, target, *version, headers, sent);
    }

    pub(in crate::proxy) fn write_access_log(
        &self,
        ctx: &RequestContext,
        method: &http::Method,
        target: &[u8],
        version: http::Version,
        headers: &http::HeaderMap,
        sent: Sent<'_>,
    ) {
        let text = |name: http::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let duration_ms = u64::try_from(ctx.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.access_log.write(&Entry {
            at_ms: ctx.started_ms,
            client: ctx.client,
            method: method.as_str(),
            target: ctx.shown.as_deref().unwrap_or(&String::from_utf8_lossy(target)),
            protocol: if version == http::Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
            status: sent.status,
            bytes: sent.bytes,
            referer: text(http::header::REFERER),
            user_agent: text(http::header::USER_AGENT),
            host: text(http::header::HOST),
            trace_id: sent.trace_id,
            duration_ms,
            redactor: &self.policy.load().logging.redactor,
        });
    }
}

/// What the access log tells of an answer.
pub(in crate::proxy) struct Sent<'a> {
    pub status: u16,
    pub bytes: u64,
    pub trace_id: &'a str,
}

impl From<Unread> for Option<Reason> {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Ended => None,
            Unread::TooLarge => Some(Reason::HeadersTooLarge),
            Unread::BareLineFeed => Some(Reason::BadRequest),
        }
    }
}
