//! Rate limits: one trait, [`Store`], with a store in memory and one in Redis, and [`Limits`], which the proxy holds.
//!
//! Invariants:
//! - A window admits exactly as many charges as its limit. What is refused is not counted and extends nothing.
//! - The charges of one request are taken all or none. They share a principal and name distinct buckets.
//! - A bucket is named by its key and the kind of its window, not by its limit: a reload that changes a limit keeps
//!   the count.
//! - Memory is bounded, and nothing runs by itself: no timers, no tasks; what expired is swept by later calls.
//! - In doubt a store says [`Verdict::Unavailable`]; only [`Limits`], told so by the policy, turns that into a pass.
//!
//! While Redis is away and the policy says `local`, each replica admits its share (`limit / replicas`, at least 1).
//! Whatever Redis does, one window thus admits at most `limit + replicas × max(1, limit / replicas)`, plus `limit`
//! for each time Redis lost its data.
//!
//! Non-goals: deciding what is charged (that is the policy's), leasing parts of a quota to replicas.

mod failed_auth;
mod memory;
mod redis;
mod service;

use std::future::Future;

use crate::policy::{Charge, Window};

pub use failed_auth::{FailedAuth, group as address_group};
pub use memory::MemoryStore;
pub use redis::RedisStore;
pub use service::{Limits, Mode, Stats};

/// What became of a request's charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All were taken.
    Admitted,
    /// None was taken, because this one's window is full.
    Refused {
        /// Seconds until all the windows that are full have ended; at least 1.
        retry_after_s: u32,
        /// Index of the charge that has to wait longest.
        charge: usize,
    },
    /// Nobody can tell.
    Unavailable,
}

/// Counters of windows.
pub trait Store: Send + Sync {
    /// Takes all the charges, or none. No charges are admitted without any work.
    ///
    /// `now_ms` is wall time since the Unix epoch; a store with a clock of its own ignores it.
    fn reserve(&self, charges: &[Charge], now_ms: u64) -> impl Future<Output = Verdict> + Send;
}

/// Whether the charges keep to what stores rely on: one principal for all of them.
fn share_principal(charges: &[Charge]) -> bool {
    charges.windows(2).all(|pair| pair[0].key.principal == pair[1].key.principal)
}

/// A window's length in milliseconds, at least a second's.
const fn length_ms(window: Window) -> u64 {
    let (Window::FromFirstHit { seconds } | Window::Aligned { seconds }) = window;
    let seconds = if seconds == 0 { 1 } else { seconds };
    seconds as u64 * 1_000
}

/// Milliseconds to wait, as whole seconds to tell a client: rounded up, at least 1.
fn retry_after_s(left_ms: u64) -> u32 {
    u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}
