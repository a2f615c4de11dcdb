//! What stands behind the routes that are not MCP: an HTTP origin, or a friendly page when there is none.
//!
//! Invariants: pages are self-contained (no script, nothing loaded) and tell nothing about the inside. Non-goals:
//! connecting; that is the proxy's.

mod page;

pub use page::Page;

/// An HTTP/1.1 origin by name and port, without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOrigin {
    pub host: String,
    pub port: u16,
}

impl HttpOrigin {
    /// `host:port`, an IPv6 address in brackets: what a resolver takes.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_bracket_ipv6() {
        for (host, expected) in [("cms", "cms:80"), ("::1", "[::1]:80"), ("[::1]", "[::1]:80")] {
            assert_eq!(HttpOrigin { host: host.into(), port: 80 }.authority(), expected);
        }
    }
}
