//! No spelling of a reserved shape reaches the CMS, whatever the method.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{Client, Request, Sidecar, Token, call_params};

const METHODS: [&str; 20] = [
    "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND", "MKCOL", "LOCK",
    "PURGE", "QUERY", "post", "get", "Post", "pOST", "X-ODD", "PRI",
];

fn spellings() -> Vec<String> {
    let prefixes = ["", "/", "/.", "/x/..", "/index.php", "/INDEX.PHP/..", "/%2e", "/index.php/index.php"];
    let shapes = [
        "/api/v1/mcp/content",
        "/api/v1/%6dcp/content",
        "/api/v1/mcp/content/",
        "/api/v1//mcp/content",
        "/api/v1/./mcp/content",
        "/api/v1/x/../mcp/content",
        "/%61pi/v1/mcp/content",
        "/api/v2/mcp/content",
        "/api/v99/mcp/x/dispatch",
        "/api%2fv1%2fmcp%2fcontent",
        "/api/v1/mcp%2Fcontent",
        "/api/v1/m%63p/content?q=1",
        "/api/v1/mcp",
        "/api/v1/token",
        "/api/v1/mcp/content;x=1",
        "/api/v1/mcp/content%00",
        "/emcp/content",
        "/emcp/content/dispatch",
        "/emcp/servers",
        "/%65mcp/content",
        "/emcp//content",
        "/emcp/./content",
        "/api/v1/%256dcp/../mcp/content",
        "/api/v1/mcp/../mcp/content",
        "/api/v1/mcp/content/../content",
        "/api\\v1\\mcp\\content",
        "/?q=api/v1/mcp/content",
        "/any?a=1&q=/api/v1/mcp/content",
        "/any?a=1&q%00x=/api/v1/mcp/content",
        "/index.phpapi/v1/mcp/content",
        "/index.ph%70emcp/content",
        "/x&q=api/v1/mcp/content",
        "/x%26q=emcp/content",
        "/index.php?q%00;=api/v1/mcp/content",
        "/api/v1/..;a/../mcp/content",
        "/a%5cb/%2e%2e/api/v1/mcp/content",
    ];
    prefixes.iter().flat_map(|prefix| shapes.iter().map(move |shape| format!("{prefix}{shape}"))).collect()
}

/// Anything but an answer of the site: a refusal, or a closed connection.
fn refused(client: &mut Client, what: &str) {
    if let Some(answer) = client.try_head() {
        assert!(answer.status >= 400, "{what}: {}", answer.status);
    }
}

#[test]
fn two_hundred_spellings_never_reach_the_canary() {
    let sidecar = Sidecar::start().policy("auth.failures_per_minute", 0).go();
    let spellings = spellings();
    assert!(spellings.iter().collect::<BTreeSet<_>>().len() >= 200);
    for method in METHODS {
        for target in &spellings {
            let mut client = Client::connect(sidecar.mcp);
            client.send(&Request::new(method, target).header("Connection", "close").bytes());
            refused(&mut client, &format!("{method} {target}"));
        }
        for host in ["127.0.0.1", "elsewhere.test", "user@127.0.0.1"] {
            let absolute = format!("http://{host}{}", spellings[0]);
            let mut client = Client::connect(sidecar.mcp);
            client.send(&Request::new(method, &absolute).header("Connection", "close").bytes());
            refused(&mut client, &format!("{method} {absolute}"));
        }
    }
    assert_eq!(sidecar.canary.count(), 0);
    assert_eq!(sidecar.send(&Request::new("GET", "/about.html").header("Connection", "close")).status, 200);
    sidecar.finish();
}

#[test]
fn with_a_token_too_only_the_one_spelling_and_method_is_served() {
    let sidecar = Sidecar::start().go();
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")}).to_string();
    let good = sidecar.post("raw", &Token::of("alice"), body).header("Connection", "close");
    for target in spellings().iter().map(|spelling| spelling.replace("content", "raw")) {
        if target == "/api/v1/mcp/raw" || target == "/api/v1/mcp/raw?q=1" {
            continue;
        }
        let mut request = good.clone();
        request.target = target;
        let mut client = Client::connect(sidecar.mcp);
        client.send(&request.bytes());
        refused(&mut client, &request.target);
    }
    for method in METHODS.into_iter().filter(|method| *method != "POST") {
        let mut request = good.clone();
        (request.method, request.declare_length) = (method.to_owned(), true);
        let mut client = Client::connect(sidecar.mcp);
        client.send(&request.bytes());
        refused(&mut client, method);
    }
    assert_eq!((sidecar.upstream.count(), sidecar.canary.count()), (0, 0));
    assert_eq!(sidecar.send(&good).status, 200);
    sidecar.finish();
}

#[test]
fn a_header_makes_neither_another_method_nor_another_path() {
    let sidecar = Sidecar::start().go();
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")}).to_string();
    let good = sidecar.post("raw", &Token::of("alice"), body);
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        // What is no POST does not become one, and a POST stays what it is.
        let mut get = good.clone().header(name, "POST").body("");
        (get.method, get.declare_length) = ("GET".to_owned(), false);
        assert_eq!(sidecar.send(&get).status, 405, "{name}");
        assert_eq!(sidecar.send(&good.clone().header(name, "GET")).status, 200, "{name}");
    }
    assert_eq!(sidecar.upstream.count(), 3);
    for seen in sidecar.upstream.seen() {
        assert!(seen.line.starts_with("POST ") && seen.headers.iter().all(|(name, _)| !name.contains("verride")));
    }
    for name in ["X-Original-URL", "X-Rewrite-URL", "X-Original-URI"] {
        let request = Request::new("GET", "/about.html").header(name, "/api/v1/mcp/content");
        assert_eq!(sidecar.send(&request).status, 200);
    }
    let told = |(_, value): &(String, String)| value.contains("/mcp/");
    assert_eq!(sidecar.canary.count(), 3);
    assert!(sidecar.canary.seen().iter().all(|seen| !seen.headers.iter().any(told)), "the site would serve that path");
    sidecar.finish();
}
