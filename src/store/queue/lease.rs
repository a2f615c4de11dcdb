//! Leases: how one of many workers gets a task, keeps it, and gives it back.

use std::time::Duration;

use sea_query::Value;

use crate::store::queue::writer::Work;
use crate::store::queue::{Priority, Queue, Status, retried};
use crate::store::{Dialect, Error};

/// How many tasks are looked at for one that nobody else has taken meanwhile.
const CANDIDATES: u32 = 16;

/// A task that this worker has, until its lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub id: i64,
    /// Counts every run of the task, by anybody; what the lease is fenced by.
    pub run: i64,
    /// Which attempt this is, from 1; starts again when an operator retries.
    pub attempt: i64,
    pub max_attempts: i64,
    /// Whose lease was lost before this one, if so.
    pub lost: Option<String>,
    pub meta: String,
    pub mac: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub enum Settlement<'a> {
    /// The result, as JSON; the request's key then lives on for so long.
    Finished {
        result: &'a str,
        key: Option<(&'a str, u64)>,
    },
    Failed {
        message: &'a str,
    },
    /// It is to be run again, by anybody, after this time.
    Again {
        message: &'a str,
        after: Duration,
        /// Whether this run was one of its attempts.
        counts: bool,
    },
}

impl Settlement<'_> {
    const fn outcome(self) -> &'static str {
        match self {
            Self::Finished { .. } => "finished",
            Self::Failed { .. } => "failed",
            Self::Again { .. } => "again",
        }
    }
}

impl Queue {
    /// Takes the most urgent task that is due and that nobody has, or whose worker was lost.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Claim>, Error> {
        retried!(self, self.try_claim(worker, lease))
    }

    async fn try_claim(&self, worker: &str, lease: Duration) -> Result<Option<Claim>, Error> {
        let mut work = self.begin().await?;
        let sql = self.sql(&format!(
            "SELECT l.task_id, l.holder FROM {{leases}} l JOIN {{tasks}} t ON t.id = l.task_id WHERE l.open = 1 \
             AND l.not_before_ms <= {{now_ms}} AND l.until_ms <= {{now_ms}} AND t.status IN (30, 50) \
             AND t.identifier = {{identifier}} ORDER BY l.urgency, l.task_id LIMIT {CANDIDATES}"
        ));
        let candidates = work.fetch(&sql, Vec::new()).await?;
        // A row that somebody holds is passed over: who holds it may stand still. MySQL's older versions cannot say so;
        // there the wait is short. SQLite has no locks of rows.
        let row = match self.dialect() {
            Dialect::Postgres => "(SELECT task_id FROM {leases} WHERE task_id = ? FOR UPDATE SKIP LOCKED)",
            Dialect::MySql | Dialect::Sqlite => "?",
        };
        let take = self.sql(&format!(
            "UPDATE {{leases}} SET holder = ?, until_ms = {{now_ms}} + ?, runs = runs + 1 WHERE task_id = {row} \
             AND open = 1 AND not_before_ms <= {{now_ms}} AND until_ms <= {{now_ms}}",
        ));
        let run = self.sql(
            "UPDATE {tasks} SET status = 50, progress = 10, attempts = attempts + 1, start_at = {now}, \
             updated_at = {now} WHERE id = ? AND identifier = {identifier} AND status IN (30, 50)",
        );
        for candidate in &candidates {
            let id = candidate.integer(0)?;
            let values = vec![worker.into(), millis(lease).into(), id.into()];
            match work.execute(&take, values).await {
                Ok(0) => continue,
                Err(error) if error.is_held() => continue,
                taken => taken?,
            };
            if work.execute(&run, vec![id.into()]).await? == 0 {
                // Somebody ended it in sTask's own screens.
                let sql = self.sql(
                    "UPDATE {leases} SET open = 0, holder = NULL, until_ms = 0, not_before_ms = {now_ms} \
                     WHERE task_id = ?",
                );
                work.execute(&sql, vec![id.into()]).await?;
                continue;
            }
            let sql = self.sql(
                "UPDATE {attempts} SET ended_ms = {now_ms}, outcome = 'lost' WHERE task_id = ? AND ended_ms IS NULL",
            );
            work.execute(&sql, vec![id.into()]).await?;
            let sql = self.sql(
                "SELECT l.runs, t.attempts, t.max_attempts, t.meta, l.mac FROM {leases} l \
                 JOIN {tasks} t ON t.id = l.task_id WHERE l.task_id = ?",
            );
            let rows = work.fetch(&sql, vec![id.into()]).await?;
            let Some(row) = rows.first() else { return Err(Error::Contended) };
            let claim = Claim {
                id,
                run: row.integer(0)?,
                attempt: row.integer(1)?,
                max_attempts: row.integer(2)?,
                lost: candidate.text(1)?,
                meta: row.text(3)?.unwrap_or_default(),
                mac: row.text(4)?.unwrap_or_default(),
            };
            // The run began when its lease did: a worker that stood still since then has less of it left, or nothing.
            let sql = self.sql(
                "INSERT INTO {attempts} (task_id, run, worker, started_ms) \
                 SELECT task_id, runs, holder, until_ms - ? FROM {leases} WHERE task_id = ?",
            );
            work.execute(&sql, vec![millis(lease).into(), id.into()]).await?;
            work.commit().await?;
            return Ok(Some(claim));
        }
        work.commit().await?;
        Ok(None)
    }

    /// Takes over tasks of sTask's that others made and nobody has begun: they get a lease without a code. How many.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn adopt(&self) -> Result<u64, Error> {
        retried!(self, self.try_adopt())
    }

    async fn try_adopt(&self) -> Result<u64, Error> {
        let mut work = self.begin().await?;
        // A lease may be that of an earlier task of this number. What says that we made it is not others'.
        let sql = self.sql(&format!(
            "SELECT t.id, t.priority FROM {{tasks}} t LEFT JOIN {{leases}} l ON l.task_id = t.id \
             WHERE (l.task_id IS NULL OR COALESCE(CAST(t.meta AS {{text}}), '') NOT LIKE '%\"mcp_sidecar\":%') \
             AND t.identifier = {{identifier}} AND t.action = 'dispatch' AND t.status = 10 \
             AND (t.start_at IS NULL OR t.start_at <= {{now}}) ORDER BY t.id LIMIT {CANDIDATES}"
        ));
        let found = work.fetch(&sql, Vec::new()).await?;
        let mut adopted = 0;
        for row in &found {
            let id = row.integer(0)?;
            let priority = row.text(1)?.and_then(|word| Priority::of(&word)).unwrap_or_default();
            let sql = self.sql("UPDATE {tasks} SET status = 30, updated_at = {now} WHERE id = ? AND status = 10");
            if work.execute(&sql, vec![id.into()]).await? == 1 {
                self.enlist(&mut work, id, "", priority).await?;
                adopted += 1;
            }
        }
        work.commit().await?;
        Ok(adopted)
    }

    /// Gives a new task its lease. Ids start again where sTask's table was emptied: what is known of an earlier task of
    /// this number goes, but for the count of runs, by which whoever runs that one is fenced off.
    pub(super) async fn enlist(&self, work: &mut Work, id: i64, mac: &str, priority: Priority) -> Result<(), Error> {
        let sql = self
            .sql("{insert} INTO {leases} (mac, urgency, task_id, not_before_ms) VALUES (?, ?, ?, {now_ms}){otherwise}");
        let values: Vec<Value> = vec![mac.into(), (priority as i64).into(), id.into()];
        if work.execute(&sql, values.clone()).await? == 1 {
            return Ok(());
        }
        let sql = self.sql(
            "UPDATE {leases} SET mac = ?, urgency = ?, holder = NULL, until_ms = 0, open = 1, not_before_ms = {now_ms} \
             WHERE task_id = ?",
        );
        work.execute(&sql, values).await?;
        work.execute(&self.sql("DELETE FROM {attempts} WHERE task_id = ?"), vec![id.into()]).await?;
        Ok(())
    }

    /// Keeps a task for another `lease` from now; `false` when it is this worker's no more.
    ///
    /// # Errors
    /// When the database does not answer: whether the lease holds is then unknown.
    pub async fn renew(&self, claim: &Claim, worker: &str, lease: Duration) -> Result<bool, Error> {
        let sql = self.sql(
            "UPDATE {leases} SET until_ms = {now_ms} + ? WHERE task_id = ? AND holder = ? AND runs = ? AND open = 1",
        );
        retried!(self, async {
            let mut work = self.begin().await?;
            let values = vec![millis(lease).into(), claim.id.into(), worker.into(), claim.run.into()];
            let kept = work.execute(&sql, values).await? == 1;
            work.commit().await?;
            Ok::<bool, Error>(kept)
        })
    }

    /// Ends a run; `false` when the task is this worker's no more, and then nothing was changed.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn settle(&self, claim: &Claim, worker: &str, how: Settlement<'_>) -> Result<bool, Error> {
        retried!(self, self.try_settle(claim, worker, how))
    }

    async fn try_settle(&self, claim: &Claim, worker: &str, how: Settlement<'_>) -> Result<bool, Error> {
        let mut work = self.begin().await?;
        let again = if let Settlement::Again { after, .. } = how { Some(after) } else { None };
        let taken_back = matches!(how, Settlement::Again { counts: false, .. });
        let sql = self.sql(
            "UPDATE {leases} SET holder = NULL, until_ms = 0, open = ?, not_before_ms = {now_ms} + ? \
             WHERE task_id = ? AND holder = ? AND runs = ? AND open = 1",
        );
        let values: Vec<Value> = vec![
            i64::from(again.is_some()).into(),
            millis(again.unwrap_or_default()).into(),
            claim.id.into(),
            worker.into(),
            claim.run.into(),
        ];
        if work.execute(&sql, values).await? == 0 {
            return Ok(false);
        }
        let (status, progress, message, result) = match how {
            Settlement::Finished { result, .. } => (Status::Finished, 100, None, Some(result)),
            Settlement::Failed { message } => (Status::Failed, 10, Some(message), None),
            Settlement::Again { message, .. } => (Status::Preparing, 0, Some(message), None),
        };
        let finished = if again.is_some() { "NULL" } else { "{now}" };
        let sql = self.sql(&format!(
            "UPDATE {{tasks}} SET status = ?, progress = ?, message = COALESCE(?, message), result = ?, \
             attempts = attempts - ?, finished_at = {finished}, updated_at = {{now}} \
             WHERE id = ? AND identifier = {{identifier}} AND status = 50"
        ));
        let values: Vec<Value> = vec![
            status.code().into(),
            i64::from(progress).into(),
            message.map(str::to_owned).into(),
            result.map(str::to_owned).into(),
            i64::from(taken_back).into(),
            claim.id.into(),
        ];
        if work.execute(&sql, values).await? == 0 {
            // Ended in sTask's own screens: the lease stays as it was, until it is pruned, and nobody claims it again.
            return Ok(false);
        }
        if let Settlement::Finished { key: Some((key, ttl_ms)), .. } = how {
            let sql = self.sql("UPDATE {keys} SET expires_ms = {now_ms} + ? WHERE id = ? AND task_id = ?");
            let ttl_ms = i64::try_from(ttl_ms).unwrap_or(i64::MAX / 2);
            work.execute(&sql, vec![ttl_ms.into(), key.into(), claim.id.into()]).await?;
        }
        let sql = self.sql("UPDATE {attempts} SET ended_ms = {now_ms}, outcome = ? WHERE task_id = ? AND run = ?");
        work.execute(&sql, vec![how.outcome().into(), claim.id.into(), claim.run.into()]).await?;
        work.commit().await?;
        Ok(true)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}
