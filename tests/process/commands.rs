//! The operator's commands, run as an operator runs them.

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::harness::{Token, eventually};
use crate::part::{Files, Part, SOON, program, records};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code().expect("no signal ended it"), text(stdout), text(stderr))
}

/// A command over these files.
pub fn over(files: &Files, words: &[&str]) -> Command {
    let mut command = program();
    command.args(words).arg("--config").arg(files.path("sidecar.toml")).arg("--policy").arg(files.path("policy.toml"));
    command.arg("--executor").arg(files.path("executor.toml"));
    command
}

/// The shipped files, a demo site, and a local server beside the shipped one.
pub fn site() -> Files {
    let files = Files::shipped();
    files.demo_site();
    let local = "[[servers]]\nhandle = \"desk\"\nenabled = true\ntransport = \"local\"\nkind = \"content\"\n\
        upstream = \"executor\"\nallow_tools = [\"evo.content.get\"]\nsecurity = { deny_tools = [] }\n\n[end]";
    files.edit("policy.toml", "\n[end]", &format!("\n{local}"));
    files
}

/// Sends lines to `stdio`, and reads what it says until it ends.
pub fn converse(mut command: Command, lines: &[String]) -> Vec<Value> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut input = child.stdin.take().expect("is piped");
    for line in lines {
        writeln!(input, "{line}").expect("is read");
    }
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

pub fn message(id: u64, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

pub fn answer(answers: &[Value], id: u64) -> &Value {
    answers.iter().find(|answer| answer["id"] == id).unwrap_or_else(|| panic!("no answer to {id}: {answers:?}"))
}

#[test]
fn servers_are_listed_for_people_and_for_programs() {
    let files = site();
    let list = |words: &[&str]| run(program().args(words).arg("--policy").arg(files.path("policy.toml")));
    let (code, out, _) = list(&["list-servers"]);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "Handle   Transport  Kind     Upstream  Enabled\n\
         content  web        content  executor  yes\n\
         desk     local      content  executor  yes\n"
    );
    let (code, out, _) = list(&["list-servers", "--json"]);
    let rows: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, rows.as_array().map(Vec::len)), (0, Some(2)));
    assert_eq!(
        rows[1],
        json!({"handle": "desk", "transport": "local", "kind": "content", "upstream": "executor", "enabled": true})
    );

    files.edit("policy.toml", "enabled = true\ntransport", "enabled = false\ntransport");
    let (code, out, err) = list(&["list-servers"]);
    assert_eq!((code, out.lines().count()), (1, 1));
    assert!(err.contains("no server is enabled"), "{err}");
    let (code, out, _) = list(&["list-servers", "--all"]);
    assert_eq!((code, out.matches(" no\n").count()), (1, 2), "{out}");
}

#[test]
fn a_site_is_tested_inside_one_process() {
    let files = site();
    let (code, out, err) = run(&mut over(&files, &["test"]));
    assert_eq!(code, 0, "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("ok      initialize  eMCP Content Server, 2025-11-25, eMCP "), "{out}");
    assert_eq!(&lines[1..], ["ok      tools/list  14 tools", "passed  content"]);

    let (code, out, _) = run(&mut over(&files, &["test", "--json", "--scopes", "mcp:call"]));
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told["passed"], &told["server"]), (1, &json!(false), &json!("content")));
    assert_eq!(told["steps"][0]["detail"], "HTTP 403 (scope_denied)");

    let (code, _, err) = run(&mut over(&files, &["test", "--server", "nobody"]));
    assert_eq!(code, 1);
    assert!(err.contains("there is no enabled server \"nobody\"; the policy has: content, desk"), "{err}");
}

#[test]
fn a_running_server_is_tested_by_its_url() {
    let files = site();
    let _executor = Part::ready(files.service("executor"));
    let proxy = Part::ready(files.service("proxy"));
    let url = format!("http://{}/api/v1/mcp/content", proxy.address("listening"));
    let test = |url: &str, token: &str| run(program().args(["test", "--url", url]).env("MCP_TOKEN", token));
    let (code, out, _) = test(&url, &Token::of("alice").sign());
    assert_eq!((code, out.lines().last()), (0, Some(format!("passed  {url}").as_str())), "{out}");

    let (code, out, _) = test(&url, "nonsense");
    assert_eq!(code, 1);
    assert!(out.starts_with("failed  initialize  HTTP 401 ("), "{out}");
    let (code, out, _) = test("http://127.0.0.1:1/", "");
    assert_eq!(code, 1);
    assert!(out.contains("cannot be reached"), "{out}");
    let (code, _, err) = test("content", "");
    assert_eq!(code, 1);
    assert!(err.contains("is no address"), "{err}");
}

#[test]
fn standard_input_passes_the_same_policy_limits_and_audit() {
    let files = site();
    files.edit("policy.toml", "max_payload_kb = 128", "max_payload_kb = 8");
    let hello =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let call =
        |id, tool: &str, arguments: Value| message(id, "tools/call", &json!({"name": tool, "arguments": arguments}));
    let mut lines = vec![
        message(1, "initialize", &hello),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string(),
        String::new(),
        call(2, "evo.content.get", json!({"id": 3})),
        call(3, "evo.write.document", json!({})),
        call(4, "evo.content.get", json!({"id": 3, "note": "x".repeat(9000)})),
        "{\"jsonrpc\": nonsense".to_owned(),
    ];
    lines.extend((10..50).map(|id| message(id, "resources/list", &json!({}))));
    let answers = converse(over(&files, &["stdio", "content", "--sub", "erika"]), &lines);
    assert_eq!(answers.len(), lines.len() - 2, "nothing answers a notification or an empty line");
    assert_eq!(answer(&answers, 1)["result"]["serverInfo"]["platform"], "eMCP");
    assert_eq!(answer(&answers, 2)["result"]["structuredContent"]["item"]["id"], 3);
    let refused = &answer(&answers, 3)["error"];
    assert_eq!((&refused["data"]["code"], &refused["data"]["status"]), (&json!("tool_denied"), &json!(403)));
    assert!(answers.iter().any(|answer| answer["error"]["code"] == -32700), "{answers:?}");
    let large = answers.iter().find(|answer| answer["error"]["data"]["status"] == 413).expect("too large");
    assert_eq!(large["error"]["data"]["code"], "payload_too_large");
    let limited: Vec<&Value> =
        answers.iter().filter(|answer| answer["error"]["data"]["code"] == "rate_limited").collect();
    assert_eq!(limited.len(), 10, "thirty a minute pass");
    assert!(limited.iter().all(|answer| answer["error"]["data"]["retry_after"].as_u64() >= Some(1)));

    let audit = files.audit();
    // Those of one second are one line and its repetitions.
    let limited = audit.iter().filter(|record| record["deny_code"] == "rate_limited");
    assert_eq!(limited.map(|record| record["repeats"].as_u64().unwrap_or(1)).sum::<u64>(), 10, "{audit:?}");
    let denied = audit.iter().find(|record| record["status"] == 403).expect("the denial is audited");
    assert!(denied.to_string().contains("erika"), "{denied}");
}

#[test]
fn local_servers_are_for_standard_input_alone_and_unknown_ones_for_nobody() {
    let files = site();
    let tool = |id, tool: &str| message(id, "tools/call", &json!({"name": tool, "arguments": {"id": 3, "limit": 1}}));
    let lines = [tool(1, "evo.content.get"), tool(2, "evo.content.children")];
    let answers = converse(over(&files, &["stdio", "desk"]), &lines);
    assert_eq!(answer(&answers, 1)["result"]["isError"], false);
    assert_eq!(answer(&answers, 2)["error"]["data"]["code"], "tool_denied");

    let _executor = Part::ready(files.service("executor"));
    let proxy = Part::ready(files.service("proxy"));
    let reached = crate::part::call(proxy.address("listening"), "desk", "evo.content.get");
    assert_eq!(reached.status, 404, "{}", reached.text());

    let (code, _, err) = run(&mut over(&files, &["stdio", "nobody"]));
    assert_eq!(code, 1);
    assert!(err.contains("there is no enabled server \"nobody\""), "{err}");
}

#[test]
fn resources_and_prompts_are_denied_until_allowed_and_none_is_shipped() {
    let files = site();
    let lines = [
        message(1, "resources/read", &json!({"uri": "evo://contact"})),
        message(2, "prompts/get", &json!({"name": "evo.prompt.summary"})),
        message(3, "resources/list", &json!({})),
        message(4, "prompts/list", &json!({})),
    ];
    let denied = converse(over(&files, &["stdio", "content"]), &lines);
    assert_eq!(answer(&denied, 1)["error"]["data"]["code"], "resource_denied");
    assert_eq!(answer(&denied, 2)["error"]["data"]["code"], "prompt_denied");

    files.edit("policy.toml", "allow_resources = []", "allow_resources = [\"evo://*\"]");
    files.edit("policy.toml", "allow_prompts = []", "allow_prompts = [\"evo.prompt.*\"]");
    let missing = converse(over(&files, &["stdio", "content"]), &lines);
    assert_eq!(answer(&missing, 1)["error"], json!({"code": -32002, "message": "Resource not found"}));
    assert_eq!(answer(&missing, 2)["error"], json!({"code": -32602, "message": "Prompt not found"}));
    assert_eq!(answer(&missing, 3)["result"], json!({"resources": []}));
    assert_eq!(answer(&missing, 4)["result"], json!({"prompts": []}));
}

#[test]
fn a_caller_who_is_shut_out_stays_out_of_standard_input() {
    let files = site();
    files.edit("policy.toml", "deny_sub = []", "deny_sub = [\"mallory\"]");
    let ping = [message(1, "ping", &json!({}))];
    let shut = converse(over(&files, &["stdio", "content", "--sub", "mallory"]), &ping);
    assert_eq!(answer(&shut, 1)["error"]["data"]["status"], 401, "{shut:?}");
    let open = converse(over(&files, &["stdio", "content"]), &ping);
    assert_eq!(answer(&open, 1)["result"], json!({}));
    files.edit("policy.toml", "enable = true", "enable = false");
    let off = converse(over(&files, &["stdio", "content"]), &ping);
    assert_eq!(answer(&off, 1)["error"]["data"]["status"], 404, "{off:?}");
}

#[test]
fn standard_input_is_served_under_a_new_policy_and_ends_with_a_signal() {
    let files = site();
    files.edit("policy.toml", "per_minute = 30", "per_minute = 100000");
    let mut child = over(&files, &["stdio", "content"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut input = child.stdin.take().expect("is piped");
    let mut output = std::io::BufReader::new(child.stdout.take().expect("is piped"));
    let mut ask = |id: u64| {
        let call = json!({"name": "evo.content.get", "arguments": {"id": 3}});
        writeln!(input, "{}", message(id, "tools/call", &call)).expect("is read");
        let mut line = String::new();
        output.read_line(&mut line).expect("is answered");
        serde_json::from_str::<Value>(&line).expect("JSON")
    };
    assert_eq!(ask(1)["result"]["isError"], false);
    files.edit("policy.toml", "\ndeny_tools = []", "\ndeny_tools = [\"evo.content.get\"]");
    let mut id = 1;
    eventually("the new policy acts", SOON, || {
        id += 1;
        (ask(id)["error"]["data"]["code"] == "tool_denied").then_some(())
    });
    // Its input is still open.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, Signal::TERM).expect("the process is ours");
    let status = eventually("it ends", SOON, || child.try_wait().expect("can be asked"));
    assert!(status.success(), "{status}");
}

#[test]
fn the_python_sdk_starts_us_as_its_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(root().join(".venv/bin/python"));
    command.arg(root().join("tests/clients/stdio.py")).arg(env!("CARGO_BIN_EXE_mcp-sidecar"));
    command.args(["stdio", "content", "--demo", "--data"]).arg(dir.path().join("var"));
    let (code, out, err) = run(command.stdin(Stdio::null()).current_dir(dir.path()));
    assert_eq!(code, 0, "{err}");
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(told["tools"].as_array().map(Vec::len), Some(14));
    assert_eq!(told["get"]["structured"]["item"]["pagetitle"], "Blue chair");
    assert_eq!(told["denied"]["data"]["code"], "tool_denied", "{told}");
    assert!(told["progress"].as_array().is_some_and(|events| !events.is_empty()), "{told}");
    assert_eq!(told["many"], json!(vec![true; 20]));
    assert!(!records(&dir.path().join("var/audit")).is_empty());
}

#[test]
fn the_inspector_is_told_how_to_start_us() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = program();
    let (code, out, err) = run(command.args(["inspector", "content", "--demo", "--print"]).current_dir(dir.path()));
    assert_eq!(code, 0, "{err}");
    let (line, file) = out.split_once("\n\ninspector.json:\n").expect("both are shown");
    assert_eq!(line, "npx --yes @modelcontextprotocol/inspector@2 --config inspector.json --server content");
    let file: Value = serde_json::from_str(file).expect("JSON");
    let server = &file["mcpServers"]["content"];
    assert_eq!(server["command"], env!("CARGO_BIN_EXE_mcp-sidecar"));
    let words: Vec<&str> = server["args"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    // What the inspector would start answers.
    let mut started = Command::new(server["command"].as_str().expect("a path"));
    started.args(words).current_dir("/");
    let answers = converse(started, &[message(1, "ping", &json!({}))]);
    assert_eq!(answers, [json!({"jsonrpc": "2.0", "id": 1, "result": {}})]);

    let url = ["inspector", "content", "--url", "http://127.0.0.1:1/mcp", "--print", "--", "--cli"];
    let (_, out, _) = run(program().args(url).env("MCP_TOKEN", "a-secret-token"));
    assert!(out.contains("inspector@2 --cli --config") && out.contains("\"Bearer (MCP_TOKEN)\""), "{out}");
    assert!(!out.contains("a-secret-token"), "{out}");
}

#[test]
fn without_npx_the_inspector_says_what_is_missing() {
    let (code, _, err) = run(program().args(["inspector", "content", "--demo"]).env("PATH", "/nowhere"));
    assert_eq!(code, 1);
    assert!(err.contains("there is no npx on PATH") && err.contains("Node.js 22"), "{err}");
}

#[test]
fn php_settings_become_a_policy_that_loads() {
    let dir = tempfile::tempdir().expect("a directory");
    let policy = dir.path().join("policy.toml");
    let mut command = program();
    command.args(["import", "tests/php/eMCP.php", "tests/php/mcp.php", "--out"]).arg(&policy).current_dir(root());
    command.env("SAPI_BASE_PATH", "rest").env("SAPI_JWT_ISS", "https://cms.example").env("EMCP_PER_MINUTE", "45");
    let (code, _, err) = run(&mut command);
    assert_eq!(code, 0, "{err}");
    let text = fs::read_to_string(&policy).expect("is written");
    for note in [
        "logging.channel goes to sidecar.toml: audit.channel = \"mcp-audit\"",
        "there is no model \"SiteUnknown\" here",
        "security.sandbox is not known here",
        "listener is not known here",
        "actor.mode is \"service\"",
        "content: route, auth, scopes were never read by eMCP, nor here",
        "shop: the class \"App\\\\Mcp\\\\Servers\\\\ShopServer\" runs in PHP",
        "content-local: \"content\" has its tools, so that PHP left it out: servers[1].enabled is false",
        "idempotency.storage",
        "actor.service_username, actor.service_role, actor.block_login",
        "redirect_domains was never read",
        "models of people and rights stay readable, as they were (User)",
    ] {
        assert!(err.contains(note) && text.contains(note), "{note}:\n{err}");
    }
    let (code, dump, err) = run(program().args(["check", "--dump", "--policy"]).arg(&policy).current_dir(dir.path()));
    assert_eq!(code, 0, "{err}");
    for line in [
        "mode.internal = false",
        "route.base = \"rest\"",
        "route.manager_prefix = \"office\"",
        "auth.issuer = \"https://cms.example\"",
        "rate_limit.per_minute = 45",
        "limits.max_payload_kb = 512",
        "limits.max_result_bytes = 1048576",
        "stream.heartbeat_seconds = 5",
        "logging.redact_keys = [\"token\", \"pin\"]",
        "security.deny_tools = [\"evo.model.*\"]",
        "domain.content.max_depth = 3",
        "domain.content.max_limit = 100",
        "domain.models.allow = [\"SiteTemplate\", \"User\"]",
        "servers[0].rate_limit.per_minute = 12",
        "servers[0].limits.max_payload_kb = 64",
        "servers[0].security.deny_tools = [\"evo.content.search\"]",
        "servers[1].enabled = false",
    ] {
        assert!(dump.lines().any(|shown| shown.starts_with(&format!("{line} "))), "{line}:\n{dump}");
    }
    let (_, listed, _) = run(program().args(["list-servers", "--policy"]).arg(&policy));
    assert_eq!(listed.lines().skip(1).map(|line| line.split(' ').next()).collect::<Vec<_>>(), [Some("content")]);
    assert!(text.contains("\n# [[servers]]\n# handle = \"shop\"\n") && !dump.contains("shop"), "{text}");

    let (code, _, err) = run(&mut command);
    assert_eq!(code, 1, "a file is not overwritten");
    assert!(err.contains("cannot make"), "{err}");
}

#[test]
fn settings_that_php_refuses_or_that_make_no_policy_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let import = |text: &str, more: &[&str]| {
        let file = dir.path().join("eMCP.php");
        fs::write(&file, text).expect("is written");
        run(program().arg("import").arg(file).args(more))
    };
    let (code, out, err) = import("<?php echo 'noise'; return [];", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("handle = \"content\"") && out.ends_with("[end]\n") && !out.contains("noise"), "{out}");
    for (text, said) in [
        ("<?php return [", "eMCP.php:1: Unclosed"),
        ("<?php return missing_function();", "missing_function"),
        ("<?php return 3;", "it returns no array"),
        (
            "<?php echo 'noise'; @$x[1]; defined('IN_MANAGER_MODE') || die('Hands off.');",
            "eMCP.php: it ends PHP (exit or die)",
        ),
        ("<?php ob_start(); exit(0);", "eMCP.php: it ends PHP (exit or die)"),
        ("<?php class A implements Nothing {}", "\"Nothing\" not found"),
        ("<?php return ['route' => ['api_prefix' => 'a/b']];", "route.api_prefix"),
    ] {
        let (code, out, err) = import(text, &[]);
        assert_eq!((code, out.as_str()), (1, ""), "{text}");
        assert!(err.contains(said) && err.matches("eMCP.php:").count() < 2, "{text}: {err}");
    }
    let odd =
        "<?php return ['limits' => ['max_payload_kb' => INF, 'max_result_bytes' => STDIN], 'mode' => new stdClass,
        'security' => ['allow_servers' => function () {}]];";
    let (code, out, err) = import(odd, &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("\nallow_servers = []\n"), "{out}");
    for key in
        ["limits.max_payload_kb is \"INF\"", "limits.max_result_bytes is", "mode is", "security.allow_servers is"]
    {
        assert!(err.contains(key), "{key}: {err}");
    }
    let registry = dir.path().join("mcp.php");
    fs::write(&registry, "<?php return ['servers' => []];").expect("is written");
    let (code, out, err) = import("<?php return [];", &[registry.to_str().expect("text")]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("\nservers = []\n") && err.contains("mcp.php registers no server"), "{out}{err}");
    for (program, said) in [
        ("false", "false ended with exit status: 1 and printed no settings: is it PHP"),
        ("true", "true ended with exit status: 0 and printed no settings: is it PHP"),
        ("echo", "echo printed something else than settings: is it PHP"),
    ] {
        let (code, out, err) = import("<?php return [];", &["--php", program]);
        assert_eq!((code, out.as_str()), (1, ""), "{program}");
        assert!(err.contains(said), "{program}: {err}");
    }
    let (code, _, err) = import("<?php return [];", &["--php", "/nowhere/php"]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no /nowhere/php") && err.contains("php-cli"), "{err}");
}

#[test]
fn nobody_to_register_with_is_a_warning_and_no_queue_to_ask_an_error() {
    let files = site();
    let sync = |words: &[&str]| {
        let mut command = program();
        command.args(words).arg("--config").arg(files.path("executor.toml"));
        run(command.arg("--policy").arg(files.path("policy.toml")))
    };
    for words in [&["sync-workers"][..], &["tasks", "sync-workers"]] {
        let (code, out, err) = sync(words);
        assert_eq!((code, out.as_str()), (0, "skipped\n"), "{err}");
        assert_eq!(err.contains("warning: queue.driver"), words.len() == 1, "{err}");
    }
    let (code, out, err) = sync(&["sync-workers", "--set", "queue.driver=stask"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("executor.toml has no [queue_worker]"), "{err}");
}

#[test]
fn our_row_in_stasks_register_is_made_once() {
    let files = site();
    let file = files.path("emcp.sqlite");
    let sync = |prefix: &str| {
        let mut command = program();
        command.arg("sync-workers").arg("--config").arg(files.path("executor.toml"));
        command.arg("--policy").arg(files.path("policy.toml"));
        let url = format!("queue_worker.url=sqlite://{}", file.display());
        let audit = format!("queue_worker.audit.dir={}", files.path("runs").display());
        for set in ["queue.driver=stask", "queue_worker.key_env=SAPI_JWT_SECRET", &url, &audit, prefix] {
            command.args(["--set", set]);
        }
        run(&mut command)
    };
    for word in ["created\n", "ok\n"] {
        let (code, out, err) = sync("queue_worker.prefix=evo_");
        assert_eq!((code, out.as_str(), err.as_str()), (0, word, ""));
    }
    let (code, out, err) = sync("queue_worker.prefix=none_");
    assert_eq!((code, out.as_str()), (0, "skipped\n"), "{err}");
    assert!(err.contains("has no tables of sTask"), "{err}");
    fs::remove_file(&file).expect("is there");
    fs::create_dir(&file).expect("is made");
    let (code, out, err) = sync("queue_worker.prefix=evo_");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("the queue does not answer"), "{err}");
}

#[test]
fn operators_of_the_queue_are_told_what_was_done_and_what_is_wrong() {
    let files = site();
    let told = |words: &[&str], url: &str| {
        let mut command = program();
        command.args(words).arg("--config").arg(files.path("executor.toml"));
        command.arg("--policy").arg(files.path("policy.toml"));
        let url = format!("queue_worker.url={url}");
        let audit = format!("queue_worker.audit.dir={}", files.path("runs").display());
        let short = "queue_worker.acquire_timeout=200ms";
        for set in ["queue.driver=own", "queue_worker.key_env=SAPI_JWT_SECRET", short, &url, &audit] {
            command.args(["--set", set]);
        }
        run(&mut command)
    };
    let queue = format!("sqlite://{}", files.path("queue.sqlite").display());
    let (code, out, err) = told(&["worker", "--once"], &queue);
    assert_eq!((code, out.as_str()), (0, "adopted 0, processed 0\n"), "{err}");
    let (code, out, err) = told(&["tasks", "list"], &queue);
    assert!(code == 0 && out.contains("status"), "options may stand behind the subcommand: {err}");
    let (code, _, err) = told(&["tasks", "list"], "mysql://nobody@127.0.0.1:1/nothing");
    assert_eq!(code, 1);
    let cause = err.rsplit(": ").next().unwrap_or_default().trim();
    assert!(err.contains("the queue does not answer: database: ") && err.matches(cause).count() == 1, "{err}");
    let (code, _, err) = run(program().args(["tasks", "list", "--data", "nodir"]).current_dir(files.path(".")));
    assert_eq!(code, 1);
    assert!(err.contains("cannot use the data directory nodir") && err.contains("No such file"), "{err}");
}

#[test]
fn every_command_shows_an_example() {
    let commands = "list-servers test sync-workers stdio inspector import make";
    let made = ["make server", "make tool", "make resource", "make prompt"];
    for command in commands.split(' ').chain(made) {
        let (code, out, _) = run(program().args(command.split(' ')).arg("--help"));
        assert!(code == 0 && out.contains(&format!("  mcp-sidecar {command}")) && out.contains("Example"), "{out}");
        assert!(!out.contains("\\\""), "{out}");
    }
}
