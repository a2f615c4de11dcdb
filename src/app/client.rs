use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use crate::app::connect::Trouble;
use crate::app::connect::{authority, open};
use crate::proxy::settings::Address;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Where an MCP server is reached over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    address: Address,
    target: String,
}

/// An answer whose body is still to come. Dropping it hangs up.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    driver: JoinHandle<()>,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, in words for the user.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || format!("{url:?} is no address: write http://HOST:PORT/PATH or https://HOST/PATH");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(wrong());
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Self { address: Address::Tcp { host, port, tls }, target })
    }

    /// A listener of this process.
    #[must_use]
    pub fn local(ip: IpAddr, port: u16, target: String) -> Self {
        Self { address: Address::Tcp { host: ip.to_string(), port, tls: false }, target }
    }

    /// Posts a body on a connection of its own.
    ///
    /// # Errors
    /// Why no answer came.
    pub async fn post(&self, headers: &[(&str, &str)], body: Bytes) -> Result<Reply, Trouble> {
        let garbage = |error: &dyn std::fmt::Display| Trouble::Garbage(error.to_string());
        let target: PathAndQuery = self.target.parse().map_err(|error| garbage(&error))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from(target);
        let host = authority(&self.address);
        for (name, value) in headers.iter().copied().chain([("host", host.as_str())]) {
            let name: HeaderName = name.parse().map_err(|error| garbage(&error))?;
            request.headers_mut().insert(name, HeaderValue::from_str(value).map_err(|error| garbage(&error))?);
        }
        let stream = timeout(CONNECT, open(&self.address)).await.unwrap_or(Err(Trouble::Slow(CONNECT.as_millis())))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| garbage(&error))?;
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        let answer = sender.send_request(request).await.map_err(|error| garbage(&error))?;
        let (head, body) = answer.into_parts();
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body, driver })
    }
}

impl Reply {
    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the answer is server-sent events.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        crate::app::connect::is_stream(&self.headers)
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// When the body breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Trouble> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| Trouble::Garbage(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole body, at most `most` bytes of it.
    ///
    /// # Errors
    /// When it is longer, or breaks off.
    pub async fn whole(&mut self, most: usize) -> Result<Vec<u8>, Trouble> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > most {
                return Err(Trouble::Garbage(format!("the answer has more than {most} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        let good = |host: &str, port, tls, target: &str| {
            Ok(Endpoint { address: Address::Tcp { host: host.to_owned(), port, tls }, target: target.to_owned() })
        };
        for (url, expected) in [
            ("http://127.0.0.1:8087/api/v1/mcp/content", good("127.0.0.1", 8087, false, "/api/v1/mcp/content")),
            ("https://cms.example/mcp?x=1", good("cms.example", 443, true, "/mcp?x=1")),
            ("http://[::1]:80", good("::1", 80, false, "/")),
            ("ftp://x/", Err(())),
            ("/api", Err(())),
            ("http://user:secret@x/", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(Endpoint::parse(url).map_err(drop), expected, "{url}");
        }
    }
}
