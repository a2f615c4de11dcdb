//! The CMS's share, as Pingora takes it: a request that the gateway judged to be the CMS's, on a connection that is
//! lent for it.
//!
//! Pingora reads the same bytes. What it would route to anywhere but the CMS ends here.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
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

/// Changes headers as a plain map, and writes the changes back.
fn edit(request: &mut RequestHeader, change: impl FnOnce(&mut http::HeaderMap)) {
    let before = &request.headers;
    let mut after = before.clone();
    change(&mut after);
    let removed: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).cloned().collect();
    let set: Vec<_> = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(*value))
        .filter(|(name, _)| after.get_all(*name).iter().count() == 1)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for name in removed {
        request.remove_header(&name);
    }
    for (name, value) in set {
        // The map held a valid name and value.
        let _ = request.insert_header(name, value);
    }
}
