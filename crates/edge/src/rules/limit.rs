//! Token buckets: N events in a period refill evenly.
//!
//! A burst of N passes and the next is refused until period/N has passed. A refused event takes nothing.

use std::sync::Arc;
use std::time::Instant;

use carillon_service::settings;

use super::error::{Refusal, Texts, code};

/// How far past its limit a connection may go before it is closed.
const ABUSE: u32 = 10;

/// What a limit says of one more event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It is refused.
    Refuse,
    /// It is refused, and the connection is to be closed.
    Abuse,
}

/// A compiled limit.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    events: u32,
    /// In nanoseconds.
    period: u64,
    texts: Texts,
}

impl Rate {
    pub(super) fn compile(rate: &settings::Rate, namespace: &Texts) -> Result<Self, String> {
        if rate.events == 0 {
            return Err("expected at least one event".to_owned());
        }
        let period = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        if period == 0 {
            return Err("expected a period longer than zero".to_owned());
        }
        // A limit keeps its code whatever the namespace's is, so that a client can tell it from others.
        let texts = Texts::new(rate.code.as_ref(), rate.message.as_ref());
        let texts = texts.or(&Texts {
            code: None,
            message: namespace.message.clone(),
        });
        Ok(Self {
            events: rate.events,
            period,
            texts,
        })
    }

    pub(super) fn refusal(&self) -> Refusal {
        self.texts.refusal(code::RATE_LIMITED, "too many events")
    }
}

/// The state of one bucket.
///
/// An event weighs a period and a nanosecond refills as many units as the limit has events, so that no
/// rounding adds up over time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What was taken and has not been refilled.
    taken: u128,
    last: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { taken: 0, last: now }
    }

    fn take(&mut self, events: u32, period: u64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.last).as_nanos();
        self.last = self.last.max(now);
        self.taken = self
            .taken
            .saturating_sub(elapsed.saturating_mul(u128::from(events)));
        let taken = self.taken + u128::from(period);
        let fits = taken <= u128::from(period) * u128::from(events);
        if fits {
            self.taken = taken;
        }
        fits
    }
}

/// The limits of one connection. It outlives a reload of the rules.
#[derive(Debug)]
pub struct SessionLimits {
    all: Bucket,
    /// Counts what was refused too, against ten times the limit.
    abuse: Bucket,
    events: Vec<(Arc<str>, Bucket)>,
    /// The rules that `events` belongs to.
    rules: u64,
}

impl SessionLimits {
    /// Full buckets.
    pub fn new(now: Instant) -> Self {
        Self {
            all: Bucket::new(now),
            abuse: Bucket::new(now),
            events: Vec::new(),
            rules: 0,
        }
    }

    pub(super) fn connection(&mut self, rate: &Rate, now: Instant) -> Verdict {
        if !self
            .abuse
            .take(rate.events.saturating_mul(ABUSE), rate.period, now)
        {
            return Verdict::Abuse;
        }
        if self.all.take(rate.events, rate.period, now) {
            Verdict::Pass
        } else {
            Verdict::Refuse
        }
    }

    /// Takes from the bucket of one event rule; `rules` tells one version of the rules from the next.
    pub(super) fn event(&mut self, rules: u64, key: &Arc<str>, rate: &Rate, now: Instant) -> bool {
        if self.rules != rules {
            self.events.clear();
            self.rules = rules;
        }
        let at = match self.events.iter().position(|(known, _)| known == key) {
            Some(at) => at,
            None => {
                self.events.push((Arc::clone(key), Bucket::new(now)));
                self.events.len() - 1
            }
        };
        self.events[at].1.take(rate.events, rate.period, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rate(events: u32, per: Duration) -> Rate {
        let settings = settings::Rate {
            events,
            per,
            ..settings::Rate::default()
        };
        Rate::compile(&settings, &Texts::default()).unwrap()
    }

    #[test]
    fn a_burst_passes_and_the_next_waits_for_a_part_of_the_period() {
        let rate = rate(100, Duration::from_secs(10));
        let start = Instant::now();
        let mut limits = SessionLimits::new(start);
        for _ in 0..100 {
            assert_eq!(limits.connection(&rate, start), Verdict::Pass);
        }
        assert_eq!(limits.connection(&rate, start), Verdict::Refuse);
        let almost = start + Duration::from_millis(100) - Duration::from_nanos(1);
        assert_eq!(limits.connection(&rate, almost), Verdict::Refuse);
        let then = start + Duration::from_millis(100);
        assert_eq!(limits.connection(&rate, then), Verdict::Pass);
        assert_eq!(limits.connection(&rate, then), Verdict::Refuse);
    }

    #[test]
    fn the_sustained_rate_is_exact() {
        // Seven in a second do not divide evenly into nanoseconds.
        let rate = rate(7, Duration::from_secs(1));
        let start = Instant::now();
        let mut limits = SessionLimits::new(start);
        let mut passed = 0;
        let hour = 3600;
        for millisecond in (0..hour * 1000).step_by(20) {
            let now = start + Duration::from_millis(millisecond);
            passed += u64::from(limits.connection(&rate, now) == Verdict::Pass);
        }
        assert!((7 * hour..=7 * hour + 7).contains(&passed), "{passed}");
    }

    #[test]
    fn ten_times_the_limit_is_abuse() {
        let rate = rate(5, Duration::from_secs(1));
        let start = Instant::now();
        let mut limits = SessionLimits::new(start);
        let verdicts: Vec<Verdict> = (0..51).map(|_| limits.connection(&rate, start)).collect();
        assert_eq!(verdicts[..5], [Verdict::Pass; 5]);
        assert_eq!(verdicts[5..50], [Verdict::Refuse; 45]);
        assert_eq!(verdicts[50], Verdict::Abuse);
    }

    #[test]
    fn events_have_buckets_of_their_own() {
        let rate = rate(1, Duration::from_secs(1));
        let now = Instant::now();
        let mut limits = SessionLimits::new(now);
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        assert!(limits.event(1, &one, &rate, now));
        assert!(!limits.event(1, &one, &rate, now));
        assert!(limits.event(1, &two, &rate, now));
        assert!(
            limits.event(2, &one, &rate, now),
            "new rules begin with full buckets"
        );
        assert_eq!(limits.events.len(), 1);
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_a_burst_and_what_refilled(
            events in 1u32..50,
            period in 1u64..5_000,
            gaps in prop::collection::vec(0u64..200, 1..400),
        ) {
            let rate = rate(events, Duration::from_millis(period));
            let start = Instant::now();
            let mut limits = SessionLimits::new(start);
            let (mut at, mut passed) = (0, Vec::new());
            for gap in gaps {
                at += gap;
                let now = start + Duration::from_millis(at);
                let key: Arc<str> = "e".into();
                if limits.event(1, &key, &rate, now) {
                    passed.push(at);
                }
            }
            for (first, &from) in passed.iter().enumerate() {
                for (last, &to) in passed.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u64;
                    prop_assert!(count * period <= u64::from(events) * period + (to - from) * u64::from(events));
                }
            }
        }

        #[test]
        fn clocks_that_stand_or_run_back_do_not_refill(events in 1u32..20, back in 0u64..1000) {
            let rate = rate(events, Duration::from_secs(1));
            let start = Instant::now() + Duration::from_secs(5);
            let mut limits = SessionLimits::new(start);
            for _ in 0..events {
                prop_assert_eq!(limits.connection(&rate, start), Verdict::Pass);
            }
            let earlier = start - Duration::from_millis(back);
            prop_assert_eq!(limits.connection(&rate, earlier), Verdict::Refuse);
            prop_assert_eq!(limits.connection(&rate, start), Verdict::Refuse);
        }
    }
}
