//! What the clients of a load process have received.

use super::histogram::Histogram;
use super::orders::Measured;
use super::payload::Stamp;

/// Counts of one measurement.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) delivered: u64,
    pub(super) duplicates: u64,
    pub(super) missing: u64,
    pub(super) closed: u64,
    /// When the last delivery came, in the time of stamps.
    pub(super) last: u64,
    times: Histogram,
}

impl Tally {
    /// Counts a delivery to a client whose last number is given.
    pub(super) fn count(&mut self, stamp: Stamp, last: &mut u32, now: u64) {
        if stamp.number <= *last {
            self.duplicates += 1;
            return;
        }
        if *last > 0 {
            self.missing += u64::from(stamp.number - *last - 1);
        }
        *last = stamp.number;
        self.delivered += 1;
        self.last = now;
        self.times.record(now.saturating_sub(stamp.time));
    }

    pub(super) fn measured(&self, published: u64, expected: u64, begun: u64) -> Measured {
        Measured {
            published,
            expected,
            delivered: self.delivered,
            duplicates: self.duplicates,
            missing: self.missing.max(expected.saturating_sub(self.delivered)),
            closed: self.closed,
            seconds: self.last.saturating_sub(begun) as f64 / 1e9,
            p50_ms: self.times.quantile_ms(0.5),
            p99_ms: self.times.quantile_ms(0.99),
            max_ms: self.times.max_ms(),
        }
    }
}
