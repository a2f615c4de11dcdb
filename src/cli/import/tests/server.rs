use serde_json::{Value, json};

use super::{content, load, made, noted};
use crate::cli::import::policy::Made;

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
fn a_tool_that_php_named_twice_is_named_once() {
    let mut server = content();
    server["tool_names"] = json!(["find", "*", "find", "*"]);
    let made = made(json!({}), Some(json!({"servers": [server]})));
    assert!(made.text.contains("tool_names = [\"find\", \"*\"]"), "{}", made.text);
    load(&made);
}

#[test]
fn a_registry_without_servers_makes_a_policy_that_says_so() {
    for registry in [json!({}), json!({"servers": []}), json!({"servers": "content"}), json!({"servers": null})] {
        let made = made(json!({}), Some(registry));
        assert_eq!(load(&made).servers.len(), 0);
        noted(&made.notes.join("\n"), &["mcp.php registers no server", "404"]);
    }
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
