//! `mcp-sidecar ctl`: speaks to a running process over its control socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::config::{Overrides, Source, load_sidecar};

/// A reload reads and validates files; everything else answers at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where `up` has it, in its default data directory.
const UP: &str = "var/control.sock";
/// What `proxy` is started with by default.
const SHIPPED: &str = "conf/sidecar.toml";
/// An answer's line, in bytes.
const ANSWER: u64 = 4 << 20;

/// Speak to a running mcp-sidecar over its control socket.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mcp-sidecar ctl reload
  mcp-sidecar ctl status
  mcp-sidecar ctl log-level debug
  mcp-sidecar ctl --socket /run/mcp-sidecar/control.sock drain")]
pub struct Args {
    /// The control socket; without it, that of `up` in the working directory, else of `--config`
    #[arg(long, global = true, value_name = "PATH", env = "MCP_SIDECAR_CONTROL")]
    pub socket: Option<PathBuf>,

    /// Take `control.socket` from this file [default: conf/sidecar.toml]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

/// What is asked of the process.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Load the policy anew; a bad file changes nothing and is reported
    #[command(after_help = "Example:\n  mcp-sidecar ctl reload")]
    Reload,
    /// Show what the process says about itself, as JSON
    #[command(after_help = "Example:\n  mcp-sidecar ctl status | jq .policy")]
    Status,
    /// Change the log level until the next start
    #[command(after_help = "Example:\n  mcp-sidecar ctl log-level debug")]
    LogLevel { level: Level },
    /// Become not ready, finish what runs, and end
    #[command(after_help = "Example:\n  mcp-sidecar ctl drain")]
    Drain,
}

/// A log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Sends the command to the process that is meant, and prints its answer.
///
/// # Errors
/// When there is no socket, nobody answers, or the process refuses.
pub fn run(args: &Args) -> anyhow::Result<()> {
    say!("{}", ask(&socket(args)?, args.command)?);
    Ok(())
}

fn socket(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(socket) = &args.socket {
        return Ok(socket.clone());
    }
    let of_up = PathBuf::from(UP);
    let file = match &args.config {
        Some(file) => file.as_path(),
        None if of_up.exists() || !Path::new(SHIPPED).exists() => return Ok(of_up),
        None => Path::new(SHIPPED),
    };
    let overrides = Overrides::from_process(Vec::new());
    let loaded = Source::read(file).and_then(|source| load_sidecar(&source, &overrides));
    let sidecar = loaded.map_err(|report| anyhow::anyhow!("{}or give --socket PATH", report.render()))?;
    let Some(socket) = sidecar.admin.control else {
        bail!("no control socket: set control.socket in {}, or give --socket PATH", file.display());
    };
    Ok(socket)
}

fn ask(path: &Path, command: Command) -> anyhow::Result<String> {
    let request = match command {
        Command::Reload => json!({ "command": "reload" }),
        Command::Status => json!({ "command": "status" }),
        Command::LogLevel { level } => json!({ "command": "log-level", "level": level.as_str() }),
        Command::Drain => json!({ "command": "drain" }),
    };
    let mut stream = UnixStream::connect(path)
        .with_context(|| format!("nobody answers on {}; is mcp-sidecar running?", path.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{request}\n").as_bytes()).context("the request could not be sent")?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER)).read_line(&mut line).context("no answer came")?;
    read(&line)
}

fn read(line: &str) -> anyhow::Result<String> {
    let answer: Value = serde_json::from_str(line).context("the answer is not understood; are both of one version?")?;
    if answer["ok"] != true {
        bail!("refused: {}", answer["error"].as_str().unwrap_or("without a reason"));
    }
    Ok(match (&answer["status"], &answer["message"]) {
        (Value::Null, message) => message.as_str().unwrap_or("done").to_owned(),
        (status, _) => serde_json::to_string_pretty(status)?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn commands_become_requests_and_answers_texts() {
        type Case = (&'static [&'static str], &'static str, &'static str, Result<&'static str, &'static str>);
        let cases: [Case; 5] = [
            (&["reload"], r#"{"command":"reload"}"#, r#"{"ok":true,"message":"revision 2"}"#, Ok("revision 2")),
            (&["status"], r#"{"command":"status"}"#, r#"{"ok":true,"status":{"a":1}}"#, Ok("{\n  \"a\": 1\n}")),
            (
                &["log-level", "debug"],
                r#"{"command":"log-level","level":"debug"}"#,
                r#"{"ok":true,"message":"m"}"#,
                Ok("m"),
            ),
            (&["drain"], r#"{"command":"drain"}"#, r#"{"ok":false,"error":"no"}"#, Err("refused: no")),
            (&["drain"], r#"{"command":"drain"}"#, "", Err("not understood")),
        ];
        for (words, request, answer, expected) in cases {
            let dir = tempfile::tempdir().expect("directory");
            let path = dir.path().join("s");
            let listener = UnixListener::bind(&path).expect("bind");
            let peer = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("accept");
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).expect("line");
                stream.write_all(format!("{answer}\n").as_bytes()).expect("answer");
                line
            });
            let line = Line::parse_from(["ctl"].iter().chain(words));
            let answer = ask(&path, line.args.command);
            assert_eq!(peer.join().expect("no panic").trim(), request);
            match (answer, expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (answer, expected) => panic!("{answer:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn a_missing_socket_is_said_plainly() {
        let error = ask(Path::new("/nowhere/s"), Command::Status).expect_err("nobody there").to_string();
        assert!(error.contains("/nowhere/s") && error.contains("running"), "{error}");
    }

    #[test]
    fn unknown_levels_are_refused_before_anything_is_sent() {
        assert!(Line::try_parse_from(["ctl", "log-level", "verbose"]).is_err());
    }
}
