use std::fmt::Write as _;

use serde_json::Value;

/// TOML in the making.
#[derive(Default)]
pub(super) struct Page {
    pub text: String,
}

impl Page {
    pub fn table(&mut self, name: &str) {
        let _ = writeln!(self.text, "\n[{name}]");
    }

    /// The key is TOML already.
    pub fn key(&mut self, key: &str, value: impl Into<Value>) {
        let _ = writeln!(self.text, "{key} = {}", toml_text(&value.into()));
    }

    pub fn some(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.key(key, value);
        }
    }

    pub fn comment(&mut self, text: &str) {
        let _ = writeln!(self.text, "# {}", one_line(text));
    }

    /// The same text as comments, to be taken up by hand.
    pub fn commented(&self) -> String {
        let lines = self.text.lines();
        lines.map(|line| if line.is_empty() { "\n".to_owned() } else { format!("# {line}\n") }).collect()
    }
}

/// What may stand in a comment, which TOML ends at the line and keeps clear of control characters.
pub(super) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A scope as a key: it may hold whatever PHP had.
pub(super) fn key_text(key: &str) -> String {
    toml_text(&Value::from(key))
}

/// A value as TOML, on one line.
fn toml_text(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let mut quoted = String::with_capacity(text.len() + 2);
            quoted.push('"');
            for letter in text.chars() {
                match letter {
                    '"' => quoted.push_str("\\\""),
                    '\\' => quoted.push_str("\\\\"),
                    letter if letter.is_control() => {
                        let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
                    }
                    letter => quoted.push(letter),
                }
            }
            quoted.push('"');
            quoted
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        // What remains are switches and whole numbers.
        other => other.to_string(),
    }
}
