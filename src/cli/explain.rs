use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::auth::{Refusal, Verifier, listed};
use crate::base::{Clock, Principal, SystemClock};
use crate::cli::load::PolicyArgs;
use crate::policy::{
    AuthMode, Body, Charge, Credential, Facts, HttpMethod, MediaType, Outcome, ProtocolHeaders, Reason, Rule, Snapshot,
    Window, decide,
};
use crate::protocol;

/// Show what the policy decides about a request.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mcp-sidecar explain --scopes mcp:call --body call.json\n  mcp-sidecar explain --manager 1 --permissions emcp --body call.json\n  echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}' | mcp-sidecar explain --token-file token.txt --body - --json"
)]
pub struct Command {
    /// A file with the caller's token; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scopes", "sub", "user_id"])]
    token_file: Option<PathBuf>,
    /// Instead of a token: who calls
    #[arg(long, default_value = "developer")]
    sub: String,
    /// Instead of a token: the caller's scopes, separated by commas
    #[arg(long, value_delimiter = ',')]
    scopes: Vec<String>,
    /// Instead of a token: the CMS's user
    #[arg(long, value_name = "ID")]
    user_id: Option<u64>,
    /// Instead of a token: this user of the CMS's manager calls
    #[arg(long, value_name = "ID", conflicts_with_all = ["token_file", "scopes", "sub", "user_id"])]
    manager: Option<u64>,
    /// With --manager: what the user's role permits, separated by commas
    #[arg(long, value_name = "KEYS", value_delimiter = ',', requires = "manager")]
    permissions: Vec<String>,
    /// The JSON-RPC body; `-` is standard input
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// The server's handle
    #[arg(long, default_value = "content")]
    server: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// What was decided, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `allow`, `answer` (by the sidecar itself) or `deny`.
    pub decision: &'static str,
    /// The code of a denial, or of what the sidecar answers by itself.
    pub deny_code: Option<&'static str>,
    /// HTTP status of that.
    pub status: Option<u16>,
    /// The rule that decided: a key of the policy, or a built-in check.
    pub rule: String,
    /// Line and column of the rule in the policy file.
    pub line: Option<u32>,
    pub column: Option<u32>,
    /// The scope that is missing.
    pub required_scope: Option<String>,
    pub method: String,
    /// What the request takes from rate limits, whatever the outcome.
    pub charges: Vec<ExplainedCharge>,
}

/// One charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedCharge {
    pub server: String,
    /// `*` is the bucket over all methods.
    pub method: String,
    pub limit: u32,
    pub window_seconds: u32,
}

/// Decides as the proxy does, about a POST of JSON.
#[must_use]
pub fn explain(snapshot: &Snapshot, server: &str, credential: Credential<'_>, body: &[u8]) -> Explanation {
    let limit =
        snapshot.server(server).map_or(snapshot.limits.max_payload_bytes, |server| server.limits.max_payload_bytes);
    let parsed = protocol::parse(body);
    let facts = Facts {
        server,
        http_method: HttpMethod::Post,
        dispatch: false,
        malformed: None,
        credential,
        media_type: MediaType::Json,
        body: match &parsed {
            // The proxy reads nothing from a caller whom the token alone refuses.
            _ if !matches!(credential, Credential::Principal(_)) => Body::Unread(Reason::BadRequest),
            _ if body.len() > limit => Body::TooLarge,
            Ok(envelope) => Body::Call(envelope),
            Err(refused) => Body::Refused(refused),
        },
        headers: ProtocolHeaders::default(),
    };
    let decision = decide(snapshot, &facts);
    let (word, reason, rule, required_scope) = match decision.outcome() {
        Outcome::Forward { rule, .. } => ("allow", None, rule, None),
        Outcome::Answer { answer, rule } => ("answer", Some(answer.reason()), rule, None),
        Outcome::Deny(denial) => ("deny", Some(denial.reason), &denial.rule, denial.required_scope.as_deref()),
    };
    let place = match rule {
        Rule::Key(site) if site.line > 0 => Some((site.line, site.column)),
        _ => None,
    };
    Explanation {
        decision: word,
        deny_code: reason.map(Reason::code),
        status: reason.map(Reason::status),
        rule: rule.to_string(),
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        required_scope: required_scope.map(str::to_owned),
        method: decision.method.to_string(),
        charges: decision.charges.iter().map(charge).collect(),
    }
}

fn charge(charge: &Charge) -> ExplainedCharge {
    let (Window::FromFirstHit { seconds } | Window::Aligned { seconds }) = charge.window;
    ExplainedCharge {
        server: charge.key.server.to_string(),
        method: charge.key.method.map_or("*", |method| method.as_str()).to_owned(),
        limit: charge.limit,
        window_seconds: seconds,
    }
}

/// Prints an explanation.
///
/// # Errors
/// When a file cannot be read or the policy is bad.
pub fn command(args: &Command) -> anyhow::Result<()> {
    let policy = args.policy.load()?;
    if args.token_file.as_deref() == Some(Path::new("-")) && args.body == Path::new("-") {
        bail!("only one of --token-file and --body can be standard input");
    }
    let body = read(&args.body)?;
    let now_ms = SystemClock.now_ms();
    let principal: Result<Principal, Refusal> = match &args.token_file {
        _ if args.manager.is_some() => {
            Ok(Principal::manager(args.manager.unwrap_or_default(), args.permissions.clone().into()))
        }
        // The proxy looks at no token then, and tells callers apart by their address.
        _ if policy.auth.mode == AuthMode::None => Ok(Principal::anonymous(Ipv4Addr::LOCALHOST.into())),
        Some(path) => {
            let token = String::from_utf8(read(path)?).context("the token is not text")?;
            Verifier::new(1).verify(&policy, token.trim(), now_ms).map(|verified| verified.principal.clone())
        }
        None => {
            let principal = Principal::api(&policy.auth.issuer, &args.sub, args.user_id, args.scopes.clone(), None);
            match listed(&policy.auth, &principal, None) {
                Some(site) => Err(Refusal::Listed(site.clone())),
                None => Ok(principal),
            }
        }
    };
    let credential = principal.as_ref().map_or_else(Refusal::credential, Credential::Principal);
    let explanation = explain(&policy, &args.server, credential, &body);
    if args.json {
        say!("{}", serde_json::to_string_pretty(&explanation)?);
    } else {
        let file = args.policy.file().unwrap_or_else(|| "embedded policy.toml".into());
        print(&explanation, &file);
    }
    Ok(())
}

fn print(explanation: &Explanation, file: &Path) {
    match (explanation.deny_code, explanation.status) {
        (Some(code), Some(status)) => say!("{:<8} {code} (HTTP {status})", explanation.decision),
        _ => say!("{}", explanation.decision),
    }
    match (explanation.line, explanation.column) {
        (Some(line), Some(column)) => say!("rule     {} at {}:{line}:{column}", explanation.rule, file.display()),
        _ => say!("rule     {} (built in)", explanation.rule),
    }
    if let Some(scope) = &explanation.required_scope {
        say!("scope    {scope} is required");
    }
    say!("method   {}", explanation.method);
    for charge in &explanation.charges {
        say!(
            "charge   1 of {} per {} s on server {}, method {}",
            charge.limit,
            charge.window_seconds,
            charge.server,
            charge.method
        );
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
