//! New tasks, and requests that were seen before.

use sea_query::Value;

use crate::store::queue::writer::Work;
use crate::store::queue::{Driver, IDENTIFIER, Priority, Queue, Status, retried};
use crate::store::{Error, Row};

/// What sTask's screens show while a task waits.
const QUEUED: &str = "Queued by mcp-sidecar";

/// A task to be made.
pub struct NewTask<'a> {
    /// JSON, which holds [`Key::id`] where there is a key: a key leads to no other task.
    pub meta: &'a str,
    pub started_by: Option<u64>,
    pub priority: Priority,
    pub max_attempts: u32,
    /// The code over the row, once its id is known.
    pub seal: &'a (dyn Fn(i64) -> String + Send + Sync),
}

/// What makes a request the same as another.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// 64 hex digits that stand for caller and key.
    pub id: &'a str,
    pub payload_hash: &'a str,
    /// Of the first request.
    pub trace_id: &'a str,
    pub ttl_ms: u64,
}

/// What is known of a request that came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub payload_hash: String,
    /// `None` where it was answered at once.
    pub task_id: Option<i64>,
    pub trace_id: String,
    /// The task's status; of an answer at once, whether it is there.
    pub status: Status,
    /// JSON, once finished.
    pub result: Option<String>,
    /// Why it failed.
    pub message: Option<String>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The new task's id; 0 for a key alone.
    New(i64),
    Known(Record),
}

impl Queue {
    /// Makes a task, unless the key is known already. Of any number of requests with one key, one makes it.
    ///
    /// # Errors
    /// When the database does not do it; then there is no task and no key.
    pub async fn submit(&self, task: &NewTask<'_>, key: Option<Key<'_>>) -> Result<Submitted, Error> {
        retried!(self, self.try_submit(task, key))
    }

    async fn try_submit(&self, task: &NewTask<'_>, key: Option<Key<'_>>) -> Result<Submitted, Error> {
        let mut work = self.begin().await?;
        if let Some(key) = key
            && let Some(record) = self.take_key(&mut work, key).await?
        {
            work.commit().await?;
            return Ok(Submitted::Known(record));
        }
        let sql = self.sql(
            "INSERT INTO {tasks} (identifier, action, status, message, started_by, meta, attempts, max_attempts, \
             priority, progress, created_at, updated_at) VALUES (?, 'dispatch', ?, ?, ?, ?, 0, ?, ?, 0, {now}, {now})",
        );
        // sTask's column is an INT: a number that it cannot hold would be another user's, or no row at all.
        let most = if self.driver == Driver::Stask { i64::from(i32::MAX) } else { i64::MAX };
        let started_by = task.started_by.and_then(|id| i64::try_from(id).ok()).filter(|id| *id <= most);
        let values: Vec<Value> = vec![
            IDENTIFIER.into(),
            Status::Preparing.code().into(),
            QUEUED.into(),
            started_by.into(),
            task.meta.into(),
            i64::from(task.max_attempts).into(),
            task.priority.as_str().into(),
        ];
        let id = work.insert(&sql, values).await?;
        self.enlist(&mut work, id, &(task.seal)(id), task.priority).await?;
        if let Some(key) = key {
            let sql = self.sql("UPDATE {keys} SET task_id = ? WHERE id = ?");
            work.execute(&sql, vec![id.into(), key.id.into()]).await?;
        }
        work.commit().await?;
        Ok(Submitted::New(id))
    }

    /// Takes a key alone, for a request that is answered at once.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn reserve(&self, key: Key<'_>) -> Result<Submitted, Error> {
        retried!(self, async {
            let mut work = self.begin().await?;
            let known = self.take_key(&mut work, key).await?;
            work.commit().await?;
            Ok::<_, Error>(known.map_or(Submitted::New(0), Submitted::Known))
        })
    }

    /// Keeps the answer of a request that took a key alone.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn keep(&self, key: Key<'_>, result: &str) -> Result<(), Error> {
        let sql = self.sql("UPDATE {keys} SET result = ?, expires_ms = {now_ms} + ? WHERE id = ? AND payload_hash = ?");
        retried!(self, async {
            let mut work = self.begin().await?;
            let values = vec![result.into(), ms(key.ttl_ms).into(), key.id.into(), key.payload_hash.into()];
            work.execute(&sql, values).await?;
            work.commit().await
        })
    }

    /// Frees a key whose request came to nothing.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn release(&self, key: Key<'_>) -> Result<(), Error> {
        let sql = self.sql("DELETE FROM {keys} WHERE id = ? AND task_id IS NULL AND result IS NULL");
        retried!(self, async {
            let mut work = self.begin().await?;
            work.execute(&sql, vec![key.id.into()]).await?;
            work.commit().await
        })
    }

    /// Takes the key; what is known of it where somebody has it.
    async fn take_key(&self, work: &mut Work, key: Key<'_>) -> Result<Option<Record>, Error> {
        let sql = self.sql("DELETE FROM {keys} WHERE id = ? AND expires_ms <= {now_ms} AND NOT {unended}");
        work.execute(&sql, vec![key.id.into()]).await?;
        let sql = self.sql(
            "{insert} INTO {keys} (id, payload_hash, trace_id, expires_ms) VALUES (?, ?, ?, {now_ms} + ?){otherwise}",
        );
        let values: Vec<Value> =
            vec![key.id.into(), key.payload_hash.into(), key.trace_id.into(), ms(key.ttl_ms).into()];
        if work.execute(&sql, values).await? == 1 {
            return Ok(None);
        }
        // Ids start again where sTask's table was emptied: a task of the same number may be another's.
        let sql = self.sql(
            "SELECT k.payload_hash, k.task_id, k.trace_id, k.result, t.status, t.result, t.message FROM {keys} k \
             LEFT JOIN {tasks} t ON t.id = k.task_id AND t.identifier = {identifier} \
             AND CAST(t.meta AS {text}) LIKE ? WHERE k.id = ?",
        );
        let rows = work.fetch(&sql, vec![format!("%{}%", key.id).into(), key.id.into()]).await?;
        // Whoever had it has just given it up.
        rows.first().map_or(Err(Error::Contended), |row| record(row).map(Some))
    }
}

fn record(row: &Row) -> Result<Record, Error> {
    let task_id = Some(row.integer(1)?).filter(|id| *id != 0);
    let kept = row.text(3)?;
    let (status, result, message) = match (task_id, &kept) {
        (Some(_), _) => match Status::of(row.integer(4)?) {
            Some(status) => (status, row.text(5)?, row.text(6)?),
            None => (Status::Failed, None, Some("The task was removed".to_owned())),
        },
        (None, Some(_)) => (Status::Finished, kept, None),
        (None, None) => (Status::Running, None, None),
    };
    Ok(Record {
        payload_hash: row.text(0)?.unwrap_or_default(),
        task_id,
        trace_id: row.text(2)?.unwrap_or_default(),
        status,
        result: result.filter(|_| status == Status::Finished),
        message: message.filter(|_| status == Status::Failed),
    })
}

pub(super) fn ms(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX / 2)
}
