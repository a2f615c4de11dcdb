//! JSON-RPC: from a body to an answer, whatever carries them.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::executor::argument::{Arguments, Caps};
use crate::executor::pipeline::{self, Traversal};
use crate::executor::{Executor, registry, stream};
use crate::policy::{Server, Snapshot};
use crate::protocol::{self, Arguments as ArgumentsKind, Envelope, Id, Identity, Method, Params};
use crate::store;

/// The revisions that are spoken, the preferred one first.
const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// How many of [`VERSIONS`] know `instructions`.
const INSTRUCTED: usize = 2;
const INSTRUCTIONS: &str = "Reads the documents and the building blocks of a content site. Start with \
    evo.content.root_tree or evo.content.search; lists are paged by limit and offset.";
pub(in crate::executor) const INTERNAL: &str = "Internal error";

/// What to send back.
pub(in crate::executor) enum Answer {
    /// A notification: accepted, nothing done.
    Nothing,
    Json(Vec<u8>),
    /// A successful `initialize`, which comes with a session id.
    Session(Vec<u8>),
    Stream(Box<stream::Call>),
    /// The policy denies the tool.
    Denied,
}

/// A JSON-RPC error.
struct Failure {
    code: i32,
    message: &'static str,
    data: Option<Value>,
}

impl Failure {
    const fn new(code: i32, message: &'static str) -> Self {
        Self { code, message, data: None }
    }
}

/// Answers one body.
pub(in crate::executor) async fn answer(
    executor: &Executor,
    policy: &Snapshot,
    server: &Server,
    identity: &Identity,
    body: &[u8],
) -> Answer {
    let envelope = match protocol::parse(body) {
        Ok(envelope) => envelope,
        Err(refused) => {
            let refusal = refused.refusal;
            let message = if refusal.rpc_code() == -32700 { "Parse error" } else { "Invalid Request" };
            return Answer::Json(protocol::rpc_error(&refused.id, refusal.rpc_code(), message, Some(refusal.code())));
        }
    };
    if Method::from_name(&envelope.method) == Some(Method::ToolsCall) && denied(policy, server, &envelope) {
        return Answer::Denied;
    }
    if !envelope.id.expects_answer() {
        return Answer::Nothing;
    }
    let outcome = match envelope.params {
        Params::Other => Err(Failure::new(-32602, "params must be an object")),
        _ => dispatch(executor, policy, server, identity, &envelope, body).await,
    };
    match outcome {
        Ok(Reply::Result(result)) => Answer::Json(message(&envelope.id, "result", result)),
        Ok(Reply::Initialized(result)) => Answer::Session(message(&envelope.id, "result", result)),
        Ok(Reply::Stream(call)) => Answer::Stream(call),
        Err(Failure { code, message: text, data }) => {
            let mut error = json!({"code": code, "message": text});
            if let Some(data) = data {
                error["data"] = data;
            }
            Answer::Json(message(&envelope.id, "error", error))
        }
    }
}

enum Reply {
    Result(Value),
    Initialized(Value),
    Stream(Box<stream::Call>),
}

async fn dispatch(
    executor: &Executor,
    policy: &Snapshot,
    server: &Server,
    identity: &Identity,
    envelope: &Envelope<'_>,
    body: &[u8],
) -> Result<Reply, Failure> {
    let params = params(body);
    let caps = || Caps::of(policy, server);
    match Method::from_name(&envelope.method) {
        Some(Method::Initialize) => initialize(&params, &policy.toolset_version).map(Reply::Initialized),
        Some(Method::Ping) => Ok(Reply::Result(json!({}))),
        Some(Method::ToolsList) => list_tools(&params, &caps()).map(Reply::Result),
        Some(Method::ToolsCall) => call_tool(executor, policy, caps(), identity, envelope, &params).await,
        Some(Method::ResourcesList) => Ok(Reply::Result(json!({"resources": []}))),
        Some(Method::ResourceTemplatesList) => Ok(Reply::Result(json!({"resourceTemplates": []}))),
        Some(Method::PromptsList) => Ok(Reply::Result(json!({"prompts": []}))),
        Some(Method::ResourcesRead) => Err(Failure::new(-32002, "Resource not found")),
        Some(Method::PromptsGet) => Err(Failure::new(-32602, "Prompt not found")),
        _ => Err(Failure::new(-32601, "Method not found")),
    }
}

fn initialize(params: &Map<String, Value>, toolset_version: &str) -> Result<Value, Failure> {
    let version = match params.get("protocolVersion") {
        None => Some(0),
        Some(requested) => VERSIONS.iter().position(|version| requested.as_str() == Some(version)),
    };
    let Some(version) = version else {
        let data = json!({"supported": VERSIONS, "requested": params.get("protocolVersion")});
        return Err(Failure { data: Some(data), ..Failure::new(-32602, "Unsupported protocol version") });
    };
    let mut result = json!({
        "protocolVersion": VERSIONS[version],
        "capabilities": {
            "tools": {"listChanged": false},
            "resources": {"listChanged": false},
            "prompts": {"listChanged": false},
            "evo": {"toolsetVersion": toolset_version},
        },
        "serverInfo": {
            "name": "eMCP Content Server",
            "version": "1.0.0",
            "platform": "eMCP",
            "platformVersion": env!("CARGO_PKG_VERSION"),
        },
    });
    if version < INSTRUCTED {
        result["instructions"] = INSTRUCTIONS.into();
    }
    Ok(result)
}

fn list_tools(params: &Map<String, Value>, caps: &Caps) -> Result<Value, Failure> {
    let per_page = match params.get("per_page") {
        None | Some(Value::Null) => 15,
        Some(value) => value.as_i64().ok_or(Failure::new(-32602, "per_page must be an integer"))?.clamp(1, 50),
    };
    let offset = match params.get("cursor") {
        None | Some(Value::Null) => 0,
        Some(Value::String(cursor)) => cursor_offset(cursor),
        Some(_) => return Err(Failure::new(-32602, "cursor must be a string")),
    };
    let per_page = usize::try_from(per_page).unwrap_or(50);
    let tools: Vec<Value> = registry::TOOLS
        .iter()
        .skip(offset)
        .take(per_page)
        .map(|tool| {
            json!({
                "name": tool.name,
                "title": tool.title,
                "description": tool.description,
                "inputSchema": (tool.schema)(caps),
                "annotations": {},
            })
        })
        .collect();
    let mut result = json!({"tools": tools});
    let end = offset.saturating_add(per_page);
    if end < registry::TOOLS.len() {
        let cursor = json!({"offset": end}).to_string();
        result["nextCursor"] = base64::engine::general_purpose::STANDARD.encode(cursor).into();
    }
    Ok(result)
}

/// What cannot be read means the start.
fn cursor_offset(cursor: &str) -> usize {
    base64::engine::general_purpose::STANDARD
        .decode(cursor)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .and_then(|value| value.get("offset")?.as_u64())
        .and_then(|offset| usize::try_from(offset).ok())
        .unwrap_or(0)
}

async fn call_tool(
    executor: &Executor,
    policy: &Snapshot,
    caps: Caps,
    identity: &Identity,
    envelope: &Envelope<'_>,
    params: &Map<String, Value>,
) -> Result<Reply, Failure> {
    let name = envelope.name.as_deref().ok_or(Failure::new(-32602, "A tool name is required"))?;
    let tool = registry::find(name).ok_or(Failure::new(-32602, "Unknown tool"))?;
    let none = Map::new();
    let arguments = match (envelope.arguments, params.get("arguments")) {
        (ArgumentsKind::Absent, _) => &none,
        (ArgumentsKind::Object, Some(Value::Object(arguments))) => arguments,
        _ => return Err(Failure::new(-32602, "arguments must be an object")),
    };
    let failed = |error: store::Error| {
        log_failure(&error, &identity.trace_id);
        Failure::new(-32603, INTERNAL)
    };
    let plan = match (tool.validate)(&mut Arguments::new(arguments), &caps) {
        Ok(plan) => pipeline::prepare(&executor.pool, plan).await.map_err(failed)?,
        Err(invalid) => Err(invalid),
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(invalid) if policy.compat.validation_as_rpc_error => {
            let data = json!({"messages": invalid.0});
            return Err(Failure { data: Some(data), ..Failure::new(-32602, "Invalid arguments") });
        }
        Err(invalid) => return Ok(Reply::Result(pipeline::refusal(&invalid))),
    };
    if !pipeline::authorize(identity, &plan) {
        return Err(Failure::new(-32602, "Unknown tool"));
    }

    let token = params.get("_meta").and_then(|meta| meta.get("progressToken"));
    let token = token.filter(|_| identity.streaming && envelope.has_progress_token && plan.page.is_some());
    let step = token.map(|_| stream::STEP);
    let mut traversal = Traversal::start(&executor.pool, plan, &caps, step).await.map_err(failed)?;
    if let Some(token) = token {
        let (id, trace_id) = (id_value(&envelope.id), identity.trace_id.clone());
        return Ok(Reply::Stream(Box::new(stream::Call { traversal, id, token: token.clone(), trace_id })));
    }
    while traversal.advance().await.map_err(failed)?.is_some() {}
    Ok(Reply::Result(pipeline::success(&traversal.respond())))
}

/// The executor's own look at the lists: what reached it past them is refused here.
fn denied(policy: &Snapshot, server: &Server, envelope: &Envelope<'_>) -> bool {
    let Some(name) = envelope.name.as_deref() else { return false };
    policy.security.deny_tools.find(name).is_some()
        || server.deny_tools.find(name).is_some()
        || server.allow_tools.find(name).is_none()
        || (!policy.security.enable_write_tools && name.starts_with("evo.write."))
}

fn params(body: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice::<Map<String, Value>>(body).ok().and_then(|mut whole| whole.remove("params")) {
        Some(Value::Object(params)) => params,
        _ => Map::new(),
    }
}

fn message(id: &Id<'_>, member: &str, value: Value) -> Vec<u8> {
    let mut whole = json!({"jsonrpc": "2.0", "id": id_value(id)});
    whole[member] = value;
    whole.to_string().into_bytes()
}

fn id_value(id: &Id<'_>) -> Value {
    match id {
        Id::Absent | Id::Null => Value::Null,
        Id::Number(number) => (*number).into(),
        Id::String(text) => text.as_ref().into(),
    }
}

pub(in crate::executor) fn log_failure(error: &store::Error, trace_id: &str) {
    tracing::error!(%error, trace.id = trace_id, "executor: a tool's query failed");
}
