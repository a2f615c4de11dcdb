//! Requests as raw bytes: framing that two readers could read differently, and clients that take their time.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::harness::{Client, Sidecar, Token, call_params};

fn start() -> Sidecar {
    Sidecar::start().set("timeouts.header=\"1s\"").set("timeouts.body=\"1s\"").go()
}

/// Head (without its blank line) and body of a call that would pass.
fn call(sidecar: &Sidecar) -> (String, String) {
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")}).to_string();
    let token = sidecar.token(&Token::of("alice"));
    let head = format!(
        "POST /api/v1/mcp/raw HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    );
    (head, body)
}

#[test]
fn framing_that_could_be_read_two_ways_is_refused() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let length = format!("Content-Length: {}\r\n", body.len());
    let whole = format!("{head}{length}\r\n{body}");
    let cases = [
        ("both lengths", format!("{head}{length}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("two lengths", format!("{head}{length}Content-Length: 1\r\n\r\n{body}")),
        ("a bare line feed in the header", whole.replacen("\r\nHost", "\nHost", 1)),
        ("only bare line feeds", whole.replace("\r\n", "\n")),
        ("an unknown coding", format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("no host", whole.replace("Host: localhost\r\n", "")),
        ("an identity of the client's making", format!("{head}X-Mcp-Sidecar-Identity: e30\r\n{length}\r\n{body}")),
        ("an upgrade", format!("{head}Upgrade: websocket\r\nConnection: upgrade\r\n{length}\r\n{body}")),
        ("a length that is no number", format!("{head}Content-Length: +5\r\n\r\n{body}")),
    ];
    for (what, bytes) in cases {
        let mut client = Client::connect(sidecar.mcp);
        client.send(bytes.as_bytes());
        // Refused with an answer, or by closing: never served.
        if let Some(answer) = client.try_head() {
            assert!(answer.status >= 400, "{what}: {}", answer.status);
        }
    }
    sidecar.finish();
}

#[test]
fn chunks_that_could_be_read_two_ways_are_refused() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let size = format!("{:x}", body.len());
    let site = "POST /page HTTP/1.1\r\nHost: a\r\n";
    for chunks in [
        format!("\r\n{body}\r\n0\r\n\r\n"),
        format!("{size};a=\nb\r\n{body}\r\n0\r\n\r\n"),
        format!("{size}\n{body}\r\n0\r\n\r\n"),
        format!("{size}\r\n{body}\n0\r\n\r\n"),
        format!("{size}\r\n{body}\r\n;\r\n\r\n"),
        format!("0000000000000000{size}\r\n{body}\r\n0\r\n\r\n"),
    ] {
        for head in [head.as_str(), site] {
            let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
            // With the header, and behind it: the pause shapes the input, nothing waits for it.
            for pieces in [vec![format!("{head}{chunks}")], vec![head, chunks.clone()]] {
                let mut client = Client::connect(sidecar.mcp);
                for piece in pieces {
                    client.send(piece.as_bytes());
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                if let Some(answer) = client.try_head() {
                    assert!(answer.status >= 400, "{chunks:?}: {}", answer.status);
                }
            }
        }
    }
    assert_eq!(sidecar.upstream.count(), 0);
    let ok = format!("{size} \t;a=\"b\"\r\n{body}\r\n0;x\r\nX-Trailer: 1\r\n\r\n");
    let mut client = Client::connect(sidecar.mcp);
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{ok}").as_bytes());
    assert_eq!(client.response(false).status, 200);
    sidecar.finish();
}

#[test]
fn a_body_may_be_chunked_or_announced() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let (first, second) = body.split_at(7);
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    let mut client = Client::connect(sidecar.mcp);
    client.send(chunked.as_bytes());
    assert_eq!(client.response(false).status, 200, "chunked");
    // The same connection serves the next call; the client reads past the go-ahead.
    client.send(format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    client.send(body.as_bytes());
    assert_eq!(client.response(false).status, 200, "announced");
    sidecar.finish();
}

#[test]
fn a_slow_body_is_408_and_a_dribbled_header_is_cut() {
    // Two thousand connections need as many descriptors, here and in the sidecar that inherits the limit.
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("up to the hard limit");
    let sidecar =
        Sidecar::start().set("timeouts.header=\"1s\"").set("timeouts.body=\"1s\"").set("runtime.per_address=5000").go();
    let (head, body) = call(&sidecar);
    let before = sidecar.resident_kib();
    let begun = Instant::now();
    let mut clients: Vec<Client> = (0..2000)
        .map(|_| {
            let mut client = Client::connect(sidecar.mcp);
            let short = &body[..body.len() - 1];
            client.send(format!("{head}Content-Length: {}\r\n\r\n{short}", body.len()).as_bytes());
            client
        })
        .collect();
    let mut dribbling = Client::connect(sidecar.mcp);
    dribbling.send(b"POST /api/v1/mcp/raw HTT");
    let grown = sidecar.resident_kib().saturating_sub(before);
    assert!(grown < 96 * 1024, "{grown} KiB more than before");
    for client in &mut clients {
        let answer = client.response(false);
        assert_eq!((answer.status, answer.code().as_deref()), (408, Some("request_timeout")));
    }
    assert!(dribbling.try_head().is_none(), "a header that never ends gets no answer");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    sidecar.finish();
}

#[test]
fn an_http_1_0_connection_is_closed_after_its_answer() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let mut client = Client::connect(sidecar.mcp);
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).replace("HTTP/1.1", "HTTP/1.0");
    client.send(request.as_bytes());
    assert_eq!(client.response(false).status, 200);
    assert!(client.try_head().is_none(), "the connection is closed");
    sidecar.finish();
}

#[test]
fn a_connection_lives_on_while_its_requests_come_whole() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut client = Client::connect(sidecar.mcp);
    let begun = Instant::now();
    // The header's time is 1 s for each header, not for the connection.
    while begun.elapsed() < Duration::from_millis(2_500) {
        client.send(request.as_bytes());
        assert_eq!(client.response(false).status, 200, "after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    sidecar.finish();
}

#[test]
fn a_header_that_comes_behind_another_request_is_checked_like_the_first() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let good = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    for bad in [good.replacen("\r\nHost", "\nHost", 1), good.replace("\r\n", "\n")] {
        let mut client = Client::connect(sidecar.mcp);
        client.send(format!("{good}{bad}").as_bytes());
        assert_eq!(client.response(false).status, 200, "the first");
        if let Some(answer) = client.try_head() {
            assert!(answer.status >= 400, "{bad:?}: {}", answer.status);
        }
    }
    sidecar.finish();
}

/// Sends byte by byte, with pauses that each stay under any timeout, until an answer or the end; how long that took.
fn dribble(client: &mut Client, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    for byte in bytes {
        client.send(std::slice::from_ref(byte));
        if client.readable_within(Duration::from_millis(150)) {
            break;
        }
    }
    begun.elapsed()
}

#[test]
fn a_body_that_dribbles_is_408_after_the_total_time() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let chunks: String = body.bytes().map(|byte| format!("1\r\n{}\r\n", char::from(byte))).collect();
    let framings = [
        (format!("{head}Content-Length: {}\r\n\r\n", body.len()), body.clone()),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n"), chunks),
    ];
    for (head, body) in framings {
        let mut client = Client::connect(sidecar.mcp);
        client.send(head.as_bytes());
        let took = dribble(&mut client, body.as_bytes());
        let answer = client.response(false);
        assert_eq!((answer.status, answer.code().as_deref()), (408, Some("request_timeout")));
        assert!(took > Duration::from_millis(800) && took < Duration::from_secs(15), "{took:?}");
        assert!(client.try_head().is_none(), "the connection is closed");
    }
    assert_eq!(sidecar.upstream.count(), 0);
    sidecar.finish();
}

#[test]
fn a_header_that_dribbles_is_cut_after_the_total_time_also_on_a_used_connection() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let whole = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    for used in [false, true] {
        let mut client = Client::connect(sidecar.mcp);
        if used {
            client.send(whole.as_bytes());
            assert_eq!(client.response(false).status, 200);
        }
        let took = dribble(&mut client, whole.as_bytes());
        assert!(client.try_head().is_none_or(|answer| answer.status == 408), "used: {used}");
        assert!(took > Duration::from_millis(800) && took < Duration::from_secs(15), "used: {used}: {took:?}");
    }
    assert_eq!(sidecar.upstream.count(), 1);
    sidecar.finish();
}

#[test]
fn headers_and_targets_beyond_their_limits_have_their_codes() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let rest = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let many: String = (0..120).map(|number| format!("X-{number}: 1\r\n")).collect();
    let long = head.replacen("/mcp/raw", &format!("/mcp/raw?{}", "a".repeat(9000)), 1);
    let target = head.replacen("/api/v1/mcp/raw", &format!("/{}", "a".repeat(9000)), 1);
    for (what, bytes, status, code) in [
        ("100 KiB in one", format!("{head}X-Big: {}\r\n{rest}", "a".repeat(100 << 10)), 431, "headers_too_large"),
        ("120 headers", format!("{head}{many}{rest}"), 431, "headers_too_large"),
        ("a long query", format!("{long}{rest}"), 414, "uri_too_long"),
        ("a long path", format!("{target}{rest}"), 414, "uri_too_long"),
    ] {
        let mut client = Client::connect(sidecar.mcp);
        client.send(bytes.as_bytes());
        let answer = client.response(false);
        assert_eq!((answer.status, answer.code().as_deref()), (status, Some(code)), "{what}");
    }
    // What never ends is not kept, whatever the size.
    let before = sidecar.resident_kib();
    for line in ["X-Big: ", "X-A: b\r\n"] {
        let mut client = Client::connect(sidecar.mcp);
        client.send(head.as_bytes());
        for _ in 0..4096 {
            client.send(line.repeat(1024).as_bytes());
            if client.readable_within(Duration::ZERO) {
                break;
            }
        }
        assert!(client.try_head().is_none_or(|answer| answer.status >= 400));
    }
    let grown = sidecar.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
    assert_eq!((sidecar.upstream.count(), sidecar.canary.count()), (0, 0));
    sidecar.finish();
}

#[test]
fn a_large_body_waits_for_the_go_ahead_and_one_too_large_gets_none() {
    let sidecar = start();
    let (head, _) = call(&sidecar);
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "raw.echo", "arguments": {"text": "a".repeat(200 << 10)}}})
    .to_string();
    let mut client = Client::connect(sidecar.mcp);
    for framing in [format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked".to_owned()] {
        client.send(format!("{head}Expect: 100-continue\r\n{framing}\r\n\r\n").as_bytes());
        let go_ahead = b"HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(client.raw(go_ahead.len()), go_ahead, "{framing}");
        match framing.contains("chunked") {
            true => client.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()),
            false => client.send(body.as_bytes()),
        }
        assert_eq!(client.response(false).status, 200, "{framing}");
    }
    assert!(sidecar.upstream.seen().iter().all(|seen| seen.body.len() == body.len()), "it arrived whole");
    // Refused by what the header says: no go-ahead, the answer comes at once.
    for (what, head, status) in [
        ("too large", format!("{head}Content-Length: {}\r\n", 10 << 20), 413),
        ("no credential", head.replace("Bearer", "Basic") + "Content-Length: 100\r\n", 401),
    ] {
        let mut client = Client::connect(sidecar.mcp);
        client.send(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes());
        let start = String::from_utf8(client.raw(12)).expect("ASCII");
        assert_eq!(start, format!("HTTP/1.1 {status}"), "{what}");
    }
    sidecar.finish();
}

#[test]
fn what_is_sent_behind_a_refused_body_is_not_a_request() {
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let inner = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    // The body of a refused request holds a whole request: it must never be read as one.
    for outer in [
        head.replace("Bearer", "Basic"),
        head.replace("POST", "PUT"),
        head.replace("/mcp/raw", "/mcp//raw"),
        head.replace("application/json", "text/plain"),
        head.replace("/api/v1/mcp/raw", "/api/v1/mcp/nowhere"),
        format!("{head}X-Mcp-Sidecar-Identity: e30\r\n"),
    ] {
        for framing in [
            format!("Content-Length: {}\r\n\r\n{inner}", inner.len()),
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()),
        ] {
            let mut client = Client::connect(sidecar.mcp);
            client.send(format!("{outer}{framing}").as_bytes());
            client.end();
            let answer = client.response(false);
            assert!(answer.status == 200 || answer.status >= 400, "{}", answer.status);
            assert!(client.try_head().is_none(), "one answer only, for {outer}");
        }
    }
    assert_eq!((sidecar.upstream.count(), sidecar.canary.count()), (0, 0));
    sidecar.finish();
}
