//! One function turns a denial into the answer: body, status, headers.

use bytes::Bytes;
use http::header::{ACCEPT_LANGUAGE, CONTENT_LENGTH};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::origin::Page;
use crate::policy::{Denial, I18n, Locale, Reason, Wire};
use crate::protocol::{Id, rpc_error, transport_error};
use crate::proxy::exchange::Exchange;
use crate::proxy::response::Response;

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
pub async fn deny(exchange: &mut Exchange, denial: &Denial, id: &Id<'_>, marks: Marks<'_>) -> (u16, u64) {
    let reason = denial.reason;
    let locale = locale(exchange, marks.i18n);
    let message = reason.message_in(locale);
    let body = match reason.wire() {
        Wire::Transport { .. } => transport_error(reason.code(), message, marks.trace_id),
        Wire::Rpc { code } => rpc_error(id, code, message, Some(reason.code())),
    };
    let mut response = json(reason.status(), marks);
    if locale != Locale::En {
        response.set("Content-Language", locale.as_str().as_bytes());
    }
    if let Some(seconds) = denial.retry_after_s {
        response.number("Retry-After", seconds.max(1).into());
    }
    if reason == Reason::MethodNotAllowed {
        response.set("Allow", marks.allow.as_bytes());
    }
    if closes(reason) {
        exchange.close();
    }
    exchange.answer(response, body.as_ref()).await;
    (reason.status(), body.len() as u64)
}

/// The language for this request.
pub fn locale(exchange: &Exchange, i18n: I18n) -> Locale {
    if !i18n.negotiate {
        return i18n.locale;
    }
    let lines = exchange.headers().get_all(ACCEPT_LANGUAGE);
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

/// The `Cache-Control` of answers.
pub const KEPT_BY_NOBODY: &[u8] = b"no-cache, private";

/// The header of a JSON answer, which may be kept by nobody.
#[must_use]
pub fn json(status: u16, marks: Marks<'_>) -> Response {
    json_cached(status, marks, KEPT_BY_NOBODY)
}

/// As [`json`], with another `Cache-Control`.
#[must_use]
pub fn json_cached(status: u16, marks: Marks<'_>, cache: &[u8]) -> Response {
    let mut response = Response::new(status);
    response.set("Content-Type", b"application/json");
    response.set("Cache-Control", cache);
    mark(&mut response, marks);
    response
}

/// Adds the trace id and our request id.
pub fn mark(response: &mut Response, marks: Marks<'_>) {
    if !marks.trace_id.is_empty() {
        response.set(marks.trace_header, marks.trace_id.as_bytes());
    }
    response.set("X-Request-Id", marks.request_id.as_bytes());
}

/// Answers with a page of our own.
pub async fn page(exchange: &mut Exchange, page: Page) {
    let mut response = Response::new(page.status);
    for (name, value) in page.headers() {
        response.set(name, value.as_bytes());
    }
    exchange.answer(response, page.body().as_bytes()).await;
}

/// Answers with a page where Pingora could not reach the CMS; without its body to a `HEAD`.
pub async fn page_for_cms(session: &mut Session, page: Page) -> pingora::Result<()> {
    let body = Bytes::from(page.body());
    let mut header = ResponseHeader::build(page.status, Some(8))?;
    for (name, value) in page.headers() {
        header.insert_header(name, value)?;
    }
    header.insert_header(CONTENT_LENGTH, body.len())?;
    let head_only = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(header), head_only).await?;
    if head_only { Ok(()) } else { session.write_response_body(Some(body), true).await }
}
