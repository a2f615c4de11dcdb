//! A call whose progress is told as it goes: the body is the work. Each poll fetches one page, so a slow reader slows
//! the query, and dropping the body (the reader has left) drops the query with it.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use serde_json::{Value, json};

use crate::executor::observation::Observation;
use crate::executor::pipeline::{Traversal, success};
use crate::executor::rpc;
use crate::telemetry::ExecutorOutcome;

/// Rows between two events.
pub(in crate::executor) const STEP: u64 = 25;

/// A call about to be streamed.
pub(in crate::executor) struct Call {
    pub traversal: Traversal,
    pub id: Value,
    pub token: Value,
    pub trace_id: String,
}

/// The SSE answer: progress after each page, then the response.
pub(in crate::executor) fn respond(call: Call, observation: Observation) -> Response {
    let events = futures_util::stream::unfold(Some((call, observation)), |call| async {
        let (message, rest) = next(call?).await;
        Some((Ok::<_, Infallible>(event(&message)), rest))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

type Work = (Call, Observation);

async fn next((mut call, mut observation): Work) -> (Value, Option<Work>) {
    match call.traversal.advance().await {
        Ok(Some(progress)) => {
            let params = json!({"progressToken": call.token, "progress": progress.done, "total": progress.total});
            (json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}), Some((call, observation)))
        }
        Ok(None) => {
            observation.outcome = ExecutorOutcome::Ok;
            let result = success(&call.traversal.respond());
            (json!({"jsonrpc": "2.0", "id": call.id, "result": result}), None)
        }
        Err(error) => {
            observation.outcome = ExecutorOutcome::Failed;
            rpc::log_failure(&error, &call.trace_id);
            let error = json!({"code": -32603, "message": rpc::INTERNAL});
            (json!({"jsonrpc": "2.0", "id": call.id, "error": error}), None)
        }
    }
}

fn event(message: &Value) -> Bytes {
    // Compact JSON has no line breaks, so one data line holds it.
    Bytes::from(format!("data: {message}\n\n"))
}
