//! One function turns a denial into the answer: body, status, headers.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::origin::Page;
use crate::policy::{Denial, I18n, Locale, Reason, Wire};
use crate::protocol::{Id, rpc_error, transport_error};
use crate::proxy::connection::Connection;

/// What every answer on an MCP route carries.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'a> {
    /// Name of the trace header, lower case.
    pub trace_header: &'a str,
    pub trace_id: &'a str,
    pub request_id: &'a str,
    /// In which language a refusal is told.
    pub i18n: I18n,
    /// The method that the route answers.
    pub allow: &'static str,
}

/// Answers with a denial; returns status and body length.
pub async fn deny(session: &mut Session, denial: &Denial, id: &Id<'_>, marks: Marks<'_>) -> (u16, u64) {
    let reason = denial.reason;
    let locale = locale(session, marks.i18n);
    let message = reason.message_in(locale);
    let body = match reason.wire() {
        Wire::Transport { .. } => transport_error(reason.code(), message, marks.trace_id),
        Wire::Rpc { code } => rpc_error(id, code, message, Some(reason.code())),
    };
    let length = body.len() as u64;
    let Some(mut header) = json_header(reason.status(), body.len(), marks) else {
        return (500, 0);
    };
    if locale != Locale::En {
        set(&mut header, header::CONTENT_LANGUAGE, HeaderValue::from_static(locale.as_str()));
    }
    if let Some(seconds) = denial.retry_after_s {
        set(&mut header, header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if reason == Reason::MethodNotAllowed {
        set(&mut header, header::ALLOW, HeaderValue::from_static(marks.allow));
    }
    if closes(reason) {
        session.set_keepalive(None);
    }
    write(session, header, Bytes::from(body)).await;
    (reason.status(), length)
}

/// The language for this request.
pub fn locale(session: &Session, i18n: I18n) -> Locale {
    if !i18n.negotiate {
        return i18n.locale;
    }
    let lines = session.req_header().headers.get_all(header::ACCEPT_LANGUAGE);
    let lines: Vec<&str> = lines.iter().filter_map(|line| line.to_str().ok()).collect();
    i18n.choose(Some(&lines.join(",")))
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
    let mut header = ResponseHeader::build_no_case(status, Some(8)).ok()?;
    set(&mut header, header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    set(&mut header, header::CONTENT_LENGTH, HeaderValue::from(length));
    set(&mut header, header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    mark(&mut header, marks);
    Some(header)
}

/// Adds the trace id and our request id.
pub fn mark(header: &mut ResponseHeader, marks: Marks<'_>) {
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    if !marks.trace_id.is_empty()
        && let Ok(name) = HeaderName::from_bytes(marks.trace_header.as_bytes())
    {
        text(header, name, marks.trace_id);
    }
    text(header, REQUEST_ID, marks.request_id);
}

/// Sets a header.
pub fn set(header: &mut ResponseHeader, name: HeaderName, value: HeaderValue) {
    // Both are valid by their types.
    let _ = header.insert_header(name, value);
}

/// Sets a header; a value that no header can carry is left out.
pub fn text(header: &mut ResponseHeader, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        set(header, name, value);
    }
}

/// Writes header and body; a client that left is no error of ours.
pub async fn write(session: &mut Session, header: ResponseHeader, body: Bytes) {
    if let Some(connection) = Connection::of(session) {
        connection.gather();
    }
    if session.write_response_header(Box::new(header), body.is_empty()).await.is_ok() && !body.is_empty() {
        let _ = session.write_response_body(Some(body), true).await;
    }
}

/// Answers with a page of our own; without its body to a `HEAD`.
pub async fn page(session: &mut Session, page: Page) {
    let body = Bytes::from(page.body());
    let Ok(mut header) = ResponseHeader::build_no_case(page.status, Some(8)) else { return };
    for (name, value) in page.headers() {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            text(&mut header, name, value);
        }
    }
    set(&mut header, header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let head_only = session.req_header().method == http::Method::HEAD;
    write(session, header, if head_only { Bytes::new() } else { body }).await;
}
