//! Calls that run later, in a process apart from the proxy: its own audit log, and what happens when it cannot be
//! written.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::harness::{Client, Response, Token, eventually};
use crate::part::{Files, Part, SOON, START, get, program, records, rpc};

const KEY: &str = "a-key-of-the-queue-0123456789abcdef";

/// The shipped files with a queue that the executor works on.
fn with_queue() -> Files {
    let files = Files::shipped();
    files.demo_site();
    let queue = "[queue_worker]\nurl = \"sqlite://queue.sqlite\"\nkey_env = \"QUEUE_KEY\"\ninside = true\n\
                 audit = { dir = \"runs\", durability = \"written\" }\n\n[database]";
    files.edit("executor.toml", "[database]", queue);
    files.edit("policy.toml", "\n[end]", "\n[queue]\ndriver = \"own\"\n\n[end]");
    files.edit("policy.toml", "per_minute = 30 }", "per_minute = 100000 }");
    files
}

fn executor(files: &Files) -> Part {
    let mut command = files.service("executor");
    command.env("QUEUE_KEY", KEY);
    Part::ready(command)
}

fn dispatch(proxy: SocketAddr, key: &str) -> Response {
    let params = json!({"name": "evo.content.search", "arguments": {"limit": 3}});
    let mut request = rpc("content", &Token::of("alice").sign(), "tools/call", &params);
    request.target.push_str("/dispatch");
    Client::connect(proxy).round_trip(&request.header("Idempotency-Key", key).header("Connection", "close"))
}

fn completed(proxy: SocketAddr, key: &str) -> Value {
    eventually("the task has ended", SOON, || {
        let answer = dispatch(proxy, key);
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        (answer.status == 200).then(|| answer.json())
    })
}

#[test]
fn an_executor_that_works_on_tasks_has_an_audit_log_of_its_own() {
    let files = with_queue();
    let mut executor = executor(&files);
    let proxy = Part::ready(files.service("proxy"));
    let (mcp, admin) = (proxy.address("listening"), executor.address("admin listening"));
    let first = dispatch(mcp, "a");
    assert_eq!(first.status, 202, "{}", first.text());
    assert_eq!(completed(mcp, "a")["status"], "completed");
    let runs = |count: usize| {
        let runs = records(&files.path("runs"));
        (runs.len() == count).then_some(runs)
    };
    let line = eventually("the run's line is written", SOON, || runs(1)).remove(0);
    for (field, expected) in [
        ("task_id", first.json()["task_id"].clone()),
        ("trace_id", first.json()["trace_id"].clone()),
        ("run", json!(1)),
        ("decision", json!("allow")),
        ("outcome", json!("finished")),
        ("rate_limit_identity", json!("api:alice")),
    ] {
        assert_eq!(line[field], expected, "{field}: {line}");
    }
    assert!(files.audit().iter().all(|line| line["run"].is_null()), "the proxy's log holds requests alone");
    let counted = get(admin, "/metrics").text();
    assert!(counted.contains("mcp_sidecar_queue_runs_total{outcome=\"finished\"} 1"), "{counted}");

    // Its log cannot be opened any more: calls are taken, and nothing is run unseen.
    let (log, away) = (files.path("runs"), files.path("runs.away"));
    fs::rename(&log, &away).expect("is renamed");
    fs::write(&log, "no directory").expect("is written");
    executor.signal(Signal::USR1);
    let unready = eventually("it is not ready", SOON, || {
        let answer = get(admin, "/readyz");
        (answer.status == 503).then(|| answer.json())
    });
    assert_eq!(unready["reasons"], json!(["audit: audit_unwritable"]));
    assert_eq!(dispatch(mcp, "b").status, 202);
    assert_eq!(dispatch(mcp, "b").status, 202);
    let counted = get(admin, "/metrics").text();
    assert!(counted.contains("mcp_sidecar_queue_runs_total{outcome=\"finished\"} 1"), "{counted}");

    fs::remove_file(&log).expect("is there");
    fs::rename(&away, &log).expect("is renamed");
    assert_eq!(completed(mcp, "b")["status"], "completed");
    eventually("both runs have their line", SOON, || runs(2));
    executor.signal(Signal::TERM);
    assert!(executor.exited_within(SOON).success());
}

#[test]
fn a_worker_without_a_log_does_not_start() {
    let files = with_queue();
    fs::write(files.path("runs"), "no directory").expect("is written");
    let mut command = files.service("executor");
    command.env("QUEUE_KEY", KEY);
    let mut executor = Part::spawn(command);
    assert!(!executor.exited_within(SOON).success());
    eventually("it says why", SOON, || executor.output().contains("cannot write the audit log in").then_some(()));
}

/// Without `[queue_worker]` nothing keeps a key: no answer names one, and the executor says what is missing.
#[test]
fn without_a_place_for_keys_none_is_promised() {
    let files = Files::shipped();
    files.demo_site();
    files.edit("policy.toml", "\n[end]", "\n[queue]\ndriver = \"sync\"\nfailover = \"sync\"\n\n[end]");
    let executor = Part::ready(files.service("executor"));
    let proxy = Part::ready(files.service("proxy"));
    let mcp = proxy.address("listening");
    let missing = "executor.toml has no [queue_worker]";
    eventually("it says what is missing", SOON, || executor.output().contains(missing).then_some(()));
    let params = json!({"name": "evo.content.search", "arguments": {"limit": 3}});
    for _ in 0..2 {
        let mut request = rpc("content", &Token::of("alice").sign(), "tools/call", &params);
        request.target.push_str("/dispatch");
        let answer = Client::connect(mcp).round_trip(&request.header("Connection", "close"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let fields = ["status", "idempotency_key", "reused"].map(|field| &answer[field]);
        assert_eq!(fields, [&json!("completed"), &Value::Null, &json!(false)], "{answer}");
    }
    let keyed = dispatch(mcp, "k");
    assert_eq!((keyed.status, keyed.code().as_deref()), (503, Some("async_unavailable")));

    // A policy that comes later is looked at as well.
    let before = executor.output().matches(missing).count();
    files.edit("policy.toml", "driver = \"sync\"", "driver = \"own\"");
    eventually("it says so again", SOON, || (executor.output().matches(missing).count() > before).then_some(()));
}

#[test]
fn tasks_that_wait_for_a_worker_are_seen_where_none_runs() {
    let files = with_queue();
    files.edit("executor.toml", "inside = true", "inside = false");
    let (executor, proxy) = (executor(&files), Part::ready(files.service("proxy")));
    let (mcp, admin) = (proxy.address("listening"), executor.address("admin listening"));
    assert_eq!(dispatch(mcp, "a").status, 202);
    let counted = |name: &str| {
        let text = get(admin, "/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.trim().parse::<f64>().expect("a number")
    };
    let waits = "mcp_sidecar_queue_oldest_wait_seconds";
    let tasks = "mcp_sidecar_queue_tasks{state=\"preparing\"}";
    eventually("the waiting task is counted", SOON, || (counted(waits) > 0.0 && counted(tasks) == 1.0).then_some(()));
    let mut worker = program();
    worker.args(["worker", "--once", "--config"]).arg(files.path("executor.toml")).arg("--policy");
    worker.arg(files.path("policy.toml")).env("QUEUE_KEY", KEY).current_dir(files.path("."));
    let output = worker.output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("nothing waits any more", SOON, || (counted(waits) == 0.0 && counted(tasks) == 0.0).then_some(()));
}

/// Every statement about the site's documents takes seconds from now on.
fn slow(files: &Files) {
    let statements = "ALTER TABLE evo_site_content RENAME TO documents;
        CREATE VIEW evo_site_content AS SELECT * FROM documents WHERE 0 < (
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000000) SELECT count(*) FROM n
        )";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(files.path("emcp.sqlite"));
        let mut connection = options.connect().await.expect("the site is there");
        sqlx::raw_sql(statements).execute(&mut connection).await.expect("valid statements");
        connection.close().await.expect("it was open");
    });
}

#[test]
fn a_worker_that_is_told_to_stop_ends_what_it_runs_and_takes_nothing_new() {
    let files = with_queue();
    files.edit("executor.toml", "inside = true", "drain = \"120s\"\npoll = \"20ms\"");
    files.edit("executor.toml", "statement_timeout_ms = 10000", "statement_timeout_ms = 60000");
    slow(&files);
    let (_executor, proxy) = (executor(&files), Part::ready(files.service("proxy")));
    let mcp = proxy.address("listening");
    let over = |words: &[&str]| {
        let mut command = program();
        command.args(words).arg("--config").arg(files.path("executor.toml"));
        command.arg("--policy").arg(files.path("policy.toml")).env("QUEUE_KEY", KEY).current_dir(files.path("."));
        command
    };
    let task = |id: &Value| {
        let output = over(&["tasks", "show", &id.to_string(), "--json"]).output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let taken = dispatch(mcp, "a").json()["task_id"].clone();
    let mut worker = Part::spawn(over(&["worker"]));
    eventually("the task is at work", START, || (task(&taken)["status"] == "running").then_some(()));

    worker.signal(Signal::TERM);
    let late = dispatch(mcp, "b").json()["task_id"].clone();
    let (at_work, exited) = (task(&taken)["status"].clone(), worker.exited());
    assert_eq!((at_work, exited), (json!("running"), None), "it drains: {}", worker.output());
    let status = worker.exited_within(Duration::from_secs(120));
    assert!(status.success(), "{status}: {}", worker.output());
    let (taken, late) = (task(&taken), task(&late));
    assert_eq!((&taken["status"], &taken["runs"][0]["outcome"]), (&json!("completed"), &json!("finished")), "{taken}");
    assert_eq!((&late["status"], &late["runs"]), (&json!("preparing"), &json!([])), "{late}");
    assert_eq!(dispatch(mcp, "a").json()["result"]["response"]["result"]["isError"], false);
    let outcomes: Vec<Value> =
        records(&files.path("runs")).into_iter().map(|mut line| line["outcome"].take()).collect();
    assert_eq!(outcomes, ["finished"]);
}
