//! Calls that are run later: taken, run by a worker, asked for until they are done.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Request, Response, Sidecar, Start, Token, eventually, vacant};

const SOON: Duration = Duration::from_secs(30);

fn start() -> Start {
    Sidecar::start().policy("queue.driver", "own").policy("rate_limit.enabled", false)
}

fn search(limit: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call",
        "params": {"name": "evo.content.search", "arguments": {"limit": limit}}})
}

fn dispatch(sidecar: &Sidecar, token: &Token, body: &Value, key: Option<&str>) -> Response {
    let mut request = sidecar.post("content", token, body.to_string());
    request.target.push_str("/dispatch");
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    sidecar.send(&request)
}

/// Asks again until the task has ended.
fn ended(sidecar: &Sidecar, token: &Token, body: &Value, key: &str) -> Value {
    eventually("the task has ended", SOON, || {
        let answer = dispatch(sidecar, token, body, Some(key));
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        (answer.status == 200).then(|| answer.json())
    })
}

/// Runs an operator's command beside the sidecar.
fn operator(sidecar: &Sidecar, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
    command.args(arguments).arg("--data").arg(sidecar.data()).arg("--policy").arg(sidecar.policy_file());
    let output = command.output().expect("the binary runs");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.success(), text)
}

#[test]
fn a_dispatched_call_is_run_and_its_answer_waits_for_the_same_request() {
    let sidecar = start().go();
    let alice = Token::of("alice");
    let first = dispatch(&sidecar, &alice, &search(3), Some("k1"));
    assert_eq!(first.status, 202, "{}", first.text());
    let first = first.json();
    assert_eq!(
        (&first["status"], &first["reused"], &first["idempotency_key"]),
        (&json!("accepted"), &json!(false), &json!("k1"))
    );
    let id = first["task_id"].as_u64().expect("a number");

    let done = ended(&sidecar, &alice, &search(3), "k1");
    assert_eq!((&done["status"], &done["reused"], &done["task_id"]), (&json!("completed"), &json!(true), &json!(id)));
    assert_eq!(done["trace_id"], first["trace_id"], "that of the first request");
    let result = &done["result"];
    assert_eq!((&result["http_status"], &result["response"]["id"]), (&json!(200), &json!(9)));
    let direct = sidecar.send(&sidecar.post("content", &alice, search(3).to_string())).json();
    assert_eq!(result["response"], direct, "as the call itself answers");

    let conflict = dispatch(&sidecar, &alice, &search(4), Some("k1"));
    assert_eq!((conflict.status, conflict.code().as_deref()), (409, Some("idempotency_conflict")));
    let other = dispatch(&sidecar, &Token::of("bob"), &search(3), Some("k1"));
    assert_eq!(other.status, 202, "keys of two callers never meet: {}", other.text());
    assert_ne!(other.json()["task_id"], json!(id));
    let unnamed: Vec<_> = (0..2).map(|_| dispatch(&sidecar, &alice, &search(3), None).json()).collect();
    assert_ne!(unnamed[0]["task_id"], unnamed[1]["task_id"]);
    assert_eq!(unnamed[0]["idempotency_key"], Value::Null);

    let (request, run) = eventually("the audit lines name the task", SOON, || {
        let lines = sidecar.audit();
        let of = |run: Value| lines.iter().find(|line| line["task_id"] == id && line["run"] == run).cloned();
        Some((of(Value::Null)?, of(json!(1))?))
    });
    for field in
        ["trace_id", "server_handle", "method", "actor_user_id", "rate_limit_identity", "decision", "tool", "rule"]
    {
        assert_eq!(run[field], request[field], "{field}: {run} {request}");
    }
    assert_eq!(
        (&run["status"], &run["outcome"], &run["peer"]),
        (&json!(200), &json!("finished"), &Value::Null),
        "{run}"
    );
    assert_eq!((&run["trace_id"], &run["decision"]), (&first["trace_id"], &json!("allow")), "{run}");
    assert_ne!(run["request_id"], request["request_id"]);
    assert!(sidecar.metric("mcp_sidecar_queue_submissions_total{outcome=\"accepted\"}") >= 4.0);
    sidecar.finish();
}

#[test]
fn the_manuals_example_is_taken() {
    let page = include_str!("../../docs/DISPATCH.md");
    let example = page.split("<!-- example -->\n```json\n").nth(1).and_then(|rest| rest.split("\n```").next());
    let example: Value = serde_json::from_str(example.expect("an example")).expect("JSON");
    let sidecar = start().go();
    let alice = Token::of("alice");
    let done = eventually("the task has ended", SOON, || {
        let answer = dispatch(&sidecar, &alice, &example, None);
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((&done["status"], &done["idempotency_key"]), (&json!("completed"), &example["idempotency_key"]));
    let items = &done["result"]["response"]["result"]["structuredContent"]["items"];
    assert_eq!(items.as_array().map(Vec::len), Some(3), "{done}");
    sidecar.finish();
}

#[test]
fn a_dispatch_is_refused_as_its_call_would_be() {
    let sidecar = start().policy("security.deny_tools", vec!["evo.content.get"]).go();
    let alice = Token::of("alice");
    let at = |server: &str, body: &str| {
        let mut request = sidecar.post(server, &alice, body.to_owned());
        request.target.push_str("/dispatch");
        request
    };
    let good = search(1).to_string();
    let denied = r#"{"method":"tools/call","params":{"name":"evo.content.get"}}"#;
    let get = Request { method: "GET".to_owned(), ..at("content", "") };
    let table: Vec<(&str, Request, u16, &str)> = vec![
        ("no token", at("content", &good).without("Authorization"), 401, "unauthenticated"),
        ("scope", at("content", r#"{"method":"admin/x"}"#), 403, "scope_denied"),
        ("GET", get, 405, "method_not_allowed"),
        ("media type", at("content", &good).without("Content-Type"), 415, "unsupported_media_type"),
        ("size", at("content", &" ".repeat(200_000)), 413, "payload_too_large"),
        ("unknown server before its tool", at("nobody", denied), 404, "server_not_found"),
        ("no method", at("content", "{}"), 400, "invalid_payload"),
        ("empty method", at("content", r#"{"method":""}"#), 400, "invalid_payload"),
        ("blank method", at("content", r#"{"method":" "}"#), 400, "invalid_payload"),
        ("no JSON", at("content", "{"), 400, "invalid_payload"),
        ("a batch", at("content", "[]"), 400, "invalid_payload"),
        ("no tool", at("content", r#"{"method":"tools/call"}"#), 400, "invalid_payload"),
        ("denied tool", at("content", denied), 403, "tool_denied"),
        ("foreign server", at("raw", r#"{"method":"tools/call","params":{"name":"raw.x"}}"#), 503, "async_unavailable"),
        (
            "two keys",
            at("content", &good).header("Idempotency-Key", "a").header("Idempotency-Key", "b"),
            400,
            "bad_request",
        ),
        ("long key", at("content", &good).header("Idempotency-Key", &"k".repeat(300)), 400, "invalid_payload"),
    ];
    for (what, request, status, code) in table {
        let answer = sidecar.send(&request);
        assert_eq!((answer.status, answer.code().as_deref()), (status, Some(code)), "{what}: {}", answer.text());
    }
    let (done, listed) = operator(&sidecar, &["tasks", "list", "--json"]);
    assert_eq!((done, listed.trim()), (true, "[]"), "nothing of this became a task");
    sidecar.check_secrets();
}

#[test]
fn without_a_queue_there_is_no_route_and_the_failover_answers_at_once() {
    let sidecar = Sidecar::start().go();
    let answer = dispatch(&sidecar, &Token::of("alice"), &search(1), None);
    assert_eq!((answer.status, answer.code().as_deref()), (404, Some("route_not_found")));
    sidecar.finish();

    let sidecar = start().policy("queue.driver", "sync").go();
    let answer = dispatch(&sidecar, &Token::of("alice"), &search(1), None);
    assert_eq!((answer.status, answer.code().as_deref()), (503, Some("async_unavailable")));
    sidecar.finish();

    let sidecar = start().policy("queue.driver", "sync").policy("queue.failover", "sync").go();
    let alice = Token::of("alice");
    let first = dispatch(&sidecar, &alice, &search(2), None);
    assert_eq!(first.status, 200, "{}", first.text());
    let first = first.json();
    assert_eq!(
        (&first["status"], &first["task_id"], &first["reused"]),
        (&json!("completed"), &Value::Null, &json!(false))
    );
    assert!(first["idempotency_key"].as_str().is_some_and(|key| key.starts_with("sync:") && key.len() == 45));
    let again = dispatch(&sidecar, &alice, &search(2), None).json();
    assert_eq!((&again["task_id"], &again["reused"], &again["result"]), (&json!(0), &json!(true), &first["result"]));
    sidecar.finish();

    // A site without sTask: its table is no queue.
    for (failover, status) in [("sync", 200), ("fail", 503)] {
        let sidecar = start().policy("queue.driver", "stask").policy("queue.failover", failover).go();
        let answers = [Some("k"), None].map(|key| dispatch(&sidecar, &Token::of("alice"), &search(2), key).status);
        assert_eq!(answers, [status; 2], "{failover}");
        sidecar.finish();
    }
}

/// A queue's database that refuses connections, and one whose directory is missing.
#[test]
fn while_the_queue_is_away_the_failover_is_for_calls_without_a_key() {
    let (alice, port) = (Token::of("alice"), vacant());
    for (failover, without_key) in [("sync", 200), ("fail", 503)] {
        let place = tempfile::tempdir().expect("a temporary directory");
        let missing = place.path().join("queue");
        let file = format!("sqlite://{}", missing.join("queue.sqlite").display());
        for url in [&format!("mysql://nobody@{port}/queue"), &file] {
            let start = start().policy("queue.failover", failover).set("queue_worker.acquire_timeout=\"300ms\"");
            let sidecar = start.set(format!("queue_worker.url={url:?}")).go();
            let direct = sidecar.send(&sidecar.post("content", &alice, search(2).to_string())).json();
            assert_eq!(direct["result"]["isError"], false, "the site's database answers: {direct}");

            let keyed = dispatch(&sidecar, &alice, &search(2), Some("k"));
            let told = (keyed.status, keyed.code());
            assert_eq!(told, (503, Some("async_unavailable".to_owned())), "{failover}, {url}: {}", keyed.text());
            assert!(keyed.header("retry-after").is_some());
            let mut body = search(2);
            body["idempotency_key"] = json!("k");
            let keyed = dispatch(&sidecar, &alice, &body, None);
            assert_eq!(keyed.status, 503, "{failover}, {url}, a key in the body: {}", keyed.text());

            let answer = dispatch(&sidecar, &alice, &search(2), None);
            assert_eq!(answer.status, without_key, "{failover}, {url}: {}", answer.text());
            let answer = answer.json();
            if without_key == 200 {
                let fields = ["status", "task_id", "idempotency_key", "reused"].map(|field| &answer[field]);
                let expected = [&json!("completed"), &Value::Null, &Value::Null, &json!(false)];
                assert_eq!(fields, expected, "no key is kept, and none is promised: {answer}");
                assert_eq!(answer["result"]["response"], direct, "{url}");
            }
            if url == &file {
                std::fs::create_dir(&missing).expect("is made");
                let back = dispatch(&sidecar, &alice, &search(2), Some("k"));
                assert_eq!((back.status, &back.json()["reused"]), (202, &json!(false)), "{}", back.text());
                assert_eq!(ended(&sidecar, &alice, &search(2), "k")["status"], "completed", "{failover}");
            }
            sidecar.finish();
        }
    }
}

/// Keys can be kept while no task can be made: what has a key is not run by somebody else's hand.
#[test]
fn a_queue_that_takes_no_task_runs_nothing_that_has_a_key() {
    let sidecar = start().policy("queue.failover", "sync").go();
    let alice = Token::of("alice");
    assert_eq!(dispatch(&sidecar, &alice, &search(1), Some("before")).status, 202);
    ended(&sidecar, &alice, &search(1), "before");
    let full = "CREATE TRIGGER full BEFORE INSERT ON evo_mcp_tasks BEGIN SELECT RAISE(ABORT, 'full'); END";
    crate::manager::change(&sidecar.data().join("queue.sqlite"), full);
    let keyed = dispatch(&sidecar, &alice, &search(2), Some("k"));
    assert_eq!((keyed.status, keyed.code().as_deref()), (503, Some("async_unavailable")), "{}", keyed.text());
    let known = dispatch(&sidecar, &alice, &search(1), Some("before"));
    assert_eq!((known.status, &known.json()["reused"]), (200, &json!(true)), "{}", known.text());
    let first = dispatch(&sidecar, &alice, &search(2), None);
    assert_eq!((first.status, &first.json()["task_id"]), (200, &Value::Null), "{}", first.text());
    crate::manager::change(&sidecar.data().join("queue.sqlite"), "DROP TRIGGER full");
    assert_eq!(dispatch(&sidecar, &alice, &search(2), Some("k")).status, 202, "the refusal kept no key");
    sidecar.finish();
}

#[test]
fn a_task_runs_by_the_policy_of_the_day_and_its_failure_is_seen() {
    let sidecar = start().set("queue_worker.inside=false").go();
    let alice = Token::of("alice");
    let made = dispatch(&sidecar, &alice, &search(1), Some("k"));
    let id = made.json()["task_id"].to_string();
    let later = dispatch(&sidecar, &alice, &search(2), Some("later")).json()["task_id"].to_string();
    let (done, said) = operator(&sidecar, &["tasks", "cancel", &later]);
    assert!(done, "{said}");

    let file = sidecar.policy_file();
    let policy = std::fs::read_to_string(&file).expect("is there");
    let denying = policy.replacen("deny_tools = []", "deny_tools = [\"evo.content.search\"]", 1);
    assert_ne!(policy, denying);
    std::fs::write(&file, denying).expect("is written");
    let (done, said) = operator(&sidecar, &["worker", "--once"]);
    assert!(done, "{said}");
    let (done, shown) = operator(&sidecar, &["tasks", "show", &id, "--json"]);
    assert!(done, "{shown}");
    let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!((&shown["status"], &shown["message"]), (&json!("failed"), &json!("Tool denied by policy")));
    assert_eq!(shown["runs"][0]["outcome"], "failed");
    let lines: Vec<Value> = sidecar.audit().into_iter().filter(|line| !line["run"].is_null()).collect();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(
        (&line["decision"], &line["deny_code"], &line["status"]),
        (&json!("deny"), &json!("tool_denied"), &json!(403))
    );
    assert_eq!(
        (&line["outcome"], &line["task_id"].to_string(), &line["rule"]),
        (&json!("denied"), &id, &json!("security.deny_tools[0]"))
    );
    assert_eq!(line["trace_id"], made.json()["trace_id"], "{line}");

    std::fs::write(&file, &policy).expect("is written");
    let failed = eventually("the old policy is back", SOON, || {
        let answer = dispatch(&sidecar, &alice, &search(1), Some("k"));
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((&failed["status"], &failed["error"]), (&json!("failed"), &json!("Tool denied by policy")));
    assert_eq!(failed.get("result"), None);
    let (done, said) = operator(&sidecar, &["tasks", "retry", &id]);
    assert!(done, "{said}");
    let (done, said) = operator(&sidecar, &["worker", "--once"]);
    assert!(done, "{said}");
    assert_eq!(ended(&sidecar, &alice, &search(1), "k")["status"], "completed");
    let cancelled = dispatch(&sidecar, &alice, &search(2), Some("later")).json();
    assert_eq!((&cancelled["status"], &cancelled["error"]), (&json!("failed"), &json!("Cancelled")));
    let (done, said) = operator(&sidecar, &["tasks", "retry", "4711"]);
    assert!(!done && said.contains("there is no task 4711"), "{said}");
    sidecar.check_secrets();
}

#[test]
fn two_hundred_requests_over_two_sidecars_make_one_task() {
    let first = start().go();
    let shared = |key: &str, file: &str| {
        let scheme = if key == "url" { "sqlite://" } else { "" };
        format!("queue_worker.{key}={:?}", format!("{scheme}{}", first.data().join(file).display()))
    };
    let second = start().set(shared("url", "queue.sqlite")).set(shared("key_file", "queue.key")).go();
    let alice = Token::of("alice");
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let (alice, first, second) = (&alice, &first, &second);
        let asked: Vec<_> = (0..200)
            .map(|number| {
                let sidecar = if number % 2 == 0 { first } else { second };
                scope.spawn(move || dispatch(sidecar, alice, &search(1), Some("one")))
            })
            .collect();
        asked.into_iter().map(|asking| asking.join().expect("no panic")).collect()
    });
    let mut made = 0;
    let mut ids = std::collections::BTreeSet::new();
    for answer in answers {
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        let body = answer.json();
        made += usize::from(body["reused"] == false);
        ids.insert(body["task_id"].to_string());
    }
    assert_eq!((made, ids.len()), (1, 1), "{ids:?}");
    assert_eq!(ended(&second, &alice, &search(1), "one")["status"], "completed");
    first.finish();
    second.finish();
}

#[test]
fn without_verified_callers_keys_count_for_nothing() {
    for (mode, token) in [("none", Token::of("alice")), ("sapi_jwt", Token::of("").without("sub"))] {
        let sidecar = start().policy("auth.mode", mode).go();
        let ids: Vec<_> = (0..2)
            .map(|_| {
                let answer = dispatch(&sidecar, &token, &search(1), Some("k"));
                assert_eq!(answer.status, 202, "{}", answer.text());
                let body = answer.json();
                assert_eq!((&body["reused"], &body["idempotency_key"]), (&json!(false), &Value::Null));
                body["task_id"].clone()
            })
            .collect();
        assert_ne!(ids[0], ids[1]);
        sidecar.finish();
    }
}

#[test]
fn workers_that_are_killed_lose_no_task_and_complete_none_twice() {
    const TASKS: usize = 40;
    let sidecar = start().set("queue_worker.inside=false").go();
    let alice = Token::of("alice");
    for number in 0..TASKS {
        let answer = dispatch(&sidecar, &alice, &search(1 + number as u64), None);
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let completed = || {
        let (done, listed) = operator(&sidecar, &["tasks", "list", "--limit", "100", "--json"]);
        assert!(done, "{listed}");
        let tasks: Vec<Value> = serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"));
        assert_eq!(tasks.len(), TASKS);
        tasks.into_iter().filter(|task| task["status"] == "completed").collect::<Vec<_>>()
    };
    // Each dies soon after its first tasks; the last one lives.
    for round in 1..=4 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
        command.arg("worker").arg("--data").arg(sidecar.data()).arg("--policy").arg(sidecar.policy_file());
        let admin = vacant();
        command.args(["--admin", &admin.to_string()]);
        command.args(["--set", "queue_worker.lease=1s"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut worker = Killed(command.spawn().expect("the binary runs"));
        let enough = if round == 4 { TASKS } else { round * 5 };
        eventually("enough tasks are completed", 4 * SOON, || {
            assert!(worker.0.try_wait().expect("can be asked").is_none(), "the worker ended by itself");
            (completed().len() >= enough).then_some(())
        });
        if round == 4 {
            let request = Request::new("GET", "/metrics").header("Connection", "close");
            let metrics = Client::connect(admin).round_trip(&request).text();
            assert!(metrics.contains("mcp_sidecar_queue_runs_total{outcome=\"finished\"}"), "{metrics}");
        }
    }
    for task in completed() {
        let (_, shown) = operator(&sidecar, &["tasks", "show", &task["id"].to_string(), "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
        let runs = shown["runs"].as_array().expect("a list");
        let ended: Vec<_> = runs.iter().map(|run| run["outcome"].as_str().unwrap_or("")).collect();
        assert_eq!(ended.last(), Some(&"finished"), "{shown}");
        assert!(ended[..ended.len() - 1].iter().all(|how| *how == "lost"), "{shown}");
    }
    sidecar.finish();
}

/// A process that is killed when this is dropped.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
