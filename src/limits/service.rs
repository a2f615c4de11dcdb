use std::sync::atomic::{AtomicU64, Ordering};

use super::{MemoryStore, RedisStore, Store, Verdict};
use crate::policy::{Charge, Charges, OnStoreFailure, RateLimitPolicy};
use crate::redis;

/// Who counts at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// This process, as configured.
    Memory,
    /// Redis.
    Redis,
    /// Redis as configured, but it is away: `rate_limit.on_store_failure` applies.
    Fallback,
}

impl Mode {
    /// The word used in metrics and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Fallback => "fallback",
        }
    }
}

/// What the limits did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    pub mode: Mode,
    /// The connection's numbers; zeros for limits in memory.
    pub redis: redis::Stats,
    /// Requests that `on_store_failure` decided.
    pub fallbacks: u64,
    /// Buckets held in this process.
    pub buckets: usize,
}

/// The limits as the proxy holds them: a store, and what to do when it is away.
#[derive(Debug)]
pub struct Limits {
    shared: Option<RedisStore>,
    local: MemoryStore,
    /// Of those who have proved nothing: they fill no store that others need.
    strangers: MemoryStore,
    fallbacks: AtomicU64,
}

impl Limits {
    /// Limits counted in this process.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            shared: None,
            local: MemoryStore::default(),
            strangers: MemoryStore::default(),
            fallbacks: AtomicU64::new(0),
        }
    }

    /// Limits shared through Redis.
    #[must_use]
    pub fn redis(store: RedisStore) -> Self {
        Self { shared: Some(store), ..Self::memory() }
    }

    /// Connects the calling thread to the store ahead of its first charge; a store that is away is met again then.
    pub async fn connect(&self) {
        if let Some(shared) = &self.shared {
            shared.connect().await;
        }
    }

    /// Takes all the charges or none; while Redis is away, as the policy's `on_store_failure` says. In memory the
    /// future is ready when first polled.
    pub async fn reserve(&self, policy: &RateLimitPolicy, charges: &[Charge], now_ms: u64) -> Verdict {
        self.reserve_in(&self.local, policy, charges, now_ms).await
    }

    /// The same for requests of nobody that was verified, whose keys are of their own choice.
    pub async fn reserve_for_strangers(&self, policy: &RateLimitPolicy, charges: &[Charge], now_ms: u64) -> Verdict {
        self.reserve_in(&self.strangers, policy, charges, now_ms).await
    }

    async fn reserve_in(
        &self,
        local: &MemoryStore,
        policy: &RateLimitPolicy,
        charges: &[Charge],
        now_ms: u64,
    ) -> Verdict {
        let Some(shared) = &self.shared else { return local.take(charges, now_ms) };
        match shared.reserve(charges, now_ms).await {
            Verdict::Unavailable => self.fall_back(local, policy, charges, now_ms),
            verdict => verdict,
        }
    }

    /// Who counts at the moment.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &self.shared {
            None => Mode::Memory,
            Some(shared) if shared.is_open() => Mode::Fallback,
            Some(_) => Mode::Redis,
        }
    }

    /// Asks the shared store whether it counts, through its breaker; true without one. Without it a process that
    /// gets no traffic while the store is away would never learn that it is back.
    pub async fn probe(&self) -> bool {
        match &self.shared {
            None => true,
            Some(shared) => shared.probe().await,
        }
    }

    /// What the limits did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            mode: self.mode(),
            redis: self.shared.as_ref().map(RedisStore::stats).unwrap_or_default(),
            fallbacks: self.fallbacks.load(Ordering::Relaxed),
            buckets: self.local.len() + self.strangers.len(),
        }
    }

    fn fall_back(&self, local: &MemoryStore, policy: &RateLimitPolicy, charges: &[Charge], now_ms: u64) -> Verdict {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
        match policy.on_store_failure {
            OnStoreFailure::Deny => Verdict::Unavailable,
            OnStoreFailure::Allow => Verdict::Admitted,
            OnStoreFailure::Local => {
                let share = |limit: u32| (limit / policy.replicas.max(1)).max(1).min(limit);
                let charges: Charges =
                    charges.iter().map(|charge| Charge { limit: share(charge.limit), ..charge.clone() }).collect();
                local.take(&charges, now_ms)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::{Digest, Secret};
    use crate::policy::{RateKey, Window};

    fn policy(on_store_failure: OnStoreFailure, replicas: u32) -> RateLimitPolicy {
        RateLimitPolicy { enabled: true, per_minute: 60, total_per_minute: 0, on_store_failure, replicas }
    }

    fn charges(limit: u32) -> [Charge; 1] {
        let key = RateKey { principal: Digest([1; 16]), server: "content".into(), method: None };
        [Charge { key, limit, window: Window::FromFirstHit { seconds: 60 } }]
    }

    fn unreachable() -> Limits {
        // Port 1 of loopback: refused at once.
        let url = Secret::new("redis://127.0.0.1:1");
        let settings = redis::Settings { url, timeout: Duration::from_millis(25), prefix: "p".into() };
        Limits::redis(RedisStore::new(redis::Connection::open(&settings).expect("valid"), &settings))
    }

    #[tokio::test]
    async fn a_flood_of_strangers_leaves_room_for_others() {
        let limits = Limits::memory();
        let policy = policy(OnStoreFailure::Deny, 1);
        let of = |number: u64| {
            let mut charges = charges(5);
            charges[0].key.principal = Digest::of(&[&number.to_be_bytes()]);
            charges
        };
        let mut full = 0;
        for stranger in 0..200_000 {
            let verdict = limits.reserve_for_strangers(&policy, &of(stranger), 0).await;
            full += u32::from(verdict != Verdict::Admitted);
        }
        assert!(full > 0, "the flood was too small");
        for known in 0..1000 {
            assert_eq!(limits.reserve(&policy, &of(known), 0).await, Verdict::Admitted);
        }
    }

    #[tokio::test]
    async fn without_redis_the_policy_decides() {
        let cases = [
            (OnStoreFailure::Local, 4, 10, 2),
            (OnStoreFailure::Local, 1, 10, 10),
            (OnStoreFailure::Local, 50, 10, 1),
            (OnStoreFailure::Local, 0, 10, 10),
            (OnStoreFailure::Deny, 1, 10, 0),
            (OnStoreFailure::Allow, 1, 10, 20),
        ];
        for (on_store_failure, replicas, limit, expected) in cases {
            let limits = unreachable();
            let mut admitted = 0;
            for _ in 0..20 {
                let policy = policy(on_store_failure, replicas);
                match limits.reserve(&policy, &charges(limit), 0).await {
                    Verdict::Admitted => admitted += 1,
                    Verdict::Refused { .. } => assert_eq!(on_store_failure, OnStoreFailure::Local),
                    Verdict::Unavailable => assert_eq!(on_store_failure, OnStoreFailure::Deny),
                }
            }
            assert_eq!(admitted, expected, "{on_store_failure:?} / {replicas}");
            let stats = limits.stats();
            assert_eq!((stats.mode, stats.fallbacks, stats.redis.openings), (Mode::Fallback, 20, 1));
            assert_eq!(limits.reserve(&policy(on_store_failure, 1), &[], 0).await, Verdict::Admitted);
        }
    }

    #[tokio::test]
    async fn in_memory_the_policy_of_failures_does_not_matter() {
        let limits = Limits::memory();
        let policy = policy(OnStoreFailure::Allow, 9);
        assert_eq!(limits.reserve(&policy, &charges(1), 0).await, Verdict::Admitted);
        assert_eq!(limits.reserve(&policy, &charges(1), 0).await, Verdict::Refused { retry_after_s: 60, charge: 0 });
        assert_eq!(limits.mode(), Mode::Memory);
    }
}
