use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};

use smallvec::SmallVec;

/// An object with more keys than this is searched by hash.
const LINEAR: usize = 64;
/// An object with fewer keys than this is searched key by key.
const FEW: usize = 8;
/// Keys of so many open members take no memory of their own.
const INLINE: usize = 24;

/// The object whose keys are being read, as far as its keys mean something to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The JSON-RPC object itself.
    Envelope,
    /// `params`.
    Params,
    /// `params.ref`.
    Ref,
    /// `params._meta`.
    Meta,
    /// Anything else: keys must be unique, and that is all.
    Plain,
}

pub(super) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

impl Level {
    const fn reserved(self) -> &'static [&'static str] {
        match self {
            Self::Envelope => &["jsonrpc", "id", "method", "params", "result", "error"],
            Self::Ref => &["type", "name", "uri"],
            Self::Params => &["name", "arguments", "uri", "ref", "_meta", "cursor", "protocolVersion", "progressToken"],
            Self::Meta => &[
                "progressToken",
                META_VERSION,
                "io.modelcontextprotocol/clientCapabilities",
                "io.modelcontextprotocol/clientInfo",
            ],
            Self::Plain => &[],
        }
    }

    /// Whether some reader might take `key` for one of this level's reserved keys although it is none.
    pub(super) fn is_lookalike(self, key: &str) -> bool {
        let reserved = self.reserved();
        if reserved.is_empty() || reserved.contains(&key) {
            return false;
        }
        let bytes = key.as_bytes();
        if bytes.iter().all(u8::is_ascii_graphic) {
            return reserved.iter().any(|name| name.eq_ignore_ascii_case(key));
        }
        let trimmed = key.trim_matches(is_ignorable);
        // C strings end at a NUL, whatever follows.
        let seen = trimmed.split('\0').next().unwrap_or(trimmed).trim_end_matches(is_ignorable);
        reserved
            .iter()
            .any(|name| seen.chars().map(fold).eq(name.bytes().map(|byte| char::from(byte.to_ascii_lowercase()))))
    }
}

/// Blanks, controls (NUL among them) and the invisible characters that sloppy readers trim.
fn is_ignorable(character: char) -> bool {
    character.is_whitespace()
        || character.is_control()
        || matches!(character, '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{AD}')
}

/// Case folding towards the ASCII letters: the long s, the Kelvin sign, and the two Turkish letters i.
fn fold(character: char) -> char {
    match character {
        '\u{17F}' => 's',
        '\u{212A}' => 'k',
        '\u{130}' | '\u{131}' => 'i',
        other => other.to_ascii_lowercase(),
    }
}

/// The keys of the objects that are open, innermost last. Small objects share one list that is searched in a row.
#[derive(Debug, Default)]
pub(super) struct Keys<'a> {
    open: SmallVec<[Cow<'a, str>; INLINE]>,
    /// The [`word`] of each key of an object that is not so small: a search looks at keys only where these are equal.
    words: SmallVec<[u64; INLINE]>,
}

/// The keys of one object: marks in the shared lists, or a set of its own once there are many.
#[derive(Debug)]
pub(super) struct KeySet<'a> {
    mark: usize,
    words: usize,
    large: Option<Large<'a>>,
}

impl<'a> Keys<'a> {
    /// Opens an object.
    pub(super) fn open(&self) -> KeySet<'a> {
        KeySet { mark: self.open.len(), words: self.words.len(), large: None }
    }

    /// Adds a key to the innermost object; false when it is there already.
    pub(super) fn insert(&mut self, set: &mut KeySet<'a>, key: Cow<'a, str>) -> bool {
        if let Some(large) = &mut set.large {
            return large.insert(key);
        }
        let known = &self.open[set.mark..];
        if known.len() < FEW {
            if known.contains(&key) {
                return false;
            }
            self.open.push(key);
            return true;
        }
        if self.words.len() == set.words {
            self.words.extend(known.iter().map(|key| word(key.as_bytes())));
        }
        let word = word(key.as_bytes());
        // Without an early end, so that many words are compared in one step.
        let alike = self.words[set.words..].iter().fold(false, |alike, other| alike | (*other == word));
        if alike && known.contains(&key) {
            return false;
        }
        self.open.push(key);
        self.words.push(word);
        if self.open.len() - set.mark > LINEAR {
            let mut large = Large::new();
            for key in self.open.drain(set.mark..) {
                large.insert(key);
            }
            self.words.truncate(set.words);
            set.large = Some(large);
        }
        true
    }

    /// Forgets the keys of the innermost object.
    pub(super) fn close(&mut self, set: &KeySet<'a>) {
        self.open.truncate(set.mark);
        self.words.truncate(set.words);
    }
}

/// A key's length, beginning and end in one word. Equal keys have equal words; up to seven bytes, other keys others.
fn word(key: &[u8]) -> u64 {
    match (key.first_chunk(), key.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29) ^ (key.len() as u64) << 56
        }
        _ => key.iter().fold(key.len() as u64, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Many keys, found by hash. The hash is keyed at random, so that nobody can choose keys that collide.
///
/// A table of its own because it keeps the hashes: growing need not hash again, and what a probe touches is eight
/// bytes per slot. That halves the cost of the worst document against the standard library's set.
#[derive(Debug)]
struct Large<'a> {
    state: RandomState,
    entries: Vec<(u64, Cow<'a, str>)>,
    /// The upper half of an entry's hash, then its index plus one; 0 is free. A power of two, at most half full.
    slots: Vec<u64>,
}

impl<'a> Large<'a> {
    fn new() -> Self {
        Self { state: RandomState::new(), entries: Vec::with_capacity(LINEAR * 2), slots: vec![0; LINEAR * 4] }
    }

    /// False when the key is there already, or when there are more than 32 bits of them.
    fn insert(&mut self, key: Cow<'a, str>) -> bool {
        let hash = self.state.hash_one(key.as_bytes());
        let Ok(next) = u32::try_from(self.entries.len() + 1) else { return false };
        if self.entries.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let mut at = self.home(hash);
        while self.slots[at] != 0 {
            let slot = self.slots[at];
            if slot >> 32 == hash >> 32 && self.entries[(slot as u32 - 1) as usize].1 == key {
                return false;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot(hash, next);
        self.entries.push((hash, key));
        true
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 2];
        for (next, (hash, _)) in (1_u32..).zip(&self.entries) {
            let mut at = self.home(*hash);
            while self.slots[at] != 0 {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = slot(*hash, next);
        }
    }

    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }
}

/// The slot of the entry whose index plus one is `next`.
const fn slot(hash: u64, next: u32) -> u64 {
    (hash >> 32) << 32 | next as u64
}
