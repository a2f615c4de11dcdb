use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch;

use crate::app::descriptors;
use crate::app::policy::{PolicyStore, warn_of_gaps};
use crate::app::process::unavailable;
use crate::audit::Audit;
use crate::auth::Verifier;
use crate::base::Clock;
use crate::config;
use crate::limits::{Limits, RedisStore};
use crate::proxy::access_log::AccessLog;
use crate::proxy::{Gateway, Parts, Workers, listen};
use crate::redis;
use crate::telemetry::Metrics;

/// Verified tokens that are remembered.
const TOKEN_CACHE: usize = 16_384;

/// From the end of listening until what was accepted counts as in flight.
const LAST_MOMENT: Duration = Duration::from_millis(50);

/// The proxy of this process.
pub struct RunningSidecar {
    pub gateway: Arc<Gateway>,
    pub verifier: Arc<Verifier>,
    pub limits: Arc<Limits>,
    pub audit: Audit,
    pub addresses: Vec<SocketAddr>,
    pub access_log: Arc<AccessLog>,
    workers: Workers,
    streams_end: watch::Sender<bool>,
    /// Our own end of the listeners; closing them makes the port free.
    listeners: Vec<TcpListener>,
}

impl RunningSidecar {
    /// Binds, builds and serves.
    ///
    /// # Errors
    /// When a port is taken, an address does not resolve, or a log cannot be opened.
    pub async fn start(
        plan: &config::Sidecar,
        policy: &PolicyStore,
        metrics: &Arc<Metrics>,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        descriptors::raise(plan.proxy.max_connections);
        warn_of_gaps(&policy.current().load());
        let mut listeners = Vec::new();
        for address in &plan.proxy.listen {
            listeners.push(listen(*address).map_err(|error| unavailable(error, address, "listen.http"))?);
        }
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        let audit = Audit::open(&plan.audit, Arc::clone(metrics), Arc::clone(clock))
            .with_context(|| format!("cannot write the audit log in {}", plan.audit.dir.display()))?;
        let limits = Arc::new(match &plan.redis {
            None => Limits::memory(),
            Some(settings) => {
                let connection = redis::Connection::open(settings).context("redis.url")?;
                let _ = connection.connect().await;
                for warning in redis::warnings(&connection).await {
                    tracing::warn!("{warning}");
                }
                Limits::redis(RedisStore::new(connection, settings))
            }
        });
        let verifier = Arc::new(Verifier::new(TOKEN_CACHE));
        let access_log = Arc::new(AccessLog::open(&plan.proxy.access_log).context("cannot open the access log")?);
        let (streams_end, ended) = watch::channel(false);
        let parts = Parts {
            settings: plan.proxy.clone(),
            policy: Arc::clone(policy.current()),
            verifier: Arc::clone(&verifier),
            limits: Arc::clone(&limits),
            audit: audit.clone(),
            metrics: Arc::clone(metrics),
            access_log: Arc::clone(&access_log),
            clock: Arc::clone(clock),
        };
        let gateway = Arc::new(Gateway::new(parts, ended).context("cannot resolve an upstream")?);
        let workers = Workers::start(&gateway, &listeners)?;
        Ok(Self { gateway, verifier, limits, audit, addresses, access_log, workers, streams_end, listeners })
    }

    /// Drains: refuses new calls after `ready_lag`, lets open ones end until `drain`, then ends what is left. Whoever
    /// has the audit log closes it then.
    pub async fn stop(self, impatient: impl Future<Output = ()>) {
        let timeouts = self.gateway.settings().timeouts;
        let began = Instant::now();
        tokio::pin!(impatient);
        let orderly = async {
            // Also when nothing runs just now: what stands before us goes on sending until it has looked.
            tokio::time::sleep(timeouts.ready_lag.min(timeouts.drain)).await;
            self.workers.close();
            drop(self.listeners);
            self.gateway.drain();
            // A request that came in at the last moment may not have been read yet, and gets its answer, too.
            tokio::time::sleep(LAST_MOMENT.min(timeouts.drain)).await;
            // Streams get most of the time, and a second to take their last event.
            let streams = timeouts.drain.saturating_sub(Duration::from_secs(1));
            while self.gateway.in_flight() > 0 && began.elapsed() < streams {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.streams_end.send_replace(true);
            while self.gateway.in_flight() > 0 && began.elapsed() < timeouts.drain {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = orderly => {}
            () = &mut impatient => {}
        }
        let workers = self.workers;
        let _ = tokio::task::spawn_blocking(move || workers.join()).await;
    }
}
