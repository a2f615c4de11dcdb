//! Asks the CMS itself whose session a cookie is.

use std::time::Duration;

use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::executor::settings::AuthRequest;

/// For the whole question.
const LIMIT: Duration = Duration::from_secs(3);

/// The user whom the page names; nobody unless it answers 2xx with one id. Redirects are not followed: a page that
/// sends to the login form knows nobody.
pub(super) async fn user(page: &AuthRequest, cookie: &str, session: &str) -> Result<Option<u64>, &'static str> {
    tokio::time::timeout(LIMIT, question(page, cookie, session)).await.unwrap_or(Err("no answer in time"))
}

async fn question(page: &AuthRequest, cookie: &str, session: &str) -> Result<Option<u64>, &'static str> {
    let stream = TcpStream::connect((page.host.as_str(), page.port)).await.map_err(|_| "cannot connect")?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|_| "the connection cannot be used")?;
    let request = http::Request::get(&page.target)
        .header(http::header::HOST, &page.authority)
        .header(http::header::COOKIE, format!("{cookie}={session}"))
        .header(http::header::ACCEPT, "application/json")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|_| "the request cannot be made")?;
    let driven = tokio::spawn(connection);
    let response = sender.send_request(request).await;
    driven.abort();
    let response = response.map_err(|_| "no answer")?;
    if response.status().is_server_error() {
        return Err("the page failed");
    }
    let mut named = response.headers().get_all(page.header.as_str()).iter();
    let id = named.next().and_then(|value| value.to_str().ok()).filter(|_| named.next().is_none());
    let id = id.filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
    let id = id.and_then(|id| id.parse().ok()).filter(|id: &u64| *id > 0);
    Ok(id.filter(|_| response.status().is_success()))
}
