//! The decision: a [`Snapshot`] of the policy, the [`Facts`] of one request, and [`decide`], which is pure.
//!
//! Invariants: no I/O, no clock, no tokio. Unknown means deny. Denials are values ([`Denial`]), not errors. A
//! [`Permit`] can only be made here, from a decision whose charges held; whoever forwards takes one by value.

mod decide;
mod facts;
mod message;
mod outcome;
mod pattern;
mod reason;
mod redact;
#[cfg(test)]
mod sample;
mod scope;
mod snapshot;
#[cfg(test)]
mod tests;

pub use decide::{check_permission, decide, may_call_tools, prompt_allowed, resource_allowed, tool_allowed};
pub use facts::{Body, Credential, Facts, HttpMethod, MediaType, ProtocolHeaders};
pub use message::{I18n, Locale};
pub use outcome::{Charge, Charges, Decision, Denial, LocalAnswer, Outcome, Permit, RateKey, Rule, RuleSite, Window};
pub use pattern::{InvalidPattern, Pattern, PatternSet};
pub use reason::{Reason, Wire};
pub use redact::Redactor;
pub use scope::ScopeMap;
pub use snapshot::{
    AclPolicy, Actor, AuthMode, AuthPolicy, Compat, DomainPolicy, Failover, IdempotencyPolicy, IdentitySource,
    LimitsPolicy, LoggingPolicy, ManagerPolicy, OnStoreFailure, QueueDriver, QueuePolicy, RateLimitPolicy, Routes,
    SecurityPolicy, Server, ServerKind, Snapshot, StreamPolicy, TokenPolicy, TracePolicy,
};
