use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lets a few log lines of one kind through per second, so that a failing neighbour cannot fill the disk.
#[derive(Debug)]
pub struct Throttle {
    start: Instant,
    per_second: u32,
    /// Second since `start` in the upper half, lines let through in the lower.
    state: AtomicU64,
}

impl Throttle {
    /// At most `per_second` lines each second.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { start: Instant::now(), per_second, state: AtomicU64::new(0) }
    }

    /// Whether this line may be written.
    pub fn admit(&self) -> bool {
        self.admit_at(self.start.elapsed().as_secs() & u64::from(u32::MAX))
    }

    fn admit_at(&self, second: u64) -> bool {
        let admitted = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
            let (seen, count) = (state >> 32, state & u64::from(u32::MAX));
            if seen < second {
                Some((second << 32) | 1)
            } else if count < u64::from(self.per_second) {
                Some(state + 1)
            } else {
                None
            }
        });
        admitted.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_allowance() {
        let throttle = Throttle::new(2);
        let admitted: Vec<bool> = [0, 0, 0, 1, 1, 1, 3].into_iter().map(|second| throttle.admit_at(second)).collect();
        assert_eq!(admitted, [true, true, false, true, true, false, true]);
    }
}
