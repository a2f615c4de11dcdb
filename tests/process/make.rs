//! `make`: what it writes into a policy and into a checkout.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use serde_json::json;

use crate::commands::{answer, converse, message, over, root, run, site};
use crate::part::program;

#[test]
fn a_made_server_denies_everything_until_told() {
    let files = site();
    let make = |words: &[&str]| {
        run(program().args(["make", "server"]).args(words).arg("--policy").arg(files.path("policy.toml")))
    };
    let (code, out, err) = make(&["shop"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("[[servers]]\nhandle = \"shop\"\n") && err.contains("[upstreams.shop]"), "{out}{err}");
    let before = fs::read_to_string(files.path("policy.toml")).expect("is there");
    assert!(!before.contains("\"shop\""));

    // The policy may be a link to what only its owner reads.
    let (link, real) = (files.path("policy.toml"), files.path("real.toml"));
    fs::rename(&link, &real).expect("is renamed");
    symlink("real.toml", &link).expect("is linked");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).expect("ours");
    let (code, _, err) = make(&["catalogue", "--kind", "content", "--write"]);
    assert_eq!(code, 0, "{err}");
    assert!(link.is_symlink(), "the link is a link still");
    assert_eq!(fs::metadata(&real).expect("is there").mode() & 0o777, 0o600);
    let beside = fs::read_dir(real.parent().expect("has one")).expect("is there").flatten();
    let beside: Vec<_> = beside.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!beside.iter().any(|name| name.contains("tmp") || name.ends_with(".new")), "{beside:?}");
    let lines = [message(1, "tools/call", &json!({"name": "evo.content.get", "arguments": {"id": 3}}))];
    let answers = converse(over(&files, &["stdio", "catalogue"]), &lines);
    assert_eq!(answer(&answers, 1)["error"]["data"]["code"], "tool_denied");

    for (name, said) in [("content", "is taken"), ("a/b", "cannot be a handle")] {
        let (code, out, err) = make(&[name]);
        assert_eq!((code, out.as_str()), (1, ""), "{name}");
        assert!(err.contains(said), "{name}: {err}");
    }
}

#[test]
fn a_made_tool_stands_where_the_guide_wants_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = ["src/executor/content/mod.rs", "src/executor/registry.rs", "docs/TOOLS.md"];
    for path in paths {
        let copy = dir.path().join(path);
        fs::create_dir_all(copy.parent().expect("has one")).expect("is made");
        fs::copy(root().join(path), copy).expect("is copied");
    }
    let make = |name: &str| run(program().args(["make", "tool", name]).current_dir(dir.path()));
    let (code, out, err) = make("first_child");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("cargo test --lib first_child"), "{out}");
    // What is left to do is what the guide says.
    let guide = fs::read_to_string(root().join("docs/ADDING-A-TOOL.md")).expect("is there");
    let left = guide.split_once("The tests that hold the whole listing (").and_then(|(_, rest)| rest.split_once(')'));
    for place in left.expect("is told").0.split(", ").map(|place| place.trim_start_matches("and ").replace('`', "")) {
        assert!(out.contains(&place), "{place}: {out}");
    }
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).expect("is there");
    // The sample is compiled and tested as it is; the tool differs from it by its name alone.
    let sample = fs::read_to_string(root().join("src/executor/tests/sample.rs")).expect("is there");
    let expected = sample.replace("evo.content.sample", "evo.content.first_child");
    assert_eq!(read("src/executor/content/first_child.rs"), expected.replace("Content Sample", "Content First Child"));
    assert!(read(paths[0]).contains("pub(super) mod descendants;\npub(super) mod first_child;\npub(super) mod get;\n"));
    assert!(read(paths[1]).contains("    content::first_child::TOOL,\n    models::list::TOOL,\n"));
    assert!(read(paths[2]).contains("| `evo.content.first_child` | **id** |"));
    for (name, said) in
        [("first_child", "is taken"), ("First", "cannot be"), ("../x", "cannot be"), ("match", "is taken")]
    {
        let (code, _, err) = make(name);
        assert_eq!(code, 1, "{name}");
        assert!(err.contains(said), "{name}: {err}");
    }
    let (code, _, err) = run(program().args(["make", "tool", "x"]).current_dir("/"));
    assert_eq!(code, 1);
    assert!(err.contains("is this a checkout"), "{err}");
}

#[test]
fn a_made_resource_and_a_made_prompt_stand_where_the_guide_wants_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).expect("is there");
    let make = |kind: &str, name: &str| run(program().args(["make", kind, name]).current_dir(dir.path()));
    for path in ["src/executor/resources/mod.rs", "src/executor/prompts/mod.rs", "src/executor/registry.rs"] {
        let copy = dir.path().join(path);
        fs::create_dir_all(copy.parent().expect("has one")).expect("is made");
        fs::copy(root().join(path), copy).expect("is copied");
    }
    let before = read("src/executor/registry.rs");
    for (kind, room, constant, named) in [
        ("resource", "resources", "RESOURCE", &["\"evo://sample\"", "\"sample\"", "\"Sample\""][..]),
        ("prompt", "prompts", "PROMPT", &["evo.prompt.sample", "\"Sample\""][..]),
    ] {
        let module = format!("src/executor/{room}/mod.rs");
        for (name, title) in [("opening_hours", "Opening Hours"), ("contact", "Contact")] {
            let (code, out, err) = make(kind, name);
            assert_eq!(code, 0, "{err}");
            assert!(out.contains(&format!("cargo test --lib {name}")), "{out}");
            // As for tools: the sample is compiled and tested, and what is made differs from it by its name alone.
            let sample = root().join(format!("src/executor/tests/sample_{kind}.rs"));
            let expected = named.iter().fold(fs::read_to_string(sample).expect("is there"), |text, named| {
                text.replace(named, &named.replace("sample", name).replace("Sample", title))
            });
            assert!(!expected.contains("evo://sample") && !expected.contains("prompt.sample"), "{expected}");
            assert_eq!(read(&format!("src/executor/{room}/{name}.rs")), expected);
        }
        let modules = read(&module);
        assert!(modules.contains("\n\npub(super) mod contact;\npub(super) mod opening_hours;\n\nuse "), "{modules}");
        let (registry, module_before) = (read("src/executor/registry.rs"), modules.clone());
        let lines = format!("    {room}::opening_hours::{constant},\n    {room}::contact::{constant},\n];\n");
        assert!(registry.contains(&lines), "{registry}");
        for (name, said) in [
            ("contact", "is taken"),
            ("First", "cannot be"),
            ("../x", "cannot be"),
            ("match", "is taken"),
            ("rmcp", "is taken"),
        ] {
            let (code, _, err) = make(kind, name);
            assert_eq!(code, 1, "{name}");
            assert!(err.contains(said), "{name}: {err}");
        }
        assert_eq!((read("src/executor/registry.rs"), read(&module)), (registry, module_before), "refused, unchanged");
        let (code, _, err) = run(program().args(["make", kind, "x"]).current_dir("/"));
        assert_eq!(code, 1);
        assert!(err.contains("is this a checkout"), "{err}");
    }
    let after = read("src/executor/registry.rs");
    let more: Vec<&str> = after.lines().filter(|line| !before.lines().any(|other| other == *line)).collect();
    assert_eq!(more.len(), 4, "four lines and nothing else: {more:?}");
}
