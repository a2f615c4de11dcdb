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

    /// Whether the value of this key is hidden.
    #[must_use]
    pub fn covers(&self, key: &str) -> bool {
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

    #[test]
    fn keys_match_whole_in_any_case_and_whatever_they_hold_goes() {
        let redactor = Redactor::new(&[" Password ".to_owned(), "ключ".to_owned()]);
        for (key, hidden) in [
            ("password", true),
            ("PASSWORD", true),
            ("\tPassWord\n", true),
            ("КЛЮЧ", true),
            ("passwords", false),
            ("my_password", false),
            ("pass word", false),
            ("", false),
        ] {
            for held in [json!("5entinel"), json!(["5entinel"]), json!({"a": {"b": "5entinel"}}), json!(5), json!(null)]
            {
                let mut value = json!({"list": [[], [{ key: held.clone() }]]});
                redactor.redact(&mut value);
                let left = &value["list"][1][0][key];
                assert_eq!(left == "[REDACTED]", hidden, "{key:?}: {left}");
            }
        }
        let mut scalar = json!("password");
        redactor.redact(&mut scalar);
        assert_eq!(scalar, "password", "a value is no key");
    }

    #[test]
    fn the_largest_and_the_deepest_body_are_redacted() {
        let redactor = Redactor::new(&["token".to_owned()]);
        // As deep as JSON can be read at all.
        let mut deep = json!({"token": "5entinel"});
        for level in 0..126 {
            deep = if level % 2 == 0 { json!([deep]) } else { json!({ "a": deep }) };
        }
        let mut read: serde_json::Value = serde_json::from_str(&deep.to_string()).expect("is read");
        redactor.redact(&mut read);
        assert!(!read.to_string().contains("5entinel"));

        let member = r#"{"Token":"5entinel","text":"Bearer 5entinel Bearer 5entinel"},"#;
        let text = format!("[{}null]", member.repeat((256 << 10) / member.len()));
        let mut large: serde_json::Value = serde_json::from_str(&text).expect("is read");
        redactor.redact(&mut large);
        assert!(!large.to_string().contains("5entinel"));

        let mut words = json!("bearer ".repeat((256 << 10) / 7));
        redactor.redact(&mut words);
        assert!(words.as_str().is_some_and(|text| text.len() < 1 << 20));
    }
}
