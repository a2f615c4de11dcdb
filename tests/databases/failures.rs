//! What happens while a database is away, slow, or asked by somebody who does not wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_sidecar::base::Secret;
use mcp_sidecar::store::{Dialect, Pool, Settings};
use sea_query::{Expr, Query, SelectStatement};
use serde_json::json;

use crate::server::{DEADLINE, Kind, Server, shared};
use crate::site::{self, Site, create};

/// Takes about half a minute, if it is let.
fn slow(dialect: Dialect) -> SelectStatement {
    let work = match dialect {
        Dialect::MySql => "SLEEP(30)",
        Dialect::Postgres => "pg_sleep(30)::text",
        Dialect::Sqlite => {
            "(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000000) SELECT MAX(i) FROM n)"
        }
    };
    Query::select().expr(Expr::cust(work)).to_owned()
}

/// How many of them are at work.
async fn at_work(server: &Server) -> i64 {
    server
        .number(match server.kind {
            Kind::MariaDb => "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(%'",
            Kind::Postgres => {
                "SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%' AND state = 'active'"
            }
        })
        .await
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_statement_ends_with_its_caller() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let server = shared(kind).await;
        create(&server, "leaving", "").await;
        let pool =
            Pool::open(&Settings { max_connections: 1, ..site::settings(&server.url("leaving")) }).expect("valid");
        for snapshot in [false, true] {
            let mut reader = if snapshot { pool.snapshot().await } else { pool.reader().await }.expect("it answers");
            let work = tokio::spawn(async move { reader.fetch(&slow(site::dialect(kind))).await.is_ok() });
            eventually("it is at work", async || at_work(&server).await == 1).await;
            work.abort();
            eventually("it has ended", async || at_work(&server).await == 0).await;
            // The one connection that there may be can be had again, and works.
            let mut reader = until_reader(&pool).await;
            let one = Query::select().expr(Expr::cust("1")).to_owned();
            assert_eq!(reader.fetch(&one).await.expect("it answers").len(), 1);
        }
    }
}

async fn until_reader(pool: &Pool) -> mcp_sidecar::store::Reader {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match pool.reader().await {
            Ok(reader) => return reader,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test]
async fn a_statement_in_sqlite_ends_with_its_caller_and_after_its_time() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("site.sqlite");
    site::run_sqlite(&path, &site::script(Dialect::Sqlite)).await;
    let settings = Settings {
        max_connections: 1,
        statement_timeout: Duration::from_millis(300),
        ..site::settings(&format!("sqlite://{}", path.display()))
    };
    let pool = Pool::open(&settings).expect("valid");
    let mut reader = pool.reader().await.expect("it answers");
    assert!(reader.fetch(&slow(Dialect::Sqlite)).await.is_err());
    drop(reader);
    // Its one connection is free long before the work would have ended.
    let begun = Instant::now();
    until_reader(&pool).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_statement_ends_after_its_time() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let server = shared(kind).await;
        create(&server, "timeouts", "").await;
        let limit = Duration::from_millis(500);
        let settings = Settings { statement_timeout: limit, ..site::settings(&server.url("timeouts")) };
        let mut reader = Pool::open(&settings).expect("valid").reader().await.expect("it answers");
        let begun = Instant::now();
        // MariaDB cuts SLEEP short and says so by an error; a server that did not would be cut off by us.
        assert!(reader.fetch(&slow(site::dialect(kind))).await.is_err(), "{kind:?}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{kind:?}: {:?}", begun.elapsed());
        drop(reader);
        eventually("it has ended", async || at_work(&server).await == 0).await;
    }
}

/// As the administrator, whose rights stop nothing. SQLite has no such functions; `store` tests its sessions itself.
#[tokio::test]
async fn sessions_refuse_to_write() {
    let function = "CREATE FUNCTION evo_write() RETURNS INT";
    for (kind, body) in [
        (
            Kind::MariaDb,
            "MODIFIES SQL DATA BEGIN INSERT INTO evo_categories (id, category) VALUES (77, 'x'); RETURN 1; END",
        ),
        (Kind::Postgres, "LANGUAGE sql AS 'INSERT INTO evo_categories (id, category) VALUES (77, ''x'') RETURNING 1'"),
    ] {
        let server = shared(kind).await;
        create(&server, "readonly", "").await;
        server.run("readonly", &format!("{function} {body}")).await;
        let count = async || server.number_in("readonly", "SELECT COUNT(*) FROM evo_categories").await;
        let before = count().await;
        let pool = Pool::open(&site::settings(&server.url("readonly"))).expect("valid");
        let write = Query::select().expr(Expr::cust("evo_write()")).to_owned();
        for snapshot in [false, true] {
            let mut reader = if snapshot { pool.snapshot().await } else { pool.reader().await }.expect("it answers");
            let refused = reader.fetch(&write).await.err().expect("it only reads").to_string().to_lowercase();
            assert!(refused.contains("read only") || refused.contains("read-only"), "{kind:?}: {refused}");
        }
        assert_eq!(count().await, before, "{kind:?}");
        // What a session that may write does with it.
        server.run("readonly", "SELECT evo_write()").await;
        assert_eq!(count().await, before + 1, "{kind:?}");
    }
}

#[tokio::test]
async fn a_database_that_goes_away_comes_back_by_itself() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let mut server = Server::start(kind).await;
        create(&server, "site", "").await;
        let settings = site::settings(&server.url("site"));
        let site = Site::over("site", &settings, (None, None));
        let search = json!({"limit": 3, "with_tvs": ["price"]});
        site.ready().await.expect("it answers");
        site.result("evo.content.search", &search).await.expect("it answers");

        server.kill();
        let answer = site.call("evo.content.search", &search).await;
        assert_eq!(answer["error"], json!({"code": -32603, "message": "Internal error"}), "{kind:?}");
        let reason = site.ready().await.expect_err("it is away");
        assert!(reason.starts_with("database ") && !reason.contains('/'), "{reason}");
        // One that begins while the database is away works as soon as it is back.
        let late = Site::over("late", &settings, (None, None));
        late.ready().await.expect_err("it is away");

        server.restart().await;
        for site in [&site, &late] {
            eventually("ready again", async || site.ready().await.is_ok()).await;
            let list = site.result("evo.content.search", &search).await.expect("it answers again");
            assert_eq!(list["meta"]["count"], 3);
        }
    }
}

#[tokio::test]
async fn a_database_that_stalls_holds_nobody_up() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let server = Server::start(kind).await;
        create(&server, "site", "").await;
        let wait = Duration::from_millis(500);
        let settings =
            Settings { acquire_timeout: wait, statement_timeout: wait, ..site::settings(&server.url("site")) };
        let site = Site::over("site", &settings, (None, None));
        let search = json!({"limit": 3});
        site.result("evo.content.search", &search).await.expect("it answers");

        server.signal("STOP");
        let begun = Instant::now();
        for _ in 0..2 {
            let answer = site.call("evo.content.search", &search).await;
            assert_eq!(answer["error"]["code"], -32603, "{kind:?}: {answer}");
            site.ready().await.expect_err("it does not answer");
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{kind:?}: {:?}", begun.elapsed());
        server.signal("CONT");
        eventually("ready again", async || site.ready().await.is_ok()).await;
        site.result("evo.content.search", &search).await.expect("it answers again");
    }
}

#[tokio::test]
async fn the_upper_half_of_an_unsigned_column_stays_positive() {
    let server = shared(Kind::MariaDb).await;
    let site = site::filled(&server, "large", "mariadb", "").await;
    server.run("large", "UPDATE evo_user_attributes SET blockeduntil = 4102444800 WHERE id = 2").await;
    let user = site.result("evo.model.get", &json!({"model": "UserAttribute", "id": 2})).await.expect("valid");
    assert_eq!(user["item"]["blockeduntil"], 4_102_444_800_i64);
}

#[tokio::test]
async fn a_database_without_the_tables_is_not_ready_until_they_are_there() {
    let server = shared(Kind::Postgres).await;
    server.run("postgres", "CREATE DATABASE bare").await;
    let site = Site::over("bare", &site::settings(&server.url("bare")), (Some(Arc::clone(&server)), None));
    assert_eq!(site.ready().await.expect_err("there is nothing"), "database lacks the site's tables");
    server.run("bare", &site::script(Dialect::Postgres)).await;
    site.ready().await.expect("there it is");
    // A column that goes while we run costs one answer at most.
    server.run("bare", "ALTER TABLE evo_site_templates DROP COLUMN icon").await;
    let call = json!({"model": "SiteTemplate", "limit": 1});
    site.call("evo.model.list", &call).await;
    let list = site.result("evo.model.list", &call).await.expect("adapted");
    assert!(list["items"][0]["icon"].is_null());
}

/// The statements of docs/DATABASES.md that are marked so for this engine, for a database and a user of these names.
pub fn documented(kind: Kind, what: &str, database: &str, user: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/DATABASES.md");
    let text = std::fs::read_to_string(path).expect("docs/DATABASES.md");
    let engine = if kind == Kind::MariaDb { "mariadb" } else { "postgres" };
    let (_, rest) = text.split_once(&format!("<!-- sql: {engine}{what} -->")).expect("a marked block");
    let (_, rest) = rest.split_once("```sql\n").expect("a block");
    let (statements, _) = rest.split_once("```").expect("an end");
    statements.replace("site.", &format!("{database}.")).replace("mcp_sidecar", user)
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_no_more() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let server = shared(kind).await;
        create(&server, "granted", "").await;
        server.run("granted", &documented(kind, "", "granted", "mcp_sidecar")).await;
        let settings = Settings {
            password: Some(Secret::new("change me")),
            ..site::settings(&server.url_of("mcp_sidecar", "granted"))
        };
        let site = Site::over("granted", &settings, (Some(Arc::clone(&server)), None));
        site.ready().await.expect("it may read");
        for model in &mcp_sidecar::store::model::MODELS {
            let call = json!({"model": model.name, "limit": 9, "order_by": "id"});
            assert!(!site.ids("evo.model.list", &call).await.is_empty(), "{kind:?}: {}", model.name);
        }
        let search =
            json!({"limit": 9, "parent": 0, "with_tvs": ["price:d"], "tags_data": {"tv_id": 1, "tags": ["new"]}});
        assert!(!site.ids("evo.content.search", &search).await.is_empty());
        let table = site.pool.tables().await.expect("it was read");
        assert!(table.has("users", "username") && !table.has("users", "password"), "{kind:?}");
        let secret = match kind {
            Kind::MariaDb => "(SELECT password FROM evo_users LIMIT 1)",
            Kind::Postgres => "(SELECT sessionid FROM evo_user_attributes LIMIT 1)",
        };
        let statement = Query::select().expr(Expr::cust(secret)).to_owned();
        assert!(site.pool.reader().await.expect("it answers").fetch(&statement).await.is_err(), "{kind:?}");
    }
}
