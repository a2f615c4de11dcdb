//! A call whose progress is told as it goes: the body is the work. Each poll fetches one page, so a slow reader slows
//! the query, and dropping the body (the reader has left) drops the query with it.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use rmcp::model::{
    JsonRpcNotification, JsonRpcVersion2_0, Notification, ProgressNotificationMethod, ProgressToken, RequestId,
};
use serde::Serialize;

use crate::executor::observation::Observation;
use crate::executor::pipeline::{self, Traversal};
use crate::executor::rpc;
use crate::telemetry::ExecutorOutcome;

/// Rows between two events.
pub(in crate::executor) const STEP: u64 = 25;

/// A call about to be streamed.
pub(in crate::executor) struct Call {
    pub traversal: Traversal,
    pub id: RequestId,
    pub token: ProgressToken,
    pub trace_id: String,
}

/// What a progress notification says. The library's own type counts in floats, which would write 25 as `25.0`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProgressParams {
    progress_token: ProgressToken,
    progress: u64,
    total: u64,
}

/// The SSE answer: progress after each page, then the response.
pub(in crate::executor) fn respond(call: Call, observation: Observation) -> Response {
    let events = futures_util::stream::unfold(Some((call, observation)), |work| async {
        let (message, rest) = next(work?).await;
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

/// The next message, and the work if more is to come.
async fn next((mut call, mut observation): Work) -> (Vec<u8>, Option<Work>) {
    match call.traversal.advance().await {
        Ok(Some(progress)) => {
            let params =
                ProgressParams { progress_token: call.token.clone(), progress: progress.done, total: progress.total };
            let notification = Notification::<ProgressNotificationMethod, _>::new(params);
            let message = rpc::encode(&JsonRpcNotification { jsonrpc: JsonRpcVersion2_0, notification });
            (message, Some((call, observation)))
        }
        Ok(None) => {
            observation.outcome = ExecutorOutcome::Ok;
            (rpc::success(call.id, pipeline::success(call.traversal.respond())), None)
        }
        Err(error) => {
            observation.outcome = ExecutorOutcome::Failed;
            (rpc::failure(Some(call.id), rpc::failed(&error, &call.trace_id)), None)
        }
    }
}

/// Compact JSON has no line breaks, so one data line holds it.
fn event(message: &[u8]) -> Bytes {
    [b"data: ", message, b"\n\n"].concat().into()
}
