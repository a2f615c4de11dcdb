use std::time::Duration;

use crate::base::Secret;

/// `database.*` of executor.toml.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `sqlite://PATH` (later `mysql://`, `postgres://`).
    pub url: Secret,
    /// `database.prefix` (`evo_`): first part of every table name.
    pub prefix: String,
    /// `database.max_connections` (8).
    pub max_connections: u32,
    /// `database.acquire_timeout_ms` (2000).
    pub acquire_timeout: Duration,
}
