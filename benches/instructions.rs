//! Question: how many instructions does each step of the hot path take? Sizes: a call of 150 bytes, 10 to 1,000 deny
//! patterns. Unit: instructions per step, counted by `benches/instructions.py` under callgrind.
//!
//! `instructions CASE COUNT` runs one step COUNT times; the counter runs it with two counts and takes the difference,
//! so that neither the start nor the setting-up counts. Without arguments the cases are listed.

mod sample;

use std::hint::black_box;

use bytes::Bytes;
use mcp_sidecar::audit::{Lines, Record};
use mcp_sidecar::auth::Verifier;
use mcp_sidecar::base::Digest;
use mcp_sidecar::limits::MemoryStore;
use mcp_sidecar::policy::{Charge, RateKey, Redactor, Window, decide};
use mcp_sidecar::protocol::{EventScanner, Method, MethodClass, parse};
use mcp_sidecar::proxy::path;
use sample::{CALL, NOW_MS, Shape};

// The allocator of the real program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A step that is run so many times.
type Case = (&'static str, fn(u32));

const CASES: [Case; 13] = [
    ("route", route),
    ("parse_150_b", |count| repeat(count, || parse(black_box(CALL.as_bytes())).is_ok())),
    ("token_cached", |count| token(count, 1024)),
    ("token_cold", |count| token(count, 0)),
    ("decide_10", |count| decision(count, 10, Shape::Usual)),
    ("decide_100", |count| decision(count, 100, Shape::Usual)),
    ("decide_1000", |count| decision(count, 1_000, Shape::Usual)),
    ("decide_infix_10", |count| decision(count, 10, Shape::Infix)),
    ("decide_infix_1000", |count| decision(count, 1_000, Shape::Infix)),
    ("limits_memory", limits),
    ("audit_record", audit),
    ("redact", redact),
    ("sse_event", events),
];

fn main() {
    // Cargo passes `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (name, count) = (arguments.next(), arguments.next().and_then(|count| count.parse().ok()));
    let case = CASES.iter().find(|(case, _)| Some(*case) == name.as_deref());
    if let (Some((_, run)), Some(count)) = (case, count) {
        return run(count);
    }
    for (name, _) in CASES {
        println!("{name}");
    }
}

fn repeat<T>(count: u32, mut step: impl FnMut() -> T) {
    for _ in 0..count {
        black_box(step());
    }
}

fn route(count: u32) {
    let routes = sample::load(&sample::overrides(0, Shape::Usual)).routes;
    repeat(count, || path::route(&routes, black_box("/api/v1/mcp/content")).is_ok());
}

fn token(count: u32, capacity: usize) {
    let snapshot = sample::load(&sample::overrides(0, Shape::Usual));
    let (verifier, token) = (Verifier::new(capacity), sample::token());
    repeat(count, || verifier.verify(&snapshot, black_box(&token), NOW_MS).expect("the token holds"));
}

fn decision(count: u32, patterns: usize, shape: Shape) {
    let snapshot = sample::load(&sample::overrides(patterns, shape));
    let principal = sample::principal();
    let envelope = parse(CALL.as_bytes()).expect("a well-formed call");
    repeat(count, || decide(&snapshot, &sample::facts(black_box(&principal), black_box(&envelope))));
}

fn limits(count: u32) {
    let store = MemoryStore::default();
    let principal = Digest::of(&[b"alice"]);
    let window = Window::FromFirstHit { seconds: 60 };
    let methods = [Some(MethodClass::Known(Method::ToolsCall)), None];
    let charges = methods.map(|method| {
        let key = RateKey { principal, server: "content".into(), method };
        Charge { key, limit: u32::MAX, window }
    });
    repeat(count, || store.take(black_box(&charges), black_box(NOW_MS)));
}

/// Making a record and formatting it. Handing it over is left out: how threads take turns would blur the count.
fn audit(count: u32) {
    let mut lines = Lines::default();
    repeat(count, || {
        lines.record(black_box(&record()));
        let length = lines.as_bytes().len();
        lines.clear();
        length
    });
}

#[allow(clippy::useless_conversion, reason = "which texts are shared, owned or static is the record's own affair")]
fn record() -> Record {
    Record {
        timestamp_ms: NOW_MS,
        request_id: "0190c2de-5f3a-7d6e-8c11-2f1f3f0f9a10".into(),
        client_request_id: None,
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        server_handle: "content".into(),
        method: "tools/call".into(),
        status: 200,
        actor_user_id: Some(7),
        context: "api",
        duration_ms: 3,
        task_id: None,
        run: None,
        rate_limit_identity: "api:7".into(),
        decision: "allow",
        deny_code: None,
        tool: Some("evo.content.search".into()),
        rule: "servers[0].allow_tools[0]".into(),
        policy_revision: 1,
        bytes_in: 150,
        bytes_out: 900,
        peer: Some([192, 0, 2, 1].into()),
        outcome: None,
    }
}

fn redact(count: u32) {
    let redactor = Redactor::new(&sample::load(&sample::overrides(0, Shape::Usual)).logging.redact_keys);
    let mut value = sample::document();
    repeat(count, || redactor.redact(black_box(&mut value)));
}

fn events(count: u32) {
    let event = Bytes::from(format!("data: {}\n\n", "x".repeat(120)));
    let mut scanner = EventScanner::new(1 << 20);
    repeat(count, || {
        scanner.push(black_box(event.clone())).expect("an event within the limit");
        scanner.next_event()
    });
}
