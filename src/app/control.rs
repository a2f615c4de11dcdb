use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::admin::Control;
use crate::app::policy::PolicyStore;
use crate::audit::Audit;
use crate::auth::Verifier;
use crate::executor::Executor;
use crate::limits::{self, Limits};
use crate::policy::OnStoreFailure;
use crate::proxy::Gateway;
use crate::telemetry::{Breaker, LimitsReading, LogHandle, Metrics, StoreMode};

/// What operators see of, and ask of, this process.
pub struct Panel {
    pub policy: Arc<PolicyStore>,
    pub metrics: Arc<Metrics>,
    pub log: Option<LogHandle>,
    pub gateway: Option<Arc<Gateway>>,
    pub limits: Option<Arc<Limits>>,
    pub verifier: Option<Arc<Verifier>>,
    pub audit: Option<Audit>,
    pub executor: Option<Arc<Executor>>,
    /// What the executor's database says; looked at each second.
    pub executor_problem: Arc<Mutex<Option<String>>>,
    pub stopping: AtomicBool,
    pub stop: Notify,
    pub started_ms: u64,
}

impl Panel {
    /// Brings the gauges that nobody pushes up to date.
    fn refresh(&self) {
        if let Some(verifier) = &self.verifier {
            let cache = verifier.stats();
            self.metrics.observe_tokens(cache.hits, cache.misses, cache.len as u64);
        }
        if let Some(gateway) = &self.gateway {
            self.metrics.observe_proxy(&gateway.reading());
        }
        if let Some(limits) = &self.limits {
            self.metrics.observe_limits(&self.limits_reading(&limits.stats()));
        }
        if let Some(executor) = &self.executor {
            executor.observe();
        }
    }

    fn limits_reading(&self, stats: &limits::Stats) -> LimitsReading {
        LimitsReading {
            mode: self.store_mode(stats.mode),
            breaker: if stats.redis.open { Breaker::Open } else { Breaker::Closed },
            openings: stats.redis.openings,
            fallbacks: stats.fallbacks,
            buckets: stats.buckets as u64,
            errors: stats.redis.by_kind,
            latency_counts: stats.redis.latency.counts,
            latency_sum_us: stats.redis.latency.sum_us,
        }
    }

    /// Who counts at the moment, or what happens while the shared store cannot.
    fn store_mode(&self, mode: limits::Mode) -> StoreMode {
        match (mode, self.policy.current().load().rate_limit.on_store_failure) {
            (limits::Mode::Memory, _) => StoreMode::Memory,
            (limits::Mode::Redis, _) => StoreMode::Redis,
            (limits::Mode::Fallback, OnStoreFailure::Local) => StoreMode::Local,
            (limits::Mode::Fallback, OnStoreFailure::Deny) => StoreMode::Deny,
            (limits::Mode::Fallback, OnStoreFailure::Allow) => StoreMode::Allow,
        }
    }
}

impl Control for Panel {
    fn status(&self) -> Value {
        let snapshot = self.policy.current().load();
        let mut reasons = self.readiness();
        reasons.sort();
        json!({
            "name": "mcp-sidecar",
            "version": env!("CARGO_PKG_VERSION"),
            "started_ms": self.started_ms,
            "ready": reasons.is_empty(),
            "reasons": reasons,
            "draining": self.stopping.load(Ordering::Relaxed),
            "policy": {
                "revision": snapshot.revision,
                "digest": snapshot.digest,
                "loaded_ms": snapshot.loaded_at_ms,
                "last_problem": self.policy.problem(),
                "servers": snapshot.servers.iter().map(|server| server.handle.to_string()).collect::<Vec<_>>(),
            },
            "limits": self.limits.as_ref().map(|limits| self.store_mode(limits.mode()).as_str()),
            "requests_in_flight": self.gateway.as_ref().map(|gateway| gateway.in_flight()),
            "body_bytes_in_flight": self.gateway.as_ref().map(|gateway| gateway.in_flight_bytes()),
            "connections": self.gateway.as_ref().map(|gateway| gateway.gate().open()),
        })
    }

    fn readiness(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("draining".to_owned());
        }
        if let Some(trouble) = self.audit.as_ref().and_then(Audit::trouble) {
            reasons.push(format!("audit: {trouble}"));
        }
        if let Some(limits) = &self.limits
            && self.store_mode(limits.mode()) == StoreMode::Deny
        {
            reasons.push("limits: redis is unavailable and rate_limit.on_store_failure is \"deny\"".to_owned());
        }
        if let Some(problem) = self.executor_problem.lock().as_ref() {
            reasons.push(format!("executor: {problem}"));
        }
        reasons
    }

    fn metrics(&self) -> String {
        self.refresh();
        self.metrics.render()
    }

    fn reload(&self) -> Result<String, String> {
        self.policy.reload(&self.metrics)
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        match &self.log {
            Some(log) => log.set_level(level).map_err(|error| error.to_string()),
            None => Err("this process has no log".to_owned()),
        }
    }

    fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.notify_one();
    }
}
