use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use crate::app::{Files, Plan, Wish, fulfil, work};
use crate::base::{Clock, SystemClock};
use crate::cli::load::SetArgs;
use crate::cli::service::{log, runtime};
use crate::cli::{say, up};
use crate::config::{Log, Overrides, PolicyContext, embedded, load_policy};

/// Which queue a command works on.
#[derive(Clone, Debug, clap::Args)]
struct QueueArgs {
    /// Where the queue is [default: conf/executor.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which driver it has, and what may run [default: conf/policy.toml]
    #[arg(long, global = true, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The data directory of an `up`, whose queue and site are taken
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    set: SetArgs,
}

/// Work off the task queue.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mcp-sidecar worker --config /etc/mcp-sidecar/executor.toml \\\n    --policy /etc/mcp-sidecar/policy.toml"
)]
pub struct WorkerArgs {
    /// End when nothing is due, as for cron, and say how many tasks were processed
    #[arg(long)]
    once: bool,
    /// Where metrics and health are read
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "once")]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    queue: QueueArgs,
}

/// Look at tasks, end them, have them run again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mcp-sidecar tasks list --status failed\n  mcp-sidecar tasks retry 17")]
pub struct TasksArgs {
    #[command(subcommand)]
    wish: TasksCommand,
    #[command(flatten)]
    queue: QueueArgs,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum TasksCommand {
    /// The newest tasks
    List {
        /// pending, preparing, running, completed or failed
        #[arg(long)]
        status: Option<String>,
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// One task: its runs and its result
    Show { id: i64 },
    /// End a task that has not ended
    Cancel { id: i64 },
    /// Have a failed task run again
    Retry { id: i64 },
    /// Make or repair our row in sTask's register of workers
    SyncWorkers,
}

/// Make or repair our row in sTask's register of workers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcp-sidecar sync-workers --config /etc/mcp-sidecar/executor.toml \\\n    \
                  --policy /etc/mcp-sidecar/policy.toml")]
pub struct SyncArgs {
    #[command(flatten)]
    queue: QueueArgs,
}

impl QueueArgs {
    fn plan(&self) -> anyhow::Result<Plan> {
        let set = self.set.overrides();
        let (files, overrides, data) = match &self.data {
            None => {
                let or = |given: &Option<PathBuf>, default: &str| given.clone().unwrap_or_else(|| default.into());
                let files = Files {
                    sidecar: None,
                    executor: Some(or(&self.config, "conf/executor.toml")),
                    policy: Some(or(&self.policy, "conf/policy.toml")),
                };
                (files, set, PathBuf::from("var"))
            }
            Some(data) => {
                let data = std::fs::canonicalize(data)
                    .with_context(|| format!("cannot use the data directory {} (--data)", data.display()))?;
                let builtin = up::executor_keys(&data);
                let mut builtin: Vec<(&str, &str)> = builtin.iter().map(|(key, value)| (*key, &**value)).collect();
                if self.policy.is_none() {
                    builtin.extend(embedded::UP_OVERRIDES);
                }
                let files = Files { sidecar: None, executor: self.config.clone(), policy: self.policy.clone() };
                (files, set.with_builtin(&builtin), data)
            }
        };
        let executor = Plan::load_executor(&files, &overrides, Path::new("."));
        Ok(Plan {
            files,
            overrides,
            extra_secrets: Vec::new(),
            data,
            sidecar: None,
            executor: Some(executor.map_err(|report| anyhow::anyhow!("{}", report.render()))?),
            last_good: false,
        })
    }
}

/// Works until it is told to stop, or with `--once` until nothing is due.
///
/// # Errors
/// What is wrong with the files, or why it cannot work.
pub fn worker(args: WorkerArgs) -> anyhow::Result<()> {
    let plan = args.queue.plan()?;
    let _log = log(&Log::default())?;
    if let Some(pass) = runtime()?.block_on(work(plan, args.once, args.admin))? {
        say(&format!("{pass}\n"));
    }
    Ok(())
}

/// Shows or changes tasks.
///
/// # Errors
/// What is wrong with the files, or why it cannot be done.
pub fn tasks(args: TasksArgs) -> anyhow::Result<()> {
    let wish = match args.wish {
        TasksCommand::List { status, limit } => Wish::List { status, limit },
        TasksCommand::Show { id } => Wish::Show(id),
        TasksCommand::Cancel { id } => Wish::Cancel(id),
        TasksCommand::Retry { id } => Wish::Retry(id),
        TasksCommand::SyncWorkers => Wish::SyncWorkers,
    };
    let shown = fulfilled(&args.queue, wish)?;
    let text = match &shown {
        _ if args.json => format!("{shown:#}\n"),
        Value::Null => "done\n".to_owned(),
        Value::String(word) => format!("{word}\n"),
        Value::Array(tasks) => table(tasks),
        task => format!("{task:#}\n"),
    };
    say(&text);
    Ok(())
}

/// Registers us with sTask; where there is nobody to register with is no failure.
///
/// # Errors
/// What is wrong with the files, or why it cannot be done.
pub fn sync_workers(args: &SyncArgs) -> anyhow::Result<()> {
    let told = fulfilled(&args.queue, Wish::SyncWorkers)?;
    let word = told.as_str().unwrap_or_default();
    if word == "skipped" {
        eprintln!(
            "warning: queue.driver of the policy is not \"stask\", or the site's database has no tables of sTask"
        );
    }
    say(&format!("{word}\n"));
    Ok(())
}

fn fulfilled(args: &QueueArgs, wish: Wish) -> anyhow::Result<Value> {
    let plan = args.plan()?;
    let Some(executor) = &plan.executor else { return Ok(Value::Null) };
    let policy = policy(&plan.files, &plan.overrides)?;
    runtime()?.block_on(fulfil(executor, &policy, wish))
}

fn policy(files: &Files, overrides: &Overrides) -> anyhow::Result<crate::policy::Snapshot> {
    let refused = |report: crate::config::Report| anyhow::anyhow!("{}", report.render());
    let source = files.policy_source(Path::new(".")).map_err(refused)?;
    let context = PolicyContext { revision: 1, now_ms: SystemClock.now_ms(), upstreams: None, extra_secrets: &[] };
    load_policy(&source, overrides, context).map_err(refused)
}

fn table(tasks: &[Value]) -> String {
    let mut out =
        format!("{:>8}  {:<10} {:>5}  {:<19}  {:<24} {}\n", "id", "status", "tries", "created", "call", "message");
    for task in tasks {
        let text = |key: &str| task[key].as_str().unwrap_or("").chars().filter(|c| !c.is_control()).collect::<String>();
        let call = if task["tool"].is_string() { text("tool") } else { text("method") };
        let tries = format!("{}/{}", task["attempts"], task["max_attempts"]);
        let created = text("created_at");
        out.push_str(&format!(
            "{:>8}  {:<10} {tries:>5}  {created:<19}  {call:<24} {}\n",
            task["id"].to_string(),
            text("status"),
            text("message"),
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_task_is_a_line_whatever_its_texts_hold() {
        let task = json!({"id": 17, "status": "failed", "method": "tools/call", "tool": "evo.content.get",
            "attempts": 3, "max_attempts": 3, "created_at": "2026-01-02 03:04:05", "message": "a\u{1b}[31m\nb"});
        let lines = table(&[task]);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines.len(), 2);
        let expected = "      17  failed       3/3  2026-01-02 03:04:05  evo.content.get          a[31mb";
        assert_eq!(lines[1], expected);
    }
}
