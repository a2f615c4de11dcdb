//! Starts the real binary before mock upstreams, speaks to it in raw bytes, and checks the invariant at the end.
//!
//! Every test ends with [`Sidecar::finish`]: requests that the upstream saw = audit lines of requests that allow = the
//! metric; runs of tasks = their audit lines = their metric;
//! the canary at the CMS origin was never reached on a reserved shape; no planted secret stands in any log.
//! Everything waits for a condition with a deadline. Processes are ended by their own handle.

mod http;
mod port;
mod redis;
mod sidecar;
mod token;
mod upstream;

pub use http::{Client, Request, Response};
pub use port::vacant;
pub use redis::Redis;
pub use sidecar::{Sidecar, Start, call_params};
pub use token::{Token, now, unsigned};
pub use upstream::{Next, Upstream, json_answer, stream_head};

use std::time::{Duration, Instant};

/// What is planted in cookies, arguments, URLs and claims, and must never come out again.
pub const SENTINEL: &str = "5entinel";

/// Asks until the answer is something, or panics naming what was waited for.
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
