//! Upstreams that misbehave: each gets a clear answer, costs bounded memory, and never spoils another call.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Next, Response, Sidecar, Upstream, eventually, json_answer};

const SOON: Duration = Duration::from_secs(10);

fn result(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"content": [], "isError": false}})
}

/// An answer with this head (status line and headers, without the blank line) and body.
fn answer(head: &str, body: &str) -> Vec<u8> {
    format!("{head}\r\n\r\n{body}").into_bytes()
}

/// What the upstream writes before it closes, and what the client then gets.
type Case = (&'static str, Vec<u8>, u16, Option<&'static str>);

/// The same answer, which says that the connection ends with it: otherwise the next call may be lost on it.
fn closing(answer: &[u8]) -> Vec<u8> {
    let mut answer = answer.to_vec();
    if answer.starts_with(b"HTTP/1.1 ")
        && answer.get(9) != Some(&b'1')
        && let Some(at) = answer.windows(2).position(|pair| pair == b"\r\n")
    {
        answer.splice(at + 2..at + 2, *b"Connection: close\r\n");
    }
    answer
}

/// Serves the case whose position is the call's id, then closes.
fn playing(cases: &[Case]) -> Upstream {
    let scripts: Vec<Vec<u8>> = cases.iter().map(|case| closing(&case.1)).collect();
    Upstream::scripted(move |seen, peer| {
        let index = seen.json()["id"].as_u64().and_then(|id| usize::try_from(id).ok()).expect("the case's number");
        peer.send(&scripts[index]);
        Next::Close
    })
}

fn play(cases: Vec<Case>) {
    let sidecar = Sidecar::start().upstream(playing(&cases)).go();
    for (index, (what, _, status, code)) in cases.iter().enumerate() {
        let answer = sidecar.send(&sidecar.call_request("raw.echo", index as u64));
        assert_eq!((answer.status, answer.code().as_deref()), (*status, *code), "{what}: {}", answer.text());
        for name in ["set-cookie", "location", "x-leak", "content-encoding", "server"] {
            assert_eq!(answer.header(name), None, "{what}: {name} came through");
        }
    }
    sidecar.finish();
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
const BODY: &str = r#"{"jsonrpc":"2.0","id":0,"result":{}}"#;
const FAILED: Option<&str> = Some("upstream_failed");

#[test]
fn an_answer_that_is_no_http_or_breaks_off_is_502() {
    let chunked = format!("{OK}\r\nTransfer-Encoding: chunked");
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    play(vec![
        ("closes at once", b"".to_vec(), 502, FAILED),
        ("closes within the header", b"HTTP/1.1 200 OK\r\nContent-Ty".to_vec(), 502, FAILED),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec(), 502, FAILED),
        ("bytes", vec![0, 255, 13, 10, 13, 10], 502, FAILED),
        ("no such status", answer("HTTP/1.1 42 Low\r\nContent-Length: 0", ""), 502, FAILED),
        ("closes within the body", answer(&format!("{OK}\r\nContent-Length: 900"), BODY), 502, FAILED),
        ("closes within a chunk", answer(&chunked, "fff\r\n{"), 502, FAILED),
        ("closes between chunks", answer(&chunked, "2\r\n{}\r\n"), 502, FAILED),
        ("a chunk size that is no number", answer(&chunked, "zz\r\n{}\r\n0\r\n\r\n"), 502, FAILED),
        ("closes within an unframed body", answer(OK, &BODY[..20]), 502, FAILED),
        ("ends an unframed body", answer(OK, BODY), 200, None),
        ("switches protocols", answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x", BODY), 502, FAILED),
        ("only interim answers", early.repeat(40).into_bytes(), 502, FAILED),
        (
            "interim answers, then its own",
            answer(&format!("{}{OK}\r\nContent-Length: {}", early.repeat(3), BODY.len()), BODY),
            200,
            None,
        ),
    ]);
}

#[test]
fn an_answer_that_could_be_read_two_ways_is_502() {
    let length = format!("Content-Length: {}", BODY.len());
    let chunks = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let with = |lines: &str, body: &str| answer(&format!("{OK}\r\n{lines}"), body);
    play(vec![
        ("both lengths", with(&format!("Transfer-Encoding: chunked\r\n{length}"), &chunks), 502, FAILED),
        ("two lengths", with(&format!("{length}\r\nContent-Length: 3"), BODY), 502, FAILED),
        ("a signed length", with(&format!("Content-Length: +{}", BODY.len()), BODY), 502, FAILED),
        ("an endless length", with("Content-Length: 99999999999999999999999", BODY), 502, FAILED),
        ("a coding before chunked", with("Transfer-Encoding: gzip, chunked", &chunks), 502, FAILED),
        ("two codings", with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", &chunks), 502, FAILED),
        ("an unknown coding", with("Transfer-Encoding: xchunked", &chunks), 502, FAILED),
        (
            "chunks in HTTP/1.0",
            answer("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked", &chunks),
            502,
            FAILED,
        ),
        ("a folded line", with(&format!("Mcp-Session-Id: a\r\n X-Leak: b\r\n{length}"), BODY), 502, FAILED),
        ("a content coding", with(&format!("Content-Encoding: gzip\r\n{length}"), BODY), 502, FAILED),
        ("no coding", with(&format!("Content-Encoding: identity\r\n{length}"), BODY), 200, None),
        ("one chunk", with("Transfer-Encoding: chunked", &chunks), 200, None),
    ]);
}

#[test]
fn an_answer_that_no_mcp_server_gives_is_502_and_its_headers_stay_behind() {
    let page = |status: &str, kind: &str| {
        let kind = if kind.is_empty() { String::new() } else { format!("\r\nContent-Type: {kind}") };
        let extra = "Set-Cookie: s=1; Domain=site\r\nLocation: /x\r\nX-Leak: 1\r\nServer: x";
        answer(&format!("HTTP/1.1 {status}{kind}\r\n{extra}\r\nContent-Length: {}", BODY.len()), BODY)
    };
    play(vec![
        ("a cookie", page("200 OK", "application/json; charset=utf-8"), 200, None),
        (
            "a header that may come twice",
            page("200 OK\r\nCache-Control: no-store\r\nCache-Control: private", "application/json"),
            200,
            None,
        ),
        ("a web page", page("200 OK", "text/html"), 502, FAILED),
        ("no media type", page("200 OK", ""), 502, FAILED),
        ("a longer media type", page("200 OK", "application/json-seq"), 502, FAILED),
        ("another longer one", page("200 OK", "text/event-streams"), 502, FAILED),
        ("a redirect", page("302 Found", "application/json"), 502, FAILED),
        ("a failure", page("500 Oops", "application/json"), 502, FAILED),
        ("a streamed failure", page("500 Oops", "text/event-stream"), 502, FAILED),
        ("its own refusal", page("401 Unauthorized", "application/json"), 502, FAILED),
        ("no content", answer("HTTP/1.1 204 No Content", ""), 502, FAILED),
        ("not modified", answer("HTTP/1.1 304 Not Modified", ""), 502, FAILED),
        ("no content, and yet some", answer("HTTP/1.1 204 No Content", BODY), 502, FAILED),
    ]);
}

#[test]
fn an_upstream_without_end_costs_bounded_memory() {
    let upstream = Upstream::scripted(|seen, peer| {
        let block = vec![b'a'; 64 * 1024];
        let endless = match seen.json()["id"].as_u64() {
            Some(0) => "HTTP/1.1 200 OK\r\nX-Long: ".to_owned(),
            Some(1) => format!("{OK}\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"),
            Some(2) => format!("{OK}\r\nContent-Length: 99999999999\r\n\r\n"),
            Some(3) => format!("{OK}\r\n\r\n"),
            Some(4) => format!("{OK}\r\nTransfer-Encoding: chunked\r\n\r\n2;"),
            _ => {
                peer.send("HTTP/1.1 200 OK\r\n");
                while peer.send("X-A: b\r\n".repeat(64)) {}
                return Next::Close;
            }
        };
        peer.send(endless);
        while peer.send(&block) {}
        Next::Close
    });
    let sidecar = Sidecar::start().raw("limits.max_result_bytes", 256 * 1024).upstream(upstream).go();
    let before = sidecar.resident_kib();
    let too_large = (413, Some("result_too_large"));
    let failed = (502, FAILED);
    let wanted = [failed, too_large, too_large, too_large, failed, failed];
    for (index, wanted) in wanted.into_iter().enumerate() {
        let answer = sidecar.send(&sidecar.call_request("raw.echo", index as u64));
        assert_eq!((answer.status, answer.code().as_deref()), wanted, "case {index}: {}", answer.text());
    }
    let grown = sidecar.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
    sidecar.finish();
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_504() {
    let upstream = Upstream::scripted(|seen, peer| {
        let begun = match seen.json()["id"].as_u64() {
            Some(0) => {
                peer.gone_within(SOON);
                return Next::Close;
            }
            Some(1) => "HTTP/1.1 200 OK\r\nContent-".to_owned(),
            _ => format!("{OK}\r\nContent-Length: 100\r\n\r\n{{"),
        };
        peer.send(begun);
        // One byte now and then is no answer either: the time is total.
        for _ in 0..200 {
            if peer.gone_within(Duration::from_millis(100)).is_some() || !peer.send("a") {
                break;
            }
        }
        Next::Close
    });
    let sidecar = Sidecar::start().set("timeouts.response_header=\"1s\"").upstream(upstream).go();
    for id in 0..3 {
        let begun = Instant::now();
        let answer = sidecar.send(&sidecar.call_request("raw.echo", id));
        assert_eq!((answer.status, answer.code().as_deref()), (504, Some("upstream_timeout")), "case {id}");
        assert!(begun.elapsed() < Duration::from_secs(15), "case {id} took {:?}", begun.elapsed());
        assert!(answer.header("retry-after").is_some(), "a retry can help");
    }
    assert!(sidecar.metric("mcp_sidecar_upstream_failures_total{kind=\"timeout\",server=\"raw\"}") >= 3.0);
    sidecar.finish();
}

/// Ids of two calls in a row, and how many connections they took.
fn two_calls(upstream: Upstream, between: impl FnOnce()) -> (Response, Response, usize) {
    let sidecar = Sidecar::start().set("runtime.threads=1").upstream(upstream).go();
    let mut client = Client::connect(sidecar.mcp);
    let first = client.round_trip(&sidecar.call_request("raw.echo", 1));
    between();
    let second = client.round_trip(&sidecar.call_request("raw.echo", 2));
    let connections = sidecar.upstream.connections();
    sidecar.finish();
    (first, second, connections)
}

#[test]
fn an_answer_may_come_byte_by_byte() {
    let upstream = Upstream::scripted(|seen, peer| {
        let body = result(&seen.json()["id"]).to_string();
        let chunks: String = body.bytes().map(|byte| format!("1;x=y\r\n{}\r\n", char::from(byte))).collect();
        let whole = answer(&format!("{OK}\r\nTransfer-Encoding: chunked"), &format!("{chunks}0\r\nX-T: 1\r\n\r\n"));
        for byte in whole {
            peer.send([byte]);
        }
        Next::KeepAlive
    });
    let (first, second, connections) = two_calls(upstream, || {});
    assert_eq!((first.json()["id"].as_u64(), second.json()["id"].as_u64(), connections), (Some(1), Some(2), 1));
}

#[test]
fn a_clean_connection_serves_the_next_call() {
    let upstream = Upstream::scripted(|seen, peer| {
        peer.send(json_answer(&result(&seen.json()["id"])));
        Next::KeepAlive
    });
    let (first, second, connections) = two_calls(upstream, || {});
    assert_eq!((first.json()["id"].as_u64(), second.json()["id"].as_u64(), connections), (Some(1), Some(2), 1));
}

#[test]
fn bytes_that_nobody_asked_for_are_never_the_next_answer() {
    let forged = json_answer(&json!({"jsonrpc": "2.0", "id": 2, "result": {"forged": true}}));
    let chunks = |id: &Value| {
        let body = result(id).to_string();
        answer(&format!("{OK}\r\nTransfer-Encoding: chunked"), &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
    };
    type Shape = (&'static str, Box<dyn Fn(&Value) -> Vec<u8> + Send + Sync>);
    let shapes: [Shape; 5] = [
        ("with the first", Box::new(|id| json_answer(&result(id)))),
        ("behind chunks", Box::new(chunks)),
        ("in place of a body that must not be", Box::new(|_| answer("HTTP/1.1 202 Accepted\r\nContent-Length: 0", ""))),
        ("behind a status without body", Box::new(|_| answer("HTTP/1.1 204 No Content", ""))),
        ("behind a failure", Box::new(|_| answer("HTTP/1.1 500 Oops\r\nContent-Length: 0", ""))),
    ];
    for (what, first) in shapes {
        let forged = forged.clone();
        let upstream = Upstream::scripted(move |seen, peer| {
            let id = &seen.json()["id"];
            if id == 1 {
                peer.send([first(id), forged.clone()].concat());
            } else {
                peer.send(json_answer(&result(id)));
            }
            Next::KeepAlive
        });
        let (_, second, connections) = two_calls(upstream, || {});
        assert!(!second.text().contains("forged"), "{what}: {}", second.text());
        assert_eq!((second.status, connections), (200, 2), "{what}");
    }
}

#[test]
fn an_answer_that_comes_late_and_unasked_is_never_the_next_answer() {
    let (report, sent) = mpsc::channel();
    let upstream = Upstream::scripted(move |seen, peer| {
        let id = &seen.json()["id"];
        peer.send(json_answer(&result(id)));
        if id == 1 {
            std::thread::park_timeout(Duration::from_millis(100));
            peer.send(json_answer(&json!({"jsonrpc": "2.0", "id": 2, "result": {"forged": true}})));
            let _ = report.send(());
        }
        Next::KeepAlive
    });
    let (_, second, connections) = two_calls(upstream, || sent.recv_timeout(SOON).expect("the upstream wrote it"));
    assert!(!second.text().contains("forged"), "{}", second.text());
    assert_eq!((second.status, connections), (200, 2));
}

#[test]
fn a_connection_that_the_upstream_closed_or_wants_closed_is_not_used_again() {
    for close in ["Connection: close\r\n", "Connection: keep-alive, close\r\n", ""] {
        let (report, sent) = mpsc::channel();
        let upstream = Upstream::scripted(move |seen, peer| {
            let body = result(&seen.json()["id"]).to_string();
            peer.send(format!("{OK}\r\n{close}Content-Length: {}\r\n\r\n{body}", body.len()));
            let _ = report.send(());
            if close.is_empty() { Next::Close } else { Next::KeepAlive }
        });
        let settled = || {
            sent.recv_timeout(SOON).expect("the first was answered");
            // The close itself has to arrive.
            std::thread::park_timeout(Duration::from_millis(100));
        };
        let (_, second, connections) = two_calls(upstream, settled);
        assert_eq!((second.status, second.json()["id"].as_u64(), connections), (200, Some(2), 2), "{close:?}");
    }
}

#[test]
fn a_large_request_to_an_upstream_that_answers_without_reading_gets_that_answer() {
    // A server of its own: it answers the header, before the body is read.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("is bound");
    let server = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 1024]).expect("a header");
        let body = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32600,"message":"no"}}"#;
        let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close";
        let _ = stream.write_all(&answer(&format!("{head}\r\nContent-Length: {}", body.len()), body));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let mut sidecar = Sidecar::start().set(format!("upstreams.raw.url=\"http://{address}/mcp\"")).go();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "raw.echo", "arguments": {"text": "a".repeat(200 * 1024)}}});
    let answer = sidecar.send(&sidecar.post("raw", &crate::harness::Token::of("alice"), body.to_string()));
    assert_eq!(answer.status, 400, "{}", answer.text());
    server.join().expect("the server ended");
    sidecar.expect_unreached(1);
    sidecar.finish();
}

#[test]
fn a_stream_where_streaming_is_off_is_403_and_ended() {
    let (report, gone) = mpsc::channel();
    let upstream = Upstream::scripted(move |_, peer| {
        peer.send(crate::harness::stream_head());
        peer.chunk("data: {}\n\n");
        let _ = report.send(peer.gone_within(SOON));
        Next::Close
    });
    let sidecar = Sidecar::start().policy("stream.enabled", false).upstream(upstream).go();
    let answer = sidecar.call("raw.echo");
    assert_eq!((answer.status, answer.code().as_deref()), (403, Some("streaming_disabled")));
    assert!(gone.recv_timeout(SOON).expect("the upstream reports").is_some(), "the upstream's request is ended");
    let series = "mcp_sidecar_requests_total{code=\"streaming_disabled\",decision=\"allow\",method=\"tools/call\",server=\"raw\"}";
    eventually("the metric names it", SOON, || (sidecar.metric(series) == 1.0).then_some(()));
    sidecar.finish();
}
