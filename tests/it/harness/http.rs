//! A small HTTP/1.1 client that sends exactly the bytes it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

const READ_DEADLINE: Duration = Duration::from_secs(20);

/// A request to be written as it stands.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Sends `Content-Length`; off where a test writes the framing itself.
    pub declare_length: bool,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            declare_length: method == "POST",
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            out.extend_from_slice(b"Host: 127.0.0.1\r\n");
        }
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if self.declare_length {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// A whole answer, its framing removed.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// `error.code` of a transport error, or `error.data.code` of a JSON-RPC error.
    pub fn code(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        let error = &body["error"];
        error["code"].as_str().or_else(|| error["data"]["code"].as_str()).map(str::to_owned)
    }
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
    Done,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    framing: Framing,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("connects");
        stream.set_nodelay(true).expect("sets nodelay");
        Self { stream, buffer: Vec::new(), framing: Framing::Done }
    }

    /// Writes; a peer that already refused and left is not an error, its answer is still to be read.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.set_write_timeout(Some(READ_DEADLINE)).expect("sets a timeout");
        let _ = self.stream.write_all(bytes);
    }

    /// Whether bytes (or the end) are here, or come within this time.
    pub fn readable_within(&mut self, within: Duration) -> bool {
        self.stream.set_read_timeout(Some(within.max(Duration::from_millis(1)))).expect("sets a timeout");
        let peeked = self.stream.peek(&mut [0]);
        !peeked.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Says that nothing more will be sent.
    pub fn end(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    pub fn round_trip(&mut self, request: &Request) -> Response {
        self.send(&request.bytes());
        self.response(request.method == "HEAD")
    }

    /// Reads one answer to its end.
    pub fn response(&mut self, to_head: bool) -> Response {
        let mut response = self.head();
        if to_head {
            self.framing = Framing::Done;
        }
        while let Some(part) = self.part(READ_DEADLINE) {
            response.body.extend_from_slice(&part);
        }
        response
    }

    /// Reads status line and headers only.
    pub fn head(&mut self) -> Response {
        self.try_head().expect("an answer before the connection ends")
    }

    /// As [`Self::head`]; `None` when the peer closes without an answer.
    pub fn try_head(&mut self) -> Option<Response> {
        loop {
            let end = loop {
                if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                    break at;
                }
                if !self.fill(READ_DEADLINE) {
                    return None;
                }
            };
            let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.drain(..end + 4);
            let mut lines = head.split("\r\n");
            let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let response = Response { status, headers, body: Vec::new() };
            self.framing = match (response.header("transfer-encoding"), response.header("content-length")) {
                _ if status == 204 || status == 304 || status == 101 => Framing::Done,
                (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
                (_, Some(length)) => Framing::Length(length.parse().expect("a number as Content-Length")),
                _ => Framing::UntilClose,
            };
            return Some(response);
        }
    }

    /// The next part of the body as it arrived; `None` at its end. Panics when nothing comes `within`.
    pub fn part(&mut self, within: Duration) -> Option<Vec<u8>> {
        match self.framing {
            Framing::Done => None,
            Framing::Length(0) => {
                self.framing = Framing::Done;
                None
            }
            Framing::Length(left) => {
                if self.buffer.is_empty() && !self.fill(within) {
                    panic!("the answer ended {left} bytes early");
                }
                let take = left.min(self.buffer.len());
                self.framing = Framing::Length(left - take);
                Some(self.buffer.drain(..take).collect())
            }
            Framing::UntilClose => {
                if self.buffer.is_empty() && !self.fill(within) {
                    self.framing = Framing::Done;
                    return None;
                }
                Some(std::mem::take(&mut self.buffer))
            }
            Framing::Chunked => self.chunk(within),
        }
    }

    fn chunk(&mut self, within: Duration) -> Option<Vec<u8>> {
        let line = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            if !self.fill(within) {
                self.framing = Framing::Done;
                return None;
            }
        };
        let size = std::str::from_utf8(&self.buffer[..line]).expect("a chunk size is ASCII");
        let size = usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16).expect("a chunk size");
        while self.buffer.len() < line + 2 + size + 2 {
            if !self.fill(within) {
                self.framing = Framing::Done;
                return None;
            }
        }
        let chunk = self.buffer[line + 2..line + 2 + size].to_vec();
        self.buffer.drain(..line + 2 + size + 2);
        if size == 0 {
            self.framing = Framing::Done;
            return None;
        }
        Some(chunk)
    }

    /// Exactly so many bytes as they come, after an upgrade; fewer when the connection ends.
    pub fn raw(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.fill(READ_DEADLINE) {}
        let count = count.min(self.buffer.len());
        self.buffer.drain(..count).collect()
    }

    /// Reads on until the body so far satisfies the condition; panics at the deadline or the body's end.
    pub fn body_until(&mut self, what: &str, within: Duration, done: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + within;
        let mut body = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&body).into_owned();
            if done(&text) {
                return text;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {within:?}: {what}; so far {text:?}");
            match self.part(left) {
                Some(part) => body.extend_from_slice(&part),
                None => panic!("the body ended before {what}: {text:?}"),
            }
        }
    }

    fn fill(&mut self, within: Duration) -> bool {
        self.stream.set_read_timeout(Some(within.max(Duration::from_millis(1)))).expect("sets a timeout");
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                count > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing to read within {within:?}")
            }
            Err(_) => false,
        }
    }
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
