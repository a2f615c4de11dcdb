//! Tokens as clients would bring them, good and bad.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// The key that every started sidecar is given.
pub const SECRET: &str = "integration-tests-only-0123456789abcdef0123456789";

/// Claims to be signed.
#[derive(Clone, Debug)]
pub struct Token {
    claims: Value,
}

impl Token {
    /// Valid for an hour, with `mcp:read` and `mcp:call`.
    pub fn of(sub: &str) -> Self {
        let now = now();
        Self {
            claims: json!({
                "sub": sub, "iat": now, "exp": now + 3600, "scopes": ["mcp:read", "mcp:call"],
                "note": format!("{}-claim", super::SENTINEL),
            }),
        }
    }

    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.claims.as_object_mut().expect("claims are an object").remove(name);
        self
    }

    pub fn sign(&self) -> String {
        self.sign_with(Algorithm::HS256, SECRET)
    }

    pub fn sign_with(&self, algorithm: Algorithm, secret: &str) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), &self.claims, &EncodingKey::from_secret(secret.as_bytes()))
            .expect("claims serialise")
    }

    pub fn claims(&self) -> &Value {
        &self.claims
    }
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token with `alg: none` and no signature.
pub fn unsigned(token: &Token) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    format!("{header}.{}.", URL_SAFE_NO_PAD.encode(token.claims().to_string()))
}
