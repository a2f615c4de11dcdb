use std::time::Duration;

use crate::base::Secret;

/// The URL schemes that [`Settings::url`] may begin with.
pub const SCHEMES: [&str; 5] = ["sqlite://", "mysql://", "mariadb://", "postgres://", "postgresql://"];

/// `database.*` of executor.toml.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `sqlite://PATH`, `mysql://…` (MariaDB too), `postgres://…`.
    pub url: Secret,
    /// `database.password`: instead of one in the URL.
    pub password: Option<Secret>,
    /// `database.prefix` (`evo_`): first part of every table name.
    pub prefix: String,
    /// `database.max_connections` (8).
    pub max_connections: u32,
    /// `database.acquire_timeout_ms` (2000): for a connection, its making included.
    pub acquire_timeout: Duration,
    /// `database.statement_timeout_ms` (10000): then a statement is ended.
    pub statement_timeout: Duration,
    /// `database.idle_timeout` (5 min): an unused connection is closed.
    pub idle_timeout: Duration,
    /// `database.max_lifetime` (30 min): then a connection is replaced.
    pub max_lifetime: Duration,
}

impl Settings {
    /// Settings with the defaults of executor.toml.
    #[must_use]
    pub fn new(url: Secret, prefix: &str) -> Self {
        Self {
            url,
            password: None,
            prefix: prefix.to_owned(),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            max_lifetime: Duration::from_secs(1800),
        }
    }
}
