//! Reading a request's body whole: up to the limit, within the deadline and the memory budget.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::proxy::Session;
use tokio::time::{Instant, timeout_at};

use crate::policy::Reason;
use crate::proxy::budget::{Budget, Share};

/// What became of reading a body.
#[derive(Debug)]
pub enum ReadBody {
    /// All of it; the share keeps its bytes counted.
    Whole(Bytes, Share),
    /// More than the limit, declared or sent.
    TooLarge,
    /// Not read whole.
    Failed(Reason),
}

/// Reads the body. On anything but [`ReadBody::Whole`] bytes may still be on the wire: the connection must not be
/// used again.
pub async fn read(session: &mut Session, limit: usize, timeout: Duration, budget: &std::sync::Arc<Budget>) -> ReadBody {
    let declared = session
        .get_header(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return ReadBody::TooLarge;
    }
    let mut share = budget.share();
    let deadline = Instant::now() + timeout;
    if session
        .get_header(http::header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        // Pingora ends the connection after any answer that comes before the body, the go-ahead included.
        let keepalive = session.get_keepalive();
        if session.as_downstream_mut().write_continue_response().await.is_err() {
            return ReadBody::Failed(Reason::BadRequest);
        }
        session.set_keepalive(keepalive);
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0_usize;
    loop {
        let chunk = match timeout_at(deadline, session.as_downstream_mut().read_request_body()).await {
            Err(_) => return ReadBody::Failed(Reason::RequestTimeout),
            Ok(Err(_)) => return ReadBody::Failed(Reason::BadRequest),
            Ok(Ok(None)) => break,
            Ok(Ok(Some(chunk))) => chunk,
        };
        length += chunk.len();
        if length > limit {
            return ReadBody::TooLarge;
        }
        if share.grow(chunk.len()).is_err() {
            return ReadBody::Failed(Reason::Overloaded);
        }
        // One chunk is the common case and is kept as it came; more are joined.
        match first.take() {
            None if rest.is_empty() => first = Some(chunk),
            None => rest.extend_from_slice(&chunk),
            Some(earlier) => {
                rest.reserve(declared.unwrap_or(0).max(earlier.len() + chunk.len()));
                rest.extend_from_slice(&earlier);
                rest.extend_from_slice(&chunk);
            }
        }
    }
    if declared.is_some_and(|declared| declared != length) {
        return ReadBody::Failed(Reason::BadRequest);
    }
    ReadBody::Whole(first.unwrap_or_else(|| rest.freeze()), share)
}
