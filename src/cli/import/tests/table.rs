use serde_json::json;

use super::{load, made, noted, of};
use crate::cli::import::policy::convert;
use crate::cli::import::valid;
use crate::config::{Overrides, PolicyContext, Source, load_policy};

#[test]
fn what_is_not_carried_over_is_named() {
    let (_, notes) = of(json!({
        "idempotency": {"storage": "cache"}, "actor": {"service_role": "MCP", "block_login": false}, "listener": 1,
    }));
    for key in ["idempotency.storage", "actor.service_role", "actor.block_login", "listener"] {
        noted(&notes, &[key]);
    }
    let server = json!({"handle": "c", "transport": "web", "enabled": "false", "scopes": ["x"], "limits": 5,
        "class": "EvolutionCMS\\eMCP\\Servers\\ContentServer", "security": {"deny_tools": true}, "colour": "red"});
    let made = made(json!({}), Some(json!({"servers": [server], "redirect_domains": ["*"]})));
    assert_eq!(load(&made).servers.len(), 0, "\"false\" is no clear yes");
    let notes = made.notes.join("\n");
    for key in
        ["redirect_domains", "c: scopes", "[0].limits is 5", "[0].security.deny_tools", "[0].colour", "[0].enabled"]
    {
        noted(&notes, &[key]);
    }
}

#[test]
fn sapis_token_route_is_filled_in_and_off() {
    let (policy, notes) = of(json!({}));
    let token = &policy.auth.token;
    assert!(!token.enabled);
    assert_eq!((token.ttl_s, token.scopes.as_slice(), token.roles.as_slice()), (3600, &["*".to_owned()][..], &[1][..]));
    noted(&notes, &["auth.token.enabled = true", "/api/v1/token"]);
    assert!(!notes.contains(" is null"), "{notes}");
    noted(&notes, &["SAPI_JWT_ISS", "not set"]);

    let environment = |name: &str| {
        let value = match name {
            "SAPI_JWT_TTL" => "5",
            "SAPI_JWT_SCOPES" => "mcp:read, mcp:call,",
            "SAPI_ALLOWED_USER_ROLES" => "1, 3,x,0",
            "SAPI_VERSION" => "v2",
            "SAPI_BASE_PATH" => "/rest/",
            "SAPI_JWT_ISS" => "https://cms.example",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let made = convert(json!({}), None, "executor", &environment, &valid).expect("makes a policy");
    let policy = load(&made);
    let token = &policy.auth.token;
    assert_eq!((token.ttl_s, token.scopes.as_slice()), (60, &["mcp:read".to_owned(), "mcp:call".to_owned()][..]));
    assert_eq!((token.roles.as_slice(), policy.auth.issuer.as_str()), (&[1, 3][..], "https://cms.example"));
    let notes = made.notes.join("\n");
    for words in [
        &["SAPI_JWT_TTL is \"5\"", "60"][..],
        &["SAPI_ALLOWED_USER_ROLES", "\"x\""],
        &["SAPI_ALLOWED_USER_ROLES", "\"0\""],
        &["clients must then ask /rest/v1/token in place of /rest/v2/token"],
    ] {
        noted(&notes, words);
    }
    assert!(!notes.contains("not set"), "{notes}");

    for without in [json!({"auth": {"mode": "none"}}), json!({"mode": {"api": false}}), json!({"enable": false})] {
        let (_, notes) = of(without);
        noted(&notes, &["auth.token: ", "None are issued here"]);
    }

    // Switched on, it is a policy that loads.
    let on = made.text.replace("[auth.token]\nenabled = false", "[auth.token]\nenabled = true");
    let source = Source::embedded("test", &on, std::path::Path::new("."));
    let on = load_policy(&source, &Overrides::default(), PolicyContext::default()).expect("is valid");
    assert!(on.auth.token.enabled);
    let bare = |name: &str| (name == "SAPI_BASE_PATH").then(String::new);
    let made = convert(json!({}), None, "executor", &bare, &valid).expect("makes a policy");
    assert_eq!(load(&made).routes.base, "", "an empty base is a base");
    noted(&made.notes.join("\n"), &["sApi's /v1/token"]);
}

#[test]
fn managers_routes_have_a_note_and_an_example_that_loads() {
    let made = made(json!({"mode": {"internal": true}}), None);
    assert!(!load(&made).routes.manager);
    noted(&made.notes.join("\n"), &["mode.internal", "manager.sources", "404"]);
    let example = "# [manager]\n# sources = [\"session_file\"]\n# cookie = \"evo_session\"\n# session_minutes = 120\n";
    assert!(made.text.contains(example), "{}", made.text);
    let on = made.text.replace(example, &example.replace("# ", ""));
    let source = Source::embedded("test", &on, std::path::Path::new("."));
    let on = load_policy(&source, &Overrides::default(), PolicyContext::default()).expect("is valid");
    assert!(on.routes.manager);
    let (_, notes) = of(json!({"mode": {"internal": false}}));
    assert!(!notes.contains("manager.sources"), "{notes}");
    noted(&notes, &["mode.internal", "404 here"]);
}

#[test]
fn a_queue_is_there_as_in_emcp_whether_named_or_not() {
    use crate::policy::{Failover, QueueDriver};
    for (queue, driver, failover, words) in [
        (None, QueueDriver::Stask, Failover::Sync, "[queue_worker]"),
        (Some(json!({})), QueueDriver::Stask, Failover::Sync, "[queue_worker]"),
        (Some(json!({"failover": "fail"})), QueueDriver::Stask, Failover::Fail, "503"),
        (Some(json!({"driver": "redis"})), QueueDriver::Sync, Failover::Sync, "queue.driver is \"redis\""),
        (Some(json!({"driver": null})), QueueDriver::Sync, Failover::Sync, "queue.driver is null"),
        (Some(json!({"driver": "own"})), QueueDriver::Sync, Failover::Sync, "queue.driver is \"own\""),
        (Some(json!({"driver": "sync"})), QueueDriver::Sync, Failover::Sync, ""),
        (Some(json!({"failover": "never"})), QueueDriver::Stask, Failover::Fail, "queue.failover is \"never\""),
        (Some(json!({"failover": true})), QueueDriver::Stask, Failover::Fail, "queue.failover is true"),
    ] {
        let settings = queue.clone().map_or_else(|| json!({}), |queue| json!({"queue": queue}));
        let (policy, notes) = of(settings);
        assert_eq!((policy.queue.driver, policy.queue.failover), (driver, failover), "{queue:?}");
        noted(&notes, &[words]);
    }
}
