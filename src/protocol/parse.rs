use crate::protocol::{Envelope, Refused};

/// Reads a body strictly, once.
///
/// # Errors
/// The first reason to refuse.
pub fn parse(body: &[u8]) -> Result<Envelope<'_>, Refused<'_>> {
    let _ = body;
    unimplemented!()
}
