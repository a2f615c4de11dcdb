//! Users' clients, the Python SDK and fastmcp, call every tool through the sidecar on each engine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mcp_sidecar::store::Dialect;
use serde_json::{Value, json};

use crate::data::FIRST;
use crate::harness::{Sidecar, Token, eventually};
use crate::server::{Kind, shared};
use crate::site::{create, run_sqlite, script};

const SOON: Duration = Duration::from_secs(10);
const CLIENTS: [&str; 2] = ["sdk", "fastmcp"];
/// Documents between two progress events (`executor::stream::STEP`).
const STEP: usize = 25;

/// One call of each tool, with an answer that is not empty.
fn calls() -> Value {
    let tvs = json!(["price:d", "color", "word"]);
    let blue = json!([{"tv": "price", "op": ">=", "value": 5, "cast": "SIGNED", "use_default": true}]);
    let order = json!([{"tv": "word", "dir": "desc"}]);
    let named = json!({"where": [{"field": "name", "op": "in", "value": ["price", "word"]}]});
    json!({
        "evo.content.search": {"parent": FIRST, "limit": 20, "with_tvs": tvs, "tv_filters": blue, "tv_order": order},
        "evo.content.get": {"id": FIRST + 20, "with_tvs": tvs},
        "evo.content.root_tree": {"limit": 50, "offset": 2, "depth": 3},
        "evo.content.descendants": {"id": FIRST, "limit": 40, "depth": 5, "with_tvs": tvs},
        "evo.content.ancestors": {"id": FIRST + 200, "limit": 9},
        "evo.content.children": {"id": 2, "limit": 5},
        "evo.content.siblings": {"id": 4, "limit": 5, "with_tvs": ["price"]},
        "evo.content.neighbors": {"id": 4, "limit": 5},
        "evo.content.prev_siblings": {"id": 6, "limit": 5},
        "evo.content.next_siblings": {"id": 3, "limit": 5},
        "evo.content.children_range": {"id": 2, "from": 1, "to": 2, "limit": 5},
        "evo.content.siblings_range": {"id": 5, "from": 0, "to": 4, "limit": 5},
        "evo.model.list": {"model": "SiteTmplvar", "limit": 5, "order_by": "id", "filters": named},
        "evo.model.get": {"model": "SiteTemplate", "id": 1},
    })
}

fn walk() -> Value {
    json!({"id": FIRST, "depth": 6, "limit": 100, "offset": 0})
}

/// What each client makes of a site, through a sidecar of its own.
fn told(url: &str) -> Vec<Value> {
    let sidecar = Sidecar::start().policy("rate_limit.enabled", false).set(format!("database.url={url:?}")).go();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = |client: &str| -> Value {
        let output = Command::new(root.join(".venv/bin/python"))
            .arg(root.join("tests/clients/every.py"))
            .args([client, &format!("http://{}/api/v1/mcp/content", sidecar.mcp)])
            .arg(sidecar.token(&Token::of(client)))
            .args([calls().to_string(), walk().to_string()])
            .env("FASTMCP_CHECK_FOR_UPDATES", "off")
            .output()
            .expect("the virtual environment is there; `make deps` makes it");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{client}, {url}: {said}\n{}", sidecar.output());
        serde_json::from_slice(&output.stdout).expect("the script prints JSON")
    };
    let told = CLIENTS.map(run).to_vec();
    // Beside their probes, which are refused as well.
    let refused = |record: &Value| record["decision"] == "deny" && record["method"] == "tools/call";
    let denied = eventually("the denials are audited", SOON, || {
        let denied: Vec<Value> = sidecar.audit().into_iter().filter(refused).collect();
        (denied.len() == CLIENTS.len()).then_some(denied)
    });
    for record in &denied {
        let facts = [&record["tool"], &record["deny_code"], &record["status"]];
        assert_eq!(facts, [&json!("evo.write.document"), &json!("tool_denied"), &json!(403)], "{record}");
    }
    sidecar.finish();
    told
}

/// What is true of every client on every engine.
fn check(told: &Value) {
    let (revision, server, capabilities) = (&told["server"][0], &told["server"][1], &told["server"][2]);
    assert_eq!(revision, "2025-11-25", "{server}");
    assert!(server["name"].is_string() && capabilities["tools"].is_object(), "{server} {capabilities}");

    let tools = told["tools"].as_object().expect("an object");
    assert_eq!(tools.len(), 14);
    for (name, tool) in tools {
        let schema = &tool["inputSchema"];
        assert_eq!((&schema["type"], &tool["annotations"]["readOnlyHint"]), (&json!("object"), &json!(true)), "{name}");
        let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{name} has no arguments"));
        let required = schema["required"].as_array().unwrap_or_else(|| panic!("{name} needs none"));
        assert!(!required.is_empty() && required.iter().all(|key| properties.contains_key(key.as_str().unwrap_or(""))));
        assert!(tool["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");

        let answer = &told["answers"][name];
        assert_eq!(answer["same"], true, "{name}: the text block is the structure");
        let (item, items) = (&answer["structured"]["item"], &answer["structured"]["items"]);
        let full = item.is_object() || items.as_array().is_some_and(|items| !items.is_empty());
        assert!(full, "{name} answers nothing: {answer}");
    }

    let total = told["walked"]["structured"]["items"].as_array().expect("a list").len();
    assert_eq!(total, 100);
    let pages: Vec<Value> = (1..=total / STEP).map(|page| json!([(page * STEP) as f64, total as f64])).collect();
    assert_eq!(told["walked"]["progress"], json!(pages));

    let invalid = &told["invalid"];
    let text = invalid["content"][0]["text"].as_str().unwrap_or_default();
    assert!(invalid["isError"] == true && text.contains("id"), "{invalid}");
    assert_eq!(told["denied"], -32603);
}

#[test]
fn both_python_clients_call_every_tool_the_same_on_each_engine() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let file = directory.path().join("site.sqlite");
    let (servers, urls) = runtime.block_on(async {
        run_sqlite(&file, &script(Dialect::Sqlite)).await;
        let (mut servers, mut urls) = (Vec::new(), vec![format!("sqlite://{}", file.display())]);
        for (kind, options) in [(Kind::MariaDb, "COLLATE utf8mb4_general_ci"), (Kind::Postgres, "")] {
            let server = shared(kind).await;
            create(&server, "clients", options).await;
            urls.push(server.url("clients"));
            servers.push(server);
        }
        (servers, urls)
    });
    let told: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let asking: Vec<_> = urls.iter().map(|url| scope.spawn(|| told(url))).collect();
        asking.into_iter().map(|asking| asking.join().expect("every client is served")).collect()
    });
    drop(servers);
    for (client, name) in CLIENTS.iter().enumerate() {
        check(&told[0][client]);
        for (engine, url) in told.iter().zip(&urls).skip(1) {
            assert_eq!(engine[client], told[0][client], "{name}: {url} against {}", urls[0]);
        }
    }
    for part in ["tools", "answers", "walked", "invalid"] {
        assert_eq!(told[0][0][part], told[0][1][part], "{part}: {CLIENTS:?} differ");
    }
}
