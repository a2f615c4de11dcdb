//! A server's table for the policy.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::base::{Clock as _, SystemClock};
use crate::config::{Overrides, PolicyContext, Source, load_policy};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The handle, the last segment of its path
    name: String,
    /// Our executor over the site's database, or any other MCP server
    #[arg(long, value_enum, default_value_t = Kind::Mcp)]
    kind: Kind,
    /// An entry of [upstreams] in sidecar.toml [default: the handle; executor for kind content]
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// The policy that it is for
    #[arg(long, value_name = "FILE", default_value = "conf/policy.toml")]
    policy: PathBuf,
    /// Write it into the policy, before [end], instead of printing it
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Content,
    Mcp,
}

/// Prints it, or writes it.
pub(super) fn make(args: &Args) -> anyhow::Result<()> {
    let content = args.kind == Kind::Content;
    let default = if content { "executor" } else { &args.name };
    let upstream = args.upstream.as_deref().unwrap_or(default);
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let table = format!(
        "[[servers]]\nhandle = {}\nenabled = true\ntransport = \"web\"\nkind = {}\nupstream = {}\n\
         allow_tools = []                # names and patterns; what is not listed is denied\n\
         allow_resources = []\nallow_prompts = []\nsecurity = {{ deny_tools = [] }}\n",
        quoted(&args.name),
        if content { "\"content\"" } else { "\"mcp\"" },
        quoted(upstream),
    );
    let text = std::fs::read_to_string(&args.policy)
        .with_context(|| format!("cannot read the policy {}", args.policy.display()))?;
    let end = text.lines().rev().find(|line| line.trim_start().starts_with("[end]"));
    let Some(end) = end.and_then(|line| text.rfind(line)) else {
        bail!("{} does not end with [end]", args.policy.display());
    };
    let whole = format!("{}{table}\n{}", &text[..end], &text[end..]);
    let source = Source::embedded(&format!("{} with the new server", args.policy.display()), &whole, Path::new("."));
    let context = PolicyContext { revision: 1, now_ms: SystemClock.now_ms(), ..PolicyContext::default() };
    load_policy(&source, &Overrides::from_process(Vec::new()), context)
        .map_err(|report| anyhow::anyhow!("{}", report.render()))?;
    if args.write {
        replace(&args.policy, &whole).with_context(|| format!("cannot write {}", args.policy.display()))?;
        eprintln!("written into {}", args.policy.display());
    } else {
        say!("{}", table.trim_end());
    }
    if !content {
        eprintln!("sidecar.toml needs:\n\n[upstreams.{upstream}]\nurl = \"http://127.0.0.1:9000\"\npath = \"/mcp\"");
    }
    Ok(())
}

/// By rename: who watches the file sees the old or the new one, whole. A link stays one, and the file's rights and
/// owner stay what they are.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let old = std::fs::metadata(&path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut next = tempfile::NamedTempFile::new_in(dir)?;
    next.write_all(text.as_bytes())?;
    let file = next.as_file();
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    // After the owner: a change of that takes rights away.
    file.set_permissions(old.permissions())?;
    file.sync_all()?;
    next.persist(&path).map_err(|error| error.error).map(drop)
}
