use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::base::Secret;
use crate::config::auth::auth;
use crate::config::document::{Document, Place, Value};
use crate::config::feature;
use crate::config::manager;
use crate::config::pattern::{origins, patterns};
use crate::config::reader::{Reader, Section};
use crate::config::server::servers;
use crate::config::{Effective, Overrides, POLICY_KEYS, Report, Source, all_keys};
use crate::policy::{
    Compat, DomainPolicy, LimitsPolicy, LoggingPolicy, OnStoreFailure, RateLimitPolicy, Redactor, Routes,
    SecurityPolicy, Snapshot, StreamPolicy, TracePolicy,
};

const MODELS: [(&str, bool); 13] = [
    ("SiteTemplate", false),
    ("SiteTmplvar", false),
    ("SiteTmplvarContentvalue", false),
    ("SiteSnippet", false),
    ("SitePlugin", false),
    ("SiteModule", false),
    ("Category", false),
    ("User", true),
    ("UserAttribute", true),
    ("UserRole", true),
    ("Permissions", true),
    ("PermissionsGroups", true),
    ("RolePermissions", true),
];

/// The models that a policy can allow, and whether they hold people or rights.
pub fn models() -> impl Iterator<Item = (&'static str, bool)> {
    MODELS.into_iter()
}

/// What a policy is loaded into.
#[derive(Clone, Copy, Debug, Default)]
pub struct PolicyContext<'a> {
    pub revision: u64,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Names of `[upstreams]`; `None` where they are not known (the executor).
    pub upstreams: Option<&'a [String]>,
    /// Used when the configured variables and files give no secret.
    pub extra_secrets: &'a [Secret],
}

/// Loads policy.toml.
///
/// # Errors
/// Every problem at once.
pub fn load_policy(source: &Source, overrides: &Overrides, context: PolicyContext<'_>) -> Result<Snapshot, Report> {
    inspect_policy(source, overrides, context).0
}

/// [`load_policy`], with each effective value.
pub fn inspect_policy(
    source: &Source,
    overrides: &Overrides,
    context: PolicyContext<'_>,
) -> (Result<Snapshot, Report>, Vec<Effective>) {
    let (document, problems) = Document::parse(source, overrides, POLICY_KEYS, &all_keys());
    if document.root.entries.is_empty() {
        return (Err(Report { problems }), Vec::new());
    }
    let reader = Reader::new(&document, source.base.clone(), problems);
    let value = read(&reader, source, overrides, context);
    reader.finish(value)
}

/// Reads the whole policy; what is wrong with it is in the reader.
pub(in crate::config) fn read(
    reader: &Reader<'_>,
    source: &Source,
    overrides: &Overrides,
    context: PolicyContext<'_>,
) -> Snapshot {
    let root = reader.root();
    end(&root);
    let enable = root.boolean("enable", None);
    let toolset_version = root.text("toolset_version", Some("1.0")).text;
    let mode = root.section("mode", true);
    let (api, internal) = (mode.boolean("api", None), mode.boolean("internal", None));
    mode.close();
    let manager = manager::policy(&root, context.upstreams);
    let routes = routes(&root, enable && api, enable && internal && !manager.sources.is_empty());
    let auth = auth(&root, overrides, context.extra_secrets, context.upstreams);
    let rate = root.section("rate_limit", true);
    use OnStoreFailure::{Allow, Deny, Local};
    let rate_limit = RateLimitPolicy {
        enabled: rate.boolean("enabled", None),
        per_minute: rate.integer("per_minute", (0, 1_000_000), None),
        total_per_minute: rate.integer("total_per_minute", (0, 1_000_000), None),
        on_store_failure: rate.choice("on_store_failure", &[("deny", Deny), ("local", Local), ("allow", Allow)], None),
        replicas: rate.integer("replicas", (1, 10_000), None),
    };
    rate.close();
    let limits = limits(&root.section("limits", true), None);
    let stream = stream(&root.section("stream", true), None);
    let security_section = root.section("security", true);
    let write_place = security_section.node("enable_write_tools").map_or(security_section.place, |node| node.place);
    let security = SecurityPolicy {
        allow_servers: patterns(&security_section, "allow_servers", true),
        deny_tools: patterns(&security_section, "deny_tools", true),
        enable_write_tools: security_section.boolean("enable_write_tools", None),
        write_tools_site: reader.site("security.enable_write_tools".to_owned(), write_place),
        hide_denied_tools: security_section.boolean("hide_denied_tools", Some(false)),
        allow_origins: origins(&security_section),
    };
    security_section.close();
    let log = root.section("logging", true);
    let audit_enabled = log.boolean("audit_enabled", None);
    let redact_keys: Vec<String> = log.words("redact_keys", true).into_iter().map(|word| word.text).collect();
    let logging = LoggingPolicy { audit_enabled, redactor: Redactor::new(&redact_keys), redact_keys };
    log.close();
    let trace_section = root.section("trace", false);
    let header = trace_section.text("header", Some("X-Trace-Id"));
    if http::HeaderName::from_bytes(header.text.as_bytes()).is_err() {
        reader.problem(header.place, format!("`trace.header` is no header name: {:?}", header.text), "use X-Trace-Id");
    }
    let trace = TracePolicy {
        header: header.text.to_lowercase(),
        generate_if_missing: trace_section.boolean("generate_if_missing", Some(true)),
    };
    trace_section.close();
    let compat_section = root.section("compat", false);
    let compat = Compat {
        emcp_models: compat_section.boolean("emcp_models", Some(false)),
        token_errors: compat_section.boolean("token_errors", Some(false)),
        validation_as_rpc_error: compat_section.boolean("validation_as_rpc_error", Some(false)),
    };
    compat_section.close();
    let domain = domain(&root, compat.emcp_models);
    let (acl, actor) = (feature::acl(&root), feature::actor(&root));
    let i18n = feature::i18n(&root);
    let (queue, idempotency) = (feature::queue(&root), feature::idempotency(&root));
    feature::refuse(&root);
    let servers =
        servers(&root, &auth.scope_map, &rate_limit, &limits, &stream, context.upstreams, overrides.local_servers);
    root.close();
    let digest = Sha256::digest(source.text.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    Snapshot {
        revision: context.revision,
        digest,
        loaded_at_ms: context.now_ms,
        toolset_version,
        routes,
        auth,
        rate_limit,
        limits,
        stream,
        security,
        logging,
        trace,
        domain,
        compat,
        acl,
        manager,
        actor,
        i18n,
        queue,
        idempotency,
        servers,
        unknown_handle: Arc::from("unknown"),
    }
}

/// `[end]` must stand behind everything else of the file: a file cut short lacks it.
fn end(root: &Section<'_>) {
    let end = root.section("end", false);
    let fix = "put `[end]` on the last line";
    if !end.present() {
        let text = root.reader.document.texts[0].text.trim_end();
        let place = Place { source: 0, start: text.len(), end: text.len() };
        root.reader.problem(place, "the policy does not end with `[end]`: was it cut short?", fix);
        return;
    }
    end.close();
    let later = |entry: &&crate::config::document::Entry| {
        entry.key != "end" && entry.node.place.source == 0 && last(&entry.node) > end.place.start
    };
    if end.place.source != 0 || root.table.is_some_and(|table| table.entries.iter().any(|entry| later(&entry))) {
        root.reader.problem(end.place, "`[end]` is not the last table", fix);
    }
}

/// The last offset in the file at which something of this value begins.
fn last(node: &crate::config::document::Node) -> usize {
    let own = if node.place.source == 0 { node.place.start } else { 0 };
    match &node.value {
        Value::Array(items) => items.iter().map(last).fold(own, usize::max),
        Value::Table(table) => table.entries.iter().map(|entry| last(&entry.node)).fold(own, usize::max),
        _ => own,
    }
}

fn segment(section: &Section<'_>, key: &str, may_be_empty: bool) -> String {
    let word = section.text(key, None);
    let good = |text: &str| {
        !matches!(text, "." | "..")
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
            && (may_be_empty || !text.is_empty())
    };
    if !good(&word.text) && section.table.is_some_and(|table| table.get(key).is_some()) {
        let message = format!("`{}` must be one path segment, without slashes: {:?}", word.key, word.text);
        let bare = word.text.trim_matches('/');
        let fix = match good(bare) && !bare.is_empty() {
            true => format!("write {bare:?}"),
            false => "use letters, digits, _ - and .".to_owned(),
        };
        section.reader.problem(word.place, message, &fix);
    }
    word.text
}

fn routes(root: &Section<'_>, api: bool, manager: bool) -> Routes {
    let section = root.section("route", true);
    let routes = Routes {
        api,
        manager,
        base: segment(&section, "base", true),
        version: segment(&section, "version", true),
        api_prefix: segment(&section, "api_prefix", true),
        manager_prefix: segment(&section, "manager_prefix", false),
    };
    section.close();
    let first = [&routes.base, &routes.version, &routes.api_prefix].into_iter().find(|part| !part.is_empty());
    if section.present() && first.is_none_or(|first| *first == routes.manager_prefix) {
        section.reader.problem(
            section.place,
            "the API routes cover other routes",
            "give them a first segment of their own",
        );
    }
    routes
}

/// `limits`; with a global to fall back to, every key is optional, and those of headers have no place.
pub(in crate::config) fn limits(section: &Section<'_>, global: Option<&LimitsPolicy>) -> LimitsPolicy {
    let whole = |bytes: usize, unit: usize| u32::try_from(bytes / unit).unwrap_or(u32::MAX);
    let of = |read: fn(&LimitsPolicy) -> u32| global.map(read);
    let limits = LimitsPolicy {
        max_payload_bytes: section.size(
            "max_payload_kb",
            (1, 1 << 20),
            global.map(|g| whole(g.max_payload_bytes, 1024)),
            1024,
        ),
        max_result_bytes: section.size(
            "max_result_bytes",
            (1, 1 << 30),
            global.map(|g| whole(g.max_result_bytes, 1)),
            1,
        ),
        max_result_items: section.integer("max_result_items", (1, 100_000), of(|g| g.max_result_items)),
        max_header_bytes: match global {
            Some(global) => global.max_header_bytes,
            None => section.size("max_header_kb", (1, 1024), None, 1024),
        },
        max_headers: match global {
            Some(global) => global.max_headers,
            None => section.size("max_headers", (1, 4096), None, 1),
        },
        max_stream_bytes: u64::from(section.integer(
            "max_stream_mb",
            (1, 65_536),
            global.map(|g| u32::try_from(g.max_stream_bytes >> 20).unwrap_or(u32::MAX)),
        )) << 20,
    };
    if global.is_some() {
        for key in ["max_header_kb", "max_headers"] {
            section.refuse(key, "acts before it is known whom a request is for", "set it in [limits]");
        }
    }
    section.close();
    limits
}

/// `stream`; with a global to fall back to, every key is optional.
pub(in crate::config) fn stream(section: &Section<'_>, global: Option<&StreamPolicy>) -> StreamPolicy {
    let event = global.map_or(1024, |g| u32::try_from(g.max_event_bytes >> 10).unwrap_or(u32::MAX));
    let stream = StreamPolicy {
        enabled: section.boolean("enabled", global.map(|g| g.enabled)),
        max_stream_seconds: section.integer("max_stream_seconds", (1, 86_400), global.map(|g| g.max_stream_seconds)),
        heartbeat_seconds: section.integer(
            "heartbeat_seconds",
            (1, 3600),
            Some(global.map_or(15, |g| g.heartbeat_seconds)),
        ),
        abort_on_disconnect: section.boolean("abort_on_disconnect", Some(global.is_none_or(|g| g.abort_on_disconnect))),
        max_event_bytes: section.size("max_event_kb", (1, 1 << 20), Some(event), 1024),
    };
    section.close();
    stream
}

fn domain(root: &Section<'_>, emcp_models: bool) -> DomainPolicy {
    let section = root.section("domain", true);
    let content = section.section("content", true);
    let models = section.section("models", true);
    let mut models_allow: Vec<String> = Vec::new();
    for word in models.words("allow", true) {
        let short = word.text.rsplit('\\').next().unwrap_or("");
        match MODELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(short)) {
            Some((name, true)) if !emcp_models => root.reader.problem(
                word.place,
                format!("the model {name} holds people or rights"),
                "remove it, or set compat.emcp_models = true",
            ),
            Some((name, _)) => {
                if !models_allow.iter().any(|known| known == name) {
                    models_allow.push((*name).to_owned());
                }
            }
            None => {
                let names: Vec<&str> = MODELS.iter().map(|(name, _)| *name).collect();
                let fix = format!("use one of: {}", names.join(", "));
                root.reader.problem(word.place, format!("there is no model {:?}", word.text), &fix);
            }
        }
    }
    let domain = DomainPolicy {
        content_max_depth: content.integer("max_depth", (1, 1000), None),
        content_max_limit: content.integer("max_limit", (1, 100_000), None),
        content_max_offset: content.integer("max_offset", (0, 100_000_000), None),
        models_max_offset: models.integer("max_offset", (0, 100_000_000), None),
        models_allow,
    };
    content.close();
    models.close();
    section.close();
    domain
}
