use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::auth::Verified;
use crate::base::Digest;

/// Shards, so that workers seldom wait for each other.
const SHARDS: usize = 16;

/// Which token, verified with which keys: SHA-256 of the token, and the generation.
pub(in crate::auth) type CacheKey = ([u8; 32], Digest);

/// Tokens that were verified. Bounded; an entry dies with its token.
pub(in crate::auth) struct Cache {
    shards: Vec<RwLock<HashMap<CacheKey, Arc<Verified>>>>,
    per_shard: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What the cache did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
    pub entries: usize,
}

impl Cache {
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            per_shard: capacity.div_ceil(SHARDS).max(1),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: &CacheKey) -> &RwLock<HashMap<CacheKey, Arc<Verified>>> {
        &self.shards[usize::from(key.0[0]) % SHARDS]
    }

    /// The verified token, if it is still alive at `now_s`.
    pub fn find(&self, key: &CacheKey, now_s: u64) -> Option<Arc<Verified>> {
        let found = self.shard(key).read().get(key).filter(|verified| verified.lives_at(now_s)).cloned();
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Remembers a token. A full shard first loses its dead entries, then any one.
    pub fn keep(&self, key: CacheKey, verified: Arc<Verified>, now_s: u64) {
        let mut shard = self.shard(&key).write();
        if shard.len() >= self.per_shard {
            shard.retain(|(_, generation), verified| *generation == key.1 && verified.lives_at(now_s));
        }
        if shard.len() >= self.per_shard
            && let Some(victim) = shard.keys().next().copied()
        {
            shard.remove(&victim);
        }
        shard.insert(key, verified);
    }

    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: self.shards.iter().map(|shard| shard.read().len()).sum(),
        }
    }
}
