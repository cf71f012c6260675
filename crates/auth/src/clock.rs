//! The two clocks that token checking reads, behind a trait so that tests can set them.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the seconds since 1970-01-01T00:00:00Z, for `exp` and `nbf`.
    fn unix_seconds(&self) -> u64;

    /// Returns a time that never goes back, for the age of cached keys.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_seconds(&self) -> u64 {
        // A clock set before 1970 reads as 1970, where every token with `nbf` is refused.
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    }

    fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}
