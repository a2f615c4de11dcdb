//! Reading a request's body whole: up to the limit, within the deadline and the memory budget.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use crate::policy::Reason;
use crate::proxy::budget::{Budget, Share};
use crate::proxy::exchange::Exchange;

/// What became of reading a body.
#[derive(Debug)]
pub enum ReadBody {
    /// All of it; the share keeps its bytes counted.
    Whole(Bytes, Share),
    /// More than the limit, declared or sent.
    TooLarge,
    /// Not read whole.
    Failed(Reason),
}

/// Reads the body.
pub async fn read(exchange: &mut Exchange, limit: usize, time: Duration, budget: &Arc<Budget>) -> ReadBody {
    let declared = exchange.request().length;
    if declared.is_some_and(|length| length > limit as u64) {
        return ReadBody::TooLarge;
    }
    let mut share = budget.share();
    // It came with the header, as a rule.
    if let Some(bytes) = exchange.body_at_hand() {
        return match share.grow(bytes.len()) {
            Ok(()) => ReadBody::Whole(bytes, share),
            Err(_) => ReadBody::Failed(Reason::Overloaded),
        };
    }
    let gathered = timeout(time, gather(exchange, limit, &mut share)).await;
    match gathered.unwrap_or(Err(Some(Reason::RequestTimeout))) {
        Ok(bytes) => ReadBody::Whole(bytes, share),
        Err(Some(reason)) => ReadBody::Failed(reason),
        Err(None) => ReadBody::TooLarge,
    }
}

/// The pieces as they come, joined; `None` for what goes over the limit.
async fn gather(exchange: &mut Exchange, limit: usize, share: &mut Share) -> Result<Bytes, Option<Reason>> {
    if exchange.request().waits {
        exchange.go_ahead().await.map_err(|_| Reason::BadRequest)?;
    }
    // Below the limit, so that a client cannot have more memory reserved than it may send.
    let declared = exchange.request().length.map_or(0, |length| usize::try_from(length).unwrap_or(limit));
    let mut whole = BytesMut::new();
    while let Some(piece) = exchange.body().await.map_err(|_| Reason::BadRequest)? {
        if whole.len() + piece.len() > limit {
            return Err(None);
        }
        share.grow(piece.len()).map_err(|_| Reason::Overloaded)?;
        if whole.is_empty() {
            whole.reserve(declared.max(piece.len()));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}
