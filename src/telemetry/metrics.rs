use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::label::{
    AuditDrop, AuditQueue, Breaker, ConnectionRefusal, StoreError, StoreMode, StreamEnd, UpstreamFailure,
};
use super::name::{Kind, Name};
use super::throttle::Throttle;
use crate::policy::Reason;
use crate::protocol::{Method, MethodClass};

const UNKNOWN: &str = "unknown";
const OK: &str = "ok";
const REQUEST_BUCKETS: [f64; 16] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0];
const STORE_BUCKETS: [f64; 9] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.1];

/// The process's metrics, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    /// Codes that a label may carry, sorted.
    codes: Vec<&'static str>,
    /// One row per handle of the policy, sorted by handle; what is not here counts as `unknown`.
    servers: ArcSwap<Vec<ServerRow>>,
    unknown: ServerRow,
    requests: IntCounterVec,
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
    connections_refused: Vec<IntCounter>,
    in_flight_bytes: IntGauge,
    limits_mode: Vec<IntGauge>,
    limits_breaker: Vec<IntGauge>,
    limits_duration: Histogram,
    limits_errors: Vec<IntCounter>,
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
    policy_mismatch: IntCounter,
    token_hits: IntCounter,
    token_misses: IntCounter,
    token_entries: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    draining: IntGauge,
    pub(super) upstream_lines: Throttle,
    pub(super) connection_lines: Throttle,
    pub(super) audit_lines: Throttle,
    pub(super) internal_lines: Throttle,
}

/// The counters that a permitted request touches, resolved at first use.
struct ServerRow {
    handle: String,
    allowed: [OnceLock<IntCounter>; METHODS],
}

const METHODS: usize = Method::ALL.len() + 2;

impl ServerRow {
    fn new(handle: &str) -> Self {
        Self { handle: handle.to_owned(), allowed: [const { OnceLock::new() }; METHODS] }
    }
}

const fn method_index(method: MethodClass) -> usize {
    match method {
        MethodClass::Known(method) => method as usize,
        MethodClass::Other => METHODS - 2,
        MethodClass::Unknown => METHODS - 1,
    }
}

/// Registers metrics by their [`Name`], so that none exists without its row there.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<C: prometheus::core::Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn opts(name: Name, kind: Kind) -> Opts {
        debug_assert_eq!(name.kind(), kind, "{name:?}");
        Opts::new(name.as_str(), name.help())
    }

    fn counter(&self, name: Name) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::with_opts(Self::opts(name, Kind::Counter))?)
    }

    fn counters(&self, name: Name) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Self::opts(name, Kind::Counter), name.labels())?)
    }

    fn counter_each(&self, name: Name, values: &[&str]) -> prometheus::Result<Vec<IntCounter>> {
        let family = self.counters(name)?;
        values.iter().map(|value| family.get_metric_with_label_values(&[value])).collect()
    }

    fn gauge(&self, name: Name) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::with_opts(Self::opts(name, Kind::Gauge))?)
    }

    fn gauges(&self, name: Name) -> prometheus::Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Self::opts(name, Kind::Gauge), name.labels())?)
    }

    fn gauge_each(&self, name: Name, values: &[&str]) -> prometheus::Result<Vec<IntGauge>> {
        let family = self.gauges(name)?;
        values.iter().map(|value| family.get_metric_with_label_values(&[value])).collect()
    }

    fn histogram(&self, name: Name, buckets: &[f64]) -> prometheus::Result<Histogram> {
        debug_assert_eq!(name.kind(), Kind::Histogram, "{name:?}");
        self.add(Histogram::with_opts(HistogramOpts::new(name.as_str(), name.help()).buckets(buckets.to_vec()))?)
    }
}

macro_rules! words {
    ($label:ty) => {
        &<$label>::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>()
    };
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
        let metrics = Self {
            codes,
            servers: ArcSwap::from_pointee(Vec::new()),
            unknown: ServerRow::new(UNKNOWN),
            requests: r.counters(Name::Requests)?,
            request_duration: r.histogram(Name::RequestDuration, &REQUEST_BUCKETS)?,
            upstream_duration: r.histogram(Name::UpstreamDuration, &REQUEST_BUCKETS)?,
            own_duration: r.histogram(Name::OwnDuration, &REQUEST_BUCKETS)?,
            stream_duration: r.histogram(Name::StreamDuration, &REQUEST_BUCKETS)?,
            streams_open: r.gauge(Name::StreamsOpen)?,
            streams: r.counter(Name::Streams)?,
            heartbeats: r.counter(Name::StreamHeartbeats)?,
            stream_ends: r.counter_each(Name::StreamEnds, words!(StreamEnd))?,
            cms_requests: r.counter_each(Name::CmsRequests, &["1xx", "2xx", "3xx", "4xx", "5xx"])?,
            upstream_failures: r.counters(Name::UpstreamFailures)?,
            internal_errors: r.counter(Name::InternalErrors)?,
            connections_open: r.gauge(Name::ConnectionsOpen)?,
            connections: r.counter(Name::Connections)?,
            connections_refused: r.counter_each(Name::ConnectionsRefused, words!(ConnectionRefusal))?,
            in_flight_bytes: r.gauge(Name::InFlightBytes)?,
            limits_mode: r.gauge_each(Name::LimitsMode, words!(StoreMode))?,
            limits_breaker: r.gauge_each(Name::LimitsBreaker, words!(Breaker))?,
            limits_duration: r.histogram(Name::LimitsDuration, &STORE_BUCKETS)?,
            limits_errors: r.counter_each(Name::LimitsErrors, words!(StoreError))?,
            audit_queue: r.gauge(Name::AuditQueue)?,
            audit_lag: r.add(prometheus::Gauge::with_opts(Registrar::opts(Name::AuditLag, Kind::Gauge))?)?,
            audit_records: r.counter_each(Name::AuditRecords, words!(AuditQueue))?,
            audit_dropped: r.counter_each(Name::AuditDropped, words!(AuditDrop))?,
            audit_write_errors: r.counter(Name::AuditWriteErrors)?,
            audit_disk_free: r.gauge(Name::AuditDiskFree)?,
            policy_revision: r.gauge(Name::PolicyRevision)?,
            policy_info: Mutex::new(r.gauges(Name::PolicyInfo)?),
            policy_success: r.gauge(Name::PolicySuccess)?,
            policy_reloads: r.counter(Name::PolicyReloads)?,
            policy_failures: r.counter(Name::PolicyFailures)?,
            policy_looser: r.counter(Name::PolicyLooser)?,
            policy_mismatch: r.counter(Name::PolicyMismatch)?,
            token_hits: r.counter(Name::TokenCacheHits)?,
            token_misses: r.counter(Name::TokenCacheMisses)?,
            token_entries: r.gauge(Name::TokenCacheSize)?,
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
        Ok(Arc::new(metrics))
    }

    /// Replaces the set of handles that may be a label; counts of handles that stay are kept.
    pub fn set_servers(&self, handles: &[String]) {
        let mut rows: Vec<ServerRow> = handles.iter().map(|handle| ServerRow::new(handle)).collect();
        rows.sort_unstable_by(|a, b| a.handle.cmp(&b.handle));
        rows.dedup_by(|a, b| a.handle == b.handle);
        self.servers.store(Arc::new(rows));
    }

    /// Counts one decision; `code` is `ok` or a [`Reason`]'s code.
    pub fn decision(&self, server: &str, method: MethodClass, allowed: bool, code: &'static str) {
        let servers = self.servers.load();
        let row =
            servers.binary_search_by(|row| row.handle.as_str().cmp(server)).map_or(&self.unknown, |i| &servers[i]);
        if allowed && (code == OK || code.is_empty()) {
            row.allowed[method_index(method)]
                .get_or_init(|| self.requests.with_label_values(&[&row.handle, method.as_str(), "allow", OK]))
                .inc();
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
        self.request_duration.observe(seconds(total_us));
        self.upstream_duration.observe(seconds(upstream_us));
        self.own_duration.observe(seconds(own_us));
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
        self.stream_duration.observe(seconds(total_us));
    }

    /// A heartbeat was sent.
    pub fn heartbeat(&self) {
        self.heartbeats.inc();
    }

    /// An answer of the CMS origin.
    pub fn cms_request(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.cms_requests[class].inc();
    }

    /// An MCP upstream failed. Use [`super::event::upstream_failed`] to log it, too.
    pub fn upstream_failure(&self, server: &str, kind: UpstreamFailure) {
        let servers = self.servers.load();
        let known = servers.binary_search_by(|row| row.handle.as_str().cmp(server)).is_ok();
        self.upstream_failures.with_label_values(&[if known { server } else { UNKNOWN }, kind.as_str()]).inc();
    }

    /// We failed ourselves. Use [`super::event::internal_error`] to log it, too.
    pub fn internal_error(&self) {
        self.internal_errors.inc();
    }

    pub fn connection_opened(&self) {
        self.connections.inc();
        self.connections_open.inc();
    }

    pub fn connection_closed(&self) {
        self.connections_open.dec();
    }

    pub fn connection_refused(&self, why: ConnectionRefusal) {
        self.connections_refused[why as usize].inc();
    }

    /// What buffered bodies take now.
    pub fn in_flight(&self, bytes: usize) {
        self.in_flight_bytes.set(integer(bytes as u64));
    }

    /// The mode that rate limits run in. Use [`super::event::limits_mode_changed`] to log it, too.
    pub fn limits_mode(&self, mode: StoreMode) {
        for (gauge, value) in self.limits_mode.iter().zip(StoreMode::ALL) {
            gauge.set(i64::from(*value == mode));
        }
    }

    pub fn limits_breaker(&self, state: Breaker) {
        for (gauge, value) in self.limits_breaker.iter().zip(Breaker::ALL) {
            gauge.set(i64::from(*value == state));
        }
    }

    /// One round trip to the store of rate limits.
    pub fn limits_seconds(&self, elapsed: Duration) {
        self.limits_duration.observe(elapsed.as_secs_f64());
    }

    pub fn limits_error(&self, kind: StoreError) {
        self.limits_errors[kind as usize].inc();
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

    /// The executor judged a request under another revision.
    pub fn policy_mismatch(&self) {
        self.policy_mismatch.inc();
    }

    /// The cache of verified tokens: hits and misses since the start, and how many it holds.
    pub fn token_cache(&self, hits: u64, misses: u64, entries: usize) {
        for (counter, total) in [(&self.token_hits, hits), (&self.token_misses, misses)] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.token_entries.set(integer(entries as u64));
    }

    pub fn draining(&self, draining: bool) {
        self.draining.set(i64::from(draining));
    }

    /// All of them in the text exposition format. Reads `/proc/self/fd`.
    #[must_use]
    pub fn render(&self) -> String {
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // The listing itself holds one.
            self.open_fds.set(integer(entries.count().saturating_sub(1) as u64));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.max_fds.set(integer(limit.unwrap_or(u64::MAX)));
        // Writing to a String does not fail; a broken family would be a bug that the tests show.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Arc<Metrics> {
        Metrics::new(&["content".to_owned(), "archive".to_owned()]).expect("registers")
    }

    #[test]
    fn decisions_are_counted_under_closed_labels() {
        let metrics = metrics();
        let call = MethodClass::Known(Method::ToolsCall);
        metrics.decision("content", call, true, "ok");
        metrics.decision("content", call, true, "ok");
        metrics.decision("content", call, true, "upstream_failed");
        metrics.decision("evil\"} 1\n", call, false, "tool_denied");
        metrics.decision("archive", MethodClass::Unknown, false, "made_up");
        let text = metrics.render();
        for line in [
            r#"{code="ok",decision="allow",method="tools/call",server="content"} 2"#,
            r#"{code="upstream_failed",decision="allow",method="tools/call",server="content"} 1"#,
            r#"{code="tool_denied",decision="deny",method="tools/call",server="unknown"} 1"#,
            r#"{code="other",decision="deny",method="unknown",server="archive"} 1"#,
        ] {
            assert!(text.contains(&format!("mcp_sidecar_requests_total{line}\n")), "{line} in\n{text}");
        }
        assert_eq!((metrics.decided(true), metrics.decided(false)), (3, 2));
    }

    #[test]
    fn methods_have_distinct_places() {
        let mut places: Vec<usize> = Method::ALL.into_iter().map(|m| method_index(MethodClass::Known(m))).collect();
        places.extend([method_index(MethodClass::Other), method_index(MethodClass::Unknown)]);
        places.sort_unstable();
        assert_eq!(places, (0..METHODS).collect::<Vec<_>>());
    }

    #[test]
    fn counts_survive_a_change_of_servers() {
        let metrics = metrics();
        let ping = MethodClass::Known(Method::Ping);
        metrics.decision("content", ping, true, "ok");
        metrics.set_servers(&["content".to_owned(), "new".to_owned()]);
        metrics.decision("content", ping, true, "ok");
        metrics.decision("archive", ping, true, "ok");
        let text = metrics.render();
        assert!(text.contains(r#"method="ping",server="content"} 2"#), "{text}");
        assert!(text.contains(r#"method="ping",server="unknown"} 1"#), "{text}");
    }

    #[test]
    fn every_name_is_registered_and_rendered() {
        let metrics = metrics();
        metrics.decision("content", MethodClass::Other, false, "forbidden");
        metrics.upstream_failure("content", UpstreamFailure::Connect);
        metrics.policy(7, "abc", 1_700_000_000_500);
        let text = metrics.render();
        for name in Name::ALL {
            let declared = format!("# TYPE {} {}\n", name.as_str(), name.kind().as_str());
            assert!(text.contains(&declared), "{declared}");
        }
    }

    #[test]
    fn one_mode_one_state_and_one_digest_at_a_time() {
        let metrics = metrics();
        metrics.limits_mode(StoreMode::Redis);
        metrics.limits_mode(StoreMode::Local);
        metrics.limits_breaker(Breaker::Open);
        metrics.policy(1, "old", 0);
        metrics.policy(2, "new", 0);
        let text = metrics.render();
        assert!(text.contains("store_mode{mode=\"local\"} 1\n") && text.contains("store_mode{mode=\"redis\"} 0\n"));
        assert!(text.contains("breaker_state{state=\"open\"} 1\n"));
        assert!(text.contains("policy_info{digest=\"new\"} 1\n") && !text.contains("digest=\"old\""));
    }

    #[test]
    fn file_descriptors_are_read_from_the_system() {
        let metrics = metrics();
        let _ = metrics.render();
        assert!(metrics.open_fds.get() > 2 && metrics.max_fds.get() >= metrics.open_fds.get());
    }
}
