//! fastmcp's client calls every tool through the sidecar, and each result has the shape that docs/TOOLS.md says.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Sidecar, Token};

/// What a document has in every answer.
const DOCUMENT: [&str; 14] = [
    "id",
    "parent",
    "pagetitle",
    "longtitle",
    "description",
    "alias",
    "published",
    "deleted",
    "hidemenu",
    "menuindex",
    "template",
    "isfolder",
    "createdon",
    "type",
];

/// Whether each item of an answer is a document.
fn documents(answer: &Value) -> bool {
    let items = answer["items"].as_array().expect("a list");
    assert_eq!(answer["meta"]["count"], items.len(), "{answer}");
    items.iter().all(|item| DOCUMENT.iter().all(|field| item.get(field).is_some()))
}

#[test]
fn fastmcp_calls_every_tool() {
    let sidecar = Sidecar::start().go();
    let calls = json!({
        "evo.content.search": {"limit": 5, "offset": 0, "order_by": "pagetitle", "order_dir": "desc"},
        "evo.content.get": {"id": 3},
        "evo.content.root_tree": {"limit": 20, "depth": 2},
        "evo.content.descendants": {"id": 2, "limit": 20, "depth": 3},
        "evo.content.ancestors": {"id": 3, "limit": 5},
        "evo.content.children": {"id": 2, "limit": 5},
        "evo.content.siblings": {"id": 3, "limit": 5},
        "evo.content.neighbors": {"id": 3, "limit": 5},
        "evo.content.prev_siblings": {"id": 4, "limit": 5},
        "evo.content.next_siblings": {"id": 3, "limit": 5},
        "evo.content.children_range": {"id": 2, "from": 0, "to": 1, "limit": 5},
        "evo.content.siblings_range": {"id": 3, "from": 0, "limit": 5},
        "evo.model.list": {"model": "SiteTemplate", "limit": 5},
        "evo.model.get": {"model": "SiteTemplate", "id": 1},
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join(".venv/bin/python"))
        .arg(root.join("tests/clients/fast.py"))
        .arg(format!("http://{}/api/v1/mcp/content", sidecar.mcp))
        .arg(sidecar.token(&Token::of("fastmcp")))
        .arg(calls.to_string())
        .env("FASTMCP_CHECK_FOR_UPDATES", "off")
        .output()
        .expect("the virtual environment is there; `make deps` makes it");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), sidecar.output());
    sidecar.finish();
    let told: Value = serde_json::from_slice(&output.stdout).expect("the script prints JSON");

    // Each listed tool is called, and no other.
    let mut listed: Vec<&str> = told["tools"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let mut called: Vec<&str> = calls.as_object().expect("an object").keys().map(String::as_str).collect();
    listed.sort_unstable();
    called.sort_unstable();
    assert_eq!(listed, called);
    assert_eq!((&told["ping"], &told["resources"], &told["prompts"]), (&json!(true), &json!(0), &json!(0)));

    for (tool, answer) in told["answers"].as_object().expect("an object") {
        assert_eq!(answer["same"], true, "{tool}: the text block is the structure");
        let answer = &answer["structured"];
        assert_eq!(answer["meta"]["toolsetVersion"], "1.0", "{tool}");
        match tool.as_str() {
            "evo.content.get" => {
                assert!(DOCUMENT.iter().all(|field| answer["item"].get(field).is_some()), "{answer}");
                assert_eq!((&answer["item"]["id"], &answer["item"]["pagetitle"]), (&json!(3), &json!("Blue chair")));
            }
            "evo.model.get" => assert_eq!((&answer["item"]["id"], answer.get("items")), (&json!(1), None)),
            "evo.model.list" => {
                let items = answer["items"].as_array().expect("a list");
                assert!(!items.is_empty() && items.iter().all(|item| item["id"].is_u64()), "{answer}");
                assert_eq!(answer["meta"]["model"], "SiteTemplate", "{answer}");
            }
            _ => {
                assert!(documents(answer), "{tool}: {answer}");
                assert!(!answer["items"].as_array().expect("a list").is_empty(), "{tool}: {answer}");
                let asked = &calls[tool];
                assert_eq!(answer["meta"]["limit"], asked["limit"], "{tool}");
            }
        }
    }
    let ids = |tool: &str| -> Vec<u64> {
        let items = told["answers"][tool]["structured"]["items"].as_array().expect("a list");
        items.iter().filter_map(|item| item["id"].as_u64()).collect()
    };
    assert_eq!(ids("evo.content.children_range"), ids("evo.content.children")[..2]);
    assert!(!ids("evo.content.siblings").contains(&3) && ids("evo.content.children").contains(&3));
    assert_eq!(ids("evo.content.ancestors").last(), Some(&2));
    assert!(told["invalid"].as_str().is_some_and(|text| text.contains("id")), "{}", told["invalid"]);
}
