use crate::cli::import::setting::{Notes, Settings};
use crate::policy::Pattern;

/// Scopes in order, each with its patterns.
pub(super) type Scopes = Vec<(String, Vec<String>)>;

/// eMCP's own map, and the notifications, without which no client of MCP gets further than `initialize`.
const SHIPPED: [(&str, &[&str]); 3] = [
    (
        "mcp:read",
        &[
            "initialize",
            "ping",
            "notifications/*",
            "tools/list",
            "resources/list",
            "resources/read",
            "prompts/list",
            "prompts/get",
            "completion/complete",
        ],
    ),
    ("mcp:call", &["tools/call"]),
    ("mcp:admin", &["admin/*"]),
];

/// What eMCP's mcp.php gives the server `content`.
const SHIPPED_SERVER: [(&str, &[&str]); 2] =
    [("mcp:read", &["initialize", "tools/list", "resources/read"]), ("mcp:call", &["tools/call"])];

pub(super) fn shipped() -> Scopes {
    SHIPPED.iter().map(|(scope, patterns)| ((*scope).to_owned(), owned(patterns))).collect()
}

fn owned(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
}

/// A map as PHP holds it; empty where it says nothing.
pub(super) fn read(mut map: Settings, notes: &mut Notes) -> Scopes {
    let names = map.names();
    let patterns = |scope: String| {
        let mut patterns = map.words(&scope, notes)?;
        patterns.retain(|pattern| !pattern.trim().is_empty());
        Some((scope, patterns))
    };
    names.into_iter().filter_map(patterns).filter(|(_, patterns)| !patterns.is_empty()).collect()
}

/// Whether this is the map of the server `content` as eMCP ships it.
pub(super) fn is_shipped_server(scopes: &Scopes) -> bool {
    same(scopes, &SHIPPED_SERVER)
}

/// Whether this is eMCP's own map, with the notifications.
pub(super) fn is_shipped(scopes: &Scopes) -> bool {
    same(scopes, &SHIPPED)
}

fn same(scopes: &Scopes, shipped: &[(&str, &[&str])]) -> bool {
    let sorted = |patterns: &[String]| {
        let mut sorted = patterns.to_vec();
        sorted.sort_unstable();
        sorted
    };
    scopes.len() == shipped.len()
        && scopes
            .iter()
            .zip(shipped)
            .all(|((scope, patterns), (name, other))| scope == name && sorted(patterns) == sorted(&owned(other)))
}

/// Adds what every client sends besides `initialize` to the scope that holds it, unless the map names it elsewhere.
pub(super) fn complete(scopes: &mut Scopes, key: &str, notes: &mut Notes) {
    let Some((home, _)) = required(scopes, "initialize") else { return };
    let mut added = Vec::new();
    for (pattern, method) in [("ping", "ping"), ("notifications/*", "notifications/initialized")] {
        match required(scopes, method) {
            Some((scope, _)) if scope == home => {}
            Some((scope, by)) if by != "*" => notes
                .push(format!("{key}: {method} needs {:?}, as it did: clients without it get 403", scopes[scope].0)),
            _ => {
                scopes[home].1.push(pattern.to_owned());
                added.push(pattern);
            }
        }
    }
    if !added.is_empty() {
        let (added, scope) = (added.join(" and "), &scopes[home].0);
        notes.push(format!(
            "{key}: {added} went to {scope:?}, the scope of initialize: eMCP refused it to whoever has no other scope, \
             and clients of MCP cannot do without"
        ));
    }
}

/// The scope that a method needs, by position, and the pattern that says so.
fn required<'a>(scopes: &'a Scopes, method: &str) -> Option<(usize, &'a str)> {
    let matches = |pattern: &&String| Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(method));
    let of = |(index, (_, patterns)): (usize, &'a (String, Vec<String>))| {
        patterns.iter().find(matches).map(|pattern| (index, pattern.as_str()))
    };
    scopes.iter().enumerate().find_map(of)
}
