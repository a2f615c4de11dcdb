//! Who is calling: bearer tokens are verified here, and development tokens minted.
//!
//! Invariants: no I/O and no clock of its own (times are judged against the caller's `now_ms`, leeway 0). Only
//! positive results are cached; an entry dies with its token and with the keys, and the deny lists count on every
//! hit. Refusals are [`Reason`](crate::policy::Reason)s that tell a client nothing about why.
//!
//! Non-goals: scopes (policy decides), sessions.

mod bearer;
mod cache;
mod mint;
mod token;
mod verifier;

#[cfg(test)]
mod tests;

pub use bearer::bearer;
pub use mint::{MintClaims, mint};
pub use verifier::{CacheStats, Refusal, Verified, Verifier, listed};
