//! The CMS's own permission rows for manager mode: put in, taken out, and looked at (emcp.md 9 and 12).
//!
//! The one place that writes to tables of the CMS, over one connection of its own that an operator names for it; the
//! pool of the tools stays read only. Everything happens in one transaction under a lock, so that running it twice, or
//! twice at once, leaves the same rows as running it once.

mod link;

use std::fmt;

use self::link::{Cell, Link};
use crate::store::{Dialect, Error, Settings};

/// The name of the group, and the key by which the CMS translates it.
const GROUP: (&str, &str) = ("eMCP", "eMCP::global.permissions_group");
/// Key, name and translation key of each permission.
const PERMISSIONS: [(&str, &str, &str); 3] = [
    ("emcp", "Access eMCP", "eMCP::global.permission_access"),
    ("emcp_manage", "Manage eMCP", "eMCP::global.permission_manage"),
    ("emcp_dispatch", "Dispatch eMCP tasks", "eMCP::global.permission_dispatch"),
];
const TABLES: [&str; 3] = ["permissions_groups", "permissions", "role_permissions"];
const ROLES: &str = "user_roles";

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Tables that are missing, with their prefix; the rest says nothing then.
    pub missing: Vec<String>,
    pub group: bool,
    /// Each permission's key, whether it is there, and the roles that have it.
    pub permissions: Vec<(&'static str, bool, Vec<i64>)>,
}

impl Status {
    /// Whether the group and every permission is there, and each is granted to some role.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
            && self.group
            && self.permissions.iter().all(|(_, there, roles)| *there && !roles.is_empty())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.missing.is_empty() {
            return write!(f, "skipped: the site has no {}", self.missing.join(", "));
        }
        let word = |there: bool| if there { "present" } else { "missing" };
        write!(f, "{:<16}{}", "group eMCP", word(self.group))?;
        for (key, there, roles) in &self.permissions {
            let roles = roles.iter().map(i64::to_string).collect::<Vec<_>>();
            let roles = if roles.is_empty() { "no role".to_owned() } else { format!("roles {}", roles.join(", ")) };
            write!(f, "\n{key:<16}{:<10}{roles}", word(*there))?;
        }
        Ok(())
    }
}

/// The permission rows of one site.
pub struct Permissions {
    link: Link,
    prefix: String,
}

impl Permissions {
    /// Connects; nothing is written yet.
    ///
    /// # Errors
    /// When the URL or the prefix cannot be used, or the database does not answer.
    pub async fn connect(settings: &Settings) -> Result<Self, Error> {
        if !settings.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Error::InvalidPrefix);
        }
        Ok(Self { link: Link::connect(settings).await?, prefix: settings.prefix.clone() })
    }

    /// Puts in what is missing, brings names up to date, and grants every permission to these roles.
    ///
    /// # Errors
    /// When the database fails or refuses; nothing is changed then.
    pub async fn up(&mut self, roles: &[i64]) -> Result<Status, Error> {
        self.changed(Change::Up(roles)).await
    }

    /// Takes the permissions out, with every grant of them, and the group if nothing else is in it.
    ///
    /// # Errors
    /// As [`Self::up`].
    pub async fn down(&mut self) -> Result<Status, Error> {
        self.changed(Change::Down).await
    }

    async fn changed(&mut self, change: Change<'_>) -> Result<Status, Error> {
        let status = self.status().await?;
        if !status.missing.is_empty() {
            return Ok(status);
        }
        let names = [self.table(TABLES[0]), self.table(TABLES[1]), self.table(TABLES[2])];
        self.link.begin(&names).await?;
        let done = match change {
            Change::Up(roles) => self.put(roles).await,
            Change::Down => self.take().await,
        };
        self.link.end(done.is_ok()).await?;
        done?;
        self.status().await
    }

    /// What is there now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn status(&mut self) -> Result<Status, Error> {
        let mut missing = Vec::new();
        for table in TABLES {
            if self.link.columns(&format!("{}{table}", self.prefix)).await?.is_empty() {
                missing.push(format!("{}{table}", self.prefix));
            }
        }
        let mut status = Status { missing, group: false, permissions: Vec::new() };
        if !status.missing.is_empty() {
            return Ok(status);
        }
        status.group = self.group().await?.is_some();
        for (key, ..) in PERMISSIONS {
            let there = !self.ids("permissions", "key", key, "id").await?.is_empty();
            let mut roles = self.ids("role_permissions", "permission", key, "role_id").await?;
            roles.sort_unstable();
            roles.dedup();
            status.permissions.push((key, there, roles));
        }
        Ok(status)
    }

    /// The ids of the site's roles; `None` where it has no table of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn roles(&mut self) -> Result<Option<Vec<i64>>, Error> {
        if self.link.columns(&format!("{}{ROLES}", self.prefix)).await?.is_empty() {
            return Ok(None);
        }
        let rows = self.link.fetch(format!("SELECT id FROM {} ORDER BY id", self.table(ROLES)), &[]).await?;
        rows.iter().map(|row| row.integer(0)).collect::<Result<_, _>>().map(Some)
    }

    async fn put(&mut self, roles: &[i64]) -> Result<(), Error> {
        let group = match self.group().await? {
            Some(group) => group,
            None => {
                let cells = vec![("name", Cell::Text(GROUP.0)), ("lang_key", Cell::Text(GROUP.1))];
                self.insert("permissions_groups", cells).await?;
                self.group().await?.ok_or(Error::Database(sqlx::Error::RowNotFound))?
            }
        };
        for (key, name, lang_key) in PERMISSIONS {
            let mut cells = vec![
                ("name", Cell::Text(name)),
                ("lang_key", Cell::Text(lang_key)),
                ("group_id", Cell::Number(group)),
                ("disabled", Cell::Number(0)),
            ];
            if self.ids("permissions", "key", key, "id").await?.is_empty() {
                cells.push(("key", Cell::Text(key)));
                self.insert("permissions", cells).await?;
            } else {
                self.update("permissions", cells, ("key", key)).await?;
            }
            let mut granted = self.ids("role_permissions", "permission", key, "role_id").await?;
            for role in roles {
                // A role may be named twice.
                if granted.contains(role) {
                    continue;
                }
                granted.push(*role);
                let cells = vec![("permission", Cell::Text(key)), ("role_id", Cell::Number(*role))];
                self.insert("role_permissions", cells).await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self) -> Result<(), Error> {
        let group = self.group().await?;
        for (key, ..) in PERMISSIONS {
            for (table, column) in [("role_permissions", "permission"), ("permissions", "key")] {
                let sql =
                    format!("DELETE FROM {} WHERE {} = {}", self.table(table), self.quoted(column), self.place(1));
                self.link.execute(sql, &[Cell::Text(key)]).await?;
            }
        }
        if let Some(group) = group {
            let sql = format!(
                "DELETE FROM {} WHERE id = {} AND NOT EXISTS (SELECT 1 FROM {} WHERE group_id = {})",
                self.table("permissions_groups"),
                self.number(1),
                self.table("permissions"),
                self.number(2)
            );
            self.link.execute(sql, &[Cell::Number(group), Cell::Number(group)]).await?;
        }
        Ok(())
    }

    /// The group's id, by the key that a rename in the manager leaves alone.
    async fn group(&mut self) -> Result<Option<i64>, Error> {
        Ok(self.ids("permissions_groups", "lang_key", GROUP.1, "id").await?.into_iter().min())
    }

    /// The numbers in a column of the rows in which another one holds exactly this text, as MySQL's collations do not
    /// compare it.
    async fn ids(&mut self, table: &str, column: &str, text: &'static str, wanted: &str) -> Result<Vec<i64>, Error> {
        let sql = format!(
            "SELECT {}, {} FROM {} WHERE {} = {}",
            self.quoted(wanted),
            self.quoted(column),
            self.table(table),
            self.quoted(column),
            self.place(1)
        );
        let rows = self.link.fetch(sql, &[Cell::Text(text)]).await?;
        let mut numbers = Vec::with_capacity(rows.len());
        for row in rows {
            if row.text(1)?.as_deref() == Some(text) {
                numbers.push(row.integer(0)?);
            }
        }
        Ok(numbers)
    }

    /// Inserts a row, with the times that the table may have beside, and the next free id.
    async fn insert(&mut self, table: &str, mut cells: Vec<(&'static str, Cell)>) -> Result<(), Error> {
        let name = format!("{}{table}", self.prefix);
        let columns = self.link.columns(&name).await?;
        self.link.raise_sequence(&name).await?;
        cells.retain(|(column, _)| columns.iter().any(|known| known == column));
        let mut names: Vec<String> = cells.iter().map(|(column, _)| self.quoted(column)).collect();
        let mut places: Vec<String> = Vec::new();
        for (at, (_, cell)) in cells.iter().enumerate() {
            places.push(if matches!(cell, Cell::Number(_)) { self.number(at + 1) } else { self.place(at + 1) });
        }
        for column in ["created_at", "updated_at"] {
            if columns.iter().any(|known| known == column) {
                names.push(self.quoted(column));
                places.push("CURRENT_TIMESTAMP".to_owned());
            }
        }
        let sql = format!("INSERT INTO {} ({}) VALUES ({})", self.table(table), names.join(", "), places.join(", "));
        let cells: Vec<Cell> = cells.into_iter().map(|(_, cell)| cell).collect();
        self.link.execute(sql, &cells).await
    }

    /// Changes those of these columns that the table has, in the rows in which one holds this text.
    async fn update(
        &mut self,
        table: &str,
        mut cells: Vec<(&'static str, Cell)>,
        (column, text): (&'static str, &'static str),
    ) -> Result<(), Error> {
        let columns = self.link.columns(&format!("{}{table}", self.prefix)).await?;
        cells.retain(|(column, _)| columns.iter().any(|known| known == column));
        let sets: Vec<String> = (1..)
            .zip(&cells)
            .map(|(at, (column, cell))| {
                let place = if matches!(cell, Cell::Number(_)) { self.number(at) } else { self.place(at) };
                format!("{} = {place}", self.quoted(column))
            })
            .collect();
        let held = format!("{} = {}", self.quoted(column), self.place(cells.len() + 1));
        let sql = format!("UPDATE {} SET {} WHERE {held}", self.table(table), sets.join(", "));
        let cells: Vec<Cell> = cells.into_iter().map(|(_, cell)| cell).chain([Cell::Text(text)]).collect();
        self.link.execute(sql, &cells).await
    }

    fn table(&self, name: &str) -> String {
        self.quoted(&format!("{}{name}", self.prefix))
    }

    fn quoted(&self, name: &str) -> String {
        if self.link.dialect() == Dialect::MySql { format!("`{name}`") } else { format!("\"{name}\"") }
    }

    fn place(&self, at: usize) -> String {
        if self.link.dialect() == Dialect::Postgres { format!("${at}") } else { "?".to_owned() }
    }

    /// A place for a number: PostgreSQL's columns are narrower than what is bound.
    fn number(&self, at: usize) -> String {
        if self.link.dialect() == Dialect::Postgres { format!("${at}::bigint") } else { "?".to_owned() }
    }
}

#[derive(Clone, Copy)]
enum Change<'a> {
    Up(&'a [i64]),
    Down,
}
