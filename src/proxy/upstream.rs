//! One exchange with an MCP upstream: connect or reuse, write head and body at once, read the answer's header.
//!
//! A call is never sent twice: once a byte was written, a failure is the answer.

use std::time::Duration;

use bytes::Bytes;
use pingora::connectors::TransportConnector;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::proxy::budget::Share;
use crate::proxy::pool;
use crate::proxy::settings::{Address, Timeouts, Upstream};
use crate::telemetry::UpstreamFailure as Failure;

/// Informational answers that are skipped before the final one.
const MAX_INFORMATIONAL: usize = 5;
/// Bodies up to this size are written together with the head.
const ONE_WRITE: usize = 64 * 1024;

/// Opens and keeps the connections to one upstream.
pub struct Target {
    name: String,
    upstream: Upstream,
    peer: HttpPeer,
    host: String,
}

impl Target {
    /// Resolves where an upstream is.
    ///
    /// # Errors
    /// When the address does not resolve.
    pub fn new(name: &str, upstream: &Upstream) -> std::io::Result<Self> {
        let (peer, host) = match &upstream.address {
            Address::Unix(path) => {
                let path = path.to_str().ok_or(std::io::ErrorKind::InvalidInput)?;
                let peer = HttpPeer::new_uds(path, false, String::new())
                    .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error.to_string()))?;
                (peer, "localhost".to_owned())
            }
            Address::Tcp { host, port, tls } => {
                let address = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), *port))?
                    .next()
                    .ok_or(std::io::ErrorKind::AddrNotAvailable)?;
                let default_port = if *tls { 443 } else { 80 };
                let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let authority = if *port == default_port { bracketed } else { format!("{bracketed}:{port}") };
                // A TLS peer with an empty name would not be verified.
                (HttpPeer::new(address, *tls, host.clone()), authority)
            }
        };
        Ok(Self { name: name.to_owned(), upstream: upstream.clone(), peer, host })
    }

    /// What `sidecar.toml` says about it.
    #[must_use]
    pub const fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Starts a request head: request line, `Host`, the fixed headers and the length of the body.
    #[must_use]
    pub fn head(&self, server: &str, body_length: usize) -> Vec<u8> {
        let mut head = Vec::with_capacity(1024 + body_length.min(ONE_WRITE));
        head.extend_from_slice(b"POST ");
        if self.upstream.path.contains("{server}") {
            head.extend_from_slice(self.upstream.path.replace("{server}", server).as_bytes());
        } else {
            head.extend_from_slice(self.upstream.path.as_bytes());
        }
        head.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        head.extend_from_slice(self.host.as_bytes());
        head.extend_from_slice(
            b"\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: ",
        );
        head.extend_from_slice(itoa::Buffer::new().format(body_length).as_bytes());
        head.extend_from_slice(b"\r\n");
        for (name, value) in &self.upstream.headers {
            push_header(&mut head, name, value.expose());
        }
        head
    }

    /// Sends a finished head (without its closing blank line) and the body, and reads the answer's header.
    ///
    /// # Errors
    /// How the upstream failed.
    pub async fn exchange(
        &self,
        connector: &TransportConnector,
        mut head: Vec<u8>,
        body: &Bytes,
        timeouts: &Timeouts,
    ) -> Result<Answer<'_>, Failure> {
        head.extend_from_slice(b"\r\n");
        let mut stream = match pool::take(&self.name) {
            Some(stream) => stream,
            None => self.connect(connector, timeouts.connect).await?,
        };
        // One deadline for the request's way there and the answer's way back.
        let deadline = Instant::now() + timeouts.response_header;
        let written = timeout_at(deadline, async {
            if body.len() <= ONE_WRITE {
                head.extend_from_slice(body);
                stream.write_all(&head).await?;
            } else {
                stream.write_all(&head).await?;
                stream.write_all(body).await?;
            }
            stream.flush().await
        })
        .await;
        // An upstream may answer early and stop reading: its answer is read even when the write failed.
        let write_failed = !matches!(written, Ok(Ok(())));
        let mut session = HttpSession::new(stream);
        let read = timeout_at(deadline, async {
            for _ in 0..=MAX_INFORMATIONAL {
                session.read_response().await.map_err(|error| header_failure(&error))?;
                match session.get_status().map(|status| status.as_u16()) {
                    Some(101) | None => return Err(Failure::Garbage),
                    Some(100..=199) => {}
                    Some(_) => return Ok(()),
                }
            }
            Err(Failure::Garbage)
        })
        .await;
        match read {
            Err(_) => Err(Failure::Timeout),
            Ok(Err(failure)) => Err(failure),
            Ok(Ok(())) => {
                let header = session.resp_header().cloned().ok_or(Failure::Garbage)?;
                if !is_plain(&header, &session.get_headers_raw_bytes()) {
                    return Err(Failure::Garbage);
                }
                Ok(Answer { target: self, session, header, reusable: !write_failed })
            }
        }
    }

    async fn connect(&self, connector: &TransportConnector, limit: Duration) -> Result<Stream, Failure> {
        match timeout(limit, connector.new_stream(&self.peer)).await {
            Ok(Ok(stream)) => Ok(stream),
            _ => Err(Failure::Connect),
        }
    }
}

fn header_failure(error: &pingora::Error) -> Failure {
    use pingora::ErrorType;
    match error.etype() {
        ErrorType::ConnectionClosed | ErrorType::ReadError => Failure::Closed,
        _ => Failure::Garbage,
    }
}

/// Whether an answer's header can be read in one way only.
///
/// Pingora lets pass what an endpoint may repair: folded lines (whose line ends would reach the client), both lengths,
/// codings before `chunked`. We asked for no coding and take none: its header would not be passed on.
fn is_plain(header: &ResponseHeader, raw: &[u8]) -> bool {
    use http::header::{CONTENT_ENCODING, TRANSFER_ENCODING};
    let folded = memchr::memchr_iter(b'\n', raw).any(|at| matches!(raw.get(at + 1), Some(b' ' | b'\t')));
    let encoded = |value: &http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if folded || header.headers.get_all(CONTENT_ENCODING).iter().any(encoded) {
        return false;
    }
    let mut codings = header.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return true };
    // Pingora drops the length of such a header, so the bytes are asked.
    let both = memchr::memmem::find(&raw.to_ascii_lowercase(), b"\ncontent-length").is_some();
    codings.next().is_none()
        && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        && header.version == http::Version::HTTP_11
        && !both
}

/// Adds one header to a head. Values come from our own configuration or were checked before.
pub fn push_header(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// Why an answer could not be read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncollected {
    /// It is the upstream's failure.
    Failure(Failure),
    /// It is ours: the memory budget is used up.
    Exhausted,
}

impl From<Failure> for Uncollected {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// An answer whose header was read; dropping it aborts the request upstream.
pub struct Answer<'a> {
    target: &'a Target,
    session: HttpSession,
    header: ResponseHeader,
    reusable: bool,
}

impl Answer<'_> {
    /// Status and headers.
    #[must_use]
    pub const fn header(&self) -> &ResponseHeader {
        &self.header
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When the upstream closed early or broke its framing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.session.read_body_bytes().await.map_err(|_| Failure::Closed)
    }

    /// The whole body, up to `cap` bytes, counted in `share`.
    ///
    /// # Errors
    /// [`Uncollected::Exhausted`] when the memory budget does not hold it; [`Failure::TooLarge`] beyond the cap,
    /// [`Failure::Timeout`] after `limit`, else how it broke.
    pub async fn collect(&mut self, cap: usize, limit: Duration, share: &mut Share) -> Result<Bytes, Uncollected> {
        let declared = self
            .header
            .headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<usize>().ok());
        if declared.is_some_and(|length| length > cap) {
            return Err(Failure::TooLarge.into());
        }
        timeout(limit, async {
            let mut first: Option<Bytes> = None;
            let mut rest: Vec<u8> = Vec::new();
            let mut length = 0;
            while let Some(chunk) = self.next().await? {
                length += chunk.len();
                if length > cap {
                    return Err(Failure::TooLarge.into());
                }
                share.grow(chunk.len()).map_err(|_| Uncollected::Exhausted)?;
                match first.take() {
                    None if rest.is_empty() => first = Some(chunk),
                    None => rest.extend_from_slice(&chunk),
                    Some(earlier) => {
                        rest.reserve(declared.unwrap_or(0).max(length));
                        rest.extend_from_slice(&earlier);
                        rest.extend_from_slice(&chunk);
                    }
                }
            }
            if declared.is_some_and(|declared| declared != length) {
                return Err(Failure::Closed.into());
            }
            let whole = first.unwrap_or_else(|| Bytes::from(rest));
            // Without a length only the document itself tells whether the connection was closed too early.
            let framed = declared.is_some() || self.header.headers.contains_key(http::header::TRANSFER_ENCODING);
            if !framed && length > 0 && serde_json::from_slice::<serde::de::IgnoredAny>(&whole).is_err() {
                return Err(Failure::Closed.into());
            }
            Ok(whole)
        })
        .await
        .unwrap_or(Err(Failure::Timeout.into()))
    }

    /// Gives the connection back for the next call, where its framing allows.
    pub async fn finish(mut self) {
        if !self.reusable || !self.session.is_body_done() {
            return;
        }
        self.session.respect_keepalive();
        if self.session.will_keepalive()
            && let Some(stream) = self.session.reuse().await
        {
            pool::give_back(&self.target.name, stream);
        }
    }
}
