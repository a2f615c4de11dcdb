//! Sessions of a foreign MCP server: bound to the caller who was given them.

use serde_json::json;

use crate::harness::{Next, Request, Sidecar, Token, Upstream, json_answer, stream_head};

/// An older MCP server: it has one session, names it in every answer, and answers a call of `stream` with events.
fn older() -> Upstream {
    Upstream::scripted(|seen, peer| {
        let body = seen.json();
        let streams = body["params"]["name"] == "raw.stream";
        let head = if streams { stream_head().as_bytes().to_vec() } else { json_answer(&json!({"id": body["id"]})) };
        let line = head.iter().position(|byte| *byte == b'\n').expect("a status line") + 1;
        peer.send([&head[..line], b"Mcp-Session-Id: s.1\r\n", &head[line..]].concat());
        if streams {
            peer.chunk(format!("data: {}\n\n", json!({"jsonrpc": "2.0", "id": body["id"], "result": {}})));
            peer.chunk("");
        }
        Next::Close
    })
}

#[test]
fn a_session_is_its_callers_alone() {
    let sidecar = Sidecar::start().upstream(older()).go();
    let ask = |who: &str, session: Option<&str>, tool: &str| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}}).to_string();
        let mut request: Request = sidecar.post("raw", &Token::of(who), body);
        if let Some(session) = session {
            request = request.header("MCP-Session-Id", session);
        }
        let answer = sidecar.send(&request);
        (answer.status, answer.code(), answer.header("mcp-session-id").map(str::to_owned))
    };
    let seen = || {
        let requests = sidecar.upstream.seen();
        (requests.len(), requests.last().and_then(|seen| seen.header("mcp-session-id").map(str::to_owned)))
    };
    let (status, _, given) = ask("alice", None, "raw.echo");
    let given = given.expect("a session");
    assert!(status == 200 && given.starts_with("s.1."), "{status} {given}");
    assert_eq!(seen(), (1, None));

    for (tool, count) in [("raw.echo", 2), ("raw.stream", 3)] {
        assert_eq!(ask("alice", Some(&given), tool), (200, None, Some(given.clone())), "{tool}");
        assert_eq!(seen(), (count, Some("s.1".to_owned())), "{tool}");
    }
    let other = ask("bob", None, "raw.echo").2.expect("a session");
    assert_ne!(other, given);
    let refused = (404, Some("session_not_found".to_owned()), None);
    for (who, session) in [("bob", &*given), ("alice", &other), ("alice", "s.1"), ("alice", "s.2"), ("alice", "")] {
        assert_eq!(ask(who, Some(session), "raw.echo"), refused, "{who} {session}");
    }
    assert_eq!(seen().0, 4);
    sidecar.finish();
}
