//! Bad input: each gets its code, and none reaches the upstream.

use serde_json::json;

use crate::harness::{Client, Next, Request, Sidecar, Token, Upstream, call_params, eventually, now, unsigned, vacant};

fn call(tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params(tool)}).to_string()
}

#[test]
fn a_bad_credential_is_401_or_scope_denied() {
    let sidecar =
        Sidecar::start().policy("auth.deny_sub", vec!["mallory"]).policy("auth.failures_per_minute", 1000).go();
    let alice = Token::of("alice");
    let good = sidecar.post("raw", &alice, call("raw.echo"));
    let bearer =
        |token: &str| good.clone().without("authorization").header("Authorization", &format!("Bearer {token}"));
    let cases: Vec<(&str, Request, u16, &str)> = vec![
        ("no token", good.clone().without("authorization"), 401, "unauthenticated"),
        (
            "wrong scheme",
            good.clone().without("authorization").header("Authorization", "Basic YTpi"),
            401,
            "unauthenticated",
        ),
        ("garbage", bearer("not.a.token"), 401, "unauthenticated"),
        ("expired", bearer(&alice.clone().claim("exp", now() - 1).sign()), 401, "unauthenticated"),
        ("not yet valid", bearer(&alice.clone().claim("nbf", now() + 600).sign()), 401, "unauthenticated"),
        ("no exp", bearer(&alice.clone().without("exp").sign()), 401, "unauthenticated"),
        ("alg none", bearer(&unsigned(&alice)), 401, "unauthenticated"),
        (
            "another algorithm",
            bearer(
                &alice.sign_with(jsonwebtoken::Algorithm::HS512, "integration-tests-only-0123456789abcdef0123456789"),
            ),
            401,
            "unauthenticated",
        ),
        (
            "another key",
            bearer(&alice.sign_with(jsonwebtoken::Algorithm::HS256, &"x".repeat(40))),
            401,
            "unauthenticated",
        ),
        ("a denied sub", bearer(&Token::of("mallory").sign()), 401, "unauthenticated"),
        ("no scope", bearer(&alice.clone().claim("scopes", json!(["mcp:read"])).sign()), 403, "scope_denied"),
    ];
    for (name, request, status, code) in cases {
        let answer = sidecar.send(&request);
        assert_eq!((answer.status, answer.code().as_deref()), (status, Some(code)), "{name}: {}", answer.text());
    }
    assert_eq!(sidecar.upstream.count(), 0);
    sidecar.finish();
}

#[test]
fn an_address_whose_tokens_fail_has_to_wait_and_nothing_it_sends_then_counts() {
    let sidecar = Sidecar::start().policy("auth.failures_per_minute", 3).go();
    let good = sidecar.post("raw", &Token::of("alice"), call("raw.echo"));
    let bad = good.clone().without("authorization").header("Authorization", "Bearer not.a.token");
    // What fails for another reason is no guess.
    assert_eq!(sidecar.send(&sidecar.post("raw", &Token::of("alice"), call("raw.secret"))).status, 403);
    for _ in 0..3 {
        assert_eq!(sidecar.send(&good).status, 200);
        assert_eq!(sidecar.send(&bad).status, 401);
    }
    for request in [&bad, &good] {
        let answer = sidecar.send(request);
        assert_eq!((answer.status, answer.code().as_deref()), (429, Some("rate_limited")), "{}", answer.text());
        let wait: u32 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("says how long");
        assert!((1..=60).contains(&wait), "{wait}");
    }
    eventually("the time that is left shrinks", std::time::Duration::from_secs(10), || {
        let wait = sidecar.send(&good).header("retry-after").and_then(|wait| wait.parse::<u32>().ok());
        wait.is_some_and(|wait| wait < 60).then_some(())
    });
    assert_eq!(sidecar.upstream.count(), 3);
    sidecar.finish();
}

#[test]
fn a_bad_body_is_refused_with_its_code() {
    let sidecar = Sidecar::start().go();
    let ok = r#""jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"raw.echo"}"#;
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{}{}}}}}"#, "[".repeat(70), "]".repeat(70));
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("empty", b"".to_vec(), 200, "empty_body"),
        ("not JSON", b"hello".to_vec(), 200, "not_json"),
        ("truncated", b"{\"jsonrpc\":\"2.0\",".to_vec(), 200, "not_json"),
        ("NaN", format!("{{{ok},\"x\":NaN}}").into_bytes(), 200, "not_json"),
        ("trailing data", format!("{{{ok}}} {{}}").into_bytes(), 200, "trailing_data"),
        ("BOM", [b"\xef\xbb\xbf".to_vec(), format!("{{{ok}}}").into_bytes()].concat(), 200, "byte_order_mark"),
        ("bad UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"p\xff\"}".to_vec(), 200, "bad_utf8"),
        ("lone surrogate", format!(r#"{{{ok},"x":"\ud800"}}"#).into_bytes(), 200, "lone_surrogate"),
        ("duplicate key", format!(r#"{{{ok},"m\u0065thod":"ping"}}"#).into_bytes(), 200, "duplicate_key"),
        ("look-alike", format!(r#"{{{ok},"Method":"ping"}}"#).into_bytes(), 200, "lookalike_key"),
        ("lossy number", format!(r#"{{{ok},"x":1e999}}"#).into_bytes(), 200, "lossy_number"),
        ("too deep", deep.into_bytes(), 200, "too_deep"),
        ("batch", format!("[{{{ok}}}]").into_bytes(), 200, "batch"),
        ("scalar", b"7".to_vec(), 200, "not_an_object"),
        ("version", br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#.to_vec(), 200, "bad_version"),
        ("id", br#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#.to_vec(), 200, "bad_id"),
        ("denied by name", call("raw.secret").into_bytes(), 403, "tool_denied"),
        ("denied by pattern", call("raw.danger.zone").into_bytes(), 403, "tool_denied"),
        ("allowed nowhere", call("other.tool").into_bytes(), 403, "tool_denied"),
        ("blanks", call(" raw.echo ").into_bytes(), 200, "name_invalid"),
        ("U+FEFF", call("raw.echo\u{feff}").into_bytes(), 200, "name_invalid"),
        ("300 bytes", call(&"a".repeat(300)).into_bytes(), 200, "name_invalid"),
        ("too large", vec![b' '; 300 * 1024], 413, "payload_too_large"),
    ];
    for (name, body, status, code) in cases {
        let answer = sidecar.send(&sidecar.post("raw", &Token::of("alice"), body));
        assert_eq!((answer.status, answer.code().as_deref()), (status, Some(code)), "{name}: {}", answer.text());
    }
    assert_eq!(sidecar.upstream.count(), 0);
    sidecar.finish();
}

#[test]
fn bad_headers_and_methods_are_refused() {
    let sidecar = Sidecar::start().go();
    let alice = Token::of("alice");
    let good = sidecar.post("raw", &alice, call("raw.echo"));
    let text = good.clone().without("content-type").header("Content-Type", "text/plain");
    let gzip = good.clone().header("Content-Encoding", "gzip");
    let twice = good.clone().header("Authorization", "Bearer x");
    for (name, request, statuses) in [
        ("text/plain", text, &[415][..]),
        ("content coding", gzip, &[415]),
        ("two credentials", twice, &[400, 401]),
        ("unknown server", sidecar.post("nowhere", &alice, call("raw.echo")), &[404]),
        ("100 KiB of headers", good.clone().header("X-Big", &"a".repeat(100 * 1024)), &[431]),
        ("both lengths", good.clone().header("Transfer-Encoding", "chunked"), &[400]),
    ] {
        let answer = sidecar.send(&request);
        assert!(statuses.contains(&answer.status), "{name}: {} {}", answer.status, answer.text());
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let mut request = good.clone().body("");
        (request.method, request.declare_length) = (method.to_owned(), false);
        let answer = sidecar.send(&request);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
    }
    assert_eq!(sidecar.upstream.count(), 0);
    sidecar.finish();
}

#[test]
fn every_request_of_a_caller_counts_whatever_its_method() {
    let sidecar = Sidecar::start().raw("rate_limit.per_minute", 2).go();
    let mut request = sidecar.post("raw", &Token::of("alice"), "");
    (request.method, request.declare_length) = ("GET".to_owned(), false);
    assert_eq!([405, 405, 429].map(|_| sidecar.send(&request).status), [405, 405, 429]);
    sidecar.finish();
}

#[test]
fn tokens_that_name_nobody_are_told_apart_by_address() {
    let sidecar = Sidecar::start().set("listen.trusted_proxies=[\"127.0.0.1\"]").raw("rate_limit.per_minute", 2).go();
    let from = |address: &str, id: u64| {
        // Two tokens of one address are one caller; so are two names, if there are none.
        let token = Token::of("").without("sub").claim("jti", format!("{id}"));
        sidecar.send(&sidecar.post("raw", &token, call("raw.echo")).header("X-Forwarded-For", address)).status
    };
    assert_eq!([from("192.0.2.1", 1), from("192.0.2.1", 2), from("192.0.2.1", 3)], [200, 200, 429]);
    assert_eq!(from("192.0.2.2", 1), 200);
    let identities = eventually("their lines are written", std::time::Duration::from_secs(10), || {
        let records = sidecar.audit();
        let identities: Vec<_> = records.iter().map(|record| record["rate_limit_identity"].clone()).collect();
        (identities.len() == 4).then_some(identities)
    });
    let first = identities.iter().filter(|identity| **identity == "ip:192.0.2.1").count();
    assert_eq!((first, identities.contains(&json!("ip:192.0.2.2"))), (3, true), "{identities:?}");
    sidecar.finish();
}

#[test]
fn a_valid_token_cannot_fill_the_audit_log_with_denials() {
    const CALLS: u64 = 200;
    let sidecar = Sidecar::start().go();
    let token = Token::of("alice").claim("scopes", json!([]));
    let mut client = Client::connect(sidecar.mcp);
    for _ in 0..CALLS {
        assert_eq!(client.round_trip(&sidecar.post("raw", &token, call("raw.echo"))).status, 403);
    }
    for _ in 0..CALLS {
        let elsewhere = sidecar.post("raw", &Token::of("alice"), call("raw.echo")).header("Origin", "https://a.test");
        assert_eq!(sidecar.send(&elsewhere).status, 403);
    }
    let records = eventually("each denial is told of", std::time::Duration::from_secs(10), || {
        let records = sidecar.audit();
        let told: u64 = records.iter().map(|record| record["repeats"].as_u64().unwrap_or(1)).sum();
        (told == 2 * CALLS).then_some(records)
    });
    assert!(records.len() < 60, "{} lines", records.len());
    assert!(records.iter().all(|record| record["rate_limit_identity"] == "api:alice"), "{records:?}");
    sidecar.finish();
}

#[test]
fn a_page_of_the_site_may_call_where_the_sites_name_is_known() {
    let origin = |sidecar: &Sidecar, host: &str, origin: &str| {
        let request = sidecar.post("raw", &Token::of("alice"), call("raw.echo")).without("host");
        sidecar.send(&request.header("Host", host).header("Origin", origin)).status
    };
    let named = Sidecar::start().set("listen.server_names=[\"site.test\"]").go();
    assert_eq!(origin(&named, "site.test", "https://site.test"), 200);
    assert_eq!(origin(&named, "site.test", "https://other.test"), 403);
    assert_eq!(origin(&named, "other.test", "https://other.test"), 400);
    named.finish();
    let any = Sidecar::start().go();
    assert_eq!(origin(&any, "other.test", "https://other.test"), 403, "a name that somebody pointed here");
    any.finish();
}

#[test]
fn an_upstream_that_misbehaves_is_a_clear_answer() {
    let scripts: [(&str, &'static str, &[u16]); 3] = [
        ("closes early", "", &[502]),
        ("garbage", "garbage\r\n\r\n", &[502]),
        ("101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", &[502]),
    ];
    for (name, bytes, statuses) in scripts {
        let upstream = Upstream::scripted(move |_, peer| {
            peer.send(bytes);
            Next::Close
        });
        let sidecar = Sidecar::start().upstream(upstream).go();
        let answer = sidecar.call("raw.echo");
        assert!(statuses.contains(&answer.status), "{name}: {} {}", answer.status, answer.text());
        sidecar.finish();
    }
}

#[test]
fn an_upstream_that_is_down_is_502() {
    let mut sidecar = Sidecar::start().set(format!("upstreams.raw.url=\"http://{}/mcp\"", vacant())).go();
    let answer = sidecar.call("raw.echo");
    assert_eq!((answer.status, answer.code().as_deref()), (502, Some("upstream_failed")), "{}", answer.text());
    sidecar.expect_unreached(1);
    sidecar.finish();
}

#[test]
fn one_connection_serves_denied_and_allowed_calls_in_turn() {
    let sidecar = Sidecar::start().go();
    let mut client = Client::connect(sidecar.mcp);
    for (tool, status) in [("raw.echo", 200), ("raw.secret", 403), ("raw.echo", 200)] {
        assert_eq!(client.round_trip(&sidecar.post("raw", &Token::of("alice"), call(tool))).status, status);
    }
    sidecar.finish();
}

#[test]
fn a_denied_sub_is_audited_with_the_entry_that_names_it() {
    let sidecar = Sidecar::start().policy("auth.deny_sub", vec!["eve", "mallory"]).go();
    let answer = sidecar.send(&sidecar.post("raw", &Token::of("mallory"), call("raw.echo")));
    assert_eq!((answer.status, answer.code().as_deref()), (401, Some("unauthenticated")));
    assert!(!answer.text().contains("deny_sub"), "a client is not told why: {}", answer.text());
    let rule = eventually("its line is written", std::time::Duration::from_secs(10), || {
        sidecar.audit().iter().find_map(|record| record["rule"].as_str().map(str::to_owned))
    });
    assert_eq!(rule, "auth.deny_sub[1]");
    sidecar.finish();
}
