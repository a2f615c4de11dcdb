//! Calls that wait in sTask's own table, and rows that others put there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Row as _, SqliteConnection};

use crate::harness::{Response, Sidecar, Start, Token, eventually};

const SOON: Duration = Duration::from_secs(30);

/// A site with sTask, whose database holds the queue as well.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().expect("a temporary directory"));
        site.wait_for(mcp_sidecar::app::demo_site(&site.file(), 0)).expect("the demo site is made");
        site
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("site.sqlite")
    }

    fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
    }

    fn sets(&self) -> [String; 2] {
        ["database.url", "queue_worker.url"].map(|key| format!("{key}=sqlite://{}", self.file().display()))
    }

    fn start(&self) -> Start {
        let start = Sidecar::start().policy("queue.driver", "stask").policy("rate_limit.enabled", false);
        self.sets().into_iter().fold(start, Start::set)
    }

    /// One pass of a worker; what it says that it did.
    fn work(&self, sidecar: &Sidecar) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
        command.args(["worker", "--once", "--data"]).arg(sidecar.data()).arg("--policy").arg(sidecar.policy_file());
        for set in self.sets() {
            command.arg("--set").arg(set);
        }
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    async fn open(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.file()).busy_timeout(SOON);
        options.connect().await.expect("the site is there")
    }

    fn run(&self, statement: &str) {
        self.wait_for(async {
            let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
            statement.execute(&mut self.open().await).await.expect("a valid statement");
        });
    }

    /// Puts a row there as PHP does; its id.
    fn put(&self, columns: &[(&str, &str)], meta: &str) -> i64 {
        let mut row = vec![("identifier", "emcp_dispatch"), ("action", "dispatch"), ("status", "10"), ("meta", meta)];
        row.retain(|(name, _)| !columns.iter().any(|(other, _)| other == name));
        row.extend_from_slice(columns);
        let names: Vec<&str> = row.iter().map(|(name, _)| *name).collect();
        let marks = vec!["?"; row.len()].join(", ");
        let sql = format!("INSERT INTO evo_s_tasks ({}) VALUES ({marks})", names.join(", "));
        self.wait_for(async {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (_, value) in &row {
                query = query.bind((*value).to_owned());
            }
            query.execute(&mut self.open().await).await.expect("is written").last_insert_rowid()
        })
    }

    /// Status, message, result and attempts of a row.
    fn row(&self, id: i64) -> (i64, String, Value, i64) {
        self.wait_for(async {
            let sql = "SELECT status, COALESCE(message, ''), COALESCE(result, 'null'), attempts FROM evo_s_tasks \
                       WHERE id = ?";
            let row = sqlx::query(sql).bind(id).fetch_one(&mut self.open().await).await.expect("it is there");
            let result: String = row.get(2);
            (row.get(0), row.get(1), serde_json::from_str(&result).expect("JSON"), row.get(3))
        })
    }

    /// Who started it, and what its row says of the call.
    fn meta(&self, id: i64) -> (Option<i64>, Value) {
        self.wait_for(async {
            let sql = "SELECT started_by, meta FROM evo_s_tasks WHERE id = ?";
            let row = sqlx::query(sql).bind(id).fetch_one(&mut self.open().await).await.expect("it is there");
            (row.get(0), serde_json::from_str(row.get(1)).expect("JSON"))
        })
    }
}

fn search(limit: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call",
        "params": {"name": "evo.content.search", "arguments": {"limit": limit}}})
}

fn dispatch(sidecar: &Sidecar, body: &Value, key: (&str, &str)) -> Response {
    let mut request = sidecar.post("content", &Token::of("alice"), body.to_string());
    request.target.push_str("/dispatch");
    sidecar.send(&request.header(key.0, key.1))
}

fn ended(sidecar: &Sidecar, body: &Value, key: (&str, &str)) -> Value {
    eventually("the task has ended", SOON, || {
        let answer = dispatch(sidecar, body, key);
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        (answer.status == 200).then(|| answer.json())
    })
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).expect("is there");
    assert!(text.contains(from), "{from}");
    std::fs::write(file, text.replacen(from, to, 1)).expect("is written");
}

#[test]
fn a_call_waits_in_stasks_table_until_a_worker_has_run_it() {
    let site = Site::new();
    let sidecar = site.start().set("queue_worker.inside=false").go();
    let key = ("Idempotency-Key", "k");
    let first = dispatch(&sidecar, &search(3), key);
    assert_eq!((first.status, &first.json()["reused"]), (202, &json!(false)), "{}", first.text());
    let id = first.json()["task_id"].as_i64().expect("a number");
    // Not `pending`: sTask's own worker would take it.
    assert_eq!(site.row(id).0, 30);
    assert_eq!(dispatch(&sidecar, &search(3), key).status, 202);

    assert_eq!(site.work(&sidecar), "adopted 0, processed 1: finished 1");
    let done = ended(&sidecar, &search(3), key);
    assert_eq!((&done["status"], &done["task_id"], &done["reused"]), (&json!("completed"), &json!(id), &json!(true)));
    let direct = sidecar.send(&sidecar.post("content", &Token::of("alice"), search(3).to_string())).json();
    assert_eq!(done["result"]["response"], direct, "as the call itself answers");
    let (status, _, result, attempts) = site.row(id);
    assert_eq!((status, &result, attempts), (80, &done["result"], 1), "as sTask's screens show it");
    let registered = site.wait_for(async {
        let sql = "SELECT COUNT(*) FROM evo_s_workers WHERE identifier = 'emcp_dispatch' AND active = 1";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut site.open().await).await.expect("a number")
    });
    assert_eq!(registered, 1, "the worker made its row");

    // What was changed since in sTask's table is not run.
    let second =
        dispatch(&sidecar, &search(4), ("Idempotency-Key", "other")).json()["task_id"].as_i64().expect("an id");
    site.run(&format!("UPDATE evo_s_tasks SET meta = replace(meta, '\"limit\":4', '\"limit\":5') WHERE id = {second}"));
    assert_eq!(site.work(&sidecar), "adopted 0, processed 1: forged 1");
    assert_eq!((site.row(second).0, &*site.row(second).1), (100, "The task was not made here"));
    sidecar.finish();
}

#[test]
fn a_task_carries_its_callers_session_to_its_result() {
    let site = Site::new();
    let sidecar = site.start().set("queue_worker.inside=false").go();
    let ask = |body: &Value, key: &str, session: Option<&str>| {
        let mut request = sidecar.post("content", &Token::of("alice"), body.to_string()).header("Idempotency-Key", key);
        request.target.push_str("/dispatch");
        sidecar.send(&session.into_iter().fold(request, |request, id| request.header("MCP-Session-Id", id)))
    };
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
        "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let calls = [("a", search(3), Some("s-0123 of a client")), ("b", search(3), None), ("c", hello, Some("s-4"))];
    for (key, body, session) in &calls {
        let id = ask(body, key, *session).json()["task_id"].as_i64().expect("an id");
        assert_eq!(site.meta(id).1["session_id"], session.unwrap_or(""), "{key}");
    }
    assert_eq!(site.work(&sidecar), "adopted 0, processed 3: finished 3");
    let result = |(key, body, session): &(&str, Value, Option<&str>)| {
        let done = ask(body, key, *session);
        assert_eq!(done.status, 200, "{key}: {}", done.text());
        done.json()["result"]["session_id"].as_str().expect("a text").to_owned()
    };
    assert_eq!([result(&calls[0]), result(&calls[1])], ["s-0123 of a client", ""]);
    let begun = result(&calls[2]);
    assert_eq!(begun.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "the session that it began");
    sidecar.finish();
}

#[test]
fn a_task_acts_as_its_caller_or_as_the_service_user() {
    let service = [("actor.mode", toml::Value::from("service")), ("actor.service_user_id", toml::Value::from(12))];
    for (keys, expected) in [(&[][..], 7), (&service[..], 12)] {
        let site = Site::new();
        let start = site.start().set("queue_worker.inside=false");
        let sidecar = keys.iter().fold(start, |start, (key, value)| start.policy(key, value.clone())).go();
        let caller = Token::of("alice").claim("user_id", 7);
        let mut request = sidecar.post("content", &caller, search(3).to_string());
        request.target.push_str("/dispatch");
        let id = sidecar.send(&request).json()["task_id"].as_i64().expect("an id");
        let (started_by, meta) = site.meta(id);
        assert_eq!(started_by, Some(expected));
        let fields = ["actor_user_id", "initiated_by_user_id", "context"].map(|field| &meta[field]);
        assert_eq!(fields, [&json!(expected), &json!(expected), &json!("api")], "{meta}");
        assert_eq!(meta["mcp_sidecar"]["principal"]["user_id"], 7, "judged as the caller: {meta}");

        assert_eq!(site.work(&sidecar), "adopted 0, processed 1: finished 1");
        let lines = eventually("both lines are written", SOON, || {
            let lines: Vec<_> = sidecar.audit().into_iter().filter(|line| line["task_id"] == id).collect();
            (lines.len() == 2).then_some(lines)
        });
        assert_eq!(lines.iter().filter(|line| line["run"] == 1).count(), 1, "{lines:?}");
        for line in &lines {
            assert_eq!((&line["actor_user_id"], &line["context"]), (&json!(expected), &json!("api")), "{line}");
            assert_eq!(line["rate_limit_identity"], "api:7", "the caller stays the caller: {line}");
        }
        sidecar.finish();
    }
}

#[test]
fn rows_of_others_run_only_when_accepted_and_then_with_little() {
    let site = Site::new();
    let sidecar = site
        .start()
        .set("queue_worker.inside=false")
        .policy("security.deny_tools", vec!["evo.content.get"])
        .policy("manager.sources", vec!["database"])
        .policy("queue.accept_foreign", false)
        .go();
    let meta = |change: &dyn Fn(&mut Value)| {
        let mut meta = json!({
            "server_handle": "content", "jsonrpc_method": "tools/call",
            "jsonrpc_params": {"name": "evo.content.search", "arguments": {"limit": 1}}, "request_id": "r",
            "session_id": "", "trace_id": "of php", "idempotency_key": "", "actor_user_id": 1,
            "initiated_by_user_id": 1, "context": "api", "attempts": 0, "max_attempts": 3, "payload_hash": "h",
        });
        change(&mut meta);
        meta.to_string()
    };
    let plain = meta(&|_| {});
    // Who may everything, if it were believed.
    let claimed = json!({
        "principal": {"context": "api", "issuer": "", "subject": "root", "user_id": 1, "scopes": ["*"], "jti": null},
        "identity": "api:root", "key": "", "policy_digest": "",
    });
    let later = [("start_at", "2999-01-01 00:00:00")];
    let table: Vec<(&str, i64, i64, &str)> = vec![
        ("an allowed tool", site.put(&[], &plain), 80, ""),
        (
            "a denied tool",
            site.put(&[], &meta(&|meta| meta["jsonrpc_params"]["name"] = json!("evo.content.get"))),
            100,
            "Tool denied by policy",
        ),
        (
            "a tool that no list allows",
            site.put(&[], &meta(&|meta| meta["jsonrpc_params"]["name"] = json!("evo.secret.all"))),
            100,
            "Tool denied by policy",
        ),
        (
            "a method beyond its scopes",
            site.put(&[], &meta(&|meta| meta["jsonrpc_method"] = json!("admin/x"))),
            100,
            "Scope denied",
        ),
        (
            "the same for a caller of its own making",
            site.put(
                &[],
                &meta(&|meta| {
                    meta["jsonrpc_method"] = json!("admin/x");
                    meta["mcp_sidecar"] = claimed.clone();
                }),
            ),
            100,
            "Scope denied",
        ),
        ("a server that is not ours", site.put(&[], &meta(&|meta| meta["server_handle"] = json!("raw"))), 100, ""),
        ("an unknown server", site.put(&[], &meta(&|meta| meta["server_handle"] = json!("nobody"))), 100, ""),
        ("a user of the manager who may", site.put(&[], &meta(&|meta| meta["context"] = json!("mgr"))), 80, ""),
        (
            "one who may not",
            site.put(
                &[],
                &meta(&|meta| {
                    meta["context"] = json!("mgr");
                    meta["actor_user_id"] = json!(2);
                }),
            ),
            100,
            "Forbidden",
        ),
        ("what cannot be read", site.put(&[], "{"), 100, "The task cannot be read"),
        ("what is due later", site.put(&later, &plain), 10, ""),
        ("what is not for us", site.put(&[("identifier", "other")], &plain), 10, ""),
        ("another action", site.put(&[("action", "other")], &plain), 10, ""),
        ("what poses as ours", site.put(&[("status", "30")], &plain), 30, ""),
    ];
    let waiting: Vec<i64> = table.iter().map(|(_, id, ..)| site.row(*id).0).collect();
    assert_eq!(site.work(&sidecar), "adopted 0, processed 0");
    assert_eq!(table.iter().map(|(_, id, ..)| site.row(*id).0).collect::<Vec<_>>(), waiting, "nothing is touched");

    replace(&sidecar.policy_file(), "accept_foreign = false", "accept_foreign = true");
    let said = site.work(&sidecar);
    assert_eq!(said, "adopted 10, processed 10: finished 2, denied 7, forged 1");
    for (what, id, status, message) in &table {
        let row = site.row(*id);
        assert_eq!(row.0, *status, "{what}: {row:?}");
        assert!(row.1.contains(message), "{what}: {row:?}");
        assert_eq!(row.2.is_null(), *status != 80, "{what}: {row:?}");
    }
    let result = site.row(table[0].1).2;
    assert_eq!(
        result["response"]["result"]["structuredContent"]["items"].as_array().map(Vec::len),
        Some(1),
        "{result}"
    );
    let runs: Vec<Value> = sidecar.audit().into_iter().filter(|line| !line["run"].is_null()).collect();
    assert_eq!(runs.len(), 10, "each run is a line");
    let of = |at: usize| runs.iter().find(|line| line["task_id"] == table[at].1).expect("its line");
    assert_eq!((&of(0)["decision"], &of(0)["actor_user_id"]), (&json!("allow"), &json!(1)), "{}", of(0));
    assert!(!of(4)["rate_limit_identity"].to_string().contains("root"), "{}", of(4));
    assert_eq!((&of(4)["decision"], &of(4)["deny_code"]), (&json!("deny"), &json!("scope_denied")), "{}", of(4));
    assert_eq!((&of(9)["deny_code"], &of(9)["rule"]), (&json!("invalid_payload"), &json!("task.meta")), "{}", of(9));
    sidecar.finish();
}

#[test]
fn a_renamed_header_is_the_only_one_that_names_a_request() {
    let start = Sidecar::start().policy("queue.driver", "own").policy("rate_limit.enabled", false);
    let sidecar = start.policy("idempotency.header", "X-Request-Key").go();
    let key = ("X-Request-Key", "k");
    let first = dispatch(&sidecar, &search(1), key).json();
    assert_eq!((&first["idempotency_key"], &first["reused"]), (&json!("k"), &json!(false)));
    let again = ended(&sidecar, &search(1), key);
    assert_eq!((&again["task_id"], &again["reused"]), (&first["task_id"], &json!(true)));
    assert_eq!(dispatch(&sidecar, &search(2), key).status, 409);
    let unnamed = dispatch(&sidecar, &search(2), ("Idempotency-Key", "k"));
    assert_eq!((unnamed.status, &unnamed.json()["idempotency_key"]), (202, &Value::Null), "{}", unnamed.text());
    let mut twice = sidecar.post("content", &Token::of("alice"), search(1).to_string());
    twice.target.push_str("/dispatch");
    let twice = sidecar.send(&twice.header("X-Request-Key", "a").header("x-request-key", "b"));
    assert_eq!((twice.status, twice.code().as_deref()), (400, Some("bad_request")), "{}", twice.text());
    sidecar.finish();
}

#[test]
fn without_an_audit_runs_are_counted_and_leave_no_line() {
    let start = Sidecar::start().policy("queue.driver", "own").policy("rate_limit.enabled", false);
    let sidecar = start.policy("logging.audit_enabled", false).go();
    let key = ("Idempotency-Key", "k");
    assert_eq!(ended(&sidecar, &search(1), key)["status"], "completed");
    let counted = "mcp_sidecar_queue_runs_total{outcome=\"finished\"}";
    eventually("the run is counted", SOON, || (sidecar.metric(counted) == 1.0).then_some(()));
    assert_eq!(sidecar.audit(), Vec::<Value>::new());
    sidecar.check_secrets();
}
