use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, Value};
use arc_swap::ArcSwapOption;
use thread_local::ThreadLocal;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::settings::{InvalidUrl, Settings, check_url};
use super::{Breaker, Call, Latency, LatencySnapshot};
use crate::telemetry::StoreError;

/// How long one attempt to connect may take, in its own task; callers wait for their own timeout only.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Commands queued towards the socket before senders wait.
const PIPELINE: usize = 1_024;
/// Failures in a row after which a thread's connection is replaced, though other threads' may work.
const GIVE_UP: u32 = 3;

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
    /// The same errors, in the order of [`StoreError::ALL`].
    pub by_kind: [u64; StoreError::ALL.len()],
    /// How long calls took that went out, failed ones included.
    pub latency: LatencySnapshot,
}

/// A handle on one Redis; clones share everything. Needs a tokio runtime when called, not when made.
///
/// Each thread that calls has a connection of its own, driven by its own runtime: a call wakes no other thread, and
/// calls that are ready together leave in one write. Breaker and counters are shared.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    client: Client,
    timeout: Duration,
    threads: ThreadLocal<Arc<Slot>>,
    breaker: Breaker,
    /// Where the breaker's clock starts: wall time may jump, this does not.
    started: Instant,
    errors: [AtomicU64; StoreError::ALL.len()],
    latency: Latency,
}

/// A thread's connection.
#[derive(Default)]
struct Slot {
    current: ArcSwapOption<MultiplexedConnection>,
    connecting: AtomicBool,
    /// Calls in a row that brought no answer, on this thread.
    failures: AtomicU32,
    /// Woken whenever an attempt to connect has ended.
    attempted: Notify,
}

/// What is asked of Redis.
#[derive(Clone, Copy)]
enum Work<'a> {
    Script(&'a Call<'a>),
    Command(&'a ::redis::Cmd),
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
            threads: ThreadLocal::new(),
            breaker: Breaker::default(),
            started: Instant::now(),
            errors: Default::default(),
            latency: Latency::default(),
        })))
    }

    /// Connects ahead of the first call, for at most a second.
    ///
    /// # Errors
    /// When there is no connection by then. Later calls try again.
    pub async fn connect(&self) -> Result<(), Unavailable> {
        match timeout(CONNECT_TIMEOUT, self.live(&self.0.slot())).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(Unavailable),
        }
    }

    /// Runs a script within the configured timeout.
    ///
    /// # Errors
    /// When the breaker is open, or no answer came in time, or Redis answered with an error.
    pub async fn run(&self, call: &Call<'_>) -> Result<Value, Unavailable> {
        self.perform(Work::Script(call)).await
    }

    /// The bytes under a key, within the configured timeout.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Unavailable> {
        let mut command = ::redis::cmd("GET");
        command.arg(key);
        Ok(match self.perform(Work::Command(&command)).await? {
            Value::BulkString(bytes) => Some(bytes),
            _ => None,
        })
    }

    async fn perform(&self, work: Work<'_>) -> Result<Value, Unavailable> {
        let shared = &self.0;
        if !shared.breaker.admits(shared.elapsed_ms()) {
            return Err(Unavailable);
        }
        let sent = Instant::now();
        let slot = shared.slot();
        let mut used = None;
        let attempt = async {
            let live = self.live(&slot).await.ok_or(Failure::NotConnected)?;
            used = Some(live.clone());
            let mut connection = MultiplexedConnection::clone(&live);
            match work {
                Work::Script(call) => call.run(&mut connection).await,
                Work::Command(command) => connection.send_packed_command(command).await.and_then(Value::extract_error),
            }
            .map_err(Failure::Redis)
        };
        let answer = timeout(shared.timeout, attempt).await.unwrap_or(Err(Failure::Timeout));
        shared.latency.observe(sent.elapsed());
        match answer {
            Ok(value) => {
                if slot.failures.load(Ordering::Relaxed) != 0 {
                    slot.failures.store(0, Ordering::Relaxed);
                }
                if shared.breaker.succeed() {
                    tracing::info!("redis answers again");
                }
                Ok(value)
            }
            Err(failure) => {
                self.note(&failure, &slot, used);
                Err(Unavailable)
            }
        }
    }

    /// One section of `INFO`, waiting up to a second; passes by the breaker.
    pub(in crate::redis) async fn info(&self, section: &str) -> Result<String, Unavailable> {
        let ask = async {
            let live = self.live(&self.0.slot()).await.ok_or(Unavailable)?;
            let mut connection = MultiplexedConnection::clone(&live);
            ::redis::cmd("INFO").arg(section).query_async(&mut connection).await.map_err(|_| Unavailable)
        };
        timeout(CONNECT_TIMEOUT, ask).await.unwrap_or(Err(Unavailable))
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.0;
        let by_kind: [u64; _] = std::array::from_fn(|kind| shared.errors[kind].load(Ordering::Relaxed));
        Stats {
            open: shared.breaker.is_open(),
            openings: shared.breaker.openings(),
            errors: by_kind.iter().sum(),
            timeouts: by_kind[StoreError::Timeout as usize],
            by_kind,
            latency: shared.latency.snapshot(),
        }
    }

    /// Whether the breaker holds calls back.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.breaker.is_open()
    }

    /// The connection; where there is none, the outcome of the next attempt to make one.
    async fn live(&self, slot: &Arc<Slot>) -> Option<Arc<MultiplexedConnection>> {
        if let Some(live) = slot.current.load_full() {
            return Some(live);
        }
        let attempted = slot.attempted.notified();
        tokio::pin!(attempted);
        attempted.as_mut().enable();
        if let Some(live) = slot.current.load_full() {
            return Some(live);
        }
        self.connect_in_background(slot);
        attempted.await;
        slot.current.load_full()
    }

    /// Starts an attempt to connect unless one is under way.
    fn connect_in_background(&self, slot: &Arc<Slot>) {
        if slot.connecting.swap(true, Ordering::AcqRel) {
            return;
        }
        let attempt = Attempt(Arc::clone(slot));
        let client = self.0.client.clone();
        tokio::spawn(async move {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None)
                .set_pipeline_buffer_size(PIPELINE);
            match timeout(CONNECT_TIMEOUT, client.get_multiplexed_async_connection_with_config(&config)).await {
                Ok(Ok(connection)) => attempt.0.current.store(Some(Arc::new(connection))),
                Ok(Err(error)) => tracing::debug!(%error, "cannot connect to redis"),
                Err(_) => tracing::debug!("connecting to redis timed out"),
            }
        });
    }

    fn note(&self, failure: &Failure, slot: &Arc<Slot>, used: Option<Arc<MultiplexedConnection>>) {
        let shared = &self.0;
        shared.errors[failure.kind() as usize].fetch_add(1, Ordering::Relaxed);
        let broken = match failure {
            Failure::Timeout | Failure::NotConnected => false,
            Failure::Redis(error) => error.is_unrecoverable_error(),
        };
        let opened = shared.breaker.fail(shared.elapsed_ms());
        if opened {
            tracing::warn!(error = %failure, "redis is unavailable; trying again once a second");
        }
        // Where other threads' calls succeed the breaker never opens, and this thread's connection may be dead alone.
        let lost = slot.failures.fetch_add(1, Ordering::Relaxed) + 1 >= GIVE_UP;
        // With a breaker that stays open the way to Redis itself is in doubt: a connection into a vanished host, or
        // to a primary that became a replica, would only fail again. The next probe shall find a fresh one.
        if let Some(used) = used
            && (broken || lost || shared.breaker.is_open())
        {
            let now = slot.current.load();
            if now.as_ref().is_some_and(|now| Arc::ptr_eq(now, &used)) {
                slot.current.compare_and_swap(&*now, None);
                slot.failures.store(0, Ordering::Relaxed);
                self.connect_in_background(slot);
            }
        }
    }
}

/// Ends an attempt to connect, however it ends, and lets those go who wait for it.
struct Attempt(Arc<Slot>);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.connecting.store(false, Ordering::Release);
        self.0.attempted.notify_waiters();
    }
}

impl Shared {
    /// The connection of the thread that asks.
    fn slot(&self) -> Arc<Slot> {
        Arc::clone(self.threads.get_or_default())
    }

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

impl Failure {
    fn kind(&self) -> StoreError {
        match self {
            Self::Timeout => StoreError::Timeout,
            Self::NotConnected => StoreError::Connection,
            Self::Redis(error) if error.is_io_error() || error.is_connection_dropped() => StoreError::Connection,
            Self::Redis(error) => match error.code() {
                Some("READONLY" | "MISCONF" | "NOREPLICAS") => StoreError::ReadOnly,
                Some("OOM") => StoreError::OutOfMemory,
                // How Redis begins what a script ran into.
                Some("ERR" | "NOSCRIPT" | "BUSY" | "WRONGTYPE" | "UNKILLABLE") => StoreError::Script,
                _ => StoreError::Other,
            },
        }
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::base::Secret;

    fn settings(url: &str) -> Settings {
        Settings { url: Secret::new(url), timeout: Duration::from_millis(25), prefix: "p".into() }
    }

    /// A server whose first connection says nothing once it stands; later ones answer every command with 0.
    async fn half_dead(listener: tokio::net::TcpListener) {
        let mut accepted = 0;
        while let Ok((mut socket, _)) = listener.accept().await {
            accepted += 1;
            let silent = accepted == 1;
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                loop {
                    let Ok(count @ 1..) = socket.read(&mut bytes).await else { return };
                    let commands = bytes[..count].iter().filter(|byte| **byte == b'*').count();
                    let setting_up = bytes[..count].windows(6).any(|word| word == b"CLIENT");
                    if setting_up || !silent {
                        let _ = socket.write_all(":0\r\n".repeat(commands).as_bytes()).await;
                    }
                }
            });
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_dead_alone_is_replaced() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("is bound"));
        tokio::spawn(half_dead(listener));
        let connection = Connection::open(&settings(&url)).expect("valid");
        connection.connect().await.expect("it stands");
        let script = crate::redis::Script::new("return 0");
        let mut failed = 0;
        while connection.run(&script.call(0)).await.is_err() {
            failed += 1;
            assert!(failed < 100, "never replaced");
            // What the other threads' calls do.
            connection.0.breaker.succeed();
        }
        assert!(failed >= 3, "{failed}: not for a single slow answer");
        assert_eq!(connection.stats().openings, 0);
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
