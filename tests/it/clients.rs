//! The Python SDK as a user's client, in both of its modes.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Sidecar, Token};

/// Documents between two progress events (`executor::stream::STEP`).
const STEP: u64 = 25;
/// Calls of one method a minute, of the shipped `content` server.
const LIMIT: u64 = 30;
/// What the script's traversal asks for.
const WHOLE: u64 = 1000;

fn run(mode: &str) -> Value {
    let sidecar = Sidecar::start()
        .argument("--demo-docs=2000")
        .policy("domain.content.max_limit", 1000)
        .policy("limits.max_result_items", 1000)
        .go();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join(".venv/bin/python"))
        .arg(root.join("tests/clients/sdk.py"))
        .arg(format!("http://{}/api/v1/mcp/content", sidecar.mcp))
        .arg(sidecar.token(&Token::of("python")))
        .arg(mode)
        .output()
        .expect("the virtual environment is there; `make deps` makes it");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), sidecar.output());
    sidecar.finish();
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// The answers over HTTP to this method.
fn answers<'a>(told: &'a Value, method: &str) -> Vec<&'a Value> {
    let wire = told["wire"].as_array().expect("a list");
    wire.iter().filter(|answer| answer["method"] == method).collect()
}

fn serves(mode: &str) {
    let told = run(mode);
    let tools = told["tools"].as_array().expect("a list");
    assert!(tools.iter().any(|tool| tool == "evo.content.search"), "{tools:?}");

    // Progress after each page of the work, over SSE; without a progress token the answer is JSON.
    let calls = answers(&told, "tools/call");
    assert_eq!(
        (&calls[0]["media"], &told["call"]),
        (&json!("text/event-stream"), &json!({"ok": true, "items": WHOLE}))
    );
    assert_eq!((&calls[1]["media"], &told["quiet"]), (&json!("application/json"), &json!({"ok": true, "items": 5})));
    let expected: Vec<Value> = (1..=WHOLE / STEP).map(|page| json!([(page * STEP) as f64, WHOLE as f64])).collect();
    assert_eq!(told["progress"], json!(expected));

    // Denied: 403 with the code; the SDK makes -32603 of every HTTP error that is no JSON-RPC.
    let http_error = json!({"error": -32603, "message": "Server returned an error response"});
    let denied = json!({"method": "tools/call", "status": 403, "media": "application/json", "code": "tool_denied",
        "retry_after": null});
    assert_eq!((calls[2], &told["denied"]), (&denied, &http_error));
    // Allowed by its pattern, but there is none; and arguments of the wrong type.
    assert_eq!((&calls[3]["status"], &told["unknown"]["error"]), (&json!(200), &json!(-32602)));
    assert_eq!((&calls[4]["status"], &told["invalid"]["ok"]), (&json!(200), &json!(false)));

    // Rate limited: what was denied was charged too, and the next beyond the limit is 429 with a time to wait.
    assert_eq!(calls.len() as u64, LIMIT + 1);
    let (last, served) = calls.split_last().expect("some calls");
    assert!(served.iter().enumerate().all(|(index, call)| call["status"] == if index == 2 { 403 } else { 200 }));
    assert_eq!((&last["status"], &last["code"], &told["limited"]), (&json!(429), &json!("rate_limited"), &http_error));
    let wait: u64 = last["retry_after"].as_str().and_then(|wait| wait.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");

    // The probe is answered in JSON-RPC, so that the SDK falls back; the listening GET is 405.
    let probes = answers(&told, "server/discover");
    assert_eq!(probes.len(), usize::from(mode == "auto"));
    assert!(probes.iter().all(|probe| probe["status"] == 200));
    assert_eq!(answers(&told, "initialize").len(), 1);
}

#[test]
fn the_legacy_sdk_lists_calls_watches_progress_and_is_refused() {
    serves("legacy");
}

#[test]
fn the_probing_sdk_lists_calls_watches_progress_and_is_refused() {
    serves("auto");
}
