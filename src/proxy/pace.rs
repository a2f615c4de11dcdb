//! How slowly a client may send a body that is passed on as it comes.
//!
//! It has `timeouts.body`, as a body that is kept has, and a second more for each [`LEAST`] bytes that have come. Only
//! waiting for the client counts: while the site takes its time, the client's stands still.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Bytes per second.
const LEAST: u64 = 500;

/// Nobody is given more at once; a clock has an end.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What is left of a client's time.
#[derive(Debug)]
pub struct Pace {
    left: Duration,
    /// Since when its next bytes are waited for.
    since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Pace {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self { left: time, since: None, timer: Box::pin(sleep(Duration::ZERO)) }
    }

    /// So many bytes have come.
    pub fn came(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let earned = Duration::from_micros((bytes as u64).saturating_mul(1_000_000 / LEAST));
        self.left = self.left.saturating_add(earned);
    }

    /// None have come; ready when the client's time is over.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let end = since + self.left.min(LONGEST);
        if self.timer.deadline() != end {
            self.timer.as_mut().reset(end);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn wait(pace: &mut Pace, time: Duration) -> bool {
        tokio::time::timeout(time, poll_fn(|cx| pace.poll_over(cx))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_earn_time_and_only_waiting_for_them_costs_it() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(10 * second);
        assert!(!wait(&mut pace, 9 * second).await);
        pace.came(1000);
        // The site takes its time.
        tokio::time::sleep(100 * second).await;
        assert!(!wait(&mut pace, second * 29 / 10).await, "one second was left, and two were earned");
        assert!(wait(&mut pace, second).await);

        let mut dribble = Pace::new(10 * second);
        for _ in 0..9 {
            assert!(!wait(&mut dribble, second).await);
            dribble.came(1);
        }
        assert!(wait(&mut dribble, 2 * second).await);

        let mut generous = Pace::new(Duration::MAX);
        generous.came(usize::MAX);
        assert!(!wait(&mut generous, second).await);
    }
}
