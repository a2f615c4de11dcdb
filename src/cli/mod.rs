//! The command line: parses, loads what a command needs, and hands over to the rooms.

pub mod check;
pub mod ctl;
pub mod explain;
mod load;
mod queue;
mod service;
pub mod token;
mod up;

use std::process::ExitCode;

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
    /// Validate the configuration files, and show every problem with its place
    Check(check::Args),
    /// Mint a development token from the configured secret
    Token(token::Command),
    /// Show what the policy decides about a request, and by which rule
    Explain(explain::Command),
    /// Speak to a running process over its control socket
    Ctl(ctl::Args),
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up(args) => up::run(args),
        Command::Proxy(args) => service::proxy(args),
        Command::Executor(args) => service::executor(args),
        Command::Worker(args) => queue::worker(args),
        Command::Tasks(args) => queue::tasks(args),
        Command::Check(args) => return ExitCode::from(check::run(args)),
        Command::Token(args) => token::command(&args),
        Command::Explain(args) => explain::command(&args),
        Command::Ctl(args) => ctl::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
