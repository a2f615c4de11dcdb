use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::jobs::{RunningJobs, open_audit};
use crate::app::process::unavailable;
use crate::audit::Audit;
use crate::config;
use crate::executor::{Executor, Listen, Listener, serve};
use crate::jobs;
use crate::policy::Snapshot;
use crate::store::{self, Pool};
use crate::telemetry::Metrics;

/// Makes the demo site in a new SQLite file, with `documents` generated documents beside its twelve.
///
/// # Errors
/// When the file cannot be written.
pub async fn demo_site(path: &std::path::Path, documents: u32) -> anyhow::Result<()> {
    store::demo::create(path, documents).await.context("cannot make the demo site")?;
    Ok(())
}

/// Gives the demo site's administrator a new random password, and says which.
///
/// # Errors
/// When the file cannot be written.
pub async fn demo_password(path: &std::path::Path) -> anyhow::Result<String> {
    let mut bytes = [0_u8; 15];
    rand::rng().fill_bytes(&mut bytes);
    let password = URL_SAFE_NO_PAD.encode(bytes);
    // What is random needs no dear hash.
    let hash = bcrypt::hash(&password, 4).map_err(|error| anyhow::anyhow!("{error}"))?;
    store::demo::set_password(path, "admin", &hash).await.context("cannot write the demo site")?;
    Ok(password)
}

/// The tool executor of this process.
pub struct RunningExecutor {
    pub executor: Arc<Executor>,
    jobs: RunningJobs,
    /// Its settings, where this process is to work on tasks.
    works: Option<jobs::Settings>,
    task: JoinHandle<std::io::Result<()>>,
    stop: watch::Sender<bool>,
}

impl RunningExecutor {
    /// Binds and serves.
    ///
    /// # Errors
    /// When the place is taken or the database settings cannot be used.
    pub async fn start(
        plan: &config::Executor,
        policy: Arc<ArcSwap<Snapshot>>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let pool = Pool::open(&plan.database).context("database")?;
        let executor = Executor::new(pool, Arc::clone(&policy), &plan.executor, metrics.executor()?);
        let executor = Arc::new(executor.with_sessions(plan.sessions.clone()).context("executor.manager.redis_url")?);
        let jobs = RunningJobs::new(plan, &executor, &policy, metrics)?;
        let listener = Listener::bind(&plan.executor.listen).await.map_err(|error| match &plan.executor.listen {
            Listen::Unix(path) => unavailable(error, path.display(), "executor.socket"),
            Listen::Tcp { address, .. } => unavailable(error, address, "executor.listen"),
        })?;
        jobs.observe(plan, &policy);
        let (stop, mut stopped) = watch::channel(false);
        let served = Arc::clone(&executor);
        let task = tokio::spawn(serve(listener, served, async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        let works = plan.queue_worker.clone().filter(|settings| settings.inside);
        Ok(Self { executor, jobs, works, task, stop })
    }

    /// Begins to work on tasks, if this process is to. The lines of the runs go to the proxy's log, or where there is
    /// none to one of their own, which is returned.
    ///
    /// # Errors
    /// When that log cannot be opened.
    pub fn work(&mut self, proxys: Option<&Audit>, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Audit>> {
        let Some(settings) = &self.works else { return Ok(None) };
        let own = match proxys {
            Some(_) => None,
            None => Some(open_audit(settings, metrics)?),
        };
        if let Some(audit) = proxys.or(own.as_ref()) {
            self.jobs.start(audit.clone());
        }
        Ok(own)
    }

    /// Takes no more tasks, and waits until those at work have ended or were given back.
    pub async fn rest(&mut self, impatient: impl Future<Output = ()>) {
        self.jobs.stop(impatient).await;
    }

    /// Stops accepting and waits for calls in progress, at most `limit`.
    pub async fn stop(self, limit: std::time::Duration) {
        self.stop.send_replace(true);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(limit, self.task).await.is_err() {
            abort.abort();
        }
    }
}
