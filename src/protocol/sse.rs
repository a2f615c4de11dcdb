use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The heartbeat: an SSE comment, to be written between events only.
pub const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// A block of complete events, their closing blank lines included, exactly as the upstream wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(pub Bytes);

/// An event grew beyond the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {limit} bytes")]
pub struct EventTooLarge {
    /// The bound, in bytes.
    pub limit: usize,
}

/// Where the scanner stands, seen from the line ends behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a line, and of an event where nothing is in progress.
    LineStart,
    /// Inside a line.
    Line,
    /// A CR ended a line with text; an LF may belong to it.
    LineCr,
    /// A CR ended a blank line; an LF may belong to it, so the event is not over yet.
    BlankCr,
    /// A blank line ended with a CR behind a line that a lone CR had ended, so the event is over: such a stream ends
    /// its lines with CR. Should an LF follow all the same, it opens the next block and is no blank line.
    CutCr,
}

/// Cuts a byte stream into events (blocks that end with a blank line), whatever the chunk boundaries and line
/// endings (LF, CRLF, CR).
///
/// Where it cuts depends on the bytes alone, never on how they were chunked. The bytes that come out, with the tail of
/// [`Self::finish`], are the bytes that went in. A chunk that ends on an event boundary is passed on without a copy.
#[derive(Debug)]
pub struct EventScanner {
    limit: usize,
    state: State,
    /// The event in progress, as far as earlier chunks held it.
    pending: BytesMut,
    ready: VecDeque<Bytes>,
    overflowed: bool,
}

impl EventScanner {
    /// A scanner whose events are at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, state: State::LineStart, pending: BytesMut::new(), ready: VecDeque::new(), overflowed: false }
    }

    /// Takes a chunk in; complete events can then be taken out with [`Self::next_event`].
    ///
    /// # Errors
    /// When an event is larger than the limit, now or before. The events ahead of it can still be taken out.
    pub fn push(&mut self, mut chunk: Bytes) -> Result<(), EventTooLarge> {
        let too_large = EventTooLarge { limit: self.limit };
        if self.overflowed {
            return Err(too_large);
        }
        // Where the last complete event of this chunk ends, and how much of the event in progress precedes the chunk.
        let mut cut = None;
        let mut carried = self.pending.len();
        let mut at = 0;
        while let Some(found) = self.next_cut(&chunk, at) {
            let start = cut.unwrap_or(0);
            if carried + found - start > self.limit {
                self.overflowed = true;
                break;
            }
            cut = Some(found);
            carried = 0;
            at = found;
        }
        self.overflowed |= carried + chunk.len() - cut.unwrap_or(0) > self.limit;
        if let Some(cut) = cut {
            let head = chunk.split_to(cut);
            if self.pending.is_empty() {
                self.ready.push_back(head);
            } else {
                self.pending.extend_from_slice(&head);
                self.ready.push_back(self.pending.split().freeze());
            }
        }
        if self.overflowed {
            self.pending.clear();
            return Err(too_large);
        }
        self.pending.extend_from_slice(&chunk);
        Ok(())
    }

    /// Complete events as one block of bytes that ends on an event boundary; `None` when there is none. A block holds
    /// what one chunk completed, so call this until it yields nothing.
    pub fn next_event(&mut self) -> Option<Event> {
        self.ready.pop_front().map(Event)
    }

    /// Bytes held of the event in progress.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether no event is in progress, so that a comment may be written here once the complete events are taken out.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.pending.is_empty() && self.state == State::LineStart
    }

    /// The upstream has ended. An event whose end was still in doubt becomes complete, so take out events once more;
    /// what comes back is the tail of an event that never ended, which clients discard.
    pub fn finish(&mut self) -> Option<Bytes> {
        let state = std::mem::replace(&mut self.state, State::LineStart);
        if self.pending.is_empty() {
            return None;
        }
        let tail = self.pending.split().freeze();
        if state == State::BlankCr {
            self.ready.push_back(tail);
            return None;
        }
        Some(tail)
    }

    /// Reads on from `at`; the offset behind the next event that ends in this chunk. It may be 0: the first byte can
    /// show that the event before it was over.
    fn next_cut(&mut self, chunk: &[u8], mut at: usize) -> Option<usize> {
        while let Some(&byte) = chunk.get(at) {
            let (state, cut) = match (self.state, byte) {
                (State::Line, _) => match memchr::memchr2(b'\n', b'\r', &chunk[at..]) {
                    Some(offset) => {
                        at += offset;
                        (if chunk[at] == b'\n' { State::LineStart } else { State::LineCr }, None)
                    }
                    None => return None,
                },
                (State::BlankCr, b'\n') => (State::LineStart, Some(at + 1)),
                (State::BlankCr, _) => {
                    // This byte belongs to the next event and is read again.
                    self.state = State::LineStart;
                    return Some(at);
                }
                (State::LineStart, b'\n') => (State::LineStart, Some(at + 1)),
                (State::LineStart, b'\r') => (State::BlankCr, None),
                (State::LineCr | State::CutCr, b'\n') => (State::LineStart, None),
                (State::LineCr | State::CutCr, b'\r') => (State::CutCr, Some(at + 1)),
                (State::LineStart | State::LineCr | State::CutCr, _) => (State::Line, None),
            };
            self.state = state;
            at += 1;
            if cut.is_some() {
                return cut;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes chunks; the offsets at which events ended, and the bytes that came out.
    fn run(chunks: &[&[u8]]) -> (Vec<u8>, Option<Bytes>) {
        let mut scanner = EventScanner::new(1 << 20);
        let mut out = Vec::new();
        for chunk in chunks {
            scanner.push(Bytes::copy_from_slice(chunk)).expect("within the limit");
            while let Some(Event(block)) = scanner.next_event() {
                assert!(!block.is_empty(), "no empty blocks");
                out.extend_from_slice(&block);
            }
        }
        let tail = scanner.finish();
        while let Some(Event(block)) = scanner.next_event() {
            out.extend_from_slice(&block);
        }
        (out, tail)
    }

    /// The same cut, one byte at a time, so that each block is one event.
    fn events(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut scanner = EventScanner::new(1 << 20);
        let mut events = Vec::new();
        for byte in bytes {
            scanner.push(Bytes::copy_from_slice(&[*byte])).expect("within the limit");
            events.extend(std::iter::from_fn(|| scanner.next_event()).map(|event| event.0.to_vec()));
        }
        events.extend(scanner.finish().map(|tail| tail.to_vec()));
        events.extend(std::iter::from_fn(|| scanner.next_event()).map(|event| event.0.to_vec()));
        events
    }

    #[test]
    fn events_end_with_a_blank_line_in_every_line_ending() {
        let cases: [(&str, &[&str]); 10] = [
            ("data: a\n\ndata: b\n\n", &["data: a\n\n", "data: b\n\n"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["data: a\r\n\r\n", "data: b\r\n\r\n"]),
            ("data: a\r\rdata: b\r\r", &["data: a\r\r", "data: b\r\r"]),
            ("data: a\n\r\ndata: b\n\r", &["data: a\n\r\n", "data: b\n\r"]),
            ("data: a\r\n\ndata: b", &["data: a\r\n\n", "data: b"]),
            ("data: a\ndata: b\n\n", &["data: a\ndata: b\n\n"]),
            (": c\n\n\nx\n\n", &[": c\n\n", "\n", "x\n\n"]),
            ("data: a\r\r\ndata: b\r\r", &["data: a\r\r", "\ndata: b\r\r"]),
            ("data: a\n\rdata: b\n\n", &["data: a\n\r", "data: b\n\n"]),
            ("data: a\r\ndata: b\r\n", &["data: a\r\ndata: b\r\n"]),
        ];
        for (stream, expected) in cases {
            let found: Vec<String> =
                events(stream.as_bytes()).into_iter().map(|event| String::from_utf8(event).expect("UTF-8")).collect();
            assert_eq!(found, expected, "{stream:?}");
        }
    }

    #[test]
    fn no_comment_fits_between_cr_and_lf() {
        for (stream, boundary) in [
            ("", true),
            ("data: a", false),
            ("data: a\r\n\r", false),
            ("data: a\r\n\r\n", true),
            ("data: a\r\r", false),
            ("data: a\r\r\n", false),
            ("data: a\n\n", true),
        ] {
            let mut scanner = EventScanner::new(100);
            scanner.push(Bytes::copy_from_slice(stream.as_bytes())).expect("within the limit");
            assert_eq!(scanner.at_boundary(), boundary, "{stream:?}");
        }
    }

    #[test]
    fn an_event_beyond_the_limit_is_an_error_and_those_before_it_pass() {
        for chunks in [&["a\n\n", "0123456789"][..], &["a\n\n012345678\n\n"], &["a\n\n0123", "4567\n\nb\n\n"]] {
            let mut scanner = EventScanner::new(9);
            let outcome: Vec<_> = chunks.iter().map(|chunk| scanner.push(Bytes::from(*chunk))).collect();
            assert_eq!(outcome.last(), Some(&Err(EventTooLarge { limit: 9 })), "{chunks:?}");
            assert_eq!(scanner.next_event(), Some(Event(Bytes::from("a\n\n"))));
            assert_eq!(scanner.next_event(), None);
            assert!(scanner.push(Bytes::from("\n\n")).is_err(), "what follows is lost too");
        }
        let mut scanner = EventScanner::new(9);
        scanner.push(Bytes::from("0123456\n\n0123456\n\n")).expect("nine bytes each");
    }

    #[test]
    fn whole_events_are_not_copied() {
        let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\n");
        let mut scanner = EventScanner::new(100);
        scanner.push(chunk.clone()).expect("within the limit");
        let block = scanner.next_event().expect("an event").0;
        assert_eq!(block.as_ptr(), chunk.as_ptr());
        assert_eq!(block.len(), chunk.len());
    }

    proptest! {
        #[test]
        fn any_split_yields_the_same_bytes_and_the_same_tail(
            stream in "(data: [a-z]{0,5}|[\\r\\n]|\\r\\n|\\r\\n\\r\\n|\\n\\n|é){0,30}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = stream.as_bytes();
            let mut offsets: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            offsets.extend([0, bytes.len()]);
            offsets.sort_unstable();
            let chunks: Vec<&[u8]> = offsets.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let whole = run(&[bytes]);
            let split = run(&chunks);
            prop_assert_eq!(&split, &whole);
            let mut all = whole.0.clone();
            all.extend_from_slice(whole.1.as_deref().unwrap_or_default());
            prop_assert_eq!(&all[..], bytes);
            prop_assert_eq!(events(bytes).concat(), bytes);
        }

        #[test]
        fn blocks_end_only_where_single_events_end(
            stream in "(x|[\\r\\n]|\\r\\n){0,24}",
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = stream.as_bytes();
            let ends: Vec<usize> = events(bytes).iter().scan(0, |at, event| { *at += event.len(); Some(*at) }).collect();
            let cut = cut.index(bytes.len() + 1);
            let mut scanner = EventScanner::new(1 << 20);
            let mut at = 0;
            for chunk in [&bytes[..cut], &bytes[cut..]] {
                scanner.push(Bytes::copy_from_slice(chunk)).expect("within the limit");
                while let Some(Event(block)) = scanner.next_event() {
                    at += block.len();
                    prop_assert!(ends.contains(&at), "{} is no boundary of {:?}", at, stream);
                }
            }
        }
    }
}
