//! The token endpoint: who gets a token, what it is worth, and that every refusal looks the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::harness::{Next, Request, Response, SENTINEL, Sidecar, Start, Upstream, eventually, json_answer};

const SOON: Duration = Duration::from_secs(10);
const ROUTE: &str = "/api/v1/token";
/// As PHP's `password_hash()` writes them; of `rasmuslerdorf`.
const BCRYPT: &str = "$2y$04$fqT42hZFs/mVyA3DmxqJ2u9wv9TmVG8aqAstNcsa6fsztZMuqqGGi";
const ARGON2I: &str = "$argon2i$v=19$m=1024,t=2,p=2$YzJBSzV4TUhkMzc3d3laeg$zqU/1IN0/AogfP4cmSJI1vc8lpXRW9/S0sYY2i2jHT0";
const ARGON2ID: &str =
    "$argon2id$v=19$m=1024,t=2,p=1$VWNXdHk5WUlxclN3RGp1RA$+zp7Q7gzsPyaGT3ylETYPeDe59ZTbp1oln5vC4CMH2A";
const PASSWORD: &str = "rasmuslerdorf";

fn on() -> Start {
    Sidecar::start().policy("auth.token.enabled", true).policy("auth.failures_per_minute", 0)
}

/// Writes into the demo site's users: 1 is `admin` of role 1, 2 `editor` of role 2, 3 `operator` of role 3.
fn write(sidecar: &Sidecar, statements: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let file = sidecar.data().join("demo.sqlite");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).busy_timeout(SOON);
        let mut connection = options.connect().await.expect("the demo site opens");
        for statement in statements {
            let statement = sqlx::AssertSqlSafe((*statement).to_owned());
            sqlx::raw_sql(statement).execute(&mut connection).await.expect("is written");
        }
        connection.close().await.expect("closes");
    });
}

fn password(sidecar: &Sidecar, user: u32, hash: &str) {
    write(sidecar, &[&format!("UPDATE evo_users SET password = '{hash}' WHERE id = {user}")]);
}

fn ask(username: &str, password: &str) -> Request {
    Request::new("POST", ROUTE)
        .header("Content-Type", "application/json")
        .body(json!({"username": username, "password": password}).to_string())
}

/// The token's claims, the signature aside.
fn claims(answer: &Response) -> Value {
    let token = answer.json()["object"]["token"].as_str().expect("a token").to_owned();
    let payload = token.split('.').nth(1).expect("three parts").to_owned();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON")
}

/// What is the same for every refusal of a credential: all but what names the request.
fn face(answer: &Response) -> (u16, String, Vec<(String, String)>) {
    let mut headers: Vec<_> = answer.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect();
    headers.retain(|(name, _)| !["x-trace-id", "x-request-id", "date"].contains(&name.as_str()));
    headers.sort();
    (answer.status, answer.text(), headers)
}

#[test]
fn it_is_off_unless_the_policy_says_so() {
    let sidecar = Sidecar::start().go();
    let answer = sidecar.send(&ask("admin", PASSWORD));
    assert_eq!((answer.status, answer.code().as_deref()), (404, Some("route_not_found")));
    sidecar.finish();
}

#[test]
fn a_name_and_its_password_are_worth_a_token_that_calls() {
    let sidecar = on().policy("auth.issuer", "us").policy("auth.token.roles", vec![1, 2, 3]).go();
    password(&sidecar, 1, BCRYPT);
    password(&sidecar, 2, ARGON2I);
    password(&sidecar, 3, ARGON2ID);
    let json = ask("admin", PASSWORD);
    let form = Request::new("POST", ROUTE)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("password={PASSWORD}&username=editor"));
    let third = ask("operator", PASSWORD);
    for (request, sub, user_id) in [(json, "admin", 1), (form, "editor", 2), (third, "operator", 3)] {
        let answer = sidecar.send(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let body = answer.json();
        assert_eq!((&body["success"], &body["message"], &body["code"]), (&json!(true), &json!(""), &json!(200)));
        let claims = claims(&answer);
        assert_eq!((&claims["sub"], &claims["user_id"], &claims["iss"]), (&json!(sub), &json!(user_id), &json!("us")));
        assert_eq!(claims["scopes"], json!(["mcp:read", "mcp:call"]));
        let life = claims["exp"].as_u64().zip(claims["iat"].as_u64()).map(|(exp, iat)| exp - iat);
        assert_eq!(life, Some(3600));
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
        let bearer = format!("Bearer {}", body["object"]["token"].as_str().expect("a token"));
        let request = Request::new("POST", "/api/v1/mcp/content")
            .header("Content-Type", "application/json")
            .header("Authorization", &bearer)
            .body(list);
        let listed = sidecar.send(&request);
        assert!(listed.json()["result"]["tools"].is_array(), "{}", listed.text());
    }
    let lines = eventually("both lines are written", SOON, || {
        let lines: Vec<Value> = sidecar.audit().into_iter().filter(|line| line["server_handle"] == "token").collect();
        (lines.len() == 3).then_some(lines)
    });
    for (line, user_id) in lines.iter().zip([1, 2, 3]) {
        assert_eq!((&line["decision"], &line["actor_user_id"]), (&json!("allow"), &json!(user_id)), "{line}");
        assert_eq!(line["rate_limit_identity"], format!("api:{user_id}"));
        assert!(!line.to_string().contains("admin"), "{line}");
    }
    sidecar.finish();
}

/// Prepares a user each for what can be wrong, and asks: (what, request, sApi's status).
fn refusals(sidecar: &Sidecar) -> Vec<(&'static str, Request, u16)> {
    password(sidecar, 1, BCRYPT);
    password(sidecar, 2, BCRYPT);
    password(sidecar, 3, BCRYPT);
    write(
        sidecar,
        &[
            "UPDATE evo_user_attributes SET role = 1, blocked = 1 WHERE internalKey = 3",
            "INSERT INTO evo_users (id, username, password) VALUES (4, 'old', '5f4dcc3b5aa765d61d8327deb882cf99')",
            "INSERT INTO evo_user_attributes (internalKey, role) VALUES (4, 1)",
        ],
    );
    let raw = |body: &str| ask("", "").body(body);
    vec![
        ("wrong password", ask("admin", "wrong"), 401),
        ("no password", raw(r#"{"username":"admin"}"#), 401),
        ("unknown name", ask("nobody", PASSWORD), 404),
        ("another case", ask("Admin", PASSWORD), 404),
        ("a name for SQL", ask("admin' OR 1=1 -- ", PASSWORD), 404),
        ("a name with a NUL", ask("admin\0", PASSWORD), 404),
        ("a long name", ask(&"a".repeat(300), PASSWORD), 404),
        ("another role", ask("editor", PASSWORD), 403),
        ("blocked", ask("operator", PASSWORD), 403),
        ("MD5", ask("old", "password"), 401),
        ("no name", raw(r#"{"password":"x"}"#), 422),
        ("an empty name", ask(" ", PASSWORD), 422),
        ("no JSON", raw("{"), 422),
        ("a name that is none", raw(r#"{"username":["admin"]}"#), 422),
    ]
}

#[test]
fn every_refusal_of_a_credential_has_one_face() {
    let sidecar = on().policy("auth.token.address_per_minute", 0).go();
    let mut faces = Vec::new();
    for (what, request, _) in refusals(&sidecar) {
        let answer = sidecar.send(&request);
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        faces.push((what, face(&answer)));
    }
    for (what, face) in &faces {
        assert_eq!(face, &faces[0].1, "{what}");
    }
    assert_eq!(faces[0].1.1, r#"{"success":false,"message":"Unauthenticated","object":{},"code":401}"#);
    sidecar.finish();
}

#[test]
fn compat_token_errors_gives_the_codes_of_sapi() {
    let sidecar = on().policy("auth.token.address_per_minute", 0).policy("compat.token_errors", true).go();
    for (what, request, status) in refusals(&sidecar) {
        let answer = sidecar.send(&request);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        let body = answer.json();
        assert_eq!((&body["success"], &body["code"], &body["object"]), (&json!(false), &json!(status), &json!({})));
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(4), "{what}");
    }
    sidecar.finish();
}

#[test]
fn md5_is_read_by_the_switch() {
    let sidecar = on().policy("auth.token.legacy_md5", true).go();
    for hash in ["5f4dcc3b5aa765d61d8327deb882cf99", "$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0"] {
        password(&sidecar, 1, hash);
        let right = if hash.starts_with('$') { "test12345" } else { "password" };
        assert_eq!(sidecar.send(&ask("admin", right)).status, 200, "{hash}");
        assert_eq!(sidecar.send(&ask("admin", "wrong")).status, 401, "{hash}");
    }
    sidecar.finish();
}

#[test]
fn up_prints_a_login_that_works() {
    let sidecar = on().go();
    let login = sidecar.said("login").to_owned();
    let (password, route) = login.strip_prefix("admin ").and_then(|rest| rest.split_once(" at ")).expect("a login");
    assert_eq!((sidecar.send(&ask("admin", password)).status, route), (200, ROUTE));
    sidecar.finish();
}

#[test]
fn a_denied_sub_gets_no_token() {
    let sidecar = on().policy("auth.deny_sub", vec!["admin"]).go();
    password(&sidecar, 1, BCRYPT);
    assert_eq!(sidecar.send(&ask("admin", PASSWORD)).status, 401);
    sidecar.finish();
}

#[test]
fn attempts_are_counted_by_name_and_by_address() {
    let sidecar = on().policy("auth.token.account_per_minute", 2).policy("auth.token.address_per_minute", 5).go();
    password(&sidecar, 1, BCRYPT);
    let status = |request: &Request| sidecar.send(request).status;
    assert_eq!([status(&ask("editor", "x")), status(&ask("editor", "x"))], [401, 401]);
    let third = sidecar.send(&ask("editor", PASSWORD));
    assert_eq!(third.status, 429, "{}", third.text());
    assert!(third.header("retry-after").and_then(|value| value.parse::<u32>().ok()).is_some_and(|s| s >= 1));
    assert_eq!(third.json()["code"], 429);
    assert_eq!(status(&ask("admin", PASSWORD)), 200, "another name is another account");
    assert_eq!(status(&ask("nobody", "x")), 401, "the fifth from this address");
    assert_eq!(status(&ask("admin", PASSWORD)), 429, "the sixth");
    sidecar.finish();
}

#[test]
fn failures_count_with_those_of_bad_tokens() {
    let sidecar = on().policy("auth.failures_per_minute", 2).go();
    password(&sidecar, 1, BCRYPT);
    let status = |request: &Request| sidecar.send(request).status;
    assert_eq!([status(&ask("admin", "a")), status(&ask("admin", "b"))], [401, 401]);
    assert_eq!(status(&ask("admin", PASSWORD)), 429);
    sidecar.finish();
}

#[test]
fn only_the_exact_form_is_served() {
    let sidecar = on().go();
    password(&sidecar, 1, BCRYPT);
    let good = ask("admin", PASSWORD);
    for target in [
        "/api/v1/token/",
        "/api/v1/token?x=1",
        "/api/v1/token;x",
        "/api/v1/Token",
        "/api/v1/%74oken",
        "//api/v1/token",
        "/api/v2/token",
        "/api/token",
        "/index.php/api/v1/token",
        "/api/v1/token/x",
        "http://127.0.0.1/api/v1/token",
    ] {
        let mut request = good.clone();
        request.target = target.to_owned();
        assert_eq!(sidecar.send(&request).status, 404, "{target}");
    }
    let mut get = good.clone().body("");
    (get.method, get.declare_length) = ("GET".to_owned(), false);
    let answer = sidecar.send(&get);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    for media_type in ["text/plain", "multipart/form-data; boundary=x"] {
        let request = good.clone().without("content-type").header("Content-Type", media_type);
        assert_eq!(sidecar.send(&request).status, 415, "{media_type}");
    }
    assert_eq!(sidecar.send(&ask("admin", &"a".repeat(20_000))).status, 413);
    assert_eq!(sidecar.send(&good.clone().header("Origin", "https://evil.example")).status, 403);
    assert_eq!(sidecar.send(&good).status, 200);
    assert_eq!(sidecar.canary.count(), 0);
    sidecar.finish();
}

#[test]
fn neither_name_nor_password_is_written_anywhere() {
    let sidecar = on().set("log.level=\"trace\"").set("listen.access_log.format=\"json\"").go();
    let secret = format!("{SENTINEL}-password");
    password(&sidecar, 1, &bcrypt::hash(&secret, 4).expect("hashes"));
    let granted = sidecar.send(&ask("admin", &secret));
    assert_eq!(granted.status, 200);
    assert!(!granted.text().contains(SENTINEL));
    password(&sidecar, 1, &format!("{SENTINEL}-unreadable"));
    for (name, password) in [("admin", secret.as_str()), (&format!("{SENTINEL}-name"), "x"), ("nobody", &secret)] {
        let answer = sidecar.send(&ask(name, password));
        assert_eq!(answer.status, 401);
        assert!(!answer.text().contains(SENTINEL));
    }
    let malformed = ask("", "").body(format!("{{\"username\":\"admin\",\"password\":\"{secret}"));
    assert_eq!(sidecar.send(&malformed).status, 401);
    // The site's database is gone: what is logged of that holds nothing of the question.
    write(&sidecar, &["ALTER TABLE evo_users RENAME TO gone"]);
    assert!(sidecar.send(&ask("admin", &secret)).status >= 500);
    eventually("the access log's lines", SOON, || (sidecar.output().matches(ROUTE).count() >= 6).then_some(()));
    sidecar.finish();
}

#[test]
fn another_upstream_than_our_executor_gets_no_password() {
    let sidecar = on().policy("auth.token.upstream", "raw").go();
    let answer = sidecar.send(&ask("admin", PASSWORD));
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(sidecar.upstream.count(), 0);
    sidecar.finish();
}

#[test]
fn an_executor_that_is_overloaded_is_told_as_that() {
    let key = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(key.path(), "k".repeat(32)).expect("is written");
    // What the name says is what is answered.
    let executor = Upstream::scripted(|seen, peer| {
        assert_eq!(seen.line, "POST /credentials HTTP/1.1");
        let name = seen.json()["username"].as_str().unwrap_or_default().to_owned();
        let whole = match name.as_str() {
            "granted" => peer.send(json_answer(&json!({"verdict": "granted", "user_id": 1}))),
            "garbage" => peer.send(json_answer(&json!({"verdict": "perhaps"}))),
            status => peer.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")),
        };
        if whole { Next::KeepAlive } else { Next::Close }
    });
    let upstream =
        format!("upstreams.scripted={{url=\"http://{}\",identity=true,key_file={:?}}}", executor.address(), key.path());
    let sidecar = on().policy("auth.token.upstream", "scripted").set(upstream).go();
    for (name, status, retry_after, message) in [
        ("granted", 200, None, ""),
        ("503", 503, Some("1"), "Overloaded, try again later"),
        ("500", 502, Some("2"), "The upstream failed"),
        ("401", 502, Some("2"), "The upstream failed"),
        ("garbage", 502, Some("2"), "The upstream failed"),
    ] {
        let answer = sidecar.send(&ask(name, PASSWORD));
        let (body, told) = (answer.json(), (answer.status, answer.header("retry-after")));
        assert_eq!(told, (status, retry_after), "{name}: {body}");
        assert_eq!((&body["success"], &body["code"]), (&json!(status == 200), &json!(status)), "{name}");
        assert_eq!(body["message"], message, "{name}");
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(4), "{name}: {body}");
    }
    eventually("the audit lines name them", SOON, || {
        let lines = sidecar.audit();
        let codes: BTreeSet<&str> = lines.iter().filter_map(|line| line["deny_code"].as_str()).collect();
        (codes == BTreeSet::from(["overloaded", "upstream_failed"])).then_some(())
    });
    sidecar.finish();
}

#[test]
fn few_passwords_are_hashed_at_once_and_who_waits_too_long_is_told_so() {
    // As dear as a second here: of those who wait behind three pairs, nobody gets a turn within two seconds.
    let takes = |cost| {
        let began = Instant::now();
        let hash = bcrypt::hash(PASSWORD, cost).expect("hashes");
        (began.elapsed() >= Duration::from_secs(1)).then_some(hash)
    };
    let hash = (6..=14).find_map(takes).unwrap_or_else(|| bcrypt::hash(PASSWORD, 15).expect("hashes"));
    let sidecar = on().policy("auth.token.account_per_minute", 0).policy("auth.token.address_per_minute", 0).go();
    for user in [1, 2, 3] {
        password(&sidecar, user, &hash);
    }
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..10)
            .map(|number| {
                let words = [("admin", PASSWORD), ("admin", "wrong"), ("nobody", PASSWORD)][number % 3];
                let sidecar = &sidecar;
                scope.spawn(move || (words, sidecar.send(&ask(words.0, words.1))))
            })
            .collect();
        let answered = asked.into_iter().map(|asking| asking.join().expect("no panic"));
        answered
            .map(|(words, answer)| {
                let expected = if words == ("admin", PASSWORD) { 200 } else { 401 };
                assert!([expected, 503].contains(&answer.status), "{words:?}: {}", answer.text());
                answer
            })
            .collect()
    });
    let overloaded: Vec<&Response> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(!overloaded.is_empty() && overloaded.len() < answers.len(), "{} of ten", overloaded.len());
    for answer in overloaded {
        assert_eq!(answer.header("retry-after"), Some("1"));
        let expected = json!({"success": false, "message": "Overloaded, try again later", "object": {}, "code": 503});
        assert_eq!(answer.json(), expected);
    }
    assert_eq!(sidecar.send(&ask("admin", PASSWORD)).status, 200, "afterwards there is room");
    sidecar.finish();
}
