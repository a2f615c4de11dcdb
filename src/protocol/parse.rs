//! The one strict reading of a request body.
//!
//! One pass over the bytes, no tree. What two readers could understand differently is refused, so that policy and
//! upstream cannot disagree about what was asked. The order of reasons:
//!
//! 1. blank body, byte order mark, invalid UTF-8;
//! 2. syntax anywhere in the document, and what trails it. More than 64 levels of nesting end the reading on the spot,
//!    as reading on would need memory that the client chooses;
//! 3. an array or a scalar as the document;
//! 4. the first ambiguity: half surrogates, numbers that a double loses, doubled or look-alike keys;
//! 5. `jsonrpc`, `method`, `id`. A message that has a `method` and also a `result` or `error` is neither request nor
//!    response and counts as without a method.

mod key;
mod number;
mod string;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::key::{Keys, Level, META_VERSION};
use crate::protocol::{Arguments, Envelope, Id, Params, Refusal, Refused};

const MAX_DEPTH: usize = 64;
/// The longest id and the longest progress token, unescaped: answers repeat both.
const MAX_ID_BYTES: usize = 256;

/// Reads a body strictly, once.
///
/// # Errors
/// The first reason to refuse, with the id to answer to when only `jsonrpc` or `method` is wrong.
pub fn parse(body: &[u8]) -> Result<Envelope<'_>, Refused<'_>> {
    fields(body)?.into_envelope()
}

/// Reads the body of a dispatch as strictly, but for what its short form leaves out: `jsonrpc` may be missing or
/// anything, and `params` that are neither object nor array count as none. An empty method counts as none as well.
///
/// # Errors
/// As [`parse`].
pub fn parse_submission(body: &[u8]) -> Result<Envelope<'_>, Refused<'_>> {
    let mut fields = fields(body)?;
    fields.version_ok = true;
    fields.params = fields.params.filter(|params| *params != Params::Other);
    fields.method = fields.method.filter(|method| !method.trim().is_empty());
    fields.into_envelope()
}

// A part of `parse`, which every call goes through: not a call of its own.
#[inline(always)]
fn fields(body: &[u8]) -> Result<Fields<'_>, Refused<'_>> {
    let refused = |refusal| Refused { refusal, id: Id::Absent };
    if body.iter().all(|byte| is_blank(*byte)) {
        return Err(refused(Refusal::EmptyBody));
    }
    if body.starts_with(b"\xEF\xBB\xBF") {
        return Err(refused(Refusal::ByteOrderMark));
    }
    let text = simdutf8::basic::from_utf8(body).map_err(|_| refused(Refusal::BadUtf8))?;
    let mut reader = Reader { text, at: 0, ambiguity: None, keys: Keys::default(), fields: Fields::default() };
    let kind = reader.document().map_err(refused)?;
    match kind {
        Kind::Object => {}
        Kind::Array => return Err(refused(Refusal::Batch)),
        _ => return Err(refused(Refusal::NotAnObject)),
    }
    match reader.ambiguity {
        Some(refusal) => Err(refused(refusal)),
        None => Ok(reader.fields),
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// What a value turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    String,
    Integer,
    Null,
    Other,
}

/// The members that mean something to us, as far as they were seen.
#[derive(Debug, Default)]
struct Fields<'a> {
    version_ok: bool,
    is_response: bool,
    /// `None` without the member; `Some(None)` when it is no id.
    id: Option<Option<Id<'a>>>,
    method: Option<Cow<'a, str>>,
    params: Option<Params>,
    name: Option<Cow<'a, str>>,
    uri: Option<Cow<'a, str>>,
    ref_name: Option<Cow<'a, str>>,
    ref_uri: Option<Cow<'a, str>>,
    arguments: Option<Arguments>,
    has_progress_token: bool,
    meta_version: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    fn into_envelope(self) -> Result<Envelope<'a>, Refused<'a>> {
        let (id, id_ok) = match self.id {
            None => (Id::Absent, true),
            Some(None) => (Id::Absent, false),
            Some(Some(id)) => (id, true),
        };
        if !self.version_ok {
            return Err(Refused { refusal: Refusal::BadVersion, id });
        }
        let Some(method) = self.method.filter(|_| !self.is_response) else {
            return Err(Refused { refusal: Refusal::BadMethod, id });
        };
        if !id_ok {
            return Err(Refused { refusal: Refusal::BadId, id });
        }
        Ok(Envelope {
            id,
            method,
            params: self.params.unwrap_or(Params::Absent),
            name: self.name,
            uri: self.uri,
            ref_name: self.ref_name,
            ref_uri: self.ref_uri,
            arguments: self.arguments.unwrap_or(Arguments::Absent),
            has_progress_token: self.has_progress_token,
            meta_version: self.meta_version,
        })
    }
}

/// A cursor over the text. Methods return `Err` only for what ends the reading; ambiguities are noted and read past,
/// as a syntax error behind them weighs more.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    ambiguity: Option<Refusal>,
    keys: Keys<'a>,
    fields: Fields<'a>,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Kind, Refusal> {
        self.skip_blanks();
        let kind = self.value(0, Level::Envelope)?;
        self.skip_blanks();
        if self.at < self.text.len() { Err(Refusal::TrailingData) } else { Ok(kind) }
    }

    /// Reads a value that stands inside `depth` containers; `level` applies when it is an object.
    fn value(&mut self, depth: usize, level: Level) -> Result<Kind, Refusal> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| Kind::String),
            Some(b'{') => self.object(depth + 1, level).map(|()| Kind::Object),
            Some(b'[') => self.array(depth + 1).map(|()| Kind::Array),
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?;
                if number.lossy {
                    self.note(Refusal::LossyNumber);
                }
                Ok(if number.integer { Kind::Integer } else { Kind::Other })
            }
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null").map(|_| Kind::Null),
            _ => Err(Refusal::NotJson),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Refusal> {
        self.enter(depth)?;
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            self.value(depth, Level::Plain)?;
            if self.closes(b']')? {
                return Ok(());
            }
        }
    }

    fn object(&mut self, depth: usize, level: Level) -> Result<(), Refusal> {
        self.enter(depth)?;
        if self.eat(b'}') {
            return Ok(());
        }
        let mut seen = self.keys.open();
        loop {
            if self.peek() != Some(b'"') {
                return Err(Refusal::NotJson);
            }
            let key = self.text_of_string()?;
            self.skip_blanks();
            if !self.eat(b':') {
                return Err(Refusal::NotJson);
            }
            self.skip_blanks();
            if level.is_lookalike(&key) {
                self.note(Refusal::LookalikeKey);
            }
            let role = Role::of(level, &key);
            if !self.keys.insert(&mut seen, key) {
                self.note(Refusal::DuplicateKey);
            }
            self.member(role, depth)?;
            if self.closes(b'}')? {
                self.keys.close(&seen);
                return Ok(());
            }
        }
    }

    fn member(&mut self, role: Role, depth: usize) -> Result<(), Refusal> {
        match role {
            Role::Version => self.fields.version_ok = self.string_or_value(depth)?.is_some_and(|text| text == "2.0"),
            Role::Id => self.fields.id = Some(self.id(depth)?),
            Role::Method => self.fields.method = self.string_or_value(depth)?,
            Role::Outcome => {
                self.fields.is_response = true;
                self.value(depth, Level::Plain)?;
            }
            Role::Params => {
                self.fields.params = Some(match self.value(depth, Level::Params)? {
                    Kind::Object => Params::Object,
                    Kind::Array => Params::Array,
                    // Clients that write what they lack as null mean that they lack it.
                    Kind::Null => Params::Absent,
                    _ => Params::Other,
                });
            }
            Role::Name => self.fields.name = self.string_or_value(depth)?,
            Role::Uri => self.fields.uri = self.string_or_value(depth)?,
            Role::Arguments => {
                self.fields.arguments = Some(match self.value(depth, Level::Plain)? {
                    Kind::Object => Arguments::Object,
                    Kind::Null => Arguments::Absent,
                    _ => Arguments::Other,
                });
            }
            Role::Ref => drop(self.value(depth, Level::Ref)?),
            Role::RefName => self.fields.ref_name = self.string_or_value(depth)?,
            Role::RefUri => self.fields.ref_uri = self.string_or_value(depth)?,
            Role::Meta => drop(self.value(depth, Level::Meta)?),
            Role::ProgressToken => {
                self.fields.has_progress_token = match self.peek() {
                    Some(b'"') => self.text_of_string()?.len() <= MAX_ID_BYTES,
                    _ => self.value(depth, Level::Plain)? == Kind::Integer,
                };
            }
            Role::MetaVersion => self.fields.meta_version = self.string_or_value(depth)?,
            Role::Plain => drop(self.value(depth, Level::Plain)?),
        }
        Ok(())
    }

    /// Reads the envelope's `id`; `None` when it may not be one. An integer out of range is a bad id, not a lossy one.
    fn id(&mut self, depth: usize) -> Result<Option<Id<'a>>, Refusal> {
        match self.peek() {
            Some(b'"') => Ok(Some(self.text_of_string()?).filter(|id| id.len() <= MAX_ID_BYTES).map(Id::String)),
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                let number = self.number()?;
                let literal = &self.text[start..self.at];
                // Readers disagree whether -0 is an integer.
                let valid = number.integer && !number.lossy && literal != "-0";
                Ok(if valid { literal.parse().ok().map(Id::Number) } else { None })
            }
            Some(b'n') => self.literal("null").map(|_| Some(Id::Null)),
            _ => self.value(depth, Level::Plain).map(|_| None),
        }
    }

    /// Reads a value, and its text when it is a string.
    fn string_or_value(&mut self, depth: usize) -> Result<Option<Cow<'a, str>>, Refusal> {
        if self.peek() == Some(b'"') {
            return self.text_of_string().map(Some);
        }
        self.value(depth, Level::Plain).map(|_| None)
    }

    fn text_of_string(&mut self) -> Result<Cow<'a, str>, Refusal> {
        let start = self.at + 1;
        let string = self.string()?;
        Ok(string::unescape(&self.text[start..string.end], string.escaped))
    }

    /// Reads a string; the cursor stands on its opening quote.
    fn string(&mut self) -> Result<string::Scanned, Refusal> {
        let string = string::scan(self.text.as_bytes(), self.at + 1).ok_or(Refusal::NotJson)?;
        if string.lone_surrogate {
            self.note(Refusal::LoneSurrogate);
        }
        self.at = string.end + 1;
        Ok(string)
    }

    fn number(&mut self) -> Result<number::Scanned, Refusal> {
        let number = number::scan(self.text.as_bytes(), self.at).ok_or(Refusal::NotJson)?;
        self.at = number.end;
        Ok(number)
    }

    fn literal(&mut self, word: &str) -> Result<Kind, Refusal> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Refusal::NotJson);
        }
        self.at += word.len();
        Ok(Kind::Other)
    }

    /// Steps over an opening bracket and the blanks behind it.
    fn enter(&mut self, depth: usize) -> Result<(), Refusal> {
        if depth > MAX_DEPTH {
            return Err(Refusal::TooDeep);
        }
        self.at += 1;
        self.skip_blanks();
        Ok(())
    }

    /// Behind a member: true at the closing bracket, false at a comma, which leads to the next member.
    fn closes(&mut self, bracket: u8) -> Result<bool, Refusal> {
        self.skip_blanks();
        if self.eat(bracket) {
            return Ok(true);
        }
        if !self.eat(b',') {
            return Err(Refusal::NotJson);
        }
        self.skip_blanks();
        Ok(false)
    }

    fn note(&mut self, refusal: Refusal) {
        self.ambiguity.get_or_insert(refusal);
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
    }
}

/// What a member means at its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Version,
    Id,
    Method,
    Params,
    Outcome,
    Name,
    Uri,
    Arguments,
    Ref,
    RefName,
    RefUri,
    Meta,
    ProgressToken,
    MetaVersion,
    Plain,
}

impl Role {
    fn of(level: Level, key: &str) -> Self {
        match (level, key) {
            (Level::Envelope, "jsonrpc") => Self::Version,
            (Level::Envelope, "id") => Self::Id,
            (Level::Envelope, "method") => Self::Method,
            (Level::Envelope, "params") => Self::Params,
            (Level::Envelope, "result" | "error") => Self::Outcome,
            (Level::Params, "name") => Self::Name,
            (Level::Params, "uri") => Self::Uri,
            (Level::Params, "arguments") => Self::Arguments,
            (Level::Params, "ref") => Self::Ref,
            (Level::Ref, "name") => Self::RefName,
            (Level::Ref, "uri") => Self::RefUri,
            (Level::Params, "_meta") => Self::Meta,
            (Level::Meta, "progressToken") => Self::ProgressToken,
            (Level::Meta, META_VERSION) => Self::MetaVersion,
            _ => Self::Plain,
        }
    }
}
