//! Names and definitions of the queue's tables.

use crate::store::Dialect;
use crate::store::queue::Driver;

/// What tells a table's indexes apart, and their columns.
type Indexes = &'static [(&'static str, &'static str)];

/// The tables of one driver, by their full names.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub tasks: String,
    pub leases: String,
    pub attempts: String,
    pub keys: String,
    pub workers: String,
}

impl Names {
    pub fn new(prefix: &str, driver: Driver) -> Self {
        // Each driver has leases of its own: both count their tasks from 1.
        let (tasks, own) = match driver {
            Driver::Own => ("mcp_tasks", "mcp_"),
            Driver::Stask => ("s_tasks", "mcp_stask_"),
        };
        Self {
            tasks: format!("{prefix}{tasks}"),
            leases: format!("{prefix}{own}leases"),
            attempts: format!("{prefix}{own}attempts"),
            keys: format!("{prefix}{own}keys"),
            workers: format!("{prefix}s_workers"),
        }
    }

    /// Statements that make what is missing, in order. sTask's own tables are its own business.
    pub fn statements(&self, dialect: Dialect, driver: Driver) -> Vec<String> {
        let Self { tasks, leases, attempts, keys, .. } = self;
        let (id, long, stamp, end) = match dialect {
            Dialect::MySql => (
                "BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY",
                "LONGTEXT",
                "TIMESTAMP NULL DEFAULT NULL",
                " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
            ),
            Dialect::Postgres => ("BIGSERIAL PRIMARY KEY", "TEXT", "TIMESTAMP(0) NULL", ""),
            Dialect::Sqlite => ("INTEGER PRIMARY KEY AUTOINCREMENT", "TEXT", "DATETIME NULL", ""),
        };
        let mut tables: Vec<(&str, String, Indexes)> = vec![
            (
                leases,
                "task_id BIGINT NOT NULL PRIMARY KEY, mac VARCHAR(64) NOT NULL, holder VARCHAR(64) NULL, \
                 until_ms BIGINT NOT NULL DEFAULT 0, not_before_ms BIGINT NOT NULL DEFAULT 0, \
                 urgency SMALLINT NOT NULL DEFAULT 1, runs INT NOT NULL DEFAULT 0, open SMALLINT NOT NULL DEFAULT 1"
                    .to_owned(),
                &[("due", "open, not_before_ms")],
            ),
            (
                attempts,
                "task_id BIGINT NOT NULL, run INT NOT NULL, worker VARCHAR(64) NOT NULL, started_ms BIGINT NOT NULL, \
                 ended_ms BIGINT NULL, outcome VARCHAR(32) NULL, PRIMARY KEY (task_id, run)"
                    .to_owned(),
                &[("due", "started_ms")],
            ),
            (
                keys,
                format!(
                    "id VARCHAR(64) NOT NULL PRIMARY KEY, payload_hash VARCHAR(64) NOT NULL, task_id BIGINT NULL, \
                     trace_id VARCHAR(128) NOT NULL, result {long} NULL, expires_ms BIGINT NOT NULL"
                ),
                &[("due", "expires_ms"), ("task", "task_id")],
            ),
        ];
        if driver == Driver::Own {
            let columns = format!(
                "id {id}, identifier VARCHAR(255) NOT NULL, action VARCHAR(255) NOT NULL, \
                 status SMALLINT NOT NULL DEFAULT 10, message TEXT NULL, started_by BIGINT NULL, meta {long} NULL, \
                 result {long} NULL, start_at {stamp}, finished_at {stamp}, attempts INT NOT NULL DEFAULT 0, \
                 max_attempts INT NOT NULL DEFAULT 3, priority VARCHAR(255) NOT NULL DEFAULT 'normal', \
                 progress INT NOT NULL DEFAULT 0, created_at {stamp}, updated_at {stamp}"
            );
            tables.push((tasks, columns, &[("due", "status")]));
        }
        let mut statements = Vec::new();
        for (table, columns, indexes) in tables {
            // MySQL makes no index `IF NOT EXISTS`: there it is part of the table.
            let inline = match dialect {
                Dialect::MySql => indexes.iter().map(|(_, index)| format!(", INDEX ({index})")).collect(),
                Dialect::Postgres | Dialect::Sqlite => String::new(),
            };
            statements.push(format!("CREATE TABLE IF NOT EXISTS {table} ({columns}{inline}){end}"));
            if dialect != Dialect::MySql {
                let made = |(name, index): &(&str, &str)| {
                    format!("CREATE INDEX IF NOT EXISTS {table}_{name} ON {table} ({index})")
                };
                statements.extend(indexes.iter().map(made));
            }
        }
        statements
    }
}

/// Unix milliseconds by the database's clock: leases of several machines are compared with it. No session's time zone
/// has a part in it, since there an hour comes twice a year.
pub(super) const fn now_ms(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::MySql => "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(3)) DIV 1000)",
        Dialect::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        Dialect::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    }
}

/// Now, for a column of type timestamp. sTask's own rows are in UTC as well, where the site's `app.timezone` is.
pub(super) const fn now(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::MySql => "UTC_TIMESTAMP()",
        Dialect::Postgres => "CAST(clock_timestamp() AT TIME ZONE 'UTC' AS TIMESTAMP(0))",
        Dialect::Sqlite => "datetime('now')",
    }
}
