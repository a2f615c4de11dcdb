use std::time::Duration;

use crate::base::Secret;

/// `redis.*` of sidecar.toml.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `redis://` or `rediss://`, ACL user and password included; hence secret.
    pub url: Secret,
    /// `redis.timeout_ms` (25).
    pub timeout: Duration,
    /// `redis.prefix` (`mcp-sidecar`): the first part of every key.
    pub prefix: String,
}
