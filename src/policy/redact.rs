use std::borrow::Cow;

const REDACTED: &str = "[REDACTED]";
const SCHEME: &str = "bearer ";

/// Replaces values whose key (lower-cased, trimmed) is on a list by `[REDACTED]` (emcp.md 11), and masks bearer
/// tokens inside text.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    keys: Vec<String>,
}

impl Redactor {
    /// A redactor for these keys (compared lower-cased and trimmed).
    #[must_use]
    pub fn new(keys: &[String]) -> Self {
        Self { keys: keys.iter().map(|key| key.trim().to_lowercase()).collect() }
    }

    /// Redacts in place, at every depth.
    pub fn redact(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(members) => {
                for (key, value) in members {
                    if self.covers(key) {
                        *value = REDACTED.into();
                    } else {
                        self.redact(value);
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| self.redact(item)),
            serde_json::Value::String(text) => {
                if let Cow::Owned(masked) = Self::mask(text) {
                    *text = masked;
                }
            }
            _ => {}
        }
    }

    /// The text with what follows `Bearer ` (in any case) up to the next blank or quote masked.
    #[must_use]
    pub fn mask(text: &str) -> Cow<'_, str> {
        // ASCII lower-casing keeps every offset.
        let lower = text.to_ascii_lowercase();
        let mut masked = String::new();
        let mut from = 0;
        while let Some(at) = lower[from..].find(SCHEME) {
            let token = from + at + SCHEME.len();
            let skipped = text[token..].len() - text[token..].trim_start().len();
            let token = token + skipped;
            let length = text[token..].find(|c: char| c.is_whitespace() || "\"',;".contains(c));
            let end = length.map_or(text.len(), |length| token + length);
            masked.push_str(&text[from..token]);
            if end > token {
                masked.push_str(REDACTED);
            }
            from = end;
        }
        if from == 0 {
            return Cow::Borrowed(text);
        }
        masked.push_str(&text[from..]);
        Cow::Owned(masked)
    }

    fn covers(&self, key: &str) -> bool {
        let key = key.trim().to_lowercase();
        self.keys.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn listed_keys_and_bearer_tokens_are_hidden_at_every_depth() {
        let mut value = json!({"a": [{" Token ": {"b": 1}}], "tokens": 2, "text": "x BEARER  abc.d, y"});
        Redactor::new(&["token".to_owned()]).redact(&mut value);
        assert_eq!(value, json!({"a": [{" Token ": "[REDACTED]"}], "tokens": 2, "text": "x BEARER  [REDACTED], y"}));
    }
}
