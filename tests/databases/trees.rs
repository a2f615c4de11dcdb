//! For random trees, every tree tool and `search` agree with a naive model in memory: with gaps, ties and deleted
//! documents, with cycles among the parents, with rows of the closure that are missing, and with some that are stale;
//! on SQLite and PostgreSQL, whose statements are the plain ones, and on MariaDB, which is told how far a page can
//! reach.

mod model;
mod search;

use mcp_sidecar::store::Dialect;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, PgConnection};

use crate::schema;
use crate::server::{Kind, shared};
use crate::site::{self, PREFIX, Site};
use model::{Call, Document, Tree, VARIABLES, call, tree};
use search::{Search, search};

/// How many trees each engine is given, unless `PROPTEST_CASES` says so.
const CASES: u32 = 40;

/// Where a tree is written to.
enum Target {
    Sqlite(sqlx::SqliteConnection),
    MariaDb(MySqlConnection),
    Postgres(PgConnection),
}

impl Target {
    async fn run(&mut self, script: String) {
        let script = sqlx::raw_sql(AssertSqlSafe(script));
        match self {
            Self::Sqlite(connection) => script.execute(connection).await.map(drop),
            Self::MariaDb(connection) => script.execute(connection).await.map(drop),
            Self::Postgres(connection) => script.execute(connection).await.map(drop),
        }
        .expect("valid statements");
    }

    /// Rows of a table, in one statement.
    fn insert(table: &str, columns: &str, rows: Vec<String>) -> String {
        let rows = if rows.is_empty() { return String::new() } else { rows.join(", ") };
        format!("INSERT INTO {PREFIX}{table} ({columns}) VALUES {rows};")
    }

    async fn write(&mut self, tree: &Tree) {
        let mut script = "BEGIN;".to_owned();
        for table in ["site_content", "site_content_closure", "site_tmplvar_contentvalues"] {
            script.push_str(&format!("DELETE FROM {PREFIX}{table};"));
        }
        let number = |flag: bool| i64::from(flag);
        let documents = tree.documents.iter().map(|document| {
            let Document { id, parent, menuindex, template, createdon, pub_date, hidemenu, .. } = document;
            let (deleted, published) = (number(document.deleted), number(document.published));
            format!(
                "({id}, {parent}, {menuindex}, {template}, {createdon}, {pub_date}, {deleted}, {published}, {hidemenu})"
            )
        });
        let columns = "id, parent, menuindex, template, createdon, pub_date, deleted, published, hidemenu";
        script.push_str(&Self::insert("site_content", columns, documents.collect()));
        let values = tree.documents.iter().flat_map(|document| {
            let rows = (1..).zip(&document.values).filter_map(|(variable, value)| Some((variable, (*value)?)));
            rows.map(|(variable, value)| {
                let value = value.map_or("NULL".to_owned(), |text| format!("'{text}'"));
                format!("({variable}, {}, {value})", document.id)
            })
        });
        let columns = "tmplvarid, contentid, value";
        script.push_str(&Self::insert("site_tmplvar_contentvalues", columns, values.collect()));
        let closure = tree.closure.iter().map(|((above, below), depth)| format!("({above}, {below}, {depth})"));
        script.push_str(&Self::insert("site_content_closure", "ancestor, descendant, depth", closure.collect()));
        script.push_str("COMMIT;");
        self.run(script).await;
    }
}

/// The members of an item that the model knows.
fn known(item: &Value, like: &Value) -> Value {
    like.as_object().expect("an item").keys().map(|key| (key.clone(), item[key].clone())).collect()
}

async fn check(site: &Site, tree: &Tree, call: &Call, searches: &[Search]) -> Result<(), TestCaseError> {
    let mut expected = tree.expected(call);
    expected.extend(searches.iter().map(|search| ("search", search.arguments(), search.expected(tree))));
    for (tool, mut arguments, whole) in expected {
        arguments["limit"] = json!(call.limit);
        arguments["offset"] = json!(call.offset);
        arguments["with_tvs"] = json!(call.tvs);
        let list = site.result(&format!("evo.content.{tool}"), &arguments).await;
        let list = list.unwrap_or_else(|text| panic!("{}: {tool} {arguments}: {text}", site.name));
        let page = whole.into_iter().skip(call.offset).take(call.limit);
        let page: Vec<Value> = page.map(|document| document.shown(&call.tvs)).collect();
        let found = list["items"].as_array().expect("a list");
        let found: Vec<Value> =
            found.iter().enumerate().map(|(at, item)| known(item, page.get(at).unwrap_or(item))).collect();
        prop_assert_eq!(found, page, "{} {}", tool, arguments);
        prop_assert_eq!(&list["meta"]["count"], &json!(list["items"].as_array().map(Vec::len)));
    }
    let one = site.result("evo.content.get", &json!({"id": call.id, "with_tvs": call.tvs})).await;
    let one = &one.expect("valid arguments")["item"];
    let expected = tree.live(call.id).map_or(Value::Null, |document| document.shown(&call.tvs));
    prop_assert_eq!(if expected.is_null() { one.clone() } else { known(one, &expected) }, expected);
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn every_tree_tool_agrees_with_a_naive_model() {
    let runtime = runtime();
    let _context = runtime.enter();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("site.sqlite");
    runtime.block_on(site::run_sqlite(&path, &schema::statements(Dialect::Sqlite, PREFIX)));
    let connection = runtime.block_on(SqliteConnectOptions::new().filename(&path).connect()).expect("it is there");
    let site = Site::over("sqlite", &site::settings(&format!("sqlite://{}", path.display())), (None, None));
    agree(&runtime, &site, Target::Sqlite(connection));
}

/// A site of a schema without rows on a server, and a session that fills it.
async fn on_server(kind: Kind, name: &'static str, database: &str, index: &str) -> (Site, Target) {
    let server = shared(kind).await;
    let first = if kind == Kind::MariaDb { "mysql" } else { "postgres" };
    server.run(first, &format!("CREATE DATABASE {database}")).await;
    server.run(database, &format!("{}{index}", schema::statements(site::dialect(kind), PREFIX))).await;
    let url = server.url(database);
    let target = match kind {
        Kind::MariaDb => Target::MariaDb(MySqlConnection::connect(&url).await.expect("it answers")),
        Kind::Postgres => Target::Postgres(PgConnection::connect(&url).await.expect("it answers")),
    };
    (Site::over(name, &site::settings(&url), (Some(server), None)), target)
}

#[test]
fn every_tree_tool_agrees_with_a_naive_model_on_mariadb() {
    let runtime = runtime();
    let _context = runtime.enter();
    let (site, target) = runtime.block_on(on_server(Kind::MariaDb, "mariadb", "trees", ""));
    agree(&runtime, &site, target);
}

/// Where the closure's depth has its index, a search asks for the deepest of all.
#[test]
fn every_tree_tool_agrees_with_a_naive_model_on_mariadb_with_an_index_of_the_depth() {
    let runtime = runtime();
    let _context = runtime.enter();
    let index = format!("CREATE INDEX depth ON {PREFIX}site_content_closure (depth)");
    let (site, target) = runtime.block_on(on_server(Kind::MariaDb, "mariadb", "trees_by_depth", &index));
    agree(&runtime, &site, target);
}

#[test]
fn every_tree_tool_agrees_with_a_naive_model_on_postgres() {
    let runtime = runtime();
    let _context = runtime.enter();
    let (site, target) = runtime.block_on(on_server(Kind::Postgres, "postgres", "trees", ""));
    agree(&runtime, &site, target);
}

fn agree(runtime: &tokio::runtime::Runtime, site: &Site, mut target: Target) {
    let variables = (1..).zip(VARIABLES).map(|(id, (name, default))| {
        let default = default.map_or("NULL".to_owned(), |text| format!("'{text}'"));
        format!("({id}, '{name}', {default})")
    });
    runtime.block_on(target.run(Target::insert("site_tmplvars", "id, name, default_text", variables.collect())));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let target = std::cell::RefCell::new(&mut target);
    let round = (call(), prop::collection::vec(search(), 6));
    let outcome = runner.run(&(tree(), prop::collection::vec(round, 3)), |(tree, rounds)| {
        let mut target = target.borrow_mut();
        runtime.block_on(async {
            target.write(&tree).await;
            for (call, searches) in rounds {
                check(site, &tree, &call, &searches).await?;
            }
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
