//! Whatever the strict reading accepts, serde_json reads too, and in the same sense; and what it calls no JSON is none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_sidecar_fuzz::protocol::{Arguments, Envelope, Id, Params, Refusal, parse};
use serde_json::Value;

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

fuzz_target!(|body: &[u8]| {
    let read = serde_json::from_slice::<Value>(body);
    match parse(body) {
        Ok(envelope) => same(&envelope, &read.expect("what is accepted is JSON")),
        Err(refused) => {
            let syntax = matches!(refused.refusal, Refusal::NotJson | Refusal::TrailingData | Refusal::BadUtf8);
            assert!(!(syntax && read.is_ok()), "{:?} of what is JSON", refused.refusal);
        }
    }
});

fn same(envelope: &Envelope<'_>, read: &Value) {
    let members = read.as_object().expect("an object");
    assert_eq!(members.get("jsonrpc").and_then(Value::as_str), Some("2.0"));
    assert_eq!(members.get("method").and_then(Value::as_str), Some(&*envelope.method));
    assert!(!members.contains_key("result") && !members.contains_key("error"));
    match (&envelope.id, members.get("id")) {
        (Id::Absent, None) | (Id::Null, Some(Value::Null)) => {}
        (Id::Number(number), Some(id)) => assert_eq!(id.as_f64(), Some(*number as f64)),
        (Id::String(text), Some(Value::String(id))) => assert_eq!(text, id),
        other => panic!("ids differ: {other:?}"),
    }
    let params = members.get("params");
    let kind = match params {
        None => Params::Absent,
        Some(Value::Object(_)) => Params::Object,
        Some(Value::Array(_)) => Params::Array,
        Some(_) => Params::Other,
    };
    assert_eq!(envelope.params, kind);
    let of = |key: &str| params.and_then(Value::as_object).and_then(|params| params.get(key));
    assert_eq!(envelope.name.as_deref(), of("name").and_then(Value::as_str));
    assert_eq!(envelope.uri.as_deref(), of("uri").and_then(Value::as_str));
    let arguments = match of("arguments") {
        None => Arguments::Absent,
        Some(Value::Object(_)) => Arguments::Object,
        Some(_) => Arguments::Other,
    };
    assert_eq!(envelope.arguments, arguments);
    let meta = of("_meta").and_then(Value::as_object);
    let version = meta.and_then(|meta| meta.get(META_VERSION)).and_then(Value::as_str);
    assert_eq!(envelope.meta_version.as_deref(), version);
    let progress = meta.and_then(|meta| meta.get("progressToken"));
    let token = progress.is_some_and(|token| token.is_string() || token.is_number());
    assert!(!envelope.has_progress_token || token, "a progress token that is none");
}
