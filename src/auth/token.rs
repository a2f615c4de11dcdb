use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use crate::base::{Principal, Secret};
use crate::policy::AuthPolicy;

/// Where the keys come from that a signature is checked with. RS256, ES256 and JWKS become variants of their own,
/// so that a key of one kind can never be taken for another.
pub(super) enum KeySource<'a> {
    /// Shared secrets, any of which may have signed.
    Hs256(&'a [Secret]),
}

/// The claims that count. A claim that stands twice is an error of the reader.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    iat: Option<Value>,
    jti: Option<Value>,
    user_id: Option<Value>,
    scopes: Option<Value>,
}

/// What a token says once its signature and its claims hold.
pub(super) struct Accepted {
    pub principal: Principal,
    pub jti: Option<String>,
}

impl KeySource<'_> {
    /// The claims, when one of the keys signed the token.
    pub(super) fn open(&self, token: &str) -> Option<Claims> {
        let Self::Hs256(secrets) = self;
        let mut validation = Validation::new(Algorithm::HS256);
        // The library reads the machine's clock and lets absent claims pass: all claims are judged by `accept`.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let data = secrets.iter().filter(|secret| !secret.is_empty()).find_map(|secret| {
            jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(secret.expose()), &validation).ok()
        })?;
        // No extension that a header declares critical is understood here (RFC 7515, 4.1.11).
        data.header.crit.is_none().then_some(data.claims)
    }
}

impl Claims {
    /// The principal, when time, issuer and audience hold (emcp.md 2.1, decisions "Tokens").
    pub(super) fn accept(self, policy: &AuthPolicy, now_s: u64) -> Option<Accepted> {
        let exp = seconds(self.exp.as_ref())?;
        let nbf = seconds(self.nbf.as_ref())?;
        let iat = seconds(self.iat.as_ref())?;
        let alive = exp.map_or(!policy.require_exp, |exp| exp > now_s);
        let begun = nbf.or(iat).is_none_or(|begin| begin <= now_s);
        let issuer = text(self.iss)?.unwrap_or_default();
        let ours = policy.issuer.is_empty() || issuer == policy.issuer;
        let for_us = policy.audience.is_empty() || names(self.aud.as_ref(), &policy.audience);
        if !(alive && begun && ours && for_us) {
            return None;
        }
        let subject = text(self.sub)?.unwrap_or_default();
        let user_id = self.user_id.as_ref().and_then(number).filter(|id| *id > 0);
        let scopes = scopes(self.scopes.as_ref());
        Some(Accepted {
            principal: Principal::api(&issuer, subject.trim(), user_id, scopes, exp),
            jti: text(self.jti)?,
        })
    }
}

/// `None` for what is no text: a claim that cannot be compared must not slip past a deny list.
fn text(claim: Option<Value>) -> Option<Option<String>> {
    match claim {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text)),
        Some(_) => None,
    }
}

/// A NumericDate in whole seconds; `None` for what is none. Fractions are cut, negative times are 0.
fn seconds(claim: Option<&Value>) -> Option<Option<u64>> {
    match claim {
        None => Some(None),
        Some(Value::Number(number)) => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
            let cut = || number.as_f64().map(|seconds| seconds as u64);
            number.as_u64().or_else(cut).map(Some)
        }
        Some(_) => None,
    }
}

fn number(claim: &Value) -> Option<u64> {
    match claim {
        Value::Number(number) => number.as_u64(),
        Value::String(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    }
}

fn names(audience: Option<&Value>, expected: &str) -> bool {
    match audience {
        Some(Value::String(audience)) => audience == expected,
        Some(Value::Array(audiences)) => audiences.iter().any(|audience| audience == expected),
        _ => false,
    }
}

/// Strings of an array, or of a comma-separated text; anything else gives none (emcp.md 2.2).
fn scopes(claim: Option<&Value>) -> Vec<String> {
    let trimmed = |scope: &str| Some(scope.trim().to_owned()).filter(|scope| !scope.is_empty());
    match claim {
        Some(Value::String(list)) => list.split(',').filter_map(trimmed).collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).filter_map(trimmed).collect(),
        _ => Vec::new(),
    }
}
