//! `mcp-sidecar make`: the beginnings of a server's table and of a tool.
//!
//! The tool is a copy of a file that our own tests compile and run, so that it starts from something that works.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};

use crate::base::{Clock as _, SystemClock};
use crate::config::{Overrides, PolicyContext, Source, load_policy};

/// A tool that works; see `src/executor/tests.rs`.
const TOOL: &str = include_str!("../executor/tests/sample.rs");

/// Make the beginnings of a server or a tool.
#[derive(Debug, clap::Args)]
#[command(after_help = "Resources and prompts cannot be made: the executor has none.

Examples:
  mcp-sidecar make server shop --upstream shop
  mcp-sidecar make tool first_child")]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// A [[servers]] table for policy.toml: everything is denied until you list it
    #[command(after_help = "Examples:
  mcp-sidecar make server shop
  mcp-sidecar make server catalogue --kind content --upstream executor --policy conf/policy.toml --write")]
    Server(ServerArgs),
    /// A content tool in a checkout of this program: its file with a test, its lines in mod.rs, registry.rs and TOOLS.md
    #[command(after_help = "Example:\n  mcp-sidecar make tool first_child && cargo test --lib first_child")]
    Tool(ToolArgs),
}

#[derive(Debug, clap::Args)]
struct ServerArgs {
    /// The handle, the last segment of its path
    name: String,
    /// Our executor over the site's database, or any other MCP server
    #[arg(long, value_enum, default_value_t = ServerKind::Mcp)]
    kind: ServerKind,
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
enum ServerKind {
    Content,
    Mcp,
}

#[derive(Debug, clap::Args)]
struct ToolArgs {
    /// What comes after evo.content., such as first_child
    name: String,
    /// The checkout
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Makes it.
///
/// # Errors
/// When the name cannot be used, something of that name exists, or a file is not what it should be.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.kind {
        Kind::Server(args) => server(args),
        Kind::Tool(args) => tool(args),
    }
}

fn server(args: &ServerArgs) -> anyhow::Result<()> {
    let content = args.kind == ServerKind::Content;
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
        // By rename: who watches the file sees the old or the new one, whole.
        let next = args.policy.with_extension("toml.new");
        std::fs::write(&next, whole).with_context(|| format!("cannot write {}", next.display()))?;
        std::fs::rename(&next, &args.policy).with_context(|| format!("cannot replace {}", args.policy.display()))?;
        eprintln!("written into {}", args.policy.display());
    } else {
        say!("{}", table.trim_end());
    }
    if !content {
        eprintln!("sidecar.toml needs:\n\n[upstreams.{upstream}]\nurl = \"http://127.0.0.1:9000\"\npath = \"/mcp\"");
    }
    Ok(())
}

fn tool(args: &ToolArgs) -> anyhow::Result<()> {
    let name = &args.name;
    let first = name.starts_with(|letter: char| letter.is_ascii_lowercase());
    if !first || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        bail!("{name:?} cannot be a tool's name: use a to z, digits and _, a letter first");
    }
    let room = args.dir.join("src/executor/content");
    let (module, registry) = (room.join("mod.rs"), args.dir.join("src/executor/registry.rs"));
    let (guide, file) = (args.dir.join("docs/TOOLS.md"), room.join(format!("{name}.rs")));
    if file.exists() || keyword(name) {
        bail!("the name {name:?} is taken");
    }
    let read = |path: &Path| {
        let hint = "is this a checkout of mcp-sidecar? --dir names one";
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}; {hint}", path.display()))
    };
    let modules = declared(&read(&module)?, name).with_context(|| format!("no modules in {}", module.display()))?;
    let lines = before(&read(&registry)?, "    models::", &format!("    content::{name}::TOOL,\n"))
        .with_context(|| format!("no line of a model's tool in {}", registry.display()))?;
    let row = format!("| `evo.content.{name}` | **id** | the first document below another one, or null |\n");
    let rows = before(&read(&guide)?, "| `evo.model.", &row)
        .with_context(|| format!("no row of a model's tool in {}", guide.display()))?;
    for (path, text) in [(&file, rendered(name)), (&module, modules), (&registry, lines), (&guide, rows)] {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        say!("{}", path.display());
    }
    say!("next: cargo test --lib {name}; make it do what you want (docs/ADDING-A-TOOL.md);");
    say!("and add its name to the listing that src/executor/tests/protocol.rs expects");
    Ok(())
}

/// The sample under another name.
fn rendered(name: &str) -> String {
    let words = name.split('_').filter(|word| !word.is_empty()).map(|word| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_uppercase())
    });
    let title = words.collect::<Vec<_>>().join(" ");
    TOOL.replace("evo.content.sample", &format!("evo.content.{name}"))
        .replace("Content Sample Tool", &format!("Content {title} Tool"))
}

/// The text with a module declared, in the order of the alphabet.
fn declared(text: &str, name: &str) -> Option<String> {
    let module = |line: &str| {
        let name = line.strip_prefix("pub(super) mod ").or_else(|| line.strip_prefix("mod "))?;
        name.strip_suffix(';').map(str::to_owned)
    };
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().rposition(|line| module(line).is_some())?;
    let at = lines.iter().position(|line| module(line).is_some_and(|other| *other > *name)).unwrap_or(last + 1);
    let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    lines.insert(at, format!("pub(super) mod {name};"));
    Some(lines.join("\n") + "\n")
}

/// The text with a line before the first that begins so.
fn before(text: &str, begins: &str, line: &str) -> Option<String> {
    let at = if text.starts_with(begins) { 0 } else { text.find(&format!("\n{begins}"))? + 1 };
    Some(format!("{}{line}{}", &text[..at], &text[at..]))
}

/// Words that cannot name a module, or name one already.
fn keyword(name: &str) -> bool {
    const WORDS: [&str; 40] = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
        "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
        "match", "mod", "move", "mut", "pub", "ref", "return", "static", "struct", "trait", "true", "type", "use",
        "where",
    ];
    WORDS.contains(&name)
        || ["self", "super", "try", "typeof", "unsafe", "unsized", "virtual", "while", "yield"].contains(&name)
}
