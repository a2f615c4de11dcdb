use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use crate::base::Secret;

/// What a development token says.
#[derive(Clone, Debug)]
pub struct MintClaims {
    pub sub: String,
    pub scopes: Vec<String>,
    pub user_id: Option<u64>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// Unix seconds.
    pub issued_at_s: u64,
    pub ttl_s: u64,
    pub jti: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    sub: &'a str,
    scopes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
}

/// Signs a token with HS256.
#[must_use]
pub fn mint(secret: &Secret, claims: &MintClaims) -> String {
    let body = Body {
        sub: &claims.sub,
        scopes: &claims.scopes,
        user_id: claims.user_id,
        iss: claims.issuer.as_deref(),
        aud: claims.audience.as_deref(),
        iat: claims.issued_at_s,
        exp: claims.issued_at_s.saturating_add(claims.ttl_s),
        jti: claims.jti.as_deref(),
    };
    encode(&Header::new(Algorithm::HS256), &body, &EncodingKey::from_secret(secret.expose()))
        .expect("HS256 signs any claims with any secret")
}
