//! The latest events of a room: most clients that come back need no read of the stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frame::Broadcast;

const MOST_EVENTS: usize = 32;
const MOST_BYTES: usize = 32 * 1024;
/// An event that is older is read from the stream by whoever wants it.
const KEPT: Duration = Duration::from_secs(60);

/// Every event of a room after a sequence.
#[derive(Debug)]
pub(crate) struct Recent {
    after: u64,
    events: VecDeque<(u64, Arc<Broadcast>)>,
    bytes: usize,
    touched: Instant,
}

impl Recent {
    /// Begins behind a sequence.
    pub(crate) fn new(after: u64) -> Self {
        Self {
            after,
            events: VecDeque::new(),
            bytes: 0,
            touched: Instant::now(),
        }
    }

    /// Adds the next event, and drops the oldest where there are too many.
    pub(crate) fn push(&mut self, sequence: u64, event: &Arc<Broadcast>) {
        self.touched = Instant::now();
        if event.expires {
            *self = Self::new(sequence);
            return;
        }
        self.bytes += event.size();
        self.events.push_back((sequence, Arc::clone(event)));
        while self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES {
            let Some((oldest, event)) = self.events.pop_front() else {
                break;
            };
            self.bytes -= event.size();
            self.after = oldest;
        }
    }

    /// Returns the events after a sequence; `None` where the stream must be asked.
    pub(crate) fn since(&self, after: u64) -> Option<Vec<Arc<Broadcast>>> {
        let events = self.events.iter().filter(|(sequence, _)| *sequence > after);
        (after >= self.after).then(|| events.map(|(_, event)| Arc::clone(event)).collect())
    }

    /// Returns whether nothing has been added for a while.
    pub(crate) fn is_old(&self) -> bool {
        self.touched.elapsed() > KEPT
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use carillon_protocol::event::{Event, Payload};
    use carillon_protocol::names::Room;

    use super::*;

    pub(crate) fn event(sequence: u64, size: usize) -> Arc<Broadcast> {
        let event = Event {
            name: "e".to_owned(),
            payload: Payload::One(vec![b'1'; size].into()),
            id: None,
            except: None,
            time: 0,
        };
        Arc::new(Broadcast::new(
            event,
            Room::new("r").unwrap(),
            Some(sequence),
            None,
        ))
    }

    fn sequences(recent: &Recent, after: u64) -> Option<Vec<u64>> {
        let events = recent.since(after)?;
        Some(events.iter().filter_map(|event| event.sequence).collect())
    }

    #[test]
    fn it_knows_what_came_after_its_beginning_and_says_where_it_does_not() {
        let mut recent = Recent::new(10);
        assert_eq!(sequences(&recent, 10), Some(vec![]));
        for sequence in [12, 15, 20] {
            recent.push(sequence, &event(sequence, 1));
        }
        assert_eq!(sequences(&recent, 9), None);
        assert_eq!(sequences(&recent, 10), Some(vec![12, 15, 20]));
        assert_eq!(sequences(&recent, 15), Some(vec![20]));
        assert_eq!(sequences(&recent, 99), Some(vec![]));
    }

    #[test]
    fn it_is_bounded_in_events_and_bytes() {
        let mut recent = Recent::new(0);
        for sequence in 1..=100 {
            recent.push(sequence, &event(sequence, 1));
        }
        assert_eq!(sequences(&recent, 67), None);
        assert_eq!(
            sequences(&recent, 68).map(|events| events.len()),
            Some(MOST_EVENTS)
        );
        recent.push(101, &event(101, 2 * MOST_BYTES));
        assert_eq!(sequences(&recent, 100), None);
        assert_eq!((sequences(&recent, 101), recent.bytes), (Some(vec![]), 0));
    }
}
