//! How often a key set may be fetched.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use super::FetchError;

/// An outage is not asked about more often than this.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Unknown key ids cause at most `BURST` fetches at once and one per `REFILL` in the long run.
const BURST: u32 = 5;
const REFILL: Duration = Duration::from_secs(10);
/// A key id that was asked for in this time is worth less than a new one, to which it leaves the last fetch of
/// the budget. But its key may have come since, and the issuer may have gone.
const REMEMBERED: Duration = Duration::from_secs(30);
const RECHECK_AFTER: Duration = Duration::from_millis(250);
const MAX_REMEMBERED: usize = 1024;

/// The budget of fetches of one key set; time is monotonic.
#[derive(Default)]
pub(super) struct Pace {
    /// How the latest fetch failed, if it did.
    failure: Option<(Duration, FetchError)>,
    succeeded: Duration,
    spent: u32,
    refilled: Duration,
    /// Hashes of key ids that a fetch did not make known, so that long ids take no memory.
    unknown: HashMap<u64, Duration>,
    hasher: RandomState,
    asked: Option<u64>,
}

impl Pace {
    pub(super) fn recent_failure(&self, now: Duration) -> Option<&FetchError> {
        let (at, error) = self.failure.as_ref()?;
        (now.saturating_sub(*at) < RETRY_AFTER).then_some(error)
    }

    /// Tells whether the latest fetch failed. Then every key id is worth another, whatever the budget.
    pub(super) fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// Tells whether an unknown key id is worth a fetch now.
    pub(super) fn may_ask_for(&mut self, key_id: &str, now: Duration) -> bool {
        let periods = now.saturating_sub(self.refilled).as_nanos() / REFILL.as_nanos();
        if periods > 0 {
            self.spent = self
                .spent
                .saturating_sub(u32::try_from(periods).unwrap_or(u32::MAX));
            self.refilled = now;
        }
        let asked_before = self
            .unknown
            .get(&self.hasher.hash_one(key_id))
            .is_some_and(|&at| now.saturating_sub(at) < REMEMBERED);
        if asked_before {
            now.saturating_sub(self.succeeded) >= RECHECK_AFTER && self.spent + 1 < BURST
        } else {
            self.spent < BURST
        }
    }

    /// Notes the unknown key id that the coming fetch is for, if it is for one.
    pub(super) fn asking_for(&mut self, key_id: Option<&str>) {
        self.asked = key_id.map(|id| self.hasher.hash_one(id));
    }

    /// Charges a fetch only now, so that an outage spends nothing of the budget.
    pub(super) fn succeeded(&mut self, now: Duration) {
        self.failure = None;
        self.succeeded = now;
        let Some(key_id) = self.asked.take() else { return };
        self.spent += 1;
        if self.unknown.len() >= MAX_REMEMBERED {
            self.unknown.retain(|_, at| now.saturating_sub(*at) < REMEMBERED);
        }
        if self.unknown.len() < MAX_REMEMBERED {
            self.unknown.insert(key_id, now);
        }
    }

    pub(super) fn failed(&mut self, now: Duration, error: FetchError) {
        self.asked = None;
        self.failure = Some((now, error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ask(pace: &mut Pace, key_id: &str, now: Duration) -> bool {
        let allowed = pace.may_ask_for(key_id, now);
        if allowed {
            pace.asking_for(Some(key_id));
            pace.succeeded(now);
        }
        allowed
    }

    #[test]
    fn one_key_id_asks_seldom_and_leaves_fetches_to_others() {
        let mut pace = Pace::default();
        assert!(ask(&mut pace, "a", at(0)));
        assert!(!ask(&mut pace, "a", at(0)));
        let allowed =
            (1..100).filter(|tenth| ask(&mut pace, "a", at(0) + Duration::from_millis(tenth * 100)));
        assert_eq!(allowed.count(), 3);
        assert!(ask(&mut pace, "b", at(9)));
        assert!(!ask(&mut pace, "c", at(9)));
    }

    #[test]
    fn a_key_id_is_forgotten_in_a_while() {
        let mut pace = Pace::default();
        assert!(ask(&mut pace, "a", at(0)));
        for id in ["b", "c", "d", "e"] {
            assert!(ask(&mut pace, id, at(29)));
        }
        assert!(!ask(&mut pace, "b", at(30)));
        assert!(ask(&mut pace, "a", at(30)));
    }

    #[test]
    fn many_key_ids_share_a_budget_that_refills() {
        let mut pace = Pace::default();
        let allowed = (0..100)
            .filter(|id| ask(&mut pace, &id.to_string(), at(1)))
            .count();
        assert_eq!(allowed, 5);
        assert!(!ask(&mut pace, "later", at(9)));
        assert!(ask(&mut pace, "later", at(11)));
        assert!(!ask(&mut pace, "again", at(11)));
    }

    #[test]
    fn a_failure_is_remembered_for_a_second_and_spends_nothing() {
        let mut pace = Pace::default();
        for second in 0..20 {
            assert!(pace.may_ask_for("a", at(second)));
            pace.asking_for(Some("a"));
            pace.failed(at(second), FetchError::Interrupted);
            assert!(pace.recent_failure(at(second)).is_some());
            assert!(pace.recent_failure(at(second + 1)).is_none());
        }
    }
}
