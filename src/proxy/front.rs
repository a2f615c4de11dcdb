//! The CMS's share, as Pingora takes it: a request that the gateway judged to be the CMS's, on a connection that is
//! lent for it.
//!
//! Pingora reads the same bytes. What it would route to anywhere but the CMS ends here.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderName;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::HttpPeer;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};

use crate::origin::Page;
use crate::policy::Reason;
use crate::proxy::client_address::{client_address, forwarded_headers};
use crate::proxy::gateway::{Gateway, RequestContext, Sent};
use crate::proxy::path::{Route, route};
use crate::proxy::settings::AccessLogFormat;
use crate::proxy::{headers, respond};

/// The CMS's way through Pingora.
pub struct Front(pub Arc<Gateway>);

#[async_trait]
impl ProxyHttp for Front {
    type CTX = RequestContext;

    fn new_ctx(&self) -> Self::CTX {
        let nobody = IpAddr::from([0, 0, 0, 0]);
        RequestContext::begin(&self.0, nobody, nobody)
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> pingora::Result<()> {
        if let Some(address) = session.client_addr().and_then(|address| address.as_inet()) {
            ctx.peer = address.ip().to_canonical();
            ctx.client = client_address(ctx.peer, &session.req_header().headers, &self.0.settings.trusted_proxies);
        }
        // Pingora has judged `Connection` and the version; keep-alive is bounded here, never switched on. A connection
        // on which another protocol was asked for is not taken back.
        let ends = self.0.is_draining() || session.req_header().headers.contains_key(http::header::UPGRADE);
        let wanted = session.get_keepalive().filter(|_| !ends);
        session.set_keepalive(wanted.map(|_| self.0.settings.timeouts.keepalive.as_secs()));
        session.as_downstream_mut().set_write_timeout(Some(self.0.settings.timeouts.write_stall));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, _: &mut Self::CTX) -> pingora::Result<bool> {
        let policy = self.0.policy.load_full();
        let target = String::from_utf8(session.req_header().raw_path().to_vec()).unwrap_or_default();
        // What was judged to be the CMS's must be so in Pingora's reading too, and after a reload meanwhile.
        if route(&policy.routes, &target) != Ok(Route::Cms) {
            self.0.metrics.refused(Reason::RouteNotFound);
            session.respond_error(Reason::RouteNotFound.status()).await?;
            return Ok(true);
        }
        edit(session.req_header_mut(), headers::strip_for_cms);
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        self.0
            .cms
            .clone()
            .map(Box::new)
            .ok_or_else(|| pingora::Error::explain(pingora::ErrorType::ConnectNoRoute, "no CMS origin is configured"))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<()> {
        let trusted = &self.0.settings.trusted_proxies;
        edit(request, |headers| {
            headers::remove_hop_by_hop(headers, true);
            forwarded_headers(headers, ctx.peer, ctx.client, false, trusted);
        });
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        _: &mut Self::CTX,
    ) -> pingora::Result<()> {
        let _ = response.remove_header("x-powered-by");
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &pingora::Error, _: &mut Self::CTX) -> FailToProxy {
        use pingora::{ErrorSource, ErrorType};
        let status = match (error.esource(), error.etype()) {
            (ErrorSource::Downstream, ErrorType::ReadTimedout) => 408,
            (ErrorSource::Downstream, ErrorType::ReadError) if is_slow(error) => 408,
            (ErrorSource::Downstream, ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError) => 0,
            (ErrorSource::Downstream, _) => 400,
            (_, ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout) => 504,
            _ => 502,
        };
        if status != 0 && session.response_written().is_none() {
            let page = if status == 504 { Page::GATEWAY_TIMEOUT } else { Page::BAD_GATEWAY };
            if matches!(status, 502 | 504) {
                let _ = respond::page_for_cms(session, page).await;
            } else {
                let _ = session.respond_error(status).await;
            }
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, error: &pingora::Error) -> bool {
        error.esource() == &pingora::ErrorSource::Downstream
    }

    async fn logging(&self, session: &mut Session, _: Option<&pingora::Error>, ctx: &mut Self::CTX) {
        let status = session.response_written().map_or(0, |header| header.status.as_u16());
        self.0.metrics.cms_request(status);
        if self.0.settings.access_log.format != AccessLogFormat::Off {
            let request = session.req_header();
            let trace_id =
                session.response_written().and_then(|header| header.headers.get("x-trace-id")?.to_str().ok());
            let sent = Sent { status, bytes: session.body_bytes_sent() as u64, trace_id: trace_id.unwrap_or_default() };
            let target = request.raw_path();
            self.0.write_access_log(ctx, &request.method, target, request.version, &request.headers, sent);
        }
    }
}

/// Whether the client did not send its body fast enough.
fn is_slow(error: &pingora::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::TimedOut)
}

/// Changes headers as a plain map, and writes the changes back.
fn edit(request: &mut RequestHeader, change: impl FnOnce(&mut http::HeaderMap)) {
    let before = &request.headers;
    let mut after = before.clone();
    change(&mut after);
    // All lines of a name: the first one alone may be what it should be, with others behind it.
    let differs = |name: &&HeaderName| !before.get_all(*name).iter().eq(after.get_all(*name).iter());
    let added = after.keys().filter(|name| !before.contains_key(*name));
    let changed: Vec<HeaderName> = before.keys().chain(added).filter(differs).cloned().collect();
    for name in changed {
        request.remove_header(&name);
        for value in after.get_all(&name) {
            // The map held a valid name and value.
            let _ = request.append_header(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_was_changed_is_all_that_is_left_of_a_name() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [("x-real-ip", "1.1.1.1"), ("x-real-ip", "6.6.6.6"), ("a", "1"), ("a", "2"), ("b", "1")] {
            request.append_header(name, value).unwrap();
        }
        edit(&mut request, |headers| {
            headers.insert("x-real-ip", HeaderValue::from_static("1.1.1.1"));
            headers.append("b", HeaderValue::from_static("2"));
            headers.insert("c", HeaderValue::from_static("3"));
        });
        let lines: Vec<_> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let expected = [("x-real-ip", "1.1.1.1"), ("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("c", "3")];
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        assert!(expected.iter().all(|line| lines.contains(line)), "{lines:?}");
        edit(&mut request, |headers| drop(headers.remove("a")));
        assert!(!request.headers.contains_key("a"));
    }
}
