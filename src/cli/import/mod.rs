//! `mcp-sidecar import`: a site's PHP settings of eMCP as a policy.toml.
//!
//! PHP itself reads the files, so that whatever they compute counts. Invariants: a value means what PHP took it for, or
//! something stricter; each that changes or stays behind has a note with its key; the result is loaded with the
//! services' own loader before anybody sees it. Non-goals: servers whose classes run in PHP, sidecar.toml and
//! executor.toml.

mod domain;
mod feature;
mod page;
mod policy;
mod scope;
mod server;
mod setting;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::base::{Clock as _, SystemClock};
use crate::config::{Overrides, PolicyContext, Source, load_policy};

/// What PHP is given to run: it prints the arrays that the files return.
const SCRIPT: &str = include_str!("settings.php");

/// Turn the PHP settings of eMCP into a policy.toml.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The PHP files are run by php (Debian: apt-get install php-cli), with this process's environment:
set what they read from the site's .env, and what stands there of SAPI_BASE_PATH, SAPI_VERSION, SAPI_JWT_ISS,
SAPI_JWT_TTL, SAPI_JWT_SCOPES, SAPI_ALLOWED_USER_ROLES, SESSION_COOKIE and SESSION_LIFETIME.
The policy goes to standard output or --out, what it could not carry over to standard error and to its first lines.

Example:
  mcp-sidecar import core/custom/config/cms/settings/eMCP.php core/custom/config/mcp.php --out policy.toml"
)]
pub struct Args {
    /// eMCP's settings, eMCP.php
    settings: PathBuf,
    /// eMCP's servers, mcp.php [default: the servers that eMCP ships]
    servers: Option<PathBuf>,
    /// Write the policy here; an existing file is kept
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The upstream, of sidecar.toml, that serves the content servers
    #[arg(long, value_name = "NAME", default_value = "executor")]
    upstream: String,
    /// The PHP that reads the files
    #[arg(long, value_name = "PROGRAM", default_value = "php")]
    php: PathBuf,
}

/// Writes the policy.
///
/// # Errors
/// When PHP is missing or refuses a file, or what the files say makes no valid policy.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let files: Vec<&Path> = std::iter::once(&args.settings).chain(&args.servers).map(PathBuf::as_path).collect();
    for file in &files {
        if !file.is_file() {
            bail!("there is no file {}", file.display());
        }
    }
    let mut read = php(&args.php, &files)?.into_iter();
    let settings = read.next().unwrap_or_default();
    let environment = |name: &str| std::env::var(name).ok();
    let made = policy::convert(settings, read.next(), &args.upstream, &environment, &valid)?;
    match &args.out {
        None => crate::cli::say(&made.text),
        Some(path) => {
            let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
            let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
            file.write_all(made.text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("written: {}", path.display());
        }
    }
    for note in &made.notes {
        eprintln!("note: {note}");
    }
    Ok(())
}

/// What the files return, each as JSON.
fn php(program: &Path, files: &[&Path]) -> anyhow::Result<Vec<Value>> {
    let mut command = Command::new(program);
    command.args(["-d", "display_errors=stderr", "-d", "log_errors=0", "-r", SCRIPT, "--"]);
    for file in files {
        command.arg(std::path::absolute(file)?);
    }
    let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::anyhow!(
            "there is no {}, which must read these files: install it (Debian: apt-get install php-cli) or name one \
             with --php",
            program.display()
        ),
        _ => anyhow::Error::new(error).context(format!("cannot run {}", program.display())),
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    let (said, program) = (said.trim(), program.display());
    let status = output.status;
    if !status.success() && !said.is_empty() {
        bail!("PHP refuses the settings: {said}");
    }
    if output.stdout.is_empty() || !status.success() {
        bail!("{program} ended with {status} and printed no settings: is it PHP for the command line? --php names it");
    }
    serde_json::from_slice(&output.stdout).map_err(|_| {
        anyhow::anyhow!(
            "{program} printed something else than settings: is it PHP for the command line? --php names it"
        )
    })
}

/// Whether the services would start with this policy; what they would say if not.
fn valid(text: &str) -> Result<(), String> {
    let source = Source::embedded("the policy made of these settings", text, Path::new("."));
    // Secrets are the business of where it will run.
    let context = PolicyContext { revision: 1, now_ms: SystemClock.now_ms(), ..PolicyContext::default() };
    load_policy(&source, &Overrides::default(), context).map(drop).map_err(|report| report.render())
}
