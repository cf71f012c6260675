//! Where a client stands in the history of its namespace.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use carillon_protocol::doubt::Lack;
use carillon_protocol::names::Room;

use crate::frame::Broadcast;
use crate::history::{Past, Stub};

/// Lists of rooms that are remembered, so that a signal for several of a client's rooms comes once.
const MAX_LISTS: usize = 32;
/// Late deliveries that are remembered one by one for a takeover.
const MAX_LATE: usize = 256;

/// Where the client stands in the history of the namespace.
#[derive(Default)]
pub(super) struct Cursor {
    /// The highest sequence queued to the client; it never goes back.
    pub(super) last: u64,
    /// Reasons to hold durable events back: not open yet, a join, a repair.
    pub(super) holds: u32,
    /// Events that wait, by sequence.
    pub(super) held: BTreeMap<u64, Held>,
    /// Bytes of those that came live.
    pub(super) held_bytes: usize,
    /// Bytes of those that were read of the history.
    pub(super) past_bytes: usize,
    /// Somebody waits until the client has taken what it was sent of what is held.
    pub(super) draining: bool,
    /// Everything up to this sequence was delivered or is held: the client's offset once what is held has left.
    pub(super) verified: u64,
    /// The client was greeted, and is sent signals.
    pub(super) greeted: bool,
    /// Signals that wait behind a history.
    pub(super) kept: Option<Box<Kept>>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What most clients never have.
#[derive(Default)]
pub(super) struct Rare {
    /// What was sent after a higher sequence, or what the client may lack from before it came here.
    pub(super) late: Vec<Lack>,
    /// What the client was sent from below the offset with which it came: several doubts may name the same event.
    pub(super) replayed_below: BTreeSet<u64>,
    /// Lists of rooms of which the client got a signal, the latest last.
    lists: VecDeque<u64>,
    /// Signals that came while the session moves from edge to edge.
    pub(super) moving: Option<Vec<Arc<Broadcast>>>,
}

/// Signals that wait until a history has left.
#[derive(Default)]
pub(super) struct Kept {
    /// Signals of other rooms pass until one of this room waits; `None` where all wait.
    topic: Option<Room>,
    /// The history is being read.
    pub(super) reading: bool,
    signals: Vec<Arc<Broadcast>>,
    bytes: usize,
}

/// An event that waits.
pub(super) struct Held {
    pub(super) event: Past,
    pub(super) live: bool,
}

impl Cursor {
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Returns what was sent late, or may be lacking.
    pub(super) fn late(&self) -> &[Lack] {
        self.rare.as_ref().map_or(&[], |rare| &rare.late)
    }

    /// Returns the signals that came while the session moves, if it does.
    pub(super) fn moving(&mut self) -> Option<&mut Vec<Arc<Broadcast>>> {
        self.rare.as_mut()?.moving.as_mut()
    }

    /// Ends a move, and returns the signals that came meanwhile; `None` if the session does not move.
    pub(super) fn moved(&mut self) -> Option<Vec<Arc<Broadcast>>> {
        self.rare.as_mut()?.moving.take()
    }

    /// Remembers an event that is sent after a higher one: a client that shows a higher offset than now has it.
    pub(super) fn sent_late(&mut self, broadcast: &Broadcast, sequence: u64) {
        let late = lack(&broadcast.room, sequence, self.last + 1);
        let known = &mut self.rare().late;
        let full = known.len() >= MAX_LATE;
        match known.iter_mut().rfind(|known| full && known.room == late.room) {
            Some(known) => known.widen(&late),
            None => known.push(late),
        }
    }

    /// Returns whether the client got another copy of a signal for a list of rooms, and notes this one.
    pub(super) fn has_copy(&mut self, signal: &Broadcast) -> bool {
        let Some(list) = signal.list else { return false };
        let lists = &mut self.rare().lists;
        if lists.contains(&list) {
            return true;
        }
        if lists.len() >= MAX_LISTS {
            lists.pop_front();
        }
        lists.push_back(list);
        false
    }

    /// Lets signals wait until the history of a topic, or of all rooms, has left.
    pub(super) fn keep_signals(&mut self, topic: Option<&Room>) -> &mut Kept {
        let is_new = self.kept.is_none();
        let kept = self.kept.get_or_insert_default();
        kept.topic = topic.filter(|_| is_new).cloned();
        kept
    }

    /// Keeps a signal that must wait, or drops it where more wait than `limit` bytes; `false` if it need not wait.
    pub(super) fn keep(&mut self, signal: &Arc<Broadcast>, limit: usize) -> bool {
        let Some(kept) = &mut self.kept else { return false };
        let passes = kept.topic.as_ref().is_some_and(|topic| *topic != signal.room);
        // A publisher's signals stay in their order.
        if passes && kept.signals.is_empty() {
            return false;
        }
        if kept.bytes + signal.size() <= limit {
            kept.bytes += signal.size();
            kept.signals.push(Arc::clone(signal));
        }
        true
    }

    /// Takes the signals that waited, if the history has left.
    pub(super) fn take_kept(&mut self) -> Vec<Arc<Broadcast>> {
        let held = &self.held;
        let has_left = |kept: &mut Box<Kept>| !kept.reading && held.values().all(|held| held.live);
        self.kept
            .take_if(has_left)
            .map_or_else(Vec::new, |kept| kept.signals)
    }

    /// Returns whether something waits that must leave before an event that is above the client's offset.
    pub(super) fn has_waiting_before(&self, sequence: u64) -> bool {
        sequence > self.last && self.held.range(self.last + 1..sequence).next().is_some()
    }

    pub(super) fn hold(&mut self, sequence: u64, event: Past, live: bool) {
        if let Entry::Vacant(vacant) = self.held.entry(sequence) {
            let held = vacant.insert(Held { event, live });
            let (bytes, live) = (held.bytes(), held.live);
            *self.bytes(live) += bytes;
        }
    }

    pub(super) fn uncount(&mut self, held: &Held) {
        let bytes = self.bytes(held.live);
        *bytes = bytes.saturating_sub(held.bytes());
    }

    fn bytes(&mut self, live: bool) -> &mut usize {
        if live {
            &mut self.held_bytes
        } else {
            &mut self.past_bytes
        }
    }

    /// Puts what was read again in the place of what still waits for it, and forgets what has expired.
    pub(super) fn take_read(&mut self, wanted: &[(u64, Stub)], read: Vec<(u64, Arc<Broadcast>)>) {
        let mut read: BTreeMap<u64, Arc<Broadcast>> = read.into_iter().collect();
        for (sequence, _) in wanted {
            let waited = self.held.remove(sequence).is_some();
            if let Some(event) = read.remove(sequence).filter(|_| waited) {
                self.hold(*sequence, Past::Read(event), false);
            }
        }
    }
}

impl Held {
    /// Returns how many bytes it keeps in memory.
    fn bytes(&self) -> usize {
        match &self.event {
            Past::Read(broadcast) => broadcast.size(),
            Past::Stored(_) => 0,
        }
    }
}

pub(super) fn lack(room: &Room, sequence: u64, proof: u64) -> Lack {
    Lack {
        room: room.clone(),
        after: sequence - 1,
        up_to: sequence,
        proof,
    }
}
