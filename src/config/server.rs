use std::sync::Arc;

use crate::config::document::Value;
use crate::config::policy::{limits, patterns, scope_map, stream};
use crate::config::reader::Section;
use crate::policy::{LimitsPolicy, RateLimitPolicy, ScopeMap, Server, ServerKind, StreamPolicy};

/// Handles that keys, labels and routes use for something else.
const RESERVED: [&str; 5] = ["unknown", "servers", "token", ".", ".."];

/// Reads `[[servers]]`: all are validated, the enabled ones with transport `web` are kept.
pub(in crate::config) fn servers(
    root: &Section<'_>,
    scopes: &ScopeMap,
    rate: &RateLimitPolicy,
    global_limits: &LimitsPolicy,
    global_stream: &StreamPolicy,
    upstreams: Option<&[String]>,
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
    let mut handles: Vec<String> = Vec::new();
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
        if handles.contains(&handle.text) {
            reader.problem(handle.place, format!("the handle {:?} is taken", handle.text), "rename one of the two");
        }
        handles.push(handle.text.clone());
        let enabled = section.boolean("enabled", Some(false));
        let web = section.choice("transport", &[("web", true), ("local", false)], None);
        let content = section.choice("kind", &[("content", true), ("mcp", false)], None);
        let upstream = section.text("upstream", if web { None } else { Some("") });
        if let Some(known) = upstreams
            && web
            && !upstream.text.is_empty()
            && !known.contains(&upstream.text)
        {
            let fix = format!("sidecar.toml has: {}", known.join(", "));
            reader.problem(upstream.place, format!("there is no upstream {:?}", upstream.text), &fix);
        }
        let allow_tools = patterns(&section, "allow_tools", false);
        if !content {
            let words = section.words("allow_tools", false);
            for word in words {
                let literal = word.text.split('*').next().unwrap_or("");
                let may_be_core = literal.starts_with("evo.")
                    || (word.text.contains('*') && !literal.is_empty() && "evo.".starts_with(literal));
                if may_be_core {
                    let message = format!("`{}`: names that start with evo. belong to kind \"content\"", word.key);
                    reader.problem(word.place, message, "use the vendor's own prefix");
                }
            }
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
            deny_tools: patterns(&section, "deny_tools", true),
            per_minute: if rate.enabled { per_minute } else { 0 },
            limits: limits(&section.section("limits", false), Some(global_limits)),
            stream: stream(&section.section("stream", false), Some(global_stream)),
            site: reader.site(format!("servers[{index}]"), item.place),
        };
        section.close();
        if enabled && web {
            kept.push(Arc::new(server));
        }
    }
    kept
}
