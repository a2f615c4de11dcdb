use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Failures in a row that open the breaker.
const THRESHOLD: u32 = 3;
/// Milliseconds between two probes of an open breaker.
const PROBE_INTERVAL_MS: u64 = 1_000;
/// `next_probe_ms` of a closed breaker.
const CLOSED: u64 = 0;

/// A circuit breaker: three failures in a row open it; open, it lets one call per second through as a probe, and any
/// success closes it.
///
/// Times are milliseconds of any monotonic clock that the caller keeps to. A probe whose outcome never arrives (its
/// caller went away) costs nothing but the wait for the next one.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: AtomicU32,
    /// When the next probe may go; `CLOSED` when calls flow freely.
    next_probe_ms: AtomicU64,
    openings: AtomicU64,
}

impl Breaker {
    /// Whether a call may go out now. At most one caller per second hears yes while the breaker is open.
    pub fn admits(&self, now_ms: u64) -> bool {
        let due = self.next_probe_ms.load(Ordering::Acquire);
        due == CLOSED
            || (now_ms >= due
                && self
                    .next_probe_ms
                    .compare_exchange(due, now_ms + PROBE_INTERVAL_MS, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok())
    }

    /// Notes a call that succeeded. True when that closed the breaker.
    pub fn succeed(&self) -> bool {
        // Loads before stores: the usual case touches no shared cache line for writing.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        self.is_open() && self.next_probe_ms.swap(CLOSED, Ordering::AcqRel) != CLOSED
    }

    /// Notes a call that failed. True when that opened the breaker.
    pub fn fail(&self, now_ms: u64) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let opened = failures >= THRESHOLD
            && self
                .next_probe_ms
                .compare_exchange(CLOSED, now_ms + PROBE_INTERVAL_MS, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if opened {
            self.openings.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }

    /// Whether calls are being held back.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.next_probe_ms.load(Ordering::Acquire) != CLOSED
    }

    /// How often it opened so far.
    #[must_use]
    pub fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it() {
        let breaker = Breaker::default();
        assert!(!breaker.fail(0));
        assert!(!breaker.fail(0));
        assert!(!breaker.succeed(), "it was closed all along");
        assert!(!breaker.fail(5));
        assert!(!breaker.fail(5));
        assert!(breaker.admits(5));
        assert!(breaker.fail(5));
        assert!(!breaker.fail(5), "it opens once");
        assert!(breaker.is_open());
        assert_eq!(breaker.openings(), 1);
    }

    #[test]
    fn an_open_breaker_lets_one_probe_through_each_second() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            breaker.fail(100);
        }
        let admitted: Vec<u64> = (100..4_100).filter(|now| breaker.admits(*now)).collect();
        assert_eq!(admitted, [1_100, 2_100, 3_100]);
    }

    #[test]
    fn a_success_closes_it_and_the_count_starts_over() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            breaker.fail(0);
        }
        assert!(breaker.admits(1_000));
        assert!(breaker.succeed());
        assert!(!breaker.is_open());
        assert!(breaker.admits(1_001) && breaker.admits(1_001));
        assert!(!breaker.fail(1_002));
        assert!(!breaker.fail(1_002));
        assert!(breaker.fail(1_002));
    }

    #[test]
    fn a_failed_probe_keeps_it_open() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            breaker.fail(0);
        }
        assert!(breaker.admits(1_500));
        assert!(!breaker.fail(1_525));
        assert!(!breaker.admits(2_499));
        assert!(breaker.admits(2_500));
    }

    #[test]
    fn concurrent_callers_share_one_probe() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            breaker.fail(0);
        }
        let probes: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| usize::from(breaker.admits(1_000)))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(probes, 1);
    }
}
