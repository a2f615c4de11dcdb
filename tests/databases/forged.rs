//! Rows that somebody else wrote into the tables of the task queue, on the servers that sites share with others.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Request, Sidecar, Token, eventually};
use crate::server::{Kind, shared};
use crate::site::{create, dialect};
use crate::stask;

const SOON: Duration = Duration::from_secs(30);
const DATABASE: &str = "forged";

fn dispatch(sidecar: &Sidecar) -> Request {
    let params = json!({"name": "evo.content.get", "arguments": {"id": 3}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let mut request = sidecar.post("content", &Token::of("alice"), body).header("Idempotency-Key", "k");
    request.target.push_str("/dispatch");
    request
}

fn outcomes(sidecar: &Sidecar) -> Vec<Value> {
    sidecar.audit().into_iter().filter(|line| !line["run"].is_null()).map(|line| line["outcome"].clone()).collect()
}

/// A task row made of a true one, with its lease and so its code: `meta` and `code` in the words of SQL.
fn forged(id: i64, meta: &str, code: &str) -> String {
    format!(
        "INSERT INTO evo_s_tasks (identifier, action, status, meta) \
           SELECT identifier, action, 30, {meta} FROM evo_s_tasks WHERE id = {id}; \
         INSERT INTO evo_mcp_stask_leases (task_id, mac) \
           SELECT (SELECT MAX(id) FROM evo_s_tasks), {code} FROM evo_mcp_stask_leases WHERE task_id = {id};"
    )
}

fn judge(kind: Kind) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = runtime.block_on(async {
        let server = shared(kind).await;
        create(&server, DATABASE, "").await;
        server.run(DATABASE, &stask::statements(dialect(kind))).await;
        server
    });
    let url = server.url(DATABASE);
    let sidecar = Sidecar::start()
        .policy("queue.driver", "stask")
        .policy("rate_limit.enabled", false)
        .set(format!("database.url={url:?}"))
        .set(format!("queue_worker.url={url:?}"))
        .go();
    let first = sidecar.send(&dispatch(&sidecar));
    assert_eq!(first.status, 202, "{kind:?}: {}", first.text());
    let id = first.json()["task_id"].as_i64().expect("an id");
    let done = eventually("the task has ended", SOON, || {
        let answer = sidecar.send(&dispatch(&sidecar));
        (answer.status == 200).then(|| answer.json())
    });
    let page = &done["result"]["response"]["result"]["structuredContent"]["item"]["pagetitle"];
    assert_eq!((&done["status"], page), (&json!("completed"), &json!("Blue chair")), "{kind:?}");

    // Another call under a true code, the same call once more, and a row without a code, as PHP's own are taken over.
    for (meta, code) in
        [("REPLACE(meta, 'evo.content.get', 'evo.model.get')", "mac"), ("meta", "mac"), ("meta", "''"), ("NULL", "mac")]
    {
        runtime.block_on(server.run(DATABASE, &forged(id, meta, code)));
    }
    let told = eventually("all have ended", SOON, || {
        let told = outcomes(&sidecar);
        (told.len() == 5).then_some(told)
    });
    assert_eq!(told.iter().filter(|outcome| **outcome == "forged").count(), 4, "{kind:?}: {told:?}");
    // A row that nobody leased, which sTask's own worker would take, waits for that one.
    let bare = "INSERT INTO evo_s_tasks (identifier, action, status, meta) \
                SELECT identifier, action, 10, meta FROM evo_s_tasks WHERE status = 80";
    runtime.block_on(server.run(DATABASE, bare));
    let mut other = dispatch(&sidecar).without("Idempotency-Key").header("Idempotency-Key", "other");
    other.body = String::from_utf8(other.body).expect("JSON").replace("\"id\":3", "\"id\":4").into_bytes();
    eventually("a task after it has ended", SOON, || (sidecar.send(&other).status == 200).then_some(()));
    let told = eventually("its line is written", SOON, || {
        let told = outcomes(&sidecar);
        (told.len() == 6).then_some(told)
    });
    assert_eq!(told.iter().filter(|outcome| **outcome == "finished").count(), 2, "{kind:?}: {told:?}");
    sidecar.finish();
}

#[test]
fn a_forged_task_row_is_never_run() {
    std::thread::scope(|scope| {
        for kind in [Kind::MariaDb, Kind::Postgres] {
            scope.spawn(move || judge(kind));
        }
    });
}
