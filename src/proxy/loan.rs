//! What Pingora may read of a connection that it is lent: one request, and nothing of what comes behind it.
//!
//! It takes a byte behind a request's body for a client that breaks the protocol, and gives the request up; what it
//! reads too much would be lost for the request that it belongs to. So the body's end is found here as well.

use bytes::Bytes;

use crate::proxy::chunk_lines::ChunkLines;
use crate::proxy::framing::Framing;

/// One request on its way to Pingora.
#[derive(Debug)]
pub struct Loan {
    /// What is still to be read of the header.
    head: Bytes,
    body: Body,
    /// The connection may come to speak another protocol: whatever is sent on is for the site.
    upgrades: bool,
}

#[derive(Debug)]
enum Body {
    /// Bytes left.
    Length(u64),
    Chunked(ChunkLines),
}

impl Loan {
    /// A request of which nothing but the header has been read.
    #[must_use]
    pub fn new(head: Bytes, framing: Framing, upgrades: bool) -> Self {
        let body = match framing {
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked(_) => Body::Chunked(ChunkLines::default()),
            Framing::Done | Framing::Close => Body::Length(0),
        };
        Self { head, body, upgrades }
    }

    /// What comes next of the header, at most so much; empty behind its end.
    pub fn head(&mut self, most: usize) -> Bytes {
        self.head.split_to(self.head.len().min(most))
    }

    /// How many of these bytes, which come behind what was taken before, are the request's; `None` when its chunks
    /// could be read in two ways. It is all of them only until the request [`Self::is_whole`].
    pub fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let own = match &mut self.body {
            Body::Length(left) => {
                let own = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= own as u64;
                own
            }
            Body::Chunked(lines) => lines.accept(bytes)?,
        };
        Some(if self.upgrades { bytes.len() } else { own })
    }

    /// Whether all of the request has been taken, so that what comes now is another one. Never of one that may come to
    /// speak another protocol: nobody can tell what Pingora has read of what comes behind.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.head.is_empty() && !self.upgrades && self.body_ended()
    }

    /// Whether there is a body to come.
    #[must_use]
    pub const fn has_body(&self) -> bool {
        !self.body_ended()
    }

    const fn body_ended(&self) -> bool {
        match &self.body {
            Body::Length(left) => *left == 0,
            Body::Chunked(lines) => lines.ended(),
        }
    }
}

#[cfg(test)]
#[path = "loan_tests.rs"]
mod tests;
