use std::fmt::Write as _;

use anyhow::bail;
use serde_json::{Value, json};

use crate::cli::import::setting::{Notes, Settings};
use crate::config::models;

/// eMCP's own map of scopes.
const SCOPES: [(&str, &[&str]); 3] = [
    (
        "mcp:read",
        &[
            "initialize",
            "ping",
            "notifications/*",
            "tools/list",
            "resources/list",
            "resources/read",
            "prompts/list",
            "prompts/get",
            "completion/complete",
        ],
    ),
    ("mcp:call", &["tools/call"]),
    ("mcp:admin", &["admin/*"]),
];
const REDACTED: [&str; 7] = ["authorization", "token", "jwt", "secret", "cookie", "password", "api_key"];

/// A policy, and what is not in it.
pub(super) struct Made {
    pub text: String,
    pub notes: Notes,
}

/// Makes a policy of eMCP's settings and its list of servers. `valid` tells what a policy's loader says.
///
/// # Errors
/// What the loader says about a policy that cannot be mended by leaving out what is optional.
pub(super) fn convert(
    settings: Value,
    servers: Option<Value>,
    upstream: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    valid: &dyn Fn(&str) -> Result<(), String>,
) -> anyhow::Result<Made> {
    let mut notes = Notes::new();
    let mut optional = Vec::new();
    let mut root = Settings::new("", settings);
    let mut text = globals(&mut root, environment, &mut optional, &mut notes);
    root.finish(&mut notes);
    text.push_str(&registry(servers, upstream, &mut notes));
    let whole = |tables: &str| format!("{text}{tables}\n[end]\n");
    if let Err(report) = valid(&whole("")) {
        bail!("these settings make no valid policy; change them, or write the policy by hand\n{report}");
    }
    // Tables that not every version of this program reads.
    let mut tables = String::new();
    for (name, table) in optional {
        let more = format!("{tables}\n{table}");
        if valid(&whole(&more)).is_ok() {
            tables = more;
        } else {
            notes.push(format!("{name} has no place in this version and was left out"));
        }
    }
    let mut head = "# Made of eMCP's PHP settings by `mcp-sidecar import`. Keys: docs/CONFIG.md.\n".to_owned();
    for note in &notes {
        let _ = writeln!(head, "# note: {}", note.replace(['\n', '\r'], " "));
    }
    Ok(Made { text: format!("{head}{}", whole(&tables)), notes })
}

/// Everything but the servers.
fn globals(
    root: &mut Settings,
    environment: &dyn Fn(&str) -> Option<String>,
    optional: &mut Vec<(&'static str, String)>,
    notes: &mut Notes,
) -> String {
    let mut out = Page::default();
    out.key("enable", root.switch("enable", true));
    out.key("toolset_version", root.text("toolset_version", "1.0", notes));
    let mut mode = root.below("mode");
    out.table("mode");
    out.key("api", mode.switch("api", true));
    out.key("internal", mode.switch("internal", true));
    mode.finish(notes);
    let mut route = root.below("route");
    let segment = |text: String| text.trim_matches('/').to_owned();
    out.table("route");
    out.key("base", segment(environment("SAPI_BASE_PATH").unwrap_or_else(|| "api".to_owned())));
    out.key("version", "v1");
    out.key("api_prefix", segment(route.text("api_prefix", "mcp", notes)));
    out.key("manager_prefix", segment(route.text("manager_prefix", "emcp", notes)));
    route.finish(notes);
    auth(root, environment, &mut out, notes);
    let mut rate = root.below("rate_limit");
    out.table("rate_limit");
    out.key("enabled", rate.switch("enabled", true));
    out.key("per_minute", rate.number("per_minute", Some(60), notes));
    rate.finish(notes);
    for (key, value) in [("total_per_minute", json!(0)), ("on_store_failure", json!("local")), ("replicas", json!(1))] {
        out.key(key, value);
    }
    let mut limits = root.below("limits");
    out.table("limits");
    for (key, default) in [("max_payload_kb", 256), ("max_result_bytes", 1_048_576), ("max_result_items", 100)] {
        out.key(key, limits.number(key, Some(default), notes));
    }
    limits.finish(notes);
    for (key, value) in [("max_header_kb", 32), ("max_headers", 100), ("max_stream_mb", 64)] {
        out.key(key, value);
    }
    let mut stream = root.below("stream");
    out.table("stream");
    out.key("enabled", stream.switch("enabled", false));
    out.key("max_stream_seconds", stream.number("max_stream_seconds", Some(120), notes));
    out.key("heartbeat_seconds", stream.number("heartbeat_seconds", Some(15), notes));
    out.key("abort_on_disconnect", stream.switch("abort_on_disconnect", true));
    stream.finish(notes);
    let mut security = root.below("security");
    out.table("security");
    out.key("allow_servers", security.words("allow_servers", notes).unwrap_or_else(|| vec!["*".to_owned()]));
    out.key("deny_tools", security.words("deny_tools", notes).unwrap_or_default());
    out.key("enable_write_tools", security.switch("enable_write_tools", false));
    out.key("allow_origins", json!([]));
    security.finish(notes);
    let mut logging = root.below("logging");
    let channel = logging.text("channel", "emcp", notes);
    if channel != "emcp" {
        notes.push(format!("logging.channel goes to sidecar.toml: audit.channel = {channel:?}"));
    }
    out.table("logging");
    out.key("audit_enabled", logging.switch("audit_enabled", true));
    let redacted = logging.words("redact_keys", notes);
    out.key("redact_keys", redacted.unwrap_or_else(|| REDACTED.map(str::to_owned).to_vec()));
    logging.finish(notes);
    let mut trace = root.below("trace");
    out.table("trace");
    out.key("header", trace.text("header", "X-Trace-Id", notes));
    out.key("generate_if_missing", trace.switch("generate_if_missing", true));
    trace.finish(notes);
    let mut acl = root.below("acl");
    out.table("acl");
    out.key("permission", acl.text("permission", "emcp", notes));
    acl.finish(notes);
    domain(root, &mut out, notes);
    features(root, optional, notes);
    out.text
}

fn auth(root: &mut Settings, environment: &dyn Fn(&str) -> Option<String>, out: &mut Page, notes: &mut Notes) {
    let mut auth = root.below("auth");
    let open = auth.text("mode", "sapi_jwt", notes) == "none";
    out.table("auth");
    out.key("mode", if open { "none" } else { "sapi_jwt" });
    out.key("require_scopes", auth.switch("require_scopes", true));
    out.key("require_exp", true);
    out.key("secret_envs", json!(["SAPI_JWT_SECRET"]));
    out.key("issuer", environment("SAPI_JWT_ISS").unwrap_or_default());
    for (key, value) in [("audience", json!("")), ("deny_sub", json!([])), ("deny_jti", json!([]))] {
        out.key(key, value);
    }
    out.key("failures_per_minute", 30);
    let map = auth.below("scope_map");
    auth.finish(notes);
    let scopes = scopes(map, notes);
    out.table("auth.scope_map");
    if scopes.is_empty() {
        for (scope, patterns) in SCOPES {
            out.key(&key_text(scope), json!(patterns));
        }
    }
    for (scope, patterns) in scopes {
        out.key(&key_text(&scope), patterns);
    }
    if open {
        notes.push("auth.mode is \"none\", as it was: everybody may call".to_owned());
    }
}

fn scopes(mut map: Settings, notes: &mut Notes) -> Vec<(String, Vec<String>)> {
    let names = map.names();
    names.into_iter().filter_map(|scope| map.words(&scope, notes).map(|patterns| (scope, patterns))).collect()
}

fn domain(root: &mut Settings, out: &mut Page, notes: &mut Notes) {
    let mut domain = root.below("domain");
    let (mut content, mut of_models) = (domain.below("content"), domain.below("models"));
    domain.finish(notes);
    out.table("domain.content");
    for (key, default) in [("max_depth", 6), ("max_limit", 100), ("max_offset", 5000)] {
        out.key(key, content.number(key, Some(default), notes));
    }
    content.finish(notes);
    out.table("domain.models");
    out.key("max_offset", of_models.number("max_offset", Some(5000), notes));
    let wanted = of_models.words("allow", notes);
    of_models.finish(notes);
    let mut allowed: Vec<(&str, bool)> = Vec::new();
    match wanted {
        None => allowed.extend(models()),
        Some(words) => {
            for word in words {
                let short = word.rsplit('\\').next().unwrap_or_default();
                match models().find(|(name, _)| name.eq_ignore_ascii_case(short)) {
                    Some(model) if !allowed.contains(&model) => allowed.push(model),
                    Some(_) => {}
                    None => notes.push(format!("domain.models.allow: there is no model {word:?} here")),
                }
            }
        }
    }
    out.key("allow", allowed.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    let people: Vec<&str> = allowed.iter().filter(|(_, people)| *people).map(|(name, _)| *name).collect();
    out.table("compat");
    out.key("emcp_models", !people.is_empty());
    if !people.is_empty() {
        let names = people.join(", ");
        notes.push(format!("models of people and rights stay readable, as they were ({names}): remove them from domain.models.allow if nobody needs them"));
    }
}

/// What belongs to asynchronous dispatch and to actors.
fn features(root: &mut Settings, optional: &mut Vec<(&'static str, String)>, notes: &mut Notes) {
    let mut queue = root.below("queue");
    if !queue.names().is_empty() {
        let mut page = Page::default();
        page.table("queue");
        page.key("driver", queue.text("driver", "stask", notes));
        // eMCP took every other word for "fail".
        let failover = queue.text("failover", "sync", notes);
        page.key("failover", if failover == "sync" { "sync" } else { "fail" });
        optional.push(("queue", page.text));
    }
    queue.finish(notes);
    let mut idempotency = root.below("idempotency");
    if !idempotency.names().is_empty() {
        let mut page = Page::default();
        page.table("idempotency");
        page.key("header", idempotency.text("header", "Idempotency-Key", notes));
        page.key("ttl_seconds", idempotency.number("ttl_seconds", Some(86_400), notes));
        optional.push(("idempotency", page.text));
        // eMCP took it for a label only.
        idempotency.take("storage");
    }
    idempotency.finish(notes);
    let mut actor = root.below("actor");
    if actor.text("mode", "initiator", notes) == "service" {
        notes.push(
            "actor.mode is \"service\", which eMCP never read: set it with actor.service_user_id if it is meant"
                .to_owned(),
        );
    }
    for key in ["service_username", "service_role", "block_login"] {
        actor.take(key);
    }
    actor.finish(notes);
}

fn registry(servers: Option<Value>, upstream: &str, notes: &mut Notes) -> String {
    let Some(registry) = servers else {
        let shipped = json!({"handle": "content", "transport": "web", "class": "ContentServer", "enabled": true,
            "limits": {"max_payload_kb": 128, "max_result_items": 50}, "rate_limit": {"per_minute": 30}});
        return server(Settings::new("servers[0]", shipped), upstream, &mut Notes::new());
    };
    let mut root = Settings::new("", registry);
    let list = root.take("servers").unwrap_or_default();
    // A setting of Laravel's MCP package that eMCP does not use.
    root.take("redirect_domains");
    root.finish(notes);
    let items = match list {
        Value::Array(items) => items,
        Value::Object(map) => map.into_iter().map(|(_, item)| item).collect(),
        _ => Vec::new(),
    };
    if items.is_empty() {
        notes.push("mcp.php registers no servers: every call will be answered 404".to_owned());
        return String::new();
    }
    let items = items.into_iter().enumerate();
    items.map(|(index, item)| server(Settings::new(&format!("servers[{index}]"), item), upstream, notes)).collect()
}

/// One server. What PHP's own classes do cannot be carried over: those become foreign servers, switched off.
fn server(mut server: Settings, upstream: &str, notes: &mut Notes) -> String {
    let mut out = Page::default();
    let handle = server.text("handle", "", notes);
    let class = server.text("class", "", notes);
    let content = class.rsplit('\\').next() == Some("ContentServer");
    let mut enabled = server.switch("enabled", false);
    let mut transport = server.text("transport", "", notes);
    if transport.is_empty() {
        notes.push(format!("{handle}: it names no transport and was unreachable over HTTP: it is \"local\" here"));
        transport = "local".to_owned();
    }
    if !content {
        notes.push(format!(
            "{handle}: the class {class:?} runs in PHP and cannot come along; the server is switched off here. Let it \
             listen as an MCP server, name it in [upstreams.{handle}] of sidecar.toml, list its tools in allow_tools, \
             and enable it"
        ));
        enabled = false;
    }
    out.text.push_str("\n[[servers]]\n");
    out.key("handle", handle.as_str());
    out.key("enabled", enabled);
    out.key("transport", transport);
    out.key("kind", if content { "content" } else { "mcp" });
    out.key("upstream", if content { upstream } else { &handle });
    out.key("allow_tools", if content { json!(["evo.content.*", "evo.model.*"]) } else { json!([]) });
    out.key("allow_resources", json!([]));
    out.key("allow_prompts", json!([]));
    if let Some(names) = server.words("tool_names", notes) {
        out.key("tool_names", names);
    }
    let mut security = server.below("security");
    out.key("security.deny_tools", security.words("deny_tools", notes).unwrap_or_default());
    security.finish(notes);
    let mut limits = server.below("limits");
    for key in ["max_payload_kb", "max_result_bytes", "max_result_items"] {
        out.some(&format!("limits.{key}"), limits.number(key, None, notes));
    }
    limits.finish(notes);
    let mut rate = server.below("rate_limit");
    out.some("rate_limit.per_minute", rate.number("per_minute", None, notes));
    rate.finish(notes);
    let mut stream = server.below("stream");
    for key in ["enabled", "abort_on_disconnect"] {
        if stream.names().iter().any(|name| name == key) {
            let value = stream.switch(key, false);
            out.key(&format!("stream.{key}"), value);
        }
    }
    for key in ["max_stream_seconds", "heartbeat_seconds"] {
        out.some(&format!("stream.{key}"), stream.number(key, None, notes));
    }
    stream.finish(notes);
    for (scope, patterns) in scopes(server.below("scope_map"), notes) {
        out.key(&format!("scope_map.{}", key_text(&scope)), patterns);
    }
    let unread: Vec<&str> = ["route", "auth", "scopes"].into_iter().filter(|key| server.take(key).is_some()).collect();
    if !unread.is_empty() {
        let word = if unread.len() == 1 { "was" } else { "were" };
        notes.push(format!("{handle}: {} {word} never read by eMCP, nor here", unread.join(", ")));
    }
    server.finish(notes);
    out.text
}

/// TOML in the making.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn table(&mut self, name: &str) {
        let _ = writeln!(self.text, "\n[{name}]");
    }

    /// The key is TOML already.
    fn key(&mut self, key: &str, value: impl Into<Value>) {
        let _ = writeln!(self.text, "{key} = {}", toml_text(&value.into()));
    }

    fn some(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.key(key, value);
        }
    }
}

/// A scope as a key: it may hold whatever PHP had.
fn key_text(key: &str) -> String {
    toml_text(&Value::from(key))
}

/// A value as TOML, on one line.
fn toml_text(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let mut quoted = String::with_capacity(text.len() + 2);
            quoted.push('"');
            for letter in text.chars() {
                match letter {
                    '"' => quoted.push_str("\\\""),
                    '\\' => quoted.push_str("\\\\"),
                    letter if letter.is_control() => {
                        let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
                    }
                    letter => quoted.push(letter),
                }
            }
            quoted.push('"');
            quoted
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        // What remains are switches and whole numbers.
        other => other.to_string(),
    }
}
