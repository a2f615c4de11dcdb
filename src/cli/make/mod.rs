//! `mcp-sidecar make`: the beginnings of a server's table, a tool, a resource and a prompt.
//!
//! Invariants: nothing that exists is overwritten; what goes into a checkout is a copy of a file that our own tests
//! compile and run, so that it starts from something that works.

mod scaffold;
mod server;
mod text;

use clap::Subcommand;

/// Make the beginnings of a server, a tool, a resource or a prompt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mcp-sidecar make server shop --upstream shop
  mcp-sidecar make tool first_child
  mcp-sidecar make resource contact
  mcp-sidecar make prompt summary")]
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
    Server(server::Args),
    /// A content tool in a checkout of this program: its file with a test, its lines in mod.rs, registry.rs and
    /// TOOLS.md
    #[command(after_help = "Example:\n  mcp-sidecar make tool first_child && cargo test --lib first_child")]
    Tool(scaffold::Args),
    /// A resource in a checkout of this program: its file with a test, its lines in mod.rs and registry.rs
    #[command(after_help = "Example:\n  mcp-sidecar make resource contact && cargo test --lib contact")]
    Resource(scaffold::Args),
    /// A prompt in a checkout of this program: its file with a test, its lines in mod.rs and registry.rs
    #[command(after_help = "Example:\n  mcp-sidecar make prompt summary && cargo test --lib summary")]
    Prompt(scaffold::Args),
}

/// Makes it.
///
/// # Errors
/// When the name cannot be used, something of that name exists, or a file is not what it should be.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.kind {
        Kind::Server(args) => server::make(args),
        Kind::Tool(args) => scaffold::make(args, &scaffold::TOOL),
        Kind::Resource(args) => scaffold::make(args, &scaffold::RESOURCE),
        Kind::Prompt(args) => scaffold::make(args, &scaffold::PROMPT),
    }
}
