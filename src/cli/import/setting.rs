use serde_json::{Map, Value};

/// An array of PHP settings, from which what is understood is taken out; what stays is not.
pub(super) struct Settings {
    prefix: String,
    rest: Map<String, Value>,
}

/// Why a value could not be taken.
pub(super) type Notes = Vec<String>;

impl Settings {
    pub fn new(prefix: &str, value: Value) -> Self {
        let rest = match value {
            Value::Object(map) => map,
            // An empty array of PHP, or a list where names are wanted.
            Value::Array(items) => {
                items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
            }
            _ => Map::new(),
        };
        Self { prefix: prefix.to_owned(), rest }
    }

    /// The settings below a name; empty where there are none.
    pub fn below(&mut self, name: &str) -> Self {
        let value = self.rest.shift_remove(name).unwrap_or_default();
        Self::new(&self.named(name), value)
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.shift_remove(name).filter(|value| !value.is_null())
    }

    /// A switch, as PHP casts it.
    pub fn switch(&mut self, name: &str, default: bool) -> bool {
        match self.take(name) {
            None => default,
            Some(Value::Bool(value)) => value,
            Some(Value::String(text)) => !matches!(text.as_str(), "" | "0"),
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        }
    }

    /// A number that is not negative.
    pub fn number(&mut self, name: &str, default: Option<u64>, notes: &mut Notes) -> Option<u64> {
        let Some(value) = self.take(name) else { return default };
        let read = value.as_u64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
        if read.is_none() {
            notes.push(format!("{} is no whole number from 0 on: {value}", self.named(name)));
        }
        read.or(default)
    }

    pub fn text(&mut self, name: &str, default: &str, notes: &mut Notes) -> String {
        match self.take(name) {
            None => default.to_owned(),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(value @ Value::Number(_)) => value.to_string(),
            Some(value) => {
                notes.push(format!("{} is no text: {value}", self.named(name)));
                default.to_owned()
            }
        }
    }

    /// A list of words, or one word; `None` where there is nothing.
    pub fn words(&mut self, name: &str, notes: &mut Notes) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let items = match value {
            Value::Array(items) => items,
            Value::Object(map) => map.into_iter().map(|(_, item)| item).collect(),
            other => vec![other],
        };
        let mut words = Vec::new();
        for item in items {
            match item {
                Value::String(text) => words.push(text),
                other => notes.push(format!("{} holds what is no text: {other}", self.named(name))),
            }
        }
        Some(words)
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

    pub fn names(&self) -> Vec<String> {
        self.rest.keys().cloned().collect()
    }

    pub fn named(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}
