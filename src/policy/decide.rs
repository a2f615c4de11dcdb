use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use crate::base::{Context, Principal, percent_decoded};
use crate::policy::{
    AuthMode, Body, Charge, Charges, Credential, Decision, Denial, Facts, HttpMethod, LocalAnswer, MediaType, Outcome,
    PatternSet, ProtocolHeaders, RateKey, Reason, Rule, RuleSite, ScopeMap, Server, ServerKind, Snapshot, Window,
};
use crate::protocol::{Arguments, Envelope, Method, MethodClass, Params, Refusal};

const WINDOW: Window = Window::FromFirstHit { seconds: 60 };
const WRITE_PREFIX: &str = "evo.write.";
const MAX_NAME_BYTES: usize = 128;
const MAX_URI_BYTES: usize = 2048;
/// Rounds of percent-decoding after which a URI that still changes counts as hiding something.
const MAX_URI_DECODINGS: usize = 4;

/// The server part of the key of the bucket over everything.
static EVERY_SERVER: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("*"));

/// Decides about one request (decisions O1). Pure; the proxy and `explain` both call it.
#[must_use]
pub fn decide(snapshot: &Snapshot, facts: &Facts<'_>) -> Decision {
    let server = snapshot.server(facts.server);
    let method = match (facts.media_type, facts.body) {
        (MediaType::Json, Body::Call(envelope)) => MethodClass::of(&envelope.method),
        _ => MethodClass::Unknown,
    };
    let mut charges = Charges::new();
    let outcome = match admit(snapshot, facts, server) {
        Err(denial) => Outcome::Deny(denial),
        Ok((principal, scope_rule)) => {
            charges = charge(snapshot, server, principal, method);
            judge(snapshot, facts, server, scope_rule).unwrap_or_else(Outcome::Deny)
        }
    };
    Decision { charges, outcome, method }
}

/// The stages before the charge: a request refused here costs nothing.
fn admit<'a>(
    snapshot: &Snapshot,
    facts: &Facts<'a>,
    server: Option<&Arc<Server>>,
) -> Result<(&'a Principal, Rule), Denial> {
    if let Some(reason) = facts.malformed {
        return Err(builtin(reason, "request"));
    }
    let principal = match facts.credential {
        Credential::Principal(principal) => principal,
        // Not the token's fault, and the log should say whose.
        Credential::Refused(Reason::InternalError) => return Err(builtin(Reason::InternalError, "auth.no_secret")),
        Credential::Refused(reason) => return Err(builtin(reason, "auth.token")),
        Credential::Denied(site) => return Err(Denial::new(Reason::Unauthenticated, key(site))),
        Credential::RefusedBy(reason, word) => return Err(builtin(reason, word)),
    };
    if principal.context() == Context::Mgr {
        return check_permission(snapshot, principal).map(|rule| (principal, rule));
    }
    let Body::Call(envelope) = facts.body else { return Ok((principal, Rule::Builtin("scope.no_method"))) };
    if snapshot.auth.mode == AuthMode::None {
        return Ok((principal, Rule::Builtin("auth.mode")));
    }
    if !snapshot.auth.require_scopes {
        return Ok((principal, Rule::Builtin("auth.require_scopes")));
    }
    if envelope.method == Method::ServerDiscover.as_str() {
        return Ok((principal, Rule::Builtin("server.discover")));
    }
    let map = server.map_or(&snapshot.auth.scope_map, |server| &server.scope_map);
    check_scope(map, principal, &envelope.method).map(|rule| (principal, rule))
}

/// What a user of the manager needs in place of scopes.
///
/// # Errors
/// `Forbidden` without the permission that `acl.permission` names.
pub fn check_permission(snapshot: &Snapshot, principal: &Principal) -> Result<Rule, Denial> {
    match principal.permissions().contains(&snapshot.acl.permission) {
        true => Ok(Rule::Builtin("acl.permission")),
        false => Err(builtin(Reason::Forbidden, "acl.permission")),
    }
}

/// What a user of the manager needs besides, to have a call run later.
fn check_dispatch(snapshot: &Snapshot, principal: &Principal) -> Result<(), Denial> {
    let held = principal.permissions().contains(&snapshot.acl.dispatch_permission);
    match principal.context() == Context::Mgr && !held {
        true => Err(builtin(Reason::Forbidden, "acl.dispatch_permission")),
        false => Ok(()),
    }
}

fn check_scope(map: &ScopeMap, principal: &Principal, method: &str) -> Result<Rule, Denial> {
    let (required, site) = map.required(method);
    let rule = site.map_or(Rule::Builtin("scope.unmatched"), key);
    if principal.scopes().iter().any(|scope| scope == "*" || scope == required) {
        return Ok(rule);
    }
    Err(Denial { required_scope: Some(Arc::from(required)), ..Denial::new(Reason::ScopeDenied, rule) })
}

fn charge(snapshot: &Snapshot, server: Option<&Arc<Server>>, principal: &Principal, method: MethodClass) -> Charges {
    let mut charges = Charges::new();
    let policy = snapshot.rate_limit;
    if !policy.enabled {
        return charges;
    }
    let limit = server.map_or(policy.per_minute, |server| server.per_minute);
    let handle = server.map_or(&snapshot.unknown_handle, |server| &server.handle);
    let principal = principal.digest();
    if limit > 0 {
        let key = RateKey { principal, server: Arc::clone(handle), method: Some(method) };
        charges.push(Charge { key, limit, window: WINDOW });
    }
    if policy.total_per_minute > 0 {
        let key = RateKey { principal, server: Arc::clone(&EVERY_SERVER), method: None };
        charges.push(Charge { key, limit: policy.total_per_minute, window: WINDOW });
    }
    charges
}

/// The stages after the charge.
fn judge(
    snapshot: &Snapshot,
    facts: &Facts<'_>,
    server: Option<&Arc<Server>>,
    scope_rule: Rule,
) -> Result<Outcome, Denial> {
    if let (true, Credential::Principal(principal)) = (facts.dispatch, facts.credential) {
        check_dispatch(snapshot, principal)?;
    }
    if facts.http_method != HttpMethod::Post {
        return Err(builtin(Reason::MethodNotAllowed, "http.method"));
    }
    if facts.media_type != MediaType::Json {
        return Err(builtin(Reason::UnsupportedMediaType, "media_type"));
    }
    let read = match facts.body {
        Body::TooLarge => return Err(builtin(Reason::PayloadTooLarge, "limits.max_payload_kb")),
        Body::Unread(reason) => return Err(builtin(reason, "body")),
        Body::Refused(refused) => Err(builtin(Reason::Parse(refused.refusal), "parse")),
        Body::Call(envelope) => Ok(envelope),
    };
    let servers = &snapshot.security.allow_servers;
    if servers.find(facts.server).is_none() {
        return Err(unlisted(servers, Reason::ServerDenied, "security.allow_servers"));
    }
    let not_found = || builtin(Reason::ServerNotFound, "servers");
    // What is wrong with a call is nothing to a server that is not there.
    let found = |denial| if server.is_some() { denial } else { not_found() };
    let envelope = read.map_err(found)?;
    let method = Method::from_name(&envelope.method);
    if let (Some(method), Some(server)) = (method, server)
        && !is_served(method, server)
    {
        return Ok(Outcome::Answer { answer: LocalAnswer::MethodNotFound, rule: Rule::Builtin("method") });
    }
    let target = check_shape(envelope, method).map_err(found)?;
    check_headers(facts, envelope, target).map_err(found)?;
    let item_rule = check_target(snapshot, server, target)?;
    let server = server.ok_or_else(not_found)?;
    Ok(Outcome::Forward { server: Arc::clone(server), rule: item_rule.unwrap_or(scope_rule) })
}

/// Whether the method can be asked of the server at all. Our executor completes nothing and has no subscriptions, and
/// says so before it looks at what is asked for (emcp.md 7.2).
fn is_served(method: Method, server: &Server) -> bool {
    match method {
        Method::ServerDiscover => false,
        Method::CompletionComplete | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
            server.kind != ServerKind::Content
        }
        _ => true,
    }
}

/// What a call acts on, where lists decide about it.
#[derive(Clone, Copy)]
enum Target<'a> {
    None,
    Tool(&'a str),
    Prompt(&'a str),
    Resource(&'a str),
}

fn check_shape<'a>(envelope: &'a Envelope<'_>, method: Option<Method>) -> Result<Target<'a>, Denial> {
    if envelope.params == Params::Other {
        return Err(builtin(Reason::BadParams, "params"));
    }
    let named = || match envelope.name.as_deref() {
        None => Err(builtin(Reason::NameMissing, "params.name")),
        Some(name) if !is_name(name) => Err(builtin(Reason::NameInvalid, "params.name")),
        Some(_) if envelope.arguments == Arguments::Other => Err(builtin(Reason::BadArguments, "params.arguments")),
        Some(name) => Ok(name),
    };
    match method {
        Some(Method::ToolsCall) => named().map(Target::Tool),
        Some(Method::PromptsGet) => named().map(Target::Prompt),
        Some(Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe) => {
            match envelope.uri.as_deref() {
                Some(uri) if is_uri(uri) => Ok(Target::Resource(uri)),
                _ => Err(builtin(Reason::UriInvalid, "params.uri")),
            }
        }
        // What is completed is part of a prompt or resource, and told to those who may have it.
        Some(Method::CompletionComplete) => match (envelope.ref_name.as_deref(), envelope.ref_uri.as_deref()) {
            // Nobody can say what a reference of another kind is part of.
            (None, None) => Err(builtin(Reason::BadParams, "params.ref")),
            (Some(name), None) if is_name(name) => Ok(Target::Prompt(name)),
            (Some(_), _) => Err(builtin(Reason::NameInvalid, "params.ref.name")),
            (None, Some(uri)) if is_uri(uri) => Ok(Target::Resource(uri)),
            (None, Some(_)) => Err(builtin(Reason::UriInvalid, "params.ref.uri")),
        },
        // An upstream that trims or folds what it reads would run a method that was never judged.
        None if Method::is_lookalike(&envelope.method) => Err(builtin(Reason::Parse(Refusal::BadMethod), "method")),
        _ => Ok(Target::None),
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./:-".contains(&b))
}

/// Dot segments are refused too, however they are encoded: an upstream that resolves them would read another resource
/// than was judged.
fn is_uri(uri: &str) -> bool {
    (1..=MAX_URI_BYTES).contains(&uri.len()) && !uri.contains(char::is_control) && !has_dot_segments(uri)
}

fn has_dot_segments(uri: &str) -> bool {
    let mut bytes = Cow::Borrowed(uri.as_bytes());
    for _ in 0..MAX_URI_DECODINGS {
        let ends = |byte: &u8| matches!(byte, b'/' | b'\\' | b'?' | b'#' | b';');
        if bytes.split(ends).any(|part| matches!(part.trim_ascii(), b"." | b"..")) {
            return true;
        }
        match percent_decoded(&bytes) {
            Some(decoded) => bytes = Cow::Owned(decoded),
            None => return false,
        }
    }
    // What is encoded so many times hides something.
    true
}

/// Volunteered headers must say what the body says; what the body does not say, they may not say either. The name of
/// a task, which nothing here judges, is the upstream's to compare.
fn check_headers(facts: &Facts<'_>, envelope: &Envelope<'_>, target: Target<'_>) -> Result<(), Denial> {
    let ProtocolHeaders { version, method, name } = facts.headers;
    let same_method = method.is_none_or(|method| method == envelope.method);
    let same_name = match (name, target) {
        (Some(header), Target::Tool(name) | Target::Prompt(name) | Target::Resource(name)) => header == name,
        (Some(header), Target::None) => !header.is_empty() && envelope.method.starts_with("tasks/"),
        (None, _) => true,
    };
    let same_version = match (version, envelope.meta_version.as_deref()) {
        (Some(header), Some(meta)) => header == meta,
        (Some(header), None) => !header.is_empty(),
        (None, _) => true,
    };
    let same = same_method && same_name && same_version;
    if same { Ok(()) } else { Err(builtin(Reason::HeaderMismatch, "headers")) }
}

/// Deny beats allow, and what no list allows is denied. For an unknown server the global lists alone apply.
fn check_target(snapshot: &Snapshot, server: Option<&Arc<Server>>, target: Target<'_>) -> Result<Option<Rule>, Denial> {
    let allowed = |list: fn(&Server) -> &PatternSet, name: &str, reason, word| match server {
        None => Ok(None),
        Some(server) => match list(server).find(name) {
            Some(site) => Ok(Some(key(site))),
            None => Err(unlisted(list(server), reason, word)),
        },
    };
    match target {
        Target::None => Ok(None),
        Target::Prompt(name) => allowed(|s| &s.allow_prompts, name, Reason::PromptDenied, "allow_prompts"),
        Target::Resource(uri) => allowed(|s| &s.allow_resources, uri, Reason::ResourceDenied, "allow_resources"),
        Target::Tool(name) => {
            check_tool_denied(snapshot, server.map(AsRef::as_ref), name)?;
            allowed(|s| &s.allow_tools, name, Reason::ToolDenied, "allow_tools")
        }
    }
}

fn check_tool_denied(snapshot: &Snapshot, server: Option<&Server>, name: &str) -> Result<(), Denial> {
    let security = &snapshot.security;
    let denied = security.deny_tools.find(name).or_else(|| server.and_then(|s| s.deny_tools.find(name)));
    if let Some(site) = denied {
        return Err(Denial::new(Reason::ToolDenied, key(site)));
    }
    if !security.enable_write_tools && name.starts_with(WRITE_PREFIX) {
        return Err(Denial::new(Reason::ToolDenied, key(&security.write_tools_site)));
    }
    Ok(())
}

/// Whether the lists let anybody call the tool `name` on `server`: what [`decide`] asks of a `tools/call`, for whoever
/// asks again behind it.
#[must_use]
pub fn tool_allowed(snapshot: &Snapshot, server: &Server, name: &str) -> bool {
    check_tool_denied(snapshot, Some(server), name).is_ok() && server.allow_tools.find(name).is_some()
}

/// The same for a `resources/read` of `uri`.
#[must_use]
pub fn resource_allowed(server: &Server, uri: &str) -> bool {
    server.allow_resources.find(uri).is_some()
}

/// The same for a `prompts/get` of `name`.
#[must_use]
pub fn prompt_allowed(server: &Server, name: &str) -> bool {
    server.allow_prompts.find(name).is_some()
}

/// Whether the caller's scopes, or the permission of a manager's user, reach `tools/call` on `server`.
#[must_use]
pub fn may_call_tools(snapshot: &Snapshot, server: &Server, principal: &Principal) -> bool {
    principal.context() == Context::Mgr
        || snapshot.auth.mode == AuthMode::None
        || !snapshot.auth.require_scopes
        || check_scope(&server.scope_map, principal, Method::ToolsCall.as_str()).is_ok()
}

fn key(site: &RuleSite) -> Rule {
    Rule::Key(site.clone())
}

/// Nothing in an allow list names it: the list is the rule.
fn unlisted(list: &PatternSet, reason: Reason, word: &'static str) -> Denial {
    Denial::new(reason, list.site().map_or(Rule::Builtin(word), key))
}

fn builtin(reason: Reason, word: &'static str) -> Denial {
    Denial::new(reason, Rule::Builtin(word))
}
