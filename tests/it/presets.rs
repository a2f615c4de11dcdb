//! The presets of conf/, each driven through both doors.

use serde_json::{Value, json};

use crate::harness::{Request, Response, Sidecar};

const ADMIN: &str = "0123456789abcdefADMIN01";
const OPERATOR: &str = "0123456789abcdefOPERATOR";
const EDITOR: &str = "0123456789abcdefEDITOR1";

/// A preset with three people logged in to the site's manager.
fn start(preset: &str) -> (Sidecar, tempfile::TempDir) {
    let sessions = tempfile::tempdir().expect("a temporary directory");
    for (id, user) in [(ADMIN, 1), (EDITOR, 2), (OPERATOR, 3)] {
        let session = format!("mgrValidated|i:1;usertype|s:7:\"manager\";mgrInternalKey|i:{user};");
        std::fs::write(sessions.path().join(format!("sess_{id}")), session).expect("is written");
    }
    let start = Sidecar::preset(preset).set(format!("executor.manager.session_dir={:?}", sessions.path()));
    (start.go(), sessions)
}

fn users() -> Value {
    let arguments = json!({"model": "User", "limit": 10});
    json!({"name": "evo.model.list", "arguments": arguments})
}

fn by_session(sidecar: &Sidecar, id: &str) -> Response {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": users()});
    let request = Request::new("POST", "/emcp/content").header("Content-Type", "application/json");
    sidecar.send(&request.header("Cookie", &format!("evo_session={id}")).body(body.to_string()))
}

fn by_token(sidecar: &Sidecar) -> Response {
    sidecar.rpc("content", "tools/call", users())
}

/// People, by the model that the presets allow, and nothing secret of them.
fn listed(answer: &Response) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let result = &answer.json()["result"]["structuredContent"];
    let names: Vec<&Value> = result["items"].as_array().expect("a list").iter().map(|item| &item["username"]).collect();
    assert_eq!(names, ["admin", "editor", "operator"]);
    assert!(!answer.text().contains("password") && !answer.text().contains("access_token"));
}

fn refused(answer: &Response, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_deref()), (status, Some(code)), "{}", answer.text());
}

#[test]
fn manager_only_serves_users_of_the_manager_with_the_permission() {
    let (sidecar, _sessions) = start("policy-manager-only.toml");
    listed(&by_session(&sidecar, ADMIN));
    listed(&by_session(&sidecar, OPERATOR));
    refused(&by_session(&sidecar, EDITOR), 403, "forbidden");
    refused(&by_token(&sidecar), 404, "route_not_found");
    sidecar.finish();
}

#[test]
fn api_only_serves_tokens() {
    let (sidecar, _sessions) = start("policy-api-only.toml");
    listed(&by_token(&sidecar));
    refused(&by_session(&sidecar, ADMIN), 404, "route_not_found");
    sidecar.finish();
}

#[test]
fn hybrid_serves_both_each_at_its_door() {
    let (sidecar, _sessions) = start("policy-hybrid.toml");
    listed(&by_token(&sidecar));
    listed(&by_session(&sidecar, ADMIN));
    refused(&by_session(&sidecar, EDITOR), 403, "forbidden");
    let list = Request::new("GET", "/emcp/servers").header("Cookie", &format!("evo_session={OPERATOR}"));
    assert_eq!(sidecar.send(&list).json(), json!({"items": ["content", "raw"]}));
    sidecar.finish();
}
