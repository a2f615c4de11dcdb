//! Question: what does verifying a bearer token cost, seen before and not? Sizes: an HS256 token of 200 bytes; a cache
//! that holds it, and none. Unit: time per verification.

mod sample;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mcp_sidecar::auth::Verifier;
use sample::Shape;

fn verifying(c: &mut Criterion) {
    let snapshot = sample::load(&sample::overrides(0, Shape::Usual));
    let token = sample::token();
    for (name, capacity) in [("cold", 0), ("cached", 1024)] {
        let verifier = Verifier::new(capacity);
        c.bench_function(&format!("token/{name}"), |b| {
            b.iter(|| verifier.verify(&snapshot, black_box(&token), sample::NOW_MS).expect("the token holds"));
        });
    }
}

criterion_group!(benches, verifying);
criterion_main!(benches);
