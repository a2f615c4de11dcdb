use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sea_query::{SelectStatement, Value};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, Sqlite, SqlitePool, Transaction};

use crate::store::{Dialect, Settings, Tables};
use crate::telemetry::{DatabaseError, DatabaseErrors, PoolReading};

/// A database that cannot be used or did not answer. For the log only: the text may name files and columns.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("database.url must start with sqlite://")]
    UnsupportedUrl,
    #[error("database.prefix may hold letters, digits and underscores only")]
    InvalidPrefix,
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("demo site: {0}")]
    File(#[from] std::io::Error),
    #[error("a value of this type cannot be bound")]
    UnsupportedValue,
}

/// Which rows of an ordered result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub limit: u64,
    pub offset: u64,
}

/// Connections to the site's database; clones share them. They refuse to write.
#[derive(Clone, Debug)]
pub struct Pool {
    sqlite: SqlitePool,
    tables: Tables,
    statements: Arc<AtomicU64>,
    errors: Arc<DatabaseErrors>,
}

impl Pool {
    /// Opens a pool; connections are made when first needed, so a database that is down is no error here.
    ///
    /// # Errors
    /// When the URL or the prefix cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let url = std::str::from_utf8(settings.url.expose()).map_err(|_| Error::UnsupportedUrl)?;
        if !url.starts_with("sqlite:") {
            return Err(Error::UnsupportedUrl);
        }
        if !settings.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Error::InvalidPrefix);
        }
        let options = SqliteConnectOptions::from_str(url)?.create_if_missing(false).pragma("query_only", "1");
        let sqlite = SqlitePoolOptions::new()
            .max_connections(settings.max_connections.max(1))
            .acquire_timeout(settings.acquire_timeout)
            .connect_lazy_with(options);
        let tables = Tables::new(settings.prefix.clone(), Dialect::Sqlite);
        Ok(Self { sqlite, tables, statements: Arc::default(), errors: Arc::default() })
    }

    /// The tables, for statement builders.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Starts to read: all that one [`Reader`] fetches comes from one state of the database.
    ///
    /// # Errors
    /// When no connection can be had in time.
    pub async fn reader(&self) -> Result<Reader, Error> {
        let transaction = self.sqlite.begin().await.inspect_err(|error| {
            self.errors.count(match error {
                sqlx::Error::PoolTimedOut => DatabaseError::PoolTimeout,
                _ => DatabaseError::Connection,
            });
        })?;
        Ok(Reader { transaction, pool: self.clone() })
    }

    /// Whether the database answers and has the site's tables.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), Error> {
        let statement = crate::store::content::item(&self.tables, 0);
        self.reader().await?.fetch(&statement).await.map(drop)
    }

    /// How many statements were started over this pool so far.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// The pool now, and what it did so far.
    #[must_use]
    pub fn reading(&self) -> PoolReading {
        let (size, idle) = (u64::from(self.sqlite.size()), self.sqlite.num_idle() as u64);
        PoolReading {
            in_use: size.saturating_sub(idle),
            idle,
            limit: u64::from(self.sqlite.options().get_max_connections()),
            statements: self.statements(),
            errors: self.errors.totals(),
        }
    }
}

/// Reads from one state of the database. Dropping it, or a pending [`Self::fetch`], ends the work.
#[derive(Debug)]
pub struct Reader {
    transaction: Transaction<'static, Sqlite>,
    pool: Pool,
}

impl Reader {
    /// The tables, for statement builders.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.pool.tables
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// When the database refuses it or fails.
    pub async fn fetch(&mut self, statement: &SelectStatement) -> Result<Vec<Row>, Error> {
        let (sql, values) = self.pool.tables.dialect().build(statement);
        // The text comes from the statement builder alone; what a client sent is in `values`.
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for value in values {
            query = match value {
                Value::Bool(value) => query.bind(value),
                Value::Int(value) => query.bind(value),
                Value::Unsigned(value) => query.bind(value),
                Value::BigInt(value) => query.bind(value),
                Value::BigUnsigned(value) => query.bind(value.map(|value| i64::try_from(value).unwrap_or(i64::MAX))),
                Value::Double(value) => query.bind(value),
                Value::String(value) => query.bind(value),
                _ => return Err(Error::UnsupportedValue),
            };
        }
        self.pool.statements.fetch_add(1, Ordering::Relaxed);
        let rows = query.fetch_all(&mut *self.transaction).await.inspect_err(|error| {
            self.pool.errors.count(match error {
                sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => DatabaseError::Connection,
                _ => DatabaseError::Statement,
            });
        })?;
        Ok(rows.into_iter().map(Row).collect())
    }
}

/// One row; columns are counted from 0 in the order of the statement.
pub struct Row(SqliteRow);

impl Row {
    /// An integer; null and what is no number count as 0.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn integer(&self, column: usize) -> Result<i64, Error> {
        Ok(self.0.try_get_unchecked::<Option<i64>, _>(column)?.unwrap_or_default())
    }

    /// A text, or null.
    ///
    /// # Errors
    /// When there is no such column, or it holds no UTF-8.
    pub fn text(&self, column: usize) -> Result<Option<String>, Error> {
        Ok(self.0.try_get_unchecked::<Option<String>, _>(column)?)
    }
}
