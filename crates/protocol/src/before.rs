//! What came before an event in its room: what is missing in front of it was evicted, unless it has expired.

use std::fmt::Write as _;

/// Most events with a ttl that are named.
const MOST: usize = 8;

/// What came before an event in its room, as far as it tells what was lost once it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Before {
    /// The last event without a ttl; 0 without one.
    lasting: u64,
    /// Events with a ttl behind it, each of which stays longer than all that follow it.
    passing: Vec<Passing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Passing {
    sequence: u64,
    /// Milliseconds since 1970.
    expires: u64,
}

impl Before {
    /// Adds the next event of the room, with the time at which it expires, if it does.
    pub fn push(&mut self, sequence: u64, expires: Option<u64>) {
        let Some(expires) = expires else {
            self.lasting = sequence;
            self.passing.clear();
            return;
        };
        while self.passing.last().is_some_and(|last| last.expires <= expires) {
            self.passing.pop();
        }
        match self.passing.get_mut(MOST - 1) {
            // The two become one that stays as long as the first: rather a loss too many is told than one too few.
            Some(last) => last.sequence = sequence,
            None => self.passing.push(Passing { sequence, expires }),
        }
    }

    /// Returns whether anything after a sequence is lost, where nothing of it is there any more.
    pub fn lost_after(&self, sequence: u64, now: u64) -> bool {
        let is_lost = |passing: &Passing| passing.sequence > sequence && passing.expires > now;
        self.lasting > sequence || self.passing.iter().any(is_lost)
    }

    /// Writes the header of the event `own`. Sequences from `batch` on stand for places in the atomic batch of which
    /// it is a part, and are written as distances.
    pub fn to_header(&self, own: u64, batch: u64) -> String {
        let place = |sequence: u64| {
            if sequence < batch {
                sequence.to_string()
            } else {
                format!("-{}", own - sequence)
            }
        };
        let mut text = place(self.lasting);
        for Passing { sequence, expires } in &self.passing {
            let _ = write!(text, ";{};{expires}", place(*sequence));
        }
        text
    }

    /// Reads the header of the event `own`.
    pub fn from_header(text: &str, own: u64) -> Option<Self> {
        let place = |text: &str| match text.strip_prefix('-') {
            Some(distance) => own.checked_sub(distance.parse().ok()?),
            None => text.parse().ok(),
        };
        let mut parts = text.split(';');
        let lasting = place(parts.next()?)?;
        let mut passing = Vec::new();
        while let Some(sequence) = parts.next() {
            passing.push(Passing {
                sequence: place(sequence)?,
                expires: parts.next()?.parse().ok()?,
            });
        }
        Some(Self { lasting, passing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(events: &[(u64, Option<u64>)]) -> Before {
        let mut before = Before::default();
        for (sequence, expires) in events {
            before.push(*sequence, *expires);
        }
        before
    }

    #[test]
    fn the_last_event_that_stays_tells_of_all_before_it() {
        assert!(!Before::default().lost_after(0, 0));
        let before = of(&[(3, Some(90)), (5, None)]);
        assert!(before.lost_after(4, 100) && before.lost_after(2, 0));
        assert!(!before.lost_after(5, 0));
    }

    #[test]
    fn what_expires_is_lost_only_before_that() {
        let before = of(&[(5, None), (7, Some(100)), (9, Some(50))]);
        assert!(before.lost_after(8, 49) && !before.lost_after(8, 50));
        assert!(
            before.lost_after(6, 99) && !before.lost_after(6, 100),
            "an earlier one may stay longer"
        );
        assert!(!before.lost_after(9, 0));
    }

    #[test]
    fn few_are_named_however_many_there_are() {
        let falling: Vec<_> = (1..100).map(|n| (n, Some(1000 - n))).collect();
        let before = of(&falling);
        assert_eq!(before.passing.len(), MOST);
        assert!(before.lost_after(98, 900), "told longer than need be");
        assert!(before.lost_after(0, 998) && !before.lost_after(0, 999));
        let level: Vec<_> = (1..100).map(|n| (n, Some(1000))).collect();
        assert_eq!(of(&level).passing, of(&[(99, Some(1000))]).passing);
    }

    #[test]
    fn a_header_names_places_in_its_own_batch_as_distances() {
        const BATCH: u64 = 1000;
        let stored = of(&[(7, None), (8, Some(50))]);
        assert_eq!(stored.to_header(BATCH, BATCH), "7;8;50");
        let mut within = stored.clone();
        within.push(BATCH, Some(40));
        assert_eq!(within.to_header(BATCH + 1, BATCH), "7;8;50;-1;40");
        within.push(BATCH + 1, None);
        assert_eq!(within.to_header(BATCH + 3, BATCH), "-2");

        assert_eq!(Before::from_header("7;8;50", 20), Some(stored));
        let read = of(&[(7, None), (8, Some(50)), (19, Some(40))]);
        assert_eq!(Before::from_header("7;8;50;-1;40", 20), Some(read));
        assert_eq!(Before::from_header("-2", 20), Some(of(&[(18, None)])));
        for bad in ["", "x", "7;8", "7;8;", "-21", "7;8;50;"] {
            assert_eq!(Before::from_header(bad, 20), None, "{bad}");
        }
    }
}
