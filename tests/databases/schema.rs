//! The tables of a content site, in the words of each engine, as its own installer makes them.

use mcp_sidecar::store::Dialect;

/// One table a paragraph; a column is a name, a kind, and maybe a length and a default.
const TABLES: &str = include_str!("schema.txt");

/// What an older version of the CMS lacks.
pub const LACKING: [(&str, &str); 3] =
    [("site_templates", "icon"), ("site_tmplvars", "elements"), ("user_attributes", "mobilephone")];

pub fn statements(dialect: Dialect, prefix: &str) -> String {
    TABLES.trim().split("\n\n").map(|table| create(dialect, prefix, table)).collect::<Vec<_>>().join("\n")
}

pub fn quoted(dialect: Dialect, name: &str) -> String {
    if dialect == Dialect::MySql { format!("`{name}`") } else { format!("\"{name}\"") }
}

fn create(dialect: Dialect, prefix: &str, table: &str) -> String {
    let mut lines = table.lines();
    let name = lines.next().expect("a table has a name");
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let columns: Vec<String> = lines.iter().map(|words| column(dialect, words)).collect();
    let end = if dialect == Dialect::MySql { " COLLATE utf8mb4_unicode_ci" } else { "" };
    let table = quoted(dialect, &format!("{prefix}{name}"));
    format!("CREATE TABLE {table} ({}){end};", columns.join(", "))
}

fn column(dialect: Dialect, words: &[&str]) -> String {
    let name = |name: &str| quoted(dialect, name);
    match words {
        ["unique", columns @ ..] => {
            format!("UNIQUE ({})", columns.iter().map(|column| name(column)).collect::<Vec<_>>().join(", "))
        }
        [column, "pk"] => {
            let kind = match dialect {
                Dialect::MySql => "INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY",
                Dialect::Postgres => "SERIAL PRIMARY KEY",
                Dialect::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
            };
            format!("{} {kind}", name(column))
        }
        [column, "int"] => {
            let unsigned = if dialect == Dialect::MySql { "INT UNSIGNED" } else { "INTEGER" };
            format!("{} {unsigned} NOT NULL DEFAULT 0", name(column))
        }
        [column, "intnull"] => format!("{} INTEGER NULL", name(column)),
        [column, "bool", default] => {
            let (kind, default) = match (dialect, *default) {
                (Dialect::MySql, default) => ("TINYINT(1)", default),
                (Dialect::Postgres, "0") => ("BOOLEAN", "FALSE"),
                (Dialect::Postgres, _) => ("BOOLEAN", "TRUE"),
                (Dialect::Sqlite, default) => ("TINYINT(1)", default),
            };
            format!("{} {kind} NOT NULL DEFAULT {default}", name(column))
        }
        [column, "str", length, default @ ..] => {
            format!("{} VARCHAR({length}) NOT NULL DEFAULT '{}'", name(column), default.join(" "))
        }
        [column, "strnull", length] => format!("{} VARCHAR({length}) NULL", name(column)),
        [column, "text"] => {
            format!("{} {} NULL", name(column), if dialect == Dialect::MySql { "MEDIUMTEXT" } else { "TEXT" })
        }
        [column, "time"] => {
            let kind = if dialect == Dialect::MySql { "DATETIME" } else { "TIMESTAMP" };
            format!("{} {kind} NULL", name(column))
        }
        _ => panic!("not a column: {words:?}"),
    }
}
