use anyhow::{Context, bail};
use clap::Subcommand;

use crate::app::{PermissionChange, permissions};
use crate::base::Secret;
use crate::cli::service::runtime;

/// The CMS's permissions for manager mode.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mcp-sidecar permissions status --url sqlite://site.sqlite\n  SITE=mysql://owner@db/site PASSWORD=… mcp-sidecar permissions up \\\n    --url-env SITE --password-env PASSWORD --role 1 --role 3"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put in the group and the permissions emcp, emcp_manage and emcp_dispatch, and grant them
    Up {
        #[command(flatten)]
        site: Site,
        /// A role that gets all three (repeatable)
        #[arg(long = "role", value_name = "ID", default_values_t = [1], value_parser = clap::value_parser!(i64).range(1..=2_147_483_647))]
        roles: Vec<i64>,
    },
    /// Take the permissions and every grant of them out, and the group if it is empty then
    Down {
        #[command(flatten)]
        site: Site,
    },
    /// Show what is there; exit code 1 when something is missing
    Status {
        #[command(flatten)]
        site: Site,
    },
}

/// The site's database, as a user who may write to it. Never taken from executor.toml, whose user should only read.
#[derive(Debug, clap::Args)]
struct Site {
    /// sqlite://PATH, mysql://USER@HOST/NAME or postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL", required_unless_present = "url_env")]
    url: Option<String>,
    /// The variable that holds the URL, which then does not show in the list of processes
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    url_env: Option<String>,
    /// The variable that holds the password
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
    /// First part of every table name
    #[arg(long, value_name = "PREFIX", default_value = "evo_")]
    prefix: String,
}

impl Site {
    fn url(&self) -> anyhow::Result<Secret> {
        match (&self.url, &self.url_env) {
            (Some(url), _) => Ok(Secret::new(url.as_bytes())),
            (None, Some(name)) => variable(name),
            (None, None) => bail!("give --url or --url-env"),
        }
    }
}

fn variable(name: &str) -> anyhow::Result<Secret> {
    let value = std::env::var(name).with_context(|| format!("the variable {name} is not set"))?;
    Ok(Secret::new(value.into_bytes()))
}

/// Runs `permissions up`, `down` or `status`.
///
/// # Errors
/// When the database cannot be used, or `status` finds something missing.
pub fn run(args: Args) -> anyhow::Result<()> {
    let (site, change) = match args.command {
        Command::Up { site, roles } => (site, PermissionChange::Up(roles)),
        Command::Down { site } => (site, PermissionChange::Down),
        Command::Status { site } => (site, PermissionChange::None),
    };
    let password = site.password_env.as_deref().map(variable).transpose()?;
    let status = runtime()?.block_on(permissions(site.url()?, password, &site.prefix, &change))?;
    say!("{status}");
    if matches!(change, PermissionChange::None) && !status.is_complete() {
        bail!("not everything is there: `mcp-sidecar permissions up` puts it in");
    }
    Ok(())
}
