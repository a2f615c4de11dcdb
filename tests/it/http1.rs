//! One connection, several requests: what is kept, what is closed, and what a client gets that sends ahead.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Request, Sidecar, Token, call_params, eventually};

/// A call that passes, as bytes, with these header lines more.
fn call(sidecar: &Sidecar, version: &str, lines: &str) -> String {
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")}).to_string();
    let token = sidecar.token(&Token::of("alice"));
    format!(
        "POST /api/v1/mcp/raw HTTP/{version}\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{lines}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_their_order() {
    let sidecar = Sidecar::start().go();
    let ours = call(&sidecar, "1.1", "");
    let reserved = "GET /api/v1/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut client = Client::connect(sidecar.mcp);
    client.send(format!("{ours}{reserved}{ours}{ours}").as_bytes());
    for status in [200, 404, 200, 200] {
        assert_eq!(client.response(false).status, status);
    }
    // And with the site's between them, whose connection comes back from Pingora.
    for _ in 0..3 {
        assert_eq!(client.round_trip(&Request::new("GET", "/page")).text(), "canary");
        client.send(ours.as_bytes());
        assert_eq!(client.response(false).status, 200);
    }
    assert_eq!(sidecar.upstream.count(), 6);
    sidecar.finish();
}

#[test]
fn nothing_is_served_behind_a_request_for_another_protocol() {
    let sidecar = Sidecar::start().go();
    let asking = "GET /page HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n";
    let mut client = Client::connect(sidecar.mcp);
    client.send(asking.as_bytes());
    let answer = client.response(false);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(client.try_head().is_none(), "the connection is closed");
    // Whatever becomes of the first, what was sent behind it could be another protocol's.
    let mut client = Client::connect(sidecar.mcp);
    client.send(format!("{asking}{}", call(&sidecar, "1.1", "")).as_bytes());
    if client.try_head().is_some_and(|answer| answer.status == 200) {
        while client.part(Duration::from_secs(10)).is_some() {}
        assert!(client.try_head().is_none(), "the connection is closed");
    }
    assert_eq!(sidecar.upstream.count(), 0);
    sidecar.finish();
}

#[test]
fn a_refusal_keeps_the_connection_when_its_body_is_there() {
    let sidecar = Sidecar::start().policy("auth.failures_per_minute", 0).go();
    let ours = call(&sidecar, "1.1", "");
    let stranger = ours.replace("Bearer ", "Bearer x");
    let mut client = Client::connect(sidecar.mcp);
    for request in [&stranger, &ours, &stranger, &ours] {
        client.send(request.as_bytes());
        let answer = client.response(false);
        assert_eq!(
            (answer.status, answer.header("connection")),
            (if request == &ours { 200 } else { 401 }, Some("keep-alive"))
        );
    }
    // A body that is still to come is not waited for, and not taken for the next request.
    let (head, body) = stranger.split_at(stranger.len() - 5);
    client.send(head.as_bytes());
    let answer = client.response(false);
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    client.send(body.as_bytes());
    assert!(client.try_head().is_none(), "the connection is closed");
    sidecar.finish();
}

#[test]
fn http_1_0_is_kept_when_it_asks_and_1_1_closed_when_it_asks() {
    let sidecar = Sidecar::start().go();
    for (version, lines, kept) in [
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "", false),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
    ] {
        let mut client = Client::connect(sidecar.mcp);
        client.send(call(&sidecar, version, lines).as_bytes());
        let answer = client.response(false);
        assert_eq!(
            (answer.status, answer.header("connection") == Some("keep-alive")),
            (200, kept),
            "{version} {lines}"
        );
        if kept {
            client.send(call(&sidecar, version, lines).as_bytes());
            assert_eq!(client.response(false).status, 200);
        } else {
            assert!(client.try_head().is_none(), "the connection is closed");
        }
    }
    sidecar.finish();
}

#[test]
fn head_is_answered_without_a_body() {
    let sidecar = Sidecar::start().go();
    let mut client = Client::connect(sidecar.mcp);
    let token = format!("Bearer {}", sidecar.token(&Token::of("alice")));
    for target in ["/api/v1/mcp/raw", "/api/v1/mcp/raw/x", "/page"] {
        client.send(&Request::new("HEAD", target).header("Authorization", &token).bytes());
        let answer = client.response(true);
        assert_eq!(
            answer.status,
            if target == "/page" {
                200
            } else if target.ends_with('x') {
                404
            } else {
                405
            }
        );
        assert!(answer.header("content-length").is_some_and(|length| length != "0"), "{target}");
    }
    sidecar.finish();
}

#[test]
fn what_is_no_request_is_refused_in_words_counted_and_logged() {
    let sidecar = Sidecar::start().set("listen.access_log.format=\"combined\"").go();
    for (bytes, status, code) in [
        ("GET  /page HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET /page HTTP/1.1\nHost: localhost\n\n".to_owned(), 400, "bad_request"),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET /page HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: 1\r\n".repeat(300)), 431, "headers_too_large"),
        (format!("GET /page HTTP/1.1\r\nHost: localhost\r\nX: {}", "1".repeat(90_000)), 431, "headers_too_large"),
    ] {
        let before = sidecar.metric(&format!("mcp_sidecar_refusals_total{{code=\"{code}\"}}"));
        let mut client = Client::connect(sidecar.mcp);
        client.send(bytes.as_bytes());
        let answer = client.response(false);
        assert_eq!((answer.status, answer.code().as_deref()), (status, Some(code)), "{:?}", &bytes[..20]);
        assert!(client.try_head().is_none(), "the connection is closed");
        assert!(sidecar.metric(&format!("mcp_sidecar_refusals_total{{code=\"{code}\"}}")) > before);
    }
    eventually("each has its line", Duration::from_secs(20), || {
        let lines = ["\"- - -\" 400 ", "\"- - -\" 431 "].map(|line| sidecar.output().matches(line).count());
        (lines == [3, 2]).then_some(())
    });
    sidecar.finish();
}

#[test]
fn a_client_that_is_refused_while_it_sends_gets_its_answer() {
    let sidecar = Sidecar::start().go();
    let small = call(&sidecar, "1.1", "");
    let (head, _) = small.split_once("\r\n\r\n").expect("a header");
    let (lines, _) = head.rsplit_once("\r\n").expect("a length");
    for _ in 0..20 {
        let mut client = Client::connect(sidecar.mcp);
        client.send(format!("{lines}\r\nContent-Length: 900000\r\n\r\n").as_bytes());
        // What is sent on, unread by anybody, must not make the kernel throw the answer away.
        client.send(&[b'x'; 200_000]);
        assert_eq!(client.response(false).status, 413);
    }
    sidecar.finish();
}

#[test]
fn a_request_that_is_sent_during_a_stream_is_answered_behind_it() {
    let sidecar = Sidecar::start().go();
    let token = Token::of("alice");
    let body = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {
        "name": "evo.content.descendants", "arguments": {"id": 1, "limit": 100}, "_meta": {"progressToken": "p"}}});
    let mut client = Client::connect(sidecar.mcp);
    client.send(&sidecar.post("content", &token, body.to_string()).bytes());
    client.send(call(&sidecar, "1.1", "").as_bytes());
    let head = client.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    while client.part(Duration::from_secs(10)).is_some() {}
    assert_eq!(client.response(false).json()["id"], 1);
    sidecar.finish();
}

#[test]
fn requests_behind_one_for_the_site_are_answered_in_their_order() {
    let sidecar = Sidecar::start().go();
    let ours = call(&sidecar, "1.1", "");
    let page = "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let upload = "POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /chunks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;x=y\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n";
    for site in [page, upload, chunked] {
        let all = format!("{site}{ours}{site}{site}{ours}");
        for cut in [all.len(), site.len(), site.len() + 3, site.len() - 1] {
            let mut client = Client::connect(sidecar.mcp);
            client.send(&all.as_bytes()[..cut]);
            client.send(&all.as_bytes()[cut..]);
            for (at, body) in ["canary", "", "canary", "canary", ""].into_iter().enumerate() {
                let answer = client.response(false);
                assert_eq!(
                    (answer.status, answer.header("connection")),
                    (200, Some("keep-alive")),
                    "{at} {site} {cut}"
                );
                assert!(body.is_empty() || answer.text() == body, "{at} {site} {cut}");
            }
        }
    }
    assert_eq!((sidecar.upstream.count(), sidecar.canary.count()), (24, 36));
    sidecar.finish();
}

#[test]
fn what_is_sent_behind_a_last_request_does_not_cost_its_answer() {
    let sidecar = Sidecar::start().go();
    let last = call(&sidecar, "1.1", "Connection: close\r\n");
    for _ in 0..20 {
        let mut client = Client::connect(sidecar.mcp);
        client.send(last.as_bytes());
        client.send(&[b'x'; 200_000]);
        let answer = client.response(false);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(client.try_head().is_none(), "the connection is closed");
    }
    sidecar.finish();
}

#[test]
fn a_request_that_names_two_hosts_is_refused_in_words_counted_and_logged() {
    let sidecar = Sidecar::start().set("listen.access_log.format=\"combined\"").go();
    let refusals = "mcp_sidecar_refusals_total{code=\"bad_request\"}";
    for (target, host) in [
        ("http://elsewhere/page", "localhost"),
        ("http://user@localhost/page", "user@localhost"),
        ("http://localhost\\@elsewhere/page", "localhost"),
        ("/page", "user@localhost"),
    ] {
        let before = sidecar.metric(refusals);
        let mut client = Client::connect(sidecar.mcp);
        client.send(&Request::new("GET", target).header("Host", host).bytes());
        let answer = client.response(false);
        assert_eq!((answer.status, answer.code().as_deref()), (400, Some("bad_request")), "{target} {host}");
        assert!(sidecar.metric(refusals) > before, "{target} {host}");
    }
    eventually("each has its line", Duration::from_secs(20), || {
        (sidecar.output().matches(" HTTP/1.1\" 400 ").count() == 4).then_some(())
    });
    let mut client = Client::connect(sidecar.mcp);
    let same = Request::new("GET", "http://localhost/page").header("Host", "localhost");
    assert_eq!(client.round_trip(&same).text(), "canary");
    sidecar.finish();
}
