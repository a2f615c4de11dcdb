use std::path::Path;

use super::*;
use crate::config::document::Document;
use crate::config::policy::read;
use crate::config::reader::Reader;
use crate::config::{Overrides, POLICY_KEYS, PolicyContext, Source, all_keys, embedded, load_policy};

/// What a key does to what callers may do.
enum Effect {
    /// Going from the first value to the second is looser, and the way back is not, or is reported too.
    Restricts(&'static str, &'static str),
    /// Says nothing about what is permitted; why.
    Neutral(&'static str),
}

use Effect::{Neutral, Restricts};

const SWITCH_ON: Effect = Restricts("false", "true");
const SWITCH_OFF: Effect = Restricts("true", "false");

/// Every key of policy.toml. Tables stand for nothing but their keys and are left out.
const KEYS: &[(&str, Effect)] = &[
    ("acl.dispatch_permission", Restricts(r#""emcp_dispatch""#, r#""edit_document""#)),
    ("acl.permission", Restricts(r#""emcp""#, r#""edit_document""#)),
    ("actor.mode", Restricts(r#""initiator""#, r#""service""#)),
    ("actor.service_user_id", Neutral("acts with actor.mode, which is compared with it")),
    ("auth.audience", Restricts(r#""us""#, r#""""#)),
    ("auth.deny_jti", Restricts(r#"["a"]"#, "[]")),
    ("auth.deny_sub", Restricts(r#"["a", "b"]"#, r#"["a"]"#)),
    ("auth.failures_per_minute", Restricts("30", "0")),
    ("auth.issuer", Restricts(r#""us""#, r#""""#)),
    ("auth.mode", Restricts(r#""sapi_jwt""#, r#""none""#)),
    ("auth.require_exp", SWITCH_OFF),
    ("auth.require_scopes", SWITCH_OFF),
    ("auth.scope_map", Restricts(r#"{"mcp:admin" = "*"}"#, r#"{"mcp:read" = "*"}"#)),
    ("auth.secret_env", Restricts(r#""OLD""#, r#""NEW""#)),
    ("auth.secret_envs", Restricts(r#"["OLD"]"#, r#"["OLD", "NEW"]"#)),
    ("auth.secret_files", Neutral("the secrets themselves are compared, wherever they come from")),
    ("auth.token.account_per_minute", Restricts("10", "0")),
    ("auth.token.address_per_minute", Restricts("10", "11")),
    ("auth.token.enabled", SWITCH_ON),
    ("auth.token.legacy_md5", SWITCH_ON),
    ("auth.token.roles", Restricts("[1]", "[1, 2]")),
    ("auth.token.scopes", Restricts(r#"["mcp:read"]"#, r#"["mcp:read", "*"]"#)),
    ("auth.token.ttl_seconds", Restricts("60", "61")),
    ("auth.token.upstream", Restricts(r#""executor""#, r#""elsewhere""#)),
    ("compat.emcp_models", SWITCH_ON),
    ("compat.token_errors", SWITCH_ON),
    ("compat.validation_as_rpc_error", Neutral("the form of an error")),
    ("domain.content.max_depth", Restricts("6", "7")),
    ("domain.content.max_limit", Restricts("10", "11")),
    ("domain.content.max_offset", Restricts("10", "11")),
    ("domain.models.allow", Restricts("[]", r#"["Category"]"#)),
    ("domain.models.max_offset", Restricts("10", "11")),
    ("enable", SWITCH_ON),
    ("i18n.locale", Neutral("the language of messages")),
    ("i18n.negotiate", Neutral("the language of messages")),
    ("idempotency.header", Neutral("where a client's own key is read from")),
    ("idempotency.ttl_seconds", Neutral("how long an answer that was permitted is known")),
    ("limits.max_header_kb", Restricts("16", "17")),
    ("limits.max_headers", Restricts("50", "51")),
    ("limits.max_payload_kb", Restricts("16", "17")),
    ("limits.max_result_bytes", Restricts("1000", "1001")),
    ("limits.max_result_items", Restricts("10", "11")),
    ("limits.max_stream_mb", Restricts("1", "2")),
    ("logging.audit_enabled", SWITCH_OFF),
    ("logging.redact_keys", Restricts(r#"["token", "jwt"]"#, r#"["jwt"]"#)),
    ("manager.access_permission", Restricts(r#""access_permissions""#, r#""""#)),
    ("manager.cache_seconds", Restricts("2", "3")),
    ("manager.cookie", Restricts(r#""evo_session""#, r#""evo""#)),
    ("manager.require_csrf_token", SWITCH_OFF),
    ("manager.session_minutes", Restricts("60", "61")),
    ("manager.sources", Restricts(r#"["database"]"#, r#"["database", "access_token"]"#)),
    ("manager.upstream", Restricts(r#""executor""#, r#""other""#)),
    ("mode.api", SWITCH_ON),
    ("mode.internal", SWITCH_ON),
    ("queue.accept_foreign", SWITCH_ON),
    ("queue.driver", Restricts(r#""off""#, r#""own""#)),
    ("queue.failover", Neutral("the same calls, judged in the same way, now or later")),
    ("queue.max_attempts", Neutral("how often what was permitted is tried")),
    ("rate_limit.enabled", SWITCH_OFF),
    ("rate_limit.on_store_failure", Restricts(r#""local""#, r#""allow""#)),
    ("rate_limit.per_minute", Restricts("60", "61")),
    ("rate_limit.replicas", Restricts("3", "2")),
    ("rate_limit.total_per_minute", Restricts("100", "0")),
    ("route.api_prefix", Restricts(r#""mcp""#, r#""tools""#)),
    ("route.base", Restricts(r#""api""#, r#""rest""#)),
    ("route.manager_prefix", Restricts(r#""emcp""#, r#""manage""#)),
    ("route.version", Restricts(r#""v1""#, r#""v2""#)),
    ("security.allow_origins", Restricts("[]", r#"["https://a.example"]"#)),
    ("security.allow_servers", Restricts(r#"["content"]"#, r#"["*"]"#)),
    ("security.deny_tools", Restricts(r#"["evo.*"]"#, r#"["evo.model.*"]"#)),
    ("security.enable_write_tools", SWITCH_ON),
    ("security.hide_denied_tools", SWITCH_OFF),
    ("servers.allow_prompts", Restricts("[]", r#"["p"]"#)),
    ("servers.allow_resources", Restricts("[]", r#"["r"]"#)),
    ("servers.allow_tools", Restricts(r#"["evo.content.*"]"#, r#"["evo.*"]"#)),
    ("servers.deny_tools", Neutral("another spelling of servers.security.deny_tools")),
    ("servers.enabled", SWITCH_ON),
    ("servers.handle", Restricts(r#""content""#, r#""other""#)),
    ("servers.kind", Restricts(r#""content""#, r#""mcp""#)),
    ("servers.limits.max_payload_kb", Restricts("16", "17")),
    ("servers.limits.max_result_bytes", Restricts("1000", "1001")),
    ("servers.limits.max_result_items", Restricts("10", "11")),
    ("servers.limits.max_stream_mb", Restricts("1", "2")),
    ("servers.rate_limit.per_minute", Restricts("60", "0")),
    ("servers.scope_map", Restricts(r#"{"mcp:admin" = "*"}"#, r#"{"mcp:read" = "*"}"#)),
    ("servers.security.deny_tools", Restricts(r#"["evo.model.get"]"#, "[]")),
    ("servers.stream.abort_on_disconnect", SWITCH_OFF),
    ("servers.stream.enabled", SWITCH_ON),
    ("servers.stream.heartbeat_seconds", Neutral("a comment more or less")),
    ("servers.stream.max_event_kb", Restricts("16", "17")),
    ("servers.stream.max_stream_seconds", Restricts("16", "17")),
    ("servers.tool_names", Neutral("only held against the names of other servers")),
    ("servers.transport", Restricts(r#""local""#, r#""web""#)),
    ("servers.upstream", Restricts(r#""executor""#, r#""elsewhere""#)),
    ("stream.abort_on_disconnect", SWITCH_OFF),
    ("stream.enabled", SWITCH_ON),
    ("stream.heartbeat_seconds", Neutral("a comment more or less")),
    ("stream.max_event_kb", Restricts("16", "17")),
    ("stream.max_stream_seconds", Restricts("16", "17")),
    ("toolset_version", Neutral("a name in answers")),
    ("trace.generate_if_missing", Neutral("identifiers for people")),
    ("trace.header", Neutral("identifiers for people")),
];

fn source() -> Source {
    Source::embedded("policy.toml", embedded::POLICY, Path::new("."))
}

/// The shipped policy with these keys set; `OLD` and `NEW` hold secrets.
fn policy(set: &[(&str, &str)]) -> Snapshot {
    let secret = |letter: &str| letter.repeat(32);
    let environment = [("OLD".to_owned(), secret("o")), ("NEW".to_owned(), secret("n"))];
    let set = set.iter().map(|(key, value)| ((*key).replace("servers.", "servers.0."), (*value).to_owned())).collect();
    let overrides = Overrides { environment: environment.into(), set, ..Overrides::default() };
    load_policy(&source(), &overrides, PolicyContext::default()).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn every_key_is_classified() {
    let overrides = Overrides::default();
    let (document, problems) = Document::parse(&source(), &overrides, POLICY_KEYS, &all_keys());
    let reader = Reader::new(&document, ".".into(), problems);
    read(&reader, &source(), &overrides, PolicyContext::default());
    let asked = reader.asked();
    let leaf = |key: &&String| !asked.iter().any(|other| other.starts_with(&format!("{key}.")));
    // The list of servers is no key of its own, and `[end]` holds nothing; nor is a scope map asked for its scopes.
    let leaves: Vec<&String> =
        asked.iter().filter(leaf).filter(|key| !["servers", "end"].contains(&key.as_str())).collect();
    let unclassified: Vec<_> =
        leaves.iter().filter(|key| !KEYS.iter().any(|(known, _)| *known == key.as_str())).collect();
    assert!(unclassified.is_empty(), "say in KEYS, and in `loosened`, whether these restrict: {unclassified:?}");
    let gone: Vec<_> =
        KEYS.iter().filter(|(key, _)| !leaves.iter().any(|leaf| leaf == key)).map(|(key, _)| key).collect();
    assert!(gone.is_empty(), "no longer read: {gone:?}");
}

#[test]
fn loosening_any_key_that_restricts_is_found() {
    for (key, effect) in KEYS {
        let base: &[(&str, &str)] = match *key {
            key if key.starts_with("auth.token.") && key != "auth.token.enabled" => &[("auth.token.enabled", "true")],
            "actor.mode" => &[("actor.service_user_id", "7")],
            "mode.internal" => &[("manager.sources", r#"["database"]"#)],
            // The variable alone would otherwise add to the shipped one.
            "servers.kind" => &[("servers.allow_tools", "[]")],
            _ => &[],
        };
        let with = |value: &'static str| {
            let mut set = base.to_vec();
            set.push((key, value));
            policy(&set)
        };
        match effect {
            Restricts(tight, loose) => {
                let (tight, loose) = (with(tight), with(loose));
                let found = loosened(&tight, &loose);
                assert!(!found.is_empty(), "{key} is not compared");
                assert!(loosened(&tight, &tight).is_empty() && loosened(&loose, &loose).is_empty(), "{key}");
                if matches!(*key, "security.deny_tools" | "servers.allow_tools" | "limits.max_stream_mb") {
                    assert!(loosened(&loose, &tight).is_empty(), "{key}: tightening is reported");
                }
            }
            Neutral(why) => assert!(!why.is_empty(), "{key}"),
        }
    }
}

#[test]
fn a_pattern_that_another_takes_in_is_no_change() {
    let allow = |list| policy(&[("servers.allow_tools", list)]);
    let deny = |list| policy(&[("security.deny_tools", list)]);
    let cases = [
        (allow(r#"["evo.*"]"#), allow(r#"["evo.content.get", "evo.*.get"]"#), 0),
        (allow(r#"["evo.*.get"]"#), allow(r#"["evo.*"]"#), 1),
        (allow(r#"["evo.content.get"]"#), allow(r#"["evo.content.get", "evo.model.get"]"#), 1),
        (deny(r#"["a.b", "a.c"]"#), deny(r#"["a.*"]"#), 0),
        (deny(r#"["a.*"]"#), deny(r#"["a.b", "a.c"]"#), 1),
    ];
    for (index, (old, new, expected)) in cases.iter().enumerate() {
        let found = loosened(old, new);
        assert_eq!(found.len(), *expected, "case {index}: {found:?}");
    }
}
