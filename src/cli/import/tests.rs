//! What becomes of PHP's values, without PHP: each case is what the script prints of a file.

use serde_json::{Value, json};

use crate::cli::import::policy::{Made, convert};
use crate::cli::import::valid;
use crate::config::{Overrides, PolicyContext, Source, load_policy};
use crate::policy::Snapshot;

fn made(settings: Value, servers: Option<Value>) -> Made {
    convert(settings, servers, "executor", &|_| None, &valid).expect("makes a policy")
}

fn load(made: &Made) -> Snapshot {
    let source = Source::embedded("test", &made.text, std::path::Path::new("."));
    load_policy(&source, &Overrides::default(), PolicyContext::default()).expect("is valid")
}

/// The policy of these settings, and the notes, one a line.
fn of(settings: Value) -> (Snapshot, String) {
    let made = made(settings, None);
    (load(&made), made.notes.join("\n"))
}

#[track_caller]
fn noted(notes: &str, words: &[&str]) {
    let found = notes.lines().any(|note| words.iter().all(|word| note.contains(word)));
    assert!(found, "no note says {words:?}:\n{notes}");
}

#[test]
fn what_allows_is_never_wider_than_php_took_it() {
    // A block replaced the package's own as a whole, and without `models` no model was allowed.
    for (domain, key) in [
        (json!({"content": {"max_depth": 3}}), "domain.models.allow"),
        (json!({"models": {"max_offset": 10}}), "domain.models.allow"),
        (json!({"models": {"allow": "SiteTemplate"}}), "domain.models.allow"),
        (json!({"models": {"allow": null}}), "domain.models.allow"),
        (json!({"models": "SiteTemplate"}), "domain.models is \"SiteTemplate\""),
        (json!([]), "domain.models.allow"),
        (Value::Null, "domain.models.allow"),
        (json!(5), "domain is 5"),
    ] {
        let (policy, notes) = of(json!({"domain": domain}));
        assert_eq!(policy.domain.models_allow, Vec::<String>::new(), "{domain}");
        assert!(!policy.compat.emcp_models);
        noted(&notes, &[key]);
    }
    let (policy, notes) = of(json!({}));
    assert_eq!(policy.domain.models_allow.len(), 13);
    noted(&notes, &["models of people and rights stay readable"]);
    let allow =
        json!({"domain": {"models": {"allow": ["Other\\Models\\User", "\\evolutioncms\\models\\usER", 7, [1]]}}});
    let (policy, notes) = of(allow);
    assert_eq!(policy.domain.models_allow, ["User"]);
    for left_out in ["Other\\\\Models\\\\User", "\"7\"", "[1]"] {
        noted(&notes, &["domain.models.allow", left_out]);
    }

    for servers in [json!("*"), json!("content"), json!(true), json!(3), Value::Null, json!([])] {
        let (policy, notes) = of(json!({"security": {"allow_servers": servers}}));
        assert!(policy.security.allow_servers.find("content").is_none(), "{servers}");
        if !servers.is_array() {
            noted(&notes, &["security.allow_servers is", "nothing is allowed"]);
        }
    }
    let (policy, notes) = of(json!({"security": {"allow_servers": {"a": "con*", "b": "sh op", "c": true}}}));
    assert!(policy.security.allow_servers.find("content").is_some());
    noted(&notes, &["security.allow_servers", "sh op"]);
    noted(&notes, &["security.allow_servers", "true"]);
    let (policy, _) = of(json!({"security": {"enable_write_tools": true}}));
    assert!(
        policy.security.allow_servers.find("content").is_some(),
        "eMCP's code allowed all where the list was absent"
    );

    for mode in [json!(" none "), json!("NONE"), json!(["none"]), json!(false), Value::Null, json!("jwt")] {
        let (policy, notes) = of(json!({"auth": {"mode": mode}}));
        assert_eq!(policy.auth.mode, crate::policy::AuthMode::SapiJwt);
        noted(&notes, &["auth.mode is", &mode.to_string()]);
    }
    for permission in [json!(""), json!(["emcp"]), json!("em cp"), Value::Null] {
        let made = made(json!({"acl": {"permission": permission}}), None);
        assert!(made.text.contains("\ninternal = false\n"), "{}", made.text);
        noted(&made.notes.join("\n"), &["acl.permission is", &permission.to_string(), "mode.internal"]);
    }
}

#[test]
fn what_denies_is_never_narrower_than_php_took_it() {
    let (policy, notes) = of(json!({"security": {"deny_tools": " evo.model.* "}}));
    assert!(policy.security.deny_tools.find("evo.model.list").is_some());
    assert!(!notes.contains("deny_tools"), "{notes}");
    let (policy, notes) =
        of(json!({"security": {"deny_tools": {"x": "evo.content.get", "y": "evo content", "z": null}}}));
    assert!(policy.security.deny_tools.find("evo.content.get").is_some());
    noted(&notes, &["security.deny_tools", "evo content"]);
    noted(&notes, &["security.deny_tools", "null"]);
    let (policy, notes) = of(json!({"logging": {"channel": "emcp"}}));
    assert!(policy.logging.redact_keys.iter().any(|key| key == "token"));
    noted(&notes, &["logging.redact_keys"]);
}

#[test]
fn switches_of_another_kind_fall_to_the_strict_side() {
    for unclear in [json!("false"), json!("off"), json!("maybe"), json!(["x"]), Value::Null] {
        let made = made(
            json!({
                "enable": unclear, "mode": {"api": unclear}, "auth": {"require_scopes": unclear},
                "rate_limit": {"enabled": unclear}, "security": {"enable_write_tools": unclear},
                "stream": {"enabled": unclear}, "logging": {"audit_enabled": unclear},
            }),
            None,
        );
        let policy = load(&made);
        assert!(made.text.contains("\nenable = false\n") && made.text.contains("\napi = false\n"), "{}", made.text);
        assert!(policy.auth.require_scopes && policy.rate_limit.enabled && policy.logging.audit_enabled);
        assert!(!policy.security.enable_write_tools && !policy.stream.enabled && !policy.routes.api);
        let notes = made.notes.join("\n");
        noted(&notes, &["enable is", &unclear.to_string()]);
        noted(&notes, &["mode.api is"]);
    }
    for (value, is) in
        [(json!("on"), true), (json!(1), true), (json!("0"), false), (json!(0), false), (json!(""), false)]
    {
        let (policy, notes) = of(json!({"stream": {"enabled": value}}));
        assert_eq!(policy.stream.enabled, is, "{value}");
        assert!(!notes.contains("stream"), "{notes}");
    }
}

#[test]
fn numbers_are_cast_and_raised_as_php_did() {
    for (value, bytes) in [
        (json!("512"), 512 * 1024),
        (json!(" 12kb"), 12 * 1024),
        (json!(7.9), 7 * 1024),
        (json!(true), 1024),
        (json!(0), 1024),
        (json!(-5), 1024),
        (json!("many"), 1024),
        (json!([3]), 1024),
        (Value::Null, 1024),
        (json!(u64::MAX), 1 << 30),
        (json!("1e99"), 1 << 30),
    ] {
        let (policy, notes) = of(json!({"limits": {"max_payload_kb": value}}));
        assert_eq!(policy.limits.max_payload_bytes, bytes, "{value}");
        assert_eq!(notes.contains("limits.max_payload_kb is"), value != "512", "{value}: {notes}");
    }
    for (value, per_minute) in [(json!(0), 0), (json!(-1), 0), (json!("x"), 60), (json!(5_000_000), 1_000_000)] {
        let (policy, notes) = of(json!({"rate_limit": {"per_minute": value}}));
        assert_eq!(policy.rate_limit.per_minute, per_minute, "{value}");
        assert_eq!(notes.contains("rate_limit.per_minute is"), value != 0, "{value}: {notes}");
    }
    // A server's rate counted where it was numeric, else the global one did.
    for (value, per_minute) in [(json!("12"), 12), (json!("12 or so"), 60), (json!(true), 60), (Value::Null, 60)] {
        let server = json!({"handle": "c", "transport": "web", "enabled": true, "rate_limit": {"per_minute": value},
            "class": "EvolutionCMS\\eMCP\\Servers\\ContentServer"});
        let made = made(json!({}), Some(json!({"servers": [server]})));
        assert_eq!(load(&made).servers[0].per_minute, per_minute, "{value}");
        assert_eq!(made.notes.join("\n").contains("servers[0].rate_limit.per_minute is"), value != "12");
    }
    let (policy, notes) = of(json!({"idempotency": {"ttl_seconds": 5}}));
    assert_eq!(policy.idempotency.ttl_seconds, 60);
    noted(&notes, &["idempotency.ttl_seconds is 5", "60"]);
    let (policy, notes) = of(json!({"trace": {"header": "no header"}, "idempotency": {"header": ""}}));
    assert_eq!((policy.trace.header.as_str(), policy.idempotency.header.as_str()), ("x-trace-id", "idempotency-key"));
    noted(&notes, &["trace.header"]);
    noted(&notes, &["idempotency.header"]);
}

#[test]
fn a_scalar_where_a_table_belongs_has_a_note() {
    let blocks = ["mode", "route", "auth", "rate_limit", "limits", "stream", "security", "logging", "trace", "acl"];
    for name in blocks.into_iter().chain(["domain", "queue", "idempotency", "actor"]) {
        for value in [json!("api"), json!(512), json!(false)] {
            let (_, notes) = of(json!({name: value}));
            noted(&notes, &[&format!("{name} is {value}, where an array belongs")]);
        }
    }
    let (policy, notes) = of(json!({"mode": ["api"], "auth": {"scope_map": "x"}, "domain": {"content": 5}}));
    assert!(policy.routes.api);
    for words in ["mode.0 is not known", "auth.scope_map is \"x\"", "domain.content is 5"] {
        noted(&notes, &[words]);
    }
}

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
fn servers_that_php_left_out_are_not_served() {
    let content = "EvolutionCMS\\eMCP\\Servers\\ContentServer";
    let entry = |handle: &str, transport: &str, class: &str, enabled: bool| json!({"handle": handle, "transport": transport, "class": class, "enabled": enabled});
    let made = made(
        json!({}),
        Some(json!({"servers": [
            "content",
            entry("", "web", content, true),
            entry("a/b", "web", content, true),
            entry("pigeon", "carrier", content, true),
            entry("content", "web", content, false),
            entry("content", "web", &format!("\\{content}"), true),
            entry("content", "web", content, true),
            entry("other", "web", content, true),
            entry("own", "web", "App\\Mcp\\ContentServer", true),
        ]})),
    );
    let policy = load(&made);
    let served: Vec<&str> = policy.servers.iter().map(|server| &*server.handle).collect();
    assert_eq!(served, ["content"], "{}", made.text);
    let notes = made.notes.join("\n");
    for words in [
        &["servers[0] is"][..],
        &["servers[1].handle"],
        &["servers[2].handle"],
        &["servers[3].transport"],
        &["servers[4]", "is taken"],
        &["servers[6]", "is taken"],
        &["servers[7].enabled is false"],
        &["own: the class", "a comment here"],
    ] {
        noted(&notes, words);
    }
    assert!(made.text.contains("\n# [[servers]]\n# handle = \"own\"\n# enabled = true\n"), "{}", made.text);
}

#[test]
fn a_registry_without_servers_makes_a_policy_that_says_so() {
    for registry in [json!({}), json!({"servers": []}), json!({"servers": "content"}), json!({"servers": null})] {
        let made = made(json!({}), Some(registry));
        assert_eq!(load(&made).servers.len(), 0);
        noted(&made.notes.join("\n"), &["mcp.php registers no server", "404"]);
    }
}

fn content() -> Value {
    json!({"handle": "content", "transport": "web", "enabled": true,
        "class": "EvolutionCMS\\eMCP\\Servers\\ContentServer"})
}

#[test]
fn a_servers_cap_of_items_that_php_never_read_does_not_lower_what_was_served_nor_raise_it() {
    for (global, items, expected, word) in [
        (100, json!(50), 100, "was left out"),
        (100, json!(25), 25, "counts here"),
        (100, json!(100), 100, "was left out"),
        (100, json!(500), 100, "was left out"),
        (30, json!(40), 30, "was left out"),
        (100, json!("x"), 100, "was left out"),
        (100, Value::Null, 100, "was left out"),
    ] {
        let mut server = content();
        server["limits"] = json!({"max_result_items": items});
        let made = made(json!({"limits": {"max_result_items": global}}), Some(json!({"servers": [server]})));
        assert_eq!(load(&made).servers[0].limits.max_result_items, expected, "{items}");
        noted(&made.notes.join("\n"), &["servers[0].limits.max_result_items", word]);
    }
    let shipped = made(json!({}), None);
    assert_eq!(load(&shipped).servers[0].limits.max_result_items, 100);
}

/// Which scopes a server asks for.
fn needs(made: &Made, methods: &[&str]) -> Vec<String> {
    let policy = load(made);
    methods.iter().map(|method| policy.servers[0].scope_map.required(method).0.to_owned()).collect()
}

#[test]
fn clients_get_past_initialize_with_the_maps_that_emcp_ships() {
    let methods = ["initialize", "notifications/initialized", "ping", "resources/list", "tools/call", "admin/x", "odd"];
    let read = "mcp:read";
    let usual = [read, read, read, read, "mcp:call", "mcp:admin", "mcp:admin"];
    let mut global = json!({
        "mcp:read": ["initialize", "ping", "tools/list", "resources/list", "resources/read", "prompts/list",
            "prompts/get", "completion/complete"],
        "mcp:call": ["tools/call"], "mcp:admin": ["admin/*"],
    });
    let mut server = content();
    server["scope_map"] =
        json!({"mcp:read": ["initialize", "tools/list", "resources/read"], "mcp:call": ["tools/call"]});
    let registry = json!({"servers": [server]});
    let shipped = made(json!({"auth": {"scope_map": global}}), Some(registry.clone()));
    assert_eq!(needs(&shipped, &methods), usual, "{}", shipped.text);
    assert!(!shipped.text.contains("\nscope_map."), "{}", shipped.text);
    let notes = shipped.notes.join("\n");
    noted(&notes, &["auth.scope_map", "notifications/*", "\"mcp:read\""]);
    noted(&notes, &["servers[0].scope_map", "[auth.scope_map] counts"]);

    // A site's own global map did not count for this server, and does not now.
    global["mcp:read"] = json!(["*"]);
    let own = made(json!({"auth": {"scope_map": global}}), Some(registry));
    assert_eq!(needs(&own, &methods), usual, "{}", own.text);
    noted(&own.notes.join("\n"), &["servers[0].scope_map", "eMCP's global map counts"]);
}

#[test]
fn a_map_of_the_sites_own_is_completed_and_changes_nothing_else() {
    let methods = ["initialize", "notifications/initialized", "ping", "tools/call", "resources/list"];
    let admin = "mcp:admin";
    for (map, expected) in [
        (json!({"a": ["initialize", "tools/*"]}), ["a", "a", "a", "a", admin]),
        (json!({"a": "initialize", "b": ["ping"], "c": ["*"]}), ["a", "a", "b", "c", "c"]),
        (json!({"a": ["initialize"], "b": ["notifications/*", "tools/call"]}), ["a", "b", "a", "b", admin]),
        (json!({"a": ["*"]}), ["a", "a", "a", "a", "a"]),
        (json!({"b": ["tools/call"]}), [admin, admin, admin, "b", admin]),
        (json!(["initialize", "tools/call"]), ["0", "0", "0", "1", admin]),
        (
            json!({"a": ["", 5, "initialize"], "b": [], "c": null, "d": {"x": "tools/call"}}),
            ["a", "a", "a", "d", admin],
        ),
    ] {
        let global = made(json!({"auth": {"scope_map": map}}), None);
        assert_eq!(needs(&global, &methods), expected, "{map}");
        let mut server = content();
        server["scope_map"] = map.clone();
        let own = made(json!({}), Some(json!({"servers": [server]})));
        assert_eq!(needs(&own, &methods), expected, "{map}");
        let added = expected[0] != admin && map != json!({"a": ["*"]});
        assert_eq!(own.notes.iter().any(|note| note.starts_with("servers[0].scope_map")), added, "{map}");
    }
    // A map that says nothing counted as none.
    for map in [json!([]), Value::Null, json!({"a": []})] {
        let made = made(json!({"auth": {"scope_map": map}}), None);
        assert_eq!(needs(&made, &methods), ["mcp:read", "mcp:read", "mcp:read", "mcp:call", "mcp:read"]);
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
