use std::borrow::Cow;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::Principal;
use crate::protocol::{Arguments, Envelope, Id, MethodClass, Params, Refusal, Refused};

fn call<'a>(method: &'a str, name: Option<&'a str>) -> Envelope<'a> {
    Envelope {
        id: Id::Number(1),
        method: Cow::Borrowed(method),
        params: Params::Object,
        name: name.map(Cow::Borrowed),
        uri: name.map(Cow::Borrowed),
        ref_name: None,
        ref_uri: None,
        arguments: Arguments::Absent,
        has_progress_token: false,
        meta_version: None,
    }
}

fn principal(scopes: &[&str]) -> Principal {
    Principal::api("", "alice", None, scopes.iter().map(|scope| (*scope).to_owned()).collect(), None)
}

fn facts<'a>(principal: &'a Principal, body: Body<'a>) -> Facts<'a> {
    Facts {
        server: "content",
        http_method: HttpMethod::Post,
        dispatch: false,
        malformed: None,
        credential: Credential::Principal(principal),
        media_type: MediaType::Json,
        body,
        headers: ProtocolHeaders::default(),
    }
}

fn code(decision: &Decision) -> &'static str {
    match decision.outcome() {
        Outcome::Forward { .. } => "forward",
        Outcome::Answer { .. } => "answer",
        Outcome::Deny(denial) => denial.reason.code(),
    }
}

#[test]
fn a_permission_decides_for_the_manager_whatever_the_tokens_need() {
    let call = call("tools/call", Some("evo.content.get"));
    for (mode, require_scopes) in [(AuthMode::SapiJwt, true), (AuthMode::SapiJwt, false), (AuthMode::None, false)] {
        let mut snapshot = Snapshot::sample();
        (snapshot.auth.mode, snapshot.auth.require_scopes) = (mode, require_scopes);
        for (held, expected, charges) in [
            (&["edit", "emcp"][..], "forward", 1),
            (&["emcp_manage", "EMCP", "*"][..], "forbidden", 0),
            (&[][..], "forbidden", 0),
        ] {
            let manager = Principal::manager(7, held.iter().map(|key| (*key).to_owned()).collect());
            let decision = decide(&snapshot, &facts(&manager, Body::Call(&call)));
            assert_eq!((code(&decision), decision.charges.len()), (expected, charges), "{mode:?} {held:?}");
            let unread = decide(&snapshot, &facts(&manager, Body::TooLarge));
            let told = if expected == "forward" { "payload_too_large" } else { expected };
            assert_eq!(code(&unread), told, "{held:?}");
            let later = |held: &[&str]| {
                let manager = Principal::manager(7, held.iter().map(|key| (*key).to_owned()).collect());
                let decision = decide(&snapshot, &Facts { dispatch: true, ..facts(&manager, Body::Call(&call)) });
                (code(&decision), decision.charges.len())
            };
            assert_eq!(later(held), ("forbidden", charges), "what is refused after the charge stays charged");
            let more: Vec<&str> = held.iter().copied().chain(["emcp_dispatch"]).collect();
            assert_eq!(later(&more), (expected, charges), "{more:?}");
        }
        let alice = principal(&["mcp:call"]);
        let later = decide(&snapshot, &Facts { dispatch: true, ..facts(&alice, Body::Call(&call)) });
        assert_eq!(code(&later), "forward", "the scope of the call is all that a token needs");
    }
}

#[test]
fn each_call_gets_its_decision_and_rule() {
    let snapshot = Snapshot::sample();
    let all = principal(&["*"]);
    let long = "a".repeat(129);
    let cases = [
        ("tools/call", Some("evo.content.get"), "forward", "servers[0].allow_tools[0]"),
        ("tools/call", Some("evo.content.secret"), "tool_denied", "servers[0].deny_tools[0]"),
        ("tools/call", Some("evo.content.purge"), "tool_denied", "security.deny_tools[0]"),
        ("tools/call", Some("evo.write.x"), "tool_denied", "security.enable_write_tools"),
        ("tools/call", Some("evo.model.get"), "tool_denied", "allow_tools"),
        ("tools/call", Some(" evo.content.get"), "name_invalid", "params.name"),
        ("tools/call", Some("\u{feff}evo.content.get"), "name_invalid", "params.name"),
        ("tools/call", Some(&long), "name_invalid", "params.name"),
        ("tools/call", None, "name_missing", "params.name"),
        ("prompts/get", Some("hello"), "forward", "servers[0].allow_prompts[0]"),
        ("prompts/get", Some("bye"), "prompt_denied", "allow_prompts"),
        ("resources/read", Some("site://a"), "forward", "servers[0].allow_resources[0]"),
        ("resources/read", Some("file://a"), "resource_denied", "allow_resources"),
        ("resources/read", Some("site://a/%2E./b"), "uri_invalid", "params.uri"),
        ("resources/read", Some("site://a/..%2fb"), "uri_invalid", "params.uri"),
        ("resources/read", Some("site://a%5c..%5Cb"), "uri_invalid", "params.uri"),
        ("resources/read", Some("site://a/%252e%252e/b"), "uri_invalid", "params.uri"),
        ("resources/read", Some("site://a/..;/b"), "uri_invalid", "params.uri"),
        ("resources/read", Some("site://a/..?b"), "uri_invalid", "params.uri"),
        ("resources/read", Some("site://a/..%23b"), "uri_invalid", "params.uri"),
        ("resources/read", Some("site://a/%25252525252e"), "uri_invalid", "params.uri"),
        ("resources/read", Some("site://a/100%25%20of..it/.hid"), "forward", "servers[0].allow_resources[0]"),
        ("resources/read", None, "uri_invalid", "params.uri"),
        ("server/discover", None, "answer", ""),
        ("tools/list", None, "forward", "auth.scope_map"),
    ];
    for (method, name, expected, rule) in cases {
        let envelope = call(method, name);
        let decision = decide(&snapshot, &facts(&all, Body::Call(&envelope)));
        assert_eq!(code(&decision), expected, "{method} {name:?}");
        assert_eq!(decision.charges.len(), 1, "{method} {name:?}");
        match decision.outcome() {
            Outcome::Forward { rule: found, .. } => assert_eq!(found.to_string(), rule),
            Outcome::Deny(denial) => assert_eq!(denial.rule.to_string(), rule),
            Outcome::Answer { .. } => {}
        }
    }
}

#[test]
fn the_first_failing_stage_decides_and_later_ones_are_charged() {
    let snapshot = Snapshot::sample();
    let (all, none) = (principal(&["*"]), principal(&[]));
    let bad = call("tools/call", None);
    let refused = Refused { refusal: Refusal::NotJson, id: Id::Absent };
    let base = facts(&all, Body::Call(&bad));
    let malformed = Facts {
        malformed: Some(Reason::ForeignOrigin),
        credential: Credential::Refused(Reason::Unauthenticated),
        ..base
    };
    let unauthenticated = Facts { malformed: None, http_method: HttpMethod::Other, ..malformed };
    let cases = [
        (malformed, "foreign_origin", 0),
        (unauthenticated, "unauthenticated", 0),
        (
            Facts { http_method: HttpMethod::Other, ..facts(&none, Body::Unread(Reason::BadRequest)) },
            "method_not_allowed",
            1,
        ),
        (Facts { media_type: MediaType::Other, ..facts(&none, Body::Call(&bad)) }, "scope_denied", 0),
        (Facts { media_type: MediaType::Other, body: Body::TooLarge, ..base }, "unsupported_media_type", 1),
        (Facts { body: Body::TooLarge, server: "nope", ..base }, "payload_too_large", 1),
        (Facts { body: Body::Unread(Reason::RequestTimeout), ..base }, "request_timeout", 1),
        (Facts { body: Body::Refused(&refused), ..base }, "not_json", 1),
        (base, "name_missing", 1),
        (Facts { body: Body::Refused(&refused), server: "nope", ..base }, "server_not_found", 1),
        (Facts { server: "nope", ..base }, "server_not_found", 1),
    ];
    for (facts, expected, charges) in cases {
        let decision = decide(&snapshot, &facts);
        assert_eq!((code(&decision), decision.charges.len()), (expected, charges));
    }
    let good = call("tools/call", Some("evo.content.get"));
    let unknown = decide(&snapshot, &Facts { server: "nope", ..facts(&all, Body::Call(&good)) });
    assert_eq!(code(&unknown), "server_not_found");
    assert_eq!((&*unknown.charges[0].key.server, unknown.charges[0].limit), ("unknown", 60));
    let large = decide(&snapshot, &Facts { body: Body::TooLarge, ..base });
    assert_eq!(large.charges[0].key.method, Some(MethodClass::Unknown));
    let blank = call("tools/list ", None);
    let denial = decide(&snapshot, &facts(&principal(&["mcp:read"]), Body::Call(&blank)));
    assert_eq!(code(&denial), "scope_denied");
    for name in
        ["tools/call ", "Tools/Call", "tools//call", "tools\\call", "toolsCall", "tools/call\0", "tools/c\u{e1}ll"]
    {
        let disguised = call(name, Some("evo.content.purge"));
        assert_eq!(code(&decide(&snapshot, &facts(&all, Body::Call(&disguised)))), "bad_method", "{name:?}");
    }
    let other = call("admin/tools/call", None);
    assert_eq!(code(&decide(&snapshot, &facts(&all, Body::Call(&other)))), "forward");
    for method in ["completion/complete", "resources/subscribe", "resources/unsubscribe", "server/discover"] {
        let unserved = call(method, Some("no such thing"));
        assert_eq!(code(&decide(&snapshot, &facts(&all, Body::Call(&unserved)))), "answer", "{method}");
        let nowhere = Facts { server: "nope", ..facts(&all, Body::Call(&unserved)) };
        assert_eq!(code(&decide(&snapshot, &nowhere)), "server_not_found", "{method}");
    }
    let mut foreign = Snapshot::sample();
    foreign.servers = vec![Arc::new(Server { kind: ServerKind::Foreign, ..Server::clone(&foreign.servers[0]) })];
    for (name, uri, expected) in [
        (Some("hello"), None, "forward"),
        (Some("secret"), None, "prompt_denied"),
        (Some("hello "), None, "name_invalid"),
        (Some("hello"), Some("site://a"), "name_invalid"),
        (None, Some("site://a"), "forward"),
        (None, Some("file://a"), "resource_denied"),
        (None, Some("site://a/../b"), "uri_invalid"),
        (None, Some("site://a/..%2fb"), "uri_invalid"),
        (None, None, "bad_params"),
    ] {
        let completion = Envelope {
            ref_name: name.map(Cow::Borrowed),
            ref_uri: uri.map(Cow::Borrowed),
            ..call("completion/complete", None)
        };
        assert_eq!(code(&decide(&foreign, &facts(&all, Body::Call(&completion)))), expected, "{name:?} {uri:?}");
    }
    let mut closed = Snapshot::sample();
    closed.security.allow_servers = PatternSet::default();
    let denied = decide(&closed, &Facts { body: Body::Refused(&refused), ..base });
    assert_eq!(code(&denied), "server_denied", "before what is wrong with the call");
    for (method, header, expected) in [
        ("tools/list", "", "header_mismatch"),
        ("tools/list", "evo.content.get", "header_mismatch"),
        ("tasks/get", "task-1", "forward"),
        ("tasks/get", "", "header_mismatch"),
    ] {
        let headers = ProtocolHeaders { name: Some(header), ..ProtocolHeaders::default() };
        let nameless = call(method, None);
        let decision = decide(&snapshot, &Facts { headers, ..facts(&all, Body::Call(&nameless)) });
        assert_eq!(code(&decision), expected, "{method} {header:?}");
    }
    for (header, meta, expected) in [
        ("2025-11-25", None, "forward"),
        ("2026-07-28", Some("2026-07-28"), "forward"),
        ("2025-06-18", Some("2026-07-28"), "header_mismatch"),
        ("", Some("2026-07-28"), "header_mismatch"),
        ("", None, "header_mismatch"),
    ] {
        let headers = ProtocolHeaders { version: Some(header), ..ProtocolHeaders::default() };
        let versioned = Envelope { meta_version: meta.map(Cow::Borrowed), ..call("tools/list", None) };
        let decision = decide(&snapshot, &Facts { headers, ..facts(&all, Body::Call(&versioned)) });
        assert_eq!(code(&decision), expected, "{header:?} {meta:?}");
    }
    let headers = ProtocolHeaders { method: Some("tools/list"), ..ProtocolHeaders::default() };
    let contradicted = decide(&snapshot, &Facts { headers, ..facts(&all, Body::Call(&good)) });
    assert_eq!(code(&contradicted), "header_mismatch");
    for (method, name) in [("tools/call", "evo.content.get"), ("prompts/get", "hello"), ("resources/read", "site://a")]
    {
        let named = call(method, Some(name));
        for (header, expected) in [(name, "forward"), ("evo.content.other", "header_mismatch"), ("", "header_mismatch")]
        {
            let headers = ProtocolHeaders { name: Some(header), ..ProtocolHeaders::default() };
            let decision = decide(&snapshot, &Facts { headers, ..facts(&all, Body::Call(&named)) });
            assert_eq!(code(&decision), expected, "{method} {header:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_missing_scope_never_allows_more_and_unlisted_tools_are_denied(
        name in "(evo\\.content\\.)?[a-z]{1,8}(\\.purge)?",
        scopes in prop::collection::vec(prop::sample::select(vec!["mcp:read", "mcp:call", "*"]), 0..3),
    ) {
        let snapshot = Snapshot::sample();
        let envelope = call("tools/call", Some(&name));
        let whole = principal(&scopes);
        let allowed = code(&decide(&snapshot, &facts(&whole, Body::Call(&envelope)))) == "forward";
        for left_out in 0..scopes.len() {
            let mut fewer = scopes.clone();
            fewer.remove(left_out);
            let fewer = principal(&fewer);
            let still = code(&decide(&snapshot, &facts(&fewer, Body::Call(&envelope)))) == "forward";
            prop_assert!(allowed || !still);
        }
        if name.ends_with(".purge") || !name.starts_with("evo.content.") {
            prop_assert!(!allowed);
        }
    }
}
