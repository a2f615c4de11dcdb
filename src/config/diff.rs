use std::collections::BTreeSet;

use crate::policy::{AuthMode, PatternSet, Snapshot};

fn set(patterns: &PatternSet) -> BTreeSet<&str> {
    patterns.patterns().iter().map(|(pattern, _)| pattern.as_str()).collect()
}

fn off_is_most(value: u32) -> u64 {
    if value == 0 { u64::MAX } else { u64::from(value) }
}

/// What the new policy allows that the old one did not, one sentence each; patterns are compared as written.
#[must_use]
pub fn loosened(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut out = Vec::new();
    let mut say = |looser: bool, text: String| {
        if looser {
            out.push(text);
        }
    };
    say(!old.routes.api && new.routes.api, "API routes are switched on".into());
    say(!old.routes.manager && new.routes.manager, "manager routes are switched on".into());
    say(old.auth.mode != new.auth.mode && new.auth.mode == AuthMode::None, "auth.mode is none".into());
    say(old.auth.require_scopes && !new.auth.require_scopes, "auth.require_scopes is off".into());
    say(old.auth.require_exp && !new.auth.require_exp, "auth.require_exp is off".into());
    say(!old.auth.issuer.is_empty() && old.auth.issuer != new.auth.issuer, "auth.issuer changed".into());
    say(!old.auth.audience.is_empty() && old.auth.audience != new.auth.audience, "auth.audience changed".into());
    let secret = new.auth.secrets.iter().any(|secret| !old.auth.secrets.contains(secret));
    say(secret, "auth has a new secret".into());
    for (name, before, after) in [
        ("auth.deny_sub", &old.auth.deny_sub, &new.auth.deny_sub),
        ("auth.deny_jti", &old.auth.deny_jti, &new.auth.deny_jti),
    ] {
        for (word, _) in before.iter().filter(|(word, _)| !after.iter().any(|(other, _)| other == word)) {
            say(true, format!("{name} no longer has {word:?}"));
        }
    }
    let scopes = |s: &crate::policy::ScopeMap| -> Vec<(String, String)> {
        s.entries.iter().map(|(scope, pattern, _)| (scope.to_string(), pattern.as_str().to_owned())).collect()
    };
    say(scopes(&old.auth.scope_map) != scopes(&new.auth.scope_map), "auth.scope_map changed".into());
    say(old.rate_limit.enabled && !new.rate_limit.enabled, "rate_limit.enabled is off".into());
    say(
        old.rate_limit.on_store_failure != new.rate_limit.on_store_failure,
        "rate_limit.on_store_failure changed".into(),
    );
    say(!old.security.enable_write_tools && new.security.enable_write_tools, "write tools are on".into());
    say(old.security.hide_denied_tools && !new.security.hide_denied_tools, "denied tools are listed".into());
    say(!old.compat.emcp_models && new.compat.emcp_models, "compat.emcp_models is on".into());
    for gone in set(&old.security.deny_tools).difference(&set(&new.security.deny_tools)) {
        say(true, format!("security.deny_tools no longer has {gone:?}"));
    }
    for more in set(&new.security.allow_servers).difference(&set(&old.security.allow_servers)) {
        say(true, format!("security.allow_servers also has {more:?}"));
    }
    for origin in new.security.allow_origins.iter().filter(|origin| !old.security.allow_origins.contains(origin)) {
        say(true, format!("security.allow_origins also has {origin:?}"));
    }
    for model in new.domain.models_allow.iter().filter(|model| !old.domain.models_allow.contains(model)) {
        say(true, format!("domain.models.allow also has {model:?}"));
    }
    let numbers = [
        (
            "auth.failures_per_minute",
            off_is_most(old.auth.failures_per_minute),
            off_is_most(new.auth.failures_per_minute),
        ),
        ("rate_limit.per_minute", off_is_most(old.rate_limit.per_minute), off_is_most(new.rate_limit.per_minute)),
        (
            "rate_limit.total_per_minute",
            off_is_most(old.rate_limit.total_per_minute),
            off_is_most(new.rate_limit.total_per_minute),
        ),
        ("domain.content.max_depth", old.domain.content_max_depth.into(), new.domain.content_max_depth.into()),
        ("domain.content.max_limit", old.domain.content_max_limit.into(), new.domain.content_max_limit.into()),
        ("limits.max_payload_kb", old.limits.max_payload_bytes as u64, new.limits.max_payload_bytes as u64),
        ("limits.max_result_bytes", old.limits.max_result_bytes as u64, new.limits.max_result_bytes as u64),
    ];
    for (name, before, after) in numbers {
        say(after > before, format!("{name} rose"));
    }
    for key in old.logging.redact_keys.iter().filter(|key| !new.logging.redact_keys.contains(key)) {
        say(true, format!("logging.redact_keys no longer has {key:?}"));
    }
    say(old.logging.audit_enabled && !new.logging.audit_enabled, "logging.audit_enabled is off".into());
    for server in &new.servers {
        let handle = &server.handle;
        let Some(before) = old.server(handle) else {
            say(true, format!("server {handle} is new"));
            continue;
        };
        for (name, was, is) in [
            ("allow_tools", &before.allow_tools, &server.allow_tools),
            ("allow_resources", &before.allow_resources, &server.allow_resources),
            ("allow_prompts", &before.allow_prompts, &server.allow_prompts),
            ("deny_tools", &server.deny_tools, &before.deny_tools),
        ] {
            for word in set(is).difference(&set(was)) {
                let verb = if name == "deny_tools" { "no longer has" } else { "also has" };
                say(true, format!("server {handle}: {name} {verb} {word:?}"));
            }
        }
        say(before.upstream != server.upstream, format!("server {handle}: upstream changed"));
        say(
            off_is_most(server.per_minute) > off_is_most(before.per_minute),
            format!("server {handle}: per_minute rose"),
        );
        say(!before.stream.enabled && server.stream.enabled, format!("server {handle}: streaming is on"));
        say(scopes(&before.scope_map) != scopes(&server.scope_map), format!("server {handle}: scope_map changed"));
        say(
            server.limits.max_payload_bytes > before.limits.max_payload_bytes
                || server.limits.max_result_bytes > before.limits.max_result_bytes,
            format!("server {handle}: limits rose"),
        );
    }
    out
}
