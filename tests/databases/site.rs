//! One site on each engine, and the tools in front of it.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use mcp_sidecar::base::Secret;
use mcp_sidecar::config::{Overrides, PolicyContext, Source, load_policy};
use mcp_sidecar::executor::{self, Executor, Listen, router};
use mcp_sidecar::policy::Snapshot;
use mcp_sidecar::protocol::{IDENTITY_HEADER, Identity, sign_identity};
use mcp_sidecar::store::{Dialect, Pool, Settings};
use mcp_sidecar::telemetry::Metrics;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tower_service::Service;

use crate::schema::Age;
use crate::server::{Kind, Server, shared};
use crate::{data, schema};

pub const PREFIX: &str = "evo_";

/// A site's database and the tools over it.
pub struct Site {
    pub name: &'static str,
    pub pool: Pool,
    executor: Arc<Executor>,
    _keep: (Option<Arc<Server>>, Option<tempfile::TempDir>),
}

/// The same site four times. PostgreSQL twice: a locale decides what it takes for letters.
pub async fn everywhere(test: &str) -> Vec<Site> {
    let (mariadb, postgres) = (shared(Kind::MariaDb).await, shared(Kind::Postgres).await);
    let mut sites = vec![sqlite().await];
    sites.push(filled(&mariadb, test, "mariadb", "COLLATE utf8mb4_general_ci").await);
    sites.push(filled(&postgres, test, "postgres", "").await);
    let c = "TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    sites.push(filled(&postgres, &format!("{test}_c"), "postgres in the C locale", c).await);
    sites
}

/// The schema and the rows.
pub fn script(dialect: Dialect) -> String {
    script_of(Age::Newest, dialect)
}

/// The same as a version of the CMS has it.
pub fn script_of(age: Age, dialect: Dialect) -> String {
    let mut script = schema::of_age(age, dialect, PREFIX);
    for rows in data::all().into_iter().filter_map(|rows| rows.of_age(age)) {
        script.push_str(&data::insert(dialect, PREFIX, &rows));
    }
    script
}

pub async fn sqlite() -> Site {
    sqlite_script(&script(Dialect::Sqlite)).await
}

pub async fn run_sqlite(path: &Path, script: &str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.expect("a new file");
    sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(&mut connection).await.expect("valid statements");
    sqlx::Connection::close(connection).await.expect("it was open");
}

/// A new database on a server, filled.
pub async fn filled(server: &Arc<Server>, database: &str, name: &'static str, options: &str) -> Site {
    create(server, database, options).await;
    let settings = settings(&server.url(database));
    Site::over(name, &settings, (Some(Arc::clone(server)), None))
}

pub async fn create(server: &Server, database: &str, options: &str) {
    create_of(Age::Newest, server, database, options).await;
}

pub async fn create_of(age: Age, server: &Server, database: &str, options: &str) {
    let first = if server.kind == Kind::MariaDb { "mysql" } else { "postgres" };
    server.run(first, &format!("CREATE DATABASE {database} {options}")).await;
    server.run(database, &script_of(age, dialect(server.kind))).await;
}

pub fn dialect(kind: Kind) -> Dialect {
    if kind == Kind::MariaDb { Dialect::MySql } else { Dialect::Postgres }
}

pub fn settings(url: &str) -> Settings {
    Settings { max_connections: 3, ..Settings::new(Secret::new(url), PREFIX) }
}

pub fn policy() -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/policy.toml");
    // Room for arguments that are too long for the tools themselves.
    let text =
        std::fs::read_to_string(&path).expect("it is there").replace("max_payload_kb = 128", "max_payload_kb = 1024");
    let source = Source::embedded("policy.toml", &text, &path);
    let models = mcp_sidecar::store::model::MODELS.iter().map(|model| format!("{:?}", model.name));
    let models = format!("[{}]", models.collect::<Vec<_>>().join(", "));
    let overrides = Overrides::default().with_builtin(&[
        ("compat.emcp_models", "true"),
        ("domain.models.allow", &models),
        ("auth.mode", "\"none\""),
    ]);
    load_policy(&source, &overrides, PolicyContext::default()).unwrap_or_else(|report| panic!("{report}"))
}

impl Site {
    pub fn over(
        name: &'static str,
        settings: &Settings,
        keep: (Option<Arc<Server>>, Option<tempfile::TempDir>),
    ) -> Self {
        let pool = Pool::open(settings).expect("a valid URL");
        let policy = Arc::new(ArcSwap::from_pointee(policy()));
        let listen = executor::Settings { listen: Listen::Unix("unused".into()) };
        let metrics = Metrics::new(&[]).and_then(|metrics| metrics.executor()).expect("registers");
        let executor = Arc::new(Executor::new(pool.clone(), policy, &listen, metrics));
        Self { name, pool, executor, _keep: keep }
    }

    pub async fn ready(&self) -> Result<(), String> {
        self.executor.ready().await
    }

    /// The whole answer to a call of a tool.
    pub async fn call(&self, tool: &str, arguments: &Value) -> Value {
        self.ask("tools/call", &json!({"name": tool, "arguments": arguments})).await
    }

    /// The whole answer to a request.
    pub async fn ask(&self, method: &str, params: &Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let identity = Identity { server: "content".to_owned(), ..Identity::default() };
        let (header, _) = sign_identity(&identity, body.as_bytes(), None, 0);
        let request = Request::post("/mcp/content").header(IDENTITY_HEADER, header).body(Body::from(body));
        let response = router(Arc::clone(&self.executor)).call(request.expect("a valid request")).await;
        let bytes = response.expect("routers do not fail").into_body().collect().await.expect("it ends").to_bytes();
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// The structured result, or the refusal's text.
    pub async fn result(&self, tool: &str, arguments: &Value) -> Result<Value, String> {
        let mut answer = self.call(tool, arguments).await;
        let result = answer["result"].take();
        assert!(result.is_object(), "{}: {tool} {arguments}: {answer}", self.name);
        if result["isError"] == true {
            return Err(result["content"][0]["text"].as_str().expect("a text").to_owned());
        }
        assert!(!result.to_string().contains(data::SECRET), "{}: {tool} {arguments}: {result}", self.name);
        Ok(result["structuredContent"].clone())
    }

    pub async fn ids(&self, tool: &str, arguments: &Value) -> Vec<i64> {
        let result = self.result(tool, arguments).await;
        let result = result.unwrap_or_else(|text| panic!("{}: {tool} {arguments}: {text}", self.name));
        let items = result["items"].as_array().expect("a list");
        items.iter().map(|item| item["id"].as_i64().expect("an id")).collect()
    }
}

/// The call's one answer everywhere.
pub async fn agreed(sites: &[Site], tool: &str, arguments: &Value) -> Result<Value, String> {
    let calls = sites.iter().map(|site| site.result(tool, arguments));
    let mut answers = futures_util::future::join_all(calls).await;
    let first = answers.remove(0);
    for (site, other) in sites[1..].iter().zip(&answers) {
        assert_eq!(other, &first, "{} against {}: {tool} {arguments}", site.name, sites[0].name);
    }
    first
}

/// The ids of a list that is the same everywhere.
pub async fn agreed_ids(sites: &[Site], tool: &str, arguments: &Value) -> Vec<i64> {
    let result = agreed(sites, tool, arguments).await.unwrap_or_else(|text| panic!("{tool} {arguments}: {text}"));
    let items = result["items"].as_array().expect("a list");
    items.iter().map(|item| item["id"].as_i64().expect("an id")).collect()
}

/// SQLite with this content.
pub async fn sqlite_script(script: &str) -> Site {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("site.sqlite");
    run_sqlite(&path, script).await;
    let url = format!("sqlite://{}", path.display());
    Site::over("sqlite", &settings(&url), (None, Some(directory)))
}

/// SQLite without these tables.
pub async fn sqlite_without(tables: &[&str]) -> Site {
    let mut script = script(Dialect::Sqlite);
    for table in tables {
        script.push_str(&format!("DROP TABLE {PREFIX}{table};"));
    }
    sqlite_script(&script).await
}
