//! What clients read by its address: `resources/list` and `resources/read`. None is shipped.
//!
//! A resource is one file in this room, and one line in [`registry`](crate::executor::registry).
//!
//! Invariants: what a server's `allow_resources` does not match is neither listed nor read there; rows of the site
//! come through the stages that tools have.
//!
//! Non-goals: templates (addresses are fixed), subscriptions, binary contents.

use rmcp::model::{ErrorData, ReadResourceResult, ResourceContents, ServerResult};

use crate::executor::argument::Caps;
use crate::executor::pipeline::{Plan, Traversal, authorize, prepare};
use crate::executor::rpc::{Desk, failed};
use crate::policy::resource_allowed;

/// A resource: where it is, what it is called, and what it holds.
#[allow(dead_code, reason = "none is shipped")]
pub(in crate::executor) struct Resource {
    pub uri: &'static str,
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub mime_type: &'static str,
    pub contents: fn(&Caps) -> Contents,
}

/// What a resource holds.
#[allow(dead_code, reason = "none is shipped")]
pub(in crate::executor) enum Contents {
    Text(String),
    /// What a tool's plan finds, as a tool's structured result: compact JSON.
    Rows(Plan),
}

/// The resource of this exact address, for a caller whom the policy allows it.
///
/// # Errors
/// -32002 when there is none, -32603 when the site's database fails.
pub(in crate::executor) async fn read(desk: Desk<'_>, uri: Option<&str>) -> Result<ServerResult, ErrorData> {
    let missing = || ErrorData::resource_not_found("Resource not found", None);
    let resource = uri.and_then(|uri| desk.executor.catalog.resource(uri)).ok_or_else(missing)?;
    let caps = Caps::of(desk.policy, desk.server);
    let text = match (resource.contents)(&caps) {
        Contents::Text(text) => text,
        Contents::Rows(plan) => rows(desk, resource, plan, &caps).await?.ok_or_else(missing)?,
    };
    let contents = ResourceContents::text(text, resource.uri).with_mime_type(resource.mime_type);
    Ok(ServerResult::ReadResourceResult(ReadResourceResult::new(vec![contents])))
}

/// `None` when this site lacks what the plan wants, or the caller may not have it.
async fn rows(desk: Desk<'_>, resource: &Resource, plan: Plan, caps: &Caps) -> Result<Option<String>, ErrorData> {
    let (pool, trace_id) = (&desk.executor.pool, &desk.caller.trace_id);
    let failed = |error| failed(&error, trace_id);
    let plan = match prepare(pool, plan).await.map_err(failed)? {
        Ok(plan) => plan,
        Err(invalid) => {
            let (uri, reason) = (resource.uri, invalid.text());
            tracing::warn!(uri, reason, trace.id = trace_id, "executor: a resource is not for this site");
            return Ok(None);
        }
    };
    if !authorize(desk.caller, &plan) {
        return Ok(None);
    }
    let mut traversal = Traversal::start(pool, plan, caps, None).await.map_err(failed)?;
    while traversal.advance().await.map_err(failed)?.is_some() {}
    Ok(Some(traversal.respond().to_string()))
}

impl Desk<'_> {
    /// The executor's own look at the list, as for tools.
    pub(in crate::executor) fn shows_resource(self, uri: &str) -> bool {
        resource_allowed(self.server, uri)
    }
}
