#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod arguments;
mod catalog;
mod credentials;
mod example;
mod manager;
mod nth_child;
mod protocol;
mod sample;
mod sample_prompt;
mod sample_resource;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::{Body, Bytes};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_service::Service;

use crate::base::Secret;
use crate::executor::argument::Caps;
use crate::executor::registry::{self, Catalog};
use crate::executor::{Executor, Listen, Listener, Settings, router, serve};
use crate::policy::*;
use crate::protocol::{IDENTITY_HEADER, Identity, sign_identity};
use crate::store::{self, Pool, demo};
use crate::telemetry::Metrics;

fn patterns(texts: &[&str]) -> PatternSet {
    let site = |text: &str| RuleSite { key: text.into(), line: 0, column: 0 };
    PatternSet::new(texts.iter().map(|text| (Pattern::new(text).unwrap(), site(text))).collect())
}

fn snapshot() -> Snapshot {
    let site = RuleSite { key: "servers[0]".into(), line: 1, column: 1 };
    let limits = LimitsPolicy {
        max_payload_bytes: 131_072,
        max_result_bytes: 1 << 20,
        max_result_items: 100,
        max_header_bytes: 32_768,
        max_headers: 100,
        max_stream_bytes: 1 << 26,
    };
    let stream = StreamPolicy {
        enabled: true,
        max_stream_seconds: 120,
        heartbeat_seconds: 15,
        abort_on_disconnect: true,
        max_event_bytes: 1 << 20,
    };
    let server = Server {
        index: 0,
        handle: "content".into(),
        kind: ServerKind::Content,
        upstream: "executor".to_owned(),
        scope_map: ScopeMap::default(),
        allow_tools: patterns(&["evo.*"]),
        allow_resources: PatternSet::default(),
        allow_prompts: PatternSet::default(),
        deny_tools: patterns(&["evo.content.siblings"]),
        per_minute: 0,
        limits,
        stream,
        site: site.clone(),
    };
    Snapshot {
        revision: 1,
        digest: String::new(),
        loaded_at_ms: 0,
        toolset_version: "1.0".to_owned(),
        routes: Routes {
            api: true,
            manager: false,
            base: "api".to_owned(),
            version: "v1".to_owned(),
            api_prefix: "mcp".to_owned(),
            manager_prefix: "emcp".to_owned(),
        },
        auth: AuthPolicy {
            generation: crate::base::Digest([0; 16]),
            mode: AuthMode::None,
            require_scopes: false,
            require_exp: true,
            secrets: Vec::new(),
            issuer: String::new(),
            audience: String::new(),
            deny_sub: Vec::new(),
            deny_jti: Vec::new(),
            failures_per_minute: 0,
            scope_map: ScopeMap::default(),
            token: TokenPolicy::default(),
        },
        rate_limit: RateLimitPolicy {
            enabled: false,
            per_minute: 0,
            total_per_minute: 0,
            on_store_failure: OnStoreFailure::Local,
            replicas: 1,
        },
        limits,
        stream,
        security: SecurityPolicy {
            allow_servers: patterns(&["*"]),
            deny_tools: PatternSet::default(),
            enable_write_tools: false,
            write_tools_site: site,
            hide_denied_tools: false,
            allow_origins: Vec::new(),
        },
        logging: LoggingPolicy { audit_enabled: true, redact_keys: Vec::new(), redactor: Redactor::default() },
        queue: QueuePolicy {
            driver: QueueDriver::Off,
            failover: Failover::Fail,
            max_attempts: 3,
            accept_foreign: false,
        },
        idempotency: IdempotencyPolicy { header: "idempotency-key".to_owned(), ttl_seconds: 60 },
        trace: TracePolicy { header: "x-trace-id".to_owned(), generate_if_missing: true },
        domain: DomainPolicy {
            content_max_depth: 6,
            content_max_limit: 100,
            content_max_offset: 5000,
            models_max_offset: 5000,
            models_allow: store::model::MODELS.iter().map(|model| model.name.to_owned()).collect(),
        },
        compat: Compat::default(),
        acl: crate::policy::AclPolicy {
            permission: "emcp".to_owned(),
            dispatch_permission: "emcp_dispatch".to_owned(),
        },
        manager: ManagerPolicy::default(),
        actor: crate::policy::Actor::Initiator,
        i18n: I18n::default(),
        servers: vec![Arc::new(server)],
        unknown_handle: "unknown".into(),
    }
}

struct Site {
    _directory: TempDir,
    pool: Pool,
    policy: Arc<ArcSwap<Snapshot>>,
    executor: Arc<Executor>,
    metrics: Arc<Metrics>,
}

/// The caps of [`snapshot`].
pub(in crate::executor) fn caps() -> Caps {
    let policy = snapshot();
    Caps::of(&policy, &policy.servers[0])
}

async fn site(documents: u32) -> Site {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.sqlite");
    demo::create(&path, documents).await.unwrap();
    site_at(directory, &path)
}

fn site_at(directory: TempDir, path: &std::path::Path) -> Site {
    site_with(directory, path, registry::SHIPPED)
}

fn site_with(directory: TempDir, path: &std::path::Path, catalog: Catalog) -> Site {
    let url = Secret::new(format!("sqlite://{}", path.display()));
    let pool = Pool::open(&store::Settings { max_connections: 2, ..store::Settings::new(url, "evo_") }).unwrap();
    let settings = Settings { listen: Listen::Unix("unused".into()) };
    let policy = Arc::new(ArcSwap::from_pointee(snapshot()));
    let metrics = Metrics::new(&[]).unwrap();
    let executor = Executor::new(pool.clone(), Arc::clone(&policy), &settings, metrics.executor().unwrap());
    let executor = Arc::new(executor.with_catalog(catalog));
    Site { _directory: directory, pool, policy, executor, metrics }
}

fn caller() -> Identity {
    Identity { server: "content".to_owned(), ..Identity::default() }
}

impl Site {
    async fn send(&self, body: &str, streaming: bool) -> http::Response<Body> {
        self.send_as(Identity { streaming, ..caller() }, body).await
    }

    async fn send_as(&self, identity: Identity, body: &str) -> http::Response<Body> {
        let (header, _) = sign_identity(&identity, body.as_bytes(), None, 0);
        let request = Request::post("/mcp/content").header(IDENTITY_HEADER, header).body(Body::from(body.to_owned()));
        router(self.executor.clone()).call(request.unwrap()).await.unwrap()
    }

    async fn json(&self, body: &str) -> Value {
        let response = self.send(body, false).await;
        assert_eq!(response.status(), StatusCode::OK, "{body}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let bytes: Bytes = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    async fn tool(&self, name: &str, arguments: Value) -> Value {
        let params = json!({"name": name, "arguments": arguments});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        self.json(&body.to_string()).await["result"].take()
    }

    async fn ids(&self, name: &str, arguments: Value) -> Vec<i64> {
        let result = self.tool(name, arguments.clone()).await;
        assert_eq!(result["isError"], false, "{name} {arguments}: {result}");
        let structured = &result["structuredContent"];
        assert_eq!(result["content"][0]["text"], structured.to_string());
        let items = structured["items"].as_array().unwrap();
        assert_eq!(structured["meta"]["count"], items.len());
        items.iter().map(|item| item["id"].as_i64().unwrap()).collect()
    }
}

#[tokio::test]
async fn content_tools_select_and_order_documents() {
    let site = site(0).await;
    let table: [(&str, Value, &[i64]); 17] = [
        ("search", json!({"limit": 100}), &[1, 2, 3, 4, 5, 6, 7, 8, 11, 12]),
        ("search", json!({"limit": " 2 ", "offset": 1.0}), &[2, 3]),
        ("search", json!({"limit": 9, "parent": 2}), &[3, 4, 5, 6, 7, 8]),
        ("search", json!({"limit": 9, "parent": 2, "depth": 1, "published": false}), &[5]),
        ("search", json!({"limit": 9, "hidemenu": "1"}), &[4]),
        ("search", json!({"limit": 9, "deleted": true}), &[9, 10]),
        ("search", json!({"limit": 9, "parent": 0, "depth": 1, "template": 1}), &[1, 2, 11, 12]),
        ("search", json!({"limit": 2, "order_by": "pagetitle", "order_dir": " DESC "}), &[12, 11]),
        ("search", json!({"limit": 2, "order_by_date": "desc"}), &[5, 12]),
        ("root_tree", json!({"limit": 9}), &[1, 2, 3, 4, 5, 6, 12]),
        ("root_tree", json!({"limit": 9, "depth": 3}), &[1, 2, 3, 4, 5, 6, 7, 8, 12]),
        ("descendants", json!({"id": 2, "limit": 9}), &[3, 4, 5, 6]),
        ("descendants", json!({"id": 2, "limit": 9, "depth": 3}), &[3, 4, 5, 6, 7, 8]),
        ("ancestors", json!({"id": 8, "limit": 9}), &[2, 3, 7]),
        ("ancestors", json!({"id": 8, "limit": 9, "depth": 1}), &[7]),
        ("children", json!({"id": 2, "limit": 9}), &[3, 4, 5, 6]),
        ("children", json!({"id": 10, "limit": 9}), &[11]),
    ];
    for (tool, arguments, expected) in table {
        assert_eq!(site.ids(&format!("evo.content.{tool}"), arguments.clone()).await, expected, "{tool} {arguments}");
    }
    let item = site.tool("evo.content.get", json!({"id": "12"})).await["structuredContent"].take();
    assert_eq!(item["item"]["pagetitle"], "Новини");
    assert_eq!((&item["item"]["alias"], &item["item"]["hidemenu"]), (&Value::Null, &json!(false)));
    assert_eq!(item["item"].as_object().unwrap().len(), 17);
    assert_eq!(site.tool("evo.content.get", json!({"id": 9})).await["structuredContent"]["item"], Value::Null);
}

#[tokio::test]
async fn models_are_listed_and_filtered() {
    let site = site(0).await;
    for model in &store::model::MODELS {
        site.ids("evo.model.list", json!({"model": model.name, "limit": 100})).await;
    }
    let user = site.tool("evo.model.get", json!({"model": "\\user", "id": 1})).await["structuredContent"].take();
    assert_eq!(user["meta"]["model"], "User");
    assert_eq!((&user["item"]["username"], &user["item"]["blocked"]), (&json!("admin"), &Value::Null));
    let filtered = async |op: &str, field: &str, value: Value| {
        let filters = json!({"where": [{"field": field, "op": op, "value": value}]});
        site.ids("evo.model.list", json!({"model": "SiteTmplvar", "limit": 9, "filters": filters})).await
    };
    assert_eq!(filtered("like", "name", json!("RIC")).await, [1]);
    assert_eq!(filtered("like-r", "name", json!("co")).await, [2]);
    assert_eq!(filtered("like-l", "name", json!("e")).await, [1, 3]);
    assert_eq!(filtered("like", "name", json!("%")).await, [0; 0]);
    assert_eq!(filtered("in", "id", json!("1, 3")).await, [1, 3]);
    assert_eq!(filtered("not_in", "id", json!([1, 3])).await, [2]);
    assert_eq!(filtered("null", "default_text", Value::Null).await, [3]);
    assert_eq!(filtered(">", "rank", json!("0")).await, [2, 3]);
    assert_eq!(filtered("=", "name", json!("' OR 1=1 --")).await, [0; 0]);
}

#[tokio::test]
async fn bad_arguments_are_told_in_the_result() {
    let site = site(0).await;
    let table = [
        ("evo.content.search", json!({}), "The limit field is required."),
        ("evo.content.search", json!({"limit": true}), "The limit field must be an integer."),
        ("evo.content.search", json!({"limit": 101}), "The limit field must be between 1 and 100."),
        ("evo.content.search", json!({"limit": 1, "offset": 5001}), "The offset field must be between 0 and 5000."),
        ("evo.content.search", json!({"limit": 1, "published": "yes"}), "The published field must be true or false."),
        ("evo.content.search", json!({"limit": 1, "order_by": "content"}), "The order_by field must be one of id,"),
        ("evo.content.search", json!({"limit": 1, "order_dir": "up"}), "invalid direction: up"),
        ("evo.content.children", json!({"id": 0}), "The id field must be at least 1. The limit field is required."),
        ("evo.content.root_tree", json!({"limit": 1, "depth": 7}), "The depth field must be between 1 and 6."),
        ("evo.model.list", json!({"model": "Secrets", "limit": 1}), "not allowed: Secrets"),
        ("evo.model.list", json!({"model": "User", "limit": 1, "order_by": "password"}), "not allowed for User"),
        ("evo.model.list", json!({"model": "User", "limit": 1, "filters": {"raw": "1"}}), "may hold where only"),
        ("evo.model.list", json!({"model": "User", "limit": 1, "filters": "1"}), "must be an array"),
    ];
    for (tool, arguments, expected) in table {
        let result = site.tool(tool, arguments.clone()).await;
        assert_eq!(result["isError"], true, "{tool} {arguments}");
        assert!(result.get("structuredContent").is_none());
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(expected), "{tool} {arguments}: {text}");
    }
}

const TRAVERSAL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"evo.content.search",
    "arguments":{"limit":100},"_meta":{"progressToken":"t"}}}"#;

#[tokio::test]
async fn progress_comes_between_the_pages() {
    let site = site(200).await;
    let response = site.send(TRAVERSAL, true).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let events: Vec<Value> =
        text.split_terminator("\n\n").map(|event| serde_json::from_str(&event["data: ".len()..]).unwrap()).collect();
    let progress: Vec<_> = events[..4].iter().map(|event| event["params"]["progress"].as_i64().unwrap()).collect();
    assert_eq!(progress, [25, 50, 75, 100]);
    assert_eq!(events[4]["result"]["structuredContent"]["meta"]["count"], 100);
    assert_eq!((events.len(), site.pool.statements()), (5, 4));
    assert_eq!(site.json(TRAVERSAL).await["result"]["structuredContent"], events[4]["result"]["structuredContent"]);
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_query() {
    let site = site(200).await;
    let mut body = site.send(TRAVERSAL, true).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(site.pool.statements(), 1);
    // Both connections are free again.
    let _one = site.pool.reader().await.unwrap();
    let _two = site.pool.reader().await.unwrap();
    assert_eq!(site.pool.statements(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_ends_a_call_without_progress_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let site = site(0).await;
    // Nobody gets a connection, so that the call is at work until its caller leaves.
    let _held = (site.pool.reader().await.unwrap(), site.pool.reader().await.unwrap());
    let listen = Listen::Unix(site._directory.path().join("executor.sock"));
    let listener = Listener::bind(&listen).await.unwrap();
    let server = tokio::spawn(serve(listener, site.executor.clone(), std::future::pending()));
    let Listen::Unix(path) = listen else { unreachable!() };
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let at_work = async |expected: bool, idle: usize| {
        tokio::time::timeout(Duration::from_secs(10), async {
            while (Arc::strong_count(&site.executor) > idle) != expected {
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    let (identity, _) = sign_identity(&caller(), TRAVERSAL.as_bytes(), None, 0);
    let ask = |header: &str| {
        let length = TRAVERSAL.len();
        format!("POST /mcp/content HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{header}\r\n{TRAVERSAL}")
    };
    // A first answer, so that what the connection itself holds is counted as idle.
    stream.write_all(ask("").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}}") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    let idle = Arc::strong_count(&site.executor);
    stream.write_all(ask(&format!("{IDENTITY_HEADER}: {identity}\r\n")).as_bytes()).await.unwrap();
    at_work(true, idle).await.expect("the call begins");
    drop(stream);
    at_work(false, idle).await.expect("the call ends with its caller");
    assert_eq!(site.pool.statements(), 0);
    server.abort();
}

#[tokio::test]
async fn a_database_that_is_down_is_told_in_general_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing.sqlite");
    let site = site_at(directory, &path);
    let answer = site.json(TRAVERSAL).await;
    assert_eq!(answer["error"], json!({"code": -32603, "message": "Internal error"}));
    assert!(site.executor.ready().await.is_err());
}

#[tokio::test]
async fn the_socket_is_ours_alone_and_drains() {
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let site = site(0).await;
    let path = site._directory.path().join("executor.sock");
    let listen = Listen::Unix(path.clone());
    drop(Listener::bind(&listen).await.unwrap());
    let listener = Listener::bind(&listen).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Listener::bind(&listen).await.is_err());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, site.executor.clone(), async { drop(stopped.await) }));

    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let request = "POST /mcp/content HTTP/1.1\r\nhost: executor\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn tcp_without_a_key_is_refused() {
    let site = site(0).await;
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = serve(Listener::Tcp(tcp), site.executor.clone(), std::future::ready(())).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn requests_are_counted_by_tool_and_outcome() {
    let site = site(40).await;
    let call = |name: &str, arguments: Value| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}})
            .to_string()
    };
    site.json(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
    site.json(&call("evo.content.get", json!({"id": 1}))).await;
    site.json(&call("evo.content.get", json!({"id": "no number"}))).await;
    site.json(&call("evo.model.list", json!({"model": "SiteTemplate", "limit": 1, "offset": 0}))).await;
    for name in 0..50 {
        site.send(&call(&format!("evo.content.made_up_{name}"), json!({})), false).await;
    }
    let streamed = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "evo.content.search", "arguments": {"limit": 100, "offset": 0}, "_meta": {"progressToken": 1}}});
    let whole = site.send(&streamed.to_string(), true).await;
    whole.into_body().collect().await.unwrap();
    let left = site.send(&streamed.to_string(), true).await;
    drop(left);
    let unsigned = Request::post("/mcp/content").body(Body::from("{}")).unwrap();
    router(site.executor.clone()).call(unsigned).await.unwrap();

    site.executor.observe();
    let text = site.metrics.render();
    for line in [
        r#"requests_total{outcome="ok",tool="none"} 1"#,
        r#"requests_total{outcome="ok",tool="content"} 2"#,
        r#"requests_total{outcome="refused",tool="content"} 1"#,
        r#"requests_total{outcome="ok",tool="model"} 1"#,
        r#"requests_total{outcome="refused",tool="unknown"} 50"#,
        r#"requests_total{outcome="abandoned",tool="content"} 1"#,
        r#"requests_total{outcome="unauthenticated",tool="none"} 1"#,
        "request_duration_seconds_count 57",
        "database_connections_limit 2",
        r#"database_errors_total{kind="pool_timeout"} 0"#,
    ] {
        assert!(text.contains(&format!("mcp_sidecar_executor_{line}\n")), "{line} in\n{text}");
    }
    let statements = site.pool.statements();
    assert!(statements > 3 && text.contains(&format!("_database_statements_total {statements}\n")), "{text}");
}

#[tokio::test]
async fn another_policy_than_the_sidecars_is_counted() {
    let site = site(0).await;
    let own = snapshot().digest;
    for (digest, mismatches) in [(own.as_str(), 0), ("fedcba9876543210", 1), (own.as_str(), 1)] {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let identity =
            Identity { server: "content".to_owned(), policy_digest: digest.to_owned(), ..Identity::default() };
        let (header, _) = sign_identity(&identity, body.as_bytes(), None, 0);
        let request = Request::post("/mcp/content").header(IDENTITY_HEADER, header).body(Body::from(body)).unwrap();
        assert_eq!(router(site.executor.clone()).call(request).await.unwrap().status(), StatusCode::OK);
        let line = format!("mcp_sidecar_policy_revision_mismatches_total {mismatches}\n");
        assert!(site.metrics.render().contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_pool_that_is_used_up_is_counted() {
    let site = site(0).await;
    let readers = [site.pool.reader().await.unwrap(), site.pool.reader().await.unwrap()];
    assert!(site.pool.reader().await.is_err());
    let reading = site.pool.reading();
    assert_eq!((reading.in_use, reading.idle, reading.limit, reading.errors), (2, 0, 2, [1, 0, 0]));
    drop(readers);
}
