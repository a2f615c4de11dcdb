use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::policy::{InvalidPattern, Pattern};

/// An array of PHP settings, from which what is understood is taken out; what stays is not.
///
/// Values of another kind than the setting's are read as PHP took them, and never as more than that: where PHP's
/// reading is unknown, the stricter value counts. Each such value has a note.
pub(super) struct Settings {
    prefix: String,
    rest: Map<String, Value>,
}

/// What the operator must know: why a value was not taken, or what it means here.
pub(super) type Notes = Vec<String>;

/// What a number may be.
#[derive(Clone, Copy)]
pub(super) struct Range {
    /// Where nothing is said.
    pub default: Option<u64>,
    /// Below it PHP raised the number.
    pub least: u64,
    pub most: u64,
    /// In place of what is no number at all. `None`: PHP looked at numbers alone, and cast nothing else.
    pub other: Option<u64>,
}

impl Range {
    /// A cap: what is no number was 0 for PHP, and raised to the least.
    pub const fn cap(default: Option<u64>, least: u64, most: u64) -> Self {
        Self { default, least, most, other: Some(least) }
    }
}

impl Settings {
    pub fn new(prefix: &str, value: Value, notes: &mut Notes) -> Self {
        let rest = match value {
            Value::Object(map) => map,
            // An empty array of PHP, or a list where names are wanted.
            Value::Array(items) => {
                items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
            }
            Value::Null => Map::new(),
            other => {
                notes.push(format!(
                    "{prefix} is {other}, where an array belongs: its defaults count, as they did in PHP"
                ));
                Map::new()
            }
        };
        Self { prefix: prefix.to_owned(), rest }
    }

    /// The same, whose keys stand alone.
    pub fn at_the_root(self) -> Self {
        Self { prefix: String::new(), ..self }
    }

    /// The settings below a name; empty where there are none.
    pub fn below(&mut self, name: &str, notes: &mut Notes) -> Self {
        let value = self.rest.shift_remove(name).unwrap_or_default();
        Self::new(&self.named(name), value, notes)
    }

    /// Whether something stands there, null included: it keeps PHP from its own block of defaults.
    pub fn has(&self, name: &str) -> bool {
        self.rest.contains_key(name)
    }

    /// What stands there, null included.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.shift_remove(name)
    }

    /// A switch, as PHP casts it; `strict` where the text may have been meant otherwise.
    pub fn switch(&mut self, name: &str, default: bool, strict: bool, notes: &mut Notes) -> bool {
        let Some(value) = self.take(name) else { return default };
        let clear = match &value {
            Value::Bool(value) => Some(*value),
            Value::Number(number) => Some(number.as_f64() != Some(0.0)),
            Value::String(text) => match text.to_lowercase().as_str() {
                "" | "0" => Some(false),
                "1" | "true" | "on" | "yes" => Some(true),
                _ => None,
            },
            Value::Null if default == strict => Some(strict),
            _ => None,
        };
        clear.unwrap_or_else(|| {
            notes.push(format!("{} is {value}, which is neither true nor false: {strict} here", self.named(name)));
            strict
        })
    }

    /// A whole number; what is none is cast as PHP does, and brought into the range.
    pub fn number(&mut self, name: &str, range: Range, notes: &mut Notes) -> Option<u64> {
        let Some(value) = self.take(name) else { return range.default };
        let cast = if range.other.is_none() { number(&value) } else { cast(&value) };
        let read = match cast {
            Some(number) => Some(u64::try_from(number).unwrap_or(0).clamp(range.least, range.most)),
            None => range.other,
        };
        let text = value.as_str().map(|text| text.trim().to_owned());
        if read.map(|read| read.to_string()) != Some(text.unwrap_or_else(|| value.to_string())) {
            let key = self.named(name);
            notes.push(match (read, cast) {
                (Some(read), Some(_)) => format!("{key} is {value}: {read} here"),
                (Some(read), None) => format!("{key} is {value}, which is no number: {read} here"),
                (None, _) => format!("{key} is {value}, which is no number: it was left out, as by PHP"),
            });
        }
        read
    }

    /// A text that opens and shuts nothing.
    pub fn text(&mut self, name: &str, default: &str, notes: &mut Notes) -> String {
        match self.take(name) {
            None => default.to_owned(),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(value @ Value::Number(_)) => value.to_string(),
            Some(value) => {
                notes.push(format!("{} is {value}, which is no text: {default:?} here", self.named(name)));
                default.to_owned()
            }
        }
    }

    /// The name of a header.
    pub fn header(&mut self, name: &str, default: &str, notes: &mut Notes) -> String {
        let header = self.text(name, default, notes);
        if http::HeaderName::from_bytes(header.as_bytes()).is_ok() {
            return header;
        }
        notes.push(format!("{} is {header:?}, which no header is named: {default:?} here", self.named(name)));
        default.to_owned()
    }

    /// A list of what is allowed; what is no list allows nothing. `None` where nothing is said.
    pub fn allowed(&mut self, name: &str, notes: &mut Notes) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let key = self.named(name);
        let items = match value {
            Value::Array(items) => items,
            Value::Object(map) => map.into_iter().map(|(_, item)| item).collect(),
            other => {
                notes.push(format!("{key} is {other}, where a list belongs: nothing is allowed here"));
                return Some(Vec::new());
            }
        };
        Some(texts(items, &key, notes))
    }

    /// Patterns of what is allowed; those that match nothing are left out.
    pub fn allowed_patterns(&mut self, name: &str, notes: &mut Notes) -> Option<Vec<String>> {
        let key = self.named(name);
        let mut patterns = self.allowed(name, notes)?;
        patterns.retain(|pattern| match Pattern::new(pattern) {
            Ok(_) => true,
            Err(error) => {
                notes.push(format!("{key}: {pattern:?} was left out: {error}"));
                false
            }
        });
        Some(patterns)
    }

    /// A list of words, or one word, where more of them never allow more; each once.
    pub fn words(&mut self, name: &str, notes: &mut Notes) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let items = match value {
            Value::Null => Vec::new(),
            Value::Array(items) => items,
            Value::Object(map) => map.into_iter().map(|(_, item)| item).collect(),
            other => vec![other],
        };
        let mut seen = HashSet::new();
        let words = texts(items, &self.named(name), notes).into_iter();
        Some(words.filter(|word| seen.insert(word.clone())).collect())
    }

    /// Patterns of what is denied; those that no name can match are left out.
    pub fn denied_patterns(&mut self, name: &str, notes: &mut Notes) -> Vec<String> {
        let key = self.named(name);
        let words = self.words(name, notes).unwrap_or_default().into_iter().map(|word| word.trim().to_owned());
        words
            .filter(|word| match Pattern::new(word) {
                // The loader says what is wrong with one that is too long.
                Ok(_) | Err(InvalidPattern::TooLong) => true,
                Err(InvalidPattern::Empty | InvalidPattern::Character(_)) => {
                    notes.push(format!("{key}: {word:?} was left out: no name here matches it"));
                    false
                }
            })
            .collect()
    }

    /// What was not understood.
    pub fn finish(self, notes: &mut Notes) {
        for (name, value) in &self.rest {
            // Empty settings mean nothing.
            if !matches!(value, Value::Null) && *value != Value::Array(Vec::new()) {
                notes.push(format!("{} is not known here and was left out", self.named(name)));
            }
        }
    }

    /// Takes out settings that say nothing here, and tells which of them were there.
    pub fn unread<'n>(&mut self, names: &[&'n str]) -> Vec<&'n str> {
        names.iter().copied().filter(|name| self.take(name).is_some_and(|value| !value.is_null())).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.rest.keys().cloned().collect()
    }

    pub fn named(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

fn texts(items: Vec<Value>, key: &str, notes: &mut Notes) -> Vec<String> {
    let mut texts = Vec::new();
    for item in items {
        match item {
            Value::String(text) => texts.push(text),
            Value::Number(number) => texts.push(number.to_string()),
            other => notes.push(format!("{key}: {other} was left out: it is no text")),
        }
    }
    texts
}

/// What PHP calls numeric, without its fraction.
fn number(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "a cast to i64 stops at its ends; ranges are far within")]
    let whole = |number: f64| number as i64;
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(whole)),
        Value::String(text) => text.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(whole),
        _ => None,
    }
}

/// A number as PHP casts it; a text counts by what it begins with. `None` for what holds no number.
fn cast(value: &Value) -> Option<i64> {
    let begins = |text: &str| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        text[..text.len() - digits.len() + length].parse().ok()
    };
    number(value).or_else(|| match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::String(text) => begins(text.trim()),
        _ => None,
    })
}
