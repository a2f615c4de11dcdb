use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::auth::cache::{Cache, Key};
use crate::auth::token::KeySource;
use crate::base::{Principal, Secret};
use crate::policy::{AuthPolicy, Reason, Snapshot};

/// Longer tokens are refused unread.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A token that held.
#[derive(Debug)]
pub struct Verified {
    pub principal: Principal,
    /// The token's `jti`.
    pub jti: Option<String>,
}

/// How the cache of verified tokens does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
    /// Entries held now.
    pub len: usize,
}

/// Verifies bearer tokens and remembers those that held.
#[derive(Debug)]
pub struct Verifier {
    cache: Cache,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Verifier {
    /// A verifier that remembers about `capacity` tokens; 0 remembers none.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { cache: Cache::new(capacity), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Who the bearer of `token` is (emcp.md 2.1).
    ///
    /// # Errors
    /// `InternalError` when no secret is configured, else `Unauthenticated`.
    pub fn verify(&self, snapshot: &Snapshot, token: &str, now_ms: u64) -> Result<Arc<Verified>, Reason> {
        let policy = &snapshot.auth;
        if policy.secrets.iter().all(Secret::is_empty) {
            return Err(Reason::InternalError);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::Unauthenticated);
        }
        let now_s = now_ms / 1000;
        let key: Key = Sha256::new().chain_update(policy.generation.0).chain_update(token).finalize().into();
        let verified = match self.find(&key, now_s) {
            Some(verified) => verified,
            None => {
                let claims = KeySource::Hs256(&policy.secrets).open(token).ok_or(Reason::Unauthenticated)?;
                let accepted = claims.accept(policy, now_s).ok_or(Reason::Unauthenticated)?;
                let verified = Arc::new(Verified { principal: accepted.principal, jti: accepted.jti });
                self.cache.insert(key, Arc::clone(&verified));
                verified
            }
        };
        if denied(policy, &verified) { Err(Reason::Unauthenticated) } else { Ok(verified) }
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            len: self.cache.len(),
        }
    }

    fn find(&self, key: &Key, now_s: u64) -> Option<Arc<Verified>> {
        let found = self.cache.find(key);
        let alive = found.filter(|verified| {
            let alive = verified.principal.expires_at_s().is_none_or(|exp| exp > now_s);
            if !alive {
                self.cache.remove(key);
            }
            alive
        });
        let counter = if alive.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        alive
    }
}

/// Asked on every hit, so that a denied token ends with the reload that denies it.
fn denied(policy: &AuthPolicy, verified: &Verified) -> bool {
    let subject = verified.principal.subject();
    policy.deny_sub.iter().any(|(sub, _)| sub.trim() == subject)
        || verified.jti.as_ref().is_some_and(|jti| policy.deny_jti.iter().any(|(denied, _)| denied == jti))
}
