use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::auth::Verified;

const SHARDS: usize = 16;

/// SHA-256 over the generation of the keys and the token.
pub(super) type Key = [u8; 32];

/// A bounded map of verified tokens. When a shard is full, its oldest entry goes.
#[derive(Debug)]
pub(super) struct Cache {
    shards: Vec<RwLock<Shard>>,
    shard_capacity: usize,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Key, Arc<Verified>>,
    /// In order of arrival; holds every key of `entries`, so it bounds them.
    order: VecDeque<Key>,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, shard_capacity: capacity.div_ceil(SHARDS) }
    }

    pub(super) fn find(&self, key: &Key) -> Option<Arc<Verified>> {
        self.shard(key).read().entries.get(key).cloned()
    }

    pub(super) fn insert(&self, key: Key, verified: Arc<Verified>) {
        if self.shard_capacity == 0 {
            return;
        }
        let mut shard = self.shard(&key).write();
        if shard.entries.insert(key, verified).is_some() {
            return;
        }
        shard.order.push_back(key);
        while shard.order.len() > self.shard_capacity {
            if let Some(oldest) = shard.order.pop_front() {
                shard.entries.remove(&oldest);
            }
        }
    }

    /// Forgets a token that has died.
    pub(super) fn remove(&self, key: &Key) {
        let mut shard = self.shard(key).write();
        if shard.entries.remove(key).is_some() {
            shard.order.retain(|other| other != key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().entries.len()).sum()
    }

    fn shard(&self, key: &Key) -> &RwLock<Shard> {
        &self.shards[usize::from(key[0]) % SHARDS]
    }
}
