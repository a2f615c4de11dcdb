//! What is forgotten in time. A batch is a transaction of its own, so that none takes long however much there is.

use std::time::Duration;

use sea_query::Value;

use crate::store::queue::submit::ms;
use crate::store::queue::{Driver, Queue, retried};
use crate::store::{Error, Row};

/// How many rows are forgotten at a time.
const BATCH: usize = 500;

impl Queue {
    /// Forgets keys whose time is over, and whose task has ended; how many.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let over = "expires_ms <= {now_ms} AND NOT {unended}";
        self.forget(
            &format!("SELECT id FROM {{keys}} WHERE {over}"),
            &format!("DELETE FROM {{keys}} WHERE {over} AND id"),
            &[],
            |row| Ok(row.text(0)?.into()),
        )
        .await
    }

    /// Closes leases of tasks that others ended, and forgets what ended longer ago than `keep`: of our own driver the
    /// tasks, where no key asks for them any more, and of both what is known of their runs. How many tasks.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn prune(&self, keep: Duration) -> Result<u64, Error> {
        retried!(self, self.close_orphans())?;
        let keep = [Value::from(ms(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX)))];
        let number = |row: &Row| Ok(row.integer(0)?.into());
        let mut gone = 0;
        if self.driver == Driver::Own {
            let ended = "{tasks}.status IN (80, 100) \
                         AND NOT EXISTS (SELECT 1 FROM {keys} WHERE {keys}.task_id = {tasks}.id)";
            let old = "SELECT {tasks}.id FROM {leases} JOIN {tasks} ON {tasks}.id = {leases}.task_id \
                       WHERE {leases}.open = 0 AND {leases}.not_before_ms <= {now_ms} - ?";
            let found = format!("{old} AND {ended}");
            gone = self.forget(&found, &format!("DELETE FROM {{tasks}} WHERE {ended} AND id"), &keep, number).await?;
        }
        for (table, old) in
            [("{leases}", "open = 0 AND not_before_ms <= {now_ms} - ?"), ("{attempts}", "started_ms <= {now_ms} - ?")]
        {
            let alone = format!("NOT EXISTS (SELECT 1 FROM {{tasks}} WHERE {{tasks}}.id = {table}.task_id)");
            let found = format!("SELECT DISTINCT task_id FROM {table} WHERE {old} AND {alone}");
            let delete = format!("DELETE FROM {table} WHERE {alone} AND task_id");
            self.forget(&found, &delete, &keep, number).await?;
        }
        Ok(gone)
    }

    /// Looks for rows and deletes them, batch by batch; how many. What is deleted must say again why: in between,
    /// others may have made use of it.
    async fn forget(
        &self,
        found: &str,
        delete: &str,
        values: &[Value],
        id: impl Fn(&Row) -> Result<Value, Error>,
    ) -> Result<u64, Error> {
        let found = self.sql(&format!("{found} LIMIT {BATCH}"));
        let mut gone = 0;
        loop {
            let (ids, deleted) = retried!(self, async {
                let mut work = self.begin().await?;
                let rows = work.fetch(&found, values.to_vec()).await?;
                let ids = rows.iter().map(&id).collect::<Result<Vec<Value>, Error>>()?;
                let mut deleted = 0;
                let count = ids.len();
                if count > 0 {
                    let marks = vec!["?"; count].join(", ");
                    deleted = work.execute(&self.sql(&format!("{delete} IN ({marks})")), ids).await?;
                }
                work.commit().await?;
                Ok::<_, Error>((count, deleted))
            })?;
            gone += deleted;
            if ids < BATCH || deleted == 0 {
                return Ok(gone);
            }
        }
    }

    /// Closes open leases whose task was ended or deleted behind our back, as in sTask's screens: whoever runs it loses
    /// it. The code stays, so that the task can be retried.
    async fn close_orphans(&self) -> Result<(), Error> {
        let mut work = self.begin().await?;
        let alive = "EXISTS (SELECT 1 FROM {tasks} WHERE {tasks}.id = {leases}.task_id \
                     AND {tasks}.identifier = {identifier} AND {tasks}.status NOT IN (80, 100))";
        let sql = self.sql(&format!(
            "SELECT task_id, runs, not_before_ms FROM {{leases}} WHERE open = 1 AND NOT {alive} LIMIT {BATCH}"
        ));
        let orphans = work.fetch(&sql, Vec::new()).await?;
        // Fenced by what was seen, since an operator may have the task run again in between.
        let close = self.sql(
            "UPDATE {leases} SET open = 0, holder = NULL, until_ms = 0, not_before_ms = {now_ms} \
             WHERE task_id = ? AND open = 1 AND runs = ? AND not_before_ms = ?",
        );
        let end = self.sql(
            "UPDATE {attempts} SET ended_ms = {now_ms}, outcome = 'cancelled' WHERE task_id = ? AND ended_ms IS NULL",
        );
        for orphan in &orphans {
            let id = Value::from(orphan.integer(0)?);
            let seen = vec![id.clone(), orphan.integer(1)?.into(), orphan.integer(2)?.into()];
            if work.execute(&close, seen).await? == 1 {
                work.execute(&end, vec![id]).await?;
            }
        }
        work.commit().await
    }
}
