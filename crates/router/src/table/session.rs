//! A session as the view keeps it: what requests are answered from, and no more.

use std::sync::Arc;

use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::{Record, State, Transport};

/// One session, live or away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) owner: EdgeId,
    pub(crate) term: u64,
    pub(crate) live: bool,
    pub(crate) transport: Transport,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) namespace: Namespace,
    /// The rooms beside `all` and the session's own, sorted, each with the sequence at which it was joined.
    pub(crate) rooms: Box<[(Room, u64)]>,
    /// Those of the rooms it hears that it is in since after it had left some, sorted, each with the number of the stay.
    stays: Box<[(Room, u64)]>,
    pub(crate) hears_all: bool,
    /// Whether it hears the personal room of its user.
    pub(crate) hears_user: bool,
    pub(crate) epoch: u32,
    pub(crate) start: u64,
    pub(crate) since: u64,
    pub(crate) gone: Option<u64>,
}

impl Session {
    /// Takes from a record what the view needs.
    pub(crate) fn of(sid: Sid, record: Record) -> Self {
        let (all, own) = (Room::all(), Room::of_session(sid));
        let personal = record.user.as_deref().map(Room::of_user);
        let hears_all = hears(&record, &all);
        let hears_user = hears_user(&record);
        let automatic = record.automatic.iter().filter(|room| !record.left.contains(room));
        let mut rooms: Vec<(Room, u64)> = automatic.map(|room| (room.clone(), record.start)).collect();
        rooms.extend(record.rooms.iter().map(|(room, joined)| (room.clone(), *joined)));
        rooms.retain(|(room, _)| *room != all && *room != own && Some(room) != personal.as_ref());
        rooms.sort();
        rooms.dedup_by(|later, kept| later.0 == kept.0);
        Self {
            owner: record.owner,
            term: record.term,
            live: record.state == State::Live,
            transport: record.transport,
            user: record.user,
            namespace: record.namespace,
            rooms: rooms.into_boxed_slice(),
            stays: record
                .stays
                .map(|stays| stays.rooms.into_iter().collect())
                .unwrap_or_default(),
            hears_all,
            hears_user,
            epoch: record.epoch,
            start: record.start,
            since: record.since,
            gone: record.gone,
        }
    }

    /// Returns the sequence at which the session joined a room, if it is in it.
    pub(crate) fn joined(&self, sid: Sid, room: &Room) -> Option<u64> {
        if let Ok(index) = self.rooms.binary_search_by(|(known, _)| known.cmp(room)) {
            return Some(self.rooms[index].1);
        }
        let implied = match (room.user(), room.session()) {
            (Some(user), _) => self.hears_user && self.user.as_deref() == Some(user),
            (_, Some(session)) => session == sid.as_str(),
            _ => self.hears_all && room.as_str() == "all",
        };
        implied.then_some(self.start)
    }

    /// Returns what tells this stay in a room from those before and after it.
    pub(crate) fn stay(&self, room: &Room) -> u64 {
        let known = self.stays.binary_search_by(|(known, _)| known.cmp(room));
        known.map_or(0, |index| self.stays[index].1)
    }

    /// Returns every room that the session hears, sorted.
    pub(crate) fn heard(&self, sid: Sid) -> Vec<Room> {
        let mut rooms: Vec<Room> = self.rooms.iter().map(|(room, _)| room.clone()).collect();
        rooms.push(Room::of_session(sid));
        rooms.extend(self.hears_all.then(Room::all));
        rooms.extend(
            self.user
                .as_deref()
                .filter(|_| self.hears_user)
                .map(Room::of_user),
        );
        rooms.sort();
        rooms
    }

    /// Returns whether an event of its user's room, stored at this time, was or will be heard in this session,
    /// or would be if it had not left the room.
    ///
    /// The start may lie a little before the session, so the time counts as well.
    pub(crate) fn covers(&self, epoch: u32, sequence: u64, time: u64) -> bool {
        self.epoch == epoch && self.start < sequence && self.since <= time
    }
}

/// Returns whether the session of a record hears the personal room of its user.
pub(crate) fn hears_user(record: &Record) -> bool {
    let personal = record.user.as_deref().map(Room::of_user);
    personal.is_some_and(|room| hears(record, &room))
}

fn hears(record: &Record, automatic: &Room) -> bool {
    !record.left.contains(automatic) || record.rooms.contains_key(automatic)
}
