//! `check --connect`: asks everything that the files name, all at once, and says what it found.
//!
//! Invariants: every step has a deadline; nothing is changed but two counters that expire within a second, and MCP
//! sessions that are ended again; no finding holds a secret. Non-goals: judging the files (that is done before).

mod cms;
mod http;
mod spelling;
mod upstream;

pub use http::Trouble;
pub(in crate::app) use http::{authority, is_stream, open};

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config::{Executor, Sidecar};
use crate::limits::RedisStore;
use crate::policy::{QueueDriver, Snapshot};
use crate::redis;
use crate::store::queue::{Driver, Queue};
use crate::store::{self, Pool};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long everything that is asked of one place may take.
const WHOLE: Duration = Duration::from_secs(12);

/// How a thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ok,
    Warn,
    Failed,
}

/// What was found out about one thing that the files name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub state: State,
    /// The key that names it, such as `upstreams.executor`.
    pub key: String,
    /// What it does or does not, as the end of a sentence.
    pub text: String,
    /// What to do about it; may be empty.
    pub fix: String,
}

impl Finding {
    fn ok(key: &str, text: impl Into<String>) -> Self {
        Self { state: State::Ok, key: key.to_owned(), text: text.into(), fix: String::new() }
    }

    fn warn(key: &str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Warn, key: key.to_owned(), text: text.into(), fix: fix.into() }
    }

    fn failed(key: &str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Failed, key: key.to_owned(), text: text.into(), fix: fix.into() }
    }
}

/// The files that there are, loaded.
#[derive(Clone, Copy, Default)]
pub struct Loaded<'a> {
    pub sidecar: Option<&'a Sidecar>,
    pub executor: Option<&'a Executor>,
    pub policy: Option<&'a Snapshot>,
}

type Asking<'a> = Pin<Box<dyn Future<Output = Vec<Finding>> + Send + 'a>>;

/// Asks everything, and waits until all have answered or their time is over.
///
/// # Errors
/// When no runtime can be had.
pub fn connect(loaded: Loaded<'_>) -> std::io::Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let found = runtime.block_on(ask_all(loaded));
    // A look-up of a name may hang in the system's resolver: nobody waits for it.
    runtime.shutdown_background();
    Ok(found)
}

async fn ask_all(loaded: Loaded<'_>) -> Vec<Finding> {
    let mut asked: Vec<(String, Asking<'_>)> = Vec::new();
    if let Some(sidecar) = loaded.sidecar {
        for (name, settings) in &sidecar.proxy.upstreams {
            let key = format!("upstreams.{name}");
            let asking = upstream::ask(key.clone(), name, settings, &sidecar.proxy.timeouts, loaded.policy);
            asked.push((key, Box::pin(asking)));
        }
        if let Some(settings) = &sidecar.redis {
            asked.push(("redis".to_owned(), Box::pin(ask_redis(settings))));
        }
        if let Some(origin) = &sidecar.proxy.cms {
            asked.push(("cms".to_owned(), Box::pin(cms::ask(origin, &sidecar.proxy, loaded.policy))));
        }
    }
    if let Some(executor) = loaded.executor {
        asked.push(("database".to_owned(), Box::pin(ask_database(executor))));
        if let (Some(settings), Some(policy)) = (&executor.queue_worker, loaded.policy) {
            asked.push(("queue".to_owned(), Box::pin(ask_queue(&settings.store, policy.queue.driver))));
        }
    }
    let found = asked.into_iter().map(|(key, asking)| async move {
        tokio::time::timeout(WHOLE, asking).await.unwrap_or_else(|_| {
            let text = format!("was not done within {} s", WHOLE.as_secs());
            vec![Finding::failed(&key, text, "check whether it is overloaded")]
        })
    });
    join_all(found).await.into_iter().flatten().collect()
}

async fn ask_redis(settings: &redis::Settings) -> Vec<Finding> {
    let failed = |trouble: &redis::Trouble| {
        let fix = trouble.fix().replace("PREFIX", &settings.prefix);
        vec![Finding::failed("redis", trouble.to_string(), fix)]
    };
    let mut probe = match redis::Probe::open(settings, ANSWER / 2).await {
        Ok(probe) => probe,
        Err(trouble) => return failed(&trouble),
    };
    let trial = match redis::Connection::open(settings) {
        Ok(connection) => RedisStore::new(connection, settings).trial(&mut probe).await,
        Err(invalid) => Err(invalid.into()),
    };
    let took = match trial {
        Ok(took) => took,
        Err(trouble) => return failed(&trouble),
    };
    let version = probe.version.as_deref().map_or_else(String::new, |version| format!(" {version}"));
    let text =
        format!("redis{version} at {} runs the limits' script in {:.1} ms", probe.place, took.as_secs_f64() * 1e3);
    let mut found = vec![Finding::ok("redis", text)];
    if took > settings.timeout {
        let text = format!("that is longer than redis.timeout_ms, {} ms", settings.timeout.as_millis());
        found.push(Finding::warn("redis", text, "raise redis.timeout_ms, or move Redis nearer"));
    }
    found.extend(probe.warnings.iter().map(|warning| Finding::warn("redis", warning.as_str(), "")));
    found
}

/// Whether the tasks of the policy's driver can be reached; nothing is made.
async fn ask_queue(settings: &store::Settings, driver: QueueDriver) -> Vec<Finding> {
    let (driver, whose) = match driver {
        QueueDriver::Off => return Vec::new(),
        // Keys are kept beside tasks of our own.
        QueueDriver::Sync => (Driver::Own, "our own table of keys"),
        QueueDriver::Own => (Driver::Own, "our own table of tasks"),
        QueueDriver::Stask => (Driver::Stask, "sTask's table of tasks"),
    };
    let prefix = &settings.prefix;
    if let Some(file) = absent_file(settings) {
        let text = format!("{whose} will be made in {}, when it is first used", file.display());
        let there = driver == Driver::Own && file.parent().is_some_and(Path::is_dir);
        let fix = "check queue_worker.url: the directory must exist, and for \"stask\" the site's database in it";
        return vec![match there {
            true => Finding::ok("queue", text),
            false => Finding::failed("queue", format!("cannot be used: there is no {}", file.display()), fix),
        }];
    }
    vec![match Queue::probe(settings, driver).await {
        Ok(true) => Finding::ok("queue", format!("has {whose}, with the prefix {prefix:?}")),
        Ok(false) => Finding::ok("queue", format!("answers; {whose} will be made when it is first used")),
        Err(error) => {
            let fix = match &error {
                store::Error::NoTable(_) => {
                    "check queue_worker.url and .prefix, and whether sTask is installed; else set queue.driver = \"own\""
                }
                _ => {
                    "check queue_worker.url, user and password, and whether the server is up and can be reached from here"
                }
            };
            Finding::failed("queue", format!("cannot be used: {}", short(&error)), fix)
        }
    }]
}

/// The file of an SQLite URL, where it is not there.
fn absent_file(settings: &store::Settings) -> Option<PathBuf> {
    let url = std::str::from_utf8(settings.url.expose()).ok()?;
    let path = url.strip_prefix("sqlite://")?.split('?').next()?;
    Some(PathBuf::from(path)).filter(|path| !path.starts_with(":memory:") && !path.exists())
}

/// A database's error in one line.
fn short(error: &store::Error) -> String {
    let text = error.to_string().replace("database: ", "").replace("error returned from ", "");
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

async fn ask_database(executor: &Executor) -> Vec<Finding> {
    let ready = match Pool::open(&executor.database) {
        Ok(pool) => pool.ready().await,
        Err(error) => Err(error),
    };
    let prefix = &executor.database.prefix;
    vec![match ready {
        Ok(()) => Finding::ok("database", format!("has the site's tables, with the prefix {prefix:?}")),
        Err(error) => {
            let fix = match &error {
                store::Error::NoTable(_) => "check database.prefix, rights, and whether this is the site's database",
                _ if executor.database.url.expose().starts_with(b"sqlite:") => {
                    "check database.url: the file must exist and be readable for this user"
                }
                _ => "check database.url, user and password, and whether the server is up and can be reached from here",
            };
            Finding::failed("database", format!("cannot be used: {}", short(&error)), fix)
        }
    }]
}
