use serde_json::{Value, json};

use super::{content, load};
use crate::cli::import::policy::convert;
use crate::cli::import::valid;

/// Whatever PHP may hold.
fn anything() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e20..1e20_f64).prop_map(Value::from),
        prop_oneof!["[a-z*/.\\\\ \"#\n\u{7f}0-9-]{0,12}", Just("none".to_owned()), Just("*".to_owned())]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\n\u{1}.\" ]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The places of a value, each as the names that lead to it.
fn places(value: &Value) -> Vec<Vec<String>> {
    let Some(map) = value.as_object() else { return Vec::new() };
    let below = |(name, inner): (&String, &Value)| {
        let deeper = places(inner).into_iter().map(|mut place| {
            place.insert(0, name.clone());
            place
        });
        std::iter::once(vec![name.clone()]).chain(deeper).collect::<Vec<_>>()
    };
    map.iter().flat_map(below).collect()
}

proptest::proptest! {
    #[test]
    fn no_value_anywhere_makes_a_policy_that_does_not_load(
        at in proptest::sample::select(places(&json!({
            "enable": 1, "toolset_version": 1, "mode": {"api": 1, "internal": 1}, "acl": {"permission": 1},
            "route": {"api_prefix": 1, "manager_prefix": 1}, "auth": {"mode": 1, "require_scopes": 1, "scope_map": {"a": 1}},
            "queue": {"driver": 1, "failover": 1}, "rate_limit": {"enabled": 1, "per_minute": 1},
            "limits": {"max_payload_kb": 1, "max_result_items": 1, "max_result_bytes": 1}, "actor": {"mode": 1},
            "stream": {"enabled": 1, "max_stream_seconds": 1, "heartbeat_seconds": 1, "abort_on_disconnect": 1},
            "logging": {"channel": 1, "audit_enabled": 1, "redact_keys": 1}, "trace": {"header": 1},
            "security": {"allow_servers": 1, "deny_tools": 1, "enable_write_tools": 1}, "idempotency": {"header": 1},
            "domain": {"content": {"max_depth": 1}, "models": {"max_offset": 1, "allow": 1}},
            "server": {"handle": 1, "transport": 1, "class": 1, "enabled": 1, "tool_names": 1, "scope_map": {"a": 1},
                "limits": {"max_payload_kb": 1, "max_result_items": 1}, "rate_limit": {"per_minute": 1},
                "security": {"deny_tools": 1}, "stream": {"enabled": 1, "heartbeat_seconds": 1}, "odd\nname": 1},
        }))),
        value in anything(),
    ) {
        let mut all = json!({"server": content()});
        let mut place = &mut all;
        for name in &at {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[name.as_str()];
        }
        *place = value;
        let server = all.as_object_mut().and_then(|map| map.shift_remove("server"));
        // Scopes and paths are refused where they cannot be what they were: nothing stricter stands for them.
        match convert(all, Some(json!({"servers": [server]})), "executor", &|_| None, &valid) {
            Ok(made) => drop(load(&made)),
            Err(error) => {
                let error = error.to_string();
                let known = ["scope_map", "a scope must not be empty", "`route."];
                proptest::prop_assert!(known.iter().any(|word| error.contains(word)), "{error}");
            }
        }
    }
}
