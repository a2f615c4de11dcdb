use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::auth::cache::{Cache, Key};
use crate::auth::token::KeySource;
use crate::base::{Principal, Secret};
use crate::policy::{AuthPolicy, Credential, Reason, RuleSite, Snapshot};

/// Longer tokens are refused unread.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A token that held.
#[derive(Debug)]
pub struct Verified {
    pub principal: Principal,
    /// The token's `jti`.
    pub jti: Option<String>,
}

/// Why a credential was not accepted. Clients see the reason alone; the place is for the audit log and `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token does not hold, or nothing can be verified.
    Reason(Reason),
    /// The token holds, and this entry of `auth.deny_sub` or `auth.deny_jti` names it.
    Listed(RuleSite),
    /// This rule of the program itself refuses it.
    By(Reason, &'static str),
}

impl Refusal {
    /// What the caller is told.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Reason(reason) | Self::By(reason, _) => *reason,
            Self::Listed(_) => Reason::Unauthenticated,
        }
    }

    /// The fact that a decision is made from.
    #[must_use]
    pub const fn credential(&self) -> Credential<'_> {
        match self {
            Self::Reason(reason) => Credential::Refused(*reason),
            Self::Listed(site) => Credential::Denied(site),
            Self::By(reason, word) => Credential::RefusedBy(*reason, word),
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
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
    /// `InternalError` when no secret is configured, else `Unauthenticated`; with the entry of a deny list that named
    /// it.
    pub fn verify(&self, snapshot: &Snapshot, token: &str, now_ms: u64) -> Result<Arc<Verified>, Refusal> {
        let policy = &snapshot.auth;
        if policy.secrets.iter().all(Secret::is_empty) {
            return Err(Reason::InternalError.into());
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::Unauthenticated.into());
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
        match listed(policy, &verified.principal, verified.jti.as_deref()) {
            Some(site) => Err(Refusal::Listed(site.clone())),
            None => Ok(verified),
        }
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

/// The entry of `auth.deny_sub` or `auth.deny_jti` that names this caller. Asked on every hit of the cache, so that a
/// denied token ends with the reload that denies it.
#[must_use]
pub fn listed<'a>(policy: &'a AuthPolicy, principal: &Principal, jti: Option<&str>) -> Option<&'a RuleSite> {
    let by_sub = policy.deny_sub.iter().find(|(sub, _)| sub.trim() == principal.subject());
    let by_jti = || policy.deny_jti.iter().find(|(denied, _)| jti == Some(denied));
    by_sub.or_else(by_jti).map(|(_, site)| site)
}
