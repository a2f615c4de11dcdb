//! What is checked, taken away and let through among HTTP headers.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Version};

use crate::policy::{LimitsPolicy, Reason, TracePolicy};
use crate::proxy::request::Request;

const SINGLETONS: [&str; 10] = [
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "origin",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"];

/// Headers that `Connection` may not name away: framing and routing hang on them.
const NEVER_NAMED: [&str; 5] = ["host", "content-length", "transfer-encoding", "content-type", "upgrade"];

/// Checks that hold for every request: size, repeated headers, framing, `Host`.
///
/// # Errors
/// `HeadersTooLarge` over the limits, `BadRequest` for anything two readers could read differently.
pub fn check_request(
    headers: &HeaderMap,
    version: Version,
    limits: &LimitsPolicy,
    trace: &TracePolicy,
) -> Result<(), Reason> {
    // Each line costs four bytes beside name and value on the wire (`: ` and CRLF).
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers.len() > limits.max_headers || bytes > limits.max_header_bytes {
        return Err(Reason::HeadersTooLarge);
    }
    let repeated = headers.keys_len() < headers.len();
    for name in headers.keys().filter(|_| repeated) {
        let name = name.as_str();
        let single = SINGLETONS.contains(&name) || name.starts_with("mcp-") || name == trace.header;
        if single && headers.get_all(name).iter().nth(1).is_some() {
            return Err(Reason::BadRequest);
        }
    }
    let coding = headers.get(header::TRANSFER_ENCODING);
    let length = headers.get(header::CONTENT_LENGTH);
    let plain_length = |value: &HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    if coding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked") || version != Version::HTTP_11)
        || (coding.is_some() && length.is_some())
        || length.is_some_and(|value| !plain_length(value))
        || (version == Version::HTTP_11 && !headers.contains_key(header::HOST))
    {
        return Err(Reason::BadRequest);
    }
    Ok(())
}

/// Checks on every route of ours: no `Upgrade`, no headers that only we may write.
///
/// # Errors
/// `BadRequest`.
pub fn check_own(headers: &HeaderMap) -> Result<(), Reason> {
    let ours = headers.contains_key(header::UPGRADE) || headers.keys().any(is_ours);
    if ours { Err(Reason::BadRequest) } else { Ok(()) }
}

/// Checks on MCP routes: no `Upgrade`, no headers that only we may write, no foreign `Origin`.
///
/// `allow_origins` is `security.allow_origins`. A request without `Origin` passes; `null` is foreign. Where the site's
/// names are configured (`server_names`), its own pages are no strangers; where any `Host` is taken, a page of a name
/// that somebody pointed here would look like one of ours.
///
/// # Errors
/// `BadRequest` or `ForeignOrigin`.
pub fn check_mcp(headers: &HeaderMap, allow_origins: &[String], server_names: &[String]) -> Result<(), Reason> {
    check_own(headers)?;
    let Some(origin) = text(headers, &header::ORIGIN) else { return Ok(()) };
    let listed = origin != "null" && allow_origins.contains(&origin);
    if listed || (!server_names.is_empty() && is_own(headers, &origin)) { Ok(()) } else { Err(Reason::ForeignOrigin) }
}

/// Whether an `Origin`, in lower case, is that of the `Host` that the request names.
pub fn is_own(headers: &HeaderMap, origin: &str) -> bool {
    let site = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    site.is_some() && site.map(str::to_owned) == text(headers, &header::HOST)
}

/// A header in lower case and without blanks around it; what is no text is empty.
pub fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Checks the host (the `Host` header, or HTTP/2's authority) against `listen.server_names`; empty accepts any.
///
/// # Errors
/// `BadRequest` when it is unreadable or none of ours.
pub fn check_host(host: Option<&str>, server_names: &[String]) -> Result<(), Reason> {
    if server_names.is_empty() {
        return Ok(());
    }
    let host = host.ok_or(Reason::BadRequest)?.trim().to_ascii_lowercase();
    let name_end = if host.starts_with('[') { host.find(']').map(|at| at + 1) } else { host.find(':') };
    let (name, port) = host.split_at(name_end.unwrap_or(host.len()));
    let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    let name = name.strip_suffix('.').unwrap_or(name);
    if port_ok && server_names.iter().any(|known| known == name) { Ok(()) } else { Err(Reason::BadRequest) }
}

/// Checks what Pingora would refuse of a request for the CMS, where nobody counts or logs it: a method without a path,
/// a path in bytes that no address may have, a length that is no number of ours, a user in `Host`, an absolute-form
/// target that names another host.
///
/// # Errors
/// `BadRequest`.
pub fn check_for_cms(request: &Request) -> Result<(), Reason> {
    let target = std::str::from_utf8(&request.target).map_err(|_| Reason::BadRequest)?;
    let host = request.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let (path, one_host) = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => {
            let (named, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let plain = named.parse::<Authority>().is_ok() && !named.contains(['@', '\\']);
            (path, plain && host.is_none_or(|host| host == named.as_bytes()))
        }
        _ => (target, true),
    };
    let plain_path = path.is_empty() || path.parse::<PathAndQuery>().is_ok();
    let plain_host = host.is_none_or(|host| !host.contains(&b'@'));
    let plain = request.method != Method::CONNECT && request.length != Some(u64::MAX);
    if plain && one_host && plain_path && plain_host { Ok(()) } else { Err(Reason::BadRequest) }
}

/// Whether only the sidecar may write this header, in the spelling with underscores too.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let starts_with = |prefix: &[u8]| {
        name.len() >= prefix.len()
            && name.iter().zip(prefix).all(|(byte, wanted)| byte == wanted || (*byte == b'_' && *wanted == b'-'))
    };
    starts_with(b"x-mcp-sidecar-") || starts_with(b"x-accel-")
}

/// Removes from a CMS request what only we may write, what would override the routed path behind our back, `Proxy`
/// (read as `HTTP_PROXY` by CGI), and names with underscores, which CGI cannot tell from dashes.
pub fn strip_for_cms(headers: &mut HeaderMap) {
    let overriding = ["x-original-url", "x-original-uri", "x-rewrite-url", "proxy"];
    let bad: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_ours(name) || name.as_str().contains('_') || overriding.contains(&name.as_str()))
        .cloned()
        .collect();
    for name in bad {
        headers.remove(name);
    }
}

/// Removes hop-by-hop headers and those that `Connection` names, of a request or a response.
///
/// `Transfer-Encoding` stays: whoever writes the message owns its framing. With `keep_upgrade` (CMS websockets)
/// `Upgrade` stays and `Connection` says so.
pub fn remove_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| !NEVER_NAMED.contains(&name.as_str()))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if keep_upgrade && headers.contains_key(header::UPGRADE) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(header::UPGRADE);
    }
}

/// The value of an `Mcp-*` header, `=?base64?…?=` decoded; `None` when it is not readable text.
#[must_use]
pub fn decoded(value: &HeaderValue) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?.trim();
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(text)),
    }
}

/// A new random id: a UUID v4.
#[must_use]
pub fn new_id() -> Arc<str> {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    Arc::from(&*uuid::Uuid::new_v4().as_hyphenated().encode_lower(&mut text))
}

/// The trace id: the client's (trimmed, at most 128 characters, printable ASCII only), else the request's own id when
/// `generate_if_missing`, else empty.
#[must_use]
pub fn trace_id(headers: &HeaderMap, policy: &TracePolicy, request_id: &Arc<str>) -> Arc<str> {
    if let Some(sent) = headers.get(policy.header.as_str()) {
        let printable = sent.as_bytes().iter().filter(|byte| matches!(byte, b' '..=b'~')).map(|byte| char::from(*byte));
        let id: String = printable.collect::<String>().trim().chars().take(128).collect();
        if !id.is_empty() {
            return id.into();
        }
    }
    if policy.generate_if_missing { Arc::clone(request_id) } else { Arc::from("") }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = &'static [(&'static str, &'static str)];

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    }

    fn trace() -> TracePolicy {
        TracePolicy { header: "x-trace-id".into(), generate_if_missing: true }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let limits = LimitsPolicy {
            max_payload_bytes: 1,
            max_result_bytes: 1,
            max_result_items: 1,
            max_header_bytes: 120,
            max_headers: 4,
            max_stream_bytes: 1,
        };
        let bad = Err(Reason::BadRequest);
        let large = Err(Reason::HeadersTooLarge);
        const LONG: &str =
            "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";
        let cases: [(Lines, Result<(), Reason>); 13] = [
            (&[("host", "a")], Ok(())),
            (&[], bad),
            (&[("host", "a"), ("host", "a")], bad),
            (&[("host", "a"), ("mcp-name", "a"), ("mcp-name", "a")], bad),
            (&[("host", "a"), ("x-trace-id", "a"), ("x-trace-id", "a")], bad),
            (&[("host", "a"), ("cookie", "a"), ("cookie", "b")], Ok(())),
            (&[("host", "a"), ("transfer-encoding", "Chunked")], Ok(())),
            (&[("host", "a"), ("transfer-encoding", "gzip, chunked")], bad),
            (&[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "1")], bad),
            (&[("host", "a"), ("content-length", "+1")], bad),
            (&[("host", "a"), ("content-length", "10")], Ok(())),
            (&[("host", "a"), ("a", "a"), ("b", "a"), ("c", "a"), ("d", "a")], large),
            (&[("host", "a"), ("x", LONG)], Ok(())),
        ];
        for (lines, expected) in cases {
            assert_eq!(check_request(&map(lines), Version::HTTP_11, &limits, &trace()), expected, "{lines:?}");
        }
        let heavy = map(&[("host", "a"), ("x", LONG), ("y", "more than is left")]);
        assert_eq!(check_request(&heavy, Version::HTTP_11, &limits, &trace()), large);
    }

    #[test]
    fn mcp_routes_know_their_origins() {
        let origins = ["https://a.test".to_owned(), "null".to_owned()];
        let cases: [(Lines, Result<(), Reason>); 8] = [
            (&[], Ok(())),
            (&[("origin", "https://A.test")], Ok(())),
            (&[("origin", "https://a.test:8443")], Err(Reason::ForeignOrigin)),
            (&[("origin", "null")], Err(Reason::ForeignOrigin)),
            (&[("upgrade", "websocket")], Err(Reason::BadRequest)),
            (&[("x-mcp-sidecar-identity", "x")], Err(Reason::BadRequest)),
            (&[("x_mcp_sidecar_identity", "x")], Err(Reason::BadRequest)),
            (&[("x-accel-redirect", "x")], Err(Reason::BadRequest)),
        ];
        for (lines, expected) in cases {
            assert_eq!(check_mcp(&map(lines), &origins, &[]), expected, "{lines:?}");
        }
        let own = map(&[("host", "Site.test:8080"), ("origin", "https://site.test:8080")]);
        assert_eq!(check_mcp(&own, &[], &["site.test".to_owned()]), Ok(()));
        assert_eq!(check_mcp(&own, &[], &[]), Err(Reason::ForeignOrigin), "any name is taken");
        for origin in ["https://site.test", "https://other.test", "null", "site.test:8080", "ftp://site.test:8080"] {
            let other = map(&[("host", "site.test:8080"), ("origin", origin)]);
            assert_eq!(check_mcp(&other, &[], &["site.test".to_owned()]), Err(Reason::ForeignOrigin), "{origin}");
        }
    }

    #[test]
    fn hosts_are_compared_without_port_and_case() {
        let names = ["a.test".to_owned(), "[::1]".to_owned()];
        for host in ["a.test", "A.test:80", "a.test.", "[::1]:8080"] {
            assert_eq!(check_host(Some(host), &names), Ok(()), "{host}");
        }
        for host in [None, Some("b.test"), Some("a.test:x"), Some("a.test:80:80"), Some("")] {
            assert_eq!(check_host(host, &names), Err(Reason::BadRequest), "{host:?}");
        }
    }

    #[test]
    fn a_request_for_the_site_names_one_host() {
        let cases = [
            ("GET /page", "Host: a.test", true),
            ("GET /page?u=http://b.test/", "Host: a.test", true),
            ("GET /page", "Host: u@a.test", false),
            ("GET http://a.test:80/page", "Host: a.test:80", true),
            ("GET HTTP://a.test?x", "Host: a.test", true),
            ("GET http://a.test/page", "X: y", true),
            ("GET http://a.test/page", "Host: A.test", false),
            ("GET http://b.test/page", "Host: a.test", false),
            ("GET http://u@a.test/page", "X: y", false),
            ("GET http://a.test\\b.test/page", "Host: a.test", false),
            ("GET http://[a/page", "X: y", false),
            ("CONNECT /page", "Host: a.test", false),
            ("GET /p\u{e9}ge{}|?\u{e9}{}|", "Host: a.test", true),
            ("GET /a<b", "Host: a.test", false),
            ("GET http://a.test?<", "Host: a.test", false),
            ("POST /page", "Content-Length: 0000000000000001", false),
        ];
        for (line, field, one) in cases {
            let request = Request::parse(format!("{line} HTTP/1.1\r\n{field}\r\n\r\n").into()).expect("is a request");
            assert_eq!(check_for_cms(&request).is_ok(), one, "{line} {field}");
        }
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        let lines = [
            ("connection", "close, X-Own, Content-Length"),
            ("x-own", "1"),
            ("content-length", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("accept", "a"),
        ];
        let mut headers = map(&lines);
        remove_hop_by_hop(&mut headers, false);
        assert_eq!(headers, map(&[("content-length", "1"), ("accept", "a")]));
        let mut headers = map(&lines);
        remove_hop_by_hop(&mut headers, true);
        assert_eq!(headers["connection"], "upgrade");
        let mut cms =
            map(&[("x_a", "1"), ("proxy", "1"), ("x-rewrite-url", "/"), ("x-mcp-sidecar-x", "1"), ("a", "1")]);
        strip_for_cms(&mut cms);
        assert_eq!(cms, map(&[("a", "1")]));
    }

    #[test]
    fn values_are_decoded_and_traces_cleaned() {
        assert_eq!(decoded(&HeaderValue::from_static(" a ")).as_deref(), Some("a"));
        assert_eq!(decoded(&HeaderValue::from_static("=?base64?w6k=?=")).as_deref(), Some("é"));
        assert_eq!(decoded(&HeaderValue::from_static("=?base64?!?=")), None);
        let own = new_id();
        assert_eq!(own.len(), 36);
        assert_eq!(&*trace_id(&map(&[("x-trace-id", " a\tb ")]), &trace(), &own), "ab");
        assert_eq!(trace_id(&map(&[("x-trace-id", "  ")]), &trace(), &own), own);
        let none = TracePolicy { generate_if_missing: false, ..trace() };
        assert_eq!(&*trace_id(&map(&[]), &none, &own), "");
    }
}
