//! What comes to a room while it is being repaired.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::frame::Broadcast;

/// Bytes that may wait; what comes behind is read from the stream.
const MOST_BYTES: usize = 8 << 20;

/// What comes to a room while it is repaired, as much as may wait.
#[derive(Default)]
pub(crate) struct Pending {
    /// Events with the sequence that each names as the one before it.
    events: VecDeque<(u64, Arc<Broadcast>)>,
    bytes: usize,
    /// The last one that may not wait: up to there the stream has to be read.
    beyond: u64,
}

impl Pending {
    pub(crate) fn push(&mut self, before: u64, sequence: u64, event: Arc<Broadcast>) {
        if self.beyond > 0 || self.bytes > MOST_BYTES {
            self.beyond = sequence;
            return;
        }
        self.bytes += event.size();
        self.events.push_back((before, event));
    }

    /// Takes the next one that comes after what is complete; `Err` is the sequence up to which the stream must be read
    /// before.
    pub(crate) fn next(&mut self, complete: Option<u64>) -> Result<Option<(u64, Arc<Broadcast>)>, u64> {
        while let Some((before, event)) = self.events.front() {
            if Some(*before) > complete {
                return Err(*before);
            }
            let sequence = event.sequence.unwrap_or(0);
            self.bytes -= event.size();
            let next = self.events.pop_front();
            if Some(sequence) > complete {
                return Ok(next.map(|(_, event)| (sequence, event)));
            }
        }
        match std::mem::take(&mut self.beyond) {
            0 => Ok(None),
            beyond if Some(beyond) > complete => Err(beyond),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recent::tests::event;

    fn waiting(events: impl IntoIterator<Item = (u64, u64)>, size: usize) -> Pending {
        let mut pending = Pending::default();
        for (before, sequence) in events {
            pending.push(before, sequence, event(sequence, size));
        }
        pending
    }

    fn next(pending: &mut Pending, complete: u64) -> Result<Option<u64>, u64> {
        let next = pending.next(Some(complete));
        next.map(|next| next.map(|(sequence, _)| sequence))
    }

    #[test]
    fn what_came_is_taken_in_order_and_a_gap_is_told() {
        let mut pending = waiting([(3, 5), (5, 8), (9, 12)], 1);
        assert_eq!(next(&mut pending, 5), Ok(Some(8)));
        assert_eq!(next(&mut pending, 8), Err(9));
        assert_eq!(next(&mut pending, 9), Ok(Some(12)));
        assert_eq!(next(&mut pending, 12), Ok(None));
    }

    #[test]
    fn what_may_not_wait_is_read_from_the_stream() {
        let mut pending = waiting((1..=100).map(|sequence| (sequence - 1, sequence)), 1 << 20);
        let mut complete = 0;
        let up_to = loop {
            match next(&mut pending, complete) {
                Ok(sequence) => complete = sequence.expect("more has come"),
                Err(up_to) => break up_to,
            }
        };
        assert!((8..=9).contains(&complete), "{complete}");
        assert_eq!(up_to, 100);
        assert_eq!(next(&mut pending, up_to), Ok(None));
    }
}
