use bytes::Bytes;

/// The heartbeat: an SSE comment, to be written between events only.
pub const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// One complete event, its closing blank line included, exactly as the upstream wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(pub Bytes);

/// An event grew beyond the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {limit} bytes")]
pub struct EventTooLarge {
    /// The bound, in bytes.
    pub limit: usize,
}

/// Cuts a byte stream into events (blocks that end with a blank line), whatever the chunk boundaries and line
/// endings (LF, CRLF, CR).
#[derive(Debug)]
pub struct EventScanner {
    limit: usize,
}

impl EventScanner {
    /// A scanner whose events are at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit }
    }

    /// Takes a chunk in; complete events can then be taken out with [`Self::next_event`].
    ///
    /// # Errors
    /// When the event in progress is larger than the limit.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), EventTooLarge> {
        let _ = (chunk, self.limit);
        unimplemented!()
    }

    /// All complete events so far as one block of bytes that ends on an event boundary; `None` when there is none.
    pub fn next_event(&mut self) -> Option<Event> {
        unimplemented!()
    }

    /// Whether no event is in progress, so that a comment may be written here.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        unimplemented!()
    }
}
