//! The Python SDK as a user's client, in both of its modes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Sidecar, Token};

fn run(mode: &str) -> Value {
    let sidecar = Sidecar::start().go();
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

fn lists_calls_and_is_refused(mode: &str) {
    let told = run(mode);
    let tools = told["tools"].as_array().expect("a list");
    assert!(tools.iter().any(|tool| tool == "evo.content.search"), "{told}");
    assert_eq!(told["call"], "ok", "{told}");
    assert_ne!(told["denied"], "ok", "{told}");
    assert_ne!(told["limited"], "ok", "{told}");
}

#[test]
fn the_legacy_sdk_lists_calls_and_is_refused() {
    lists_calls_and_is_refused("legacy");
}

#[test]
fn the_probing_sdk_lists_calls_and_is_refused() {
    lists_calls_and_is_refused("auto");
}
