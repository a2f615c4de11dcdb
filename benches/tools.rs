//! How long do the tools take on a large site?
//!
//! 100,000 documents in 16 sections of 6,250, six levels deep, with two template variables; the contract's indexes and
//! no other; SQLite and MariaDB. Each call asks for the first page of 100. Unit: milliseconds from the request at the
//! executor to its answer, the median and the 95th percentile of calls one after another.

#[path = "../tests/databases/schema.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod schema;
#[path = "../tests/databases/server.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod server;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use mcp_sidecar::base::Secret;
use mcp_sidecar::config::{Overrides, PolicyContext, Source, load_policy};
use mcp_sidecar::executor::{self, Executor, Listen, router};
use mcp_sidecar::protocol::{IDENTITY_HEADER, Identity, sign_identity};
use mcp_sidecar::store::{Dialect, Pool, Settings};
use mcp_sidecar::telemetry::Metrics;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tower_service::Service;

use crate::server::{Kind, Server};

const PREFIX: &str = "evo_";
const SECTIONS: i64 = 16;
const SECTION: i64 = 6250;
/// How long one call is repeated.
const SPAN: Duration = Duration::from_secs(3);

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("site.sqlite");
        let mut connection = SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await;
        let connection = connection.as_mut().expect("a new file");
        for statement in statements(Dialect::Sqlite) {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await.expect("a valid statement");
        }
        measure("SQLite", &format!("sqlite://{}", path.display())).await;

        let server = Server::start(Kind::MariaDb).await;
        server.run("mysql", "CREATE DATABASE site").await;
        let mut connection = sqlx::MySqlConnection::connect(&server.url("site")).await.expect("it answers");
        for statement in statements(Dialect::MySql) {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.expect("a valid statement");
        }
        measure("MariaDB", &server.url("site")).await;
    });
}

/// The schema with the contract's indexes, and the rows, in statements of a bearable size.
fn statements(dialect: Dialect) -> Vec<String> {
    let mut all: Vec<String> = vec![schema::statements(dialect, PREFIX)];
    all.push("BEGIN".to_owned());
    all.push(format!(
        "INSERT INTO {PREFIX}site_tmplvars (id, name, default_text) VALUES (1, 'price', '7'), (2, 'color', 'red')"
    ));
    let (mut documents, mut closure, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for id in 1..=SECTIONS * SECTION {
        let first = (id - 1) / SECTION * SECTION + 1;
        let above = |id: i64| if id == first { 0 } else { first + (id - first - 1) / 6 };
        let parent = above(id);
        documents.push(format!(
            "({id}, {parent}, {}, 'Document {id}', 1, {}, {}, {})",
            id % 6,
            id % 4,
            1_700_000_000 + id,
            if id % 3 == 0 { 1_710_000_000 - id } else { 0 }
        ));
        let (mut ancestor, mut depth) = (id, 0);
        while ancestor != 0 {
            closure.push(format!("({ancestor}, {id}, {depth})"));
            ancestor = above(ancestor);
            depth += 1;
        }
        values.push(format!("(1, {id}, '{}')", id * 7919 % 1000));
        if id % 2 == 0 {
            values.push(format!("(2, {id}, '{}')", ["blue", "red", "green"][usize::try_from(id % 3).expect("small")]));
        }
    }
    let tables = [
        ("site_content (id, parent, menuindex, pagetitle, published, template, createdon, pub_date)", documents),
        ("site_content_closure (ancestor, descendant, depth)", closure),
        ("site_tmplvar_contentvalues (tmplvarid, contentid, value)", values),
    ];
    for (table, rows) in tables {
        for chunk in rows.chunks(5000) {
            all.push(format!("INSERT INTO {PREFIX}{table} VALUES {}", chunk.join(",")));
        }
    }
    all.push("COMMIT".to_owned());
    let value = if dialect == Dialect::MySql { "value(255)" } else { "value" };
    for (table, columns) in [
        ("site_content", "parent"),
        ("site_content", "type"),
        ("site_content", "alias"),
        ("site_content", "template"),
        ("site_content", "pub_date, unpub_date, published"),
        ("site_content_closure", "descendant, ancestor"),
        ("site_content_closure", "depth"),
        ("site_tmplvar_contentvalues", "tmplvarid"),
        ("site_tmplvar_contentvalues", "contentid"),
        ("site_tmplvar_contentvalues", value),
    ] {
        let name = format!("i{}", all.len());
        all.push(format!("CREATE INDEX {name} ON {PREFIX}{table} ({columns})"));
    }
    all.push(match dialect {
        Dialect::MySql => format!(
            "ANALYZE TABLE {PREFIX}site_content, {PREFIX}site_content_closure, {PREFIX}site_tmplvar_contentvalues"
        ),
        Dialect::Postgres | Dialect::Sqlite => "ANALYZE".to_owned(),
    });
    all
}

async fn measure(engine: &str, url: &str) {
    let pool = Pool::open(&Settings::new(Secret::new(url), PREFIX)).expect("a valid URL");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/policy.toml");
    let text = std::fs::read_to_string(&path).expect("it is there");
    let overrides = Overrides::default().with_builtin(&[("auth.mode", "\"none\"")]);
    let policy = load_policy(&Source::embedded("policy.toml", &text, &path), &overrides, PolicyContext::default());
    let policy = Arc::new(ArcSwap::from_pointee(policy.unwrap_or_else(|report| panic!("{report}"))));
    let listen = executor::Settings { listen: Listen::Unix("unused".into()) };
    let metrics = Metrics::new(&[]).and_then(|metrics| metrics.executor()).expect("registers");
    let executor = Arc::new(Executor::new(pool, policy, &listen, metrics));
    let section = SECTION * 5 + 1;
    let filters = json!([
        {"tv": "price", "op": ">=", "value": 100, "cast": "SIGNED"},
        {"tv": "color", "op": "=", "value": "blue"},
    ]);
    let order = json!([{"tv": "price", "dir": "desc", "cast": "SIGNED"}]);
    let calls = [
        (
            "search, below 6,249, two filters and an order",
            "search",
            json!({
                "parent": section, "tv_filters": filters, "tv_order": order,
            }),
        ),
        (
            "the same, showing both variables",
            "search",
            json!({
                "parent": section, "tv_filters": filters, "tv_order": order, "with_tvs": ["price", "color:d"],
            }),
        ),
        ("descendants, 6,249, depth 6", "descendants", json!({"id": section, "depth": 6})),
        ("root_tree, depth 2", "root_tree", json!({"depth": 2})),
        ("search, whole site, by title", "search", json!({"order_by": "pagetitle"})),
        ("search, whole site, two filters and an order", "search", json!({"tv_filters": filters, "tv_order": order})),
        ("children", "children", json!({"id": section})),
    ];
    println!("{engine:<58}{:>10}{:>10}", "median", "p95");
    for (name, tool, mut arguments) in calls {
        arguments["limit"] = json!(100);
        let mut times = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < SPAN || times.len() < 5 {
            let at = Instant::now();
            call(&executor, tool, &arguments).await;
            times.push(at.elapsed().as_secs_f64() * 1000.0);
        }
        times.sort_by(f64::total_cmp);
        let mut line = String::new();
        let _ = write!(line, "{:>10.2}{:>10.2}", times[times.len() / 2], times[times.len() * 95 / 100]);
        println!("  {name:<56}{line}");
    }
}

async fn call(executor: &Arc<Executor>, tool: &str, arguments: &Value) {
    let params = json!({"name": format!("evo.content.{tool}"), "arguments": arguments});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let identity = Identity { server: "content".to_owned(), ..Identity::default() };
    let (header, _) = sign_identity(&identity, body.as_bytes(), None, 0);
    let request = Request::post("/mcp/content").header(IDENTITY_HEADER, header).body(Body::from(body));
    let response = router(Arc::clone(executor)).call(request.expect("a valid request")).await;
    let bytes = response.expect("routers do not fail").into_body().collect().await.expect("it ends").to_bytes();
    assert!(bytes.windows(15).any(|window| window == b"\"isError\":false"), "{}", String::from_utf8_lossy(&bytes));
}
