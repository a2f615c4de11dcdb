use std::borrow::Cow;
use std::collections::HashSet;

use smallvec::SmallVec;

/// An object with more keys than this is searched by hash.
const LINEAR: usize = 16;

/// The object whose keys are being read, as far as its keys mean something to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The JSON-RPC object itself.
    Envelope,
    /// `params`.
    Params,
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
            Self::Params => &["name", "arguments", "uri", "_meta", "cursor", "protocolVersion", "progressToken"],
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
    open: SmallVec<[Cow<'a, str>; LINEAR]>,
}

/// The keys of one object: a mark in the shared list, or a set of its own once there are many.
///
/// The set's hash is keyed at random, so that nobody can choose keys that collide.
#[derive(Debug)]
pub(super) struct KeySet<'a> {
    mark: usize,
    large: Option<HashSet<Cow<'a, str>>>,
}

impl<'a> Keys<'a> {
    /// Opens an object.
    pub(super) fn open(&self) -> KeySet<'a> {
        KeySet { mark: self.open.len(), large: None }
    }

    /// Adds a key to the innermost object; false when it is there already.
    pub(super) fn insert(&mut self, set: &mut KeySet<'a>, key: Cow<'a, str>) -> bool {
        if let Some(large) = &mut set.large {
            return large.insert(key);
        }
        if self.open[set.mark..].contains(&key) {
            return false;
        }
        self.open.push(key);
        if self.open.len() - set.mark > LINEAR {
            let mut large = HashSet::with_capacity(LINEAR * 4);
            large.extend(self.open.drain(set.mark..));
            set.large = Some(large);
        }
        true
    }

    /// Forgets the keys of the innermost object.
    pub(super) fn close(&mut self, set: &KeySet<'a>) {
        self.open.truncate(set.mark);
    }
}
