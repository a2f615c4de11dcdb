//! For random trees, every tree tool agrees with a naive model in memory: with gaps, ties and deleted documents, with
//! cycles among the parents, with rows of the closure that are missing, and with some that are stale; on SQLite, whose
//! statements are the plain ones, and on MariaDB, which is told how far a page can reach.

use std::collections::BTreeMap;

use mcp_sidecar::store::Dialect;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection};

use crate::schema;
use crate::server::{Kind, shared};
use crate::site::{self, PREFIX, Site};

#[derive(Clone, Debug)]
struct Document {
    id: i64,
    parent: i64,
    menuindex: i64,
    deleted: bool,
    published: bool,
    /// Of two template variables.
    price: Option<i64>,
    color: Option<bool>,
}

#[derive(Clone, Debug)]
struct Tree {
    documents: Vec<Document>,
    /// Distance by ancestor and descendant.
    closure: BTreeMap<(i64, i64), i64>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    id: i64,
    depth: i64,
    from: i64,
    width: i64,
    limit: usize,
    offset: usize,
}

const MOST: i64 = 24;

fn tree() -> impl Strategy<Value = Tree> {
    let values = (prop::option::weighted(0.8, 0..5_i64), prop::option::weighted(0.7, any::<bool>()));
    let document = (0..=MOST, 0..6_i64, prop::bool::weighted(0.15), any::<bool>(), values);
    let closure =
        (prop::collection::vec((1..=MOST, 1..=MOST, 0..5_i64), 0..4), prop::collection::vec(0..100_usize, 0..6));
    (prop::collection::vec(document, 1..=MOST as usize), any::<bool>(), closure).prop_map(
        |(documents, acyclic, (stale, missing))| {
            let documents: Vec<Document> = (1..)
                .zip(documents)
                .map(|(id, (parent, menuindex, deleted, published, (price, color)))| {
                    // A parent with a lower id makes no cycle.
                    let parent = if acyclic { parent % id } else { parent };
                    Document { id, parent, menuindex, deleted, published, price, color }
                })
                .collect();
            let mut closure = BTreeMap::new();
            for document in &documents {
                let (mut above, mut distance) = (document.id, 0);
                while above != 0 && !closure.contains_key(&(above, document.id)) {
                    closure.insert((above, document.id), distance);
                    distance += 1;
                    above = documents.iter().find(|other| other.id == above).map_or(0, |other| other.parent);
                }
            }
            for (ancestor, descendant, distance) in stale {
                closure.entry((ancestor, descendant)).or_insert(distance);
            }
            for at in missing {
                if let Some(key) = closure.keys().nth(at).copied() {
                    closure.remove(&key);
                }
            }
            Tree { documents, closure }
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    (1..=MOST + 1, 1..=6_i64, 0..6_i64, 0..4_i64, 1..20_usize, 0..4_usize)
        .prop_map(|(id, depth, from, width, limit, offset)| Call { id, depth, from, width, limit, offset })
}

impl Tree {
    fn live(&self, id: i64) -> Option<&Document> {
        self.documents.iter().find(|document| document.id == id && !document.deleted)
    }

    /// The live documents that pass, sorted by a key.
    fn ids<K: Ord>(&self, pass: impl Fn(&Document) -> bool, key: impl Fn(&Document) -> K) -> Vec<i64> {
        let mut found: Vec<&Document> = self.documents.iter().filter(|d| !d.deleted && pass(d)).collect();
        found.sort_by_key(|document| key(document));
        found.into_iter().map(|document| document.id).collect()
    }

    fn distance(&self, ancestor: i64, descendant: i64) -> Option<i64> {
        self.closure.get(&(ancestor, descendant)).copied()
    }

    fn below(&self, ancestor: i64, document: &Document, depth: i64) -> bool {
        ancestor != document.id && self.distance(ancestor, document.id).is_some_and(|distance| distance <= depth)
    }

    fn below_roots(&self, document: &Document, depth: i64, live: bool) -> bool {
        let mut roots = self.documents.iter().filter(|root| root.parent == 0 && !(live && root.deleted));
        roots.any(|root| self.distance(root.id, document.id).is_some_and(|distance| distance <= depth))
    }

    fn siblings(&self, id: i64, pass: impl Fn(i64, i64) -> bool) -> Vec<i64> {
        let Some(own) = self.live(id) else { return Vec::new() };
        let near = |d: &Document| d.parent == own.parent && d.id != id && pass(d.menuindex, own.menuindex);
        self.ids(near, |d| (d.menuindex, d.id))
    }

    /// Each tool, its own arguments, and the whole list that it should be paging through.
    fn expected(&self, call: Call) -> Vec<(&'static str, Value, Vec<i64>)> {
        let Call { id, depth, from, width, .. } = call;
        let to = from + width;
        let range = |index: i64| (from..=to).contains(&index);
        let menu = |d: &Document| (d.menuindex, d.id);
        let mut previous = self.siblings(id, |index, own| index < own);
        previous.reverse();
        let above = |d: &Document| self.distance(d.id, id).filter(|distance| *distance > 0);
        let ancestors =
            |most: i64| self.ids(|d| above(d).is_some_and(|at| at <= most), |d| (-above(d).unwrap_or(0), d.id));
        vec![
            ("root_tree", json!({"depth": depth}), self.ids(|d| self.below_roots(d, depth, true), |d| d.id)),
            (
                "descendants",
                json!({"id": id, "depth": depth}),
                self.ids(|d| self.below(id, d, depth), |d| (d.parent, d.menuindex, d.id)),
            ),
            ("ancestors", json!({"id": id}), ancestors(i64::MAX)),
            ("ancestors", json!({"id": id, "depth": depth}), ancestors(depth)),
            ("children", json!({"id": id}), self.ids(|d| d.parent == id, menu)),
            ("siblings", json!({"id": id}), self.siblings(id, |_, _| true)),
            ("neighbors", json!({"id": id}), self.siblings(id, |index, own| (index - own).abs() == 1)),
            ("prev_siblings", json!({"id": id}), previous),
            ("next_siblings", json!({"id": id}), self.siblings(id, |index, own| index > own)),
            (
                "children_range",
                json!({"id": id, "from": from, "to": to}),
                self.ids(|d| d.parent == id && range(d.menuindex), menu),
            ),
            (
                "children_range",
                json!({"id": id, "from": from}),
                self.ids(|d| d.parent == id && d.menuindex >= from, menu),
            ),
            ("siblings_range", json!({"id": id, "from": from, "to": to}), self.siblings(id, |index, _| range(index))),
            (
                "search",
                json!({"parent": id, "depth": depth, "published": true, "order_by": "menuindex", "order_dir": "desc"}),
                self.ids(|d| d.published && self.below(id, d, depth), |d| (-d.menuindex, d.id)),
            ),
            (
                "search",
                json!({
                    "parent": id,
                    "depth": depth,
                    "tv_filters": [
                        {"tv": "price", "op": ">=", "value": from, "cast": "SIGNED"},
                        {"tv": "color", "op": "=", "value": "blue"},
                    ],
                    "tv_order": [{"tv": "price", "dir": "desc", "cast": "SIGNED"}],
                }),
                self.ids(
                    |d| d.color == Some(true) && d.price.is_some_and(|p| p >= from) && self.below(id, d, depth),
                    |d| (d.price.map(|price| -price), d.id),
                ),
            ),
            (
                "search",
                json!({
                    "parent": id,
                    "depth": depth,
                    "tv_filters": [{"tv": "price", "op": "null"}, {"tv": "color", "op": "!null"}],
                }),
                self.ids(|d| d.price.is_none() && d.color.is_some() && self.below(id, d, depth), |d| d.id),
            ),
            ("search", json!({"parent": 0, "depth": depth}), self.ids(|d| self.below_roots(d, depth, false), |d| d.id)),
        ]
    }
}

/// Where a tree is written to.
enum Target {
    Sqlite(sqlx::SqliteConnection),
    MariaDb(MySqlConnection),
}

impl Target {
    async fn run(&mut self, script: String) {
        let script = sqlx::raw_sql(AssertSqlSafe(script));
        match self {
            Self::Sqlite(connection) => script.execute(connection).await.map(drop),
            Self::MariaDb(connection) => script.execute(connection).await.map(drop),
        }
        .expect("valid statements");
    }

    async fn write(&mut self, tree: &Tree) {
        let mut script = "BEGIN;".to_owned();
        for table in ["site_content", "site_content_closure", "site_tmplvar_contentvalues"] {
            script.push_str(&format!("DELETE FROM {PREFIX}{table};"));
        }
        for Document { id, parent, menuindex, deleted, published, price, color } in &tree.documents {
            script.push_str(&format!(
                "INSERT INTO {PREFIX}site_content (id, parent, menuindex, deleted, published) \
                 VALUES ({id}, {parent}, {menuindex}, {deleted}, {published});"
            ));
            let color = color.map(|blue| if blue { "blue" } else { "red" }.to_owned());
            for (variable, value) in [(1, price.map(|price| price.to_string())), (2, color)] {
                let Some(value) = value else { continue };
                script.push_str(&format!(
                    "INSERT INTO {PREFIX}site_tmplvar_contentvalues (tmplvarid, contentid, value) \
                     VALUES ({variable}, {id}, '{value}');"
                ));
            }
        }
        for ((ancestor, descendant), depth) in &tree.closure {
            script.push_str(&format!(
                "INSERT INTO {PREFIX}site_content_closure (ancestor, descendant, depth) \
                 VALUES ({ancestor}, {descendant}, {depth});"
            ));
        }
        script.push_str("COMMIT;");
        self.run(script).await;
    }
}

async fn check(site: &Site, tree: &Tree, call: Call) -> Result<(), TestCaseError> {
    for (tool, mut arguments, whole) in tree.expected(call) {
        arguments["limit"] = json!(call.limit);
        arguments["offset"] = json!(call.offset);
        let found = site.ids(&format!("evo.content.{tool}"), &arguments).await;
        let expected: Vec<i64> = whole.into_iter().skip(call.offset).take(call.limit).collect();
        prop_assert_eq!(found, expected, "{} {}", tool, arguments);
    }
    let item = site.result("evo.content.get", &json!({"id": call.id})).await.expect("valid arguments");
    prop_assert_eq!(item["item"]["id"].as_i64(), tree.live(call.id).map(|document| document.id));
    Ok(())
}

#[test]
fn every_tree_tool_agrees_with_a_naive_model() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _context = runtime.enter();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("site.sqlite");
    runtime.block_on(site::run_sqlite(&path, &schema::statements(Dialect::Sqlite, PREFIX)));
    let connection = runtime.block_on(SqliteConnectOptions::new().filename(&path).connect()).expect("it is there");
    let site = Site::over("sqlite", &site::settings(&format!("sqlite://{}", path.display())), (None, None));
    agree(&runtime, &site, Target::Sqlite(connection));
}

#[test]
fn every_tree_tool_agrees_with_a_naive_model_on_mariadb() {
    on_mariadb("trees", "");
}

/// Where the closure's depth has its index, a search asks for the deepest of all.
#[test]
fn every_tree_tool_agrees_with_a_naive_model_on_mariadb_with_an_index_of_the_depth() {
    on_mariadb("trees_by_depth", &format!("CREATE INDEX depth ON {PREFIX}site_content_closure (depth)"));
}

fn on_mariadb(database: &str, index: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _context = runtime.enter();
    let (site, connection) = runtime.block_on(async {
        let server = shared(Kind::MariaDb).await;
        server.run("mysql", &format!("CREATE DATABASE {database}")).await;
        server.run(database, &format!("{}{index}", schema::statements(Dialect::MySql, PREFIX))).await;
        let url = server.url(database);
        let connection = MySqlConnection::connect(&url).await.expect("it answers");
        (Site::over("mariadb", &site::settings(&url), (Some(server), None)), connection)
    });
    agree(&runtime, &site, Target::MariaDb(connection));
}

fn agree(runtime: &tokio::runtime::Runtime, site: &Site, mut target: Target) {
    runtime.block_on(
        target.run(format!("INSERT INTO {PREFIX}site_tmplvars (id, name) VALUES (1, 'price'), (2, 'color');")),
    );
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let target = std::cell::RefCell::new(&mut target);
    let outcome = runner.run(&(tree(), prop::collection::vec(call(), 3)), |(tree, calls)| {
        let mut target = target.borrow_mut();
        runtime.block_on(async {
            target.write(&tree).await;
            for call in calls {
                check(site, &tree, call).await?;
            }
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
