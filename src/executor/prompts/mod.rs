//! What clients offer their users to begin with: `prompts/list` and `prompts/get`. None is shipped.
//!
//! A prompt is one file in this room, and one line in [`registry`](crate::executor::registry).
//!
//! Invariants: what a server's `allow_prompts` does not match is neither listed nor given there; arguments are held
//! against what is declared before the prompt sees them.
//!
//! Non-goals: completion of arguments; rows of the site, for which a prompt names the tool or resource that has them.

use rmcp::model::{ErrorData, GetPromptResult, JsonObject, PromptMessage, ServerResult};
use serde::Deserialize;
use serde_json::json;

use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::rpc::{Desk, params};
use crate::policy::{Reason, prompt_allowed};
use crate::protocol::{Arguments as ArgumentsKind, Envelope};

/// A prompt: what it is called, what it takes, and what it says.
#[allow(dead_code, reason = "none is shipped")]
pub(in crate::executor) struct Prompt {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub arguments: &'static [Argument],
    /// Reads arguments that are known to be texts, and there when they are required.
    pub messages: fn(&mut Arguments<'_>, &Caps) -> Result<Vec<PromptMessage>, Invalid>,
}

/// An argument of a prompt. All are texts.
#[allow(dead_code, reason = "none is shipped")]
pub(in crate::executor) struct Argument {
    pub name: &'static str,
    pub description: &'static str,
    pub required: bool,
}

impl Prompt {
    /// What it says to these arguments. What it does not know is ignored.
    ///
    /// # Errors
    /// All declarations that do not hold, or what the prompt itself finds wrong.
    pub(in crate::executor) fn say(&self, arguments: &JsonObject, caps: &Caps) -> Result<Vec<PromptMessage>, Invalid> {
        let mut arguments = Arguments::new(arguments);
        for argument in self.arguments {
            if argument.required {
                arguments.required_text(argument.name);
            } else {
                arguments.text(argument.name);
            }
        }
        arguments.rules()?;
        (self.messages)(&mut arguments, caps)
    }
}

/// What a `prompts/get` says beside its name.
#[derive(Deserialize)]
struct GetParams {
    #[serde(default)]
    arguments: JsonObject,
}

/// The prompt of this exact name, for a caller whom the policy allows it.
///
/// # Errors
/// -32602 when there is none, or its arguments do not hold.
pub(in crate::executor) fn get(
    desk: Desk<'_>,
    envelope: &Envelope<'_>,
    body: &[u8],
) -> Result<ServerResult, ErrorData> {
    let prompt = envelope.name.as_deref().and_then(|name| desk.executor.catalog.prompt(name));
    let prompt = prompt.ok_or_else(|| ErrorData::invalid_params("Prompt not found", None))?;
    if envelope.arguments == ArgumentsKind::Other {
        return Err(ErrorData::invalid_params(Reason::BadArguments.message(), None));
    }
    let given: GetParams = params(body)?;
    let messages = prompt
        .say(&given.arguments, &Caps::of(desk.policy, desk.server))
        .map_err(|invalid| ErrorData::invalid_params(invalid.text(), Some(json!({"messages": invalid.0}))))?;
    let result = GetPromptResult::new(messages).with_description(prompt.description);
    Ok(ServerResult::GetPromptResult(result))
}

impl Desk<'_> {
    /// The executor's own look at the list, as for tools.
    pub(in crate::executor) fn shows_prompt(self, name: &str) -> bool {
        prompt_allowed(self.server, name)
    }
}
