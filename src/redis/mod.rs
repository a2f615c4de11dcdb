//! One Redis, shared by everything that must agree across replicas: a multiplexed connection that heals itself, the
//! circuit breaker in front of it, and scripts that run in one round trip.
//!
//! Invariants:
//! - A call ends within the configured timeout, whatever Redis does: connecting happens in a task of its own, and a
//!   caller waits for it no longer than for an answer.
//! - A call that timed out may still have been carried out. Callers must treat "unavailable" as "unknown".
//! - The URL holds credentials; it is never logged, nor part of an error.
//!
//! Non-goals: Cluster and Sentinel topologies, pub/sub, and knowing what the scripts mean.

mod breaker;
mod connection;
mod latency;
mod probe;
mod script;
pub mod settings;
mod warning;

pub use breaker::Breaker;
pub use connection::{Connection, Stats, Unavailable};
pub use latency::{Latency, LatencySnapshot};
pub use probe::{Probe, Trouble};
pub use script::{Call, Script};
pub use settings::{InvalidUrl, Settings};
pub use warning::warnings;
