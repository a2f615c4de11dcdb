//! What a reload permits that the policy before it did not.
//!
//! Invariant: every key that restricts is compared here; a test enumerates the keys. In doubt a change counts as
//! looser: a warning too many costs a look, one too few hides a hole.

use crate::policy::{
    Actor, AuthMode, LimitsPolicy, ManagerPolicy, OnStoreFailure, PatternSet, QueueDriver, ScopeMap, Server, Snapshot,
    StreamPolicy, TokenPolicy,
};

/// Sentences, each about one key.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn when(&mut self, looser: bool, text: impl Into<String>) {
        if looser {
            self.0.push(text.into());
        }
    }

    /// A switch that must not go on.
    fn on(&mut self, key: &str, old: bool, new: bool) {
        self.when(!old && new, format!("{key} is on"));
    }

    /// A switch that must not go off.
    fn off(&mut self, key: &str, old: bool, new: bool) {
        self.when(old && !new, format!("{key} is off"));
    }

    fn rose(&mut self, key: &str, old: impl Into<u64>, new: impl Into<u64>) {
        self.when(new.into() > old.into(), format!("{key} rose"));
    }

    /// A limit of which 0 means none.
    fn rate(&mut self, key: &str, old: u32, new: u32) {
        let most = |value: u32| if value == 0 { u64::MAX } else { u64::from(value) };
        self.rose(key, most(old), most(new));
    }

    /// Permits may go, and be replaced by narrower ones.
    fn allow(&mut self, key: &str, old: &PatternSet, new: &PatternSet) {
        for more in uncovered(new, old) {
            self.when(true, format!("{key} also has {more:?}"));
        }
    }

    /// Bans may come, and be replaced by wider ones.
    fn deny(&mut self, key: &str, old: &PatternSet, new: &PatternSet) {
        for gone in uncovered(old, new) {
            self.when(true, format!("{key} no longer has {gone:?}"));
        }
    }

    fn words<'a>(
        &mut self,
        key: &str,
        verb: &str,
        these: impl IntoIterator<Item = &'a String>,
        mut known: impl FnMut(&str) -> bool,
    ) {
        for word in these {
            self.when(!known(word), format!("{key} {verb} {word:?}"));
        }
    }
}

/// What more the new policy allows than the old one, one sentence each.
#[must_use]
pub fn loosened(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut found = Findings::default();
    routes(&mut found, old, new);
    auth(&mut found, old, new);
    rates(&mut found, old, new);
    limits(&mut found, "limits", &old.limits, &new.limits);
    found.rose("limits.max_header_kb", old.limits.max_header_bytes as u64, new.limits.max_header_bytes as u64);
    found.rose("limits.max_headers", old.limits.max_headers as u64, new.limits.max_headers as u64);
    stream(&mut found, "stream", &old.stream, &new.stream);
    let (before, after) = (&old.security, &new.security);
    found.allow("security.allow_servers", &before.allow_servers, &after.allow_servers);
    found.deny("security.deny_tools", &before.deny_tools, &after.deny_tools);
    found.on("security.enable_write_tools", before.enable_write_tools, after.enable_write_tools);
    found.off("security.hide_denied_tools", before.hide_denied_tools, after.hide_denied_tools);
    let known = |origin: &str| before.allow_origins.iter().any(|old| old == origin);
    found.words("security.allow_origins", "also has", &after.allow_origins, known);
    found.off("logging.audit_enabled", old.logging.audit_enabled, new.logging.audit_enabled);
    let kept = |key: &str| new.logging.redact_keys.iter().any(|new| new == key);
    found.words("logging.redact_keys", "no longer has", &old.logging.redact_keys, kept);
    let (before, after) = (&old.domain, &new.domain);
    for (key, was, is) in [
        ("content.max_depth", before.content_max_depth, after.content_max_depth),
        ("content.max_limit", before.content_max_limit, after.content_max_limit),
        ("content.max_offset", before.content_max_offset, after.content_max_offset),
        ("models.max_offset", before.models_max_offset, after.models_max_offset),
    ] {
        found.rose(&format!("domain.{key}"), was, is);
    }
    let known = |model: &str| before.models_allow.iter().any(|old| old == model);
    found.words("domain.models.allow", "also has", &after.models_allow, known);
    found.on("compat.token_errors", old.compat.token_errors, new.compat.token_errors);
    found.on("compat.emcp_models", old.compat.emcp_models, new.compat.emcp_models);
    found.when(old.acl.permission != new.acl.permission, "acl.permission changed");
    let changed = old.acl.dispatch_permission != new.acl.dispatch_permission;
    found.when(changed, "acl.dispatch_permission changed");
    manager(&mut found, &old.manager, &new.manager);
    found.when(old.actor != new.actor && new.actor != Actor::Initiator, "actor: calls act as another user");
    let takes = |policy: &Snapshot| policy.queue.driver != QueueDriver::Off;
    found.when(!takes(old) && takes(new), "queue.driver: calls may be dispatched");
    found.on("queue.accept_foreign", old.queue.accept_foreign, new.queue.accept_foreign);
    for server in &new.servers {
        match old.server(&server.handle) {
            Some(before) => compare(&mut found, before, server),
            None => found.when(true, format!("server {} is new", server.handle)),
        }
    }
    found.0
}

/// Another way to tell who uses the manager may tell somebody else; a longer life lets more sessions count.
fn manager(found: &mut Findings, old: &ManagerPolicy, new: &ManagerPolicy) {
    found.when(old.sources != new.sources && !new.sources.is_empty(), "manager.sources changed");
    for (key, was, is) in [
        ("manager.upstream", &old.upstream, &new.upstream),
        ("manager.cookie", &old.cookie, &new.cookie),
        ("manager.access_permission", &old.access_permission, &new.access_permission),
    ] {
        found.when(was != is, format!("{key} changed"));
    }
    found.when(new.session_seconds > old.session_seconds, "manager.session_minutes rose");
    found.when(new.cache_seconds > old.cache_seconds, "manager.cache_seconds rose");
    found.off("manager.require_csrf_token", old.require_csrf_token, new.require_csrf_token);
}

fn routes(found: &mut Findings, old: &Snapshot, new: &Snapshot) {
    let (old, new) = (&old.routes, &new.routes);
    found.when(!old.api && new.api, "mode.api: API routes are switched on");
    found.when(!old.manager && new.manager, "mode.internal: manager routes are switched on");
    // What was reserved before passes to the site now.
    for (key, was, is) in [
        ("route.base", &old.base, &new.base),
        ("route.version", &old.version, &new.version),
        ("route.api_prefix", &old.api_prefix, &new.api_prefix),
        ("route.manager_prefix", &old.manager_prefix, &new.manager_prefix),
    ] {
        found.when(was != is, format!("{key} changed: the shapes reserved before reach the site"));
    }
}

fn auth(found: &mut Findings, old: &Snapshot, new: &Snapshot) {
    let (old, new) = (&old.auth, &new.auth);
    found.when(old.mode != new.mode && new.mode == AuthMode::None, "auth.mode is none");
    found.off("auth.require_scopes", old.require_scopes, new.require_scopes);
    found.off("auth.require_exp", old.require_exp, new.require_exp);
    found.when(!old.issuer.is_empty() && old.issuer != new.issuer, "auth.issuer changed");
    found.when(!old.audience.is_empty() && old.audience != new.audience, "auth.audience changed");
    found.when(new.secrets.iter().any(|secret| !old.secrets.contains(secret)), "auth: there is a new secret");
    for (key, before, after) in
        [("auth.deny_sub", &old.deny_sub, &new.deny_sub), ("auth.deny_jti", &old.deny_jti, &new.deny_jti)]
    {
        let kept = |word: &str| after.iter().any(|(other, _)| other == word);
        found.words(key, "no longer has", before.iter().map(|(word, _)| word), kept);
    }
    found.rate("auth.failures_per_minute", old.failures_per_minute, new.failures_per_minute);
    found.when(differ(&old.scope_map, &new.scope_map), "auth.scope_map changed");
    token(found, &old.token, &new.token);
}

fn token(found: &mut Findings, old: &TokenPolicy, new: &TokenPolicy) {
    if !new.enabled {
        return;
    }
    found.on("auth.token.enabled", old.enabled, new.enabled);
    found.when(old.upstream != new.upstream, "auth.token.upstream changed");
    found.rose("auth.token.ttl_seconds", old.ttl_s, new.ttl_s);
    found.words("auth.token.scopes", "also has", &new.scopes, |scope| old.scopes.iter().any(|known| known == scope));
    found.when(new.roles.iter().any(|role| !old.roles.contains(role)), "auth.token.roles has more roles");
    found.rate("auth.token.account_per_minute", old.account_per_minute, new.account_per_minute);
    found.rate("auth.token.address_per_minute", old.address_per_minute, new.address_per_minute);
    found.on("auth.token.legacy_md5", old.legacy_md5, new.legacy_md5);
}

fn rates(found: &mut Findings, old: &Snapshot, new: &Snapshot) {
    let (old, new) = (&old.rate_limit, &new.rate_limit);
    let rank = |on_failure: OnStoreFailure| match on_failure {
        OnStoreFailure::Deny => 0_u32,
        OnStoreFailure::Local => 1,
        OnStoreFailure::Allow => 2,
    };
    found.off("rate_limit.enabled", old.enabled, new.enabled);
    found.rate("rate_limit.per_minute", old.per_minute, new.per_minute);
    found.rate("rate_limit.total_per_minute", old.total_per_minute, new.total_per_minute);
    let on_failure = (rank(old.on_store_failure), rank(new.on_store_failure));
    found.when(on_failure.1 > on_failure.0, "rate_limit.on_store_failure is looser");
    found.when(new.replicas < old.replicas, "rate_limit.replicas fell: each counts a larger share while Redis is away");
}

/// The caps that servers have as well.
fn limits(found: &mut Findings, table: &str, old: &LimitsPolicy, new: &LimitsPolicy) {
    for (key, was, is) in [
        ("max_payload_kb", old.max_payload_bytes as u64, new.max_payload_bytes as u64),
        ("max_result_bytes", old.max_result_bytes as u64, new.max_result_bytes as u64),
        ("max_result_items", old.max_result_items.into(), new.max_result_items.into()),
        ("max_stream_mb", old.max_stream_bytes, new.max_stream_bytes),
    ] {
        found.rose(&format!("{table}.{key}"), was, is);
    }
}

fn stream(found: &mut Findings, table: &str, old: &StreamPolicy, new: &StreamPolicy) {
    found.on(&format!("{table}.enabled"), old.enabled, new.enabled);
    found.rose(&format!("{table}.max_stream_seconds"), old.max_stream_seconds, new.max_stream_seconds);
    found.rose(&format!("{table}.max_event_kb"), old.max_event_bytes as u64, new.max_event_bytes as u64);
    found.off(&format!("{table}.abort_on_disconnect"), old.abort_on_disconnect, new.abort_on_disconnect);
}

fn compare(found: &mut Findings, old: &Server, new: &Server) {
    let name = format!("server {}:", new.handle);
    found.when(old.kind != new.kind, format!("{name} kind changed"));
    found.when(old.upstream != new.upstream, format!("{name} upstream changed"));
    found.allow(&format!("{name} allow_tools"), &old.allow_tools, &new.allow_tools);
    found.allow(&format!("{name} allow_resources"), &old.allow_resources, &new.allow_resources);
    found.allow(&format!("{name} allow_prompts"), &old.allow_prompts, &new.allow_prompts);
    found.deny(&format!("{name} security.deny_tools"), &old.deny_tools, &new.deny_tools);
    found.when(differ(&old.scope_map, &new.scope_map), format!("{name} scope_map changed"));
    found.rate(&format!("{name} rate_limit.per_minute"), old.per_minute, new.per_minute);
    limits(found, &format!("{name} limits"), &old.limits, &new.limits);
    stream(found, &format!("{name} stream"), &old.stream, &new.stream);
}

/// The patterns of `these` that no single pattern of `those` takes in. A pattern that matches another one's text
/// matches all that the other matches: only its stars can stand for that one's stars.
fn uncovered<'a>(these: &'a PatternSet, those: &PatternSet) -> Vec<&'a str> {
    let texts = these.patterns().iter().map(|(pattern, _)| pattern.as_str());
    texts.filter(|text| those.find(text).is_none()).collect()
}

/// Whether two maps ask for other scopes, or in another order.
fn differ(old: &ScopeMap, new: &ScopeMap) -> bool {
    let entries = |map: &ScopeMap| -> Vec<(String, String)> {
        map.entries.iter().map(|(scope, pattern, _)| (scope.to_string(), pattern.as_str().to_owned())).collect()
    };
    entries(old) != entries(new)
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
