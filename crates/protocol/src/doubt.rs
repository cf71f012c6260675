//! Deliveries in doubt: a publisher says that a stored event may never have been delivered, an edge says what it had
//! missed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::EdgeId;
use crate::names::Room;

/// A publisher's word, stored in the stream of the events that it is about and behind them.
///
/// A store whose acknowledgement was late or never came may have happened without its delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The rooms, each with the sequence after which a delivery may be missing.
    pub rooms: BTreeMap<Room, u64>,
}

/// Events of a room that a client may lack although its offset lies above them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    pub room: Room,
    /// The events with a sequence in `(after, up_to]`.
    pub after: u64,
    pub up_to: u64,
    /// Who shows this offset, or a higher one, has them.
    pub proof: u64,
}

/// What an edge found when it looked at rooms in doubt, kept for the clients that come back without it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    pub edge: Option<EdgeId>,
    /// Milliseconds since 1970 at which the edge wrote this.
    pub at: Option<u64>,
    /// It has looked at every doubt up to this sequence.
    pub through: u64,
    /// What had not come, and was sent late.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<Lack>,
}

impl Lack {
    /// Returns whether a client with this offset may lack the events.
    pub fn concerns(&self, offset: u64) -> bool {
        self.after < offset && offset < self.proof
    }

    /// Takes another lack of the same room into this one, with what lies between them.
    pub fn widen(&mut self, other: &Self) {
        self.after = self.after.min(other.after);
        self.up_to = self.up_to.max(other.up_to);
        self.proof = self.proof.max(other.proof);
    }

    /// Returns whether it is about an event.
    pub fn covers(&self, room: &Room, sequence: u64) -> bool {
        self.room == *room && self.after < sequence && sequence <= self.up_to
    }
}

impl Doubt {
    /// Returns what a client with this offset may lack, where nobody can say what its edge had delivered.
    pub fn lacks(&self, offset: u64) -> impl Iterator<Item = Lack> {
        let rooms = self.rooms.iter().filter(move |(_, from)| **from < offset);
        rooms.map(move |(room, from)| Lack {
            room: room.clone(),
            after: *from,
            up_to: offset,
            proof: offset + 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> Room {
        Room::new(name).unwrap()
    }

    #[test]
    fn a_lack_concerns_offsets_between_the_event_and_its_proof() {
        let lack = Lack {
            room: room("a"),
            after: 9,
            up_to: 10,
            proof: 20,
        };
        assert!(!lack.concerns(9), "whoever is there reads it anyway");
        assert!(lack.concerns(10) && lack.concerns(19));
        assert!(!lack.concerns(20));
        assert!(lack.covers(&room("a"), 10));
        assert!(!lack.covers(&room("a"), 9) && !lack.covers(&room("a"), 11) && !lack.covers(&room("b"), 10));
    }

    #[test]
    fn a_doubt_is_about_offsets_above_it() {
        let doubt = Doubt {
            rooms: BTreeMap::from([(room("a"), 5), (room("b"), 50)]),
        };
        let lacks: Vec<Lack> = doubt.lacks(30).collect();
        assert_eq!(lacks.len(), 1);
        assert!(lacks[0].covers(&room("a"), 6) && lacks[0].covers(&room("a"), 30) && lacks[0].concerns(30));
    }
}
