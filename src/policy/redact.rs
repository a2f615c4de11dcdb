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
        let _ = (value, &self.keys);
        unimplemented!()
    }
}
