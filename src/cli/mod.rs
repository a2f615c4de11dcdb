//! The command line: parses, loads what a command needs, and hands over to the rooms.

/// A line on standard output, as [`say`] prints texts.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::say(&format!("{}\n", format_args!($($text)*)))
    };
}

pub mod check;
pub mod ctl;
pub mod explain;
mod import;
mod inspector;
mod load;
mod local;
mod make;
pub mod permission;
mod queue;
mod servers;
mod service;
mod smoke;
mod stdio;
pub mod token;
mod up;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

/// The policy enforcement point for MCP traffic in front of a content site
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true, after_help = "Start here:\n  mcp-sidecar up")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: proxy and executor in one process, on embedded defaults and a demo site
    Up(up::Args),
    /// Run the proxy, from conf/sidecar.toml and conf/policy.toml
    Proxy(service::ProxyArgs),
    /// Run the tool executor, from conf/executor.toml and conf/policy.toml
    Executor(service::ExecutorArgs),
    /// Run calls that were dispatched, from the task queue
    Worker(queue::WorkerArgs),
    /// Look at the task queue, end tasks, have them run again
    Tasks(queue::TasksArgs),
    /// Make or repair our row in sTask's register of workers
    SyncWorkers(queue::SyncArgs),
    /// Validate the configuration files, and show every problem with its place
    Check(check::Args),
    /// Mint a development token from the configured secret
    Token(token::Command),
    /// Show what the policy decides about a request, and by which rule
    Explain(explain::Command),
    /// Put in, take out or show the CMS's permissions for manager mode
    Permissions(permission::Args),
    /// Speak to a running process over its control socket
    Ctl(ctl::Args),
    /// List the servers of the policy
    ListServers(servers::Args),
    /// Check that a server answers initialize and tools/list
    Test(smoke::Args),
    /// Serve one server over standard input and output, for clients that start their servers themselves
    Stdio(stdio::Args),
    /// Start the npm MCP inspector against one server
    Inspector(inspector::Args),
    /// Turn the PHP settings of eMCP into a policy.toml
    Import(import::Args),
    /// Make the beginnings of a server, a tool, a resource or a prompt
    Make(make::Args),
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let code = command();
    match UNSAID.get() {
        Some(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
        None => code,
    }
}

fn command() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up(args) => up::run(args),
        Command::Proxy(args) => service::proxy(args),
        Command::Executor(args) => service::executor(args),
        Command::Worker(args) => queue::worker(args),
        Command::Tasks(args) => queue::tasks(args),
        Command::SyncWorkers(args) => queue::sync_workers(&args),
        Command::Check(args) => return ExitCode::from(check::run(args)),
        Command::Token(args) => token::command(&args),
        Command::Explain(args) => explain::command(&args),
        Command::Permissions(args) => permission::run(args),
        Command::Ctl(args) => ctl::run(&args),
        Command::ListServers(args) => return coded(servers::run(&args)),
        Command::Test(args) => return coded(smoke::run(args)),
        Command::Stdio(args) => stdio::run(args),
        Command::Inspector(args) => return coded(inspector::run(&args)),
        Command::Import(args) => import::run(&args),
        Command::Make(args) => make::run(&args),
    };
    coded(done.map(|()| 0))
}

fn coded(done: anyhow::Result<u8>) -> ExitCode {
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let text = format!("{error:#}");
            // A report of problems says of each that it is one.
            let word = if text.starts_with("error: ") { "" } else { "error: " };
            eprintln!("{word}{text}");
            ExitCode::FAILURE
        }
    }
}

/// Why standard output could not be written: the command has failed then, whatever else it did.
static UNSAID: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a text whole. Who reads no more of it (`… | head`) is no error; a full disk is.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = UNSAID.set(error);
    }
}
