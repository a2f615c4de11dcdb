use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::telemetry::STORE_BOUNDS_US as BOUNDS_US;

/// A histogram of how long calls took, kept in atomics so that whoever exports it only reads.
#[derive(Debug, Default)]
pub struct Latency {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// The histogram at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencySnapshot {
    /// Upper bounds in microseconds, ascending.
    pub bounds_us: &'static [u64],
    /// Calls per bucket, not cumulative; the last one counts what exceeded every bound.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// All calls together, in microseconds.
    pub sum_us: u64,
}

impl Default for LatencySnapshot {
    fn default() -> Self {
        Self { bounds_us: &BOUNDS_US, counts: [0; BOUNDS_US.len() + 1], sum_us: 0 }
    }
}

impl Latency {
    /// Counts one call.
    pub fn observe(&self, elapsed: Duration) {
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < elapsed_us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(elapsed_us, Ordering::Relaxed);
    }

    /// The values now. Buckets are read one after the other: a call that ends meanwhile may be in part of them.
    #[must_use]
    pub fn snapshot(&self) -> LatencySnapshot {
        LatencySnapshot {
            counts: std::array::from_fn(|i| self.counts[i].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
            ..LatencySnapshot::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_in_the_first_bucket_that_holds_it() {
        let latency = Latency::default();
        for us in [0, 100, 101, 50_000, 50_001] {
            latency.observe(Duration::from_micros(us));
        }
        let snapshot = latency.snapshot();
        assert_eq!(snapshot.counts, [2, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(snapshot.sum_us, 100_202);
    }
}
