//! JSON-RPC: from a body to an answer, whatever carries them.
//!
//! Bodies are read by [`protocol::parse`], the reading that the sidecar judged by; the shapes of what goes back are
//! those of `rmcp`. Notifications are accepted and nothing is done (emcp.md 7.2).

use rmcp::model::{ErrorCode, ErrorData, JsonObject, ProgressToken, RequestId, ServerJsonRpcMessage, ServerResult};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::executor::argument::{Arguments, Caps};
use crate::executor::observation::Observation;
use crate::executor::pipeline::{self, Traversal};
use crate::executor::{Executor, handshake, listing, prompts, registry, resources, stream};
use crate::policy::{self, Reason, Server, Snapshot};
use crate::protocol::{self, Arguments as ArgumentsKind, Envelope, Id, Identity, Method, Params};
use crate::store;
use crate::telemetry::{ExecutorOutcome, ToolClass};

/// What to send back.
pub(in crate::executor) enum Answer {
    /// A notification: accepted, nothing done.
    Nothing,
    Json(Vec<u8>),
    /// A successful `initialize`, which comes with a session id.
    Session(Vec<u8>),
    Stream(Box<stream::Call>),
    /// The policy denies the tool, the resource or the prompt.
    Denied(Reason),
}

/// One caller before one server, under one policy.
#[derive(Clone, Copy)]
pub(in crate::executor) struct Desk<'a> {
    pub executor: &'a Executor,
    pub policy: &'a Snapshot,
    pub server: &'a Server,
    pub caller: &'a Identity,
}

enum Reply {
    Result(ServerResult),
    /// A result that says what is wrong with the arguments.
    Refusal(ServerResult),
    Initialized(ServerResult),
    Stream(Box<stream::Call>),
}

impl Desk<'_> {
    /// Answers one body.
    pub(in crate::executor) async fn answer(self, body: &[u8], observation: &mut Observation) -> Answer {
        observation.outcome = ExecutorOutcome::Refused;
        let envelope = match protocol::parse(body) {
            Ok(envelope) => envelope,
            Err(refused) => {
                let refusal = refused.refusal;
                let data = json!({"code": refusal.code()});
                let message = Reason::Parse(refusal).message();
                let error = ErrorData::new(ErrorCode(refusal.rpc_code()), message, Some(data));
                return Answer::Json(failure(request_id(&refused.id), error));
            }
        };
        let method = Method::from_name(&envelope.method);
        if method == Some(Method::ToolsCall) {
            observation.tool = tool_class(envelope.name.as_deref());
        }
        if let Some(reason) = self.denial(method, &envelope) {
            observation.outcome = ExecutorOutcome::Denied;
            return Answer::Denied(reason);
        }
        let Some(id) = request_id(&envelope.id) else {
            observation.outcome = ExecutorOutcome::Ok;
            return Answer::Nothing;
        };
        let outcome = match envelope.params {
            Params::Other => Err(ErrorData::invalid_params(Reason::BadParams.message(), None)),
            _ => {
                // Until there is an outcome, a caller that leaves drops this future.
                observation.outcome = ExecutorOutcome::Abandoned;
                self.dispatch(method, &envelope, &id, body).await
            }
        };
        observation.outcome = match &outcome {
            Ok(Reply::Result(_) | Reply::Initialized(_)) => ExecutorOutcome::Ok,
            Ok(Reply::Stream(_)) => ExecutorOutcome::Abandoned,
            Err(error) if error.code == ErrorCode::INTERNAL_ERROR => ExecutorOutcome::Failed,
            Ok(Reply::Refusal(_)) | Err(_) => ExecutorOutcome::Refused,
        };
        match outcome {
            Ok(Reply::Result(result) | Reply::Refusal(result)) => Answer::Json(success(id, result)),
            Ok(Reply::Initialized(result)) => Answer::Session(success(id, result)),
            Ok(Reply::Stream(call)) => Answer::Stream(call),
            Err(error) => Answer::Json(failure(Some(id), error)),
        }
    }

    /// The executor's own look at the lists: what reached it past them is refused here. Resources and prompts that do
    /// not exist are not found, whatever the lists say of them.
    fn denial(self, method: Option<Method>, envelope: &Envelope<'_>) -> Option<Reason> {
        let catalog = self.executor.catalog;
        let (name, uri) = (envelope.name.as_deref(), envelope.uri.as_deref());
        match method? {
            Method::ToolsCall => name.is_some_and(|name| !self.allows(name)).then_some(Reason::ToolDenied),
            Method::ResourcesRead => {
                let resource = uri.and_then(|uri| catalog.resource(uri))?;
                (!self.shows_resource(resource.uri)).then_some(Reason::ResourceDenied)
            }
            Method::PromptsGet => {
                let prompt = name.and_then(|name| catalog.prompt(name))?;
                (!self.shows_prompt(prompt.name)).then_some(Reason::PromptDenied)
            }
            _ => None,
        }
    }

    fn allows(self, tool: &str) -> bool {
        policy::tool_allowed(self.policy, self.server, tool)
    }

    async fn dispatch(
        self,
        method: Option<Method>,
        envelope: &Envelope<'_>,
        id: &RequestId,
        body: &[u8],
    ) -> Result<Reply, ErrorData> {
        let result = match method {
            Some(Method::Initialize) => {
                let result = handshake::initialize(params(body)?, &self.policy.toolset_version)?;
                return Ok(Reply::Initialized(result));
            }
            Some(Method::ToolsCall) => return self.call_tool(envelope, id, body).await,
            Some(Method::ToolsList) => {
                let shown = |name: &str| {
                    !self.policy.security.hide_denied_tools || (self.caller.may_call_tools && self.allows(name))
                };
                listing::tools(&params(body)?, &Caps::of(self.policy, self.server), shown)
            }
            Some(Method::Ping) => ServerResult::empty(()),
            Some(Method::ResourcesList) => {
                listing::resources(&params(body)?, self.executor.catalog, |uri| self.shows_resource(uri))
            }
            Some(Method::ResourceTemplatesList) => listing::resource_templates(&params(body)?),
            Some(Method::PromptsList) => {
                listing::prompts(&params(body)?, self.executor.catalog, |name| self.shows_prompt(name))
            }
            Some(Method::ResourcesRead) => resources::read(self, envelope.uri.as_deref()).await?,
            Some(Method::PromptsGet) => prompts::get(self, envelope, body)?,
            _ => return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, Reason::MethodNotFound.message(), None)),
        };
        Ok(Reply::Result(result))
    }

    /// One tool's procedure: validate, authorize, then query, map, paginate as often as there are pages, then respond.
    async fn call_tool(self, envelope: &Envelope<'_>, id: &RequestId, body: &[u8]) -> Result<Reply, ErrorData> {
        let invalid = |reason: Reason| ErrorData::invalid_params(reason.message(), None);
        let unknown = || ErrorData::invalid_params("Unknown tool", None);
        let name = envelope.name.as_deref().ok_or_else(|| invalid(Reason::NameMissing))?;
        let tool = registry::find(name).ok_or_else(unknown)?;
        if envelope.arguments == ArgumentsKind::Other {
            return Err(invalid(Reason::BadArguments));
        }
        let call: CallParams = params(body)?;
        let caps = Caps::of(self.policy, self.server);

        let failed = |error| failed(&error, &self.caller.trace_id);
        let none = JsonObject::new();
        let valid = match (tool.validate)(&mut Arguments::new(call.arguments.as_ref().unwrap_or(&none)), &caps) {
            Ok(plan) => pipeline::prepare(&self.executor.pool, plan).await.map_err(failed)?,
            Err(refused) => Err(refused),
        };
        let plan = match valid {
            Ok(plan) => plan,
            Err(refused) if self.policy.compat.validation_as_rpc_error => {
                return Err(ErrorData::invalid_params("Invalid arguments", Some(json!({"messages": refused.0}))));
            }
            Err(refused) => return Ok(Reply::Refusal(pipeline::refusal(&refused))),
        };
        if !pipeline::authorize(self.caller, &plan) {
            return Err(unknown());
        }

        let token = if self.caller.streaming && plan.page.is_some() { call.progress_token(envelope) } else { None };
        let step = token.as_ref().map(|_| stream::STEP);
        let mut traversal = Traversal::start(&self.executor.pool, plan, &caps, step).await.map_err(failed)?;
        if let Some(token) = token {
            let (id, trace_id) = (id.clone(), self.caller.trace_id.clone());
            return Ok(Reply::Stream(Box::new(stream::Call { traversal, id, token, trace_id })));
        }
        while traversal.advance().await.map_err(failed)?.is_some() {}
        Ok(Reply::Result(pipeline::success(traversal.respond())))
    }
}

fn tool_class(name: Option<&str>) -> ToolClass {
    match name.and_then(registry::find) {
        None => ToolClass::Unknown,
        Some(tool) if tool.name.starts_with("evo.model.") => ToolClass::Model,
        Some(_) => ToolClass::Content,
    }
}

/// What a `tools/call` says beside its name. Read by hand: `rmcp`'s parameters would refuse a malformed `_meta`, which
/// the contract lets pass.
#[derive(Deserialize)]
struct CallParams {
    arguments: Option<JsonObject>,
    #[serde(rename = "_meta", default)]
    meta: Value,
}

impl CallParams {
    fn progress_token(&self, envelope: &Envelope<'_>) -> Option<ProgressToken> {
        let token = self.meta.get("progressToken").filter(|_| envelope.has_progress_token)?;
        ProgressToken::deserialize(token).ok()
    }
}

/// The parameters as `P`. None, and positional ones, count as an empty object.
pub(in crate::executor) fn params<P: serde::de::DeserializeOwned>(body: &[u8]) -> Result<P, ErrorData> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }
    let read = || {
        let whole: Whole<'_> = serde_json::from_slice(body)?;
        serde_json::from_str(whole.params.map(RawValue::get).filter(|text| text.starts_with('{')).unwrap_or("{}"))
    };
    // What serde says could repeat what was sent, and names our types.
    read().map_err(|_: serde_json::Error| ErrorData::invalid_params("A parameter has the wrong type", None))
}

fn request_id(id: &Id<'_>) -> Option<RequestId> {
    match id {
        Id::Absent | Id::Null => None,
        Id::Number(number) => Some(RequestId::Number(*number)),
        Id::String(text) => Some(RequestId::String(text.as_ref().into())),
    }
}

/// A response in the shape of the revisions that are spoken here.
pub(in crate::executor) fn success(id: RequestId, mut result: ServerResult) -> Vec<u8> {
    result.strip_result_type_for_legacy_peer();
    encode(&ServerJsonRpcMessage::response(result, id))
}

pub(in crate::executor) fn failure(id: Option<RequestId>, error: ErrorData) -> Vec<u8> {
    encode(&ServerJsonRpcMessage::error(error, id))
}

pub(in crate::executor) fn encode(message: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages hold text keys and finite numbers only")
}

/// What a caller may know of a failed query; the log gets all of it.
pub(in crate::executor) fn failed(error: &store::Error, trace_id: &str) -> ErrorData {
    tracing::error!(%error, trace.id = trace_id, "executor: a tool's query failed");
    ErrorData::internal_error("Internal error", None)
}
