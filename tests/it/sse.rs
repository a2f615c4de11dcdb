//! Streams: event by event, with heartbeats, deadlines and cuts.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Next, Sidecar, Token, Upstream, call_params, stream_head};

const SOON: Duration = Duration::from_secs(15);

fn open(sidecar: &Sidecar) -> Client {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")});
    let mut client = Client::connect(sidecar.mcp);
    client.send(&sidecar.post("raw", &Token::of("alice"), body.to_string()).bytes());
    let head = client.head();
    assert_eq!(head.status, 200);
    assert!(head.header("content-type").is_some_and(|media| media.starts_with("text/event-stream")));
    client
}

#[test]
fn an_event_arrives_before_the_next_is_sent() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = Upstream::scripted(move |_, peer| {
        peer.send(stream_head());
        peer.chunk("data: {\"first\":1}\n\n");
        let _ = gate.lock().expect("one stream").recv_timeout(Duration::from_secs(20));
        peer.chunk("data: {\"second\":2}\n\n");
        peer.send("0\r\n\r\n");
        Next::KeepAlive
    });
    let sidecar = Sidecar::start().upstream(upstream).go();
    let mut client = open(&sidecar);
    client.body_until("the first event", SOON, |text| text.contains("first"));
    release.send(()).expect("the upstream waits");
    client.body_until("the second event", SOON, |text| text.contains("second"));
    sidecar.finish();
}

#[test]
fn a_silent_upstream_gets_heartbeats_and_then_the_deadline() {
    let upstream = Upstream::scripted(|_, peer| {
        peer.send(stream_head());
        peer.send_pieces(&[b"f\r\ndata: {\"\xc3", b"\xa9\":1}\r", b"\r\n2\r\n\n\r", b"\r\n", b"1\r\n\n\r\n"]);
        peer.gone_within(Duration::from_secs(20));
        Next::Close
    });
    let sidecar = Sidecar::start()
        .policy("stream.heartbeat_seconds", 1)
        .policy("stream.max_stream_seconds", 3)
        .upstream(upstream)
        .go();
    let mut client = open(&sidecar);
    let body = client.body_until("the last error event", Duration::from_secs(10), |text| text.contains("-32603"));
    let comment = body.lines().position(|line| line.starts_with(':'));
    assert!(comment.is_some(), "no heartbeat in {body:?}");
    sidecar.finish();
}

#[test]
fn a_client_that_leaves_ends_the_upstream_request() {
    let (report, gone) = mpsc::channel();
    let upstream = Upstream::scripted(move |_, peer| {
        peer.send(stream_head());
        peer.chunk("data: {}\n\n");
        let _ = report.send(peer.gone_within(Duration::from_secs(10)));
        Next::Close
    });
    let sidecar = Sidecar::start().upstream(upstream).go();
    let mut client = open(&sidecar);
    client.body_until("an event", SOON, |text| text.contains("data"));
    let left = std::time::Instant::now();
    drop(client);
    gone.recv_timeout(SOON).expect("the upstream reports").expect("its connection was closed");
    assert!(left.elapsed() < Duration::from_secs(3), "{:?}", left.elapsed());
    sidecar.finish();
}
