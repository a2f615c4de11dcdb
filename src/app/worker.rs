//! A process that only works off the task queue.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::admin::settings;
use crate::app::control::Panel;
use crate::app::jobs::{RunningJobs, close_audit, open_audit};
use crate::app::plan::Plan;
use crate::app::policy::{PolicyInputs, PolicyStore};
use crate::app::process::{doors, observe};
use crate::app::signals::{Asked, Signals};
use crate::base::{Clock, SystemClock};
use crate::config;
use crate::executor::Executor;
use crate::jobs::Pass;
use crate::policy::QueueDriver;
use crate::store::Pool;
use crate::telemetry::Metrics;

/// Works until a signal ends it; with `once`, until nothing is due, and says what was done. Metrics and health are read
/// at `admin`.
///
/// # Errors
/// When the files name no queue, or something cannot start; with `once`, when the queue does not answer or the
/// audit log cannot be written.
pub async fn work(plan: Plan, once: bool, admin: Option<SocketAddr>) -> anyhow::Result<Option<Pass>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut signals = Signals::take()?;
    let Some(site) = plan.executor else { bail!("a worker needs executor.toml") };
    let inputs = PolicyInputs {
        files: plan.files,
        overrides: plan.overrides,
        extra_secrets: plan.extra_secrets,
        upstreams: None,
        data: plan.data,
        // A worker has no directory of its own, and does not start from the last good one.
        keeps: false,
        last_good: plan.last_good,
    };
    let policy =
        Arc::new(PolicyStore::start(inputs, Arc::clone(&clock)).map_err(|r| anyhow::anyhow!("{}", r.render()))?);
    let driver = policy.current().load().queue.driver;
    if matches!(driver, QueueDriver::Off | QueueDriver::Sync) {
        bail!("the policy names no queue: set queue.driver to \"own\" or \"stask\"");
    }
    let metrics = Metrics::new(&[])?;
    {
        let policy = policy.current().load();
        metrics.policy(policy.revision, &policy.digest, policy.loaded_at_ms);
    }
    let pool = Pool::open(&site.database).context("database")?;
    let executor = Arc::new(Executor::new(pool, Arc::clone(policy.current()), &site.executor, metrics.executor()?));
    let mut jobs = RunningJobs::new(&site, &executor, policy.current(), &metrics)?;
    let Some(settings) = &site.queue_worker else { bail!("executor.toml has no [queue_worker]") };
    let audit = open_audit(settings, &metrics)?;
    let _watch = match policy.path() {
        Some(path) => {
            let (policy, metrics) = (Arc::clone(&policy), Arc::clone(&metrics));
            let reload = move |_| drop(policy.reload(&metrics));
            Some(config::watch(path, reload).with_context(|| format!("cannot watch {}", path.display()))?)
        }
        None => None,
    };
    let (_closed, closing) = watch::channel(false);
    if admin.is_some() {
        let panel = Arc::new(Panel {
            policy: Arc::clone(&policy),
            metrics: Arc::clone(&metrics),
            log: None,
            gateway: None,
            limits: None,
            verifier: None,
            audit: Some(audit.clone()),
            executor: Some(Arc::clone(&executor)),
            executor_problem: Arc::new(Mutex::new(None)),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            started_ms: clock.now_ms(),
        });
        tokio::spawn(observe(Arc::clone(&executor), Arc::clone(&panel)));
        let doors_at = settings::Settings { listen: admin, hosts: Vec::new(), control: None };
        if let (Some(address), _) = doors(Some(&doors_at), "--admin", &panel, &closing)? {
            tracing::info!(%address, "admin listening");
        }
    }
    let asked_to_stop = async {
        loop {
            match signals.next().await {
                Asked::Stop => return,
                Asked::Reload => drop(policy.reload(&metrics)),
                Asked::Reopen => audit.reopen(),
            }
        }
    };
    let worked = match jobs.worker(audit.clone()).filter(|_| once) {
        Some(worker) => {
            let mut work = tokio::spawn(worker.once(jobs.stopped()));
            let done = tokio::select! {
                done = &mut work => done,
                () = asked_to_stop => {
                    jobs.stop(std::future::pending()).await;
                    let impatient = async { while signals.next().await != Asked::Stop {} };
                    tokio::select! {
                        done = &mut work => done,
                        () = impatient => {
                            work.abort();
                            work.await
                        }
                    }
                }
            };
            let done = done.map_err(anyhow::Error::from);
            done.and_then(|done| Ok(Some(done?)))
        }
        None => {
            jobs.observe(&site, policy.current());
            jobs.start(audit.clone());
            asked_to_stop.await;
            let impatient = async { while signals.next().await != Asked::Stop {} };
            jobs.stop(impatient).await;
            Ok(None)
        }
    };
    close_audit(audit).await;
    worked
}
