//! Idle upstream connections, per worker thread: a stream never leaves the runtime that it was opened on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;

/// Kept per upstream and worker.
const MAX_IDLE: usize = 64;
/// An idle stream is dropped after this time.
const IDLE_FOR: Duration = Duration::from_secs(30);

struct Idle {
    stream: Stream,
    since: Instant,
}

thread_local! {
    static POOL: RefCell<HashMap<String, Vec<Idle>>> = RefCell::default();
}

/// A live idle stream to this upstream, the most recently used first.
///
/// A stream that the upstream closed, or on which bytes lie that nobody asked for, is dropped: those bytes would
/// become another caller's answer.
pub fn take(upstream: &str) -> Option<Stream> {
    loop {
        let idle = POOL.with_borrow_mut(|pool| pool.get_mut(upstream)?.pop())?;
        if idle.since.elapsed() > IDLE_FOR {
            POOL.with_borrow_mut(|pool| pool.get_mut(upstream).map(Vec::clear));
            return None;
        }
        let mut stream = idle.stream;
        let mut byte = [0_u8; 1];
        if stream.read(&mut byte).now_or_never().is_none() {
            return Some(stream);
        }
    }
}

/// Gives back a stream whose last answer was framed exactly.
pub fn give_back(upstream: &str, stream: Stream) {
    POOL.with_borrow_mut(|pool| {
        if !pool.contains_key(upstream) {
            pool.insert(upstream.to_owned(), Vec::new());
        }
        if let Some(idle) = pool.get_mut(upstream) {
            if idle.len() >= MAX_IDLE {
                idle.remove(0);
            }
            idle.push(Idle { stream, since: Instant::now() });
        }
    });
}

/// Drops what has been idle for too long; called now and then by each worker.
pub fn sweep() {
    POOL.with_borrow_mut(|pool| {
        for idle in pool.values_mut() {
            idle.retain(|idle| idle.since.elapsed() <= IDLE_FOR);
        }
    });
}
