use std::collections::BTreeSet;

use super::*;

fn request(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

const NAMES: [&str; 14] = [
    "evo.content.search",
    "evo.content.get",
    "evo.content.root_tree",
    "evo.content.descendants",
    "evo.content.ancestors",
    "evo.content.children",
    "evo.content.siblings",
    "evo.content.neighbors",
    "evo.content.prev_siblings",
    "evo.content.next_siblings",
    "evo.content.children_range",
    "evo.content.siblings_range",
    "evo.model.list",
    "evo.model.get",
];

async fn listed(site: &Site, identity: Identity) -> Vec<String> {
    let body = site.send_as(identity, &request("tools/list", json!({}))).await.into_body();
    let list: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    list["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_revision_is_greeted_in_its_own_words() {
    let site = site(0).await;
    let table = [
        (json!({"protocolVersion": "2025-11-25"}), "2025-11-25", true),
        (json!({"protocolVersion": "2025-06-18", "clientInfo": 7, "capabilities": []}), "2025-06-18", true),
        (json!({"protocolVersion": "2025-03-26"}), "2025-03-26", false),
        (json!({"protocolVersion": "2024-11-05"}), "2024-11-05", false),
        (json!({"protocolVersion": null}), "2025-11-25", true),
        (json!({}), "2025-11-25", true),
        (json!([]), "2025-11-25", true),
    ];
    for (params, version, instructed) in table {
        let response = site.send(&request("initialize", params.clone()), false).await;
        assert_eq!(response.headers()["mcp-session-id"].len(), 36, "{params}");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let instructions = answer["result"]["instructions"].as_str();
        assert_eq!(instructions.is_some(), instructed, "{params}");
        let expected = json!({
            "protocolVersion": version,
            "capabilities": {
                "prompts": {"listChanged": false},
                "resources": {"listChanged": false},
                "tools": {"listChanged": false},
                "evo": {"toolsetVersion": "1.0"},
            },
            "serverInfo": {
                "name": "eMCP Content Server",
                "version": "1.0.0",
                "platform": "eMCP",
                "platformVersion": env!("CARGO_PKG_VERSION"),
            },
        });
        let mut result = answer["result"].clone();
        result.as_object_mut().unwrap().remove("instructions");
        assert_eq!(result, expected, "{params}");
    }
}

#[tokio::test]
async fn other_revisions_are_refused_without_a_session() {
    let site = site(0).await;
    for version in [json!("2026-07-28"), json!("2025-11-25 "), json!(""), json!(7), json!([]), json!({"a": 1})] {
        let response = site.send(&request("initialize", json!({"protocolVersion": version})), false).await;
        assert_eq!((response.status(), response.headers().get("mcp-session-id")), (StatusCode::OK, None), "{version}");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let supported = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
        assert_eq!(answer["error"]["code"], -32602, "{version}");
        assert_eq!(answer["error"]["data"], json!({"supported": supported, "requested": version}));
    }
}

#[tokio::test]
async fn tools_are_published_whole() {
    let site = site(0).await;
    let list = site.json(&request("tools/list", json!({}))).await;
    assert_eq!(list["result"].as_object().unwrap().keys().collect::<Vec<_>>(), ["tools"], "nothing but the tools");
    let tools = list["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect::<Vec<_>>(), NAMES);
    for tool in tools {
        let name = tool["name"].as_str().unwrap();
        let members: BTreeSet<&str> = tool.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, BTreeSet::from(["name", "title", "description", "inputSchema", "annotations"]), "{name}");
        assert_eq!(tool["annotations"], json!({"readOnlyHint": true}), "{name}");
        assert!(tool["title"].as_str().unwrap().ends_with(" Tool"), "{name}");
        let schema = &tool["inputSchema"];
        assert_eq!(schema["type"], "object", "{name}");
        let properties = schema["properties"].as_object().unwrap();
        for required in schema["required"].as_array().unwrap() {
            assert!(properties.contains_key(required.as_str().unwrap()), "{name}: {required}");
        }
        for (property, schema) in properties {
            assert!(schema["type"].is_string() || schema["type"].is_array(), "{name}.{property}");
            assert!(schema["description"].is_string(), "{name}.{property}");
            // Optional is what accepts null.
            let required = tool["inputSchema"]["required"].as_array().unwrap().contains(&json!(property));
            let nullable = schema["type"].as_array().is_some_and(|types| types.contains(&json!("null")));
            assert_eq!(nullable, !required, "{name}.{property}");
        }
    }
    let limit = &tools[0]["inputSchema"]["properties"]["limit"];
    assert_eq!((&limit["minimum"], &limit["maximum"]), (&json!(1), &json!(100)));
    assert_eq!(tools[0]["inputSchema"]["properties"]["depth"]["maximum"], 6);
}

#[tokio::test]
async fn cursors_lead_through_the_whole_list() {
    let site = site(0).await;
    for (per_page, pages) in
        [(json!(1), 14), (json!(4), 4), (json!(14), 1), (json!(0), 14), (json!(-7), 14), (json!(99), 1)]
    {
        let (mut names, mut cursor, mut seen) = (Vec::new(), Value::Null, 0);
        loop {
            let params = json!({"per_page": per_page, "cursor": cursor});
            let mut result = site.json(&request("tools/list", params)).await["result"].take();
            names.extend(result["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()));
            seen += 1;
            assert!(seen <= pages, "{per_page}");
            cursor = result["nextCursor"].take();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!((seen, names), (pages, NAMES.map(Value::from).to_vec()), "{per_page}");
    }
    // base64 of {"offset":2}, of {"offset":99}, and what is no cursor of ours.
    for (cursor, first) in [
        ("eyJvZmZzZXQiOjJ9", Some(NAMES[2])),
        ("eyJvZmZzZXQiOjk5fQ==", None),
        ("", Some(NAMES[0])),
        ("%%%", Some(NAMES[0])),
        ("e30=", Some(NAMES[0])),
        ("eyJvZmZzZXQiOi0xfQ==", Some(NAMES[0])),
        ("eyJvZmZzZXQiOiIyIn0=", Some(NAMES[0])),
        ("' OR 1=1 --", Some(NAMES[0])),
        ("Новини", Some(NAMES[0])),
    ] {
        let list = site.json(&request("tools/list", json!({"cursor": cursor}))).await;
        assert_eq!(list["result"]["tools"][0]["name"].as_str(), first, "{cursor}");
        assert!(list["result"].get("nextCursor").is_none(), "{cursor}");
    }
    for method in ["tools/list", "resources/list", "resources/templates/list", "prompts/list"] {
        for params in [json!({"cursor": 1}), json!({"cursor": []}), json!({"per_page": "5"}), json!({"per_page": 1.5})]
        {
            let answer = site.json(&request(method, params.clone())).await;
            assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32602), &json!(1)), "{method} {params}");
        }
    }
}

#[tokio::test]
async fn what_nothing_is_registered_for_is_answered_so() {
    let site = site(0).await;
    let results = [
        ("ping", json!({"anything": [1]}), json!({})),
        ("resources/list", json!({"cursor": "eyJvZmZzZXQiOjJ9"}), json!({"resources": []})),
        ("resources/templates/list", json!({}), json!({"resourceTemplates": []})),
        ("prompts/list", json!([]), json!({"prompts": []})),
    ];
    for (method, params, expected) in results {
        let answer = site.json(&request(method, params)).await;
        assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "result": expected}), "{method}");
    }
    let errors = [
        ("resources/read", json!({}), -32002),
        ("resources/read", json!({"uri": "evo://1"}), -32002),
        ("prompts/get", json!({}), -32602),
        ("prompts/get", json!({"name": "x"}), -32602),
        ("completion/complete", json!({}), -32601),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "x"}, "argument": {}}), -32601),
        ("logging/setLevel", json!({"level": "debug"}), -32601),
        ("resources/subscribe", json!({"uri": "evo://1"}), -32601),
        ("resources/unsubscribe", json!({"uri": "evo://1"}), -32601),
        ("server/discover", json!({}), -32601),
        ("subscriptions/listen", json!({}), -32601),
        ("tasks/get", json!({"taskId": "1"}), -32601),
        ("notifications/initialized", json!({}), -32601),
        ("Tools/List", json!({}), -32601),
        ("", json!({}), -32601),
    ];
    for (method, params, code) in errors {
        let answer = site.json(&request(method, params.clone())).await;
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &json!(1)), "{method} {params}");
        assert!(answer["error"].get("data").is_none(), "{method}");
    }
}

#[tokio::test]
async fn envelopes_are_answered_as_the_contract_maps_them() {
    let site = site(0).await;
    let table = [
        ("", -32700, Value::Null),
        ("{", -32700, Value::Null),
        ("[]", -32600, Value::Null),
        ("{}", -32600, Value::Null),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600, Value::Null),
        ("7", -32600, Value::Null),
        ("null", -32600, Value::Null),
        (r#"{"jsonrpc":"1.0","id":3,"method":"ping"}"#, -32600, json!(3)),
        (r#"{"jsonrpc":"1.0","method":"ping"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":3}"#, -32600, json!(3)),
        (r#"{"jsonrpc":"2.0","id":3,"method":7}"#, -32600, json!(3)),
        (r#"{"jsonrpc":"2.0","id":3,"result":{}}"#, -32600, json!(3)),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":[],"method":"ping"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":9007199254740992,"method":"ping"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":3,"id":4,"method":"ping"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":"я","method":"ping","params":7}"#, -32602, json!("я")),
        (
            r#"{"jsonrpc":"2.0","id":-9007199254740991,"method":"tools/call","params":null}"#,
            -32602,
            json!(-9007199254740991_i64),
        ),
        (r#"{"jsonrpc":"2.0","id":3,"method":"tools/call"}"#, -32602, json!(3)),
        (r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{}}"#, -32602, json!(3)),
        (r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":7}}"#, -32602, json!(3)),
        (r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"evo.no"}}"#, -32602, json!(3)),
        (r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":["evo.content.get"]}"#, -32602, json!(3)),
        (
            r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"evo.content.get","arguments":[]}}"#,
            -32602,
            json!(3),
        ),
    ];
    for (body, code, id) in table {
        let answer = site.json(body).await;
        assert_eq!(answer["error"]["code"], code, "{body}");
        assert_eq!(answer.get("id").cloned().unwrap_or_default(), id, "{body}");
        assert!(id != Value::Null || answer.get("id").is_none(), "{body}");
        assert_eq!(answer["jsonrpc"], "2.0", "{body}");
    }
    // A malformed _meta is not looked at, and arguments may be left out.
    for rest in [r#""arguments":{"id":1},"_meta":[]"#, r#""arguments":{"id":1},"_meta":null,"requestState":5"#] {
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"evo.content.get",{rest}}}}}"#);
        assert_eq!(site.json(&body).await["result"]["isError"], false, "{body}");
    }
    for rest in ["", r#","arguments":null"#] {
        let bare =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"evo.content.get"{rest}}}}}"#);
        assert_eq!(site.json(&bare).await["result"]["isError"], true, "{rest}");
    }
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#;
    assert_eq!(site.json(ping).await["result"], json!({}));
}

#[tokio::test]
async fn without_an_id_nothing_runs() {
    let site = site(0).await;
    for method in [
        "initialize",
        "ping",
        "tools/list",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
        "nonsense",
    ] {
        for id in ["", r#""id":null,"#] {
            let body = format!(r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":7}}"#);
            let response = site.send(&body, false).await;
            assert_eq!(response.status(), StatusCode::ACCEPTED, "{body}");
            assert!(response.headers().get("mcp-session-id").is_none(), "{body}");
            assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty(), "{body}");
        }
    }
    let call = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"evo.content.get","arguments":{"id":1}}}"#;
    assert_eq!(site.send(call, false).await.status(), StatusCode::ACCEPTED);
    assert_eq!(site.pool.statements(), 0);
    // Judged like any call, all the same.
    let denied = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"evo.content.siblings"}}"#;
    assert_eq!(site.send(denied, false).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn denied_tools_are_refused_and_hidden_only_where_asked() {
    let site = site(0).await;
    let denied = request("tools/call", json!({"name": "evo.content.siblings", "arguments": {"id": 3, "limit": 1}}));
    let response = site.send(&denied, false).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(body["error"]["code"], "tool_denied");

    assert_eq!(listed(&site, caller()).await, NAMES, "not filtered by default");
    let mut policy = snapshot();
    policy.security.hide_denied_tools = true;
    policy.security.deny_tools = patterns(&["evo.model.*"]);
    site.policy.store(Arc::new(policy));
    let rest: Vec<_> = NAMES.iter().filter(|name| name.contains("content") && !name.ends_with(".siblings")).collect();
    assert_eq!(listed(&site, Identity { may_call_tools: true, ..caller() }).await.iter().collect::<Vec<_>>(), rest);
    assert_eq!(listed(&site, caller()).await, [""; 0], "scopes that do not reach tools/call");
}

#[tokio::test]
async fn nobody_is_answered_without_an_identity() {
    let site = site(0).await;
    let anonymous = Request::post("/mcp/content").body(Body::from("{}")).unwrap();
    let response = router(site.executor.clone()).call(anonymous).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let elsewhere = Identity { server: "other".to_owned(), ..caller() };
    assert_eq!(site.send_as(elsewhere, "{}").await.status(), StatusCode::UNAUTHORIZED);
}

/// The library's own client types read every kind of answer, and find nothing in it that they do not know.
#[tokio::test]
async fn the_sdk_reads_our_answers() {
    use rmcp::model::{CallToolResult, InitializeResult, ListToolsResult, ServerJsonRpcMessage};

    let site = site(0).await;
    let initialized = site.json(&request("initialize", json!({}))).await["result"].take();
    serde_json::from_value::<InitializeResult>(initialized).unwrap();
    let list = site.json(&request("tools/list", json!({}))).await["result"].take();
    let read: ListToolsResult = serde_json::from_value(list.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), list);
    for arguments in [json!({"limit": 3}), json!({})] {
        let result = site.tool("evo.content.search", arguments).await;
        let read: CallToolResult = serde_json::from_value(result.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), result);
    }
    let failed = site.json(&request("nonsense", json!({}))).await;
    let ServerJsonRpcMessage::Error(error) = serde_json::from_value(failed).unwrap() else { panic!("an error") };
    assert_eq!(error.error.code.0, -32601);
}
