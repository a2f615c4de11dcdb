//! One function turns a denial into the answer: body, status, headers.

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::origin::Page;
use crate::policy::{Denial, Reason, Wire};
use crate::protocol::{Id, rpc_error, transport_error};

/// What every answer on an MCP route carries.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'a> {
    /// Name of the trace header, lower case.
    pub trace_header: &'a str,
    pub trace_id: &'a str,
    pub request_id: &'a str,
}

/// Answers with a denial; returns status and body length.
pub async fn deny(session: &mut Session, denial: &Denial, id: &Id<'_>, marks: Marks<'_>) -> (u16, u64) {
    let reason = denial.reason;
    let body = match reason.wire() {
        Wire::Transport { .. } => transport_error(reason.code(), reason.message(), marks.trace_id),
        Wire::Rpc { code } => rpc_error(id, code, reason.message(), Some(reason.code())),
    };
    let length = body.len() as u64;
    let Some(mut header) = json_header(reason.status(), body.len(), marks) else {
        return (500, 0);
    };
    if let Some(seconds) = denial.retry_after_s {
        insert(&mut header, "Retry-After", &seconds.max(1).to_string());
    }
    if reason == Reason::MethodNotAllowed {
        insert(&mut header, "Allow", "POST");
    }
    if closes(reason) {
        session.set_keepalive(None);
    }
    write(session, header, Bytes::from(body)).await;
    (reason.status(), length)
}

/// Whether bytes of the request may still be on the wire, so that the connection cannot be used again.
const fn closes(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PayloadTooLarge
            | Reason::RequestTimeout
            | Reason::BadRequest
            | Reason::HeadersTooLarge
            | Reason::UriTooLong
            | Reason::Overloaded
            | Reason::Draining
    )
}

/// The header of a JSON answer.
#[must_use]
pub fn json_header(status: u16, length: usize, marks: Marks<'_>) -> Option<ResponseHeader> {
    let mut header = ResponseHeader::build(status, Some(8)).ok()?;
    insert(&mut header, "Content-Type", "application/json");
    insert(&mut header, "Content-Length", itoa::Buffer::new().format(length));
    insert(&mut header, "Cache-Control", "no-cache, private");
    mark(&mut header, marks);
    Some(header)
}

/// Adds the trace id and our request id.
pub fn mark(header: &mut ResponseHeader, marks: Marks<'_>) {
    if !marks.trace_id.is_empty() {
        insert(header, marks.trace_header, marks.trace_id);
    }
    insert(header, "X-Request-Id", marks.request_id);
}

/// Sets a header; a value that no header can carry is left out.
pub fn insert(header: &mut ResponseHeader, name: &str, value: &str) {
    let _ = header.insert_header(name.to_owned(), value);
}

/// Writes header and body; a client that left is no error of ours.
pub async fn write(session: &mut Session, header: ResponseHeader, body: Bytes) {
    if session.write_response_header(Box::new(header), body.is_empty()).await.is_ok() && !body.is_empty() {
        let _ = session.write_response_body(Some(body), true).await;
    }
}

/// Answers with a page of our own; without its body to a `HEAD`.
pub async fn page(session: &mut Session, page: Page) {
    let body = Bytes::from(page.body());
    let Ok(mut header) = ResponseHeader::build(page.status, Some(8)) else { return };
    for (name, value) in page.headers() {
        insert(&mut header, name, value);
    }
    insert(&mut header, "Content-Length", itoa::Buffer::new().format(body.len()));
    let head_only = session.req_header().method == http::Method::HEAD;
    write(session, header, if head_only { Bytes::new() } else { body }).await;
}
