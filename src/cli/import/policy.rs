use std::fmt::Write as _;

use anyhow::bail;
use serde_json::{Value, json};

use crate::cli::import::page::{Page, key_text, one_line};
use crate::cli::import::scope;
use crate::cli::import::server::{Registry, registry};
use crate::cli::import::setting::{Notes, Range, Settings};
use crate::cli::import::{domain, feature};

const REDACTED: [&str; 7] = ["authorization", "token", "jwt", "secret", "cookie", "password", "api_key"];

/// A policy, and what is not in it.
#[derive(Debug)]
pub(super) struct Made {
    pub text: String,
    pub notes: Notes,
}

/// What the servers need to know of the rest.
pub(super) struct Globals {
    pub max_result_items: u64,
    /// The scopes are eMCP's own.
    pub shipped_scopes: bool,
}

/// A variable of the environment, empty ones included.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Makes a policy of eMCP's settings and its list of servers. `valid` tells what a policy's loader says.
///
/// # Errors
/// What the loader says about what it refuses.
pub(super) fn convert(
    settings: Value,
    servers: Option<Value>,
    upstream: &str,
    environment: Environment<'_>,
    valid: &dyn Fn(&str) -> Result<(), String>,
) -> anyhow::Result<Made> {
    let mut notes = Notes::new();
    let mut root = Settings::new("eMCP.php", settings, &mut notes).at_the_root();
    let mut out = Page::default();
    let globals = globals(&mut root, environment, &mut out, &mut notes);
    root.finish(&mut notes);
    let Registry { text: servers, empty } = registry(servers, upstream, &globals, &mut notes);
    // What stands at the top level goes before the first table.
    let first = if empty { "servers = []\n" } else { "" };
    let body = format!("{first}{}{servers}\n[end]\n", out.text);
    let mut text = "# Made of eMCP's PHP settings by `mcp-sidecar import`. Keys: docs/CONFIG.md.\n".to_owned();
    for note in &notes {
        let _ = writeln!(text, "# note: {}", one_line(note));
    }
    text.push_str(&body);
    if let Err(report) = valid(&text) {
        bail!("these settings make no valid policy; change them, or write the policy by hand\n{report}");
    }
    Ok(Made { text, notes })
}

/// Everything but the servers.
fn globals(root: &mut Settings, environment: Environment<'_>, out: &mut Page, notes: &mut Notes) -> Globals {
    let enable = root.switch("enable", true, false, notes);
    out.key("enable", enable);
    out.key("toolset_version", root.text("toolset_version", "1.0", notes));
    let permission = permission(root, notes);
    let mut mode = root.below("mode", notes);
    out.table("mode");
    let api = mode.switch("api", true, false, notes);
    out.key("api", api);
    let internal = mode.switch("internal", true, false, notes) && permission.is_some();
    out.key("internal", internal);
    mode.finish(notes);
    if internal {
        manager(environment, out, notes);
    }
    if !(enable && internal) {
        notes.push(
            "the manager's routes are 404 here (enable, mode.internal), where eMCP served them all the same".into(),
        );
    }
    let mut route = root.below("route", notes);
    let segment = |text: String| text.trim().trim_matches('/').to_owned();
    out.table("route");
    out.key("base", segment(environment("SAPI_BASE_PATH").unwrap_or_else(|| "api".to_owned())));
    out.key("version", "v1");
    out.key("api_prefix", segment(route.text("api_prefix", "mcp", notes)));
    out.key("manager_prefix", segment(route.text("manager_prefix", "emcp", notes)));
    route.finish(notes);
    let shipped_scopes = auth(root, enable && api, environment, out, notes);
    let mut rate = root.below("rate_limit", notes);
    out.table("rate_limit");
    out.key("enabled", rate.switch("enabled", true, true, notes));
    let per_minute = Range { default: Some(60), least: 0, most: 1_000_000, other: Some(60) };
    out.some("per_minute", rate.number("per_minute", per_minute, notes));
    rate.finish(notes);
    for (key, value) in [("total_per_minute", json!(0)), ("on_store_failure", json!("local")), ("replicas", json!(1))] {
        out.key(key, value);
    }
    let max_result_items = limits(root, out, notes);
    stream(root, out, notes);
    let mut security = root.below("security", notes);
    out.table("security");
    let servers = security.allowed_patterns("allow_servers", notes);
    out.key("allow_servers", servers.unwrap_or_else(|| vec!["*".to_owned()]));
    out.key("deny_tools", security.denied_patterns("deny_tools", notes));
    out.key("enable_write_tools", security.switch("enable_write_tools", false, false, notes));
    out.key("allow_origins", json!([]));
    security.finish(notes);
    logging(root, out, notes);
    let mut trace = root.below("trace", notes);
    out.table("trace");
    out.key("header", trace.header("header", "X-Trace-Id", notes));
    out.key("generate_if_missing", trace.switch("generate_if_missing", true, true, notes));
    trace.finish(notes);
    out.table("acl");
    out.key("permission", permission.unwrap_or_else(|| "emcp".to_owned()));
    domain::domain(root, out, notes);
    feature::features(root, out, notes);
    Globals { max_result_items, shipped_scopes }
}

/// Who tells whose a manager's session is, which eMCP left to the CMS: it cannot be guessed.
fn manager(environment: Environment<'_>, out: &mut Page, notes: &mut Notes) {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let minutes = set("SESSION_LIFETIME").and_then(|text| text.parse().ok()).filter(|n| (1..=43_200).contains(n));
    let mut example = Page::default();
    example.table("manager");
    example.key("sources", json!(["session_file"]));
    example.key("cookie", set("SESSION_COOKIE").unwrap_or_else(|| "evo_session".to_owned()));
    example.key("session_minutes", minutes.unwrap_or(120_u64));
    out.text.push('\n');
    out.comment("Without sources the manager's routes are 404. docs/MANAGER.md tells what each source needs.");
    out.text.push_str(example.commented().trim_start());
    notes.push(
        "mode.internal is true, and the manager's routes are 404 until manager.sources in [manager] says who tells the \
         manager's users: take the comment up, and give executor.toml what the source needs (docs/MANAGER.md)"
            .to_owned(),
    );
}

/// What users of the manager need; `None` where nobody could have it.
fn permission(root: &mut Settings, notes: &mut Notes) -> Option<String> {
    let mut acl = root.below("acl", notes);
    let value = acl.take("permission").unwrap_or_else(|| json!("emcp"));
    acl.finish(notes);
    let named = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let name = value.as_str().filter(named).map(str::to_owned);
    if name.is_none() {
        notes.push(format!("acl.permission is {value}, which no permission is named: mode.internal is false here"));
    }
    name
}

fn limits(root: &mut Settings, out: &mut Page, notes: &mut Notes) -> u64 {
    let mut limits = root.below("limits", notes);
    out.table("limits");
    out.some("max_payload_kb", limits.number("max_payload_kb", Range::cap(Some(256), 1, 1 << 20), notes));
    out.some("max_result_bytes", limits.number("max_result_bytes", Range::cap(Some(1 << 20), 1, 1 << 30), notes));
    let items = limits.number("max_result_items", Range::cap(Some(100), 1, 100_000), notes);
    out.some("max_result_items", items);
    limits.finish(notes);
    for (key, value) in [("max_header_kb", 32), ("max_headers", 100), ("max_stream_mb", 64)] {
        out.key(key, value);
    }
    items.unwrap_or(100)
}

fn stream(root: &mut Settings, out: &mut Page, notes: &mut Notes) {
    let mut stream = root.below("stream", notes);
    out.table("stream");
    out.key("enabled", stream.switch("enabled", false, false, notes));
    out.some("max_stream_seconds", stream.number("max_stream_seconds", Range::cap(Some(120), 1, 86_400), notes));
    out.some("heartbeat_seconds", stream.number("heartbeat_seconds", Range::cap(Some(15), 1, 3600), notes));
    out.key("abort_on_disconnect", stream.switch("abort_on_disconnect", true, true, notes));
    stream.finish(notes);
}

fn logging(root: &mut Settings, out: &mut Page, notes: &mut Notes) {
    let given = root.has("logging");
    let mut logging = root.below("logging", notes);
    let channel = logging.text("channel", "emcp", notes);
    if channel != "emcp" {
        notes.push(format!("logging.channel goes to sidecar.toml: audit.channel = {channel:?}"));
    }
    out.table("logging");
    out.key("audit_enabled", logging.switch("audit_enabled", true, true, notes));
    let redacted = logging.words("redact_keys", notes);
    if redacted.is_none() && given {
        notes
            .push("logging.redact_keys is not there, so that eMCP hid nothing: its usual names are hidden here".into());
    }
    out.key("redact_keys", redacted.unwrap_or_else(|| REDACTED.map(str::to_owned).to_vec()));
    logging.finish(notes);
}

/// Whether the scopes are eMCP's own.
fn auth(root: &mut Settings, api: bool, environment: Environment<'_>, out: &mut Page, notes: &mut Notes) -> bool {
    let mut auth = root.below("auth", notes);
    let mode = auth.take("mode").unwrap_or_else(|| json!("sapi_jwt"));
    let open = mode == "none";
    out.table("auth");
    out.key("mode", if open { "none" } else { "sapi_jwt" });
    if open {
        notes.push("auth.mode is \"none\", as it was: everybody may call".to_owned());
    } else if mode != "sapi_jwt" {
        notes.push(format!("auth.mode is {mode}, which eMCP took for \"sapi_jwt\": it is \"sapi_jwt\" here"));
    }
    out.key("require_scopes", auth.switch("require_scopes", true, true, notes));
    out.key("require_exp", true);
    out.key("secret_envs", json!(["SAPI_JWT_SECRET"]));
    out.key("issuer", environment("SAPI_JWT_ISS").unwrap_or_default());
    for (key, value) in [("audience", json!("")), ("deny_sub", json!([])), ("deny_jti", json!([]))] {
        out.key(key, value);
    }
    out.key("failures_per_minute", 30);
    let map = auth.below("scope_map", notes);
    auth.finish(notes);
    let mut scopes = scope::read(map, notes);
    if scopes.is_empty() {
        scopes = scope::shipped();
    }
    scope::complete(&mut scopes, "auth.scope_map", notes);
    out.table("auth.scope_map");
    for (scope, patterns) in &scopes {
        out.key(&key_text(scope), patterns.clone());
    }
    token(api && !open, environment, out, notes);
    scope::is_shipped(&scopes)
}

/// sApi's own route, which stands behind this program now: as sApi had it, to be switched on where tokens are of use.
fn token(issued: bool, environment: Environment<'_>, out: &mut Page, notes: &mut Notes) {
    let list = |name: &str, default: &str| -> Vec<String> {
        let text = environment(name).unwrap_or_else(|| default.to_owned());
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let ttl = environment("SAPI_JWT_TTL").map_or_else(|| json!({}), |ttl| json!({"SAPI_JWT_TTL": ttl}));
    let mut ttl = Settings::new("", ttl, notes);
    let mut roles: Vec<u32> = Vec::new();
    for word in list("SAPI_ALLOWED_USER_ROLES", "1") {
        match word.parse() {
            Ok(role) if role > 0 => roles.push(role),
            _ => notes.push(format!("SAPI_ALLOWED_USER_ROLES: {word:?} is no role, and was left out")),
        }
    }
    out.text.push('\n');
    out.comment("POST /{base}/{version}/token for users of the CMS, as sApi answers it.");
    out.text.push_str("[auth.token]\n");
    out.key("enabled", false);
    let range = Range { default: Some(3600), least: 60, most: 30 * 86_400, other: Some(3600) };
    out.some("ttl_seconds", ttl.number("SAPI_JWT_TTL", range, notes));
    out.key("scopes", list("SAPI_JWT_SCOPES", "*"));
    out.key("roles", roles);
    out.key("account_per_minute", 10);
    out.key("address_per_minute", 30);
    let base = environment("SAPI_BASE_PATH").unwrap_or_else(|| "api".to_owned());
    let path = |version: &str| {
        let parts = [base.as_str(), version, "token"].map(|part| part.trim().trim_matches('/'));
        parts.into_iter().filter(|part| !part.is_empty()).fold(String::new(), |path, part| path + "/" + part)
    };
    let (php, here) = (path(environment("SAPI_VERSION").as_deref().unwrap_or("v1")), path("v1"));
    let moved = if php == here { String::new() } else { format!("; clients must then ask {here} in place of {php}") };
    let instead = match issued {
        true => format!(
            "The table is filled in as sApi had it: set auth.token.enabled = true to issue tokens here (with \
             compat.token_errors = true under sApi's codes){moved}; or make them elsewhere"
        ),
        false => "None are issued here without API routes that ask for them: make them elsewhere".to_owned(),
    };
    notes.push(format!(
        "auth.token: sApi's {php} cannot be reached behind this program, which answers 404 there. {instead}"
    ));
    let known = ["SAPI_BASE_PATH", "SAPI_JWT_ISS", "SAPI_JWT_TTL", "SAPI_JWT_SCOPES", "SAPI_ALLOWED_USER_ROLES"];
    let unset: Vec<&str> = known.into_iter().filter(|name| environment(name).is_none()).collect();
    if !unset.is_empty() {
        notes.push(format!(
            "{} counted as not set: if the site's .env sets one, set it and import again. Without SAPI_JWT_ISS, \
             tokens of every issuer are good (auth.issuer)",
            unset.join(", ")
        ));
    }
}
