//! Doubts of publishers, and what this edge found when it looked at them.
//!
//! A doubt lies in the stream behind the events that it is about, and comes over the delivery link in that order: its
//! rooms are held on the spot, so no client sees an offset above the doubt before it has everything below it. What
//! is left are clients whose last offset lies between a doubted event and the doubt. For them each edge writes down
//! what it had missed, and up to which doubt it has looked; whoever takes over a client of an edge that is gone reads
//! just that again.

mod findings;
mod settle;

pub(crate) use self::findings::Former;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_bus::history::now;
use carillon_protocol::doubt::{Doubt, Findings, Lack};
use carillon_protocol::ids::EdgeId;
use carillon_protocol::names::Room;
use parking_lot::Mutex;

use self::findings::may_have_lived;
use crate::room::Cell;

/// Doubts that are remembered for a namespace.
const MOST: usize = 10_000;
/// What this edge had missed, as it is remembered one by one: all of it is one message of NATS.
const MOST_LATE: usize = 2_000;
/// Rooms that were left, and are remembered.
const MOST_LEFT: usize = 100_000;
/// A doubt comes at most so long after the events that it is about, unless NATS was away in between.
const BEFORE: u64 = 60_000;

/// The doubts about the rooms of one namespace.
#[derive(Default)]
pub(crate) struct Doubts {
    known: Mutex<Known>,
    /// The findings of all edges with the time at which reading them began: many clients may come back at once.
    findings: tokio::sync::Mutex<Option<(Instant, Arc<[Findings]>)>>,
}

#[derive(Default)]
struct Known {
    /// By sequence, with the time at which this edge learnt of it.
    doubts: BTreeMap<u64, (Instant, Arc<Doubt>)>,
    waiting: Waiting,
    /// Every doubt up to this sequence is known.
    read: u64,
    through: u64,
    late: VecDeque<(Instant, Lack)>,
    /// Rooms that nobody here is in any more, with how far each was complete.
    left: HashMap<Room, (Instant, u64)>,
}

/// Doubts that this edge has not looked at.
#[derive(Default)]
pub(crate) struct Waiting {
    /// Each with the sequence after which a delivery may be missing.
    rooms: BTreeMap<Room, u64>,
    /// The rooms of this edge among them: each is held once, however many doubts name it.
    cells: HashMap<Room, Arc<Cell>>,
    /// The sequence of the last doubt.
    through: u64,
}

impl Known {
    /// Remembers what this edge had missed.
    fn note(&mut self, lack: Lack) {
        let now = Instant::now();
        if self.late.len() >= MOST_LATE {
            let same_room = |(_, known): &&mut (Instant, Lack)| known.room == lack.room;
            if let Some((since, known)) = self.late.iter_mut().rfind(same_room) {
                *since = now;
                return known.widen(&lack);
            }
            self.late.pop_front();
        }
        self.late.push_back((now, lack));
    }
}

impl Doubts {
    /// Takes a doubt to be looked at, with the rooms of this edge that it names; returns those that are to be held for
    /// it.
    fn add(&self, sequence: u64, doubt: Arc<Doubt>, cells: Vec<Arc<Cell>>) -> Vec<Arc<Cell>> {
        let mut known = self.known.lock();
        let waiting = &mut known.waiting;
        waiting.through = waiting.through.max(sequence);
        for (room, after) in &doubt.rooms {
            let lowest = waiting.rooms.entry(room.clone()).or_insert(*after);
            *lowest = (*after).min(*lowest);
        }
        let mut fresh = cells;
        fresh.retain(|cell| match waiting.cells.entry(cell.room.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(cell));
                true
            }
            Entry::Occupied(_) => false,
        });
        known.doubts.insert(sequence, (Instant::now(), doubt));
        while known.doubts.len() > MOST {
            known.doubts.pop_first();
        }
        fresh
    }

    /// Takes what was not looked at yet.
    fn take_waiting(&self) -> Option<Waiting> {
        let waiting = std::mem::take(&mut self.known.lock().waiting);
        (!waiting.rooms.is_empty()).then_some(waiting)
    }

    /// Notes what this edge had missed in a room.
    pub(crate) fn found(&self, lack: Lack) {
        self.known.lock().note(lack);
    }

    /// Notes that nobody here is in a room any more; it was complete up to a sequence.
    pub(crate) fn left(&self, room: &Room, complete: Option<u64>) {
        let Some(complete) = complete else { return };
        let mut known = self.known.lock();
        if known.left.len() < MOST_LEFT || known.left.contains_key(room) {
            known.left.insert(room.clone(), (Instant::now(), complete));
        }
    }

    /// Notes what clients may lack that have left these rooms with this edge, before it could look at a doubt.
    fn look_at_left(&self, rooms: &BTreeMap<Room, u64>, through: u64) {
        let mut known = self.known.lock();
        for (room, after) in rooms {
            let Some((_, complete)) = known.left.get(room) else {
                continue;
            };
            let lack = Lack {
                room: room.clone(),
                after: (*complete).max(*after),
                up_to: through,
                proof: through,
            };
            known.note(lack);
        }
    }

    /// Notes that this edge has looked at every doubt up to a sequence.
    fn looked(&self, edge: EdgeId, through: u64, memory: Duration) -> Findings {
        let mut known = self.known.lock();
        known.through = known.through.max(through);
        known.late.retain(|(since, _)| since.elapsed() < memory);
        known.doubts.retain(|_, (since, _)| since.elapsed() < memory);
        known.left.retain(|_, (since, _)| since.elapsed() < memory);
        Findings {
            edge: Some(edge),
            at: Some(now()),
            through: known.through,
            late: known.late.iter().map(|(_, lack)| lack.clone()).collect(),
        }
    }

    /// Returns the doubts that an edge did not look at and that concern clients with an offset, as lacks of these
    /// rooms.
    fn lacks(&self, rooms: &[Room], offset: u64, findings: &Findings) -> Vec<Lack> {
        let known = self.known.lock();
        let doubts = known.doubts.range(offset.max(findings.through) + 1..);
        let learnt = |since: &Instant| now().saturating_sub(since.elapsed().as_millis() as u64);
        doubts
            // An edge that died long before has delivered none of the events.
            .filter(|(_, (since, _))| may_have_lived(findings, learnt(since).saturating_sub(BEFORE)))
            .flat_map(|(_, (_, doubt))| doubt.lacks(offset))
            .filter(|lack| rooms.contains(&lack.room))
            .collect()
    }

    /// Returns the last doubt that concerns clients with an offset in one of these rooms.
    fn last(&self, rooms: &[Room], offset: u64) -> Option<u64> {
        let known = self.known.lock();
        let mut doubts = known.doubts.range(offset + 1..).rev();
        let found = doubts.find(|(_, (_, doubt))| doubt.lacks(offset).any(|lack| rooms.contains(&lack.room)));
        found.map(|(sequence, _)| *sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::findings::SILENT;
    use super::*;

    const MEMORY: Duration = Duration::from_secs(300);

    fn room(name: &str) -> Room {
        Room::new(name).unwrap()
    }

    #[test]
    fn clients_that_left_a_room_may_lack_what_came_since() {
        let doubts = Doubts::default();
        doubts.left(&room("a"), Some(10));
        doubts.left(&room("b"), Some(20));
        // Nobody ever heard it here.
        doubts.left(&room("c"), None);
        let rooms = [("a", 12), ("b", 15), ("c", 1), ("d", 1)];
        let rooms: BTreeMap<Room, u64> = rooms.map(|(name, after)| (room(name), after)).into();
        doubts.look_at_left(&rooms, 30);
        let findings = doubts.looked(EdgeId::from_random([1; EdgeId::LEN]), 30, MEMORY);
        let lacks = |name: &str, sequence| {
            let room = room(name);
            findings.late.iter().any(|lack| lack.covers(&room, sequence))
        };
        assert!(!lacks("a", 12) && lacks("a", 13) && lacks("a", 30));
        assert!(!lacks("b", 16) && !lacks("b", 20) && lacks("b", 21));
        assert!(!lacks("c", 2) && !lacks("d", 2));
    }

    #[test]
    fn an_edge_that_died_long_before_a_doubt_is_not_asked() {
        let doubts = Doubts::default();
        let doubt = Doubt {
            rooms: [(room("a"), 5)].into(),
        };
        assert!(doubts.add(20, Arc::new(doubt), Vec::new()).is_empty());
        let lacks = |at: Option<u64>, through: u64| {
            let findings = Findings {
                at,
                through,
                ..Findings::default()
            };
            doubts.lacks(&[room("a")], 10, &findings).len()
        };
        assert_eq!(doubts.last(&[room("a")], 10), Some(20));
        assert_eq!(doubts.last(&[room("b")], 10), None);
        assert_eq!(lacks(Some(now()), 0), 1);
        assert_eq!(lacks(Some(now()), 20), 0, "it has looked");
        assert_eq!(lacks(Some(now() - SILENT - BEFORE - 1000), 0), 0);
        assert_eq!(lacks(None, 0), 1, "it is not known to be dead");
    }
}
