//! Idle upstream connections, per worker thread: a stream never leaves the runtime that it was opened on.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::proxy::channel::Channel;

/// Kept per upstream and worker.
const MAX_IDLE: usize = 64;
/// An idle connection is dropped after this time.
const IDLE_FOR: Duration = Duration::from_secs(30);

struct Idle {
    channel: Channel,
    since: Instant,
}

thread_local! {
    /// By the upstream's number.
    static POOL: RefCell<Vec<Vec<Idle>>> = const { RefCell::new(Vec::new()) };
}

/// A live idle connection to this upstream, the most recently used first.
///
/// One that the upstream closed, or on which bytes lie that nobody asked for, is dropped: those bytes would become
/// another caller's answer.
pub fn take(upstream: usize) -> Option<Channel> {
    loop {
        let idle = POOL.with_borrow_mut(|pool| pool.get_mut(upstream)?.pop())?;
        if idle.since.elapsed() > IDLE_FOR {
            POOL.with_borrow_mut(|pool| pool.get_mut(upstream).map(Vec::clear));
            return None;
        }
        let mut channel = idle.channel;
        if channel.is_quiet() {
            return Some(channel);
        }
    }
}

/// Gives back a connection whose last answer was framed exactly.
pub fn give_back(upstream: usize, channel: Channel) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() <= upstream {
            pool.resize_with(upstream + 1, Vec::new);
        }
        let idle = &mut pool[upstream];
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push(Idle { channel, since: Instant::now() });
    });
}

/// Drops what has been idle for too long; called now and then by each worker.
pub fn sweep() {
    POOL.with_borrow_mut(|pool| {
        for idle in pool {
            idle.retain(|idle| idle.since.elapsed() <= IDLE_FOR);
        }
    });
}
