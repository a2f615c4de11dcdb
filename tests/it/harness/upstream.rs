//! Servers behind the sidecar: each counts what reaches it and answers as its script says.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::find;

/// A request as the upstream read it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    KeepAlive,
    Close,
}

/// The sidecar, as the upstream's script sees it.
pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// Whether all bytes could be written.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Writes each piece as a segment of its own; the pause shapes the input, nothing waits for it.
    pub fn send_pieces(&mut self, pieces: &[&[u8]]) -> bool {
        pieces.iter().all(|piece| {
            std::thread::park_timeout(Duration::from_millis(15));
            self.send(piece)
        })
    }

    /// One chunk of a chunked body.
    pub fn chunk(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.send(framed)
    }

    /// Blocks until the sidecar leaves; how long that took, or `None` at the deadline.
    pub fn gone_within(&mut self, within: Duration) -> Option<Duration> {
        let from = Instant::now();
        while from.elapsed() < within {
            let left = within.saturating_sub(from.elapsed()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).ok()?;
            match self.stream.read(&mut [0; 1024]) {
                Ok(0) => return Some(from.elapsed()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(_) => return Some(from.elapsed()),
            }
        }
        None
    }
}

type Script = dyn Fn(&Seen, &mut Peer) -> Next + Send + Sync;

/// A listening server on a free port; ends with the value.
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Upstream {
    pub fn scripted(script: impl Fn(&Seen, &mut Peer) -> Next + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("is bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        let (log, stop, script): (_, _, Arc<Script>) = (Arc::clone(&seen), Arc::clone(&over), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                accepted.fetch_add(1, Ordering::SeqCst);
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                std::thread::spawn(move || converse(stream, &log, &*script));
            }
        });
        Self { address, seen, connections, over }
    }

    /// An MCP server that answers every method, and tools of any name, from JSON.
    pub fn mcp() -> Self {
        Self::scripted(|seen, peer| {
            let answer = mcp_answer(&seen.json());
            let answer = match answer {
                Some(answer) => json_answer(&answer),
                None => b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec(),
            };
            if peer.send(answer) { Next::KeepAlive } else { Next::Close }
        })
    }

    /// A CMS that would answer MCP by itself: whatever reaches it on a reserved shape got past the policy.
    pub fn canary() -> Self {
        Self::scripted(|_, peer| {
            let body = "canary";
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if peer.send(answer) { Next::KeepAlive } else { Next::Close }
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no script panicked").clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn count(&self) -> usize {
        self.seen.lock().expect("no script panicked").len()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// `200 OK` with a JSON body.
pub fn json_answer(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// The head of a chunked SSE answer.
pub fn stream_head() -> &'static str {
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
}

fn mcp_answer(request: &Value) -> Option<Value> {
    let id = request.get("id").filter(|id| !id.is_null())?;
    let result = match request["method"].as_str().unwrap_or("") {
        "initialize" => json!({
            "protocolVersion": request["params"]["protocolVersion"].as_str().unwrap_or("2025-11-25"),
            "capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"},
        }),
        "tools/list" => json!({"tools": [{"name": "raw.echo", "inputSchema": {"type": "object"}}]}),
        "tools/call" => json!({"content": [{"type": "text", "text": "done"}], "isError": false}),
        _ => json!({}),
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn converse(stream: TcpStream, log: &Mutex<Vec<Seen>>, script: &Script) {
    let _ = stream.set_nodelay(true);
    let mut peer = Peer { stream };
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut peer.stream, &mut buffer) {
        log.lock().expect("no script panicked").push(seen.clone());
        if script(&seen, &mut peer) == Next::Close {
            return;
        }
        let _ = peer.stream.set_read_timeout(None);
    }
}

fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = until(stream, buffer, |bytes| find(bytes, b"\r\n\r\n"))?;
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut seen = Seen { line, headers, body: Vec::new() };
    if seen.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let at = until(stream, buffer, |bytes| find(bytes, b"\r\n"))?;
            let size = usize::from_str_radix(String::from_utf8_lossy(&buffer[..at]).trim(), 16).ok()?;
            until(stream, buffer, |bytes| (bytes.len() >= at + size + 4).then_some(0))?;
            seen.body.extend_from_slice(&buffer[at + 2..at + 2 + size]);
            buffer.drain(..at + size + 4);
            if size == 0 {
                return Some(seen);
            }
        }
    }
    let length = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    until(stream, buffer, |bytes| (bytes.len() >= length).then_some(0))?;
    seen.body = buffer.drain(..length).collect();
    Some(seen)
}

fn until(stream: &mut TcpStream, buffer: &mut Vec<u8>, done: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
    loop {
        if let Some(at) = done(buffer) {
            return Some(at);
        }
        let mut bytes = [0; 16 * 1024];
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(count) => buffer.extend_from_slice(&bytes[..count]),
        }
    }
}
