//! Where a session stands, for the edge that goes on with it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carillon_protocol::doubt::Lack;
use carillon_protocol::ids::Sid;
use carillon_protocol::names::Room;
use carillon_protocol::session::Record;
use serde::{Deserialize, Serialize};

use super::{Cursor, Session};
use crate::frame::Broadcast;
use crate::user::User;

/// Signals that are kept while a session moves.
const MAX_SIGNALS: usize = 1000;

/// A session that is held, as it stands.
#[derive(Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) sid: Sid,
    pub(crate) record: Record,
    pub(crate) revision: u64,
    pub(crate) user: User,
    /// The client knows that its token expires.
    pub(crate) warned: bool,
    /// The client's offset.
    pub(crate) last: u64,
    /// The highest offset of an earlier connection that it showed.
    pub(crate) resumed: u64,
    /// What it was sent late.
    pub(crate) late: Vec<Lack>,
    /// Its rooms, each with the sequence up to which it was sent everything.
    pub(crate) heard: BTreeMap<Room, u64>,
}

impl Session {
    /// Holds durable events back, unless some are held already for whatever reason.
    pub(crate) fn freeze(&self) -> bool {
        let mut cursor = self.cursor.lock();
        let is_quiet = cursor.greeted
            && cursor.holds == 0
            && cursor.held.is_empty()
            && !self.namespace.is_held()
            && !self.has_ended();
        if is_quiet {
            cursor.holds += 1;
            cursor.rare().moving = Some(Vec::new());
        }
        is_quiet
    }

    /// Goes on with a session that was held for another edge.
    pub(crate) fn thaw(self: &Arc<Self>) {
        self.cursor.lock().moved();
        self.release();
    }

    /// Returns what tells the signals from others that the client was sent since the session was held.
    pub(crate) fn signals(&self) -> Vec<u64> {
        let moving = self.cursor.lock().moved().unwrap_or_default();
        moving.iter().map(|signal| fingerprint(signal)).collect()
    }

    /// Describes a session that is held; `None` where its record or a room is just changing.
    pub(crate) fn standing(self: &Arc<Self>) -> Option<Standing> {
        let (record, revision) = self.keeper.snapshot()?;
        let mut heard = BTreeMap::new();
        for room in self.rooms() {
            let up_to = match self.namespace.rooms.find(&room) {
                Some(cell) => {
                    let mut state = cell.state.lock();
                    let complete = state.complete?;
                    let from = state.members.get_mut(self)?.from;
                    if from == u64::MAX {
                        return None;
                    }
                    complete.max(from)
                }
                // Its own room, to which nothing was sent yet.
                None => self.own_room_from(),
            };
            heard.insert(room, up_to);
        }
        // A room is complete up to what waits here, but the client is not.
        let cursor = self.cursor.lock();
        for (sequence, held) in &cursor.held {
            if let Some(up_to) = heard.get_mut(held.event.room()) {
                *up_to = (*up_to).min(sequence.saturating_sub(1));
            }
        }
        Some(Standing {
            sid: self.sid,
            record,
            revision,
            user: User::clone(&self.user.load()),
            warned: self.warned.load(Ordering::Relaxed),
            last: cursor.last,
            resumed: self.resumed(),
            late: cursor.late().to_vec(),
            heard,
        })
    }

    /// Goes on from where another edge stopped; the session stays held.
    pub(crate) fn stand(&self, standing: &Standing) {
        self.warned.store(standing.warned, Ordering::Relaxed);
        self.resume(standing.resumed);
        let mut cursor = self.cursor.lock();
        cursor.last = cursor.last.max(standing.last);
        let rare = cursor.rare();
        rare.late.clone_from(&standing.late);
        rare.moving = Some(Vec::new());
    }

    /// Opens the session at its new edge; signals that came in the meantime are sent, but for those that the former
    /// owner sent.
    pub(crate) fn settle(&self, mut sent: Vec<u64>) {
        let mut cursor = self.cursor.lock();
        cursor.greeted = true;
        let Some(signals) = cursor.moved() else {
            return;
        };
        for signal in signals {
            let known = fingerprint(&signal);
            match sent.iter().position(|sent| *sent == known) {
                Some(at) => drop(sent.swap_remove(at)),
                None if !cursor.has_copy(&signal) => self.write(None, &signal, cursor.last),
                None => {}
            }
        }
    }
}

impl Cursor {
    /// Keeps a signal that comes while the session moves.
    pub(super) fn note_signal(&mut self, signal: &Arc<Broadcast>) {
        if let Some(moving) = self.moving()
            && moving.len() < MAX_SIGNALS
        {
            moving.push(Arc::clone(signal));
        }
    }
}

/// Signals have no number: this tells them apart as far as it matters.
fn fingerprint(signal: &Broadcast) -> u64 {
    let mut hasher = DefaultHasher::new();
    let event = &signal.event;
    (
        signal.room.as_str(),
        &event.name,
        event.time,
        event.payload.json(),
    )
        .hash(&mut hasher);
    hasher.finish()
}
