//! Reasons for which a namespace sends nothing durable: the link is down, deliveries are being verified, the lease is
//! lost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// How often a namespace is held, and what its clients may have been sent all the same.
pub(super) struct Holds {
    /// Asked for each event, so that it must not cost a lock.
    count: AtomicUsize,
    /// The highest sequence that came.
    highest: AtomicU64,
    /// What it was when the present hold began; without one, no bound.
    before: AtomicU64,
    /// Taken to begin or end a hold.
    changing: Mutex<()>,
}

impl Holds {
    /// Begins with one hold: the link is not verified yet.
    pub(super) fn new() -> Self {
        Self {
            count: AtomicUsize::new(1),
            highest: AtomicU64::new(0),
            before: AtomicU64::new(0),
            changing: Mutex::default(),
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    pub(super) fn begin(&self) {
        let _changing = self.changing.lock();
        if self.count.fetch_add(1, Ordering::SeqCst) == 0 {
            let highest = self.highest.load(Ordering::SeqCst);
            self.before.store(highest, Ordering::SeqCst);
        }
    }

    /// Ends a hold; returns whether it was the last.
    pub(super) fn end(&self) -> bool {
        let _changing = self.changing.lock();
        let count = self.count.load(Ordering::SeqCst);
        if count == 1 {
            self.before.store(u64::MAX, Ordering::SeqCst);
        }
        self.count.store(count.saturating_sub(1), Ordering::SeqCst);
        count == 1
    }

    pub(super) fn has_come(&self, sequence: u64) {
        self.highest.fetch_max(sequence, Ordering::SeqCst);
    }

    pub(super) fn highest_sent(&self) -> u64 {
        let before = self.before.load(Ordering::SeqCst);
        before.min(self.highest.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_during_a_hold_was_sent_to_nobody() {
        let holds = Holds::new();
        assert!(holds.is_held());
        assert_eq!(holds.highest_sent(), 0);
        assert!(holds.end());
        holds.has_come(5);
        assert_eq!(holds.highest_sent(), 5);
        holds.begin();
        holds.begin();
        holds.has_come(9);
        assert_eq!(holds.highest_sent(), 5);
        assert!(!holds.end());
        assert_eq!(holds.highest_sent(), 5);
        assert!(holds.end());
        assert_eq!(holds.highest_sent(), 9);
        assert!(!holds.is_held());
    }
}
