//! What the benches measure on: the shipped policy with deny patterns, a call, a token, a record.

#![allow(dead_code, reason = "each bench takes what it needs")]

use std::path::Path;

use mcp_sidecar::auth::{MintClaims, mint};
use mcp_sidecar::base::{Principal, Secret};
use mcp_sidecar::config::{Overrides, PolicyContext, Source, embedded, load_policy};
use mcp_sidecar::policy::{Body, Credential, Facts, HttpMethod, MediaType, ProtocolHeaders, Snapshot};
use mcp_sidecar::protocol::Envelope;

/// A fixed time that the tokens hold at, in milliseconds since the Unix epoch.
pub const NOW_MS: u64 = 1_800_000_000_000;

/// A call of 150 bytes.
pub const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"evo.content.search","arguments":{"limit":20,"offset":0,"parent":2,"depth":3,"q":"a"}}}"#;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// How deny patterns are written.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Exact names and `prefix*`, in turn: how lists are usually written.
    Usual,
    /// `*.middle.*`, which no order of names serves.
    Infix,
}

/// The settings of a policy with so many deny patterns that match none of the calls here.
pub fn overrides(patterns: usize, shape: Shape) -> Overrides {
    let pattern = |n: usize| match shape {
        Shape::Usual if n.is_multiple_of(2) => format!("\"shop.order.cancel{n}\""),
        Shape::Usual => format!("\"shop.stock{n}.*\""),
        Shape::Infix => format!("\"*.purge{n}.*\""),
    };
    let list: Vec<String> = (0..patterns).map(pattern).collect();
    let mut overrides = Overrides::default();
    overrides.environment.insert("SAPI_JWT_SECRET".to_owned(), SECRET.to_owned());
    overrides.set.push(("security.deny_tools".to_owned(), format!("[{}]", list.join(","))));
    overrides
}

/// The shipped policy under these overrides.
pub fn load(overrides: &Overrides) -> Snapshot {
    let source = Source::embedded("policy.toml", embedded::POLICY, Path::new("."));
    let context = PolicyContext { revision: 1, now_ms: NOW_MS, upstreams: None, extra_secrets: &[] };
    load_policy(&source, overrides, context).expect("the shipped policy loads")
}

/// Who may call tools.
pub fn principal() -> Principal {
    Principal::api("", "alice", Some(7), vec!["mcp:read".to_owned(), "mcp:call".to_owned()], None)
}

/// The facts of a well-formed POST.
pub fn facts<'a>(principal: &'a Principal, envelope: &'a Envelope<'a>) -> Facts<'a> {
    Facts {
        server: "content",
        http_method: HttpMethod::Post,
        dispatch: false,
        malformed: None,
        credential: Credential::Principal(principal),
        media_type: MediaType::Json,
        body: Body::Call(envelope),
        headers: ProtocolHeaders::default(),
    }
}

/// A token that the policy accepts at [`NOW_MS`].
pub fn token() -> String {
    let claims = MintClaims {
        sub: "alice".to_owned(),
        scopes: vec!["mcp:read".to_owned(), "mcp:call".to_owned()],
        user_id: Some(7),
        issued_at_s: NOW_MS / 1000 - 10,
        ttl_s: 3600,
        ..MintClaims::default()
    };
    mint(&Secret::new(SECRET), &claims)
}

/// A document as people write it to the log: secrets at two depths, and a bearer token inside text.
pub fn document() -> serde_json::Value {
    serde_json::json!({
        "name": "evo.content.search",
        "arguments": {"q": "a needle", "limit": 20, "Token": "abc", "nested": [{"password": "x", "page": 3}]},
        "note": "sent with Authorization: Bearer abc.def.ghi, then retried",
    })
}
