use std::sync::Arc;

use crate::config::auth::scope_map;
use crate::config::document::{Place, Value};
use crate::config::feature::refuse_in_server;
use crate::config::hint::nearest;
use crate::config::pattern::patterns;
use crate::config::policy::{limits, stream};
use crate::config::reader::Section;
use crate::policy::{LimitsPolicy, PatternSet, RateLimitPolicy, ScopeMap, Server, ServerKind, StreamPolicy};

/// Handles that keys, labels and routes use for something else.
const RESERVED: [&str; 5] = ["unknown", "servers", "token", ".", ".."];

/// Reads `[[servers]]`: all are validated, the enabled ones with transport `web` are kept, and with `local` those with
/// transport `local` that name an upstream.
pub(in crate::config) fn servers(
    root: &Section<'_>,
    scopes: &ScopeMap,
    rate: &RateLimitPolicy,
    global_limits: &LimitsPolicy,
    global_stream: &StreamPolicy,
    upstreams: Option<&[String]>,
    local: bool,
) -> Vec<Arc<Server>> {
    let reader = root.reader;
    let Some(node) = root.node("servers") else {
        reader.problem(root.place, "`servers` is missing", "add a [[servers]] table");
        return Vec::new();
    };
    let Value::Array(items) = &node.value else {
        reader.problem(node.place, "`servers` must be a list of tables", "write [[servers]]");
        return Vec::new();
    };
    let mut handles: Vec<(String, Place)> = Vec::new();
    let mut claimed: Vec<(String, Place)> = Vec::new();
    let mut offered: Vec<(PatternSet, Place)> = Vec::new();
    let mut kept: Vec<Arc<Server>> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Value::Table(table) = &item.value else {
            reader.problem(item.place, "a server must be a table", "write [[servers]]");
            continue;
        };
        let section = Section::at(reader, table, format!("servers[{index}]"), item.place);
        let handle = section.text("handle", None);
        let safe = (1..=64).contains(&handle.text.len())
            && handle.text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
            && !RESERVED.contains(&handle.text.as_str());
        if table.get("handle").is_some() && !safe {
            let message = format!("{:?} cannot be a handle", handle.text);
            reader.problem(handle.place, message, "1 to 64 of A-Z a-z 0-9 _ - . and no reserved word");
        }
        if let Some((_, first)) = handles.iter().find(|(taken, _)| *taken == handle.text) {
            let message = format!("the handle {:?} is taken at {}", handle.text, reader.place_name(*first));
            reader.problem(handle.place, message, "rename one of the two");
        }
        if table.get("handle").is_some() {
            handles.push((handle.text.clone(), handle.place));
        }
        let enabled = section.boolean("enabled", Some(false));
        let web = section.choice("transport", &[("web", true), ("local", false)], None);
        let content = section.choice("kind", &[("content", true), ("mcp", false)], None);
        let upstream = section.text("upstream", if web { None } else { Some("") });
        if let Some(known) = upstreams
            && (web || local)
            && !upstream.text.is_empty()
            && !known.contains(&upstream.text)
        {
            let fix = match (nearest(&upstream.text, known.iter().map(String::as_str)), known.is_empty()) {
                (Some(near), _) => format!("did you mean {near:?}?"),
                (None, true) => "sidecar.toml has none: add [upstreams.NAME] there".to_owned(),
                (None, false) => format!("sidecar.toml has: {}", known.join(", ")),
            };
            reader.problem(upstream.place, format!("there is no upstream {:?}", upstream.text), &fix);
        }
        let allow_tools = patterns(&section, "allow_tools", false);
        let names = section.words("tool_names", false);
        if !content {
            for word in section.words("allow_tools", false).iter().chain(&names) {
                let literal = word.text.split('*').next().unwrap_or("");
                let may_be_core = literal.starts_with("evo.")
                    || (word.text.contains('*') && !literal.is_empty() && "evo.".starts_with(literal));
                if may_be_core {
                    let message = format!("`{}`: names that start with evo. belong to kind \"content\"", word.key);
                    reader.problem(word.place, message, "use the vendor's own prefix");
                }
            }
        }
        let denied = deny_tools(&section);
        if enabled && web && content {
            // What our executor offers under this handle is claimed, named or not.
            let overlaps = |other: &&(PatternSet, Place)| {
                let ours = || allow_tools.patterns().iter().map(|(pattern, _)| pattern.as_str());
                other.0.patterns().iter().any(|(theirs, _)| ours().any(|ours| intersects(ours, theirs.as_str())))
                    || names.iter().any(|word| other.0.find(&word.text).is_some())
            };
            if let Some((_, first)) = offered.iter().find(overlaps) {
                let message = format!("some tools are claimed already by the server at {}", reader.place_name(*first));
                let fix = "a tool has one server: let the two `allow_tools` not overlap, or disable one";
                reader.problem(handle.place, message, fix);
            }
            offered.push((allow_tools.clone(), handle.place));
        }
        // Nobody sees a local server's tools beside others.
        for word in names.into_iter().filter(|_| enabled && web) {
            if let Some((_, first)) = claimed.iter().find(|(name, _)| *name == word.text) {
                let message = format!("the tool {:?} is claimed already at {}", word.text, reader.place_name(*first));
                reader.problem(word.place, message, "tool names are unique over all enabled servers: rename one");
            }
            claimed.push((word.text, word.place));
        }
        let own_scopes = scope_map(&section, false);
        let rates = section.section("rate_limit", false);
        let per_minute = rates.integer("per_minute", (0, 1_000_000), Some(rate.per_minute));
        rates.close();
        let server = Server {
            index: kept.len(),
            handle: Arc::from(handle.text.as_str()),
            kind: if content { ServerKind::Content } else { ServerKind::Foreign },
            upstream: upstream.text,
            scope_map: if own_scopes.entries.is_empty() { scopes.clone() } else { own_scopes },
            allow_tools,
            allow_resources: patterns(&section, "allow_resources", false),
            allow_prompts: patterns(&section, "allow_prompts", false),
            deny_tools: denied,
            per_minute: if rate.enabled { per_minute } else { 0 },
            limits: limits(&section.section("limits", false), Some(global_limits)),
            stream: stream(&section.section("stream", false), Some(global_stream)),
            site: reader.site(format!("servers[{index}]"), item.place),
        };
        refuse_in_server(&section);
        section.close();
        let served = web || (local && !server.upstream.is_empty());
        if enabled && served {
            kept.push(Arc::new(server));
        }
    }
    kept
}

/// Whether some name matches both patterns, in which `*` is any run.
fn intersects(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    // Row by row: whether what is left of `left` and of `right` can be the same name.
    let mut below: Vec<bool> = Vec::new();
    for i in (0..=left.len()).rev() {
        let mut row = vec![false; right.len() + 1];
        for j in (0..=right.len()).rev() {
            row[j] = match (left.get(i), right.get(j)) {
                (None, None) => true,
                (Some(b'*'), _) if below[j] => true,
                (_, Some(b'*')) if row[j + 1] => true,
                (Some(b'*'), Some(_)) => row[j + 1],
                (Some(_), Some(b'*')) => below[j],
                (Some(l), Some(r)) => l == r && below[j + 1],
                (None, Some(_)) | (Some(_), None) => false,
            };
        }
        below = row;
    }
    below[0]
}

/// `security.deny_tools`, as in eMCP, or shorter `deny_tools`: one of the two, and never none.
fn deny_tools(server: &Section<'_>) -> PatternSet {
    let security = server.section("security", false);
    let long = security.table.and_then(|table| table.get("deny_tools"));
    let short = server.table.and_then(|table| table.get("deny_tools"));
    if let (Some(long), Some(short)) = (long, short) {
        let message = format!("`{}` is given as `{}` already", server.key("deny_tools"), security.key("deny_tools"));
        let place = if long.key_place.source > short.key_place.source { long.key_place } else { short.key_place };
        server.reader.problem(place, message, "keep `security.deny_tools`");
    }
    let list = match (long, short) {
        (None, None) if security.present() => patterns(&security, "deny_tools", true),
        (None, None) => {
            let (message, fix) = (
                format!("`{}` is missing", security.key("deny_tools")),
                "add `security = { deny_tools = [] }`; what restricts is never defaulted",
            );
            server.reader.problem(server.place, message, fix);
            PatternSet::default()
        }
        (Some(_), None) => patterns(&security, "deny_tools", true),
        (Some(_), Some(_)) => {
            patterns(server, "deny_tools", true);
            patterns(&security, "deny_tools", true)
        }
        (None, Some(_)) => patterns(server, "deny_tools", true),
    };
    for section in [&security, server] {
        section.node("deny_tools");
    }
    security.close();
    list
}

#[cfg(test)]
mod tests {
    use super::intersects;

    #[test]
    fn patterns_intersect_where_a_name_matches_both() {
        let cases = [
            ("a", "a", true),
            ("a", "b", false),
            ("evo.*", "evo.content.get", true),
            ("evo.content.*", "evo.*.get", true),
            ("evo.content.*", "evo.model.*", false),
            ("*", "*", true),
            ("*", "", true),
            ("a*b", "a*c", false),
            ("a*b", "*b*", true),
            ("a*", "*b", true),
            ("a*c", "ab", false),
            ("", "", true),
            ("", "a", false),
        ];
        for (left, right, expected) in cases {
            assert_eq!(intersects(left, right), expected, "{left} {right}");
            assert_eq!(intersects(right, left), expected, "{right} {left}");
        }
    }
}
