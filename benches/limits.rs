//! Question: what does reserving a request's charges in memory cost? Sizes: one and two charges, one caller or 10,000
//! that take turns, admitted and refused. Unit: time per request.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mcp_sidecar::base::Digest;
use mcp_sidecar::limits::MemoryStore;
use mcp_sidecar::policy::{Charge, RateKey, Window};
use mcp_sidecar::protocol::{Method, MethodClass};

fn charges(caller: u32, count: usize, limit: u32) -> Vec<Charge> {
    let principal = Digest::of(&[&caller.to_be_bytes()]);
    let window = Window::FromFirstHit { seconds: 60 };
    [Some(MethodClass::Known(Method::ToolsCall)), None]
        .into_iter()
        .take(count)
        .map(|method| Charge { key: RateKey { principal, server: "content".into(), method }, limit, window })
        .collect()
}

fn reserve(c: &mut Criterion) {
    for (name, callers, count, limit) in [
        ("one charge", 1, 1, u32::MAX),
        ("two charges", 1, 2, u32::MAX),
        ("two charges, refused", 1, 2, 1),
        ("two charges, 10,000 callers", 10_000, 2, u32::MAX),
    ] {
        let store = MemoryStore::default();
        let requests: Vec<_> = (0..callers).map(|caller| charges(caller, count, limit)).collect();
        let mut turn = requests.iter().cycle();
        c.bench_function(&format!("limits/memory/{name}"), |b| {
            b.iter(|| store.take(black_box(turn.next().expect("a cycle has no end")), black_box(1_000)));
        });
    }
}

criterion_group!(benches, reserve);
criterion_main!(benches);
