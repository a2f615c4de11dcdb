//! What a server's own keys change (emcp.md 14.2): the global value says one thing, the server another, and the
//! server's counts, while a server without the key keeps to the global one.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Next, Response, Sidecar, Start, Token, Upstream, call_params, eventually, stream_head};

const SOON: Duration = Duration::from_secs(10);

fn code(answer: &Response) -> (u16, Option<String>) {
    (answer.status, answer.code())
}

fn denied(answer: &Response, status: u16, expected: &str) {
    assert_eq!(code(answer), (status, Some(expected.to_owned())), "{}", answer.text());
}

/// A call of the content server's tool, `raw`'s being [`Sidecar::call`].
fn content(sidecar: &Sidecar, arguments: &Value) -> Response {
    sidecar.rpc("content", "tools/call", json!({"name": "evo.content.search", "arguments": arguments}))
}

/// A key of the content server, which is the first.
fn of_content(start: Start, key: &str, value: &str) -> Start {
    start.set(format!("servers.content.{key}={value}"))
}

#[test]
fn payload() {
    let body = |sidecar: &Sidecar, server: &str| {
        let filler = "x".repeat(3000);
        sidecar.rpc(server, "ping", json!({"_meta": {"filler": filler}}))
    };
    for (global, own, expected) in [(256, 2, 413), (2, 256, 200)] {
        let start = Sidecar::start().policy("limits.max_payload_kb", global).raw("limits.max_payload_kb", own);
        let sidecar = of_content(start, "limits.max_payload_kb", &global.to_string()).go();
        assert_eq!(body(&sidecar, "raw").status, expected);
        assert_eq!(body(&sidecar, "content").status, if expected == 200 { 413 } else { 200 });
        sidecar.finish();
    }
}

#[test]
fn result_bytes() {
    for (global, own, expected) in [(1 << 20, 40, 413), (40, 1 << 20, 200)] {
        let start = Sidecar::start().policy("limits.max_result_bytes", global);
        let sidecar = start.raw("limits.max_result_bytes", own).go();
        assert_eq!(sidecar.call("raw.echo").status, expected);
        assert_eq!(content(&sidecar, &json!({"limit": 1})).status, if expected == 200 { 413 } else { 200 });
        sidecar.finish();
    }
}

#[test]
fn result_items() {
    for (global, own, allowed) in [(100, 2, 2), (2, 5, 5)] {
        let start = Sidecar::start().policy("limits.max_result_items", global);
        let sidecar = of_content(start, "limits.max_result_items", &own.to_string()).go();
        let refused = |limit: u32| content(&sidecar, &json!({"limit": limit})).json()["result"]["isError"].clone();
        assert_eq!([refused(allowed), refused(allowed + 1)], [json!(false), json!(true)], "{global} {own}");
        sidecar.finish();
    }
}

#[test]
fn rate() {
    let start = Sidecar::start().policy("rate_limit.per_minute", 1).raw("rate_limit.per_minute", 3);
    let sidecar = of_content(start, "rate_limit.per_minute", "2").go();
    let raw: Vec<u16> = (0..4).map(|_| sidecar.call("raw.echo").status).collect();
    let content: Vec<u16> = (0..3).map(|_| content(&sidecar, &json!({"limit": 1})).status).collect();
    assert_eq!((raw, content), (vec![200, 200, 200, 429], vec![200, 200, 429]));
    sidecar.finish();
}

#[test]
fn scope_map() {
    let own: toml::Table = "\"raw:use\" = \"tools/call\"".parse().expect("TOML");
    let sidecar = Sidecar::start().raw("scope_map", own).go();
    let call = |server: &str, tool: &str, scope: &str, method: &str| {
        let token = Token::of("alice").claim("scopes", json!([scope]));
        let params = json!({"name": tool, "arguments": {"limit": 1}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        code(&sidecar.send(&sidecar.post(server, &token, body)))
    };
    let denied = (403, Some("scope_denied".to_owned()));
    assert_eq!(call("raw", "raw.echo", "raw:use", "tools/call"), (200, None));
    assert_eq!(call("raw", "raw.echo", "mcp:call", "tools/call"), denied);
    assert_eq!(call("content", "evo.content.search", "mcp:call", "tools/call"), (200, None));
    assert_eq!(call("content", "evo.content.search", "raw:use", "tools/call"), denied);
    // It replaces the global map whole: what it does not name needs mcp:admin.
    assert_eq!(call("raw", "raw.echo", "mcp:read", "tools/list"), denied);
    assert_eq!(call("raw", "raw.echo", "mcp:admin", "tools/list"), (200, None));
    sidecar.finish();
}

#[test]
fn denied_tools_of_server_and_policy_are_one_list() {
    let start = Sidecar::start().policy("security.deny_tools", vec!["raw.banned", "evo.model.list"]);
    let sidecar = of_content(start, "security.deny_tools", "[\"evo.content.get\"]").go();
    for (server, tool, allowed) in [
        ("raw", "raw.echo", true),
        ("raw", "raw.secret", false),
        ("raw", "raw.banned", false),
        ("content", "evo.content.search", true),
        ("content", "evo.content.get", false),
        ("content", "evo.model.list", false),
    ] {
        let answer = sidecar.rpc(server, "tools/call", json!({"name": tool, "arguments": {"limit": 1}}));
        match allowed {
            true => assert_eq!(answer.status, 200, "{tool}"),
            false => denied(&answer, 403, "tool_denied"),
        }
    }
    sidecar.finish();
}

#[test]
fn enabled_and_transport() {
    for (key, value) in [("enabled", toml::Value::from(false)), ("transport", toml::Value::from("local"))] {
        let sidecar = Sidecar::start().raw(key, value).go();
        denied(&sidecar.call("raw.echo"), 404, "server_not_found");
        assert_eq!(content(&sidecar, &json!({"limit": 1})).status, 200);
        sidecar.finish();
    }
}

/// An upstream that streams these chunks, then ends; or waits to be left when `stays`.
fn streaming(chunks: Vec<String>, stays: bool) -> (Upstream, mpsc::Receiver<Option<Duration>>) {
    let (report, gone) = mpsc::channel();
    let upstream = Upstream::scripted(move |_, peer| {
        peer.send(stream_head());
        chunks.iter().for_each(|chunk| {
            peer.chunk(chunk);
        });
        if stays {
            let _ = report.send(peer.gone_within(Duration::from_secs(20)));
            return Next::Close;
        }
        peer.send("0\r\n\r\n");
        Next::KeepAlive
    });
    (upstream, gone)
}

fn open(sidecar: &Sidecar) -> (Client, Response) {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")});
    let mut client = Client::connect(sidecar.mcp);
    client.send(&sidecar.post("raw", &Token::of("alice"), body.to_string()).bytes());
    let head = client.head();
    (client, head)
}

fn ended(sidecar: &Sidecar, how: &str) {
    let series = format!("mcp_sidecar_stream_ends_total{{how=\"{how}\"}}");
    eventually(&series, SOON, || (sidecar.metric(&series) == 1.0).then_some(()));
}

#[test]
fn streaming_at_all() {
    for (global, own) in [(true, false), (false, true)] {
        let (upstream, _) = streaming(vec!["data: {}\n\n".to_owned()], false);
        let start = Sidecar::start().policy("stream.enabled", global).raw("stream.enabled", own);
        let sidecar = start.upstream(upstream).go();
        let answer = sidecar.call("raw.echo");
        match own {
            true => assert_eq!((answer.status, answer.text().as_str()), (200, "data: {}\n\n")),
            false => denied(&answer, 403, "streaming_disabled"),
        }
        sidecar.finish();
    }
}

#[test]
fn stream_seconds_and_heartbeat() {
    let (upstream, _gone) = streaming(vec!["data: {}\n\n".to_owned()], true);
    let start = Sidecar::start().policy("stream.max_stream_seconds", 3600).policy("stream.heartbeat_seconds", 3600);
    let start = start.raw("stream.max_stream_seconds", 3).raw("stream.heartbeat_seconds", 1);
    let sidecar = start.upstream(upstream).go();
    let (mut client, head) = open(&sidecar);
    assert_eq!(head.header("x-emcp-stream-max-seconds"), Some("3"));
    assert_eq!(head.header("x-emcp-heartbeat-seconds"), Some("1"));
    let body = client.body_until("the last event", Duration::from_secs(20), |text| text.contains("-32603"));
    assert!(body.lines().any(|line| line.starts_with(':')), "no heartbeat in {body:?}");
    ended(&sidecar, "deadline");
    sidecar.finish();
}

#[test]
fn stream_bytes_and_event_bytes() {
    let event = format!("data: {}\n\n", "x".repeat(3000));
    for (key, global, own, count, expected) in [
        ("stream.max_event_kb", 1024, 2, 1, "too_large"),
        ("stream.max_event_kb", 2, 1024, 1, "complete"),
        ("limits.max_stream_mb", 64, 1, 400, "too_large"),
        ("limits.max_stream_mb", 1, 64, 400, "complete"),
    ] {
        let (upstream, _) = streaming(vec![event.clone(); count], false);
        let sidecar = Sidecar::start().policy(key, global).raw(key, own).upstream(upstream).go();
        let answer = sidecar.call("raw.echo");
        assert_eq!(answer.text().contains("-32603"), expected == "too_large", "{key} {global} {own}");
        ended(&sidecar, expected);
        sidecar.finish();
    }
}

#[test]
fn abort_on_disconnect() {
    for (global, own) in [(true, false), (false, true)] {
        let (upstream, gone) = streaming(vec!["data: {}\n\n".to_owned()], true);
        let start = Sidecar::start().policy("stream.abort_on_disconnect", global);
        let start = start.raw("stream.abort_on_disconnect", own).raw("stream.max_stream_seconds", 5);
        let sidecar = start.upstream(upstream).go();
        let (mut client, _) = open(&sidecar);
        client.body_until("an event", SOON, |text| text.contains("data"));
        drop(client);
        let waited = gone.recv_timeout(SOON).expect("the upstream reports").expect("its connection was closed");
        // Without abort it is read on until the stream's own deadline.
        assert_eq!(waited < Duration::from_secs(3), own, "{waited:?}");
        sidecar.finish();
    }
}
