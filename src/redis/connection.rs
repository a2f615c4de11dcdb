use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, Value};
use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::settings::{InvalidUrl, Settings, check_url};
use super::{Breaker, Call, Latency, LatencySnapshot};

/// How long one attempt to connect may take, in its own task; callers wait for their own timeout only.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Commands queued towards the socket before senders wait.
const PIPELINE: usize = 1_024;

/// No answer that can be relied on; the call may or may not have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("redis is unavailable")]
pub struct Unavailable;

/// What the connection did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Whether the breaker holds calls back.
    pub open: bool,
    /// How often the breaker opened.
    pub openings: u64,
    /// Calls that went out and brought no answer, timeouts included.
    pub errors: u64,
    /// Calls that ran into the timeout.
    pub timeouts: u64,
    /// How long calls took that went out, failed ones included.
    pub latency: LatencySnapshot,
}

/// A handle on one Redis; clones share everything. Needs a tokio runtime when called, not when made.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    client: Client,
    timeout: Duration,
    current: ArcSwapOption<MultiplexedConnection>,
    connecting: AtomicBool,
    /// Woken whenever an attempt to connect has ended.
    attempted: Notify,
    breaker: Breaker,
    /// Where the breaker's clock starts: wall time may jump, this does not.
    started: Instant,
    errors: AtomicU64,
    timeouts: AtomicU64,
    latency: Latency,
}

/// Why a call brought no answer; only logged and counted.
enum Failure {
    Timeout,
    NotConnected,
    Redis(RedisError),
}

impl Connection {
    /// Makes the handle. Nothing is sent before the first call or [`Self::connect`].
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, InvalidUrl> {
        let url = std::str::from_utf8(settings.url.expose()).map_err(|_| InvalidUrl::Malformed)?;
        check_url(url)?;
        // Without nodelay a small command waits for the acknowledgement of the one before it.
        let info = url.into_connection_info().map_err(|_| InvalidUrl::Malformed)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self(Arc::new(Shared {
            client: Client::open(info).map_err(|_| InvalidUrl::Malformed)?,
            timeout: settings.timeout,
            current: ArcSwapOption::empty(),
            connecting: AtomicBool::new(false),
            attempted: Notify::new(),
            breaker: Breaker::default(),
            started: Instant::now(),
            errors: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            latency: Latency::default(),
        })))
    }

    /// Connects ahead of the first call, for at most a second.
    ///
    /// # Errors
    /// When there is no connection by then. Later calls try again.
    pub async fn connect(&self) -> Result<(), Unavailable> {
        match timeout(CONNECT_TIMEOUT, self.live()).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(Unavailable),
        }
    }

    /// Runs a script within the configured timeout.
    ///
    /// # Errors
    /// When the breaker is open, or no answer came in time, or Redis answered with an error.
    pub async fn run(&self, call: &Call<'_>) -> Result<Value, Unavailable> {
        let shared = &self.0;
        if !shared.breaker.admits(shared.elapsed_ms()) {
            return Err(Unavailable);
        }
        let sent = Instant::now();
        let mut used = None;
        let attempt = async {
            let live = self.live().await.ok_or(Failure::NotConnected)?;
            used = Some(live.clone());
            call.run(&mut MultiplexedConnection::clone(&live)).await.map_err(Failure::Redis)
        };
        let answer = timeout(shared.timeout, attempt).await.unwrap_or(Err(Failure::Timeout));
        shared.latency.observe(sent.elapsed());
        match answer {
            Ok(value) => {
                if shared.breaker.succeed() {
                    tracing::info!("redis answers again");
                }
                Ok(value)
            }
            Err(failure) => {
                self.note(&failure, used);
                Err(Unavailable)
            }
        }
    }

    /// One section of `INFO`, waiting up to a second; passes by the breaker.
    pub(in crate::redis) async fn info(&self, section: &str) -> Result<String, Unavailable> {
        let ask = async {
            let live = self.live().await.ok_or(Unavailable)?;
            let mut connection = MultiplexedConnection::clone(&live);
            ::redis::cmd("INFO").arg(section).query_async(&mut connection).await.map_err(|_| Unavailable)
        };
        timeout(CONNECT_TIMEOUT, ask).await.unwrap_or(Err(Unavailable))
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.0;
        Stats {
            open: shared.breaker.is_open(),
            openings: shared.breaker.openings(),
            errors: shared.errors.load(Ordering::Relaxed),
            timeouts: shared.timeouts.load(Ordering::Relaxed),
            latency: shared.latency.snapshot(),
        }
    }

    /// Whether the breaker holds calls back.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.breaker.is_open()
    }

    /// The connection; where there is none, the outcome of the next attempt to make one.
    async fn live(&self) -> Option<Arc<MultiplexedConnection>> {
        if let Some(live) = self.0.current.load_full() {
            return Some(live);
        }
        let attempted = self.0.attempted.notified();
        tokio::pin!(attempted);
        attempted.as_mut().enable();
        if let Some(live) = self.0.current.load_full() {
            return Some(live);
        }
        self.connect_in_background();
        attempted.await;
        self.0.current.load_full()
    }

    /// Starts an attempt to connect unless one is under way.
    fn connect_in_background(&self) {
        if self.0.connecting.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = self.0.clone();
        tokio::spawn(async move {
            let attempt = Attempt(shared);
            let shared = &attempt.0;
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None)
                .set_pipeline_buffer_size(PIPELINE);
            match timeout(CONNECT_TIMEOUT, shared.client.get_multiplexed_async_connection_with_config(&config)).await {
                Ok(Ok(connection)) => shared.current.store(Some(Arc::new(connection))),
                Ok(Err(error)) => tracing::debug!(%error, "cannot connect to redis"),
                Err(_) => tracing::debug!("connecting to redis timed out"),
            }
        });
    }

    fn note(&self, failure: &Failure, used: Option<Arc<MultiplexedConnection>>) {
        let shared = &self.0;
        shared.errors.fetch_add(1, Ordering::Relaxed);
        let broken = match failure {
            Failure::Timeout => {
                shared.timeouts.fetch_add(1, Ordering::Relaxed);
                false
            }
            Failure::NotConnected => false,
            Failure::Redis(error) => error.is_unrecoverable_error(),
        };
        let opened = shared.breaker.fail(shared.elapsed_ms());
        if opened {
            tracing::warn!(error = %failure, "redis is unavailable; trying again once a second");
        }
        // With a breaker that stays open the way to Redis itself is in doubt: a connection into a vanished host, or
        // to a primary that became a replica, would only fail again. The next probe shall find a fresh one.
        if let Some(used) = used
            && (broken || shared.breaker.is_open())
        {
            let now = shared.current.load();
            if now.as_ref().is_some_and(|now| Arc::ptr_eq(now, &used)) {
                shared.current.compare_and_swap(&*now, None);
                self.connect_in_background();
            }
        }
    }
}

/// Ends an attempt to connect, however it ends, and lets those go who wait for it.
struct Attempt(Arc<Shared>);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.connecting.store(false, Ordering::Release);
        self.0.attempted.notify_waiters();
    }
}

impl Shared {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client holds the password.
        f.debug_struct("Connection").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("timeout"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Redis(error) => write!(f, "{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Secret;

    fn settings(url: &str) -> Settings {
        Settings { url: Secret::new(url), timeout: Duration::from_millis(25), prefix: "p".into() }
    }

    #[test]
    fn urls_with_tls_and_acl_users_are_understood() {
        for url in ["redis://localhost", "redis://user:pa%40ss@localhost:6380/2", "rediss://user:pass@localhost:6380"] {
            let connection = Connection::open(&settings(url)).expect(url);
            assert!(!format!("{connection:?}").contains("pass"));
        }
        for url in ["", "http://localhost", "localhost:6379", "rediss://"] {
            assert!(Connection::open(&settings(url)).is_err(), "{url:?}");
        }
    }
}
