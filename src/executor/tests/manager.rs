//! Who may ask who uses the manager, and what is told.

use super::*;
use crate::executor::Sessions;
use crate::protocol::{MANAGER_HANDLE, csrf_digest};

const ID: &str = "0123456789abcdefADMIN01";

/// A site, and a directory with one session; the policy names its files.
async fn watched() -> (Site, TempDir) {
    let mut site = site(0).await;
    let sessions = tempfile::tempdir().unwrap();
    let session = "mgrValidated|i:1;usertype|s:7:\"manager\";mgrInternalKey|i:3;_token|s:1:\"x\";";
    std::fs::write(sessions.path().join(format!("sess_{ID}")), session).unwrap();
    let mut policy = snapshot();
    policy.manager.sources = vec![IdentitySource::SessionFile];
    site.policy.store(Arc::new(policy));
    let settings = Settings { listen: Listen::Unix("unused".into()) };
    let metrics = Metrics::new(&[]).unwrap();
    let executor = Executor::new(site.pool.clone(), Arc::clone(&site.policy), &settings, metrics.executor().unwrap());
    let found = Sessions { directory: Some(sessions.path().to_owned()), ..Sessions::default() };
    site.executor = Arc::new(executor.with_sessions(found).unwrap());
    (site, sessions)
}

async fn ask(site: &Site, path: &str, identity: Option<Identity>, body: &str) -> (StatusCode, Value) {
    let mut request = Request::post(path);
    if let Some(identity) = identity {
        request = request.header(IDENTITY_HEADER, sign_identity(&identity, body.as_bytes(), None, 0).0);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = router(site.executor.clone()).call(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

fn asker() -> Option<Identity> {
    Some(Identity { server: MANAGER_HANDLE.to_owned(), ..Identity::default() })
}

#[tokio::test]
async fn the_sidecar_alone_is_told_and_no_secret() {
    let (site, _sessions) = watched().await;
    let question = json!({"session": ID}).to_string();
    let user = json!({"id": 3, "role": 3, "permissions": ["access_permissions", "emcp"], "csrf": csrf_digest("x")});
    assert_eq!(ask(&site, "/mcp/@manager", asker(), &question).await, (StatusCode::OK, json!({"user": user})));
    for identity in [None, Some(caller())] {
        let (status, answer) = ask(&site, "/mcp/@manager", identity, &question).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
    }
    let (status, _) = ask(&site, "/mcp/content", asker(), &question).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a question is no call");
    let response = router(site.executor.clone()).call(Request::get("/mcp/@manager").body(Body::empty()).unwrap());
    assert_eq!(response.await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn odd_questions_tell_nobody() {
    let (site, _sessions) = watched().await;
    for question in [
        json!({}),
        json!({"session": null}),
        json!({"session": ID, "token": ID}),
        json!({"token": ID}),
        json!({"session": "../x"}),
        json!({"session": format!("x/../sess_{ID}")}),
        json!({"session": format!("{ID}\u{0}")}),
    ] {
        let answer = ask(&site, "/mcp/@manager", asker(), &question.to_string()).await;
        assert_eq!(answer, (StatusCode::OK, json!({"user": null})), "{question}");
    }
    for (question, expected) in [
        (String::new(), StatusCode::BAD_REQUEST),
        (json!({"session": ID, "admin": true}).to_string(), StatusCode::BAD_REQUEST),
        (json!({"session": "a".repeat(5000)}).to_string(), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(ask(&site, "/mcp/@manager", asker(), &question).await.0, expected, "{question}");
    }
}
