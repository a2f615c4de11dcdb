//! Keys of the policy and of executor.toml with other values than the shipped ones, as they act over the wire.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Request, Response, Sidecar, Start, Token, eventually};
use crate::manager::{ADMIN, LOGIN, Sessions, sql, with_session};

const SOON: std::time::Duration = std::time::Duration::from_secs(10);

fn ping(sidecar: &Sidecar, target: &str) -> Response {
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let mut request = sidecar.post("raw", &Token::of("alice"), ping);
    request.target = target.to_owned();
    sidecar.send(&request)
}

fn tool(sidecar: &Sidecar, name: &str, arguments: &Value) -> Value {
    let answer = sidecar.rpc("content", "tools/call", json!({"name": name, "arguments": arguments}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["result"].clone()
}

#[test]
fn the_trace_header_has_the_name_that_is_set() {
    let sidecar = Sidecar::start().policy("trace.header", "X-Correlation").go();
    for (name, kept) in [("X-Correlation", true), ("X-Trace-Id", false)] {
        let answer = sidecar.send(&sidecar.call_request("raw.echo", 1).header(name, "mine-7"));
        assert_eq!(answer.header("x-correlation") == Some("mine-7"), kept, "{name}");
        assert!(answer.header("x-correlation").is_some_and(|id| !id.is_empty()), "{name}");
        assert_eq!(answer.header("x-trace-id"), None, "{name}");
        let denied = sidecar.send(&sidecar.call_request("raw.secret", 1).header(name, "mine-8"));
        assert_eq!(denied.json()["error"]["trace_id"] == "mine-8", kept, "{name}");
    }
    let line = eventually("the line is written", SOON, || {
        sidecar.audit().into_iter().find(|line| line["trace_id"] == "mine-7")
    });
    assert_eq!(line["decision"], "allow");
    sidecar.finish();
}

#[test]
fn no_trace_id_is_made_where_none_shall_be() {
    let sidecar = Sidecar::start().policy("trace.generate_if_missing", false).go();
    let without = |request: Request| request.without("X-Trace-Id");
    let answer = sidecar.send(&without(sidecar.call_request("raw.echo", 1)));
    assert_eq!((answer.status, answer.header("x-trace-id")), (200, None));
    assert!(answer.header("x-request-id").is_some());
    let denied = sidecar.send(&without(sidecar.call_request("raw.secret", 1)));
    assert_eq!((denied.status, denied.header("x-trace-id")), (403, None));
    let kept = sidecar.send(&without(sidecar.call_request("raw.echo", 1)).header("X-Trace-Id", "mine"));
    assert_eq!(kept.header("x-trace-id"), Some("mine"));
    sidecar.finish();
}

#[test]
fn the_toolset_version_is_told_in_handshake_and_answers() {
    let sidecar = Sidecar::start().policy("toolset_version", "2.1-site").go();
    let hello =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let hello = sidecar.rpc("content", "initialize", hello).json();
    assert_eq!(hello["result"]["capabilities"]["evo"]["toolsetVersion"], "2.1-site");
    let found = tool(&sidecar, "evo.content.search", &json!({"limit": 1}));
    assert_eq!(found["structuredContent"]["meta"]["toolsetVersion"], "2.1-site");
    sidecar.finish();
}

#[test]
fn an_audit_that_is_switched_off_writes_no_line() {
    let sidecar = Sidecar::start().policy("logging.audit_enabled", false).go();
    assert_eq!(sidecar.call("raw.echo").status, 200);
    assert_eq!(sidecar.call("raw.secret").status, 403);
    let mut nobody = sidecar.call_request("raw.echo", 1);
    nobody = nobody.without("Authorization");
    assert_eq!(sidecar.send(&nobody).status, 401);
    assert_eq!(sidecar.ctl(&["drain"]).status.code(), Some(0));
    // The log is written to its end before the process ends.
    let mut sidecar = sidecar;
    assert!(sidecar.exited_within(SOON * 3).success());
    assert_eq!(sidecar.audit(), [Value::Null; 0]);
}

#[test]
fn routes_have_the_names_that_are_set_and_no_others() {
    let sessions = Sessions::new();
    let start = || sessions.sidecar().policy("auth.token.enabled", true);
    let named = |start: Start, names: [(&str, &str); 4]| {
        names.into_iter().fold(start, |start, (key, name)| start.policy(&format!("route.{key}"), name))
    };
    let names = [("base", "rest"), ("version", "v7"), ("api_prefix", "tools"), ("manager_prefix", "office")];
    let sidecar = named(start(), names).go();
    assert_eq!(ping(&sidecar, "/rest/v7/tools/raw").status, 200);
    let moved = |target: &str| {
        let mut request = with_session("raw", ADMIN);
        request.target = target.to_owned();
        request
    };
    assert_eq!(sidecar.send(&moved("/office/raw")).status, 200);
    let mut list = moved("/office/servers").body("");
    (list.method, list.declare_length) = ("GET".to_owned(), false);
    assert_eq!(sidecar.send(&list).status, 200);
    let login = |target: &str| {
        let body = json!({"username": "admin", "password": "wrong"}).to_string();
        Request::new("POST", target).header("Content-Type", "application/json").body(body)
    };
    assert_eq!(sidecar.send(&login("/rest/v7/token")).status, 401);
    // Other spellings are still nobody's, and the shipped names are the site's now.
    for target in ["/rest/v1/tools/raw", "/rest/v7/tools/raw/", "/rest/v7//tools/raw", "/office/%72aw"] {
        assert_eq!(ping(&sidecar, target).status, 404, "{target}");
    }
    assert_eq!(sidecar.canary.count(), 0);
    sidecar.finish();

    let names = [("base", ""), ("version", ""), ("api_prefix", "tools"), ("manager_prefix", "office")];
    let sidecar = named(Sidecar::start(), names).go();
    assert_eq!(ping(&sidecar, "/tools/raw").status, 200);
    assert_eq!(ping(&sidecar, "/tools/nobody").status, 404);
    assert_eq!(sidecar.canary.count(), 0);
    sidecar.finish();
}

#[test]
fn caps_of_content_and_models_are_those_of_the_policy() {
    let sidecar = Sidecar::start()
        .policy("domain.content.max_depth", 2)
        .policy("domain.content.max_limit", 3)
        .policy("domain.content.max_offset", 4)
        .policy("domain.models.max_offset", 1)
        .policy("domain.models.allow", vec!["Category"])
        .go();
    for (name, arguments, refused) in [
        ("evo.content.descendants", json!({"id": 1, "limit": 1, "depth": 2}), false),
        ("evo.content.descendants", json!({"id": 1, "limit": 1, "depth": 3}), true),
        ("evo.content.search", json!({"limit": 3}), false),
        ("evo.content.search", json!({"limit": 4}), true),
        ("evo.content.search", json!({"limit": 1, "offset": 4}), false),
        ("evo.content.search", json!({"limit": 1, "offset": 5}), true),
        ("evo.model.list", json!({"model": "Category", "limit": 1, "offset": 1}), false),
        ("evo.model.list", json!({"model": "Category", "limit": 1, "offset": 2}), true),
        // The limit of content is not that of models.
        ("evo.model.list", json!({"model": "Category", "limit": 4}), false),
        ("evo.model.list", json!({"model": "SiteTemplate", "limit": 1}), true),
    ] {
        let result = tool(&sidecar, name, &arguments);
        assert_eq!(result["isError"], refused, "{name} {arguments}: {result}");
    }
    let listed = sidecar.rpc("content", "tools/list", json!({})).json();
    let tools = listed["result"]["tools"].as_array().expect("a list").clone();
    let search = tools.iter().find(|tool| tool["name"] == "evo.content.search").expect("is listed");
    let schema = &search["inputSchema"]["properties"];
    assert_eq!((&schema["limit"]["maximum"], &schema["offset"]["maximum"]), (&json!(3), &json!(4)));
    sidecar.finish();
}

#[test]
fn the_managers_permission_is_the_one_that_is_set() {
    // The demo site's operator, user 3, has `emcp` and no other of ours.
    let operator = "0123456789abcdefOPERATR";
    let sessions = Sessions::new();
    sessions.write(operator, &format!("{LOGIN}3;"));
    for (permission, admin, third) in [("emcp", 200, 200), ("emcp_manage", 200, 403), ("nothing_has_it", 403, 403)] {
        let sidecar = sessions.sidecar().policy("acl.permission", permission).go();
        let status = |id: &str| sidecar.send(&with_session("raw", id)).status;
        assert_eq!([status(ADMIN), status(operator)], [admin, third], "{permission}");
        sidecar.finish();
    }
}

#[test]
fn nothing_is_served_where_enable_is_false() {
    let sessions = Sessions::new();
    let start = sessions.sidecar().policy("auth.token.enabled", true).policy("queue.driver", "sync");
    let sidecar = start.policy("enable", false).go();
    let get = |target: &str| Request::new("GET", target);
    for target in ["/api/v1/mcp/raw", "/api/v1/mcp/raw/dispatch", "/api/v1/mcp/nobody", "/api/v1/token"] {
        let answer = ping(&sidecar, target);
        assert_eq!((answer.status, answer.code().as_deref()), (404, Some("route_not_found")), "{target}");
        assert_eq!(sidecar.send(&get(target)).status, 404, "{target}");
    }
    for target in ["/emcp/raw", "/emcp/raw/dispatch", "/emcp/servers"] {
        let mut request = with_session("raw", ADMIN);
        request.target = target.to_owned();
        assert_eq!(sidecar.send(&request).status, 404, "{target}");
        assert_eq!(sidecar.send(&get(target)).status, 404, "{target}");
    }
    assert_eq!((sidecar.upstream.count(), sidecar.canary.count()), (0, 0));
    // What is the site's goes to the site.
    assert_eq!(sidecar.send(&get("/index.html")).status, 200);
    sidecar.finish();
}

#[test]
fn an_issued_token_lives_and_may_as_the_policy_says() {
    let start = Sidecar::start().policy("auth.token.enabled", true).policy("auth.token.ttl_seconds", 90);
    let sidecar = start.policy("auth.token.scopes", vec!["mcp:read", "site:own"]).go();
    let login = sidecar.said("login").to_owned();
    let password = login.strip_prefix("admin ").and_then(|rest| rest.split(' ').next()).expect("a password");
    let request = Request::new("POST", "/api/v1/token")
        .header("Content-Type", "application/json")
        .body(json!({"username": "admin", "password": password}).to_string());
    let answer = sidecar.send(&request).json();
    let token = answer["object"]["token"].as_str().expect("a token").to_owned();
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("three parts")).expect("base64url");
    let claims: Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!(claims["scopes"], json!(["mcp:read", "site:own"]));
    assert_eq!(claims["exp"].as_u64().zip(claims["iat"].as_u64()).map(|(exp, iat)| exp - iat), Some(90));
    let status = |method: &str| {
        let params = json!({"name": "raw.echo", "arguments": {}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let request = Request::new("POST", "/api/v1/mcp/raw")
            .header("Content-Type", "application/json")
            .header("Authorization", &format!("Bearer {token}"));
        sidecar.send(&request.body(body)).status
    };
    assert_eq!([status("tools/list"), status("tools/call")], [200, 403]);
    sidecar.finish();
}

#[test]
fn access_tokens_end_by_the_clock_of_the_cms() {
    let sessions = Sessions::new();
    // The CMS's clock is two hours ahead of UTC, which is SQLite's.
    let sidecar = sessions.sidecar().set("executor.manager.utc_offset=\"+02:00\"").go();
    for (until, status) in [("+3 hours", 200), ("+1 hour", 403), ("+121 minutes", 200)] {
        let valid = format!("access_token = 'AccessTokenOfOlga0123456789', valid_to = datetime('now', '{until}')");
        sql(&sidecar, &format!("UPDATE evo_users SET {valid} WHERE id = 3"));
        let request = with_session("raw", ADMIN).without("Cookie");
        let request = request.header("Authorization", "Bearer AccessTokenOfOlga0123456789");
        assert_eq!(sidecar.send(&request).status, status, "{until}");
    }
    sidecar.finish();
}

#[test]
fn sessions_of_the_database_end_after_the_minutes_that_are_set() {
    let sessions = Sessions::new();
    let start = sessions.sidecar().policy("manager.sources", vec!["database"]);
    let sidecar = start.policy("manager.session_minutes", 2).go();
    for (age_s, status) in [(0, 200), (90, 200), (121, 403)] {
        let hit = format!("CAST(strftime('%s', 'now') AS INTEGER) - {age_s}");
        let table = "evo_active_user_sessions";
        let row = format!("INSERT INTO {table} (sid, internalKey, lasthit, ip) VALUES ('{ADMIN}', 1, {hit}, '::1')");
        sql(&sidecar, &format!("DELETE FROM {table}; {row}"));
        assert_eq!(sidecar.send(&with_session("raw", ADMIN)).status, status, "{age_s} s");
    }
    sidecar.finish();
}
