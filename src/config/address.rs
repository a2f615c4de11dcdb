//! Values that say where something is, and with which key it is spoken to.

use std::fmt::Display;
use std::str::FromStr;

use crate::base::Secret;
use crate::config::reader::{Section, Word};
use crate::proxy::settings as proxy;

/// How a listening address is to be written.
pub(in crate::config) const SOCKET_ADDRESS: &str =
    "write an IP address and a port, such as \"127.0.0.1:8087\" or \"[::1]:8087\"";

/// A word as a value of another type; `fix` says what one looks like.
pub(in crate::config) fn parsed<T: FromStr>(section: &Section<'_>, word: &Word, what: &str, fix: &str) -> Option<T>
where
    T::Err: Display,
{
    word.text
        .parse()
        .map_err(|error| {
            let message = format!("`{}` is no {what}: {:?} ({error})", word.key, word.text);
            section.reader.problem(word.place, message, fix);
        })
        .ok()
}

/// `scheme://host:port`; with a path after it, where there is room for one.
pub(in crate::config) fn address(
    section: &Section<'_>,
    word: &Word,
    path: Option<&mut String>,
) -> Option<proxy::Address> {
    let reader = section.reader;
    let form = if path.is_some() { "http://host:port/path or https://host/path" } else { "http://host:port" };
    let fix = format!("write {form}");
    if word.text.split(['/', '?', '#']).nth(2).is_some_and(|authority| authority.contains('@')) {
        // The text may hold a password: point at the table instead.
        let message = format!("`{}` holds a user or a password", word.key);
        reader.problem(
            section.place,
            message,
            "give it as a header: headers = { Authorization = { value_env = \"NAME\" } }",
        );
        return None;
    }
    let uri: http::Uri = parsed(section, word, "URL", &fix)?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => {
            reader.problem(word.place, format!("`{}` needs http:// or https://: {:?}", word.key, word.text), &fix);
            return None;
        }
    };
    let bare = uri.path() == "/" || uri.path().is_empty();
    let host = uri.host().filter(|host| !host.is_empty());
    let (Some(host), false) = (host, uri.query().is_some() || (path.is_none() && !bare)) else {
        reader.problem(word.place, format!("`{}` has more or less than {form}", word.key), &fix);
        return None;
    };
    if let Some(path) = path.filter(|_| !bare) {
        uri.path().clone_into(path);
    }
    Some(proxy::Address::Tcp {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        tls,
    })
}

/// `key_env` or `key_file`, of at least 32 bytes.
pub(in crate::config) fn key(section: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<Secret> {
    let (secret, place) = section.secret("key", env, false)?;
    if secret.len() < 32 {
        let message = format!("`{}` has {} bytes, at least 32 are needed", section.key("key"), secret.len());
        section.reader.problem(place, message, "make one with: openssl rand -hex 32");
    }
    Some(secret)
}
