//! How many new sessions an edge takes in a second.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The parts in which a second is counted.
const PARTS: usize = 20;
const PART: Duration = Duration::from_millis(1000 / PARTS as u64);

/// Longest advice to a refused client, in seconds.
const LONGEST: u32 = 30;

/// A limit that holds in every second, wherever it begins; a burst may use it up at once.
pub(crate) struct Rate {
    limit: u32,
    start: Instant,
    /// The only lock of new sessions; a few additions long.
    window: Mutex<Window>,
}

/// What happened lately, by parts of a second; one part more than a second has, as the oldest is not whole.
struct Window {
    newest: u64,
    allowed: [u32; PARTS + 1],
    refused: [u32; PARTS + 1],
}

/// A new session has to wait; the seconds for `Retry-After` differ from client to client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) u32);

impl Rate {
    /// A limit per second; 0 is without limit.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            start: Instant::now(),
            window: Mutex::new(Window {
                newest: 0,
                allowed: [0; PARTS + 1],
                refused: [0; PARTS + 1],
            }),
        }
    }

    /// Takes a new session, or says when to ask again.
    pub(crate) fn allow(&self) -> Result<(), RetryAfter> {
        if self.limit == 0 {
            return Ok(());
        }
        let mut window = self.window.lock();
        let now = (self.start.elapsed().as_nanos() / PART.as_nanos()) as u64;
        let slot = window.advance(now);
        if window.allowed.iter().sum::<u32>() < self.limit {
            window.allowed[slot] += 1;
            return Ok(());
        }
        window.refused[slot] = window.refused[slot].saturating_add(1);
        let refused = window
            .refused
            .iter()
            .fold(0_u32, |sum, part| sum.saturating_add(*part));
        drop(window);
        // As many seconds as those who were refused need to come in.
        let spread = (refused / self.limit).clamp(1, LONGEST - 1);
        Err(RetryAfter(1 + fastrand::u32(0..=spread)))
    }
}

impl Window {
    /// Forgets what is older than a second, and returns the place of the present part.
    fn advance(&mut self, now: u64) -> usize {
        let parts = self.allowed.len() as u64;
        // A clock that stands still between two calls is fine, one that two threads read is never far back.
        let now = now.max(self.newest);
        for part in (self.newest + 1..=now).rev().take(parts as usize) {
            let slot = (part % parts) as usize;
            (self.allowed[slot], self.refused[slot]) = (0, 0);
        }
        self.newest = now;
        (now % parts) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_the_limit() {
        let rate = Rate::new(50);
        let mut allowed = Vec::new();
        for step in 0..2000_u32 {
            // Bursts and pauses of all lengths.
            let tries = if step % 7 == 0 { 40 } else { step % 3 };
            for _ in 0..tries {
                if rate.allow().is_ok() {
                    allowed.push(Instant::now());
                }
            }
            tokio::time::advance(Duration::from_millis(u64::from(step * 31 % 97))).await;
        }
        for (index, first) in allowed.iter().enumerate() {
            let within = allowed[index..]
                .iter()
                .take_while(|at| **at - *first < Duration::from_secs(1))
                .count();
            assert!(within <= 50, "{within} in a second");
        }
        assert!(allowed.len() > 3000, "the limit is used: {}", allowed.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_uses_the_limit_and_the_next_second_is_free_again() {
        let rate = Rate::new(3);
        assert_eq!((0..5).filter(|_| rate.allow().is_ok()).count(), 3);
        tokio::time::advance(Duration::from_millis(1100)).await;
        assert_eq!((0..5).filter(|_| rate.allow().is_ok()).count(), 3);
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert!(rate.allow().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn refused_clients_are_spread_over_the_time_they_need() {
        let rate = Rate::new(1);
        assert!(rate.allow().is_ok());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let RetryAfter(seconds) = rate.allow().unwrap_err();
            assert!((1..=LONGEST).contains(&seconds));
            seen.insert(seconds);
        }
        assert!(seen.len() > 10, "{seen:?}");
    }

    #[test]
    fn zero_is_without_limit() {
        let rate = Rate::new(0);
        assert!((0..10_000).all(|_| rate.allow().is_ok()));
    }
}
