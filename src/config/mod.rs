//! TOML → spanned values → validated settings and snapshots, or a report of every problem at once.
//!
//! Invariants: unknown keys are errors; what restricts is never defaulted; a policy ends with `[end]`, so that one
//! cut short is refused. Non-goals: this room opens no sockets and knows no service.

mod address;
mod auth;
mod diff;
mod document;
pub mod embedded;
mod executor;
mod feature;
mod hint;
pub mod last_good;
mod manager;
mod mismatch;
mod overlap;
mod pattern;
mod policy;
mod reader;
mod report;
mod server;
mod sidecar;
mod source;
#[cfg(test)]
mod tests;
mod upstream;
mod watch;

pub use diff::loosened;
pub use executor::{Executor, inspect_executor, load_executor};
pub use mismatch::{Unkept, mismatches};
pub use policy::{PolicyContext, inspect_policy, load_policy, models};
pub use reader::Effective;
pub use report::{Problem, Report};
pub use sidecar::{Log, Sidecar, inspect_sidecar, load_sidecar};
pub use source::{Overrides, Source, parse_set};
pub use watch::{Watch, watch};

/// Top-level keys of sidecar.toml.
pub(in crate::config) const SIDECAR_KEYS: &[&str] =
    &["listen", "admin", "control", "upstreams", "cms", "redis", "audit", "runtime", "timeouts", "memory", "log"];
/// Top-level keys of executor.toml.
pub(in crate::config) const EXECUTOR_KEYS: &[&str] = &["executor", "database", "queue_worker"];
/// Top-level keys of policy.toml.
pub(in crate::config) const POLICY_KEYS: &[&str] = &[
    "enable",
    "toolset_version",
    "mode",
    "route",
    "auth",
    "rate_limit",
    "limits",
    "stream",
    "security",
    "logging",
    "trace",
    "domain",
    "compat",
    "acl",
    "actor",
    "queue",
    "idempotency",
    "i18n",
    "rules",
    "manager",
    "servers",
    "end",
];

pub(in crate::config) fn all_keys() -> Vec<&'static str> {
    [SIDECAR_KEYS, EXECUTOR_KEYS, POLICY_KEYS].concat()
}
