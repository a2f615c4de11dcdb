use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::app::Files;
use crate::base::{Clock as _, SystemClock};
use crate::cli::load::SetArgs;
use crate::config::{Effective, PolicyContext, inspect_policy};

/// List the servers of the policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "The exit code is 1 when no server is enabled.

Examples:
  mcp-sidecar list-servers
  mcp-sidecar list-servers --policy /etc/mcp-sidecar/policy.toml --json | jq -r '.[].handle'")]
pub struct Args {
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = "conf/policy.toml")]
    policy: PathBuf,
    /// Show disabled servers as well
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    set: SetArgs,
}

/// One line of the listing.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    handle: String,
    transport: String,
    kind: String,
    upstream: String,
    enabled: bool,
}

/// Prints the servers; the exit code is 0 when one is enabled.
///
/// # Errors
/// Everything that is wrong with the policy.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let files = Files { policy: Some(args.policy.clone()), ..Files::default() };
    let mut overrides = args.set.overrides();
    overrides.local_servers = true;
    let context = PolicyContext { revision: 1, now_ms: SystemClock.now_ms(), ..PolicyContext::default() };
    let source = files.policy_source(std::path::Path::new(".")).map_err(|r| anyhow::anyhow!("{}", r.render()))?;
    let (result, values) = inspect_policy(&source, &overrides, context);
    result.map_err(|report| anyhow::anyhow!("{}", report.render()))?;
    let mut rows = rows(&values);
    let any = rows.iter().any(|row| row.enabled);
    rows.retain(|row| row.enabled || args.all);
    if args.json {
        super::say(&format!("{}\n", serde_json::to_string_pretty(&rows)?));
    } else {
        super::say(&table(&rows));
    }
    if !any {
        eprintln!("warning: no server is enabled in {}", args.policy.display());
    }
    Ok(u8::from(!any))
}

/// The servers among the effective values, in the order of the file.
fn rows(values: &[Effective]) -> Vec<Row> {
    let mut servers: BTreeMap<usize, BTreeMap<&str, Value>> = BTreeMap::new();
    for value in values {
        let part = value.key.strip_prefix("servers[").and_then(|rest| rest.split_once("]."));
        let Some((index, key)) = part.and_then(|(index, key)| Some((index.parse().ok()?, key))) else { continue };
        // Words and switches are the same in TOML and JSON, but for literal strings.
        let plain = Value::from(value.value.trim_matches('\''));
        servers.entry(index).or_default().insert(key, serde_json::from_str(&value.value).unwrap_or(plain));
    }
    let row = |server: BTreeMap<&str, Value>| {
        let word = |key: &str| server.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Row {
            handle: word("handle"),
            transport: word("transport"),
            kind: word("kind"),
            upstream: word("upstream"),
            enabled: server.get("enabled").and_then(Value::as_bool).unwrap_or(false),
        }
    };
    servers.into_values().map(row).collect()
}

fn table(rows: &[Row]) -> String {
    let title = ["Handle", "Transport", "Kind", "Upstream", "Enabled"].map(str::to_owned);
    let cells = |row: &Row| {
        let enabled = if row.enabled { "yes" } else { "no" };
        [&row.handle, &row.transport, &row.kind, &row.upstream, enabled].map(str::to_owned)
    };
    let lines: Vec<[String; 5]> = std::iter::once(title).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let shown = lines.iter().map(|line| {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    });
    shown.collect()
}
