//! What the commands say when something is missing: a tool, a server, a key, a secret, room on the disk.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::commands::{answer, converse, message, over, run, site};
use crate::harness::{Client, Next, Request, Token, Upstream, eventually, json_answer};
use crate::part::{Files, Part, SOON, call, program, rpc};

const TOOLS: [&str; 9] = [
    "evo.content.search",
    "evo.content.get",
    "evo.content.root_tree",
    "evo.content.descendants",
    "evo.content.ancestors",
    "evo.content.children",
    "evo.content.siblings",
    "evo.model.list",
    "evo.model.get",
];

/// What a server answers to the two steps; `None` leaves the session id out.
#[derive(Clone)]
struct Answers {
    hello: Value,
    session: Option<&'static str>,
    list: Vec<u8>,
}

fn listing(tools: &[&str]) -> Vec<u8> {
    let tools: Vec<Value> = tools.iter().map(|name| json!({"name": name})).collect();
    json_answer(&json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}))
}

fn good() -> Answers {
    let hello = json!({
        "protocolVersion": "2025-11-25",
        "serverInfo": {"name": "Site", "version": "1", "platform": "eMCP", "platformVersion": "1.2"},
        "capabilities": {"evo": {"toolsetVersion": "1.0"}},
    });
    Answers { hello, session: Some("s-1"), list: listing(&TOOLS) }
}

#[test]
fn whatever_a_server_lacks_is_told() {
    let answers = Arc::new(Mutex::new(good()));
    let told = Arc::clone(&answers);
    let server = Upstream::scripted(move |seen, peer| {
        let answers = told.lock().expect("no test panicked").clone();
        if seen.json()["method"] != "initialize" {
            assert_eq!(seen.header("mcp-session-id"), answers.session, "the session of the first step");
            peer.send(answers.list);
            return Next::Close;
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "result": answers.hello}).to_string();
        let session = answers.session.map_or_else(String::new, |id| format!("MCP-Session-Id: {id}\r\n"));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
        peer.send(format!("{head}\r\n{session}Content-Length: {}\r\n\r\n{body}", body.len()));
        Next::Close
    });
    let url = format!("http://{}/mcp", server.address());
    let test = |changed: Answers, more: &[&str]| {
        *answers.lock().expect("no test panicked") = changed;
        let (code, out, err) = run(program().args(["test", "--url", &url]).args(more));
        assert_eq!(err, "");
        (code, out)
    };
    let without = |pointer: &str, key: &str| {
        let mut answers = good();
        answers.hello.pointer_mut(pointer).and_then(Value::as_object_mut).expect("is there").remove(key);
        answers
    };
    let other = Answers { session: None, hello: json!({"protocolVersion": "2025-06-18"}), list: listing(&["x"]) };
    for (what, answers, said) in [
        (
            "all is there",
            good(),
            "ok      initialize  Site, 2025-11-25, eMCP 1.2, toolset 1.0\nok      tools/list  9 tools\npassed",
        ),
        ("no version", without("", "protocolVersion"), "failed  initialize  the answer has no protocolVersion\n"),
        (
            "no platform",
            without("/serverInfo", "platform"),
            "failed  initialize  the answer has no serverInfo/platform\n",
        ),
        (
            "no version of it",
            without("/serverInfo", "platformVersion"),
            "failed  initialize  the answer has no serverInfo/platformVersion\n",
        ),
        (
            "no toolset",
            without("/capabilities/evo", "toolsetVersion"),
            "failed  initialize  the answer has no capabilities/evo/toolsetVersion\n",
        ),
        ("no session", Answers { session: None, ..good() }, "failed  initialize  the answer has no session id\n"),
        (
            "two tools less",
            Answers { list: listing(&TOOLS[1..8]), ..good() },
            "failed  tools/list  not listed: evo.content.search, evo.model.get\n",
        ),
        (
            "no JSON",
            Answers { list: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_vec(), ..good() },
            "failed  tools/list  the answer is no JSON\n",
        ),
        ("no list", Answers { list: json_answer(&json!({"id": 1, "result": {}})), ..good() }, "no list of tools\n"),
        ("another server", other.clone(), "failed  initialize  the answer has no serverInfo/platform\n"),
    ] {
        let (code, out) = test(answers, &[]);
        assert!(out.contains(said), "{what}: {out}");
        assert_eq!(code, i32::from(said.contains("failed") || said.starts_with("no ")), "{what}: {out}");
    }
    let (code, out) = test(other, &["--any"]);
    assert_eq!(
        (code, out.lines().next()),
        (0, Some("ok      initialize  a server without a name, 2025-06-18")),
        "{out}"
    );
    assert!(out.contains("ok      tools/list  1 tools\n"), "{out}");
}

#[test]
fn the_first_web_server_is_tested_and_a_local_one_when_named() {
    let files = site();
    let (desk, content) = ("handle = \"desk\"", "handle = \"content\"");
    // The local one stands first.
    files.edit("policy.toml", content, "handle = \"later\"");
    files.edit("policy.toml", "transport = \"web\"", "transport = \"local\"");
    files.edit(
        "policy.toml",
        &format!("{desk}\nenabled = true\ntransport = \"local\""),
        &format!("{desk}\nenabled = true\ntransport = \"web\""),
    );
    files.edit("policy.toml", "[\"evo.content.get\"]", "[\"evo.*\"]");
    let (code, out, err) = run(&mut over(&files, &["test"]));
    assert_eq!((code, out.lines().last()), (0, Some("passed  desk")), "{out}{err}");
    let (code, out, err) = run(&mut over(&files, &["test", "--server", "later"]));
    assert_eq!((code, out.lines().last()), (0, Some("passed  later")), "{out}{err}");
    files.edit("policy.toml", "transport = \"web\"", "transport = \"local\"");
    let (code, _, err) = run(&mut over(&files, &["test"]));
    assert_eq!(code, 1);
    assert!(err.contains("no enabled server of transport \"web\"; --server names a local one"), "{err}");
}

#[test]
fn nothing_is_fetched_to_inspect_a_server_that_is_not_there() {
    let files = site();
    let said = "there is no enabled server \"nobody\"; the policy has: content, desk";
    for more in [&[][..], &["--print"]] {
        let (code, out, err) = run(over(&files, &["inspector", "nobody"]).args(more).env("PATH", "/nowhere"));
        assert_eq!((code, out.as_str()), (1, ""), "{more:?}");
        assert!(err.contains(said), "{err}");
    }
    let (code, out, err) = run(&mut over(&files, &["inspector", "desk", "--print"]));
    assert!(code == 0 && out.contains("--server desk"), "{out}{err}");
    let (code, _, err) = run(program().args(["inspector", "nobody", "--demo", "--print"]));
    assert!(code == 1 && err.contains("the policy has: content"), "{err}");
}

/// An `npx` that writes down what it is given, and ends as `$NPX_ENDS` says.
const NPX: &str = r#"#!/bin/sh
printf '%s\n' "$@" > "$NPX_RECORD/arguments"
while [ $# -gt 0 ]; do
    if [ "$1" = --config ]; then
        stat -c '%a' "$2" > "$NPX_RECORD/mode"
        cp "$2" "$NPX_RECORD/inspector.json"
    fi
    shift
done
eval "$NPX_ENDS"
"#;

#[test]
fn the_inspector_gets_a_file_for_its_user_alone_which_is_gone_when_it_ends() {
    let files = site();
    let bin = files.path("bin");
    fs::create_dir(&bin).expect("is made");
    fs::write(bin.join("npx"), NPX).expect("is written");
    fs::set_permissions(bin.join("npx"), fs::Permissions::from_mode(0o755)).expect("is ours");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let inspect = |mut command: Command, token: &str, ends: &str| {
        let environment = [("PATH", &*path), ("NPX_ENDS", ends), ("MCP_TOKEN", token)];
        let (code, _, err) = run(command.envs(environment).env("NPX_RECORD", files.path("")));
        let recorded = |name: &str| fs::read_to_string(files.path(name)).unwrap_or_else(|_| panic!("no {name}: {err}"));
        let words: Vec<String> = recorded("arguments").lines().map(str::to_owned).collect();
        let at = words.iter().position(|word| word == "--config").expect("a file is named") + 1;
        let file = PathBuf::from(&words[at]);
        assert!(!file.exists() && !file.parent().is_none_or(Path::exists), "{} stays", file.display());
        assert_eq!(recorded("mode"), "600\n");
        let words: Vec<String> =
            words.into_iter().enumerate().filter(|(i, _)| *i != at).map(|(_, word)| word).collect();
        (code, words, serde_json::from_str::<Value>(&recorded("inspector.json")).expect("JSON"))
    };
    let words = |rest: &[&str], server: &str| {
        let before = ["--yes", "@modelcontextprotocol/inspector@2"].into_iter().chain(rest.iter().copied());
        before.chain(["--config", "--server", server]).map(str::to_owned).collect::<Vec<_>>()
    };

    // A server that the inspector starts by itself.
    let mut command = over(&files, &["inspector", "desk"]);
    command.args(["--", "--cli", "--method", "tools/list"]);
    let (code, told, file) = inspect(command, "", "exit 7");
    assert_eq!((code, told), (7, words(&["--cli", "--method", "tools/list"], "desk")));
    let server = &file["mcpServers"]["desk"];
    assert_eq!(server["type"], "stdio", "{file}");
    let mut started = Command::new(server["command"].as_str().expect("a program"));
    started.args(server["args"].as_array().expect("a list").iter().map(|word| word.as_str().expect("a text")));
    started.env("SAPI_JWT_SECRET", crate::part::SECRET);
    let listed = converse(started, &[message(1, "tools/list", &json!({}))]);
    let tools = answer(&listed, 1)["result"]["tools"].as_array().map(Vec::len);
    assert_eq!(tools, Some(14), "{listed:?}");

    // A running server, with a token, which no other user of the machine gets to see.
    let _executor = Part::ready(files.service("executor"));
    let proxy = Part::ready(files.service("proxy"));
    let url = format!("http://{}/api/v1/mcp/content", proxy.address("listening"));
    let token = Token::of("alice").sign();
    for (given, status) in [(&*token, 200), ("", 401)] {
        let mut command = program();
        command.args(["inspector", "content", "--url", &url]);
        let (code, told, file) = inspect(command, given, "exit 0");
        assert_eq!((code, told), (0, words(&[], "content")));
        let server = &file["mcpServers"]["content"];
        assert_eq!((&server["type"], &server["url"]), (&json!("streamable-http"), &json!(url)));
        let ping = rpc("content", "", "ping", &json!({})).without("Authorization").header("Connection", "close");
        let headers = server["headers"].as_object().cloned().unwrap_or_default();
        let ping = headers.iter().fold(ping, |ping, (name, value)| ping.header(name, value.as_str().expect("a text")));
        let answer = Client::connect(proxy.address("listening")).round_trip(&ping);
        assert_eq!(answer.status, status, "{file}");
    }
    // Who ends it at the terminal has not failed.
    let (code, ..) = inspect(over(&files, &["inspector", "desk"]), "", "kill -TERM $$");
    assert_eq!(code, 0);
}

#[test]
fn a_token_for_an_up_needs_no_file_and_a_key_only_without_the_variable() {
    let dir = tempfile::tempdir().expect("a directory");
    let up = |secret: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
        command.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).current_dir(dir.path());
        Part::ready(match secret {
            "" => env_removed(command),
            secret => env_set(command, secret),
        })
    };
    let words = |words: &[&str], secret: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
        command.args(words).args(["--data", "var"]).current_dir(dir.path()).stdin(Stdio::null());
        run(&mut match secret {
            "" => env_removed(command),
            secret => env_set(command, secret),
        })
    };
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "evo.content.get"}});
    fs::write(dir.path().join("call.json"), ping.to_string()).expect("is written");
    let address = |up: &Part| {
        let url =
            up.output().lines().find_map(|line| Some(line.strip_prefix("mcp ")?.trim().to_owned())).expect("is said");
        url.trim_start_matches("http://").split('/').next().expect("a host").parse().expect("an address")
    };
    let works = |up: &Part, token: &str| {
        let request = rpc("content", token.trim(), "ping", &json!({}));
        Client::connect(address(up)).round_trip(&request.header("Connection", "close")).status
    };

    // No data directory yet.
    let (code, _, err) = words(&["token"], crate::part::SECRET);
    assert!(code == 1 && err.contains("cannot use var"), "{err}");
    let running = up(crate::part::SECRET);
    assert!(!dir.path().join("var/jwt.key").exists(), "the variable holds a secret");
    let (code, token, err) = words(&["token"], crate::part::SECRET);
    assert_eq!(code, 0, "{err}");
    assert_eq!(works(&running, &token), 200);
    let (code, out, err) = words(&["explain", "--scopes", "mcp:call", "--body", "call.json"], "");
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("allow\nrule     servers[0].allow_tools[0] at embedded policy.toml:"), "{out}");
    let (code, _, err) = words(&["token"], "");
    assert!(code == 1 && err.contains("no secret to sign with") && err.contains("--data DIR"), "{err}");
    drop(running);

    let running = up("");
    let (code, token, err) = words(&["token", "--sub", "alice", "--scopes", "*", "--ttl", "60"], "");
    assert_eq!(code, 0, "{err}");
    assert_eq!(works(&running, &token), 200);
}

fn env_removed(mut command: Command) -> Command {
    command.env_remove("SAPI_JWT_SECRET");
    command
}

fn env_set(mut command: Command, secret: &str) -> Command {
    command.env("SAPI_JWT_SECRET", secret);
    command
}

#[test]
fn a_newcomers_up_logs_in_and_runs_calls_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = program();
    command.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).current_dir(dir.path());
    let up = Part::ready(command);
    let output = up.output();
    let said = |word: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(word));
        line.unwrap_or_else(|| panic!("no {word}:\n{output}")).trim().to_owned()
    };
    let address = said("mcp ").trim_start_matches("http://").split('/').next().expect("a host").parse();
    let address = address.expect("an address");
    let send = |request: &Request| Client::connect(address).round_trip(&request.clone().header("Connection", "close"));

    let login = said("login ");
    let (name, rest) = login.split_once(' ').expect("a name");
    let (password, route) = rest.split_once(" at ").expect("a password and where it is asked for");
    let credentials = json!({"username": name, "password": password}).to_string();
    let request = Request::new("POST", route).header("Content-Type", "application/json").body(credentials);
    let granted = send(&request);
    assert_eq!(granted.status, 200, "{}", granted.text());
    let issued = granted.json()["object"]["token"].as_str().expect("a token").to_owned();

    for (key, token) in [("a", issued), ("b", said("token "))] {
        let params = json!({"name": "evo.content.search", "arguments": {"limit": 3}});
        assert_eq!(send(&rpc("content", &token, "tools/call", &params)).json()["result"]["isError"], false);
        let mut request = rpc("content", &token, "tools/call", &params).header("Idempotency-Key", key);
        request.target.push_str("/dispatch");
        let taken = send(&request);
        assert_eq!(taken.status, 202, "{}", taken.text());
        let done = eventually("the task has ended", SOON, || {
            let answer = send(&request);
            (answer.status == 200).then(|| answer.json())
        });
        assert_eq!((&done["status"], &done["task_id"]), (&json!("completed"), &taken.json()["task_id"]), "{done}");
    }
    // What else `up` lays over the shipped policy.
    let token = said("token ");
    let params = json!({"name": "evo.model.list", "arguments": {"model": "Permissions", "limit": 3}});
    let people = send(&rpc("content", &token, "tools/call", &params));
    assert_eq!(people.json()["result"]["isError"], false, "{}", people.text());
}

#[test]
fn what_cannot_be_written_is_an_error_and_a_reader_who_leaves_is_none() {
    let files = site();
    let policy = files.path("policy.toml").display().to_string();
    fs::write(files.path("eMCP.php"), "<?php return [];").expect("is written");
    fs::write(files.path("body.json"), "{}").expect("is written");
    let (php, body) = (files.path("eMCP.php").display().to_string(), files.path("body.json").display().to_string());
    let site = format!("sqlite://{}", files.path("emcp.sqlite").display());
    let commands: [&[&str]; 9] = [
        &["import", &php],
        &["list-servers", "--json", "--policy", &policy],
        &["list-servers", "--policy", &policy],
        &["token", "--policy", &policy],
        &["check", "--policy", &policy, "--dump"],
        &["explain", "--body", &body, "--policy", &policy],
        &["permissions", "status", "--url", &site],
        &["make", "server", "shop", "--policy", &policy],
        &["inspector", "content", "--demo", "--print"],
    ];
    let all = || {
        let apart = commands.iter().map(|words| {
            let mut command = program();
            command.args(*words);
            command
        });
        apart.chain([over(&files, &["test"])])
    };
    for mut command in all() {
        let full = File::options().write(true).open("/dev/full").expect("is there");
        let output = command.stdout(full).output().expect("the binary runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {err}");
        assert!(err.contains("error: cannot write to standard output: No space left"), "{command:?}: {err}");
    }
    for mut command in all() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command.stdout(writer).output().expect("the binary runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !err.contains("standard output"), "{command:?}: {err}");
    }
}

#[test]
fn a_proxy_without_a_secret_says_what_to_set() {
    let files = Files::shipped();
    let mut command = files.service("proxy");
    command.env_remove("SAPI_JWT_SECRET");
    let proxy = Part::ready(command);
    let said = proxy.output();
    let warned = said.lines().find(|line| line.contains("WARN")).unwrap_or_default();
    for word in ["no token can be verified", "auth.secret_envs", "SAPI_JWT_SECRET", "openssl rand -hex 32"] {
        assert!(warned.contains(word), "{said}");
    }
    let answer = call(proxy.address("listening"), "content", "evo.content.get");
    assert_eq!((answer.status, answer.code().as_deref()), (500, Some("internal_error")));
    eventually("the log says whose fault it is", SOON, || proxy.output().contains("auth.no_secret").then_some(()));
    // Nor is a token issued.
    drop(proxy);
    files.edit("policy.toml", "[auth.token]\nenabled = false", "[auth.token]\nenabled = true");
    let mut command = files.service("proxy");
    command.env_remove("SAPI_JWT_SECRET");
    let proxy = Part::ready(command);
    let request = Request::new("POST", "/api/v1/token")
        .header("Content-Type", "application/json")
        .header("Connection", "close")
        .body(json!({"username": "admin", "password": "x"}).to_string());
    let answer = Client::connect(proxy.address("listening")).round_trip(&request);
    assert_eq!((answer.status, &answer.json()["code"]), (500, &json!(500)), "{}", answer.text());

    // With one there is nothing to say.
    drop(proxy);
    let proxy = Part::ready(files.service("proxy"));
    assert!(!proxy.output().contains("no token can be verified"), "{}", proxy.output());
}
