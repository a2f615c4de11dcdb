//! Question: what does a decision cost as the deny list grows, and what do loading a policy and redacting cost?
//! Sizes: 10, 100 and 1,000 deny patterns, exact names and prefixes in turn, and `*infix*` as the worst shape; a
//! document of 12 values. Unit: time per decision, load, document. To reach: at most 1.2 times from 10 to 1,000.

mod sample;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use mcp_sidecar::policy::{Redactor, decide};
use mcp_sidecar::protocol::parse;
use sample::Shape;

const COUNTS: [usize; 3] = [10, 100, 1_000];

fn deciding(c: &mut Criterion) {
    let principal = sample::principal();
    let envelope = parse(sample::CALL.as_bytes()).expect("a well-formed call");
    for (name, shape) in [("usual", Shape::Usual), ("infix", Shape::Infix)] {
        for count in COUNTS {
            let snapshot = sample::load(&sample::overrides(count, shape));
            c.bench_function(&format!("decide/{name}/{count}"), |b| {
                b.iter(|| decide(&snapshot, &sample::facts(black_box(&principal), black_box(&envelope))));
            });
        }
    }
}

fn loading(c: &mut Criterion) {
    for count in COUNTS {
        let overrides = sample::overrides(count, Shape::Usual);
        c.bench_function(&format!("snapshot_load/{count}"), |b| b.iter(|| sample::load(black_box(&overrides))));
    }
}

fn redacting(c: &mut Criterion) {
    let redactor = Redactor::new(&sample::load(&sample::overrides(0, Shape::Usual)).logging.redact_keys);
    let document = sample::document();
    c.bench_function("redact/document", |b| {
        b.iter_batched_ref(|| document.clone(), |value| redactor.redact(value), BatchSize::SmallInput);
    });
    let text = "no secrets here, only words. ".repeat(100);
    c.bench_function("redact/text_3_kb", |b| b.iter(|| Redactor::mask(black_box(&text)).len()));
}

criterion_group!(benches, deciding, loading, redacting);
criterion_main!(benches);
