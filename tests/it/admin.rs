//! What operators and orchestrators ask the running binary: health, readiness with its reasons, status.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::stream_head;
use crate::harness::{Client, Next, Redis, Request, SENTINEL, Sidecar, Token, Upstream, call_params, eventually};

const SOON: Duration = Duration::from_secs(15);

/// Waits until the process is not ready for this reason alone.
fn unready(sidecar: &Sidecar, reason: &str) {
    let mut last = String::new();
    let seen = || {
        let answer = sidecar.admin_get("/readyz");
        last = answer.text();
        (answer.status == 503 && answer.json() == json!({"ready": false, "reasons": [reason]})).then_some(())
    };
    eventually(&format!("not ready: {reason}"), SOON, seen);
    assert_eq!(sidecar.admin_get("/healthz").text(), "ok\n");
    let status = sidecar.admin_get("/status").json();
    assert_eq!((&status["ready"], &status["reasons"]), (&json!(false), &json!([reason])));
}

fn ready(sidecar: &Sidecar) {
    let seen = || {
        let answer = sidecar.admin_get("/readyz");
        (answer.status == 200 && answer.json() == json!({"ready": true, "reasons": []})).then_some(())
    };
    eventually("ready", SOON, seen);
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// `policy.revision number` and so on, for every member at every depth.
fn shape(prefix: &str, value: &Value, into: &mut BTreeSet<(String, String)>) {
    for (name, value) in value.as_object().expect("an object") {
        let path = format!("{prefix}{name}");
        if value.is_object() {
            shape(&format!("{path}."), value, into);
        } else {
            into.insert((path, kind(value).to_owned()));
        }
    }
}

#[test]
fn status_is_as_documented() {
    let sidecar = Sidecar::start().go();
    assert_eq!(sidecar.call("raw.echo").status, 200);
    std::fs::write(sidecar.policy_file(), "mode = = 1").expect("is written");
    assert!(!sidecar.ctl(&["reload"]).status.success());

    let answer = sidecar.admin_get("/status");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let status = answer.json();
    let mut found = BTreeSet::new();
    shape("", &status, &mut found);
    let page = include_str!("../../docs/ADMIN.md").split("\n## Status\n").nth(1).expect("the chapter");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let rows: Vec<(&str, &str)> =
        rows.map(|(path, rest)| (path, rest.split(" | ").next().unwrap_or_default())).collect();
    for (path, kind) in &found {
        let row = rows.iter().find(|(documented, _)| documented == path);
        let (_, kinds) = row.unwrap_or_else(|| panic!("{path} is not documented"));
        assert!(kinds.split(" or ").any(|one| one == kind), "{path} is a {kind}, documented as {kinds}");
    }
    for (path, _) in rows {
        assert!(found.iter().any(|(have, _)| have == path), "{path} is documented and not there: {status}");
    }

    assert_eq!(status["name"], "mcp-sidecar");
    assert_eq!(status["policy"]["revision"], 1);
    assert_eq!(status["policy"]["servers"], json!(["content", "raw"]));
    assert_eq!(status["limits"], "memory");
    let problem = status["policy"]["last_problem"].as_str().expect("the refused file's problem");
    assert!(problem.contains("test-policy.toml"), "{problem}");
    let told = sidecar.ctl(&["status"]);
    let told: Value = serde_json::from_slice(&told.stdout).expect("ctl status prints JSON");
    assert_eq!(told["policy"], status["policy"]);
    sidecar.finish();
}

#[test]
fn a_foreign_host_reads_nothing() {
    let sidecar = Sidecar::start().go();
    for path in ["/metrics", "/status", "/readyz", "/healthz", "/nothing"] {
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1"] {
            let request = Request::new("GET", path).header("Host", host).header("Connection", "close");
            let answer = Client::connect(sidecar.admin).round_trip(&request);
            assert_eq!(answer.status, 403, "{path} for {host}");
            assert!(!answer.text().contains("mcp_sidecar") && !answer.text().contains("policy"), "{}", answer.text());
        }
    }
    for method in ["POST", "PUT", "DELETE"] {
        let request = Request::new(method, "/status").header("Content-Length", "0").header("Connection", "close");
        let mut request = request;
        request.declare_length = false;
        assert_eq!(Client::connect(sidecar.admin).round_trip(&request).status, 405, "{method}");
    }
    sidecar.finish();
}

#[test]
fn too_little_disk_is_a_reason() {
    let sidecar = Sidecar::start().set("audit.min_free_mb=1000000").go();
    unready(&sidecar, "audit: audit_disk_low");
    assert_eq!(sidecar.call("raw.echo").status, 200, "what arrives is served all the same");
    sidecar.finish();
}

#[test]
fn an_audit_log_that_cannot_be_written_is_a_reason_until_it_can() {
    let sidecar = Sidecar::start().go();
    ready(&sidecar);
    let (dir, aside) = (sidecar.data().join("audit"), sidecar.data().join("aside"));
    std::fs::rename(&dir, &aside).expect("is moved");
    std::fs::write(&dir, "no directory").expect("is written");
    sidecar.signal(rustix::process::Signal::USR1);
    unready(&sidecar, "audit: audit_unwritable");
    assert!(
        sidecar.metrics().lines().any(|line| {
            line.strip_prefix("mcp_sidecar_audit_write_errors_total ").is_some_and(|count| count != "0")
        })
    );
    std::fs::remove_file(&dir).expect("is removed");
    std::fs::rename(&aside, &dir).expect("is moved back");
    ready(&sidecar);
    assert_eq!(sidecar.call("raw.echo").status, 200);
    sidecar.finish();
}

#[test]
fn a_broken_database_is_a_reason() {
    let sidecar = Sidecar::start().go();
    ready(&sidecar);
    let site = sidecar.data().join("demo.sqlite");
    let good = std::fs::read(&site).expect("the demo site");
    std::fs::write(&site, vec![0x5a; good.len()]).expect("is overwritten");
    unready(&sidecar, "executor: database refuses");
    let search = json!({"name": "evo.content.search", "arguments": {"limit": 5, "offset": 0}});
    let answer = sidecar.rpc("content", "tools/call", search);
    assert_eq!(answer.json()["error"], json!({"code": -32603, "message": "Internal error"}), "{}", answer.text());
    let metrics = sidecar.metrics();
    assert!(
        metrics.contains("mcp_sidecar_executor_requests_total{outcome=\"failed\",tool=\"content\"} 1\n"),
        "{metrics}"
    );
    let failures = metrics.lines().filter(|line| line.starts_with("mcp_sidecar_executor_database_errors_total"));
    assert!(failures.into_iter().any(|line| !line.ends_with(" 0")), "{metrics}");
    sidecar.finish();
}

#[test]
fn a_redis_that_must_answer_is_a_reason_while_it_does_not() {
    let redis = Redis::start();
    let sidecar = Sidecar::start()
        .policy("rate_limit.on_store_failure", "deny")
        .set(redis.setting())
        .set("redis.timeout_ms=500")
        .go();
    ready(&sidecar);
    assert_eq!(sidecar.call("raw.echo").status, 200);
    redis.pause();
    // No request comes: the process finds out by itself, both that Redis is away and that it is back.
    unready(&sidecar, "limits: redis is unavailable and rate_limit.on_store_failure is \"deny\"");
    assert!(sidecar.metrics().contains("mcp_sidecar_limits_store_mode{mode=\"deny\"} 1\n"));
    assert_eq!(sidecar.admin_get("/status").json()["limits"], "deny");
    let refused = sidecar.call("raw.echo");
    assert_eq!((refused.status, refused.code().as_deref()), (503, Some("limits_unavailable")));
    redis.resume();
    ready(&sidecar);
    assert_eq!(sidecar.call("raw.echo").status, 200);
    sidecar.finish();
}

#[test]
fn a_redis_that_may_fail_is_no_reason() {
    let redis = Redis::start();
    let sidecar = Sidecar::start().policy("rate_limit.on_store_failure", "local").set(redis.setting()).go();
    redis.pause();
    eventually("the limits are counted here", SOON, || {
        assert_eq!(sidecar.call("raw.echo").status, 200);
        (sidecar.admin_get("/status").json()["limits"] == "local").then_some(())
    });
    ready(&sidecar);
    redis.resume();
    sidecar.finish();
}

#[test]
fn draining_is_a_reason_while_streams_end() {
    let upstream = Upstream::scripted(|_, peer| {
        peer.send(stream_head());
        peer.chunk("data: {}\n\n");
        peer.gone_within(Duration::from_secs(30));
        Next::Close
    });
    let mut sidecar = Sidecar::start().upstream(upstream).go();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call_params("raw.echo")});
    let mut client = Client::connect(sidecar.mcp);
    client.send(&sidecar.post("raw", &Token::of("alice"), body.to_string()).bytes());
    assert_eq!(client.head().status, 200);
    client.body_until("an event", SOON, |text| text.contains("data"));
    assert!(sidecar.ctl(&["drain"]).status.success());
    unready(&sidecar, "draining");
    assert!(sidecar.metrics().contains("mcp_sidecar_draining 1\n"));
    assert_eq!(sidecar.admin_get("/status").json()["draining"], true);
    drop(client);
    assert!(sidecar.exited_within(Duration::from_secs(40)).success());
    assert_eq!(sidecar.audit().iter().filter(|record| record["decision"] == "allow").count(), 1);
}

#[test]
fn the_access_log_hides_the_policys_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let sidecar = Sidecar::start()
        .policy("logging.redact_keys", vec!["pin".to_owned()])
        .set(format!("listen.access_log={{format=\"json\",path=\"{}\"}}", path.display()))
        .go();
    for target in [
        format!("/page?Pin={SENTINEL}&seen=1"),
        format!("/page?user[pin]={SENTINEL}&seen=2"),
        format!("/page?password={SENTINEL}&seen=3"),
    ] {
        let request = Request::new("GET", &target).header("Referer", &format!("http://a/?pin={SENTINEL}"));
        assert_eq!(sidecar.send(&request).status, 200);
    }
    let text = eventually("three lines", SOON, || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        (text.lines().count() == 3).then_some(text)
    });
    assert!(!text.contains(SENTINEL), "{text}");
    assert!((1..=3).all(|n| text.contains(&format!("seen={n}"))), "{text}");
    sidecar.finish();
}
