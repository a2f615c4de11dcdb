//! What operators see: the metrics, the log, and events that write both together.
//!
//! Invariants: every metric has its name in [`Name`], every label its values in a closed set here or in the policy;
//! no error text becomes a label. What the hot path calls costs a lookup in a short sorted list and a few atomic
//! additions. Non-goals: the audit log (its own room), tracing across processes.

pub mod event;
mod label;
mod log;
mod metrics;
mod name;
mod throttle;

pub use label::{AuditDrop, AuditQueue, Breaker, ConnectionRefusal, StoreError, StoreMode, StreamEnd, UpstreamFailure};
pub use log::{LogError, LogFormat, LogHandle, log_init};
pub use metrics::Metrics;
pub use name::{Kind, Name};
pub use throttle::Throttle;
