//! Planted secrets: wherever a client or an upstream puts them, no log, audit line, metric, error or page shows them.
//!
//! The search itself is part of every [`Sidecar::finish`]; here the secrets go to the odd places.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Client, Next, Request, Response, SENTINEL, Sidecar, Start, Token, Upstream, call_params, eventually, vacant,
};

fn start(format: &str) -> Start {
    Sidecar::start().set(format!("listen.access_log.format=\"{format}\"")).set("log.level=\"trace\"")
}

/// Waits for the access log's line, behind which nothing more is said of a request.
fn logged(sidecar: &Sidecar, target: &str) {
    eventually("the access log's line", Duration::from_secs(10), || sidecar.output().contains(target).then_some(()));
}

fn shows_nothing(what: &str, answer: &Response) {
    assert!(!answer.text().contains(SENTINEL), "{what}: {}", answer.text());
    for (name, value) in &answer.headers {
        assert!(!value.contains(SENTINEL), "{what}: {name}: {value}");
    }
}

#[test]
fn secrets_in_addresses_are_not_shown() {
    for format in ["combined", "json"] {
        let sidecar = start(format).policy("auth.failures_per_minute", 0).go();
        let alice = Token::of("alice");
        let token = sidecar.token(&alice);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")});
        let call = |target: String| {
            let mut request = sidecar.post("raw", &alice, body.to_string());
            request.target = target;
            request
        };
        // An MCP route has no use for a query, so nothing of one is kept, whatever its names.
        let mcp = [
            format!("/api/v1/mcp/raw?q={SENTINEL}-a&{SENTINEL}-b"),
            format!("/api/v1/mcp/raw?access_token={token}"),
            format!("/api/v1/mcp/{SENTINEL}-handle"),
            format!("/api/v1/mcp/content/{token}"),
            format!("/api/v1//mcp/content?token={SENTINEL}"),
        ];
        for target in &mcp {
            shows_nothing(target, &sidecar.send(&call(target.clone())));
            shows_nothing(target, &sidecar.send(&call(target.clone()).without("authorization")));
        }
        // A site's addresses are kept, except what carries a secret by its name or its look.
        let site = [
            format!("/page?token={SENTINEL}&x=1"),
            format!("/page?user%5Bpassword%5D={SENTINEL}"),
            format!("/page?user[password]={SENTINEL}"),
            format!("/page?X-Amz-Signature={SENTINEL}&PHPSESSID={SENTINEL}&reset-token={SENTINEL}"),
            format!("/page;jsessionid={SENTINEL}?a=1"),
            format!("/page?a=1;client_secret={SENTINEL}"),
            format!("/page?q={token}"),
            format!("/confirm/{token}/now"),
            format!("http://user:{SENTINEL}@127.0.0.1/page"),
        ];
        for target in &site {
            let request = Request::new("GET", target)
                .header("Referer", &format!("http://elsewhere{}", target.trim_start_matches("http://")))
                .header("User-Agent", &format!("test ({token})"))
                .header("Cookie", &format!("PHPSESSID={SENTINEL}"))
                .header("Proxy-Authorization", &format!("Basic {SENTINEL}"));
            sidecar.send(&request);
        }
        let lines = sidecar.output();
        assert!(lines.contains("/api/v1/mcp/raw") && lines.contains("/page?"), "the access log is on: {lines}");
        assert!(lines.contains("x=1"), "what is no secret is kept: {lines}");
        sidecar.finish();
    }
}

#[test]
fn secrets_in_a_call_are_not_shown() {
    let sidecar = start("json").go();
    let alice = Token::of("alice");
    let arguments = |name: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": name, "arguments": {"text": SENTINEL, SENTINEL: 1}, "_meta": {"x": SENTINEL}}})
    };
    let bodies = [
        arguments("raw.echo").to_string(),
        arguments("raw.secret").to_string(),
        arguments("raw echo").to_string(),
        format!("{{\"jsonrpc\":\"2.0\",\"{SENTINEL}\":1,\"{SENTINEL}\":2}}"),
        format!("{{\"{SENTINEL}"),
        format!("{SENTINEL} is no JSON"),
        json!({"jsonrpc": "2.0", "id": 1, "method": format!("{SENTINEL}/method")}).to_string(),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [SENTINEL]}).to_string(),
    ];
    for body in &bodies {
        for server in ["raw", "content"] {
            shows_nothing(body, &sidecar.send(&sidecar.post(server, &alice, body.as_bytes())));
        }
    }
    let wrong = arguments("evo.content.get").to_string();
    shows_nothing("arguments of the wrong type", &sidecar.send(&sidecar.post("content", &alice, wrong)));
    // Credentials that are none.
    for value in [format!("Bearer {SENTINEL}"), format!("Basic {SENTINEL}"), SENTINEL.to_owned()] {
        let request = sidecar.post("raw", &alice, bodies[0].as_bytes()).without("authorization");
        shows_nothing(&value, &sidecar.send(&request.header("Authorization", &value)));
    }
    for (name, value) in [
        ("Mcp-Method", SENTINEL),
        ("Mcp-Session-Id", SENTINEL),
        ("Content-Type", SENTINEL),
        ("Origin", "http://5entinel.test"),
        ("X-Mcp-Sidecar-Identity", SENTINEL),
    ] {
        let request = sidecar.post("raw", &alice, bodies[0].as_bytes()).without(name);
        shows_nothing(name, &sidecar.send(&request.header(name, value)));
    }
    sidecar.finish();
}

#[test]
fn secrets_in_bytes_that_are_no_request_are_not_shown() {
    let sidecar = start("combined").go();
    for bytes in [
        format!("{SENTINEL}\r\n\r\n"),
        format!("GET /{SENTINEL} HTTP/9.9\r\n\r\n"),
        format!("GET /page?token={SENTINEL} HTTP/1.1\r\nHost: a\r\n{SENTINEL}\r\n\r\n"),
        format!("POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: {SENTINEL}\r\n\r\n"),
        format!("POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{SENTINEL}\r\n"),
        format!("POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {SENTINEL}\r\n\r\n"),
        format!("GET /page HTTP/1.1\r\nHost: a\r\nCookie: {SENTINEL}\r\n x\r\n\r\n"),
    ] {
        let mut client = Client::connect(sidecar.mcp);
        client.send(bytes.as_bytes());
        client.end();
        if client.try_head().is_some_and(|answer| answer.status >= 500) {
            panic!("{bytes:?} is the client's fault");
        }
    }
    sidecar.finish();
}

#[test]
fn secrets_that_an_upstream_or_the_site_answers_wrongly_are_not_shown() {
    let broken = [
        format!("{SENTINEL}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {SENTINEL}\r\n\r\n"),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n{SENTINEL}\r\n"
        ),
        format!("HTTP/1.1 500 {SENTINEL}\r\nContent-Length: 8\r\n\r\n{SENTINEL}"),
        format!("HTTP/1.1 200 OK\r\nContent-Type: {SENTINEL}\r\nContent-Length: 8\r\n\r\n{SENTINEL}"),
        format!("HTTP/1.1 200 OK\r\nX-{SENTINEL}"),
        format!("HTTP/1.1 200 OK\r\nSet-Cookie: {SENTINEL}\r\n\r\n{SENTINEL}"),
    ];
    for bytes in broken {
        let script = bytes.clone();
        let upstream = Upstream::scripted(move |_, peer| {
            peer.send(&script);
            Next::Close
        });
        let address = upstream.address();
        let sidecar = start("combined").set(format!("cms.url=\"http://{address}\"")).upstream(upstream).go();
        shows_nothing(&bytes, &sidecar.call("raw.echo"));
        sidecar.check_invariant();
        // The same from the site; its own pages may say what they like, our logs may not.
        sidecar.send(&Request::new("GET", &format!("/page?token={SENTINEL}")));
        logged(&sidecar, "/page?");
        sidecar.check_secrets();
    }
}

#[test]
fn secrets_in_requests_to_a_site_that_is_down_are_not_shown() {
    let sidecar = start("json").set(format!("cms.url=\"http://{}\"", vacant())).go();
    let request = Request::new("GET", &format!("/page?token={SENTINEL}")).header("Cookie", SENTINEL);
    shows_nothing("the page", &sidecar.send(&request));
    logged(&sidecar, "/page?");
    sidecar.finish();
}
