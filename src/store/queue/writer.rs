//! Connections that may write, and transactions over them.

use std::time::Duration;

use sea_query::Value;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Executor as _, MySql, Postgres, Row as _, Sqlite};

use crate::store::engine::spawn;
use crate::store::queue::Driver;
use crate::store::reader::bound;
use crate::store::row::Inner;
use crate::store::{Dialect, Error, Row, Settings};

/// How long SQLite waits for another process that writes.
const BUSY: Duration = Duration::from_secs(15);
/// How long a connection may take to undo its transaction, and to say that it is well.
const BACK: Duration = Duration::from_secs(5);

/// A pool of one engine whose connections may write.
#[derive(Clone, Debug)]
pub(super) enum Writer {
    MySql(sqlx::MySqlPool),
    Postgres(sqlx::PgPool),
    Sqlite(sqlx::SqlitePool),
}

impl Writer {
    /// A pool that connects when first needed.
    pub fn open(settings: &Settings, driver: Driver) -> Result<Self, Error> {
        let url = std::str::from_utf8(settings.url.expose()).map_err(|_| Error::UnsupportedUrl)?;
        let password = match &settings.password {
            Some(secret) => Some(std::str::from_utf8(secret.expose()).map_err(|_| Error::UnsupportedUrl)?),
            None => None,
        };
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("mysql" | "mariadb") => {
                let mut options: MySqlConnectOptions = url.parse()?;
                if let Some(password) = password {
                    options = options.password(password);
                }
                // Where the server could encrypt, the attempt fails on its socket, which needs no encryption.
                if options.get_socket().is_some() && matches!(options.get_ssl_mode(), MySqlSslMode::Preferred) {
                    options = options.ssl_mode(MySqlSslMode::Disabled);
                }
                // A TIMESTAMP is what the session's zone makes of the text. sTask's PHP writes UTC into sessions that
                // have the server's own zone, and reads it there; so must we, or each reads the other's times shifted.
                let zone = match driver {
                    Driver::Own => Some("+00:00".to_owned()),
                    Driver::Stask => None,
                };
                options = options.pipes_as_concat(false).no_engine_substitution(false).timezone(zone);
                let pool = common(MySqlPoolOptions::new(), settings, settings.max_connections);
                let still = settings.statement_timeout.as_secs().max(1);
                let pool = pool.after_connect(move |connection, _| {
                    Box::pin(async move {
                        connection.execute("SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION'").await?;
                        // No gap locks: claims of neighbouring rows do not wait for each other.
                        connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                        connection.execute("SET SESSION innodb_lock_wait_timeout = 1").await?;
                        // Ours never stand still for so long: who does has lost its power, or its network. MySQL knows
                        // no such limit for transactions, and hangs up on everybody who is idle.
                        let version: String = connection.fetch_one("SELECT VERSION()").await?.try_get_unchecked(0)?;
                        let of = if version.contains("MariaDB") { "idle_transaction_timeout" } else { "wait_timeout" };
                        // Who waits for a table hears nothing of a client that has gone.
                        let wait = still + 1;
                        let limit = format!("SET SESSION {of} = {still}, SESSION lock_wait_timeout = {wait}");
                        let limit = AssertSqlSafe(limit);
                        connection.execute(sqlx::raw_sql(limit)).await?;
                        Ok(())
                    })
                });
                Ok(Self::MySql(pool.connect_lazy_with(options)))
            }
            Some("postgres" | "postgresql") => {
                let mut options: PgConnectOptions = url.parse()?;
                if let Some(password) = password {
                    options = options.password(password);
                }
                options = options.application_name("mcp-sidecar queue");
                let pool = common(PgPoolOptions::new(), settings, settings.max_connections);
                let still = settings.statement_timeout.as_millis().max(1000);
                let pool = pool.after_connect(move |connection, _| {
                    Box::pin(async move {
                        let limit = AssertSqlSafe(format!("SET idle_in_transaction_session_timeout = {still}"));
                        connection.execute(sqlx::raw_sql(limit)).await?;
                        // Since version 14.
                        if let Err(error) = connection.execute("SET client_connection_check_interval = 250").await {
                            tracing::debug!(%error, "store: the server does not look for clients that have left");
                        }
                        Ok(())
                    })
                });
                Ok(Self::Postgres(pool.connect_lazy_with(options)))
            }
            Some("sqlite") => {
                let options: SqliteConnectOptions = url.parse()?;
                let options = options.create_if_missing(true).busy_timeout(BUSY).journal_mode(SqliteJournalMode::Wal);
                // It takes one writer at a time: waiting in line here is fairer than polling its lock.
                Ok(Self::Sqlite(common(SqlitePoolOptions::new(), settings, 1).connect_lazy_with(options)))
            }
            _ => Err(Error::UnsupportedUrl),
        }
    }

    pub const fn dialect(&self) -> Dialect {
        match self {
            Self::MySql(_) => Dialect::MySql,
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    pub async fn begin(&self) -> Result<Work, Error> {
        match self {
            Self::MySql(pool) => Work::begin(Link::MySql(pool.acquire().await?), "BEGIN").await,
            Self::Postgres(pool) => Work::begin(Link::Postgres(pool.acquire().await?), "BEGIN").await,
            // Begun as a writer, so that it never has to become one, which SQLite refuses under contention.
            Self::Sqlite(pool) => Work::begin(Link::Sqlite(pool.acquire().await?), "BEGIN IMMEDIATE").await,
        }
    }
}

fn common<DB: sqlx::Database>(options: PoolOptions<DB>, settings: &Settings, connections: u32) -> PoolOptions<DB> {
    options
        .max_connections(connections.max(1))
        .acquire_timeout(settings.acquire_timeout)
        .idle_timeout(settings.idle_timeout)
        .max_lifetime(settings.max_lifetime)
}

/// A connection in use.
enum Link {
    MySql(PoolConnection<MySql>),
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

impl Link {
    async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::MySql(link) => (&mut **link).execute(statement).await.map(drop),
            Self::Postgres(link) => (&mut **link).execute(statement).await.map(drop),
            Self::Sqlite(link) => (&mut **link).execute(statement).await.map(drop),
        }
    }

    /// Gives it back to the pool, which asks it first whether it is well.
    async fn give_back(mut self) {
        match &mut self {
            Self::MySql(link) => link.return_to_pool().await,
            Self::Postgres(link) => link.return_to_pool().await,
            Self::Sqlite(link) => link.return_to_pool().await,
        }
    }

    fn close(mut self) {
        match &mut self {
            Self::MySql(link) => link.close_on_drop(),
            Self::Postgres(link) => link.close_on_drop(),
            Self::Sqlite(link) => link.close_on_drop(),
        }
    }
}

/// One transaction; dropped without [`Self::commit`] it never happened. Dropped while a statement is pending, its
/// connection is closed: the answer would meet whoever has it next, or nobody, for hours.
pub(super) struct Work {
    /// `None` only while it is dropped.
    link: Option<Link>,
    /// A statement's answer is owed.
    busy: bool,
    /// There is something to undo.
    open: bool,
}

impl Work {
    async fn begin(link: Link, statement: &'static str) -> Result<Self, Error> {
        let mut work = Self { link: Some(link), busy: false, open: true };
        work.run(statement).await?;
        Ok(work)
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), Error> {
        self.asked(async |link| Ok(link.run(statement).await?)).await
    }

    /// Asks the database something, and knows meanwhile that an answer is owed.
    async fn asked<T>(&mut self, ask: impl AsyncFnOnce(&mut Link) -> Result<T, Error>) -> Result<T, Error> {
        let link = self.link.as_mut().ok_or(Error::Unreachable)?;
        self.busy = true;
        let answer = ask(link).await;
        // What the database refused is over; a connection that broke is not worth keeping.
        self.busy = matches!(&answer, Err(Error::Database(error)) if error.as_database_error().is_none());
        answer
    }

    /// Runs a statement; how many rows it met.
    pub async fn execute(&mut self, sql: &str, values: Vec<Value>) -> Result<u64, Error> {
        self.asked(async |link| {
            Ok(match link {
                Link::MySql(link) => bound!(sql.to_owned(), values).execute(&mut **link).await?.rows_affected(),
                Link::Postgres(link) => bound!(numbered(sql), values).execute(&mut **link).await?.rows_affected(),
                Link::Sqlite(link) => bound!(sql.to_owned(), values).execute(&mut **link).await?.rows_affected(),
            })
        })
        .await
    }

    /// Inserts one row into a table whose key `id` counts up; the new row's id.
    pub async fn insert(&mut self, sql: &str, values: Vec<Value>) -> Result<i64, Error> {
        self.asked(async |link| {
            Ok(match link {
                Link::MySql(link) => {
                    let id = bound!(sql.to_owned(), values).execute(&mut **link).await?.last_insert_id();
                    i64::try_from(id).unwrap_or(i64::MAX)
                }
                Link::Postgres(link) => {
                    let sql = numbered(&format!("{sql} RETURNING CAST(id AS BIGINT)"));
                    bound!(sql, values).fetch_one(&mut **link).await?.try_get(0)?
                }
                Link::Sqlite(link) => bound!(sql.to_owned(), values).execute(&mut **link).await?.last_insert_rowid(),
            })
        })
        .await
    }

    pub async fn fetch(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Row>, Error> {
        self.asked(async |link| {
            Ok(match link {
                Link::MySql(link) => {
                    let rows = bound!(sql.to_owned(), values).fetch_all(&mut **link).await?;
                    rows.into_iter().map(|row| Row(Inner::MySql(row))).collect()
                }
                Link::Postgres(link) => {
                    let rows = bound!(numbered(sql), values).fetch_all(&mut **link).await?;
                    rows.into_iter().map(|row| Row(Inner::Postgres(row))).collect()
                }
                Link::Sqlite(link) => {
                    let rows = bound!(sql.to_owned(), values).fetch_all(&mut **link).await?;
                    rows.into_iter().map(|row| Row(Inner::Sqlite(row))).collect()
                }
            })
        })
        .await
    }

    pub async fn commit(mut self) -> Result<(), Error> {
        self.run("COMMIT").await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        if self.busy {
            link.close();
            return;
        }
        let open = self.open;
        spawn(async move {
            if open && !matches!(tokio::time::timeout(BACK, link.run("ROLLBACK")).await, Ok(Ok(()))) {
                link.close();
                return;
            }
            // Dropped in the midst of it, the connection ends, and its place is free.
            let _ = tokio::time::timeout(BACK, link.give_back()).await;
        });
    }
}

/// PostgreSQL counts its placeholders. No statement of this module holds a question mark otherwise.
fn numbered(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 16);
    for (index, part) in sql.split('?').enumerate() {
        if index > 0 {
            out.push_str(&format!("${index}"));
        }
        out.push_str(part);
    }
    out
}
