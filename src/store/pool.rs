use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::store::engine::Engine;
use crate::store::schema::Schema;
use crate::store::variable::{self, Found, Variables};
use crate::store::{Error, Reader, Settings, Tables, content};
use crate::telemetry::{DatabaseError, DatabaseErrors, PoolReading};

/// How old a reading of the schema may be before readiness renews it.
const SCHEMA_AGE: Duration = Duration::from_secs(60);
/// How old a reading of the template variables' names may be.
const VARIABLES_AGE: Duration = Duration::from_secs(5);

/// Which rows of an ordered result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub limit: u64,
    pub offset: u64,
}

/// Connections to the site's database; clones share them. They refuse to write.
#[derive(Clone, Debug)]
pub struct Pool {
    engine: Engine,
    pub(in crate::store) tables: Tables,
    limit: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Connections that are in somebody's hands. The pool's own count includes those that it tries to make.
    held: AtomicU64,
    statements: AtomicU64,
    errors: DatabaseErrors,
    schema: ArcSwapOption<Reading<Arc<Schema>>>,
    variables: ArcSwapOption<Reading<Arc<Variables>>>,
}

/// Something read, and when.
#[derive(Debug)]
struct Reading<T> {
    value: T,
    at: Instant,
}

/// A connection in somebody's hands.
#[derive(Debug)]
pub(in crate::store) struct Held(Arc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T> Reading<T> {
    fn now(value: T) -> Option<Arc<Self>> {
        Some(Arc::new(Self { value, at: Instant::now() }))
    }
}

impl Pool {
    /// Opens a pool; connections are made when first needed, so a database that is down is no error here.
    ///
    /// # Errors
    /// When the URL or the prefix cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        if !settings.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Error::InvalidPrefix);
        }
        let engine = Engine::open(settings)?;
        let tables = Tables::new(settings.prefix.clone(), engine.dialect());
        Ok(Self { engine, tables, limit: settings.statement_timeout, shared: Arc::default() })
    }

    /// Starts to read. Two reads may see different states of the database; see [`Self::snapshot`].
    ///
    /// # Errors
    /// When no connection can be had in time, or the site's tables are missing.
    pub async fn reader(&self) -> Result<Reader, Error> {
        let session = self.engine.session().await.map_err(|error| self.waited(error));
        let mut reader = Reader::new(self.counted(session)?, self.clone(), self.limit);
        let schema = match self.shared.schema.load_full() {
            Some(reading) => Arc::clone(&reading.value),
            None => self.read_schema(&mut reader).await?,
        };
        reader.tables = self.tables.with(schema);
        Ok(reader)
    }

    /// Starts to read: all that this [`Reader`] fetches comes from one state of the database.
    ///
    /// # Errors
    /// As [`Self::reader`].
    pub async fn snapshot(&self) -> Result<Reader, Error> {
        let mut reader = self.reader().await?;
        reader.begin().await?;
        Ok(reader)
    }

    /// The site's tables as they are.
    ///
    /// # Errors
    /// As [`Self::reader`].
    pub async fn tables(&self) -> Result<Tables, Error> {
        match self.shared.schema.load_full() {
            Some(reading) => Ok(self.tables.with(Arc::clone(&reading.value))),
            None => Ok(self.reader().await?.tables().clone()),
        }
    }

    /// The site's template variables, as they were a few seconds ago at most, and now if one of `names` was not
    /// among them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn variables(&self, names: &[&str]) -> Result<Arc<Variables>, Error> {
        if let Some(reading) = self.shared.variables.load_full()
            && reading.at.elapsed() < VARIABLES_AGE
            && names.iter().all(|name| reading.value.id(name).is_some())
        {
            return Ok(Arc::clone(&reading.value));
        }
        let mut reader = self.reader().await?;
        let statement = variable::names(reader.tables());
        let variables = Arc::new(Variables::read(&reader.fetch(&statement).await?)?);
        self.shared.variables.store(Reading::now(Arc::clone(&variables)));
        Ok(variables)
    }

    /// Whether the database answers and has the site's tables.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut reader = self.reader().await?;
        let old = self.shared.schema.load().as_ref().is_none_or(|reading| reading.at.elapsed() > SCHEMA_AGE);
        if old {
            return self.read_schema(&mut reader).await.map(drop);
        }
        let statement = content::item(reader.tables(), 0, &Found::default());
        reader.fetch(&statement).await.map(drop)
    }

    /// How many statements were started over this pool so far, those of readings of the schema aside.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.shared.statements.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn count(&self) {
        self.shared.statements.fetch_add(1, Ordering::Relaxed);
    }

    /// Why there was no connection in time: all were in use, or none could be made. The pool, which tries again when a
    /// server refuses, tells the same of both.
    fn waited(&self, error: Error) -> Error {
        let (_, _, limit) = self.engine.connections();
        match error {
            Error::Database(sqlx::Error::PoolTimedOut) if self.shared.held.load(Ordering::Relaxed) < limit => {
                Error::Unreachable
            }
            error => error,
        }
    }

    /// For as long as a connection is in use.
    pub(in crate::store) fn held(&self) -> Held {
        self.shared.held.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(&self.shared))
    }

    /// Counts a failure by its kind.
    pub(in crate::store) fn counted<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &outcome {
            let kind = match error {
                Error::Database(sqlx::Error::PoolTimedOut) => DatabaseError::PoolTimeout,
                Error::Database(sqlx::Error::Database(_)) | Error::Slow(_) => DatabaseError::Statement,
                _ => DatabaseError::Connection,
            };
            self.shared.errors.count(kind);
        }
        outcome
    }

    /// The pool now, and what it did so far.
    #[must_use]
    pub fn reading(&self) -> PoolReading {
        let (size, idle, limit) = self.engine.connections();
        PoolReading {
            in_use: size.saturating_sub(idle),
            idle,
            limit,
            statements: self.statements(),
            errors: self.shared.errors.totals(),
        }
    }

    /// The next reader reads the schema anew.
    pub(in crate::store) fn forget_schema(&self) {
        self.shared.schema.store(None);
    }

    async fn read_schema(&self, reader: &mut Reader) -> Result<Arc<Schema>, Error> {
        let schema = Arc::new(Schema::read(reader, &self.tables).await?);
        self.shared.schema.store(Reading::now(Arc::clone(&schema)));
        Ok(schema)
    }
}
