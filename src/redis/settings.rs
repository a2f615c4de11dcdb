use std::time::Duration;

use ::redis::IntoConnectionInfo as _;

use crate::base::Secret;

/// `redis.*` of sidecar.toml.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `redis://`, `rediss://` or `unix://`, ACL user and password included; hence secret.
    pub url: Secret,
    /// `redis.timeout_ms` (25).
    pub timeout: Duration,
    /// `redis.prefix` (`mcp-sidecar`): the first part of every key.
    pub prefix: String,
}

/// Why a URL does not name one Redis that can be relied on. The texts hold nothing of the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    #[error("names Sentinels, which are not supported")]
    Sentinel,
    #[error("names a Cluster, which is not supported")]
    Cluster,
    #[error("names several servers, and one is supported")]
    Several,
    #[error("has an unknown scheme")]
    Scheme,
    #[error("switches off the check of the server's certificate")]
    Insecure,
    #[error("is no valid URL")]
    Malformed,
}

impl InvalidUrl {
    /// What to do about it.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        match self {
            Self::Sentinel => {
                "give the primary itself, or a name or TCP proxy that follows it: redis://host:port; while it fails \
                 over, rate_limit.on_store_failure decides"
            }
            Self::Cluster | Self::Several => "give one Redis that is no Cluster: redis://host:port",
            Self::Scheme => "begin it with redis://, rediss:// (TLS) or unix:// (socket)",
            Self::Insecure => "remove the fragment, and trust the certificate: SSL_CERT_FILE names the authorities",
            Self::Malformed => {
                "write redis://[user:password@]host[:port][/database], or unix:///path?user=NAME&pass=PASSWORD&db=0; \
                 percent-encode what is special in a password"
            }
        }
    }
}

/// Judges a URL before anything is connected.
///
/// # Errors
/// Why it cannot be used.
pub fn check_url(url: &str) -> Result<(), InvalidUrl> {
    let (scheme, rest) = url.split_once("://").ok_or(InvalidUrl::Scheme)?;
    match scheme {
        "redis" | "rediss" | "unix" | "redis+unix" => {}
        _ if scheme.contains("sentinel") => return Err(InvalidUrl::Sentinel),
        _ if scheme.contains("cluster") => return Err(InvalidUrl::Cluster),
        _ => return Err(InvalidUrl::Scheme),
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    if hosts.contains(',') {
        return Err(InvalidUrl::Several);
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    if query.to_lowercase().contains("sentinel") {
        return Err(InvalidUrl::Sentinel);
    }
    if rest.contains('#') {
        return Err(InvalidUrl::Insecure);
    }
    url.into_connection_info().map(drop).map_err(|_| InvalidUrl::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_redis_is_accepted_and_everything_else_named() {
        let cases = [
            ("redis://localhost", Ok(())),
            ("redis://:secret@localhost:6380/2", Ok(())),
            ("redis://user:pa%40ss@[::1]:6380", Ok(())),
            ("rediss://user:pass@redis.internal", Ok(())),
            ("unix:///run/redis/redis.sock", Ok(())),
            ("redis+unix:///run/redis.sock?db=1&user=a&pass=b", Ok(())),
            ("redis+sentinel://a:26379,b:26379/mymaster", Err(InvalidUrl::Sentinel)),
            ("sentinel://a", Err(InvalidUrl::Sentinel)),
            ("redis://a:26379?sentinelMasterId=mymaster", Err(InvalidUrl::Sentinel)),
            ("redis-cluster://a:7000", Err(InvalidUrl::Cluster)),
            ("rediss+cluster://a:7000", Err(InvalidUrl::Cluster)),
            ("redis://a:7000,b:7001", Err(InvalidUrl::Several)),
            ("http://localhost", Err(InvalidUrl::Scheme)),
            ("localhost:6379", Err(InvalidUrl::Scheme)),
            ("", Err(InvalidUrl::Scheme)),
            ("rediss://localhost#insecure", Err(InvalidUrl::Insecure)),
            ("rediss://", Err(InvalidUrl::Malformed)),
            ("redis://localhost/two", Err(InvalidUrl::Malformed)),
            ("redis://0.0.0.0", Err(InvalidUrl::Malformed)),
        ];
        for (url, expected) in cases {
            assert_eq!(check_url(url), expected, "{url}");
        }
    }
}
