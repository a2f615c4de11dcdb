//! One connection that may write, on each engine.

use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, MySqlConnection, PgConnection, SqliteConnection};

use crate::store::row::{Inner, Row};
use crate::store::{Dialect, Error, Settings};

/// How long another run may hold the lock.
const WAIT_S: u64 = 10;

/// A value that is bound.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell {
    Text(&'static str),
    Number(i64),
}

pub(super) enum Link {
    MySql(Box<MySqlConnection>),
    Postgres(Box<PgConnection>),
    Sqlite(Box<SqliteConnection>),
}

macro_rules! bound {
    ($sql:expr, $cells:expr) => {{
        // The text is made of this module's own constants and a prefix that was checked; the rest is bound.
        let mut query = sqlx::query(AssertSqlSafe($sql));
        for cell in $cells {
            query = match *cell {
                Cell::Text(text) => query.bind(text),
                Cell::Number(number) => query.bind(number),
            };
        }
        query
    }};
}

impl Link {
    pub(super) async fn connect(settings: &Settings) -> Result<Self, Error> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Error::UnsupportedUrl);
        let url = text(settings.url.expose())?;
        let password = settings.password.as_ref().map(|secret| text(secret.expose())).transpose()?;
        let connecting = async {
            Ok::<Self, Error>(match url.split_once(':').map(|(scheme, _)| scheme) {
                Some("mysql" | "mariadb") => {
                    let mut options: MySqlConnectOptions = url.parse()?;
                    if let Some(password) = password {
                        options = options.password(password);
                    }
                    let options = options.pipes_as_concat(false).no_engine_substitution(false).timezone(None);
                    Self::MySql(Box::new(options.connect().await?))
                }
                Some("postgres" | "postgresql") => {
                    let mut options: PgConnectOptions = url.parse()?;
                    if let Some(password) = password {
                        options = options.password(password);
                    }
                    Self::Postgres(Box::new(options.extra_float_digits(None).connect().await?))
                }
                Some("sqlite") => {
                    let options: SqliteConnectOptions = url.parse()?;
                    let options = options.create_if_missing(false).busy_timeout(Duration::from_secs(WAIT_S));
                    Self::Sqlite(Box::new(options.connect().await?))
                }
                _ => return Err(Error::UnsupportedUrl),
            })
        };
        let limit = Duration::from_secs(WAIT_S);
        tokio::time::timeout(limit, connecting).await.map_err(|_| Error::Slow(limit))?
    }

    pub(super) const fn dialect(&self) -> Dialect {
        match self {
            Self::MySql(_) => Dialect::MySql,
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Begins a transaction that no other run of this program can be in at the same time; `tables` are quoted.
    pub(super) async fn begin(&mut self, tables: &[String; 3]) -> Result<(), Error> {
        match self {
            Self::MySql(connection) => {
                let lock = format!("SELECT GET_LOCK('mcp-sidecar permissions', {WAIT_S})");
                let held: Option<i64> = sqlx::query_scalar(AssertSqlSafe(lock)).fetch_one(&mut **connection).await?;
                if held != Some(1) {
                    return Err(Error::Slow(Duration::from_secs(WAIT_S)));
                }
                connection.execute("START TRANSACTION").await?;
            }
            Self::Postgres(connection) => {
                let wait = format!("BEGIN; SET LOCAL lock_timeout = '{WAIT_S}s'");
                connection.execute(sqlx::raw_sql(AssertSqlSafe(wait))).await?;
                let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", tables.join(", "));
                connection.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await?;
            }
            Self::Sqlite(connection) => connection.execute("BEGIN IMMEDIATE").await.map(drop)?,
        }
        Ok(())
    }

    /// Ends the transaction.
    pub(super) async fn end(&mut self, keep: bool) -> Result<(), Error> {
        let word = if keep { "COMMIT" } else { "ROLLBACK" };
        match self {
            Self::MySql(connection) => {
                connection.execute(word).await?;
                connection.execute("DO RELEASE_LOCK('mcp-sidecar permissions')").await.map(drop)?;
            }
            Self::Postgres(connection) => connection.execute(word).await.map(drop)?,
            Self::Sqlite(connection) => connection.execute(word).await.map(drop)?,
        }
        Ok(())
    }

    pub(super) async fn execute(&mut self, sql: String, cells: &[Cell]) -> Result<(), Error> {
        match self {
            Self::MySql(connection) => bound!(sql, cells).execute(&mut **connection).await.map(drop)?,
            Self::Postgres(connection) => bound!(sql, cells).execute(&mut **connection).await.map(drop)?,
            Self::Sqlite(connection) => bound!(sql, cells).execute(&mut **connection).await.map(drop)?,
        }
        Ok(())
    }

    pub(super) async fn fetch(&mut self, sql: String, cells: &[Cell]) -> Result<Vec<Row>, Error> {
        Ok(match self {
            Self::MySql(connection) => {
                let rows = bound!(sql, cells).fetch_all(&mut **connection).await?;
                rows.into_iter().map(|row| Row(Inner::MySql(row))).collect()
            }
            Self::Postgres(connection) => {
                let rows = bound!(sql, cells).fetch_all(&mut **connection).await?;
                rows.into_iter().map(|row| Row(Inner::Postgres(row))).collect()
            }
            Self::Sqlite(connection) => {
                let rows = bound!(sql, cells).fetch_all(&mut **connection).await?;
                rows.into_iter().map(|row| Row(Inner::Sqlite(row))).collect()
            }
        })
    }

    /// The columns of a table; none when it is not there. `table` is not quoted.
    pub(super) async fn columns(&mut self, table: &str) -> Result<Vec<String>, Error> {
        let sql = match self.dialect() {
            Dialect::MySql => format!(
                "SELECT column_name FROM information_schema.columns \
                 WHERE table_schema = DATABASE() AND table_name = '{table}'"
            ),
            Dialect::Postgres => format!(
                "SELECT column_name::text FROM information_schema.columns \
                 WHERE table_schema = ANY (current_schemas(false)) AND table_name = '{table}'"
            ),
            Dialect::Sqlite => format!("SELECT name FROM pragma_table_info('{table}')"),
        };
        let mut columns = Vec::new();
        for row in self.fetch(sql, &[]).await? {
            columns.extend(row.text(0)?);
        }
        Ok(columns)
    }

    /// PostgreSQL's sequences know nothing of rows that came with their ids, as an installer or an import writes
    /// them: without this the next insert takes an id that is there.
    pub(super) async fn raise_sequence(&mut self, table: &str) -> Result<(), Error> {
        if self.dialect() != Dialect::Postgres {
            return Ok(());
        }
        let sql = format!("SELECT pg_get_serial_sequence('\"{table}\"', 'id')::text");
        let rows = self.fetch(sql, &[]).await?;
        let Some(sequence) = rows.first().map(|row| row.text(0)).transpose()?.flatten() else { return Ok(()) };
        // Only ever upwards: another transaction may have taken numbers whose rows are not to be seen yet.
        let literal = sequence.replace('\'', "''");
        let sql = format!(
            "SELECT setval('{literal}', top.id) FROM (SELECT MAX(id)::bigint AS id FROM \"{table}\") AS top \
             WHERE top.id >= (SELECT last_value FROM {sequence})"
        );
        self.fetch(sql, &[]).await.map(drop)
    }
}
