//! An accepted connection: what was read and is not used yet, and what bounds every read and write.
//!
//! Every request's header is read here, before anybody is asked: in total within `timeouts.header`, whatever pieces it
//! comes in, and with CRLF at every line's end, since other parsers read bare line feeds differently. A connection
//! whose next request is for the CMS is lent to Pingora with that header still to be read, up to that request's end
//! ([`Loan`]). Writes that make no progress are ended: Pingora bounds those of bodies, but neither those of headers nor
//! the flush at the end.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::proxy::framing::Framing;
use crate::proxy::gate::Place;
use crate::proxy::loan::Loan;
use crate::proxy::pace::Pace;
use crate::proxy::settings::Timeouts;

/// Read at once: at first, since most requests are small, and while a body fills it.
const READ: usize = 4 * 1024;
const READ_LARGE: usize = 64 * 1024;
/// Whoever writes has a bound of its own, and can say more about it: it comes first.
const STALL_MARGIN: Duration = Duration::from_secs(1);
/// What a client still sends is read for so long, and so much of it, once its connection is to end.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;
/// What is kept of a client that sends on while it is answered.
const AHEAD: usize = 16 * 1024;

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    peer: IpAddr,
    digest: Arc<SocketDigest>,
    /// Read, and not used yet.
    pub(in crate::proxy) input: BytesMut,
    /// How much is read next.
    step: usize,
    header_timeout: Duration,
    keepalive: Duration,
    /// Whether a request has been answered here.
    used: bool,
    /// Ends a wait for a header. It is not set anew for each: it may be early, and is then set again.
    timer: Pin<Box<Sleep>>,
    body_timeout: Duration,
    write_stall: Duration,
    /// Runs while a write makes no progress.
    stalled: Option<Pin<Box<Sleep>>>,
    /// While Pingora has it: what it may read.
    loan: Loan,
    /// How fast the client must send that request's body.
    pace: Option<Pace>,
    _place: Place,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The client closed the connection or took too long: nobody waits for an answer.
    Ended,
    TooLarge,
    /// A line ends in a way that others read differently.
    BareLineFeed,
}

impl Connection {
    /// Wraps an accepted socket; the first header's time runs from the first wait for it.
    #[must_use]
    pub fn new(socket: TcpStream, peer: SocketAddr, timeouts: &Timeouts, place: Place) -> Self {
        let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
        let _ = digest.peer_addr.set(Some(peer.into()));
        Self {
            socket,
            peer: peer.ip().to_canonical(),
            digest: Arc::new(digest),
            input: BytesMut::new(),
            step: READ,
            header_timeout: timeouts.header,
            keepalive: timeouts.keepalive,
            used: false,
            timer: Box::pin(sleep(timeouts.header)),
            body_timeout: timeouts.body,
            write_stall: timeouts.write_stall + STALL_MARGIN,
            stalled: None,
            loan: Loan::new(Bytes::new(), Framing::Done, false),
            pace: None,
            _place: place,
        }
    }

    /// The other end's address.
    #[must_use]
    pub const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The next request's header with its closing blank line; `most` is asked for its bound, in bytes.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn header(&mut self, most: impl Fn() -> usize) -> Result<Bytes, Unread> {
        let mut lines = HeaderLines::default();
        let mut seen = 0;
        // When the wait at hand ends, and whether it is for the rest of a header that has begun.
        let mut due: Option<(Instant, bool)> = None;
        poll_fn(|cx| {
            loop {
                if self.input.len() > seen {
                    if !lines.accept(&self.input[seen..]) {
                        return Poll::Ready(Err(Unread::BareLineFeed));
                    }
                    if let Some(rest) = lines.rest {
                        let end = seen + rest;
                        return Poll::Ready(Ok(self.input.split_to(end).freeze()));
                    }
                    seen = self.input.len();
                    if seen > most() {
                        return Poll::Ready(Err(Unread::TooLarge));
                    }
                }
                match self.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(Err(Unread::Ended)),
                    Poll::Pending => break,
                }
            }
            let begun = seen > 0;
            let (until, _) = *match &mut due {
                Some(known) if known.1 == begun || !self.used => known,
                due => {
                    let wait = if self.used && !begun { self.keepalive } else { self.header_timeout };
                    due.insert((Instant::now() + wait, begun))
                }
            };
            if self.timer.deadline() > until {
                self.timer.as_mut().reset(until);
            }
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(Err(Unread::Ended));
            }
            self.timer.as_mut().reset(until);
            self.timer.as_mut().poll(cx).map(|()| Err(Unread::Ended))
        })
        .await
    }

    /// A request has been answered; what comes now begins another one.
    pub const fn answered(&mut self) {
        self.used = true;
    }

    /// Reads more into [`Self::input`]: the number of bytes, 0 at the end.
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(self.step);
        let polled = pin!(self.socket.read_buf(&mut self.input)).poll(cx);
        match &polled {
            Poll::Ready(Ok(count)) => self.step = if *count >= self.step { READ_LARGE } else { READ },
            // Whoever waits holds no buffer.
            Poll::Pending if self.input.is_empty() => self.input = BytesMut::new(),
            _ => {}
        }
        polled
    }

    /// Resolves when the client has closed the connection, or its half of it. A byte that it sends on is left alone,
    /// and hides what comes behind it.
    pub async fn left(&self) {
        if let Ok(1..) = self.socket.peek(&mut [0]).await {
            std::future::pending().await
        }
    }

    /// As [`Self::left`], for a connection that nobody else uses meanwhile: what the client sends on is kept, up to a
    /// bound behind which it is no longer listened to.
    pub async fn left_while_sending(&mut self) {
        while self.input.len() < AHEAD {
            self.step = READ;
            if !matches!(self.fill().await, Ok(1..)) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// When the client is gone; [`io::ErrorKind::TimedOut`] when it reads nothing for too long.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        poll_fn(|cx| {
            while sent < bytes.len() {
                let polled = Pin::new(&mut self.socket).poll_write(cx, &bytes[sent..]);
                match ready!(self.bounded(cx, polled))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => sent += count,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Ends the connection. With `unread` bytes still to come, or a request that was sent ahead, they are read and
    /// dropped for a while: the kernel would reset the connection for them, and the client might never see its answer.
    pub async fn close(mut self, unread: bool) {
        let unread = unread || !self.input.is_empty() || matches!(self.socket.try_read(&mut [0]), Ok(1..));
        if self.socket.shutdown().await.is_err() || !unread {
            return;
        }
        let dropping = async {
            let mut left = LINGER_BYTES;
            self.input.clear();
            while let Ok(count @ 1..) = self.fill().await {
                self.input.clear();
                left = left.saturating_sub(count);
                if left == 0 {
                    break;
                }
            }
        };
        let _ = timeout(LINGER, dropping).await;
    }

    /// Makes Pingora read this request, and no further.
    pub fn lend(&mut self, loan: Loan) {
        self.pace = loan.has_body().then(|| Pace::new(self.body_timeout));
        self.loan = loan;
    }

    /// Takes it back: whether it can be used again. What Pingora has not read of the request would be read by nobody.
    #[must_use]
    pub fn taken_back(&mut self) -> bool {
        self.used = true;
        self.pace = None;
        self.loan.is_whole()
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

/// As Pingora reads it.
impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let head = this.loan.head(buf.remaining());
        if !head.is_empty() {
            buf.put_slice(&head);
            return Poll::Ready(Ok(()));
        }
        if this.loan.is_whole() {
            // The next request waits for its turn. Pingora is only told of a client that leaves.
            while this.input.len() < AHEAD {
                this.step = READ;
                if !matches!(ready!(this.poll_fill(cx))?, 1..) {
                    return Poll::Ready(Ok(()));
                }
            }
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let at_hand = this.input.len().min(buf.remaining());
        if at_hand > 0 {
            buf.put_slice(&this.input[..at_hand]);
        } else {
            match Pin::new(&mut this.socket).poll_read(cx, buf) {
                Poll::Ready(done) => done?,
                Poll::Pending => {
                    let Some(pace) = &mut this.pace else { return Poll::Pending };
                    return pace.poll_over(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        let read = &buf.filled()[before..];
        let Some(own) = this.loan.take(read) else { return Poll::Ready(Err(io::ErrorKind::InvalidData.into())) };
        if let Some(pace) = &mut this.pace {
            pace.came(own);
        }
        if at_hand > 0 {
            this.input.advance(own);
        } else {
            this.input.extend_from_slice(&read[own..]);
        }
        buf.set_filled(before + own);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.bounded(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
    /// Bytes of the current line so far.
    length: usize,
    last: u8,
    /// A line that is not empty has been seen.
    begun: bool,
    /// The blank line has been seen, and ends behind so many of the bytes taken last.
    rest: Option<usize>,
}

impl HeaderLines {
    /// Takes the next bytes; `false` when a line ends with a bare LF.
    fn accept(&mut self, bytes: &[u8]) -> bool {
        let mut start = 0;
        for at in memchr::memchr_iter(b'\n', bytes) {
            let length = self.length + (at - start);
            let before = if at > 0 { bytes[at - 1] } else { self.last };
            if length == 0 || before != b'\r' {
                return false;
            }
            if length == 1 && self.begun {
                self.rest = Some(at + 1);
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
    use crate::proxy::gate::Gate;

    async fn pair(timeouts: &Timeouts) -> (TcpStream, Connection) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("is bound")).await.expect("connects");
        let (socket, peer) = listener.accept().await.expect("a client");
        let place = Gate::new(9, 9).enter(peer.ip()).expect("free");
        (client, Connection::new(socket, peer, timeouts, place))
    }

    #[tokio::test]
    async fn headers_end_at_their_blank_line_however_they_are_cut() {
        let cases: [(&[u8], Result<usize, Unread>); 7] = [
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody\nwith\n\nfeeds", Ok(27)),
            (b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nGET", Ok(29)),
            (b"GET / HTTP/1.1\r\nHost: x\r\n", Err(Unread::Ended)),
            (b"", Err(Unread::Ended)),
            (b"GET / HTTP/1.1\nHost: x\r\n\r\n", Err(Unread::BareLineFeed)),
            (b"GET / HTTP/1.1\r\nHost: x\n\r\n", Err(Unread::BareLineFeed)),
            (b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\n", Err(Unread::BareLineFeed)),
        ];
        for (bytes, expected) in cases {
            for cut in [0, 1, 2, 3, 15, 16, 17, 24, 25, 26, 27].into_iter().filter(|cut| *cut <= bytes.len()) {
                let (mut client, mut connection) = pair(&Timeouts::default()).await;
                client.set_nodelay(true).expect("a socket");
                let sending = async {
                    client.write_all(&bytes[..cut]).await.expect("is read");
                    tokio::task::yield_now().await;
                    client.write_all(&bytes[cut..]).await.expect("is read");
                    client.shutdown().await.expect("is open");
                };
                let (read, ()) = tokio::join!(connection.header(|| 1000), sending);
                let expected = expected.map(|length| Bytes::copy_from_slice(&bytes[..length]));
                assert_eq!(read, expected, "{} cut at {cut}", bytes.escape_ascii());
            }
        }
        let (mut client, mut connection) = pair(&Timeouts::default()).await;
        client.write_all(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").await.expect("is read");
        for target in ["/1", "/2"] {
            let header = connection.header(|| 1000).await.expect("comes");
            assert!(header.starts_with(format!("GET {target} ").as_bytes()), "{header:?}");
            connection.answered();
        }
        client.write_all(&[b'x'; 100]).await.expect("is read");
        assert_eq!(connection.header(|| 99).await, Err(Unread::TooLarge));
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_has_its_time_and_an_idle_connection_its_own() {
        let timeouts =
            Timeouts { header: Duration::from_secs(5), keepalive: Duration::from_secs(60), ..Timeouts::default() };
        let (_client, mut connection) = pair(&timeouts).await;
        for (used, sent, waits) in [(false, "", 5), (false, "GET", 5), (true, "", 60), (true, "GET", 5)] {
            connection.used = used;
            connection.input.clear();
            connection.input.extend_from_slice(sent.as_bytes());
            let begun = Instant::now();
            assert_eq!(connection.header(|| 1000).await, Err(Unread::Ended));
            assert_eq!(begun.elapsed().as_secs(), waits, "{used} {sent:?}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_ahead_does_not_cost_the_answer_before_it() {
        for read in [true, false] {
            let (mut client, mut connection) = pair(&Timeouts::default()).await;
            client.write_all(&[b'x'; 50_000]).await.expect("is taken");
            if read {
                connection.fill().await.expect("is open");
            } else {
                connection.socket.readable().await.expect("is open");
            }
            connection.send(b"answer").await.expect("is open");
            let reading = async move {
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.map(|_| answer)
            };
            let (answer, ()) = tokio::join!(reading, connection.close(false));
            assert_eq!(answer.expect("no reset"), b"answer");
        }
    }

    #[tokio::test]
    async fn a_lent_connection_tells_of_one_request_and_of_its_clients_end() {
        let (mut client, mut connection) = pair(&Timeouts::default()).await;
        connection.lend(Loan::new(Bytes::from_static(b"head"), Framing::Length(3), false));
        client.write_all(b"abcnext").await.expect("is taken");
        let mut bytes = [0; 64];
        assert_eq!(connection.read(&mut bytes).await.expect("is open"), 4);
        let mut body = Vec::new();
        while body.len() < 3 {
            let count = connection.read(&mut bytes).await.expect("is open");
            body.extend_from_slice(&bytes[..count]);
        }
        assert_eq!(body, b"abc");
        let waiting = timeout(Duration::from_millis(50), connection.read(&mut bytes)).await;
        assert!(waiting.is_err(), "the next request is not Pingora's");
        assert!(connection.taken_back());
        assert_eq!(&connection.input[..], b"next");
        client.shutdown().await.expect("is open");
        assert_eq!(connection.read(&mut bytes).await.expect("ends"), 0);
    }

    #[tokio::test]
    async fn whoever_does_not_read_is_cut_whatever_is_written() {
        let (_client, mut connection) = pair(&Timeouts::default()).await;
        connection.write_stall = Duration::from_millis(50);
        let filling = async {
            loop {
                connection.send(&[b'x'; 8192]).await?;
            }
        };
        let ended: io::Result<()> = timeout(Duration::from_secs(20), filling).await.expect("it is cut");
        assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        let pingoras = async {
            loop {
                connection.write_all(&[b'x'; 8192]).await?;
            }
        };
        let ended: io::Result<()> = timeout(Duration::from_secs(20), pingoras).await.expect("it is cut");
        assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        timeout(Duration::from_secs(20), connection.close(true)).await.expect("what is left does not hold it up");
    }
}
