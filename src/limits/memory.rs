use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::{Future, ready};
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Store, Verdict, length_ms, retry_after_s, share_principal};
use crate::base::Digest;
use crate::policy::{Charge, RateKey, Window};

/// Buckets in all; at about 150 bytes each they stay under 10 MiB.
const CAPACITY: usize = 65_536;
const SHARDS: usize = 32;
/// By how much the clock readings of two threads may differ; a window that lies further ahead than its length and
/// this was opened before the clock was set back.
const SKEW_MS: u64 = 1_000;

/// Windows counted in this process.
///
/// When all buckets are taken by windows that still run, requests that would need a further one are refused until
/// the first of them ends: a flood of identities must not buy anybody an unlimited one.
#[derive(Debug)]
pub struct MemoryStore {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

/// Buckets by principal: one lock and one lookup serve all charges of a request, and the few buckets of one
/// principal are told apart by a scan that allocates nothing.
#[derive(Debug)]
struct Shard {
    principals: HashMap<Digest, Vec<Bucket>>,
    capacity: usize,
    /// Buckets in all.
    len: usize,
    /// Buckets made since the last sweep.
    made: usize,
    /// No bucket ends before this.
    earliest_end_ms: u64,
}

#[derive(Debug)]
struct Bucket {
    key: RateKey,
    window: Window,
    count: u32,
    ends_ms: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl MemoryStore {
    /// A store of about `buckets` buckets (rounded up to a multiple of its shards).
    #[must_use]
    pub fn with_capacity(buckets: usize) -> Self {
        Self::sharded(buckets, SHARDS)
    }

    fn sharded(buckets: usize, shards: usize) -> Self {
        let capacity = buckets.div_ceil(shards).max(1);
        Self { shards: (0..shards).map(|_| Mutex::new(Shard::new(capacity))).collect(), hasher: RandomState::new() }
    }

    /// [`Store::reserve`] without a future around it.
    #[must_use]
    pub fn take(&self, charges: &[Charge], now_ms: u64) -> Verdict {
        let Some(first) = charges.first() else { return Verdict::Admitted };
        if !share_principal(charges) {
            return Verdict::Unavailable;
        }
        // Callers choose principals, so the shard comes from a keyed hash.
        let hash = self.hasher.hash_one(first.key.principal);
        let shard = usize::try_from(hash % self.shards.len() as u64).unwrap_or_default();
        self.shards[shard].lock().take(charges, now_ms)
    }

    /// Buckets held now, those that have expired and were not swept yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len).sum()
    }

    /// Whether it holds no bucket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Store for MemoryStore {
    fn reserve(&self, charges: &[Charge], now_ms: u64) -> impl Future<Output = Verdict> + Send {
        ready(self.take(charges, now_ms))
    }
}

impl Shard {
    fn new(capacity: usize) -> Self {
        Self { principals: HashMap::new(), capacity, len: 0, made: 0, earliest_end_ms: u64::MAX }
    }

    fn take(&mut self, charges: &[Charge], now_ms: u64) -> Verdict {
        let principal = charges[0].key.principal;
        let mut missing = 0;
        let mut refused = None;
        let buckets = self.principals.get_mut(&principal).map_or(&mut [][..], Vec::as_mut_slice);
        for (index, charge) in charges.iter().enumerate() {
            let (count, left_ms) = match buckets.iter_mut().find(|bucket| bucket.is_for(charge)) {
                Some(bucket) => bucket.peek(now_ms),
                None => {
                    missing += 1;
                    (0, length_ms(charge.window))
                }
            };
            if count >= charge.limit && refused.is_none_or(|(longest, _)| left_ms > longest) {
                refused = Some((left_ms, index));
            }
        }
        if let Some((left_ms, charge)) = refused {
            return Verdict::Refused { retry_after_s: retry_after_s(left_ms), charge };
        }
        if missing > 0 && !self.make_room(missing, now_ms) {
            let left_ms = self.earliest_end_ms.saturating_sub(now_ms);
            return Verdict::Refused { retry_after_s: retry_after_s(left_ms), charge: 0 };
        }
        // Making room may have swept this principal away.
        let buckets = self.principals.entry(principal).or_default();
        for charge in charges {
            if let Some(bucket) = buckets.iter_mut().find(|bucket| bucket.is_for(charge)) {
                bucket.count(now_ms);
            } else {
                let bucket = Bucket::open(charge, now_ms);
                self.earliest_end_ms = self.earliest_end_ms.min(bucket.ends_ms);
                self.len += 1;
                self.made += 1;
                buckets.push(bucket);
            }
        }
        Verdict::Admitted
    }

    /// Makes room for `wanted` buckets, by a sweep when the shard is full or has doubled since the last one: each
    /// bucket made pays for a constant share of the sweeps.
    fn make_room(&mut self, wanted: usize, now_ms: u64) -> bool {
        let grown = self.made > 64 && self.made > self.len / 2;
        let full = self.len + wanted > self.capacity;
        if (full || grown) && self.earliest_end_ms <= now_ms {
            self.sweep(now_ms);
        }
        // A request's own buckets may exceed a tiny shard that is otherwise empty.
        self.len + wanted <= self.capacity || self.len == 0
    }

    fn sweep(&mut self, now_ms: u64) {
        let mut len = 0;
        let mut earliest = u64::MAX;
        self.principals.retain(|_, buckets| {
            buckets.retain(|bucket| bucket.ends_ms > now_ms);
            len += buckets.len();
            earliest = buckets.iter().map(|bucket| bucket.ends_ms).fold(earliest, u64::min);
            !buckets.is_empty()
        });
        if self.principals.capacity() / 4 > self.principals.len() {
            self.principals.shrink_to_fit();
        }
        self.len = len;
        self.made = 0;
        self.earliest_end_ms = earliest;
    }
}

impl Bucket {
    fn open(charge: &Charge, now_ms: u64) -> Self {
        Self { key: charge.key.clone(), window: charge.window, count: 1, ends_ms: ends_ms(charge.window, now_ms) }
    }

    fn is_for(&self, charge: &Charge) -> bool {
        self.key.method == charge.key.method
            && self.window == charge.window
            && (Arc::ptr_eq(&self.key.server, &charge.key.server) || self.key.server == charge.key.server)
    }

    /// What the running window has counted, and for how many milliseconds it still runs.
    fn peek(&mut self, now_ms: u64) -> (u32, u64) {
        if self.ends_ms <= now_ms {
            return (0, length_ms(self.window));
        }
        // The clock was set back: the count stays, and nobody waits longer than a window from now.
        if self.ends_ms - now_ms > length_ms(self.window) + SKEW_MS {
            self.ends_ms = ends_ms(self.window, now_ms);
        }
        (self.count, self.ends_ms - now_ms)
    }

    fn count(&mut self, now_ms: u64) {
        if self.ends_ms <= now_ms {
            self.count = 0;
            self.ends_ms = ends_ms(self.window, now_ms);
        }
        self.count = self.count.saturating_add(1);
    }
}

/// When a window that opens now will end.
fn ends_ms(window: Window, now_ms: u64) -> u64 {
    let length = length_ms(window);
    match window {
        Window::FromFirstHit { .. } => now_ms.saturating_add(length),
        Window::Aligned { .. } => (now_ms / length).saturating_add(1).saturating_mul(length),
    }
}

#[cfg(test)]
mod tests;
