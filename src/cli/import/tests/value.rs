use serde_json::{Value, json};

use super::{load, made, noted, of};

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
