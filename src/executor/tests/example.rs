//! The worked examples of docs/ADDING-A-TOOL.md: compiled and run, but not live. And what the guide promises: no tool
//! file is forgotten.

use std::path::Path;

use super::{caller, nth_child, sample_prompt, sample_resource, site, snapshot};
use crate::executor::argument::{Arguments, Caps};
use crate::executor::pipeline::{self, Traversal};
use crate::executor::registry;
use serde_json::{Value, json};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[tokio::test]
async fn the_worked_example_runs_through_every_stage() {
    let site = site(0).await;
    let policy = snapshot();
    let caps = Caps::of(&policy, &policy.servers[0]);
    assert_eq!((nth_child::TOOL.schema)(&caps)["properties"]["position"]["maximum"], 5001);
    let call = async |arguments: Value| -> Result<Value, String> {
        let plan = (nth_child::TOOL.validate)(&mut Arguments::new(arguments.as_object().unwrap()), &caps)
            .map_err(|invalid| invalid.text())?;
        assert!(pipeline::authorize(&caller(), &plan));
        let mut traversal = Traversal::start(&site.pool, plan, &caps, None).await.unwrap();
        while traversal.advance().await.unwrap().is_some() {}
        Ok(traversal.respond()["item"]["id"].take())
    };
    for (arguments, expected) in [
        (json!({"id": 2, "position": 1}), Ok(json!(3))),
        (json!({"id": "2", "position": "4"}), Ok(json!(6))),
        (json!({"id": 2, "position": 99}), Ok(Value::Null)),
        (json!({"id": 0}), Err("The id field must be at least 1. The position field is required.")),
        (json!({"id": 2, "position": 5002}), Err("The position field must be between 1 and 5001.")),
    ] {
        assert_eq!(call(arguments.clone()).await, expected.map_err(str::to_owned), "{arguments}");
    }
}

#[test]
fn the_guide_shows_the_examples_as_they_are_compiled_and_none_is_live() {
    let guide = read("docs/ADDING-A-TOOL.md");
    let shown: Vec<_> = guide.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(shown.len(), 3);
    for (shown, file) in shown.iter().zip(["nth_child", "sample_resource", "sample_prompt"]) {
        let compiled = read(&format!("src/executor/tests/{file}.rs"));
        assert_eq!(Some(*shown), compiled.split("\n#[cfg(test)]").next(), "{file}");
    }
    assert!(registry::find(nth_child::TOOL.name).is_none());
    assert!(registry::SHIPPED.resource(sample_resource::RESOURCE.uri).is_none());
    assert!(registry::SHIPPED.prompt(sample_prompt::PROMPT.name).is_none());
}

#[test]
fn every_tool_file_is_registered_and_documented_under_its_own_name() {
    let (documented, mut found) = (read("docs/TOOLS.md"), 0);
    for room in ["content", "models"] {
        let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/executor").join(room);
        for file in std::fs::read_dir(room).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            if !text.contains("const TOOL: Tool") {
                continue;
            }
            let name = text.split("name: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            assert!(registry::find(name).is_some(), "{name} has no line in registry.rs");
            assert!(documented.contains(&format!("| `{name}` |")), "{name} has no row in docs/TOOLS.md");
            found += 1;
        }
    }
    assert_eq!(found, registry::TOOLS.len());
}
