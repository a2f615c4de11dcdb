//! The main job: a client, a token, a tool.

use serde_json::{Value, json};

use crate::harness::{Response, Sidecar, Token};

/// Calls `method` of the content server with these scopes.
fn ask(sidecar: &Sidecar, scopes: &[&str], method: &str, params: &Value) -> Response {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    sidecar.send(&sidecar.post("content", &Token::of("alice").claim("scopes", scopes.to_vec()), body))
}

fn tool_names(sidecar: &Sidecar, scopes: &[&str]) -> Vec<String> {
    let list = ask(sidecar, scopes, "tools/list", &json!({})).json();
    let tools = list["result"]["tools"].as_array().expect("a list");
    tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_client_initialises_lists_and_calls_the_demo_site() {
    let sidecar = Sidecar::start().go();
    let hello = sidecar.rpc("content", "initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}}));
    assert_eq!(hello.status, 200, "{}", hello.text());
    assert_eq!(hello.json()["result"]["serverInfo"]["platform"], "eMCP");
    assert!(hello.header("mcp-session-id").is_some());
    assert_eq!(hello.header("cache-control"), Some("no-cache, private"));
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

#[test]
fn every_method_is_answered_or_refused_by_its_scope() {
    let sidecar = Sidecar::start().go();
    let (user, all) = (&["mcp:read", "mcp:call"][..], &["*"][..]);
    let unknown_revision = json!({"protocolVersion": "2026-07-28"});
    let none = json!({});
    let table: [(&[&str], &str, &Value, u16, Value); 18] = [
        (user, "ping", &none, 200, json!({})),
        (user, "resources/list", &none, 200, json!({"resources": []})),
        (user, "prompts/list", &none, 200, json!({"prompts": []})),
        (user, "completion/complete", &none, 200, json!(-32601)),
        (user, "completion/complete", &json!({"ref": {"type": "ref/prompt", "name": "x"}}), 200, json!(-32601)),
        (all, "resources/subscribe", &json!({"uri": "evo://1"}), 200, json!(-32601)),
        (user, "ping", &Value::Null, 200, json!({})),
        (user, "tools/list", &json!({"cursor": 7}), 200, json!(-32602)),
        (user, "initialize", &unknown_revision, 200, json!(-32602)),
        (user, "server/discover", &none, 200, json!(-32601)),
        (user, "resources/templates/list", &none, 403, json!("scope_denied")),
        (all, "resources/templates/list", &none, 200, json!({"resourceTemplates": []})),
        (user, "logging/setLevel", &none, 403, json!("scope_denied")),
        (all, "logging/setLevel", &json!({"level": "debug"}), 200, json!(-32601)),
        (all, "tasks/get", &none, 200, json!(-32601)),
        (user, "prompts/get", &json!({"name": "x"}), 403, json!("prompt_denied")),
        (user, "resources/read", &json!({"uri": "evo://1"}), 403, json!("resource_denied")),
        (user, "tools/call", &json!({"name": "evo.content.get", "arguments": []}), 200, json!(-32602)),
    ];
    for (scopes, method, params, status, expected) in table {
        let answer = ask(&sidecar, scopes, method, params);
        assert_eq!(answer.status, status, "{method} {params}: {}", answer.text());
        assert_eq!(answer.header("mcp-session-id"), None, "{method}");
        let mut answer = answer.json();
        let told = if expected.is_object() { answer["result"].take() } else { answer["error"]["code"].take() };
        assert_eq!(told, expected, "{method} {params}: {answer}");
    }
    sidecar.finish();
}

#[test]
fn denied_tools_are_hidden_where_the_policy_says_so() {
    let sidecar = Sidecar::start().policy("security.deny_tools", vec!["evo.model.*"]).go();
    assert_eq!(tool_names(&sidecar, &["mcp:read"]).len(), 14, "the listing is not filtered by default");
    sidecar.finish();

    let start = Sidecar::start().policy("security.deny_tools", vec!["evo.model.*"]);
    let sidecar = start.policy("security.hide_denied_tools", true).go();
    let names = tool_names(&sidecar, &["mcp:read", "mcp:call"]);
    assert_eq!(names.len(), 12, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("evo.content.")), "{names:?}");
    assert_eq!(tool_names(&sidecar, &["mcp:read"]), [""; 0], "a caller that may call nothing");
    sidecar.finish();
}
