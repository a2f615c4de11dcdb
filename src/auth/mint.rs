use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::base::Secret;

/// What a development token says. Empty texts and `None` are left out of it.
#[derive(Clone, Debug, Default)]
pub struct MintClaims {
    pub sub: String,
    pub scopes: Vec<String>,
    pub user_id: Option<u64>,
    pub issuer: String,
    pub audience: String,
    /// Unix seconds.
    pub issued_at_s: u64,
    /// Seconds from `issued_at_s` to `exp`.
    pub ttl_s: u64,
    pub jti: Option<String>,
}

#[derive(Serialize)]
struct Payload<'a> {
    sub: &'a str,
    scopes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    iss: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    aud: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
}

/// An HS256 token with these claims.
#[must_use]
pub fn mint(secret: &Secret, claims: &MintClaims) -> String {
    let payload = Payload {
        sub: &claims.sub,
        scopes: &claims.scopes,
        user_id: claims.user_id,
        iss: &claims.issuer,
        aud: &claims.audience,
        iat: claims.issued_at_s,
        exp: claims.issued_at_s.saturating_add(claims.ttl_s),
        jti: claims.jti.as_deref(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &payload, &EncodingKey::from_secret(secret.expose()))
        .expect("strings and integers serialise, and HMAC takes any key")
}
