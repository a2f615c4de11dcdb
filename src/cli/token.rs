use anyhow::Context;

use crate::auth::{MintClaims, mint};
use crate::base::{Clock, SystemClock};
use crate::cli::load::PolicyArgs;

/// Mint a development token.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  SAPI_JWT_SECRET=… mcp-sidecar token --sub alice --scopes mcp:read,mcp:call\n  mcp-sidecar token --data var --sub alice --scopes '*' --ttl 60"
)]
pub struct Command {
    /// Who the token stands for
    #[arg(long, default_value = "developer")]
    sub: String,
    /// Scopes, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "mcp:read,mcp:call")]
    scopes: Vec<String>,
    /// The CMS's user
    #[arg(long, value_name = "ID")]
    user_id: Option<u64>,
    /// How long it lives, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    ttl: u64,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// Prints a token that the policy's first secret signs.
///
/// # Errors
/// When the policy is bad or names no secret.
pub fn command(args: &Command) -> anyhow::Result<()> {
    let policy = args.policy.load()?;
    let secret = policy.auth.secrets.first().context(
        "no secret to sign with: set the variable that auth.secret_envs names (SAPI_JWT_SECRET), or give --data DIR of an \
         `up` that was started without it",
    )?;
    let claims = MintClaims {
        sub: args.sub.clone(),
        scopes: args.scopes.clone(),
        user_id: args.user_id,
        issuer: policy.auth.issuer.clone(),
        audience: policy.auth.audience.clone(),
        issued_at_s: SystemClock.now_ms() / 1000,
        ttl_s: args.ttl,
        jti: None,
    };
    say!("{}", mint(secret, &claims));
    Ok(())
}
