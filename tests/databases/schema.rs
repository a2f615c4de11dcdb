//! The tables of a content site, in the words of each engine, as its own installer makes them.

use mcp_sidecar::store::Dialect;

/// One table a paragraph; a column is a name, a kind, and maybe a length and a default.
const TABLES: &str = include_str!("schema.txt");

/// What the oldest version of the CMS lacks, and more: add-ons' tables, and each column that is not needed to say which
/// row is meant, where it belongs, whether it is seen, and who may. Without columns, the whole table.
pub const OLDEST: [(&str, &[&str]); 16] = [
    ("site_content", &["hide_from_tree", "alias_visible"]),
    ("site_content_closure", &["closure_id"]),
    ("site_tmplvars", &["elements", "display", "rank", "locked", "createdon", "editedon", "properties"]),
    ("site_templates", &["templatealias", "icon", "template_type", "selectable", "createdon", "editedon"]),
    ("site_htmlsnippets", &["disabled", "createdon", "editedon"]),
    ("site_snippets", &["disabled", "createdon", "editedon"]),
    ("site_plugins", &["createdon", "editedon"]),
    ("site_modules", &["icon", "createdon", "editedon"]),
    ("categories", &["rank"]),
    ("users", &["refresh_token", "access_token", "valid_to", "verified_key"]),
    (
        "user_attributes",
        &["first_name", "last_name", "middle_name", "mobilephone", "createdon", "editedon", "verified"],
    ),
    ("permissions", &["disabled", "created_at", "updated_at"]),
    ("role_permissions", &["created_at", "updated_at"]),
    ("site_content_tags", &[]),
    ("tags", &[]),
    ("active_user_sessions", &[]),
];

/// Which version's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Newest,
    Oldest,
}

impl Age {
    /// Whether this version has the table, or the table's column.
    pub fn has(self, table: &str, column: Option<&str>) -> bool {
        let lacks = |(name, columns): &(&str, &[&str])| {
            *name == table && (columns.is_empty() || column.is_some_and(|column| columns.contains(&column)))
        };
        self == Self::Newest || !OLDEST.iter().any(lacks)
    }
}

pub fn statements(dialect: Dialect, prefix: &str) -> String {
    of_age(Age::Newest, dialect, prefix)
}

pub fn of_age(age: Age, dialect: Dialect, prefix: &str) -> String {
    let tables = TABLES.trim().split("\n\n").filter(|table| age.has(table.lines().next().unwrap_or_default(), None));
    tables.map(|table| create(age, dialect, prefix, table)).collect::<Vec<_>>().join("\n")
}

pub fn quoted(dialect: Dialect, name: &str) -> String {
    if dialect == Dialect::MySql { format!("`{name}`") } else { format!("\"{name}\"") }
}

fn create(age: Age, dialect: Dialect, prefix: &str, table: &str) -> String {
    let mut lines = table.lines();
    let name = lines.next().expect("a table has a name");
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let lines = lines.iter().filter(|words| words[0] == "unique" || age.has(name, Some(words[0])));
    let columns: Vec<String> = lines.map(|words| column(dialect, words)).collect();
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
