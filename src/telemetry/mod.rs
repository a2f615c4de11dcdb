//! What operators see: the metrics, the log, and events that write both together.
//!
//! Invariants: every metric has its name in [`Name`], every label its values in a closed set here or in the policy;
//! no error text becomes a label. What the hot path calls costs a lookup in a short sorted list and a few relaxed
//! additions; what others count anyway is read only when somebody scrapes (the `…Reading` types). Non-goals: the audit
//! log (its own room), tracing across processes.

mod bridge;
pub mod event;
mod executor;
mod label;
mod log;
mod metrics;
mod name;
mod queue;
mod registrar;
mod series;
mod throttle;

pub use executor::{DatabaseErrors, ExecutorMetrics, PoolReading};
pub use label::{
    AuditDrop, AuditQueue, Breaker, ConnectionRefusal, DatabaseError, ExecutorOutcome, PoolState, RunOutcome,
    StoreError, StoreMode, StreamEnd, Submission, TaskStatus, ToolClass, UpstreamFailure,
};
pub use log::{LogError, LogFormat, LogHandle, log_init};
pub use metrics::{LimitsReading, Metrics, ProxyReading, STORE_BOUNDS_US};
pub use name::{Kind, Name};
pub use queue::QueueMetrics;
pub use throttle::Throttle;
