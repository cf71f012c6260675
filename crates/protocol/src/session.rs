//! The record of a session in the bucket SESSIONS, keyed by its sid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::doubt::Lack;
use crate::ids::{EdgeId, Sid};
use crate::names::{Namespace, Room};
use crate::offset::Offset;

/// What the cluster knows of one connection to one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub owner: EdgeId,
    /// Rises with each takeover; what an older owner says is void.
    pub term: u64,
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    pub namespace: Namespace,
    pub transport: Transport,
    /// Rooms joined by a rule, a client or an order, with the sequence at which each was joined.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rooms: BTreeMap<Room, u64>,
    /// Those of `rooms` that an order or the backend opened, which no rule is asked about again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ordered: Vec<Room>,
    /// Automatic rooms beside `user:`, `session:` and `all`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub automatic: Vec<Room>,
    /// Automatic rooms that the connection has left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Room>,
    /// What tells one stay in a room from the next, once it has left a room; most never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stays: Option<Box<Stays>>,
    /// The epoch of the stream that the sequences belong to.
    pub epoch: u32,
    /// The sequence at which the session began.
    pub start: u64,
    /// Milliseconds since 1970 at which the session began.
    pub since: u64,
    /// Milliseconds since 1970 at which its transport went, unless it is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<u64>,
    /// Everything in its user's room up to here was sent before the client closed the connection itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<u64>,
    /// What was sent after a higher sequence, or was never sent although the client's offset lies above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<Lack>,
    /// Former owners that cannot be asked what they sent late, each with the offset that the client showed when it
    /// left them. Until it shows a higher one, their findings and the doubts that they did not look at count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsure: Vec<(EdgeId, u64)>,
    /// Whether `$disconnect` must be told when the transport goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lifecycle: bool,
}

/// The stays in rooms of a session that has left some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stays {
    /// How often it has left rooms.
    pub left: u64,
    /// Rooms that it is in since after that, each with how often it had left rooms then.
    pub rooms: BTreeMap<Room, u64>,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its owner holds a transport.
    Live,
    /// Its transport is gone, and it can be recovered.
    Away,
    /// It cannot be recovered any more.
    Ended,
}

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Socket.IO over WebSocket.
    Websocket,
    /// Socket.IO over long-polling.
    Polling,
    /// JSON over a plain WebSocket.
    Ws,
    /// Server-sent events.
    Sse,
}

impl Transport {
    /// Returns the name that is shown to operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::Polling => "polling",
            Self::Ws => "ws",
            Self::Sse => "sse",
        }
    }
}

impl Record {
    /// Walks over every room that the session hears, but for those that it left.
    pub fn heard(&self, sid: Sid) -> impl Iterator<Item = Room> {
        let mut rooms = self.heard_by_itself(sid);
        rooms.extend(self.rooms.keys().cloned());
        rooms.sort();
        rooms.dedup();
        rooms.into_iter()
    }

    /// Returns the rooms that the session hears without having joined them.
    pub fn heard_by_itself(&self, sid: Sid) -> Vec<Room> {
        let own = [
            self.user.as_deref().map(Room::of_user),
            Some(Room::of_session(sid)),
            Some(Room::all()),
        ];
        let mut rooms: Vec<Room> = own.into_iter().flatten().collect();
        rooms.extend(self.automatic.iter().cloned());
        rooms.retain(|room| !self.left.contains(room));
        rooms
    }

    /// Returns whether the session is in a room from the start, unless it has left it.
    pub fn is_automatic(&self, room: &Room) -> bool {
        let is_own = self
            .user
            .as_deref()
            .is_some_and(|user| Room::of_user(user) == *room);
        is_own || *room == Room::all() || self.automatic.contains(room)
    }

    /// Takes the session out of a room, however it came to be in it; its own `session:` room stays.
    pub fn leave(&mut self, room: &Room) {
        self.rooms.remove(room);
        self.ordered.retain(|ordered| ordered != room);
        if self.is_automatic(room) && !self.left.contains(room) {
            self.left.push(room.clone());
        }
    }

    /// Counts what a change of the record made it leave, and notes what it made it enter.
    ///
    /// Whoever changes the rooms of a record calls this before it is written.
    pub fn note_moves(&mut self, before: &Self, sid: Sid) {
        if (&self.rooms, &self.left, &self.automatic) == (&before.rooms, &before.left, &before.automatic) {
            return;
        }
        let (had, has) = (before.rooms_heard(sid), self.rooms_heard(sid));
        let leaves = !had.is_subset(&has);
        if !leaves && self.stays.is_none() {
            return;
        }
        let Stays { left, rooms } = &mut **self.stays.get_or_insert_default();
        *left += u64::from(leaves);
        rooms.retain(|room, _| has.contains(room));
        rooms.extend(has.difference(&had).map(|room| (room.clone(), *left)));
    }

    fn rooms_heard(&self, sid: Sid) -> BTreeSet<Room> {
        self.heard(sid).collect()
    }

    /// Returns the sequence of the offset that a client shows, or the start where it has heard nothing since: a stock
    /// client goes on showing the offset of an earlier session, or of an earlier stream.
    pub fn shown(&self, offset: Option<&str>) -> u64 {
        let offset = offset.and_then(|text| text.parse::<Offset>().ok());
        offset
            .filter(|offset| offset.epoch == self.epoch)
            .map_or(self.start, |offset| offset.sequence.max(self.start))
    }

    /// Returns whether a client may come back to the session.
    pub fn is_recoverable(&self, now: u64, window: u64) -> bool {
        match self.state {
            State::Live => true,
            State::Away => self.gone.is_none_or(|gone| now.saturating_sub(gone) <= window),
            State::Ended => false,
        }
    }
}

/// The lease of an edge in the bucket EDGES, keyed by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Counts the renewals, so that each is a new value.
    pub renewal: u64,
    pub address: String,
    pub connections: u64,
    #[serde(default)]
    pub draining: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            owner: EdgeId::from_random([1; 10]),
            term: 1,
            state: State::Live,
            user: Some("42".into()),
            namespace: Namespace::main(),
            transport: Transport::Ws,
            rooms: BTreeMap::from([(Room::new("chat").unwrap(), 9)]),
            ordered: Vec::new(),
            automatic: vec![Room::new("team").unwrap()],
            left: vec![Room::all()],
            stays: None,
            epoch: 1,
            start: 2,
            since: 3,
            gone: None,
            complete: None,
            late: Vec::new(),
            unsure: Vec::new(),
            lifecycle: false,
        }
    }

    #[test]
    fn a_room_is_left_however_the_session_came_to_be_in_it() {
        let (chat, team) = (Room::new("chat").unwrap(), Room::new("team").unwrap());
        let sid = Sid::from_random([7; Sid::LEN]);
        let mut record = record();
        // A room of the token that the backend has named too, and one that a team has ordered.
        record.rooms.insert(team.clone(), 2);
        record.ordered = vec![team.clone(), chat.clone()];
        for room in [&chat, &team, &team] {
            record.leave(room);
            assert!(!record.heard(sid).any(|heard| heard == *room));
        }
        assert!(record.rooms.is_empty() && record.ordered.is_empty());
        assert_eq!(record.left, [Room::all(), team]);
    }

    #[test]
    fn a_record_survives() {
        let record = record();
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
    }

    #[test]
    fn rooms_that_were_left_are_not_heard() {
        let sid = Sid::from_random([3; 20]);
        let rooms: Vec<String> = record().heard(sid).map(|room| room.to_string()).collect();
        assert_eq!(rooms, ["chat", &format!("session:{sid}"), "team", "user:42"]);
    }

    #[test]
    fn each_stay_in_a_room_has_its_number() {
        let sid = Sid::from_random([3; 20]);
        let (chat, team, new) = (
            Room::new("chat").unwrap(),
            Room::new("team").unwrap(),
            Room::new("new").unwrap(),
        );
        let change = |record: &mut Record, change: &dyn Fn(&mut Record)| {
            let before = record.clone();
            change(record);
            record.note_moves(&before, sid);
        };
        let mut record = record();
        change(&mut record, &|record| _ = record.rooms.insert(new.clone(), 9));
        assert_eq!(record.stays, None);
        let stays = |record: &Record| record.stays.as_deref().cloned().unwrap_or_default();
        for turn in 1..3 {
            change(&mut record, &|record| record.left.push(team.clone()));
            change(&mut record, &|record| record.left.retain(|room| *room != team));
            assert_eq!(stays(&record).rooms, BTreeMap::from([(team.clone(), turn)]));
        }
        change(&mut record, &|record| _ = record.rooms.remove(&chat));
        change(&mut record, &|record| _ = record.rooms.insert(chat.clone(), 9));
        let expected = BTreeMap::from([(team.clone(), 2), (chat.clone(), 3)]);
        assert_eq!(stays(&record).rooms, expected);
        // What was left has no stay, and what is left or entered twice counts once.
        change(&mut record, &|record| record.left.push(team.clone()));
        change(&mut record, &|record| record.left.push(team.clone()));
        change(&mut record, &|record| _ = record.rooms.insert(chat.clone(), 11));
        let expected = Stays {
            left: 4,
            rooms: BTreeMap::from([(chat, 3)]),
        };
        assert_eq!(stays(&record), expected);
    }

    #[test]
    fn the_time_away_decides_recovery() {
        let mut record = record();
        assert!(record.is_recoverable(10_000, 5));
        (record.state, record.gone) = (State::Away, Some(100));
        assert!(record.is_recoverable(220, 120));
        assert!(!record.is_recoverable(221, 120));
    }
}
