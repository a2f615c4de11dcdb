//! One budget for all buffered bodies, so that many slow or large requests cost bounded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that all bodies in flight may hold together (`memory.in_flight_mb`).
#[derive(Debug)]
pub struct Budget {
    capacity: usize,
    used: AtomicUsize,
}

/// The budget is used up.
#[derive(Debug, PartialEq, Eq)]
pub struct Exhausted;

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, used: AtomicUsize::new(0) })
    }

    /// Bytes in use now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// An empty share, to be grown as bytes arrive.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Share {
    /// Takes `more` bytes.
    ///
    /// # Errors
    /// When the budget does not hold them; nothing is taken then.
    pub fn grow(&mut self, more: usize) -> Result<(), Exhausted> {
        let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.budget.capacity {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
            return Err(Exhausted);
        }
        self.bytes += more;
        Ok(())
    }
}

impl Share {
    /// Holds exactly `bytes`, more or fewer than before.
    ///
    /// # Errors
    /// When the budget does not hold them; the share is as before then.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes > self.bytes {
            return self.grow(bytes - self.bytes);
        }
        self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_together_and_given_back() {
        let budget = Budget::new(10);
        let mut first = budget.share();
        let mut second = budget.share();
        assert_eq!(first.grow(6), Ok(()));
        assert_eq!(second.grow(5), Err(Exhausted));
        assert_eq!(budget.used(), 6);
        assert_eq!(first.hold(5), Ok(()));
        assert_eq!(second.hold(5), Ok(()));
        assert_eq!((first.hold(6), budget.used()), (Err(Exhausted), 10));
        assert_eq!(first.hold(0), Ok(()));
        assert_eq!(budget.used(), 5);
        drop(first);
        drop(second);
        assert_eq!(budget.used(), 0);
    }
}
