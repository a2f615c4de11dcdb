//! What callers and operators see of a sidecar while its database is away, at the start or later, and of a call whose
//! caller leaves while the database is at work.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Request, Response, Sidecar, Token, eventually};
use crate::server::{Kind, Server};
use crate::site::create;

const SOON: Duration = Duration::from_secs(30);
const SESSION: &str = "0123456789abcdefADMIN01";

fn search(sidecar: &Sidecar) -> Request {
    let params = json!({"name": "evo.content.search", "arguments": {"limit": 2, "with_tvs": ["price"]}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    sidecar.post("content", &Token::of("alice"), body)
}

fn items(answer: &Response) -> Option<usize> {
    answer.json()["result"]["structuredContent"]["items"].as_array().map(Vec::len)
}

/// Not ready for this reason, and every call that needs the database told so in general words.
fn away(sidecar: &Sidecar, kind: Kind) {
    let reasons = json!(["executor: database does not answer"]);
    let unready = eventually("it is not ready", SOON, || {
        let answer = sidecar.admin_get("/readyz");
        (answer.status == 503).then(|| answer.json())
    });
    assert_eq!(unready["reasons"], reasons, "{kind:?}");
    assert_eq!(sidecar.admin_get("/healthz").status, 200, "{kind:?}");
    let answer = sidecar.send(&search(sidecar));
    let expected = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "Internal error"}});
    assert_eq!((answer.status, answer.json()), (200, expected), "{kind:?}");
    // What needs no database is answered.
    let listed = sidecar.rpc("content", "tools/list", json!({})).json();
    assert_eq!(listed["result"]["tools"].as_array().map(Vec::len), Some(14), "{kind:?}");
    let asked = Request::new("GET", "/emcp/servers").header("Cookie", &format!("evo_session={SESSION}"));
    let asked = sidecar.send(&asked);
    assert_eq!((asked.status, asked.code().as_deref()), (502, Some("upstream_failed")), "{kind:?}: nobody is known");
}

fn there(sidecar: &Sidecar, kind: Kind) {
    eventually("it is ready", SOON, || (sidecar.admin_get("/readyz").status == 200).then_some(()));
    let answer = sidecar.send(&search(sidecar));
    assert_eq!((answer.status, items(&answer)), (200, Some(2)), "{kind:?}: {}", answer.text());
}

fn comes_and_goes(kind: Kind) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut server = runtime.block_on(Server::start(kind));
    runtime.block_on(create(&server, "away", ""));
    server.kill();
    let sidecar = Sidecar::start()
        .policy("manager.sources", vec!["database"])
        .policy("manager.cookie", "evo_session")
        .policy("auth.failures_per_minute", 0)
        .set(format!("database.url={:?}", server.url("away")))
        .go();
    for _ in 0..2 {
        away(&sidecar, kind);
        runtime.block_on(server.restart());
        there(&sidecar, kind);
        server.kill();
    }
    let said = sidecar.audit().into_iter().map(|line| line.to_string()).collect::<String>();
    for internal in ["socket", "mysql", "postgres", "/tmp/db"] {
        assert!(!said.contains(internal), "{kind:?}: {internal} in {said}");
    }
    sidecar.finish();
}

#[test]
fn a_database_that_is_away_at_the_start_or_later_is_told_and_its_return_is_seen() {
    std::thread::scope(|scope| {
        for kind in [Kind::MariaDb, Kind::Postgres] {
            scope.spawn(move || comes_and_goes(kind));
        }
    });
}

/// How many sessions wait for a table that another one holds.
async fn waiting(server: &Server) -> i64 {
    server
        .number(match server.kind {
            Kind::MariaDb => {
                "SELECT COUNT(*) FROM information_schema.processlist \
                 WHERE info LIKE 'SELECT%site_content%' AND info NOT LIKE '%processlist%'"
            }
            Kind::Postgres => "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
        })
        .await
}

fn leaves(kind: Kind) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = runtime.block_on(Server::start(kind));
    runtime.block_on(create(&server, "leaving", ""));
    let sidecar = Sidecar::start()
        .policy("rate_limit.enabled", false)
        .set(format!("database.url={:?}", server.url("leaving")))
        .set("database.max_connections=2")
        .set("database.statement_timeout_ms=60000")
        .go();
    there(&sidecar, kind);
    let lock = match kind {
        Kind::MariaDb => "LOCK TABLES evo_site_content WRITE",
        Kind::Postgres => "LOCK TABLE evo_site_content IN ACCESS EXCLUSIVE MODE",
    };
    let mut holder = runtime.block_on(server.still("leaving", lock));
    // Three times as many as there are connections: each gives its own back.
    for turn in 0..3 {
        let callers = [(); 2].map(|()| {
            let mut client = Client::connect(sidecar.mcp);
            client.send(&search(&sidecar).bytes());
            client
        });
        let count = || runtime.block_on(waiting(&server));
        eventually("both statements are at work", SOON, || (count() == 2).then_some(()));
        drop(callers);
        eventually("no statement is at work", SOON, || (count() == 0).then_some(()));
        let left = eventually("the lines are written", SOON, || {
            let lines: Vec<Value> =
                sidecar.audit().into_iter().filter(|line| line["outcome"] == "client_gone").collect();
            (lines.len() == 2 * (turn + 1)).then_some(lines)
        });
        assert!(left.iter().all(|line| line["tool"] == "evo.content.search"), "{kind:?}: {left:?}");
    }
    runtime.block_on(holder.end());
    drop(holder);
    there(&sidecar, kind);
    sidecar.finish();
}

#[test]
fn a_caller_that_leaves_ends_its_statement_in_the_database() {
    std::thread::scope(|scope| {
        for kind in [Kind::MariaDb, Kind::Postgres] {
            scope.spawn(move || leaves(kind));
        }
    });
}
