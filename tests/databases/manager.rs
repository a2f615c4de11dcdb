//! Users of the manager, through a sidecar that reads the rows of each engine as the CMS keeps them, with the rights
//! that docs/DATABASES.md gives it: sessions, access tokens, blocks and permissions, as they are at the moment.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mcp_sidecar::store::Dialect;
use serde_json::{Value, json};

use crate::data::{Cell, Rows, insert};
use crate::failures::documented;
use crate::harness::{Request, Response, Sidecar, eventually};
use crate::server::{Kind, Server, shared};
use crate::site::{PREFIX, create, dialect, run_sqlite, script};

const SOON: Duration = Duration::from_secs(20);
const ADMIN: &str = "0123456789abcdefADMIN01";
const EDITOR: &str = "0123456789abcdefEDITOR1";
const OPERATOR: &str = "0123456789abcdefOPERATOR";
const TOKEN: &str = "AccessTokenOfTheOperator0123456789";
/// The CMS's clock, which is the servers', too.
const AHEAD_HOURS: i64 = 3;

/// Where the rows are.
enum Place {
    Sqlite(PathBuf),
    Server(Arc<Server>, &'static str),
}

impl Place {
    fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Server(server, _) => dialect(server.kind),
        }
    }

    /// Changes the site while it is served.
    fn sql(&self, statements: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let statements = statements.replace("{p}", PREFIX).replace(
            "{key}",
            match self.dialect() {
                Dialect::MySql => "`internalKey`",
                Dialect::Postgres | Dialect::Sqlite => "\"internalKey\"",
            },
        );
        runtime.block_on(async {
            match self {
                Self::Sqlite(path) => run_sqlite(path, &statements).await,
                Self::Server(server, database) => server.run(database, &statements).await,
            }
        });
    }

    /// The tables as the CMS's own migrations make them on this engine.
    fn migrate(&self) {
        self.sql("DROP TABLE {p}active_user_sessions;");
        self.sql(match self.dialect() {
            Dialect::MySql => {
                "CREATE TABLE {p}active_user_sessions (sid VARCHAR(32) NOT NULL DEFAULT '' PRIMARY KEY, \
                 {key} INT NOT NULL DEFAULT 0, lasthit INT NOT NULL DEFAULT 0, ip VARCHAR(50) NOT NULL DEFAULT '') \
                 DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_unicode_ci; \
                 ALTER TABLE {p}users MODIFY valid_to TIMESTAMP NULL;"
            }
            Dialect::Postgres => {
                "CREATE TABLE {p}active_user_sessions (sid VARCHAR(32) NOT NULL DEFAULT '' PRIMARY KEY, \
                 {key} INTEGER NOT NULL DEFAULT 0, lasthit BIGINT NOT NULL DEFAULT 0, \
                 ip VARCHAR(50) NOT NULL DEFAULT ''); \
                 ALTER TABLE {p}users ALTER valid_to TYPE TIMESTAMP(0) WITHOUT TIME ZONE;"
            }
            Dialect::Sqlite => {
                "CREATE TABLE {p}active_user_sessions (sid VARCHAR NOT NULL DEFAULT '' PRIMARY KEY, \
                 {key} INTEGER NOT NULL DEFAULT 0, lasthit INTEGER NOT NULL DEFAULT 0, \
                 ip VARCHAR NOT NULL DEFAULT '');"
            }
        });
        let grants = (10..).zip([(1, "access_permissions"), (2, "access_permissions"), (3, "access_permissions")]);
        let grants = grants.map(|(id, (role, key))| vec![Cell::Int(id), Cell::Text(key.into()), Cell::Int(role)]);
        let columns = vec!["id", "permission", "role_id"];
        let grants = Rows { table: "role_permissions", columns, rows: grants.collect() };
        self.sql(&insert(self.dialect(), PREFIX, &grants));
        for user in 1..=3 {
            let row = format!("WHERE {{key}} = {user}");
            self.sql(&format!("UPDATE {{p}}user_attributes SET role = {user}, blockeduntil = 0 {row}"));
        }
        if let Self::Server(server, database) = self {
            let rights = ["", ", manager"].map(|what| documented(server.kind, what, database, "mcp_manager"));
            self.sql(&rights.concat());
        }
    }

    /// The user was seen with this session so long ago.
    fn seen(&self, session: &str, user: u32, age_s: i64) {
        let hit = jiff::Timestamp::now().as_second() - age_s;
        self.sql(&format!("DELETE FROM {{p}}active_user_sessions WHERE {{key}} = {user}"));
        self.sql(&format!(
            "INSERT INTO {{p}}active_user_sessions (sid, {{key}}, lasthit, ip) VALUES ('{session}', {user}, {hit}, '::1')"
        ));
    }

    /// The operator's token ends so many seconds from now, which the CMS writes down as its clock tells it.
    fn token(&self, ends_s: i64) {
        let end = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + AHEAD_HOURS * 3600 + ends_s);
        let end = end.expect("within some thousand years").strftime("%Y-%m-%d %H:%M:%S");
        // Tests' own sessions are at UTC, the CMS's are not.
        let clock = if self.dialect() == Dialect::MySql { "SET time_zone = @@global.time_zone;" } else { "" };
        self.sql(&format!("{clock} UPDATE {{p}}users SET access_token = '{TOKEN}', valid_to = '{end}' WHERE id = 3"));
    }
}

fn call(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

fn search() -> String {
    call("tools/call", &json!({"name": "evo.content.search", "arguments": {"limit": 2}}))
}

fn post(path: &str, body: String) -> Request {
    Request::new("POST", path).header("Content-Type", "application/json").body(body)
}

fn by_session(session: &str) -> Request {
    post("/emcp/content", search()).header("Cookie", &format!("evo_session={session}"))
}

fn by_token(token: &str) -> Request {
    post("/emcp/content", search()).header("Authorization", &format!("Bearer {token}"))
}

/// Status, code, and how many documents were found.
fn told(answer: &Response) -> (u16, Option<String>, Option<usize>) {
    let found = (answer.status == 200).then(|| answer.json());
    let found = found.and_then(|found| found["result"]["structuredContent"]["items"].as_array().map(Vec::len));
    (answer.status, answer.code(), found)
}

/// Everything that makes somebody a user of the manager, taken away and given back.
fn judge(place: &Place, url: &str) {
    place.migrate();
    let sidecar = Sidecar::start()
        .policy("manager.sources", vec!["database", "access_token"])
        .policy("manager.cookie", "evo_session")
        .policy("manager.cache_seconds", 0)
        .policy("auth.failures_per_minute", 0)
        .policy("rate_limit.enabled", false)
        .policy("queue.driver", "own")
        .set(format!("database.url={url:?}"))
        .set(format!("executor.manager.utc_offset=\"+0{AHEAD_HOURS}:00\""))
        .go();
    let ask = |request: &Request| told(&sidecar.send(request));
    let found = (200, None, Some(2));
    let forbidden = (403, Some("forbidden".to_owned()), None);

    assert_eq!(ask(&by_session(ADMIN)), forbidden, "{url}: nobody is logged in");
    place.seen(ADMIN, 1, 0);
    place.seen(EDITOR, 2, 0);
    place.seen(OPERATOR, 3, 0);
    place.token(60);
    for (who, request) in [("mgr:1", by_session(ADMIN)), ("mgr:3", by_session(OPERATOR)), ("mgr:3", by_token(TOKEN))] {
        let before = sidecar.audit().len();
        assert_eq!(ask(&request), found, "{url}: {who} {}", sidecar.output());
        let line = eventually("its audit line", SOON, || {
            sidecar.audit().into_iter().skip(before).find(|line| line["decision"] == "allow")
        });
        assert_eq!((&line["context"], &line["rate_limit_identity"]), (&json!("mgr"), &json!(who)), "{line}");
    }
    assert_eq!(ask(&by_session(EDITOR)), forbidden, "{url}: logged in, without the permission");
    for session in [
        ADMIN.to_lowercase(),
        ADMIN.to_uppercase(),
        format!("{ADMIN}%"),
        ADMIN.replace('A', "_"),
        "' OR 1=1 -- 0123456789".to_owned(),
        "0123456789abcdefNOBODY1".to_owned(),
    ] {
        assert_eq!(ask(&by_session(&session)), forbidden, "{url}: {session}");
    }
    for token in [TOKEN.to_lowercase(), format!("{TOKEN}%"), "' OR ''='".to_owned(), TOKEN[..33].to_owned()] {
        assert_eq!(ask(&by_token(&token)), forbidden, "{url}: {token}");
    }

    // The shipped policy's two hours; and the CMS's clock, on which a token ends.
    place.seen(ADMIN, 1, 7_300);
    assert_eq!(ask(&by_session(ADMIN)), forbidden, "{url}: a session that ended");
    place.seen(ADMIN, 1, 7_000);
    assert_eq!(ask(&by_session(ADMIN)), found, "{url}: a quiet session");
    place.token(-2);
    assert_eq!(ask(&by_token(TOKEN)), forbidden, "{url}: a token that ended");
    place.token(60);

    // What takes the operator out, whatever the credential, and what brings the operator back.
    for (out, back) in [
        ("UPDATE {p}user_attributes SET blocked = 1", "UPDATE {p}user_attributes SET blocked = 0"),
        ("UPDATE {p}user_attributes SET blockeduntil = 2147483647", "UPDATE {p}user_attributes SET blockeduntil = 1"),
        ("UPDATE {p}user_attributes SET blockedafter = 1", "UPDATE {p}user_attributes SET blockedafter = 2147483647"),
        ("UPDATE {p}user_attributes SET role = 2", "UPDATE {p}user_attributes SET role = 3"),
        ("UPDATE {p}user_attributes SET role = 0", "UPDATE {p}user_attributes SET role = 3"),
        (
            "DELETE FROM {p}role_permissions WHERE role_id = 3 AND permission = 'emcp'",
            "INSERT INTO {p}role_permissions (id, permission, role_id) VALUES (4, 'emcp', 3)",
        ),
        (
            "UPDATE {p}role_permissions SET permission = 'EMCP' WHERE role_id = 3 AND permission = 'emcp'",
            "UPDATE {p}role_permissions SET permission = 'emcp' WHERE role_id = 3 AND permission = 'EMCP'",
        ),
        (
            "DELETE FROM {p}role_permissions WHERE role_id = 3 AND permission = 'access_permissions'",
            "INSERT INTO {p}role_permissions (id, permission, role_id) VALUES (12, 'access_permissions', 3)",
        ),
        (
            "INSERT INTO {p}user_attributes (id, {key}, role) VALUES (99, 3, 1)",
            "DELETE FROM {p}user_attributes WHERE id = 99",
        ),
        ("UPDATE {p}user_attributes SET {key} = 33", "UPDATE {p}user_attributes SET {key} = 3"),
        ("UPDATE {p}users SET id = 33 WHERE id = 3", "UPDATE {p}users SET id = 3 WHERE id = 33"),
    ] {
        let of_operator = |statement: &str| match statement.split_once(" WHERE ") {
            None if statement.starts_with("UPDATE") => format!("{statement} WHERE id = 3"),
            _ => statement.to_owned(),
        };
        place.sql(&of_operator(out));
        for request in [by_session(OPERATOR), by_token(TOKEN)] {
            assert_eq!(ask(&request), forbidden, "{url}: {out}");
        }
        place.sql(&of_operator(back));
        for request in [by_session(OPERATOR), by_token(TOKEN)] {
            assert_eq!(ask(&request), found, "{url}: {back}");
        }
        assert_eq!(ask(&by_session(ADMIN)), found, "{url}: {out} was somebody else");
    }

    // A permission counts at once: of using the tools, and of having them run later.
    let later = |session: &str| {
        let request = post("/emcp/content/dispatch", search()).header("Cookie", &format!("evo_session={session}"));
        let answer = sidecar.send(&request);
        (answer.status, answer.code())
    };
    assert_eq!(later(OPERATOR), (403, Some("forbidden".to_owned())), "{url}");
    place.sql("INSERT INTO {p}role_permissions (id, permission, role_id) VALUES (20, 'emcp_dispatch', 3)");
    assert_eq!(later(OPERATOR), (202, None), "{url}");
    assert_eq!(later(EDITOR), (403, Some("forbidden".to_owned())), "{url}");
    place.sql("INSERT INTO {p}role_permissions (id, permission, role_id) VALUES (21, 'emcp', 2)");
    assert_eq!(ask(&by_session(EDITOR)), found, "{url}: the role may now");
    // Its outcome is written before the sidecar ends.
    eventually("the task's run", SOON, || sidecar.audit().into_iter().find(|line| !line["run"].is_null()));

    place.sql("DELETE FROM {p}active_user_sessions WHERE {key} = 1");
    assert_eq!(ask(&by_session(ADMIN)), forbidden, "{url}: after logging out");
    place.sql("UPDATE {p}users SET access_token = NULL, valid_to = NULL");
    assert_eq!(ask(&by_token(TOKEN)), forbidden, "{url}: after logging out");

    // Where not all can be read, nobody is let in.
    if let Some((take, give)) = match place.dialect() {
        Dialect::Sqlite => None,
        Dialect::MySql => Some((
            "REVOKE SELECT (role) ON manager.{p}user_attributes FROM 'mcp_manager'@'localhost'",
            "GRANT SELECT (role) ON manager.{p}user_attributes TO 'mcp_manager'@'localhost'",
        )),
        Dialect::Postgres => Some((
            "REVOKE SELECT (role) ON {p}user_attributes FROM mcp_manager",
            "GRANT SELECT (role) ON {p}user_attributes TO mcp_manager",
        )),
    } {
        place.sql(take);
        assert_eq!(ask(&by_session(OPERATOR)), (502, Some("upstream_failed".to_owned()), None), "{url}");
        place.sql(give);
        assert_eq!(ask(&by_session(OPERATOR)), found, "{url}");
    }
    sidecar.finish();
}

/// A site on a server whose clock is the CMS's, and the URL of a user who can only read.
async fn on_server(kind: Kind) -> (Place, String) {
    let server = match kind {
        // Its clock is of the whole server.
        Kind::MariaDb => Arc::new(Server::start(kind).await),
        Kind::Postgres => shared(kind).await,
    };
    create(&server, "manager", "").await;
    server
        .run(
            "manager",
            &match kind {
                Kind::MariaDb => format!("SET GLOBAL time_zone = '+0{AHEAD_HOURS}:00'"),
                Kind::Postgres => format!("ALTER DATABASE manager SET timezone TO 'Etc/GMT-{AHEAD_HOURS}'"),
            },
        )
        .await;
    let url = server.url_of("mcp_manager:change%20me", "manager");
    (Place::Server(server, "manager"), url)
}

#[test]
fn a_user_of_the_manager_is_who_the_rows_say_on_each_engine() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("site.sqlite");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let places = runtime.block_on(async {
        run_sqlite(&file, &script(Dialect::Sqlite)).await;
        let mut places = vec![(Place::Sqlite(file.clone()), format!("sqlite://{}", file.display()))];
        for kind in [Kind::MariaDb, Kind::Postgres] {
            places.push(on_server(kind).await);
        }
        places
    });
    std::thread::scope(|scope| {
        for (place, url) in &places {
            scope.spawn(|| judge(place, url));
        }
    });
}
