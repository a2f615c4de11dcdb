use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::base::{Digest, Secret};
use crate::config::document::{Document, Value};
use crate::config::reader::{Reader, Section, Word, words_of};
use crate::config::server::servers;
use crate::config::{Effective, Overrides, POLICY_KEYS, Report, Source, all_keys};
use crate::policy::{
    AuthMode, AuthPolicy, Compat, DomainPolicy, LimitsPolicy, LoggingPolicy, OnStoreFailure, Pattern, PatternSet,
    RateLimitPolicy, Redactor, Routes, RuleSite, ScopeMap, SecurityPolicy, Snapshot, StreamPolicy, TracePolicy,
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
    let value = snapshot(&reader, source, overrides, context);
    reader.finish(value)
}

fn snapshot(reader: &Reader<'_>, source: &Source, overrides: &Overrides, context: PolicyContext<'_>) -> Snapshot {
    let root = reader.root();
    end(&root);
    let enable = root.boolean("enable", None);
    let toolset_version = root.text("toolset_version", Some("1.0")).text;
    let mode = root.section("mode", true);
    let (api, internal) = (mode.boolean("api", None), mode.boolean("internal", None));
    mode.close();
    let routes = routes(&root, enable && api, enable && internal);
    let auth = auth(&root, overrides, context.extra_secrets);
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
        validation_as_rpc_error: compat_section.boolean("validation_as_rpc_error", Some(false)),
    };
    compat_section.close();
    let domain = domain(&root, compat.emcp_models);
    let servers = servers(&root, &auth.scope_map, &rate_limit, &limits, &stream, context.upstreams);
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
        servers,
        unknown_handle: Arc::from("unknown"),
    }
}

/// `[end]` must stand behind everything else of the file: a file cut short lacks it.
fn end(root: &Section<'_>) {
    let end = root.section("end", false);
    let fix = "put `[end]` on the last line";
    if !end.present() {
        root.reader.problem(root.place, "the policy does not end with `[end]`: was it cut short?", fix);
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
    let bad = matches!(word.text.as_str(), "." | "..")
        || !word.text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        || (word.text.is_empty() && !may_be_empty);
    if bad && section.present() {
        let message = format!("`{}` must be one path segment, without slashes: {:?}", word.key, word.text);
        section.reader.problem(word.place, message, "use letters, digits, _ - and .");
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

fn auth(root: &Section<'_>, overrides: &Overrides, extra: &[Secret]) -> AuthPolicy {
    let section = root.section("auth", true);
    let reader = root.reader;
    let mode = section.choice("mode", &[("sapi_jwt", AuthMode::SapiJwt), ("none", AuthMode::None)], None);
    let mut secrets = Vec::new();
    let mut names = section.words("secret_envs", false);
    names.extend(section.optional("secret_env"));
    let files = section.words("secret_files", false);
    if section.present() && mode == AuthMode::SapiJwt && names.is_empty() && files.is_empty() {
        reader.problem(section.place, "`auth` names no secret", "set secret_env, secret_envs or secret_files");
    }
    let named = names.iter().filter_map(|word| {
        let value = overrides.environment.get(&word.text).filter(|value| !value.is_empty())?;
        Some((Secret::new(value.as_bytes()), word))
    });
    for (secret, word) in named.chain(files.iter().filter_map(|word| Some((section.secret_file(word)?, word)))) {
        if secret.len() < 32 {
            let message = format!("the secret of {} has {} bytes, at least 32 are needed", word.text, secret.len());
            reader.problem(word.place, message, "make one with: openssl rand -hex 32");
        }
        secrets.push(secret);
    }
    if secrets.is_empty() {
        secrets.extend_from_slice(extra);
    }
    let sites = |key| -> Vec<(String, RuleSite)> {
        let words = section.words(key, true).into_iter();
        words.map(|word| (word.text, reader.site(word.key, word.place))).collect()
    };
    let mut policy = AuthPolicy {
        generation: Digest([0; 16]),
        mode,
        require_scopes: section.boolean("require_scopes", None),
        require_exp: section.boolean("require_exp", None),
        secrets,
        issuer: section.text("issuer", None).text,
        audience: section.text("audience", None).text,
        deny_sub: sites("deny_sub"),
        deny_jti: sites("deny_jti"),
        failures_per_minute: section.integer("failures_per_minute", (0, 1_000_000), None),
        scope_map: scope_map(&section, true),
    };
    policy.generation =
        AuthPolicy::generation_of(&policy.secrets, &policy.issuer, &policy.audience, policy.require_exp);
    section.close();
    policy
}

/// `scope_map`: scopes in the order of the file, each a pattern or a list of patterns.
pub(in crate::config) fn scope_map(section: &Section<'_>, required: bool) -> ScopeMap {
    let map = section.section("scope_map", required);
    let mut entries = Vec::new();
    for entry in map.table.iter().flat_map(|table| &table.entries) {
        let key = map.key(&format!("{:?}", entry.key));
        if entry.key.trim().is_empty() {
            map.reader.problem(entry.key_place, "a scope must not be empty", "name it");
        }
        let words = match &entry.node.value {
            Value::Text(text) => vec![Word { text: text.clone(), key, place: entry.node.place }],
            _ => words_of(map.reader, &key, &entry.node),
        };
        let scope: Arc<str> = Arc::from(entry.key.as_str());
        entries.extend(words.into_iter().filter_map(|word| {
            let (pattern, site) = pattern(map.reader, word)?;
            Some((Arc::clone(&scope), pattern, site))
        }));
    }
    if required && map.present() && entries.is_empty() {
        map.reader.problem(map.place, "`auth.scope_map` is empty", "copy it from conf/policy.toml");
    }
    ScopeMap { entries }
}

fn pattern(reader: &Reader<'_>, word: Word) -> Option<(Pattern, RuleSite)> {
    match Pattern::new(&word.text) {
        Ok(pattern) => Some((pattern, reader.site(word.key, word.place))),
        Err(error) => {
            reader.problem(
                word.place,
                format!("`{}`: {error}", word.key),
                "an exact name, or a pattern such as evo.content.*",
            );
            None
        }
    }
}

/// A list of patterns.
pub(in crate::config) fn patterns(section: &Section<'_>, key: &str, required: bool) -> PatternSet {
    let words = section.words(key, required).into_iter();
    PatternSet::new(words.filter_map(|word| pattern(section.reader, word)).collect())
}

fn origins(section: &Section<'_>) -> Vec<String> {
    let words = section.words("allow_origins", true).into_iter();
    words
        .map(|word| {
            let rest = word.text.strip_prefix("https://").or_else(|| word.text.strip_prefix("http://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.contains(['/', '*', ' ', '@', '?', '#'])) {
                let message = format!("`{}` is no origin: {:?}", word.key, word.text);
                section.reader.problem(word.place, message, "scheme://host[:port], nothing behind it");
            }
            word.text.to_lowercase()
        })
        .collect()
}

/// `limits`; with a global to fall back to, every key is optional.
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
        max_header_bytes: section.size(
            "max_header_kb",
            (1, 1024),
            global.map(|g| whole(g.max_header_bytes, 1024)),
            1024,
        ),
        max_headers: section.size("max_headers", (1, 4096), global.map(|g| whole(g.max_headers, 1)), 1),
        max_stream_bytes: u64::from(section.integer(
            "max_stream_mb",
            (1, 65_536),
            global.map(|g| u32::try_from(g.max_stream_bytes >> 20).unwrap_or(u32::MAX)),
        )) << 20,
    };
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
