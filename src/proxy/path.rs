//! Where a request target leads: to an MCP server, to a shape that is ours but not served, or to the CMS.
//!
//! Invariant: whatever some layer behind us could read as a reserved shape never routes to the CMS. Only the one
//! exact spelling is served; all doubt ends at [`Route::Reserved`], which is a 404.

use std::borrow::Cow;

use crate::base::percent_decoded;
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
        match percent_decoded(&bytes) {
            Some(decoded) => bytes = Cow::Owned(decoded),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether the query carries a path: Evolution takes `q` as the path when there is one.
fn query_leads_to_reserved(routes: &Routes, query: &str) -> bool {
    !query.is_empty()
        && [&['&'][..], &['&', ';']]
            .iter()
            .any(|marks| path_is_named(query, marks, |value| value_is_reserved(routes, value)))
}

/// Whether a parameter that names the path has a value of this kind, when parameters end at these marks.
fn path_is_named(parameters: &str, marks: &[char], kind: impl Fn(&str) -> bool) -> bool {
    parameters.split(marks).any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        names_the_path(name) && kind(value)
    })
}

/// PHP skips leading blanks of a parameter's name, cuts it at a NUL, and reads `q[...]` as `q`.
fn names_the_path(name: &str) -> bool {
    let mut bytes = name.as_bytes().to_vec();
    for _ in 0..MAX_DECODINGS {
        match percent_decoded(&bytes) {
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
        match percent_decoded(&bytes) {
            Some(decoded) => bytes = decoded,
            None => return false,
        }
    }
    true
}

/// Whether these bytes, decoded no further, can be read as a reserved shape, a backslash being a slash or not.
fn reading_is_reserved(routes: &Routes, bytes: &[u8]) -> bool {
    let text: String = String::from_utf8_lossy(bytes).chars().filter(|c| *c != char::REPLACEMENT_CHARACTER).collect();
    let text = text.to_lowercase();
    text_is_reserved(routes, &text) || (text.contains('\\') && text_is_reserved(routes, &text.replace('\\', "/")))
}

/// What stands behind a mark may be a query to whoever rewrites the path into one (`/index.php?q=$uri&$args`).
fn text_is_reserved(routes: &Routes, text: &str) -> bool {
    let reserved = |text: &str| segments_are_reserved(routes, text);
    let heads = ['?', '#', '&'].into_iter().filter_map(|mark| text.split_once(mark)).any(|(head, _)| reserved(head));
    let marks: [&[char]; 3] = [&['&'], &['&', ';'], &['?', '#', '&', ';']];
    heads || reserved(text) || marks.iter().any(|marks| path_is_named(text, marks, reserved))
}

/// Whether a path can be read as a reserved shape. Layers behind us differ in what is a separator and what is a dot
/// segment (`..;a`, `a\b/..`, `a%2fb/..`), so that no one resolution holds them all: where there is anything like a dot
/// segment, any of the other segments may be gone in the end.
fn segments_are_reserved(routes: &Routes, text: &str) -> bool {
    // A target that begins with two slashes reads as an authority to some URL parsers.
    let authority = text.trim_start_matches([' ', '+']).starts_with("//");
    let dots = text.split('/').any(|raw| raw.trim_start_matches(is_blank).starts_with(".."));
    let segments: Vec<&str> =
        text.split('/').map(plain_segment).filter(|segment| !matches!(*segment, "" | "." | "..")).collect();
    (dots && can_become_reserved(routes, &segments))
        || (0..segments.len()).any(|start| {
            let opens = start == 0
                || (start == 1 && authority)
                || runs_script(segments[start - 1])
                || behind_script(segments[start]).is_some();
            opens && is_reserved(routes, &segments[start..])
        })
}

const fn is_blank(c: char) -> bool {
    c == '+' || c.is_whitespace()
}

/// A segment without path parameters, blanks around it and trailing dots.
fn plain_segment(raw: &str) -> &str {
    let segment = raw.split(';').next().unwrap_or_default().trim_matches(is_blank);
    if matches!(segment, "." | "..") { segment } else { segment.trim_end_matches(|c| c == '.' || is_blank(c)) }
}

/// Whether what follows this segment is the path that a script gets (`/index.php/…`; `/index/…` under MultiViews).
fn runs_script(segment: &str) -> bool {
    segment == "index" || segment.contains(".ph")
}

/// What a script could get as the first segment of its path where no slash stands behind its name: PHP's frameworks cut
/// the name off the target, and take `/index.phpapi/v1` for `api/v1`. Any end of it counts, since names differ in length.
fn behind_script(segment: &str) -> Option<&str> {
    segment.split_once(".ph").map(|(_, behind)| behind).filter(|behind| !behind.is_empty())
}

/// Whether the segment, which is in lower case, can be read as this word.
fn is(segment: &str, word: &str) -> bool {
    let behind = behind_script(segment).map_or(&b""[..], str::as_bytes);
    let ends_with = |word: &str| {
        behind.len().checked_sub(word.len()).is_some_and(|at| behind[at..].eq_ignore_ascii_case(word.as_bytes()))
    };
    if word.is_ascii() {
        return segment.eq_ignore_ascii_case(word) || ends_with(word);
    }
    let word = word.to_lowercase();
    segment == word || ends_with(&word)
}

fn is_version(routes: &Routes, segment: &str) -> bool {
    let numbered = |text: &str, whole: bool| {
        let before = text.trim_end_matches(|c: char| c.is_ascii_digit());
        before.len() < text.len() && if whole { before == "v" } else { before.ends_with('v') }
    };
    is(segment, &routes.version)
        || numbered(segment, true)
        || behind_script(segment).is_some_and(|behind| numbered(behind, false))
}

fn is_reserved(routes: &Routes, segments: &[&str]) -> bool {
    if !routes.manager_prefix.is_empty() && strip(segments, &routes.manager_prefix).is_some() {
        return true;
    }
    let Some(below) = strip(segments, &routes.base) else { return false };
    let Some((first, deeper)) = below.split_first() else { return false };
    if is(first, "token") || deeper.first().is_some_and(|second| is(second, "token")) {
        return true;
    }
    if !routes.api_prefix.is_empty() {
        return strip(below, &routes.api_prefix).is_some() || strip(deeper, &routes.api_prefix).is_some();
    }
    // Without a prefix everything below the base is ours; without both, only what starts with a version.
    !routes.base.is_empty() || routes.version.is_empty() || is_version(routes, first)
}

/// Whether [`is_reserved`] holds for these segments without some of them.
fn can_become_reserved(routes: &Routes, segments: &[&str]) -> bool {
    if !routes.manager_prefix.is_empty() && find(segments, &routes.manager_prefix).is_some() {
        return true;
    }
    let Some(below) = find(segments, &routes.base) else { return false };
    if below.iter().any(|segment| is(segment, "token")) {
        return true;
    }
    if !routes.api_prefix.is_empty() {
        return find(below, &routes.api_prefix).is_some();
    }
    let ours = !routes.base.is_empty() || routes.version.is_empty();
    below.iter().any(|segment| ours || is_version(routes, segment))
}

/// What follows `prefix` (one or more segments, or none).
fn strip<'s, 't>(segments: &'s [&'t str], prefix: &str) -> Option<&'s [&'t str]> {
    parts(prefix)
        .try_fold(segments, |rest, part| rest.split_first().filter(|(first, _)| is(first, part)).map(|(_, more)| more))
}

/// What follows the segments of `prefix`, with any others before and between them.
fn find<'s, 't>(segments: &'s [&'t str], prefix: &str) -> Option<&'s [&'t str]> {
    parts(prefix)
        .try_fold(segments, |rest, part| rest.iter().position(|segment| is(segment, part)).map(|at| &rest[at + 1..]))
}

fn parts(prefix: &str) -> impl Iterator<Item = &str> {
    prefix.split('/').filter(|part| !part.is_empty())
}

/// Whether some character is written in more bytes than it needs (`%c0%af` for a slash).
fn has_overlong(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]))
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
