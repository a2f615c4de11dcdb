//! The manager routes: a user of the CMS's manager, by session file or access token, and whoever is none.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::harness::{Next, Redis, Request, Response, Sidecar, Start, Token, Upstream, call_params, eventually};

const SOON: Duration = Duration::from_secs(10);
pub const ADMIN: &str = "0123456789abcdefADMIN01";
const EDITOR: &str = "0123456789abcdefEDITOR1";
/// Status and code of a refusal.
type Told = (u16, Option<String>);

pub const LOGIN: &str = "mgrValidated|i:1;usertype|s:7:\"manager\";mgrInternalKey|i:";

/// A directory of PHP's sessions.
pub struct Sessions(tempfile::TempDir);

impl Sessions {
    pub fn new() -> Self {
        let sessions = Self(tempfile::tempdir().expect("a temporary directory"));
        sessions.write(ADMIN, &format!("{LOGIN}1;_token|s:5:\"c5rf!\";"));
        sessions.write(EDITOR, &format!("{LOGIN}2;"));
        sessions
    }

    fn path(&self, id: &str) -> std::path::PathBuf {
        self.0.path().join(format!("sess_{id}"))
    }

    pub fn write(&self, id: &str, text: &str) {
        std::fs::write(self.path(id), text).expect("is written");
    }

    /// A sidecar that reads them.
    pub fn sidecar(&self) -> Start {
        Sidecar::start()
            .policy("manager.sources", vec!["session_file", "access_token"])
            .policy("manager.cookie", "evo")
            .policy("manager.cache_seconds", 0)
            .policy("auth.failures_per_minute", 0)
            .set(format!("executor.manager.session_dir={:?}", self.0.path()))
    }
}

fn call(tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params(tool)}).to_string()
}

fn ping() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string()
}

fn post(server: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", &format!("/emcp/{server}"))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json, text/event-stream")
        .body(body)
}

pub fn with_session(server: &str, id: &str) -> Request {
    post(server, ping()).header("Cookie", &format!("a=b; evo={id}; c=d"))
}

fn told(answer: &Response) -> Told {
    (answer.status, answer.code())
}

fn denied(code: &str, status: u16) -> Told {
    (status, Some(code.to_owned()))
}

/// Changes the demo site while it is served.
pub fn sql(sidecar: &Sidecar, statements: &str) {
    let path = sidecar.data().join("demo.sqlite");
    change(&path, statements);
}

/// Changes an SQLite database while it is used.
pub fn change(path: &Path, statements: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(SOON);
        let mut connection = options.connect().await.expect("the site is there");
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.expect("valid statements");
        connection.close().await.expect("it was open");
    });
}

#[test]
fn a_user_of_the_manager_calls_with_the_session_of_the_site() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().go();
    let answer = sidecar.send(&with_session("raw", ADMIN).body(call("raw.echo")));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = sidecar.upstream.seen().remove(0);
    assert_eq!((seen.header("cookie"), seen.json()["params"]["name"].clone()), (None, json!("raw.echo")));
    let found = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params":
        {"name": "evo.content.search", "arguments": {"limit": 5}}});
    let answer = sidecar.send(&with_session("content", ADMIN).body(found.to_string()));
    assert_eq!((answer.status, answer.json()["result"]["isError"].clone()), (200, json!(false)), "{}", answer.text());
    let line = eventually("the audit lines are written", SOON, || sidecar.audit().get(1).cloned());
    for (field, expected) in
        [("context", json!("mgr")), ("rate_limit_identity", json!("mgr:1")), ("actor_user_id", json!(1))]
    {
        assert_eq!(line[field], expected, "{field}: {line}");
    }

    let list = |id| Request::new("GET", "/emcp/servers").header("Cookie", &format!("evo={id}"));
    let answer = sidecar.send(&list(ADMIN));
    assert_eq!((answer.status, answer.json()), (200, json!({"items": ["content", "raw"]})));
    assert_eq!(told(&sidecar.send(&list(EDITOR))), denied("forbidden", 403));
    assert_eq!(told(&sidecar.send(&Request::new("GET", "/emcp/servers"))), denied("forbidden", 403));
    for (request, allow) in [
        (with_session("servers", ADMIN), "GET"),
        (Request::new("GET", "/emcp/content").header("Cookie", &format!("evo={ADMIN}")), "POST"),
    ] {
        let answer = sidecar.send(&request);
        assert_eq!((told(&answer), answer.header("allow")), (denied("method_not_allowed", 405), Some(allow)));
    }
    let unknown = with_session("nobody", ADMIN);
    assert_eq!(told(&sidecar.send(&unknown)), denied("server_not_found", 404));
    let tool = with_session("raw", ADMIN).body(call("raw.secret"));
    assert_eq!(told(&sidecar.send(&tool)), denied("tool_denied", 403));
    sidecar.finish();
}

#[test]
fn whoever_is_no_user_of_the_manager_is_refused() {
    let sessions = Sessions::new();
    let (visitor, old, linked, member) =
        ("0123456789abcdefVISITOR", "0123456789abcdefOLD0000", "0123456789abcdefLINK000", "0123456789abcdefMEMBER0");
    let typed = format!("\";{LOGIN}1;");
    sessions.write(visitor, &format!("search|s:{}:\"{typed}\";", typed.len()));
    sessions.write(member, "mgrValidated|i:1;usertype|s:3:\"web\";mgrInternalKey|i:1;");
    sessions.write(old, &format!("{LOGIN}1;"));
    let hours_ago = SystemTime::now() - Duration::from_secs(3 * 3600);
    let file = std::fs::File::options().write(true).open(sessions.path(old)).expect("is there");
    file.set_modified(hours_ago).expect("may be set");
    std::os::unix::fs::symlink(sessions.path(ADMIN), sessions.path(linked)).expect("is made");
    let outside = sessions.0.path().join("x");
    std::fs::write(&outside, format!("{LOGIN}1;")).expect("is written");

    let sidecar = sessions.sidecar().go();
    let forbidden = denied("forbidden", 403);
    for id in [
        EDITOR,
        visitor,
        old,
        linked,
        member,
        "0123456789abcdefNOBODY1",
        "../x",
        "/../x",
        "..%2Fx",
        "/../../../../../../../../../etc/passwd",
        &format!("{ADMIN}/../sess_{ADMIN}"),
        &format!("\"{ADMIN}\""),
        &format!("./{ADMIN}"),
        "",
    ] {
        assert_eq!(told(&sidecar.send(&with_session("raw", id))), forbidden, "{id}");
    }
    let twice = with_session("raw", ADMIN).header("Cookie", &format!("evo={EDITOR}"));
    let token = sidecar.token(&Token::of("alice").claim("user_id", 1));
    let bearer = format!("Bearer {token}");
    for (what, request) in [
        ("no credential", post("raw", ping())),
        ("two sessions", twice),
        ("another cookie", post("raw", ping()).header("Cookie", &format!("evo_session={ADMIN}"))),
        ("an API token", post("raw", ping()).header("Authorization", &bearer)),
        ("an API token beside a session", with_session("raw", ADMIN).header("Authorization", &bearer)),
        ("basic beside a session", with_session("raw", ADMIN).header("Authorization", "Basic YTpi")),
    ] {
        assert_eq!(told(&sidecar.send(&request)), forbidden, "{what}");
    }
    // A session means nothing on the API routes.
    let api = Request::new("POST", "/api/v1/mcp/raw")
        .header("Content-Type", "application/json")
        .header("Cookie", &format!("evo={ADMIN}"))
        .body(ping());
    assert_eq!(told(&sidecar.send(&api)), denied("unauthenticated", 401));
    for path in ["/emcp", "/emcp/", "/EMCP/raw", "/emcp/raw/", "/emcp/%72aw", "/index.php/emcp/raw", "//emcp/raw"] {
        let request = Request::new("POST", path).header("Cookie", &format!("evo={ADMIN}")).body(ping());
        assert_eq!(told(&sidecar.send(&request)), denied("route_not_found", 404), "{path}");
    }
    assert_eq!(sidecar.upstream.count(), 0);
    sidecar.finish();
}

#[test]
fn another_site_cannot_use_the_browser_of_a_manager() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().policy("security.allow_origins", vec!["https://tools.example"]).go();
    let host = sidecar.mcp.to_string();
    let own = format!("http://{host}");
    let (passes, foreign, forbidden) = ((200, None), denied("foreign_origin", 403), denied("forbidden", 403));
    let cases: [(&[(&str, &str)], &Told); 14] = [
        (&[], &passes),
        (&[("Origin", &own)], &passes),
        (&[("Origin", &own), ("Sec-Fetch-Site", "same-origin")], &passes),
        (&[("Sec-Fetch-Site", "none")], &passes),
        (&[("Origin", "https://tools.example"), ("Sec-Fetch-Site", "cross-site")], &passes),
        (&[("Origin", "https://evil.example")], &foreign),
        (&[("Origin", "null")], &foreign),
        (&[("Origin", "")], &foreign),
        (&[("Origin", &host)], &foreign),
        (&[("Sec-Fetch-Site", "cross-site")], &foreign),
        (&[("Origin", &own), ("Sec-Fetch-Site", "same-site")], &foreign),
        (&[("X-CSRF-Token", "c5rf!")], &passes),
        (&[("X-CSRF-Token", "other")], &forbidden),
        (&[("X-CSRF-Token", "")], &forbidden),
    ];
    for (lines, expected) in cases {
        let request =
            lines.iter().fold(with_session("raw", ADMIN), |request, (name, value)| request.header(name, value));
        let request = request.header("Host", &host);
        assert_eq!(&told(&sidecar.send(&request)), expected, "{lines:?}");
    }
    for media in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let form = with_session("raw", ADMIN).without("Content-Type").header("Content-Type", media);
        assert_eq!(told(&sidecar.send(&form)), denied("unsupported_media_type", 415), "{media}");
    }
    sidecar.finish();

    let sidecar = sessions.sidecar().policy("manager.require_csrf_token", true).go();
    let with_token = |id: &str, token: &str| with_session("raw", id).header("X-CSRF-Token", token);
    assert_eq!(told(&sidecar.send(&with_session("raw", ADMIN))), forbidden);
    assert_eq!(told(&sidecar.send(&with_token(ADMIN, "c5rf!"))), passes);
    assert_eq!(told(&sidecar.send(&with_token(EDITOR, ""))), forbidden, "a session without a token");
    sidecar.finish();
}

#[test]
fn an_access_token_is_good_while_the_site_says_so() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().go();
    let bearer = |token: &str| post("raw", ping()).header("Authorization", &format!("Bearer {token}"));
    let give = |token: &str, until: &str| {
        sql(&sidecar, &format!("UPDATE evo_users SET access_token = '{token}', valid_to = {until} WHERE id = 3"));
    };
    let (token, forbidden) = ("AccessTokenOfOlga0123456789", denied("forbidden", 403));
    assert_eq!(told(&sidecar.send(&bearer(token))), forbidden);
    give(token, "datetime('now', '+1 hour')");
    assert_eq!(sidecar.send(&bearer(token)).status, 200);
    let line = eventually("an allowing audit line", SOON, || {
        sidecar.audit().into_iter().find(|line| line["decision"] == "allow")
    });
    assert_eq!(line["rate_limit_identity"], "mgr:3", "{line}");
    assert_eq!(told(&sidecar.send(&bearer(&token.to_lowercase()))), forbidden);
    give(token, "datetime('now', '-1 second')");
    assert_eq!(told(&sidecar.send(&bearer(token))), forbidden);
    give(token, "NULL");
    assert_eq!(told(&sidecar.send(&bearer(token))), forbidden);
    give(token, "datetime('now', '+1 hour')");
    // What takes the user out, and what brings the user back.
    for (out, back) in [
        ("UPDATE evo_user_attributes SET blocked = 1", "UPDATE evo_user_attributes SET blocked = 0"),
        ("UPDATE evo_user_attributes SET blockeduntil = 4000000000", "UPDATE evo_user_attributes SET blockeduntil = 1"),
        ("UPDATE evo_user_attributes SET blockedafter = 1", "UPDATE evo_user_attributes SET blockedafter = 0"),
        ("UPDATE evo_user_attributes SET role = 2", "UPDATE evo_user_attributes SET role = 3"),
        (
            "DELETE FROM evo_role_permissions WHERE role_id = 3 AND permission = 'access_permissions'",
            "INSERT INTO evo_role_permissions (permission, role_id) VALUES ('access_permissions', 3)",
        ),
        (
            "INSERT INTO evo_user_attributes (internalKey, role) VALUES (3, 1)",
            "DELETE FROM evo_user_attributes WHERE internalKey = 3 AND role = 1",
        ),
    ] {
        sql(&sidecar, out);
        assert_eq!(told(&sidecar.send(&bearer(token))), forbidden, "{out}");
        sql(&sidecar, back);
        assert_eq!(sidecar.send(&bearer(token)).status, 200, "{back}");
    }
    sidecar.finish();
}

#[test]
fn a_session_ends_within_the_seconds_of_the_cache() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().policy("manager.cache_seconds", 1).go();
    assert_eq!(sidecar.send(&with_session("raw", ADMIN)).status, 200);
    let known = Instant::now();
    std::fs::remove_file(sessions.path(ADMIN)).expect("is there");
    let ended = eventually("the session ends", SOON, || {
        let age = known.elapsed();
        let answer = sidecar.send(&with_session("raw", ADMIN));
        // What was known before the first answer is too old for a request that came so long after it.
        assert!(answer.status != 200 || age < Duration::from_millis(1500), "known for {age:?}");
        (answer.status != 200).then(|| told(&answer))
    });
    assert_eq!(ended, denied("forbidden", 403));
    sidecar.finish();

    sessions.write(ADMIN, &format!("{LOGIN}1;"));
    let sidecar = sessions.sidecar().policy("manager.cache_seconds", 10).go();
    let asked = Instant::now();
    assert_eq!(sidecar.send(&with_session("raw", ADMIN)).status, 200);
    std::fs::remove_file(sessions.path(ADMIN)).expect("is there");
    let status = sidecar.send(&with_session("raw", ADMIN)).status;
    assert!(status == 200 || asked.elapsed() > Duration::from_secs(9), "{status}: it is known for ten seconds");
    sidecar.finish();
}

#[test]
fn limits_and_switches_hold_on_manager_routes() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().raw("rate_limit.per_minute", 2).go();
    for _ in 0..2 {
        assert_eq!(sidecar.send(&with_session("raw", ADMIN)).status, 200);
    }
    let answer = sidecar.send(&with_session("raw", ADMIN));
    assert_eq!(told(&answer), denied("rate_limited", 429));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(sidecar.rpc("raw", "ping", json!({})).status, 200, "an API caller has another bucket");
    sidecar.finish();

    let sidecar = sessions.sidecar().policy("auth.failures_per_minute", 2).go();
    let guess = |number: u32| sidecar.send(&with_session("raw", &format!("0123456789abcdefGUESS{number:02}")));
    let mut last = Value::Null;
    for number in 0..4 {
        last = json!(guess(number).status);
    }
    assert_eq!(last, 429, "guesses are counted by address");
    sidecar.finish();

    let off = [("mode.internal", toml::Value::from(false)), ("manager.sources", toml::Value::Array(Vec::new()))];
    for (key, value) in off {
        let sidecar = sessions.sidecar().policy(key, value).go();
        for path in ["raw", "servers"] {
            assert_eq!(told(&sidecar.send(&with_session(path, ADMIN))), denied("route_not_found", 404), "{key}");
        }
        assert_eq!(sidecar.rpc("raw", "ping", json!({})).status, 200);
        sidecar.finish();
    }
    let sidecar = sessions.sidecar().policy("mode.api", false).go();
    assert_eq!(sidecar.send(&with_session("raw", ADMIN)).status, 200);
    assert_eq!(told(&sidecar.rpc("raw", "ping", json!({}))), denied("route_not_found", 404));
    sidecar.finish();
}

/// A page of the CMS that knows one session.
fn page() -> Upstream {
    Upstream::scripted(|seen, peer| {
        let head = match seen.header("cookie") {
            Some(cookie) if cookie == format!("evo={ADMIN}") => "200 OK\r\nX-Who: 1\r\nX-Who-Else: 2",
            Some(cookie) if cookie == format!("evo={EDITOR}") => "302 Found\r\nX-Who: 1\r\nLocation: /login",
            Some(cookie) if cookie.ends_with("TWO") => "200 OK\r\nX-Who: 1\r\nX-Who: 3",
            Some(cookie) if cookie.ends_with("ODD") => "200 OK\r\nX-Who: 1, 3",
            Some(cookie) if cookie.ends_with("500") => "500 Internal Server Error\r\nX-Who: 1",
            _ => "200 OK",
        };
        peer.send(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        Next::Close
    })
}

#[test]
fn the_cms_is_asked_whose_a_session_is() {
    let (sessions, cms) = (Sessions::new(), page());
    let sidecar = sessions
        .sidecar()
        .policy("manager.sources", vec!["auth_request"])
        .set(format!("executor.manager.auth_request_url=\"http://{}/who?x=1\"", cms.address()))
        .set("executor.manager.auth_request_header=\"X-Who\"")
        .go();
    assert_eq!(sidecar.send(&with_session("raw", ADMIN).header("X-Other", "1")).status, 200);
    let asked = cms.seen().remove(0);
    assert_eq!((asked.line.as_str(), asked.header("x-other")), ("GET /who?x=1 HTTP/1.1", None));
    for id in [EDITOR, "0123456789abcdefNOBODY1", "0123456789abcdef123TWO", "0123456789abcdef123ODD"] {
        assert_eq!(told(&sidecar.send(&with_session("raw", id))), denied("forbidden", 403), "{id}");
    }
    let failed = with_session("raw", "0123456789abcdef123500");
    assert_eq!(told(&sidecar.send(&failed)), denied("upstream_failed", 502));
    sidecar.finish();
}

#[test]
fn sessions_are_read_from_redis() {
    let (sessions, mut redis) = (Sessions::new(), Redis::start());
    let url = redis.setting().replace("redis.url=", "").replace('"', "");
    let file = sessions.0.path().join("redis-url");
    std::fs::write(&file, &url).expect("is written");
    let session = format!("{LOGIN}1;");
    let key = format!("PHPREDIS_SESSION:{ADMIN}");
    let mut stream = std::net::TcpStream::connect(url.trim_start_matches("redis://")).expect("it accepts");
    let command = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{session}\r\n", key.len(), session.len());
    std::io::Write::write_all(&mut stream, command.as_bytes()).expect("is sent");
    let mut answer = [0; 5];
    std::io::Read::read_exact(&mut stream, &mut answer).expect("is answered");
    assert_eq!(&answer, b"+OK\r\n");
    let start = sessions.sidecar().policy("manager.sources", vec!["redis_session", "access_token"]);
    let sidecar = start.set(format!("executor.manager.redis_url_file={file:?}")).go();
    assert_eq!(sidecar.send(&with_session("raw", ADMIN)).status, 200);
    assert_eq!(told(&sidecar.send(&with_session("raw", EDITOR))), denied("forbidden", 403), "a file alone");
    redis.kill();
    assert_eq!(told(&sidecar.send(&with_session("raw", ADMIN))), denied("upstream_failed", 502));
    sidecar.finish();
}

#[test]
fn a_session_of_the_database_is_good_while_its_row_says_so() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().policy("manager.sources", vec!["database"]).go();
    let forbidden = denied("forbidden", 403);
    let ask = |id: &str| told(&sidecar.send(&with_session("raw", id)));
    assert_eq!(ask(ADMIN), forbidden, "a file alone");
    let row = |id: &str, user: u32, age_s: u32| {
        let hit = format!("CAST(strftime('%s', 'now') AS INTEGER) - {age_s}");
        let table = "evo_active_user_sessions";
        sql(&sidecar, &format!("DELETE FROM {table} WHERE internalKey = {user}"));
        sql(
            &sidecar,
            &format!("INSERT INTO {table} (sid, internalKey, lasthit, ip) VALUES ('{id}', {user}, {hit}, '::1')"),
        );
    };
    row(ADMIN, 1, 0);
    row(EDITOR, 2, 0);
    assert_eq!(ask(ADMIN), (200, None));
    let line = eventually("an allowing audit line", SOON, || {
        sidecar.audit().into_iter().find(|line| line["decision"] == "allow")
    });
    assert_eq!((&line["context"], &line["rate_limit_identity"]), (&json!("mgr"), &json!("mgr:1")), "{line}");
    let found = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params":
        {"name": "evo.content.search", "arguments": {"limit": 2}}});
    let answer = sidecar.send(&with_session("content", ADMIN).body(found.to_string()));
    let items = answer.json()["result"]["structuredContent"]["items"].as_array().map(Vec::len);
    assert_eq!((answer.status, items), (200, Some(2)), "{}", answer.text());
    let list = Request::new("GET", "/emcp/servers").header("Cookie", &format!("evo={ADMIN}"));
    assert_eq!(sidecar.send(&list).json(), json!({"items": ["content", "raw"]}));

    assert_eq!(ask(EDITOR), forbidden, "logged in, without the permission");
    assert_eq!(ask(&ADMIN.to_lowercase()), forbidden, "another session");
    assert_eq!(ask("0123456789abcdefNOBODY1"), forbidden);
    // The shipped policy's two hours.
    row(ADMIN, 1, 7_300);
    assert_eq!(ask(ADMIN), forbidden, "a session that ended");
    row(ADMIN, 1, 7_000);
    assert_eq!(ask(ADMIN), (200, None));
    sql(&sidecar, "UPDATE evo_user_attributes SET blocked = 1 WHERE internalKey = 1");
    assert_eq!(ask(ADMIN), forbidden, "a blocked user");
    sql(&sidecar, "UPDATE evo_user_attributes SET blocked = 0 WHERE internalKey = 1");
    assert_eq!(ask(ADMIN), (200, None));
    sql(&sidecar, "DELETE FROM evo_active_user_sessions WHERE internalKey = 1");
    assert_eq!(ask(ADMIN), forbidden, "after logging out");
    sidecar.finish();
}

#[test]
fn the_next_source_is_asked_when_one_knows_nobody_or_fails() {
    let sessions = Sessions::new();
    let sources = vec!["auth_request", "database", "session_file"];
    let sidecar = sessions.sidecar().policy("manager.sources", sources).go();
    assert_eq!(sidecar.send(&with_session("raw", ADMIN)).status, 200, "{}", sidecar.output());
    let nobody = with_session("raw", "0123456789abcdefNOBODY1");
    assert_eq!(told(&sidecar.send(&nobody)), denied("upstream_failed", 502), "somebody it may be");
    assert!(sidecar.output().contains("auth_request_url"), "{}", sidecar.output());
    sidecar.finish();
}

#[test]
fn the_first_source_that_knows_a_session_says_whose_it_is() {
    for (sources, user) in [(["session_file", "database"], 1), (["database", "session_file"], 3)] {
        let sessions = Sessions::new();
        let sidecar = sessions.sidecar().policy("manager.sources", sources.to_vec()).go();
        let row = "INSERT INTO evo_active_user_sessions (sid, internalKey, lasthit, ip) VALUES";
        sql(&sidecar, &format!("{row} ('{ADMIN}', 3, CAST(strftime('%s', 'now') AS INTEGER), '::1')"));
        assert_eq!(sidecar.send(&with_session("raw", ADMIN)).status, 200, "{sources:?}");
        let line = eventually("the audit line is written", SOON, || sidecar.audit().pop());
        assert_eq!(line["rate_limit_identity"], format!("mgr:{user}"), "{sources:?}: {line}");
        assert_eq!(line["actor_user_id"], user, "{sources:?}: {line}");
        sidecar.finish();
    }
}

#[test]
fn a_user_whom_the_first_source_names_and_who_may_not_is_not_looked_for_elsewhere() {
    let sessions = Sessions::new();
    let sidecar = sessions.sidecar().policy("manager.sources", vec!["database", "session_file"]).go();
    let row = "INSERT INTO evo_active_user_sessions (sid, internalKey, lasthit, ip) VALUES";
    sql(&sidecar, &format!("{row} ('{ADMIN}', 2, CAST(strftime('%s', 'now') AS INTEGER), '::1')"));
    let forbidden = denied("forbidden", 403);
    assert_eq!(told(&sidecar.send(&with_session("raw", ADMIN))), forbidden, "the file names user 1");
    sql(&sidecar, "UPDATE evo_user_attributes SET blocked = 1 WHERE internalKey = 2");
    assert_eq!(told(&sidecar.send(&with_session("raw", ADMIN))), forbidden, "and user 2 is blocked");
    sidecar.finish();
}
