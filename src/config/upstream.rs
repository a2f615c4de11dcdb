use std::collections::BTreeMap;

use crate::base::Secret;
use crate::config::address::{address, key};
use crate::config::document::{Place, Value};
use crate::config::reader::Section;
use crate::proxy::settings as proxy;

/// Headers that the proxy writes itself: a second one would make a request that two readers understand differently.
const OWN_HEADERS: [&str; 12] = [
    "host",
    "content-type",
    "content-length",
    "content-encoding",
    "accept",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
];

/// An upstream with the place that its address has in the file.
pub(in crate::config) struct Placed {
    pub name: String,
    pub upstream: proxy::Upstream,
    pub place: Place,
}

/// `[upstreams]`, in the order of the file.
pub(in crate::config) fn upstreams(root: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Vec<Placed> {
    let all = root.section("upstreams", true);
    let mut found = Vec::new();
    for entry in all.table.iter().flat_map(|table| &table.entries) {
        let Value::Table(table) = &entry.node.value else {
            let message = format!("`upstreams.{}` must be a table", entry.key);
            root.reader.problem(entry.node.place, message, &format!("write [upstreams.{}]", entry.key));
            continue;
        };
        let section = Section::at(root.reader, table, all.key(&entry.key), entry.node.place);
        if let Some((upstream, place)) = upstream(&section, env) {
            found.push(Placed { name: entry.key.clone(), upstream, place });
        }
        section.close();
    }
    found
}

/// By name.
pub(in crate::config) fn by_name(placed: Vec<Placed>) -> BTreeMap<String, proxy::Upstream> {
    placed.into_iter().map(|placed| (placed.name, placed.upstream)).collect()
}

fn upstream(section: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<(proxy::Upstream, Place)> {
    let reader = section.reader;
    let socket = section.optional("socket");
    let url = section.optional("url");
    let given = section.table.is_some_and(|table| table.get("path").is_some());
    let mut path = section.text("path", Some("/mcp"));
    let identity = section.boolean("identity", Some(false));
    let key = key(section, env);
    let headers = headers(section, env);
    if !path.text.starts_with('/') {
        reader.problem(path.place, format!("`{}` must start with /", path.key), "write \"/mcp\"");
    } else if path.text.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        let message = format!("`{}` is no request path: {:?}", path.key, path.text);
        reader.problem(path.place, message, "percent-encode what is not a letter, a digit or one of / - _ . { }");
    }
    let (address, place) = match (socket, url) {
        (Some(word), None) => (proxy::Address::Unix(section.socket(&word)), word.place),
        (None, Some(word)) => {
            if identity && key.is_none() && section.lacks(&["key_env", "key_file"]) {
                reader.problem(word.place, "our executor over TCP needs a key", "set key_env or key_file");
            }
            let mut in_url = String::new();
            let address = address(section, &word, Some(&mut in_url))?;
            if !in_url.is_empty() {
                if given {
                    let message = format!("`{}` has a path, and `{}` gives another one", word.key, path.key);
                    reader.problem(path.place, message, "keep one of the two");
                }
                path.text = in_url;
            }
            (address, word.place)
        }
        _ if section.lacks(&["socket", "url"]) => {
            let fix = "give socket = \"PATH\" or url = \"http://host:port\"";
            reader.problem(section.place, format!("`{}` needs either `socket` or `url`", section.path), fix);
            return None;
        }
        (Some(_), Some(word)) => {
            let message = format!("`{}` and `{}` are both given", section.key("socket"), word.key);
            reader.problem(word.place, message, "keep one of the two");
            return None;
        }
        (None, None) => return None,
    };
    if !identity && key.is_some() {
        let message = format!("`{}` has a key, and no identity to sign", section.path);
        reader.problem(section.place, message, "set identity = true for our executor, or remove the key");
    }
    Some((proxy::Upstream { address, path: path.text, key, identity, headers }, place))
}

/// `headers`: `Name = "text"`, `Name = { value_env = "VAR" }` or `{ value_file = "path" }`.
fn headers(section: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Vec<(String, Secret)> {
    let reader = section.reader;
    let list = section.section("headers", false);
    let mut headers = Vec::new();
    for entry in list.table.iter().flat_map(|table| &table.entries) {
        let name = entry.key.to_lowercase();
        if http::HeaderName::from_bytes(entry.key.as_bytes()).is_err() {
            reader.problem(entry.key_place, format!("{:?} is no header name", entry.key), "use letters, digits and -");
        } else if OWN_HEADERS.contains(&name.as_str()) || name.starts_with("x-mcp-sidecar-") {
            reader.problem(entry.key_place, format!("the proxy sets the header {} itself", entry.key), "remove it");
        }
        let value = match &entry.node.value {
            Value::Text(text) => {
                list.conceal(&entry.key);
                Some((Secret::new(text.as_bytes()), entry.node.place))
            }
            Value::Table(table) => {
                let inner = Section::at(reader, table, list.key(&entry.key), entry.node.place);
                let value = inner.secret("value", env, false);
                if inner.lacks(&["value_env", "value_file"]) {
                    reader.problem(
                        entry.key_place,
                        format!("`{}` has no value", inner.path),
                        "set value_env or value_file",
                    );
                }
                inner.close();
                value
            }
            _ => {
                let message = format!("`{}` is neither a string nor a table", list.key(&entry.key));
                reader.problem(entry.node.place, message, "write \"text\" or { value_env = \"NAME\" }");
                None
            }
        };
        let Some((value, place)) = value else { continue };
        if http::HeaderValue::from_bytes(value.expose()).is_err() {
            let message =
                format!("the value of the header {} holds a line break or another control character", entry.key);
            reader.problem(place, message, "give one line of text");
            continue;
        }
        headers.push((entry.key.clone(), value));
    }
    headers
}
