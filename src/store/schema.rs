//! What the site's tables look like, so that a column which another version of the CMS lacks is never asked for.

use std::collections::HashMap;

use sea_query::{Value, Values};

use crate::store::reader::Reader;
use crate::store::{Dialect, Error, Tables, content, identity, model, variable};

/// The tables that are there, by name without prefix, with their columns, and whether an index begins with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    tables: HashMap<String, HashMap<String, bool>>,
}

impl Schema {
    /// Whether the table is there.
    #[must_use]
    pub fn has_table(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Whether the table is there and has the column.
    #[must_use]
    pub fn has(&self, table: &str, column: &str) -> bool {
        self.tables.get(table).is_some_and(|columns| columns.contains_key(column))
    }

    /// Whether an index of the table begins with the column; only MySQL and MariaDB are asked.
    pub(in crate::store) fn indexed(&self, table: &str, column: &str) -> bool {
        self.tables.get(table).and_then(|columns| columns.get(column)).is_some_and(|indexed| *indexed)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When the database fails, or lacks the tables that nothing works without.
    pub(in crate::store) async fn read(reader: &mut Reader, tables: &Tables) -> Result<Self, Error> {
        let dialect = tables.dialect();
        let names: Vec<&str> = names().collect();
        let place = |at: usize| if dialect == Dialect::Postgres { format!("${}", at + 1) } else { "?".to_owned() };
        let places = (0..names.len()).map(place).collect::<Vec<_>>().join(", ");
        let sql = match dialect {
            Dialect::MySql => format!(
                "SELECT table_name, column_name, column_key <> '' FROM information_schema.columns \
                 WHERE table_schema = DATABASE() AND table_name IN ({places})"
            ),
            Dialect::Postgres => format!(
                "SELECT table_name::text, column_name::text, 0 FROM information_schema.columns \
                 WHERE table_schema = ANY (current_schemas(false)) AND table_name IN ({places})"
            ),
            Dialect::Sqlite => format!(
                "SELECT t.name, c.name, 0 FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c \
                 WHERE t.type IN ('table', 'view') AND t.name IN ({places})"
            ),
        };
        let values = names.iter().map(|name| Value::String(Some(tables.prefixed(name)))).collect();
        let mut schema = Self::default();
        for row in reader.query(sql, Values(values)).await? {
            let (Some(table), Some(column)) = (row.text(0)?, row.text(1)?) else { continue };
            // A server that folds the case of table names tells them folded.
            let Some(name) = names.iter().find(|name| tables.prefixed(name).eq_ignore_ascii_case(&table)) else {
                continue;
            };
            schema.tables.entry((*name).to_owned()).or_default().insert(column, row.integer(2)? != 0);
        }
        match content::TABLES.iter().find(|table| !schema.has_table(table)) {
            Some(table) => Err(Error::NoTable(tables.prefixed(table))),
            None => Ok(schema),
        }
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    content::TABLES.into_iter().chain(variable::TABLES).chain(identity::TABLES).chain(
        model::MODELS.iter().map(|model| model.table).filter(
            // Named among the tables of template variables already.
            |table| !variable::TABLES.contains(table),
        ),
    )
}
