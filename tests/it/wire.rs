//! Requests as raw bytes: framing that two readers could read differently, and clients that take their time.

use std::time::{Duration, Instant};

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
    let sidecar = start();
    let (head, body) = call(&sidecar);
    let begun = Instant::now();
    let mut clients: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = Client::connect(sidecar.mcp);
            let short = &body[..body.len() - 1];
            client.send(format!("{head}Content-Length: {}\r\n\r\n{short}", body.len()).as_bytes());
            client
        })
        .collect();
    let mut dribbling = Client::connect(sidecar.mcp);
    dribbling.send(b"POST /api/v1/mcp/raw HTT");
    for client in &mut clients {
        let answer = client.response(false);
        assert_eq!((answer.status, answer.code().as_deref()), (408, Some("request_timeout")));
    }
    assert!(dribbling.try_head().is_none(), "a header that never ends gets no answer");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
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
