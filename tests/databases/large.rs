//! Answers that are as large as rows make them, from each engine to the client.

use mcp_sidecar::store::Dialect;
use serde_json::{Value, json};

use crate::data::{Cell, Rows, insert};
use crate::harness::{Response, Sidecar, Token};
use crate::server::{Kind, shared};
use crate::site::{PREFIX, create, dialect, run_sqlite, script};

/// One document whose variable fits into an answer, and one whose variable does not: each stands in it twice.
const SIZES: [(i64, usize); 2] = [(3, 200 * 1024), (4, 600 * 1024)];

fn values(dialect: Dialect) -> String {
    let row = |(id, size): (i64, usize)| {
        vec![Cell::Int(90_000 + id), Cell::Int(3), Cell::Int(id), Cell::Text("ж'".repeat(size / 3))]
    };
    let columns = vec!["id", "tmplvarid", "contentid", "value"];
    let rows = Rows { table: "site_tmplvar_contentvalues", columns, rows: SIZES.map(row).into() };
    insert(dialect, PREFIX, &rows)
}

fn judge(url: &str) {
    let sidecar = Sidecar::start().policy("rate_limit.enabled", false).set(format!("database.url={url:?}")).go();
    let call = |tool: &str, arguments: Value| -> Response {
        let params = json!({"name": tool, "arguments": arguments});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        sidecar.send(&sidecar.post("content", &Token::of("alice"), body))
    };
    let answer = call("evo.content.get", json!({"id": 3, "with_tvs": ["note"]}));
    let note = answer.json()["result"]["structuredContent"]["item"]["tvs"]["note"].as_str().map(str::len);
    assert_eq!((answer.status, note), (200, Some(SIZES[0].1 / 3 * 3)), "{url}");
    for (tool, arguments) in [
        ("evo.content.get", json!({"id": 4, "with_tvs": ["note"]})),
        ("evo.content.children", json!({"id": 2, "limit": 9, "with_tvs": ["note"]})),
        ("evo.content.search", json!({"parent": 2, "limit": 9, "with_tvs": ["note:d"]})),
        (
            "evo.model.list",
            json!({"model": "SiteTmplvarContentvalue", "limit": 9, "order_by": "id", "order_dir": "desc"}),
        ),
    ] {
        let answer = call(tool, arguments);
        assert_eq!((answer.status, answer.code().as_deref()), (413, Some("result_too_large")), "{url}: {tool}");
    }
    // Arguments are measured before they are read: 200 KB against the 128 KB of the shipped server.
    let long = json!({"limit": 1, "with_tvs": ["x".repeat(200 * 1024)]});
    let answer = call("evo.content.search", long);
    assert_eq!((answer.status, answer.code().as_deref()), (413, Some("payload_too_large")), "{url}");
    assert_eq!(call("evo.content.get", json!({"id": 4})).status, 200, "{url}: it goes on");
    sidecar.finish();
}

#[test]
fn a_result_over_the_cap_is_refused_whole_on_each_engine() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("site.sqlite");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (servers, urls) = runtime.block_on(async {
        run_sqlite(&file, &(script(Dialect::Sqlite) + &values(Dialect::Sqlite))).await;
        let (mut servers, mut urls) = (Vec::new(), vec![format!("sqlite://{}", file.display())]);
        for kind in [Kind::MariaDb, Kind::Postgres] {
            let server = shared(kind).await;
            create(&server, "large", "").await;
            server.run("large", &values(dialect(kind))).await;
            urls.push(server.url("large"));
            servers.push(server);
        }
        (servers, urls)
    });
    std::thread::scope(|scope| {
        for url in &urls {
            scope.spawn(|| judge(url));
        }
    });
    drop(servers);
}
