//! sTask's own tables, as its migrations make them.

use mcp_sidecar::store::Dialect;

pub fn statements(dialect: Dialect) -> String {
    let (id, long, stamp, boolean) = match dialect {
        Dialect::MySql => {
            ("BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY", "LONGTEXT", "TIMESTAMP NULL", "TINYINT(1)")
        }
        Dialect::Postgres => ("BIGSERIAL PRIMARY KEY", "TEXT", "TIMESTAMP(0) NULL", "BOOLEAN"),
        Dialect::Sqlite => ("INTEGER PRIMARY KEY AUTOINCREMENT", "TEXT", "DATETIME NULL", "TINYINT(1)"),
    };
    let no = if dialect == Dialect::Postgres { "FALSE" } else { "0" };
    format!(
        "CREATE TABLE evo_s_tasks (id {id}, identifier VARCHAR(255) NOT NULL, action VARCHAR(255) NOT NULL, \
         status SMALLINT NOT NULL DEFAULT 10, message TEXT NULL, started_by INT NULL, meta {long} NULL, \
         result {long} NULL, start_at {stamp}, finished_at {stamp}, attempts INT NOT NULL DEFAULT 0, \
         max_attempts INT NOT NULL DEFAULT 3, priority VARCHAR(255) NOT NULL DEFAULT 'normal', \
         progress INT NOT NULL DEFAULT 0, created_at {stamp}, updated_at {stamp}); \
         CREATE TABLE evo_s_workers (id {id}, uuid VARCHAR(36) NULL UNIQUE, identifier VARCHAR(255) NOT NULL UNIQUE, \
         scope VARCHAR(255) NOT NULL DEFAULT '', class VARCHAR(255) NOT NULL, active {boolean} NOT NULL DEFAULT {no}, \
         position INT NOT NULL DEFAULT 0, settings {long} NOT NULL, hidden INT NOT NULL DEFAULT 0, \
         created_at {stamp}, updated_at {stamp})"
    )
}
