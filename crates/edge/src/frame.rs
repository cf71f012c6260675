//! Frames: an event encoded once for every client that speaks the same format.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use carillon_protocol::binary;
use carillon_protocol::clientjson;
use carillon_protocol::event::Event;
use carillon_protocol::names::Room;
use carillon_protocol::offset::Offset;
use carillon_protocol::socketio::{self, MAX_SENT_ATTACHMENTS, encode};
use carillon_protocol::websocket::{MAX_HEADER, Opcode, header};
use carillon_service::settings::Overflow;

/// What a client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    SocketIo,
    /// `/ws`, and `/sse` with the same JSON.
    Json,
}

/// One WebSocket frame of the server; long-polling and SSE take what follows its header.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    header: u8,
    pub(crate) binary: bool,
    /// Set for what may be dropped when a queue is full: a number of its room.
    pub(crate) droppable: Option<u64>,
    /// When the event was accepted, in milliseconds since 1970, if its way to the client is measured; or else 0.
    pub(crate) accepted: u64,
}

impl Chunk {
    /// Frames a text message that is not an event.
    pub(crate) fn text(payload: &[u8]) -> Self {
        Self::new(Opcode::Text, payload)
    }

    pub(crate) fn new(opcode: Opcode, payload: &[u8]) -> Self {
        let header = header(opcode, payload.len());
        let mut bytes = Vec::with_capacity(header.len() + payload.len());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(payload);
        Self {
            header: header.len() as u8,
            binary: matches!(opcode, Opcode::Binary),
            ..Self::joined(bytes.into())
        }
    }

    /// Frames a text message of about so many bytes, which is written in its place: behind what its header may take.
    fn written(expected: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = Vec::with_capacity(MAX_HEADER + expected);
        bytes.resize(MAX_HEADER, 0);
        write(&mut bytes);
        let header = header(Opcode::Text, bytes.len() - MAX_HEADER);
        let start = MAX_HEADER - header.len();
        bytes[start..MAX_HEADER].copy_from_slice(&header);
        Self {
            header: header.len() as u8,
            ..Self::joined(Bytes::from(bytes).slice(start..))
        }
    }

    /// Returns the message without its WebSocket header.
    pub(crate) fn payload(&self) -> Bytes {
        self.bytes.slice(usize::from(self.header)..)
    }

    /// Whole frames behind each other as one piece, for sockets alone.
    pub(crate) fn joined(bytes: Bytes) -> Self {
        Self {
            bytes,
            header: 0,
            binary: false,
            droppable: None,
            accepted: 0,
        }
    }

    fn patched(&self, offset: Offset) -> Self {
        let mut bytes = self.bytes.to_vec();
        encode::patch(&mut bytes, offset);
        Self {
            bytes: bytes.into(),
            ..self.clone()
        }
    }
}

/// An event in one wire format: a text frame, and binary frames for its attachments.
#[derive(Debug)]
pub(crate) struct Frame {
    text: Chunk,
    attachments: Vec<Chunk>,
    /// The sequence that the text carries at its end, if any.
    carries: Option<u64>,
}

impl Frame {
    /// Returns the frame where it is one, and the same for everybody who has nothing later.
    pub(crate) fn as_it_is(&self, sequence: Option<u64>) -> Option<&Bytes> {
        let same = self.carries.is_none() || self.carries == sequence;
        (same && self.attachments.is_empty()).then_some(&self.text.bytes)
    }

    /// Returns the chunks for a client whose offset is `last`.
    pub(crate) fn chunks(&self, last: u64, epoch: u32) -> (Chunk, &[Chunk]) {
        let text = match self.carries {
            Some(carried) if carried != last => self.text.patched(Offset {
                epoch,
                sequence: last,
            }),
            _ => self.text.clone(),
        };
        (text, &self.attachments)
    }
}

/// How the frames of a namespace look.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    /// The Socket.IO name of the namespace.
    pub(crate) namespace: String,
    /// Offsets are told, so that a client can recover.
    pub(crate) recovery: bool,
    pub(crate) epoch: u32,
}

/// An event on its way to the members of a room.
#[derive(Debug)]
pub(crate) struct Broadcast {
    pub(crate) event: Event,
    pub(crate) room: Room,
    /// The stored sequence; a signal has none.
    pub(crate) sequence: Option<u64>,
    /// The sequences of all copies of an event for a list of rooms.
    pub(crate) set: Option<(u64, u64)>,
    /// What a client's full queue does with it.
    pub(crate) overflow: Overflow,
    /// It has a time to live: whoever comes later must ask the stream whether it is still there.
    pub(crate) expires: bool,
    /// Tells the list of rooms that a signal is for.
    pub(crate) list: Option<u64>,
    socket_io: OnceLock<Frame>,
    json: OnceLock<Frame>,
    timed: AtomicBool,
}

impl Broadcast {
    /// Returns whether nobody has asked this before.
    pub(crate) fn is_untimed(&self) -> bool {
        // The read alone keeps the line shared among the cores that write to a large room.
        !self.timed.load(Ordering::Relaxed) && !self.timed.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn new(event: Event, room: Room, sequence: Option<u64>, set: Option<(u64, u64)>) -> Self {
        Self {
            event,
            room,
            sequence,
            set,
            overflow: Overflow::CloseAndRecover,
            expires: false,
            list: None,
            socket_io: OnceLock::new(),
            json: OnceLock::new(),
            timed: AtomicBool::new(false),
        }
    }

    /// Says what a client's full queue does with the event.
    #[must_use]
    pub(crate) fn on_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Says whether the event has a time to live.
    #[must_use]
    pub(crate) fn expiring(mut self, expires: bool) -> Self {
        self.expires = expires;
        self
    }

    /// Marks a signal as one copy of several for a list of rooms.
    #[must_use]
    pub(crate) fn of_list(mut self, set: &str) -> Self {
        let list = set.rsplitn(3, ';').nth(2).unwrap_or(set);
        self.list = self.sequence.is_none().then(|| number_of(list));
        self
    }

    /// Returns whether the connection is left out.
    pub(crate) fn excludes(&self, sid: &str) -> bool {
        self.event
            .except
            .as_ref()
            .is_some_and(|except| except.split(',').any(|excluded| excluded == sid))
    }

    /// Returns about how many bytes the event takes.
    pub(crate) fn size(&self) -> usize {
        self.event.payload.json().len() + self.event.name.len() + 128
    }

    /// Returns the event in a wire format, encoded at the first call.
    pub(crate) fn frame(&self, wire: Wire, style: &Style) -> &Frame {
        match wire {
            Wire::SocketIo => self.socket_io.get_or_init(|| self.encode_socket_io(style)),
            Wire::Json => self.json.get_or_init(|| self.encode_json(style)),
        }
    }

    fn encode_socket_io(&self, style: &Style) -> Frame {
        let arguments = self.event.payload.arguments();
        let carries = style
            .recovery
            .then(|| self.sequence.or_else(|| offset_for_signal(arguments)))
            .flatten();
        let extracted = binary::extract(arguments, MAX_SENT_ATTACHMENTS);
        let (arguments, attachments) = match &extracted {
            Some(extracted) => (&*extracted.json, &extracted.attachments[..]),
            None => (arguments, &[][..]),
        };
        let text = socketio::encode::Event {
            namespace: &style.namespace,
            id: None,
            name: &self.event.name,
            arguments,
            attachments: attachments.len(),
            offset: carries.map(|sequence| Offset {
                epoch: style.epoch,
                sequence,
            }),
        };
        let chunk = Chunk::written(self.size(), |out| {
            out.push(carillon_protocol::engineio::MESSAGE);
            text.write(out);
        });
        let attachments = attachments.iter().map(|bytes| Chunk::new(Opcode::Binary, bytes));
        self.finish(chunk, attachments.collect(), carries)
    }

    fn encode_json(&self, style: &Style) -> Frame {
        let carries = self.sequence.filter(|_| style.recovery);
        let text = clientjson::encode::Event {
            topic: self.room.as_str(),
            time: self.event.time,
            name: &self.event.name,
            id: self.event.id.as_deref(),
            payload: &self.event.payload,
            ask: None,
            offset: carries.map(|sequence| Offset {
                epoch: style.epoch,
                sequence,
            }),
        };
        self.finish(
            Chunk::written(self.size() + self.room.as_str().len(), |out| text.write(out)),
            Vec::new(),
            carries,
        )
    }

    fn finish(&self, mut text: Chunk, attachments: Vec<Chunk>, carries: Option<u64>) -> Frame {
        // What follows a text with attachments must not be torn from it. An event that has to be recovered does not go for
        // one of a room that may lose some, and a copy of a list stands for those of rooms that may not.
        let may_go =
            attachments.is_empty() && self.set.is_none() && self.overflow != Overflow::CloseAndRecover;
        text.droppable = may_go.then(|| room_number(&self.room));
        Frame {
            text,
            attachments,
            carries,
        }
    }
}

/// The stock client takes any trailing string for an offset, even the event's name: a signal that has no
/// arguments or ends in a string must be followed by the connection's own offset.
fn offset_for_signal(arguments: &str) -> Option<u64> {
    let last = arguments.trim_end().as_bytes().last();
    matches!(last, None | Some(b'"')).then_some(u64::MAX)
}

/// Returns a number that tells rooms apart where a rare mistake does no harm.
fn room_number(room: &Room) -> u64 {
    number_of(room.as_str())
}

fn number_of(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};

    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use carillon_protocol::event::Payload;

    use super::*;

    fn style() -> Style {
        Style {
            namespace: "/".to_owned(),
            recovery: true,
            epoch: 1,
        }
    }

    fn text(broadcast: &Broadcast, wire: Wire, last: u64) -> String {
        let (chunk, _) = broadcast.frame(wire, &style()).chunks(last, 1);
        String::from_utf8(chunk.payload().to_vec()).unwrap()
    }

    fn event(payload: &str) -> Event {
        let payload = Payload::One(Bytes::copy_from_slice(payload.as_bytes()));
        Event {
            name: "e".to_owned(),
            payload,
            id: None,
            except: Some("a,b".to_owned()),
            time: 5,
        }
    }

    #[test]
    fn an_event_is_timed_once_for_certain() {
        let room = Room::new("chat").unwrap();
        let first = Broadcast::new(event("1"), room.clone(), Some(1), None);
        assert!(first.is_untimed() && !first.is_untimed());
        assert!(Broadcast::new(event("1"), room, Some(2), None).is_untimed());
    }

    #[test]
    fn an_event_that_has_to_be_recovered_does_not_go_for_one_of_another_room() {
        let droppable = |overflow| {
            let room = Room::new("r").unwrap();
            let broadcast = Broadcast::new(event("1"), room, Some(7), None).on_overflow(overflow);
            let (chunk, _) = broadcast.frame(Wire::SocketIo, &style()).chunks(7, 1);
            chunk.droppable
        };
        assert_eq!(droppable(Overflow::CloseAndRecover), None);
        assert!(droppable(Overflow::DropOldest).is_some());
        assert_eq!(droppable(Overflow::LatestOnly), droppable(Overflow::DropOldest));
    }

    #[test]
    fn a_durable_frame_carries_its_own_or_the_connections_sequence() {
        let broadcast = Broadcast::new(event(r#"{"n":1}"#), Room::new("r").unwrap(), Some(7), None);
        assert_eq!(
            text(&broadcast, Wire::SocketIo, 7),
            r#"42["e",{"n":1},"00000001000000000007"]"#
        );
        assert_eq!(
            text(&broadcast, Wire::SocketIo, 16),
            r#"42["e",{"n":1},"00000001000000000010"]"#
        );
        let json = text(&broadcast, Wire::Json, 16);
        assert_eq!(
            json,
            r#"{"topic":"r","ts":5,"event":"e","payload":{"n":1},"offset":"00000001000000000010"}"#
        );
    }

    #[test]
    fn a_signal_is_followed_by_an_offset_only_where_a_client_would_misread_it() {
        let object = Broadcast::new(event(r#"{"n":1}"#), Room::new("r").unwrap(), None, None);
        assert_eq!(text(&object, Wire::SocketIo, 7), r#"42["e",{"n":1}]"#);
        let string = Broadcast::new(event(r#""x""#), Room::new("r").unwrap(), None, None);
        assert_eq!(
            text(&string, Wire::SocketIo, 7),
            r#"42["e","x","00000001000000000007"]"#
        );
    }

    #[test]
    fn connections_are_left_out_by_their_whole_id() {
        let broadcast = Broadcast::new(event("1"), Room::new("r").unwrap(), None, None);
        assert!(broadcast.excludes("a") && broadcast.excludes("b") && !broadcast.excludes("ab"));
    }
}
