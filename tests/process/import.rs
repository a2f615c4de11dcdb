//! A site that moves from PHP: the settings that eMCP ships, imported, and asked what its clients ask.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::{Client, Request, Response, Token};
use crate::part::{Files, Part, get, program, rpc};

/// The shipped files, with the policy that `import` makes of eMCP's.
fn imported() -> (Files, String) {
    let files = Files::shipped();
    files.demo_site();
    std::fs::remove_file(files.path("policy.toml")).expect("is there");
    let mut command = program();
    command.args(["import", "tests/php/stock/eMCP.php", "tests/php/stock/mcp.php", "--out"]);
    let output = command.arg(files.path("policy.toml")).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("the binary runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{said}");
    (files, said)
}

fn ask(proxy: SocketAddr, token: &Token, method: &str, params: &Value) -> Response {
    let request = rpc("content", &token.sign(), method, params).header("Connection", "close");
    Client::connect(proxy).round_trip(&request)
}

fn tool(proxy: SocketAddr, name: &str, arguments: Value) -> Value {
    let answer = ask(proxy, &Token::of("erika"), "tools/call", &json!({"name": name, "arguments": arguments}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["result"].clone()
}

fn code(answer: &Response) -> (u16, Value) {
    (answer.status, answer.json()["error"]["code"].clone())
}

#[test]
fn the_settings_that_emcp_ships_pass_check_and_have_their_notes() {
    let (files, said) = imported();
    // A queue is not among the settings: `check` asks for it, as a note does.
    let output = files.check().output().expect("the binary runs");
    let told = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && told.contains("[queue_worker]"), "{told}");
    let executor = files.path("executor.toml");
    let queue =
        "[queue_worker]\nurl = \"sqlite://queue.sqlite\"\nkey_env = \"QUEUE_KEY\"\naudit = { dir = \"runs\" }\n";
    let text = std::fs::read_to_string(&executor).expect("is there");
    std::fs::write(&executor, format!("{text}\n{queue}")).expect("is written");
    let mut check = files.check();
    check.env("QUEUE_KEY", "a-key-of-the-queue-0123456789abcdef0123456789");
    let output = check.output().expect("the binary runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && output.stderr.is_empty(), "{text}");
    assert!(text.ends_with("configuration is valid\n"), "{text}");
    // Whose a manager's session is cannot be imported: a note says so, and so may `check`.
    let warnings = text.lines().filter(|line| line.starts_with("warn") && !line.contains("manager.sources"));
    assert_eq!(warnings.collect::<Vec<_>>(), Vec::<&str>::new());
    for words in [
        &["mode.internal", "manager.sources"][..],
        &["auth.token", "/api/v1/token"],
        &["auth.scope_map", "notifications/*", "mcp:read"],
        &["servers[0].scope_map", "[auth.scope_map]"],
        &["servers[0].limits.max_result_items = 50", "100"],
        &["queue.driver", "[queue_worker]"],
        &["idempotency.storage", "actor.service_username", "actor.service_role", "actor.block_login"],
        &["redirect_domains"],
        &["content: route, auth, scopes"],
        &["SAPI_JWT_ISS"],
        &["domain.models.allow"],
    ] {
        assert!(said.lines().any(|note| words.iter().all(|word| note.contains(word))), "{words:?}:\n{said}");
    }
    assert_eq!(said.lines().count(), 12, "every note is one of these:\n{said}");
}

#[test]
fn clients_of_a_php_site_find_what_they_had() {
    let (files, _) = imported();
    let _executor = Part::ready(files.service("executor"));
    let proxy = Part::ready(files.service("proxy"));
    let mcp = proxy.address("listening");
    let token = Token::of("erika");

    let hello =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let answer = ask(mcp, &token, "initialize", &hello);
    assert_eq!(answer.json()["result"]["serverInfo"]["platform"], "eMCP", "{}", answer.text());
    assert!(answer.header("mcp-session-id").is_some());
    let mut note = rpc("content", &token.sign(), "", &Value::Null).header("Connection", "close");
    note.body = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string().into_bytes();
    let answer = Client::connect(mcp).round_trip(&note);
    assert_eq!((answer.status, answer.text().as_str()), (202, ""));
    assert_eq!(ask(mcp, &token, "ping", &json!({})).json()["result"], json!({}));
    let tools = ask(mcp, &token, "tools/list", &json!({})).json();
    assert_eq!(tools["result"]["tools"].as_array().map(Vec::len), Some(14));
    for list in ["resources", "prompts"] {
        assert_eq!(ask(mcp, &token, &format!("{list}/list"), &json!({})).json()["result"][list], json!([]));
    }

    let page = tool(mcp, "evo.content.search", json!({"limit": 100}));
    assert_eq!((&page["isError"], &page["structuredContent"]["meta"]["limit"]), (&json!(false), &json!(100)));
    let page = tool(mcp, "evo.content.search", json!({"limit": 101}));
    assert_eq!(page["isError"], true);
    assert!(page.to_string().contains("between 1 and 100"), "{page}");
    let people = tool(mcp, "evo.model.list", json!({"model": "User", "limit": 100}));
    assert_eq!(people["structuredContent"]["meta"]["model"], "User", "{people}");
    let deep = tool(mcp, "evo.content.root_tree", json!({"limit": 1, "depth": 7}));
    assert!(deep.to_string().contains("between 1 and 6"), "{deep}");

    let reader = Token::of("reader").claim("scopes", "mcp:read");
    let call = json!({"name": "evo.content.get", "arguments": {"id": 3}});
    assert_eq!(code(&ask(mcp, &reader, "tools/call", &call)), (403, json!("scope_denied")));
    assert_eq!(code(&ask(mcp, &token, "admin/servers", &json!({}))), (403, json!("scope_denied")));
    let write = json!({"name": "evo.write.document", "arguments": {}});
    assert_eq!(code(&ask(mcp, &token, "tools/call", &write)), (403, json!("tool_denied")));
    let large = json!({"name": "evo.content.get", "arguments": {"id": 3, "note": "x".repeat(129 * 1024)}});
    assert_eq!(code(&ask(mcp, &token, "tools/call", &large)), (413, json!("payload_too_large")));

    // No queue: it runs at once, and the same call again is the same.
    let dispatch = || {
        let mut request = rpc("content", &token.sign(), "tools/call", &call).header("Connection", "close");
        request.target.push_str("/dispatch");
        Client::connect(mcp).round_trip(&request)
    };
    let first = dispatch();
    assert_eq!((first.status, &first.json()["status"]), (200, &json!("completed")), "{}", first.text());
    assert_eq!(first.json()["task_id"], Value::Null);
    assert_eq!(first.json()["result"]["response"]["result"]["structuredContent"]["item"]["id"], 3);

    let limited = Token::of("busy");
    let served = (0..31).filter(|_| ask(mcp, &limited, "ping", &json!({})).status == 200).count();
    assert_eq!(served, 30);

    // What has a note: nobody tells the manager's users yet, and tokens are not issued.
    assert_eq!(get(mcp, "/emcp/servers").status, 404);
    let body = json!({"username": "admin", "password": "x"}).to_string();
    let ask_token = Request::new("POST", "/api/v1/token").header("Content-Type", "application/json").body(body);
    assert_eq!(Client::connect(mcp).round_trip(&ask_token.header("Connection", "close")).status, 404);
}
