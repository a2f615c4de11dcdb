//! Idle upstream connections, per worker thread: a stream never leaves the runtime that it was opened on.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::proxy::channel::Channel;

/// Kept per upstream and worker.
const MAX_IDLE: usize = 64;
/// How often [`sweep`] is to be called.
pub const SWEEP: Duration = Duration::from_secs(10);
/// An idle connection is dropped by the third sweep after its last use: after 20 to 30 seconds.
const IDLE_SWEEPS: u64 = 3;

struct Idle {
    channel: Channel,
    /// The sweep after which it was last used.
    since: u64,
}

thread_local! {
    /// By the upstream's number.
    static POOL: RefCell<Vec<Vec<Idle>>> = const { RefCell::new(Vec::new()) };
    static SWEEPS: Cell<u64> = const { Cell::new(0) };
}

/// A live idle connection to this upstream, the most recently used first.
///
/// One that the upstream closed, or on which bytes lie that nobody asked for, is dropped: those bytes would become
/// another caller's answer.
pub fn take(upstream: usize) -> Option<Channel> {
    loop {
        let idle = POOL.with_borrow_mut(|pool| pool.get_mut(upstream)?.pop())?;
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
        idle.push(Idle { channel, since: SWEEPS.get() });
    });
}

/// Drops what has been idle for too long; called by each worker every [`SWEEP`].
pub fn sweep() {
    let now = SWEEPS.get() + 1;
    SWEEPS.set(now);
    POOL.with_borrow_mut(|pool| {
        for idle in pool {
            idle.retain(|idle| now - idle.since < IDLE_SWEEPS);
        }
    });
}
