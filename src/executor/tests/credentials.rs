use std::time::Instant;

use super::*;
use crate::executor::password::{self, Comparison};
use crate::protocol::{CREDENTIALS_CONTEXT, CREDENTIALS_PATH};

/// Of `rasmuslerdorf`, as PHP's `password_hash()` wrote it.
const BCRYPT: &str = "$2y$04$fqT42hZFs/mVyA3DmxqJ2u9wv9TmVG8aqAstNcsa6fsztZMuqqGGi";

fn sidecar() -> Identity {
    Identity { context: CREDENTIALS_CONTEXT.to_owned(), ..Identity::default() }
}

async fn ask(site: &Site, identity: Identity, body: &str) -> (StatusCode, Value) {
    let (header, _) = sign_identity(&identity, body.as_bytes(), None, 0);
    let request = Request::post(CREDENTIALS_PATH).header(IDENTITY_HEADER, header).body(Body::from(body.to_owned()));
    let response = router(site.executor.clone()).call(request.unwrap()).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

/// The demo site, whose administrator has a password, and a policy with the token endpoint.
async fn with_password() -> Site {
    use sqlx::{ConnectOptions as _, Connection as _};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.sqlite");
    demo::create(&path, 0).await.unwrap();
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query("UPDATE evo_users SET password = ?").bind(BCRYPT).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let site = site_at(directory, &path);
    let mut policy = snapshot();
    policy.auth.token = TokenPolicy { enabled: true, roles: vec![1], ..TokenPolicy::default() };
    site.policy.store(Arc::new(policy));
    site
}

fn question(username: &str, password: &str) -> String {
    json!({"username": username, "password": password}).to_string()
}

#[tokio::test]
async fn the_verdict_says_what_is_wrong_to_the_sidecar_alone() {
    let site = with_password().await;
    let right = question("admin", "rasmuslerdorf");
    for (body, expected) in [
        (right.clone(), json!({"verdict": "granted", "user_id": 1})),
        (question("admin", "wrong"), json!({"verdict": "wrong_password"})),
        (question("nobody", "rasmuslerdorf"), json!({"verdict": "unknown_user"})),
        (question("editor", "rasmuslerdorf"), json!({"verdict": "not_permitted"})),
        (question("editor", "wrong"), json!({"verdict": "wrong_password"})),
    ] {
        assert_eq!(ask(&site, sidecar(), &body).await, (StatusCode::OK, expected), "{body}");
    }
    let (status, _) = ask(&site, sidecar(), r#"{"username":"admin","password":"x","more":1}"#).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn neither_question_passes_for_the_other() {
    let site = with_password().await;
    let right = question("admin", "rasmuslerdorf");
    let mixed = Identity { server: "content".to_owned(), ..sidecar() };
    for identity in [caller(), mixed, Identity::default()] {
        assert_eq!(ask(&site, identity, &right).await.0, StatusCode::UNAUTHORIZED);
    }
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(site.send_as(sidecar(), ping).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn it_is_off_with_the_policy() {
    let site = with_password().await;
    site.policy.store(Arc::new(snapshot()));
    assert_eq!(ask(&site, sidecar(), &question("admin", "rasmuslerdorf")).await.0, StatusCode::NOT_FOUND);
}

/// A site whose users' passwords are stored so: the first one's is the specimen.
async fn with_passwords(stored: &[(u32, &str)]) -> Site {
    use sqlx::{ConnectOptions as _, Connection as _};
    let site = with_password().await;
    let path = site._directory.path().join("site.sqlite");
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    for (id, password) in stored {
        let update = sqlx::query("UPDATE evo_users SET password = ? WHERE id = ?").bind(*password).bind(*id);
        assert_eq!(update.execute(&mut connection).await.unwrap().rows_affected(), 1, "{id}");
    }
    connection.close().await.unwrap();
    site
}

/// How long the question takes at best.
async fn time_of(site: &Site, body: &str, tries: u32) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..tries {
        let began = Instant::now();
        let (status, verdict) = ask(site, sidecar(), body).await;
        best = best.min(began.elapsed());
        assert_eq!(status, StatusCode::OK, "{verdict}");
        assert_ne!(verdict["verdict"], "granted", "{verdict}");
    }
    best
}

/// bcrypt at another cost; nobody has its password.
fn bcrypt(cost: &str) -> String {
    BCRYPT.replace("$04$", &format!("${cost}$"))
}

#[tokio::test]
async fn no_refusal_tells_by_its_time_whose_name_it_was_asked_with() {
    let md5 = "5f4dcc3b5aa765d61d8327deb882cf99";
    // The specimen is the cheapest.
    let site = with_passwords(&[(1, md5), (2, &bcrypt("09")), (3, "no hash")]).await;
    let mut policy = snapshot();
    policy.auth.token = TokenPolicy { enabled: true, roles: vec![99], legacy_md5: true, ..TokenPolicy::default() };
    site.policy.store(Arc::new(policy));
    let dear = question("editor", "wrong");
    time_of(&site, &dear, 1).await;
    let mut times = Vec::new();
    for (name, password) in
        [("editor", "wrong"), ("nobody", "wrong"), ("admin", "wrong"), ("admin", "password"), ("operator", "wrong")]
    {
        times.push((name, time_of(&site, &question(name, password), 5).await));
    }
    let (least, most) = (times.iter().map(|(_, time)| *time).min(), times.iter().map(|(_, time)| *time).max());
    assert!(most < least.map(|time| time * 2), "{times:?}");
}

#[tokio::test]
async fn a_name_that_is_unknown_costs_a_hash_even_where_none_was_made_before() {
    let time_to_compare = |stored: &str| {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let began = Instant::now();
            assert_eq!(password::compare(b"wrong", stored.as_bytes(), false), Comparison::Mismatch);
            best = best.min(began.elapsed());
        }
        best
    };
    let (specimen, dummy) = (bcrypt("09"), bcrypt("10"));
    for (name, first, hash) in
        [("nobody", &*specimen, &specimen), ("operator", &specimen, &specimen), ("nobody", "no hash", &dummy)]
    {
        let site = with_passwords(&[(1, first), (3, "no hash")]).await;
        let (took, hash) = (time_of(&site, &question(name, "wrong"), 1).await, time_to_compare(hash));
        assert!(took > hash / 2, "{name}, {first}: {took:?} of {hash:?}");
    }
}
