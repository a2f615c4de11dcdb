//! A look at a queue that changes nothing in its database.

use sqlx::{AssertSqlSafe, Executor as _};

use crate::store::engine::{Engine, Session};
use crate::store::queue::schema::Names;
use crate::store::queue::{Driver, Queue};
use crate::store::{Error, Settings};

impl Queue {
    /// Whether the tasks' table is there, over a connection that can only read. One of ours is made when it is first
    /// used; sTask's must be there.
    ///
    /// # Errors
    /// When the database does not answer, or sTask's table is missing.
    pub async fn probe(settings: &Settings, driver: Driver) -> Result<bool, Error> {
        if !settings.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Error::InvalidPrefix);
        }
        let tasks = Names::new(&settings.prefix, driver).tasks;
        let limit = settings.statement_timeout;
        let looked = tokio::time::timeout(limit, look(settings, &tasks)).await.unwrap_or(Err(Error::Slow(limit)));
        match looked {
            Err(error) if error.is_schema() => match driver {
                Driver::Own => Ok(false),
                Driver::Stask => Err(Error::NoTable(tasks)),
            },
            looked => looked.map(|()| true),
        }
    }
}

async fn look(settings: &Settings, tasks: &str) -> Result<(), Error> {
    let sql = sqlx::raw_sql(AssertSqlSafe(format!("SELECT id FROM {tasks} WHERE id = 0")));
    match Engine::open(settings)?.session().await? {
        Session::MySql { mut connection, .. } => drop((&mut *connection).fetch_all(sql).await?),
        Session::Postgres(mut connection) => drop((&mut *connection).fetch_all(sql).await?),
        Session::Sqlite { mut connection, .. } => drop((&mut *connection).fetch_all(sql).await?),
    }
    Ok(())
}
