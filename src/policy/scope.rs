use std::sync::Arc;

use crate::policy::{Pattern, RuleSite};

/// Which scope a method needs: scopes in order, patterns in order, the first match wins (emcp.md 2.3).
#[derive(Clone, Debug, Default)]
pub struct ScopeMap {
    /// (scope, pattern, where the pattern stands), in evaluation order.
    pub entries: Vec<(Arc<str>, Pattern, RuleSite)>,
}
