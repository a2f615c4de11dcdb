use sqlx::mysql::MySqlDatabaseError;

/// A database that cannot be used or did not answer. For the log only: the text may name files and columns.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("database.url must begin with sqlite://, mysql://, mariadb:// or postgres://")]
    UnsupportedUrl,
    #[error("database.prefix may hold letters, digits and underscores only")]
    InvalidPrefix,
    #[error("database: {0}")]
    Database(sqlx::Error),
    #[error("database: no connection could be made in time")]
    Unreachable,
    #[error("database: no answer within {0:?}")]
    Slow(std::time::Duration),
    #[error("database: the table {0} is missing")]
    NoTable(String),
    #[error("database: the column {0} is missing, or may not be read")]
    NoColumn(String),
    #[error("demo site: {0}")]
    File(std::io::Error),
    #[error("a value of this type cannot be bound")]
    UnsupportedValue,
    #[error("database: others were faster")]
    Contended,
}

// Not `#[from]`, which would make them sources as well: their texts are in ours, and would be said twice.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

impl Error {
    /// What is wrong in words that name nothing internal, for `/readyz`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoTable(_) => "database lacks the site's tables",
            Self::Database(sqlx::Error::PoolTimedOut) | Self::Slow(_) => "database does not answer in time",
            Self::Database(sqlx::Error::Database(_)) => "database refuses",
            _ => "database does not answer",
        }
    }

    /// Whether the database knows no such table or column: what was read of its schema no longer holds.
    pub(in crate::store) fn is_schema(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        match error.code().as_deref() {
            // MySQL tells SQLSTATEs: no such table, no such column. PostgreSQL: undefined column, undefined table.
            Some("42S02" | "42S22" | "42703" | "42P01") => true,
            _ => error.message().starts_with("no such column") || error.message().starts_with("no such table"),
        }
    }

    /// Whether somebody else has just made what was to be made: PostgreSQL tells so, in spite of `IF NOT EXISTS`.
    pub(in crate::store) fn is_there_already(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        matches!(error.code().as_deref(), Some("23505" | "42P07" | "42710"))
    }

    /// Whether the same work may succeed when it is begun again at once: others held what it needed.
    pub(in crate::store) fn is_contention(&self) -> bool {
        match self {
            Self::Contended => true,
            Self::Database(sqlx::Error::Database(error)) => match error.code().as_deref() {
                // Serialization failure and deadlock, as both servers tell it; SQLite: busy, and busy after a snapshot.
                Some("40001" | "40P01" | "5" | "517") => true,
                _ => self.is_held(),
            },
            _ => false,
        }
    }

    /// Whether MySQL gave up waiting for a row that somebody else holds; the transaction goes on without the statement.
    pub(in crate::store) fn is_held(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        // By number: the server tells the rest in its own language. Waited too long; was not to wait.
        error.try_downcast_ref::<MySqlDatabaseError>().is_some_and(|error| matches!(error.number(), 1205 | 3572))
    }
}
