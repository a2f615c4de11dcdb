//! Where the scanner cuts depends on the bytes alone, never on how they were chunked, and no byte is lost.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcp_sidecar_fuzz::protocol::EventScanner;

/// What came out, the offsets at which blocks ended, the tail, and whether an event was too large.
#[derive(Debug)]
struct Outcome {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    tail: Option<Bytes>,
    overflowed: bool,
}

fuzz_target!(|input: (u8, Vec<u8>, Vec<u8>)| {
    let (limit, lengths, stream) = input;
    // Small limits are reached, the largest is none.
    let limit = if limit == u8::MAX { usize::MAX >> 1 } else { usize::from(limit) + 1 };
    let mut chunks = Vec::new();
    let mut rest = &stream[..];
    for length in lengths {
        let (chunk, more) = rest.split_at(rest.len().min(usize::from(length)));
        chunks.push(chunk);
        rest = more;
    }
    chunks.push(rest);
    let whole = run(limit, &[&stream]);
    let split = run(limit, &chunks);
    let single = run(limit, &stream.chunks(1).collect::<Vec<_>>());
    assert_eq!(split.bytes, whole.bytes);
    assert_eq!(single.bytes, whole.bytes);
    assert_eq!((&split.tail, split.overflowed), (&whole.tail, whole.overflowed));
    assert_eq!((&single.tail, single.overflowed), (&whole.tail, whole.overflowed));
    assert!(split.ends.iter().chain(&whole.ends).all(|end| single.ends.contains(end)), "{single:?} {split:?}");
    assert!(stream.starts_with(&whole.bytes));
    if !whole.overflowed {
        assert_eq!([&whole.bytes[..], whole.tail.as_deref().unwrap_or_default()].concat(), stream);
    }
});

fn run(limit: usize, chunks: &[&[u8]]) -> Outcome {
    let mut scanner = EventScanner::new(limit);
    let mut outcome = Outcome { bytes: Vec::new(), ends: Vec::new(), tail: None, overflowed: false };
    let drain = |scanner: &mut EventScanner, outcome: &mut Outcome| {
        while let Some(event) = scanner.next_event() {
            assert!(!event.0.is_empty(), "an empty block");
            outcome.bytes.extend_from_slice(&event.0);
            outcome.ends.push(outcome.bytes.len());
        }
    };
    for chunk in chunks {
        outcome.overflowed |= scanner.push(Bytes::copy_from_slice(chunk)).is_err();
        drain(&mut scanner, &mut outcome);
    }
    outcome.tail = scanner.finish();
    drain(&mut scanner, &mut outcome);
    outcome
}
