//! Reading tool arguments. Failures of rules are gathered and told together; failures of meaning stop at the first.

use serde_json::{Map, Value, json};

use crate::policy::{Server, Snapshot};

/// How long the text of a `like` may be, in bytes. SQLite fails on patterns over 50,000.
pub(in crate::executor) const MOST_NEEDLE: usize = 10_000;

/// The caps that a policy sets for one server's tools.
#[derive(Clone, Debug)]
pub(in crate::executor) struct Caps {
    pub content_limit: i64,
    pub model_limit: i64,
    pub content_offset: i64,
    pub model_offset: i64,
    pub depth: i64,
    pub models: Vec<String>,
    pub toolset_version: String,
}

impl Caps {
    pub(in crate::executor) fn of(policy: &Snapshot, server: &Server) -> Self {
        let items = i64::from(server.limits.max_result_items.max(1));
        let domain = &policy.domain;
        Self {
            content_limit: items.min(i64::from(domain.content_max_limit.max(1))),
            model_limit: items,
            content_offset: i64::from(domain.content_max_offset),
            model_offset: i64::from(domain.models_max_offset),
            depth: i64::from(domain.content_max_depth.max(1)),
            models: domain.models_allow.clone(),
            toolset_version: policy.toolset_version.clone(),
        }
    }
}

/// Why arguments were refused: one message or more, for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::executor) struct Invalid(pub Vec<String>);

impl Invalid {
    pub(in crate::executor) fn one(message: impl Into<String>) -> Self {
        Self(vec![message.into()])
    }

    /// All messages, joined by one blank.
    pub(in crate::executor) fn text(&self) -> String {
        self.0.join(" ")
    }
}

/// The arguments of one call, and the rules that they broke so far.
pub(in crate::executor) struct Arguments<'a> {
    values: &'a Map<String, Value>,
    broken: Vec<String>,
}

impl<'a> Arguments<'a> {
    pub(in crate::executor) fn new(values: &'a Map<String, Value>) -> Self {
        Self { values, broken: Vec::new() }
    }

    /// The value, unless absent or null.
    pub(in crate::executor) fn value(&self, name: &str) -> Option<&'a Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// An optional integer: an integral number, or its decimal digits as a string.
    pub(in crate::executor) fn integer(&mut self, name: &str, minimum: i64) -> Option<i64> {
        let value = self.value(name)?;
        match integer(value) {
            None => self.broken.push(format!("The {name} field must be an integer.")),
            Some(number) if number < minimum => {
                self.broken.push(format!("The {name} field must be at least {minimum}."));
            }
            Some(number) => return Some(number),
        }
        None
    }

    /// A required integer; 0 stands for a broken rule until [`Self::rules`].
    pub(in crate::executor) fn required_integer(&mut self, name: &str, minimum: i64) -> i64 {
        if self.require(name) { self.integer(name, minimum).unwrap_or_default() } else { 0 }
    }

    /// An optional text.
    pub(in crate::executor) fn text(&mut self, name: &str) -> Option<&'a str> {
        let value = self.value(name)?;
        if value.as_str().is_none() {
            self.broken.push(format!("The {name} field must be a string."));
        }
        value.as_str()
    }

    /// A required text that is more than blanks.
    pub(in crate::executor) fn required_text(&mut self, name: &str) -> &'a str {
        if self.require(name) { self.text(name).unwrap_or_default() } else { "" }
    }

    /// An optional boolean: true, false, 0, 1, "0", "1".
    pub(in crate::executor) fn boolean(&mut self, name: &str) -> Option<bool> {
        let value = self.value(name)?;
        let read = Self::flag(value);
        if read.is_none() {
            self.broken.push(format!("The {name} field must be true or false."));
        }
        read
    }

    /// What counts as true or false, wherever it stands.
    pub(in crate::executor) fn flag(value: &Value) -> Option<bool> {
        match value {
            Value::Bool(value) => Some(*value),
            Value::Number(number) if number.as_i64() == Some(0) => Some(false),
            Value::Number(number) if number.as_i64() == Some(1) => Some(true),
            Value::String(text) if text == "0" => Some(false),
            Value::String(text) if text == "1" => Some(true),
            _ => None,
        }
    }

    /// What counts as an integer, wherever it stands.
    pub(in crate::executor) fn whole(value: &Value) -> Option<i64> {
        integer(value)
    }

    /// A broken rule that the caller found by itself.
    pub(in crate::executor) fn broken(&mut self, message: String) {
        self.broken.push(message);
    }

    /// The end of the rules.
    ///
    /// # Errors
    /// All that were broken.
    pub(in crate::executor) fn rules(&mut self) -> Result<(), Invalid> {
        if self.broken.is_empty() { Ok(()) } else { Err(Invalid(std::mem::take(&mut self.broken))) }
    }

    /// Whether there is something to read; a field that is missing breaks no other rule.
    fn require(&mut self, name: &str) -> bool {
        let empty = |value: &Value| match value {
            Value::String(text) => text.trim().is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => false,
        };
        let missing = self.value(name).is_none_or(empty);
        if missing {
            self.broken.push(format!("The {name} field is required."));
        }
        !missing
    }
}

/// Refuses what lies outside `low..=high`.
pub(in crate::executor) fn within(name: &str, value: i64, low: i64, high: i64) -> Result<i64, Invalid> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::one(format!("The {name} field must be between {low} and {high}.")))
    }
}

/// `asc` or `desc`, in any case and with blanks around.
pub(in crate::executor) fn direction(name: &str, text: Option<&str>) -> Result<sea_query::Order, Invalid> {
    let Some(text) = text else { return Ok(sea_query::Order::Asc) };
    match text.trim().to_ascii_lowercase().as_str() {
        "asc" => Ok(sea_query::Order::Asc),
        "desc" => Ok(sea_query::Order::Desc),
        _ => Err(Invalid::one(format!("The {name} field has an invalid direction: {}.", shown(text)))),
    }
}

/// A caller's text as far as messages repeat it: 64 characters, none that breaks lines, hides or turns text around.
pub(in crate::executor) fn shown(text: &str) -> String {
    let unseen = |character: &char| {
        let layout =
            ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}', '\u{feff}'..='\u{feff}'];
        character.is_control() || layout.iter().any(|range| range.contains(character))
    };
    text.chars().filter(|character| !unseen(character)).take(64).collect()
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            // Beyond 2^53 a double no longer names one integer.
            #[expect(clippy::cast_possible_truncation, reason = "integral and far within range")]
            (float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0).then_some(float as i64)
        }),
        Value::String(text) => {
            let text = text.trim_matches([' ', '\t', '\n', '\r', '\x0b']);
            // What PHP takes for an integer: no leading zeros.
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            if digits.len() > 1 && digits.starts_with('0') { None } else { text.parse().ok() }
        }
        _ => None,
    }
}

/// Schemas: one property each, and the object around them.
pub(in crate::executor) mod schema {
    use super::{Map, Value, json};

    pub(in crate::executor) fn object(required: &[&str], properties: Vec<(&str, Value)>) -> Value {
        let properties: Map<String, Value> =
            properties.into_iter().map(|(name, property)| (name.to_owned(), property)).collect();
        json!({"type": "object", "properties": properties, "required": required})
    }

    pub(in crate::executor) fn limit(cap: i64) -> Value {
        json!({"type": "integer", "minimum": 1, "maximum": cap, "description": "How many items to return at most."})
    }

    pub(in crate::executor) fn offset(cap: i64) -> Value {
        json!({"type": ["integer", "null"], "minimum": 0, "maximum": cap, "description": "How many items to skip."})
    }

    pub(in crate::executor) fn id(description: &str) -> Value {
        json!({"type": "integer", "minimum": 1, "description": description})
    }

    pub(in crate::executor) fn from() -> Value {
        json!({"type": "integer", "minimum": 0, "description": "The lowest menu index."})
    }

    pub(in crate::executor) fn to() -> Value {
        optional_integer(0, "The highest menu index; none when absent.")
    }

    pub(in crate::executor) fn depth(cap: i64, description: &str) -> Value {
        json!({"type": ["integer", "null"], "minimum": 1, "maximum": cap, "description": description})
    }

    pub(in crate::executor) fn optional_integer(minimum: i64, description: &str) -> Value {
        json!({"type": ["integer", "null"], "minimum": minimum, "description": description})
    }

    pub(in crate::executor) fn optional_text(description: &str) -> Value {
        json!({"type": ["string", "null"], "description": description})
    }

    pub(in crate::executor) fn optional_boolean(description: &str) -> Value {
        json!({"type": ["boolean", "null"], "description": description})
    }
}
