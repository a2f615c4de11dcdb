//! Just enough HTTP/1.1 to be a fast client and server: heads that end with a blank line, bodies with a length.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection, and what was read from it but not used yet.
pub struct Connection {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self::over(socket))
    }

    pub fn over(socket: TcpStream) -> Self {
        Self { socket, buffer: Vec::with_capacity(4096) }
    }

    /// The next head, its blank line included; `None` where the stream ends before one begins.
    pub async fn head(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
            }
            if self.more().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The body of so many bytes.
    pub async fn body(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.more().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// Also when the answer is no 200 with a length.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<()> {
        self.socket.write_all(request).await?;
        let head = self.head().await?.ok_or(ErrorKind::UnexpectedEof)?;
        let length = field(&head, "content-length").and_then(|value| value.parse().ok());
        match (head.starts_with("HTTP/1.1 200 "), length) {
            (true, Some(length)) => self.body(length).await.map(drop),
            _ => Err(Error::other(head)),
        }
    }

    async fn more(&mut self) -> Result<usize> {
        self.buffer.reserve(4096);
        self.socket.read_buf(&mut self.buffer).await
    }
}

/// The value of a header field of a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = |line: &'a str| line.split_once(':').filter(|(found, _)| found.eq_ignore_ascii_case(name));
    head.lines().find_map(line).map(|(_, value)| value.trim())
}

/// A call of the tool at `url` (`http://host:port/path`): the address, and the request's bytes.
pub fn call(url: &str, token: &str, tool: &str, text: &str) -> (String, Vec<u8>) {
    let rest = url.strip_prefix("http://").expect("an http URL");
    let (address, path) = rest.split_once('/').expect("a URL with a path");
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":"{text}"}},"_meta":{{"progressToken":1}}}}}}"#
    );
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nAccept: application/json, \
         text/event-stream\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    (address.to_owned(), request.into_bytes())
}
