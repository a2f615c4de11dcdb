//! One request of a client and its answer, over HTTP/1.
//!
//! Invariants: one answer, whole or cut off with its connection; a connection is used again only when the request's
//! body has been read to its end and the answer was framed; header and body of a plain answer leave in one piece.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, UPGRADE};
use http::{Method, Version};

use crate::proxy::chunk_lines::ChunkLines;
use crate::proxy::connection::Connection;
use crate::proxy::framing::{Framing, Piece};
use crate::proxy::loan::Loan;
use crate::proxy::request::Request;
use crate::proxy::response::Response;

/// Bodies up to this size leave together with their header.
const ONE_WRITE: usize = 64 * 1024;

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    None,
    /// Its header has been sent, and the body ends with the connection or, `chunked`, by itself.
    Begun {
        chunked: bool,
    },
    Whole,
    /// The client did not get all of it.
    Broken,
}

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Exchange {
    connection: Connection,
    request: Request,
    /// What is left of the request's body.
    framing: Framing,
    keeps: bool,
    answer: Answer,
    status: u16,
    sent: u64,
    trace_id: Option<Arc<str>>,
}

impl Exchange {
    /// The request whose header was just read from the connection.
    #[must_use]
    pub fn new(connection: Connection, request: Request) -> Self {
        let (framing, keeps) = (request.framing(), request.keeps);
        Self { connection, request, framing, keeps, answer: Answer::None, status: 0, sent: 0, trace_id: None }
    }

    /// Its header.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// The header's fields.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.request.headers
    }

    /// The connection that it came by.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection ends with this answer.
    pub const fn close(&mut self) {
        self.keeps = false;
    }

    /// Sent to the client: the status, 0 before; the bytes of the body.
    #[must_use]
    pub const fn sent(&self) -> (u16, u64) {
        (self.status, self.sent)
    }

    /// What the access log is to call it.
    pub fn trace(&mut self, trace_id: &Arc<str>) {
        self.trace_id = Some(Arc::clone(trace_id));
    }

    /// As [`Self::trace`] has it.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.trace_id.as_deref().unwrap_or_default()
    }

    /// The whole body, where it came with the header and has a declared length.
    pub fn body_at_hand(&mut self) -> Option<Bytes> {
        let length = match self.framing {
            Framing::Done => 0,
            Framing::Length(length) => usize::try_from(length).ok()?,
            _ => return None,
        };
        if self.connection.input.len() < length {
            return None;
        }
        self.framing = Framing::Done;
        Some(self.connection.input.split_to(length).freeze())
    }

    /// The next piece of the body; `None` at its end. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the client closed before its end, or broke its framing.
    pub async fn body(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.framing.take(&mut self.connection.input) {
                Ok(Piece::Data(data)) => return Ok(Some(data)),
                Ok(Piece::End) => return Ok(None),
                Ok(Piece::More) => {}
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
            if self.connection.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Tells a client that waits for it to send the body.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn go_ahead(&mut self) -> io::Result<()> {
        self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n").await
    }

    /// Resolves when the client has left, and only then.
    pub async fn left(&mut self) {
        self.connection.left_while_sending().await;
    }

    /// Answers whole. A client that left is no error of ours.
    pub async fn answer(&mut self, mut response: Response, body: &[u8]) {
        response.number("Content-Length", body.len() as u64);
        let body = if self.request.method == Method::HEAD { &[] } else { body };
        let mut bytes = self.head(response);
        let written = if body.len() <= ONE_WRITE {
            bytes.extend_from_slice(body);
            self.connection.send(&bytes).await
        } else {
            match self.connection.send(&bytes).await {
                Ok(()) => self.connection.send(body).await,
                broken => broken,
            }
        };
        self.answer = if written.is_ok() { Answer::Whole } else { Answer::Broken };
        self.sent = if written.is_ok() { body.len() as u64 } else { 0 };
    }

    /// Begins an answer whose length nobody knows yet.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn begin(&mut self, mut response: Response) -> io::Result<()> {
        let chunked = self.request.version == Version::HTTP_11;
        if chunked {
            response.set("Transfer-Encoding", b"chunked");
        } else {
            // It knows no chunks: the end of the connection is the end of the answer.
            self.keeps = false;
        }
        let bytes = self.head(response);
        self.answer = Answer::Broken;
        self.connection.send(&bytes).await?;
        self.answer = Answer::Begun { chunked };
        Ok(())
    }

    /// Goes on with it.
    ///
    /// # Errors
    /// When the client is gone, or `TimedOut` when it does not read. Nothing can be sent after that.
    pub async fn send(&mut self, piece: &[u8]) -> io::Result<()> {
        let Answer::Begun { chunked } = self.answer else { return Err(io::ErrorKind::BrokenPipe.into()) };
        // A piece that is cut off half-way leaves the answer broken: its future may be dropped.
        self.answer = Answer::Broken;
        if chunked && !piece.is_empty() {
            let mut bytes = Vec::with_capacity(piece.len() + 16);
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
            self.connection.send(&bytes).await?;
        } else {
            self.connection.send(piece).await?;
        }
        self.sent += piece.len() as u64;
        self.answer = Answer::Begun { chunked };
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn end(&mut self) -> io::Result<()> {
        let Answer::Begun { chunked } = self.answer else { return Err(io::ErrorKind::BrokenPipe.into()) };
        self.answer = Answer::Broken;
        if chunked {
            self.connection.send(b"0\r\n\r\n").await?;
        }
        self.answer = Answer::Whole;
        Ok(())
    }

    /// The header's bytes. What is left of the request's body and has come is skipped; where more is to come, the
    /// connection ends with this answer.
    fn head(&mut self, response: Response) -> Vec<u8> {
        self.status = response.status();
        self.keeps &= self.framing == Framing::Done || self.body_at_hand().is_some();
        response.into_head(self.keeps)
    }

    /// The connection, where it is to be used again.
    pub async fn finish(mut self) -> Option<Connection> {
        match self.answer {
            Answer::Whole if self.keeps && self.framing == Framing::Done => {
                self.connection.answered();
                Some(self.connection)
            }
            Answer::Whole => {
                self.connection.close(self.framing != Framing::Done).await;
                None
            }
            _ => None,
        }
    }

    /// Whether what has come of a body that is not to be read here, were it chunked, can be read in one way only.
    #[must_use]
    pub fn begins_plainly(&self) -> bool {
        !matches!(self.framing, Framing::Chunked(_)) || ChunkLines::default().accept(&self.connection.input).is_some()
    }

    /// Hands a request that was not answered here to Pingora.
    #[must_use]
    pub fn lend(mut self) -> Connection {
        // As Pingora has it: an older client cannot ask for another protocol.
        let upgrades = self.request.version == Version::HTTP_11 && self.request.headers.contains_key(UPGRADE);
        self.connection.lend(Loan::new(self.request.head, self.framing, upgrades));
        self.connection
    }
}
