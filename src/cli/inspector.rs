//! `mcp-sidecar inspector`: the MCP inspector of npm, set up for one of our servers.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::app::Endpoint;
use crate::cli::local::LocalArgs;

/// The first version that is known to work with what is written below, and those that keep its promises.
const PACKAGE: &str = "@modelcontextprotocol/inspector@2";
/// What `--print` shows in place of a token.
const HIDDEN: &str = "(MCP_TOKEN)";

/// Start the npm MCP inspector against one server.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It needs Node.js (22 or later) with npx, which fetches the inspector from npm. Without --url, the
inspector starts `mcp-sidecar stdio HANDLE` itself.

Examples:
  mcp-sidecar inspector content
  mcp-sidecar inspector content --demo --print
  MCP_TOKEN=… mcp-sidecar inspector content --url http://127.0.0.1:8087/api/v1/mcp/content
  mcp-sidecar inspector content -- --cli --method tools/list"
)]
pub struct Args {
    /// The server's handle
    handle: String,
    /// Connect to a running server, with the token in MCP_TOKEN
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Show what would be started, and start nothing
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    local: LocalArgs,
    /// Handed to the inspector as they are
    #[arg(last = true, value_name = "INSPECTOR-ARGS")]
    rest: Vec<String>,
}

/// Starts the inspector, and ends with its exit code.
///
/// # Errors
/// When the policy has no such server, npx is missing, or the URL is none.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let token = std::env::var("MCP_TOKEN").unwrap_or_default();
    if args.url.is_none() {
        // Before anything is fetched for a server that is not there.
        args.local.knows(&args.handle)?;
    }
    if args.print {
        let token = if token.is_empty() { "" } else { HIDDEN };
        let (words, file) = (arguments(args, "inspector.json"), configuration(args, token)?);
        let file = serde_json::to_string_pretty(&file)?;
        super::say(&format!("npx {}\n\ninspector.json:\n{file}\n", words.join(" ")));
        return Ok(0);
    }
    // It may hold a token: for this user only, and gone with this process.
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let path: PathBuf = dir.path().join("inspector.json");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(configuration(args, &token)?.to_string().as_bytes())?;
    drop(file);
    let status = Command::new("npx").args(arguments(args, &path.display().to_string())).status();
    let status = match status {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "there is no npx on PATH, which starts the inspector: install Node.js 22 or later (https://nodejs.org), or \
             see with --print what to configure in another client"
        ),
        status => status.context("cannot run npx")?,
    };
    let ended = status.signal().is_some();
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::from(!ended)))
}

fn arguments(args: &Args, file: &str) -> Vec<String> {
    let mut words = vec!["--yes".to_owned(), PACKAGE.to_owned()];
    // The inspector wants its mode before everything else.
    words.extend(args.rest.iter().cloned());
    words.extend(["--config", file, "--server", &args.handle].map(str::to_owned));
    words
}

/// The file by which the inspector, as most clients, knows servers.
fn configuration(args: &Args, token: &str) -> anyhow::Result<Value> {
    let server = match &args.url {
        Some(url) => {
            Endpoint::parse(url).map_err(anyhow::Error::msg)?;
            let mut server = json!({"type": "streamable-http", "url": url});
            if !token.is_empty() {
                server["headers"] = json!({"Authorization": format!("Bearer {token}")});
            }
            server
        }
        None => {
            let program = std::env::current_exe().context("cannot tell where this program is")?;
            let mut words = vec!["stdio".to_owned(), args.handle.clone()];
            words.extend(args.local.words());
            json!({"type": "stdio", "command": program, "args": words})
        }
    };
    Ok(json!({"mcpServers": {args.handle.as_str(): server}}))
}
