//! Question: what does the strict reading of a request cost, for an ordinary call, for a large one, and for the worst
//! documents of the largest size that the default policy lets in? And what does cutting SSE into events cost?
//! Sizes: 150 bytes and 256 KiB per document, 64 KiB chunks of SSE. Unit: time per document, bytes per second.

use std::fmt::Write as _;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mcp_sidecar::protocol::{EventScanner, parse};

// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LARGE: usize = 256 * 1024;

/// A call whose `arguments` hold `count` members or elements made by `member`, up to 256 KiB.
fn filled(open: &str, close: &str, mut member: impl FnMut(usize) -> String) -> String {
    let mut body =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{open}"#);
    for n in 0.. {
        let next = member(n);
        if body.len() + next.len() + close.len() + 4 > LARGE {
            break;
        }
        if n > 0 {
            body.push(',');
        }
        body.push_str(&next);
    }
    write!(body, "{close}}}}}").expect("a String takes every write");
    body
}

fn documents() -> Vec<(&'static str, String)> {
    let small = r#"{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"evo.content.search","arguments":{"limit":20,"offset":0,"parent":2,"depth":3}}}"#;
    let row = |n: usize| {
        format!(
            r#"{{"id":{n},"title":"Document number {n}","text":"{}","tags":["a","b"],"price":{n}.25,"ok":true}}"#,
            "lorem ipsum dolor ".repeat(9)
        )
    };
    vec![
        ("call_150_b", small.to_owned()),
        ("rows_256_kib", filled("{\"rows\":[", "]}", row)),
        ("one_string_256_kib", filled("{", "}", |n| format!("\"{n}\":\"{}\"", "x".repeat(60_000)))),
        ("worst_keys", filled("{", "}", |n| format!("\"{n:x}\":0"))),
        ("worst_escaped_keys", filled("{", "}", |n| format!("\"\\n{n:x}\":0"))),
        ("worst_keys_of_params", filled("0,\"k\":0,", "", |n| format!("\"é{n:x}\":0"))),
        ("worst_objects_of_64", filled("[", "]", |_| object(64))),
        ("worst_objects_of_65", filled("[", "]", |_| object(65))),
        ("worst_objects_alike", filled("[", "]", |_| alike(64))),
        ("worst_escapes", filled("[\"", "\"]", |_| "\\ud83d\\ude00\\n\\u0041".to_owned())),
        ("worst_numbers", filled("[", "]", |_| "1.7976931348623157e308".to_owned())),
        ("worst_digits", filled("[", "]", |_| "1".to_owned())),
        ("worst_arrays", filled("[", "]", |_| "[[[[]]]]".to_owned())),
        ("worst_small_objects", filled("[", "]", |_| "{\"\":0}".to_owned())),
        ("worst_nesting", "[".repeat(LARGE)),
        ("worst_blanks", " ".repeat(LARGE)),
    ]
}

fn object(keys: usize) -> String {
    let plain = (' '..='~').filter(|key| !matches!(key, '"' | '\\'));
    let members: Vec<String> = plain.take(keys).map(|key| format!("\"{key}\":0")).collect();
    format!("{{{}}}", members.join(","))
}

/// Keys that the parser's first comparison takes for equal: what one half changes, the other undoes.
fn alike(keys: usize) -> String {
    let members = (0..keys).map(|n| {
        let mut key = [b'P'; 16];
        for bit in (0..6).filter(|bit| n >> bit & 1 == 1) {
            key[bit] ^= 1;
            key[8 + (bit + 4) % 8] ^= 8;
        }
        format!("\"{}\":0", String::from_utf8_lossy(&key))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, body) in documents() {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| b.iter(|| black_box(parse(black_box(body.as_bytes()))).is_ok()));
    }
    group.finish();
}

fn scanning(c: &mut Criterion) {
    let mut group = c.benchmark_group("sse");
    for (name, event) in [
        ("small_events", format!("data: {}\n\n", "x".repeat(120))),
        ("large_events", format!("data: {}\r\n\r\n", "x".repeat(100_000))),
        ("worst_line_ends", "\n".to_owned()),
    ] {
        let stream = Bytes::from(event.repeat((1 << 20) / event.len()));
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut scanner = EventScanner::new(1 << 20);
                let mut bytes = 0;
                for at in (0..stream.len()).step_by(1 << 16) {
                    scanner.push(stream.slice(at..stream.len().min(at + (1 << 16)))).expect("events within the limit");
                    while let Some(event) = scanner.next_event() {
                        bytes += event.0.len();
                    }
                }
                bytes
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parsing, scanning);
criterion_main!(benches);
