use super::*;
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
