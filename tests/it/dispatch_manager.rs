//! Calls of the manager's users that are run later: who may, and what becomes of them when the right is taken away.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::harness::{Request, Response, Sidecar, Start, Token, eventually};

const SOON: Duration = Duration::from_secs(30);
const ADMIN: &str = "0123456789abcdefADMIN01";
const EDITOR: &str = "0123456789abcdefEDITOR1";
const OPERATOR: &str = "0123456789abcdefOPERATOR";
/// The operator's right to have calls run later, which the demo site's operator has not got.
const TAKE: &str = "DELETE FROM evo_role_permissions WHERE role_id = 3 AND permission = 'emcp_dispatch'";
const GIVE: &str = "INSERT INTO evo_role_permissions (permission, role_id) VALUES ('emcp_dispatch', 3)";

/// A directory of PHP's sessions: three people are logged in.
struct Sessions(tempfile::TempDir);

impl Sessions {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (id, user) in [(ADMIN, 1), (EDITOR, 2), (OPERATOR, 3)] {
            let session = format!("mgrValidated|i:1;usertype|s:7:\"manager\";mgrInternalKey|i:{user};");
            let session = session + "_token|s:5:\"c5rf!\";";
            std::fs::write(directory.path().join(format!("sess_{id}")), session).expect("is written");
        }
        Self(directory)
    }

    fn at(&self, start: Start) -> Start {
        start
            .policy("queue.driver", "own")
            .policy("rate_limit.enabled", false)
            .policy("manager.cookie", "evo_session")
            .set(format!("executor.manager.session_dir={:?}", self.0.path()))
    }

    fn sidecar(&self) -> Start {
        let start = Sidecar::start().policy("manager.sources", vec!["session_file"]);
        self.at(start).policy("manager.cache_seconds", 0).policy("auth.failures_per_minute", 0)
    }
}

fn search(limit: u64) -> String {
    json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call",
        "params": {"name": "evo.content.search", "arguments": {"limit": limit}}})
    .to_string()
}

fn request(server: &str, id: &str, body: &str) -> Request {
    Request::new("POST", &format!("/emcp/{server}/dispatch"))
        .header("Content-Type", "application/json")
        .header("Cookie", &format!("evo_session={id}"))
        .body(body)
}

fn dispatch(sidecar: &Sidecar, id: &str, body: &str, key: &str) -> Response {
    sidecar.send(&request("content", id, body).header("Idempotency-Key", key))
}

fn ended(sidecar: &Sidecar, id: &str, body: &str, key: &str) -> Value {
    eventually("the task has ended", SOON, || {
        let answer = dispatch(sidecar, id, body, key);
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        (answer.status == 200).then(|| answer.json())
    })
}

#[track_caller]
fn refused(answer: &Response, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_deref()), (status, Some(code)), "{}", answer.text());
}

/// Changes the demo site while it is served.
fn sql(sidecar: &Sidecar, statements: &str) {
    let path: PathBuf = sidecar.data().join("demo.sqlite");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(SOON);
        let mut connection = options.connect().await.expect("the site is there");
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.expect("valid statements");
        connection.close().await.expect("it was open");
    });
}

/// Works on what is due, beside the sidecar.
fn work(sidecar: &Sidecar) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
    command.args(["worker", "--once", "--data"]).arg(sidecar.data()).arg("--policy").arg(sidecar.policy_file());
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn runs(sidecar: &Sidecar) -> Vec<Value> {
    sidecar.audit().into_iter().filter(|line| !line["run"].is_null()).collect()
}

#[test]
fn a_user_with_the_permission_polls_until_the_answer_is_there() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().go();
    sql(&sidecar, GIVE);
    let first = dispatch(&sidecar, ADMIN, &search(3), "k");
    assert_eq!(first.status, 202, "{}", first.text());
    let id = first.json()["task_id"].clone();
    let done = ended(&sidecar, ADMIN, &search(3), "k");
    assert_eq!((&done["status"], &done["task_id"], &done["reused"]), (&json!("completed"), &id, &json!(true)));
    let direct = Request { target: "/emcp/content".to_owned(), ..request("content", ADMIN, &search(3)) };
    assert_eq!(done["result"]["response"], sidecar.send(&direct).json(), "as the call itself answers");

    // Keys belong to one user, and to one door.
    let other = dispatch(&sidecar, OPERATOR, &search(3), "k");
    assert_eq!((other.status, other.json()["task_id"] == id), (202, false), "{}", other.text());
    let mut api = sidecar.post("content", &Token::of("alice"), search(3)).header("Idempotency-Key", "k");
    api.target.push_str("/dispatch");
    let api = sidecar.send(&api);
    assert_eq!((api.status, api.json()["task_id"] == id), (202, false), "{}", api.text());
    refused(&dispatch(&sidecar, ADMIN, &search(4), "k"), 409, "idempotency_conflict");

    let line =
        eventually("the run's line is written", SOON, || runs(&sidecar).into_iter().find(|line| line["task_id"] == id));
    for (field, expected) in [
        ("context", json!("mgr")),
        ("rate_limit_identity", json!("mgr:1")),
        ("actor_user_id", json!(1)),
        ("decision", json!("allow")),
        ("outcome", json!("finished")),
        ("tool", json!("evo.content.search")),
        ("trace_id", first.json()["trace_id"].clone()),
    ] {
        assert_eq!(line[field], expected, "{field}: {line}");
    }
    sidecar.finish();
}

#[test]
fn keys_of_the_managers_users_count_where_api_callers_have_none() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().policy("auth.mode", "none").go();
    let first = dispatch(&sidecar, ADMIN, &search(1), "k").json();
    assert_eq!((&first["idempotency_key"], &first["reused"]), (&json!("k"), &json!(false)));
    let again = dispatch(&sidecar, ADMIN, &search(1), "k").json();
    assert_eq!((&again["task_id"], &again["reused"]), (&first["task_id"], &json!(true)));
    sidecar.finish();
}

#[test]
fn who_may_not_dispatch_is_told_so_and_makes_no_task() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().policy("security.deny_tools", vec!["evo.content.get"]).go();
    let good = search(1);
    let at = |server, id| request(server, id, &good);
    refused(&sidecar.send(&at("content", EDITOR)), 403, "forbidden");
    refused(&sidecar.send(&at("content", OPERATOR)), 403, "forbidden");
    let direct = Request { target: "/emcp/content".to_owned(), ..at("content", OPERATOR) };
    assert_eq!(sidecar.send(&direct).status, 200, "the call itself is permitted");
    let line = eventually("the denial is written", SOON, || {
        let mut lines = sidecar.audit().into_iter();
        lines.find(|line| line["rate_limit_identity"] == "mgr:3" && line["decision"] == "deny")
    });
    assert_eq!((&line["deny_code"], &line["rule"]), (&json!("forbidden"), &json!("acl.dispatch_permission")), "{line}");

    let denied = r#"{"method":"tools/call","params":{"name":"evo.content.get"}}"#;
    let bearer = format!("Bearer {}", sidecar.token(&Token::of("alice")));
    for (what, request, status, code) in [
        ("nobody", at("content", "0123456789abcdefNOBODY1"), 403, "forbidden"),
        ("no session", at("content", ADMIN).without("Cookie"), 403, "forbidden"),
        ("an API token", at("content", ADMIN).without("Cookie").header("Authorization", &bearer), 403, "forbidden"),
        ("another site", at("content", ADMIN).header("Origin", "https://evil.example"), 403, "foreign_origin"),
        ("another site", at("content", ADMIN).header("Sec-Fetch-Site", "cross-site"), 403, "foreign_origin"),
        ("another token", at("content", ADMIN).header("X-CSRF-Token", "other"), 403, "forbidden"),
        (
            "a form",
            at("content", ADMIN).without("Content-Type").header("Content-Type", "text/plain"),
            415,
            "unsupported_media_type",
        ),
        ("GET", Request { method: "GET".to_owned(), ..at("content", ADMIN) }, 405, "method_not_allowed"),
        ("denied tool", request("content", ADMIN, denied), 403, "tool_denied"),
        ("unknown server before its tool", request("nobody", ADMIN, denied), 404, "server_not_found"),
        ("no JSON", request("content", ADMIN, "{"), 400, "invalid_payload"),
        ("foreign server", request("raw", ADMIN, r#"{"method":"ping"}"#), 503, "async_unavailable"),
        ("the list of servers", at("servers", ADMIN), 404, "route_not_found"),
        ("before its permission: the form", at("content", EDITOR).header("Origin", "null"), 403, "foreign_origin"),
    ] {
        let answer = sidecar.send(&request);
        assert_eq!((answer.status, answer.code().as_deref()), (status, Some(code)), "{what}: {}", answer.text());
    }
    assert!(sidecar.metrics().contains("mcp_sidecar_queue_submissions_total{outcome=\"accepted\"} 0"));
    sidecar.check_secrets();
}

#[test]
fn a_denied_dispatch_is_charged_like_a_call() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().policy("rate_limit.enabled", true).go();
    let statuses: Vec<u16> = (0..31).map(|_| dispatch(&sidecar, OPERATOR, &search(1), "k").status).collect();
    assert_eq!((&statuses[..30], statuses[30]), (&[403; 30][..], 429));
    sidecar.finish();
}

#[test]
fn a_right_that_is_taken_away_before_the_run_fails_the_task() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().set("queue_worker.inside=false").go();
    sql(&sidecar, GIVE);
    // What takes the right away, and what gives it back.
    let table = [
        (TAKE, GIVE),
        (
            "DELETE FROM evo_role_permissions WHERE role_id = 3 AND permission = 'emcp'",
            "INSERT INTO evo_role_permissions (permission, role_id) VALUES ('emcp', 3)",
        ),
        (
            "UPDATE evo_user_attributes SET blocked = 1 WHERE internalKey = 3",
            "UPDATE evo_user_attributes SET blocked = 0 WHERE internalKey = 3",
        ),
    ];
    for (number, (take, give)) in table.into_iter().enumerate() {
        let key = format!("k{number}");
        let made = dispatch(&sidecar, OPERATOR, &search(1), &key);
        assert_eq!(made.status, 202, "{}", made.text());
        sql(&sidecar, take);
        work(&sidecar);
        sql(&sidecar, give);
        let failed = dispatch(&sidecar, OPERATOR, &search(1), &key);
        let told = failed.json();
        assert_eq!(failed.status, 200, "{told}");
        assert_eq!((&told["status"], &told["error"]), (&json!("failed"), &json!("Forbidden")), "{take}");
        assert_eq!((told.get("result"), &told["task_id"]), (None, &made.json()["task_id"]));
        let line = runs(&sidecar).pop().expect("the run's line");
        for (field, expected) in [
            ("task_id", made.json()["task_id"].clone()),
            ("decision", json!("deny")),
            ("deny_code", json!("forbidden")),
            ("outcome", json!("denied")),
            ("rate_limit_identity", json!("mgr:3")),
            ("trace_id", made.json()["trace_id"].clone()),
        ] {
            assert_eq!(line[field], expected, "{field}: {line}");
        }
    }
    assert_eq!(dispatch(&sidecar, OPERATOR, &search(1), "k").status, 202);
    work(&sidecar);
    assert_eq!(ended(&sidecar, OPERATOR, &search(1), "k")["status"], "completed");
    sidecar.finish();
}

#[test]
fn each_preset_dispatches_at_its_own_door() {
    let sessions = Sessions::new();
    for (preset, manager, api) in [
        ("policy-manager-only.toml", true, false),
        ("policy-api-only.toml", false, true),
        ("policy-hybrid.toml", true, true),
    ] {
        let sidecar = sessions.at(Sidecar::preset(preset)).go();
        sql(&sidecar, GIVE);
        let mut by_token = sidecar.post("content", &Token::of("alice"), search(1));
        by_token.target.push_str("/dispatch");
        for (open, request) in [(manager, request("content", OPERATOR, &search(1))), (api, by_token)] {
            let answer = sidecar.send(&request);
            match open {
                true => assert_eq!(answer.status, 202, "{preset}: {}", answer.text()),
                false => refused(&answer, 404, "route_not_found"),
            }
        }
        if manager {
            refused(&sidecar.send(&request("content", EDITOR, &search(1))), 403, "forbidden");
            assert_eq!(ended(&sidecar, OPERATOR, &search(1), "k")["status"], "completed");
        }
        sidecar.finish();
    }
}
