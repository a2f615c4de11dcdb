use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::admin::{self, Control, ControlSocket};
use crate::app::control::Panel;
use crate::app::executor::RunningExecutor;
use crate::app::jobs::close_audit;
use crate::app::plan::Plan;
use crate::app::policy::{PolicyInputs, PolicyStore};
use crate::app::sidecar::RunningSidecar;
use crate::app::signals::{Asked, Signals};
use crate::base::{Clock, SystemClock};
use crate::config;
use crate::executor::Executor;
use crate::limits::{Limits, Mode};
use crate::policy::{OnStoreFailure, Snapshot};
use crate::proxy::listen;
use crate::telemetry::{LogHandle, Metrics, event};

/// What is up, for whoever prints it.
pub struct Up {
    pub mcp: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub control: Option<PathBuf>,
    pub policy: Arc<Snapshot>,
}

/// Runs what the plan names until a signal or `ctl drain` ends it. `announce` is called once all is up.
///
/// # Errors
/// When something cannot start; nothing is left running then.
pub async fn run(plan: Plan, log: Option<LogHandle>, announce: impl FnOnce(&Up)) -> anyhow::Result<()> {
    run_until(plan, log, announce, std::future::pending()).await
}

/// [`run`], which `ended` ends as well.
///
/// # Errors
/// When something cannot start; nothing is left running then.
pub async fn run_until(
    plan: Plan,
    log: Option<LogHandle>,
    announce: impl FnOnce(&Up),
    ended: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut signals = Signals::take()?;
    let upstreams = plan.sidecar.as_ref().map(|s| s.proxy.upstreams.keys().cloned().collect());
    let inputs = PolicyInputs {
        files: plan.files,
        overrides: plan.overrides,
        extra_secrets: plan.extra_secrets,
        upstreams,
        data: plan.data,
        keeps: true,
        last_good: plan.last_good,
    };
    let policy =
        Arc::new(PolicyStore::start(inputs, Arc::clone(&clock)).map_err(|r| anyhow::anyhow!("{}", r.render()))?);
    let first = policy.current().load_full();
    let handles = first.labels();
    let metrics = Metrics::new(&handles)?;
    metrics.policy(first.revision, &first.digest, first.loaded_at_ms);

    let mut executor = match &plan.executor {
        Some(settings) => Some(RunningExecutor::start(settings, Arc::clone(policy.current()), &metrics).await?),
        None => None,
    };
    let sidecar = match &plan.sidecar {
        Some(settings) => Some(RunningSidecar::start(settings, &policy, &metrics, &clock).await?),
        None => None,
    };
    let proxys = sidecar.as_ref().map(|sidecar| &sidecar.audit);
    let own = match &mut executor {
        Some(executor) => executor.work(proxys, &metrics)?,
        None => None,
    };
    let audit = proxys.cloned().or(own);
    let panel = Arc::new(Panel {
        policy: Arc::clone(&policy),
        metrics: Arc::clone(&metrics),
        log,
        gateway: sidecar.as_ref().map(|sidecar| Arc::clone(&sidecar.gateway)),
        limits: sidecar.as_ref().map(|sidecar| Arc::clone(&sidecar.limits)),
        verifier: sidecar.as_ref().map(|sidecar| Arc::clone(&sidecar.verifier)),
        audit: audit.clone(),
        executor: executor.as_ref().map(|executor| Arc::clone(&executor.executor)),
        executor_problem: Arc::new(Mutex::new(None)),
        stopping: AtomicBool::new(false),
        stop: Notify::new(),
        started_ms: clock.now_ms(),
    });
    let (closed, ending) = watch::channel(false);
    if let Some(executor) = &executor {
        // Looked at once before anybody is told that this process is up.
        look(&executor.executor, &panel).await;
        tokio::spawn(observe(Arc::clone(&executor.executor), Arc::clone(&panel)));
    }
    if let Some(limits) = panel.limits.as_ref().filter(|limits| limits.mode() != Mode::Memory) {
        tokio::spawn(observe_limits(Arc::clone(limits), Arc::clone(&policy)));
    }
    // Where both run in one process, the proxy's doors are the process's.
    let (settings, key) = match (&plan.sidecar, &plan.executor) {
        (Some(sidecar), _) => (Some(&sidecar.admin), "admin.listen"),
        (None, executor) => (executor.as_ref().map(|executor| &executor.admin), "executor.admin.listen"),
    };
    let (admin_address, control_path) = doors(settings, key, &panel, &ending)?;
    let _watch = watch_policy(&panel)?;
    announce(&Up {
        mcp: sidecar.as_ref().map_or_else(Vec::new, |sidecar| sidecar.addresses.clone()),
        admin: admin_address,
        control: control_path,
        policy: first,
    });

    tokio::select! {
        () = serve(&mut signals, &panel, sidecar.as_ref()) => {}
        () = ended => {}
    }
    panel.stopping.store(true, Ordering::Relaxed);
    event::draining(&metrics, panel.gateway.as_ref().map_or(0, |gateway| gateway.in_flight()));
    let (hurry, hurried) = watch::channel(false);
    {
        let orderly = async {
            tokio::join!(
                async {
                    if let Some(sidecar) = sidecar {
                        sidecar.stop(until(hurried.clone())).await;
                    }
                },
                async {
                    if let Some(executor) = &mut executor {
                        executor.rest(until(hurried.clone())).await;
                    }
                },
            );
        };
        tokio::pin!(orderly);
        let impatient = async { while signals.next().await != Asked::Stop {} };
        tokio::select! {
            () = &mut orderly => {}
            () = impatient => {
                hurry.send_replace(true);
                orderly.await;
            }
        }
    }
    if let Some(audit) = audit {
        close_audit(audit).await;
    }
    if let Some(executor) = executor {
        executor.stop(Duration::from_secs(2)).await;
    }
    closed.send_replace(true);
    Ok(())
}

/// Waits for the end, doing what signals ask for meanwhile.
async fn serve(signals: &mut Signals, panel: &Arc<Panel>, sidecar: Option<&RunningSidecar>) {
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => return,
                Asked::Reload => {
                    let panel = Arc::clone(panel);
                    let _ = tokio::task::spawn_blocking(move || panel.reload()).await;
                }
                Asked::Reopen => {
                    if let Some(audit) = &panel.audit {
                        audit.reopen();
                    }
                    if let Some(sidecar) = sidecar {
                        sidecar.access_log.reopen();
                    }
                }
            },
            () = panel.stop.notified() => return,
        }
    }
}

/// Opens the admin listener and the control socket.
pub(in crate::app) fn doors(
    settings: Option<&admin::Settings>,
    key: &str,
    panel: &Arc<Panel>,
    ending: &watch::Receiver<bool>,
) -> anyhow::Result<(Option<SocketAddr>, Option<PathBuf>)> {
    let Some(settings) = settings else { return Ok((None, None)) };
    let mut admin_address = None;
    if let Some(address) = settings.listen {
        let listener = listen(address).map_err(|error| unavailable(error, address, key))?;
        admin_address = Some(listener.local_addr()?);
        let control: Arc<dyn Control> = Arc::clone(panel) as _;
        tokio::spawn(admin::serve(listener, settings.hosts.clone(), control, until(ending.clone())));
    }
    if let Some(path) = &settings.control {
        let socket = ControlSocket::bind(path)
            .with_context(|| format!("cannot open the control socket {} (control.socket)", path.display()))?;
        let control: Arc<dyn Control> = Arc::clone(panel) as _;
        tokio::spawn(admin::serve_control(socket, control, until(ending.clone())));
    }
    Ok((admin_address, settings.control.clone()))
}

/// Why a place cannot be listened on, and what to do about it.
pub(in crate::app) fn unavailable(error: io::Error, place: impl Display, key: &str) -> anyhow::Error {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => ": stop the process that has it, or choose another",
        io::ErrorKind::AddrNotAvailable => ": choose an address of this machine",
        io::ErrorKind::PermissionDenied => ": choose a port from 1024 on, or a place that this user may use",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("cannot listen on {place} ({key}){fix}"))
}

async fn until(mut ending: watch::Receiver<bool>) {
    let _ = ending.wait_for(|ended| *ended).await;
}

fn watch_policy(panel: &Arc<Panel>) -> anyhow::Result<Option<config::Watch>> {
    let Some(path) = panel.policy.path() else { return Ok(None) };
    let watched = Arc::clone(panel);
    let watch = config::watch(path, move |_| {
        let _ = watched.reload();
    })
    .with_context(|| format!("cannot watch {}", path.display()))?;
    Ok(Some(watch))
}

/// Where requests are refused while Redis is away, asks it once a second: `/readyz` then fails before the first
/// request does, and passes again though no request may come to find Redis back.
async fn observe_limits(limits: Arc<Limits>, policy: Arc<PolicyStore>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if policy.current().load().rate_limit.on_store_failure == OnStoreFailure::Deny {
            limits.probe().await;
        }
    }
}

/// Asks the executor's database once a second, so that `/readyz` can answer at once.
pub(in crate::app) async fn observe(executor: Arc<Executor>, panel: Arc<Panel>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        look(&executor, &panel).await;
    }
}

async fn look(executor: &Executor, panel: &Panel) {
    let problem = executor.ready().await.err();
    *panel.executor_problem.lock() = problem;
}
