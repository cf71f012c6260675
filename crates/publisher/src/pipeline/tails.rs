//! What a partition's owner knows of the rooms it stores to.

use std::collections::HashMap;
use std::sync::Arc;

use carillon_bus::StoredMessage;
use carillon_bus::durable::Delivered;
use carillon_protocol::before::Before;
use carillon_protocol::headers::name;

/// How far the clocks of NATS servers may lie apart when one takes the lead from another.
const SKEW: u64 = 60_000;

/// The end of a room in EVENTS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tail {
    /// The last sequence that is still stored; 0 without one.
    pub(crate) sequence: u64,
    /// What comes before the next event.
    pub(crate) before: Before,
    /// The stream has more than is known here, and has to be read again.
    pub(crate) is_behind: bool,
    /// The sequence in INGEST of the last event that was stored.
    ingest: u64,
    /// When INGEST accepted that event, in milliseconds since 1970.
    time: u64,
}

/// A message of INGEST by its sequence and the time at which it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) sequence: u64,
    pub(crate) time: u64,
}

impl Origin {
    pub(crate) fn of(delivered: &Delivered) -> Self {
        Self {
            sequence: delivered.sequence,
            time: delivered.time,
        }
    }
}

impl Tail {
    /// Reads a room's last message.
    pub(crate) fn of(message: &StoredMessage) -> Self {
        let number = |name| message.headers.number(name).unwrap_or(0);
        let before = message.headers.get(name::BEFORE);
        let before = before.and_then(|before| Before::from_header(before, message.sequence));
        // A message without the header is taken for one that stays, so that no loss before it is passed over.
        let expires = before
            .as_ref()
            .and_then(|_| expires(message.headers.get(name::TTL)?, message.time));
        let mut before = before.unwrap_or_default();
        before.push(message.sequence, expires);
        Self {
            sequence: message.sequence,
            before,
            is_behind: false,
            ingest: number(name::INGEST),
            time: number(name::TIME),
        }
    }

    /// Returns the tail after an event was stored, with the time at which it expires, if it does.
    pub(crate) fn after(mut self, sequence: u64, origin: Origin, expires: Option<u64>) -> Self {
        self.before.push(sequence, expires);
        Self {
            sequence,
            ingest: origin.sequence,
            time: origin.time,
            ..self
        }
    }

    /// Returns the tail after a duplicate was acknowledged, with the sequence of the event that was there before.
    pub(crate) fn after_duplicate(self, sequence: u64, origin: Origin) -> Self {
        Self {
            sequence: self.sequence.max(sequence),
            is_behind: self.is_behind || sequence > self.sequence,
            ingest: origin.sequence,
            time: origin.time,
            ..self
        }
    }

    /// Returns what is known after the room was read again: its end may have expired in the meantime.
    pub(crate) fn again(self, found: Option<Self>) -> Self {
        match found {
            Some(found) if found.ingest >= self.ingest => found,
            // What came after it has expired, and so was not lost.
            Some(found) => Self {
                ingest: self.ingest,
                time: self.time,
                ..found
            },
            None => Self {
                sequence: 0,
                is_behind: false,
                ..self
            },
        }
    }

    /// Returns whether the message, or a later one, is already stored in the room.
    ///
    /// A room is stored in the order of INGEST, so its last event tells of all before it. When INGEST was made
    /// anew its sequences begin again at 1; then the time shows that the last event came before the message.
    pub(crate) fn covers(&self, origin: Origin) -> bool {
        match self.ingest.cmp(&origin.sequence) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => self.time == origin.time,
            std::cmp::Ordering::Greater => self.time.saturating_add(SKEW) >= origin.time,
        }
    }

    /// Returns whether this very message was the last to be stored.
    pub(crate) fn ends_with(&self, origin: Origin) -> bool {
        self.ingest == origin.sequence && self.time == origin.time
    }
}

/// Returns when a message expires that was stored with a ttl, in milliseconds since 1970.
fn expires(ttl: &str, stored: u64) -> Option<u64> {
    let seconds: u64 = ttl.strip_suffix('s').unwrap_or(ttl).parse().ok()?;
    Some(stored.saturating_add(seconds.saturating_mul(1000)))
}

/// The tails of the rooms used lately, by the subject on which the room is stored.
#[derive(Debug)]
pub(crate) struct Tails {
    /// A room that is used moves to `young`; when that is full, `old` is forgotten and takes its place.
    young: HashMap<Arc<str>, Tail>,
    old: HashMap<Arc<str>, Tail>,
    capacity: usize,
}

impl Tails {
    /// Remembers at most twice `capacity` rooms.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity,
        }
    }

    pub(crate) fn get(&self, room: &str) -> Option<Tail> {
        self.young.get(room).or_else(|| self.old.get(room)).cloned()
    }

    pub(crate) fn set(&mut self, room: Arc<str>, tail: Tail) {
        self.old.remove(&room);
        self.young.insert(room, tail);
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use carillon_protocol::headers::Headers;

    use super::*;

    fn at(sequence: u64, time: u64) -> Origin {
        Origin { sequence, time }
    }

    #[test]
    fn a_room_tells_what_it_has() {
        let tail = Tail::default().after(7, at(100, 5_000), None);
        assert!(tail.covers(at(100, 5_000)) && tail.covers(at(99, 4_000)));
        assert!(!tail.covers(at(101, 5_000)));
        assert!(tail.ends_with(at(100, 5_000)));
    }

    #[test]
    fn a_new_ingest_stream_is_not_taken_for_the_old_one() {
        let tail = Tail::default().after(7, at(100, 5_000), None);
        assert!(!tail.covers(at(1, 5_000 + SKEW + 1)));
        assert!(!tail.covers(at(100, 6_000)));
        assert!(tail.covers(at(99, 5_001)), "clocks of servers differ a little");
    }

    #[test]
    fn an_expired_end_changes_only_the_sequence() {
        let tail = Tail::default().after(7, at(100, 5_000), None);
        let empty = tail.clone().again(None);
        assert_eq!(empty.sequence, 0);
        assert!(empty.covers(at(100, 5_000)));
        let shorter = tail.clone().again(Some(Tail {
            sequence: 5,
            ingest: 80,
            time: 4_000,
            ..Tail::default()
        }));
        assert_eq!(shorter.sequence, 5);
        assert!(shorter.covers(at(100, 5_000)));
        let longer = tail.again(Some(Tail {
            sequence: 9,
            ingest: 120,
            time: 6_000,
            ..Tail::default()
        }));
        assert!(longer.covers(at(120, 6_000)));
    }

    #[test]
    fn a_duplicate_does_not_move_the_end_back() {
        let tail = Tail::default().after(7, at(100, 5_000), None);
        let before = tail.before.clone();
        let tail = tail.after_duplicate(3, at(101, 5_001));
        assert_eq!((tail.sequence, tail.is_behind), (7, false));
        assert_eq!(tail.before, before);
    }

    #[test]
    fn a_duplicate_that_nobody_knew_of_is_read_again() {
        let tail = Tail::default().after(7, at(100, 5_000), None);
        let tail = tail.after_duplicate(9, at(101, 5_001));
        assert_eq!((tail.sequence, tail.is_behind), (9, true));
        assert!(!tail.again(None).is_behind);
    }

    #[test]
    fn a_room_goes_on_from_what_its_last_message_says() {
        let mut known = Tail::default().after(5, at(1, 0), None);
        let mut headers = Headers::new().with(name::BEFORE, known.before.to_header(6, 100));
        known = known.after(6, at(2, 0), Some(31_000));
        headers.push(name::TTL, "30s");
        let mut message = StoredMessage {
            subject: String::new(),
            sequence: 6,
            time: 1_000,
            headers,
            body: Bytes::new(),
        };
        assert_eq!(Tail::of(&message).before, known.before);
        // One of a version that wrote no such header.
        message.headers = Headers::new().with(name::TTL, "30s");
        assert!(Tail::of(&message).before.lost_after(5, u64::MAX));
    }

    #[test]
    fn rooms_that_are_used_are_remembered() {
        let mut tails = Tails::new(3);
        tails.set("busy".into(), Tail::default());
        for room in 0..100 {
            tails.set(format!("{room}").into(), Tail::default());
            let busy = tails.get("busy").unwrap();
            tails.set("busy".into(), busy);
            assert!(tails.young.len() + tails.old.len() <= 6);
        }
        assert!(tails.get("0").is_none());
    }
}
