//! Where a request target leads: to an MCP server, to a shape that is ours but not served, or to the CMS.
//!
//! Invariant: whatever some layer behind us could read as a reserved shape never routes to the CMS. Only the one
//! exact spelling is served; all doubt ends at [`Route::Reserved`], which is a 404.

use std::borrow::Cow;

use crate::policy::{Reason, Routes};

/// Longest request target, in bytes.
pub const MAX_TARGET_BYTES: usize = 8192;

/// Rounds of percent-decoding after which a target that still changes counts as hiding something.
const MAX_DECODINGS: usize = 6;

/// The segment that lists the servers; no server may be called so.
pub const SERVERS: &str = "servers";

/// Which routes a call came by: they differ in who is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A bearer of an API token.
    Api,
    /// A user of the CMS's manager.
    Manager,
}

/// Where a request target leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Exactly `/{base}/{version}/{api_prefix}/{server}`; the handle may be unknown.
    Mcp { server: Cow<'a, str> },
    /// Exactly `/{manager_prefix}/{name}`, where the manager routes are served; the name may be an unknown handle.
    Manager { name: &'a str },
    /// Exactly that of a server, by either kind of route, with `/dispatch` behind it.
    Dispatch { server: &'a str, door: Door },
    /// A reserved shape in another spelling, version or depth, or one that is not served: 404.
    Reserved,
    /// Everything else.
    Cms,
}

/// Routes a raw request target (origin-form or absolute-form, with its query).
///
/// # Errors
/// `UriTooLong` over [`MAX_TARGET_BYTES`]; `BadRequest` for asterisk and authority forms, fragments, control
/// characters in the path (encoded or not) and overlong UTF-8.
pub fn route<'a>(routes: &Routes, target: &'a str) -> Result<Route<'a>, Reason> {
    if target.len() > MAX_TARGET_BYTES {
        return Err(Reason::UriTooLong);
    }
    if let Some(server) = exact(routes, target) {
        return Ok(Route::Mcp { server: Cow::Borrowed(server) });
    }
    if let Some(name) = exact_manager(routes, target) {
        return Ok(Route::Manager { name });
    }
    if let Some((server, door)) = exact_dispatch(routes, target) {
        return Ok(Route::Dispatch { server, door });
    }
    if target.contains('#') {
        return Err(Reason::BadRequest);
    }
    let local = origin_form(target)?;
    let (path, query) = local.split_once('?').unwrap_or((&local, ""));
    let reserved = path_leads_to_reserved(routes, path)? || query_leads_to_reserved(routes, query);
    Ok(if reserved { Route::Reserved } else { Route::Cms })
}

/// Whether this target, which leads to [`Route::Reserved`], is the token route's one exact spelling, without a query.
pub fn is_token(routes: &Routes, target: &str) -> bool {
    let parts = [routes.base.as_str(), routes.version.as_str(), "token"];
    let mut rest = target;
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        match rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(part)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

/// The handle, when the target is the one exact spelling. Compares bytes, allocates nothing.
fn exact<'a>(routes: &Routes, target: &'a str) -> Option<&'a str> {
    if !routes.api {
        return None;
    }
    let mut rest = target;
    for part in [&routes.base, &routes.version, &routes.api_prefix] {
        if !part.is_empty() {
            rest = rest.strip_prefix('/')?.strip_prefix(part.as_str())?;
        }
    }
    let server = last_segment(rest)?;
    // With an empty prefix the handle's place is also the token route's or the manager's.
    let taken = routes.api_prefix.is_empty()
        && (server.eq_ignore_ascii_case("token") || strip(&[server], &routes.manager_prefix).is_some());
    (!taken).then_some(server)
}

/// The name, when the target is the one exact spelling of a manager route.
fn exact_manager<'a>(routes: &Routes, target: &'a str) -> Option<&'a str> {
    if !routes.manager || routes.manager_prefix.is_empty() {
        return None;
    }
    last_segment(target.strip_prefix('/')?.strip_prefix(routes.manager_prefix.as_str())?)
}

/// The one segment that is left, in letters that nobody reads in two ways; a query may follow.
fn last_segment(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix('/')?;
    let end = memchr::memchr(b'?', rest.as_bytes()).unwrap_or(rest.len());
    let name = &rest[..end];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
    let good = !name.is_empty() && name.len() <= 128 && name.bytes().all(plain) && !name.ends_with('.');
    (good && !rest[end..].contains('#')).then_some(name)
}

/// The handle, when the target is the one exact spelling of its dispatch route.
fn exact_dispatch<'a>(routes: &Routes, target: &'a str) -> Option<(&'a str, Door)> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let route = path.strip_suffix("/dispatch").filter(|_| !query.contains('#'))?;
    if let Some(server) = exact(routes, route) {
        return Some((server, Door::Api));
    }
    // The list of servers is none.
    exact_manager(routes, route).filter(|name| *name != SERVERS).map(|server| (server, Door::Manager))
}

/// Path and query of a target; the scheme and authority of an absolute-form target are cut off.
fn origin_form(target: &str) -> Result<Cow<'_, str>, Reason> {
    if target.starts_with('/') {
        return Ok(Cow::Borrowed(target));
    }
    let scheme_end = target.find("://").ok_or(Reason::BadRequest)?;
    let scheme = &target[..scheme_end];
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Reason::BadRequest);
    }
    let rest = &target[scheme_end + 3..];
    match rest.find(['/', '?', '\\']) {
        Some(0) => Err(Reason::BadRequest),
        Some(at) if rest[at..].starts_with('?') => Ok(Cow::Owned(format!("/{}", &rest[at..]))),
        Some(at) => Ok(Cow::Borrowed(&rest[at..])),
        None if rest.is_empty() => Err(Reason::BadRequest),
        None => Ok(Cow::Borrowed("/")),
    }
}

/// Judges the path at every depth of percent-decoding, since layers behind us decode a number of times we don't know.
fn path_leads_to_reserved(routes: &Routes, path: &str) -> Result<bool, Reason> {
    let mut bytes = Cow::Borrowed(path.as_bytes());
    for _ in 0..MAX_DECODINGS {
        if bytes.iter().any(u8::is_ascii_control) || has_overlong(&bytes) {
            return Err(Reason::BadRequest);
        }
        if reading_is_reserved(routes, &bytes) {
            return Ok(true);
        }
        match decode_once(&bytes) {
            Some(decoded) => bytes = Cow::Owned(decoded),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether the query carries a path: Evolution takes `q` as the path when there is one.
fn query_leads_to_reserved(routes: &Routes, query: &str) -> bool {
    if query.is_empty() {
        return false;
    }
    query.split(['&', ';']).any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        names_the_path(name) && value_is_reserved(routes, value)
    })
}

/// PHP skips leading blanks of a parameter's name, cuts it at a NUL, and reads `q[...]` as `q`.
fn names_the_path(name: &str) -> bool {
    let mut bytes = name.as_bytes().to_vec();
    for _ in 0..MAX_DECODINGS {
        match decode_once(&bytes) {
            Some(decoded) => bytes = decoded,
            None => break,
        }
    }
    let is_letter = |byte: &u8| *byte == 0 || !byte.is_ascii_control() && !matches!(byte, b' ' | b'+');
    let mut letters = bytes.into_iter().filter(is_letter).skip_while(|byte| *byte == 0);
    letters.next().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'q'))
        && letters.next().is_none_or(|byte| matches!(byte, b'[' | b'%' | 0))
}

/// A parameter's value is free text, so odd bytes in it are dropped rather than refused.
fn value_is_reserved(routes: &Routes, value: &str) -> bool {
    let mut bytes = value.as_bytes().to_vec();
    for _ in 0..MAX_DECODINGS {
        let cut = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let clean: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_control()).collect();
        if has_overlong(&bytes) || reading_is_reserved(routes, &clean) || reading_is_reserved(routes, &bytes[..cut]) {
            return true;
        }
        match decode_once(&bytes) {
            Some(decoded) => bytes = decoded,
            None => return false,
        }
    }
    true
}

/// Whether these bytes, decoded no further, can be read as a reserved shape.
fn reading_is_reserved(routes: &Routes, bytes: &[u8]) -> bool {
    let text: String = String::from_utf8_lossy(bytes).chars().filter(|c| *c != char::REPLACEMENT_CHARACTER).collect();
    let text = text.to_lowercase().replace('\\', "/");
    if let Some((head, tail)) = text.split_once(['?', '#'])
        && (segments_are_reserved(routes, head)
            || tail.split('&').any(|pair| {
                pair.trim_start_matches([' ', '+']).strip_prefix("q=").is_some_and(|q| segments_are_reserved(routes, q))
            }))
    {
        return true;
    }
    segments_are_reserved(routes, &text)
}

fn segments_are_reserved(routes: &Routes, text: &str) -> bool {
    // A target that begins with two slashes reads as an authority to some URL parsers.
    let authority = text.trim_start_matches([' ', '+']).starts_with("//");
    let mut written = Vec::with_capacity(8);
    let mut resolved = Vec::with_capacity(8);
    for raw in text.split('/') {
        let segment = plain_segment(raw);
        match segment {
            "" | "." => {}
            ".." => {
                written.push(segment);
                resolved.pop();
            }
            _ => {
                written.push(segment);
                resolved.push(segment);
            }
        }
    }
    [written, resolved].iter().any(|segments| {
        (0..segments.len()).any(|start| {
            let opens = start == 0 || (start == 1 && authority) || runs_script(segments[start - 1]);
            opens && is_reserved(routes, &segments[start..])
        })
    })
}

/// A segment without path parameters, blanks around it and trailing dots.
fn plain_segment(raw: &str) -> &str {
    let blank = |c: char| c.is_whitespace() || c == '+';
    let segment = raw.split(';').next().unwrap_or_default().trim_matches(blank);
    if matches!(segment, "." | "..") { segment } else { segment.trim_end_matches(|c| c == '.' || blank(c)) }
}

/// Whether what follows this segment is the path that a script gets (`/index.php/…`; `/index/…` under MultiViews).
fn runs_script(segment: &str) -> bool {
    segment == "index" || segment.contains(".ph")
}

fn is_reserved(routes: &Routes, segments: &[&str]) -> bool {
    if !routes.manager_prefix.is_empty() && strip(segments, &routes.manager_prefix).is_some() {
        return true;
    }
    let Some(below) = strip(segments, &routes.base) else { return false };
    let Some((first, deeper)) = below.split_first() else { return false };
    if *first == "token" || deeper.first() == Some(&"token") {
        return true;
    }
    if !routes.api_prefix.is_empty() {
        return strip(below, &routes.api_prefix).is_some() || strip(deeper, &routes.api_prefix).is_some();
    }
    // Without a prefix everything below the base is ours; without both, only what starts with a version.
    !routes.base.is_empty()
        || routes.version.is_empty()
        || first.eq_ignore_ascii_case(&routes.version)
        || first.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// What follows `prefix` (one or more segments, or none).
fn strip<'s, 't>(segments: &'s [&'t str], prefix: &str) -> Option<&'s [&'t str]> {
    let mut rest = segments;
    for part in prefix.split('/').filter(|part| !part.is_empty()) {
        let (first, more) = rest.split_first()?;
        if !first.eq_ignore_ascii_case(part) && *first != part.to_lowercase() {
            return None;
        }
        rest = more;
    }
    Some(rest)
}

/// One round of percent-decoding, or `None` when there is nothing to decode.
fn decode_once(bytes: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'%', bytes)?;
    let nibble = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = (bytes.get(at + 1).and_then(nibble), bytes.get(at + 2).and_then(nibble));
        match (bytes[at], pair) {
            (b'%', (Some(high), Some(low))) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    (decoded.len() < bytes.len()).then_some(decoded)
}

/// Whether some character is written in more bytes than it needs (`%c0%af` for a slash).
fn has_overlong(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]))
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
