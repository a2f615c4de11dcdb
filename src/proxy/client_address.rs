//! Who really calls, behind proxies that we trust, and what we tell the CMS about it.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderValue};

use crate::base::AddressRange;

/// The client's address: `peer`, or, when `peer` is a trusted proxy, the rightmost address in `X-Forwarded-For` (or,
/// without one, `Forwarded`) that is not a trusted proxy itself.
///
/// Only what a trusted proxy appended counts: the walk goes right to left and ends at the first foreign or
/// unreadable entry, so nothing a client wrote to the left of it is believed.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[AddressRange]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|range| range.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let simple = headers.contains_key("x-forwarded-for");
    let lines = if simple { headers.get_all("x-forwarded-for") } else { headers.get_all(FORWARDED) };
    for line in lines.iter().rev() {
        // An unreadable line may hold anything, so what stands left of it proves nothing.
        let Ok(line) = line.to_str() else { return client };
        for entry in line.rsplit(',') {
            let node = if simple { Some(entry) } else { forwarded_for(entry) };
            let Some(address) = node.and_then(address_of) else { return client };
            client = address;
            if !is_trusted(client) {
                return client;
            }
        }
    }
    client
}

/// The `for=` of one `Forwarded` element.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// `203.0.113.1`, `203.0.113.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address_of(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
    let address = bare.parse().ok().or_else(|| node.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

/// Sets `X-Forwarded-For`, `-Proto`, `-Host` and `X-Real-IP` for the CMS, and removes what a client may have sent in
/// their place. `tls` is whether the client's connection to us was encrypted. Call it after hop-by-hop headers are
/// gone, or `Connection: x-forwarded-for` would remove what is set here.
pub fn forwarded_headers(headers: &mut HeaderMap, peer: IpAddr, client: IpAddr, tls: bool, trusted: &[AddressRange]) {
    let behind_proxy = trusted.iter().any(|range| range.contains(peer));
    let kept_proto = headers.get("x-forwarded-proto").filter(|_| behind_proxy).and_then(|value| {
        // The last value is the one that the proxy before us wrote.
        let last = value.to_str().ok()?.rsplit(',').next()?.trim();
        [HeaderValue::from_static("https"), HeaderValue::from_static("http")].into_iter().find(|known| known == last)
    });
    let proto = kept_proto.unwrap_or(HeaderValue::from_static(if tls { "https" } else { "http" }));
    for name in [
        "forwarded",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x-client-ip",
        "true-client-ip",
        "client-ip",
        "x-cluster-client-ip",
        "x-forwarded",
        "forwarded-for",
    ] {
        headers.remove(name);
    }
    let text = client.to_canonical().to_string();
    let address = HeaderValue::from_str(&text).expect("an IP address is a valid header value");
    headers.insert("x-forwarded-for", address.clone());
    headers.insert("x-real-ip", address);
    headers.insert("x-forwarded-proto", proto);
    match headers.get(HOST).cloned() {
        Some(host) => drop(headers.insert("x-forwarded-host", host)),
        None => drop(headers.remove("x-forwarded-host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = &'static [(&'static str, &'static str)];

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn trusted() -> Vec<AddressRange> {
        ["10.0.0.0/8", "fd00::/8"].iter().map(|text| text.parse().expect("a range")).collect()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let cases: [(&str, Lines, &str); 15] = [
            ("198.51.100.1", &[("x-forwarded-for", "203.0.113.9")], "198.51.100.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
            ("::ffff:10.0.0.1", &[("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2")], "203.0.113.9"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, junk, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1,")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.9:4711")], "203.0.113.9"),
            ("fd00::1", &[("x-forwarded-for", "[2001:db8::1]:80")], "2001:db8::1"),
            ("10.0.0.1", &[("forwarded", "for=1.1.1.1, For=\"[2001:db8::1]\";proto=https")], "2001:db8::1"),
            ("10.0.0.1", &[("forwarded", "for=1.1.1.1, proto=https")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
        ];
        for (peer, lines, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(client_address(ip(peer), &headers, &trusted()), ip(expected), "{peer} {lines:?}");
        }
    }

    #[test]
    fn the_cms_is_told_what_we_know_and_nothing_else() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("site.test"));
        for name in ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "forwarded"] {
            headers.append(name, HeaderValue::from_static("https"));
            headers.append(name, HeaderValue::from_static("spoof"));
        }
        let mut proxied = headers.clone();
        proxied.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        let client = ip("198.51.100.1");
        forwarded_headers(&mut headers, client, client, false, &trusted());
        let all =
            |name: &str| headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), ["198.51.100.1"]);
        assert_eq!(all("x-real-ip"), ["198.51.100.1"]);
        assert_eq!(all("x-forwarded-proto"), ["http"]);
        assert_eq!(all("x-forwarded-host"), ["site.test"]);
        assert!(all("forwarded").is_empty());
        forwarded_headers(&mut proxied, ip("10.0.0.1"), client, false, &trusted());
        assert_eq!(proxied["x-forwarded-proto"], "https");
    }
}
