//! What operators see and do, and sTask's register of workers.

use std::time::Duration;

use sea_query::Value;

use crate::store::queue::{Driver, IDENTIFIER, Priority, Queue, Status, retried};
use crate::store::{Error, Row};

/// The class that sTask finds behind our worker's row.
const CLASS: &str = r"EvolutionCMS\eMCP\sTask\McpDispatchWorker";
const SCOPE: &str = "eMCP";

/// A task as operators see it. Times are text, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: i64,
    pub status: Option<Status>,
    pub message: String,
    pub started_by: Option<i64>,
    /// JSON.
    pub meta: String,
    /// JSON, or empty; left out of lists.
    pub result: String,
    pub attempts: i64,
    pub max_attempts: i64,
    pub priority: String,
    pub progress: i64,
    pub created_at: String,
    pub start_at: String,
    pub finished_at: String,
}

/// Why an operator's wish was not fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    NoSuchTask,
    /// It has ended, or has not.
    WrongStatus,
}

/// What became of our row in `s_workers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    Created,
    Updated,
    Ok,
    /// There is nobody to register with.
    Skipped,
}

impl Registration {
    /// The contract's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Ok => "ok",
            Self::Skipped => "skipped",
        }
    }
}

const COLUMNS: &str = "id, status, message, started_by, meta, attempts, max_attempts, priority, progress, \
                       CAST(created_at AS {text}), CAST(start_at AS {text}), CAST(finished_at AS {text})";

impl Queue {
    /// The newest tasks, at most `limit`; those of one status, if given.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, status: Option<Status>, limit: u32) -> Result<Vec<Task>, Error> {
        let condition = if status.is_some() { "AND status = ?" } else { "" };
        let sql = self.sql(&format!(
            "SELECT {COLUMNS} FROM {{tasks}} WHERE identifier = ? {condition} ORDER BY id DESC LIMIT {limit}"
        ));
        retried!(self, async {
            let mut values: Vec<Value> = vec![IDENTIFIER.into()];
            values.extend(status.map(|status| Value::from(status.code())));
            self.begin().await?.fetch(&sql, values).await?.iter().map(task).collect()
        })
    }

    /// One task.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn task(&self, id: i64) -> Result<Option<Task>, Error> {
        let sql = self.sql(&format!("SELECT {COLUMNS}, result FROM {{tasks}} WHERE identifier = ? AND id = ?"));
        retried!(self, async {
            let rows = self.begin().await?.fetch(&sql, vec![IDENTIFIER.into(), id.into()]).await?;
            let with_result =
                |row: &Row| Ok::<_, Error>(Task { result: row.text(12)?.unwrap_or_default(), ..task(row)? });
            rows.first().map(with_result).transpose()
        })
    }

    /// How a task's runs ended, first to last: run, worker, outcome (empty while it runs).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn attempts(&self, id: i64) -> Result<Vec<(i64, String, String)>, Error> {
        let sql = self.sql("SELECT run, worker, outcome FROM {attempts} WHERE task_id = ? ORDER BY run");
        retried!(self, async {
            let rows = self.begin().await?.fetch(&sql, vec![id.into()]).await?;
            let text = |row: &Row, column| row.text(column).map(Option::unwrap_or_default);
            rows.iter().map(|row| Ok((row.integer(0)?, text(row, 1)?, text(row, 2)?))).collect::<Result<_, Error>>()
        })
    }

    /// How many tasks there are of each status, in the order of [`Status::ALL`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn depth(&self) -> Result<[u64; 5], Error> {
        let sql = self.sql("SELECT status, COUNT(*) FROM {tasks} WHERE identifier = ? GROUP BY status");
        retried!(self, async {
            let mut depth = [0; 5];
            for row in self.begin().await?.fetch(&sql, vec![IDENTIFIER.into()]).await? {
                if let Some(status) = Status::of(row.integer(0)?) {
                    depth[status as usize] = u64::try_from(row.integer(1)?).unwrap_or(0);
                }
            }
            Ok::<_, Error>(depth)
        })
    }

    /// For how long the task that waits longest has been due without anybody having it; zero when none waits.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn oldest_wait(&self) -> Result<Duration, Error> {
        let sql = self.sql(
            "SELECT {now_ms} - MIN(CASE WHEN l.until_ms > l.not_before_ms THEN l.until_ms ELSE l.not_before_ms END) \
             FROM {leases} l JOIN {tasks} t ON t.id = l.task_id WHERE l.open = 1 \
             AND l.not_before_ms <= {now_ms} AND l.until_ms <= {now_ms} AND t.status IN (30, 50) \
             AND t.identifier = {identifier}",
        );
        retried!(self, async {
            let rows = self.begin().await?.fetch(&sql, Vec::new()).await?;
            let waited = rows.first().map_or(Ok(0), |row| row.integer(0))?;
            Ok::<_, Error>(Duration::from_millis(u64::try_from(waited).unwrap_or(0)))
        })
    }

    /// Ends a task that has not ended; who works on it loses it.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn cancel(&self, id: i64) -> Result<Result<(), Undone>, Error> {
        retried!(self, async {
            let mut work = self.begin().await?;
            let sql = self.sql(
                "UPDATE {leases} SET open = 0, holder = NULL, until_ms = 0, not_before_ms = {now_ms} WHERE task_id = ?",
            );
            work.execute(&sql, vec![id.into()]).await?;
            let sql = self.sql(
                "UPDATE {tasks} SET status = 100, message = 'Cancelled', finished_at = {now}, updated_at = {now} \
                 WHERE id = ? AND identifier = ? AND status IN (10, 30, 50)",
            );
            if work.execute(&sql, vec![id.into(), IDENTIFIER.into()]).await? == 0 {
                drop(work);
                return self.undone(id).await;
            }
            let sql = self.sql(
                "UPDATE {attempts} SET ended_ms = {now_ms}, outcome = 'cancelled' \
                 WHERE task_id = ? AND ended_ms IS NULL",
            );
            work.execute(&sql, vec![id.into()]).await?;
            work.commit().await?;
            Ok(Ok(()))
        })
    }

    /// Has a failed task run again, with all its attempts.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn retry(&self, id: i64) -> Result<Result<(), Undone>, Error> {
        retried!(self, async {
            let mut work = self.begin().await?;
            let sql = self.sql(
                "UPDATE {leases} SET open = 1, holder = NULL, until_ms = 0, not_before_ms = {now_ms} WHERE task_id = ?",
            );
            let ours = work.execute(&sql, vec![id.into()]).await?;
            let sql = self.sql(
                "UPDATE {tasks} SET status = 30, message = 'Queued again', progress = 0, attempts = 0, \
                 finished_at = NULL, updated_at = {now} WHERE id = ? AND identifier = ? AND status = 100",
            );
            if ours == 0 || work.execute(&sql, vec![id.into(), IDENTIFIER.into()]).await? == 0 {
                drop(work);
                return self.undone(id).await;
            }
            work.commit().await?;
            Ok(Ok(()))
        })
    }

    async fn undone(&self, id: i64) -> Result<Result<(), Undone>, Error> {
        let sql = self.sql("SELECT id FROM {tasks} WHERE id = ? AND identifier = ?");
        let rows = self.begin().await?.fetch(&sql, vec![id.into(), IDENTIFIER.into()]).await?;
        Ok(Err(if rows.is_empty() { Undone::NoSuchTask } else { Undone::WrongStatus }))
    }

    /// Makes or repairs our row in sTask's register, without which its screens know no such worker.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn register(&self) -> Result<Registration, Error> {
        if self.driver != Driver::Stask {
            return Ok(Registration::Skipped);
        }
        match retried!(self, self.try_register()) {
            Err(Error::NoTable(_)) => Ok(Registration::Skipped),
            Err(error) if error.is_schema() => Ok(Registration::Skipped),
            done => done,
        }
    }

    async fn try_register(&self) -> Result<Registration, Error> {
        let mut work = self.begin().await?;
        let sql = self.sql("SELECT scope, class, active FROM {workers} WHERE identifier = ?");
        let rows = work.fetch(&sql, vec![IDENTIFIER.into()]).await?;
        let done = if let Some(row) = rows.first() {
            let same = |column, wanted: &str| Ok::<bool, Error>(row.text(column)?.as_deref() == Some(wanted));
            if same(0, SCOPE)? && same(1, CLASS)? && row.integer(2)? != 0 {
                return Ok(Registration::Ok);
            }
            let sql = self
                .sql("UPDATE {workers} SET scope = ?, class = ?, active = ?, updated_at = {now} WHERE identifier = ?");
            work.execute(&sql, vec![SCOPE.into(), CLASS.into(), true.into(), IDENTIFIER.into()]).await?;
            Registration::Updated
        } else {
            let rows = work.fetch(&self.sql("SELECT MAX(position) FROM {workers}"), Vec::new()).await?;
            let position = rows.first().map_or(Ok(0), |row| row.integer(0))? + 1;
            let sql = self.sql(
                "INSERT INTO {workers} (uuid, identifier, scope, class, active, position, settings, hidden, \
                 created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, '[]', 0, {now}, {now})",
            );
            let uuid = uuid::Uuid::new_v4().to_string();
            let values: Vec<Value> =
                vec![uuid.into(), IDENTIFIER.into(), SCOPE.into(), CLASS.into(), true.into(), position.into()];
            match work.execute(&sql, values).await {
                // Another process has just done it.
                Err(Error::Database(sqlx::Error::Database(error))) if error.is_unique_violation() => {
                    return Ok(Registration::Ok);
                }
                other => other?,
            };
            Registration::Created
        };
        work.commit().await?;
        Ok(done)
    }
}

impl Priority {
    /// The priority of sTask's word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        [Self::High, Self::Normal, Self::Low].into_iter().find(|priority| priority.as_str() == word)
    }
}

fn task(row: &Row) -> Result<Task, Error> {
    let text = |column| row.text(column).map(Option::unwrap_or_default);
    Ok(Task {
        id: row.integer(0)?,
        status: Status::of(row.integer(1)?),
        message: text(2)?,
        started_by: Some(row.integer(3)?).filter(|id| *id != 0),
        meta: text(4)?,
        result: String::new(),
        attempts: row.integer(5)?,
        max_attempts: row.integer(6)?,
        priority: text(7)?,
        progress: row.integer(8)?,
        created_at: text(9)?,
        start_at: text(10)?,
        finished_at: text(11)?,
    })
}
