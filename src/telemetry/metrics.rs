use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use super::label::{
    AuditDrop, AuditQueue, Breaker, ConnectionRefusal, StoreError, StoreMode, StreamEnd, UpstreamFailure,
};
use super::name::{Kind, Name};
use super::registrar::Registrar;
use super::series::{Histogram, Totals};
use super::throttle::Throttle;
use crate::policy::Reason;
use crate::protocol::{Method, MethodClass};

const UNKNOWN: &str = "unknown";
const OK: &str = "ok";
pub(super) const REQUEST_BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000,
    60_000_000,
];
/// Upper bounds in microseconds by which round trips to the store of rate limits are sorted.
pub const STORE_BOUNDS_US: [u64; 9] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000];
const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The rate limits and their store at one moment; counts are since the start.
#[derive(Clone, Debug)]
pub struct LimitsReading {
    pub mode: StoreMode,
    pub breaker: Breaker,
    pub openings: u64,
    pub fallbacks: u64,
    pub buckets: u64,
    /// In the order of [`StoreError::ALL`].
    pub errors: [u64; StoreError::ALL.len()],
    /// Round trips by [`STORE_BOUNDS_US`], not cumulative; the last one beyond them all.
    pub latency_counts: [u64; STORE_BOUNDS_US.len() + 1],
    pub latency_sum_us: u64,
}

/// The proxy's own gauges at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyReading {
    pub requests_in_flight: u64,
    pub connections_open: u64,
    pub connections_limit: u64,
    pub in_flight_bytes: u64,
    pub in_flight_limit_bytes: u64,
    /// Since the start.
    pub access_log_dropped: u64,
}

/// The process's metrics, in a registry of their own.
pub struct Metrics {
    pub(super) registry: Registry,
    /// Codes that a label may carry, sorted.
    codes: Vec<&'static str>,
    /// One row per handle of the policy, sorted by handle; what is not here counts as `unknown`.
    servers: ArcSwap<Vec<ServerRow>>,
    unknown: ServerRow,
    requests: IntCounterVec,
    refusals: IntCounterVec,
    requests_in_flight: IntGauge,
    request_duration: Histogram,
    upstream_duration: Histogram,
    own_duration: Histogram,
    stream_duration: Histogram,
    streams_open: IntGauge,
    streams: IntCounter,
    heartbeats: IntCounter,
    stream_ends: Vec<IntCounter>,
    cms_requests: Vec<IntCounter>,
    upstream_failures: IntCounterVec,
    internal_errors: IntCounter,
    connections_open: IntGauge,
    connections: IntCounter,
    connections_limit: IntGauge,
    connections_refused: Vec<IntCounter>,
    in_flight_bytes: IntGauge,
    in_flight_limit: IntGauge,
    access_log_dropped: Totals,
    limits_mode: Vec<IntGauge>,
    limits_breaker: Vec<IntGauge>,
    limits_openings: Totals,
    limits_fallbacks: Totals,
    limits_buckets: IntGauge,
    limits_duration: Histogram,
    limits_errors: Totals,
    audit_queue: IntGauge,
    audit_lag: prometheus::Gauge,
    audit_records: Vec<IntCounter>,
    audit_dropped: Vec<IntCounter>,
    audit_write_errors: IntCounter,
    audit_disk_free: IntGauge,
    policy_revision: IntGauge,
    policy_info: Mutex<IntGaugeVec>,
    policy_success: IntGauge,
    policy_reloads: IntCounter,
    policy_failures: IntCounter,
    policy_looser: IntCounter,
    token_hits: Totals,
    token_misses: Totals,
    token_entries: IntGauge,
    resident_memory: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    draining: IntGauge,
    pub(super) upstream_lines: Throttle,
    pub(super) connection_lines: Throttle,
    pub(super) audit_lines: Throttle,
    pub(super) internal_lines: Throttle,
}

/// The counters of one server; those of permitted requests are resolved at first use.
struct ServerRow {
    handle: String,
    allowed: [OnceLock<IntCounter>; METHODS],
    /// In the order of [`UpstreamFailure::ALL`], there from the start: an alert needs the 0 before the first failure.
    failures: Vec<IntCounter>,
}

const METHODS: usize = Method::ALL.len() + 2;

impl ServerRow {
    fn new(handle: &str, failures: &IntCounterVec) -> Self {
        let counter = |kind: &UpstreamFailure| failures.with_label_values(&[handle, kind.as_str()]);
        let failures = UpstreamFailure::ALL.iter().map(counter).collect();
        Self { handle: handle.to_owned(), allowed: [const { OnceLock::new() }; METHODS], failures }
    }

    fn allowed(&self, method: MethodClass, requests: &IntCounterVec) -> &IntCounter {
        self.allowed[method_index(method)]
            .get_or_init(|| requests.with_label_values(&[&self.handle, method.as_str(), "allow", OK]))
    }
}

const fn method_index(method: MethodClass) -> usize {
    match method {
        MethodClass::Known(method) => method as usize,
        MethodClass::Other => METHODS - 2,
        MethodClass::Unknown => METHODS - 1,
    }
}

impl Metrics {
    /// A fresh registry; `server_handles` are the handles of the policy.
    ///
    /// # Errors
    /// When two metrics collide, which a test excludes.
    pub fn new(server_handles: &[String]) -> prometheus::Result<Arc<Self>> {
        let registry = Registry::new();
        let r = Registrar(&registry);
        let mut codes: Vec<&'static str> = Reason::all().into_iter().map(Reason::code).chain([OK]).collect();
        codes.sort_unstable();
        r.gauges(Name::BuildInfo)?.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
        let upstream_failures = r.counters(Name::UpstreamFailures)?;
        let metrics = Self {
            codes,
            servers: ArcSwap::from_pointee(Vec::new()),
            unknown: ServerRow::new(UNKNOWN, &upstream_failures),
            requests: r.counters(Name::Requests)?,
            refusals: r.counters(Name::Refusals)?,
            requests_in_flight: r.gauge(Name::RequestsInFlight)?,
            request_duration: r.histogram(Name::RequestDuration, &REQUEST_BOUNDS_US)?,
            upstream_duration: r.histogram(Name::UpstreamDuration, &REQUEST_BOUNDS_US)?,
            own_duration: r.histogram(Name::OwnDuration, &REQUEST_BOUNDS_US)?,
            stream_duration: r.histogram(Name::StreamDuration, &REQUEST_BOUNDS_US)?,
            streams_open: r.gauge(Name::StreamsOpen)?,
            streams: r.counter(Name::Streams)?,
            heartbeats: r.counter(Name::StreamHeartbeats)?,
            stream_ends: r.counter_each(Name::StreamEnds, StreamEnd::WORDS)?,
            cms_requests: r.counter_each(Name::CmsRequests, &STATUS_CLASSES)?,
            upstream_failures,
            internal_errors: r.counter(Name::InternalErrors)?,
            connections_open: r.gauge(Name::ConnectionsOpen)?,
            connections: r.counter(Name::Connections)?,
            connections_limit: r.gauge(Name::ConnectionsLimit)?,
            connections_refused: r.counter_each(Name::ConnectionsRefused, ConnectionRefusal::WORDS)?,
            in_flight_bytes: r.gauge(Name::InFlightBytes)?,
            in_flight_limit: r.gauge(Name::InFlightLimit)?,
            access_log_dropped: r.totals(Name::AccessLogDropped, &[])?,
            limits_mode: r.gauge_each(Name::LimitsMode, StoreMode::WORDS)?,
            limits_breaker: r.gauge_each(Name::LimitsBreaker, Breaker::WORDS)?,
            limits_openings: r.totals(Name::LimitsOpenings, &[])?,
            limits_fallbacks: r.totals(Name::LimitsFallbacks, &[])?,
            limits_buckets: r.gauge(Name::LimitsBuckets)?,
            limits_duration: r.histogram(Name::LimitsDuration, &STORE_BOUNDS_US)?,
            limits_errors: r.totals(Name::LimitsErrors, StoreError::WORDS)?,
            audit_queue: r.gauge(Name::AuditQueue)?,
            audit_lag: r.add(prometheus::Gauge::with_opts(Registrar::opts(Name::AuditLag, Kind::Gauge))?)?,
            audit_records: r.counter_each(Name::AuditRecords, AuditQueue::WORDS)?,
            audit_dropped: r.counter_each(Name::AuditDropped, AuditDrop::WORDS)?,
            audit_write_errors: r.counter(Name::AuditWriteErrors)?,
            audit_disk_free: r.gauge(Name::AuditDiskFree)?,
            policy_revision: r.gauge(Name::PolicyRevision)?,
            policy_info: Mutex::new(r.gauges(Name::PolicyInfo)?),
            policy_success: r.gauge(Name::PolicySuccess)?,
            policy_reloads: r.counter(Name::PolicyReloads)?,
            policy_failures: r.counter(Name::PolicyFailures)?,
            policy_looser: r.counter(Name::PolicyLooser)?,
            token_hits: r.totals(Name::TokenCacheHits, &[])?,
            token_misses: r.totals(Name::TokenCacheMisses, &[])?,
            token_entries: r.gauge(Name::TokenCacheSize)?,
            resident_memory: r.gauge(Name::ResidentMemory)?,
            open_fds: r.gauge(Name::OpenFds)?,
            max_fds: r.gauge(Name::MaxFds)?,
            draining: r.gauge(Name::Draining)?,
            upstream_lines: Throttle::new(10),
            connection_lines: Throttle::new(2),
            audit_lines: Throttle::new(2),
            internal_lines: Throttle::new(10),
            registry,
        };
        metrics.set_servers(server_handles);
        for reason in [Reason::BadRequest, Reason::RouteNotFound] {
            metrics.refusals.with_label_values(&[reason.code()]);
        }
        Ok(Arc::new(metrics))
    }

    /// Replaces the set of handles that may be a label; counts of handles that stay are kept.
    pub fn set_servers(&self, handles: &[String]) {
        let mut rows: Vec<ServerRow> =
            handles.iter().map(|handle| ServerRow::new(handle, &self.upstream_failures)).collect();
        rows.sort_unstable_by(|a, b| a.handle.cmp(&b.handle));
        rows.dedup_by(|a, b| a.handle == b.handle);
        for row in &rows {
            row.allowed(MethodClass::Known(Method::ToolsCall), &self.requests);
        }
        self.servers.store(Arc::new(rows));
    }

    /// Counts one decision; `code` is `ok` or a [`Reason`]'s code.
    pub fn decision(&self, server: &str, method: MethodClass, allowed: bool, code: &'static str) {
        let servers = self.servers.load();
        let row =
            servers.binary_search_by(|row| row.handle.as_str().cmp(server)).map_or(&self.unknown, |i| &servers[i]);
        if allowed && (code == OK || code.is_empty()) {
            row.allowed(method, &self.requests).inc();
            return;
        }
        let code = if self.codes.binary_search(&code).is_ok() { code } else { "other" };
        let decision = if allowed { "allow" } else { "deny" };
        self.requests.with_label_values(&[&row.handle, method.as_str(), decision, code]).inc();
    }

    /// How often `decision` was taken so far, over all servers, methods and codes.
    #[must_use]
    pub fn decided(&self, allowed: bool) -> u64 {
        use prometheus::core::Collector as _;
        let wanted = if allowed { "allow" } else { "deny" };
        let families = self.requests.collect();
        let series = families.iter().flat_map(|family| family.get_metric());
        let counted = series
            .filter(|metric| metric.get_label().iter().any(|l| l.name() == "decision" && l.value() == wanted))
            .map(|metric| metric.get_counter().get_value());
        // Integer counters: exact up to 2^53.
        counted.sum::<f64>() as u64
    }

    /// Times of one answer that was no stream, in microseconds.
    pub fn request_seconds(&self, total_us: u64, upstream_us: u64, own_us: u64) {
        self.request_duration.observe(total_us);
        self.upstream_duration.observe(upstream_us);
        self.own_duration.observe(own_us);
    }

    /// A streamed answer begins.
    pub fn stream_opened(&self) {
        self.streams.inc();
        self.streams_open.inc();
    }

    /// A streamed answer ended after `total_us` microseconds.
    pub fn stream_closed(&self, how: StreamEnd, total_us: u64) {
        self.streams_open.dec();
        self.stream_ends[how as usize].inc();
        self.stream_duration.observe(total_us);
    }

    /// A heartbeat was sent.
    pub fn heartbeat(&self) {
        self.heartbeats.inc();
    }

    /// A request was refused before it was anybody's.
    pub fn refused(&self, reason: Reason) {
        self.refusals.with_label_values(&[reason.code()]).inc();
    }

    /// A request for the CMS was answered; 0 where no answer was begun.
    pub fn cms_request(&self, status: u16) {
        self.cms_requests[usize::from(status / 100).min(5)].inc();
    }

    /// An MCP upstream failed. Use [`super::event::upstream_failed`] to log it, too.
    pub fn upstream_failure(&self, server: &str, kind: UpstreamFailure) {
        let servers = self.servers.load();
        let row = servers.binary_search_by(|row| row.handle.as_str().cmp(server));
        row.map_or(&self.unknown, |i| &servers[i]).failures[kind as usize].inc();
    }

    /// We failed ourselves. Use [`super::event::internal_error`] to log it, too.
    pub fn internal_error(&self) {
        self.internal_errors.inc();
    }

    /// A downstream connection was accepted.
    pub fn connection_accepted(&self) {
        self.connections.inc();
    }

    pub fn connection_refused(&self, why: ConnectionRefusal) {
        self.connections_refused[why as usize].inc();
    }

    /// What the proxy says, when somebody scrapes.
    pub fn observe_proxy(&self, proxy: &ProxyReading) {
        self.requests_in_flight.set(integer(proxy.requests_in_flight));
        self.connections_open.set(integer(proxy.connections_open));
        self.connections_limit.set(integer(proxy.connections_limit));
        self.in_flight_bytes.set(integer(proxy.in_flight_bytes));
        self.in_flight_limit.set(integer(proxy.in_flight_limit_bytes));
        self.access_log_dropped.set(0, proxy.access_log_dropped);
    }

    /// What the rate limits say, when somebody scrapes.
    pub fn observe_limits(&self, limits: &LimitsReading) {
        for (gauge, value) in self.limits_mode.iter().zip(StoreMode::ALL) {
            gauge.set(i64::from(*value == limits.mode));
        }
        for (gauge, value) in self.limits_breaker.iter().zip(Breaker::ALL) {
            gauge.set(i64::from(*value == limits.breaker));
        }
        self.limits_openings.set(0, limits.openings);
        self.limits_fallbacks.set(0, limits.fallbacks);
        self.limits_buckets.set(integer(limits.buckets));
        for (index, total) in limits.errors.iter().enumerate() {
            self.limits_errors.set(index, *total);
        }
        self.limits_duration.replace(&limits.latency_counts, limits.latency_sum_us);
    }

    /// What the cache of verified tokens says, when somebody scrapes; hits and misses since the start.
    pub fn observe_tokens(&self, hits: u64, misses: u64, entries: u64) {
        self.token_hits.set(0, hits);
        self.token_misses.set(0, misses);
        self.token_entries.set(integer(entries));
    }

    /// Records that wait.
    pub fn audit_queue(&self, length: usize) {
        self.audit_queue.set(integer(length as u64));
    }

    pub fn audit_lag(&self, lag: Duration) {
        self.audit_lag.set(lag.as_secs_f64());
    }

    /// `count` lines were written.
    pub fn audit_written(&self, queue: AuditQueue, count: u64) {
        self.audit_records[queue as usize].inc_by(count);
    }

    /// `count` records are lost. Use [`super::event::audit_dropped`] to log it, too.
    pub fn audit_dropped(&self, why: AuditDrop, count: u64) {
        self.audit_dropped[why as usize].inc_by(count);
    }

    /// Records lost so far, for whatever reason.
    #[must_use]
    pub fn audit_lost(&self) -> u64 {
        self.audit_dropped.iter().map(IntCounter::get).sum()
    }

    pub fn audit_write_error(&self) {
        self.audit_write_errors.inc();
    }

    pub fn audit_disk_free(&self, bytes: u64) {
        self.audit_disk_free.set(integer(bytes));
    }

    /// A policy took effect at `now_ms`.
    pub fn policy(&self, revision: u64, digest: &str, now_ms: u64) {
        self.policy_revision.set(integer(revision));
        self.policy_success.set(integer(now_ms / 1000));
        // One series at a time: the lock keeps a second reload from leaving two.
        let info = self.policy_info.lock();
        info.reset();
        info.with_label_values(&[digest]).set(1);
    }

    pub(super) fn policy_reloaded(&self) {
        self.policy_reloads.inc();
    }

    pub(super) fn policy_refused(&self) {
        self.policy_failures.inc();
    }

    pub(super) fn policy_loosened(&self) {
        self.policy_looser.inc();
    }

    pub fn draining(&self, draining: bool) {
        self.draining.set(i64::from(draining));
    }

    /// All of them in the text exposition format. Reads `/proc/self`.
    #[must_use]
    pub fn render(&self) -> String {
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // The listing itself holds one.
            self.open_fds.set(integer(entries.count().saturating_sub(1) as u64));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.max_fds.set(integer(limit.unwrap_or(u64::MAX)));
        if let Some(bytes) = resident_bytes() {
            self.resident_memory.set(integer(bytes));
        }
        // Writing to a String does not fail; a broken family would be a bug that the tests show.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
