use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::Secret;
use crate::redis::settings as redis;

/// `executor.*` of executor.toml.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: Listen,
}

/// Where the executor listens (T1).
#[derive(Clone, Debug)]
pub enum Listen {
    /// `executor.socket`: 0600, and the peer's uid must be ours.
    Unix(PathBuf),
    /// `executor.listen` and `executor.key` (at least 32 bytes).
    Tcp { address: SocketAddr, key: Secret },
}

/// `executor.manager.*`: where sessions of the CMS's manager are found, for the sources that the policy names.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// `session_dir`: PHP's session files.
    pub directory: Option<PathBuf>,
    /// `session_prefix` (`sess_`): what stands before the id in a file's name.
    pub file_prefix: String,
    /// `redis_url_env`, `redis_url_file`; the prefix is `redis_prefix` (`PHPREDIS_SESSION:`).
    pub redis: Option<redis::Settings>,
    /// `auth_request_url`, `auth_request_header`.
    pub auth_request: Option<AuthRequest>,
    /// `utc_offset` (`+00:00`): how far the clock of `users.valid_to` is ahead of UTC, in seconds.
    pub utc_offset_s: i64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { directory: None, file_prefix: "sess_".to_owned(), redis: None, auth_request: None, utc_offset_s: 0 }
    }
}

/// A page of the CMS that tells whose session a cookie is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequest {
    /// `host:port`, or the host alone.
    pub authority: String,
    pub host: String,
    pub port: u16,
    /// With its query, from the first slash.
    pub target: String,
    /// The header of the answer that holds the user's id, in lower case.
    pub header: String,
}

impl AuthRequest {
    /// Reads `http://host[:port]/path`; nothing else.
    #[must_use]
    pub fn new(url: &str, header: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let target = uri.path_and_query()?.as_str();
        let plain = uri.scheme_str() == Some("http") && !authority.as_str().contains('@') && target.starts_with('/');
        plain.then(|| Self {
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            target: target.to_owned(),
            header: header.to_ascii_lowercase(),
        })
    }
}
