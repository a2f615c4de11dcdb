//! As whom a permitted call acts, and which server may be called at all.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Sidecar, Token, call_params, eventually};

const SOON: Duration = Duration::from_secs(10);

fn echo() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")}).to_string()
}

/// What the upstream was told about the last caller, and the audit line of the call.
fn told(sidecar: &Sidecar) -> (Value, Value) {
    let seen = sidecar.upstream.seen();
    let header = seen.last().and_then(|seen| seen.header("x-mcp-sidecar-identity")).expect("an identity").to_owned();
    let identity = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).expect("base64url")).expect("JSON");
    let line = eventually("the audit line is written", SOON, || sidecar.audit().pop());
    (identity, line)
}

#[test]
fn a_call_acts_as_its_caller_or_as_the_service_user() {
    let service = [("actor.mode", toml::Value::from("service")), ("actor.service_user_id", toml::Value::from(12))];
    for (keys, expected) in [(&[][..], json!(7)), (&service[..], json!(12))] {
        let key = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(key.path(), "k".repeat(32)).expect("is written");
        let vouches = Sidecar::start()
            .set("upstreams.raw.identity=true")
            .set(format!("upstreams.raw.key_file={}", key.path().display()));
        let sidecar = keys.iter().fold(vouches, |start, (key, value)| start.policy(key, value.clone())).go();
        let caller = Token::of("alice").claim("user_id", 7);
        assert_eq!(sidecar.send(&sidecar.post("raw", &caller, echo())).status, 200);
        let (identity, line) = told(&sidecar);
        assert_eq!(identity["user_id"], expected);
        assert_eq!(line["actor_user_id"], expected);
        for who in [&identity["identity"], &line["rate_limit_identity"]] {
            assert_eq!(who, "api:7", "the caller stays the caller");
        }
        sidecar.finish();
    }
}

#[test]
fn a_server_that_is_not_listed_is_denied_by_the_list() {
    let sidecar = Sidecar::start().policy("security.allow_servers", vec!["content"]).go();
    for server in ["raw", "nobody"] {
        let answer = sidecar.send(&sidecar.post(server, &Token::of("alice"), echo()));
        assert_eq!((answer.status, answer.code().as_deref()), (403, Some("server_denied")), "{server}");
    }
    let rules = eventually("both lines are written", SOON, || {
        let rules: Vec<Value> = sidecar.audit().into_iter().map(|mut line| line["rule"].take()).collect();
        (rules.len() == 2).then_some(rules)
    });
    assert_eq!(rules, ["security.allow_servers", "security.allow_servers"]);
    assert_eq!(sidecar.upstream.count(), 0);
    sidecar.finish();
}
