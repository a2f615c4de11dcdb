use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, Row as _, TypeInfo as _};

use crate::store::Error;

/// One row; columns are counted from 0 in the order of the statement.
pub struct Row(pub(in crate::store) Inner);

pub(in crate::store) enum Inner {
    MySql(MySqlRow),
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

impl Row {
    /// An integer, or a boolean as 0 or 1; null and what is no number count as 0.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn integer(&self, column: usize) -> Result<i64, Error> {
        let value = match &self.0 {
            // Read as signed, the upper half of a narrow unsigned column would be negative.
            Inner::MySql(row) if row.try_column(column)?.type_info().name().ends_with("UNSIGNED") => {
                let value: Option<u64> = row.try_get_unchecked(column)?;
                value.map(|value| i64::try_from(value).unwrap_or(i64::MAX))
            }
            Inner::MySql(row) => row.try_get_unchecked(column)?,
            Inner::Postgres(row) => row.try_get_unchecked(column)?,
            Inner::Sqlite(row) => row.try_get_unchecked(column)?,
        };
        Ok(value.unwrap_or_default())
    }

    /// A text, or null.
    ///
    /// # Errors
    /// When there is no such column, or it holds no UTF-8.
    pub fn text(&self, column: usize) -> Result<Option<String>, Error> {
        Ok(match &self.0 {
            Inner::MySql(row) => row.try_get_unchecked(column)?,
            Inner::Postgres(row) => row.try_get_unchecked(column)?,
            Inner::Sqlite(row) => row.try_get_unchecked(column)?,
        })
    }
}
