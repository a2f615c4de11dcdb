//! An accepted connection: counted while it lives, and with a total deadline on every request header.
//!
//! Pingora's timeouts are per read, so a client that dribbles a header one byte a second would never time out. This
//! wrapper arms one timer with the first byte of a header (or with the connection itself) and fails the read when it
//! fires; the gateway tells it when a header is complete and when a request is done. It also refuses header lines
//! that end with a bare LF, which Pingora accepts and other parsers read differently, and ends writes that make no
//! progress: Pingora bounds those of bodies, but neither those of headers nor the flush at the end. The lines of chunked bodies
//! are watched in the same way as those of headers.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora::proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::base::client_network;
use crate::proxy::chunk_lines::ChunkLines;
use crate::proxy::settings::Timeouts;
use crate::telemetry::ConnectionRefusal;

/// How many connections are open, in all and per address.
#[derive(Debug)]
pub struct Gate {
    max: usize,
    per_address: usize,
    open: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// A place among the open connections, given back on drop.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// At most `max` connections, and `per_address` of one address.
    #[must_use]
    pub fn new(max: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { max, per_address, open: AtomicUsize::new(0), addresses: Mutex::default() })
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that may be open.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }

    /// A place for a connection from `address`; those of one IPv6 /64 count together.
    ///
    /// # Errors
    /// Which bound is reached.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, ConnectionRefusal> {
        let address = client_network(address);
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(ConnectionRefusal::Limit);
        }
        let mut addresses = self.addresses.lock();
        let count = addresses.entry(address).or_insert(0);
        if *count >= self.per_address {
            drop(addresses);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(ConnectionRefusal::PerAddress);
        }
        *count += 1;
        Ok(Place { gate: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        let mut addresses = self.gate.addresses.lock();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What gathers is sent when it reaches this size.
const GATHER: usize = 16 * 1024;
/// Whoever writes has a bound of its own, and can say more about it: it comes first.
const STALL_MARGIN: Duration = Duration::from_secs(1);
/// An idle connection keeps no larger buffer than this.
const KEEP: usize = 2 * 1024;

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    digest: Arc<SocketDigest>,
    /// Whether what is written waits for the flush.
    gathers: AtomicBool,
    /// Written by Pingora, not yet sent.
    out: Vec<u8>,
    header_timeout: Duration,
    write_stall: Duration,
    /// Runs while a write makes no progress.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether bytes that arrive now belong to a header.
    in_header: AtomicBool,
    /// Whether the body at hand is chunked.
    chunked: AtomicBool,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Requests answered so far: with each, a new header begins.
    answered: AtomicU32,
    lines: HeaderLines,
    _place: Place,
}

impl Connection {
    /// Wraps an accepted socket; the first header's time runs from now.
    #[must_use]
    pub fn new(socket: TcpStream, peer: SocketAddr, timeouts: &Timeouts, place: Place) -> Self {
        let header_timeout = timeouts.header;
        let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
        let _ = digest.peer_addr.set(Some(peer.into()));
        Self {
            socket,
            digest: Arc::new(digest),
            gathers: AtomicBool::new(false),
            out: Vec::new(),
            header_timeout,
            write_stall: timeouts.write_stall + STALL_MARGIN,
            stalled: None,
            in_header: AtomicBool::new(true),
            chunked: AtomicBool::new(false),
            deadline: Some(Box::pin(sleep(header_timeout))),
            answered: AtomicU32::new(0),
            lines: HeaderLines::default(),
            _place: place,
        }
    }

    /// The connection that a session runs on.
    #[must_use]
    pub fn of(session: &Session) -> Option<&Self> {
        session.as_downstream().stream()?.as_any().downcast_ref()
    }

    /// The answer at hand is whole: its header and body are to leave in one segment. Until the request is done, what
    /// is written waits for a flush, which Pingora gives at the end of the body.
    pub fn gather(&self) {
        self.gathers.store(true, Ordering::Relaxed);
    }

    /// Resolves when the client has closed the connection, or its half of it. A byte that it sends on is left alone,
    /// and hides what comes behind it.
    pub async fn left(&self) {
        if let Ok(1..) = self.socket.peek(&mut [0]).await {
            std::future::pending().await
        }
    }

    /// The header has been read: its deadline no longer applies. The lines of a chunked body are watched from now.
    pub fn header_done(&self, chunked: bool) {
        self.chunked.store(chunked, Ordering::Relaxed);
        self.in_header.store(false, Ordering::Relaxed);
    }

    /// Whether what came with the header reads as a chunked body in one way only.
    pub const fn begins_chunked(&self) -> bool {
        self.lines.plain
    }

    /// The request has been answered: the next byte starts a header.
    pub fn request_done(&self) {
        self.gathers.store(false, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.in_header.store(true, Ordering::Relaxed);
    }

    /// Sends all that gathered.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut sent = 0;
        let result = loop {
            if sent == self.out.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.socket).poll_write(cx, &self.out[sent..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.out.drain(..sent);
        if self.out.is_empty() {
            self.out.shrink_to(KEEP);
        }
        if sent > 0 {
            self.stalled = None;
        }
        self.bounded(cx, result)
    }

    /// Fails a write that has made no progress for too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let limit = self.write_stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(cx, buf);
        if !this.in_header.load(Ordering::Relaxed) {
            this.deadline = None;
            if this.chunked.load(Ordering::Relaxed) && !this.lines.chunks.accept(&buf.filled()[before..]) {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            return polled;
        }
        let answered = this.answered.load(Ordering::Relaxed);
        if this.lines.request != answered {
            this.lines = HeaderLines { request: answered, ..HeaderLines::default() };
        }
        let arrived = buf.filled().len() > before;
        if arrived && !this.lines.accept(&buf.filled()[before..]) {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if this.lines.ended {
            this.deadline = None;
        } else if arrived && this.deadline.is_none() {
            this.deadline = Some(Box::pin(sleep(this.header_timeout)));
        }
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.gathers.load(Ordering::Relaxed) || self.out.len() + buf.len() > GATHER {
            ready!(self.send(cx))?;
            let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
            return self.bounded(cx, polled);
        }
        self.out.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // A client that left is no error of ours.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.socket.as_raw_fd()
    }
}

impl Ssl for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl Peek for Connection {}

/// Watches the line ends of one request's header, whatever pieces it comes in.
#[derive(Debug, Default)]
struct HeaderLines {
    /// Which request of the connection this is.
    request: u32,
    /// Bytes of the current line so far.
    length: usize,
    last: u8,
    /// A line that is not empty has been seen.
    begun: bool,
    /// The blank line has been seen; what follows is body.
    ended: bool,
    /// The body, were it chunked: that is known once the header has been read.
    chunks: ChunkLines,
    /// Whether the part of it that came with the header could be.
    plain: bool,
}

impl HeaderLines {
    /// Takes the next bytes; `false` when a line ends with a bare LF.
    fn accept(&mut self, bytes: &[u8]) -> bool {
        if self.ended {
            return true;
        }
        let mut start = 0;
        for at in memchr::memchr_iter(b'\n', bytes) {
            let length = self.length + (at - start);
            let before = if at > 0 { bytes[at - 1] } else { self.last };
            if length == 0 || before != b'\r' {
                return false;
            }
            if length == 1 && self.begun {
                self.ended = true;
                self.plain = self.chunks.accept(&bytes[at + 1..]);
                return true;
            }
            self.begun |= length > 1;
            self.length = 0;
            start = at + 1;
        }
        self.length += bytes.len() - start;
        self.last = bytes.last().copied().unwrap_or(self.last);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_line_feeds_are_seen_in_headers_only_however_they_are_cut() {
        let cases: [(&[u8], bool, bool); 6] = [
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody\nwith\n\nfeeds", true, true),
            (b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", true, true),
            (b"GET / HTTP/1.1\r\nHost: x\r\n", true, false),
            (b"GET / HTTP/1.1\nHost: x\r\n\r\n", false, false),
            (b"GET / HTTP/1.1\r\nHost: x\n\r\n", false, false),
            (b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\n", false, false),
        ];
        for (bytes, accepted, ended) in cases {
            for cut in 0..bytes.len() {
                let mut lines = HeaderLines::default();
                let all = lines.accept(&bytes[..cut]) && lines.accept(&bytes[cut..]);
                assert_eq!((all, lines.ended), (accepted, ended), "{bytes:?} cut at {cut}");
            }
        }
    }

    #[tokio::test]
    async fn whoever_does_not_read_is_cut_whatever_is_written() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let gate = Gate::new(9, 9);
        for gathers in [false, true] {
            let _client = TcpStream::connect(listener.local_addr().expect("is bound")).await.expect("connects");
            let (socket, peer) = listener.accept().await.expect("a client");
            let place = gate.enter(peer.ip()).expect("free");
            let mut connection = Connection::new(socket, peer, &Timeouts::default(), place);
            connection.write_stall = Duration::from_millis(50);
            let filling = async {
                loop {
                    if gathers {
                        connection.gather();
                    }
                    connection.write_all(&[b'x'; GATHER / 2]).await?;
                    connection.flush().await?;
                }
            };
            let ended: io::Result<()> =
                tokio::time::timeout(Duration::from_secs(20), filling).await.expect("it is cut");
            assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut), "{gathers}");
            let closing = tokio::time::timeout(Duration::from_secs(20), Shutdown::shutdown(&mut connection));
            closing.await.expect("what is left does not hold it up");
        }
    }

    #[test]
    fn places_are_bounded_in_all_and_per_address() {
        let gate = Gate::new(3, 2);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = gate.enter(one).expect("free");
        let _second = gate.enter(one).expect("free");
        assert_eq!(gate.enter(one).err(), Some(ConnectionRefusal::PerAddress));
        let _third = gate.enter(two).expect("free");
        assert_eq!(gate.enter(two).err(), Some(ConnectionRefusal::Limit));
        drop(first);
        assert!(gate.enter(two).is_ok());
        let gate = Gate::new(3, 1);
        let six = |host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]);
        let _first = gate.enter(six(1)).expect("free");
        assert_eq!(gate.enter(six(2)).err(), Some(ConnectionRefusal::PerAddress), "one /64 is one client");
    }
}
