//! The three engines: how each is connected to, kept from writing, and told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor as _, MySql, Postgres, Row as _, Sqlite};

use crate::store::{Dialect, Error, Settings};

/// How many virtual-machine steps SQLite takes between two looks at whether its caller is still there.
const STEPS: i32 = 10_000;
/// How long a second connection may try to end the statement of one that was left.
const KILL: Duration = Duration::from_secs(5);

/// A pool of one engine.
#[derive(Clone, Debug)]
pub(in crate::store) enum Engine {
    MySql(sqlx::MySqlPool, Arc<MySqlConnectOptions>),
    Postgres(sqlx::PgPool),
    Sqlite(sqlx::SqlitePool),
}

/// A connection in use.
#[derive(Debug)]
pub(in crate::store) enum Session {
    MySql { connection: PoolConnection<MySql>, thread: u64, options: Arc<MySqlConnectOptions> },
    Postgres(PoolConnection<Postgres>),
    Sqlite { connection: PoolConnection<Sqlite>, left: Arc<AtomicBool> },
}

impl Engine {
    /// A pool that connects when first needed.
    pub(in crate::store) fn open(settings: &Settings) -> Result<Self, Error> {
        let url = std::str::from_utf8(settings.url.expose()).map_err(|_| Error::UnsupportedUrl)?;
        let password = match &settings.password {
            Some(secret) => Some(std::str::from_utf8(secret.expose()).map_err(|_| Error::UnsupportedUrl)?),
            None => None,
        };
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("mysql" | "mariadb") => mysql(url, password, settings),
            Some("postgres" | "postgresql") => postgres(url, password, settings),
            Some("sqlite") => sqlite(url, settings),
            _ => Err(Error::UnsupportedUrl),
        }
    }

    pub(in crate::store) const fn dialect(&self) -> Dialect {
        match self {
            Self::MySql(..) => Dialect::MySql,
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// How many connections are open, how many of them idle, and how many there may be.
    pub(in crate::store) fn connections(&self) -> (u64, u64, u64) {
        let (size, idle, limit) = match self {
            Self::MySql(pool, _) => (pool.size(), pool.num_idle(), pool.options().get_max_connections()),
            Self::Postgres(pool) => (pool.size(), pool.num_idle(), pool.options().get_max_connections()),
            Self::Sqlite(pool) => (pool.size(), pool.num_idle(), pool.options().get_max_connections()),
        };
        (size.into(), idle as u64, limit.into())
    }

    pub(in crate::store) async fn session(&self) -> Result<Session, Error> {
        match self {
            Self::MySql(pool, options) => mysql_session(pool, options).await,
            Self::Postgres(pool) => Ok(Session::Postgres(pool.acquire().await?)),
            Self::Sqlite(pool) => {
                let mut connection = pool.acquire().await?;
                let left = Arc::new(AtomicBool::new(false));
                let seen = Arc::clone(&left);
                let mut handle = connection.lock_handle().await?;
                handle.set_progress_handler(STEPS, move || !seen.load(Ordering::Relaxed));
                drop(handle);
                Ok(Session::Sqlite { connection, left })
            }
        }
    }
}

impl Session {
    /// Runs a statement of this module's own that yields nothing.
    pub(in crate::store) async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::MySql { connection, .. } => (&mut **connection).execute(statement).await.map(drop),
            Self::Postgres(connection) => (&mut **connection).execute(statement).await.map(drop),
            Self::Sqlite { connection, .. } => (&mut **connection).execute(statement).await.map(drop),
        }
    }

    /// From here on, all reads see one state of the database.
    pub(in crate::store) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.run(match self {
            Self::MySql { .. } => "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Self::Sqlite { .. } => "BEGIN DEFERRED",
        })
        .await
    }

    /// Ends the statement at work, whose result nobody waits for any more, and the connection with it.
    pub(in crate::store) fn abandon(self) {
        match self {
            Self::MySql { mut connection, thread, options } => {
                // MySQL runs on when a client hangs up: it must be told, over a connection of its own. The old one is
                // held until then, so that its thread id means nobody else.
                connection.close_on_drop();
                spawn(async move {
                    let kill = async {
                        let mut other = options.connect().await?;
                        let statement = format!("KILL QUERY {thread}");
                        other.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
                        other.close().await
                    };
                    if let Ok(Err(error)) = tokio::time::timeout(KILL, kill).await {
                        tracing::warn!(%error, "store: a statement that nobody waits for could not be ended");
                    }
                    drop(connection);
                });
            }
            // The server looks whether its client is still there (client_connection_check_interval).
            Self::Postgres(mut connection) => connection.close_on_drop(),
            Self::Sqlite { mut connection, left } => {
                left.store(true, Ordering::Relaxed);
                connection.close_on_drop();
            }
        }
    }

    /// Ends a transaction and gives the connection back.
    pub(in crate::store) fn rollback(mut self) {
        spawn(async move {
            if self.run("ROLLBACK").await.is_err() {
                self.abandon();
            }
        });
    }
}

/// Outside a runtime there is nobody to run the task, and nothing left to save: the process ends.
pub(in crate::store) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}

fn pool<DB: sqlx::Database>(options: PoolOptions<DB>, settings: &Settings) -> PoolOptions<DB> {
    options
        .max_connections(settings.max_connections.max(1))
        .acquire_timeout(settings.acquire_timeout)
        .idle_timeout(settings.idle_timeout)
        .max_lifetime(settings.max_lifetime)
}

fn mysql(url: &str, password: Option<&str>, settings: &Settings) -> Result<Engine, Error> {
    let mut options: MySqlConnectOptions = url.parse()?;
    if let Some(password) = password {
        options = options.password(password);
    }
    // Where the server could encrypt, the attempt fails on its socket, which needs no encryption.
    if options.get_socket().is_some() && matches!(options.get_ssl_mode(), MySqlSslMode::Preferred) {
        options = options.ssl_mode(MySqlSslMode::Disabled);
    }
    // Statements are written for this mode; the server's own might read double quotes or blanks otherwise.
    options = options.pipes_as_concat(false).no_engine_substitution(false).timezone(None);
    let shared = Arc::new(options.clone());
    let limit = settings.statement_timeout;
    let pool = pool(MySqlPoolOptions::new(), settings)
        // The question for the thread id is the test.
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute("SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION'").await?;
                connection.execute("SET SESSION TRANSACTION READ ONLY").await?;
                connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
                let version: String = connection.fetch_one("SELECT VERSION()").await?.try_get_unchecked(0)?;
                let (milliseconds, seconds) = (limit.as_millis(), limit.as_secs_f64());
                let mariadb = version.contains("MariaDB");
                let limit = if mariadb {
                    format!("SET SESSION max_statement_time = {seconds:.3}")
                } else {
                    format!("SET SESSION max_execution_time = {milliseconds}")
                };
                connection.execute(sqlx::raw_sql(AssertSqlSafe(limit))).await?;
                // MariaDB's planner counts a condition that chose an index twice otherwise, and begins joins with many
                // rows in the belief that they are few. Only the plans depend on it.
                if mariadb
                    && let Err(error) = connection.execute("SET SESSION optimizer_use_condition_selectivity = 1").await
                {
                    tracing::debug!(%error, "store: the server plans in its own way");
                }
                Ok(())
            })
        })
        .connect_lazy_with(options);
    Ok(Engine::MySql(pool, shared))
}

/// A connection that answers, and the thread that serves it.
async fn mysql_session(pool: &sqlx::MySqlPool, options: &Arc<MySqlConnectOptions>) -> Result<Session, Error> {
    // A server that was restarted has hung up on every idle connection; the one after those is fresh.
    for _ in 0..=pool.options().get_max_connections() {
        let mut connection = pool.acquire().await?;
        let limit = pool.options().get_acquire_timeout();
        let question = sqlx::raw_sql("SELECT CONNECTION_ID()").fetch_one(&mut *connection);
        let answer = tokio::time::timeout(limit, question).await;
        match answer.map(|answer| answer.and_then(|row| row.try_get_unchecked(0))) {
            Ok(Ok(thread)) => return Ok(Session::MySql { connection, thread, options: Arc::clone(options) }),
            Err(_) => {
                connection.close_on_drop();
                return Err(Error::Slow(limit));
            }
            Ok(Err(error)) => {
                connection.close_on_drop();
                tracing::debug!(%error, "store: an idle connection was dead");
            }
        }
    }
    Err(sqlx::Error::PoolTimedOut.into())
}

fn postgres(url: &str, password: Option<&str>, settings: &Settings) -> Result<Engine, Error> {
    let mut options: PgConnectOptions = url.parse()?;
    if let Some(password) = password {
        options = options.password(password);
    }
    options = options.application_name("mcp-sidecar").extra_float_digits(None);
    let limit = settings.statement_timeout.as_millis();
    let pool = pool(PgPoolOptions::new(), settings)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                let limit = format!("SET statement_timeout = {limit}");
                connection.execute(sqlx::raw_sql(AssertSqlSafe(limit))).await?;
                connection.execute("SET default_transaction_read_only = on").await?;
                // Since version 14; older ones end such statements at their timeout.
                if let Err(error) = connection.execute("SET client_connection_check_interval = 250").await {
                    tracing::debug!(%error, "store: the server does not look for clients that have left");
                }
                Ok(())
            })
        })
        .connect_lazy_with(options);
    Ok(Engine::Postgres(pool))
}

fn sqlite(url: &str, settings: &Settings) -> Result<Engine, Error> {
    // Not `mode=ro`: a reader of a database in WAL mode must be able to make its shared memory.
    let options: SqliteConnectOptions =
        url.parse::<SqliteConnectOptions>()?.create_if_missing(false).pragma("query_only", "1");
    Ok(Engine::Sqlite(pool(SqlitePoolOptions::new(), settings).connect_lazy_with(options)))
}
