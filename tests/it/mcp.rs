//! The main job: a client, a token, a tool.

use serde_json::json;

use crate::harness::Sidecar;

#[test]
fn a_client_initialises_lists_and_calls_the_demo_site() {
    let sidecar = Sidecar::start().go();
    let hello = sidecar.rpc("content", "initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}}));
    assert_eq!(hello.status, 200, "{}", hello.text());
    assert_eq!(hello.json()["result"]["serverInfo"]["platform"], "eMCP");
    assert!(hello.header("mcp-session-id").is_some());
    let tools = sidecar.rpc("content", "tools/list", json!({})).json();
    let names: Vec<_> = tools["result"]["tools"].as_array().expect("a list").iter().map(|tool| &tool["name"]).collect();
    assert!(names.contains(&&json!("evo.content.search")), "{names:?}");
    let found = sidecar.rpc(
        "content",
        "tools/call",
        json!({"name": "evo.content.search", "arguments": {"limit": 5, "offset": 0}}),
    );
    assert_eq!(found.status, 200, "{}", found.text());
    assert_eq!(found.json()["result"]["isError"], false, "{}", found.text());
    sidecar.finish();
}

#[test]
fn a_foreign_server_sees_what_was_judged_and_no_credential() {
    let sidecar = Sidecar::start().go();
    let answer = sidecar.call("raw.echo");
    assert_eq!((answer.status, answer.json()["id"].clone()), (200, json!(1)), "{}", answer.text());
    let seen = sidecar.upstream.seen().remove(0);
    assert_eq!(seen.json()["params"]["name"], "raw.echo");
    for name in ["authorization", "cookie", "x-mcp-sidecar-identity"] {
        assert_eq!(seen.header(name), None, "{name} reached a foreign server");
    }
    sidecar.finish();
}
