//! The task queue's tables: who waits, who works on what, and which requests were seen before.
//!
//! A task is a row in sTask's shape: in `s_tasks` itself ([`Driver::Stask`]), or in a table of ours
//! ([`Driver::Own`]). What sTask knows nothing of stands beside it in tables of ours: the lease, with the code that
//! proves who made the row; one line per run; and the idempotency keys.
//!
//! Invariants: a task, its lease and its key appear in one transaction. A lease is taken and given back by one
//! conditional update each, fenced by holder and run, so that of any number of workers one has a task, and who lost
//! it cannot complete it. Time is the database's. The site's own tables are never touched.
//!
//! Non-goals: what a task means, how often it is tried, who may see it (`jobs`).

mod lease;
mod operate;
mod probe;
mod schema;
mod submit;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use lease::{Claim, Settlement};
pub use operate::{Registration, Task, Undone};
pub use submit::{Key, NewTask, Record, Submitted};

use crate::store::queue::schema::Names;
use crate::store::queue::writer::{Work, Writer};
use crate::store::{Dialect, Error, Settings};

/// What rows of ours carry in `identifier`, and the row in `s_workers`.
pub const IDENTIFIER: &str = "emcp_dispatch";
/// Of a key, that its task has not ended.
const UNENDED: &str = "EXISTS (SELECT 1 FROM {tasks} WHERE {tasks}.id = {keys}.task_id \
                       AND {tasks}.identifier = {identifier} AND {tasks}.status IN (10, 30, 50))";
/// How often work that others were in the way of is begun again.
const TRIES: u32 = 8;

/// Whose table the tasks are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `mcp_tasks`, made when it is missing.
    Own,
    /// sTask's `s_tasks`, which must be there.
    Stask,
}

/// sTask's states of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Queued,
    Preparing,
    Running,
    Finished,
    Failed,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Preparing, Self::Running, Self::Finished, Self::Failed];

    /// The number in the column.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::Queued => 10,
            Self::Preparing => 30,
            Self::Running => 50,
            Self::Finished => 80,
            Self::Failed => 100,
        }
    }

    /// sTask's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "pending",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Finished => "completed",
            Self::Failed => "failed",
        }
    }

    /// The status of this number.
    #[must_use]
    pub fn of(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

/// How urgent a task is; sTask's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

impl Priority {
    /// sTask's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// The queue; clones share its connections.
#[derive(Clone, Debug)]
pub struct Queue {
    writer: Writer,
    names: Arc<Names>,
    driver: Driver,
    limit: Duration,
    made: Arc<AtomicBool>,
    making: Arc<tokio::sync::Mutex<()>>,
}

/// Does the work, again where others were in its way, and gives up when its time is over.
macro_rules! retried {
    ($queue:expr, $work:expr) => {{
        let mut tries = 0;
        loop {
            match tokio::time::timeout($queue.limit, $work).await {
                Err(_) => break Err($crate::store::Error::Slow($queue.limit)),
                Ok(Err(error)) if error.is_contention() && tries < $crate::store::queue::TRIES => {
                    tries += 1;
                    $crate::store::queue::step_aside(tries).await;
                }
                Ok(done) => break done,
            }
        }
    }};
}
use retried;

impl Queue {
    /// A queue that connects when first needed, over connections that may write.
    ///
    /// # Errors
    /// When the URL or the prefix cannot be used.
    pub fn open(settings: &Settings, driver: Driver) -> Result<Self, Error> {
        if !settings.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Error::InvalidPrefix);
        }
        Ok(Self {
            writer: Writer::open(settings, driver)?,
            names: Arc::new(Names::new(&settings.prefix, driver)),
            driver,
            limit: settings.statement_timeout,
            made: Arc::default(),
            making: Arc::default(),
        })
    }

    /// Whose table the tasks are in.
    #[must_use]
    pub const fn driver(&self) -> Driver {
        self.driver
    }

    /// Makes the tables that are missing, and looks whether the tasks' own is there.
    ///
    /// # Errors
    /// When the database does not answer, or sTask's table is missing.
    pub async fn ready(&self) -> Result<(), Error> {
        retried!(self, self.make())
    }

    async fn make(&self) -> Result<(), Error> {
        let _alone = self.making.lock().await;
        if !self.made.load(Ordering::Relaxed) {
            for statement in self.names.statements(self.dialect(), self.driver) {
                let mut work = self.writer.begin().await?;
                match work.execute(&statement, Vec::new()).await {
                    Ok(_) => work.commit().await?,
                    Err(error) if error.is_there_already() => return Err(Error::Contended),
                    Err(error) => {
                        drop(work);
                        // Who may not make tables may use those that are there.
                        if self.is_there().await {
                            break;
                        }
                        return Err(error);
                    }
                }
            }
        }
        let mut work = self.writer.begin().await?;
        let looked = work.fetch(&format!("SELECT id FROM {} WHERE id = 0", self.names.tasks), Vec::new()).await;
        match looked {
            Err(error) if error.is_schema() => {
                self.made.store(false, Ordering::Relaxed);
                Err(Error::NoTable(self.names.tasks.clone()))
            }
            Err(error) => Err(error),
            Ok(_) => {
                self.made.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Whether all tables can be read.
    async fn is_there(&self) -> bool {
        let Names { tasks, leases, attempts, keys, .. } = &*self.names;
        for table in [tasks, leases, attempts, keys] {
            let Ok(mut work) = self.writer.begin().await else { return false };
            if work.fetch(&format!("SELECT 1 FROM {table} WHERE 1 = 0"), Vec::new()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Begins work on tables that are there.
    async fn begin(&self) -> Result<Work, Error> {
        if !self.made.load(Ordering::Relaxed) {
            self.make().await?;
        }
        self.writer.begin().await
    }

    const fn dialect(&self) -> Dialect {
        self.writer.dialect()
    }

    /// A statement's text with the names of the tables and of this moment filled in. `{insert}` … `{otherwise}` adds a
    /// row unless it is there.
    fn sql(&self, text: &str) -> String {
        text.replace("{unended}", UNENDED)
            .replace("{tasks}", &self.names.tasks)
            .replace("{leases}", &self.names.leases)
            .replace("{attempts}", &self.names.attempts)
            .replace("{keys}", &self.names.keys)
            .replace("{workers}", &self.names.workers)
            .replace("{identifier}", &format!("'{IDENTIFIER}'"))
            .replace("{insert}", if self.dialect() == Dialect::MySql { "INSERT IGNORE" } else { "INSERT" })
            .replace("{otherwise}", if self.dialect() == Dialect::MySql { "" } else { " ON CONFLICT DO NOTHING" })
            .replace("{now_ms}", schema::now_ms(self.dialect()))
            .replace("{now}", schema::now(self.dialect()))
            .replace("{text}", if self.dialect() == Dialect::MySql { "CHAR" } else { "TEXT" })
    }
}

/// Waits a moment that differs from everybody else's.
async fn step_aside(tries: u32) {
    let most = 5_u64 << tries.min(6);
    tokio::time::sleep(Duration::from_millis(rand::random_range(1..=most))).await;
}
