use serde_json::{Value, json};

use crate::cli::import::page::{Page, key_text};
use crate::cli::import::policy::Globals;
use crate::cli::import::scope;
use crate::cli::import::setting::{Notes, Range, Settings};

/// The class of the servers that this program serves by itself.
const CONTENT: &str = "EvolutionCMS\\eMCP\\Servers\\ContentServer";

/// The `limits.max_result_items` of the server `content` in eMCP's mcp.php.
const SHIPPED_ITEMS: u64 = 50;

/// The servers as TOML.
pub(super) struct Registry {
    pub text: String,
    /// There is none among them.
    pub empty: bool,
}

/// What mcp.php registers, or eMCP's own registry.
pub(super) fn registry(servers: Option<Value>, upstream: &str, globals: &Globals, notes: &mut Notes) -> Registry {
    let shipped = || {
        json!([{"handle": "content", "transport": "web", "class": CONTENT, "enabled": true,
            "limits": {"max_payload_kb": 128}, "rate_limit": {"per_minute": 30}}])
    };
    let list = match servers {
        None => shipped(),
        Some(registry) => {
            let mut root = Settings::new("mcp.php", registry, notes).at_the_root();
            let list = root.take("servers").unwrap_or_default();
            // A setting of Laravel's MCP package that eMCP does not use.
            if !root.unread(&["redirect_domains"]).is_empty() {
                notes.push("redirect_domains was never read by eMCP, nor here".to_owned());
            }
            root.finish(notes);
            list
        }
    };
    let items = match list {
        Value::Array(items) => items,
        Value::Object(map) => map.into_iter().map(|(_, item)| item).collect(),
        Value::Null => Vec::new(),
        other => {
            notes.push(format!("mcp.php: servers is {other}, where a list belongs"));
            Vec::new()
        }
    };
    let mut list = List { upstream, globals, taken: Vec::new(), content: None };
    let mut entries: Vec<Entry> = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        entries.extend(Entry::read(index, item, notes));
    }
    let enabled: Vec<String> = entries.iter().filter(|entry| entry.enabled).map(|entry| entry.handle.clone()).collect();
    let mut registry = Registry { text: String::new(), empty: true };
    for entry in entries {
        // Of two entries with one handle the first that is enabled counts, as it did in PHP.
        if list.taken.contains(&entry.handle) || (!entry.enabled && enabled.contains(&entry.handle)) {
            notes.push(format!("{}: the handle {:?} is taken, and the entry was left out", entry.key, entry.handle));
            continue;
        }
        list.taken.push(entry.handle.clone());
        registry.empty &= entry.class != Class::Content;
        registry.text.push_str(&list.server(entry, notes));
    }
    if registry.empty {
        notes.push("mcp.php registers no server that could come along: every call is answered with 404".to_owned());
    }
    registry
}

#[derive(PartialEq, Eq)]
enum Class {
    Content,
    Other(String),
}

/// An entry of mcp.php that PHP would have registered, or kept for later.
struct Entry {
    key: String,
    handle: String,
    class: Class,
    enabled: bool,
    transport: &'static str,
    rest: Settings,
}

impl Entry {
    /// `None` for what can be no server; a note says why.
    fn read(index: usize, item: Value, notes: &mut Notes) -> Option<Self> {
        let key = format!("servers[{index}]");
        if !item.is_object() {
            notes.push(format!("{key} is {item}, which is no server: it was left out, as by PHP"));
            return None;
        }
        let mut rest = Settings::new(&key, item, notes);
        let handle = rest.take("handle").unwrap_or_default();
        let safe = |text: &&str| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
                && !["unknown", "servers", "token", ".", ".."].contains(text)
        };
        let Some(handle) = handle.as_str().filter(safe).map(str::to_owned) else {
            notes.push(format!("{key}.handle is {handle}, which cannot be a handle here: the entry was left out"));
            return None;
        };
        let transport = match rest.take("transport").unwrap_or_default() {
            Value::Null => {
                notes.push(format!(
                    "{handle}: {key}.transport is not there, and the server was unreachable over HTTP: it is \"local\" here"
                ));
                "local"
            }
            Value::String(text) if text == "web" => "web",
            Value::String(text) if text == "local" => "local",
            other => {
                notes.push(format!("{handle}: {key}.transport is {other}: the entry was left out, as by PHP"));
                return None;
            }
        };
        let class = rest.take("class").unwrap_or_default();
        let class = match class.as_str() {
            Some(name) if name.trim_start_matches('\\').eq_ignore_ascii_case(CONTENT) => Class::Content,
            Some(name) => Class::Other(name.to_owned()),
            None => Class::Other(class.to_string()),
        };
        let enabled = rest.switch("enabled", false, false, notes);
        Some(Self { key, handle, class, enabled, transport, rest })
    }
}

/// The list in the making.
struct List<'a> {
    upstream: &'a str,
    globals: &'a Globals,
    /// The handles so far.
    taken: Vec<String>,
    /// The enabled server that has the content tools.
    content: Option<String>,
}

impl List<'_> {
    /// One server. What PHP's own classes do cannot be carried over: those become comments, to be finished by hand.
    fn server(&mut self, entry: Entry, notes: &mut Notes) -> String {
        let Entry { key, handle, class, mut enabled, transport, rest: mut server } = entry;
        let content = class == Class::Content;
        if let Class::Other(class) = &class {
            notes.push(format!(
                "{handle}: the class {class:?} runs in PHP and cannot come along; its entry is a comment here. Let it \
                 listen as an MCP server, name it in [upstreams.{handle}] of sidecar.toml, list its tools in \
                 allow_tools, and take the comment up"
            ));
        } else if enabled {
            if let Some(first) = &self.content {
                notes.push(format!(
                    "{handle}: {first:?} has its tools, so that PHP left it out: {key}.enabled is false here"
                ));
                enabled = false;
            } else {
                self.content = Some(handle.clone());
            }
        }
        let mut out = Page::default();
        out.text.push_str("\n[[servers]]\n");
        out.key("handle", handle.as_str());
        out.key("enabled", enabled);
        out.key("transport", transport);
        out.key("kind", if content { "content" } else { "mcp" });
        out.key("upstream", if content { self.upstream } else { &handle });
        out.key("allow_tools", if content { json!(["evo.content.*", "evo.model.*"]) } else { json!([]) });
        out.key("allow_resources", json!([]));
        out.key("allow_prompts", json!([]));
        if let Some(names) = server.words("tool_names", notes) {
            out.key("tool_names", names);
        }
        self.limits(&mut server, &mut out, notes);
        self.scopes(&key, &mut server, &mut out, notes);
        let unread = server.unread(&["route", "auth", "scopes"]);
        if !unread.is_empty() {
            let word = if unread.len() == 1 { "was" } else { "were" };
            notes.push(format!("{handle}: {} {word} never read by eMCP, nor here", unread.join(", ")));
        }
        server.finish(notes);
        if content { out.text } else { out.commented() }
    }

    fn limits(&self, server: &mut Settings, out: &mut Page, notes: &mut Notes) {
        let mut security = server.below("security", notes);
        out.key("security.deny_tools", security.denied_patterns("deny_tools", notes));
        security.finish(notes);
        let mut limits = server.below("limits", notes);
        for (key, most) in [("max_payload_kb", 1 << 20), ("max_result_bytes", 1 << 30)] {
            out.some(&format!("limits.{key}"), limits.number(key, Range::cap(None, 1, most), notes));
        }
        out.some("limits.max_result_items", self.max_result_items(&mut limits, notes));
        limits.finish(notes);
        let mut rate = server.below("rate_limit", notes);
        let per_minute = Range { default: None, least: 0, most: 1_000_000, other: None };
        out.some("rate_limit.per_minute", rate.number("per_minute", per_minute, notes));
        rate.finish(notes);
        let mut stream = server.below("stream", notes);
        for (key, strict) in [("enabled", false), ("abort_on_disconnect", true)] {
            if stream.has(key) {
                let value = stream.switch(key, strict, strict, notes);
                out.key(&format!("stream.{key}"), value);
            }
        }
        for (key, most) in [("max_stream_seconds", 86_400), ("heartbeat_seconds", 3600)] {
            out.some(&format!("stream.{key}"), stream.number(key, Range::cap(None, 1, most), notes));
        }
        stream.finish(notes);
    }

    /// PHP never read it: what was only shipped, or would be wider than the cap that counted, stays behind.
    fn max_result_items(&self, limits: &mut Settings, notes: &mut Notes) -> Option<u64> {
        let key = limits.named("max_result_items");
        let cap = self.globals.max_result_items;
        let range = Range { default: None, least: 1, most: 100_000, other: None };
        let items = limits.number("max_result_items", range, notes)?;
        let kept = items != SHIPPED_ITEMS && items < cap;
        notes.push(match kept {
            true => format!("{key} = {items} counts here, which eMCP never read: its cap was {cap}"),
            false => format!("{key} = {items} was left out: eMCP never read it, and its cap was {cap}, as it is here"),
        });
        kept.then_some(items)
    }

    /// The map that eMCP ships for `content` keeps its clients from `ping`, from lists and from the notification that
    /// each of them sends; its own global map is what was meant.
    fn scopes(&self, key: &str, server: &mut Settings, out: &mut Page, notes: &mut Notes) {
        let mut scopes = scope::read(server.below("scope_map", notes), notes);
        let key = format!("{key}.scope_map");
        if scope::is_shipped_server(&scopes) {
            let instead =
                if self.globals.shipped_scopes { "[auth.scope_map] counts" } else { "eMCP's global map counts" };
            notes.push(format!(
                "{key} is the one that eMCP ships, which refuses ping, notifications and lists to whoever has mcp:read \
                 and mcp:call: {instead} here"
            ));
            scopes = if self.globals.shipped_scopes { Vec::new() } else { scope::shipped() };
        }
        scope::complete(&mut scopes, &key, notes);
        for (scope, patterns) in scopes {
            out.key(&format!("scope_map.{}", key_text(&scope)), patterns);
        }
    }
}
