//! Caps on answers: exactly at the cap passes, one byte above does not.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Next, Sidecar, Upstream, stream_head};

const SOON: Duration = Duration::from_secs(10);
const CAP: usize = 4096;

/// A JSON document of exactly so many bytes.
fn document(length: usize) -> String {
    let frame = json!({"jsonrpc": "2.0", "id": 1, "result": {"text": ""}}).to_string().len();
    json!({"jsonrpc": "2.0", "id": 1, "result": {"text": "a".repeat(length - frame)}}).to_string()
}

#[test]
fn a_result_at_the_cap_passes_and_one_byte_more_is_413() {
    let upstream = Upstream::scripted(|seen, peer| {
        // The id says how long the answer is; the tool's name, how it is framed.
        let request = seen.json();
        let length = request["id"].as_u64().and_then(|id| usize::try_from(id).ok()).expect("a length");
        let body = document(length);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        match request["params"]["name"].as_str() {
            Some("raw.length") => {
                peer.send(format!("{head}Content-Length: {length}\r\n\r\n{body}"));
                return Next::KeepAlive;
            }
            Some("raw.chunked") => {
                peer.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
                body.as_bytes().chunks(1000).for_each(|part| {
                    peer.chunk(part);
                });
                peer.send("0\r\n\r\n");
                return Next::KeepAlive;
            }
            _ => peer.send(format!("{head}\r\n{body}")),
        };
        Next::Close
    });
    let sidecar = Sidecar::start().raw("limits.max_result_bytes", CAP as i64).upstream(upstream).go();
    for tool in ["raw.length", "raw.chunked", "raw.unframed"] {
        let whole = sidecar.send(&sidecar.call_request(tool, CAP as u64));
        assert_eq!((whole.status, whole.body.len()), (200, CAP), "{tool}: {}", whole.text());
        let over = sidecar.send(&sidecar.call_request(tool, CAP as u64 + 1));
        assert_eq!((over.status, over.code().as_deref()), (413, Some("result_too_large")), "{tool}");
    }
    let refused: Vec<_> = sidecar.audit().into_iter().filter(|record| record["status"] == 413).collect();
    assert!(refused.iter().all(|record| record["decision"] == "allow"), "they did reach the upstream: {refused:?}");
    sidecar.finish();
}

#[test]
fn answers_are_held_within_the_memory_budget() {
    let upstream = Upstream::scripted(|seen, peer| {
        let large = seen.json()["params"]["name"] == "raw.large";
        let body = document(if large { 3 << 19 } else { 1000 });
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        peer.send(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        Next::KeepAlive
    });
    let sidecar =
        Sidecar::start().set("memory.in_flight_mb=1").raw("limits.max_result_bytes", 2 << 20).upstream(upstream).go();
    for _ in 0..3 {
        let answer = sidecar.call("raw.large");
        assert_eq!((answer.status, answer.code().as_deref()), (503, Some("overloaded")));
        assert!(answer.header("retry-after").is_some(), "a retry can help");
        // What was taken is given back.
        assert_eq!(sidecar.call("raw.small").status, 200);
    }
    sidecar.finish();
}

/// An SSE event of exactly so many bytes.
fn event(length: usize) -> String {
    format!("data: {}\n\n", "a".repeat(length - 8))
}

/// What the client gets of the events, each of which the upstream sends as a chunk of its own.
fn streamed(events: Vec<String>, start: crate::harness::Start) -> (String, Sidecar) {
    let upstream = Upstream::scripted(move |_, peer| {
        peer.send(stream_head());
        events.iter().for_each(|event| {
            peer.chunk(event);
        });
        peer.send("0\r\n\r\n");
        Next::KeepAlive
    });
    let sidecar = start.upstream(upstream).go();
    let mut client = Client::connect(sidecar.mcp);
    client.send(&sidecar.call_request("raw.echo", 1).bytes());
    let answer = client.response(false);
    assert_eq!(answer.status, 200);
    (answer.text(), sidecar)
}

const ENDED: &str = "mcp_sidecar_stream_ends_total{how=\"complete\"}";
const CUT: &str = "mcp_sidecar_stream_ends_total{how=\"too_large\"}";

fn ends(sidecar: &Sidecar, series: &str) {
    crate::harness::eventually(series, SOON, || (sidecar.metric(series) == 1.0).then_some(()));
}

#[test]
fn a_stream_at_its_cap_passes_and_one_byte_more_ends_with_an_error() {
    let start = || Sidecar::start().policy("limits.max_stream_mb", 1).raw("limits.max_stream_mb", 1);
    let eighth = event(128 * 1024);
    let (text, sidecar) = streamed(vec![eighth.clone(); 8], start());
    assert_eq!(text.len(), 1 << 20);
    ends(&sidecar, ENDED);
    sidecar.finish();

    let mut events = vec![eighth; 7];
    events.push(event(128 * 1024 + 1));
    let (text, sidecar) = streamed(events, start());
    let last = text.rsplit("data: ").next().expect("an event");
    let last: serde_json::Value = serde_json::from_str(last.trim()).expect("a JSON-RPC error");
    assert_eq!((last["error"]["code"].as_i64(), last["id"].as_u64()), (Some(-32603), Some(1)), "{last}");
    assert_eq!(last["error"]["data"]["code"], "stream_too_large");
    assert_eq!(text.matches("data: aaa").count(), 7, "whole events only");
    ends(&sidecar, CUT);
    sidecar.finish();
}

#[test]
fn an_event_at_its_bound_passes_and_one_byte_more_ends_the_stream_behind_the_events_before_it() {
    let start = || Sidecar::start().policy("stream.max_event_kb", 1);
    let (text, sidecar) = streamed(vec![event(1024)], start());
    assert_eq!(text.len(), 1024);
    ends(&sidecar, ENDED);
    sidecar.finish();

    // The event before it comes in the same chunk.
    let (text, sidecar) = streamed(vec!["data: first\n\n".to_owned() + &event(1025)], start());
    assert!(text.starts_with("data: first\n\n"), "{}", &text[..40.min(text.len())]);
    assert!(text.contains("stream_too_large") && !text.contains("aaa"), "nothing of the large event");
    ends(&sidecar, CUT);
    sidecar.finish();
}

#[test]
fn an_event_without_end_costs_bounded_memory() {
    let upstream = Upstream::scripted(|_, peer| {
        peer.send(stream_head());
        let line = "data: ".to_owned() + &"a".repeat(60_000) + "\n";
        while peer.chunk(&line) {}
        Next::Close
    });
    let sidecar = Sidecar::start().upstream(upstream).go();
    let before = sidecar.resident_kib();
    let mut client = Client::connect(sidecar.mcp);
    client.send(&sidecar.call_request("raw.echo", 1).bytes());
    assert!(client.response(false).text().contains("stream_too_large"));
    let grown = sidecar.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
    sidecar.finish();
}

#[test]
fn events_in_progress_are_held_within_the_memory_budget() {
    let upstream = Upstream::scripted(|seen, peer| {
        peer.send(stream_head());
        peer.chunk("data: first\n\n");
        let large = seen.json()["params"]["name"] == "raw.large";
        peer.chunk(event(if large { 3 << 19 } else { 1 << 19 }));
        peer.send("0\r\n\r\n");
        Next::KeepAlive
    });
    let start = Sidecar::start().set("memory.in_flight_mb=1").policy("stream.max_event_kb", 4096);
    let sidecar = start.upstream(upstream).go();
    for _ in 0..3 {
        let text = sidecar.call("raw.large").text();
        assert!(text.starts_with("data: first\n\n") && text.contains("\"overloaded\"") && !text.contains("aaa"));
        // What was taken is given back.
        assert_eq!(sidecar.call("raw.small").body.len(), 13 + (1 << 19));
    }
    assert_eq!(sidecar.metric("mcp_sidecar_stream_ends_total{how=\"overloaded\"}"), 3.0);
    sidecar.finish();
}

#[test]
fn the_last_event_of_a_stream_passes_whatever_its_line_ends() {
    for ending in ["\n\n", "\r\n\r\n", "\r\r", "\n\r", "\r\n\r"] {
        let (text, sidecar) = streamed(vec![format!("data: last{ending}")], Sidecar::start());
        assert_eq!(text, format!("data: last{ending}"));
        ends(&sidecar, ENDED);
        sidecar.finish();
    }
}
