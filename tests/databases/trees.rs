//! For random trees, every tree tool agrees with a naive model in memory: with gaps, ties and deleted documents, with
//! cycles among the parents, with rows of the closure that are missing, and with some that are stale.

use std::collections::BTreeMap;

use mcp_sidecar::store::Dialect;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};

use crate::schema;
use crate::site::{self, PREFIX, Site};

#[derive(Clone, Debug)]
struct Document {
    id: i64,
    parent: i64,
    menuindex: i64,
    deleted: bool,
    published: bool,
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
    let document = (0..=MOST, 0..6_i64, prop::bool::weighted(0.15), any::<bool>());
    let closure =
        (prop::collection::vec((1..=MOST, 1..=MOST, 1..5_i64), 0..4), prop::collection::vec(0..100_usize, 0..6));
    (prop::collection::vec(document, 1..=MOST as usize), any::<bool>(), closure).prop_map(
        |(documents, acyclic, (stale, missing))| {
            let documents: Vec<Document> = (1..)
                .zip(documents)
                .map(|(id, (parent, menuindex, deleted, published))| {
                    // A parent with a lower id makes no cycle.
                    let parent = if acyclic { parent % id } else { parent };
                    Document { id, parent, menuindex, deleted, published }
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
        self.distance(ancestor, document.id).is_some_and(|distance| (1..=depth).contains(&distance))
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
            ("search", json!({"parent": 0, "depth": depth}), self.ids(|d| self.below_roots(d, depth, false), |d| d.id)),
        ]
    }
}

async fn write(connection: &mut SqliteConnection, tree: &Tree) {
    let mut script = format!("BEGIN; DELETE FROM {PREFIX}site_content; DELETE FROM {PREFIX}site_content_closure;");
    for Document { id, parent, menuindex, deleted, published } in &tree.documents {
        script.push_str(&format!(
            "INSERT INTO {PREFIX}site_content (id, parent, menuindex, deleted, published) \
             VALUES ({id}, {parent}, {menuindex}, {deleted}, {published});"
        ));
    }
    for ((ancestor, descendant), depth) in &tree.closure {
        script.push_str(&format!(
            "INSERT INTO {PREFIX}site_content_closure (ancestor, descendant, depth) \
             VALUES ({ancestor}, {descendant}, {depth});"
        ));
    }
    script.push_str("COMMIT;");
    sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await.expect("valid statements");
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
    let options = SqliteConnectOptions::new().filename(&path);
    let mut connection = runtime.block_on(options.connect()).expect("it is there");
    let site = Site::over("sqlite", &site::settings(&format!("sqlite://{}", path.display())), (None, None));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let connection = std::cell::RefCell::new(&mut connection);
    let outcome = runner.run(&(tree(), prop::collection::vec(call(), 3)), |(tree, calls)| {
        let mut connection = connection.borrow_mut();
        runtime.block_on(async {
            write(&mut connection, &tree).await;
            for call in calls {
                check(&site, &tree, call).await?;
            }
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
