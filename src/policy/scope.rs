use std::sync::Arc;

use crate::policy::{Pattern, RuleSite};

/// What a method needs that no pattern of the map names.
const UNMATCHED: &str = "mcp:admin";

/// Which scope a method needs: scopes in order, patterns in order, the first match wins (emcp.md 2.3).
#[derive(Clone, Debug, Default)]
pub struct ScopeMap {
    /// (scope, pattern, where the pattern stands), in evaluation order.
    pub entries: Vec<(Arc<str>, Pattern, RuleSite)>,
}

impl ScopeMap {
    /// The scope that `method` (never trimmed) needs and the pattern's place; without a match `mcp:admin`.
    #[must_use]
    pub fn required(&self, method: &str) -> (&str, Option<&RuleSite>) {
        self.entries
            .iter()
            .find(|(_, pattern, _)| pattern.matches(method))
            .map_or((UNMATCHED, None), |(scope, _, site)| (scope, Some(site)))
    }
}
