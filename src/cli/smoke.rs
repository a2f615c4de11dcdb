//! `mcp-sidecar test`: the handshake and the listing of tools, as a client sees them.

use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::Endpoint;
use crate::cli::local::{CallerArgs, LocalArgs};
use crate::cli::service::runtime;
use crate::policy::ServerKind;

const VERSION: &str = "2025-11-25";
/// An answer, in bytes.
const ANSWER: usize = 16 << 20;
/// One step, in seconds.
const STEP_S: u64 = 30;
/// What every eMCP content server has.
const CANONICAL: [&str; 9] = [
    "evo.content.search",
    "evo.content.get",
    "evo.content.root_tree",
    "evo.content.descendants",
    "evo.content.ancestors",
    "evo.content.children",
    "evo.content.siblings",
    "evo.model.list",
    "evo.model.get",
];

/// Check that a server answers initialize and tools/list.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without --url, proxy and executor are run inside this process, from the files.
The exit code is 0 when every step passes, else 1.

Examples:
  mcp-sidecar test
  mcp-sidecar test --demo --json
  MCP_TOKEN=… mcp-sidecar test --url https://cms.example/api/v1/mcp/content
  MCP_COOKIE='evo_session=…' mcp-sidecar test --url https://cms.example/emcp/content")]
pub struct Args {
    /// The server's handle, also of a local one [default: the policy's first web server]
    #[arg(long, value_name = "HANDLE", conflicts_with = "url")]
    server: Option<String>,
    /// Ask a running server, with the token of MCP_TOKEN, or on a manager route with the cookie of MCP_COOKIE
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// With --url: a file with the token; without it, MCP_TOKEN is taken
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// With --url: take any MCP server, not only one with eMCP's tools
    #[arg(long, requires = "url")]
    any: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
    #[command(flatten)]
    local: LocalArgs,
}

/// The header that says who asks.
type Caller = Option<(&'static str, String)>;

fn bearer(token: &str) -> Caller {
    (!token.is_empty()).then(|| ("authorization", format!("Bearer {token}")))
}

/// What was found.
#[derive(Debug, Serialize)]
struct Outcome {
    server: String,
    passed: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    /// What came back, or what is wrong.
    detail: String,
}

/// Runs the steps; the exit code is 0 when all pass.
///
/// # Errors
/// What is wrong with the files, or why it cannot start.
pub fn run(args: Args) -> anyhow::Result<u8> {
    let json = args.json;
    let outcome = match &args.url {
        Some(url) => {
            let endpoint = Endpoint::parse(url).map_err(anyhow::Error::msg)?;
            let token = match &args.token_file {
                Some(path) => {
                    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
                }
                None => std::env::var("MCP_TOKEN").unwrap_or_default(),
            };
            let cookie = std::env::var("MCP_COOKIE").unwrap_or_default();
            let caller = bearer(token.trim()).or_else(|| (!cookie.is_empty()).then_some(("cookie", cookie)));
            runtime()?.block_on(steps(endpoint, url.clone(), caller, !args.any))
        }
        None => {
            let Args { server, caller, local, .. } = args;
            let handle = server.map_or_else(|| local.first_web(), Ok)?;
            let work = |local: crate::cli::local::Local| async move {
                let endpoint = local.endpoint(&handle)?;
                let content = local.policy.server(&handle).is_some_and(|server| server.kind == ServerKind::Content);
                let caller = bearer(&local.token(&caller));
                Ok(steps(endpoint, handle, caller, content).await)
            };
            local.with(Some("error"), work)?.context("ended by a signal")?
        }
    };
    if json {
        say!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        for step in &outcome.steps {
            say!("{:<7} {:<11} {}", if step.ok { "ok" } else { "failed" }, step.name, step.detail);
        }
        say!("{:<7} {}", if outcome.passed { "passed" } else { "failed" }, outcome.server);
    }
    Ok(u8::from(!outcome.passed))
}

async fn steps(endpoint: Endpoint, server: String, caller: Caller, content: bool) -> Outcome {
    let mut steps = Vec::new();
    let params = json!({"protocolVersion": VERSION, "capabilities": {},
        "clientInfo": {"name": "mcp-sidecar test", "version": env!("CARGO_PKG_VERSION")}});
    let hello = ask(&endpoint, &caller, &[], "initialize", params).await;
    let hello = hello.and_then(|(result, session)| Ok((initialized(&result, session.as_deref(), content)?, session)));
    let session = match hello {
        Ok((detail, session)) => {
            steps.push(Step { name: "initialize", ok: true, detail });
            session
        }
        Err(detail) => {
            steps.push(Step { name: "initialize", ok: false, detail });
            return Outcome { server, passed: false, steps };
        }
    };
    let mut headers = vec![("mcp-protocol-version", VERSION)];
    headers.extend(session.as_deref().map(|session| ("mcp-session-id", session)));
    let listed = listing(&endpoint, &caller, &headers, content).await;
    let passed = listed.is_ok();
    let detail = listed.unwrap_or_else(|wrong| wrong);
    steps.push(Step { name: "tools/list", ok: passed, detail });
    Outcome { server, passed, steps }
}

/// What the answer to `initialize` says, or lacks.
fn initialized(result: &Value, session: Option<&str>, content: bool) -> Result<String, String> {
    let text = |pointer: &str| result.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let version = text("/protocolVersion").ok_or("the answer has no protocolVersion")?;
    let name = text("/serverInfo/name").unwrap_or("a server without a name");
    if !content {
        return Ok(format!("{name}, {version}"));
    }
    let wanted = |pointer: &str| text(pointer).ok_or_else(|| format!("the answer has no {}", &pointer[1..]));
    let (platform, of) = (wanted("/serverInfo/platform")?, wanted("/serverInfo/platformVersion")?);
    let toolset = wanted("/capabilities/evo/toolsetVersion")?;
    if session.is_none_or(str::is_empty) {
        return Err("the answer has no session id".to_owned());
    }
    Ok(format!("{name}, {version}, {platform} {of}, toolset {toolset}"))
}

async fn listing(
    endpoint: &Endpoint,
    caller: &Caller,
    headers: &[(&str, &str)],
    content: bool,
) -> Result<String, String> {
    let (mut names, mut cursor) = (Vec::<String>::new(), Value::Null);
    loop {
        let params = if cursor.is_null() { json!({}) } else { json!({"cursor": cursor}) };
        let (result, _) = ask(endpoint, caller, headers, "tools/list", params).await?;
        let tools = result["tools"].as_array().ok_or("the answer has no list of tools")?;
        names.extend(tools.iter().filter_map(|tool| Some(tool["name"].as_str()?.to_owned())));
        cursor = result["nextCursor"].clone();
        if cursor.is_null() || tools.is_empty() {
            break;
        }
    }
    let missing: Vec<&str> = CANONICAL.into_iter().filter(|name| !names.iter().any(|known| known == name)).collect();
    match content && !missing.is_empty() {
        true => Err(format!("not listed: {}", missing.join(", "))),
        false => Ok(format!("{} tools", names.len())),
    }
}

/// One request; its result and the session id, or what is wrong.
async fn ask(
    endpoint: &Endpoint,
    caller: &Caller,
    headers: &[(&str, &str)],
    method: &str,
    params: Value,
) -> Result<(Value, Option<String>), String> {
    let within = std::time::Duration::from_secs(STEP_S);
    tokio::time::timeout(within, exchange(endpoint, caller, headers, method, params))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {STEP_S} s")))
}

async fn exchange(
    endpoint: &Endpoint,
    caller: &Caller,
    headers: &[(&str, &str)],
    method: &str,
    params: Value,
) -> Result<(Value, Option<String>), String> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let mut all = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    all.extend(caller.iter().map(|(name, value)| (*name, value.as_str())));
    all.extend_from_slice(headers);
    let trouble = |error: crate::app::Trouble| format!("{error}; {}", error.fix());
    let mut reply = endpoint.post(&all, Bytes::from(body)).await.map_err(trouble)?;
    let (status, session) = (reply.status, reply.header("mcp-session-id").map(str::to_owned));
    let stream = reply.is_stream();
    let bytes = reply.whole(ANSWER).await.map_err(trouble)?;
    let answer = if stream { last_message(&bytes) } else { serde_json::from_slice::<Value>(&bytes).ok() };
    if status != 200 {
        let code = answer.as_ref().and_then(|answer| answer["error"]["code"].as_str()).unwrap_or("without a code");
        return Err(format!("HTTP {status} ({code})"));
    }
    let mut answer = answer.ok_or("the answer is no JSON")?;
    if !answer["error"].is_null() {
        let message = answer["error"]["message"].as_str().unwrap_or("without a message");
        return Err(format!("error {}: {message}", answer["error"]["code"]));
    }
    Ok((answer["result"].take(), session))
}

/// The response at the end of a stream.
fn last_message(bytes: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(bytes);
    let mut messages = text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?.trim()).ok());
    messages.rfind(|message: &Value| message.get("id").is_some())
}
