use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use sha2::{Digest as _, Sha256};

use crate::auth::cache::{Cache, CacheStats};
use crate::auth::claims::{Claims, seconds};
use crate::base::Principal;
use crate::policy::{AuthPolicy, Reason, Snapshot};

/// A longer token is refused unread, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// A verified token.
#[derive(Clone, Debug)]
pub struct Verified {
    pub principal: Principal,
    pub jti: Option<String>,
}

impl Verified {
    /// `exp` must lie strictly ahead: no leeway.
    pub(in crate::auth) fn lives_at(&self, now_s: u64) -> bool {
        self.principal.expires_at_s().is_none_or(|end| end > now_s)
    }
}

/// Verifies tokens, and remembers those that it verified.
pub struct Verifier {
    cache: Cache,
}

impl Verifier {
    /// A verifier that remembers up to about `capacity` tokens.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { cache: Cache::new(capacity) }
    }

    /// What the cache did so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Verifies a token under the policy's keys (emcp.md 2.1, decisions on tokens).
    ///
    /// # Errors
    /// `Unauthenticated` for whatever is wrong with the token; `InternalError` when there is no secret.
    pub fn verify(&self, snapshot: &Snapshot, token: &str, now_ms: u64) -> Result<Arc<Verified>, Reason> {
        let auth = &snapshot.auth;
        if auth.secrets.is_empty() {
            return Err(Reason::InternalError);
        }
        if token.len() > MAX_TOKEN {
            return Err(Reason::Unauthenticated);
        }
        let now_s = now_ms / 1000;
        let key = (Sha256::digest(token.as_bytes()).into(), auth.generation);
        let verified = match self.cache.find(&key, now_s) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(verify(auth, token, now_s)?);
                self.cache.keep(key, Arc::clone(&verified), now_s);
                verified
            }
        };
        // Looked at on every use, so that a revocation acts with the reload that brings it.
        let subject = verified.principal.subject();
        let denied = auth.deny_sub.iter().any(|(sub, _)| sub == subject)
            || verified.jti.as_ref().is_some_and(|jti| auth.deny_jti.iter().any(|(denied, _)| denied == jti));
        if denied { Err(Reason::Unauthenticated) } else { Ok(verified) }
    }
}

fn verify(auth: &AuthPolicy, token: &str, now_s: u64) -> Result<Verified, Reason> {
    // The library checks structure, algorithm and signature; times and names are checked below, by our clock.
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let claims = auth
        .secrets
        .iter()
        .find_map(|secret| decode::<Claims>(token, &DecodingKey::from_secret(secret.expose()), &validation).ok())
        .ok_or(Reason::Unauthenticated)?
        .claims;
    judge(auth, &claims, now_s).ok_or(Reason::Unauthenticated)
}

/// Whether correctly signed claims hold now.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Unix seconds are far below 2^53, and bounded before the cast")]
fn judge(auth: &AuthPolicy, claims: &Claims, now_s: u64) -> Option<Verified> {
    let now = now_s as f64;
    let exp = seconds(claims.exp.as_ref()).ok()?;
    if exp.is_some_and(|exp| exp.is_nan() || exp <= now) || (exp.is_none() && auth.require_exp) {
        return None;
    }
    match seconds(claims.nbf.as_ref()).ok()? {
        Some(nbf) if nbf > now => return None,
        Some(_) => {}
        None if seconds(claims.iat.as_ref()).ok()?.is_some_and(|iat| iat > now) => return None,
        None => {}
    }
    let issuer = claims.iss.as_ref().and_then(|iss| iss.as_str()).unwrap_or_default();
    if !auth.issuer.is_empty() && issuer != auth.issuer {
        return None;
    }
    if !auth.audience.is_empty() && !claims.is_for(&auth.audience) {
        return None;
    }
    let subject = match &claims.sub {
        None => "",
        Some(sub) => sub.as_str()?.trim(),
    };
    let user_id = claims.user();
    // Without a name there is nobody to count, to audit or to deny.
    if subject.is_empty() && user_id.is_none() {
        return None;
    }
    let expires_at_s = exp.map(|exp| if exp >= 9e15 { 9_000_000_000_000_000 } else { exp as u64 });
    Some(Verified {
        principal: Principal::api(issuer, subject, user_id, claims.scope_list(), expires_at_s),
        jti: claims.jti.as_ref().and_then(|jti| jti.as_str()).map(str::to_owned),
    })
}

/// The token of an `Authorization` header: the scheme in any case, one or more spaces.
///
/// # Errors
/// `Unauthenticated` when it is missing or of another scheme.
pub fn bearer(header: Option<&[u8]>) -> Result<&str, Reason> {
    let text = header.and_then(|value| std::str::from_utf8(value).ok()).ok_or(Reason::Unauthenticated)?;
    let (scheme, token) = text.split_once(' ').ok_or(Reason::Unauthenticated)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Reason::Unauthenticated);
    }
    Ok(token)
}
