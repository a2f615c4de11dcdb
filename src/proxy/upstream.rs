//! One exchange with an MCP upstream: connect or reuse, write head and body at once, read the answer's header.
//!
//! A call is never sent twice: once a byte was written, a failure is the answer.

use std::future::{Future, poll_fn};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::connectors::TransportConnector;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::proxy::budget::{Exhausted, Share};
use crate::proxy::channel::Channel;
use crate::proxy::framing::{Framing, Garbage, Head, Piece};
use crate::proxy::pool;
use crate::proxy::settings::{Address, Timeouts, Upstream};
use crate::telemetry::UpstreamFailure as Failure;

/// Informational answers that are skipped before the final one.
const MAX_INFORMATIONAL: usize = 5;
/// Bodies up to this size are written together with the head.
const ONE_WRITE: usize = 64 * 1024;
/// Read at once: at first, since most answers are small, and while an answer fills it.
const READ: usize = 4 * 1024;
const READ_LARGE: usize = 64 * 1024;
/// Bodies of a declared length up to this size get their memory at once.
const RESERVE: usize = 1024 * 1024;

/// Opens and keeps the connections to one upstream.
pub struct Target {
    /// Its place in each worker's pool.
    id: usize,
    upstream: Upstream,
    route: Route,
    /// The request target, cut where the handle goes.
    path: Vec<String>,
    /// What every head goes on with, up to the length of the body.
    fixed: Vec<u8>,
}

enum Route {
    Unix(PathBuf),
    Tcp(SocketAddr),
    Tls(Box<HttpPeer>),
}

impl Target {
    /// Resolves where an upstream is.
    ///
    /// # Errors
    /// When the address does not resolve.
    pub fn new(upstream: &Upstream) -> std::io::Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let (route, host) = match &upstream.address {
            Address::Unix(path) => (Route::Unix(path.clone()), "localhost".to_owned()),
            Address::Tcp { host, port, tls } => {
                let mut addresses = (host.as_str(), *port).to_socket_addrs()?;
                let address = addresses.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
                let default_port = if *tls { 443 } else { 80 };
                let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let authority = if *port == default_port { bracketed } else { format!("{bracketed}:{port}") };
                // A TLS peer with an empty name would not be verified.
                let route = match tls {
                    true => Route::Tls(Box::new(HttpPeer::new(address, true, host.clone()))),
                    false => Route::Tcp(address),
                };
                (route, authority)
            }
        };
        let mut fixed = b" HTTP/1.1\r\n".to_vec();
        push_header(&mut fixed, "Host", host.as_bytes());
        push_header(&mut fixed, "Content-Type", b"application/json");
        push_header(&mut fixed, "Accept", b"application/json, text/event-stream");
        for (name, value) in &upstream.headers {
            push_header(&mut fixed, name, value.expose());
        }
        fixed.extend_from_slice(b"Content-Length: ");
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            upstream: upstream.clone(),
            route,
            path: upstream.path.split("{server}").map(str::to_owned).collect(),
            fixed,
        })
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
        for (index, part) in self.path.iter().enumerate() {
            if index > 0 {
                head.extend_from_slice(server.as_bytes());
            }
            head.extend_from_slice(part.as_bytes());
        }
        head.extend_from_slice(&self.fixed);
        head.extend_from_slice(itoa::Buffer::new().format(body_length).as_bytes());
        head.extend_from_slice(b"\r\n");
        head
    }

    /// As [`Self::head`], for a path of our executor's own instead of a server's.
    #[must_use]
    pub fn head_of(&self, path: &str, body_length: usize) -> Vec<u8> {
        let mut head = b"POST ".to_vec();
        head.extend_from_slice(path.as_bytes());
        head.extend_from_slice(&self.fixed);
        head.extend_from_slice(itoa::Buffer::new().format(body_length).as_bytes());
        head.extend_from_slice(b"\r\n");
        head
    }

    /// Whether it is our executor, and what is sent there can be read by nobody on the way.
    #[must_use]
    pub fn may_carry_passwords(&self) -> bool {
        let closed = match &self.route {
            Route::Unix(_) | Route::Tls(_) => true,
            Route::Tcp(address) => address.ip().to_canonical().is_loopback(),
        };
        self.upstream.identity && closed
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
        now: std::time::Instant,
    ) -> Result<Answer, Failure> {
        head.extend_from_slice(b"\r\n");
        let (channel, begun) = match pool::take(self.id) {
            Some(channel) => (channel, Instant::from_std(now)),
            // Rare and large: boxed, so that it is not a part of every call's future.
            None => (Box::pin(self.connect(connector, timeouts.connect)).await?, Instant::now()),
        };
        let mut wire = Wire { channel, buffer: BytesMut::with_capacity(READ), step: READ };
        let deadline = begun + timeouts.response_header;
        timeout_at(deadline, async {
            // An upstream may answer early and stop reading: its answer is read even when the write failed.
            let written = wire.write(&mut head, body).await;
            let head = wire.head().await?;
            Ok(Answer { pool: self.id, wire, reusable: head.keeps && written.is_ok(), head })
        })
        .await
        .unwrap_or(Err(Failure::Timeout))
    }

    async fn connect(&self, connector: &TransportConnector, limit: Duration) -> Result<Channel, Failure> {
        let connecting = async {
            Some(match &self.route {
                Route::Unix(path) => Channel::Unix(UnixStream::connect(path).await.ok()?),
                Route::Tcp(address) => {
                    let socket = TcpStream::connect(address).await.ok()?;
                    socket.set_nodelay(true).ok()?;
                    Channel::Tcp(socket)
                }
                Route::Tls(peer) => Channel::Tls(connector.new_stream(peer.as_ref()).await.ok()?),
            })
        };
        timeout(limit, connecting).await.ok().flatten().ok_or(Failure::Connect)
    }
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

impl From<Exhausted> for Uncollected {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

impl From<Garbage> for Failure {
    fn from(_: Garbage) -> Self {
        Self::Garbage
    }
}

/// A connection, and what was read from it and not yet used.
struct Wire {
    channel: Channel,
    buffer: BytesMut,
    /// How much is read next.
    step: usize,
}

impl Wire {
    async fn write(&mut self, head: &mut Vec<u8>, body: &Bytes) -> std::io::Result<()> {
        if body.len() <= ONE_WRITE {
            head.extend_from_slice(body);
            self.channel.write_all(head).await?;
        } else {
            self.channel.write_all(head).await?;
            self.channel.write_all(body).await?;
        }
        self.channel.flush().await
    }

    /// Reads more; `false` at the connection's end.
    async fn read(&mut self) -> Result<bool, Failure> {
        self.buffer.reserve(self.step);
        let count = self.channel.read_buf(&mut self.buffer).await.map_err(|_| Failure::Closed)?;
        self.step = if count >= self.step { READ_LARGE } else { READ };
        Ok(count > 0)
    }

    /// The same for a wait that may be long: whoever waits holds no buffer.
    async fn read_idle(&mut self) -> Result<bool, Failure> {
        let reading = poll_fn(|cx| {
            self.buffer.reserve(self.step);
            let polled = pin!(self.channel.read_buf(&mut self.buffer)).poll(cx);
            if polled.is_pending() && self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            polled
        });
        let count = reading.await.map_err(|_| Failure::Closed)?;
        self.step = if count >= self.step { READ_LARGE } else { READ };
        Ok(count > 0)
    }

    async fn head(&mut self) -> Result<Head, Failure> {
        let mut informational = 0;
        loop {
            if !self.buffer.is_empty()
                && let Some(head) = Head::take(&mut self.buffer)?
            {
                match head.status {
                    101 => return Err(Failure::Garbage),
                    100..=199 if informational < MAX_INFORMATIONAL => informational += 1,
                    200..=599 => return Ok(head),
                    _ => return Err(Failure::Garbage),
                }
            } else if !self.read().await? {
                return Err(Failure::Closed);
            }
        }
    }
}

/// An answer whose header was read; dropping it aborts the request upstream.
pub struct Answer {
    pool: usize,
    wire: Wire,
    head: Head,
    reusable: bool,
}

impl Answer {
    /// Status and headers.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The next piece of a stream; `None` at its end. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the upstream closed early or broke its framing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.piece(true).await
    }

    /// The next piece of the body, which may be long in coming where it `idles`.
    async fn piece(&mut self, idles: bool) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.head.framing.take(&mut self.wire.buffer)? {
                Piece::Data(data) => return Ok(Some(data)),
                Piece::End => return Ok(None),
                Piece::More => {}
            }
            let more = if idles { self.wire.read_idle().await? } else { self.wire.read().await? };
            if !more {
                self.reusable = false;
                return if self.head.framing.ends_with_connection() { Ok(None) } else { Err(Failure::Closed) };
            }
        }
    }

    /// The whole body, up to `cap` bytes, counted in `share`.
    ///
    /// # Errors
    /// [`Uncollected::Exhausted`] when the memory budget does not hold it; [`Failure::TooLarge`] beyond the cap,
    /// [`Failure::Timeout`] after `limit`, else how it broke.
    pub async fn collect(&mut self, cap: usize, limit: Duration, share: &mut Share) -> Result<Bytes, Uncollected> {
        if let Framing::Length(length) = self.head.framing {
            let length = usize::try_from(length).ok().filter(|length| *length <= cap).ok_or(Failure::TooLarge)?;
            if self.wire.buffer.len() >= length {
                // It came with the head, as a rule.
                share.grow(length)?;
                self.head.framing = Framing::Done;
                return Ok(self.wire.buffer.split_to(length).freeze());
            }
        }
        timeout(limit, self.gather(cap, share)).await.unwrap_or(Err(Failure::Timeout.into()))
    }

    async fn gather(&mut self, cap: usize, share: &mut Share) -> Result<Bytes, Uncollected> {
        let unframed = self.head.framing == Framing::Close;
        let mut whole = match self.head.framing {
            Framing::Length(length) => Vec::with_capacity(usize::try_from(length).unwrap_or(RESERVE).min(RESERVE)),
            _ => Vec::new(),
        };
        while let Some(piece) = self.piece(false).await? {
            if whole.len() + piece.len() > cap {
                return Err(Failure::TooLarge.into());
            }
            share.grow(piece.len())?;
            whole.extend_from_slice(&piece);
        }
        // Without a length only the document itself tells whether the connection was closed too early.
        if unframed && !whole.is_empty() && serde_json::from_slice::<serde::de::IgnoredAny>(&whole).is_err() {
            return Err(Failure::Closed.into());
        }
        Ok(whole.into())
    }

    /// Gives the connection back for the next call, where the body has been read and nothing came behind it.
    pub fn finish(self) {
        if self.reusable && self.head.framing == Framing::Done && self.wire.buffer.is_empty() {
            pool::give_back(self.pool, self.wire.channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_stream_holds_no_buffer() {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        let mut wire = Wire { channel: Channel::Unix(ours), buffer: BytesMut::with_capacity(READ), step: READ_LARGE };
        assert!(timeout(Duration::from_millis(20), wire.read_idle()).await.is_err());
        assert_eq!(wire.buffer.capacity(), 0);
        theirs.write_all(b"data").await.expect("is open");
        assert_eq!(wire.read_idle().await, Ok(true));
        assert_eq!((&wire.buffer[..], wire.step), (&b"data"[..], READ));
        // What is not used yet is kept.
        assert!(timeout(Duration::from_millis(20), wire.read_idle()).await.is_err());
        assert_eq!(&wire.buffer[..], b"data");
    }
}
