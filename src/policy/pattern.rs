use crate::policy::RuleSite;

/// A case-sensitive glob in which `*` matches any run, `/` included; without `*` an exact name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    #[error("a pattern must not be empty")]
    Empty,
    #[error("{0:?} is not allowed in a pattern: use A-Z a-z 0-9 _ . / : - and *")]
    Character(char),
    #[error("a pattern is at most 256 bytes")]
    TooLong,
}

impl Pattern {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    /// When it is empty, too long or holds other characters than names and `*` do.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        let _ = text;
        unimplemented!()
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` matches. Linear time, whatever the pattern.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let _ = name;
        unimplemented!()
    }
}

/// Many patterns, compiled so that the cost of a look-up hardly grows with their number (exact names in a hash,
/// `prefix*` in a sorted structure, the rest in turn).
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    patterns: Vec<(Pattern, RuleSite)>,
}

impl PatternSet {
    /// Compiles patterns, each with its place in the policy file.
    #[must_use]
    pub fn new(patterns: Vec<(Pattern, RuleSite)>) -> Self {
        Self { patterns }
    }

    /// The place of the first pattern (in file order among the matching ones) that matches.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&RuleSite> {
        let _ = name;
        unimplemented!()
    }

    /// The patterns as written, in order.
    #[must_use]
    pub fn patterns(&self) -> &[(Pattern, RuleSite)] {
        &self.patterns
    }
}
