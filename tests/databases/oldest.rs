//! The oldest version of the CMS: what its tables lack is null, and everything else works as on the newest.

use std::sync::Arc;
use std::time::Duration;

use mcp_sidecar::store::model::MODELS;
use mcp_sidecar::store::{Dialect, Settings};
use serde_json::{Value, json};

use crate::corpus::every_content_tool;
use crate::harness::{Request, Sidecar, eventually};
use crate::models::{LIST, OPERATORS};
use crate::permissions;
use crate::schema::{Age, OLDEST};
use crate::server::{Kind, Server, shared};
use crate::site::{PREFIX, Site, agreed, agreed_ids, create_of, run_sqlite, script_of, settings, sqlite};

const SOON: Duration = Duration::from_secs(20);
const SESSION: &str = "0123456789abcdefADMIN01";

/// A site of the oldest version on one engine.
struct Place {
    name: &'static str,
    settings: Settings,
    keep: (Option<Arc<Server>>, Option<tempfile::TempDir>),
}

impl Place {
    fn site(&self) -> Site {
        Site::over(self.name, &self.settings, (None, None))
    }

    fn url(&self) -> &str {
        std::str::from_utf8(self.settings.url.expose()).expect("a URL")
    }

    /// User 1 may use the manager, and the tools in it.
    async fn let_in(&self, database: &str) {
        let statements = format!(
            "UPDATE {PREFIX}user_attributes SET role = 1, blockeduntil = 0 WHERE id = 1; \
             INSERT INTO {PREFIX}role_permissions (id, permission, role_id) VALUES (10, 'access_permissions', 1)"
        );
        match &self.keep {
            (Some(server), _) => server.run(database, &statements).await,
            (None, _) => run_sqlite(self.url().trim_start_matches("sqlite://").as_ref(), &statements).await,
        }
    }
}

async fn everywhere(database: &str) -> Vec<Place> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("site.sqlite");
    run_sqlite(&path, &script_of(Age::Oldest, Dialect::Sqlite)).await;
    let lite = settings(&format!("sqlite://{}", path.display()));
    let mut places = vec![Place { name: "sqlite", settings: lite, keep: (None, Some(directory)) }];
    for (kind, name) in [(Kind::MariaDb, "mariadb"), (Kind::Postgres, "postgres")] {
        let server = shared(kind).await;
        create_of(Age::Oldest, &server, database, "").await;
        places.push(Place { name, settings: settings(&server.url(database)), keep: (Some(server), None) });
    }
    places
}

fn sites(places: &[Place]) -> Vec<Site> {
    places.iter().map(Place::site).collect()
}

#[tokio::test]
async fn content_is_told_as_by_the_newest() {
    let places = everywhere("oldest_content").await;
    let mut sites = sites(&places);
    sites.push(sqlite().await);
    every_content_tool(&sites).await;
    sites.pop();
    let filters = json!([{"tv": "price", "op": ">", "value": 10, "cast": "SIGNED"}]);
    let call = json!({"limit": 9, "tv_filters": filters, "tv_order": [{"tv": "word"}], "with_tvs": ["price:d"]});
    assert!(!agreed_ids(&sites, "evo.content.search", &call).await.is_empty());
    let tags = json!({"limit": 1, "tags_data": {"tv_id": 1, "tags": ["new"]}});
    let refusal = agreed(&sites, "evo.content.search", &tags).await.expect_err("tags are an add-on");
    assert_eq!(refusal, "The tags_data field cannot be used: this site keeps no tags.");
    for site in &sites {
        site.ready().await.unwrap_or_else(|reason| panic!("{}: {reason}", site.name));
    }
}

#[tokio::test]
async fn columns_that_it_lacks_are_null_and_match_nothing() {
    let places = everywhere("oldest_models").await;
    let sites = sites(&places);
    let mut lacking = 0;
    for model in &MODELS {
        let name = model.name;
        let list = agreed(&sites, LIST, &json!({"model": name, "limit": 100})).await.expect("valid");
        let items = list["items"].as_array().expect("a list");
        assert!(!items.is_empty(), "{name}");
        let one = agreed(&sites, "evo.model.get", &json!({"model": name, "id": 2})).await.expect("valid");
        for (field, _) in model.fields {
            let there = Age::Oldest.has(table(name), Some(field));
            lacking += usize::from(!there);
            let null = |item: &Value| item.get(field) == Some(&Value::Null);
            assert!(there || (items.iter().all(null) && null(&one["item"])), "{name}: {field}");
            for direction in ["asc", "desc"] {
                let call = json!({"model": name, "limit": 100, "order_by": field, "order_dir": direction});
                agreed_ids(&sites, LIST, &call).await;
            }
            for op in OPERATORS {
                let value = if op.ends_with("in") { json!([1]) } else { json!("1") };
                let filters = json!({"where": [{"field": field, "op": op, "value": value}]});
                let call = json!({"model": name, "limit": 100, "filters": filters});
                let found = agreed(&sites, LIST, &call).await.expect("valid")["meta"]["count"].clone();
                assert!(there || found == 0, "{name}: {field} {op}: {found}");
            }
        }
    }
    assert!(lacking >= 12, "{lacking} fields that are shown");
}

/// The table of a model, by the site's own naming.
fn table(model: &str) -> &'static str {
    let plain = |text: &str| text.to_lowercase().replace('_', "");
    let is = |table: &&str| [plain(table), plain(table).trim_end_matches('s').to_owned()].contains(&plain(model));
    OLDEST.iter().map(|(table, _)| *table).find(is).unwrap_or("")
}

#[tokio::test]
async fn permissions_come_and_go() {
    for place in everywhere("oldest_permissions").await {
        permissions::rounds(place.name, &place.settings).await;
    }
}

#[tokio::test]
async fn its_users_are_known_by_what_it_has() {
    for place in everywhere("oldest_users").await {
        place.let_in("oldest_users").await;
        let (site, name) = (place.site(), place.name);
        let user = site.pool.user(1, 1_700_000_000).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let user = user.unwrap_or_else(|| panic!("{name}: nobody"));
        assert_eq!((user.role, user.permissions.len()), (1, 4), "{name}: {user:?}");
        assert_eq!(site.pool.session_user(SESSION, 0).await.expect("nothing is wrong"), None, "{name}");
        assert!(site.pool.token_user(SESSION, "2023-11-14 22:13:20").await.is_err(), "{name}: it has no such tokens");
        let mut reader = site.pool.reader().await.expect("it answers");
        let account = mcp_sidecar::store::account::find(&mut reader, "admin").await.expect("it is read");
        assert_eq!(account.map(|account| account.id), Some(1), "{name}");
    }
}

#[test]
fn its_managers_call_tools_with_their_sessions() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let session = "mgrValidated|i:1;usertype|s:7:\"manager\";mgrInternalKey|i:1;";
    std::fs::write(directory.path().join(format!("sess_{SESSION}")), session).expect("is written");
    for place in runtime.block_on(everywhere("oldest_managers")) {
        runtime.block_on(place.let_in("oldest_managers"));
        let sidecar = Sidecar::start()
            .policy("manager.sources", vec!["session_file"])
            .policy("manager.cookie", "evo_session")
            .set(format!("executor.manager.session_dir={:?}", directory.path()))
            .set(format!("database.url={:?}", place.url()))
            .go();
        let params = json!({"name": "evo.content.search", "arguments": {"limit": 2}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let request = Request::new("POST", "/emcp/content").header("Content-Type", "application/json").body(body);
        let answer = sidecar.send(&request.header("Cookie", &format!("evo_session={SESSION}")));
        let items = answer.json()["result"]["structuredContent"]["items"].as_array().map(Vec::len);
        assert_eq!((answer.status, items), (200, Some(2)), "{}: {}", place.name, answer.text());
        let line = eventually("the audit line", SOON, || sidecar.audit().pop());
        assert_eq!(line["rate_limit_identity"], "mgr:1", "{line}");
        sidecar.finish();
    }
}
