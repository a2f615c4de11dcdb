//! Passing an SSE answer through: event by event, with heartbeats between events, a deadline, a byte cap, and an
//! eye on the client.
//!
//! Nothing is written inside an event: the scanner cuts the upstream's bytes at blank lines, and heartbeats, the
//! last error event and cuts happen only at such a cut.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::policy::{Server, StreamPolicy};
use crate::protocol::{EventScanner, HEARTBEAT, Id, rpc_error_event};
use crate::proxy::budget::Share;
use crate::proxy::exchange::Exchange;
use crate::proxy::upstream::Answer;
use crate::telemetry::{Metrics, StreamEnd, UpstreamFailure as Failure};

/// The most that is written at once; the reader has `timeouts.write_stall` for each piece.
const PIECE: usize = 16 * 1024;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The upstream ended it.
    Complete,
    /// `max_stream_seconds`.
    Deadline,
    /// The caller's token ended.
    TokenExpired,
    /// The client left.
    ClientGone,
    /// The client stopped reading.
    Stalled,
    /// `max_stream_mb`, or one event beyond its bound.
    TooLarge,
    /// The memory budget does not hold the event in progress.
    Overloaded,
    /// The upstream broke off.
    Upstream(Failure),
    /// We are shutting down.
    Draining,
}

impl End {
    /// The audit field `detail`; `None` for an orderly end.
    #[must_use]
    pub const fn detail(self) -> Option<&'static str> {
        match self {
            Self::Complete => None,
            Self::Deadline => Some("stream_deadline"),
            Self::TokenExpired => Some("token_expired"),
            Self::ClientGone => Some("client_gone"),
            Self::Stalled => Some("client_stalled"),
            Self::TooLarge => Some("stream_too_large"),
            Self::Overloaded => Some("overloaded"),
            Self::Upstream(failure) => Some(failure.as_str()),
            Self::Draining => Some("draining"),
        }
    }

    /// The metric's label.
    #[must_use]
    pub const fn label(self) -> StreamEnd {
        match self {
            Self::Complete => StreamEnd::Complete,
            Self::Deadline => StreamEnd::Deadline,
            Self::TokenExpired => StreamEnd::TokenExpired,
            Self::ClientGone => StreamEnd::ClientGone,
            Self::Stalled => StreamEnd::Stalled,
            Self::TooLarge => StreamEnd::TooLarge,
            Self::Overloaded => StreamEnd::Overloaded,
            Self::Upstream(_) => StreamEnd::UpstreamFailed,
            Self::Draining => StreamEnd::Draining,
        }
    }
}

/// What a stream cost.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub end: End,
    pub bytes: u64,
}

/// When a stream has to end by itself.
pub struct Bounds<'a> {
    pub policy: StreamPolicy,
    pub max_bytes: u64,
    /// The end of the caller's token, if that comes first.
    pub token_end: Option<Instant>,
    pub write_stall: Duration,
    /// Counts the event in progress.
    pub share: Share,
    /// Whom the last error event answers.
    pub id: &'a Id<'a>,
    /// Resolves when streams must end for a shutdown.
    pub drained: tokio::sync::watch::Receiver<bool>,
    /// Where heartbeats are counted as they are sent.
    pub metrics: &'a Metrics,
}

impl<'a> Bounds<'a> {
    /// The bounds that a server's policy sets.
    #[must_use]
    pub fn of(
        server: &Server,
        token_end: Option<Instant>,
        write_stall: Duration,
        share: Share,
        id: &'a Id<'a>,
        drained: tokio::sync::watch::Receiver<bool>,
        metrics: &'a Metrics,
    ) -> Self {
        let max_bytes = server.limits.max_stream_bytes;
        Self { policy: server.stream, max_bytes, token_end, write_stall, share, id, drained, metrics }
    }
}

/// Pumps until the end. The response header has been written; the body is ended here.
pub async fn pump(exchange: &mut Exchange, answer: Answer, mut bounds: Bounds<'_>) -> Summary {
    let heartbeat = Duration::from_secs(u64::from(bounds.policy.heartbeat_seconds));
    let mut deadline = Instant::now() + Duration::from_secs(u64::from(bounds.policy.max_stream_seconds));
    let mut at_deadline = End::Deadline;
    if let Some(end) = bounds.token_end
        && end < deadline
    {
        (deadline, at_deadline) = (end, End::TokenExpired);
    }
    let mut scanner = EventScanner::new(bounds.policy.max_event_bytes);
    let mut out = Out { exchange, bytes: 0, deadline, stall: bounds.write_stall };
    let mut drained = bounds.drained.clone();

    // The upstream is read by one future that lives as long as the pump, so that no select cancels half a read.
    let (sender, mut chunks) = mpsc::channel::<Bytes>(1);
    let reading = async move {
        let mut answer = answer;
        loop {
            match answer.next().await {
                Ok(Some(chunk)) => {
                    if sender.send(chunk).await.is_err() {
                        return Ok(None);
                    }
                }
                Ok(None) => return Ok(Some(answer)),
                Err(failure) => return Err(failure),
            }
        }
    };
    tokio::pin!(reading);
    let mut finished: Option<Result<Option<Answer>, Failure>> = None;
    let mut last_write = Instant::now();

    let end = loop {
        tokio::select! {
            biased;
            () = sleep_until(deadline) => break at_deadline,
            () = raised(&mut drained) => break End::Draining,
            () = out.exchange.left() => break End::ClientGone,
            chunk = chunks.recv() => match chunk {
                None => match finished.take() {
                    Some(Err(failure)) => break End::Upstream(failure),
                    Some(Ok(answer)) => {
                        // What is left is no whole event; SSE says that it is discarded by the reader.
                        let tail = scanner.finish();
                        let last = scanner.next_event().map(|event| event.0);
                        let rest = last.or(tail).unwrap_or_default();
                        if out.bytes + rest.len() as u64 > bounds.max_bytes {
                            break End::TooLarge;
                        }
                        if let Err(end) = out.write(rest).await {
                            break end;
                        }
                        if let Some(answer) = answer {
                            answer.finish();
                        }
                        break End::Complete;
                    }
                    None => break End::Upstream(Failure::Closed),
                },
                Some(chunk) => {
                    // The events ahead of one that is too large still pass.
                    let mut ended = scanner.push(chunk).is_err().then_some(End::TooLarge);
                    while let Some(event) = scanner.next_event() {
                        if out.bytes + event.0.len() as u64 > bounds.max_bytes {
                            ended = Some(End::TooLarge);
                            break;
                        }
                        if let Err(end) = out.write(event.0).await {
                            ended = Some(end);
                            break;
                        }
                        last_write = Instant::now();
                    }
                    if let Some(end) = ended {
                        break end;
                    }
                    if bounds.share.hold(scanner.pending()).is_err() {
                        break End::Overloaded;
                    }
                }
            },
            result = &mut reading, if finished.is_none() => finished = Some(result),
            () = sleep_until(last_write + heartbeat) => {
                if let Err(end) = out.write(Bytes::from_static(HEARTBEAT)).await {
                    break end;
                }
                bounds.metrics.heartbeat();
                last_write = Instant::now();
            }
        }
    };
    let bytes = out.bytes;
    // What is held is dropped before the reader can know of the end, and call again.
    drop(scanner);
    let _ = bounds.share.hold(0);
    conclude(exchange, end, &bounds).await;
    if end == End::ClientGone && !bounds.policy.abort_on_disconnect && finished.is_none() {
        // The work is to be finished though nobody listens: read on and drop what comes, within the same bounds.
        let discarding = async {
            let mut left = bounds.max_bytes.saturating_sub(bytes);
            while let Some(chunk) = chunks.recv().await {
                left = left.checked_sub(chunk.len() as u64)?;
            }
            Some(())
        };
        tokio::select! {
            () = sleep_until(deadline) => {}
            () = raised(&mut drained) => {}
            // All was taken: what the reading comes to decides.
            None = discarding => {}
            result = &mut reading => if let Ok(Some(answer)) = result {
                answer.finish();
            },
        }
    }
    Summary { end, bytes }
}

/// Ends the body: with a last JSON-RPC error event where the client still listens.
async fn conclude(exchange: &mut Exchange, end: End, bounds: &Bounds<'_>) {
    let message = match end {
        End::Complete => {
            let _ = timeout(bounds.write_stall, exchange.end()).await;
            return;
        }
        End::ClientGone | End::Stalled => {
            exchange.close();
            return;
        }
        End::TokenExpired => ("The token has expired", "token_expired"),
        End::Deadline => ("The stream reached its time limit", "stream_deadline"),
        End::TooLarge => ("The stream is too large", "stream_too_large"),
        End::Overloaded => ("Overloaded, try again later", "overloaded"),
        End::Upstream(_) => ("The upstream failed", "upstream_failed"),
        End::Draining => ("Shutting down", "draining"),
    };
    let event = rpc_error_event(bounds.id, -32603, message.0, Some(message.1));
    exchange.close();
    let _ = timeout(bounds.write_stall.min(Duration::from_secs(1)), async {
        exchange.send(event.as_ref()).await?;
        exchange.end().await
    })
    .await;
}

struct Out<'a> {
    exchange: &'a mut Exchange,
    bytes: u64,
    deadline: Instant,
    stall: Duration,
}

impl Out<'_> {
    /// Writes in pieces, so that a slow reader of a large event is not taken for one that has stopped.
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), End> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let length = piece.len() as u64;
            let until = (Instant::now() + self.stall).min(self.deadline);
            match timeout_at(until, self.exchange.send(&piece)).await {
                Ok(Ok(())) => self.bytes += length,
                Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => return Err(End::ClientGone),
                _ => return Err(End::Stalled),
            }
        }
        Ok(())
    }
}

/// Resolves when the flag is up.
async fn raised(flag: &mut tokio::sync::watch::Receiver<bool>) {
    let _ = flag.wait_for(|up| *up).await;
}
