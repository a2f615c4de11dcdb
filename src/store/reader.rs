use std::time::Duration;

use sea_query::{SelectStatement, Value, Values};

use crate::store::engine::Session;
use crate::store::pool::Held;
use crate::store::row::{Inner, Row};
use crate::store::{Error, Pool, Tables};

/// Reads from the site's database. Dropping it, or a pending [`Self::fetch`], ends the work: on the server, too.
#[derive(Debug)]
pub struct Reader {
    /// `None` only while it is dropped.
    session: Option<Session>,
    pool: Pool,
    pub(in crate::store) tables: Tables,
    limit: Duration,
    begun: bool,
    /// A statement's answer is owed.
    busy: bool,
    _held: Held,
}

/// Binds the values in order.
macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        // The text comes from the statement builder alone; what a client sent is in the values.
        let mut query = sqlx::query(sqlx::AssertSqlSafe($sql));
        for value in $values {
            query = match value {
                Value::Bool(value) => query.bind(value),
                Value::Int(value) => query.bind(value),
                Value::BigInt(value) => query.bind(value),
                Value::BigUnsigned(value) => query.bind(value.map(|value| i64::try_from(value).unwrap_or(i64::MAX))),
                Value::Double(value) => query.bind(value),
                Value::String(value) => query.bind(value),
                _ => return Err(Error::UnsupportedValue),
            };
        }
        query
    }};
}
pub(in crate::store) use bound;

impl Reader {
    pub(in crate::store) fn new(session: Session, pool: Pool, limit: Duration) -> Self {
        let (tables, held) = (pool.tables.clone(), pool.held());
        Self { session: Some(session), pool, tables, limit, begun: false, busy: false, _held: held }
    }

    /// The tables, for statement builders.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// From here on, all reads see one state of the database.
    pub(in crate::store) async fn begin(&mut self) -> Result<(), Error> {
        let Some(session) = &mut self.session else { return Ok(()) };
        self.busy = true;
        tokio::time::timeout(self.limit, session.begin()).await.map_err(|_| Error::Slow(self.limit))??;
        self.busy = false;
        self.begun = true;
        Ok(())
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// When the database refuses it, fails, or takes too long.
    pub async fn fetch(&mut self, statement: &SelectStatement) -> Result<Vec<Row>, Error> {
        let (sql, values) = self.tables.dialect().build(statement);
        self.pool.count();
        let answer = self.query(sql, values).await;
        let answer = self.pool.counted(answer);
        if answer.as_ref().is_err_and(Error::is_schema) {
            self.pool.forget_schema();
        }
        answer
    }

    pub(in crate::store) async fn query(&mut self, sql: String, values: Values) -> Result<Vec<Row>, Error> {
        let Some(session) = &mut self.session else { return Ok(Vec::new()) };
        self.busy = true;
        let rows = async {
            Ok::<Vec<Row>, Error>(match session {
                Session::MySql { connection, .. } => {
                    let rows = bound!(sql, values).fetch_all(&mut **connection).await?;
                    rows.into_iter().map(|row| Row(Inner::MySql(row))).collect()
                }
                Session::Postgres(connection) => {
                    let rows = bound!(sql, values).fetch_all(&mut **connection).await?;
                    rows.into_iter().map(|row| Row(Inner::Postgres(row))).collect()
                }
                Session::Sqlite { connection, .. } => {
                    let rows = bound!(sql, values).fetch_all(&mut **connection).await?;
                    rows.into_iter().map(|row| Row(Inner::Sqlite(row))).collect()
                }
            })
        };
        let answer = tokio::time::timeout(self.limit, rows).await.map_err(|_| Error::Slow(self.limit))?;
        // What the database refused is over; a connection that broke is not worth keeping.
        self.busy = matches!(&answer, Err(Error::Database(error)) if error.as_database_error().is_none());
        answer
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        match self.session.take() {
            Some(session) if self.busy => session.abandon(),
            Some(session) if self.begun => session.rollback(),
            _ => {}
        }
    }
}
