//! A proxy for this process alone: what `stdio` and `test` speak to, so that they pass the same checks, limits and
//! audit as every client.
//!
//! It listens on a loopback port that the system chooses, and takes tokens of a key that exists only here. Neither the
//! admin listener nor the control socket is opened, and the site is out of reach.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use rand::RngCore as _;
use tokio::sync::oneshot;

use crate::app::{Endpoint, Files, Plan, Up, demo_site, run_until};
use crate::auth::{MintClaims, mint};
use crate::base::{Clock as _, Secret, SystemClock};
use crate::cli::load::SetArgs;
use crate::cli::service::runtime;
use crate::config::{Executor, Log, Overrides, PolicyContext, Sidecar, embedded, load_policy};
use crate::policy::Snapshot;
use crate::telemetry::log_init;

/// How long a token lives; a stream ends with its token.
const TOKEN_TTL_S: u64 = 24 * 3600;

/// What a proxy for this process alone is made of.
#[derive(Clone, Debug, clap::Args)]
pub struct LocalArgs {
    /// Limits, audit, upstreams
    #[arg(long, value_name = "FILE", default_value = "conf/sidecar.toml")]
    config: PathBuf,
    /// What is allowed; watched
    #[arg(long, value_name = "FILE", default_value = "conf/policy.toml")]
    policy: PathBuf,
    /// An executor to run inside this process [default: conf/executor.toml, if it exists]; without one, the running
    /// executor that sidecar.toml names is asked
    #[arg(long, value_name = "FILE")]
    executor: Option<PathBuf>,
    /// Instead of files: embedded defaults and the demo site, as `up` has them
    #[arg(long, conflicts_with_all = ["config", "policy", "executor"])]
    demo: bool,
    /// With --demo: where the site and the audit log are
    #[arg(long, value_name = "DIR", default_value = "var")]
    data: PathBuf,
    #[command(flatten)]
    set: SetArgs,
}

/// For whom requests are made. Whoever may read the configuration may say so.
#[derive(Clone, Debug, clap::Args)]
pub struct CallerArgs {
    /// Who calls, for audit and limits
    #[arg(long, default_value = "local")]
    sub: String,
    /// The caller's scopes, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "mcp:read,mcp:call")]
    scopes: Vec<String>,
    /// The CMS's user
    #[arg(long, value_name = "ID")]
    user_id: Option<u64>,
}

/// A proxy that runs in this process.
#[derive(Clone)]
pub struct Local {
    address: SocketAddr,
    secret: Secret,
    pub policy: Arc<Snapshot>,
}

impl Local {
    /// Where a server of this proxy is reached.
    ///
    /// # Errors
    /// When the policy has no such server.
    pub fn endpoint(&self, handle: &str) -> anyhow::Result<Endpoint> {
        known(&self.policy, handle)?;
        let routes = &self.policy.routes;
        let segments = [&*routes.base, &*routes.version, &*routes.api_prefix, handle];
        let path: Vec<&str> = segments.into_iter().filter(|segment| !segment.is_empty()).collect();
        Ok(Endpoint::local(self.address.ip(), self.address.port(), format!("/{}", path.join("/"))))
    }

    /// A token for this caller, which only this process takes.
    #[must_use]
    pub fn token(&self, caller: &CallerArgs) -> String {
        let claims = MintClaims {
            sub: caller.sub.clone(),
            scopes: caller.scopes.clone(),
            user_id: caller.user_id,
            issuer: self.policy.auth.issuer.clone(),
            audience: self.policy.auth.audience.clone(),
            issued_at_s: SystemClock.now_ms() / 1000,
            ttl_s: TOKEN_TTL_S,
            jti: None,
        };
        mint(&self.secret, &claims)
    }
}

/// # Errors
/// When the policy has no such server.
fn known(policy: &Snapshot, handle: &str) -> anyhow::Result<()> {
    if policy.server(handle).is_none() {
        let known: Vec<&str> = policy.servers.iter().map(|server| &*server.handle).collect();
        bail!("there is no enabled server {handle:?}; the policy has: {}", known.join(", "));
    }
    Ok(())
}

impl LocalArgs {
    /// That the policy has this server, without running anything.
    ///
    /// # Errors
    /// When it has not, and what is wrong with the policy.
    pub fn knows(&self, handle: &str) -> anyhow::Result<()> {
        known(&self.peek(true)?, handle)
    }

    /// The policy's first server that others reach over HTTP.
    ///
    /// # Errors
    /// When there is none, and what is wrong with the policy.
    pub fn first_web(&self) -> anyhow::Result<String> {
        let first = self.peek(false)?.servers.first().map(|server| server.handle.to_string());
        first.context("the policy has no enabled server of transport \"web\"; --server names a local one")
    }

    /// The policy as it is now; `local`: with the servers that are for standard input alone.
    fn peek(&self, local: bool) -> anyhow::Result<Snapshot> {
        let mut overrides = Overrides { local_servers: local, ..self.overrides("") };
        let mut files = Files::default();
        match self.demo {
            true => overrides = overrides.with_builtin(embedded::UP_OVERRIDES),
            false => files.policy = Some(self.policy.clone()),
        }
        let source = read(files.policy_source(Path::new(".")))?;
        let context = PolicyContext { revision: 1, now_ms: SystemClock.now_ms(), ..PolicyContext::default() };
        read(load_policy(&source, &overrides, context))
    }

    /// The words that make another process run over the same files.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let absolute =
            |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        let mut words = Vec::new();
        let mut push = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        if self.demo {
            push("--data", absolute(&self.data));
        } else {
            push("--config", absolute(&self.config));
            push("--policy", absolute(&self.policy));
            if let Some(executor) = self.executor_file() {
                push("--executor", absolute(&executor));
            }
        }
        for (key, value) in &self.set.set {
            push("--set", format!("{key}={value}"));
        }
        if self.demo {
            words.insert(0, "--demo".to_owned());
        }
        words
    }

    fn executor_file(&self) -> Option<PathBuf> {
        let default = Path::new("conf/executor.toml");
        self.executor.clone().or_else(|| default.exists().then(|| default.to_owned()))
    }

    /// Runs the proxy as long as `work` takes, or until a signal ends it (`None`).
    ///
    /// # Errors
    /// What is wrong with the files, why it cannot start, and what `work` says.
    pub fn with<T, F>(&self, level: Option<&str>, work: impl FnOnce(Local) -> F) -> anyhow::Result<Option<T>>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        // Sockets and the copy of the last good policy live no longer than this process.
        let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
        let mut bytes = [0_u8; 32];
        rand::rng().fill_bytes(&mut bytes);
        let key = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let runtime = runtime()?;
        let mut plan = match self.demo {
            true => runtime.block_on(self.demo(scratch.path(), &key))?,
            false => self.files(scratch.path(), &key)?,
        };
        let log = plan.sidecar.as_ref().map_or_else(Log::default, |sidecar| sidecar.log.clone());
        plan.alone(scratch.path());
        let log = log_init(level.unwrap_or(log.level), log.format)?;
        let (done, ended) = oneshot::channel::<()>();
        let at_work = parking_lot::Mutex::new(None);
        let announce = |up: &Up| {
            let Some(address) = up.mcp.first().copied() else { return };
            let local = Local { address, secret: Secret::new(key), policy: Arc::clone(&up.policy) };
            let work = work(local);
            *at_work.lock() = Some(tokio::spawn(async move {
                let result = work.await;
                let _ = done.send(());
                result
            }));
        };
        let result = runtime.block_on(async {
            run_until(plan, Some(log), announce, async {
                let _ = ended.await;
            })
            .await?;
            let work = at_work.lock().take();
            match work {
                Some(work) if work.is_finished() => Ok(Some(work.await.context("the work failed")??)),
                Some(work) => {
                    work.abort();
                    Ok(None)
                }
                None => bail!("there is no listener"),
            }
        });
        // A read of standard input cannot be called off.
        runtime.shutdown_background();
        result
    }

    fn overrides(&self, key: &str) -> Overrides {
        let mut overrides = self.set.overrides().with_builtin(embedded::LOCAL_OVERRIDES);
        overrides.environment.insert(embedded::LOCAL_KEY.to_owned(), key.to_owned());
        overrides.local_servers = true;
        overrides
    }

    fn files(&self, scratch: &Path, key: &str) -> anyhow::Result<Plan> {
        let executor = self.executor_file();
        let files =
            Files { sidecar: Some(self.config.clone()), executor: executor.clone(), policy: Some(self.policy.clone()) };
        let overrides = self.overrides(key);
        let sidecar = read(Plan::load_sidecar(&files, &overrides, Path::new(".")))?;
        let inside = match executor {
            Some(_) => Some(read(Plan::load_executor(&files, &overrides, Path::new(".")))?),
            None => None,
        };
        Ok(plan(files, overrides, scratch, sidecar, inside))
    }

    async fn demo(&self, scratch: &Path, key: &str) -> anyhow::Result<Plan> {
        std::fs::create_dir_all(&self.data).with_context(|| format!("cannot make {}", self.data.display()))?;
        let data = std::fs::canonicalize(&self.data)?;
        let site = data.join("demo.sqlite");
        let quoted = |text: String| toml::Value::String(text).to_string();
        let builtin = [
            ("audit.dir", quoted(data.join("audit").display().to_string())),
            ("database.url", quoted(format!("sqlite://{}", site.display()))),
        ];
        let mut builtin: Vec<(&str, &str)> = builtin.iter().map(|(key, value)| (*key, value.as_str())).collect();
        builtin.extend(embedded::UP_OVERRIDES);
        let overrides = self.overrides(key).with_builtin(&builtin);
        let files = Files::default();
        let sidecar = read(Plan::load_sidecar(&files, &overrides, &data))?;
        let executor = read(Plan::load_executor(&files, &overrides, &data))?;
        demo_site(&site, 0).await?;
        Ok(plan(files, overrides, scratch, sidecar, Some(executor)))
    }
}

fn read<T>(loaded: Result<T, crate::config::Report>) -> anyhow::Result<T> {
    loaded.map_err(|report| anyhow::anyhow!("{}", report.render()))
}

fn plan(files: Files, overrides: Overrides, scratch: &Path, sidecar: Sidecar, executor: Option<Executor>) -> Plan {
    Plan {
        files,
        overrides,
        extra_secrets: Vec::new(),
        data: scratch.to_owned(),
        sidecar: Some(sidecar),
        executor,
        last_good: false,
    }
}
