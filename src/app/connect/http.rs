use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use pingora::connectors::TransportConnector;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use crate::proxy::settings::Address;

/// As much of an answer's body is looked at, in bytes.
const MOST: usize = 64 * 1024;

/// One request. The target is sent as it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// What came back, as far as it was read.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("the name cannot be resolved: {0}")]
    Name(String),
    #[error("cannot be reached: {0}")]
    Connect(String),
    #[error("takes no connection within {0} ms")]
    Slow(u128),
    #[error("TLS fails: {0}")]
    Tls(String),
    #[error("takes the connection, and answers nothing within {0} s")]
    Silent(u64),
    #[error("does not speak HTTP/1.1: {0}")]
    Garbage(String),
}

impl Trouble {
    /// What to do about it.
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::Name(_) => "check the host name, and the resolver of this machine",
            Self::Connect(_) => "start it, and check address, rights and firewall",
            Self::Slow(_) => "check firewall and route; timeouts.connect is the limit",
            Self::Tls(_) => "the certificate must be valid for this name; SSL_CERT_FILE names further authorities",
            Self::Silent(_) => "check whether it is overloaded, and whether the scheme (http, https) is right",
            Self::Garbage(_) => "check the address and the scheme (http, https)",
        }
    }
}

/// How long connecting and the answer's header may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub connect: Duration,
    pub answer: Duration,
}

pub(in crate::app) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// `Host` of requests to this address.
pub(in crate::app) fn authority(address: &Address) -> String {
    match address {
        Address::Unix(_) => "localhost".to_owned(),
        Address::Tcp { host, port, tls } => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            if *port == if *tls { 443 } else { 80 } { host } else { format!("{host}:{port}") }
        }
    }
}

/// Sends one request on a connection of its own.
pub(super) async fn send(address: &Address, ask: &Ask, patience: Patience) -> Result<Answer, Trouble> {
    let stream =
        timeout(patience.connect, open(address)).await.unwrap_or(Err(Trouble::Slow(patience.connect.as_millis())))?;
    let silent = || Trouble::Silent(patience.answer.as_secs().max(1));
    let until = Instant::now() + patience.answer;
    let garbage = |error: hyper::Error| Trouble::Garbage(short(&error));
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(garbage)?;
        let driver = tokio::spawn(connection);
        let answer = sender.send_request(request(ask)?).await.map_err(garbage);
        Ok::<_, Trouble>((answer?, driver, sender))
    };
    let (answer, driver, _sender) = timeout_at(until, exchange).await.unwrap_or_else(|_| Err(silent()))?;
    let (head, mut rest) = answer.into_parts();
    let stream = is_stream(&head.headers);
    let mut body = Vec::new();
    // A body that ends early or never is looked at as far as it came.
    while body.len() < MOST && !(stream && complete_event(&body)) {
        match timeout_at(until, rest.frame()).await {
            Ok(Some(Ok(frame))) => body.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..])),
            _ => break,
        }
    }
    driver.abort();
    body.truncate(MOST);
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

fn request(ask: &Ask) -> Result<Request<Full<Bytes>>, Trouble> {
    let target: PathAndQuery = ask.target.parse().map_err(|_| Trouble::Garbage("the target is none".to_owned()))?;
    let mut request = Request::new(Full::new(Bytes::from(ask.body.clone())));
    *request.method_mut() = ask.method.parse().unwrap_or(http::Method::GET);
    *request.uri_mut() = Uri::from(target);
    for (name, value) in &ask.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value)) {
            request.headers_mut().append(name, value);
        }
    }
    Ok(request)
}

pub(in crate::app) async fn open(address: &Address) -> Result<Box<dyn Stream>, Trouble> {
    let refused = |error: std::io::Error| Trouble::Connect(error.to_string());
    let (host, port, tls) = match address {
        Address::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(path).await;
            return Ok(Box::new(stream.map_err(|e| Trouble::Connect(format!("{}: {e}", path.display())))?));
        }
        Address::Tcp { host, port, tls } => (host, *port, *tls),
    };
    let mut addresses =
        tokio::net::lookup_host((host.as_str(), port)).await.map_err(|error| Trouble::Name(error.to_string()))?;
    let address = addresses.next().ok_or_else(|| Trouble::Name("it has no address".to_owned()))?;
    if !tls {
        return Ok(Box::new(tokio::net::TcpStream::connect(address).await.map_err(refused)?));
    }
    // Told apart here, since a TLS connector reports both as one.
    drop(tokio::net::TcpStream::connect(address).await.map_err(refused)?);
    // The proxy's own connector, so that what is trusted here is trusted there.
    let connector: TransportConnector = TransportConnector::new(None);
    let stream = connector.new_stream(&HttpPeer::new(address, true, host.clone())).await;
    Ok(Box::new(stream.map_err(|error| Trouble::Tls(short(&error)))?))
}

/// Whether the answer is server-sent events.
pub(in crate::app) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Whether the response has come: what stands before it are notifications.
fn complete_event(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).replace("\r\n", "\n");
    let responds =
        |line: &str| line.starts_with("data:") && ["\"result\"", "\"error\""].iter().any(|w| line.contains(w));
    text.rsplit_once("\n\n").is_some_and(|(events, _)| events.lines().any(responds))
}

fn short(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().chars().take(200).collect()
}
