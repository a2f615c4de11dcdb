use std::borrow::Cow;

/// Where the bytes of a string end, as [`scan`] found them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Offset of the closing quote.
    pub end: usize,
    /// Whether the text must be unescaped to be compared.
    pub escaped: bool,
    /// Whether an escape stands for half a surrogate pair.
    pub lone_surrogate: bool,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Offset of the first quote, backslash or control character at or after `from`.
///
/// Eight bytes at a time. A borrow can only mark bytes above a true hit, so the lowest mark is always true.
fn next_special(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        let hits = (quote.wrapping_sub(ONES) & !quote
            | slash.wrapping_sub(ONES) & !slash
            | word.wrapping_sub(ONES * 0x20) & !word)
            & HIGHS;
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes.get(at..)?.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20).map(|offset| at + offset)
}

/// Scans a string whose first character stands at `start` (after the opening quote). `None` is a syntax error.
pub(super) fn scan(bytes: &[u8], start: usize) -> Option<Scanned> {
    let mut at = start;
    let mut escaped = false;
    let mut lone_surrogate = false;
    loop {
        at = next_special(bytes, at)?;
        match bytes[at] {
            b'"' => return Some(Scanned { end: at, escaped, lone_surrogate }),
            b'\\' => escaped = true,
            _ => return None,
        }
        match bytes.get(at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
            b'u' => match (hex(bytes, at + 2)?, bytes.get(at + 6..at + 8) == Some(b"\\u")) {
                (0xD800..=0xDBFF, true) => match hex(bytes, at + 8)? {
                    0xDC00..=0xDFFF => at += 12,
                    _ => {
                        // The second escape is read again on its own: it may open a pair.
                        lone_surrogate = true;
                        at += 6;
                    }
                },
                (unit, _) => {
                    lone_surrogate |= (0xD800..=0xDFFF).contains(&unit);
                    at += 6;
                }
            },
            _ => return None,
        }
    }
}

/// The four hexadecimal digits at `at`.
fn hex(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..)?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)? as u16))
}

/// The text that a scanned string stands for. Half surrogates become U+FFFD; such documents are refused anyway.
pub(super) fn unescape(raw: &str, escaped: bool) -> Cow<'_, str> {
    if !escaped {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, tail)) = rest.split_once('\\') {
        text.push_str(plain);
        let bytes = tail.as_bytes();
        let (character, length) = match bytes.first() {
            Some(b'b') => ('\u{8}', 1),
            Some(b'f') => ('\u{c}', 1),
            Some(b'n') => ('\n', 1),
            Some(b'r') => ('\r', 1),
            Some(b't') => ('\t', 1),
            Some(b'u') => unescape_unit(bytes),
            Some(&other) => (char::from(other), 1),
            None => (char::REPLACEMENT_CHARACTER, 0),
        };
        text.push(character);
        rest = tail.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The character of a `uHHHH` or `uHHHH\uHHHH` escape, and its length after the backslash.
fn unescape_unit(bytes: &[u8]) -> (char, usize) {
    let first = u32::from(hex(bytes, 1).unwrap_or(0xFFFD));
    if (0xD800..0xDC00).contains(&first)
        && bytes.get(5..7) == Some(b"\\u")
        && let Some(second @ 0xDC00..=0xDFFF) = hex(bytes, 7)
    {
        let code = 0x10000 + ((first - 0xD800) << 10) + (u32::from(second) - 0xDC00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 5)
}
