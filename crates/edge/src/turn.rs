//! A turn: the deliveries that one read of the link brought.
//!
//! What a client gets of a turn leaves in one write at its end. Events of one room that follow each other make a
//! run: they are joined once for each wire format, and a member that may have them all as they are gets them as
//! one piece.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use carillon_service::settings::Overflow;

use crate::client::Client;
use crate::frame::{Broadcast, Chunk, Style, Wire};
use crate::namespace::Namespace;
use crate::room::Cell;

/// Bytes of events from which on a run ends: queues are bounded, and a piece is taken or refused as a whole.
const RUN: usize = 32 * 1024;

/// A turn under way.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) run: Option<Run>,
    /// Clients whose frames are collected.
    touched: Vec<Arc<Client>>,
}

/// Events of one room that came behind each other and are not handled yet.
pub(crate) struct Run {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) cell: Arc<Cell>,
    /// Each with the sequence before it in the room.
    pub(crate) events: Vec<(u64, Arc<Broadcast>)>,
    bytes: usize,
}

impl Turn {
    /// Notes a client that collects its frames from now on.
    pub(crate) fn touch(&mut self, client: &Arc<Client>) {
        self.touched.push(Arc::clone(client));
    }

    /// Writes what was collected.
    pub(crate) fn end(&mut self) {
        for client in self.touched.drain(..) {
            client.uncork();
        }
    }
}

impl Run {
    pub(crate) fn new(namespace: &Arc<Namespace>, cell: &Arc<Cell>) -> Self {
        Self {
            namespace: Arc::clone(namespace),
            cell: Arc::clone(cell),
            events: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds an event; `true` when the run is long enough.
    pub(crate) fn push(&mut self, before: u64, broadcast: Arc<Broadcast>) -> bool {
        self.bytes += broadcast.size();
        self.events.push((before, broadcast));
        self.bytes > RUN
    }
}

/// Events that are sent as one piece to whoever may have them all as they are.
pub(crate) struct Joined<'a> {
    pub(crate) events: &'a [Arc<Broadcast>],
    /// The first and the last sequence; signals have none.
    pub(crate) range: Option<(u64, u64)>,
    socket_io: OnceCell<Option<Chunk>>,
    json: OnceCell<Option<Chunk>>,
}

impl<'a> Joined<'a> {
    /// Joins events of one room, in the order of their sequences; `None` where they must be sent one by one.
    pub(crate) fn new(events: &'a [Arc<Broadcast>]) -> Option<Self> {
        let is_plain = |event: &Arc<Broadcast>| {
            event.overflow == Overflow::CloseAndRecover && event.set.is_none() && event.list.is_none()
        };
        if events.len() < 2
            || !events
                .iter()
                .all(|event| is_plain(event) && event.event.except.is_none())
        {
            return None;
        }
        let mut sequences = events.iter().filter_map(|event| event.sequence);
        let first = sequences.next();
        let last = sequences.next_back().or(first);
        Some(Self {
            events,
            range: first.zip(last),
            socket_io: OnceCell::new(),
            json: OnceCell::new(),
        })
    }

    /// Returns the piece in a wire format, made at the first call.
    pub(crate) fn chunk(&self, wire: Wire, style: &Style) -> Option<&Chunk> {
        let cell = match wire {
            Wire::SocketIo => &self.socket_io,
            Wire::Json => &self.json,
        };
        let join = || {
            let frames = self.events.iter().map(|event| {
                event
                    .frame(wire, style)
                    .as_it_is(event.sequence)
                    .map(|bytes| &bytes[..])
            });
            let frames: Option<Vec<&[u8]>> = frames.collect();
            Some(Chunk::joined(Bytes::from(frames?.concat())))
        };
        cell.get_or_init(join).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use carillon_protocol::event::{Event, Payload};
    use carillon_protocol::names::Room;

    use super::*;

    fn event(data: &'static str, sequence: Option<u64>) -> Arc<Broadcast> {
        let event = Event {
            name: "e".to_owned(),
            payload: Payload::One(Bytes::from_static(data.as_bytes())),
            id: None,
            except: None,
            time: 5,
        };
        Arc::new(Broadcast::new(event, Room::new("r").unwrap(), sequence, None))
    }

    fn style() -> Style {
        Style {
            namespace: "/".to_owned(),
            recovery: true,
            epoch: 1,
        }
    }

    #[test]
    fn a_piece_is_the_frames_behind_each_other() {
        let events = [event("1", Some(7)), event("{}", None), event("2", Some(9))];
        let joined = Joined::new(&events).unwrap();
        assert_eq!(joined.range, Some((7, 9)));
        for wire in [Wire::SocketIo, Wire::Json] {
            let mut single = Vec::new();
            for (event, last) in events.iter().zip([7, 7, 9]) {
                single.extend_from_slice(&event.frame(wire, &style()).chunks(last, 1).0.bytes);
            }
            assert_eq!(joined.chunk(wire, &style()).unwrap().bytes, single);
        }
    }

    #[test]
    fn what_differs_between_members_is_not_joined() {
        // It is followed by the connection's own offset.
        let events = [event("1", Some(7)), event("\"text\"", None)];
        let joined = Joined::new(&events).unwrap();
        assert!(joined.chunk(Wire::SocketIo, &style()).is_none());
        assert!(joined.chunk(Wire::Json, &style()).is_some());
        let (mut list, mut excepting) = (event("1", Some(8)), event("1", Some(8)));
        Arc::get_mut(&mut list).unwrap().set = Some((8, 9));
        Arc::get_mut(&mut excepting).unwrap().event.except = Some("sid".to_owned());
        for other in [list, excepting] {
            assert!(Joined::new(&[event("1", Some(7)), other]).is_none());
        }
        assert!(Joined::new(&[event("1", Some(7))]).is_none());
    }
}
