use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::base::Secret;
use crate::policy::{Reason, RuleSite, Snapshot};

const NOW_MS: u64 = 1_000_000;

fn signed(alg: Algorithm, key: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(alg), claims, &EncodingKey::from_secret(key)).unwrap()
}

fn hs256(claims: &Value) -> String {
    signed(Algorithm::HS256, &[b'k'; 32], claims)
}

fn unsigned(header: &Value, signature: &str) -> String {
    let payload = json!({"sub": "a", "exp": 2000});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(&payload))
}

#[test]
fn bad_tokens_are_refused() {
    let snapshot = Snapshot::sample();
    let verifier = Verifier::new(100);
    let good = hs256(&json!({"sub": "a", "exp": 2000}));
    let tokens = [
        ("garbage", "garbage".to_owned()),
        ("empty", String::new()),
        ("four parts", format!("{good}.x")),
        ("long", "a".repeat(8193)),
        ("cut", good[..good.len() - 2].to_owned()),
        ("expired", hs256(&json!({"exp": 1000}))),
        ("no exp", hs256(&json!({"sub": "a"}))),
        ("exp is text", hs256(&json!({"exp": "2000"}))),
        ("not yet", hs256(&json!({"exp": 2000, "nbf": 1001}))),
        ("issued later", hs256(&json!({"exp": 2000, "iat": 1001}))),
        ("wrong key", signed(Algorithm::HS256, b"other", &json!({"exp": 2000}))),
        ("wrong algorithm", signed(Algorithm::HS512, &[b'k'; 32], &json!({"exp": 2000}))),
        ("none", unsigned(&json!({"alg": "none"}), "")),
        ("RS256", unsigned(&json!({"alg": "RS256"}), "AAAA")),
        ("sub is a number", hs256(&json!({"exp": 2000, "sub": 1}))),
    ];
    for (what, token) in tokens {
        assert_eq!(verifier.verify(&snapshot, &token, NOW_MS).err(), Some(Reason::Unauthenticated.into()), "{what}");
    }
    assert_eq!(verifier.stats().len, 0, "refusals are not remembered");
    assert!(verifier.verify(&snapshot, &good, NOW_MS).is_ok());
}

#[test]
fn claims_become_a_principal() {
    let snapshot = Snapshot::sample();
    let verifier = Verifier::new(0);
    let cases = [
        (json!(["a", 1, "b"]), vec!["a", "b"]),
        (json!("a, b"), vec!["a", "b"]),
        (json!("a b"), vec!["a b"]),
        (json!({"a": 1}), vec![]),
    ];
    for (scopes, expected) in cases {
        let claims = json!({"sub": " alice ", "exp": 2000, "nbf": 1000, "iat": 5000, "user_id": 7, "scopes": scopes});
        let verified = verifier.verify(&snapshot, &hs256(&claims), NOW_MS).unwrap();
        assert_eq!(verified.principal.scopes(), expected);
        assert_eq!((verified.principal.subject(), verified.principal.user_id()), ("alice", Some(7)));
    }
}

#[test]
fn a_cached_token_dies_with_itself_its_keys_and_the_deny_lists() {
    let mut snapshot = Snapshot::sample();
    let verifier = Verifier::new(16);
    let claims =
        MintClaims { sub: "a".into(), issued_at_s: 1000, ttl_s: 10, jti: Some("j".into()), ..MintClaims::default() };
    let token = mint(&snapshot.auth.secrets[0], &claims);
    let first = verifier.verify(&snapshot, &token, NOW_MS).unwrap();
    let second = verifier.verify(&snapshot, &token, NOW_MS + 9_999).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(verifier.stats(), CacheStats { hits: 1, misses: 1, len: 1 });
    let site = RuleSite { key: "auth.deny_jti[0]".into(), line: 1, column: 1 };
    snapshot.auth.deny_jti = vec![("j".to_owned(), site.clone())];
    let refused = verifier.verify(&snapshot, &token, NOW_MS).expect_err("it is listed");
    assert_eq!((refused.reason(), &refused), (Reason::Unauthenticated, &Refusal::Listed(site.clone())));
    snapshot.auth.deny_jti.clear();
    snapshot.auth.deny_sub = vec![("a".to_owned(), site.clone())];
    assert_eq!(verifier.verify(&snapshot, &token, NOW_MS).err(), Some(Refusal::Listed(site)));
    snapshot.auth.deny_sub.clear();
    assert!(verifier.verify(&snapshot, &token, NOW_MS + 10_000).is_err());
    assert_eq!(verifier.stats().len, 0);
    snapshot.auth.secrets = vec![Secret::new([b'n'; 32])];
    snapshot.auth.generation = crate::policy::AuthPolicy::generation_of(&snapshot.auth.secrets, "", "", true);
    assert!(verifier.verify(&snapshot, &token, NOW_MS).is_err());
    snapshot.auth.secrets.clear();
    assert_eq!(verifier.verify(&snapshot, &token, NOW_MS).err(), Some(Reason::InternalError.into()));
}

#[test]
fn issuer_and_audience_are_exact_where_configured() {
    let mut snapshot = Snapshot::sample();
    snapshot.auth.issuer = "me".to_owned();
    snapshot.auth.audience = "you".to_owned();
    let cases = [
        (json!({"exp": 2000, "iss": "me", "aud": ["x", "you"]}), true),
        (json!({"exp": 2000, "iss": "me "  , "aud": "you"}), false),
        (json!({"exp": 2000, "aud": "you"}), false),
        (json!({"exp": 2000, "iss": "me"}), false),
    ];
    for (claims, expected) in cases {
        assert_eq!(Verifier::new(0).verify(&snapshot, &hs256(&claims), NOW_MS).is_ok(), expected, "{claims}");
    }
}

#[test]
fn a_bearer_header_is_read_strictly() {
    let cases = [
        (Some("Bearer abc"), Some("abc")),
        (Some("bEARER   abc"), Some("abc")),
        (Some("Basic abc"), None),
        (Some("Bearer"), None),
        (Some("Bearer a b"), None),
        (Some(" Bearer abc\t"), Some("abc")),
        (Some("Bearerabc"), None),
        (Some("Bearer\tabc"), None),
        (Some("Bearer \tabc"), None),
        (Some("Bearer é"), None),
        (Some("Béarer abc"), None),
        (Some(""), None),
        (None, None),
    ];
    for (header, expected) in cases {
        assert_eq!(bearer(header.map(str::as_bytes)).ok(), expected, "{header:?}");
    }
}
