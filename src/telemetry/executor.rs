use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{IntCounter, IntGauge};

use super::label::{DatabaseError, ExecutorOutcome, PoolState, ToolClass};
use super::metrics::{Metrics, REQUEST_BOUNDS_US};
use super::name::Name;
use super::registrar::Registrar;
use super::series::{Histogram, Totals};

/// Failures of the database, counted where they happen; read when somebody scrapes.
#[derive(Debug, Default)]
pub struct DatabaseErrors([AtomicU64; DatabaseError::ALL.len()]);

impl DatabaseErrors {
    pub fn count(&self, kind: DatabaseError) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// In the order of [`DatabaseError::ALL`].
    #[must_use]
    pub fn totals(&self) -> [u64; DatabaseError::ALL.len()] {
        std::array::from_fn(|index| self.0[index].load(Ordering::Relaxed))
    }
}

/// The database pool at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolReading {
    pub in_use: u64,
    pub idle: u64,
    pub limit: u64,
    /// Statements started so far.
    pub statements: u64,
    /// As [`DatabaseErrors::totals`].
    pub errors: [u64; DatabaseError::ALL.len()],
}

/// What the executor counts; part of the process's metrics where there is an executor.
pub struct ExecutorMetrics {
    /// By class of tool, then by outcome.
    requests: Vec<Vec<IntCounter>>,
    duration: Histogram,
    mismatch: IntCounter,
    connections: Vec<IntGauge>,
    connections_limit: IntGauge,
    statements: Totals,
    errors: Totals,
}

impl Metrics {
    /// Adds what an executor counts.
    ///
    /// # Errors
    /// When called twice.
    pub fn executor(&self) -> prometheus::Result<Arc<ExecutorMetrics>> {
        let r = Registrar(&self.registry);
        let requests = r.counters(Name::ExecutorRequests)?;
        let each = |tool: &ToolClass| {
            let outcomes = ExecutorOutcome::ALL.iter();
            outcomes
                .map(|outcome| requests.get_metric_with_label_values(&[tool.as_str(), outcome.as_str()]))
                .collect::<prometheus::Result<Vec<_>>>()
        };
        Ok(Arc::new(ExecutorMetrics {
            requests: ToolClass::ALL.iter().map(each).collect::<prometheus::Result<_>>()?,
            duration: r.histogram(Name::ExecutorDuration, &REQUEST_BOUNDS_US)?,
            mismatch: r.counter(Name::PolicyMismatch)?,
            connections: r.gauge_each(Name::ExecutorConnections, PoolState::WORDS)?,
            connections_limit: r.gauge(Name::ExecutorConnectionsLimit)?,
            statements: r.totals(Name::ExecutorStatements, &[])?,
            errors: r.totals(Name::ExecutorErrors, DatabaseError::WORDS)?,
        }))
    }
}

impl ExecutorMetrics {
    /// One request ended, `us` microseconds after it came.
    pub fn request(&self, tool: ToolClass, outcome: ExecutorOutcome, us: u64) {
        self.requests[tool as usize][outcome as usize].inc();
        self.duration.observe(us);
    }

    /// The executor judged a request under another policy than the sidecar.
    pub fn policy_mismatch(&self) {
        self.mismatch.inc();
    }

    /// What the database pool says, when somebody scrapes.
    pub fn observe_pool(&self, pool: &PoolReading) {
        let integer = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.connections[PoolState::InUse as usize].set(integer(pool.in_use));
        self.connections[PoolState::Idle as usize].set(integer(pool.idle));
        self.connections_limit.set(integer(pool.limit));
        self.statements.set(0, pool.statements);
        for (index, total) in pool.errors.iter().enumerate() {
            self.errors.set(index, *total);
        }
    }
}
