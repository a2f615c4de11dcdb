use std::path::{Path, PathBuf};

use crate::app::{Files, Plan, Up, run};
use crate::cli::load::SetArgs;
use crate::config::Log;
use crate::telemetry::{LogHandle, log_init};

/// Run the proxy.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mcp-sidecar proxy --config /etc/mcp-sidecar/sidecar.toml \\\n    --policy /etc/mcp-sidecar/policy.toml --data /var/lib/mcp-sidecar"
)]
pub struct ProxyArgs {
    /// Listeners, upstreams, limits of the process
    #[arg(long, value_name = "FILE", default_value = "conf/sidecar.toml")]
    config: PathBuf,
    /// What is allowed
    #[arg(long, value_name = "FILE", default_value = "conf/policy.toml")]
    policy: PathBuf,
    /// Where the last good policy is kept
    #[arg(long, value_name = "DIR", default_value = "var")]
    data: PathBuf,
    /// When the policy file is bad, start from the last good one
    #[arg(long)]
    last_good: bool,
    #[command(flatten)]
    set: SetArgs,
}

/// Run the tool executor.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mcp-sidecar executor --config /etc/mcp-sidecar/executor.toml \\\n    --policy /etc/mcp-sidecar/policy.toml"
)]
pub struct ExecutorArgs {
    /// Where it listens, and its database
    #[arg(long, value_name = "FILE", default_value = "conf/executor.toml")]
    config: PathBuf,
    /// The policy whose deny lists and caps it keeps as well
    #[arg(long, value_name = "FILE", default_value = "conf/policy.toml")]
    policy: PathBuf,
    /// Where the last good policy is kept
    #[arg(long, value_name = "DIR", default_value = "var")]
    data: PathBuf,
    /// When the policy file is bad, start from the last good one
    #[arg(long)]
    last_good: bool,
    #[command(flatten)]
    set: SetArgs,
}

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What is wrong with the files, or why it cannot start.
pub fn proxy(args: ProxyArgs) -> anyhow::Result<()> {
    let files = Files { sidecar: Some(args.config), executor: None, policy: Some(args.policy) };
    let overrides = args.set.overrides();
    let sidecar =
        Plan::load_sidecar(&files, &overrides, Path::new(".")).map_err(|r| anyhow::anyhow!("{}", r.render()))?;
    let log = log(&sidecar.log)?;
    std::fs::create_dir_all(&args.data)?;
    let plan = Plan {
        files,
        overrides,
        extra_secrets: Vec::new(),
        data: args.data,
        sidecar: Some(sidecar),
        executor: None,
        last_good: args.last_good,
    };
    runtime()?.block_on(run(plan, Some(log), |up| {
        for address in &up.mcp {
            tracing::info!(%address, "listening");
        }
        admin(up);
        tracing::info!(policy.revision = up.policy.revision, policy.digest = up.policy.digest, "ready");
    }))
}

/// Runs the executor until it is told to stop.
///
/// # Errors
/// What is wrong with the files, or why it cannot start.
pub fn executor(args: ExecutorArgs) -> anyhow::Result<()> {
    let files = Files { sidecar: None, executor: Some(args.config), policy: Some(args.policy) };
    let overrides = args.set.overrides();
    let executor =
        Plan::load_executor(&files, &overrides, Path::new(".")).map_err(|r| anyhow::anyhow!("{}", r.render()))?;
    let log = log(&Log::default())?;
    std::fs::create_dir_all(&args.data)?;
    let plan = Plan {
        files,
        overrides,
        extra_secrets: Vec::new(),
        data: args.data,
        sidecar: None,
        executor: Some(executor),
        last_good: args.last_good,
    };
    runtime()?.block_on(run(plan, Some(log), |up| {
        admin(up);
        tracing::info!(policy.revision = up.policy.revision, policy.digest = up.policy.digest, "ready");
    }))
}

fn admin(up: &Up) {
    if let Some(address) = up.admin {
        tracing::info!(%address, "admin listening");
    }
}

pub(super) fn log(settings: &Log) -> anyhow::Result<LogHandle> {
    Ok(log_init(settings.level, settings.format)?)
}

/// The runtime of everything but the proxy's workers.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
