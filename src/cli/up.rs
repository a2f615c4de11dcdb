use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine as _;
use rand::RngCore as _;

use crate::app::{Files, Plan, demo_password, demo_site};
use crate::auth::{MintClaims, mint};
use crate::base::{Clock, Secret, SystemClock};
use crate::cli::load::SetArgs;
use crate::cli::service::{log, runtime};
use crate::config::embedded;

/// The file in the data directory that holds the password of the demo site's administrator.
const PASSWORD: &str = "demo.password";
/// How long the printed token lives, in seconds.
const TOKEN_TTL_S: u64 = 12 * 3600;

/// Files of the data directory.
const SITE: &str = "demo.sqlite";
const SOCKET: &str = "executor.sock";
/// Signs tokens; made where the environment holds no secret.
const KEY: &str = "jwt.key";
/// Proves which tasks are ours; made on first use.
const QUEUE_KEY: &str = "queue.key";

/// Try it: everything in one process.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mcp-sidecar up\n  mcp-sidecar up --listen 127.0.0.1:9000 --demo-docs 1000 --set rate_limit.per_minute=5"
)]
pub struct Args {
    /// Where MCP clients connect
    #[arg(long, default_value = "127.0.0.1:8087")]
    listen: SocketAddr,
    /// Where metrics, health and status are read
    #[arg(long, default_value = "127.0.0.1:9087")]
    admin: SocketAddr,
    /// Where the key, the demo site and the audit log are kept
    #[arg(long, value_name = "DIR", default_value = "var")]
    data: PathBuf,
    /// Instead of the embedded sidecar.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Instead of the embedded policy.toml; watched
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Documents to generate in a new demo site, beside its twelve
    #[arg(long, value_name = "N", default_value_t = 0)]
    demo_docs: u32,
    /// Listen beyond loopback although this is not for production
    #[arg(long)]
    i_know: bool,
    #[command(flatten)]
    set: SetArgs,
}

/// Runs until it is told to stop.
///
/// # Errors
/// What is wrong with the files, or why it cannot start.
pub fn run(args: Args) -> anyhow::Result<()> {
    for (flag, address) in [("--listen", args.listen), ("--admin", args.admin)] {
        if !address.ip().is_loopback() && !args.i_know {
            bail!("{flag} {address} is not loopback: `up` is for trying things out. Add --i-know if you mean it");
        }
    }
    std::fs::create_dir_all(&args.data).with_context(|| format!("cannot make {}", args.data.display()))?;
    let data = std::fs::canonicalize(&args.data)?;
    let secret = match std::env::var("SAPI_JWT_SECRET") {
        Ok(secret) if !secret.is_empty() => Secret::new(secret),
        _ => key(&data)?,
    };
    let site = data.join(SITE);
    let builtin = [
        ("listen.http", format!("[\"{}\"]", args.listen)),
        ("admin.listen", format!("\"{}\"", args.admin)),
        ("control.socket", quoted(&data.join("control.sock"))),
        ("audit.dir", quoted(&data.join("audit"))),
        ("upstreams.executor.socket", quoted(&data.join(SOCKET))),
        ("queue_worker.inside", "true".to_owned()),
        ("queue_worker.drain", "\"2s\"".to_owned()),
    ];
    make_key(&data.join(QUEUE_KEY))?;
    let shared = executor_keys(&data);
    let builtin = builtin.iter().chain(&shared);
    let mut builtin: Vec<(&str, &str)> = builtin.map(|(key, value)| (*key, value.as_str())).collect();
    if args.config.is_none() {
        // Nobody balances load over what somebody tries out at a terminal.
        builtin.push(("timeouts.ready_lag", "\"1ms\""));
    }
    if args.policy.is_none() {
        // A policy of the user's own is taken as it is.
        builtin.extend(embedded::UP_OVERRIDES);
    }
    let overrides = args.set.overrides().with_builtin(&builtin);
    let files = Files { sidecar: args.config, executor: None, policy: args.policy };
    let sidecar = Plan::load_sidecar(&files, &overrides, &data).map_err(|r| anyhow::anyhow!("{}", r.render()))?;
    let executor = Plan::load_executor(&files, &overrides, &data).map_err(|r| anyhow::anyhow!("{}", r.render()))?;
    let handle = log(&sidecar.log)?;
    let runtime = runtime()?;
    let new = !site.exists();
    if new {
        eprintln!("making the demo site in {} ({} generated documents)", site.display(), args.demo_docs);
    }
    runtime.block_on(demo_site(&site, args.demo_docs))?;
    if new {
        // Of an earlier demo site, perhaps.
        let _ = std::fs::remove_file(data.join(PASSWORD));
        keep(&data.join(PASSWORD), &runtime.block_on(demo_password(&site))?)?;
    }
    let login = std::fs::read_to_string(data.join(PASSWORD)).ok();
    let plan = Plan {
        files,
        overrides,
        extra_secrets: vec![secret.clone()],
        data,
        sidecar: Some(sidecar),
        executor: Some(executor),
        last_good: false,
    };
    runtime.block_on(crate::app::run(plan, Some(handle), |up| announce(up, &secret, login.as_deref()))).map_err(
        |error| {
            let taken = |cause: &(dyn std::error::Error + 'static)| {
                cause
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
            };
            match error.chain().any(taken) {
                true => error.context("--listen, --admin and --data choose other places"),
                false => error,
            }
        },
    )
}

/// What executor.toml is told about a data directory, by `up` and by what works beside it.
pub(super) fn executor_keys(data: &Path) -> [(&'static str, String); 5] {
    let file = |name: &str| quoted(Path::new(&format!("sqlite://{}", data.join(name).display())));
    [
        ("executor.socket", quoted(&data.join(SOCKET))),
        ("database.url", file(SITE)),
        ("queue_worker.url", file("queue.sqlite")),
        ("queue_worker.key_file", quoted(&data.join(QUEUE_KEY))),
        ("queue_worker.audit.dir", quoted(&data.join("audit"))),
    ]
}

fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

fn announce(up: &crate::app::Up, secret: &Secret, login: Option<&str>) {
    let routes = &up.policy.routes;
    let handle = up.policy.servers.first().map_or("content", |server| &*server.handle);
    let segments = [&*routes.base, &*routes.version, &*routes.api_prefix, handle];
    let path: Vec<&str> = segments.into_iter().filter(|segment| !segment.is_empty()).collect();
    let token = mint(
        secret,
        &MintClaims {
            sub: "developer".to_owned(),
            scopes: vec!["mcp:read".to_owned(), "mcp:call".to_owned()],
            user_id: Some(1),
            issuer: up.policy.auth.issuer.clone(),
            audience: up.policy.auth.audience.clone(),
            issued_at_s: SystemClock.now_ms() / 1000,
            ttl_s: TOKEN_TTL_S,
            jti: None,
        },
    );
    let mut out = std::io::stdout().lock();
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    let mut url = String::new();
    for address in &up.mcp {
        url = format!("http://{address}/{}", path.join("/"));
        line(format!("mcp     {url}"));
    }
    if let Some(address) = up.admin {
        line(format!("admin   http://{address}"));
    }
    if let Some(path) = &up.control {
        line(format!("control {}", path.display()));
    }
    line(format!("token   {token}"));
    if let Some(password) = login.filter(|_| up.policy.routes.api && up.policy.auth.token.enabled) {
        let segments = [&*routes.base, &*routes.version, "token"];
        let path: Vec<&str> = segments.into_iter().filter(|segment| !segment.is_empty()).collect();
        line(format!("login   admin {} at /{}", password.trim(), path.join("/")));
    }
    line(String::new());
    line("This is for trying things out, not for production. Try:".to_owned());
    line(format!("  curl -s {url} -H 'Authorization: Bearer {token}' \\"));
    line("    -H 'Content-Type: application/json' \\".to_owned());
    line("    -d '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"evo.content.search\",\"arguments\":{\"limit\":3}}}'".to_owned());
    line(String::new());
    line("ready".to_owned());
    let _ = out.flush();
}

/// The data directory's key, made on first use: 32 random bytes as base64url.
fn key(data: &Path) -> anyhow::Result<Secret> {
    make_key(&data.join(KEY))?;
    read_key(data)?.context("the key that was just made is gone")
}

fn make_key(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        let mut bytes = [0_u8; 32];
        rand::rng().fill_bytes(&mut bytes);
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        keep(path, &text)?;
    }
    Ok(())
}

/// Writes a secret into a new file that nobody else may read.
fn keep(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Reads the key that [`key`] made, if there is one.
///
/// # Errors
/// When it cannot be read or is too short.
pub fn read_key(data: &Path) -> anyhow::Result<Option<Secret>> {
    let path = data.join(KEY);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read the key {}", path.display()))?,
    };
    let text = text.trim();
    if text.len() < 32 {
        bail!("the key {} is shorter than 32 bytes: delete it, and `up` makes another", path.display());
    }
    Ok(Some(Secret::new(text)))
}
